//! The way back: from tokens of a document to the samples that hold them.

use rustc_hash::FxHashMap;

use super::TrainingOrder;
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
    /// Which copy of the document it is, from 0, in the order of the document index: GPT-NeoX repeats
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

/// Places of the document index between two looks at whether to stop.
const REPORT_PLACES: u64 = 1 << 20;

/// One after the other, a document and its queries.
struct Queries<'a> {
    spans: &'a [Span],
    /// Numbers of the spans, by document.
    numbers: Vec<u64>,
    /// Where a document's numbers stand.
    by_document: FxHashMap<u64, (usize, usize)>,
    /// One bit a document: the map is asked for few of them.
    is_wanted: Vec<u64>,
}

impl<'a> Queries<'a> {
    fn new(spans: &'a [Span], n_documents: u64) -> Self {
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

    fn of(&self, document: u64) -> &[u64] {
        let word = self.is_wanted.get((document / 64) as usize);
        if word.is_none_or(|word| word >> (document % 64) & 1 == 0) {
            return &[];
        }
        let found = self.by_document.get(&document);
        found.map_or(&[], |(first, end)| &self.numbers[*first..*end])
    }
}

impl<S: TokenSource> TrainingOrder<S> {
    /// Every part of `queries` that a sample holds, by query, copy and token. A token on the border of
    /// two samples is in both. `progress` advances by places of the document and shuffle index, which are
    /// read once each.
    ///
    /// # Errors
    /// An index that does not fit its dataset, or a stop.
    pub fn views(&self, queries: &[Span], progress: &Progress) -> Result<Views> {
        let wanted = Queries::new(queries, self.source().n_documents());
        let mut n_copies: FxHashMap<u64, u64> = FxHashMap::default();
        let mut views = Vec::new();
        for place in 0..self.n_places() {
            if place % REPORT_PLACES == 0 {
                progress.advance(REPORT_PLACES.min(self.n_places() - place))?;
            }
            let document = self.document_at(place)?;
            let numbers = wanted.of(document);
            if numbers.is_empty() {
                continue;
            }
            let copy = n_copies.entry(document).or_default();
            for number in numbers {
                let query = wanted.spans[*number as usize];
                self.views_at(place, query, (*number, *copy), &mut views)?;
            }
            *copy += 1;
        }
        self.place_samples(&mut views, progress)?;
        views.sort_by_key(|view| (view.query, view.copy, view.start, view.length));
        Ok(Views { views, n_copies })
    }

    /// How often the document index has each document of the source.
    ///
    /// # Errors
    /// An index that does not fit its dataset.
    pub fn n_copies(&self) -> Result<Vec<u32>> {
        let n_documents = self.source().n_documents();
        let mut n_copies = vec![0; n_documents as usize];
        for place in 0..self.n_places() {
            let document = self.document_at(place)?;
            let n = n_copies.get_mut(document as usize).ok_or_else(|| {
                Error::argument(format!(
                    "the order speaks of document {document}, but its dataset has {n_documents}: it was built for another dataset"
                ))
            })?;
            *n += 1;
        }
        Ok(n_copies)
    }

    /// The parts of a span of the document at a place of the document index; `sample` is left as the
    /// number that the sample index has for it.
    fn views_at(
        &self,
        place: u64,
        query: Span,
        (number, copy): (u64, u64),
        views: &mut Vec<View>,
    ) -> Result<()> {
        let end = query.start + query.length;
        let mut sample = self.first_sample_to(place, query.start);
        while let Some(((first, start), (last, last_token))) = self.ends(sample) {
            if (first, start) >= (place, end) {
                break;
            }
            let from = if first == place { start } else { 0 }.max(query.start);
            let to = if last == place { last_token + 1 } else { end }.min(end);
            if from < to {
                views.push(View {
                    query: number,
                    copy,
                    sample,
                    offset: self.tokens_between((first, start), (place, from))?,
                    start: from,
                    length: to - from,
                });
            }
            sample += 1;
        }
        Ok(())
    }

    /// The first sample, as the sample index numbers them, whose last token is this one or later.
    fn first_sample_to(&self, place: u64, token: u64) -> u64 {
        let (mut low, mut high) = (0, self.n_samples());
        while low < high {
            let middle = low + (high - low) / 2;
            match self.ends(middle) {
                Some((_, last)) if last < (place, token) => low = middle + 1,
                _ => high = middle,
            }
        }
        low
    }

    fn tokens_between(&self, (first, start): (u64, u64), (last, end): (u64, u64)) -> Result<u64> {
        let mut n = end;
        for place in first..last {
            n += self.source().document_length(self.document_at(place)?)?;
        }
        Ok(n.saturating_sub(start))
    }

    /// Replaces the sample index's numbers by places in the training order.
    fn place_samples(&self, views: &mut Vec<View>, progress: &Progress) -> Result<()> {
        let mut places: FxHashMap<u64, u64> = FxHashMap::default();
        let mut is_wanted = vec![0_u64; self.n_samples().div_ceil(64) as usize];
        for view in views.iter() {
            is_wanted[(view.sample / 64) as usize] |= 1 << (view.sample % 64);
        }
        for place in 0..self.n_samples() {
            if place % REPORT_PLACES == 0 {
                progress.advance(REPORT_PLACES.min(self.n_samples() - place))?;
            }
            if let Some(sample) = self.sample_at(place)
                && let Some(word) = is_wanted.get((sample / 64) as usize)
                && word >> (sample % 64) & 1 == 1
            {
                places.insert(sample, place);
            }
        }
        // A damaged shuffle index may leave samples out: they are never seen.
        views.retain_mut(|view| match places.get(&view.sample) {
            Some(place) => {
                view.sample = *place;
                true
            }
            None => false,
        });
        Ok(())
    }
}
