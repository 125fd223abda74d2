//! Counts the n-grams of a token source, in bounded memory.
//!
//! The tokens are counted in chunks that fit the memory. If there is one chunk, its counts are reported directly.
//! Otherwise each chunk becomes a sorted run on disk, and the runs are merged.

use std::path::{Path, PathBuf};

use super::{
    chunk_plan::{self, ChunkPlan, CountLimits, KeyLayout},
    packed_key::{PackedKey, WideKey},
    retained::{LengthSummary, NgramRetainer, NgramSink, Retention},
    runs,
    spill::{FinishedInput, Spill, SpillLimits},
    token_windows::{TokenRun, TokenWindows, largest_id},
};
use crate::{Error, Result, progress::Progress, tokens::TokenSource};

/// Minimum tokens of a chunk, even if they do not fit the memory: a job with too little of it uses a few MB more, but
/// does not leave a file for each handful of tokens.
const MIN_CHUNK_TOKENS: u64 = 1 << 12;

/// The configuration of a job that counts n-grams.
#[derive(Debug, Clone)]
pub struct NgramConfig {
    /// Tokens or words of the n-grams, ascending.
    pub lengths: Vec<usize>,
    /// Which n-grams are reported.
    pub retention: Retention,
    /// Bytes of memory for counting. Counts that do not fit are spilled to the folder.
    pub memory: u64,
    /// Number of threads. The result does not depend on it.
    pub n_threads: usize,
    /// The scratch folder.
    pub folder: PathBuf,
    /// Bytes free on the folder's disk, those of its runs included.
    pub free_bytes: u64,
    /// A digest of the job's inputs and settings. The job resumes from the folder's runs if they have the same one.
    pub job: String,
    /// Whether the runs of another job may be removed.
    pub discard: bool,
}

impl NgramConfig {
    pub(super) fn spill_limits(&self) -> SpillLimits {
        SpillLimits {
            free_bytes: self.free_bytes,
            memory: self.memory,
        }
    }
}

/// The documents of a token source, divided into groups.
#[derive(Debug)]
pub struct GroupedDocuments<'a, S> {
    /// The tokens.
    pub source: &'a S,
    /// Names the source in errors.
    pub path: &'a Path,
    /// Group of each document; empty if there is one group.
    pub groups: &'a [u32],
    /// Number of groups, at least one.
    pub n_groups: usize,
}

/// Counts all n-grams of each length and passes the retained ones to the sink that `sink` creates. Returns
/// statistics of each length.
///
/// With `across`, an n-gram may continue in the next documents. It then counts for the group of the document in
/// which it starts. `progress` advances by n-grams counted.
///
/// # Errors
/// No length, or one that is 0 or whose keys are longer than 512 bits; ids that are negative or too large; a source
/// that cannot be read; too little disk, or a failure of the file system; an error of the sink; or a stop.
pub fn count_ngrams<'a, S: TokenSource>(
    documents: &GroupedDocuments<'_, S>,
    across: bool,
    config: &NgramConfig,
    progress: &Progress,
    sink: impl FnOnce() -> Result<Box<dyn NgramSink + 'a>>,
) -> Result<Vec<LengthSummary>> {
    let id_bits = u32::BITS
        - largest_id(documents.source, documents.path)?
            .max(1)
            .leading_zeros();
    let layout = |n: usize| KeyLayout {
        n,
        id_bits,
        group_bits: usize::BITS - (documents.n_groups - 1).leading_zeros(),
    };
    let longest = config.lengths.last().copied().unwrap_or(0);
    if config.lengths.first().is_none_or(|n| *n == 0) {
        let lengths = &config.lengths;
        let what = format!("n-grams have 1 token or more, got {lengths:?}");
        return Err(Error::argument(what));
    }
    // A key has all tokens but the first, and the group. Lengths are compared instead of bits, as the bits of a very
    // long n-gram would overflow.
    let most = 1 + (WideKey::BITS - layout(1).bits()) / id_bits;
    if longest > most as usize {
        return Err(Error::argument(format!(
            "n-grams of {longest} tokens: those of this dataset are counted up to n = {most}; \
             a suffix array counts longer ones"
        )));
    }
    let mut counting = NgramCounting {
        documents,
        across,
        config,
        progress,
        spill: Spill::open(
            &config.folder,
            &config.job,
            config.discard,
            config.spill_limits(),
            progress,
        )?,
    };
    let (mut sink, mut summaries) = (sink()?, Vec::new());
    for n in &config.lengths {
        let mut retainer = NgramRetainer::new(*n, documents.n_groups, config.retention, &mut *sink);
        let layout = layout(*n);
        match layout.bits() {
            ..=32 => counting.count_length::<u32>(layout, &mut retainer),
            33..=64 => counting.count_length::<u64>(layout, &mut retainer),
            65..=128 => counting.count_length::<u128>(layout, &mut retainer),
            _ => counting.count_length::<WideKey>(layout, &mut retainer),
        }?;
        summaries.push(retainer.finish()?);
    }
    sink.finish()?;
    Ok(summaries)
}

/// A job that counts n-grams.
struct NgramCounting<'a, S> {
    documents: &'a GroupedDocuments<'a, S>,
    across: bool,
    config: &'a NgramConfig,
    progress: &'a Progress,
    spill: Spill,
}

impl<S: TokenSource> NgramCounting<'_, S> {
    /// Counts the n-grams of one length.
    fn count_length<K: PackedKey>(
        &mut self,
        layout: KeyLayout,
        retainer: &mut NgramRetainer<'_>,
    ) -> Result<()> {
        let source = self.documents.source;
        let windows = TokenWindows {
            source,
            n: layout.n,
            across: self.across,
            groups: self.documents.groups,
        };
        let n_tokens = count_tokens(source)?;
        let what = format!("{}-grams", layout.n);
        // Chunks that an interrupted run has spilled are not counted again, even if it had another memory limit.
        let mut start = self.spill.finished_end(&what);
        self.progress.advance(start)?;
        // The tokens from `start` on.
        let mut remaining = run_from(source, start, n_tokens)?;
        while start < n_tokens {
            let plan = self.plan_chunk::<K>(&windows, layout, remaining)?;
            let end = start + plan.n_tokens();
            if (start, end) == (0, n_tokens) {
                return plan.count::<K>(self.progress, |records| {
                    runs::for_each_record(&records, |key, group, count| {
                        match self.documents.n_groups {
                            1 => retainer.add_distinct(key, count),
                            _ => retainer.add(key, group, count),
                        }
                    })
                });
            }
            // Estimated by the chunks before; for the first chunk, as if all n-grams differed, with a byte each for the
            // length of the key, the group and the count.
            let bytes_per_token = match start {
                0 => (chunk_plan::ID_BYTES * layout.n + 3) as f64,
                _ => self.spill.n_bytes(layout.n) as f64 / start as f64,
            };
            self.spill
                .check_disk_space((bytes_per_token * (n_tokens - start) as f64) as u64)?;
            let pending = self.spill.begin();
            self.spill.write(&pending, layout.n, |run| {
                plan.count::<K>(self.progress, |records| run.append(&records))
            })?;
            let finished = FinishedInput {
                what: what.clone(),
                end,
            };
            self.spill.finish_input(pending, finished, Vec::new())?;
            (start, remaining) = (end, run_from(source, end, n_tokens)?);
        }
        let n_groups = self.documents.n_groups;
        self.spill.merge(layout.n, n_groups, |key, group, count| {
            retainer.add(key, group, count)
        })
    }

    /// A plan of a chunk from the start of `remaining` that fits the memory, or has [`MIN_CHUNK_TOKENS`].
    fn plan_chunk<'a, K: PackedKey>(
        &self,
        windows: &'a TokenWindows<'a, S>,
        layout: KeyLayout,
        remaining: TokenRun,
    ) -> Result<ChunkPlan<'a, S>> {
        let limits = CountLimits {
            n_threads: self.config.n_threads.max(1),
            memory: self.config.memory,
        };
        let most = chunk_plan::max_tokens::<K>(layout.n, limits.memory);
        let most = most.clamp(MIN_CHUNK_TOKENS, u64::from(u32::MAX));
        let mut chunk = remaining;
        chunk.n_tokens = chunk.n_tokens.min(most);
        loop {
            let plan = ChunkPlan::new::<K>(windows, layout, chunk, limits)?;
            if plan.n_bytes::<K>() <= limits.memory || chunk.n_tokens <= MIN_CHUNK_TOKENS {
                return Ok(plan);
            }
            chunk.n_tokens = (chunk.n_tokens / 2).max(MIN_CHUNK_TOKENS);
        }
    }
}

/// Tokens of all documents.
fn count_tokens(source: &impl TokenSource) -> Result<u64> {
    (0..source.n_documents())
        .map(|document| source.document_length(document))
        .sum()
}

/// The tokens from number `start` to number `end`, counted across documents.
fn run_from(source: &impl TokenSource, start: u64, end: u64) -> Result<TokenRun> {
    let (mut document, mut token) = (0, start);
    while document < source.n_documents() && token >= source.document_length(document)? {
        token -= source.document_length(document)?;
        document += 1;
    }
    Ok(TokenRun {
        document,
        token,
        // A resumed state may claim more tokens than there are.
        n_tokens: end.saturating_sub(start),
    })
}

#[cfg(test)]
mod tests {
    use super::{
        super::retained::collect::{AllNgrams, CollectNgrams},
        *,
    };
    use crate::tokens::{Span, TokenType};
    use proptest::{collection::vec, prelude::*};
    use std::{collections::BTreeMap, path::Path};

    /// Documents in memory.
    struct Documents(TokenType, Vec<Vec<u32>>);

    impl TokenSource for Documents {
        fn n_documents(&self) -> u64 {
            self.1.len() as u64
        }

        fn document_length(&self, document: u64) -> Result<u64> {
            Ok(self.1[document as usize].len() as u64)
        }

        fn token_type(&self) -> TokenType {
            self.0
        }

        fn read(&self, spans: &[Span], out: &mut [u8]) -> Result<usize> {
            let mut bytes = Vec::new();
            for span in spans {
                let tokens = &self.1[span.document as usize][span.start as usize..];
                self.0
                    .encode_all(&tokens[..span.length as usize], &mut bytes);
            }
            out[..bytes.len()].copy_from_slice(&bytes);
            Ok(bytes.len())
        }
    }

    fn count_naively(documents: &[Vec<u32>], groups: &[u32], n: usize, across: bool) -> AllNgrams {
        let mut counts: BTreeMap<Vec<u8>, Vec<u64>> = BTreeMap::new();
        let all: Vec<(u32, u32)> = documents
            .iter()
            .zip(groups)
            .flat_map(|(tokens, group)| tokens.iter().map(|t| (*t, *group)))
            .collect();
        let mut add = |ngram: &[(u32, u32)]| {
            let key = ngram.iter().flat_map(|(t, _)| t.to_be_bytes()).collect();
            counts.entry(key).or_insert(vec![0; 3])[ngram[0].1 as usize] += 1;
        };
        if across {
            all.windows(n).for_each(&mut add);
        } else {
            let mut start = 0;
            for tokens in documents {
                all[start..start + tokens.len()]
                    .windows(n)
                    .for_each(&mut add);
                start += tokens.len();
            }
        }
        let counts = counts.into_iter();
        counts
            .map(|(key, by_group)| (key, by_group.iter().sum(), by_group))
            .collect()
    }

    /// How a test counts.
    struct Case {
        n: usize,
        across: bool,
        memory: u64,
        n_threads: usize,
    }

    fn config(folder: &Path, memory: u64, n_threads: usize) -> NgramConfig {
        NgramConfig {
            lengths: Vec::new(),
            retention: Retention {
                min_count: 0,
                top: None,
            },
            memory,
            n_threads,
            folder: folder.to_owned(),
            free_bytes: u64::MAX,
            job: "job".to_owned(),
            discard: false,
        }
    }

    fn count_all(documents: &Documents, groups: &[u32], case: Case) -> AllNgrams {
        let folder = tempfile::tempdir().unwrap();
        let config = NgramConfig {
            lengths: vec![case.n],
            ..config(folder.path(), case.memory, case.n_threads)
        };
        let grouped = GroupedDocuments {
            path: Path::new("d"),
            source: documents,
            groups,
            n_groups: 3,
        };
        let sink = CollectNgrams::default();
        let boxed = Box::new(sink.clone());
        let summaries = count_ngrams(&grouped, case.across, &config, &Progress::default(), || {
            Ok(boxed)
        })
        .unwrap();
        let all = sink.0.take();
        assert_eq!(summaries[0].n_distinct, all.len() as u64);
        assert_eq!(
            summaries[0].n_occurrences,
            all.iter().map(|ngram| ngram.1).sum::<u64>()
        );
        all
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        #[test]
        fn equals_a_naive_count(
            documents in vec((vec(0_u32..5, 0..30), 0_u32..3), 0..12),
            n in 1_usize..35,
            across: bool,
            large: bool,
            n_threads in 1_usize..4,
        ) {
            // The largest ids that this test counts, by type.
            let (token_type, top) = match large {
                true => (TokenType::I32, 131_071),
                false => (TokenType::U16, 65_535),
            };
            // The longest n-grams whose keys, with two bits for the group, fit the widest key.
            let n = if large { n.min(31) } else { n.min(32) };
            let groups: Vec<u32> = documents.iter().map(|document| document.1).collect();
            let tokens: Vec<Vec<u32>> = documents
                .iter()
                .map(|document| document.0.iter().map(|t| top - t * 1000).collect())
                .collect();
            let expected = count_naively(&tokens, &groups, n, across);
            let source = Documents(token_type, tokens);
            let case = Case { n, across, memory: 1 << 30, n_threads };
            prop_assert_eq!(count_all(&source, &groups, case), expected);
        }
    }

    #[test]
    fn n_grams_that_fit_no_key_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let source = Documents(TokenType::U16, vec![vec![1, 2, 3]]);
        let documents = GroupedDocuments {
            path: Path::new("d"),
            source: &source,
            groups: &[],
            n_groups: 1,
        };
        // The bits of the last two n-grams, as a `u32`, overflow to 0.
        for n in [0, 34, (1 << 28) + 1, (1 << 32) + 1] {
            let config = NgramConfig {
                lengths: vec![n],
                ..config(folder.path(), 1 << 20, 1)
            };
            let sink = || -> Result<Box<dyn NgramSink>> { Ok(Box::<CollectNgrams>::default()) };
            let counted = count_ngrams(&documents, false, &config, &Progress::default(), sink);
            let err = counted.unwrap_err().to_string();
            assert!(err.starts_with("n-grams "), "{err}");
        }
    }

    #[test]
    fn spilling_does_not_change_the_counts() {
        let mut state = 7_u32;
        let mut token = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) % 40
        };
        let tokens: Vec<Vec<u32>> = (0..300)
            .map(|i| (0..i).map(|_| token()).collect())
            .collect();
        let groups: Vec<u32> = (0..300).map(|i| i % 3).collect();
        let source = Documents(TokenType::U16, tokens);
        for n in [1, 2, 3, 6] {
            for across in [false, true] {
                let expected = count_naively(&source.1, &groups, n, across);
                for n_threads in [1, 2] {
                    let case = Case {
                        n,
                        across,
                        memory: 1,
                        n_threads,
                    };
                    let found = count_all(&source, &groups, case);
                    assert_eq!(found, expected, "{n} {across} {n_threads}");
                }
            }
        }
    }
}
