//! What the model reads more than once: epochs, and documents that are the same, told apart.

use rustc_hash::FxHashMap;
use sha2::{Digest, Sha256};

use super::{places::in_parallel, rows::rows_that_show};
use crate::{
    Result,
    order::{TrainingOrder, View},
    progress::Progress,
    tokens::{Span, TokenSource},
};

/// A document of which, or of whose duplicates, the model sees more than one copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Repeated {
    /// The lowest number among the documents with the same tokens.
    pub same_as: u64,
    /// The document.
    pub document: u64,
    /// Its tokens.
    pub n_tokens: u64,
    /// Copies of it of which the run sees any part: one an epoch. What is seen follows the rule of
    /// [`super::when`]: a row that holds only a token it shares with the next row is not part of it.
    pub n_copies: u64,
    /// The first sample of the run in which a copy of it is seen.
    pub first_sample: u64,
    /// The last one.
    pub last_sample: u64,
}

/// What is read more than once.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Repeats {
    /// Tokens read in each interval that were read before in another copy of their document.
    pub by_epoch: Vec<u64>,
    /// Tokens read in each interval that were read before in another document with the same tokens, and
    /// not in this one.
    pub by_duplicate: Vec<u64>,
    /// The first sample with a token counted in `by_epoch`.
    pub first_by_epoch: Option<u64>,
    /// The first sample with a token counted in `by_duplicate`.
    pub first_by_duplicate: Option<u64>,
    /// The documents, by [`Repeated::same_as`] and number.
    pub documents: Vec<Repeated>,
}

/// Documents that one pass over the order is made for.
const BATCH_DOCUMENTS: usize = 1 << 22;

/// Documents hashed by one work item.
const ITEM_DOCUMENTS: u64 = 1 << 10;

/// What the first `n_samples` samples repeat, by intervals of `interval_samples`.
///
/// Documents are duplicates if all their tokens are equal (by SHA-256); empty ones are left out. Of each
/// sample the first `n_inputs` tokens are read: where it has one more, that is only predicted, and is the
/// first of another sample.
///
/// # Errors
/// The order or its source cannot be read, or a stop.
pub fn repeats<S: TokenSource>(
    order: &TrainingOrder<S>,
    (n_samples, n_inputs): (u64, u64),
    interval_samples: u64,
    n_threads: usize,
    progress: &Progress,
) -> Result<Repeats> {
    order.check_range(0, n_samples)?;
    let interval_samples = interval_samples.max(1);
    let n_intervals = n_samples.div_ceil(interval_samples) as usize;
    let mut found = Repeats {
        by_epoch: vec![0; n_intervals],
        by_duplicate: vec![0; n_intervals],
        ..Repeats::default()
    };
    let n_copies = order.n_copies()?;
    let mut classes = same_documents(order.source(), n_threads, progress)?;
    classes.retain(|class| class.iter().map(|d| n_copies[*d as usize]).sum::<u32>() > 1);
    let mut rest = classes.as_slice();
    while !rest.is_empty() {
        let mut n = 0;
        let n_classes = rest.iter().position(|class| {
            n += class.len();
            n > BATCH_DOCUMENTS
        });
        let (now, later) = rest.split_at(n_classes.unwrap_or(rest.len()).max(1));
        let sweep = Sweep {
            n_inputs,
            n_samples,
            interval_samples,
        };
        sweep.classes(order, now, &mut found, progress)?;
        rest = later;
    }
    Ok(found)
}

/// All documents that are not empty, those with the same tokens together; ascending.
fn same_documents<S: TokenSource>(
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

/// Goes through views in training order and tells what was read before.
struct Sweep {
    n_inputs: u64,
    n_samples: u64,
    interval_samples: u64,
}

impl Sweep {
    fn classes<S: TokenSource>(
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
        let mut views = order.views(&queries, progress)?.views;
        let (mut rest, mut end) = (views.as_mut_slice(), 0);
        for class in classes {
            end += class.len() as u64;
            let n = rest.partition_point(|view| view.query < end);
            let (of_class, behind) = rest.split_at_mut(n);
            rest = behind;
            self.class(class[0], &queries, of_class, found);
        }
        Ok(())
    }

    fn class(&self, same_as: u64, queries: &[Span], views: &mut [View], found: &mut Repeats) {
        let mut documents = Vec::new();
        for of_document in views.chunk_by(|a, b| a.query == b.query) {
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
        views.sort_unstable_by_key(|view| (view.sample, view.offset));
        let n_in_run = views.partition_point(|view| view.sample < self.n_samples);
        self.read(&views[..n_in_run], found);
    }

    /// What the run sees of a document, if anything.
    fn seen(&self, same_as: u64, query: Span, views: &[View]) -> Option<Repeated> {
        let mut n_copies = 0;
        let mut samples = Vec::new();
        for of_copy in views.chunk_by(|a, b| a.copy == b.copy) {
            let n_before = samples.len();
            let rows = rows_that_show(of_copy, query.length).map(|view| view.sample);
            samples.extend(rows.filter(|sample| *sample < self.n_samples));
            n_copies += u64::from(samples.len() > n_before);
        }
        let (first, last) = (samples.iter().min()?, samples.iter().max()?);
        Some(Repeated {
            same_as,
            document: query.document,
            n_tokens: query.length,
            n_copies,
            first_sample: *first,
            last_sample: *last,
        })
    }

    fn read(&self, views: &[View], found: &mut Repeats) {
        let mut any = Covered::default();
        let mut of_document: FxHashMap<u64, Covered> = FxHashMap::default();
        for view in views {
            let n_read = view.length.min(self.n_inputs.saturating_sub(view.offset));
            let end = view.start + n_read;
            let by_epoch = of_document
                .entry(view.query)
                .or_default()
                .add(view.start, end);
            let by_duplicate = any.add(view.start, end) - by_epoch;
            let interval = (view.sample / self.interval_samples) as usize;
            found.by_epoch[interval] += by_epoch;
            found.by_duplicate[interval] += by_duplicate;
            let earlier = |first: Option<u64>, n| match first {
                Some(first) if n > 0 => Some(first.min(view.sample)),
                None if n > 0 => Some(view.sample),
                first => first,
            };
            found.first_by_epoch = earlier(found.first_by_epoch, by_epoch);
            found.first_by_duplicate = earlier(found.first_by_duplicate, by_duplicate);
        }
    }
}

/// Tokens read so far, as ranges that ascend and do not touch.
#[derive(Debug, Default)]
struct Covered {
    ranges: Vec<(u64, u64)>,
}

impl Covered {
    /// Adds tokens; returns how many of them were there before.
    fn add(&mut self, start: u64, end: u64) -> u64 {
        if start >= end {
            return 0;
        }
        let first = self.ranges.partition_point(|range| range.1 < start);
        let behind = self.ranges.partition_point(|range| range.0 <= end);
        let touched = &self.ranges[first..behind];
        let n_before = touched
            .iter()
            .map(|range| range.1.min(end).saturating_sub(range.0.max(start)))
            .sum();
        let joined = touched.iter().fold((start, end), |all, range| {
            (all.0.min(range.0), all.1.max(range.1))
        });
        self.ranges.splice(first..behind, [joined]);
        n_before
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::{collection::vec, prelude::*};

    proptest! {
        #[test]
        fn covered_counts_as_a_set_does(spans in vec((0_u64..50, 0_u64..20), 0..30)) {
            let mut covered = Covered::default();
            let mut set = std::collections::BTreeSet::new();
            for (start, length) in spans {
                let n = (start..start + length).filter(|token| !set.insert(*token)).count();
                prop_assert_eq!(covered.add(start, start + length), n as u64);
            }
        }
    }
}
