//! The way back: from tokens of a document to the samples that hold them.

use rustc_hash::FxHashMap;

use super::Samples;
use crate::{
    Error, Result,
    progress::Progress,
    tokens::{Span, TokenSource},
};

/// Where a part of a span stands in a sample.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct View {
    /// Number of the span among those asked for.
    pub query: u64,
    /// Which copy of the document it is, from 0: in the order of the document index, as GPT-NeoX repeats
    /// the documents for each epoch and shuffles all epochs together.
    pub copy: u64,
    /// Place of the sample in the training order.
    pub sample: u64,
    /// The part's first token within the sample.
    pub offset: u64,
    /// The part's first token within the document.
    pub start: u64,
    /// Tokens of the part.
    pub length: u64,
}

/// Where spans stand in the samples of an order.
#[derive(Debug, Clone, Default)]
pub struct Views {
    /// Every part that a sample holds, by query, copy and token.
    pub views: Vec<View>,
    /// How often the order has each document asked for, if it has it.
    pub n_copies: FxHashMap<u64, u64>,
}

/// Places of an index between two looks at whether to stop.
const REPORT_PLACES: u64 = 1 << 16;

/// One after the other, a document and its queries.
pub(super) struct Queries<'a> {
    pub(super) spans: &'a [Span],
    /// Numbers of the spans, by document.
    numbers: Vec<u64>,
    /// Where a document's numbers stand.
    by_document: FxHashMap<u64, (usize, usize)>,
    /// One bit a document: the map is asked for few of them.
    is_wanted: Vec<u64>,
}

impl<'a> Queries<'a> {
    pub(super) fn new(spans: &'a [Span], n_documents: u64) -> Self {
        let mut numbers: Vec<u64> = (0..spans.len() as u64).collect();
        let document = |number: &u64| spans[*number as usize].document;
        numbers.sort_by_key(document);
        let mut by_document = FxHashMap::default();
        let mut is_wanted = vec![0_u64; n_documents.div_ceil(64) as usize];
        let mut first = 0;
        for of_document in numbers.chunk_by(|a, b| document(a) == document(b)) {
            let wanted = document(&of_document[0]);
            by_document.insert(wanted, (first, first + of_document.len()));
            first += of_document.len();
            if wanted < n_documents {
                is_wanted[(wanted / 64) as usize] |= 1 << (wanted % 64);
            }
        }
        Self {
            spans,
            numbers,
            by_document,
            is_wanted,
        }
    }

    pub(super) fn of(&self, document: u64) -> &[u64] {
        let word = self.is_wanted.get((document / 64) as usize);
        if word.is_none_or(|word| word >> (document % 64) & 1 == 0) {
            return &[];
        }
        let found = self.by_document.get(&document);
        found.map_or(&[], |(first, end)| &self.numbers[*first..*end])
    }
}

/// Advances by the places from this one to the next look, at the first of them.
pub(super) fn report(place: u64, n_places: u64, progress: &Progress) -> Result<()> {
    if place.is_multiple_of(REPORT_PLACES) {
        progress.advance(REPORT_PLACES.min(n_places - place))?;
    }
    Ok(())
}

/// The views by going through all samples. Each run of a document in a sample is a copy of its own: right
/// where no sample goes on with what another one began.
pub(super) fn by_samples<T: Samples + ?Sized>(
    samples: &T,
    queries: &[Span],
    source: &dyn TokenSource,
    progress: &Progress,
) -> Result<Views> {
    let wanted = Queries::new(queries, source.n_documents());
    let mut found = Views::default();
    for sample in 0..samples.n_samples() {
        report(sample, samples.n_samples(), progress)?;
        let mut offset = 0;
        for span in samples.spans(sample, source)? {
            let numbers = wanted.of(span.document);
            if let Some(first) = numbers.first() {
                let document = queries[*first as usize].document;
                let copy = found.n_copies.entry(document).or_default();
                for number in numbers {
                    let query = queries[*number as usize];
                    let start = span.start.max(query.start);
                    let end = (span.start + span.length).min(query.start + query.length);
                    if start < end {
                        found.views.push(View {
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

/// How many spans of all samples are of each document.
pub(super) fn spans_of_documents<T: Samples + ?Sized>(
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

/// Counts a document of an order.
pub(super) fn count(n_copies: &mut [u32], document: u64) -> Result<()> {
    let n_documents = n_copies.len();
    let n = n_copies.get_mut(document as usize).ok_or_else(|| {
        Error::argument(format!(
            "the order speaks of document {document}, but its dataset has {n_documents}: it was built for another dataset"
        ))
    })?;
    *n += 1;
    Ok(())
}
