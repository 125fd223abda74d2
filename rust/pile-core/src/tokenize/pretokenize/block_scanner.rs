//! Drives a [`BoundaryRule`] over a text in blocks of 64 bytes, and moves its results from bits to offsets.
//!
//! The bit operations that the rules share are at the end of this file.
//!
//! A rule sees the masks of one block and one byte of the next. What it needs of earlier blocks it carries
//! itself, as the bits of the last byte of the previous block.

use crate::tokenize::pretokenize::masks::{
    BLOCK_BYTES, BlockClassifier, ByteMasks, ClassMasks, byte_masks,
};

/// Bytes scanned by one call, or more if no pretoken ends in them. Larger calls measured no faster.
pub(crate) const BYTES_PER_CALL: usize = 4096;

/// A block of a text with its masks.
#[derive(Debug)]
pub(crate) struct TextBlock<'t> {
    /// The whole text.
    pub(crate) text: &'t [u8],
    /// Offset of the block's first byte.
    pub(crate) at: usize,
    pub(crate) classes: ClassMasks,
    /// The classes of the next block.
    pub(crate) next: ClassMasks,
}

impl TextBlock<'_> {
    /// The masks of single bytes, which not every rule needs.
    #[inline]
    pub(crate) fn byte_masks(&self) -> ByteMasks {
        byte_masks(&self.text[self.at..])
    }
}

/// The starts of pretokens in a block.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct PretokenStarts {
    /// Bytes that start a pretoken.
    pub(crate) bits: u64,
    /// Last bytes of characters that start a pretoken. The scanner moves them to the first byte of the
    /// character, which can be in the previous block.
    pub(crate) last_bytes: u64,
}

/// Finds the starts of pretokens. It is called for all blocks of a text in order.
pub(crate) trait BoundaryRule {
    fn starts(&mut self, block: &TextBlock<'_>) -> PretokenStarts;
}

/// Finds the ends of the pretokens of a text.
#[derive(Debug)]
pub(crate) struct BlockScanner<'t, R> {
    text: &'t [u8],
    classifier: BlockClassifier<'t>,
    rule: R,
    /// Offset of the next block to be scanned.
    at: usize,
    /// The classes of that block.
    classes: ClassMasks,
    /// The last end appended by an earlier call.
    last_end: usize,
}

impl<'t, R: BoundaryRule> BlockScanner<'t, R> {
    /// A scanner at the start of `text`.
    pub(crate) fn new(text: &'t str, rule: R) -> Self {
        let text = text.as_bytes();
        let mut classifier = BlockClassifier::new(text);
        let classes = classifier.next_block();
        Self {
            text,
            classifier,
            rule,
            at: 0,
            classes,
            last_end: 0,
        }
    }

    /// Appends the end offsets of the next pretokens. Appends nothing once the end of the text was appended.
    pub(crate) fn next_ends(&mut self, ends: &mut Vec<usize>) {
        let stop = self.at + BYTES_PER_CALL;
        while self.at < self.text.len() && (self.at < stop || ends.is_empty()) {
            let block = TextBlock {
                text: self.text,
                at: self.at,
                classes: self.classes,
                next: self.classifier.next_block(),
            };
            let starts = self.rule.starts(&block);
            let mut bits = starts.bits;
            if starts.last_bytes != 0 {
                bits |= first_bytes_of(starts.last_bytes, self.text, self.at, self.last_end, ends);
            }
            if self.at == 0 {
                bits &= !1; // The start of the text is not an end.
            }
            push_offsets(bits, self.at, ends);
            self.at += BLOCK_BYTES;
            self.classes = block.next;
            if self.at >= self.text.len() {
                ends.push(self.text.len());
            }
        }
        self.last_end = ends.last().copied().unwrap_or(self.last_end);
    }
}

/// The bytes whose previous byte is in `mask`. `carry` is bit 0: whether the last byte of the previous block is.
#[inline]
pub(crate) fn after(mask: u64, carry: u64) -> u64 {
    mask << 1 | carry
}

/// The bytes whose next byte is in `mask`; `next` is that mask of the next block.
#[inline]
pub(crate) fn before(mask: u64, next: u64) -> u64 {
    mask >> 1 | next << 63
}

/// The last byte of a block as bit 0, to be carried to the next block.
#[inline]
pub(crate) fn carry(mask: u64) -> u64 {
    mask >> 63
}

/// Moves bits from the last to the first bytes of their characters. `at` is the offset of the block.
///
/// A character that starts in the previous block has no bit here. Its start is appended to `ends`, unless
/// it is already the last end: that of `ends`, or `last_end` if `ends` is empty.
#[cold]
fn first_bytes_of(
    mut last_bytes: u64,
    text: &[u8],
    at: usize,
    last_end: usize,
    ends: &mut Vec<usize>,
) -> u64 {
    let mut first_bytes = 0;
    while last_bytes != 0 {
        let mut first = at + last_bytes.trailing_zeros() as usize;
        last_bytes &= last_bytes - 1;
        while text[first] & 0xC0 == 0x80 {
            first -= 1;
        }
        if first >= at {
            first_bytes |= 1 << (first - at);
        } else if first > ends.last().copied().unwrap_or(last_end) {
            ends.push(first);
        }
    }
    first_bytes
}

/// Appends the offset of each bit of `bits`, whose bit 0 is at offset `at`.
#[inline]
fn push_offsets(mut bits: u64, at: usize, ends: &mut Vec<usize>) {
    while bits != 0 {
        ends.push(at + bits.trailing_zeros() as usize);
        bits &= bits - 1;
    }
}

/// Length of the contraction of GPT-2's pattern at the start of `text`, whose first byte is an apostrophe.
#[inline]
fn contraction_len(text: &[u8]) -> Option<usize> {
    match text {
        [_, b's' | b't' | b'm' | b'd', ..] => Some(2),
        [_, b'r' | b'v', b'e', ..] | [_, b'l', b'l', ..] => Some(3),
        _ => None,
    }
}

/// Corrects the starts of pretokens for the contractions of GPT-2's pattern.
///
/// The masks see `'stop` as an apostrophe and a word. The pattern sees the pretokens `'s` and `top`: the start
/// after the apostrophe is removed, and one after the contraction is added. Both can be in the next block.
#[derive(Debug, Default)]
pub(crate) struct ContractionFix {
    removed_in_next: u64,
    added_in_next: u64,
}

impl ContractionFix {
    /// Applies the corrections that the previous block left for this one.
    #[inline]
    pub(crate) fn apply_carried(&mut self, starts: u64) -> u64 {
        let starts = starts & !self.removed_in_next | self.added_in_next;
        *self = Self::default();
        starts
    }

    /// Corrects `starts` for the contractions at `apostrophes`, which are starts. `at` is the block's offset.
    pub(crate) fn apply(
        &mut self,
        text: &[u8],
        at: usize,
        mut starts: u64,
        mut apostrophes: u64,
    ) -> u64 {
        while apostrophes != 0 {
            let bit = apostrophes.trailing_zeros() as usize;
            apostrophes &= apostrophes - 1;
            let text = &text[at + bit..];
            let Some(len) = contraction_len(text) else {
                continue;
            };
            // 128 bits: this block is the low half, the next one the high half.
            let inside = 1_u128 << (bit + 1);
            let end = u128::from(len < text.len()) << (bit + len);
            starts = starts & !(inside as u64) | end as u64;
            self.removed_in_next |= (inside >> 64) as u64;
            self.added_in_next |= (end >> 64) as u64;
        }
        starts
    }
}
