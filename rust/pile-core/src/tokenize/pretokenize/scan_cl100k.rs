//! cl100k's pattern on blocks of 64 bytes: Llama 3, OLMo 2, Qwen.
//!
//! The pattern is `(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|
//! ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+`. What it comes to: a run of signs takes the line ends behind
//! it along; the rest of a run of white space ends at its last line end; of what is behind that, the last
//! character goes with a word, or, if it is a space, with signs. A single sign goes with a word as well.

use crate::tokenize::{
    pretokenize::blocks::{Block, Rule, Starts, after, last},
    pretokenize::classes::{Class, Classes, code_point_at},
    pretokenize::pattern::{DigitGroup, contraction_len_any_case},
};

/// Where pieces start by cl100k's pattern.
#[derive(Debug)]
pub(crate) struct Cl100k {
    group: DigitGroup,
    before: Before,
    /// Starts in the next block, behind a contraction.
    behind_contraction: u64,
}

/// What the block before says of its last byte, as bit 0.
#[derive(Debug, Default)]
struct Before {
    letter: u64,
    number: u64,
    /// A sign, or a line end that goes with signs.
    sign: u64,
    other: u64,
    blank: u64,
    /// White space that does not go with signs.
    space: u64,
    /// Line ends of that.
    line_end: u64,
    /// The rest of that.
    loose: u64,
    /// Of a piece's first character, which is a sign.
    first_sign: u64,
    /// Numbers at its end that are of one run.
    n_numbers: u32,
}

impl Cl100k {
    pub(crate) fn new(group: DigitGroup) -> Self {
        Self {
            group,
            before: Before::default(),
            behind_contraction: 0,
        }
    }

    /// Where numbers start, and how many are in the run at the block's end by then.
    #[inline]
    fn numbers(&self, number: u64, continuation: u64) -> (u64, u32) {
        let leads = number & !continuation;
        let firsts = number & !after(number, self.before.number);
        match self.group {
            DigitGroup::One => return (leads, 0),
            DigitGroup::All => return (firsts, 0),
            DigitGroup::Three => {}
        }
        let twos = number & number << 1;
        let goes_on = number & self.before.number;
        if twos & twos << 2 | goes_on == 0 {
            let at_end = number.leading_ones();
            let at_end = leads.unbounded_shr(u64::BITS - at_end);
            return (firsts, at_end.count_ones());
        }
        self.long_numbers(leads, firsts, last(number) == 1)
    }

    /// The same where a run may have more than three.
    fn long_numbers(&self, mut leads: u64, firsts: u64, reaches_end: bool) -> (u64, u32) {
        let (mut starts, mut n) = (0, self.before.n_numbers);
        while leads != 0 {
            let bit = leads & leads.wrapping_neg();
            leads ^= bit;
            if firsts & bit != 0 {
                n = 0;
            }
            if n % 3 == 0 {
                starts |= bit;
            }
            n += 1;
        }
        (starts, if reaches_end { n % 3 } else { 0 })
    }

    /// Of `rests`, the starts of white space behind a line end, those that no line end follows.
    #[inline]
    fn behind_last_line_end(block: &Block<'_>, rests: u64, loose: u64, line_end: u64) -> u64 {
        let (behind, reaches_end) = loose.overflowing_add(rests);
        match reaches_end || behind & !loose & line_end != 0 {
            false => rests,
            true => look_behind_each(block, rests, loose, line_end),
        }
    }

    /// Adds what is behind the contractions that start at `apostrophes`.
    fn contract(&mut self, block: &Block<'_>, mut apostrophes: u64) -> u64 {
        let mut behind = 0;
        while apostrophes != 0 {
            let bit = apostrophes.trailing_zeros() as usize;
            apostrophes &= apostrophes - 1;
            let text = &block.text[block.at + bit..];
            if let Some(len) = contraction_len_any_case(text).filter(|len| *len < text.len()) {
                behind |= 1_u128 << (bit + len);
            }
        }
        self.behind_contraction |= (behind >> 64) as u64;
        behind as u64
    }
}

/// Whether a line end follows is looked up run by run, beyond the block if need be.
#[cold]
fn look_behind_each(block: &Block<'_>, mut rests: u64, loose: u64, line_end: u64) -> u64 {
    let mut starts = 0;
    while rests != 0 {
        let bit = rests & rests.wrapping_neg();
        rests ^= bit;
        let at = bit.trailing_zeros();
        let end = at + (loose >> at).trailing_ones();
        let is_followed = match end {
            u64::BITS => line_end_follows(block.text, block.at + 64),
            end => line_end >> end & 1 == 1,
        };
        starts |= if is_followed { 0 } else { bit };
    }
    starts
}

/// Whether the white space that goes on at byte `at` has a line end.
fn line_end_follows(text: &[u8], mut at: usize) -> bool {
    let classes = Classes::get();
    while at < text.len() {
        match text[at] {
            b'\r' | b'\n' => return true,
            0x80..=0xBF => at += 1, // Of a character that the block before has seen.
            _ => match code_point_at(text, at) {
                (c, len) if classes.class(c) == Class::Space => at += len,
                _ => return false,
            },
        }
    }
    false
}

impl Rule for Cl100k {
    #[inline]
    fn starts(&mut self, block: &Block<'_>) -> Starts {
        let (m, next, before) = (&block.here, &block.next, &self.before);
        let (line_ends, continuation) = (block.shape.line_end, block.shape.continuation);

        // An addition carries a bit through a run of ones: what it clears is reached from the run's start.
        let behind_signs = after(m.other, before.sign) & line_ends;
        let of_signs = line_ends & !line_ends.wrapping_add(behind_signs);
        let space = m.space & !of_signs;
        let line_end = line_ends & !of_signs;
        let loose = space & !line_end;
        let rests = loose & after(line_end, before.line_end);
        let rests = match rests {
            0 => 0,
            rests => Self::behind_last_line_end(block, rests, loose, line_end),
        };
        let runs = space & !after(space, before.space);
        let solid = m.letter | m.number | m.other;
        let leaves_last = loose & Block::before(solid, next.letter | next.number | next.other);

        let signs = m.other & !after(m.other, before.other) & !after(m.blank, before.blank);
        let second_bytes = after(signs, before.first_sign);
        let (carried, reaches_end) = continuation.overflowing_add(second_bytes & continuation);
        let behind_sign = (second_bytes | carried) & !continuation;
        let words =
            m.letter & !after(m.letter, before.letter) & !after(loose, before.loose) & !behind_sign;
        let (numbers, n_numbers) = match m.number {
            0 => (0, 0),
            number => self.numbers(number, continuation),
        };

        self.before = Before {
            letter: last(m.letter),
            number: last(m.number),
            sign: last(m.other | of_signs),
            other: last(m.other),
            blank: last(m.blank),
            space: last(space),
            line_end: last(line_end),
            loose: last(loose),
            first_sign: last(signs) | u64::from(reaches_end),
            n_numbers,
        };
        let mut bits = signs | words | numbers | runs | rests | leaves_last & !m.high;
        bits |= std::mem::take(&mut self.behind_contraction);
        if signs & m.apostrophe != 0 {
            bits |= self.contract(block, signs & m.apostrophe);
        }
        Starts {
            bits,
            last_bytes: leaves_last & m.high,
        }
    }
}
