//! GPT-NeoX's two rules that keep documents whole: `pack_until_overflow` and `unpacked`.
//!
//! Samples are padded to their length, and each ends with the first token of the document that follows
//! (it is the last label). Where the reference runs beyond its array, as when the last document of a
//! permutation is left out, this goes on with the next permutation.

use super::{Mt19937, packed::with_room};
use crate::{Error, Result};

/// The three arrays, all int64 in the reference.
#[derive(Debug)]
pub struct Whole {
    /// Document numbers.
    pub doc_idx: Vec<i64>,
    /// Place in `doc_idx` of each sample's first document, and 0; one more at the end.
    pub sample_idx: Vec<i64>,
    /// The sample to take at each place of the training order.
    pub shuffle_idx: Vec<i64>,
}

/// What both rules depend on.
pub struct WholeConfig<'a> {
    /// Tokens of each document.
    pub lengths: &'a [i32],
    /// Tokens of a sample less one.
    pub seq_length: u64,
    /// Samples, exactly.
    pub n_samples: u64,
    /// Seed of all shuffles.
    pub seed: u32,
    /// Whether documents longer than a sample are cut; otherwise they are left out.
    pub allow_chopped: bool,
    /// Whether the first tokens of a document, so many, are all masked in its labels: such ones are left out.
    pub is_masked: &'a dyn Fn(u64, u64) -> Result<bool>,
}

impl WholeConfig<'_> {
    fn check(&self) -> Result<()> {
        if self.seq_length == 0 || self.n_samples == 0 {
            let what = "sequence length and number of samples must be at least 1";
            return Err(Error::argument(what));
        }
        Ok(())
    }

    fn is_left_out(&self, document: u64, masked_tokens: u64) -> Result<bool> {
        let is_long = self.lengths[document as usize] as u64 > self.seq_length + 1;
        Ok((is_long && !self.allow_chopped) || (self.is_masked)(document, masked_tokens)?)
    }

    fn numbers(n: u64) -> Result<Vec<i64>> {
        let mut items = with_room(n)?;
        items.extend(0..n as i64);
        Ok(items)
    }

    fn none_left(&self) -> Error {
        Error::argument(format!(
            "all {} documents are left out: they are longer than a sample, or masked in their labels",
            self.lengths.len()
        ))
    }
}

/// Documents in random order, as many to a sample as fit whole.
///
/// # Errors
/// A zero, no memory, or no document that is taken.
pub fn pack_until_overflow(config: &WholeConfig) -> Result<Whole> {
    config.check()?;
    let mut rng = Mt19937::new(config.seed);
    let mut shuffle_idx = WholeConfig::numbers(config.n_samples)?;
    rng.shuffle(&mut shuffle_idx);
    let mut documents = WholeConfig::numbers(config.lengths.len() as u64)?;
    rng.shuffle(&mut documents);
    let (mut doc_idx, mut sample_idx) = (Vec::new(), Vec::new());
    let (mut length, mut n_skipped) = (0, 0);
    let sample_tokens = config.seq_length + 1;
    let mut next = 0;
    while (sample_idx.len() as u64) < 2 * config.n_samples {
        if next == documents.len() {
            next = 0;
            rng.shuffle(&mut documents);
        }
        // Two permutations hold a document that is taken, wherever it stands in both.
        if n_skipped >= 2 * documents.len() {
            return Err(config.none_left());
        }
        let document = documents[next];
        next += 1;
        if config.is_left_out(document as u64, sample_tokens)? {
            n_skipped += 1;
            continue;
        }
        n_skipped = 0;
        let own = config.lengths[document as usize] as u64;
        if length == 0 || length + own > sample_tokens {
            sample_idx.extend([doc_idx.len() as i64, 0]);
            length = own;
        } else {
            length += own;
        }
        doc_idx.push(document);
    }
    sample_idx.extend([doc_idx.len() as i64, 0]);
    Ok(Whole {
        doc_idx,
        sample_idx,
        shuffle_idx,
    })
}

/// One document a sample, in their own order, again and again; samples are shuffled.
///
/// # Errors
/// As [`pack_until_overflow`].
pub fn unpacked(config: &WholeConfig) -> Result<Whole> {
    config.check()?;
    let mut shuffle_idx = WholeConfig::numbers(config.n_samples)?;
    Mt19937::new(config.seed).shuffle(&mut shuffle_idx);
    let sample_idx = (0..=config.n_samples as i64).flat_map(|i| [i, 0]).collect();
    let mut taken = Vec::new();
    for document in 0..config.lengths.len() as u64 {
        if !config.is_left_out(document, config.seq_length)? {
            taken.push(document as i64);
        }
    }
    if taken.is_empty() {
        return Err(config.none_left());
    }
    let mut doc_idx = with_room(config.n_samples + 1)?;
    doc_idx.extend(taken.iter().cycle().take(config.n_samples as usize + 1));
    Ok(Whole {
        doc_idx,
        sample_idx,
        shuffle_idx,
    })
}
