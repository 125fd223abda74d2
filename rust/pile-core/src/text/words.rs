//! Words, as Python's `str.split()` separates them.

use super::ascii_masks::BLOCK_BYTES;

/// Whether Python's `str.split()` splits at this character.
pub(crate) fn is_space(c: char) -> bool {
    c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c)
}

/// The words of a text.
pub(crate) fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(is_space).filter(|word| !word.is_empty())
}

/// What a byte says about white space.
#[derive(Clone, Copy, PartialEq, Eq)]
enum ByteKind {
    Word,
    Space,
    /// The first byte of characters some of which are white space.
    Lead,
}

static BYTE_KINDS: [ByteKind; 256] = {
    let mut kinds = [ByteKind::Word; 256];
    let mut byte = 0x09;
    while byte <= 0x20 {
        if byte <= 0x0d || byte >= 0x1c {
            kinds[byte] = ByteKind::Space;
        }
        byte += 1;
    }
    kinds[0xc2] = ByteKind::Lead;
    kinds[0xe1] = ByteKind::Lead;
    kinds[0xe2] = ByteKind::Lead;
    kinds[0xe3] = ByteKind::Lead;
    kinds
};

/// Bytes of the white space that starts a text with a [`ByteKind::Lead`]; 0 if it is another character.
fn wide_space_bytes(text: &[u8]) -> usize {
    match text {
        [0xc2, 0x85 | 0xa0, ..] => 2,
        [0xe1, 0x9a, 0x80, ..]
        | [0xe2, 0x80, 0x80..=0x8a | 0xa8 | 0xa9 | 0xaf, ..]
        | [0xe2, 0x81, 0x9f, ..]
        | [0xe3, 0x80, 0x80, ..] => 3,
        _ => 0,
    }
}

/// A bit for each byte of a block, from the lowest on, set unless it is of [`ByteKind::Word`].
#[cfg(target_arch = "x86_64")]
#[inline]
fn space_bits(block: &[u8; BLOCK_BYTES]) -> u64 {
    // SAFETY: the function only requires SSE2, which the x86-64 baseline includes.
    unsafe { space_bits_sse2(block) }
}

#[cfg(target_arch = "x86_64")]
#[inline]
#[target_feature(enable = "sse2")]
fn space_bits_sse2(block: &[u8; BLOCK_BYTES]) -> u64 {
    use super::ascii_masks::is_within;
    use std::arch::x86_64::{
        __m128i, _mm_cmpeq_epi8, _mm_movemask_epi8, _mm_or_si128, _mm_set1_epi8,
    };
    let mut bits = 0;
    for (i, chunk) in block.chunks_exact(16).enumerate() {
        let bytes: __m128i = bytemuck::pod_read_unaligned(chunk);
        let spaces = _mm_or_si128(is_within(bytes, 0x09, 5), is_within(bytes, 0x1c, 5));
        let c2 = _mm_cmpeq_epi8(bytes, _mm_set1_epi8(0xc2_u8 as i8));
        let leads = _mm_or_si128(c2, is_within(bytes, 0xe1, 3));
        let found = _mm_movemask_epi8(_mm_or_si128(spaces, leads)) as u16;
        bits |= u64::from(found) << (16 * i);
    }
    bits
}

#[cfg(not(target_arch = "x86_64"))]
use space_bits_portable as space_bits;

/// [`space_bits`] without SIMD. On x86-64 the tests compare the two.
#[cfg(any(test, not(target_arch = "x86_64")))]
fn space_bits_portable(block: &[u8; BLOCK_BYTES]) -> u64 {
    let is_word = |byte: u8| BYTE_KINDS[usize::from(byte)] == ByteKind::Word;
    let bits = (0..)
        .zip(block)
        .map(|(i, byte)| u64::from(!is_word(*byte)) << i);
    bits.sum()
}

/// Calls `take` with each word of a text: [`words`], without decoding characters.
#[inline]
pub(crate) fn each_word<'a>(text: &'a str, mut take: impl FnMut(&'a str)) {
    let bytes = text.as_bytes();
    // The start of the word, or the end of the last white space.
    let mut start = 0;
    let mut split = |at: usize| {
        let n_space = match BYTE_KINDS[usize::from(bytes[at])] {
            ByteKind::Word => 0,
            ByteKind::Space => 1,
            ByteKind::Lead => wide_space_bytes(&bytes[at..]),
        };
        if n_space > 0 {
            if start < at {
                take(&text[start..at]);
            }
            start = at + n_space;
        }
    };
    let (blocks, rest) = bytes.as_chunks::<BLOCK_BYTES>();
    for (number, block) in blocks.iter().enumerate() {
        let mut bits = space_bits(block);
        while bits != 0 {
            split(BLOCK_BYTES * number + bits.trailing_zeros() as usize);
            bits &= bits - 1;
        }
    }
    (bytes.len() - rest.len()..bytes.len()).for_each(&mut split);
    if start < bytes.len() {
        take(&text[start..]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn found(text: &str) -> Vec<&str> {
        let mut all = Vec::new();
        each_word(text, |word| all.push(word));
        all
    }

    #[test]
    fn every_character_is_space_or_not_as_in_words() {
        for c in '\0'..=char::MAX {
            let text = format!("a{c}b");
            assert_eq!(found(&text), words(&text).collect::<Vec<_>>(), "{c:?}");
        }
    }

    #[test]
    fn simd_equals_the_loop() {
        for start in [0_usize, 64, 128, 192] {
            let block: [u8; BLOCK_BYTES] = std::array::from_fn(|i| (start + i) as u8);
            assert_eq!(space_bits(&block), space_bits_portable(&block));
        }
    }

    proptest! {
        #[test]
        fn long_texts_equal_words(text in "([a-z]{1,70}|\\PC|[ \t\u{1c}\u{85}\u{a0}\u{2003}\u{3000}é]){0,90}") {
            prop_assert_eq!(found(&text), words(&text).collect::<Vec<_>>());
        }

        #[test]
        fn equals_words(text in "(\\PC|[ \t\u{1c}\u{85}\u{a0}\u{2003}\u{3000}é]){0,40}") {
            prop_assert_eq!(found(&text), words(&text).collect::<Vec<_>>());
        }
    }
}
