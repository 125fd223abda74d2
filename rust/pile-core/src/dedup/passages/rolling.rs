//! Rolling hashes: polynomials whose digits are the units of a string.

use sha2::{Digest, Sha256};

use super::units::{MAX_DIGIT, Unit};

/// The base of [`RollingHash`]. It is odd, so that multiplying by it loses no bits.
const BASE: u64 = 0x9E37_79B9_7F4A_7C15;

/// A hash modulo 2^64. It is fast, and strings with equal hashes may be built on purpose: equal strings are verified.
#[derive(Debug, Clone, Copy)]
pub(super) struct RollingHash {
    pub(super) length: usize,
    /// `BASE` to the power of `length - 1`: the weight of the first unit.
    first_weight: u64,
}

impl RollingHash {
    pub(super) fn new(length: usize) -> Self {
        Self {
            length,
            first_weight: (1..length).fold(1, |weight: u64, _| weight.wrapping_mul(BASE)),
        }
    }

    /// The hash of a string and a unit after it.
    #[inline]
    pub(super) fn append(hash: u64, unit: impl Unit) -> u64 {
        hash.wrapping_mul(BASE).wrapping_add(unit.digit())
    }

    /// The hash of a string of `length` units without its first.
    #[inline]
    pub(super) fn without_first(&self, hash: u64, first: impl Unit) -> u64 {
        hash.wrapping_sub(first.digit().wrapping_mul(self.first_weight))
    }

    /// The hash of the first `length - 1` units of a text, or of all if they are fewer.
    pub(super) fn start(&self, text: &[impl Unit]) -> u64 {
        let units = text.iter().take(self.length - 1);
        units.fold(0, |hash, unit| Self::append(hash, *unit))
    }

    /// Spreads a hash over all bits: the lowest bits of a polynomial modulo 2^64 depend on the lowest bits of its
    /// digits alone. The multipliers are any odd numbers without a pattern.
    pub(super) fn mix(hash: u64) -> u64 {
        let hash = (hash ^ (hash >> 32)).wrapping_mul(0xD6E8_FEB8_6659_FD93);
        let hash = (hash ^ (hash >> 29)).wrapping_mul(BASE);
        hash ^ (hash >> 32)
    }
}

/// The prime 2^61 - 1.
const PRIME: u64 = (1 << 61) - 1;

/// A hash of 122 bits: two residues modulo a prime, for strings that cannot be compared.
///
/// Two given different strings of `n` units have equal residues under a random base with a probability of n / 2^61,
/// under two bases with its square. The bases are drawn from the checksums of the shards: who writes a text cannot
/// know them before, and so cannot make strings with equal hashes.
#[derive(Debug, Clone, Copy)]
pub(super) struct WideRollingHash {
    length: usize,
    bases: [u64; 2],
    /// The bases to the power of `length`.
    powers: [u64; 2],
}

fn multiply(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    let sum = (product as u64 & PRIME) + (product >> 61) as u64;
    if sum >= PRIME { sum - PRIME } else { sum }
}

impl WideRollingHash {
    pub(super) fn new<'a>(length: usize, checksums: impl Iterator<Item = &'a str>) -> Self {
        let mut digest = Sha256::new();
        checksums.for_each(|checksum| digest.update(checksum));
        let digest = digest.finalize();
        let (halves, _) = digest.as_chunks::<8>();
        // A base that is a digit too would make equal hashes of short strings: `1, 0` and `0, base`.
        let base = |half: [u8; 8]| u64::from_le_bytes(half) % (PRIME - MAX_DIGIT) + MAX_DIGIT;
        let bases = [base(halves[0]), base(halves[1])];
        let power = |base| (0..length).fold(1, |power, _| multiply(power, base));
        Self {
            length,
            bases,
            powers: bases.map(power),
        }
    }

    /// Calls `take` with the hash of each window of `text`, in order.
    pub(super) fn each(&self, text: &[impl Unit], mut take: impl FnMut(usize, [u64; 2])) {
        let mut hash = [0; 2];
        for (i, entering) in text.iter().enumerate() {
            let leaving = i
                .checked_sub(self.length)
                .map_or(0, |start| text[start].digit());
            for (half, residue) in hash.iter_mut().enumerate() {
                let removed = PRIME - multiply(leaving, self.powers[half]);
                let sum = multiply(*residue, self.bases[half]) + entering.digit() + removed;
                *residue = sum % PRIME;
            }
            if let Some(start) = (i + 1).checked_sub(self.length) {
                take(start, hash);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::{collection::vec, prelude::*};

    proptest! {
        #[test]
        fn hashes_of_windows_are_those_of_their_bytes(text in vec(any::<u8>(), 0..60), length in 1_usize..40) {
            let (wide, narrow) = (WideRollingHash::new(length, ["a"].into_iter()), RollingHash::new(length));
            let mut hash = narrow.start(&text);
            for window in text.windows(length) {
                hash = RollingHash::append(hash, window[length - 1]);
                prop_assert_eq!(hash, window.iter().fold(0, |hash, byte| RollingHash::append(hash, *byte)));
                hash = narrow.without_first(hash, window[0]);
            }
            let mut n = 0;
            wide.each(&text, |start, found| {
                let mut alone = None;
                wide.each(&text[start..][..length], |_, hash| alone = Some(hash));
                assert_eq!(Some(found), alone);
                n += 1;
            });
            prop_assert_eq!(n, (text.len() + 1).saturating_sub(length));
        }
    }
}
