//! The items of a benchmark, and the table of their n-grams.

use std::ops::Range;

use super::words::{WordNumbers, Words};
use crate::{
    Error, Result,
    dedup::hash::{BASE, mix},
    io::prefetch,
};

/// Fewest words of an n-gram: a shorter part of an item says too little to be searched for alone.
pub const MIN_WORDS: usize = 4;

/// Most words of an n-gram.
pub const MAX_WORDS: usize = 64;

/// Least bits of the filter for each n-gram. At most 6% of the windows that are no n-gram pass it, and half as many on
/// average.
const FILTER_BITS: usize = 8;

/// Windows that go through the filter before any is looked up. Some 15 of them pass, about as many as a processor
/// fetches from memory at once.
const FILTER_BATCH: usize = 512;

/// What a part is of its item.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// The passage that the question is about.
    Passage,
    /// The question, or the whole task.
    Question,
    /// The answer.
    Answer,
    /// One of the choices.
    Choice,
}

impl Role {
    /// All roles, by number.
    pub const ALL: [Self; 4] = [Self::Passage, Self::Question, Self::Answer, Self::Choice];
}

/// A part of an item, as it was given.
#[derive(Debug, Clone)]
pub struct ItemPart {
    /// Number of the item.
    pub item: u32,
    /// What the part is.
    pub role: Role,
    /// The text.
    pub text: String,
}

/// A part of an item, as it is searched for.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) item: u32,
    pub(super) role: Role,
    /// Without white space around it.
    pub(super) text: String,
    /// Bytes of the text before its first word.
    pub(super) n_bytes_before: usize,
    /// The normalized words, with single spaces between them.
    pub(super) words: Vec<u8>,
    pub(super) n_words: usize,
    /// The n-gram that starts at each word; none if the part is too short.
    pub(super) sequence: Vec<u32>,
    /// By n-gram of the sequence, the length of the longest proper prefix of the sequence that ends with it: the failure
    /// function of Knuth, Morris and Pratt.
    pub(super) borders: Vec<u32>,
    /// Words of each of its n-grams.
    pub(super) n: usize,
    /// The distinct n-grams, ascending.
    pub(super) grams: Vec<u32>,
}

/// A distinct n-gram.
#[derive(Debug)]
struct Gram {
    hash: u64,
    n_words: usize,
    /// Where its normalized words are in those of all parts.
    start: usize,
    n_bytes: usize,
}

/// A length of n-grams.
#[derive(Debug)]
struct Length {
    n_words: usize,
    /// [`BASE`] to the power of the length.
    power: u64,
    /// Two bits of a word for the hash of each n-gram of this length. Few windows pass it, and it stays in the caches, as
    /// the slots do not. The lengths of short parts have few n-grams, and so a small filter each.
    filter: Vec<u64>,
}

impl Length {
    /// The word of the filter that has the bits of a hash, and these bits. The slots use the lowest bits of a hash, so
    /// this uses the others: 26 at most for the word, and six for each of the two bits.
    #[inline]
    fn bits(&self, hash: u64) -> (usize, u64) {
        let word = (hash >> 32) as usize & (self.filter.len() - 1);
        (word, 1 << (hash >> 58) | 1 << (hash >> 26 & 63))
    }
}

/// The parts of all items, and a table of their distinct n-grams.
#[derive(Debug)]
pub struct BenchmarkItems {
    pub(super) parts: Vec<Part>,
    /// By item: the number of its first part. The parts of an item follow each other.
    pub(super) first_parts: Vec<usize>,
    /// Whether an item has an answer or choices, which are searched for near its question.
    pub(super) has_answers: bool,
    grams: Vec<Gram>,
    /// The words of all parts that have n-grams.
    words: Vec<u8>,
    /// The high half of an n-gram's hash and its number plus one, at the slot of the hash or the next free one. 0 is a
    /// free slot. The half hash saves a visit to the n-gram, which is seldom in a cache.
    slots: Vec<u64>,
    lengths: Vec<Length>,
}

/// A window of a text and the n-gram whose words it has, or may have: those of
/// [`BenchmarkItems::put_candidates`] are not compared yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Hit {
    /// The first word of the window.
    pub(super) word: usize,
    pub(super) n_words: usize,
    pub(super) gram: u32,
}

impl BenchmarkItems {
    /// The table of n-grams of `ngram` words. A part of fewer words is one n-gram if it has at least [`MIN_WORDS`].
    ///
    /// # Errors
    /// The length is out of range, the parts are not sorted by item, or there are too many n-grams.
    pub fn new(n_items: usize, parts: Vec<ItemPart>, ngram: usize) -> Result<Self> {
        if !(MIN_WORDS..=MAX_WORDS).contains(&ngram) {
            let what = format!("n-grams of {ngram} words: expected {MIN_WORDS} to {MAX_WORDS}");
            return Err(Error::argument(what));
        }
        let is_sorted = parts.is_sorted_by_key(|part| part.item);
        if !is_sorted
            || parts
                .last()
                .is_some_and(|part| part.item as usize >= n_items)
        {
            return Err(Error::argument("the parts are not sorted by item"));
        }
        let mut items = Self {
            parts: Vec::with_capacity(parts.len()),
            first_parts: Vec::new(),
            has_answers: parts
                .iter()
                .any(|part| matches!(part.role, Role::Answer | Role::Choice)),
            grams: Vec::new(),
            words: Vec::new(),
            slots: vec![0; 4],
            lengths: Vec::new(),
        };
        let (mut words, mut numbers) = (Words::default(), Vec::new());
        for part in parts {
            words.read(part.text.trim().as_bytes());
            let mut part = Part::new(part, ngram, &words);
            if part.n > 0 {
                items.add_grams(&mut part, &words, &mut numbers);
            }
            // A slot has 32 bits for a number plus one. The other half of them are left for the n-grams of one part.
            if items.grams.len() >= u32::MAX as usize / 2 {
                return Err(Error::argument("the items have too many n-grams"));
            }
            items.parts.push(part);
        }
        items.first_parts = (0..n_items)
            .map(|item| {
                items
                    .parts
                    .partition_point(|part| (part.item as usize) < item)
            })
            .collect();
        items.lengths.sort_unstable_by_key(|length| length.n_words);
        items.fill_filters();
        Ok(items)
    }

    /// The parts of an item.
    pub(super) fn parts_of(&self, item: u32) -> Range<usize> {
        let item = item as usize;
        let end = self.first_parts.get(item + 1).copied();
        self.first_parts[item]..end.unwrap_or(self.parts.len())
    }

    /// Number of distinct n-grams.
    #[must_use]
    pub fn n_grams(&self) -> usize {
        self.grams.len()
    }

    /// Adds the n-grams of a part.
    fn add_grams(&mut self, part: &mut Part, words: &Words, numbers: &mut Vec<u64>) {
        let power = (0..part.n).fold(1, |power: u64, _| power.wrapping_mul(BASE));
        if !self.lengths.iter().any(|length| length.n_words == part.n) {
            self.lengths.push(Length {
                n_words: part.n,
                power,
                filter: Vec::new(),
            });
        }
        let mut start = self.words.len();
        self.words.extend_from_slice(&part.words);
        put_prefix_numbers(words, numbers);
        for word in 0..=words.len() - part.n {
            let normalized = words.normalized(word..word + part.n);
            let hash = window_hash(numbers[word], numbers[word + part.n], power);
            let gram = self.gram(hash, part.n, normalized).unwrap_or_else(|| {
                self.add_gram(Gram {
                    hash,
                    n_words: part.n,
                    start,
                    n_bytes: normalized.len(),
                })
            });
            part.sequence.push(gram);
            start += words.normalized(word..word + 1).len() + 1;
        }
        part.borders = borders(&part.sequence);
        part.grams = part.sequence.clone();
        part.grams.sort_unstable();
        part.grams.dedup();
    }

    /// Adds an n-gram that is not in the table; returns its number.
    fn add_gram(&mut self, gram: Gram) -> u32 {
        self.grams.push(gram);
        if 2 * self.grams.len() > self.slots.len() {
            // At most half of the slots are used.
            self.slots = vec![0; 2 * self.slots.len()];
            (0..self.grams.len()).for_each(|number| self.fill_slot(number));
        } else {
            self.fill_slot(self.grams.len() - 1);
        }
        self.grams.len() as u32 - 1
    }

    fn fill_slot(&mut self, number: usize) {
        let hash = self.grams[number].hash;
        let mask = self.slots.len() - 1;
        let mut slot = self.slot(hash);
        while self.slots[slot] != 0 {
            slot = (slot + 1) & mask;
        }
        self.slots[slot] = (hash & !u64::from(u32::MAX)) | (number as u64 + 1);
    }

    fn fill_filters(&mut self) {
        for length in &mut self.lengths {
            let is_of = |gram: &&Gram| gram.n_words == length.n_words;
            let n_bits = FILTER_BITS * self.grams.iter().filter(is_of).count();
            // At most a word for each value of the 26 bits.
            length.filter = vec![0; n_bits.next_power_of_two().clamp(64, 1 << 32) / 64];
            for gram in self.grams.iter().filter(is_of) {
                let (word, bits) = length.bits(gram.hash);
                length.filter[word] |= bits;
            }
        }
    }

    /// Replaces `hits` by the windows of a text that are n-grams, by first word and then by length.
    pub(super) fn find(&self, words: &Words, numbers: &mut Vec<u64>, hits: &mut Vec<Hit>) {
        hits.clear();
        put_prefix_numbers(words, numbers);
        self.each_window(numbers, |word, n_words, hash| {
            let normalized = words.normalized(word..word + n_words);
            if let Some(gram) = self.gram(hash, n_words, normalized) {
                hits.push(Hit {
                    word,
                    n_words,
                    gram,
                });
            }
        });
        if self.lengths.len() > 1 {
            hits.sort_unstable_by_key(|hit| (hit.word, hit.n_words));
        }
    }

    /// Replaces `hits` by the windows of a text that may be n-grams by half of their hashes, by first word and then by
    /// length. Their words are not compared.
    pub(super) fn put_candidates(&self, words: &WordNumbers, hits: &mut Vec<Hit>) {
        hits.clear();
        self.each_window(words.prefixes(), |word, n_words, hash| {
            hits.extend(self.with_half_hash(hash).map(|gram| Hit {
                word,
                n_words,
                gram,
            }));
        });
        if self.lengths.len() > 1 {
            hits.sort_unstable_by_key(|hit| (hit.word, hit.n_words));
        }
    }

    /// Whether the words of a candidate, in a text whose words from `first` on are these, are those of its n-gram.
    pub(super) fn is_hit(&self, candidate: &Hit, words: &Words, first: usize) -> bool {
        let start = candidate.word - first;
        self.has_words(
            candidate.gram,
            words.normalized(start..start + candidate.n_words),
        )
    }

    /// Calls `take` with the first word, the length and the hash of each window that may be an n-gram. The windows of a
    /// length are in order.
    ///
    /// Many windows go through the filter before the first of them is taken: no branch depends on it, and the slots of
    /// what passes it are prefetched, so that the processor waits for all of them at once.
    fn each_window(&self, prefixes: &[u64], mut take: impl FnMut(usize, usize, u64)) {
        let mut passed = [(0, 0); FILTER_BATCH];
        for length in &self.lengths {
            let n_windows = prefixes.len().saturating_sub(length.n_words);
            for first in (0..n_windows).step_by(FILTER_BATCH) {
                let end = n_windows.min(first + FILTER_BATCH);
                // The numbers of the words before each window, and of those up to its end.
                let before = &prefixes[first..end];
                let after = &prefixes[first + length.n_words..end + length.n_words];
                let mut n_passed = 0;
                for (word, (before, after)) in (first..).zip(before.iter().zip(after)) {
                    let hash = window_hash(*before, *after, length.power);
                    let (at, bits) = length.bits(hash);
                    passed[n_passed] = (word, hash);
                    n_passed += usize::from(length.filter[at] & bits == bits);
                }
                let passed = &passed[..n_passed];
                for (_, hash) in passed {
                    prefetch(&self.slots[self.slot(*hash)]);
                }
                for (word, hash) in passed {
                    take(*word, length.n_words, *hash);
                }
            }
        }
    }

    /// The n-gram of these words. A hash alone decides nothing: the words are compared.
    fn gram(&self, hash: u64, n_words: usize, words: &[u8]) -> Option<u32> {
        self.with_hash(hash, n_words)
            .find(|gram| self.has_words(*gram, words))
    }

    fn has_words(&self, gram: u32, words: &[u8]) -> bool {
        let gram = &self.grams[gram as usize];
        self.words[gram.start..gram.start + gram.n_bytes] == *words
    }

    /// The n-grams of a hash and a length.
    fn with_hash(&self, hash: u64, n_words: usize) -> impl Iterator<Item = u32> {
        self.with_half_hash(hash).filter(move |number| {
            let gram = &self.grams[*number as usize];
            gram.hash == hash && gram.n_words == n_words
        })
    }

    /// The n-grams whose hashes have the high half of this one, among those with the same slot. Only the table is visited.
    #[inline]
    fn with_half_hash(&self, hash: u64) -> impl Iterator<Item = u32> {
        let (slot, mask) = (self.slot(hash), self.slots.len() - 1);
        let slots = (0..).map(move |n| self.slots[slot.wrapping_add(n) & mask]);
        slots
            .take_while(|entry| *entry != 0)
            .filter(move |entry| entry >> 32 == hash >> 32)
            .map(|entry| entry as u32 - 1)
    }

    /// The first slot of a hash.
    #[inline]
    fn slot(&self, hash: u64) -> usize {
        hash as usize & (self.slots.len() - 1)
    }
}

impl Part {
    /// The part whose words these are, without its n-grams.
    fn new(given: ItemPart, ngram: usize, words: &Words) -> Self {
        let n_words = words.len();
        let (n_bytes_before, normalized) = match n_words {
            0 => (0, Vec::new()),
            _ => (
                words.source(0..1).start,
                words.normalized(0..n_words).to_vec(),
            ),
        };
        Self {
            item: given.item,
            role: given.role,
            text: given.text.trim().to_owned(),
            n_bytes_before,
            words: normalized,
            n_words,
            sequence: Vec::new(),
            borders: Vec::new(),
            n: if n_words < MIN_WORDS {
                0
            } else {
                n_words.min(ngram)
            },
            grams: Vec::new(),
        }
    }
}

/// The failure function of Knuth, Morris and Pratt.
fn borders(sequence: &[u32]) -> Vec<u32> {
    let mut borders = vec![0; sequence.len()];
    let mut n = 0;
    for i in 1..sequence.len() {
        while n > 0 && sequence[i] != sequence[n] {
            n = borders[n - 1] as usize;
        }
        n += usize::from(sequence[i] == sequence[n]);
        borders[i] = n as u32;
    }
    borders
}

/// Replaces `numbers` by the numbers whose digits are the hashes of the first words: of none, one, two and so on.
fn put_prefix_numbers(words: &Words, numbers: &mut Vec<u64>) {
    numbers.clear();
    numbers.push(0);
    let mut number: u64 = 0;
    for word in 0..words.len() {
        number = number.wrapping_mul(BASE).wrapping_add(words.hash(word));
        numbers.push(number);
    }
}

/// The hash of the words between two prefixes of a text, of which these are the numbers.
#[inline]
fn window_hash(before: u64, after: u64, power: u64) -> u64 {
    mix(after.wrapping_sub(before.wrapping_mul(power)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::{collection::vec, prelude::*};
    use std::collections::HashSet;

    fn part(item: u32, text: &str) -> ItemPart {
        ItemPart {
            item,
            role: Role::Question,
            text: text.to_owned(),
        }
    }

    #[test]
    fn short_parts_are_one_n_gram_or_none() {
        let parts = vec![
            part(0, "(one two three four five six seven)"),
            part(1, "one two three"),
            part(2, "..."),
            part(3, "a b c d e f g h i"),
        ];
        let items = BenchmarkItems::new(4, parts, 8).unwrap();
        let lengths: Vec<_> = items.parts.iter().map(|p| (p.n, p.grams.len())).collect();
        assert_eq!(lengths, [(7, 1), (0, 0), (0, 0), (8, 2)]);
        assert_eq!(items.parts[0].n_bytes_before, 1);
        assert_eq!(items.parts_of(3), 3..4);
    }

    #[test]
    fn bad_parts_are_refused() {
        let parts = || vec![part(1, "a"), part(0, "b")];
        assert!(BenchmarkItems::new(2, parts(), 8).is_err());
        assert!(BenchmarkItems::new(1, vec![part(1, "a")], 8).is_err());
        assert!(BenchmarkItems::new(2, Vec::new(), 3).is_err());
        assert!(BenchmarkItems::new(2, Vec::new(), 65).is_err());
        assert_eq!(BenchmarkItems::new(2, Vec::new(), 8).unwrap().n_grams(), 0);
    }

    #[test]
    fn the_bits_of_a_large_filter_do_not_depend_on_their_word() {
        let length = Length {
            n_words: MIN_WORDS,
            power: 0,
            filter: vec![0; 1 << 22],
        };
        let first_word = |hash: u64| hash & !(((1 << 22) - 1) << 32);
        let found: HashSet<_> = (0..1 << 17)
            .map(|i| length.bits(first_word(mix(i))))
            .collect();
        assert!(found.iter().all(|(word, _)| *word == 0));
        // One bit of 64, or two.
        assert_eq!(found.len(), 64 + 64 * 63 / 2);
    }

    proptest! {
        #[test]
        fn windows_equal_a_search_for_each_n_gram(
            parts in vec("([ab] ){0,9}", 0..5), text in "([abc][ ,.]){0,60}", ngram in 4_usize..7,
        ) {
            let given = (0..).zip(&parts).map(|(item, text)| part(item, text)).collect();
            let items = BenchmarkItems::new(parts.len(), given, ngram).unwrap();
            let (mut words, mut hits) = (Words::default(), Vec::new());
            words.read(text.as_bytes());
            items.find(&words, &mut Vec::new(), &mut hits);
            let all: Vec<&str> = text.split([' ', ',', '.']).filter(|word| !word.is_empty()).collect();
            let mut expected = Vec::new();
            for word in 0..all.len() {
                for n in MIN_WORDS..=ngram.min(all.len() - word) {
                    let window = all[word..word + n].join(" ");
                    let is_gram = items.parts.iter().filter(|p| p.n == n).any(|p| {
                        let words: Vec<&str> = std::str::from_utf8(&p.words).unwrap().split(' ').collect();
                        words.windows(n).any(|w| w.join(" ") == window)
                    });
                    if is_gram {
                        expected.push((word, n));
                    }
                }
            }
            let found: Vec<_> = hits.iter().map(|hit| (hit.word, hit.n_words)).collect();
            prop_assert_eq!(found, expected);
            for hit in hits {
                let gram = &items.grams[hit.gram as usize];
                let text = &items.words[gram.start..gram.start + gram.n_bytes];
                prop_assert_eq!(text, words.normalized(hit.word..hit.word + hit.n_words));
            }
        }
    }
}
