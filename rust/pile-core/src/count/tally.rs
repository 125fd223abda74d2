//! The different keys among many, sorted, and how often each occurs.
//!
//! Few keys are sorted. Many are counted in a table first: text repeats itself, so that it is a small part of
//! them that is left to be sorted, and the table of one first token mostly fits a cache.

use super::{
    key::Key,
    radix::{self, Keyed},
};

/// Fewer keys than this are sorted.
const FEW: usize = 96;

/// More keys than this are first parted by their hashes, so that each part's table fits a cache.
const MANY: usize = if cfg!(test) { 500 } else { 1 << 16 };

/// Parts of many keys.
const PARTS: usize = 64;

/// Places of a table at least: a part may have two or three keys, which must not fill it.
const MIN_TABLE: usize = 16;

/// A key and its count; an empty place of the table has the count 0.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Counted<K> {
    pub(super) key: K,
    pub(super) count: u32,
}

impl<K: Key> Keyed for Counted<K> {
    type Key = K;

    fn key(self) -> K {
        self.key
    }
}

/// Room that is used again.
#[derive(Debug)]
pub(super) struct Tally<K> {
    table: Vec<Counted<K>>,
    /// The table before it grew.
    smaller: Vec<Counted<K>>,
    parted: Vec<K>,
    counted: Vec<Counted<K>>,
    scratch: Vec<Counted<K>>,
}

impl<K> Default for Tally<K> {
    fn default() -> Self {
        Self {
            table: Vec::new(),
            smaller: Vec::new(),
            parted: Vec::new(),
            counted: Vec::new(),
            scratch: Vec::new(),
        }
    }
}

impl<K: Key> Tally<K> {
    /// Bytes for each key at most, were all of them different: a table half full, and twice what it holds.
    pub(super) const BYTES_PER_KEY: usize = 6 * size_of::<Counted<K>>() + size_of::<K>();

    /// Counts keys of which the `n_bits` low bits are used; their order is lost.
    pub(super) fn count(&mut self, keys: &mut [K], n_bits: u32) -> &[Counted<K>] {
        self.counted.clear();
        if keys.len() < FEW {
            keys.sort_unstable();
            let equal = keys.chunk_by(|a, b| a == b);
            self.counted.extend(equal.map(|equal| Counted {
                key: equal[0],
                count: equal.len() as u32,
            }));
            return &self.counted;
        }
        if keys.len() < MANY {
            self.add(keys);
        } else {
            let mut parted = std::mem::take(&mut self.parted);
            let mut start = 0;
            for end in part(keys, &mut parted) {
                self.add(&parted[start..end]);
                start = end;
            }
            self.parted = parted;
        }
        radix::sort(&mut self.counted, &mut self.scratch, n_bits);
        &self.counted
    }

    /// Counts keys of which no other one is equal to those before.
    fn add(&mut self, keys: &[K]) {
        self.fill(keys);
        let used = self.table.iter().filter(|place| place.count > 0);
        self.counted.extend(used);
    }

    fn fill(&mut self, keys: &[K]) {
        self.table.clear();
        self.table.resize(
            (keys.len() / 2).max(MIN_TABLE).next_power_of_two(),
            Counted::default(),
        );
        let mut shift = u64::BITS - self.table.len().trailing_zeros();
        let mut room = self.table.len() / 2;
        for key in keys {
            let place = place(&self.table, shift, *key);
            let place = &mut self.table[place];
            place.key = *key;
            place.count += 1;
            if place.count == 1 {
                room -= 1;
                if room == 0 {
                    shift -= 1;
                    room = self.grow(shift);
                }
            }
        }
    }

    /// Makes the table twice as large; returns how many keys more it has room for.
    fn grow(&mut self, shift: u32) -> usize {
        let n = self.table.len();
        std::mem::swap(&mut self.table, &mut self.smaller);
        self.table.clear();
        self.table.resize(2 * n, Counted::default());
        for counted in self.smaller.iter().filter(|place| place.count > 0) {
            let place = place(&self.table, shift, counted.key);
            self.table[place] = *counted;
        }
        n - n / 2
    }
}

/// Puts keys into parts by their hashes, equal ones into the same; returns where the parts end.
fn part<K: Key>(keys: &[K], parted: &mut Vec<K>) -> [usize; PARTS] {
    // Bits of the hash that tables do not look at.
    let part_of = |key: &K| (key.hash() >> 12) as usize % PARTS;
    let mut places = [0; PARTS];
    keys.iter().for_each(|key| places[part_of(key)] += 1);
    let mut next = 0;
    for place in &mut places {
        next += std::mem::replace(place, next);
    }
    if parted.len() < keys.len() {
        parted.resize(keys.len(), K::default());
    }
    for key in keys {
        let place = &mut places[part_of(key)];
        parted[*place] = *key;
        *place += 1;
    }
    places
}

/// Where a key stands in a table, or the empty place where it belongs.
#[inline]
fn place<K: Key>(table: &[Counted<K>], shift: u32, key: K) -> usize {
    let mask = table.len() - 1;
    let mut place = (key.hash() >> shift) as usize;
    loop {
        let found = table[place & mask];
        if found.count == 0 || found.key == key {
            return place & mask;
        }
        place += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::{collection::vec, prelude::*};
    use std::collections::BTreeMap;

    proptest! {
        #[test]
        fn as_a_map(keys in vec((0_u64..60, 0_u64..3), 0..900)) {
            let mut keys: Vec<u64> = keys.iter().map(|(a, b)| a << 30 | b).collect();
            let mut expected = BTreeMap::new();
            keys.iter().for_each(|key| *expected.entry(*key).or_insert(0) += 1);
            let mut tally = Tally::default();
            // Twice: what is used again is as new.
            tally.count(&mut keys.clone(), 40);
            let found: Vec<_> = tally.count(&mut keys, 40).iter().map(|c| (c.key, c.count)).collect();
            prop_assert_eq!(found, expected.into_iter().collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_part_may_have_two_keys() {
        // One key fills a part; of all others each part gets about two.
        let mut keys: Vec<u32> = (0..2 * PARTS as u32).map(|i| i * 7 + 1).collect();
        keys.resize(MANY + 200, 0);
        let mut tally = Tally::default();
        let found = tally.count(&mut keys, 32);
        assert_eq!(found.len(), 2 * PARTS + 1);
        assert_eq!(found[0].count, (MANY + 200 - 2 * PARTS) as u32);
    }
}
