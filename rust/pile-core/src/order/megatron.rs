//! Megatron-LM's current order (megatron/core/datasets/gpt_dataset.py): like `packed`, except that the last
//! epoch is shuffled separately if less than 80 % of it is needed.
//!
//! For an order with a partial last sample Megatron-LM counts samples in float32, which is inexact from 2^24
//! tokens on. Here the count is exact; below 2^24 tokens both agree.

use std::ops::Range;

use super::{Mt19937, npy::Numbers, packed};
use crate::{Error, Result, progress::Progress};

/// The settings of Megatron-LM's order.
#[derive(Debug, Clone)]
pub struct MegatronConfig {
    /// Tokens the model sees at once.
    pub seq_length: u64,
    /// Number of samples; one epoch if `None`.
    pub n_samples: Option<u64>,
    /// Seed of all shuffles.
    pub seed: u32,
    /// 1 if samples have one token more for the last label (Megatron-LM's default), else 0.
    pub extra: u64,
    /// Whether a partial last sample is dropped.
    pub drop_last_partial: bool,
}

/// The three arrays of Megatron-LM's order.
#[derive(Debug)]
pub struct MegatronArrays {
    /// As in `packed`.
    pub doc_idx: Vec<i32>,
    /// As in `packed`.
    pub sample_idx: Numbers,
    /// As in `packed`.
    pub shuffle_idx: Numbers,
    /// Passes over the documents.
    pub n_epochs: u64,
    /// Whether the last epoch is shuffled separately.
    pub has_separate_epoch: bool,
    /// Tokens of the documents, each counted once.
    pub tokens_per_epoch: u64,
}

/// Builds the arrays for the documents in the range `documents` of a dataset whose documents have these `lengths`.
///
/// # Errors
/// More documents than the format can number, more data than memory holds, no tokens, a setting of zero, or a stop.
pub fn megatron(
    lengths: &[i32],
    documents: Range<usize>,
    config: &MegatronConfig,
    progress: &Progress,
) -> Result<MegatronArrays> {
    let MegatronConfig {
        seq_length: seq,
        extra,
        seed,
        ..
    } = *config;
    if seq == 0 || config.n_samples == Some(0) || extra > 1 {
        let what = "sequence length and number of samples must be at least 1, extra tokens 0 or 1";
        return Err(Error::argument(what));
    }
    let tokens = packed::tokens_of(lengths, &documents)?;
    let n_epochs = match config.n_samples {
        None => 1,
        Some(n) => {
            let needed = u128::from(n) * u128::from(seq) + u128::from(extra);
            u64::try_from(needed.div_ceil(u128::from(tokens))).map_err(|_| packed::too_large())?
        }
    };
    let n_tokens = n_epochs.checked_mul(tokens).ok_or_else(packed::too_large)? - extra;
    // Samples of all epochs but the last.
    let before_last = ((n_epochs - 1) * tokens).saturating_sub(extra) / seq;
    let in_last = config.n_samples.unwrap_or(0).saturating_sub(before_last);
    let per_epoch = (tokens - extra) / seq;
    let has_separate_epoch = n_epochs > 1 && in_last < (0.80 * per_epoch as f64) as u64;
    let mut rng = Mt19937::new(seed);
    let doc_idx = if has_separate_epoch {
        // With capacity for the last epoch.
        let mut first = packed::shuffled_documents(documents.clone(), n_epochs - 1, 1, &mut rng)?;
        first.extend(packed::shuffled_documents(documents, 1, 0, &mut rng)?);
        first
    } else {
        packed::shuffled_documents(documents, n_epochs, 0, &mut rng)?
    };
    let n_built = if config.drop_last_partial {
        n_tokens / seq
    } else {
        n_tokens.div_ceil(seq)
    };
    let string = packed::DocumentString {
        lengths,
        doc_idx: &doc_idx,
        seq_length: seq,
        extra,
        n_samples: n_built,
    };
    // The element types of both arrays are chosen as Megatron-LM chooses them.
    let sample_idx = if doc_idx.len() <= i32::MAX as usize {
        Numbers::I32(string.sample_starts(progress, |x| x as i32)?)
    } else {
        Numbers::I64(string.sample_starts(progress, |x| x as i64)?)
    };
    // Samples before the separate epoch and those of it are shuffled one after the other.
    let n_first = if has_separate_epoch {
        before_last
    } else {
        n_built
    };
    let shuffle_idx = if n_built < u64::from(u32::MAX) - 1 {
        let mut items = packed::try_with_capacity(n_built)?;
        items.extend(0..n_built as u32);
        rng.shuffle(&mut items[..n_first as usize]);
        rng.shuffle(&mut items[n_first as usize..]);
        Numbers::U32(items)
    } else {
        let mut items = packed::try_with_capacity(n_built)?;
        items.extend(0..n_built as i64);
        rng.shuffle(&mut items[..n_first as usize]);
        rng.shuffle(&mut items[n_first as usize..]);
        Numbers::I64(items)
    };
    Ok(MegatronArrays {
        doc_idx,
        sample_idx,
        shuffle_idx,
        n_epochs,
        has_separate_epoch,
        tokens_per_epoch: tokens,
    })
}
