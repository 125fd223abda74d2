//! The longest spans of a text that occur verbatim in a document, as a model may have copied them.
//!
//! After OLMoTrace (Liu et al. 2025, arXiv:2504.07096), which matches tokens. Here bytes are matched, and a
//! span may start and end within tokens. From each byte of the text, [`super::match_ends`] finds the suffixes
//! that match further than the spans found so far; the token before each in its document tells how far the
//! span extends to the left.

use std::{
    cmp::Reverse,
    ops::Range,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use super::{
    index::{SuffixIndex, with_tokens},
    match_ends::{MatchEnd, TokenLattice, Walker, n_equal},
    segment::{SegmentView, StoredToken},
};
use crate::{
    Error, Result,
    io::share_work,
    tokens::{TokenSource, TokenType},
};

/// Upper bound on the occurrences inspected per boundary and segment, longest match first. Each costs a few
/// cache misses, and a frequent phrase has millions. A higher bound finds more of the spans that start within
/// a token.
const MAX_OCCURRENCES: usize = 2000;

/// Bytes of the text that a thread searches at a time. Within them, the matches of a byte save work at the bytes after
/// it. Larger blocks save more, but occupy fewer threads if the text has a few thousand bytes.
const BLOCK_BYTES: usize = 512;

impl SuffixIndex {
    /// The maximal spans of a text of at least `min_bytes` bytes that occur in a document, in order. Spans
    /// are cut to whole characters, and none is within another.
    ///
    /// The whole tokens of the document in a span must have at least half of `min_bytes` bytes: short matches
    /// are too many to extend each to the left. Spans may be missed in two cases: at each byte, only the 2,000
    /// longest matches in a segment are inspected, so a span that occurs more often may start up to one token
    /// late; and a walk visits 20,000 nodes at most, which a text that repeats itself can exceed.
    ///
    /// # Errors
    /// `min_bytes` is 0; or the index was built without a tokenizer.
    pub fn spans(
        &self,
        text: &str,
        min_bytes: usize,
        n_threads: usize,
    ) -> Result<Vec<Range<usize>>> {
        if min_bytes == 0 {
            return Err(Error::argument("spans have at least one byte"));
        }
        if text.is_empty() {
            return Ok(Vec::new());
        }
        let bytes = text.as_bytes();
        self.check_text(bytes)?;
        let spans = Mutex::new(Ok(Vec::new()));
        let next = AtomicUsize::new(0);
        let work = || {
            loop {
                let start = next.fetch_add(1, Relaxed) * BLOCK_BYTES;
                if start >= bytes.len() {
                    return;
                }
                let block = start..(start + BLOCK_BYTES).min(bytes.len());
                let found = self.spans_of_block(bytes, block, min_bytes);
                let mut spans = spans.lock().unwrap_or_else(PoisonError::into_inner);
                match (&mut *spans, found) {
                    (Ok(spans), Ok(found)) => spans.extend(found),
                    (Ok(_), Err(err)) => *spans = Err(err),
                    (Err(_), _) => return,
                }
            }
        };
        share_work(n_threads.clamp(1, bytes.len().div_ceil(BLOCK_BYTES)), work);
        let spans = spans.into_inner().unwrap_or_else(PoisonError::into_inner)?;
        let to_characters = |span: Range<usize>| {
            let start = (span.start..)
                .find(|at| text.is_char_boundary(*at))
                .unwrap_or(text.len());
            let end = (0..=span.end)
                .rfind(|at| text.is_char_boundary(*at))
                .unwrap_or(0);
            start..end.max(start)
        };
        let spans = spans.into_iter().map(to_characters);
        Ok(maximal(
            spans.filter(|span| span.len() >= min_bytes).collect(),
        ))
    }

    /// The spans whose first token boundary, in the document, is at a byte of `boundaries` in the text.
    fn spans_of_block(
        &self,
        text: &[u8],
        boundaries: Range<usize>,
        min_bytes: usize,
    ) -> Result<Vec<Range<usize>>> {
        let mut lattice = TokenLattice::new(text, self.alphabet());
        let earliest_starts = self.earliest_starts(text, boundaries.clone());
        let mut search = SpanSearch::new(text, boundaries, earliest_starts, min_bytes);
        with_tokens!(self, |tokens| for view in self.views(tokens) {
            search.add_spans_of(&view, &mut lattice);
        });
        Ok(maximal(search.spans))
    }

    /// For each boundary, the earliest byte from which the text up to the boundary is the end of a token; the
    /// boundary itself if there is none. A span extends at most so far to the left.
    fn earliest_starts(&self, text: &[u8], boundaries: Range<usize>) -> Vec<usize> {
        let mut earliest: Vec<usize> = boundaries.clone().collect();
        let max_token_bytes = self.alphabet().max_token_bytes();
        for start in boundaries.start.saturating_sub(max_token_bytes)..boundaries.end {
            // One range for each length from 1 on, up to the longest with which any token's tail starts.
            let tails = self.tails().prefix_ranges(self.alphabet(), &text[start..]);
            for (boundary, range) in (start + 1..boundaries.end).zip(tails) {
                if boundary >= boundaries.start && !range.exact().is_empty() {
                    let known = &mut earliest[boundary - boundaries.start];
                    *known = start.min(*known);
                }
            }
        }
        earliest
    }
}

/// The spans that are within no other one, in order.
fn maximal(mut spans: Vec<Range<usize>>) -> Vec<Range<usize>> {
    spans.sort_unstable_by_key(|span| (span.start, Reverse(span.end)));
    let mut end = 0;
    spans.retain(|span| {
        let is_new = span.end > end;
        end = end.max(span.end);
        is_new
    });
    spans
}

/// A search for the spans whose first token boundary, in the document, is at a byte of `boundaries` in the
/// text.
///
/// A match starts at a boundary. A span is a match extended to the left, into the token before the boundary.
/// Matches and spans are known once they are found, and those within a known one are skipped.
struct SpanSearch<'a> {
    text: &'a [u8],
    boundaries: Range<usize>,
    min_bytes: usize,
    /// For each boundary, the earliest start of a span: see [`SuffixIndex::earliest_starts`].
    earliest_starts: Vec<usize>,
    /// For each boundary, the least of its earliest start and of those of all later boundaries.
    earliest_from: Vec<usize>,
    /// For each byte from `earliest_from[0]` on, the furthest end of a known match or span that starts there
    /// or before; 0 if there is none. The ends ascend.
    known_ends: Vec<usize>,
    /// The spans found.
    spans: Vec<Range<usize>>,
}

impl<'a> SpanSearch<'a> {
    fn new(
        text: &'a [u8],
        boundaries: Range<usize>,
        earliest_starts: Vec<usize>,
        min_bytes: usize,
    ) -> Self {
        let mut earliest_from = earliest_starts.clone();
        for i in (1..earliest_from.len()).rev() {
            earliest_from[i - 1] = earliest_from[i].min(earliest_from[i - 1]);
        }
        Self {
            known_ends: vec![0; boundaries.end - earliest_from[0]],
            text,
            boundaries,
            min_bytes,
            earliest_starts,
            earliest_from,
            spans: Vec::new(),
        }
    }

    /// Adds the spans that a segment has and that are not within a known one.
    fn add_spans_of<T: StoredToken>(
        &mut self,
        view: &SegmentView<'_, T>,
        lattice: &mut TokenLattice<'_>,
    ) {
        let mut walker = Walker::new(view, lattice);
        let mut start = self.earliest_from[0];
        if start < self.boundaries.start {
            // Spans that start before the block may be within these matches. The search of an earlier block
            // reports the spans of the matches themselves.
            let ends = self.match_ends(&mut walker, start);
            self.add_known_matches(start, &ends);
            start = self.boundaries.start;
        }
        while start < self.boundaries.end {
            // A match that ends at or before `known_end` is within a known one or too short, as no span of
            // this boundary or of a later one starts before `earliest`. It never decreases, as `next_start` requires:
            // `earliest_from` and `known_ends` ascend.
            let earliest = self.earliest_from[start - self.boundaries.start];
            let known_end = self.known_end(earliest).max(earliest + self.min_bytes - 1);
            match walker.next_start(known_end, start..self.boundaries.end) {
                None => return,
                Some(next) if next > start => start = next,
                Some(_) => {
                    let ends = self.match_ends(&mut walker, start);
                    // The spans first: a known match hides the spans within it, its own among them.
                    self.add_spans_at(view, start, &ends);
                    self.add_known_matches(start, &ends);
                    start += 1;
                }
            }
        }
    }

    /// The matches from a boundary with enough bytes in whole tokens, longest first.
    fn match_ends<T: StoredToken>(
        &self,
        walker: &mut Walker<'_, '_, T>,
        start: usize,
    ) -> Vec<MatchEnd> {
        let mut ends = walker.match_ends(start);
        // The whole tokens of a match are `start..node.at`; up to `end` only the start of the next token matches.
        ends.retain(|found| (found.node.at - start) * 2 >= self.min_bytes);
        ends.sort_by_key(|found| Reverse(found.end));
        ends
    }

    /// The furthest end of a known match or span that starts at or before a byte.
    fn known_end(&self, start: usize) -> usize {
        self.known_ends[start - self.earliest_from[0]]
    }

    fn add_known_match(&mut self, matched: &Range<usize>) {
        let later_starts = self.known_ends[matched.start - self.earliest_from[0]..].iter_mut();
        for end in later_starts.take_while(|end| **end < matched.end) {
            *end = matched.end;
        }
    }

    /// Adds the matches from a boundary. `ends` has the longest one first, and the others are within it.
    fn add_known_matches(&mut self, start: usize, ends: &[MatchEnd]) {
        if let Some(longest) = ends.first() {
            self.add_known_match(&(start..longest.end));
        }
    }

    /// Adds the spans of the matches from a boundary, extended to the left within the token before.
    fn add_spans_at<T: StoredToken>(
        &mut self,
        view: &SegmentView<'_, T>,
        start: usize,
        ends: &[MatchEnd],
    ) {
        let earliest = self.earliest_starts[start - self.boundaries.start];
        let mut n_left = MAX_OCCURRENCES;
        for MatchEnd { node, end } in ends {
            for suffix in node.suffixes.clone().take(n_left) {
                // No span of this match is new, nor of the following ones, which end before it.
                if self.known_end(earliest) >= *end {
                    return;
                }
                n_left -= 1;
                let position = view.suffixes[suffix as usize] as usize;
                let before = view
                    .token_with_bytes_before(position)
                    .map_or(&[][..], |position| view.token_bytes(position));
                let n = n_equal(before.iter().rev().zip(self.text[..start].iter().rev()));
                let span = start - n..*end;
                // If the whole token before matches, the span is found from the boundary before that token.
                let is_first_boundary = n == 0 || n < before.len();
                if is_first_boundary
                    && span.len() >= self.min_bytes
                    && span.end > self.known_end(span.start)
                {
                    self.add_known_match(&span);
                    self.spans.push(span);
                }
            }
        }
    }
}
