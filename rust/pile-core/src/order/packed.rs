//! GPT-NeoX's `packed` rule: the documents are shuffled, strung together and cut into samples.
//!
//! Follows `GPT2Dataset` of GPT-NeoX (megatron/data/gpt2_dataset.py). The documents of all epochs are shuffled
//! together. A sample is `seq_length + 1` tokens; its last token is also the first token of the next sample. The
//! samples are then shuffled, with the same random stream.

use std::ops::Range;

use super::{Mt19937, npy::Numbers};
use crate::{Error, Result, io::available_memory, progress::Progress};

/// The three arrays of a `packed` order, in the reference's types.
#[derive(Debug)]
pub struct PackedArrays {
    /// Document numbers in the order in which they are strung together, all epochs.
    pub doc_idx: Vec<i32>,
    /// The start of each sample and the end of the last: pairs of an index in `doc_idx` and a token of that
    /// document. int32 if [`fits_i32`], else int64.
    pub sample_idx: Numbers,
    /// The sample at each position of the training order. uint32 below 2^32 - 2 samples, else int64.
    pub shuffle_idx: Numbers,
    /// Passes over the documents.
    pub n_epochs: u64,
    /// Tokens of the documents, each counted once.
    pub tokens_per_epoch: u64,
}

/// Returns the smallest number of epochs with enough tokens for `n_samples`, by the reference's rule.
///
/// # Errors
/// The documents hold no tokens.
pub fn n_epochs_for(n_samples: u64, tokens_per_epoch: u64, seq_length: u64) -> Result<u64> {
    if tokens_per_epoch == 0 {
        return Err(no_tokens());
    }
    // The smallest e >= 1 with (e * tokens - 1) / seq_length >= n_samples: one token is the last label.
    let needed = u128::from(n_samples) * u128::from(seq_length) + 1;
    let n_epochs = needed.div_ceil(u128::from(tokens_per_epoch)).max(1);
    u64::try_from(n_epochs).map_err(|_| {
        Error::argument(format!(
            "{n_samples} samples need more epochs than can be counted"
        ))
    })
}

/// The size of an order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Amount {
    /// At least this number of samples, from the smallest number of epochs that has them.
    Samples(u64),
    /// All samples of this number of epochs.
    Epochs(u64),
}

/// Builds the arrays for the documents in the range `documents` of a dataset whose documents have these `lengths`.
/// `progress` advances by samples.
///
/// # Errors
/// More documents than the format can number, more data than memory holds, no tokens, a setting of zero, or a stop.
pub fn packed(
    lengths: &[i32],
    documents: Range<usize>,
    seq_length: u64,
    amount: Amount,
    seed: u32,
    progress: &Progress,
) -> Result<PackedArrays> {
    if seq_length == 0 || matches!(amount, Amount::Samples(0) | Amount::Epochs(0)) {
        let what = "sequence length and number of samples or epochs must be at least 1";
        return Err(Error::argument(what));
    }
    let tokens_per_epoch = tokens_of(lengths, &documents)?;
    let n_epochs = match amount {
        Amount::Samples(n_samples) => n_epochs_for(n_samples, tokens_per_epoch, seq_length)?,
        Amount::Epochs(n_epochs) => n_epochs,
    };
    let n_tokens = n_epochs
        .checked_mul(tokens_per_epoch)
        .ok_or_else(too_large)?;
    let mut rng = Mt19937::new(seed);
    let doc_idx = shuffled_documents(documents, n_epochs, 0, &mut rng)?;
    let n_built = (n_tokens - 1) / seq_length;
    let is_small = fits_i32(n_tokens, seq_length, doc_idx.len() as u64);
    let string = DocumentString {
        lengths,
        doc_idx: &doc_idx,
        seq_length,
        extra: 1,
        n_samples: n_built,
    };
    let sample_idx = if is_small {
        Numbers::I32(string.sample_starts(progress, |x| x as i32)?)
    } else {
        Numbers::I64(string.sample_starts(progress, |x| x as i64)?)
    };
    let shuffle_idx = if n_built < u64::from(u32::MAX) - 1 {
        Numbers::U32(permutation(n_built, &mut rng, |x| x as u32)?)
    } else {
        Numbers::I64(permutation(n_built, &mut rng, |x| x as i64)?)
    };
    Ok(PackedArrays {
        doc_idx,
        sample_idx,
        shuffle_idx,
        n_epochs,
        tokens_per_epoch,
    })
}

/// Whether the sample index is int32. The reference decides by the number of samples alone, so that indices
/// in `doc_idx` from 2^31 on wrap around. Here these take 64 bits too.
fn fits_i32(n_tokens: u64, seq_length: u64, n_entries: u64) -> bool {
    2.0 * ((n_tokens - 1) as f64 / seq_length as f64 + 1.0) < f64::from(i32::MAX)
        && n_entries <= i32::MAX as u64
}

/// Tokens of a range of documents.
///
/// # Errors
/// The range is outside the dataset or has no tokens.
pub(super) fn tokens_of(lengths: &[i32], documents: &Range<usize>) -> Result<u64> {
    let selected = lengths.get(documents.clone()).ok_or_else(|| {
        Error::argument(format!(
            "no documents {documents:?}: there are {}",
            lengths.len()
        ))
    })?;
    match selected.iter().map(|length| *length as u64).sum() {
        0 => Err(no_tokens()),
        n => Ok(n),
    }
}

fn no_tokens() -> Error {
    Error::argument("the documents hold no tokens, so no sample can be made")
}

pub(super) fn too_large() -> Error {
    Error::argument("an order of this many samples does not fit into memory; ask for fewer")
}

/// An empty vector with capacity for `n` items, or an error if memory does not suffice.
pub(super) fn try_with_capacity<T>(n: u64) -> Result<Vec<T>> {
    let mut items = Vec::new();
    let n = usize::try_from(n).map_err(|_| too_large())?;
    // With overcommit, a reservation beyond the memory succeeds, and the system kills the process later.
    let n_bytes = n.checked_mul(size_of::<T>()).ok_or_else(too_large)?;
    if available_memory().is_some_and(|available| n_bytes as u64 > available) {
        return Err(too_large());
    }
    items.try_reserve_exact(n).map_err(|_| too_large())?;
    Ok(items)
}

/// The documents of `n_epochs` epochs, shuffled together, in a vector with capacity for `n_more` further epochs.
pub(super) fn shuffled_documents(
    documents: Range<usize>,
    n_epochs: u64,
    n_more: u64,
    rng: &mut Mt19937,
) -> Result<Vec<i32>> {
    let what = || {
        Error::argument(format!(
            "{} documents, the format can number 2^31 - 1",
            documents.end
        ))
    };
    let first = i32::try_from(documents.start).map_err(|_| what())?;
    let end = i32::try_from(documents.end).map_err(|_| what())?;
    let n = n_epochs
        .checked_add(n_more)
        .and_then(|n| n.checked_mul(documents.len() as u64))
        .ok_or_else(too_large)?;
    let mut doc_idx = try_with_capacity(n)?;
    for _ in 0..n_epochs {
        doc_idx.extend(first..end);
    }
    rng.shuffle(&mut doc_idx);
    Ok(doc_idx)
}

fn permutation<T>(n: u64, rng: &mut Mt19937, to: impl Fn(u64) -> T) -> Result<Vec<T>> {
    let mut items = try_with_capacity(n)?;
    items.extend((0..n).map(to));
    rng.shuffle(&mut items);
    Ok(items)
}

/// Samples between two reports of progress.
const REPORT_SAMPLES: u64 = 1 << 16;

/// Documents strung together, to be cut into `n_samples` samples.
pub(super) struct DocumentString<'a> {
    /// Tokens of each document of the dataset.
    pub lengths: &'a [i32],
    /// The documents in the order of the string.
    pub doc_idx: &'a [i32],
    pub seq_length: u64,
    /// Tokens that a sample shares with the next one: 1, or 0 if samples have no extra label.
    pub extra: u64,
    pub n_samples: u64,
}

impl DocumentString<'_> {
    /// The start of each sample and the end of the last, as pairs of an index in `doc_idx` and a token of
    /// that document. `to` converts to the type of the array.
    pub fn sample_starts<T>(&self, progress: &Progress, to: impl Fn(u64) -> T) -> Result<Vec<T>> {
        let n = self.n_samples.checked_add(1).and_then(|n| n.checked_mul(2));
        let mut starts = try_with_capacity(n.ok_or_else(too_large)?)?;
        let (mut entry, mut offset) = (0_usize, 0_u64);
        starts.extend([to(0), to(0)]);
        for sample in 1..=self.n_samples {
            // The next sample starts `seq_length` tokens later, on the shared token if there is one.
            let mut to_skip = self.seq_length;
            loop {
                let in_document = self.lengths[self.doc_idx[entry] as usize] as u64 - offset;
                // The shared token must be in this document. If the document ends right before it, the next
                // sample starts in the next document.
                if to_skip + self.extra <= in_document {
                    offset += to_skip;
                    break;
                }
                if entry + 1 == self.doc_idx.len() {
                    // A partial last sample ends with the last document. The end of a sample is where the next
                    // one would start: on the shared token, which is the document's last. For an empty
                    // document the reference writes -1.
                    offset = (offset + in_document).wrapping_sub(self.extra);
                    break;
                }
                to_skip -= in_document;
                entry += 1;
                offset = 0;
            }
            starts.extend([to(entry as u64), to(offset)]);
            if sample % REPORT_SAMPLES == 0 {
                progress.advance(REPORT_SAMPLES)?;
            }
        }
        progress.advance(self.n_samples % REPORT_SAMPLES)?;
        Ok(starts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sample_indexes_are_64_bit_at_the_size_of_the_pile() {
        // Pythia: 147,164,160 samples of 2,048 from 1.5 epochs of 134 million documents.
        assert!(fits_i32(147_164_160 * 2048, 2048, 268_000_000));
        assert!(!fits_i32((1 << 30) * 2048, 2048, 268_000_000));
        // 210 million documents in eleven epochs: the reference's int32 indices would wrap around.
        assert!(fits_i32(1 << 40, 2048, i32::MAX as u64));
        assert!(!fits_i32(1 << 40, 2048, 2_310_000_000));
    }
}
