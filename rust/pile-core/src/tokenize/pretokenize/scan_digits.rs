//! `Digits`, then GPT-2's pattern between the numbers, on blocks of 64 bytes: StarCoder, SmolLM.
//!
//! Numbers are cut out first, so white space before one leaves nothing to it and no space goes with it.

use crate::tokenize::{
    pretokenize::blocks::{Block, Rule, Starts, after, contraction_len, last},
    pretokenize::classes::code_point_at,
    pretokenize::masks::Masks,
    pretokenize::pattern::{DigitGroup, is_new_digit},
};

/// Where pieces start.
#[derive(Debug)]
pub(crate) struct Digits {
    group: DigitGroup,
    /// The bit 0s of the block before.
    before: Kinds,
    /// Bytes of a new digit that reach into the next block.
    spilled: u64,
    /// Starts in the next block that a contraction takes away and adds.
    not_a_start: u64,
    a_start: u64,
}

/// What the bytes are; all bits of a block, or bit 0 for its last byte.
#[derive(Debug, Default, Clone, Copy)]
struct Kinds {
    letter: u64,
    number: u64,
    /// Numbers that the pattern takes for signs.
    new_digit: u64,
    other: u64,
    blank: u64,
    space: u64,
}

impl Digits {
    pub(crate) fn new(group: DigitGroup) -> Self {
        Self {
            group,
            before: Kinds::default(),
            spilled: 0,
            not_a_start: 0,
            a_start: 0,
        }
    }

    #[inline]
    fn kinds(&mut self, block: &Block<'_>) -> Kinds {
        let m = &block.here;
        let new_digit = match m.high & m.other {
            0 => 0,
            signs => self.new_digits(block, signs & !block.shape.continuation),
        };
        Kinds {
            letter: m.letter,
            number: m.number,
            new_digit,
            other: m.other & !new_digit,
            blank: m.blank,
            space: m.space,
        }
    }

    /// The new digits among characters that start at `leads`.
    fn new_digits(&mut self, block: &Block<'_>, mut leads: u64) -> u64 {
        let mut found = u128::from(std::mem::take(&mut self.spilled));
        while leads != 0 {
            let bit = leads.trailing_zeros();
            leads &= leads - 1;
            let (code_point, len) = code_point_at(block.text, block.at + bit as usize);
            if is_new_digit(code_point) {
                found |= ((1 << len) - 1) << bit;
            }
        }
        self.spilled = (found >> 64) as u64;
        found as u64
    }

    /// The starts where those at `apostrophes` that begin a contraction are followed by its end.
    fn contract(&mut self, block: &Block<'_>, mut starts: u64, mut apostrophes: u64) -> u64 {
        while apostrophes != 0 {
            let bit = apostrophes.trailing_zeros() as usize;
            apostrophes &= apostrophes - 1;
            let text = &block.text[block.at + bit..];
            let Some(len) = contraction_len(text) else {
                continue;
            };
            let inside = 1_u128 << (bit + 1);
            let end = u128::from(len < text.len()) << (bit + len);
            starts = starts & !(inside as u64) | end as u64;
            self.not_a_start |= (inside >> 64) as u64;
            self.a_start |= (end >> 64) as u64;
        }
        starts
    }
}

impl Rule for Digits {
    #[inline]
    fn starts(&mut self, block: &Block<'_>) -> Starts {
        let Masks {
            high, apostrophe, ..
        } = block.here;
        let (here, before) = (self.kinds(block), self.before);
        let first = |mask: u64, before: u64| mask & !after(mask, before);
        let words = first(here.letter, before.letter) | first(here.other, before.other);
        let numbers = match self.group {
            DigitGroup::One => (here.number | here.new_digit) & !block.shape.continuation,
            _ => first(here.number, before.number) | first(here.new_digit, before.new_digit),
        };
        let next_word = block.next.letter | self.next_other(block);
        let leaves_last = here.space & Block::before(here.letter | here.other, next_word);
        let starts = words & !after(here.blank, before.blank)
            | numbers
            | first(here.space, before.space)
            | leaves_last & !high;
        self.before = Kinds {
            letter: last(here.letter),
            number: last(here.number),
            new_digit: last(here.new_digit),
            other: last(here.other),
            blank: last(here.blank),
            space: last(here.space),
        };
        let starts =
            starts & !std::mem::take(&mut self.not_a_start) | std::mem::take(&mut self.a_start);
        let bits = match starts & apostrophe {
            0 => starts,
            apostrophes => self.contract(block, starts, apostrophes),
        };
        Starts {
            bits,
            last_bytes: leaves_last & high,
        }
    }
}

impl Digits {
    /// Whether the next block starts with a sign that is no digit, as bit 0.
    #[inline]
    fn next_other(&self, block: &Block<'_>) -> u64 {
        let at = block.at + 64;
        let is_sign = block.next.other & 1 == 1;
        let is_new = is_sign
            && block.next.high & 1 == 1
            && block.text[at] & 0xC0 != 0x80
            && is_new_digit(code_point_at(block.text, at).0);
        u64::from(is_sign && !is_new)
    }
}
