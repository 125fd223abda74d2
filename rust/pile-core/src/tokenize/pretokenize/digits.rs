//! The rule of `Digits` followed by GPT-2's pattern, for StarCoder and SmolLM.
//!
//! `Digits` splits off numbers, and GPT-2's pattern is matched on the text between them as if the text ended
//! there. So a run of white space before a number is one pretoken, and no space joins a number.

use crate::text::classes::code_point_at;
use crate::tokenize::{
    pretokenize::block_scanner::{
        BoundaryRule, ContractionFix, PretokenStarts, TextBlock, after, before, carry,
    },
    pretokenize::masks::{BLOCK_BYTES, ClassMasks},
    pretokenize::pattern::{DigitGroup, is_new_digit},
};

/// Finds the starts of pretokens by `Digits` and GPT-2's pattern.
#[derive(Debug)]
pub(crate) struct DigitsRule {
    group: DigitGroup,
    /// The last byte of the previous block: for each mask its bit 63, as bit 0.
    carried: DigitsMasks,
    /// Bytes of the next block that belong to a new digit that starts in this one.
    spilled_new_digit: u64,
    contractions: ContractionFix,
}

/// [`ClassMasks`] with the new digits taken out of `other`.
#[derive(Debug, Default, Clone, Copy)]
struct DigitsMasks {
    letter: u64,
    number: u64,
    /// Characters that only `Digits` takes for numbers: see [`is_new_digit`].
    new_digit: u64,
    other: u64,
    /// U+0020.
    space: u64,
    whitespace: u64,
}

impl DigitsRule {
    pub(crate) fn new(group: DigitGroup) -> Self {
        Self {
            group,
            carried: DigitsMasks::default(),
            spilled_new_digit: 0,
            contractions: ContractionFix::default(),
        }
    }

    #[inline]
    fn masks(&mut self, block: &TextBlock<'_>) -> DigitsMasks {
        let m = &block.classes;
        let new_digit = match m.non_ascii & m.other {
            0 => 0,
            bytes => self.new_digits(block, bytes & !block.byte_masks().continuation),
        };
        DigitsMasks {
            letter: m.letter,
            number: m.number,
            new_digit,
            other: m.other & !new_digit,
            space: m.space,
            whitespace: m.whitespace,
        }
    }

    /// The new digits among the characters that start at `first_bytes`.
    fn new_digits(&mut self, block: &TextBlock<'_>, mut first_bytes: u64) -> u64 {
        // 128 bits: this block is the low half, the next one the high half.
        let mut found = u128::from(std::mem::take(&mut self.spilled_new_digit));
        while first_bytes != 0 {
            let bit = first_bytes.trailing_zeros();
            first_bytes &= first_bytes - 1;
            let (code_point, len) = code_point_at(block.text, block.at + bit as usize);
            if is_new_digit(code_point) {
                found |= ((1 << len) - 1) << bit;
            }
        }
        self.spilled_new_digit = (found >> 64) as u64;
        found as u64
    }
}

impl BoundaryRule for DigitsRule {
    #[inline]
    fn starts(&mut self, block: &TextBlock<'_>) -> PretokenStarts {
        let ClassMasks {
            non_ascii,
            apostrophe,
            ..
        } = block.classes;
        let (m, carried) = (self.masks(block), self.carried);
        let run_starts = |mask: u64, carried: u64| mask & !after(mask, carried);
        let words = run_starts(m.letter, carried.letter) | run_starts(m.other, carried.other);
        let numbers = match self.group {
            DigitGroup::One => (m.number | m.new_digit) & !block.byte_masks().continuation,
            // Whole runs; `Digits` has no groups of three. GPT-2's pattern separates a run of numbers from new digits,
            // which are of class `Other`.
            _ => run_starts(m.number, carried.number) | run_starts(m.new_digit, carried.new_digit),
        };
        let next_text = block.next.letter | next_is_other(block);
        // The last byte of the white space character before text. Numbers are not text here: the pattern is
        // matched up to a number as if the text ended there.
        let last_whitespace = m.whitespace & before(m.letter | m.other, next_text);
        let starts = words & !after(m.space, carried.space)
            | numbers
            | run_starts(m.whitespace, carried.whitespace)
            | last_whitespace & !non_ascii;
        self.carried = DigitsMasks {
            letter: carry(m.letter),
            number: carry(m.number),
            new_digit: carry(m.new_digit),
            other: carry(m.other),
            space: carry(m.space),
            whitespace: carry(m.whitespace),
        };
        let starts = self.contractions.apply_carried(starts);
        let bits = match starts & apostrophe {
            0 => starts,
            apostrophes => self
                .contractions
                .apply(block.text, block.at, starts, apostrophes),
        };
        PretokenStarts {
            bits,
            last_bytes: last_whitespace & non_ascii,
        }
    }
}

/// Whether the next block starts with a character of class `Other` that is no new digit, as bit 0.
///
/// `TextBlock::next` has new digits in `other`, so this character is looked up. If the next block starts inside
/// a character, the result does not matter: this block does not end with white space.
#[inline]
fn next_is_other(block: &TextBlock<'_>) -> u64 {
    let at = block.at + BLOCK_BYTES;
    // False at the end of the text, so `at` is inside it below.
    let is_other = block.next.other & 1 == 1;
    let is_new = is_other
        && block.next.non_ascii & 1 == 1
        && block.text[at] & 0xC0 != 0x80
        && is_new_digit(code_point_at(block.text, at).0);
    u64::from(is_other && !is_new)
}
