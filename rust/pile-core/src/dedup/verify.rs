//! Verification: copies are compared byte by byte, candidate pairs by their shingles.

use std::{cmp::Ordering, path::Path, thread};

use serde::{Deserialize, Serialize};

use super::{
    NearConfig, Verification,
    candidates::{Candidates, RankPair},
    documents::Documents,
    exact::ExactGroups,
    ranks::Ranks,
    spill::SpilledDocuments,
    stored::DocumentSignatures,
};
use crate::{
    Result,
    io::{RecordFile, RecordWriter, spawn},
    progress::Progress,
};

/// Pairs that are verified between two checks for a stop.
const CHUNK_PAIRS: usize = 1 << 14;

/// Documents among which copies are compared between two checks for a stop.
const CHUNK_DOCUMENTS: usize = 1 << 14;

/// Bins of [`PairCounts::histogram`].
const N_BINS: u64 = 100;

/// The documents that are compared.
pub(super) struct ComparedTexts<'a> {
    pub(super) documents: &'a Documents,
    pub(super) spilled: &'a SpilledDocuments<'a>,
    /// Of all documents, if there are some whose texts were not read.
    pub(super) signatures: DocumentSignatures,
    /// Number of first documents whose texts were not read.
    pub(super) n_estimated: u32,
}

impl ComparedTexts<'_> {
    /// Whether the text of one of two documents was not read.
    fn is_estimated(&self, a: u32, b: u32) -> bool {
        a.min(b) < self.n_estimated
    }

    /// Whether two documents have the same text: if it was not read, the same hash of 128 bits.
    fn are_equal(&self, a: u32, b: u32) -> Result<bool> {
        match self.is_estimated(a, b) {
            true => Ok(self.documents.row(a).hash == self.documents.row(b).hash),
            false => Ok(self.spilled.get(a)?.text == self.spilled.get(b)?.text),
        }
    }
}

/// Removes documents whose texts differ from the preferred member's from their groups.
pub(super) fn verify_copies(
    groups: &mut ExactGroups,
    texts: &ComparedTexts<'_>,
    n_threads: usize,
    progress: &Progress,
) -> Result<()> {
    let n_documents = groups.preferred.len();
    for start in (0..n_documents).step_by(CHUNK_DOCUMENTS) {
        let end = n_documents.min(start + CHUNK_DOCUMENTS) as u32;
        let copies: Vec<(u32, u32)> = groups.copies(start as u32..end).collect();
        let are_equal = map_chunk(&copies, n_threads, |(document, preferred)| {
            texts.are_equal(*document, *preferred)
        })?;
        for ((document, _), is_equal) in copies.iter().zip(are_equal) {
            if !is_equal {
                groups.preferred[*document as usize] = *document;
            }
        }
        progress.advance(0)?;
    }
    Ok(())
}

/// A verified pair, and its similarity.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct VerifiedPair {
    pub(super) pair: RankPair,
    pub(super) similarity: f64,
}

impl VerifiedPair {
    pub(super) fn pack(self) -> [u64; 2] {
        [self.pair.pack(), self.similarity.to_bits()]
    }

    pub(super) fn unpack([pair, similarity]: [u64; 2]) -> Self {
        Self {
            pair: RankPair::unpack(pair),
            similarity: f64::from_bits(similarity),
        }
    }
}

/// How many pairs were candidates, and how similar they are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct PairCounts {
    pub(super) n_candidates: u64,
    pub(super) n_verified: u64,
    /// Candidates by similarity: the first bin is from 0 to below 0.01, the last one from 0.99 to 1.
    pub(super) histogram: Vec<u64>,
}

impl PairCounts {
    pub(super) fn new() -> Self {
        Self {
            n_candidates: 0,
            n_verified: 0,
            histogram: vec![0; N_BINS as usize],
        }
    }

    /// Adds the counts of other pairs.
    pub(super) fn add(&mut self, other: &Self) {
        self.n_candidates += other.n_candidates;
        self.n_verified += other.n_verified;
        for (bin, n) in self.histogram.iter_mut().zip(&other.histogram) {
            *bin += n;
        }
    }
}

/// The file of the verified pairs in a job's folder for sorting.
pub(super) const VERIFIED: &str = "verified";

/// Verifies the candidate pairs. Returns those that reach the threshold, in the same order.
pub(super) fn verify_pairs(
    near: &NearConfig,
    candidates: &Candidates,
    ranks: &Ranks,
    texts: &ComparedTexts<'_>,
    n_threads: usize,
    folder: &Path,
    progress: &Progress,
) -> Result<(RecordFile, PairCounts)> {
    let mut verified = RecordWriter::create(folder.join(VERIFIED))?;
    let mut reader = candidates.pairs.read::<u64>()?;
    let counts = verify_each(
        near,
        || reader.next(),
        &ranks.documents,
        texts,
        n_threads,
        |pair| verified.push(pair.pack()),
        progress,
    )?;
    Ok((verified.finish()?, counts))
}

/// Verifies the packed pairs that `next` returns, and calls `take` with those that reach the threshold, in order.
/// `documents` has the document of each rank.
pub(super) fn verify_each(
    near: &NearConfig,
    mut next: impl FnMut() -> Result<Option<u64>>,
    documents: &[u32],
    texts: &ComparedTexts<'_>,
    n_threads: usize,
    mut take: impl FnMut(VerifiedPair) -> Result<()>,
    progress: &Progress,
) -> Result<PairCounts> {
    let mut counts = PairCounts::new();
    let mut chunk = Vec::new();
    loop {
        chunk.clear();
        while chunk.len() < CHUNK_PAIRS
            && let Some(pair) = next()?
        {
            chunk.push(RankPair::unpack(pair));
        }
        if chunk.is_empty() {
            return Ok(counts);
        }
        counts.n_candidates += chunk.len() as u64;
        let overlaps = map_chunk(&chunk, n_threads, |pair| {
            let [a, b] = [pair.preferred, pair.other].map(|rank| documents[rank as usize]);
            if texts.is_estimated(a, b) {
                let signature = |document| texts.signatures.get(texts.documents, document);
                return Ok(Overlap::estimate(signature(a)?, signature(b)?));
            }
            let (a, b) = (texts.spilled.get(a)?, texts.spilled.get(b)?);
            Ok(Overlap::of(a.shingles, b.shingles, near.verification))
        })?;
        for (pair, overlap) in chunk.iter().zip(overlaps) {
            let bin = overlap.shared * N_BINS / overlap.all.max(1);
            counts.histogram[bin.min(N_BINS - 1) as usize] += 1;
            // The rows of stored signatures are not checked, and may claim shingles for texts that have none: 0
            // shingles of 0 would reach any threshold.
            if overlap.shared > 0 && near.threshold.is_reached(overlap.shared, overlap.all) {
                counts.n_verified += 1;
                let similarity = overlap.shared as f64 / overlap.all as f64;
                take(VerifiedPair {
                    pair: *pair,
                    similarity,
                })?;
            }
        }
        progress.advance(0)?;
    }
}

/// The numerator and denominator of a similarity.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Overlap {
    shared: u64,
    all: u64,
}

impl Overlap {
    fn of(a: &[u64], b: &[u64], verification: Verification) -> Self {
        let shared = n_shared(a, b);
        let (a, b) = (a.len() as u64, b.len() as u64);
        let all = match verification {
            Verification::Jaccard => a + b - shared,
            Verification::Containment => a.min(b),
        };
        Self { shared, all }
    }

    /// The share of equal numbers in two signatures, which estimates the Jaccard similarity.
    fn estimate(a: &[u32], b: &[u32]) -> Self {
        let equal = a.iter().zip(b).filter(|(a, b)| a == b);
        Self {
            shared: equal.count() as u64,
            all: a.len() as u64,
        }
    }
}

/// Numbers in both of two ascending slices without repetitions.
fn n_shared(mut a: &[u64], mut b: &[u64]) -> u64 {
    let mut n = 0;
    while let (Some(first_a), Some(first_b)) = (a.first(), b.first()) {
        let order = first_a.cmp(first_b);
        n += u64::from(order == Ordering::Equal);
        // Without branches that depend on the numbers, which are random.
        a = &a[usize::from(order != Ordering::Greater)..];
        b = &b[usize::from(order != Ordering::Less)..];
    }
    n
}

/// The results of `work` for all items, in order, by several threads.
///
/// # Errors
/// The first error in the order of the items.
fn map_chunk<T: Sync, R: Send>(
    items: &[T],
    n_threads: usize,
    work: impl Fn(&T) -> Result<R> + Sync,
) -> Result<Vec<R>> {
    let n_per_thread = items.len().div_ceil(n_threads.max(1)).max(1);
    let work = &work;
    let parts = thread::scope(|scope| {
        // `Iterator::map` by its path: the type of `part` is only known from the use of `start`.
        let start = |part| {
            spawn(scope, move || {
                Iterator::map(<[T]>::iter(part), work).collect::<Result<Vec<R>>>()
            })
        };
        let threads = items
            .chunks(n_per_thread)
            .map(start)
            .collect::<Result<Vec<_>>>()?;
        let join = |thread: thread::ScopedJoinHandle<'_, Result<Vec<R>>>| {
            thread
                .join()
                .unwrap_or_else(|payload| std::panic::resume_unwind(payload))
        };
        threads.into_iter().map(join).collect::<Result<Vec<_>>>()
    })?;
    Ok(parts.into_iter().flatten().collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Error;
    use proptest::{collection::btree_set, prelude::*};

    proptest! {
        #[test]
        fn overlaps_are_those_of_sets(a in btree_set(0_u64..40, 1..30), b in btree_set(0_u64..40, 1..30)) {
            let (shared, union) = (a.intersection(&b).count() as u64, a.union(&b).count() as u64);
            let smaller = a.len().min(b.len()) as u64;
            let (a, b): (Vec<_>, Vec<_>) = (a.into_iter().collect(), b.into_iter().collect());
            let of = |verification| Overlap::of(&a, &b, verification);
            prop_assert_eq!(of(Verification::Jaccard), Overlap { shared, all: union });
            prop_assert_eq!(of(Verification::Containment), Overlap { shared, all: smaller });
        }
    }

    #[test]
    fn results_are_in_order_and_the_first_error_is_returned() {
        let items: Vec<u32> = (0..100).collect();
        for n_threads in [0, 1, 3, 200] {
            let doubled = map_chunk(&items, n_threads, |n| Ok(2 * n)).unwrap();
            assert!((0..100).map(|n| 2 * n).eq(doubled));
            let failed = map_chunk(&items, n_threads, |n| match n {
                0..40 => Ok(()),
                _ => Err(Error::argument(format!("at {n}"))),
            });
            assert_eq!(failed.unwrap_err().to_string(), "at 40");
        }
    }
}
