//! Counts equal keys, and returns the distinct ones in order.
//!
//! A few keys are sorted. More keys are counted in a hash table, of which only the distinct keys are sorted:
//! text repeats itself, so they are a small part of all keys.

use super::{
    packed_key::PackedKey,
    radix_sort::{self, Keyed},
};

/// Fewer keys than this are sorted instead of counted in a table.
const MIN_FOR_TABLE: usize = 96;

/// This many keys are first partitioned by their hashes, so that the table of each partition fits a cache.
const MIN_FOR_PARTITIONS: usize = if cfg!(test) { 500 } else { 1 << 16 };

const N_PARTITIONS: usize = 64;

/// Minimum slots of a table. A partition may have only two or three keys; a table of `keys.len() / 2` slots would
/// then be full, and probing a full table never ends.
const MIN_SLOTS: usize = 16;

/// A key and its count. An empty slot of the table has the count 0.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct KeyCount<K> {
    pub(super) key: K,
    pub(super) count: u32,
}

impl<K: PackedKey> Keyed for KeyCount<K> {
    type Key = K;

    fn key(self) -> K {
        self.key
    }
}

/// Counts keys, in buffers that are reused from call to call.
#[derive(Debug)]
pub(super) struct KeyCounter<K> {
    /// A hash table with linear probing. At least half of the slots are empty, so probing ends.
    slots: Vec<KeyCount<K>>,
    /// The slots before the table last grew.
    old_slots: Vec<KeyCount<K>>,
    partitioned: Vec<K>,
    counts: Vec<KeyCount<K>>,
    sort_scratch: Vec<KeyCount<K>>,
}

impl<K> Default for KeyCounter<K> {
    fn default() -> Self {
        Self {
            slots: Vec::new(),
            old_slots: Vec::new(),
            partitioned: Vec::new(),
            counts: Vec::new(),
            sort_scratch: Vec::new(),
        }
    }
}

impl<K: PackedKey> KeyCounter<K> {
    /// Estimated bytes per key if all keys differ: about four slots in the tables (three to six, as their sizes are
    /// powers of two), an entry each of `counts` and `sort_scratch`, and a partitioned key. High for partitioned keys,
    /// whose tables hold one partition.
    pub(super) const BYTES_PER_KEY: usize = 6 * size_of::<KeyCount<K>>() + size_of::<K>();

    /// The distinct keys in ascending order, and how often each occurs. The order of `keys` is lost.
    ///
    /// Only the `n_bits` low bits of the keys may be set.
    pub(super) fn count(&mut self, keys: &mut [K], n_bits: u32) -> &[KeyCount<K>] {
        self.counts.clear();
        if keys.len() < MIN_FOR_TABLE {
            keys.sort_unstable();
            let equal = keys.chunk_by(|a, b| a == b);
            self.counts.extend(equal.map(|equal| KeyCount {
                key: equal[0],
                count: equal.len() as u32,
            }));
            return &self.counts;
        }
        if keys.len() < MIN_FOR_PARTITIONS {
            self.add_partition(keys);
        } else {
            let mut partitioned = std::mem::take(&mut self.partitioned);
            let mut start = 0;
            for end in partition(keys, &mut partitioned) {
                self.add_partition(&partitioned[start..end]);
                start = end;
            }
            self.partitioned = partitioned;
        }
        radix_sort::sort(&mut self.counts, &mut self.sort_scratch, n_bits);
        &self.counts
    }

    /// Appends the counts of `keys`, none of which was in an earlier partition.
    fn add_partition(&mut self, keys: &[K]) {
        self.fill_table(keys);
        let used = self.slots.iter().filter(|slot| slot.count > 0);
        self.counts.extend(used);
    }

    fn fill_table(&mut self, keys: &[K]) {
        self.slots.clear();
        self.slots.resize(
            (keys.len() / 2).max(MIN_SLOTS).next_power_of_two(),
            KeyCount::default(),
        );
        // A key's first slot is the high bits of its hash.
        let mut shift = u64::BITS - self.slots.len().trailing_zeros();
        let mut n_free = self.slots.len() / 2;
        for key in keys {
            let index = find_slot(&self.slots, shift, *key);
            let slot = &mut self.slots[index];
            slot.key = *key;
            slot.count += 1;
            if slot.count == 1 {
                n_free -= 1;
                if n_free == 0 {
                    shift -= 1;
                    n_free = self.grow(shift);
                }
            }
        }
    }

    /// Doubles the slots. `shift` is that of the larger table. Returns how many keys can be added until the table
    /// is half full again.
    fn grow(&mut self, shift: u32) -> usize {
        let n = self.slots.len();
        std::mem::swap(&mut self.slots, &mut self.old_slots);
        self.slots.clear();
        self.slots.resize(2 * n, KeyCount::default());
        for entry in self.old_slots.iter().filter(|slot| slot.count > 0) {
            let index = find_slot(&self.slots, shift, entry.key);
            self.slots[index] = *entry;
        }
        n - n / 2
    }
}

/// Copies `keys` to `partitioned`, grouped by a part of their hashes, so that equal keys share a partition.
/// Returns the ends of the partitions.
fn partition<K: PackedKey>(keys: &[K], partitioned: &mut Vec<K>) -> [usize; N_PARTITIONS] {
    // Tables use the high bits of the hash. With the same bits, the keys of a partition would share a few slots. The
    // lowest bits of a product depend on few bits of the key.
    let partition_of = |key: &K| (key.hash() >> 12) as usize % N_PARTITIONS;
    let mut offsets = [0; N_PARTITIONS];
    keys.iter().for_each(|key| offsets[partition_of(key)] += 1);
    let mut start = 0;
    for offset in &mut offsets {
        start += std::mem::replace(offset, start);
    }
    if partitioned.len() < keys.len() {
        partitioned.resize(keys.len(), K::default());
    }
    for key in keys {
        let offset = &mut offsets[partition_of(key)];
        partitioned[*offset] = *key;
        *offset += 1;
    }
    offsets
}

/// The slot of `key`, or the empty slot where it is to be inserted.
#[inline]
fn find_slot<K: PackedKey>(slots: &[KeyCount<K>], shift: u32, key: K) -> usize {
    let mask = slots.len() - 1;
    let mut index = (key.hash() >> shift) as usize;
    loop {
        let slot = slots[index & mask];
        if slot.count == 0 || slot.key == key {
            return index & mask;
        }
        index += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::{collection::vec, prelude::*};
    use std::collections::BTreeMap;

    proptest! {
        #[test]
        fn equals_a_map(keys in vec((0_u64..60, 0_u64..3), 0..900)) {
            let mut keys: Vec<u64> = keys.iter().map(|(a, b)| a << 30 | b).collect();
            let mut expected = BTreeMap::new();
            keys.iter().for_each(|key| *expected.entry(*key).or_insert(0) += 1);
            let mut counter = KeyCounter::default();
            // Twice, to check that reused buffers are cleared.
            counter.count(&mut keys.clone(), 40);
            let found: Vec<_> = counter.count(&mut keys, 40).iter().map(|c| (c.key, c.count)).collect();
            prop_assert_eq!(found, expected.into_iter().collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_partition_may_have_two_keys() {
        // One key fills a partition. Each partition gets about two of the others.
        let mut keys: Vec<u32> = (0..2 * N_PARTITIONS as u32).map(|i| i * 7 + 1).collect();
        keys.resize(MIN_FOR_PARTITIONS + 200, 0);
        let mut counter = KeyCounter::default();
        let found = counter.count(&mut keys, 32);
        assert_eq!(found.len(), 2 * N_PARTITIONS + 1);
        let n_zeros = MIN_FOR_PARTITIONS + 200 - 2 * N_PARTITIONS;
        assert_eq!(found[0].count, n_zeros as u32);
    }
}
