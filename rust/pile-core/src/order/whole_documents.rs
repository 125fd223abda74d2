//! GPT-NeoX's two rules that keep documents whole: `pack_until_overflow` and `unpacked`.
//!
//! Samples are padded to their length. Each ends with the first token of the next document, which is the last
//! label. The reference reads past the end of its array in some cases, such as an excluded last document of a
//! permutation; here the next permutation follows.

use super::{Mt19937, packed::try_with_capacity};
use crate::{Error, Result};

/// The three arrays of an order of whole documents, all int64 as in the reference.
#[derive(Debug)]
pub struct WholeDocumentArrays {
    /// Document numbers.
    pub doc_idx: Vec<i64>,
    /// For each sample, the index in `doc_idx` of its first document, and 0; then the same for the end of the last
    /// sample.
    pub sample_idx: Vec<i64>,
    /// The sample at each position of the training order.
    pub shuffle_idx: Vec<i64>,
}

/// The settings of both rules.
pub struct WholeDocumentConfig<'a> {
    /// Tokens of each document.
    pub lengths: &'a [i32],
    /// Tokens of a sample, minus one.
    pub seq_length: u64,
    /// Number of samples.
    pub n_samples: u64,
    /// Seed of all shuffles.
    pub seed: u32,
    /// Whether documents longer than a sample are cut. Otherwise they are excluded.
    pub allow_chopped: bool,
    /// Whether the labels of the first `n` tokens of a document are all masked; called with the document and
    /// `n`. Such documents are excluded.
    pub is_masked: &'a dyn Fn(u64, u64) -> Result<bool>,
}

impl WholeDocumentConfig<'_> {
    fn check(&self) -> Result<()> {
        if self.seq_length == 0 || self.n_samples == 0 {
            let what = "sequence length and number of samples must be at least 1";
            return Err(Error::argument(what));
        }
        Ok(())
    }

    fn is_excluded(&self, document: u64, masked_tokens: u64) -> Result<bool> {
        let is_long = self.lengths[document as usize] as u64 > self.seq_length + 1;
        Ok((is_long && !self.allow_chopped) || (self.is_masked)(document, masked_tokens)?)
    }

    /// The numbers below `n`.
    fn numbers(n: u64) -> Result<Vec<i64>> {
        let mut items = try_with_capacity(n)?;
        items.extend(0..n as i64);
        Ok(items)
    }

    fn all_excluded(&self) -> Error {
        Error::argument(format!(
            "all {} documents are excluded: they are longer than a sample, or masked in their labels",
            self.lengths.len()
        ))
    }
}

/// Builds samples of whole documents in random order; a document that does not fit starts the next sample.
///
/// # Errors
/// A setting of zero, too little memory, or no document that is not excluded.
pub fn pack_until_overflow(config: &WholeDocumentConfig) -> Result<WholeDocumentArrays> {
    config.check()?;
    let mut rng = Mt19937::new(config.seed);
    let mut shuffle_idx = WholeDocumentConfig::numbers(config.n_samples)?;
    rng.shuffle(&mut shuffle_idx);
    let mut documents = WholeDocumentConfig::numbers(config.lengths.len() as u64)?;
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
        // A document that is not excluded occurs in each permutation, so at most two permutations minus two
        // documents are skipped in a row.
        if n_skipped >= 2 * documents.len() {
            return Err(config.all_excluded());
        }
        let document = documents[next];
        next += 1;
        if config.is_excluded(document as u64, sample_tokens)? {
            n_skipped += 1;
            continue;
        }
        n_skipped = 0;
        let n_tokens = config.lengths[document as usize] as u64;
        // As in the reference, a document without tokens is alone in a sample that it starts.
        if length == 0 || length + n_tokens > sample_tokens {
            sample_idx.extend([doc_idx.len() as i64, 0]);
            length = n_tokens;
        } else {
            length += n_tokens;
        }
        doc_idx.push(document);
    }
    // As in the reference, the last sample has only the document that starts it, and its end is that of `doc_idx`: no
    // document follows that has its last label.
    sample_idx.extend([doc_idx.len() as i64, 0]);
    Ok(WholeDocumentArrays {
        doc_idx,
        sample_idx,
        shuffle_idx,
    })
}

/// Builds samples of one document each, repeating the documents in their order; then the samples are shuffled.
///
/// # Errors
/// As [`pack_until_overflow`].
pub fn unpacked(config: &WholeDocumentConfig) -> Result<WholeDocumentArrays> {
    config.check()?;
    let mut shuffle_idx = WholeDocumentConfig::numbers(config.n_samples)?;
    Mt19937::new(config.seed).shuffle(&mut shuffle_idx);
    let sample_idx = (0..=config.n_samples as i64).flat_map(|i| [i, 0]).collect();
    let mut included = Vec::new();
    for document in 0..config.lengths.len() as u64 {
        // As in the reference, one label fewer than `pack_until_overflow` looks at.
        if !config.is_excluded(document, config.seq_length)? {
            included.push(document as i64);
        }
    }
    if included.is_empty() {
        return Err(config.all_excluded());
    }
    let mut doc_idx = try_with_capacity(config.n_samples + 1)?;
    doc_idx.extend(included.iter().cycle().take(config.n_samples as usize + 1));
    Ok(WholeDocumentArrays {
        doc_idx,
        sample_idx,
        shuffle_idx,
    })
}
