//! Classes of 64 bytes at a time, one bit a byte.
//!
//! On x86-64 the ASCII part is SSE2, which every such machine has; elsewhere a plain loop does the
//! same. Characters beyond ASCII are looked up one by one.

use crate::tokenize::pretokenize::classes::{Class, Classes, code_point_at};

/// Bytes of a block.
pub(crate) const BLOCK_BYTES: usize = 64;

/// Which bytes of a block are of which class; a character's bytes are all of its class.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Masks {
    pub(crate) letter: u64,
    pub(crate) number: u64,
    /// White space, U+0020 included.
    pub(crate) space: u64,
    pub(crate) other: u64,
    /// U+0020.
    pub(crate) blank: u64,
    pub(crate) apostrophe: u64,
    /// Bytes of characters beyond ASCII.
    pub(crate) high: u64,
}

/// Makes the masks of the blocks of a text, one after the other.
#[derive(Debug)]
pub(crate) struct Classifier<'t> {
    text: &'t [u8],
    at: usize,
    classes: Classes,
    /// The bits of a character of the block before that reaches into this one.
    spilled: Masks,
}

impl<'t> Classifier<'t> {
    /// A classifier at the start of `text`, which is UTF-8.
    pub(crate) fn new(text: &'t [u8]) -> Self {
        Self {
            text,
            at: 0,
            classes: Classes::get(),
            spilled: Masks::default(),
        }
    }

    /// The masks of the next block; beyond the end of the text all bits are 0.
    #[inline]
    pub(crate) fn next_block(&mut self) -> Masks {
        let rest = &self.text[self.at.min(self.text.len())..];
        let mut masks = match rest.first_chunk() {
            Some(block) => ascii(block),
            None => ascii_of_end(rest),
        };
        if masks.high != 0 {
            self.add_high(&mut masks);
        }
        self.at += BLOCK_BYTES;
        masks
    }

    /// Adds the characters beyond ASCII that start in the block.
    fn add_high(&mut self, masks: &mut Masks) {
        let spilled = std::mem::take(&mut self.spilled);
        masks.letter |= spilled.letter;
        masks.number |= spilled.number;
        masks.space |= spilled.space;
        masks.other |= spilled.other;
        let mut rest = masks.high & !spilled.high;
        while rest != 0 {
            let bit = rest.trailing_zeros();
            let (code_point, len) = code_point_at(self.text, self.at + bit as usize);
            let span = u128::from((1_u64 << len) - 1) << bit;
            let (here, beyond) = (span as u64, (span >> 64) as u64);
            let class = self.classes.class(code_point);
            *masks.of(class) |= here;
            rest &= !here;
            if beyond != 0 {
                *self.spilled.of(class) |= beyond;
                self.spilled.high = beyond;
            }
        }
    }
}

impl Masks {
    fn of(&mut self, class: Class) -> &mut u64 {
        match class {
            Class::Letter => &mut self.letter,
            Class::Number => &mut self.number,
            Class::Space => &mut self.space,
            Class::Other => &mut self.other,
        }
    }
}

/// The masks of less than a block; what is missing has no class.
#[cold]
fn ascii_of_end(rest: &[u8]) -> Masks {
    let mut block = [0; BLOCK_BYTES];
    block[..rest.len()].copy_from_slice(rest);
    let mut masks = ascii(&block);
    masks.other &= (1 << rest.len()) - 1;
    masks
}

/// The masks of the ASCII characters of a block, and where others are.
#[cfg(target_arch = "x86_64")]
#[inline]
fn ascii(block: &[u8; BLOCK_BYTES]) -> Masks {
    // SAFETY: SSE2 is part of every x86-64 processor.
    unsafe { ascii_sse2(block) }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "sse2")]
fn ascii_sse2(block: &[u8; BLOCK_BYTES]) -> Masks {
    use std::arch::x86_64::{
        __m128i, _mm_cmpeq_epi8, _mm_min_epu8, _mm_movemask_epi8, _mm_or_si128, _mm_set1_epi8,
        _mm_sub_epi8,
    };
    let mut masks = Masks::default();
    for (i, lane) in block.chunks_exact(16).enumerate() {
        let bytes: __m128i = bytemuck::pod_read_unaligned(lane);
        let bits = |lanes: __m128i| u64::from(_mm_movemask_epi8(lanes) as u16) << (16 * i);
        let is = |byte: u8| _mm_cmpeq_epi8(bytes, _mm_set1_epi8(byte as i8));
        let is_within = |bytes: __m128i, first: u8, n: u8| {
            let from_first = _mm_sub_epi8(bytes, _mm_set1_epi8(first as i8));
            let last = _mm_set1_epi8((n - 1) as i8);
            _mm_cmpeq_epi8(_mm_min_epu8(from_first, last), from_first)
        };
        let lower = _mm_or_si128(bytes, _mm_set1_epi8(0x20));
        masks.letter |= bits(is_within(lower, b'a', 26));
        masks.number |= bits(is_within(bytes, b'0', 10));
        masks.blank |= bits(is(b' '));
        masks.space |= bits(is_within(bytes, b'\t', 5));
        masks.apostrophe |= bits(is(b'\''));
        masks.high |= bits(bytes);
    }
    masks.complete()
}

#[cfg(not(target_arch = "x86_64"))]
use ascii_plain as ascii;

/// The same, byte by byte.
#[cfg(any(test, not(target_arch = "x86_64")))]
fn ascii_plain(block: &[u8; BLOCK_BYTES]) -> Masks {
    let mut masks = Masks::default();
    for (i, byte) in block.iter().enumerate() {
        let bit = |is: bool| u64::from(is) << i;
        masks.letter |= bit(byte.is_ascii_alphabetic());
        masks.number |= bit(byte.is_ascii_digit());
        masks.blank |= bit(*byte == b' ');
        masks.space |= bit(matches!(byte, b'\t'..=b'\r'));
        masks.apostrophe |= bit(*byte == b'\'');
        masks.high |= bit(!byte.is_ascii());
    }
    masks.complete()
}

impl Masks {
    /// Fills in what follows from the rest.
    fn complete(mut self) -> Self {
        self.space |= self.blank;
        self.other = !(self.letter | self.number | self.space | self.high);
        self
    }
}

/// What cl100k's pattern needs beyond the classes; one bit a byte.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Shape {
    /// U+000A and U+000D.
    pub(crate) line_end: u64,
    /// Bytes of a character that are not its first.
    pub(crate) continuation: u64,
}

/// The shape of the first block of `rest`; beyond its end all bits are 0.
#[inline]
pub(crate) fn shape(rest: &[u8]) -> Shape {
    match rest.first_chunk() {
        Some(block) => shape_of(block),
        None => {
            let mut block = [0; BLOCK_BYTES];
            block[..rest.len()].copy_from_slice(rest);
            shape_of(&block)
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[inline]
fn shape_of(block: &[u8; BLOCK_BYTES]) -> Shape {
    // SAFETY: SSE2 is part of every x86-64 processor.
    unsafe { shape_sse2(block) }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "sse2")]
fn shape_sse2(block: &[u8; BLOCK_BYTES]) -> Shape {
    use std::arch::x86_64::{
        __m128i, _mm_cmpeq_epi8, _mm_cmplt_epi8, _mm_movemask_epi8, _mm_or_si128, _mm_set1_epi8,
    };
    let mut shape = Shape::default();
    for (i, lane) in block.chunks_exact(16).enumerate() {
        let bytes: __m128i = bytemuck::pod_read_unaligned(lane);
        let bits = |lanes: __m128i| u64::from(_mm_movemask_epi8(lanes) as u16) << (16 * i);
        let is = |byte: u8| _mm_cmpeq_epi8(bytes, _mm_set1_epi8(byte as i8));
        shape.line_end |= bits(_mm_or_si128(is(b'\n'), is(b'\r')));
        // As signed numbers 0x80 to 0xBF are the least.
        shape.continuation |= bits(_mm_cmplt_epi8(bytes, _mm_set1_epi8(0xC0_u8 as i8)));
    }
    shape
}

#[cfg(not(target_arch = "x86_64"))]
use shape_plain as shape_of;

/// The same, byte by byte.
#[cfg(any(test, not(target_arch = "x86_64")))]
fn shape_plain(block: &[u8; BLOCK_BYTES]) -> Shape {
    let mut shape = Shape::default();
    for (i, byte) in block.iter().enumerate() {
        let bit = |is: bool| u64::from(is) << i;
        shape.line_end |= bit(matches!(byte, b'\n' | b'\r'));
        shape.continuation |= bit(byte & 0xC0 == 0x80);
    }
    shape
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tokenize::pretokenize::classes::class_of;
    use proptest::prelude::*;

    /// The masks of all blocks, said character by character.
    fn plain(text: &str) -> Vec<Masks> {
        let mut blocks = vec![Masks::default(); text.len() / BLOCK_BYTES + 1];
        for (start, c) in text.char_indices() {
            for at in start..start + c.len_utf8() {
                let masks = &mut blocks[at / BLOCK_BYTES];
                let bit = 1 << (at % BLOCK_BYTES);
                *masks.of(class_of(c)) |= bit;
                masks.blank |= if c == ' ' { bit } else { 0 };
                masks.apostrophe |= if c == '\'' { bit } else { 0 };
                masks.high |= if c.is_ascii() { 0 } else { bit };
            }
        }
        blocks
    }

    fn check(text: &str) {
        let mut classifier = Classifier::new(text.as_bytes());
        for (i, expected) in plain(text).into_iter().enumerate() {
            assert_eq!(classifier.next_block(), expected, "block {i} of {text:?}");
        }
    }

    #[test]
    fn every_ascii_character() {
        check(&('\0'..='\x7F').collect::<String>());
        let block: [u8; BLOCK_BYTES] = std::array::from_fn(|i| (i * 4 + 1) as u8);
        assert_eq!(ascii(&block), ascii_plain(&block));
        let block: [u8; BLOCK_BYTES] = std::array::from_fn(|i| i as u8);
        assert_eq!(shape_of(&block), shape_plain(&block));
    }

    #[test]
    fn characters_across_the_border_of_blocks() {
        for before in 58..66 {
            check(&format!("{}\u{3000}é漢\u{1F600}x", "a".repeat(before)));
        }
    }

    proptest! {
        #[test]
        fn both_ways_agree(bytes: [u8; 32]) {
            let block: [u8; BLOCK_BYTES] = std::array::from_fn(|i| bytes[i % 32] ^ (i / 32) as u8);
            prop_assert_eq!(ascii(&block), ascii_plain(&block));
            prop_assert_eq!(shape_of(&block), shape_plain(&block));
        }

        #[test]
        fn any_text(text in "(\\PC|[a-c '0-9\t\u{3000}\u{a0}é漢]){0,300}") {
            check(&text);
        }
    }
}
