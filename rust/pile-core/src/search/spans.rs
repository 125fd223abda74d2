//! The longest runs of a text that stand verbatim in the documents: what a model may have copied from them.
//!
//! After OLMoTrace (Liu et al. 2025, arXiv:2504.07096), which matches tokens; here bytes are matched, and a span may
//! begin and end within tokens. From each character, the suffixes that go on as the text does are walked to their ends;
//! what stands before them in their documents tells how far a span reaches to the left.

use std::{
    ops::Range,
    sync::{Mutex, PoisonError, atomic::AtomicUsize, atomic::Ordering::Relaxed},
};

use super::{
    index::{SuffixIndex, with_tokens},
    piece::{Token, View},
    text::Node,
};
use crate::{
    Error, Result,
    tokens::{TokenSource, TokenType},
};

/// From a beginning, occurrences of which what stands around them is looked at, those that agree longest first.
const MAX_LOOKED_AT: u32 = 2000;

/// From a beginning, points of the walk: texts that repeat themselves would have too many.
const MAX_POINTS: usize = 20_000;

/// Beginnings that a thread takes at a time.
const BLOCK: usize = 64;

impl SuffixIndex {
    /// The maximal spans of a text of at least `min_bytes` bytes that stand in a document, in order, cut to whole
    /// characters. None lies within another.
    ///
    /// Half of `min_bytes` must be whole tokens of the document. Of what begins as the text does at a place, the 2,000
    /// occurrences that agree longest are looked at, so that of frequent runs a span may begin up to a token late.
    ///
    /// # Errors
    /// The text cannot be looked for: see [`Self::count_text`].
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
        self.check_text(text.as_bytes())?;
        let starts: Vec<usize> = text.char_indices().map(|(at, _)| at).collect();
        let spans = Mutex::new(Vec::new());
        let next = AtomicUsize::new(0);
        let work = || {
            loop {
                let block = next.fetch_add(1, Relaxed) * BLOCK;
                let Some(starts) = starts.get(block..(block + BLOCK).min(starts.len())) else {
                    return;
                };
                if starts.is_empty() {
                    return;
                }
                let found = self.spans_from(text.as_bytes(), starts, min_bytes);
                spans
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .extend(found);
            }
        };
        std::thread::scope(|scope| {
            for _ in 1..n_threads.clamp(1, starts.len().div_ceil(BLOCK)) {
                scope.spawn(work);
            }
            work();
        });
        let spans = spans.into_inner().unwrap_or_else(PoisonError::into_inner);
        let whole = spans.into_iter().map(|span: Range<usize>| {
            let start = (span.start..)
                .find(|at| text.is_char_boundary(*at))
                .unwrap_or(text.len());
            let end = (0..=span.end)
                .rfind(|at| text.is_char_boundary(*at))
                .unwrap_or(0);
            start..end.max(start)
        });
        Ok(maximal(
            whole.filter(|span| span.len() >= min_bytes).collect(),
        ))
    }

    fn spans_from(&self, text: &[u8], starts: &[usize], min_bytes: usize) -> Vec<Range<usize>> {
        let mut spans = Vec::new();
        with_tokens!(self, |tokens| for view in self.views(tokens) {
            for start in starts {
                view.spans_from(text, *start, min_bytes, &mut spans);
            }
        });
        maximal(spans)
    }
}

/// Of spans, those that lie within no other, in order.
fn maximal(mut spans: Vec<Range<usize>>) -> Vec<Range<usize>> {
    spans.sort_unstable_by_key(|span| (span.start, std::cmp::Reverse(span.end)));
    let mut end = 0;
    spans.retain(|span| {
        let is_new = span.end > end;
        end = end.max(span.end);
        is_new
    });
    spans
}

impl<T: Token> View<'_, T> {
    /// Spans of which some token of the document begins at `start`.
    fn spans_from(
        &self,
        text: &[u8],
        start: usize,
        min_bytes: usize,
        spans: &mut Vec<Range<usize>>,
    ) {
        let mut open = vec![Node {
            suffixes: 0..self.suffixes.len() as u32,
            depth: 0,
            at: start,
        }];
        let mut ends: Vec<(Node, Range<u32>)> = Vec::new();
        for _ in 0..MAX_POINTS {
            let Some(node) = open.pop() else { break };
            let n_open = open.len();
            if node.at < text.len() {
                self.steps(text, &node, &mut open);
            }
            if node.depth == 0 || (node.at - start) * 2 < min_bytes {
                continue;
            }
            let mut on: Vec<Range<u32>> = open[n_open..]
                .iter()
                .map(|node| node.suffixes.clone())
                .collect();
            on.sort_unstable_by_key(|range| range.start);
            let mut from = node.suffixes.start;
            for range in on
                .into_iter()
                .chain(std::iter::once(node.suffixes.end..node.suffixes.end))
            {
                if from < range.start {
                    ends.push((node.clone(), from..range.start));
                }
                from = range.end;
            }
        }
        ends.sort_by_key(|(node, _)| std::cmp::Reverse(node.at));
        let mut left = MAX_LOOKED_AT;
        for (node, suffixes) in ends {
            let end = suffixes.end.min(suffixes.start.saturating_add(left));
            left -= end - suffixes.start;
            self.ends_here(text, start, &node, suffixes.start..end, min_bytes, spans);
        }
    }

    /// Adds the spans of suffixes whose next token is not, as a whole, what the text goes on with.
    fn ends_here(
        &self,
        text: &[u8],
        start: usize,
        node: &Node,
        suffixes: Range<u32>,
        min_bytes: usize,
        spans: &mut Vec<Range<usize>>,
    ) {
        for suffix in suffixes {
            let next = self
                .rank_at(suffix, node.depth)
                .map_or(&[][..], |rank| self.alphabet.bytes(rank));
            let end = node.at + common(next.iter().zip(&text[node.at..]));
            let place = self.suffixes[suffix as usize] as usize;
            let before = self.spelt_before(place).and_then(|place| self.rank(place));
            let before = before.map_or(&[][..], |rank| self.alphabet.bytes(rank));
            let n = common(before.iter().rev().zip(text[..start].iter().rev()));
            // Where the whole token before agrees, the span is found from that token's beginning.
            if (n == 0 || n < before.len()) && end - (start - n) >= min_bytes {
                spans.push(start - n..end);
            }
        }
    }
}

/// Pairs that agree before the first that does not.
fn common<'a>(pairs: impl Iterator<Item = (&'a u8, &'a u8)>) -> usize {
    pairs.take_while(|(a, b)| a == b).count()
}
