//! Sorts keys byte by byte from the low end.

use super::key::Key;

/// Fewer keys are sorted by comparison.
const FEW: usize = 192;

/// Keys of more bytes are sorted by comparison too.
const MOST_BYTES: usize = 16;

/// Sorts keys of which only the `n_bits` low bits are used; `scratch` is room that is used again.
pub(super) fn sort<K: Key>(keys: &mut [K], scratch: &mut Vec<K>, n_bits: u32) {
    let n_bytes = n_bits.div_ceil(8) as usize;
    if keys.len() < FEW || n_bytes > MOST_BYTES {
        keys.sort_unstable();
        return;
    }
    let mut places = [[0_u32; 256]; MOST_BYTES];
    for key in keys.iter() {
        for (number, places) in places[..n_bytes].iter_mut().enumerate() {
            places[key.byte(number as u32)] += 1;
        }
    }
    if scratch.len() < keys.len() {
        scratch.resize(keys.len(), K::default());
    }
    let n = keys.len();
    let (mut from, mut to) = (&mut *keys, &mut scratch[..n]);
    let mut is_in_scratch = false;
    for (number, places) in places[..n_bytes].iter_mut().enumerate() {
        if places[from[0].byte(number as u32)] as usize == n {
            continue;
        }
        let mut next = 0;
        for place in places.iter_mut() {
            next += std::mem::replace(place, next);
        }
        for key in from.iter() {
            let place = &mut places[key.byte(number as u32)];
            to[*place as usize] = *key;
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

    proptest! {
        #[test]
        fn as_sorting_by_comparison(keys in vec(0_u64..1 << 40, 0..2000), small in vec(0_u32..5, 0..900)) {
            let mut sorted = keys.clone();
            sort(&mut sorted, &mut Vec::new(), 40);
            let mut expected = keys;
            expected.sort_unstable();
            prop_assert_eq!(sorted, expected);
            let mut sorted = small.clone();
            sort(&mut sorted, &mut Vec::new(), 32);
            let mut expected = small;
            expected.sort_unstable();
            prop_assert_eq!(sorted, expected);
        }
    }
}
