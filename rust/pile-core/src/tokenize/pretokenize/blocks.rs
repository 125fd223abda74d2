//! Goes through a text 64 bytes at a time and asks a rule where pieces start.
//!
//! For the patterns other than GPT-2's own, which `scan` has to itself but for the pieces of work at the end here. A rule sees the classes of a block as
//! bit masks and keeps what it must know of the block before.

use crate::tokenize::pretokenize::masks::{BLOCK_BYTES, Classifier, Masks, Shape, shape};

/// Bytes that one call looks at, more where a piece is longer.
pub(crate) const BYTES_PER_CALL: usize = 4096;

/// 64 bytes of a text, and what is known of them.
#[derive(Debug)]
pub(crate) struct Block<'t> {
    pub(crate) text: &'t [u8],
    /// Its first byte.
    pub(crate) at: usize,
    pub(crate) here: Masks,
    pub(crate) shape: Shape,
    /// The block after it.
    pub(crate) next: Masks,
}

impl Block<'_> {
    /// Bytes of `here` after which one of `next_here` stands.
    #[inline]
    pub(crate) fn before(here: u64, next: u64) -> u64 {
        here >> 1 | next << 63
    }
}

/// Where pieces start in a block.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Starts {
    pub(crate) bits: u64,
    /// Last bytes of characters at which a piece starts; the first may be in the block before.
    pub(crate) last_bytes: u64,
}

/// Says where pieces start; is asked block by block.
pub(crate) trait Rule {
    fn starts(&mut self, block: &Block<'_>) -> Starts;
}

/// `mask` moved so that each bit stands where its successor is; `before` is the bit that comes in.
#[inline]
pub(crate) fn after(mask: u64, before: u64) -> u64 {
    mask << 1 | before
}

/// The last bit, as bit 0.
#[inline]
pub(crate) fn last(mask: u64) -> u64 {
    mask >> 63
}

/// Finds where the pieces of a text end.
#[derive(Debug)]
pub(crate) struct BlockScanner<'t, R> {
    text: &'t [u8],
    classifier: Classifier<'t>,
    rule: R,
    /// First byte of the block that `here` describes.
    at: usize,
    here: Masks,
    /// The last end that an earlier call appended.
    last_end: usize,
}

impl<'t, R: Rule> BlockScanner<'t, R> {
    /// A scanner at the start of `text`.
    pub(crate) fn new(text: &'t str, rule: R) -> Self {
        let text = text.as_bytes();
        let mut classifier = Classifier::new(text);
        let here = classifier.next_block();
        Self {
            text,
            classifier,
            rule,
            at: 0,
            here,
            last_end: 0,
        }
    }

    /// Appends where the next pieces end; nothing once the text's end was appended.
    pub(crate) fn next_ends(&mut self, ends: &mut Vec<usize>) {
        let enough = self.at + BYTES_PER_CALL;
        while self.at < self.text.len() && (self.at < enough || ends.is_empty()) {
            let block = Block {
                text: self.text,
                at: self.at,
                here: self.here,
                shape: shape(&self.text[self.at..]),
                next: self.classifier.next_block(),
            };
            let starts = self.rule.starts(&block);
            let mut bits = starts.bits;
            if starts.last_bytes != 0 {
                bits |= on_first_bytes(self.text, self.at, starts.last_bytes, self.last_end, ends);
            }
            if self.at == 0 {
                bits &= !1; // Nothing ends where the text starts.
            }
            push_bits(bits, self.at, ends);
            self.at += BLOCK_BYTES;
            self.here = block.next;
            if self.at >= self.text.len() {
                ends.push(self.text.len());
            }
        }
        self.last_end = ends.last().copied().unwrap_or(self.last_end);
    }
}

/// Starts at the last bytes of characters of the block at byte `at`, moved to the first ones; one before
/// the block is appended to `ends`, whose last is `last_end` where there is none yet.
#[cold]
pub(crate) fn on_first_bytes(
    text: &[u8],
    at: usize,
    mut last_bytes: u64,
    last_end: usize,
    ends: &mut Vec<usize>,
) -> u64 {
    let mut starts = 0;
    while last_bytes != 0 {
        let mut first = at + last_bytes.trailing_zeros() as usize;
        last_bytes &= last_bytes - 1;
        while text[first] & 0xC0 == 0x80 {
            first -= 1;
        }
        if first >= at {
            starts |= 1 << (first - at);
        } else if first > ends.last().copied().unwrap_or(last_end) {
            ends.push(first);
        }
    }
    starts
}

/// Appends the places of the bits of `bits`.
#[inline]
pub(crate) fn push_bits(mut bits: u64, first: usize, ends: &mut Vec<usize>) {
    while bits != 0 {
        ends.push(first + bits.trailing_zeros() as usize);
        bits &= bits - 1;
    }
}

/// Length of the contraction that `text` starts with.
#[inline]
pub(crate) fn contraction_len(text: &[u8]) -> Option<usize> {
    match text {
        [_, b's' | b't' | b'm' | b'd', ..] => Some(2),
        [_, b'r' | b'v', b'e', ..] | [_, b'l', b'l', ..] => Some(3),
        _ => None,
    }
}
