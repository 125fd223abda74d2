//! Learns a byte-level BPE vocabulary.
//!
//! The most frequent pair of neighbours becomes a token, again and again; of equally frequent
//! pairs the one with the smaller ids. Counts are kept up to date through an index from pairs to
//! the pieces they are in. Source: Sennrich et al. 2016, arXiv:1508.07909; order of merges and
//! treatment of special cases as in Hugging Face `tokenizers` 0.23.3, `BpeTrainer` with
//! `initial_alphabet=ByteLevel.alphabet()`. Deviation: counts have 64 bits.

use super::{bytes::BYTE_CHARS, counts::PieceCounts, trained::Trained};
use crate::{Error, Result, progress::Progress};
use rustc_hash::{FxHashMap, FxHashSet};
use std::{cmp::Reverse, collections::BinaryHeap};

/// Two neighbours: ids of the left and the right token.
type Pair = (u32, u32);

/// Ids stay below this, as in files that can be loaded.
const MAX_VOCAB_SIZE: u32 = 1 << 20;

/// Settings of the trainer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrainConfig {
    /// Tokens to stop at: special ones, 256 bytes and merges. Fewer if pairs run out.
    pub vocab_size: u32,
    /// Least count for a pair to be merged; 0 is as 1.
    pub min_frequency: u64,
    /// Tokens with the first ids. They are not looked for in the documents.
    pub special_tokens: Vec<String>,
}

/// Counts pieces of documents as they come, then merges.
///
/// The result depends neither on the order of documents nor on how they were split between
/// trainers that are joined by [`Trainer::absorb`].
#[derive(Debug)]
pub struct Trainer {
    config: TrainConfig,
    counts: PieceCounts,
}

impl Trainer {
    /// A trainer that has seen nothing.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Argument`] if `vocab_size` does not hold the 256 bytes and the
    /// special tokens or is above 2^20, or a special token is empty or there twice.
    pub fn new(config: TrainConfig) -> Result<Self> {
        let least = 256 + config.special_tokens.len();
        if (config.vocab_size as usize) < least || config.vocab_size > MAX_VOCAB_SIZE {
            return Err(Error::argument(format!(
                "vocab_size must be {least} (256 bytes and {} special tokens) to {MAX_VOCAB_SIZE}, got {}",
                config.special_tokens.len(),
                config.vocab_size
            )));
        }
        let mut seen = FxHashSet::default();
        let mut tokens = config.special_tokens.iter();
        if let Some(token) = tokens.find(|t| t.is_empty() || !seen.insert(*t)) {
            let what = format!("special token {token:?} is empty or there twice");
            return Err(Error::argument(what));
        }
        let counts = PieceCounts::default();
        Ok(Self { config, counts })
    }

    /// Counts the pieces of one document, in NFC.
    pub fn add(&mut self, text: &str) {
        self.counts.add(text);
    }

    /// Takes over the counts of another trainer; its settings are dropped.
    pub fn absorb(&mut self, other: Self) {
        self.counts.absorb(other.counts);
    }

    /// Bytes of text counted so far.
    #[must_use]
    pub fn n_bytes(&self) -> u64 {
        self.counts.n_bytes()
    }

    /// Merges until the vocabulary is full or no pair is frequent enough; `progress` advances
    /// by one per merge.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Cancelled`] once `progress` is stopped.
    pub fn finish(self, progress: &Progress) -> Result<Trained> {
        let mut vocab = Vocab::new(&self.config.special_tokens);
        let mut pairs = Pairs::count(Words::new(self.counts.sorted(), &vocab));
        let least = self.config.min_frequency.max(1);
        let mut merges = Vec::new();
        while vocab.len() < self.config.vocab_size as usize {
            let Some(best) = pairs.pop_best().filter(|b| b.count >= least) else {
                break;
            };
            let id = vocab.join(best.pair);
            merges.push(best.pair);
            pairs.merge(&best, id);
            progress.advance(1)?;
        }
        Ok(Trained::new(
            vocab.tokens,
            merges,
            self.config.special_tokens,
        ))
    }
}

/// Tokens in the byte-level alphabet by id, and back.
struct Vocab {
    tokens: Vec<String>,
    ids: FxHashMap<String, u32>,
}

impl Vocab {
    /// Special tokens first, then the alphabet by code point.
    fn new(special_tokens: &[String]) -> Self {
        let mut vocab = Self {
            tokens: Vec::new(),
            ids: FxHashMap::default(),
        };
        let mut alphabet = *BYTE_CHARS;
        alphabet.sort_unstable();
        for token in special_tokens {
            vocab.id(token.clone());
        }
        for c in alphabet {
            vocab.id(c.into());
        }
        vocab
    }

    fn len(&self) -> usize {
        self.tokens.len()
    }

    /// Id of `token`, a new one if it is new.
    fn id(&mut self, token: String) -> u32 {
        // Fewer than 2^20 tokens: `Trainer::new` checks.
        let new = self.tokens.len() as u32;
        let id = *self.ids.entry(token.clone()).or_insert(new);
        if id == new {
            self.tokens.push(token);
        }
        id
    }

    /// Id of what `pair` becomes.
    fn join(&mut self, (left, right): Pair) -> u32 {
        let (left, right) = (left as usize, right as usize);
        self.id(format!("{}{}", self.tokens[left], self.tokens[right]))
    }
}

/// Pieces as tokens, each once, and how often they occur.
struct Words {
    tokens: Vec<u32>,
    /// Start in `tokens` and number of tokens, which shrinks.
    spans: Vec<(usize, usize)>,
    counts: Vec<i64>,
}

impl Words {
    fn new(pieces: Vec<(Box<[u8]>, u64)>, vocab: &Vocab) -> Self {
        let byte_ids: [u32; 256] =
            std::array::from_fn(|b| vocab.ids[BYTE_CHARS[b].encode_utf8(&mut [0; 4]) as &str]);
        let mut words = Self {
            tokens: Vec::new(),
            spans: Vec::with_capacity(pieces.len()),
            counts: Vec::with_capacity(pieces.len()),
        };
        for (piece, count) in pieces {
            words.spans.push((words.tokens.len(), piece.len()));
            words.counts.push(count as i64);
            let ids = piece.iter().map(|b| byte_ids[usize::from(*b)]);
            words.tokens.extend(ids);
        }
        words
    }

    fn get(&self, word: usize) -> &[u32] {
        let (start, len) = self.spans[word];
        &self.tokens[start..start + len]
    }

    /// Makes each `pair` in a word one token `id`; reports how the counts of pairs change.
    fn merge(&mut self, word: usize, pair: Pair, id: u32, mut change: impl FnMut(Pair, i64)) {
        let (start, len) = self.spans[word];
        let tokens = &mut self.tokens[start..start + len];
        let (mut read, mut write) = (0, 0);
        while read < len {
            if read + 1 == len || (tokens[read], tokens[read + 1]) != pair {
                tokens[write] = tokens[read];
                read += 1;
            } else {
                if write > 0 {
                    change((tokens[write - 1], pair.0), -1);
                    change((tokens[write - 1], id), 1);
                }
                if read + 2 < len {
                    change((pair.1, tokens[read + 2]), -1);
                    change((id, tokens[read + 2]), 1);
                }
                tokens[write] = id;
                read += 2;
            }
            write += 1;
        }
        self.spans[word].1 = write;
    }
}

/// A pair that may be merged. The greatest is the next one: most frequent, then smallest ids.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Candidate {
    count: u64,
    pair: Reverse<Pair>,
    words: Vec<u32>,
}

/// What is popped from the queue.
struct Best {
    count: u64,
    pair: Pair,
    words: Vec<u32>,
}

/// Counts of pairs, and the queue of those to merge.
///
/// The count of a merged pair itself is left as it was: the pair cannot come up again. All its
/// occurrences are gone, and a later merge gives a new token, as what is merged inside a stretch
/// of text depends on that stretch alone. (Only special tokens can be spelt like a merge.)
struct Pairs {
    words: Words,
    counts: FxHashMap<Pair, i64>,
    queue: BinaryHeap<Candidate>,
}

impl Pairs {
    fn count(words: Words) -> Self {
        let mut counts = FxHashMap::default();
        let mut places = Places::default();
        for (word, n) in words.counts.iter().enumerate() {
            for pair in words.get(word).windows(2).map(|w| (w[0], w[1])) {
                *counts.entry(pair).or_default() += *n;
                places.insert(pair, word);
            }
        }
        let mut pairs = Self {
            words,
            counts,
            queue: BinaryHeap::new(),
        };
        pairs.enqueue(places);
        pairs
    }

    fn count_of(&self, pair: Pair) -> u64 {
        let count = self.counts.get(&pair).copied().unwrap_or(0);
        u64::try_from(count).unwrap_or(0)
    }

    fn enqueue(&mut self, places: Places) {
        for (pair, words) in places.0 {
            let count = self.count_of(pair);
            if count > 0 {
                self.queue.push(Candidate {
                    count,
                    pair: Reverse(pair),
                    words,
                });
            }
        }
    }

    /// Takes the most frequent pair out of the queue; counts are brought up to date on the way.
    fn pop_best(&mut self) -> Option<Best> {
        loop {
            let mut top = self.queue.pop()?;
            let (pair, count) = (top.pair.0, self.count_of(top.pair.0));
            if top.count == count {
                let words = top.words;
                return Some(Best { count, pair, words });
            }
            top.count = count;
            self.queue.push(top);
        }
    }

    /// Merges a pair in its words and queues the pairs that come up.
    fn merge(&mut self, best: &Best, id: u32) {
        let mut places = Places::default();
        for word in best.words.iter().map(|w| *w as usize) {
            let n = self.words.counts[word];
            let counts = &mut self.counts;
            self.words.merge(word, best.pair, id, |pair, change| {
                *counts.entry(pair).or_default() += change * n;
                if change > 0 {
                    places.insert(pair, word);
                }
            });
        }
        self.enqueue(places);
    }
}

/// The words that pairs are in.
#[derive(Default)]
struct Places(FxHashMap<Pair, Vec<u32>>);

impl Places {
    /// Words come in ascending order, so that the last one tells whether it is known.
    fn insert(&mut self, pair: Pair, word: usize) {
        let word = u32::try_from(word).expect("fewer than 2^32 different pieces fit in memory");
        let words = self.0.entry(pair).or_default();
        if words.last() != Some(&word) {
            words.push(word);
        }
    }
}

#[cfg(test)]
mod tests;
