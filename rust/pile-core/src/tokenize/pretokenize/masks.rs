//! Classifies the characters of a text 64 bytes at a time, as bit masks with one bit per byte.
//!
//! Bit `i` of a mask describes byte `i` of the block, so the least significant bit is the first byte. A
//! pretokenizer then finds the starts of pretokens of a whole block with a few integer operations.
//!
//! ASCII is classified by [`ascii_masks`]. Other characters are looked up one by one.

pub(crate) use crate::text::ascii_masks::{BLOCK_BYTES, ClassMasks};
use crate::text::{
    ascii_masks::{ascii_masks, ascii_masks_of_tail},
    classes::{ClassTable, code_point_at},
};

/// Computes the class masks of the blocks of a text in order.
#[derive(Debug)]
pub(crate) struct BlockClassifier<'t> {
    text: &'t [u8],
    /// Start of the next block.
    at: usize,
    classes: ClassTable,
    /// Bits of the next block that belong to a character that starts in the previous one. A character has at
    /// most four bytes, so these are at most the lowest three bits.
    spilled: ClassMasks,
}

impl<'t> BlockClassifier<'t> {
    /// A classifier at the start of `text`, which must be UTF-8.
    pub(crate) fn new(text: &'t [u8]) -> Self {
        Self {
            text,
            at: 0,
            classes: ClassTable::get(),
            spilled: ClassMasks::default(),
        }
    }

    /// The masks of the next block. All bits past the end of the text are 0.
    #[inline]
    pub(crate) fn next_block(&mut self) -> ClassMasks {
        let rest = &self.text[self.at.min(self.text.len())..];
        let mut masks = match rest.first_chunk() {
            Some(block) => ascii_masks(block),
            None => ascii_masks_of_tail(rest),
        };
        // Spilled bytes are outside ASCII, so they also set this mask.
        if masks.non_ascii != 0 {
            self.add_non_ascii(&mut masks);
        }
        self.at += BLOCK_BYTES;
        masks
    }

    /// Adds the classes of the characters outside ASCII, and spills the ones that end in the next block.
    fn add_non_ascii(&mut self, masks: &mut ClassMasks) {
        let spilled = std::mem::take(&mut self.spilled);
        masks.letter |= spilled.letter;
        masks.number |= spilled.number;
        masks.whitespace |= spilled.whitespace;
        masks.other |= spilled.other;
        // After each step, the lowest bit of `rest` is the first byte of a character.
        let mut rest = masks.non_ascii & !spilled.non_ascii;
        while rest != 0 {
            let bit = rest.trailing_zeros();
            let (code_point, len) = code_point_at(self.text, self.at + bit as usize);
            // 128 bits: this block is the low half, the next one the high half.
            let character = u128::from((1_u64 << len) - 1) << bit;
            let (in_block, in_next) = (character as u64, (character >> 64) as u64);
            let class = self.classes.class(code_point);
            *masks.of_class(class) |= in_block;
            rest &= !in_block;
            if in_next != 0 {
                *self.spilled.of_class(class) |= in_next;
                self.spilled.non_ascii = in_next;
            }
        }
    }
}

/// Properties of bytes that only the patterns of cl100k and of `Digits` use.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct ByteMasks {
    /// U+000A and U+000D.
    pub(crate) line_end: u64,
    /// UTF-8 continuation bytes: all bytes of a character but its first.
    pub(crate) continuation: u64,
}

/// The byte masks of the first block of `rest`. All bits past its end are 0.
#[inline]
pub(crate) fn byte_masks(rest: &[u8]) -> ByteMasks {
    match rest.first_chunk() {
        Some(block) => byte_masks_of_block(block),
        None => {
            // NUL, the padding, has none of the properties.
            let mut block = [0; BLOCK_BYTES];
            block[..rest.len()].copy_from_slice(rest);
            byte_masks_of_block(&block)
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[inline]
fn byte_masks_of_block(block: &[u8; BLOCK_BYTES]) -> ByteMasks {
    // SAFETY: the function only requires SSE2, which the x86-64 baseline includes.
    unsafe { byte_masks_sse2(block) }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "sse2")]
fn byte_masks_sse2(block: &[u8; BLOCK_BYTES]) -> ByteMasks {
    use std::arch::x86_64::{
        __m128i, _mm_cmpeq_epi8, _mm_cmplt_epi8, _mm_movemask_epi8, _mm_or_si128, _mm_set1_epi8,
    };
    let mut masks = ByteMasks::default();
    for (i, chunk) in block.chunks_exact(16).enumerate() {
        let bytes: __m128i = bytemuck::pod_read_unaligned(chunk);
        let bits = |lanes: __m128i| u64::from(_mm_movemask_epi8(lanes) as u16) << (16 * i);
        let is = |byte: u8| _mm_cmpeq_epi8(bytes, _mm_set1_epi8(byte as i8));
        masks.line_end |= bits(_mm_or_si128(is(b'\n'), is(b'\r')));
        // Continuation bytes, 0x80 to 0xBF, are the smallest signed bytes.
        masks.continuation |= bits(_mm_cmplt_epi8(bytes, _mm_set1_epi8(0xC0_u8 as i8)));
    }
    masks
}

#[cfg(not(target_arch = "x86_64"))]
use byte_masks_portable as byte_masks_of_block;

/// [`byte_masks_of_block`] without SIMD. On x86-64 the tests compare the two.
#[cfg(any(test, not(target_arch = "x86_64")))]
fn byte_masks_portable(block: &[u8; BLOCK_BYTES]) -> ByteMasks {
    let mut masks = ByteMasks::default();
    for (i, byte) in block.iter().enumerate() {
        let bit = |is: bool| u64::from(is) << i;
        masks.line_end |= bit(matches!(byte, b'\n' | b'\r'));
        masks.continuation |= bit(byte & 0xC0 == 0x80);
    }
    masks
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::classes::class_of;
    use proptest::prelude::*;

    /// The masks of all blocks, computed character by character.
    fn expected_masks(text: &str) -> Vec<ClassMasks> {
        let mut blocks = vec![ClassMasks::default(); text.len() / BLOCK_BYTES + 1];
        for (start, c) in text.char_indices() {
            for at in start..start + c.len_utf8() {
                let masks = &mut blocks[at / BLOCK_BYTES];
                let bit = 1 << (at % BLOCK_BYTES);
                *masks.of_class(class_of(c)) |= bit;
                masks.space |= if c == ' ' { bit } else { 0 };
                masks.apostrophe |= if c == '\'' { bit } else { 0 };
                masks.non_ascii |= if c.is_ascii() { 0 } else { bit };
            }
        }
        blocks
    }

    fn check(text: &str) {
        let mut classifier = BlockClassifier::new(text.as_bytes());
        for (i, expected) in expected_masks(text).into_iter().enumerate() {
            assert_eq!(classifier.next_block(), expected, "block {i} of {text:?}");
        }
    }

    #[test]
    fn every_ascii_character() {
        check(&('\0'..='\x7F').collect::<String>());
        let block: [u8; BLOCK_BYTES] = std::array::from_fn(|i| i as u8);
        assert_eq!(byte_masks_of_block(&block), byte_masks_portable(&block));
    }

    #[test]
    fn characters_that_span_two_blocks() {
        for before in 58..66 {
            check(&format!("{}\u{3000}é漢\u{1F600}x", "a".repeat(before)));
        }
    }

    proptest! {
        #[test]
        fn simd_equals_portable(bytes: [u8; 32]) {
            let block: [u8; BLOCK_BYTES] = std::array::from_fn(|i| bytes[i % 32] ^ (i / 32) as u8);
            prop_assert_eq!(byte_masks_of_block(&block), byte_masks_portable(&block));
        }

        #[test]
        fn any_text(text in "(\\PC|[a-c '0-9\t\u{3000}\u{a0}é漢]){0,300}") {
            check(&text);
        }
    }
}
