//! Pythia's counting rule for its study of arithmetic: numbers near numbers, and near units of time.
//!
//! What is counted in a row is said by three regular expressions, tried at every character of the row's decoded
//! text with one space put before it; `X` is a word character or ASCII punctuation:
//!
//! - ` \d{1,5} (X+\s+){1,3}\d{1,5}`: a number, one to three words (as many as there can be), a number;
//! - ` \d{1,5} (X+\s+){0,3}UNIT`: a number, words (as few as there can be), a unit of time;
//! - ` UNIT (X+\s+){0,3}\d{1,5}`: the other way round.
//!
//! In what the first one matches every number of at most five digits counts once, and so does every pair of
//! them; in what the others match, every number with every unit. Matches overlap, so a mention may count several
//! times; a number without another one near is not counted at all. Words and spaces exclude each other, so that
//! each expression has one way to match but for the number of words: no engine for expressions is needed.

use regex_syntax::{
    Parser,
    hir::{Class, ClassUnicode, HirKind},
};
use rustc_hash::FxHashMap;

use super::words::is_space;

/// The units of time.
pub const UNITS: [&str; 7] = ["minute", "hour", "day", "week", "month", "year", "decade"];

/// Digits of a number at most.
const MOST_DIGITS: usize = 5;

/// What is counted: a number, two of them ascending, or one and the number of a unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ArithmeticKey {
    /// A number.
    Number(u32),
    /// Two numbers, the smaller one first.
    Pair(u32, u32),
    /// A number and a unit's place in [`UNITS`].
    Unit(u32, u8),
}

/// Counts by the rule.
#[derive(Debug)]
pub struct Arithmetic {
    counts: FxHashMap<ArithmeticKey, u64>,
    numbers: Vec<u32>,
    digits: ClassUnicode,
    words: ClassUnicode,
}

impl Default for Arithmetic {
    fn default() -> Self {
        Self {
            counts: FxHashMap::default(),
            numbers: Vec::new(),
            digits: class(r"\p{Nd}"),
            // What Python calls alphanumeric.
            words: class(r"[\p{L}\p{N}_]"),
        }
    }
}

/// A class of characters; an expression that is none gives none.
fn class(pattern: &str) -> ClassUnicode {
    match Parser::new().parse(pattern).map(|hir| hir.into_kind()) {
        Ok(HirKind::Class(Class::Unicode(class))) => class,
        _ => ClassUnicode::empty(),
    }
}

/// Whether a class has a character; its place in the range that has it.
fn place_in(class: &ClassUnicode, c: char) -> Option<u32> {
    let ranges = class.ranges();
    let at = ranges.partition_point(|range| range.end() < c);
    let range = ranges.get(at)?;
    (range.start() <= c).then(|| c as u32 - range.start() as u32)
}

fn char_at(text: &str, at: usize) -> Option<char> {
    match text.as_bytes().get(at)? {
        byte if byte.is_ascii() => Some(char::from(*byte)),
        _ => text.get(at..).and_then(|rest| rest.chars().next()),
    }
}

impl Arithmetic {
    /// Counts in the decoded text of a row.
    pub fn add(&mut self, row: &str) {
        let text = format!(" {row}");
        for at in memchr::memchr_iter(b' ', text.as_bytes()) {
            match text.as_bytes().get(at + 1) {
                Some(b'0'..=b'9' | 0x80..) => self.after_number(&text, at),
                Some(b'm' | b'h' | b'd' | b'w' | b'y') => self.after_unit(&text, at),
                _ => {}
            }
        }
    }

    /// What was counted since it was last asked for.
    pub fn take(&mut self) -> FxHashMap<ArithmeticKey, u64> {
        std::mem::take(&mut self.counts)
    }

    /// The value of a digit.
    fn digit(&self, c: char) -> Option<u32> {
        match c {
            '0'..='9' => Some(c as u32 - '0' as u32),
            c if c.is_ascii() => None,
            // Digits come in tens, from 0 on.
            c => place_in(&self.digits, c).map(|place| place % 10),
        }
    }

    fn is_of_word(&self, c: char) -> bool {
        match c {
            c if c.is_ascii() => c.is_ascii_graphic(),
            c => place_in(&self.words, c).is_some(),
        }
    }

    /// Where a run of at most `most` characters ends.
    fn run_end(
        &self,
        text: &str,
        mut at: usize,
        most: usize,
        is_of: impl Fn(char) -> bool,
    ) -> usize {
        for _ in 0..most {
            match char_at(text, at).filter(|c| is_of(*c)) {
                Some(c) => at += c.len_utf8(),
                None => break,
            }
        }
        at
    }

    /// Where a number of at most five digits ends that begins here.
    fn number_end(&self, text: &str, at: usize) -> Option<usize> {
        let end = self.run_end(text, at, MOST_DIGITS, |c| self.digit(c).is_some());
        (end > at).then_some(end)
    }

    /// Behind the word that begins here and the white space after it.
    fn next_word(&self, text: &str, at: usize) -> Option<usize> {
        let word = self.run_end(text, at, usize::MAX, |c| self.is_of_word(c));
        let end = self.run_end(text, word, usize::MAX, is_space);
        (word > at && end > word).then_some(end)
    }

    /// Behind 0, 1, 2 and 3 words, as many as there are.
    fn word_ends(&self, text: &str, at: usize) -> ([usize; 4], usize) {
        let (mut ends, mut n) = ([at; 4], 0);
        while n < 3 {
            match self.next_word(text, ends[n]) {
                Some(end) => ends[n + 1] = end,
                None => break,
            }
            n += 1;
        }
        (ends, n)
    }

    /// The space at `start` may be followed by a number and a space.
    fn after_number(&mut self, text: &str, start: usize) {
        let Some(end) = self.number_end(text, start + 1) else {
            return;
        };
        if text.as_bytes().get(end) != Some(&b' ') {
            return;
        }
        let (ends, n) = self.word_ends(text, end + 1);
        let number = ends[1..=n]
            .iter()
            .rev()
            .find_map(|at| self.number_end(text, *at));
        if let Some(end) = number {
            self.count_numbers(&text[start..end]);
        }
        let unit = ends[..=n].iter().find_map(|at| unit_end(text, *at));
        if let Some(end) = unit {
            self.count_units(&text[start..end]);
        }
    }

    /// The space at `start` may be followed by a unit and a space.
    fn after_unit(&mut self, text: &str, start: usize) {
        let Some(end) = unit_end(text, start + 1) else {
            return;
        };
        if text.as_bytes().get(end) != Some(&b' ') {
            return;
        }
        let (ends, n) = self.word_ends(text, end + 1);
        let number = ends[..=n].iter().find_map(|at| self.number_end(text, *at));
        if let Some(end) = number {
            self.count_units(&text[start..end]);
        }
    }

    /// The numbers of a match, sorted; longer runs of digits are cut after five.
    fn read_numbers(&mut self, matched: &str) {
        let mut numbers = std::mem::take(&mut self.numbers);
        numbers.clear();
        let (mut number, mut n_digits) = (0, 0);
        for c in matched.chars().chain([' ']) {
            let digit = self.digit(c);
            if n_digits == MOST_DIGITS || (n_digits > 0 && digit.is_none()) {
                numbers.push(number);
                (number, n_digits) = (0, 0);
            }
            if let Some(digit) = digit {
                number = 10 * number + digit;
                n_digits += 1;
            }
        }
        numbers.sort_unstable();
        self.numbers = numbers;
    }

    fn count_numbers(&mut self, matched: &str) {
        self.read_numbers(matched);
        for (i, a) in self.numbers.iter().enumerate() {
            *self.counts.entry(ArithmeticKey::Number(*a)).or_default() += 1;
            for b in &self.numbers[i + 1..] {
                *self.counts.entry(ArithmeticKey::Pair(*a, *b)).or_default() += 1;
            }
        }
    }

    fn count_units(&mut self, matched: &str) {
        self.read_numbers(matched);
        let mut at = 0;
        while at < matched.len() {
            let Some((unit, end)) = unit_at(matched, at) else {
                at += 1;
                continue;
            };
            for number in &self.numbers {
                *self
                    .counts
                    .entry(ArithmeticKey::Unit(*number, unit))
                    .or_default() += 1;
            }
            at = end;
        }
    }
}

/// The unit that begins here, and where it ends.
fn unit_at(text: &str, at: usize) -> Option<(u8, usize)> {
    let rest = &text.as_bytes()[at..];
    let unit = UNITS
        .iter()
        .position(|unit| rest.starts_with(unit.as_bytes()))?;
    Some((unit as u8, at + UNITS[unit].len()))
}

fn unit_end(text: &str, at: usize) -> Option<usize> {
    unit_at(text, at).map(|(_, end)| end)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counted(row: &str) -> Vec<(String, u64)> {
        let mut counting = Arithmetic::default();
        counting.add(row);
        let name = |key| match key {
            ArithmeticKey::Number(a) => format!("{a}"),
            ArithmeticKey::Pair(a, b) => format!("{a}-{b}"),
            ArithmeticKey::Unit(a, unit) => format!("{a}-{}", UNITS[usize::from(unit)]),
        };
        let mut all: Vec<_> = counting
            .take()
            .into_iter()
            .map(|(k, n)| (name(k), n))
            .collect();
        all.sort();
        all
    }

    #[test]
    fn numbers_near_numbers() {
        let of = |pairs: &[(&str, u64)]| -> Vec<(String, u64)> {
            pairs.iter().map(|(k, n)| ((*k).to_owned(), *n)).collect()
        };
        assert_eq!(counted("3 times 4"), of(&[("3", 1), ("3-4", 1), ("4", 1)]));
        assert_eq!(counted("3  times 4"), []);
        assert_eq!(counted("3 4"), []);
        assert_eq!(counted("lone 3 number"), []);
        assert_eq!(counted("123456 times 4"), []);
        assert_eq!(
            counted("x2 is 3 or\n 4"),
            of(&[("3", 1), ("3-4", 1), ("4", 1)])
        );
        assert_eq!(counted("7 a b c d 8"), []);
        // As many words as there can be before the second number.
        assert_eq!(
            counted("in 2 days, 1 day 5"),
            of(&[
                ("1", 2),
                ("1-2", 1),
                ("1-5", 2),
                ("1-day", 1),
                ("2", 1),
                ("2-5", 1),
                ("2-day", 1),
                ("5", 2),
                ("5-day", 1),
            ])
        );
    }
}
