//! Binary search in a piece: one n-gram, many at a time, or a range of ranks at a depth.

use std::{cmp::Ordering, ops::Range};

use super::{
    alphabet::partition_point,
    piece::{STRIDE, Token, View},
};
use crate::io::prefetch;

/// Searches under way at a time: enough for their waits on memory to overlap.
const LANES: usize = 32;

/// A search for the suffixes that begin with an n-gram.
#[derive(Debug, Clone)]
struct Search<'q, T> {
    /// Number of the n-gram among those asked for.
    number: usize,
    ngram: &'q [T],
    low: u32,
    high: u32,
    /// The place in the piece of the suffix in the middle, once read.
    place: usize,
    /// What remains to be searched for the end, once a suffix is found.
    above: Option<Range<u32>>,
    first: Option<u32>,
}

impl<T: Token> Search<'_, T> {
    fn middle(&self) -> u32 {
        self.low + (self.high - self.low) / 2
    }

    /// Goes on after a comparison with the suffix in the middle; returns what was found at the end.
    fn turn(&mut self, found: Ordering) -> Option<Range<u32>> {
        let middle = self.middle();
        match (found, self.first) {
            (Ordering::Less, _) => self.low = middle + 1,
            (Ordering::Greater, _) => self.high = middle,
            (Ordering::Equal, None) => {
                self.above.get_or_insert(middle + 1..self.high);
                self.high = middle;
            }
            (Ordering::Equal, Some(_)) => self.low = middle + 1,
        }
        self.finished()
    }

    /// What was found, if the search is at its end.
    fn finished(&mut self) -> Option<Range<u32>> {
        if self.low < self.high {
            return None;
        }
        match (self.first, self.above.take()) {
            (None, None) => Some(self.low..self.low),
            (Some(first), _) => Some(first..self.low),
            (None, Some(above)) => {
                self.first = Some(self.low);
                (self.low, self.high) = (above.start, above.end);
                self.finished()
            }
        }
    }
}

impl<T: Token> View<'_, T> {
    /// The suffixes that begin with an id of these ranks.
    pub(super) fn of_ranks(&self, ranks: Range<u32>) -> Range<u32> {
        self.buckets[ranks.start as usize]..self.buckets[ranks.end as usize]
    }

    /// Of suffixes that agree in their first `depth` tokens, those that go on with an id of these ranks.
    pub(super) fn narrow(&self, range: Range<u32>, depth: usize, ranks: Range<u32>) -> Range<u32> {
        if depth == 0 {
            return self.of_ranks(ranks);
        }
        let before = |suffix, rank| self.rank_at(suffix, depth).is_none_or(|found| found < rank);
        let (begins, ends) = self.between(range, depth, ranks.clone());
        let first = partition_point(begins, |suffix| before(suffix, ranks.start));
        let from = ends.start.max(first);
        let end = partition_point(from..ends.end.max(from), |suffix| before(suffix, ranks.end));
        first..end
    }

    /// Among which of suffixes that agree in their first `depth` tokens those begin, and behind which of them they
    /// end, that go on with an id of these ranks.
    fn between(
        &self,
        range: Range<u32>,
        depth: usize,
        ranks: Range<u32>,
    ) -> (Range<u32>, Range<u32>) {
        let sign = |rank| u64::from(rank) + 1;
        if range.end - range.start <= STRIDE || depth > 2 {
            return (range.clone(), range);
        }
        let (same, shift) = match depth {
            1 => (0, u32::BITS),
            _ => (self.sign(range.start) >> u32::BITS << u32::BITS, 0),
        };
        let low = same | sign(ranks.start) << shift;
        let high = same + (sign(ranks.end) << shift);
        self.by_signs(range, low..high)
    }

    /// Among which of suffixes with the same first token those begin, and behind which of them they end, whose signs
    /// are wanted.
    fn by_signs(&self, range: Range<u32>, wanted: Range<u64>) -> (Range<u32>, Range<u32>) {
        let signed = range.start.div_ceil(STRIDE)..range.end.div_ceil(STRIDE);
        let sign = |number: u32| self.signs[number as usize];
        let below = partition_point(signed.clone(), |number| sign(number) < wanted.start);
        let within = partition_point(below..signed.end, |number| sign(number) < wanted.end);
        // The last before a border and the first behind it.
        let around = |border: u32| {
            let start = match border > signed.start {
                true => (border - 1) * STRIDE + 1,
                false => range.start,
            };
            start..border.saturating_mul(STRIDE).clamp(start, range.end)
        };
        (around(below), around(within))
    }

    /// The first of suffixes that agree in their first `depth` tokens whose document does not end behind them.
    pub(super) fn first_that_goes_on(&self, range: Range<u32>, depth: usize) -> u32 {
        match depth {
            0 => range.start,
            _ => {
                let (begins, _) = self.between(range, depth, 0..0);
                partition_point(begins, |suffix| self.rank_at(suffix, depth).is_none())
            }
        }
    }

    /// The suffix at a place against an n-gram with which its first token agrees.
    fn compare(&self, place: usize, ngram: &[T]) -> Ordering {
        for (i, wanted) in ngram.iter().enumerate().skip(1) {
            if self.is_last(place + i - 1) {
                return Ordering::Less;
            }
            let found = self.tokens.get(place + i);
            if found != Some(wanted) {
                return self.rank(place + i).cmp(&self.alphabet.rank(wanted.id()));
            }
        }
        Ordering::Equal
    }

    /// A search for an n-gram, or what was found where there is nothing more to search.
    fn start<'q>(&self, number: usize, ngram: &'q [T]) -> Result<Search<'q, T>, Range<u32>> {
        let Some(first) = ngram.first() else {
            return Err(0..self.suffixes.len() as u32);
        };
        let rank = |token: &T| self.alphabet.rank(token.id());
        if ngram.iter().any(|token| rank(token).is_none()) {
            return Err(0..0);
        }
        let first = rank(first).unwrap_or_default();
        let whole = self.of_ranks(first..first + 1);
        if ngram.len() < 2 || whole.is_empty() {
            return Err(whole);
        }
        let sign = |place: usize| ngram.get(place).and_then(rank).map_or(0, |rank| rank + 1);
        let low = u64::from(sign(1)) << u32::BITS | u64::from(sign(2));
        let n_signs = if ngram.len() == 2 { 1 << u32::BITS } else { 1 };
        let (begins, ends) = self.by_signs(whole, low..low + n_signs);
        // Signs tell all of up to three tokens: between the borders all suffixes are found.
        let are_between = ngram.len() <= 3 && ends.start > begins.end;
        let mut search = Search {
            number,
            ngram,
            low: begins.start,
            high: if are_between { begins.end } else { ends.end },
            place: 0,
            above: are_between.then_some(ends),
            first: None,
        };
        match search.finished() {
            Some(found) => Err(found),
            None => Ok(search),
        }
    }

    /// The suffixes that begin with an n-gram.
    pub(super) fn find(&self, ngram: &[T]) -> Range<u32> {
        let mut search = match self.start(0, ngram) {
            Ok(search) => search,
            Err(found) => return found,
        };
        loop {
            let place = self.suffixes[search.middle() as usize] as usize;
            if let Some(found) = search.turn(self.compare(place, ngram)) {
                return found;
            }
        }
    }

    /// Calls `found` with the suffixes that begin with each n-gram, in no particular order. Many searches go on
    /// together: while one waits for memory, the others work.
    pub(super) fn find_all<'q>(
        &self,
        ngrams: impl Iterator<Item = &'q [T]>,
        mut found: impl FnMut(usize, Range<u32>),
    ) where
        T: 'q,
    {
        let mut waiting = ngrams.enumerate();
        let mut lanes: Vec<Search<'q, T>> = Vec::with_capacity(LANES);
        loop {
            while lanes.len() < LANES {
                let Some((number, ngram)) = waiting.next() else {
                    break;
                };
                match self.start(number, ngram) {
                    Ok(search) => {
                        prefetch(&self.suffixes[search.middle() as usize]);
                        lanes.push(search);
                    }
                    Err(range) => found(number, range),
                }
            }
            if lanes.is_empty() {
                return;
            }
            for search in &mut lanes {
                search.place = self.suffixes[search.middle() as usize] as usize;
                if let Some(token) = self.tokens.get(search.place + 1) {
                    prefetch(token);
                }
            }
            lanes.retain_mut(|search| {
                match search.turn(self.compare(search.place, search.ngram)) {
                    Some(range) => {
                        found(search.number, range);
                        false
                    }
                    None => {
                        prefetch(&self.suffixes[search.middle() as usize]);
                        true
                    }
                }
            });
        }
    }
}
