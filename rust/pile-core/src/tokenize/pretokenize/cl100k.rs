//! The rule of cl100k's pattern, for Llama 3, OLMo 2 and Qwen.
//!
//! The pattern is `(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|
//! ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+`; Qwen has `\p{N}` for the numbers.
//!
//! In this file, punctuation is any character of class `Other`. The pattern then says:
//! - A run of punctuation includes the line ends that directly follow it.
//! - The rest of a run of white space is split after its last line end. Of the white space after that line
//!   end, the last character is split off if text follows. It joins a following word, or, if it is U+0020,
//!   following punctuation.
//! - A punctuation character that starts a pretoken and directly precedes a letter joins the word.

use crate::text::classes::{Class, ClassTable, code_point_at};
use crate::tokenize::{
    pretokenize::block_scanner::{BoundaryRule, PretokenStarts, TextBlock, after, before, carry},
    pretokenize::masks::ByteMasks,
    pretokenize::pattern::{DigitGroup, contraction_len_any_case},
};

/// Finds the starts of pretokens by cl100k's pattern.
#[derive(Debug)]
pub(crate) struct Cl100kRule {
    group: DigitGroup,
    carried: Cl100kCarry,
    /// Bytes of the next block that follow a contraction, and so start a pretoken.
    contraction_ends: u64,
}

/// The last byte of the previous block: for each mask its bit 63, as bit 0.
#[derive(Debug, Default)]
struct Cl100kCarry {
    letter: u64,
    number: u64,
    /// Punctuation, or a line end that belongs to it.
    punctuation_or_its_line_end: u64,
    punctuation: u64,
    /// U+0020.
    space: u64,
    /// White space except line ends that belong to punctuation.
    whitespace: u64,
    /// The line ends of `whitespace`.
    line_end: u64,
    /// The rest of `whitespace`.
    blank: u64,
    /// Part of the first punctuation character of a pretoken.
    first_punctuation: u64,
    /// Numbers of the run that reaches the block's end, modulo 3.
    n_numbers: u32,
}

impl Cl100kRule {
    pub(crate) fn new(group: DigitGroup) -> Self {
        Self {
            group,
            carried: Cl100kCarry::default(),
            contraction_ends: 0,
        }
    }

    /// The starts of numbers, and [`Cl100kCarry::n_numbers`] of this block.
    #[inline]
    fn number_starts(&self, number: u64, continuation: u64) -> (u64, u32) {
        let first_bytes = number & !continuation;
        let run_starts = number & !after(number, self.carried.number);
        match self.group {
            DigitGroup::One => return (first_bytes, 0),
            DigitGroup::All => return (run_starts, 0),
            DigitGroup::Three => {}
        }
        let two_bytes = number & number << 1;
        let four_bytes = two_bytes & two_bytes << 2;
        let continues_run = number & self.carried.number;
        // Usual case: all runs start here and have at most three bytes, so each is one group.
        if four_bytes | continues_run == 0 {
            let n_bytes_at_end = number.leading_ones();
            // The shift by 64, if no number is at the end, must give 0.
            let at_end = first_bytes.unbounded_shr(u64::BITS - n_bytes_at_end);
            return (run_starts, at_end.count_ones());
        }
        self.number_starts_one_by_one(first_bytes, run_starts, carry(number) == 1)
    }

    /// [`Self::number_starts`] for groups of three where a run may have more than three numbers.
    fn number_starts_one_by_one(
        &self,
        mut first_bytes: u64,
        run_starts: u64,
        reaches_end: bool,
    ) -> (u64, u32) {
        let (mut starts, mut n) = (0, self.carried.n_numbers);
        while first_bytes != 0 {
            let bit = first_bytes & first_bytes.wrapping_neg();
            first_bytes ^= bit;
            if run_starts & bit != 0 {
                n = 0;
            }
            if n % 3 == 0 {
                starts |= bit;
            }
            n += 1;
        }
        (starts, if reaches_end { n % 3 } else { 0 })
    }

    /// The bytes of `after_line_end` that follow the last line end of their run of white space.
    ///
    /// `after_line_end` has the first byte of each run of `blank` that follows a line end.
    #[inline]
    fn after_last_line_end(
        block: &TextBlock<'_>,
        after_line_end: u64,
        blank: u64,
        line_end: u64,
    ) -> u64 {
        // The addition carries each bit through its run of `blank` to the first byte after it.
        let (sum, reaches_end) = blank.overflowing_add(after_line_end);
        let run_ends = sum & !blank;
        match reaches_end || run_ends & line_end != 0 {
            false => after_line_end,
            true => after_last_line_end_one_by_one(block, after_line_end, blank, line_end),
        }
    }

    /// The bytes of this block that follow a contraction at one of `apostrophes`. The ones in the next block
    /// are added to `contraction_ends`.
    ///
    /// The start after the apostrophe need not be removed, as in GPT-2's pattern: the apostrophe joins the
    /// letters in any case.
    fn contraction_ends(&mut self, block: &TextBlock<'_>, mut apostrophes: u64) -> u64 {
        let mut ends = 0;
        while apostrophes != 0 {
            let bit = apostrophes.trailing_zeros() as usize;
            apostrophes &= apostrophes - 1;
            let text = &block.text[block.at + bit..];
            if let Some(len) = contraction_len_any_case(text).filter(|len| *len < text.len()) {
                // 128 bits: this block is the low half, the next one the high half.
                ends |= 1_u128 << (bit + len);
            }
        }
        self.contraction_ends |= (ends >> 64) as u64;
        ends as u64
    }
}

/// [`Cl100kRule::after_last_line_end`] run by run. A run that reaches the end of the block is followed into
/// the next blocks.
#[cold]
fn after_last_line_end_one_by_one(
    block: &TextBlock<'_>,
    mut after_line_end: u64,
    blank: u64,
    line_end: u64,
) -> u64 {
    let mut starts = 0;
    while after_line_end != 0 {
        let bit = after_line_end & after_line_end.wrapping_neg();
        after_line_end ^= bit;
        let at = bit.trailing_zeros();
        let end = at + (blank >> at).trailing_ones();
        let precedes_line_end = match end {
            u64::BITS => run_has_line_end(block.text, block.at + 64),
            end => line_end >> end & 1 == 1,
        };
        starts |= if precedes_line_end { 0 } else { bit };
    }
    starts
}

/// Whether the run of white space that includes byte `at` has a line end from there on.
fn run_has_line_end(text: &[u8], mut at: usize) -> bool {
    let classes = ClassTable::get();
    while at < text.len() {
        match text[at] {
            b'\r' | b'\n' => return true,
            0x80..=0xBF => at += 1, // The white space character that spans both blocks.
            _ => match code_point_at(text, at) {
                (c, len) if classes.class(c) == Class::Whitespace => at += len,
                _ => return false,
            },
        }
    }
    false
}

impl BoundaryRule for Cl100kRule {
    #[inline]
    fn starts(&mut self, block: &TextBlock<'_>) -> PretokenStarts {
        let (m, next, carried) = (&block.classes, &block.next, &self.carried);
        let ByteMasks {
            line_end: all_line_ends,
            continuation,
            ..
        } = block.byte_masks();

        // `[^\s\p{L}\p{N}]+[\r\n]*`: the addition carries the bit of each line end after punctuation through
        // its run of line ends and clears the run. What it cleared belongs to the punctuation.
        let after_punctuation = after(m.other, carried.punctuation_or_its_line_end) & all_line_ends;
        let of_punctuation = all_line_ends & !all_line_ends.wrapping_add(after_punctuation);
        let whitespace = m.whitespace & !of_punctuation;
        let line_end = all_line_ends & !of_punctuation;
        let blank = whitespace & !line_end;

        // `\s*[\r\n]+|\s+(?!\S)|\s+`
        let after_line_end = blank & after(line_end, carried.line_end);
        let after_line_end = match after_line_end {
            0 => 0,
            bits => Self::after_last_line_end(block, bits, blank, line_end),
        };
        let whitespace_runs = whitespace & !after(whitespace, carried.whitespace);
        let text = m.letter | m.number | m.other;
        let last_blank = blank & before(text, next.letter | next.number | next.other);

        let punctuation =
            m.other & !after(m.other, carried.punctuation) & !after(m.space, carried.space);
        // The byte after the first punctuation character. Where that character has several bytes, the addition
        // carries the bit through its continuation bytes.
        let second_bytes = after(punctuation, carried.first_punctuation);
        let (sum, reaches_end) = continuation.overflowing_add(second_bytes & continuation);
        let after_first_punctuation = (second_bytes | sum) & !continuation;
        // `[^\r\n\p{L}\p{N}]?\p{L}+`
        let words = m.letter
            & !after(m.letter, carried.letter)
            & !after(blank, carried.blank)
            & !after_first_punctuation;
        let (numbers, n_numbers) = match m.number {
            0 => (0, 0),
            number => self.number_starts(number, continuation),
        };

        self.carried = Cl100kCarry {
            letter: carry(m.letter),
            number: carry(m.number),
            punctuation_or_its_line_end: carry(m.other | of_punctuation),
            punctuation: carry(m.other),
            space: carry(m.space),
            whitespace: carry(whitespace),
            line_end: carry(line_end),
            blank: carry(blank),
            first_punctuation: carry(punctuation) | u64::from(reaches_end),
            n_numbers,
        };
        let mut bits = punctuation
            | words
            | numbers
            | whitespace_runs
            | after_line_end
            | last_blank & !m.non_ascii;
        bits |= std::mem::take(&mut self.contraction_ends);
        if punctuation & m.apostrophe != 0 {
            bits |= self.contraction_ends(block, punctuation & m.apostrophe);
        }
        PretokenStarts {
            bits,
            last_bytes: last_blank & m.non_ascii,
        }
    }
}
