//! Occurrences that hold a token that an intervention replaced.
//!
//! No document holds them. So each document is put together again as the rows show it, around its replaced tokens,
//! and these passages are searched like documents.

use std::collections::hash_map::Entry;

use rustc_hash::FxHashMap;

use super::{
    Scan,
    chunk::Chunk,
    occurrences::{FindOccurrences, Occurrence},
    sightings::{Sighting, sightings_in_copy, training_order_key},
};
use crate::{
    Result,
    order::{Appearance, Change, ChangeKind, ChangedSamples, TrainingOrder},
    progress::Progress,
    tokens::{Span, TokenSource, TokensInMemory},
};

/// Samples whose changes are searched together. It bounds the memory of a search, which holds the tokens of these rows
/// and of the rows around them; each batch costs one pass over the order's arrays.
const BATCH_SAMPLES: usize = 1 << 16;

/// A document's part of a sample, with at least one replaced token.
#[derive(Debug, Clone, Copy)]
struct ChangedSpan {
    sample: u64,
    /// The first token within the sample.
    offset: u64,
    span: Span,
}

/// Consecutive tokens of one copy of a document, as rows show them.
#[derive(Debug, Default)]
struct Passage {
    document: u64,
    /// The first token within the document.
    start: u64,
    tokens: Vec<i64>,
    is_replaced: Vec<bool>,
    /// The rows' parts, which together are the tokens.
    appearances: Vec<Appearance>,
}

impl Passage {
    fn end(&self) -> u64 {
        self.start + self.tokens.len() as u64
    }

    /// Appends a row's part of the document, which may begin with tokens that the passage has already. Returns false if
    /// the part does not continue the passage, or if the row shows other tokens for those they share.
    fn extend(&mut self, part: &Passage) -> bool {
        if self.tokens.is_empty() || !(self.start..=self.end()).contains(&part.start) {
            return false;
        }
        let n_shared = (self.end() - part.start) as usize;
        let n_compared = n_shared.min(part.tokens.len());
        let first_shared = self.tokens.len() - n_shared;
        let shared = first_shared..first_shared + n_compared;
        if self.tokens[shared.clone()] != part.tokens[..n_compared] {
            return false;
        }
        for (is_replaced, in_part) in self.is_replaced[shared].iter_mut().zip(&part.is_replaced) {
            *is_replaced |= in_part;
        }
        self.tokens.extend_from_slice(&part.tokens[n_compared..]);
        self.is_replaced
            .extend_from_slice(&part.is_replaced[n_compared..]);
        self.appearances.extend_from_slice(&part.appearances);
        true
    }

    /// The rows' parts of the tokens from `start` to `end` of the document.
    fn appearances_of(&self, start: u64, end: u64) -> Vec<Appearance> {
        let clip = |appearance: &Appearance| {
            let first = appearance.start.max(start);
            let last = (appearance.start + appearance.length).min(end);
            (first < last).then(|| Appearance {
                start: first,
                offset: appearance.offset + (first - appearance.start),
                length: last - first,
                ..*appearance
            })
        };
        self.appearances.iter().filter_map(clip).collect()
    }
}

/// Finds the sightings of `texts` that hold a replaced token, each as its parts, in training order.
///
/// # Errors
/// As [`Scan`]'s, or an order that cannot be read.
pub(super) fn sightings_with_replaced_tokens<S: TokenSource>(
    order: &TrainingOrder<S>,
    changed: &ChangedSamples,
    texts: &[&[u8]],
    scan: &Scan<'_, S>,
    progress: &Progress,
) -> Result<Vec<Vec<Sighting>>> {
    let is_replaced = |change: &&Change| change.kind == ChangeKind::Replaced;
    let mut samples: Vec<u64> = changed
        .changes()
        .iter()
        .filter(is_replaced)
        .map(|change| change.sample)
        .collect();
    // The changes are sorted by sample.
    samples.dedup();
    let search = Search {
        order,
        changed,
        texts,
        scan,
    };
    let mut found = Vec::new();
    for samples in samples.chunks(BATCH_SAMPLES) {
        found.append(&mut search.batch(samples, progress)?);
    }
    // An occurrence may hold replaced tokens of two samples; it was then found for each, with the same parts.
    found.sort_by_cached_key(|parts: &Vec<Sighting>| training_order_key(parts));
    found.dedup();
    Ok(found)
}

struct Search<'a, S> {
    order: &'a TrainingOrder<S>,
    changed: &'a ChangedSamples,
    texts: &'a [&'a [u8]],
    scan: &'a Scan<'a, S>,
}

impl<S: TokenSource> Search<'_, S> {
    /// The sightings with a replaced token in one of `samples`.
    fn batch(&self, samples: &[u64], progress: &Progress) -> Result<Vec<Vec<Sighting>>> {
        let mut spans = Vec::new();
        for sample in samples {
            self.changed_spans(*sample, &mut spans)?;
        }
        let longest = self.texts.iter().map(|text| text.len()).max().unwrap_or(0) as u64;
        let windows = spans
            .iter()
            .map(|changed| self.window(changed.span, longest));
        let windows: Vec<Span> = windows.collect::<Result<_>>()?;
        let appearances = self
            .changed
            .base()
            .appearances(&windows, progress)?
            .appearances;
        let mut rows = FxHashMap::default();
        let mut passages = Vec::new();
        for of_window in appearances.chunk_by(|a, b| a.query == b.query) {
            let changed_span = spans[of_window[0].query as usize];
            for of_copy in of_window.chunk_by(|a, b| a.copy == b.copy) {
                self.add_passages(changed_span, of_copy, &mut rows, &mut passages)?;
            }
        }
        self.search(&passages, progress)
    }

    /// Appends the spans of a sample that have a replaced token.
    fn changed_spans(&self, sample: u64, out: &mut Vec<ChangedSpan>) -> Result<()> {
        let mut offset = 0;
        for span in self.changed.base().spans(sample)? {
            let end = offset + span.length;
            let changes = self.changed.of_sample(sample).iter();
            let mut replaced = changes.filter(|change| change.kind == ChangeKind::Replaced);
            if replaced.any(|change| {
                change.offset < end && change.offset + change.tokens.len() as u64 > offset
            }) {
                out.push(ChangedSpan {
                    sample,
                    offset,
                    span,
                });
            }
            offset = end;
        }
        Ok(())
    }

    /// A span of a document, extended on both sides to all tokens that an occurrence may hold if it has `longest` bytes
    /// and a token of the span.
    fn window(&self, span: Span, longest: u64) -> Result<Span> {
        let source = self.changed.base().source();
        let length = source.document_length(span.document)?;
        let (mut start, mut end) = (span.start, span.start + span.length);
        // Tokens without bytes cost an occurrence nothing. Those with bytes cost one at least. The tokens are those of
        // the document. Replacements without bytes can make an occurrence longer than its window: one with
        // `longest` or more of them on both sides of the end of a row is missed.
        let n_with_bytes = |start: u64, end: u64| -> Result<u64> {
            let tokens = source.tokens(&[Span {
                document: span.document,
                start,
                length: end - start,
            }])?;
            Ok(tokens
                .iter()
                .filter(|id| self.scan.unit.length(**id) > 0)
                .count() as u64)
        };
        let mut needed = longest;
        while needed > 0 && start > 0 {
            let first = start.saturating_sub(needed);
            needed -= n_with_bytes(first, start)?;
            start = first;
        }
        needed = longest;
        while needed > 0 && end < length {
            let last = (end + needed).min(length);
            needed -= n_with_bytes(end, last)?;
            end = last;
        }
        Ok(Span {
            start,
            length: end - start,
            ..span
        })
    }

    /// Appends the passages of one copy of a document in which the row of `changed_span` is a part.
    ///
    /// A blend may read a row several times. As in [`sightings_in_copy`], the n-th reading of every row together is
    /// one time that the document is read.
    fn add_passages(
        &self,
        changed_span: ChangedSpan,
        of_copy: &[Appearance],
        rows: &mut FxHashMap<u64, Vec<i64>>,
        out: &mut Vec<Passage>,
    ) -> Result<()> {
        let by_row =
            of_copy.chunk_by(|a, b| (a.start, a.length, a.offset) == (b.start, b.length, b.offset));
        let by_row: Vec<&[Appearance]> = by_row.collect();
        let n_readings = by_row.iter().map(|row| row.len()).max().unwrap_or(0);
        for reading in 0..n_readings {
            let parts: Vec<Appearance> = by_row
                .iter()
                .filter_map(|row| row.get(reading).copied())
                .collect();
            let is_changed = |part: &Appearance| {
                let start = changed_span.offset;
                part.sample == changed_span.sample
                    && part.offset < start + changed_span.span.length
                    && part.offset + part.length > start
            };
            if !parts.iter().any(is_changed) {
                continue;
            }
            let mut passage = Passage::default();
            // Whether the passage ends where the row's part before ends: no inserted text is between them.
            let mut is_end_shown = false;
            for part in parts {
                for shown in self.shown(part, changed_span.span.document, rows)? {
                    let (start, end) = (shown.start, shown.end());
                    let continues = start == part.start && is_end_shown;
                    if !(continues && passage.extend(&shown)) {
                        keep(std::mem::replace(&mut passage, shown), out);
                    }
                    is_end_shown = end == part.start + part.length;
                }
            }
            keep(passage, out);
        }
        Ok(())
    }

    /// A row's part of a document as the row shows it, cut where a text is inserted.
    fn shown(
        &self,
        part: Appearance,
        document: u64,
        rows: &mut FxHashMap<u64, Vec<i64>>,
    ) -> Result<Vec<Passage>> {
        let row = match rows.entry(part.sample) {
            Entry::Occupied(row) => row.into_mut(),
            Entry::Vacant(slot) => slot.insert(self.order.tokens(part.sample)?),
        };
        let replaced_in_row = self.changed.of_sample(part.sample);
        let passages = self.changed.without_inserted(part).map(|kept| {
            let range = kept.offset as usize..(kept.offset + kept.length) as usize;
            let is_replaced = range.clone().map(|offset| {
                replaced_in_row.iter().any(|change| {
                    change.kind == ChangeKind::Replaced && change.range().contains(&(offset as u64))
                })
            });
            Passage {
                document,
                start: kept.start,
                is_replaced: is_replaced.collect(),
                tokens: row[range].to_vec(),
                appearances: vec![kept],
            }
        });
        Ok(passages.collect())
    }

    /// The sightings in `passages` that hold a replaced token.
    fn search(&self, passages: &[Passage], progress: &Progress) -> Result<Vec<Vec<Sighting>>> {
        let mut source = TokensInMemory::new(self.order.source().token_type());
        for passage in passages {
            source.push(&passage.tokens)?;
        }
        let scan = Scan {
            source: &source,
            unit: self.scan.unit,
            n_threads: self.scan.n_threads,
            max_occurrences: self.scan.max_occurrences,
        };
        let mut chunk = Chunk::new(self.scan.unit, source.token_type());
        let mut found = Vec::new();
        for occurrence in scan.find(self.texts, progress)?.occurrences {
            let passage = &passages[occurrence.document as usize];
            let range = occurrence.token_offset..occurrence.token_offset + occurrence.n_tokens;
            if !passage.is_replaced[range.start as usize..range.end as usize].contains(&true) {
                continue;
            }
            // The byte is given within the document as it is stored, as of any occurrence: the bytes before
            // the first token, and those of the first token before the occurrence.
            let token_offset = passage.start + range.start;
            let in_document = before(passage.document, token_offset);
            chunk.fill(&source, &[before(occurrence.document, range.start)])?;
            let byte_in_token = occurrence.byte_offset - chunk.haystack().1 as u64;
            chunk.fill(self.order.source(), &[in_document])?;
            let byte_offset = chunk.haystack().1 as u64 + byte_in_token;
            let appearances = passage.appearances_of(token_offset, passage.start + range.end);
            found.extend(sightings_in_copy(
                &appearances,
                &Occurrence {
                    document: passage.document,
                    byte_offset,
                    token_offset,
                    ..occurrence
                },
            ));
        }
        Ok(found)
    }
}

/// Appends a passage if it has a replaced token.
fn keep(passage: Passage, out: &mut Vec<Passage>) {
    if passage.is_replaced.contains(&true) {
        out.push(passage);
    }
}

/// The tokens of a document before one of them.
fn before(document: u64, token: u64) -> Span {
    Span {
        document,
        start: 0,
        length: token,
    }
}
