//! The pairs of tokens that may be merged next.
//!
//! The count of a pair never rises after the pair first occurs: a merge only creates pairs with its new token, and no
//! earlier merge made a token of the same text, as how bytes are merged depends on these bytes alone. So pairs whose
//! count is below a floor can be ignored until no other pair is left. Then all pairs are counted again with a lower
//! floor. Most pairs are rare and are never merged, so this saves most of the memory and of the updates.

use std::{cmp::Reverse, collections::BinaryHeap};

use rustc_hash::FxHashMap;

use super::{
    Pair,
    pretokens::{BORDER, CountCursor, Pretokens},
};

/// Upper bound on the ratio of the largest count to the floor. With a lower one there are more scans, each of three
/// passes over all pairs; with a higher one more pairs are held, most of which are never merged.
const FLOOR_RATIO: u64 = 64;

/// Sums of [`CandidatePairs::scan`], which take 4 MiB, to stay in the cache. The pairs with equal hashes share a sum.
const N_SUMS: usize = 1 << 19;

/// The occurrences of a pair.
struct PairOccurrences {
    /// How often the pair occurs in the text.
    count: u64,
    /// Ascending positions in [`Pretokens`]. At some of them the pair may no longer be.
    positions: Vec<u32>,
}

impl PairOccurrences {
    fn with_capacity(count: u64, n_positions: usize) -> Self {
        let positions = Vec::with_capacity(n_positions);
        Self { count, positions }
    }
}

/// The pairs whose count was at least the floor when they first occurred.
pub(super) struct CandidatePairs {
    occurrences: FxHashMap<Pair, PairOccurrences>,
    /// Each candidate once: the most frequent first, of equals the one with the smallest ids. The count is that of
    /// an earlier time; the current one is not larger.
    queue: BinaryHeap<(u64, Reverse<Pair>)>,
    floor: u64,
    /// The lowest floor, at least 1: the count below which no pair is merged.
    min_count: u64,
    /// Scratch of [`Self::merge`].
    before: NeighbourCounts,
    after: NeighbourCounts,
}

impl CandidatePairs {
    /// No candidates. [`Self::pop_best`] finds the pairs with a count of at least `min_count`.
    pub(super) fn new(min_count: u64) -> Self {
        Self {
            occurrences: FxHashMap::default(),
            queue: BinaryHeap::new(),
            floor: u64::MAX,
            min_count,
            before: NeighbourCounts::default(),
            after: NeighbourCounts::default(),
        }
    }

    /// Removes and returns the most frequent pair, of equals the one with the smallest ids, with its positions.
    ///
    /// `n_left` is the number of pairs still to be merged, including this one. It only affects the time.
    pub(super) fn pop_best(
        &mut self,
        pretokens: &Pretokens,
        n_left: usize,
    ) -> Option<(Pair, Vec<u32>)> {
        loop {
            let Some((queued_count, Reverse(pair))) = self.queue.pop() else {
                if self.floor <= self.min_count {
                    return None;
                }
                self.scan(pretokens, n_left);
                continue;
            };
            let count = self
                .occurrences
                .get(&pair)
                .map_or(0, |occurrences| occurrences.count);
            if count == queued_count {
                let occurrences = self.occurrences.remove(&pair);
                return occurrences.map(|occurrences| (pair, occurrences.positions));
            }
            if count >= self.floor {
                self.queue.push((count, Reverse(pair)));
            } else {
                self.occurrences.remove(&pair);
            }
        }
    }

    /// Lowers the floor, and finds the pairs whose count is at least the new floor.
    ///
    /// A map of all pairs would be large. The first pass adds the counts of all pairs to a fixed number of sums.
    /// The count of a pair is at most its sum, so the second pass counts only pairs whose sum reaches the floor.
    /// The third pass collects the positions of the pairs that are frequent enough.
    fn scan(&mut self, pretokens: &Pretokens, n_left: usize) {
        let mut sums = vec![0; N_SUMS];
        pretokens.each_pair(|pair, _, count| sums[sum_index(pair)] += count);
        self.floor = self.lower_floor(&sums, n_left);
        let mut counts: FxHashMap<Pair, (u64, usize)> = FxHashMap::default();
        pretokens.each_pair(|pair, _, count| {
            if sums[sum_index(pair)] >= self.floor {
                let (total, n_positions) = counts.entry(pair).or_default();
                *total += count;
                *n_positions += 1;
            }
        });
        for (pair, (count, n_positions)) in counts {
            if count >= self.floor {
                let occurrences = PairOccurrences::with_capacity(count, n_positions);
                self.insert(pair, occurrences);
            }
        }
        pretokens.each_pair(|pair, position, _| {
            // The sum is tested first because its table is small enough for the cache.
            if sums[sum_index(pair)] >= self.floor
                && let Some(occurrences) = self.occurrences.get_mut(&pair)
            {
                occurrences.positions.push(position);
            }
        });
    }

    /// A floor below the current one, which not many more than `n_left` pairs reach, and nearly always at least one. If
    /// none does, because several pairs share the largest sums, the next scan has a lower floor.
    fn lower_floor(&self, sums: &[u64], n_left: usize) -> u64 {
        let mut descending = sums.to_vec();
        let nth = n_left.min(N_SUMS - 1);
        let (above, nth_sum, _) = descending.select_nth_unstable_by(nth, |a, b| b.cmp(a));
        let largest = above.iter().max().unwrap_or(nth_sum);
        // No pair that is still to be found reaches the current floor, even if a sum does.
        let floor = (largest.min(&self.floor) / FLOOR_RATIO).max(*nth_sum);
        floor.min(self.floor - 1).max(self.min_count)
    }

    fn insert(&mut self, pair: Pair, occurrences: PairOccurrences) {
        self.queue.push((occurrences.count, Reverse(pair)));
        self.occurrences.insert(pair, occurrences);
    }

    /// Merges `pair` into the token `id` at all of `positions`, and updates the pairs of its neighbours.
    pub(super) fn merge(
        &mut self,
        pretokens: &mut Pretokens,
        pair: Pair,
        positions: Vec<u32>,
        id: u32,
    ) {
        pretokens.register(pair, id);
        let mut cursor = CountCursor::default();
        for position in positions {
            let Some(merged) = pretokens.merge_at(position, pair, id, &mut cursor) else {
                continue;
            };
            if merged.before != BORDER {
                self.before
                    .add(merged.before, merged.before_position, merged.count);
            }
            if merged.after != BORDER {
                self.after.add(merged.after, position, merged.count);
            }
        }
        for (token, count) in self.before.counts() {
            lower_count(&mut self.occurrences, (token, pair.0), count);
        }
        for (token, count) in self.after.counts() {
            lower_count(&mut self.occurrences, (pair.1, token), count);
        }
        // Two occurrences of the pair in a row become (id, id). The second one counted this pair with `before`. The
        // first one was merged before the second and counted (id, pair.0) with `after`, which does not exist.
        let n_repeated = self.before.count_of(id);
        self.after.lower(pair.0, n_repeated);
        for (token, occurrences) in self.before.take(self.floor) {
            self.insert((token, id), occurrences);
        }
        for (token, occurrences) in self.after.take(self.floor) {
            self.insert((id, token), occurrences);
        }
    }
}

/// Index of the sum that includes the count of a pair.
#[inline]
fn sum_index((left, right): Pair) -> usize {
    let both = u64::from(left) << 32 | u64::from(right);
    // Multiplicative hash with 2^64 / golden ratio; its upper half is the good one.
    (both.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32) as usize & (N_SUMS - 1)
}

fn lower_count(occurrences: &mut FxHashMap<Pair, PairOccurrences>, pair: Pair, count: u64) {
    if let Some(occurrences) = occurrences.get_mut(&pair) {
        occurrences.count -= count;
    }
}

/// The tokens on one side of a pair, counted while the pair is merged.
#[derive(Default)]
struct NeighbourCounts {
    /// The count of each token. It is 0 for most of them.
    tallies: Vec<NeighbourTally>,
    /// The tokens whose tally is not 0, each once.
    tokens: Vec<u32>,
    /// Tokens with the positions of the pairs that they now form with the merged token.
    positions: Vec<(u32, u32)>,
}

#[derive(Clone, Copy, Default)]
struct NeighbourTally {
    count: u64,
    /// Number of positions. [`NeighbourCounts::take`] replaces it by the index of the token in the result plus 1.
    n_positions: u32,
}

impl NeighbourCounts {
    #[inline]
    fn add(&mut self, token: u32, position: u32, count: u64) {
        if self.tallies.len() <= token as usize {
            self.tallies
                .resize(token as usize + 1, NeighbourTally::default());
        }
        let tally = &mut self.tallies[token as usize];
        if tally.n_positions == 0 {
            self.tokens.push(token);
        }
        tally.n_positions += 1;
        tally.count += count;
        self.positions.push((token, position));
    }

    fn counts(&self) -> impl Iterator<Item = (u32, u64)> {
        let count = |token: &u32| (*token, self.tallies[*token as usize].count);
        self.tokens.iter().map(count)
    }

    fn count_of(&self, token: u32) -> u64 {
        self.tallies.get(token as usize).map_or(0, |t| t.count)
    }

    fn lower(&mut self, token: u32, count: u64) {
        if let Some(tally) = self.tallies.get_mut(token as usize) {
            tally.count -= count;
        }
    }

    /// Empties the counts. Returns the tokens with a count of at least `floor`, with their positions.
    fn take(&mut self, floor: u64) -> Vec<(u32, PairOccurrences)> {
        let mut all = Vec::new();
        for token in &self.tokens {
            let tally = &mut self.tallies[*token as usize];
            let n_positions = std::mem::take(&mut tally.n_positions);
            if tally.count >= floor {
                let occurrences = PairOccurrences::with_capacity(tally.count, n_positions as usize);
                all.push((*token, occurrences));
                tally.n_positions = all.len() as u32;
            }
        }
        for (token, position) in self.positions.drain(..) {
            let index_plus_1 = self.tallies[token as usize].n_positions as usize;
            if let Some(index) = index_plus_1.checked_sub(1) {
                all[index].1.positions.push(position);
            }
        }
        for token in self.tokens.drain(..) {
            self.tallies[token as usize] = NeighbourTally::default();
        }
        all
    }
}
