//! Pairs that may be merged, the next one first.
//!
//! A pair is never more frequent than when it came up: neighbours only become fewer. So pairs below a
//! floor need not be known until no other is left; then the words are looked through again with a lower
//! floor. Most pairs are rare, and most of those never come to be merged.

use std::{cmp::Reverse, collections::BinaryHeap};

use rustc_hash::FxHashMap;

use super::{
    Pair,
    words::{BORDER, Cursor, Words},
};

/// The most frequent pair is at most so many times as frequent as the floor.
const FLOOR_RATIO: u64 = 64;

/// Sums of counts that [`Pairs::scan`] keeps of pairs that it does not tell apart.
const N_SUMS: usize = 1 << 19;

/// A pair and where it may be found.
struct Known {
    count: u64,
    /// Rising; at some the pair may be gone.
    places: Vec<u32>,
}

impl Known {
    fn with_room(count: u64, n_places: usize) -> Self {
        let places = Vec::with_capacity(n_places);
        Self { count, places }
    }
}

/// The pairs that occur at least `floor` times.
pub(super) struct Pairs {
    known: FxHashMap<Pair, Known>,
    /// Each known pair once, with its count at some time: the most frequent, then the smallest ids.
    queue: BinaryHeap<(u64, Reverse<Pair>)>,
    floor: u64,
    /// No pair below this is asked for.
    least: u64,
    before: Side,
    after: Side,
}

impl Pairs {
    /// No pairs yet; [`Self::pop_best`] finds those that occur at least `least` times.
    pub(super) fn new(least: u64) -> Self {
        Self {
            known: FxHashMap::default(),
            queue: BinaryHeap::new(),
            floor: u64::MAX,
            least,
            before: Side::default(),
            after: Side::default(),
        }
    }

    /// Takes out the most frequent pair of `words`, of equally frequent ones that of the smallest ids,
    /// with the places where it may be.
    /// `n_wanted` are going to be taken, this one included; it does not change which.
    pub(super) fn pop_best(&mut self, words: &Words, n_wanted: usize) -> Option<(Pair, Vec<u32>)> {
        loop {
            let Some((count, Reverse(pair))) = self.queue.pop() else {
                if self.floor <= self.least {
                    return None;
                }
                self.scan(words, n_wanted);
                continue;
            };
            let now = self.known.get(&pair).map_or(0, |known| known.count);
            if now == count {
                return self.known.remove(&pair).map(|known| (pair, known.places));
            }
            if now >= self.floor {
                self.queue.push((now, Reverse(pair)));
            } else {
                self.known.remove(&pair);
            }
        }
    }

    /// Lowers the floor and finds the pairs above it, of which `n_wanted` are going to be merged.
    fn scan(&mut self, words: &Words, n_wanted: usize) {
        let mut sums = vec![0; N_SUMS];
        words.each_pair(|pair, _, count| sums[sum_of(pair)] += count);
        self.floor = self.lower_floor(&sums, n_wanted);
        let mut counts: FxHashMap<Pair, (u64, usize)> = FxHashMap::default();
        words.each_pair(|pair, _, count| {
            if sums[sum_of(pair)] >= self.floor {
                let (sum, n_places) = counts.entry(pair).or_default();
                *sum += count;
                *n_places += 1;
            }
        });
        for (pair, (count, n_places)) in counts {
            if count >= self.floor {
                self.insert(pair, Known::with_room(count, n_places));
            }
        }
        words.each_pair(|pair, place, _| {
            // The sum is nearer than the table.
            if sums[sum_of(pair)] >= self.floor
                && let Some(known) = self.known.get_mut(&pair)
            {
                known.places.push(place);
            }
        });
    }

    /// A floor below this one that leaves some pairs above it, but not many more than are wanted.
    fn lower_floor(&self, sums: &[u64], n_wanted: usize) -> u64 {
        let mut falling = sums.to_vec();
        let nth = n_wanted.min(N_SUMS - 1);
        let (above, last_wanted, _) = falling.select_nth_unstable_by(nth, |a, b| b.cmp(a));
        let most = above.iter().max().unwrap_or(last_wanted);
        let next = (most.min(&self.floor) / FLOOR_RATIO).max(*last_wanted);
        next.min(self.floor - 1).max(self.least)
    }

    fn insert(&mut self, pair: Pair, known: Known) {
        self.queue.push((known.count, Reverse(pair)));
        self.known.insert(pair, known);
    }

    /// Makes `pair` one token `id` in `words`, wherever it is.
    pub(super) fn merge(&mut self, words: &mut Words, pair: Pair, places: Vec<u32>, id: u32) {
        words.announce(pair, id);
        let mut cursor = Cursor::default();
        for place in places {
            let Some(joined) = words.join(place, pair, id, &mut cursor) else {
                continue;
            };
            if joined.before != BORDER {
                self.before
                    .add(joined.before, joined.before_place, joined.count);
            }
            if joined.after != BORDER {
                self.after.add(joined.after, place, joined.count);
            }
        }
        for (token, count) in self.before.counts() {
            lower(&mut self.known, (token, pair.0), count);
        }
        for (token, count) in self.after.counts() {
            lower(&mut self.known, (pair.1, token), count);
        }
        // Where the pair stood twice in a row, the second was still apart when the first was joined.
        let twice = self.before.count_of(id);
        self.after.lower(pair.0, twice);
        for (token, known) in self.before.take(self.floor) {
            self.insert((token, id), known);
        }
        for (token, known) in self.after.take(self.floor) {
            self.insert((id, token), known);
        }
    }
}

/// The sum that a pair adds to.
#[inline]
fn sum_of((left, right): Pair) -> usize {
    let both = u64::from(left) << 32 | u64::from(right);
    (both.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32) as usize & (N_SUMS - 1)
}

fn lower(known: &mut FxHashMap<Pair, Known>, pair: Pair, count: u64) {
    if let Some(known) = known.get_mut(&pair) {
        known.count -= count;
    }
}

/// What stood on one side of a pair while it was merged.
#[derive(Default)]
struct Side {
    /// By token.
    tallies: Vec<Tally>,
    /// Tokens that were there, each once.
    tokens: Vec<u32>,
    /// Tokens and the places of the pairs that they now make.
    places: Vec<(u32, u32)>,
}

#[derive(Clone, Copy, Default)]
struct Tally {
    count: u64,
    /// Later the number of its list, plus 1.
    n_places: u32,
}

impl Side {
    #[inline]
    fn add(&mut self, token: u32, place: u32, count: u64) {
        if self.tallies.len() <= token as usize {
            self.tallies.resize(token as usize + 1, Tally::default());
        }
        let tally = &mut self.tallies[token as usize];
        if tally.n_places == 0 {
            self.tokens.push(token);
        }
        tally.n_places += 1;
        tally.count += count;
        self.places.push((token, place));
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

    /// The tokens that were there at least `floor` times, with their places; leaves nothing.
    fn take(&mut self, floor: u64) -> Vec<(u32, Known)> {
        let mut all = Vec::new();
        for token in &self.tokens {
            let tally = &mut self.tallies[*token as usize];
            let n_places = std::mem::take(&mut tally.n_places);
            if tally.count >= floor {
                let known = Known::with_room(tally.count, n_places as usize);
                all.push((*token, known));
                tally.n_places = all.len() as u32;
            }
        }
        for (token, place) in self.places.drain(..) {
            let list = self.tallies[token as usize].n_places as usize;
            if let Some(list) = list.checked_sub(1) {
                all[list].1.places.push(place);
            }
        }
        for token in self.tokens.drain(..) {
            self.tallies[token as usize] = Tally::default();
        }
        all
    }
}
