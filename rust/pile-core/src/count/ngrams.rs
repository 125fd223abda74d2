//! Counts the n-grams of a token source, in bounded memory.

use std::path::PathBuf;

use super::{
    chunk::{self, Layout, Plan},
    kept::{GramSink, Keep, Keeper, LengthSummary},
    key::{Key, Wide},
    runs,
    spill::Spill,
    windows::{Cut, Windows, largest_id},
};
use crate::{Error, Result, progress::Progress, tokens::TokenSource};

/// Tokens of a chunk at least.
const MIN_CHUNK: u64 = 1 << 12;

/// How n-grams are counted.
#[derive(Debug, Clone)]
pub struct NgramConfig {
    /// Tokens or words of the n-grams, ascending.
    pub lengths: Vec<usize>,
    /// What is given.
    pub keep: Keep,
    /// Bytes of memory; what does not fit is spilled to the folder.
    pub memory: u64,
    /// Threads; what is counted is the same for any number.
    pub n_threads: usize,
    /// Folder of the unfinished job.
    pub folder: PathBuf,
    /// Bytes free there.
    pub free_bytes: u64,
    /// A digest of what is asked for: with runs of the same job the job goes on.
    pub job: String,
    /// Whether another job's runs may be thrown away.
    pub discard: bool,
}

/// The documents of a token source, in groups.
#[derive(Debug)]
pub struct Grouped<'a, S> {
    /// The tokens.
    pub source: &'a S,
    /// Number of each document's group; empty for one group.
    pub groups: &'a [u32],
    /// Groups, at least one.
    pub n_groups: usize,
}

/// Counts all n-grams of each length and gives them to what `sink` makes. With `across`, they may run from one document
/// into the next; then they are of the group of the document where they start. `progress` advances by
/// n-grams counted.
///
/// # Errors
/// No length, or one too long to be counted; ids that are no tokens; a source that cannot be read; too little
/// disk, or a failure of the file system; or a stop.
pub fn count_ngrams<'a, S: TokenSource>(
    documents: &Grouped<'_, S>,
    across: bool,
    config: &NgramConfig,
    progress: &Progress,
    sink: impl FnOnce() -> Result<Box<dyn GramSink + 'a>>,
) -> Result<Vec<LengthSummary>> {
    let id_bits = u32::BITS - largest_id(documents.source)?.max(1).leading_zeros();
    let layout = |n: usize| Layout {
        n,
        id_bits,
        group_bits: usize::BITS - (documents.n_groups - 1).leading_zeros(),
    };
    let longest = config.lengths.last().copied().unwrap_or(0);
    if config.lengths.first().is_none_or(|n| *n == 0) {
        return Err(Error::argument("n-grams have 1 token or more"));
    }
    if layout(longest).bits() > Wide::BITS {
        let most = 1 + (Wide::BITS - layout(1).bits()) / id_bits;
        return Err(Error::argument(format!(
            "n-grams of {longest} tokens: those of this dataset are counted up to n = {most}; \
             a suffix array counts longer ones"
        )));
    }
    let mut counting = Counting {
        documents,
        across,
        config,
        progress,
        spill: Spill::open(
            &config.folder,
            &config.job,
            config.discard,
            (config.free_bytes, config.memory),
            progress,
        )?,
    };
    let (mut sink, mut summaries) = (sink()?, Vec::new());
    for n in &config.lengths {
        let mut keeper = Keeper::new(*n, documents.n_groups, config.keep, &mut *sink);
        let layout = layout(*n);
        match layout.bits() {
            ..=32 => counting.count::<u32>(layout, &mut keeper),
            33..=64 => counting.count::<u64>(layout, &mut keeper),
            65..=128 => counting.count::<u128>(layout, &mut keeper),
            _ => counting.count::<Wide>(layout, &mut keeper),
        }?;
        summaries.push(keeper.finish()?);
    }
    sink.finish()?;
    Ok(summaries)
}

struct Counting<'a, S> {
    documents: &'a Grouped<'a, S>,
    across: bool,
    config: &'a NgramConfig,
    progress: &'a Progress,
    spill: Spill,
}

impl<S: TokenSource> Counting<'_, S> {
    fn count<K: Key>(&mut self, layout: Layout, keeper: &mut Keeper<'_>) -> Result<()> {
        let source = self.documents.source;
        let windows = Windows {
            source,
            n: layout.n,
            across: self.across,
            groups: self.documents.groups,
        };
        let n_tokens = total(source)?;
        let what = format!("{}-grams", layout.n);
        // What an earlier start has spilled stays, whatever memory it had.
        let mut start = self.spill.end(&what);
        self.progress.advance(start)?;
        let mut at = place(source, start)?;
        while start < n_tokens {
            at.n_tokens = n_tokens - start;
            let plan = self.fitting::<K>(&windows, layout, at)?;
            let end = start + plan.n_tokens();
            if (start, end) == (0, n_tokens) {
                return plan.count::<K>(self.progress, |part| {
                    runs::each(&part, |key, group, count| match self.documents.n_groups {
                        1 => keeper.add_whole(key, count),
                        _ => keeper.add(key, group, count),
                    })
                });
            }
            // As many bytes a token as before, or as if all n-grams were different.
            let before = self.spill.n_bytes(layout.n) as f64 / start as f64;
            let each = if start > 0 {
                before
            } else {
                (chunk::ID_BYTES * layout.n + 3) as f64
            };
            self.spill
                .check_room((each * (n_tokens - start) as f64) as u64)?;
            let making = self.spill.begin();
            self.spill.write(&making, layout.n, |run| {
                plan.count::<K>(self.progress, |part| run.append(&part))
            })?;
            self.spill.keep(making, (&what, end), Vec::new())?;
            (start, at) = (end, place(source, end)?);
        }
        self.spill
            .merge(layout.n, |key, group, count| keeper.add(key, group, count))
    }

    /// A plan for as many of the tokens as can be counted in the memory.
    fn fitting<'a, K: Key>(
        &self,
        windows: &'a Windows<'a, S>,
        layout: Layout,
        mut at: Cut,
    ) -> Result<Plan<'a, S>> {
        let Self { config, .. } = self;
        let most = chunk::most_tokens::<K>(layout.n, config.memory);
        at.n_tokens = at.n_tokens.min(most.clamp(MIN_CHUNK, u64::from(u32::MAX)));
        loop {
            let plan = Plan::new::<K>(
                windows,
                layout,
                at,
                (config.n_threads.max(1), config.memory),
            )?;
            if plan.n_bytes::<K>() <= config.memory || at.n_tokens <= MIN_CHUNK {
                return Ok(plan);
            }
            at.n_tokens = (at.n_tokens / 2).max(MIN_CHUNK);
        }
    }
}

/// Tokens of all documents.
fn total(source: &impl TokenSource) -> Result<u64> {
    (0..source.n_documents())
        .map(|document| source.document_length(document))
        .sum()
}

/// Where a token stands, of all tokens one after the other.
fn place(source: &impl TokenSource, mut token: u64) -> Result<Cut> {
    let mut document = 0;
    while document < source.n_documents() && token >= source.document_length(document)? {
        token -= source.document_length(document)?;
        document += 1;
    }
    Ok(Cut {
        document,
        token,
        n_tokens: 0,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tokens::{Span, TokenType};
    use proptest::{collection::vec, prelude::*};
    use std::{cell::RefCell, collections::BTreeMap, rc::Rc};

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

    type All = Vec<(Vec<u8>, u64, Vec<u64>)>;

    #[derive(Clone, Default)]
    struct Collected(Rc<RefCell<All>>);

    impl GramSink for Collected {
        fn take(&mut self, gram: &Gram<'_>) -> Result<()> {
            let gram = (gram.key.to_vec(), gram.count, gram.by_group.to_vec());
            self.0.borrow_mut().push(gram);
            Ok(())
        }

        fn finish(self: Box<Self>) -> Result<()> {
            Ok(())
        }
    }

    use super::super::kept::Gram;

    fn naively(documents: &[Vec<u32>], groups: &[u32], n: usize, across: bool) -> All {
        let mut counts: BTreeMap<Vec<u8>, Vec<u64>> = BTreeMap::new();
        let all: Vec<(u32, u32)> = documents
            .iter()
            .zip(groups)
            .flat_map(|(tokens, group)| tokens.iter().map(|t| (*t, *group)))
            .collect();
        let mut add = |gram: &[(u32, u32)]| {
            let key = gram.iter().flat_map(|(t, _)| t.to_be_bytes()).collect();
            counts.entry(key).or_insert(vec![0; 3])[gram[0].1 as usize] += 1;
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
        counts.map(|(key, of)| (key, of.iter().sum(), of)).collect()
    }

    fn counted(
        documents: &Documents,
        groups: &[u32],
        (n, across, memory, n_threads): (usize, bool, u64, usize),
    ) -> All {
        let folder = tempfile::tempdir().unwrap();
        let config = NgramConfig {
            lengths: vec![n],
            keep: Keep {
                min_count: 0,
                top: None,
            },
            memory,
            n_threads,
            folder: folder.path().to_owned(),
            free_bytes: u64::MAX,
            job: "job".to_owned(),
            discard: false,
        };
        let grouped = Grouped {
            source: documents,
            groups,
            n_groups: 3,
        };
        let sink = Collected::default();
        let boxed = Box::new(sink.clone());
        let told = count_ngrams(&grouped, across, &config, &Progress::default(), || {
            Ok(boxed)
        })
        .unwrap();
        let all = sink.0.take();
        assert_eq!(told[0].n_distinct, all.len() as u64);
        assert_eq!(
            told[0].n_occurrences,
            all.iter().map(|gram| gram.1).sum::<u64>()
        );
        all
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        #[test]
        fn as_a_naive_count(
            documents in vec((vec(0_u32..5, 0..30), 0_u32..3), 0..12),
            n in 1_usize..35,
            across: bool,
            large: bool,
            n_threads in 1_usize..4,
        ) {
            // The largest ids of each type that are counted.
            let (of_type, top) = match large {
                true => (TokenType::I32, 131_071),
                false => (TokenType::U16, 65_535),
            };
            // With two bits for the group these fill the widest key.
            let n = if large { n.min(31) } else { n.min(32) };
            let groups: Vec<u32> = documents.iter().map(|of| of.1).collect();
            let tokens: Vec<Vec<u32>> = documents
                .iter()
                .map(|of| of.0.iter().map(|t| top - t * 1000).collect())
                .collect();
            let expected = naively(&tokens, &groups, n, across);
            let source = Documents(of_type, tokens);
            prop_assert_eq!(counted(&source, &groups, (n, across, 1 << 30, n_threads)), expected);
        }
    }

    #[test]
    fn little_memory_spills_and_changes_nothing() {
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
                let expected = naively(&source.1, &groups, n, across);
                for n_threads in [1, 2] {
                    let found = counted(&source, &groups, (n, across, 1, n_threads));
                    assert_eq!(found, expected, "{n} {across} {n_threads}");
                }
            }
        }
    }
}
