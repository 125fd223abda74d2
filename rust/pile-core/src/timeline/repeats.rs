//! Tokens that the model reads more than once. Repetition by a further epoch and repetition by a duplicate
//! document are counted separately.

use rustc_hash::FxHashMap;
use sha2::{Digest, Sha256};

use super::{parallel::in_parallel, rows::rows_that_show};
use crate::{
    Result,
    order::{Appearance, TrainingOrder},
    progress::Progress,
    tokens::{Span, TokenSource},
};

/// A document of which the model sees more than one copy, copies of its duplicates included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RepeatedDocument {
    /// The lowest number of a document with the same tokens.
    pub same_as: u64,
    /// The document.
    pub document: u64,
    /// Its tokens.
    pub n_tokens: u64,
    /// Copies of it, one per epoch, of which the run sees any part. As in [`super::sightings`], a row that
    /// holds only the token shared with the next row does not count.
    pub n_copies: u64,
    /// The first sample of the run that shows a copy of it.
    pub first_sample: u64,
    /// The last sample of the run that shows a copy of it.
    pub last_sample: u64,
}

/// What the model reads more than once.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Repeats {
    /// By interval, the tokens that were read before in their document: in another copy of it, because a blend reads
    /// a sample again, or as the last input of a padded sample (see [`RepeatsConfig::n_inputs`]).
    pub by_epoch: Vec<u64>,
    /// By interval, the tokens that were read before in a duplicate of their document, but not in the document
    /// itself.
    pub by_duplicate: Vec<u64>,
    /// The first sample with a token counted in `by_epoch`.
    pub first_by_epoch: Option<u64>,
    /// The first sample with a token counted in `by_duplicate`.
    pub first_by_duplicate: Option<u64>,
    /// The repeated documents, sorted by [`RepeatedDocument::same_as`] and number.
    pub documents: Vec<RepeatedDocument>,
}

/// Documents looked up in one pass over the order. It limits the memory of a pass.
const BATCH_DOCUMENTS: usize = 1 << 22;

/// Documents hashed by one work item.
const ITEM_DOCUMENTS: u64 = 1 << 10;

/// The part of a run in which [`repeats`] looks for repetition.
#[derive(Debug, Clone, Copy)]
pub struct RepeatsConfig {
    /// Samples of the run, from the first.
    pub n_samples: u64,
    /// Tokens of each sample that the model reads. If a sample has one more, it is only a label, and the next
    /// sample of the sequence begins with it. A shorter sample of a padded order has no such label: the token that it
    /// shares with the next sample is an input of both, and counts in both.
    pub n_inputs: u64,
    /// Samples of an interval.
    pub interval_samples: u64,
    /// Threads.
    pub n_threads: usize,
}

/// Returns what the samples of a run repeat, by interval.
///
/// Documents are duplicates if all their tokens are equal, which is decided by the first 128 bits of their
/// SHA-256. Empty documents are ignored.
///
/// # Errors
/// An order or a source that cannot be read, or a stop.
pub fn repeats<S: TokenSource>(
    order: &TrainingOrder<S>,
    config: RepeatsConfig,
    progress: &Progress,
) -> Result<Repeats> {
    order.check_range(0, config.n_samples)?;
    let config = RepeatsConfig {
        interval_samples: config.interval_samples.max(1),
        ..config
    };
    let n_intervals = config.n_samples.div_ceil(config.interval_samples) as usize;
    let mut found = Repeats {
        by_epoch: vec![0; n_intervals],
        by_duplicate: vec![0; n_intervals],
        ..Repeats::default()
    };
    let n_copies = order.n_copies()?;
    let mut classes = duplicate_classes(order.source(), config.n_threads, progress)?;
    let n_copies_of = |document: &u64| u64::from(n_copies[*document as usize]);
    classes.retain(|class| class.iter().map(n_copies_of).sum::<u64>() > 1);
    let mut remaining = classes.as_slice();
    while !remaining.is_empty() {
        let mut n = 0;
        let n_classes = remaining.iter().position(|class| {
            n += class.len();
            n > BATCH_DOCUMENTS
        });
        let (batch, later) = remaining.split_at(n_classes.unwrap_or(remaining.len()).max(1));
        RepeatCounter { config }.count_classes(order, batch, &mut found, progress)?;
        remaining = later;
    }
    Ok(found)
}

/// The non-empty documents in classes of equal tokens; a document without duplicates is a class by itself.
/// Both the classes and the documents of a class ascend.
fn duplicate_classes<S: TokenSource>(
    source: &S,
    n_threads: usize,
    progress: &Progress,
) -> Result<Vec<Vec<u64>>> {
    let n_documents = source.n_documents();
    let n_items = n_documents.div_ceil(ITEM_DOCUMENTS) as usize;
    let hashed = in_parallel(n_items, n_threads, |item, bytes: &mut Vec<u8>| {
        let first = item as u64 * ITEM_DOCUMENTS;
        let end = (first + ITEM_DOCUMENTS).min(n_documents);
        let mut hashes = Vec::with_capacity((end - first) as usize);
        for document in first..end {
            let length = source.document_length(document)?;
            if length == 0 {
                continue;
            }
            let span = Span {
                document,
                start: 0,
                length,
            };
            bytes.resize(length as usize * source.token_type().n_bytes(), 0);
            source.read(&[span], bytes)?;
            let mut digest = [0; 16];
            digest.copy_from_slice(&Sha256::digest(bytes.as_slice())[..16]);
            hashes.push((u128::from_le_bytes(digest), document));
        }
        progress.advance(end - first)?;
        Ok(hashes)
    })?;
    let mut hashes: Vec<(u128, u64)> = hashed.into_iter().flatten().collect();
    hashes.sort_unstable();
    let mut classes: Vec<Vec<u64>> = hashes
        .chunk_by(|a, b| a.0 == b.0)
        .map(|class| class.iter().map(|(_, document)| *document).collect())
        .collect();
    classes.sort_unstable();
    Ok(classes)
}

/// Replays the reads of each document in training order and counts the tokens that were read before.
struct RepeatCounter {
    config: RepeatsConfig,
}

impl RepeatCounter {
    fn count_classes<S: TokenSource>(
        &self,
        order: &TrainingOrder<S>,
        classes: &[Vec<u64>],
        found: &mut Repeats,
        progress: &Progress,
    ) -> Result<()> {
        let mut queries = Vec::new();
        for document in classes.iter().flatten() {
            queries.push(Span {
                document: *document,
                start: 0,
                length: order.source().document_length(*document)?,
            });
        }
        let mut appearances = order.appearances(&queries, progress)?.appearances;
        // Appearances are sorted by query, and a class is a range of queries.
        let (mut remaining, mut end) = (appearances.as_mut_slice(), 0);
        for class in classes {
            end += class.len() as u64;
            let n = remaining.partition_point(|appearance| appearance.query < end);
            let (of_class, later) = remaining.split_at_mut(n);
            remaining = later;
            self.count_class(class[0], &queries, of_class, found);
        }
        Ok(())
    }

    /// Counts the repetition within one class of duplicates.
    fn count_class(
        &self,
        same_as: u64,
        queries: &[Span],
        appearances: &mut [Appearance],
        found: &mut Repeats,
    ) {
        let mut documents = Vec::new();
        for of_document in appearances.chunk_by(|a, b| a.query == b.query) {
            let query = queries[of_document[0].query as usize];
            documents.extend(self.seen(same_as, query, of_document));
        }
        if documents
            .iter()
            .map(|document| document.n_copies)
            .sum::<u64>()
            > 1
        {
            found.documents.append(&mut documents);
        }
        appearances.sort_unstable_by_key(|appearance| (appearance.sample, appearance.offset));
        let n_in_run =
            appearances.partition_point(|appearance| appearance.sample < self.config.n_samples);
        self.replay(&appearances[..n_in_run], found);
    }

    /// The copies of a document that the run sees; `None` if it sees none.
    fn seen(
        &self,
        same_as: u64,
        query: Span,
        appearances: &[Appearance],
    ) -> Option<RepeatedDocument> {
        let mut n_copies = 0;
        let mut samples = Vec::new();
        for of_copy in appearances.chunk_by(|a, b| a.copy == b.copy) {
            let n_before = samples.len();
            let rows = rows_that_show(of_copy, query.length).map(|appearance| appearance.sample);
            samples.extend(rows.filter(|sample| *sample < self.config.n_samples));
            n_copies += u64::from(samples.len() > n_before);
        }
        let (first, last) = (samples.iter().min()?, samples.iter().max()?);
        Some(RepeatedDocument {
            same_as,
            document: query.document,
            n_tokens: query.length,
            n_copies,
            first_sample: *first,
            last_sample: *last,
        })
    }

    /// Replays the reads of one class, in training order.
    fn replay(&self, appearances: &[Appearance], found: &mut Repeats) {
        // The documents of a class have the same tokens: one set of read tokens is of the class, one of each
        // document.
        let mut read_in_class = TokenSet::default();
        let mut read_in_document: FxHashMap<u64, TokenSet> = FxHashMap::default();
        for appearance in appearances {
            let n_read = appearance
                .length
                .min(self.config.n_inputs.saturating_sub(appearance.offset));
            let end = appearance.start + n_read;
            let by_epoch = read_in_document
                .entry(appearance.query)
                .or_default()
                .add(appearance.start, end);
            let by_duplicate = read_in_class.add(appearance.start, end) - by_epoch;
            let interval = (appearance.sample / self.config.interval_samples) as usize;
            found.by_epoch[interval] += by_epoch;
            found.by_duplicate[interval] += by_duplicate;
            let earlier = |first: Option<u64>, n| match first {
                Some(first) if n > 0 => Some(first.min(appearance.sample)),
                None if n > 0 => Some(appearance.sample),
                first => first,
            };
            found.first_by_epoch = earlier(found.first_by_epoch, by_epoch);
            found.first_by_duplicate = earlier(found.first_by_duplicate, by_duplicate);
        }
    }
}

/// A set of tokens, as ascending ranges that neither overlap nor touch.
#[derive(Debug, Default)]
struct TokenSet {
    ranges: Vec<(u64, u64)>,
}

impl TokenSet {
    /// Adds the tokens from `start` to `end`; returns how many of them the set already had.
    fn add(&mut self, start: u64, end: u64) -> u64 {
        if start >= end {
            return 0;
        }
        let first = self.ranges.partition_point(|range| range.1 < start);
        let after = self.ranges.partition_point(|range| range.0 <= end);
        let touched = &self.ranges[first..after];
        let n_before = touched
            .iter()
            .map(|range| range.1.min(end).saturating_sub(range.0.max(start)))
            .sum();
        let joined = touched.iter().fold((start, end), |all, range| {
            (all.0.min(range.0), all.1.max(range.1))
        });
        self.ranges.splice(first..after, [joined]);
        n_before
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::{collection::vec, prelude::*};

    proptest! {
        #[test]
        fn agrees_with_a_standard_set(spans in vec((0_u64..50, 0_u64..20), 0..30)) {
            let mut tokens = TokenSet::default();
            let mut set = std::collections::BTreeSet::new();
            for (start, length) in spans {
                let n = (start..start + length).filter(|token| !set.insert(*token)).count();
                prop_assert_eq!(tokens.add(start, start + length), n as u64);
            }
        }
    }
}
