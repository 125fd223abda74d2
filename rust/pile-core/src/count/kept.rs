//! What is kept of all n-grams: sums over groups, those that occur often enough, the most frequent ones.

use std::{cmp::Reverse, collections::BinaryHeap};

use rustc_hash::FxHashMap;
use serde::Serialize;

use crate::Result;

/// An n-gram and how often it occurs.
#[derive(Debug, Clone, Copy)]
pub struct Gram<'a> {
    /// Its tokens, four bytes each, big-endian; or its words with a space between.
    pub key: &'a [u8],
    /// Occurrences in all groups.
    pub count: u64,
    /// Occurrences in each group.
    pub by_group: &'a [u64],
}

/// Takes n-grams: all of one length, then all of the next; ascending by key, or by falling count.
pub trait GramSink {
    /// Takes one.
    ///
    /// # Errors
    /// It cannot be written.
    fn take(&mut self, gram: &Gram<'_>) -> Result<()>;

    /// All were taken.
    ///
    /// # Errors
    /// They cannot be written.
    fn finish(self: Box<Self>) -> Result<()>;
}

/// Which n-grams are given.
#[derive(Debug, Clone, Copy)]
pub struct Keep {
    /// Those that occur at least so often.
    pub min_count: u64,
    /// Of these, so many of the most frequent ones, in the order of falling counts.
    pub top: Option<usize>,
}

/// All n-grams of one length.
#[derive(Debug, Clone, Serialize)]
pub struct LengthSummary {
    /// Tokens or words of each.
    pub n: usize,
    /// N-grams that occur.
    pub n_distinct: u64,
    /// Their occurrences.
    pub n_occurrences: u64,
    /// N-grams that were kept.
    pub n_kept: u64,
    /// How often an n-gram occurs, and how many n-grams occur so often; ascending. From it follows the rank
    /// of every count.
    pub counts: Vec<(u64, u64)>,
}

/// Counts below this have a place in an array.
const SMALL_COUNTS: usize = 1024;

type Kept = (Reverse<u64>, Vec<u8>, Vec<u64>);

/// Sums sorted records up and gives what is to be kept.
pub(super) struct Keeper<'a> {
    keep: Keep,
    n: usize,
    sink: &'a mut dyn GramSink,
    key: Vec<u8>,
    count: u64,
    by_group: Vec<u64>,
    best: BinaryHeap<Kept>,
    n_kept: u64,
    small: Vec<u64>,
    large: FxHashMap<u64, u64>,
}

impl<'a> Keeper<'a> {
    pub(super) fn new(n: usize, n_groups: usize, keep: Keep, sink: &'a mut dyn GramSink) -> Self {
        Self {
            keep,
            n,
            sink,
            key: Vec::new(),
            count: 0,
            by_group: vec![0; n_groups],
            best: BinaryHeap::new(),
            n_kept: 0,
            small: vec![0; SMALL_COUNTS],
            large: FxHashMap::default(),
        }
    }

    /// Adds a record; they ascend by key.
    pub(super) fn add(&mut self, key: &[u8], group: u32, count: u64) -> Result<()> {
        if self.key != key || self.count == 0 {
            self.give()?;
            self.key.clear();
            self.key.extend_from_slice(key);
        }
        self.count += count;
        self.by_group[group as usize] += count;
        Ok(())
    }

    /// Adds a record of the only group where no two have the same key.
    pub(super) fn add_whole(&mut self, key: &[u8], count: u64) -> Result<()> {
        let by_group = [count];
        self.give_gram(&Gram {
            key,
            count,
            by_group: &by_group,
        })
    }

    fn give(&mut self) -> Result<()> {
        let key = std::mem::take(&mut self.key);
        let mut by_group = std::mem::take(&mut self.by_group);
        let gram = Gram {
            key: &key,
            count: std::mem::take(&mut self.count),
            by_group: &by_group,
        };
        // At first there is none yet.
        if gram.count > 0 {
            self.give_gram(&gram)?;
        }
        by_group.fill(0);
        (self.key, self.by_group) = (key, by_group);
        Ok(())
    }

    #[inline]
    fn give_gram(&mut self, gram: &Gram<'_>) -> Result<()> {
        match self.small.get_mut(gram.count as usize) {
            Some(n) => *n += 1,
            None => *self.large.entry(gram.count).or_default() += 1,
        }
        if gram.count < self.keep.min_count {
            return Ok(());
        }
        match self.keep.top {
            None => {
                self.n_kept += 1;
                self.sink.take(gram)
            }
            Some(top) => {
                keep_best(&mut self.best, top, gram);
                Ok(())
            }
        }
    }

    /// Gives what is left, and tells of all.
    pub(super) fn finish(mut self) -> Result<LengthSummary> {
        self.give()?;
        for (count, key, by_group) in std::mem::take(&mut self.best).into_sorted_vec() {
            self.n_kept += 1;
            self.sink.take(&Gram {
                key: &key,
                count: count.0,
                by_group: &by_group,
            })?;
        }
        let small = self.small.iter().enumerate();
        let small = small.map(|(count, n)| (count as u64, *n));
        let mut counts: Vec<(u64, u64)> = small.chain(self.large).collect();
        counts.retain(|(_, n)| *n > 0);
        counts.sort_unstable();
        Ok(LengthSummary {
            n: self.n,
            n_distinct: counts.iter().map(|(_, n)| n).sum(),
            n_occurrences: counts.iter().map(|(count, n)| count * n).sum(),
            n_kept: self.n_kept,
            counts,
        })
    }
}

/// Of equal counts those with smaller keys are kept: as keys ascend, that is those that came first.
fn keep_best(best: &mut BinaryHeap<Kept>, top: usize, gram: &Gram<'_>) {
    if best.len() >= top {
        match best.peek() {
            Some(worst) if worst.0.0 < gram.count => drop(best.pop()),
            _ => return,
        }
    }
    best.push((
        Reverse(gram.count),
        gram.key.to_vec(),
        gram.by_group.to_vec(),
    ));
}
