//! Occurrences of texts by decoding every document.
//!
//! The documents form one sequence of tokens, which is split into work items of up to [`ITEM_TOKENS`] tokens. A
//! long document is split between items. An item reports the occurrences that begin in its own tokens and
//! decodes some tokens of the next item to see their ends. Byte offsets are first relative to the item's first
//! token, as only the items before it know how many bytes of the document they decoded; [`join`] adds these.

use super::{
    chunk::{Chunk, SearchUnit},
    grams::GramSearcher,
    occurrences::{DistinctTexts, FindOccurrences, Occurrence, OccurrenceLimit, Occurrences},
    parallel::in_parallel,
};
use crate::{
    Result,
    progress::Progress,
    tokens::{Span, TokenSource},
};

/// Maximum tokens of one work item: about a megabyte of text.
const ITEM_TOKENS: u64 = 1 << 18;

/// Bytes that the tokens of a work item may decode to. A token may have megabytes, and an item has many documents: no
/// more than one text must fit in memory.
const ITEM_BYTES: u64 = if cfg!(test) { 1 << 12 } else { 1 << 28 };

/// Finds texts by decoding every document.
#[derive(Debug, Clone, Copy)]
pub struct Scan<'a, S> {
    /// The documents.
    pub source: &'a S,
    /// What the texts are made of.
    pub unit: SearchUnit<'a>,
    /// Threads; the result is the same for any number.
    pub n_threads: usize,
    /// A search with more occurrences fails instead of filling the memory.
    pub max_occurrences: u64,
}

/// The first token of a work item; the item ends at the start of the next one.
#[derive(Debug, Clone, Copy)]
struct ItemStart {
    document: u64,
    token: u64,
}

/// The occurrences that begin in one work item.
#[derive(Debug, Default)]
struct ItemResult {
    number: usize,
    /// In the item's first document, `byte_offset` counts from the item's first token.
    occurrences: Vec<Occurrence>,
    /// Bytes of the item's tokens in its last document.
    last_bytes: u64,
    /// Documents with tokens in the item.
    n_documents: usize,
    n_without_bytes: u64,
}

impl<S: TokenSource> FindOccurrences for Scan<'_, S> {
    fn find(&self, texts: &[&[u8]], progress: &Progress) -> Result<Occurrences> {
        let distinct = DistinctTexts::new(texts)?;
        let searcher = GramSearcher::new(&distinct.strings);
        let n_tokens = ITEM_BYTES / (self.unit.longest() as u64).max(1);
        let starts = item_starts(self.source, n_tokens.clamp(1, ITEM_TOKENS))?;
        let limit = OccurrenceLimit::new(self.max_occurrences);
        let mut items = in_parallel(
            starts.len(),
            self.n_threads,
            |number, chunk: &mut Option<_>| {
                let chunk =
                    chunk.get_or_insert_with(|| Chunk::new(self.unit, self.source.token_type()));
                let next = starts.get(number + 1).copied();
                let spans = item_spans(self.source, starts[number], next)?;
                let item = self.search_item(chunk, &spans, &searcher, &distinct, &limit)?;
                progress.advance(spans.iter().map(|span| span.length).sum())?;
                Ok(ItemResult { number, ..item })
            },
        )?;
        items.sort_unstable_by_key(|item| item.number);
        let mut all = Occurrences {
            n_documents: self.source.n_documents(),
            ..Occurrences::default()
        };
        join(&mut all, items, &starts);
        for document in 0..self.source.n_documents() {
            all.n_tokens += self.source.document_length(document)?;
        }
        all.occurrences.sort_unstable();
        Ok(all)
    }
}

/// Adds up the results of the items and makes byte offsets relative to their documents.
fn join(all: &mut Occurrences, items: Vec<ItemResult>, starts: &[ItemStart]) {
    // Bytes of the item's first document in the items before it.
    let mut bytes_before = 0;
    for (item, start) in items.into_iter().zip(starts) {
        if start.token == 0 {
            bytes_before = 0;
        }
        all.n_without_bytes += item.n_without_bytes;
        all.occurrences
            .extend(item.occurrences.into_iter().map(|mut occurrence| {
                if occurrence.document == start.document {
                    occurrence.byte_offset += bytes_before;
                }
                occurrence
            }));
        // A document may be longer than an item: then the bytes of all its items add up.
        bytes_before = item.last_bytes
            + if item.n_documents == 1 {
                bytes_before
            } else {
                0
            };
    }
}

/// The first token of every work item of `n_tokens` tokens.
fn item_starts(source: &impl TokenSource, n_tokens: u64) -> Result<Vec<ItemStart>> {
    let mut starts = Vec::new();
    // Tokens that the current item may still take.
    let mut remaining = 0;
    for document in 0..source.n_documents() {
        let length = source.document_length(document)?;
        let mut token = 0;
        while token < length {
            if remaining == 0 {
                starts.push(ItemStart { document, token });
                remaining = n_tokens;
            }
            let n = remaining.min(length - token);
            token += n;
            remaining -= n;
        }
    }
    Ok(starts)
}

/// The spans of the work item from `start` up to `next`, or to the end of the source. Empty documents have none.
fn item_spans(
    source: &impl TokenSource,
    start: ItemStart,
    next: Option<ItemStart>,
) -> Result<Vec<Span>> {
    let end = next.unwrap_or(ItemStart {
        document: source.n_documents(),
        token: 0,
    });
    let mut spans = Vec::new();
    for document in start.document..=end.document.min(source.n_documents() - 1) {
        let first_token = if document == start.document {
            start.token
        } else {
            0
        };
        let end_token = if document == end.document {
            end.token
        } else {
            source.document_length(document)?
        };
        if first_token < end_token {
            spans.push(Span {
                document,
                start: first_token,
                length: end_token - first_token,
            });
        }
    }
    Ok(spans)
}

impl<S: TokenSource> Scan<'_, S> {
    fn search_item(
        &self,
        chunk: &mut Chunk<'_>,
        spans: &[Span],
        searcher: &GramSearcher<'_>,
        distinct: &DistinctTexts<'_>,
        limit: &OccurrenceLimit,
    ) -> Result<ItemResult> {
        chunk.fill(self.source, spans)?;
        let n_without_bytes = chunk.n_without_bytes();
        let own_bytes = chunk.look_ahead(self.source, distinct.longest().saturating_sub(1))?;
        let (haystack, length) = chunk.haystack();
        let mut occurrences = Vec::new();
        let mut status = Ok(());
        searcher.find(haystack, length, |string, start| {
            // An occurrence that begins in the bytes looked ahead is the next item's. One that spans two
            // documents is none.
            let found = (start < own_bytes)
                .then(|| chunk.locate(start, distinct.strings[string].len()))
                .flatten()
                .filter(|found| found.n_spans == 1);
            let Some(found) = found.filter(|_| status.is_ok()) else {
                return;
            };
            let numbers = distinct.numbers_of(string);
            status = limit.add(numbers.len() as u64);
            occurrences.extend(numbers.iter().map(|text| Occurrence {
                document: found.document,
                byte_offset: found.byte_in_span,
                text: *text,
                token_offset: found.token_offset,
                n_tokens: found.n_tokens,
            }));
        });
        status?;
        Ok(ItemResult {
            // Set by the caller.
            number: 0,
            occurrences,
            last_bytes: (own_bytes - chunk.last_first_byte()) as u64,
            n_documents: spans.len(),
            n_without_bytes,
        })
    }
}
