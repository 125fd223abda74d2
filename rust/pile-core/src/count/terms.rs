//! How often terms occur, in how many texts, and how often together.
//!
//! A text is a document, or one document's part of a training sample. **A term occurs where its bytes stand in
//! the text**; occurrences that overlap all count. As a whole word it counts only where no word character
//! (`\w` of Unicode's technical standard 18) stands directly before or behind it.

use regex_syntax::is_word_character;
use rustc_hash::FxHashMap;

use super::{
    finder::{Finder, SLACK_BYTES},
    fold,
    words::is_space,
};
use crate::{Error, Result};

/// Within what terms are counted together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Within {
    /// A document or a training sample: each one where both occur counts once.
    Unit,
    /// So many words: each two occurrences that begin at most so many words apart count.
    Words(u32),
}

/// Which terms are counted, and how.
#[derive(Debug)]
pub struct Terms {
    finder: Finder,
    whole_words: bool,
    ignore_case: bool,
    /// The term of the finder that each of those asked for is.
    numbers: Vec<u32>,
    pairs: Vec<(u32, u32)>,
    within: Within,
    /// By term, those it is paired with and the numbers of these pairs.
    partners: Vec<Vec<(u32, u32)>>,
    by_pair: FxHashMap<(u32, u32), Vec<u32>>,
}

impl Terms {
    /// Counts `terms`; equal ones, and with `ignore_case` those that differ in case only, are counted as one.
    /// `pairs` are numbers of terms that are counted together.
    ///
    /// # Errors
    /// No term, an empty one, or a pair of a term that is not there.
    pub fn new(
        terms: &[&[u8]],
        (whole_words, ignore_case): (bool, bool),
        pairs: &[(u32, u32)],
        within: Within,
    ) -> Result<Self> {
        if terms.is_empty() {
            return Err(Error::argument("no terms to count"));
        }
        let mut known: FxHashMap<Box<[u8]>, u32> = FxHashMap::default();
        let (mut distinct, mut numbers) = (Vec::new(), Vec::with_capacity(terms.len()));
        for term in terms {
            let mut bytes = Vec::with_capacity(term.len());
            match ignore_case {
                true => fold::put_folded_bytes(&mut bytes, term),
                false => bytes.extend_from_slice(term),
            }
            let bytes = bytes.into_boxed_slice();
            let number = known.entry(bytes.clone()).or_insert_with(|| {
                distinct.push(bytes);
                distinct.len() as u32 - 1
            });
            numbers.push(*number);
        }
        let mut this = Self {
            partners: vec![Vec::new(); if pairs.is_empty() { 0 } else { distinct.len() }],
            finder: Finder::new(distinct)?,
            whole_words,
            ignore_case,
            numbers,
            pairs: pairs.to_vec(),
            within,
            by_pair: FxHashMap::default(),
        };
        this.add_pairs()?;
        Ok(this)
    }

    fn add_pairs(&mut self) -> Result<()> {
        for (number, (a, b)) in self.pairs.iter().enumerate() {
            let term = |i: u32| {
                let number = self.numbers.get(i as usize).copied();
                number.ok_or_else(|| Error::argument(format!("no term {i} to be one of a pair")))
            };
            let (a, b) = (term(*a)?, term(*b)?);
            let (low, high) = (a.min(b), a.max(b));
            self.partners[low as usize].push((high, number as u32));
            self.by_pair
                .entry((low, high))
                .or_default()
                .push(number as u32);
        }
        Ok(())
    }

    /// For each term asked for, its number among the different ones.
    #[must_use]
    pub fn numbers(&self) -> &[u32] {
        &self.numbers
    }

    /// Different terms.
    #[must_use]
    pub fn n_distinct(&self) -> usize {
        self.finder.terms().len()
    }

    /// Pairs.
    #[must_use]
    pub fn n_pairs(&self) -> usize {
        self.pairs.len()
    }

    /// Whether no word character stands directly before or behind these bytes of a text.
    fn is_word(text: &[u8], start: usize, end: usize) -> bool {
        let before = last_char(&text[..start]);
        let behind = first_char(&text[end..]);
        !before.into_iter().chain(behind).any(is_word_of)
    }
}

fn is_word_of(c: char) -> bool {
    match c {
        c if c.is_ascii() => c.is_ascii_alphanumeric() || c == '_',
        c => is_word_character(c),
    }
}

/// The first character, if the bytes begin with one.
fn first_char(bytes: &[u8]) -> Option<char> {
    let few = &bytes[..bytes.len().min(4)];
    few.utf8_chunks()
        .next()
        .and_then(|chunk| chunk.valid().chars().next())
}

/// The last character, if the bytes end with one.
fn last_char(bytes: &[u8]) -> Option<char> {
    let few = &bytes[bytes.len().saturating_sub(4)..];
    let start = few.iter().rposition(|byte| byte & 0xc0 != 0x80)?;
    std::str::from_utf8(&few[start..])
        .ok()
        .and_then(|text| text.chars().next())
}

/// What was counted of some texts of one group; only what occurs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counted {
    /// Number of the group.
    pub group: u32,
    /// Number of a term, its occurrences, and the units that hold it.
    pub terms: Vec<(u32, u64, u64)>,
    /// Number of a pair, and how often its terms occur together.
    pub pairs: Vec<(u32, u64)>,
}

/// Counts the terms of one text after the other.
#[derive(Debug)]
pub struct TermCounter<'a> {
    terms: &'a Terms,
    group: u32,
    occurrences: Vec<u64>,
    units: Vec<u64>,
    /// The unit in which each term was last seen.
    seen: Vec<u64>,
    unit: u64,
    of_unit: Vec<u32>,
    touched: Vec<u32>,
    pairs: FxHashMap<u32, u64>,
    text: Vec<u8>,
    found: Vec<(u32, u32)>,
    words: Vec<u32>,
}

impl<'a> TermCounter<'a> {
    /// Nothing counted yet.
    #[must_use]
    pub fn new(terms: &'a Terms) -> Self {
        let n = terms.n_distinct();
        Self {
            terms,
            group: 0,
            occurrences: vec![0; n],
            units: vec![0; n],
            seen: vec![0; n],
            unit: 0,
            of_unit: Vec::new(),
            touched: Vec::new(),
            pairs: FxHashMap::default(),
            text: Vec::new(),
            found: Vec::new(),
            words: Vec::new(),
        }
    }

    /// Begins the next document or sample, of this group; what was counted of another group comes out.
    pub fn begin(&mut self, group: u32) -> Option<Counted> {
        self.end_unit();
        self.unit += 1;
        let before = (group != self.group).then(|| self.take());
        self.group = group;
        before.filter(|counted| !counted.terms.is_empty())
    }

    /// Counts a text of the document or sample.
    pub fn add(&mut self, text: &[u8]) {
        let mut own = std::mem::take(&mut self.text);
        own.clear();
        match self.terms.ignore_case {
            true => fold::put_folded_bytes(&mut own, text),
            false => own.extend_from_slice(text),
        }
        let length = own.len();
        own.resize(length + SLACK_BYTES, 0);
        self.count(&own, length);
        self.text = own;
    }

    fn count(&mut self, text: &[u8], length: usize) {
        let terms = self.terms;
        let is_window = matches!(terms.within, Within::Words(_)) && !terms.pairs.is_empty();
        self.found.clear();
        terms.finder.find(text, length, |term, at| {
            let end = at + terms.finder.terms()[term].len();
            if terms.whole_words && !Terms::is_word(&text[..length], at, end) {
                return;
            }
            if self.seen[term] != self.unit {
                self.seen[term] = self.unit;
                self.of_unit.push(term as u32);
                if self.occurrences[term] == 0 {
                    self.touched.push(term as u32);
                }
                self.units[term] += 1;
            }
            self.occurrences[term] += 1;
            if is_window {
                self.found.push((at as u32, term as u32));
            }
        });
        if is_window {
            self.count_near(&text[..length]);
        }
    }

    /// Counts the pairs of occurrences that begin within so many words of each other.
    fn count_near(&mut self, text: &[u8]) {
        let Within::Words(n_words) = self.terms.within else {
            return;
        };
        put_word_starts(text, &mut self.words);
        let mut word = 0;
        for (at, _) in &mut self.found {
            while self.words.get(word).is_some_and(|start| *start <= *at) {
                word += 1;
            }
            *at = word as u32;
        }
        for (i, (word, term)) in self.found.iter().enumerate() {
            let near = self.found[..i]
                .iter()
                .rev()
                .take_while(|(before, _)| word - before <= n_words);
            for (_, other) in near {
                let pair = (*term.min(other), *term.max(other));
                for number in self.terms.by_pair.get(&pair).into_iter().flatten() {
                    *self.pairs.entry(*number).or_default() += 1;
                }
            }
        }
    }

    fn end_unit(&mut self) {
        let terms = self.terms;
        if terms.within == Within::Unit && !terms.pairs.is_empty() {
            for term in &self.of_unit {
                for (other, number) in &terms.partners[*term as usize] {
                    if self.seen[*other as usize] == self.unit {
                        *self.pairs.entry(*number).or_default() += 1;
                    }
                }
            }
        }
        self.of_unit.clear();
    }

    /// What was counted since it was last asked for.
    pub fn take(&mut self) -> Counted {
        self.end_unit();
        let mut counted = Counted {
            group: self.group,
            terms: Vec::with_capacity(self.touched.len()),
            pairs: self.pairs.drain().collect(),
        };
        for term in self.touched.drain(..) {
            let (n, n_units) = (
                &mut self.occurrences[term as usize],
                &mut self.units[term as usize],
            );
            counted
                .terms
                .push((term, std::mem::take(n), std::mem::take(n_units)));
        }
        counted
    }
}

/// Where words start, as white space parts them; what is no UTF-8 belongs to words.
fn put_word_starts(text: &[u8], starts: &mut Vec<u32>) {
    starts.clear();
    let (mut at, mut is_in_word) = (0, false);
    for chunk in text.utf8_chunks() {
        for c in chunk.valid().chars() {
            let is_space = is_space(c);
            if !is_space && !is_in_word {
                starts.push(at);
            }
            is_in_word = !is_space;
            at += c.len_utf8() as u32;
        }
        if !chunk.invalid().is_empty() {
            if !is_in_word {
                starts.push(at);
            }
            is_in_word = true;
            at += chunk.invalid().len() as u32;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counted(terms: &Terms, texts: &[&str]) -> Counted {
        let mut counter = TermCounter::new(terms);
        for text in texts {
            assert_eq!(counter.begin(0), None);
            counter.add(text.as_bytes());
        }
        let mut counted = counter.take();
        counted.terms.sort_unstable();
        counted.pairs.sort_unstable();
        counted
    }

    #[test]
    fn words_and_case() {
        let asked: Vec<&[u8]> = vec![b"cat", b"Cat", "é".as_bytes(), b"c++"];
        let texts = ["cat, Cat cats concat c++x", "é caté \u{301} CAT c++ éé"];
        let plain = Terms::new(&asked, (false, false), &[], Within::Unit).unwrap();
        let all = counted(&plain, &texts);
        assert_eq!(all.terms, [(0, 4, 2), (1, 1, 1), (2, 4, 1), (3, 2, 2)]);
        let words = Terms::new(&asked, (true, true), &[], Within::Unit).unwrap();
        assert_eq!(words.numbers(), [0, 0, 1, 2]);
        let all = counted(&words, &texts);
        assert_eq!(all.terms, [(0, 3, 2), (1, 1, 1), (2, 1, 1)]);
    }

    #[test]
    fn together_in_a_document_and_in_words() {
        let asked: Vec<&[u8]> = vec![b"a", b"b", b"c"];
        let pairs = [(0, 1), (1, 2), (0, 0), (1, 0)];
        let texts = ["a b x a", "b x x c", "c"];
        let unit = Terms::new(&asked, (true, false), &pairs, Within::Unit).unwrap();
        assert_eq!(
            counted(&unit, &texts).pairs,
            [(0, 1), (1, 1), (2, 1), (3, 1)]
        );
        let near = Terms::new(&asked, (true, false), &pairs, Within::Words(2)).unwrap();
        assert_eq!(counted(&near, &texts).pairs, [(0, 2), (3, 2)]);
        let near = Terms::new(&asked, (true, false), &pairs, Within::Words(3)).unwrap();
        assert_eq!(
            counted(&near, &texts).pairs,
            [(0, 2), (1, 1), (2, 1), (3, 2)]
        );
        assert!(Terms::new(&asked, (true, false), &[(0, 3)], Within::Unit).is_err());
        assert!(Terms::new(&[], (true, false), &[], Within::Unit).is_err());
    }

    #[test]
    fn groups_are_told_apart() {
        let asked: Vec<&[u8]> = vec![b"a"];
        let terms = Terms::new(&asked, (false, false), &[], Within::Unit).unwrap();
        let mut counter = TermCounter::new(&terms);
        assert_eq!(counter.begin(1), None);
        counter.add(b"aa");
        let first = counter.begin(2).unwrap();
        assert_eq!((first.group, first.terms), (1, vec![(0, 2, 1)]));
        counter.add(b"a");
        assert_eq!(counter.take().terms, [(0, 1, 1)]);
    }
}
