//! A least-significant-byte radix sort of items with packed keys.

use super::packed_key::PackedKey;

/// Shorter slices are sorted by comparison: for them the histograms cost more than they save.
const MIN_ITEMS: usize = 192;

/// Items with longer keys are sorted by comparison, as each byte of the key is one more pass over the items.
const MAX_KEY_BYTES: usize = 16;

/// An item that is sorted by a key.
pub(super) trait Keyed: Copy + Default {
    type Key: PackedKey;

    fn key(self) -> Self::Key;
}

/// Sorts fewer than 2^32 items whose keys use only their `n_bits` low bits.
pub(super) fn sort<T: Keyed>(items: &mut [T], scratch: &mut Vec<T>, n_bits: u32) {
    let n_bytes = n_bits.div_ceil(8) as usize;
    if items.len() < MIN_ITEMS || n_bytes > MAX_KEY_BYTES {
        items.sort_unstable_by_key(|item| item.key());
        return;
    }
    // How many items have each value of each key byte. One pass counts for all bytes.
    let mut histograms = [[0_u32; 256]; MAX_KEY_BYTES];
    for item in items.iter() {
        for (index, histogram) in histograms[..n_bytes].iter_mut().enumerate() {
            histogram[item.key().byte(index as u32)] += 1;
        }
    }
    let n = items.len();
    if scratch.len() < n {
        scratch.resize(n, T::default());
    }
    let (mut from, mut to) = (items, &mut scratch[..n]);
    let mut is_in_scratch = false;
    for (index, histogram) in histograms[..n_bytes].iter_mut().enumerate() {
        let byte = |item: &T| item.key().byte(index as u32);
        // All items have the same byte: the pass would change nothing.
        if histogram[byte(&from[0])] as usize == n {
            continue;
        }
        // From here on, an entry is the index in `to` of the next item with that byte.
        let mut start = 0;
        for entry in histogram.iter_mut() {
            start += std::mem::replace(entry, start);
        }
        for item in from.iter() {
            let next = &mut histogram[byte(item)];
            to[*next as usize] = *item;
            *next += 1;
        }
        (from, to) = (to, from);
        is_in_scratch = !is_in_scratch;
    }
    if is_in_scratch {
        // The passes swapped the slices: `to` is `items` again.
        to.copy_from_slice(from);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::{collection::vec, prelude::*};

    impl Keyed for u64 {
        type Key = Self;

        fn key(self) -> Self {
            self
        }
    }

    proptest! {
        #[test]
        fn equals_a_comparison_sort(mut keys in vec(0_u64..1 << 40, 0..2000), n_bits in 33_u32..64) {
            let mut expected = keys.clone();
            expected.sort_unstable();
            sort(&mut keys, &mut Vec::new(), n_bits.max(40));
            prop_assert_eq!(keys, expected);
        }
    }
}
