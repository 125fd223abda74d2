//! Learns a byte-level BPE vocabulary.
//!
//! The most frequent pair of neighbours becomes a token, again and again; of equally frequent
//! pairs the one with the smaller ids. `counts` has the pieces, `words` their tokens, `pairs` what to
//! merge next and where. Source: Sennrich et al. 2016, arXiv:1508.07909; order of merges and
//! treatment of special cases as in Hugging Face `tokenizers` 0.23.3, `BpeTrainer` with
//! `initial_alphabet=ByteLevel.alphabet()`. Deviation: counts have 64 bits.

use crate::tokenize::{
    model::bytes::BYTE_CHARS, train::counts::PieceCounts, train::trained::Trained,
};
use crate::{Error, Result, progress::Progress};
use rustc_hash::{FxHashMap, FxHashSet};

use pairs::Pairs;
use words::Words;

mod pairs;
mod words;

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
    /// [`crate::ErrorKind::Cancelled`] once `progress` is stopped; [`crate::ErrorKind::Argument`] if
    /// the different pieces have more than 2^32 bytes.
    pub fn finish(self, progress: &Progress) -> Result<Trained> {
        let mut vocab = Vocab::new(&self.config.special_tokens);
        let mut words = Words::new(&self.counts, &vocab.byte_ids)?;
        drop(self.counts);
        let mut pairs = Pairs::new(self.config.min_frequency.max(1));
        let mut merges = Vec::new();
        let vocab_size = self.config.vocab_size as usize;
        while vocab.len() < vocab_size {
            let Some((pair, places)) = pairs.pop_best(&words, vocab_size - vocab.len()) else {
                break;
            };
            let id = vocab.join(pair);
            merges.push(pair);
            pairs.merge(&mut words, pair, places, id);
            progress.advance(1)?;
        }
        Ok(Trained::new(
            vocab.tokens,
            merges,
            self.config.special_tokens,
        ))
    }
}

/// Tokens in the byte-level alphabet by id.
struct Vocab {
    tokens: Vec<String>,
    /// Ids of the special tokens, which may be spelt like a byte or a merge. All others differ: what is
    /// merged inside a stretch of text depends on that stretch alone, so that two ways to merge the
    /// same bytes never both occur.
    special: FxHashMap<String, u32>,
    byte_ids: [u32; 256],
}

impl Vocab {
    /// Special tokens first, then the alphabet by code point.
    fn new(special_tokens: &[String]) -> Self {
        let mut vocab = Self {
            tokens: special_tokens.to_vec(),
            special: special_tokens.iter().cloned().zip(0..).collect(),
            byte_ids: [0; 256],
        };
        let mut bytes: Vec<usize> = (0..256).collect();
        bytes.sort_unstable_by_key(|byte| BYTE_CHARS[*byte]);
        for byte in bytes {
            vocab.byte_ids[byte] = vocab.id(BYTE_CHARS[byte].into());
        }
        vocab
    }

    fn len(&self) -> usize {
        self.tokens.len()
    }

    /// Id of `token`, a new one if it is not special.
    fn id(&mut self, token: String) -> u32 {
        if let Some(id) = self.special.get(&token) {
            return *id;
        }
        self.tokens.push(token);
        // Fewer than 2^20 tokens: `Trainer::new` checks.
        self.tokens.len() as u32 - 1
    }

    /// Id of what `pair` becomes.
    fn join(&mut self, (left, right): Pair) -> u32 {
        let (left, right) = (left as usize, right as usize);
        self.id(format!("{}{}", self.tokens[left], self.tokens[right]))
    }
}

#[cfg(test)]
mod tests;
