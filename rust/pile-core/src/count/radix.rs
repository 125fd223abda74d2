//! Sorts by keys, byte by byte from the low end.

use super::key::Key;

/// Fewer are sorted by comparison.
const FEW: usize = 192;

/// By keys of more bytes they are too.
const MOST_BYTES: usize = 16;

/// Something that is sorted by a key.
pub(super) trait Keyed: Copy + Default {
    type Key: Key;

    fn key(self) -> Self::Key;
}

/// Sorts by keys of which only the `n_bits` low bits are used; `scratch` is room that is used again.
pub(super) fn sort<T: Keyed>(items: &mut [T], scratch: &mut Vec<T>, n_bits: u32) {
    let n_bytes = n_bits.div_ceil(8) as usize;
    if items.len() < FEW || n_bytes > MOST_BYTES {
        items.sort_unstable_by_key(|item| item.key());
        return;
    }
    let mut places = [[0_u32; 256]; MOST_BYTES];
    for item in items.iter() {
        for (number, places) in places[..n_bytes].iter_mut().enumerate() {
            places[item.key().byte(number as u32)] += 1;
        }
    }
    let n = items.len();
    if scratch.len() < n {
        scratch.resize(n, T::default());
    }
    let (mut from, mut to) = (items, &mut scratch[..n]);
    let mut is_in_scratch = false;
    for (number, places) in places[..n_bytes].iter_mut().enumerate() {
        let byte = |item: &T| item.key().byte(number as u32);
        if places[byte(&from[0])] as usize == n {
            continue;
        }
        let mut next = 0;
        for place in places.iter_mut() {
            next += std::mem::replace(place, next);
        }
        for item in from.iter() {
            let place = &mut places[byte(item)];
            to[*place as usize] = *item;
            *place += 1;
        }
        (from, to) = (to, from);
        is_in_scratch = !is_in_scratch;
    }
    if is_in_scratch {
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
        fn as_sorting_by_comparison(mut keys in vec(0_u64..1 << 40, 0..2000), n_bits in 33_u32..64) {
            let mut expected = keys.clone();
            expected.sort_unstable();
            sort(&mut keys, &mut Vec::new(), n_bits.max(40));
            prop_assert_eq!(keys, expected);
        }
    }
}
