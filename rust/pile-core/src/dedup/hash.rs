//! Hashes of words and shingles. They are stored with signatures, so they must never change.

/// Multipliers with no pattern in their bits: odd numbers of a fixed generator.
const KEYS: [u64; 3] = [
    0x9E37_79B9_7F4A_7C15,
    0xD6E8_FEB8_6659_FD93,
    0xA076_1D64_78BD_642F,
];

/// The base of polynomial hashes of consecutive words or characters. It is odd, so that multiplying by it loses no bits.
pub(crate) const BASE: u64 = KEYS[0];

/// Both halves of the product, combined. Every bit of the factors changes about half of the bits.
#[inline]
pub(crate) fn fold(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    product as u64 ^ (product >> 64) as u64
}

/// The hash of a word.
#[inline]
pub(super) fn hash_bytes(bytes: &[u8]) -> u64 {
    let n = bytes.len();
    let mut hash = KEYS[2] ^ (n as u64).wrapping_mul(KEYS[1]);
    if let Some(last) = bytes.last_chunk::<8>() {
        for chunk in bytes[..n - 1].as_chunks::<8>().0 {
            hash = fold(hash ^ u64::from_le_bytes(*chunk), KEYS[0]);
        }
        // The last 8 bytes. They may overlap those before, which the length tells apart.
        return fold(hash ^ u64::from_le_bytes(*last), KEYS[1]);
    }
    let last = match (bytes.first_chunk::<4>(), bytes.last_chunk::<4>()) {
        (Some(first), Some(last)) => {
            u64::from(u32::from_le_bytes(*first)) << 32 | u64::from(u32::from_le_bytes(*last))
        }
        _ if n == 0 => 0,
        // Up to three bytes: the first, the middle and the last one.
        _ => u64::from(bytes[0]) << 16 | u64::from(bytes[n / 2]) << 8 | u64::from(bytes[n - 1]),
    };
    fold(hash ^ last, KEYS[1])
}

/// The hash of a character.
#[inline]
pub(super) fn hash_char(c: char) -> u64 {
    fold(u64::from(c) ^ KEYS[2], KEYS[0])
}

/// Mixes the bits of a number. Different numbers stay different.
#[inline]
pub(crate) fn mix(mut number: u64) -> u64 {
    number = (number ^ number >> 32).wrapping_mul(KEYS[0]);
    number = (number ^ number >> 29).wrapping_mul(KEYS[1]);
    number ^ number >> 32
}

/// The hash of the rows of a band.
#[inline]
pub(super) fn hash_rows(rows: &[u32]) -> u64 {
    let add = |hash, row: &u32| fold(hash ^ u64::from(*row), KEYS[0]);
    mix(rows.iter().fold(KEYS[2], add))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn hashes_never_change() {
        let hashes =
            ["", "a", "ab", "word", "longest word"].map(|word| hash_bytes(word.as_bytes()));
        assert_eq!(hashes, HASHES);
        assert_eq!([hash_char('é'), mix(7), hash_rows(&[1, 2])], OTHERS);
    }

    const HASHES: [u64; 5] = [
        7184359378817645798,
        5768913606108355216,
        14168614753772514840,
        14829095158917514729,
        3948049857064698957,
    ];
    const OTHERS: [u64; 3] = [
        3876740958199936049,
        16571461549167486074,
        15367254002586080282,
    ];

    #[test]
    fn similar_words_have_different_hashes() {
        let mut words: Vec<Vec<u8>> = Vec::new();
        for n in 0..40 {
            for at in 0..n {
                for byte in [b'a', b'b', 0] {
                    let mut word = vec![b'x'; n];
                    word[at] = byte;
                    words.push(word);
                }
            }
        }
        let hashes: HashSet<u64> = words.iter().map(|word| hash_bytes(word)).collect();
        assert_eq!(hashes.len(), words.len());
    }
}
