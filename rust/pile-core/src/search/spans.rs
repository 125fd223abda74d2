//! The longest runs of a text that stand verbatim in the documents: what a model may have copied from them.
//!
//! After OLMoTrace (Liu et al. 2025, arXiv:2504.07096), which matches tokens; here bytes are matched, and a span may
//! begin and end within tokens. From each byte, the suffixes that go on as the text does beyond what is known are walked to
//! their ends ([`super::reach`]); what stands before them in their documents tells how far a span reaches to the left.

use std::{
    cmp::Reverse,
    ops::Range,
    sync::{Mutex, PoisonError, atomic::AtomicUsize, atomic::Ordering::Relaxed},
};

use super::{
    index::{SuffixIndex, with_tokens},
    piece::{Token, View},
    reach::{End, Lattice, Walker, common},
};
use crate::{
    Error, Result,
    io::share_work,
    tokens::{TokenSource, TokenType},
};

/// From a border, occurrences before which is looked what stands there, those that agree longest first.
const MAX_LOOKED_AT: usize = 2000;

/// Bytes that a thread takes at a time; what the first of them lead to spares work at those that follow.
const BLOCK: usize = 512;

impl SuffixIndex {
    /// The maximal spans of a text of at least `min_bytes` bytes that stand in a document, in order, cut to whole
    /// characters. None lies within another.
    ///
    /// Half of `min_bytes` must be whole tokens of the document. Of what begins as the text does at a place, the 2,000
    /// occurrences that agree longest are looked at, so that of frequent runs a span may begin up to a token late; and
    /// 20,000 points of the walk are tried, so that of a text that repeats itself one may be missed.
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
        let bytes = text.as_bytes();
        let spans = Mutex::new(Ok(Vec::new()));
        let next = AtomicUsize::new(0);
        let work = || {
            loop {
                let start = next.fetch_add(1, Relaxed) * BLOCK;
                if start >= bytes.len() {
                    return;
                }
                let block = start..(start + BLOCK).min(bytes.len());
                let found = self.spans_from(bytes, block, min_bytes);
                let mut spans = spans.lock().unwrap_or_else(PoisonError::into_inner);
                match (&mut *spans, found) {
                    (Ok(spans), Ok(found)) => spans.extend(found),
                    (Ok(_), Err(err)) => *spans = Err(err),
                    (Err(_), _) => return,
                }
            }
        };
        share_work(n_threads.clamp(1, bytes.len().div_ceil(BLOCK)), work);
        let spans = spans.into_inner().unwrap_or_else(PoisonError::into_inner)?;
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

    fn spans_from(
        &self,
        text: &[u8],
        starts: Range<usize>,
        min_bytes: usize,
    ) -> Result<Vec<Range<usize>>> {
        let mut lattice = Lattice::new(text, self.alphabet());
        let mut block = Block::new(text, starts.clone(), self.begins(text, starts), min_bytes);
        with_tokens!(self, |tokens| for view in self.views(tokens) {
            block.add_spans(&view, &mut lattice);
        });
        Ok(maximal(block.spans))
    }

    /// For each border of tokens, where a span may begin at the earliest that begins within the token before.
    fn begins(&self, text: &[u8], borders: Range<usize>) -> Vec<usize> {
        let mut begins: Vec<usize> = borders.clone().collect();
        let first = borders.start.saturating_sub(self.alphabet().longest());
        for begin in first..borders.end {
            let begun = self.tails().begun(self.alphabet(), &text[begin..]);
            for (border, begun) in (begin + 1..borders.end).zip(begun) {
                if border >= borders.start && !begun.whole().is_empty() {
                    let known = &mut begins[border - borders.start];
                    *known = begin.min(*known);
                }
            }
        }
        begins
    }
}

/// Of spans, those that lie within no other, in order.
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

/// Borders of tokens from which spans are looked for.
struct Block<'a> {
    text: &'a [u8],
    borders: Range<usize>,
    min_bytes: usize,
    /// For each border, where a span of it may begin at the earliest.
    begins: Vec<usize>,
    /// For each border, the same of it and of all behind it.
    least: Vec<usize>,
    /// From the first of these, the furthest end of what is known to stand in a document from there or from before.
    known: Vec<usize>,
    spans: Vec<Range<usize>>,
}

impl<'a> Block<'a> {
    fn new(text: &'a [u8], borders: Range<usize>, begins: Vec<usize>, min_bytes: usize) -> Self {
        let mut least = begins.clone();
        for i in (1..least.len()).rev() {
            least[i - 1] = least[i].min(least[i - 1]);
        }
        Self {
            known: vec![0; borders.end - least[0]],
            text,
            borders,
            min_bytes,
            begins,
            least,
            spans: Vec::new(),
        }
    }

    /// Adds the spans of a piece that lie within none that is known.
    fn add_spans<T: Token>(&mut self, view: &View<'_, T>, lattice: &mut Lattice<'_>) {
        let mut walker = Walker::new(view, lattice);
        let mut start = self.least[0];
        if start < self.borders.start {
            // The block before finds the spans of what goes on from here.
            let ends = self.ends(&mut walker, start);
            self.know_ends(start, &ends);
            start = self.borders.start;
        }
        while start < self.borders.end {
            let begin = self.least[start - self.borders.start];
            let beyond = self.known_from(begin).max(begin + self.min_bytes - 1);
            match walker.next_beyond(beyond, start..self.borders.end) {
                None => return,
                Some(next) if next > start => start = next,
                Some(_) => {
                    let ends = self.ends(&mut walker, start);
                    self.look_at(view, start, &ends);
                    self.know_ends(start, &ends);
                    start += 1;
                }
            }
        }
    }

    /// What goes on beyond what is known, those that agree longest first.
    fn ends<T: Token>(&self, walker: &mut Walker<'_, '_, T>, start: usize) -> Vec<End> {
        let mut ends = walker.ends(start);
        ends.retain(|end| (end.node.at - start) * 2 >= self.min_bytes);
        ends.sort_by_key(|end| Reverse(end.end));
        ends
    }

    /// The furthest end known of what begins at a place or before it.
    fn known_from(&self, begin: usize) -> usize {
        self.known[begin - self.least[0]]
    }

    fn know(&mut self, span: &Range<usize>) {
        let shorter = self.known[span.start - self.least[0]..].iter_mut();
        for known in shorter.take_while(|known| **known < span.end) {
            *known = span.end;
        }
    }

    fn know_ends(&mut self, start: usize, ends: &[End]) {
        if let Some(furthest) = ends.first() {
            self.know(&(start..furthest.end));
        }
    }

    /// Adds the spans that begin at a border or within the token before it.
    fn look_at<T: Token>(&mut self, view: &View<'_, T>, start: usize, ends: &[End]) {
        let earliest = self.begins[start - self.borders.start];
        let mut left = MAX_LOOKED_AT;
        for End { node, end } in ends {
            for suffix in node.suffixes.clone().take(left) {
                if self.known_from(earliest) >= *end {
                    break;
                }
                left -= 1;
                let place = view.suffixes[suffix as usize] as usize;
                let before = view.spelt_before(place).and_then(|place| view.rank(place));
                let before = before.map_or(&[][..], |rank| view.alphabet.bytes(rank));
                let n = common(before.iter().rev().zip(self.text[..start].iter().rev()));
                // Where the whole token before agrees, the span is found from that token's beginning.
                let span = start - n..*end;
                if (n == 0 || n < before.len())
                    && span.len() >= self.min_bytes
                    && span.end > self.known_from(span.start)
                {
                    self.know(&span);
                    self.spans.push(span);
                }
            }
        }
    }
}
