//! The counting rule of Pythia's study of arithmetic: numbers near numbers, and near units of time.
//!
//! Three regular expressions are tried at every character of a row's decoded text, with a space put before it. `X`
//! is a word character or ASCII punctuation:
//!
//! - ` \d{1,5} (X+\s+){1,3}\d{1,5}`: a number, as many words as possible from one to three, and a number;
//! - ` \d{1,5} (X+\s+){0,3}UNIT`: a number, as few words as possible up to three, and a unit of time;
//! - ` UNIT (X+\s+){0,3}\d{1,5}`: the same the other way round.
//!
//! The numbers of a match are all matches of `\d{1,5}` in it, also within its words: `1,234567` has the numbers 1,
//! 23456 and 7. In a match of the first expression, every number counts once, and so does every pair of them. In a
//! match of the others, every number counts with every unit. Matches may overlap, so a mention may count several
//! times. A number with no other number or unit near it is not counted.
//!
//! `X` and white space exclude each other, so a given number of words can match in only one way. That is why these
//! functions need no regular-expression engine.

use regex_syntax::{
    Parser,
    hir::{Class, ClassUnicode, HirKind},
};
use rustc_hash::FxHashMap;

use crate::text::words::is_space;

/// The units of time. The second expression also finds their plurals, as a match may end within a word.
pub const UNITS: [&str; 7] = ["minute", "hour", "day", "week", "month", "year", "decade"];

/// Maximum digits of a number.
const MAX_DIGITS: usize = 5;

/// Maximum words between a number and the other number or unit.
const MAX_WORDS_BETWEEN: usize = 3;

/// What is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ArithmeticKey {
    /// A number.
    Number(u32),
    /// Two numbers, the smaller one first.
    Pair(u32, u32),
    /// A number and the index of a unit in [`UNITS`].
    Unit(u32, u8),
}

/// Counts by the rule.
#[derive(Debug)]
pub struct ArithmeticCounter {
    counts: FxHashMap<ArithmeticKey, u64>,
    /// The numbers of a match. A buffer.
    numbers: Vec<u32>,
    digits: ClassUnicode,
    word_chars: ClassUnicode,
}

/// Offsets after 0, 1, ... words.
struct WordEnds {
    ends: [usize; MAX_WORDS_BETWEEN + 1],
    n_words: usize,
}

impl WordEnds {
    /// From 0 words on, at most three.
    fn all(&self) -> &[usize] {
        &self.ends[..=self.n_words]
    }
}

impl Default for ArithmeticCounter {
    fn default() -> Self {
        Self {
            counts: FxHashMap::default(),
            numbers: Vec::new(),
            digits: parse_class(r"\p{Nd}"),
            // As Python's `str.isalnum`, which `\w` of its `re` module uses, and the underscore.
            word_chars: parse_class(r"[\p{L}\p{N}_]"),
        }
    }
}

/// The characters that `pattern` matches, which must be a class.
fn parse_class(pattern: &str) -> ClassUnicode {
    match Parser::new().parse(pattern).map(|hir| hir.into_kind()) {
        Ok(HirKind::Class(Class::Unicode(class))) => class,
        _ => ClassUnicode::empty(),
    }
}

/// The index of `c` within its range of the class; None if the class does not contain it.
fn index_in_range(class: &ClassUnicode, c: char) -> Option<u32> {
    let ranges = class.ranges();
    let range = ranges.get(ranges.partition_point(|range| range.end() < c))?;
    (range.start() <= c).then(|| c as u32 - range.start() as u32)
}

fn char_at(text: &str, offset: usize) -> Option<char> {
    match text.as_bytes().get(offset)? {
        byte if byte.is_ascii() => Some(char::from(*byte)),
        _ => text.get(offset..).and_then(|rest| rest.chars().next()),
    }
}

impl ArithmeticCounter {
    /// Counts in the decoded text of a row.
    pub fn add(&mut self, row: &str) {
        let text = format!(" {row}");
        // Every expression starts with a space.
        for start in memchr::memchr_iter(b' ', text.as_bytes()) {
            // The first byte of a number (digits may be non-ASCII) or of a unit; other matches are impossible.
            match text.as_bytes().get(start + 1) {
                Some(b'0'..=b'9' | 0x80..) => self.match_after_number(&text, start),
                Some(b'm' | b'h' | b'd' | b'w' | b'y') => self.match_after_unit(&text, start),
                _ => {}
            }
        }
    }

    /// The counts since the last call.
    pub fn take(&mut self) -> FxHashMap<ArithmeticKey, u64> {
        std::mem::take(&mut self.counts)
    }

    /// The value of a decimal digit of any script.
    fn digit(&self, c: char) -> Option<u32> {
        match c {
            '0'..='9' => Some(c as u32 - '0' as u32),
            c if c.is_ascii() => None,
            // The decimal digits of a script are ten consecutive characters from 0 to 9. So a range of the class
            // consists of whole tens.
            c => index_in_range(&self.digits, c).map(|index| index % 10),
        }
    }

    /// Whether `X` matches the character.
    fn is_word_char(&self, c: char) -> bool {
        match c {
            c if c.is_ascii() => c.is_ascii_graphic(),
            c => index_in_range(&self.word_chars, c).is_some(),
        }
    }

    /// The end of the longest run of at most `most` characters from `start` on for which `matches` holds.
    fn run_end(
        &self,
        text: &str,
        start: usize,
        most: usize,
        matches: impl Fn(char) -> bool,
    ) -> usize {
        let mut end = start;
        for _ in 0..most {
            match char_at(text, end).filter(|c| matches(*c)) {
                Some(c) => end += c.len_utf8(),
                None => break,
            }
        }
        end
    }

    /// The end of the number that starts at `start`. Only its first five digits match.
    fn number_end(&self, text: &str, start: usize) -> Option<usize> {
        let end = self.run_end(text, start, MAX_DIGITS, |c| self.digit(c).is_some());
        (end > start).then_some(end)
    }

    /// The end of the white space after the word that starts at `start`.
    fn word_end(&self, text: &str, start: usize) -> Option<usize> {
        let word = self.run_end(text, start, usize::MAX, |c| self.is_word_char(c));
        let end = self.run_end(text, word, usize::MAX, is_space);
        (word > start && end > word).then_some(end)
    }

    /// The ends of up to three words that follow each other from `start` on.
    fn word_ends(&self, text: &str, start: usize) -> WordEnds {
        let mut ends = WordEnds {
            ends: [start; MAX_WORDS_BETWEEN + 1],
            n_words: 0,
        };
        while ends.n_words < MAX_WORDS_BETWEEN {
            match self.word_end(text, ends.ends[ends.n_words]) {
                Some(end) => ends.ends[ends.n_words + 1] = end,
                None => break,
            }
            ends.n_words += 1;
        }
        ends
    }

    /// Counts the matches of the first two expressions at `start`, where there is a space.
    fn match_after_number(&mut self, text: &str, start: usize) {
        let Some(end) = self.number_end(text, start + 1) else {
            return;
        };
        if text.as_bytes().get(end) != Some(&b' ') {
            return;
        }
        let words = self.word_ends(text, end + 1);
        // One word at least, and as many as possible.
        let number = words.all()[1..]
            .iter()
            .rev()
            .find_map(|end| self.number_end(text, *end));
        if let Some(end) = number {
            self.count_numbers(&text[start..end]);
        }
        // As few words as possible.
        let unit = words.all().iter().find_map(|end| unit_end(text, *end));
        if let Some(end) = unit {
            self.count_units(&text[start..end]);
        }
    }

    /// Counts the match of the third expression at `start`, where there is a space.
    fn match_after_unit(&mut self, text: &str, start: usize) {
        let Some(end) = unit_end(text, start + 1) else {
            return;
        };
        if text.as_bytes().get(end) != Some(&b' ') {
            return;
        }
        let words = self.word_ends(text, end + 1);
        // As few words as possible.
        let number = words
            .all()
            .iter()
            .find_map(|end| self.number_end(text, *end));
        if let Some(end) = number {
            self.count_units(&text[start..end]);
        }
    }

    /// Sets `self.numbers` to the numbers of a match, ascending. A run of more than five digits is split after
    /// every fifth one.
    fn read_numbers(&mut self, matched: &str) {
        let mut numbers = std::mem::take(&mut self.numbers);
        numbers.clear();
        let (mut number, mut n_digits) = (0, 0);
        // The space ends a number at the end of the match.
        for c in matched.chars().chain([' ']) {
            let digit = self.digit(c);
            if n_digits == MAX_DIGITS || (n_digits > 0 && digit.is_none()) {
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

    /// Counts the numbers of a match, and their pairs.
    fn count_numbers(&mut self, matched: &str) {
        self.read_numbers(matched);
        for (i, a) in self.numbers.iter().enumerate() {
            *self.counts.entry(ArithmeticKey::Number(*a)).or_default() += 1;
            for b in &self.numbers[i + 1..] {
                *self.counts.entry(ArithmeticKey::Pair(*a, *b)).or_default() += 1;
            }
        }
    }

    /// Counts each number of a match with each unit in it.
    fn count_units(&mut self, matched: &str) {
        self.read_numbers(matched);
        let mut offset = 0;
        while offset < matched.len() {
            let Some((unit, end)) = unit_at(matched, offset) else {
                offset += 1;
                continue;
            };
            for number in &self.numbers {
                *self
                    .counts
                    .entry(ArithmeticKey::Unit(*number, unit))
                    .or_default() += 1;
            }
            offset = end;
        }
    }
}

/// The index of the unit that starts at `start`, and its end.
fn unit_at(text: &str, start: usize) -> Option<(u8, usize)> {
    let rest = &text.as_bytes()[start..];
    let unit = UNITS
        .iter()
        .position(|unit| rest.starts_with(unit.as_bytes()))?;
    Some((unit as u8, start + UNITS[unit].len()))
}

fn unit_end(text: &str, start: usize) -> Option<usize> {
    unit_at(text, start).map(|(_, end)| end)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(row: &str) -> Vec<(String, u64)> {
        let mut counter = ArithmeticCounter::default();
        counter.add(row);
        let name = |key| match key {
            ArithmeticKey::Number(a) => format!("{a}"),
            ArithmeticKey::Pair(a, b) => format!("{a}-{b}"),
            ArithmeticKey::Unit(a, unit) => format!("{a}-{}", UNITS[usize::from(unit)]),
        };
        let mut all: Vec<_> = counter
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
        assert_eq!(count("3 times 4"), of(&[("3", 1), ("3-4", 1), ("4", 1)]));
        assert_eq!(count("3  times 4"), []);
        assert_eq!(count("3 4"), []);
        assert_eq!(count("lone 3 number"), []);
        assert_eq!(count("123456 times 4"), []);
        assert_eq!(
            count("x2 is 3 or\n 4"),
            of(&[("3", 1), ("3-4", 1), ("4", 1)])
        );
        assert_eq!(count("7 a b c d 8"), []);
        // The first match has as many words as possible before its second number.
        assert_eq!(
            count("in 2 days, 1 day 5"),
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
