//! Trains a byte-level BPE vocabulary.
//!
//! Training repeats one step: the most frequent pair of neighbouring tokens becomes a new token. Of equally
//! frequent pairs it is the one with the smaller ids. `pretoken_counts` counts the pretokens of the text,
//! `pretokens` holds each distinct one as tokens, and `pairs` finds the next pair and merges it.
//!
//! Source: Sennrich et al. 2016, arXiv:1508.07909. The order of merges and the treatment of special cases are
//! those of Hugging Face `tokenizers` 0.23.3, `BpeTrainer` with `initial_alphabet=ByteLevel.alphabet()`, except
//! that counts have 64 bits.

use crate::tokenize::{
    model::byte_alphabet::BYTE_CHARS, train::pretoken_counts::PretokenCounts,
    train::trained::Trained,
};
use crate::{Error, Result, progress::Progress};
use rustc_hash::{FxHashMap, FxHashSet};

use pairs::CandidatePairs;
use pretokens::Pretokens;

mod pairs;
mod pretokens;

/// The ids of two neighbouring tokens, left and right.
type Pair = (u32, u32);

/// The size of the largest vocabulary that can be loaded.
const MAX_VOCAB_SIZE: u32 = 1 << 20;

/// Settings of the trainer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrainConfig {
    /// Size of the vocabulary: the special tokens, 256 bytes and the merges. The result is smaller if no pair is
    /// left to merge.
    pub vocab_size: u32,
    /// Pairs that occur less often are not merged. 0 means 1.
    pub min_frequency: u64,
    /// Tokens that get the first ids. Their text in the documents is treated like any other.
    pub special_tokens: Vec<String>,
}

/// Trains a vocabulary: counts the pretokens of documents, then merges.
///
/// The result does not depend on the order of documents, nor on how they are divided between trainers that
/// [`Trainer::absorb`] joins.
#[derive(Debug)]
pub struct Trainer {
    config: TrainConfig,
    counts: PretokenCounts,
}

impl Trainer {
    /// A trainer without documents.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Argument`] if `vocab_size` is less than the 256 bytes and the special tokens or above
    /// 2^20, or a special token is empty or repeated.
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
            let what = format!("special token {token:?} is empty or repeated");
            return Err(Error::argument(what));
        }
        let counts = PretokenCounts::default();
        Ok(Self { config, counts })
    }

    /// Counts the pretokens of a document, after normalizing it to NFC.
    pub fn add(&mut self, text: &str) {
        self.counts.add(text);
    }

    /// Adds the counts of another trainer. Its settings are ignored.
    pub fn absorb(&mut self, other: Self) {
        self.counts.absorb(other.counts);
    }

    /// Bytes of text counted so far.
    #[must_use]
    pub fn n_bytes(&self) -> u64 {
        self.counts.n_bytes()
    }

    /// Merges until the vocabulary has its size or no pair is frequent enough. `progress` advances by one per
    /// merge.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Cancelled`] once `progress` is stopped; [`crate::ErrorKind::Argument`] if the distinct
    /// pretokens have more than 2^32 bytes.
    pub fn finish(self, progress: &Progress) -> Result<Trained> {
        let mut vocab = TrainingVocab::new(&self.config.special_tokens);
        let mut pretokens = Pretokens::new(&self.counts, &vocab.byte_ids)?;
        drop(self.counts);
        let mut pairs = CandidatePairs::new(self.config.min_frequency.max(1));
        let mut merges = Vec::new();
        let vocab_size = self.config.vocab_size as usize;
        while vocab.len() < vocab_size {
            let Some((pair, positions)) = pairs.pop_best(&pretokens, vocab_size - vocab.len())
            else {
                break;
            };
            let id = vocab.push_merge(pair);
            merges.push(pair);
            pairs.merge(&mut pretokens, pair, positions, id);
            progress.advance(1)?;
        }
        Ok(Trained::new(
            vocab.tokens,
            merges,
            self.config.special_tokens,
        ))
    }
}

/// The tokens so far, in the byte-level alphabet.
struct TrainingVocab {
    /// The token of each id.
    tokens: Vec<String>,
    /// The ids of the special tokens. A byte or a merge with the text of a special token shares its id. No other
    /// two tokens have the same text: how bytes are merged depends on these bytes alone, so the same bytes are
    /// not merged in two ways.
    special: FxHashMap<String, u32>,
    byte_ids: [u32; 256],
}

impl TrainingVocab {
    /// The special tokens, then the characters of the byte-level alphabet by code point.
    fn new(special_tokens: &[String]) -> Self {
        let mut vocab = Self {
            tokens: special_tokens.to_vec(),
            special: special_tokens.iter().cloned().zip(0..).collect(),
            byte_ids: [0; 256],
        };
        let mut bytes: Vec<usize> = (0..256).collect();
        bytes.sort_unstable_by_key(|byte| BYTE_CHARS[*byte]);
        for byte in bytes {
            vocab.byte_ids[byte] = vocab.push(BYTE_CHARS[byte].into());
        }
        vocab
    }

    fn len(&self) -> usize {
        self.tokens.len()
    }

    /// Adds `token` unless it is a special token. Returns its id.
    fn push(&mut self, token: String) -> u32 {
        if let Some(id) = self.special.get(&token) {
            return *id;
        }
        self.tokens.push(token);
        // Fits: `Trainer::new` limits the vocabulary to 2^20 tokens.
        self.tokens.len() as u32 - 1
    }

    /// Adds the token that `pair` becomes. Returns its id.
    fn push_merge(&mut self, (left, right): Pair) -> u32 {
        let (left, right) = (left as usize, right as usize);
        self.push(format!("{}{}", self.tokens[left], self.tokens[right]))
    }
}

#[cfg(test)]
mod tests;
