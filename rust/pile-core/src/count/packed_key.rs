//! Integers that hold the tokens of an n-gram after its first one, so that n-grams are compared as integers.

/// An integer of at least the bits of an n-gram's tokens. Tokens are pushed into its low end, so that keys sort
/// as the token sequences do.
pub(super) trait PackedKey: Copy + Ord + Send + Sync + Default {
    /// Bits of the integer.
    const BITS: u32;

    /// An integer with the low `n_bits` bits set.
    fn mask(n_bits: u32) -> Self;

    /// Shifts left by `n_bits`, sets the low bits to `value`, and clears the bits outside `mask`.
    ///
    /// `n_bits` is from 1 to 63, and `value` has at most `n_bits` bits.
    fn push(self, n_bits: u32, value: u32, mask: Self) -> Self;

    /// The `n_bits` bits, at most 32, that start at bit `at`.
    fn bits(self, at: u32, n_bits: u32) -> u32;

    /// The byte at `index`, counted from the low end.
    fn byte(self, index: u32) -> usize;

    /// A hash whose high bits depend on all bits of the key.
    fn hash(self) -> u64;
}

macro_rules! integer_key {
    ($type:ty) => {
        impl PackedKey for $type {
            const BITS: u32 = <$type>::BITS;

            fn mask(n_bits: u32) -> Self {
                match n_bits {
                    0 => 0,
                    n => Self::MAX >> (Self::BITS - n),
                }
            }

            fn push(self, n_bits: u32, value: u32, mask: Self) -> Self {
                // The shift may be of all 32 bits of a `u32`.
                (self.unbounded_shl(n_bits) | Self::from(value)) & mask
            }

            fn bits(self, at: u32, n_bits: u32) -> u32 {
                (self.unbounded_shr(at) & Self::mask(n_bits)) as u32
            }

            fn byte(self, index: u32) -> usize {
                (self >> (8 * index)) as usize & 0xff
            }

            fn hash(self) -> u64 {
                // The rotation keeps keys apart whose halves are equal: their plain XOR is 0.
                let folded = self as u64 ^ (self.unbounded_shr(64) as u64).rotate_left(29);
                (folded ^ (folded >> 32)).wrapping_mul(GOLDEN)
            }
        }
    };
}

integer_key!(u32);
integer_key!(u64);
integer_key!(u128);

/// 2^64 divided by the golden ratio: the multiplier of Fibonacci hashing (Knuth, The Art of Computer Programming,
/// volume 3, section 6.4).
const GOLDEN: u64 = 0x9E37_79B9_7F4A_7C15;

/// Words of a [`WideKey`].
const WIDE_WORDS: usize = 8;

/// A key of 512 bits, for long n-grams. The most significant word comes first, so that the derived order is
/// that of the integers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct WideKey([u64; WIDE_WORDS]);

impl PackedKey for WideKey {
    const BITS: u32 = 64 * WIDE_WORDS as u32;

    fn mask(n_bits: u32) -> Self {
        let mut words = [0; WIDE_WORDS];
        for (i, word) in words.iter_mut().rev().enumerate() {
            *word = <u64 as PackedKey>::mask(n_bits.saturating_sub(64 * i as u32).min(64));
        }
        Self(words)
    }

    fn push(self, n_bits: u32, value: u32, mask: Self) -> Self {
        let mut words = self.0;
        for i in 0..WIDE_WORDS {
            let lower = words.get(i + 1).copied().unwrap_or(0);
            let carried = lower.unbounded_shr(64 - n_bits);
            words[i] = (words[i] << n_bits | carried) & mask.0[i];
        }
        // Not masked: wide keys have masks of more than 32 bits.
        words[WIDE_WORDS - 1] |= u64::from(value);
        Self(words)
    }

    fn bits(self, at: u32, n_bits: u32) -> u32 {
        let word = |from_the_low_end: u32| {
            let index = (WIDE_WORDS as u32 - 1).checked_sub(from_the_low_end);
            index.map_or(0, |index| self.0[index as usize])
        };
        let low = word(at / 64) >> (at % 64);
        let high = word(at / 64 + 1).unbounded_shl(64 - at % 64);
        ((low | high) & <u64 as PackedKey>::mask(n_bits)) as u32
    }

    fn byte(self, index: u32) -> usize {
        self.bits(8 * index, 8) as usize
    }

    fn hash(self) -> u64 {
        let fold = |hash: u64, word: &u64| (hash.rotate_left(29) ^ word).wrapping_mul(GOLDEN);
        self.0.iter().fold(0, fold)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round_trip<K: PackedKey>(values: &[u32], n_bits: u32) {
        let mask = K::mask(values.len() as u32 * n_bits);
        // The mask clears this value after `values` were pushed.
        let mut key = K::default().push(n_bits, 1, mask);
        for value in values {
            key = key.push(n_bits, *value, mask);
        }
        for (i, value) in values.iter().rev().enumerate() {
            assert_eq!(key.bits(i as u32 * n_bits, n_bits), *value);
        }
        assert_eq!(key.byte(0), values[values.len() - 1] as usize & 0xff);
    }

    #[test]
    fn bits_returns_pushed_values() {
        round_trip::<u32>(&[1, 65_535], 16);
        round_trip::<u32>(&[u32::MAX], 32);
        round_trip::<u64>(&[7, 0, 65_535, 3], 16);
        round_trip::<u128>(&[9, 100_000, 131_071, 5, 0, 1, 2], 17);
        round_trip::<WideKey>(&(0..30).map(|i| i * 4_000).collect::<Vec<u32>>(), 17);
        round_trip::<WideKey>(&(1..33).map(|i| i * 2_000).collect::<Vec<u32>>(), 16);
    }

    #[test]
    fn keys_sort_as_their_tokens() {
        let key = |tokens: [u32; 8]| {
            let mask = WideKey::mask(8 * 20);
            tokens
                .iter()
                .fold(WideKey::default(), |key, token| key.push(20, *token, mask))
        };
        assert!(key([1, 2, 3, 4, 5, 6, 7, 8]) < key([1, 2, 3, 4, 5, 7, 0, 0]));
        assert!(key([2, 0, 0, 0, 0, 0, 0, 0]) > key([1, 9, 9, 9, 9, 9, 9, 9]));
    }
}
