//! Classifies ASCII 64 bytes at a time, as bit masks with one bit per byte.
//!
//! Bit `i` of a mask describes byte `i` of the block, so the least significant bit is the first byte. x86-64 uses SSE2,
//! which each of its processors has. Other architectures use a loop that the tests compare with it.

use crate::text::classes::Class;

/// Bytes of a block: the bits of a `u64`.
pub(crate) const BLOCK_BYTES: usize = 64;

/// The classes of the bytes of a block. All bytes of a character have the class of the character.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct ClassMasks {
    pub(crate) letter: u64,
    pub(crate) number: u64,
    /// White space, including U+0020.
    pub(crate) whitespace: u64,
    pub(crate) other: u64,
    /// U+0020 alone.
    pub(crate) space: u64,
    pub(crate) apostrophe: u64,
    /// Bytes of characters outside ASCII.
    pub(crate) non_ascii: u64,
}

impl ClassMasks {
    /// The mask of a class.
    pub(crate) fn of_class(&mut self, class: Class) -> &mut u64 {
        match class {
            Class::Letter => &mut self.letter,
            Class::Number => &mut self.number,
            Class::Whitespace => &mut self.whitespace,
            Class::Other => &mut self.other,
        }
    }
}

/// [`ascii_masks`] of fewer than 64 bytes, the last ones of a text.
#[cold]
pub(crate) fn ascii_masks_of_tail(rest: &[u8]) -> ClassMasks {
    let mut block = [0; BLOCK_BYTES];
    block[..rest.len()].copy_from_slice(rest);
    let mut masks = ascii_masks(&block);
    // NUL is of class `Other`, so the padding must be removed from that mask alone.
    masks.other &= (1 << rest.len()) - 1;
    masks
}

/// The masks of the ASCII characters of a block. Other bytes are set in `non_ascii` alone.
#[cfg(target_arch = "x86_64")]
#[inline]
pub(crate) fn ascii_masks(block: &[u8; BLOCK_BYTES]) -> ClassMasks {
    // SAFETY: the function only requires SSE2, which the x86-64 baseline includes.
    unsafe { ascii_masks_sse2(block) }
}

#[cfg(target_arch = "x86_64")]
#[inline] // A caller that needs some of the masks does not compute the others.
#[target_feature(enable = "sse2")]
fn ascii_masks_sse2(block: &[u8; BLOCK_BYTES]) -> ClassMasks {
    use std::arch::x86_64::{
        __m128i, _mm_cmpeq_epi8, _mm_movemask_epi8, _mm_or_si128, _mm_set1_epi8,
    };
    let mut masks = ClassMasks::default();
    for (i, chunk) in block.chunks_exact(16).enumerate() {
        let bytes: __m128i = bytemuck::pod_read_unaligned(chunk);
        // The most significant bit of each byte, at the position of the byte in the block.
        let bits = |lanes: __m128i| u64::from(_mm_movemask_epi8(lanes) as u16) << (16 * i);
        let is = |byte: u8| _mm_cmpeq_epi8(bytes, _mm_set1_epi8(byte as i8));
        // Bit 0x20 distinguishes upper and lower case. Setting it makes no other byte a letter.
        let lower = _mm_or_si128(bytes, _mm_set1_epi8(0x20));
        masks.letter |= bits(is_within(lower, b'a', 26));
        masks.number |= bits(is_within(bytes, b'0', 10));
        masks.space |= bits(is(b' '));
        masks.whitespace |= bits(is_within(bytes, b'\t', 5)); // U+0009 to U+000D
        masks.apostrophe |= bits(is(b'\''));
        masks.non_ascii |= bits(bytes);
    }
    masks.complete()
}

/// Sets all bits of each byte with `first <= byte < first + n`.
///
/// SSE2 has no unsigned comparison. With wrapping subtraction, this is the same as `byte - first <= n - 1`, and
/// `x <= y` is the same as `min(x, y) == x`.
#[cfg(target_arch = "x86_64")]
#[inline]
#[target_feature(enable = "sse2")]
pub(crate) fn is_within(
    bytes: std::arch::x86_64::__m128i,
    first: u8,
    n: u8,
) -> std::arch::x86_64::__m128i {
    use std::arch::x86_64::{_mm_cmpeq_epi8, _mm_min_epu8, _mm_set1_epi8, _mm_sub_epi8};
    let from_first = _mm_sub_epi8(bytes, _mm_set1_epi8(first as i8));
    let last = _mm_set1_epi8((n - 1) as i8);
    _mm_cmpeq_epi8(_mm_min_epu8(from_first, last), from_first)
}

#[cfg(not(target_arch = "x86_64"))]
pub(crate) use ascii_masks_portable as ascii_masks;

/// [`ascii_masks`] without SIMD. On x86-64 the tests compare the two.
#[cfg(any(test, not(target_arch = "x86_64")))]
pub(crate) fn ascii_masks_portable(block: &[u8; BLOCK_BYTES]) -> ClassMasks {
    let mut masks = ClassMasks::default();
    for (i, byte) in block.iter().enumerate() {
        let bit = |is: bool| u64::from(is) << i;
        masks.letter |= bit(byte.is_ascii_alphabetic());
        masks.number |= bit(byte.is_ascii_digit());
        masks.space |= bit(*byte == b' ');
        masks.whitespace |= bit(matches!(byte, b'\t'..=b'\r'));
        masks.apostrophe |= bit(*byte == b'\'');
        masks.non_ascii |= bit(!byte.is_ascii());
    }
    masks.complete()
}

impl ClassMasks {
    /// Derives `other` and the rest of `whitespace` from the other masks.
    fn complete(mut self) -> Self {
        self.whitespace |= self.space;
        self.other = !(self.letter | self.number | self.whitespace | self.non_ascii);
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn simd_equals_the_loop_for_any_bytes(bytes in proptest::collection::vec(any::<u8>(), BLOCK_BYTES)) {
            let block: [u8; BLOCK_BYTES] = bytes.try_into().unwrap();
            prop_assert_eq!(ascii_masks(&block), ascii_masks_portable(&block));
        }
    }

    #[test]
    fn simd_equals_the_loop() {
        for start in [0_usize, 64, 128, 192] {
            let block: [u8; BLOCK_BYTES] = std::array::from_fn(|i| (start + i) as u8);
            assert_eq!(ascii_masks(&block), ascii_masks_portable(&block));
        }
        let block: [u8; BLOCK_BYTES] = std::array::from_fn(|i| (i * 4 + 1) as u8);
        assert_eq!(ascii_masks(&block), ascii_masks_portable(&block));
        assert_eq!(ascii_masks_of_tail(b"a1 \x80").letter, 1);
    }
}
