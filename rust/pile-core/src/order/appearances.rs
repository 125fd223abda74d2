//! The inverse of an order: from tokens of a document to the samples that hold them.

use rustc_hash::FxHashMap;

use super::Samples;
use crate::{
    Error, Result,
    progress::Progress,
    tokens::{Span, TokenSource},
};

/// The part of a queried span that one sample holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Appearance {
    /// Index of the span in the query.
    pub query: u64,
    /// Which copy of the document it is, from 0, in the order of the document index: GPT-NeoX repeats the
    /// documents for each epoch and shuffles all epochs together.
    pub copy: u64,
    /// Position of the sample in the training order.
    pub sample: u64,
    /// The part's first token within the sample.
    pub offset: u64,
    /// The part's first token within the document.
    pub start: u64,
    /// Tokens of the part.
    pub length: u64,
}

impl Appearance {
    /// What [`super::TrainingOrder::appearances`] sorts by.
    pub(super) fn key(&self) -> impl Ord + use<> {
        (self.query, self.copy, self.start, self.length, self.sample)
    }
}

/// All appearances of some spans.
#[derive(Debug, Clone, Default)]
pub struct Appearances {
    /// One for each part of a span in a sample, by query, copy and token.
    pub appearances: Vec<Appearance>,
    /// Copies of each queried document in the order. Documents that the order lacks have no entry.
    pub n_copies: FxHashMap<u64, u64>,
}

/// Entries between two reports of progress.
const REPORT_ENTRIES: u64 = 1 << 16;

/// Queried spans, by document.
pub(super) struct SpanQueries<'a> {
    pub(super) spans: &'a [Span],
    /// Indices of the spans, sorted by document.
    numbers: Vec<u64>,
    /// For each queried document, the start and end of its range in `numbers`.
    by_document: FxHashMap<u64, (usize, usize)>,
    /// One bit per document. It saves a hash lookup for each of the many documents without a query.
    is_queried: Vec<u64>,
}

impl<'a> SpanQueries<'a> {
    pub(super) fn new(spans: &'a [Span], n_documents: u64) -> Self {
        let mut numbers: Vec<u64> = (0..spans.len() as u64).collect();
        let document_of = |number: &u64| spans[*number as usize].document;
        numbers.sort_by_key(document_of);
        let mut by_document = FxHashMap::default();
        let mut is_queried = vec![0_u64; n_documents.div_ceil(64) as usize];
        let mut first = 0;
        for of_document in numbers.chunk_by(|a, b| document_of(a) == document_of(b)) {
            let document = document_of(&of_document[0]);
            by_document.insert(document, (first, first + of_document.len()));
            first += of_document.len();
            if document < n_documents {
                is_queried[(document / 64) as usize] |= 1 << (document % 64);
            }
        }
        Self {
            spans,
            numbers,
            by_document,
            is_queried,
        }
    }

    /// Indices of the spans of a document.
    pub(super) fn of(&self, document: u64) -> &[u64] {
        let word = self.is_queried.get((document / 64) as usize);
        if word.is_none_or(|word| word >> (document % 64) & 1 == 0) {
            return &[];
        }
        let found = self.by_document.get(&document);
        found.map_or(&[], |(first, end)| &self.numbers[*first..*end])
    }
}

/// Called for each entry of an array of `n_entries`: reports progress once every [`REPORT_ENTRIES`], in advance.
pub(super) fn report(entry: u64, n_entries: u64, progress: &Progress) -> Result<()> {
    if entry.is_multiple_of(REPORT_ENTRIES) {
        progress.advance(REPORT_ENTRIES.min(n_entries - entry))?;
    }
    Ok(())
}

/// Finds appearances by reading the spans of all samples. Each span counts as a copy of its document, which
/// is right for orders whose samples never continue a document of another sample.
pub(super) fn by_samples<T: Samples + ?Sized>(
    samples: &T,
    queries: &[Span],
    source: &dyn TokenSource,
    progress: &Progress,
) -> Result<Appearances> {
    let queries = SpanQueries::new(queries, source.n_documents());
    let mut found = Appearances::default();
    for sample in 0..samples.n_samples() {
        report(sample, samples.n_samples(), progress)?;
        let mut offset = 0;
        for span in samples.spans(sample, source)? {
            let numbers = queries.of(span.document);
            if !numbers.is_empty() {
                let copy = found.n_copies.entry(span.document).or_default();
                for number in numbers {
                    let query = queries.spans[*number as usize];
                    let start = span.start.max(query.start);
                    let end = (span.start + span.length).min(query.start + query.length);
                    if start < end {
                        found.appearances.push(Appearance {
                            query: *number,
                            copy: *copy,
                            sample,
                            offset: offset + start - span.start,
                            start,
                            length: end - start,
                        });
                    }
                }
                *copy += 1;
            }
            offset += span.length;
        }
    }
    Ok(found)
}

/// Counts the spans of all samples by document.
pub(super) fn spans_by_document<T: Samples + ?Sized>(
    samples: &T,
    source: &dyn TokenSource,
) -> Result<Vec<u32>> {
    let mut n_spans = vec![0; source.n_documents() as usize];
    for sample in 0..samples.n_samples() {
        for span in samples.spans(sample, source)? {
            count(&mut n_spans, span.document)?;
        }
    }
    Ok(n_spans)
}

/// Adds one to the count of a document.
///
/// # Errors
/// The dataset has no such document.
pub(super) fn count(n_copies: &mut [u32], document: u64) -> Result<()> {
    let n_documents = n_copies.len();
    let n = n_copies.get_mut(document as usize).ok_or_else(|| {
        Error::argument(format!(
            "the order has document {document}, but its dataset has {n_documents}: it was built for another dataset"
        ))
    })?;
    *n += 1;
    Ok(())
}
