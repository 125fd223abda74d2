//! GPT-NeoX's `packed` rule: documents shuffled, strung together and cut into samples.
//!
//! Follows `GPT2Dataset` of GPT-NeoX (megatron/data/gpt2_dataset.py): all epochs' documents are
//! shuffled together, a sample is `seq_length + 1` tokens and shares its last token with the next
//! one's first, and the samples are shuffled with the same random stream.

use super::Mt19937;
use crate::{Error, Result, progress::Progress};

/// The three arrays, in the reference's types.
#[derive(Debug)]
pub struct Packed {
    /// Document numbers in the order in which they are strung together, all epochs.
    pub doc_idx: Vec<i32>,
    /// Where each sample starts, as (place in `doc_idx`, token in that document); one more at the end.
    pub sample_idx: SampleIndex,
    /// The sample to take at each place of the training order.
    pub shuffle_idx: ShuffleIndex,
    /// Times the documents are repeated.
    pub n_epochs: u64,
    /// Tokens of the documents, once.
    pub tokens_per_epoch: u64,
}

/// Sample starts, flattened pairs; the reference switches to 64 bits by the number of samples.
#[derive(Debug, PartialEq, Eq)]
pub enum SampleIndex {
    /// `int32`.
    I32(Vec<i32>),
    /// `int64`.
    I64(Vec<i64>),
}

/// A permutation of the samples.
#[derive(Debug, PartialEq, Eq)]
pub enum ShuffleIndex {
    /// `uint32`, below 2^32 - 2 samples.
    U32(Vec<u32>),
    /// `int64`.
    I64(Vec<i64>),
}

/// The least number of epochs whose tokens give `n_samples`, by the reference's rule.
///
/// # Errors
/// The documents hold no tokens.
pub fn n_epochs_for(n_samples: u64, tokens_per_epoch: u64, seq_length: u64) -> Result<u64> {
    if tokens_per_epoch == 0 {
        return Err(Error::argument(
            "the documents hold no tokens, so no sample can be made",
        ));
    }
    // (e * tokens - 1) / seq_length >= n_samples, the least e >= 1.
    let needed = u128::from(n_samples) * u128::from(seq_length) + 1;
    let n_epochs = needed.div_ceil(u128::from(tokens_per_epoch)).max(1);
    u64::try_from(n_epochs).map_err(|_| {
        Error::argument(format!(
            "{n_samples} samples need more epochs than can be counted"
        ))
    })
}

/// Builds the arrays for documents of the given lengths; `progress` advances by samples.
///
/// # Errors
/// More documents than the format numbers, an empty dataset, a zero sequence length, or a stop.
pub fn packed(
    lengths: &[i32],
    seq_length: u64,
    n_samples: u64,
    seed: u32,
    progress: &Progress,
) -> Result<Packed> {
    if seq_length == 0 || n_samples == 0 {
        return Err(Error::argument(
            "sequence length and number of samples must be at least 1",
        ));
    }
    let n_documents = i32::try_from(lengths.len()).map_err(|_| {
        Error::argument(format!(
            "{} documents, the format numbers 2^31 - 1",
            lengths.len()
        ))
    })?;
    let tokens_per_epoch = lengths.iter().map(|length| *length as u64).sum();
    let n_epochs = n_epochs_for(n_samples, tokens_per_epoch, seq_length)?;
    let mut rng = Mt19937::new(seed);
    let mut doc_idx: Vec<i32> = (0..n_epochs).flat_map(|_| 0..n_documents).collect();
    rng.shuffle(&mut doc_idx);
    let n_built = (n_epochs * tokens_per_epoch - 1) / seq_length;
    // The reference decides by samples alone; places in doc_idx beyond 2^31 need 64 bits too.
    let is_small = 2.0 * ((n_epochs * tokens_per_epoch - 1) as f64 / seq_length as f64 + 1.0)
        < f64::from(i32::MAX)
        && doc_idx.len() <= i32::MAX as usize;
    let sample_idx = if is_small {
        SampleIndex::I32(sample_starts(
            lengths,
            &doc_idx,
            seq_length,
            n_built,
            progress,
            |x| x as i32,
        )?)
    } else {
        SampleIndex::I64(sample_starts(
            lengths,
            &doc_idx,
            seq_length,
            n_built,
            progress,
            |x| x as i64,
        )?)
    };
    let shuffle_idx = if n_built < u64::from(u32::MAX) - 1 {
        let mut items: Vec<u32> = (0..n_built as u32).collect();
        rng.shuffle(&mut items);
        ShuffleIndex::U32(items)
    } else {
        let mut items: Vec<i64> = (0..n_built as i64).collect();
        rng.shuffle(&mut items);
        ShuffleIndex::I64(items)
    };
    Ok(Packed {
        doc_idx,
        sample_idx,
        shuffle_idx,
        n_epochs,
        tokens_per_epoch,
    })
}

/// Samples between two reports of progress.
const REPORT_SAMPLES: u64 = 1 << 16;

/// Where each of `n_built` samples starts, and where the last one ends.
fn sample_starts<T>(
    lengths: &[i32],
    doc_idx: &[i32],
    seq_length: u64,
    n_built: u64,
    progress: &Progress,
    to: impl Fn(u64) -> T,
) -> Result<Vec<T>> {
    let mut starts = Vec::with_capacity(2 * (n_built as usize + 1));
    let (mut place, mut offset) = (0_usize, 0_u64);
    starts.extend([to(0), to(0)]);
    for sample in 1..=n_built {
        // Tokens to skip: the sample's last token is also the next one's first.
        let mut rest = seq_length;
        loop {
            let left = lengths[doc_idx[place] as usize] as u64 - offset;
            // The shared token must exist: a document whose tokens all go to this sample is left.
            if rest < left {
                offset += rest;
                break;
            }
            rest -= left;
            place += 1;
            offset = 0;
        }
        starts.extend([to(place as u64), to(offset)]);
        if sample % REPORT_SAMPLES == 0 {
            progress.advance(REPORT_SAMPLES)?;
        }
    }
    progress.advance(n_built % REPORT_SAMPLES)?;
    Ok(starts)
}
