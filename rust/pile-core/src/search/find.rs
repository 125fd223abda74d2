//! Binary searches in a segment: for the suffixes that start with an n-gram, one or many at a time, and for
//! those with a token of given ranks at a depth.
//!
//! Every search first narrows its range by the samples and then compares tokens. The samples are adjacent in
//! memory, and each comparison of tokens is likely to miss the cache twice: at the entry of the suffix array
//! and at the token.

use std::{
    cmp::Ordering,
    ops::{
        ControlFlow::{self, Break, Continue},
        Range, RangeInclusive,
    },
};

use super::{
    alphabet::partition_point,
    segment::{SAMPLE_STRIDE, SegmentView, StoredToken},
};
use crate::io::prefetch;

/// Searches that are interleaved. A core can wait for some ten to twenty cache misses at once. There are more searches
/// than that, so that it also has misses to wait for while it compares.
const LANES: usize = 32;

/// A binary search for the first sample whose key is not below those of an n-gram.
#[derive(Debug)]
struct SampleSearch<'q, T> {
    /// The index of the n-gram in its batch.
    index: usize,
    ngram: &'q [T],
    /// The suffixes that start with the first token of the n-gram.
    bucket: Range<u32>,
    /// The keys of suffixes that start with the n-gram, or with the part of it that a key holds.
    keys: RangeInclusive<u64>,
    /// The range of samples still to be searched. When it is empty, its start is the result.
    samples: Range<u32>,
}

impl<T> SampleSearch<'_, T> {
    /// The sample to compare next; None at the end of the search.
    fn middle(&self) -> Option<u32> {
        let Range { start, end } = self.samples;
        (start < end).then(|| start + (end - start) / 2)
    }

    /// Narrows the range by the key of the sample in the middle.
    fn advance(&mut self, key: u64) {
        match (self.middle(), key < *self.keys.start()) {
            (Some(middle), true) => self.samples.start = middle + 1,
            (Some(middle), false) => self.samples.end = middle,
            (None, _) => {}
        }
    }
}

/// A binary search for the range of suffixes that start with an n-gram.
///
/// It first searches `low..high` for the start of the range. A match on the way bounds the search for the
/// end.
#[derive(Debug, Clone)]
struct SuffixSearch<'q, T> {
    /// The index of the n-gram in its batch.
    index: usize,
    ngram: &'q [T],
    low: u32,
    high: u32,
    /// The position of the suffix in the middle, once it is read.
    position: usize,
    /// Where to search for the end of the range. None until a match is known to exist.
    end_bounds: Option<Range<u32>>,
    /// The start of the range, once it is found. The search then is for the end.
    first: Option<u32>,
}

impl<T: StoredToken> SuffixSearch<'_, T> {
    fn middle(&self) -> u32 {
        self.low + (self.high - self.low) / 2
    }

    /// Narrows the search by how the suffix in the middle compares with the n-gram. Returns the range of
    /// matches at the end of the search.
    fn advance(&mut self, compared: Ordering) -> Option<Range<u32>> {
        let middle = self.middle();
        match (compared, self.first) {
            (Ordering::Less, _) => self.low = middle + 1,
            (Ordering::Greater, _) => self.high = middle,
            (Ordering::Equal, None) => {
                // Matches found after this one have lower indices, so this one bounds the end most tightly.
                self.end_bounds.get_or_insert(middle + 1..self.high);
                self.high = middle;
            }
            (Ordering::Equal, Some(_)) => self.low = middle + 1,
        }
        self.result()
    }

    /// The range of matches if the search has ended. Turns to the end of the range once the start is found.
    fn result(&mut self) -> Option<Range<u32>> {
        if self.low < self.high {
            return None;
        }
        match (self.first, self.end_bounds.take()) {
            (None, None) => Some(self.low..self.low),
            (Some(first), _) => Some(first..self.low),
            (None, Some(bounds)) => {
                self.first = Some(self.low);
                (self.low, self.high) = (bounds.start, bounds.end);
                self.result()
            }
        }
    }
}

impl<T: StoredToken> SegmentView<'_, T> {
    /// The suffixes whose first token has one of `ranks`.
    pub(super) fn bucket(&self, ranks: Range<u32>) -> Range<u32> {
        self.buckets[ranks.start as usize]..self.buckets[ranks.end as usize]
    }

    /// Narrows `range`, whose suffixes share their first `depth` tokens, to those whose next token has one of
    /// `ranks`. `ranks` is not empty.
    pub(super) fn narrow(&self, range: Range<u32>, depth: usize, ranks: Range<u32>) -> Range<u32> {
        if depth == 0 {
            return self.bucket(ranks);
        }
        let is_before = |suffix, rank| self.rank_at(suffix, depth).is_none_or(|found| found < rank);
        let (starts, ends) = self.bounds_by_samples(range, depth, ranks.clone());
        let first = partition_point(starts, |suffix| is_before(suffix, ranks.start));
        // The bounds of a damaged segment may contradict each other. The range must be valid all the same.
        let from = ends.start.max(first);
        let end = partition_point(from..ends.end.max(from), |suffix| {
            is_before(suffix, ranks.end)
        });
        first..end
    }

    /// Bounds, from the samples, for the start and for the end of the suffixes of `range` whose token at
    /// `depth` has one of `ranks`. The suffixes of `range` share their first `depth` tokens, one or more.
    ///
    /// The bounds are ranges in which a binary search finds the start and the end.
    fn bounds_by_samples(
        &self,
        range: Range<u32>,
        depth: usize,
        ranks: Range<u32>,
    ) -> (Range<u32>, Range<u32>) {
        if range.end - range.start <= SAMPLE_STRIDE || depth > self.packing.n_tokens {
            return (range.clone(), range);
        }
        // A key starts with the rank at depth 1. All suffixes of the range share the ranks before `depth`,
        // and those after it may be any. At depth 1 no bits are shared, and the shift may be by all 64 bits.
        let n_bits_after = self.packing.n_bits_after(depth);
        let shared_bits = u64::MAX.unbounded_shl(self.packing.n_bits_after(depth - 1));
        let shared = self.prefix_key(range.start) & shared_bits;
        let low = shared | (u64::from(ranks.start) + 1) << n_bits_after;
        let high = shared | u64::from(ranks.end) << n_bits_after | !(u64::MAX << n_bits_after);
        let samples = samples_in(&range);
        let first = partition_point(samples.clone(), |sample| self.sampled_key(sample) < low);
        let end = partition_point(first..samples.end, |sample| {
            self.sampled_key(sample) <= high
        });
        (up_to_sample(&range, first), up_to_sample(&range, end))
    }

    /// The prefix key of a sample.
    fn sampled_key(&self, sample: u32) -> u64 {
        self.samples[sample as usize]
    }

    /// The first suffix of `range` whose document has a token at `depth`; the end of `range` if there is
    /// none. The suffixes of `range` share their first `depth` tokens.
    pub(super) fn first_continued(&self, range: Range<u32>, depth: usize) -> u32 {
        match depth {
            0 => range.start,
            _ => {
                // The bounds for a start at rank 0 bound the first suffix with any rank.
                let (starts, _) = self.bounds_by_samples(range, depth, 0..0);
                partition_point(starts, |suffix| self.rank_at(suffix, depth).is_none())
            }
        }
    }

    /// Compares the suffix at a position with an n-gram. Their first tokens are equal.
    fn compare(&self, position: usize, ngram: &[T]) -> Ordering {
        for (i, token) in ngram.iter().enumerate().skip(1) {
            if self.is_last(position + i - 1) {
                return Ordering::Less;
            }
            let found = self.tokens.get(position + i);
            if found != Some(token) {
                let rank = self.rank(position + i);
                return rank.cmp(&self.alphabet.rank(token.id()));
            }
        }
        Ordering::Equal
    }

    /// Starts the search for an n-gram among the samples. Breaks with the range of matches if the buckets
    /// have it.
    fn start_sample_search<'q>(
        &self,
        index: usize,
        ngram: &'q [T],
    ) -> ControlFlow<Range<u32>, SampleSearch<'q, T>> {
        let Some(first) = ngram.first() else {
            return Break(0..self.suffixes.len() as u32);
        };
        let rank = |token: &T| self.alphabet.rank(token.id());
        if ngram.iter().any(|token| rank(token).is_none()) {
            return Break(0..0);
        }
        let first = rank(first).unwrap_or_default();
        let bucket = self.bucket(first..first + 1);
        if ngram.len() < 2 || bucket.is_empty() {
            return Break(bucket);
        }
        let n_in_key = self.packing.n_tokens.min(ngram.len() - 1);
        let low = self
            .packing
            .key(ngram[1..=n_in_key].iter().filter_map(rank));
        let high = low | !(u64::MAX << self.packing.n_bits_after(n_in_key));
        Continue(SampleSearch {
            index,
            ngram,
            samples: samples_in(&bucket),
            bucket,
            keys: low..=high,
        })
    }

    /// Turns a finished search among the samples into one among the suffixes. Breaks with the range of matches
    /// if there is nothing to compare.
    fn start_suffix_search<'q>(
        &self,
        searched: SampleSearch<'q, T>,
    ) -> ControlFlow<Range<u32>, SuffixSearch<'q, T>> {
        let ngram = searched.ngram;
        let first = searched.samples.start;
        let rest = first..samples_in(&searched.bucket).end;
        let end = partition_point(rest, |sample| {
            self.sampled_key(sample) <= *searched.keys.end()
        });
        let starts = up_to_sample(&searched.bucket, first);
        let ends = up_to_sample(&searched.bucket, end);
        // If a key can hold the whole n-gram, a sample between the bounds is a match. The start and the end
        // are then searched for separately. Otherwise there may be no match, and one search looks for any.
        let has_match = ngram.len() - 1 <= self.packing.n_tokens && ends.start > starts.end;
        let mut search = SuffixSearch {
            index: searched.index,
            ngram,
            low: starts.start,
            high: if has_match { starts.end } else { ends.end },
            position: 0,
            end_bounds: has_match.then_some(ends),
            first: None,
        };
        match search.result() {
            Some(range) => Break(range),
            None => Continue(search),
        }
    }

    /// The suffixes that start with an n-gram.
    pub(super) fn find(&self, ngram: &[T]) -> Range<u32> {
        let mut sample_search = match self.start_sample_search(0, ngram) {
            Continue(search) => search,
            Break(range) => return range,
        };
        while let Some(middle) = sample_search.middle() {
            sample_search.advance(self.sampled_key(middle));
        }
        let mut search = match self.start_suffix_search(sample_search) {
            Continue(search) => search,
            Break(range) => return range,
        };
        loop {
            let position = self.suffixes[search.middle() as usize] as usize;
            if let Some(range) = search.advance(self.compare(position, ngram)) {
                return range;
            }
        }
    }

    /// Calls `found` with the index of each n-gram and the suffixes that start with it, in no particular
    /// order. Searches are interleaved, so that their cache misses overlap.
    pub(super) fn find_all<'q>(
        &self,
        ngrams: impl Iterator<Item = &'q [T]>,
        mut found: impl FnMut(usize, Range<u32>),
    ) where
        T: 'q,
    {
        let mut waiting = ngrams.enumerate().peekable();
        while waiting.peek().is_some() {
            let mut sample_searches = Vec::with_capacity(LANES);
            for (index, ngram) in waiting.by_ref().take(LANES) {
                match self.start_sample_search(index, ngram) {
                    Continue(search) => sample_searches.push(search),
                    Break(range) => found(index, range),
                }
            }
            self.run_sample_searches(&mut sample_searches);
            let mut searches = Vec::with_capacity(sample_searches.len());
            for searched in sample_searches {
                let index = searched.index;
                match self.start_suffix_search(searched) {
                    Continue(search) => searches.push(search),
                    Break(range) => found(index, range),
                }
            }
            self.run_suffix_searches(searches, &mut found);
        }
    }

    /// Runs interleaved searches among the samples to their ends.
    fn run_sample_searches(&self, searches: &mut [SampleSearch<'_, T>]) {
        let mut is_running = true;
        while is_running {
            for middle in searches.iter().filter_map(SampleSearch::middle) {
                prefetch(&self.samples[middle as usize]);
            }
            is_running = false;
            for search in &mut *searches {
                if let Some(middle) = search.middle() {
                    search.advance(self.sampled_key(middle));
                    is_running = true;
                }
            }
        }
    }

    /// Runs interleaved searches among the suffixes to their ends.
    fn run_suffix_searches(
        &self,
        mut searches: Vec<SuffixSearch<'_, T>>,
        found: &mut impl FnMut(usize, Range<u32>),
    ) {
        // Each step of a search reads an entry of the suffix array and then a token. Both are prefetched for
        // all searches before the first one uses them.
        while !searches.is_empty() {
            for search in &searches {
                prefetch(&self.suffixes[search.middle() as usize]);
            }
            for search in &mut searches {
                search.position = self.suffixes[search.middle() as usize] as usize;
                if let Some(token) = self.tokens.get(search.position + 1) {
                    prefetch(token);
                }
            }
            searches.retain_mut(|search| {
                match search.advance(self.compare(search.position, search.ngram)) {
                    Some(range) => {
                        found(search.index, range);
                        false
                    }
                    None => true,
                }
            });
        }
    }
}

/// The samples of a range of suffixes.
fn samples_in(suffixes: &Range<u32>) -> Range<u32> {
    suffixes.start.div_ceil(SAMPLE_STRIDE)..suffixes.end.div_ceil(SAMPLE_STRIDE)
}

/// The range, within `suffixes`, in which a boundary is if `sample` is the first sample at or after it: after the
/// sample before, up to `sample`. `sample` is one of [`samples_in`] or its end.
fn up_to_sample(suffixes: &Range<u32>, sample: u32) -> Range<u32> {
    let start = match sample > samples_in(suffixes).start {
        true => (sample - 1) * SAMPLE_STRIDE + 1,
        false => suffixes.start,
    };
    start
        ..sample
            .saturating_mul(SAMPLE_STRIDE)
            .clamp(start, suffixes.end)
}
