//! Orders with interventions on the data: some samples hold other tokens than the documents they are made of.
//!
//! Each inserted text counts as a document of its own, numbered from the number of the source's documents on. So
//! spans and appearances describe it as they do any document. A replaced token stays in its document's
//! span: the span says where the token came from. But no appearance holds it, as the document's own token is not
//! in the sample.

use std::{ops::Range, sync::Arc};

use super::{Appearance, Appearances, Samples, TrainingOrder};
use crate::{
    Error, Result,
    progress::Progress,
    tokens::{ConcatenatedSources, Span, TokenSource, TokensInMemory},
};

/// Any order, over any source.
type AnyOrder = TrainingOrder<Arc<dyn TokenSource>>;

/// What an intervention did with the tokens of a sample.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChangeKind {
    /// It wrote a text of its own over them.
    Inserted,
    /// It replaced each by another token of the same document.
    Replaced,
}

/// Consecutive tokens of a sample that an intervention changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Position of the sample in the training order.
    pub sample: u64,
    /// The first changed token within the sample.
    pub offset: u64,
    /// The tokens that the sample has there.
    pub tokens: Vec<i64>,
    /// What the intervention did.
    pub kind: ChangeKind,
}

impl Change {
    /// What changes are sorted by.
    fn key(&self) -> (u64, u64) {
        (self.sample, self.offset)
    }

    /// The changed tokens within the sample.
    #[must_use]
    pub fn range(&self) -> Range<u64> {
        self.offset..self.offset + self.tokens.len() as u64
    }
}

/// The samples of an order, with changes.
pub struct ChangedSamples {
    base: Arc<AnyOrder>,
    /// Sorted by sample and offset; no two overlap.
    changes: Vec<Change>,
    /// Indices in `changes` of the inserted texts, by number of the text.
    inserted: Vec<usize>,
    /// Their tokens, each text as a document.
    texts: Arc<TokensInMemory>,
}

impl AnyOrder {
    /// The order with changes: its documents are those of `base` and then the inserted texts, by sample and offset.
    ///
    /// # Errors
    /// The base has changes, or the changes are not sorted, overlap, are not within a sample, or have tokens that
    /// the source's type cannot store. A change within the padding of a sample is an error when the sample is read.
    pub fn with_changes(base: Arc<Self>, changes: Vec<Change>) -> Result<Self> {
        if base.changes().is_some() {
            let what = "the order has changes already: all changes are given at once";
            return Err(Error::argument(what));
        }
        let mut inserted = Vec::new();
        let mut texts = TokensInMemory::new(base.source().token_type());
        // Sample and offset after the change before.
        let mut first_free = (0, 0);
        for (number, change) in changes.iter().enumerate() {
            base.check_range(change.sample, 1)?;
            let Range { start, end } = change.range();
            if (change.sample, start) < first_free || end > base.sample_length() || start == end {
                let what = format!(
                    "change {number}, of {} tokens from {start} in sample {}, is empty, not in order or not within the sample",
                    end - start,
                    change.sample
                );
                return Err(Error::argument(what));
            }
            first_free = (change.sample, end);
            match change.kind {
                ChangeKind::Inserted => {
                    texts.push(&change.tokens)?;
                    inserted.push(number);
                }
                ChangeKind::Replaced => {
                    let token_type = base.source().token_type();
                    let store = |token: &i64| token_type.append(*token, &mut Vec::new());
                    change.tokens.iter().try_for_each(store)?;
                }
            }
        }
        let texts = Arc::new(texts);
        let sources = vec![Arc::clone(base.source()), Arc::clone(&texts) as _];
        let source = Arc::new(ConcatenatedSources::new(sources)?);
        let padding = base.padding;
        let samples = ChangedSamples {
            base,
            changes,
            inserted,
            texts,
        };
        Ok(Self::new(Box::new(samples), source, padding))
    }
}

impl ChangedSamples {
    /// The order without the changes.
    #[must_use]
    pub fn base(&self) -> &AnyOrder {
        &self.base
    }

    /// All changes, by sample and offset.
    #[must_use]
    pub fn changes(&self) -> &[Change] {
        &self.changes
    }

    /// The changes of a sample, by offset.
    #[must_use]
    pub fn of_sample(&self, sample: u64) -> &[Change] {
        let first = self
            .changes
            .partition_point(|change| change.sample < sample);
        let n = self.changes[first..].partition_point(|change| change.sample == sample);
        &self.changes[first..first + n]
    }

    /// The inserted texts as documents by themselves, numbered from 0.
    #[must_use]
    pub fn inserted_texts(&self) -> &TokensInMemory {
        &self.texts
    }

    /// Number of the first inserted text.
    fn n_base_documents(&self) -> u64 {
        self.base.source().n_documents()
    }

    /// Whether a document is an inserted text.
    #[must_use]
    pub fn is_inserted(&self, document: u64) -> bool {
        document >= self.n_base_documents()
    }

    /// Every part of `queries` that a sample of the base order holds, whether it was changed or not; and the
    /// appearances of inserted texts. Sorted as by [`TrainingOrder::appearances`].
    ///
    /// # Errors
    /// As [`TrainingOrder::appearances`].
    pub fn stored_appearances(&self, queries: &[Span], progress: &Progress) -> Result<Appearances> {
        let is_of_base = |query: &Span| !self.is_inserted(query.document);
        let numbers = (0..queries.len() as u64).filter(|n| is_of_base(&queries[*n as usize]));
        let numbers: Vec<u64> = numbers.collect();
        let of_base: Vec<Span> = queries.iter().copied().filter(is_of_base).collect();
        let mut all = self.base.appearances(&of_base, progress)?;
        for appearance in &mut all.appearances {
            appearance.query = numbers[appearance.query as usize];
        }
        for (query, span) in (0..).zip(queries).filter(|(_, span)| !is_of_base(span)) {
            let text = (span.document - self.n_base_documents()) as usize;
            if let Some(number) = self.inserted.get(text) {
                let change = &self.changes[*number];
                all.n_copies.insert(span.document, 1);
                all.appearances.push(Appearance {
                    query,
                    copy: 0,
                    sample: change.sample,
                    offset: change.offset + span.start,
                    start: span.start,
                    length: span.length,
                });
            }
        }
        all.appearances.sort_by_key(Appearance::key);
        Ok(all)
    }

    /// Whether a change covers one of the `length` tokens from `offset` in a sample.
    #[must_use]
    pub fn covers(&self, sample: u64, offset: u64, length: u64) -> bool {
        let mut ranges = self.of_sample(sample).iter().map(Change::range);
        ranges.any(|range| range.start < offset + length && offset < range.end)
    }

    /// The parts of a stored appearance that no inserted text covers.
    pub fn without_inserted(&self, stored: Appearance) -> impl Iterator<Item = Appearance> {
        let changes = self.of_sample(stored.sample).iter();
        let inserted = changes.filter(|change| change.kind == ChangeKind::Inserted);
        parts_between(stored, inserted.map(Change::range))
    }
}

impl Samples for ChangedSamples {
    fn n_samples(&self) -> u64 {
        self.base.n_samples()
    }

    fn sample_length(&self) -> u64 {
        self.base.sample_length()
    }

    fn is_padded(&self) -> bool {
        self.base.samples.is_padded()
    }

    fn replaced(&self) -> Vec<u64> {
        self.base.replaced()
    }

    fn changes(&self) -> Option<&ChangedSamples> {
        Some(self)
    }

    fn spans(&self, position: u64, _: &dyn TokenSource) -> Result<Vec<Span>> {
        let whole = self.base.spans(position)?;
        let length = whole.iter().map(|span| span.length).sum();
        let mut spans = Vec::with_capacity(whole.len());
        let mut next = 0;
        for change in self.of_sample(position) {
            let range = change.range();
            if range.end > length {
                let what = format!(
                    "the tokens from {} of sample {position} are padding: they belong to no document, and cannot be changed",
                    length.max(range.start)
                );
                return Err(Error::argument(what));
            }
            // A replaced token stays in the span of its document. `TrainingOrder::read_spans` writes its new value.
            if change.kind == ChangeKind::Replaced {
                continue;
            }
            push_part(&whole, next..range.start, &mut spans);
            // Texts are numbered in the order of the changes.
            let text = self
                .inserted
                .partition_point(|i| self.changes[*i].key() < change.key());
            spans.push(Span {
                document: self.n_base_documents() + text as u64,
                start: 0,
                length: range.end - range.start,
            });
            next = range.end;
        }
        push_part(&whole, next..length, &mut spans);
        Ok(spans)
    }

    fn appearances(
        &self,
        queries: &[Span],
        _: &dyn TokenSource,
        progress: &Progress,
    ) -> Result<Appearances> {
        let mut all = self.stored_appearances(queries, progress)?;
        let parts = all.appearances.into_iter().flat_map(|appearance| {
            let is_inserted = self.is_inserted(queries[appearance.query as usize].document);
            let ranges = self.of_sample(appearance.sample).iter().map(Change::range);
            parts_between(appearance, ranges.filter(move |_| !is_inserted))
        });
        all.appearances = parts.collect();
        Ok(all)
    }

    fn n_copies(&self, _: &dyn TokenSource) -> Result<Vec<u32>> {
        let mut n_copies = self.base.n_copies()?;
        n_copies.extend(self.inserted.iter().map(|_| 1));
        Ok(n_copies)
    }
}

/// The parts of an appearance between ascending ranges of its sample's tokens.
fn parts_between(
    whole: Appearance,
    ranges: impl Iterator<Item = Range<u64>>,
) -> impl Iterator<Item = Appearance> {
    let end = whole.offset + whole.length;
    let inside = ranges.filter(move |range| range.end > whole.offset && range.start < end);
    let mut next = whole.offset;
    // An empty range closes the last part.
    let at_end = Range { start: end, end };
    inside.chain([at_end]).filter_map(move |range| {
        let offset = std::mem::replace(&mut next, range.end);
        (offset < range.start).then(|| Appearance {
            offset,
            start: whole.start + (offset - whole.offset),
            length: range.start - offset,
            ..whole
        })
    })
}

/// Appends the part of a sample, given as its spans, from token `range.start` to `range.end`.
fn push_part(spans: &[Span], range: Range<u64>, out: &mut Vec<Span>) {
    let mut first = 0;
    for span in spans {
        let start = range.start.max(first);
        let end = range.end.min(first + span.length);
        if start < end {
            out.push(Span {
                start: span.start + (start - first),
                length: end - start,
                ..*span
            });
        }
        first += span.length;
    }
}
