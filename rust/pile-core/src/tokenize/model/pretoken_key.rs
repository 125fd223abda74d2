//! Hash-table keys of short pretokens: their bytes, padded with zeros to whole words.
//!
//! Padding is unambiguous because a pretoken that ends with a zero byte has no key: the last byte that is not
//! zero is the end. So neither a length nor the bytes themselves need to be stored beside the key.

/// Bytes of the longest pretoken that has a key.
pub(crate) const MAX_SHORT_BYTES: usize = 16;

/// A pretoken of up to [`MAX_SHORT_BYTES`] bytes. It is never zero.
pub(crate) type ShortKey = [u64; 2];

/// The first `N` bytes of `text[start..]`, padded with zeros. Bytes from `end` on may be those of the text or
/// zeros, so the caller must mask them: one unaligned load is faster than a copy of `end - start` bytes.
#[inline(always)]
pub(crate) fn load<const N: usize>(text: &[u8], start: usize, end: usize) -> [u8; N] {
    match text[start..].first_chunk() {
        Some(bytes) => *bytes,
        None => load_at_end(&text[start..end]),
    }
}

/// [`load`] where fewer than `N` bytes of the text follow.
#[cold]
fn load_at_end<const N: usize>(pretoken: &[u8]) -> [u8; N] {
    let mut bytes = [0; N];
    bytes[..pretoken.len()].copy_from_slice(pretoken);
    bytes
}

/// Hash of a key, good in its low bits: the two halves of the product of both words, combined.
///
/// The constants are arbitrary. They keep a word of zeros, which short keys have, from making the product zero.
#[inline(always)]
pub(crate) fn hash(key: ShortKey) -> usize {
    const SEEDS: [u64; 2] = [0x9E37_79B9_7F4A_7C15, 0xD1B5_4A32_D192_ED03];
    let product = u128::from(key[0] ^ SEEDS[0]) * u128::from(key[1] ^ SEEDS[1]);
    (product as u64 ^ (product >> 64) as u64) as usize
}
