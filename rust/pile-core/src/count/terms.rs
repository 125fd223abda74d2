//! Counts occurrences of terms, the texts that contain them, and how often terms occur together.
//!
//! A unit is a document, or a training sample, in which the part of each document is a text of its own. **A term
//! occurs where its bytes occur in the text.** Overlapping occurrences all count. As a whole word, a term occurs only
//! where no word character (`\w` of Unicode Technical Standard 18) directly precedes or follows it.

use std::iter;

use regex_syntax::is_word_character;
use rustc_hash::FxHashMap;

use super::{
    finder::{Finder, FinderBuffers},
    term_set::TermSet,
};
use crate::{
    Error, Result,
    text::{case_folding, words::is_space},
};

/// When two terms occur together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum PairScope {
    /// In the same document or training sample. Each one that contains both terms counts once; for a term paired
    /// with itself, each one that contains the term.
    #[default]
    Unit,
    /// Within a number of words. Each two occurrences that start in words at most this far apart count. A term paired
    /// with itself needs two occurrences.
    Words(u32),
}

/// How terms are counted.
#[derive(Debug, Clone, Copy, Default)]
pub struct TermOptions<'a> {
    /// Whether a term counts only as a whole word.
    pub whole_words: bool,
    /// Whether case is ignored. Terms that differ in case only are then counted as one.
    pub ignore_case: bool,
    /// Pairs of terms that are counted together, as indices of the terms.
    pub pairs: &'a [(u32, u32)],
    /// When the terms of a pair occur together.
    pub scope: PairScope,
}

/// Terms that are counted, prepared for searching.
///
/// Equal terms are counted as one. The distinct terms are numbered, and counts refer to these numbers.
#[derive(Debug)]
pub struct Terms {
    finder: Finder,
    whole_words: bool,
    ignore_case: bool,
    /// The number of each given term.
    numbers: Vec<u32>,
    /// Pairs of indices of `numbers`.
    pairs: Vec<(u32, u32)>,
    scope: PairScope,
    /// For each term, its pairs with terms of equal or higher numbers: the other term, and the number of the pair.
    partners: Vec<Vec<(u32, u32)>>,
    /// The pairs of each two terms, of which the lower number comes first.
    pairs_by_terms: FxHashMap<(u32, u32), Vec<u32>>,
}

impl Terms {
    /// Prepares `terms` for counting.
    ///
    /// # Errors
    /// No term, an empty one, 2^32 terms or more, or a pair of a term that does not exist.
    pub fn new(terms: &[&[u8]], options: TermOptions<'_>) -> Result<Self> {
        if terms.is_empty() {
            return Err(Error::argument("no terms to count"));
        }
        let (set, numbers) = match options.ignore_case {
            true => TermSet::new(&FoldedTerms::new(terms).terms())?,
            false => TermSet::new(terms)?,
        };
        let n_with_partners = if options.pairs.is_empty() {
            0
        } else {
            set.len()
        };
        let mut this = Self {
            finder: Finder::new(set),
            whole_words: options.whole_words,
            ignore_case: options.ignore_case,
            numbers,
            pairs: options.pairs.to_vec(),
            scope: options.scope,
            partners: vec![Vec::new(); n_with_partners],
            pairs_by_terms: FxHashMap::default(),
        };
        this.index_pairs()?;
        Ok(this)
    }

    fn index_pairs(&mut self) -> Result<()> {
        for (pair, (a, b)) in (0..).zip(&self.pairs) {
            let number = |index: u32| {
                let number = self.numbers.get(index as usize).copied();
                number.ok_or_else(|| {
                    let n = self.numbers.len();
                    Error::argument(format!("a pair has term {index}, but there are {n} terms"))
                })
            };
            let (a, b) = (number(*a)?, number(*b)?);
            let (low, high) = (a.min(b), a.max(b));
            self.partners[low as usize].push((high, pair));
            self.pairs_by_terms
                .entry((low, high))
                .or_default()
                .push(pair);
        }
        Ok(())
    }

    /// The number of each given term.
    #[must_use]
    pub fn numbers(&self) -> &[u32] {
        &self.numbers
    }

    /// How many distinct terms there are.
    #[must_use]
    pub fn n_distinct(&self) -> usize {
        self.finder.terms().len()
    }

    /// How many pairs there are.
    #[must_use]
    pub fn n_pairs(&self) -> usize {
        self.pairs.len()
    }

    /// Whether no word character directly precedes or follows the occurrence of `term` at `start`.
    fn is_whole_word(&self, text: &[u8], start: usize, term: u32) -> bool {
        let end = start + self.finder.terms().term(term).len();
        let before = last_char(&text[..start]);
        let after = first_char(&text[end..]);
        !before.into_iter().chain(after).any(is_word_char)
    }
}

/// Case-folded terms.
struct FoldedTerms {
    /// All terms, concatenated.
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl FoldedTerms {
    fn new(terms: &[&[u8]]) -> Self {
        let mut bytes = Vec::new();
        let fold = |term: &&[u8]| {
            case_folding::put_folded_bytes(&mut bytes, term);
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

/// Whether `\w` matches the character.
fn is_word_char(c: char) -> bool {
    match c {
        c if c.is_ascii() => c.is_ascii_alphanumeric() || c == '_',
        c => is_word_character(c),
    }
}

/// The first character, if the bytes start with valid UTF-8.
fn first_char(bytes: &[u8]) -> Option<char> {
    if let Some(first) = bytes.first().filter(|first| first.is_ascii()) {
        return Some(char::from(*first));
    }
    // A character has at most 4 bytes.
    let first_bytes = &bytes[..bytes.len().min(4)];
    first_bytes
        .utf8_chunks()
        .next()
        .and_then(|chunk| chunk.valid().chars().next())
}

/// The last character, if the bytes end with valid UTF-8.
fn last_char(bytes: &[u8]) -> Option<char> {
    if let Some(last) = bytes.last().filter(|last| last.is_ascii()) {
        return Some(char::from(*last));
    }
    let last_bytes = &bytes[bytes.len().saturating_sub(4)..];
    // The last byte that is not a continuation byte starts the last character.
    let start = last_bytes.iter().rposition(|byte| byte & 0xc0 != 0x80)?;
    std::str::from_utf8(&last_bytes[start..])
        .ok()
        .and_then(|text| text.chars().next())
}

/// The counts of a term.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TermCount {
    /// Number of the term.
    pub term: u32,
    /// Occurrences.
    pub occurrences: u64,
    /// Units that contain the term.
    pub units: u64,
}

/// Counts in consecutive units of the same group. Terms and pairs that do not occur are left out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GroupTermCounts {
    /// The group.
    pub group: u32,
    /// The counts of terms, in no particular order.
    pub terms: Vec<TermCount>,
    /// The number of each pair and how often its terms occur together, in no particular order.
    pub pairs: Vec<(u32, u64)>,
}

/// Counts terms in one text after another.
#[derive(Debug)]
pub struct TermCounter<'a> {
    terms: &'a Terms,
    group: u32,
    /// Occurrences of each term in finished units since the last [`Self::take`], and how many of these units contain
    /// it.
    counts: Vec<(u64, u64)>,
    /// The terms whose counts are not 0.
    counted: Vec<u32>,
    /// Occurrences of each term in this unit.
    n_in_unit: Vec<u64>,
    /// The terms that occur in this unit are the first `n_unit_terms` entries.
    unit_terms: Vec<u32>,
    n_unit_terms: usize,
    /// How often the terms of each pair occur together, by number of the pair.
    pairs: FxHashMap<u32, u64>,
    folded: Vec<u8>,
    buffers: FinderBuffers,
    /// Occurrences in this text for [`PairScope::Words`]: byte offset, later the index of the word, and term. Texts
    /// may have 4 GiB or more.
    occurrences: Vec<(usize, u32)>,
    word_starts: Vec<usize>,
}

impl<'a> TermCounter<'a> {
    /// A counter that has counted nothing.
    #[must_use]
    pub fn new(terms: &'a Terms) -> Self {
        let n = terms.n_distinct();
        Self {
            terms,
            group: 0,
            counts: vec![(0, 0); n],
            counted: Vec::new(),
            n_in_unit: vec![0; n],
            // One more, as `count` also writes the entry after the last one.
            unit_terms: vec![0; n + 1],
            n_unit_terms: 0,
            pairs: FxHashMap::default(),
            folded: Vec::new(),
            buffers: FinderBuffers::default(),
            occurrences: Vec::new(),
            word_starts: Vec::new(),
        }
    }

    /// Begins the next unit, which is of `group`. If the last unit was of another group, returns the counts of that
    /// group, unless no term occurred.
    pub fn begin(&mut self, group: u32) -> Option<GroupTermCounts> {
        self.end_unit();
        let previous = (group != self.group).then(|| self.take());
        self.group = group;
        previous.filter(|counts| !counts.terms.is_empty())
    }

    /// Counts in a text of the unit.
    pub fn add(&mut self, text: &[u8]) {
        if !self.terms.ignore_case {
            self.count(text);
            return;
        }
        let mut folded = std::mem::take(&mut self.folded);
        folded.clear();
        case_folding::put_folded_bytes(&mut folded, text);
        self.count(&folded);
        self.folded = folded;
    }

    fn count(&mut self, text: &[u8]) {
        let terms = self.terms;
        let counts_near_pairs =
            matches!(terms.scope, PairScope::Words(_)) && !terms.pairs.is_empty();
        self.occurrences.clear();
        let Self {
            buffers,
            n_in_unit,
            unit_terms,
            occurrences,
            ..
        } = self;
        let mut n_unit_terms = self.n_unit_terms;
        terms.finder.find(text, buffers, |block_start, hits| {
            for hit in hits {
                let start = block_start + usize::from(hit.offset);
                if terms.whole_words && !terms.is_whole_word(text, start, hit.term) {
                    continue;
                }
                // A processor cannot predict whether a term is new to the unit. So there is no branch: the term is
                // always written, and the length grows by 0 or 1.
                let n = &mut n_in_unit[hit.term as usize];
                unit_terms[n_unit_terms] = hit.term;
                n_unit_terms += usize::from(*n == 0);
                *n += 1;
                if counts_near_pairs {
                    occurrences.push((start, hit.term));
                }
            }
        });
        self.n_unit_terms = n_unit_terms;
        if counts_near_pairs {
            self.count_near_pairs(text);
        }
    }

    /// Counts the pairs of occurrences that start within the scope's number of words.
    fn count_near_pairs(&mut self, text: &[u8]) {
        let PairScope::Words(n_words) = self.terms.scope else {
            return;
        };
        put_word_starts(text, &mut self.word_starts);
        // The finder reports the occurrences of a block in any order.
        self.occurrences.sort_unstable();
        // Replaces the offset of each occurrence by how many words start at or before it.
        let mut word = 0;
        for (position, _) in &mut self.occurrences {
            while self
                .word_starts
                .get(word)
                .is_some_and(|start| *start <= *position)
            {
                word += 1;
            }
            *position = word;
        }
        for (i, (word, term)) in self.occurrences.iter().enumerate() {
            let near = self.occurrences[..i]
                .iter()
                .rev()
                .take_while(|(earlier, _)| word - earlier <= n_words as usize);
            for (_, other) in near {
                let terms = (*term.min(other), *term.max(other));
                for pair in self.terms.pairs_by_terms.get(&terms).into_iter().flatten() {
                    *self.pairs.entry(*pair).or_default() += 1;
                }
            }
        }
    }

    /// Adds the counts of the unit to those of the group.
    fn end_unit(&mut self) {
        let terms = self.terms;
        let unit_terms = &self.unit_terms[..self.n_unit_terms];
        if terms.scope == PairScope::Unit && !terms.pairs.is_empty() {
            for term in unit_terms {
                for (other, pair) in &terms.partners[*term as usize] {
                    if self.n_in_unit[*other as usize] > 0 {
                        *self.pairs.entry(*pair).or_default() += 1;
                    }
                }
            }
        }
        for term in unit_terms {
            let (occurrences, units) = &mut self.counts[*term as usize];
            if *units == 0 {
                self.counted.push(*term);
            }
            *occurrences += std::mem::take(&mut self.n_in_unit[*term as usize]);
            *units += 1;
        }
        self.n_unit_terms = 0;
    }

    /// The counts since the last call, or since the last change of the group.
    pub fn take(&mut self) -> GroupTermCounts {
        self.end_unit();
        let mut taken = GroupTermCounts {
            group: self.group,
            terms: Vec::with_capacity(self.counted.len()),
            pairs: self.pairs.drain().collect(),
        };
        for term in self.counted.drain(..) {
            let (occurrences, units) = std::mem::take(&mut self.counts[term as usize]);
            taken.terms.push(TermCount {
                term,
                occurrences,
                units,
            });
        }
        taken
    }
}

/// Replaces `starts` by the offsets where words start. White space separates words; bytes that are not UTF-8 belong
/// to words.
fn put_word_starts(text: &[u8], starts: &mut Vec<usize>) {
    starts.clear();
    let (mut offset, mut is_in_word) = (0, false);
    for chunk in text.utf8_chunks() {
        for c in chunk.valid().chars() {
            let is_space = is_space(c);
            if !is_space && !is_in_word {
                starts.push(offset);
            }
            is_in_word = !is_space;
            offset += c.len_utf8();
        }
        if !chunk.invalid().is_empty() {
            if !is_in_word {
                starts.push(offset);
            }
            is_in_word = true;
            offset += chunk.invalid().len();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::count::{TermSums, TermTotals};

    fn count_texts(terms: &Terms, texts: &[&str]) -> TermTotals {
        let mut counter = TermCounter::new(terms);
        for text in texts {
            assert_eq!(counter.begin(0), None);
            counter.add(text.as_bytes());
        }
        let mut sums = TermSums::new(terms);
        sums.add(&counter.take());
        sums.totals()
    }

    #[test]
    fn whole_words_and_case() {
        let given: Vec<&[u8]> = vec![b"cat", b"Cat", "é".as_bytes(), b"c++"];
        let texts = ["cat, Cat cats concat c++x", "é caté \u{301} CAT c++ éé"];
        let terms = Terms::new(&given, TermOptions::default()).unwrap();
        let totals = count_texts(&terms, &texts);
        assert_eq!(totals.occurrences, [4, 1, 4, 2]);
        assert_eq!(totals.units, [2, 1, 1, 2]);
        let options = TermOptions {
            whole_words: true,
            ignore_case: true,
            ..TermOptions::default()
        };
        let terms = Terms::new(&given, options).unwrap();
        assert_eq!(terms.n_distinct(), 3);
        let totals = count_texts(&terms, &texts);
        assert_eq!(totals.occurrences, [3, 3, 1, 1]);
        assert_eq!(totals.units, [2, 2, 1, 1]);
    }

    #[test]
    fn pairs_in_a_document_and_within_words() {
        let given: Vec<&[u8]> = vec![b"a", b"b", b"c"];
        let texts = ["a b x a", "b x x c", "c"];
        let pairs_within = |scope: PairScope| {
            let options = TermOptions {
                whole_words: true,
                pairs: &[(0, 1), (1, 2), (0, 0), (1, 0)],
                scope,
                ..TermOptions::default()
            };
            count_texts(&Terms::new(&given, options).unwrap(), &texts).pairs
        };
        assert_eq!(pairs_within(PairScope::Unit), [1, 1, 1, 1]);
        assert_eq!(pairs_within(PairScope::Words(2)), [2, 0, 0, 2]);
        assert_eq!(pairs_within(PairScope::Words(3)), [2, 1, 1, 2]);
    }

    #[test]
    fn bad_terms_and_pairs_are_refused() {
        let options = TermOptions {
            pairs: &[(0, 3)],
            ..TermOptions::default()
        };
        assert!(Terms::new(&[b"a", b"b", b"c"], options).is_err());
        assert!(Terms::new(&[], TermOptions::default()).is_err());
        assert!(Terms::new(&[b"a", b""], TermOptions::default()).is_err());
    }

    #[test]
    fn a_change_of_group_returns_the_counts() {
        let terms = Terms::new(&[b"a"], TermOptions::default()).unwrap();
        let mut counter = TermCounter::new(&terms);
        assert_eq!(counter.begin(1), None);
        counter.add(b"aa");
        let first = counter.begin(2).unwrap();
        let count = |occurrences, units| TermCount {
            term: 0,
            occurrences,
            units,
        };
        assert_eq!((first.group, first.terms), (1, vec![count(2, 1)]));
        counter.add(b"a");
        assert_eq!(counter.take().terms, [count(1, 1)]);
    }
}
