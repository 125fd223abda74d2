//! Binary search in a piece: one n-gram, many at a time, or a range of ranks at a depth.

use std::{
    cmp::Ordering,
    ops::{Range, RangeInclusive},
};

use super::{
    alphabet::partition_point,
    piece::{STRIDE, Token, View},
};
use crate::io::prefetch;

/// Searches under way at a time: enough for their waits on memory to overlap.
const LANES: usize = 32;

/// An n-gram that is searched for among the signs.
#[derive(Debug)]
struct Asked<'q, T> {
    /// Its number among those asked for.
    number: usize,
    ngram: &'q [T],
    /// The suffixes that begin with its first token.
    whole: Range<u32>,
    /// The signs of those that begin with it, as far as signs tell.
    wanted: RangeInclusive<u64>,
    /// Among the numbers of which signs the first wanted one is.
    signed: Range<u32>,
}

impl<T> Asked<'_, T> {
    /// The sign to be looked at next.
    fn middle(&self) -> Option<u32> {
        let Range { start, end } = self.signed;
        (start < end).then(|| start + (end - start) / 2)
    }

    /// Goes on after a look at that sign.
    fn turn(&mut self, sign: u64) {
        match (self.middle(), sign < *self.wanted.start()) {
            (Some(middle), true) => self.signed.start = middle + 1,
            (Some(middle), false) => self.signed.end = middle,
            (None, _) => {}
        }
    }
}

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
        if range.end - range.start <= STRIDE || depth > self.signs_of.n_tokens {
            return (range.clone(), range);
        }
        let n_below = self.signs_of.n_below(depth);
        let others = u64::MAX.unbounded_shl(self.signs_of.n_below(depth - 1));
        let same = self.sign(range.start) & others;
        let low = same | (u64::from(ranks.start) + 1) << n_below;
        let high = same | u64::from(ranks.end) << n_below | !(u64::MAX << n_below);
        let signed = signed(&range);
        let below = partition_point(signed.clone(), |number| self.sign_of(number) < low);
        let within = partition_point(below..signed.end, |number| self.sign_of(number) <= high);
        (around(&range, below), around(&range, within))
    }

    /// The sign with this number.
    fn sign_of(&self, number: u32) -> u64 {
        self.signs[number as usize]
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

    /// What is asked for, or what was found where there is nothing to search.
    fn ask<'q>(&self, number: usize, ngram: &'q [T]) -> Result<Asked<'q, T>, Range<u32>> {
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
        let n_told = self.signs_of.n_tokens.min(ngram.len() - 1);
        let low = self
            .signs_of
            .sign(ngram[1..=n_told].iter().filter_map(rank));
        let high = low | !(u64::MAX << self.signs_of.n_below(n_told));
        Ok(Asked {
            number,
            ngram,
            signed: signed(&whole),
            whole,
            wanted: low..=high,
        })
    }

    /// The search for what was asked for, all its signs looked at.
    fn start<'q>(&self, asked: Asked<'q, T>) -> Result<Search<'q, T>, Range<u32>> {
        let (number, ngram, below) = (asked.number, asked.ngram, asked.signed.start);
        let behind = below..signed(&asked.whole).end;
        let within = partition_point(behind, |number| self.sign_of(number) <= *asked.wanted.end());
        let (begins, ends) = (around(&asked.whole, below), around(&asked.whole, within));
        // Where signs tell all of the n-gram, all suffixes between two with its sign are found.
        let are_between = ngram.len() - 1 <= self.signs_of.n_tokens && ends.start > begins.end;
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
        let mut asked = match self.ask(0, ngram) {
            Ok(asked) => asked,
            Err(found) => return found,
        };
        while let Some(middle) = asked.middle() {
            asked.turn(self.sign_of(middle));
        }
        let mut search = match self.start(asked) {
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
        let mut waiting = ngrams.enumerate().peekable();
        while waiting.peek().is_some() {
            let mut asked = Vec::with_capacity(LANES);
            for (number, ngram) in waiting.by_ref().take(LANES) {
                match self.ask(number, ngram) {
                    Ok(one) => asked.push(one),
                    Err(range) => found(number, range),
                }
            }
            self.look_at_signs(&mut asked);
            let mut searches = Vec::with_capacity(asked.len());
            for one in asked {
                let number = one.number;
                match self.start(one) {
                    Ok(search) => searches.push(search),
                    Err(range) => found(number, range),
                }
            }
            self.search(searches, &mut found);
        }
    }

    /// Finds for each the first sign that is wanted.
    fn look_at_signs(&self, asked: &mut [Asked<'_, T>]) {
        let mut is_under_way = true;
        while is_under_way {
            for middle in asked.iter().filter_map(Asked::middle) {
                prefetch(&self.signs[middle as usize]);
            }
            is_under_way = false;
            for one in &mut *asked {
                if let Some(middle) = one.middle() {
                    one.turn(self.sign_of(middle));
                    is_under_way = true;
                }
            }
        }
    }

    /// Brings searches to their ends.
    fn search(&self, mut lanes: Vec<Search<'_, T>>, found: &mut impl FnMut(usize, Range<u32>)) {
        while !lanes.is_empty() {
            for search in &lanes {
                prefetch(&self.suffixes[search.middle() as usize]);
            }
            for search in &mut lanes {
                search.place = self.suffixes[search.middle() as usize] as usize;
                if let Some(token) = self.tokens.get(search.place + 1) {
                    prefetch(token);
                }
            }
            lanes.retain_mut(|search| {
                let turned = search.turn(self.compare(search.place, search.ngram));
                let is_found = turned.is_some();
                turned
                    .into_iter()
                    .for_each(|range| found(search.number, range));
                !is_found
            });
        }
    }
}

/// The numbers of the signs that suffixes have.
fn signed(suffixes: &Range<u32>) -> Range<u32> {
    suffixes.start.div_ceil(STRIDE)..suffixes.end.div_ceil(STRIDE)
}

/// Among which suffixes a border lies that is before the one with this sign and not before the one with the last.
fn around(suffixes: &Range<u32>, sign: u32) -> Range<u32> {
    let start = match sign > signed(suffixes).start {
        true => (sign - 1) * STRIDE + 1,
        false => suffixes.start,
    };
    start..sign.saturating_mul(STRIDE).clamp(start, suffixes.end)
}
