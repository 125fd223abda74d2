//! Which of all n-grams are retained and reported: sums over groups, a minimum count, the most frequent ones.

use std::{cmp::Reverse, collections::BinaryHeap};

use rustc_hash::FxHashMap;
use serde::Serialize;

use crate::Result;

/// An n-gram and its counts.
#[derive(Debug, Clone, Copy)]
pub struct Ngram<'a> {
    /// Its tokens as big-endian integers of four bytes, or its words joined by single spaces.
    pub key: &'a [u8],
    /// Occurrences in all groups.
    pub count: u64,
    /// Occurrences in each group.
    pub by_group: &'a [u64],
}

/// Receives the retained n-grams: first all of one length, then all of the next. Those of a length ascend by key,
/// or descend by count if [`Retention::top`] is set.
pub trait NgramSink {
    /// Receives one n-gram.
    ///
    /// # Errors
    /// It cannot be written.
    fn take(&mut self, ngram: &Ngram<'_>) -> Result<()>;

    /// Is called after the last n-gram.
    ///
    /// # Errors
    /// The n-grams cannot be written.
    fn finish(self: Box<Self>) -> Result<()>;
}

/// Which n-grams are retained.
#[derive(Debug, Clone, Copy)]
pub struct Retention {
    /// Least number of occurrences in all groups.
    pub min_count: u64,
    /// The number of n-grams of each length to retain, the most frequent ones first. `None` retains all.
    pub top: Option<usize>,
}

/// Statistics of all n-grams of one length.
#[derive(Debug, Clone, Serialize)]
pub struct LengthSummary {
    /// Tokens or words of an n-gram.
    pub n: usize,
    /// Distinct n-grams.
    pub n_distinct: u64,
    /// Occurrences of all n-grams.
    pub n_occurrences: u64,
    /// N-grams that were retained.
    pub n_retained: u64,
    /// Pairs of a count and how many n-grams have it, by ascending count. The rank of an n-gram follows from its
    /// count.
    pub counts: Vec<(u64, u64)>,
}

/// Counts below this have an entry in an array, the others in a map.
const N_SMALL_COUNTS: usize = 1024;

/// Count, key and counts by group of a retained n-gram.
type RetainedNgram = (Reverse<u64>, Vec<u8>, Vec<u64>);

/// Sums the records of each n-gram of one length, and passes the retained n-grams to a sink.
pub(super) struct NgramRetainer<'a> {
    retention: Retention,
    n: usize,
    sink: &'a mut dyn NgramSink,
    /// The n-gram of the last record, and the sum of its records. The count is 0 before the first record.
    key: Vec<u8>,
    count: u64,
    by_group: Vec<u64>,
    /// The most frequent n-grams so far. The top of the heap is the first one to be dropped.
    most_frequent: BinaryHeap<RetainedNgram>,
    n_retained: u64,
    /// How many n-grams have each count.
    n_by_small_count: Vec<u64>,
    n_by_large_count: FxHashMap<u64, u64>,
}

impl<'a> NgramRetainer<'a> {
    pub(super) fn new(
        n: usize,
        n_groups: usize,
        retention: Retention,
        sink: &'a mut dyn NgramSink,
    ) -> Self {
        Self {
            retention,
            n,
            sink,
            key: Vec::new(),
            count: 0,
            by_group: vec![0; n_groups],
            most_frequent: BinaryHeap::new(),
            n_retained: 0,
            n_by_small_count: vec![0; N_SMALL_COUNTS],
            n_by_large_count: FxHashMap::default(),
        }
    }

    /// Adds a record. Records must ascend by key; several may have the same key and group.
    pub(super) fn add(&mut self, key: &[u8], group: u32, count: u64) -> Result<()> {
        if self.key != key || self.count == 0 {
            self.end_ngram()?;
            self.key.clear();
            self.key.extend_from_slice(key);
        }
        self.count += count;
        self.by_group[group as usize] += count;
        Ok(())
    }

    /// Adds the only record of an n-gram, if there is one group.
    pub(super) fn add_distinct(&mut self, key: &[u8], count: u64) -> Result<()> {
        let by_group = [count];
        self.add_ngram(&Ngram {
            key,
            count,
            by_group: &by_group,
        })
    }

    /// Ends the n-gram of the last record.
    fn end_ngram(&mut self) -> Result<()> {
        // The buffers are moved out and back, as `add_ngram` borrows all of `self`.
        let key = std::mem::take(&mut self.key);
        let mut by_group = std::mem::take(&mut self.by_group);
        let ngram = Ngram {
            key: &key,
            count: std::mem::take(&mut self.count),
            by_group: &by_group,
        };
        if ngram.count > 0 {
            self.add_ngram(&ngram)?;
        }
        by_group.fill(0);
        (self.key, self.by_group) = (key, by_group);
        Ok(())
    }

    #[inline]
    fn add_ngram(&mut self, ngram: &Ngram<'_>) -> Result<()> {
        match self.n_by_small_count.get_mut(ngram.count as usize) {
            Some(n) => *n += 1,
            None => *self.n_by_large_count.entry(ngram.count).or_default() += 1,
        }
        if ngram.count < self.retention.min_count {
            return Ok(());
        }
        match self.retention.top {
            None => {
                self.n_retained += 1;
                self.sink.take(ngram)
            }
            Some(top) => {
                retain_most_frequent(&mut self.most_frequent, top, ngram);
                Ok(())
            }
        }
    }

    /// Passes the remaining n-grams to the sink, and returns the statistics of all n-grams.
    pub(super) fn finish(mut self) -> Result<LengthSummary> {
        self.end_ngram()?;
        for (count, key, by_group) in std::mem::take(&mut self.most_frequent).into_sorted_vec() {
            self.n_retained += 1;
            self.sink.take(&Ngram {
                key: &key,
                count: count.0,
                by_group: &by_group,
            })?;
        }
        let small = self.n_by_small_count.iter().enumerate();
        let small = small.map(|(count, n)| (count as u64, *n));
        let mut counts: Vec<(u64, u64)> = small.chain(self.n_by_large_count).collect();
        counts.retain(|(_, n)| *n > 0);
        counts.sort_unstable();
        Ok(LengthSummary {
            n: self.n,
            n_distinct: counts.iter().map(|(_, n)| n).sum(),
            n_occurrences: counts.iter().map(|(count, n)| count * n).sum(),
            n_retained: self.n_retained,
            counts,
        })
    }
}

/// Adds `ngram` if it is among the `top` most frequent ones so far. Of equal counts the smaller keys are retained,
/// which come first, as keys ascend.
fn retain_most_frequent(heap: &mut BinaryHeap<RetainedNgram>, top: usize, ngram: &Ngram<'_>) {
    if heap.len() >= top {
        match heap.peek() {
            Some(last) if last.0.0 < ngram.count => drop(heap.pop()),
            _ => return,
        }
    }
    heap.push((
        Reverse(ngram.count),
        ngram.key.to_vec(),
        ngram.by_group.to_vec(),
    ));
}

/// A sink that collects n-grams, for tests.
#[cfg(test)]
pub(super) mod collect {
    use std::{cell::RefCell, rc::Rc};

    use super::{Ngram, NgramSink, Result};

    /// Key, count and counts by group of each n-gram.
    pub(in super::super) type AllNgrams = Vec<(Vec<u8>, u64, Vec<u64>)>;

    #[derive(Clone, Default)]
    pub(in super::super) struct CollectNgrams(pub(in super::super) Rc<RefCell<AllNgrams>>);

    impl NgramSink for CollectNgrams {
        fn take(&mut self, ngram: &Ngram<'_>) -> Result<()> {
            let ngram = (ngram.key.to_vec(), ngram.count, ngram.by_group.to_vec());
            self.0.borrow_mut().push(ngram);
            Ok(())
        }

        fn finish(self: Box<Self>) -> Result<()> {
            Ok(())
        }
    }
}
