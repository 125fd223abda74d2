//! The tokens of an n-gram behind its first one as one number, so that n-grams are sorted as numbers.

/// A number of at least so many bits: tokens are pushed into its low end.
pub(super) trait Key: Copy + Ord + Send + Sync + Default {
    /// Bits it holds.
    const BITS: u32;

    /// All of the `n_bits` low bits set.
    fn mask(n_bits: u32) -> Self;

    /// Moves up by `n_bits`, below 64, and puts `value` below; what is outside the mask falls away.
    fn push(self, n_bits: u32, value: u32, mask: Self) -> Self;

    /// `n_bits` bits, at most 32, from bit `at`.
    fn bits(self, at: u32, n_bits: u32) -> u32;

    /// Byte `number` from the low end.
    fn byte(self, number: u32) -> usize;

    /// A number whose high bits depend on all bits of the key.
    fn hash(self) -> u64;
}

macro_rules! integer_key {
    ($type:ty) => {
        impl Key for $type {
            const BITS: u32 = <$type>::BITS;

            fn mask(n_bits: u32) -> Self {
                match n_bits {
                    0 => 0,
                    n => Self::MAX >> (Self::BITS - n),
                }
            }

            fn push(self, n_bits: u32, value: u32, mask: Self) -> Self {
                (self.unbounded_shl(n_bits) | Self::from(value)) & mask
            }

            fn bits(self, at: u32, n_bits: u32) -> u32 {
                (self.unbounded_shr(at) & Self::mask(n_bits)) as u32
            }

            fn byte(self, number: u32) -> usize {
                (self >> (8 * number)) as usize & 0xff
            }

            fn hash(self) -> u64 {
                // Low and high half, one of them turned, where there are two.
                let folded = self as u64 ^ (self.unbounded_shr(64) as u64).rotate_left(29);
                (folded ^ (folded >> 32)).wrapping_mul(GOLDEN)
            }
        }
    };
}

integer_key!(u32);
integer_key!(u64);
integer_key!(u128);

/// The golden ratio: a product's high bits depend on all bits of the other factor.
const GOLDEN: u64 = 0x9E37_79B9_7F4A_7C15;

/// Words of a [`Wide`].
const WIDE_WORDS: usize = 8;

/// 512 bits, the highest word first: long n-grams.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Wide([u64; WIDE_WORDS]);

impl Key for Wide {
    const BITS: u32 = 64 * WIDE_WORDS as u32;

    fn mask(n_bits: u32) -> Self {
        let mut words = [0; WIDE_WORDS];
        for (i, word) in words.iter_mut().rev().enumerate() {
            *word = <u64 as Key>::mask(n_bits.saturating_sub(64 * i as u32).min(64));
        }
        Self(words)
    }

    fn push(self, n_bits: u32, value: u32, mask: Self) -> Self {
        let mut words = self.0;
        for i in 0..WIDE_WORDS {
            let below = words.get(i + 1).copied().unwrap_or(0);
            let carried = below.unbounded_shr(64 - n_bits);
            words[i] = (words[i] << n_bits | carried) & mask.0[i];
        }
        words[WIDE_WORDS - 1] |= u64::from(value);
        Self(words)
    }

    fn bits(self, at: u32, n_bits: u32) -> u32 {
        let word = |number: u32| {
            let index = (WIDE_WORDS as u32 - 1).checked_sub(number);
            index.map_or(0, |index| self.0[index as usize])
        };
        let low = word(at / 64) >> (at % 64);
        let high = word(at / 64 + 1).unbounded_shl(64 - at % 64);
        ((low | high) & <u64 as Key>::mask(n_bits)) as u32
    }

    fn byte(self, number: u32) -> usize {
        self.bits(8 * number, 8) as usize
    }

    fn hash(self) -> u64 {
        let fold = |hash: u64, word: &u64| (hash.rotate_left(29) ^ word).wrapping_mul(GOLDEN);
        self.0.iter().fold(0, fold)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round_trip<K: Key>(values: &[u32], n_bits: u32) {
        let mask = K::mask(values.len() as u32 * n_bits);
        // What was pushed before falls away.
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
    fn what_is_pushed_comes_out() {
        round_trip::<u32>(&[1, 65_535], 16);
        round_trip::<u32>(&[u32::MAX], 32);
        round_trip::<u64>(&[7, 0, 65_535, 3], 16);
        round_trip::<u128>(&[9, 100_000, 131_071, 5, 0, 1, 2], 17);
        round_trip::<Wide>(&(0..30).map(|i| i * 4_000).collect::<Vec<u32>>(), 17);
        round_trip::<Wide>(&(1..33).map(|i| i * 2_000).collect::<Vec<u32>>(), 16);
    }

    #[test]
    fn keys_are_in_the_order_of_their_tokens() {
        let key = |tokens: [u32; 8]| {
            let mask = Wide::mask(8 * 20);
            tokens
                .iter()
                .fold(Wide::default(), |key, token| key.push(20, *token, mask))
        };
        assert!(key([1, 2, 3, 4, 5, 6, 7, 8]) < key([1, 2, 3, 4, 5, 7, 0, 0]));
        assert!(key([2, 0, 0, 0, 0, 0, 0, 0]) > key([1, 9, 9, 9, 9, 9, 9, 9]));
    }
}
