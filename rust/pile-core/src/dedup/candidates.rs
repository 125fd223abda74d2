//! Candidate pairs: documents that share a band of their signatures.

use std::path::Path;

use super::{
    NearConfig,
    documents::{Documents, numbers},
    exact::ExactGroups,
    hash::hash_rows,
    ranks::Ranks,
    stored::SignatureFiles,
};
use crate::{
    Result,
    io::{ExternalSort, RecordFile, RecordWriter},
    progress::Progress,
};

/// Maximum members of a bucket all of whose pairs are candidates.
const MAX_BUCKET: usize = 64;

/// In larger buckets, a member is a candidate with this number of members before it, and of first ones.
const N_PARTNERS: usize = 16;

/// A pair of ranks, packed so that pairs sort by the second, less preferred one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct RankPair {
    pub(super) preferred: u32,
    pub(super) other: u32,
}

impl RankPair {
    pub(super) fn pack(self) -> u64 {
        u64::from(self.other) << 32 | u64::from(self.preferred)
    }

    pub(super) fn unpack(packed: u64) -> Self {
        Self {
            preferred: packed as u32,
            other: (packed >> 32) as u32,
        }
    }
}

/// The distinct candidate pairs in a file, packed and ascending.
pub(super) struct Candidates {
    pub(super) pairs: RecordFile,
    /// Buckets of more than [`MAX_BUCKET`] members, some of whose pairs may be no candidates.
    pub(super) n_capped_buckets: u64,
}

/// Finds the candidate pairs. Copies take no part: they have the pairs of their group's preferred member. Documents of
/// the first `n_older` shards are no candidates with each other.
pub(super) fn find_candidates(
    near: &NearConfig,
    signatures: &SignatureFiles<'_>,
    (documents, ranks, groups): (&Documents, &Ranks, &ExactGroups),
    n_older: usize,
    memory: u64,
    folder: &Path,
    progress: &Progress,
) -> Result<Candidates> {
    let mut bands = ExternalSort::new(folder, "bands", memory / 2);
    for index in 0..documents.n_shards() {
        let width = near.permutations as u64 * size_of::<u32>() as u64;
        let signatures = signatures.open(index)?;
        let first = documents.first(index);
        for document in first..documents.end_of(index + 1) {
            let i = u64::from(document - first);
            if groups.is_copy(document) || documents.row(document).n_shingles == 0 {
                continue;
            }
            let signature: &[u32] = numbers(&signatures, i * width, near.permutations as u64)?;
            let rank = u128::from(ranks.of_document[document as usize]);
            let rows = signature.chunks_exact(near.bands.rows);
            for (band, rows) in (0_u128..).zip(rows.take(near.bands.bands)) {
                bands.push(band << 96 | u128::from(hash_rows(rows)) << 32 | rank)?;
            }
        }
        progress.advance(0)?;
    }
    let mut pairs = ExternalSort::new(folder, "pairs", memory / 2);
    let older = documents.end_of(n_older);
    let is_older = |rank: u32| ranks.documents[rank as usize] < older;
    let n_capped_buckets = pair_buckets(bands, is_older, &mut pairs, progress)?;
    Ok(Candidates {
        pairs: write_distinct(pairs, folder, progress)?,
        n_capped_buckets,
    })
}

/// Adds the candidate pairs of all buckets, whose records have the bucket above the 32 bits of the rank, and returns
/// how many buckets were too large for all their pairs. Older documents are no candidates with each other.
pub(super) fn pair_buckets(
    bands: ExternalSort<u128>,
    is_older: impl Fn(u32) -> bool,
    pairs: &mut ExternalSort<u64>,
    progress: &Progress,
) -> Result<u64> {
    let mut push = |pair: RankPair| match is_older(pair.preferred) && is_older(pair.other) {
        true => Ok(()),
        false => pairs.push(pair.pack()),
    };
    let mut n_capped_buckets = 0;
    let mut bucket = Vec::new();
    let mut key = None;
    bands.for_each(progress, |record| {
        if key != Some(record >> 32) {
            n_capped_buckets += u64::from(bucket.len() > MAX_BUCKET);
            pair_members(&bucket, &mut push)?;
            bucket.clear();
            key = Some(record >> 32);
        }
        bucket.push(record as u32);
        Ok(())
    })?;
    n_capped_buckets += u64::from(bucket.len() > MAX_BUCKET);
    pair_members(&bucket, &mut push)?;
    Ok(n_capped_buckets)
}

/// Calls `take` with the candidate pairs of a bucket, whose members ascend.
fn pair_members(bucket: &[u32], mut take: impl FnMut(RankPair) -> Result<()>) -> Result<()> {
    for (index, other) in bucket.iter().enumerate() {
        let (first, before) = match bucket.len() > MAX_BUCKET {
            false => (0..0, 0..index),
            true => {
                let start = index.saturating_sub(N_PARTNERS);
                (0..start.min(N_PARTNERS), start..index)
            }
        };
        for partner in first.chain(before) {
            take(RankPair {
                preferred: bucket[partner],
                other: *other,
            })?;
        }
    }
    Ok(())
}

/// The file of the candidates in a job's folder for sorting.
pub(super) const CANDIDATES: &str = "candidates";

/// Writes the distinct pairs to a file.
pub(super) fn write_distinct(
    pairs: ExternalSort<u64>,
    folder: &Path,
    progress: &Progress,
) -> Result<RecordFile> {
    let mut distinct = RecordWriter::create(folder.join(CANDIDATES))?;
    for_each_distinct(pairs, progress, |pair| distinct.push(pair))?;
    distinct.finish()
}

/// Calls `visit` with each distinct pair, ascending.
pub(super) fn for_each_distinct(
    pairs: ExternalSort<u64>,
    progress: &Progress,
    mut visit: impl FnMut(u64) -> Result<()>,
) -> Result<()> {
    let mut last = None;
    pairs.for_each(progress, |pair| {
        if last.replace(pair) == Some(pair) {
            return Ok(());
        }
        visit(pair)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn small_buckets_have_all_pairs_and_large_ones_a_bounded_number() {
        for n in [0, 1, 2, 5, MAX_BUCKET, MAX_BUCKET + 1, 500] {
            let bucket: Vec<u32> = (0..n as u32).map(|i| 3 * i).collect();
            let mut found = Vec::new();
            pair_members(&bucket, |pair| {
                assert!(pair.preferred < pair.other);
                found.push((pair.other / 3, pair.preferred / 3));
                Ok(())
            })
            .unwrap();
            let all = (0..n as u32).flat_map(|b| (0..b).map(move |a| (b, a)));
            let is_candidate = |(b, a): &(u32, u32)| {
                n <= MAX_BUCKET || (*a as usize) < N_PARTNERS || (b - a) as usize <= N_PARTNERS
            };
            let distinct: BTreeSet<_> = found.iter().copied().collect();
            assert_eq!(distinct.len(), found.len(), "each pair comes once");
            assert_eq!(distinct, all.filter(is_candidate).collect());
        }
    }

    #[test]
    fn pairs_sort_by_the_less_preferred_document() {
        let pair = |preferred, other| RankPair { preferred, other };
        assert!(pair(7, 8).pack() < pair(1, 9).pack());
        assert_eq!(RankPair::unpack(pair(7, 8).pack()), pair(7, 8));
    }
}
