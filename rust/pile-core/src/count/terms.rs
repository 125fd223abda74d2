//! How often terms occur, in how many texts, and how often together.
//!
//! A text is a document, or one document's part of a training sample. **A term occurs where its bytes stand in
//! the text**; occurrences that overlap all count. As a whole word it counts only where no word character
//! (`\w` of Unicode's technical standard 18) stands directly before or behind it.

use std::iter;

use regex_syntax::is_word_character;
use rustc_hash::FxHashMap;

use super::{
    finder::{Finder, Room},
    fold,
    term_set::TermSet,
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
        let (set, numbers) = match ignore_case {
            true => TermSet::new(&Folded::new(terms).terms())?,
            false => TermSet::new(terms)?,
        };
        let mut this = Self {
            partners: vec![Vec::new(); if pairs.is_empty() { 0 } else { set.len() }],
            finder: Finder::new(set),
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

    /// Whether no word character stands directly before or behind this term in a text.
    fn is_word(&self, text: &[u8], start: usize, term: u32) -> bool {
        let end = start + self.finder.terms().term(term).len();
        let before = last_char(&text[..start]);
        let behind = first_char(&text[end..]);
        !before.into_iter().chain(behind).any(is_word_of)
    }
}

/// Terms with their case folded.
struct Folded {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl Folded {
    fn new(terms: &[&[u8]]) -> Self {
        let mut bytes = Vec::new();
        let fold = |term: &&[u8]| {
            fold::put_folded_bytes(&mut bytes, term);
            bytes.len()
        };
        let ends = terms.iter().map(fold).collect();
        Self { bytes, ends }
    }

    fn terms(&self) -> Vec<&[u8]> {
        let starts = iter::once(&0).chain(&self.ends);
        let ranges = starts.zip(&self.ends);
        ranges
            .map(|(start, end)| &self.bytes[*start..*end])
            .collect()
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
    if let Some(first) = bytes.first().filter(|first| first.is_ascii()) {
        return Some(char::from(*first));
    }
    let few = &bytes[..bytes.len().min(4)];
    few.utf8_chunks()
        .next()
        .and_then(|chunk| chunk.valid().chars().next())
}

/// The last character, if the bytes end with one.
fn last_char(bytes: &[u8]) -> Option<char> {
    if let Some(last) = bytes.last().filter(|last| last.is_ascii()) {
        return Some(char::from(*last));
    }
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
    /// Occurrences of each term, and units that hold it, before this unit.
    counts: Vec<(u64, u64)>,
    touched: Vec<u32>,
    /// Occurrences of each term in this unit.
    in_unit: Vec<u64>,
    /// The terms that occur in it: the first `n_of_unit` of these.
    of_unit: Vec<u32>,
    n_of_unit: usize,
    pairs: FxHashMap<u32, u64>,
    folded: Vec<u8>,
    room: Room,
    /// Byte offset, later number of the word, and term. Texts may be of 4 GiB or more.
    found: Vec<(usize, u32)>,
    words: Vec<usize>,
}

impl<'a> TermCounter<'a> {
    /// Nothing counted yet.
    #[must_use]
    pub fn new(terms: &'a Terms) -> Self {
        Self {
            terms,
            group: 0,
            counts: vec![(0, 0); terms.n_distinct()],
            touched: Vec::new(),
            in_unit: vec![0; terms.n_distinct()],
            of_unit: vec![0; terms.n_distinct() + 1],
            n_of_unit: 0,
            pairs: FxHashMap::default(),
            folded: Vec::new(),
            room: Room::default(),
            found: Vec::new(),
            words: Vec::new(),
        }
    }

    /// Begins the next document or sample, of this group; what was counted of another group comes out.
    pub fn begin(&mut self, group: u32) -> Option<Counted> {
        self.end_unit();
        let before = (group != self.group).then(|| self.take());
        self.group = group;
        before.filter(|counted| !counted.terms.is_empty())
    }

    /// Counts a text of the document or sample.
    pub fn add(&mut self, text: &[u8]) {
        if !self.terms.ignore_case {
            self.count(text);
            return;
        }
        let mut folded = std::mem::take(&mut self.folded);
        folded.clear();
        fold::put_folded_bytes(&mut folded, text);
        self.count(&folded);
        self.folded = folded;
    }

    fn count(&mut self, text: &[u8]) {
        let terms = self.terms;
        let is_window = matches!(terms.within, Within::Words(_)) && !terms.pairs.is_empty();
        self.found.clear();
        let Self {
            room,
            in_unit,
            of_unit,
            found,
            ..
        } = self;
        let mut n_of_unit = self.n_of_unit;
        terms.finder.find(text, room, |start, hits| {
            for hit in hits {
                let at = start + usize::from(hit.place);
                if terms.whole_words && !terms.is_word(text, at, hit.term) {
                    continue;
                }
                // Whether a term is new to the unit cannot be guessed: so it is always listed, but not always kept.
                let n = &mut in_unit[hit.term as usize];
                of_unit[n_of_unit] = hit.term;
                n_of_unit += usize::from(*n == 0);
                *n += 1;
                if is_window {
                    found.push((at, hit.term));
                }
            }
        });
        self.n_of_unit = n_of_unit;
        if is_window {
            self.count_near(text);
        }
    }

    /// Counts the pairs of occurrences that begin within so many words of each other.
    fn count_near(&mut self, text: &[u8]) {
        let Within::Words(n_words) = self.terms.within else {
            return;
        };
        put_word_starts(text, &mut self.words);
        self.found.sort_unstable();
        let mut word = 0;
        for (at, _) in &mut self.found {
            while self.words.get(word).is_some_and(|start| *start <= *at) {
                word += 1;
            }
            *at = word;
        }
        for (i, (word, term)) in self.found.iter().enumerate() {
            let near = self.found[..i]
                .iter()
                .rev()
                .take_while(|(before, _)| word - before <= n_words as usize);
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
            for term in &self.of_unit[..self.n_of_unit] {
                for (other, number) in &terms.partners[*term as usize] {
                    if self.in_unit[*other as usize] > 0 {
                        *self.pairs.entry(*number).or_default() += 1;
                    }
                }
            }
        }
        for term in &self.of_unit[..self.n_of_unit] {
            let (occurrences, units) = &mut self.counts[*term as usize];
            if *units == 0 {
                self.touched.push(*term);
            }
            *occurrences += std::mem::take(&mut self.in_unit[*term as usize]);
            *units += 1;
        }
        self.n_of_unit = 0;
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
            let (occurrences, units) = std::mem::take(&mut self.counts[term as usize]);
            counted.terms.push((term, occurrences, units));
        }
        counted
    }
}

/// Where words start, as white space parts them; what is no UTF-8 belongs to words.
fn put_word_starts(text: &[u8], starts: &mut Vec<usize>) {
    starts.clear();
    let (mut at, mut is_in_word) = (0, false);
    for chunk in text.utf8_chunks() {
        for c in chunk.valid().chars() {
            let is_space = is_space(c);
            if !is_space && !is_in_word {
                starts.push(at);
            }
            is_in_word = !is_space;
            at += c.len_utf8();
        }
        if !chunk.invalid().is_empty() {
            if !is_in_word {
                starts.push(at);
            }
            is_in_word = true;
            at += chunk.invalid().len();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::count::{Sums, Totals};

    fn counted(terms: &Terms, texts: &[&str]) -> Totals {
        let mut counter = TermCounter::new(terms);
        for text in texts {
            assert_eq!(counter.begin(0), None);
            counter.add(text.as_bytes());
        }
        let mut sums = Sums::new(terms);
        sums.add(&counter.take());
        sums.totals()
    }

    #[test]
    fn words_and_case() {
        let asked: Vec<&[u8]> = vec![b"cat", b"Cat", "é".as_bytes(), b"c++"];
        let texts = ["cat, Cat cats concat c++x", "é caté \u{301} CAT c++ éé"];
        let plain = Terms::new(&asked, (false, false), &[], Within::Unit).unwrap();
        let all = counted(&plain, &texts);
        assert_eq!(all.occurrences, [4, 1, 4, 2]);
        assert_eq!(all.units, [2, 1, 1, 2]);
        let words = Terms::new(&asked, (true, true), &[], Within::Unit).unwrap();
        assert_eq!(words.n_distinct(), 3);
        let all = counted(&words, &texts);
        assert_eq!(all.occurrences, [3, 3, 1, 1]);
        assert_eq!(all.units, [2, 2, 1, 1]);
    }

    #[test]
    fn together_in_a_document_and_in_words() {
        let asked: Vec<&[u8]> = vec![b"a", b"b", b"c"];
        let pairs = [(0, 1), (1, 2), (0, 0), (1, 0)];
        let texts = ["a b x a", "b x x c", "c"];
        let unit = Terms::new(&asked, (true, false), &pairs, Within::Unit).unwrap();
        assert_eq!(counted(&unit, &texts).pairs, [1, 1, 1, 1]);
        let near = Terms::new(&asked, (true, false), &pairs, Within::Words(2)).unwrap();
        assert_eq!(counted(&near, &texts).pairs, [2, 0, 0, 2]);
        let near = Terms::new(&asked, (true, false), &pairs, Within::Words(3)).unwrap();
        assert_eq!(counted(&near, &texts).pairs, [2, 1, 1, 2]);
        assert!(Terms::new(&asked, (true, false), &[(0, 3)], Within::Unit).is_err());
        assert!(Terms::new(&[], (true, false), &[], Within::Unit).is_err());
        assert!(Terms::new(&[b"a", b""], (false, false), &[], Within::Unit).is_err());
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
