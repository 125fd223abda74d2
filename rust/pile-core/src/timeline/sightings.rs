//! From texts to every sample in which the model saw them.
//!
//! [`TextQuery::run`] is the whole way. A [`FindOccurrences`] finds the texts in the documents, as spans of
//! tokens. The order maps the spans to [`Appearance`]s: the part of the span that each sample holds.
//! [`sightings`] joins the appearances of one occurrence. Occurrences that run from one document into the
//! next exist only in samples; [`across_documents`] decodes the samples to find them.

use super::{
    chunk::{Chunk, SearchUnit},
    grams::GramSearcher,
    occurrences::{DistinctTexts, FindOccurrences, Occurrence, OccurrenceLimit, Occurrences},
    parallel::in_parallel,
    replaced::sightings_with_replaced_tokens,
    rows::fewest_rows,
};
use crate::{
    Result,
    order::{Appearance, Appearances, TrainingOrder},
    progress::Progress,
    tokens::{Span, TokenSource},
};

/// A text in one sample, or the part of the text that the sample holds.
///
/// An occurrence that one sample holds whole is one sighting with `n_parts` 1. If its only token is shared by two
/// neighbouring samples, both samples hold it whole: these are two sightings.
///
/// Any other occurrence is cut into parts: the fewest samples that together hold all its tokens. Each part is a
/// sighting with its own sample, and so its own step. A token that two of these samples share is in both parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sighting {
    /// Number of the text in the query.
    pub text: u64,
    /// The document that holds the text's first byte.
    pub document: u64,
    /// The text's first byte in the decoded document.
    pub byte_offset: u64,
    /// The token of the document that holds the first byte.
    pub token_offset: u64,
    /// Tokens from the one with the first byte to the one with the last byte, both included.
    pub n_tokens: u64,
    /// Which copy of the document it is, from 0: see [`Appearance::copy`].
    pub copy: u64,
    /// Number of the part, from 0.
    pub part: u64,
    /// Parts of the occurrence.
    pub n_parts: u64,
    /// Position of the sample in the training order.
    pub sample: u64,
    /// The part's first token within the sample.
    pub offset: u64,
    /// Tokens of the part.
    pub length: u64,
    /// Documents that the occurrence spans.
    pub n_documents: u64,
}

/// Every sighting of some texts.
#[derive(Debug, Clone, Default)]
pub struct Sightings {
    /// In training order of the occurrences, by the first sample that holds a part. The parts of an occurrence are
    /// consecutive.
    pub sightings: Vec<Sighting>,
    /// The occurrences of the texts in the documents.
    pub occurrences: Occurrences,
    /// By text, the occurrences that no sample shows: the tokens of the document's copy come after the last
    /// sample, an intervention changed one of them, or the document is not in the order.
    pub n_unreached: Vec<u64>,
}

/// Maps the occurrences of `n_texts` texts to the samples of an order. An occurrence is not seen where an intervention
/// changed a token of one of its parts.
///
/// # Errors
/// As [`TrainingOrder::appearances`].
pub fn sightings<S: TokenSource>(
    order: &TrainingOrder<S>,
    n_texts: usize,
    occurrences: Occurrences,
    progress: &Progress,
) -> Result<Sightings> {
    let spans: Vec<Span> = occurrences.occurrences.iter().map(span_of).collect();
    let Appearances {
        appearances,
        n_copies,
    } = stored_appearances(order, &spans, progress)?;
    // Each item is the parts of one occurrence in one copy of its document.
    let mut seen = Vec::with_capacity(appearances.len());
    let mut n_unreached = vec![0; n_texts];
    // Appearances are sorted by query, the number of the occurrence, and then by copy.
    let mut remaining = appearances.as_slice();
    for (number, occurrence) in (0..).zip(&occurrences.occurrences) {
        let n = remaining.partition_point(|appearance| appearance.query == number);
        let (of_occurrence, later) = remaining.split_at(n);
        remaining = later;
        // A document that the order lacks counts as one copy.
        let mut n_missed = n_copies.get(&occurrence.document).copied().unwrap_or(1);
        for of_copy in of_occurrence.chunk_by(|a, b| a.copy == b.copy) {
            let mut in_copy = sightings_in_copy(of_copy, occurrence);
            if let Some(changes) = order.changes() {
                let is_changed = |part: &Sighting| {
                    !changes.is_inserted(part.document)
                        && changes.covers(part.sample, part.offset, part.length)
                };
                in_copy.retain(|parts| !parts.iter().any(is_changed));
            }
            n_missed -= u64::from(!in_copy.is_empty());
            seen.extend(in_copy);
        }
        n_unreached[occurrence.text as usize] += n_missed;
    }
    seen.sort_by_cached_key(|parts: &Vec<Sighting>| training_order_key(parts));
    Ok(Sightings {
        sightings: seen.into_iter().flatten().collect(),
        occurrences,
        n_unreached,
    })
}

/// The appearances of spans in an order, those of tokens that an intervention replaced or wrote over included.
fn stored_appearances<S: TokenSource>(
    order: &TrainingOrder<S>,
    spans: &[Span],
    progress: &Progress,
) -> Result<Appearances> {
    match order.changes() {
        Some(changes) => changes.stored_appearances(spans, progress),
        None => order.appearances(spans, progress),
    }
}

fn span_of(occurrence: &Occurrence) -> Span {
    Span {
        document: occurrence.document,
        start: occurrence.token_offset,
        length: occurrence.n_tokens,
    }
}

/// Sorts occurrences, given as their parts, by the first part that is read.
pub(super) fn training_order_key(parts: &[Sighting]) -> impl Ord + use<> {
    let first = parts.iter().min_by_key(|part| (part.sample, part.offset));
    first.map(|first| {
        (
            first.sample,
            first.offset,
            first.text,
            first.document,
            first.byte_offset,
            first.copy,
        )
    })
}

/// Returns each time that an occurrence is seen in one copy of its document, as its parts. Empty if the
/// samples do not hold all its tokens. `appearances` are those of the occurrence's tokens in the copy.
pub(super) fn sightings_in_copy(
    appearances: &[Appearance],
    occurrence: &Occurrence,
) -> Vec<Vec<Sighting>> {
    let sighting = |appearance: &Appearance, part: usize, n_parts: usize| Sighting {
        text: occurrence.text,
        document: occurrence.document,
        byte_offset: occurrence.byte_offset,
        token_offset: occurrence.token_offset,
        n_tokens: occurrence.n_tokens,
        copy: appearance.copy,
        part: part as u64,
        n_parts: n_parts as u64,
        sample: appearance.sample,
        offset: appearance.offset,
        length: appearance.length,
        n_documents: 1,
    };
    let whole = appearances
        .iter()
        .filter(|appearance| appearance.length == occurrence.n_tokens);
    let whole: Vec<_> = whole
        .map(|appearance| vec![sighting(appearance, 0, 1)])
        .collect();
    if !whole.is_empty() {
        return whole;
    }
    let rows = fewest_rows(appearances);
    if !holds_all_tokens(&rows, occurrence) {
        return Vec::new();
    }
    // A blend may read a row several times. The n-th reading of every row together is one time that the occurrence
    // is seen.
    let n_readings = rows.iter().map(|row| row.len()).min().unwrap_or(0);
    let parts_of_reading = |reading: usize| {
        let parts = rows.iter().map(|row| &row[reading]).enumerate();
        parts
            .map(|(part, appearance)| sighting(appearance, part, rows.len()))
            .collect()
    };
    (0..n_readings).map(parts_of_reading).collect()
}

/// Whether `rows`, sorted by token, together hold every token of an occurrence.
fn holds_all_tokens(rows: &[&[Appearance]], occurrence: &Occurrence) -> bool {
    let mut covered = occurrence.token_offset;
    for appearance in rows.iter().filter_map(|row| row.first()) {
        if appearance.start <= covered {
            covered = covered.max(appearance.start + appearance.length);
        }
    }
    covered == occurrence.token_offset + occurrence.n_tokens
}

/// Samples of one work item: of 2,049 tokens each, about half a megabyte of text.
const ITEM_SAMPLES: u64 = 64;

/// A search for texts that run from one document into the next.
#[derive(Debug, Clone, Copy)]
pub struct AcrossDocuments<'a> {
    /// The texts, in the search unit's bytes.
    pub texts: &'a [&'a [u8]],
    /// What the texts are made of.
    pub unit: SearchUnit<'a>,
    /// Samples to search, from the first.
    pub n_samples: u64,
    /// Threads; the result is the same for any number.
    pub n_threads: usize,
    /// A search with more occurrences fails instead of filling the memory.
    pub max_occurrences: u64,
}

/// Returns every occurrence that runs from one document into another within one sample, in training order.
///
/// # Errors
/// As [`FindOccurrences::find`], or an order that cannot be read.
pub fn across_documents<S: TokenSource>(
    order: &TrainingOrder<S>,
    search: &AcrossDocuments<'_>,
    progress: &Progress,
) -> Result<Vec<Sighting>> {
    let n_samples = search.n_samples;
    order.check_range(0, n_samples)?;
    let distinct = DistinctTexts::new(search.texts)?;
    let searcher = GramSearcher::new(&distinct.strings);
    let limit = OccurrenceLimit::new(search.max_occurrences);
    let n_items = n_samples.div_ceil(ITEM_SAMPLES) as usize;
    let found = in_parallel(n_items, search.n_threads, |item, chunk: &mut Option<_>| {
        let chunk =
            chunk.get_or_insert_with(|| Chunk::new(search.unit, order.source().token_type()));
        let first = item as u64 * ITEM_SAMPLES;
        let end = (first + ITEM_SAMPLES).min(n_samples);
        let mut sightings = Vec::new();
        for sample in first..end {
            let spans = order.spans(sample)?;
            if spans.len() > 1 {
                chunk.fill_with(&spans, |out| order.read_spans(sample, &spans, out))?;
                search_sample(chunk, sample, &searcher, &distinct, &limit, &mut sightings)?;
            }
        }
        progress.advance((end - first) * order.sample_length())?;
        Ok(sightings)
    })?;
    let mut sightings: Vec<Sighting> = found.into_iter().flatten().collect();
    sightings.sort_unstable_by_key(|s| (s.sample, s.offset, s.text, s.byte_offset));
    complete(order, search.unit, &mut sightings, progress)?;
    Ok(sightings)
}

/// Searches the sample that `chunk` holds. `copy` and `byte_offset` of the sightings are still to be completed.
fn search_sample(
    chunk: &Chunk<'_>,
    sample: u64,
    searcher: &GramSearcher<'_>,
    distinct: &DistinctTexts<'_>,
    limit: &OccurrenceLimit,
    sightings: &mut Vec<Sighting>,
) -> Result<()> {
    let (haystack, length) = chunk.haystack();
    let mut status = Ok(());
    searcher.find(haystack, length, |string, start| {
        let found = chunk.locate(start, distinct.strings[string].len());
        let Some(found) = found.filter(|found| found.n_spans > 1 && status.is_ok()) else {
            return;
        };
        let numbers = distinct.numbers_of(string);
        status = limit.add(numbers.len() as u64);
        sightings.extend(numbers.iter().map(|text| Sighting {
            text: *text,
            document: found.document,
            byte_offset: found.byte_in_token,
            token_offset: found.token_offset,
            n_tokens: found.n_tokens,
            copy: 0,
            part: 0,
            n_parts: 1,
            sample,
            offset: found.token_in_chunk,
            length: found.n_tokens,
            n_documents: found.n_spans,
        }));
    });
    status
}

/// Completes what a sample alone does not show: which copy of the document it holds, and the bytes of the
/// document before the first token. `byte_offset` is that within the token so far.
fn complete<S: TokenSource>(
    order: &TrainingOrder<S>,
    unit: SearchUnit<'_>,
    sightings: &mut [Sighting],
    progress: &Progress,
) -> Result<()> {
    let first_tokens: Vec<Span> = sightings
        .iter()
        .map(|s| Span {
            document: s.document,
            start: s.token_offset,
            length: 1,
        })
        .collect();
    for appearance in stored_appearances(order, &first_tokens, progress)?.appearances {
        let sighting = &mut sightings[appearance.query as usize];
        if (appearance.sample, appearance.offset) == (sighting.sample, sighting.offset) {
            sighting.copy = appearance.copy;
        }
    }
    let mut chunk = Chunk::new(unit, order.source().token_type());
    for sighting in sightings {
        let before = Span {
            document: sighting.document,
            start: 0,
            length: sighting.token_offset,
        };
        chunk.fill(order.source(), &[before])?;
        sighting.byte_offset += chunk.haystack().1 as u64;
    }
    Ok(())
}

/// A query for every time that the model saw some texts.
#[derive(Debug, Clone, Copy)]
pub struct TextQuery<'a> {
    /// The texts, in the search unit's bytes.
    pub texts: &'a [&'a [u8]],
    /// Searches this many samples, from the first, for occurrences across documents too.
    pub across_documents: Option<u64>,
}

impl TextQuery<'_> {
    /// Runs the query. `finder` finds the occurrences within documents; `scan` has the settings for those across
    /// documents, which no index of documents can find.
    ///
    /// # Errors
    /// Those of the finder and of the order.
    pub fn run<S: TokenSource>(
        &self,
        order: &TrainingOrder<S>,
        finder: &dyn FindOccurrences,
        scan: &super::Scan<'_, S>,
        progress: &Progress,
    ) -> Result<Sightings> {
        let occurrences = finder.find(self.texts, progress)?;
        let mut seen = sightings(order, self.texts.len(), occurrences, progress)?;
        let mut more = Vec::new();
        if let Some(changed) = order.changes() {
            more = sightings_with_replaced_tokens(order, changed, self.texts, scan, progress)?;
        }
        if let Some(n_samples) = self.across_documents {
            let search = AcrossDocuments {
                texts: self.texts,
                unit: scan.unit,
                n_samples,
                n_threads: scan.n_threads,
                max_occurrences: scan.max_occurrences,
            };
            let across = across_documents(order, &search, progress)?;
            more.extend(across.into_iter().map(|sighting| vec![sighting]));
        }
        if !more.is_empty() {
            // Part numbers ascend by one within an occurrence and start again at 0 with the next.
            let within = seen.sightings.chunk_by(|a, b| b.part == a.part + 1);
            let mut all: Vec<Vec<Sighting>> = within.map(<[_]>::to_vec).chain(more).collect();
            all.sort_by_cached_key(|parts| training_order_key(parts));
            seen.sightings = all.into_iter().flatten().collect();
        }
        Ok(seen)
    }
}
