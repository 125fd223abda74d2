//! Megatron-LM's current order (megatron/core/datasets/gpt_dataset.py): as `packed`, with a last epoch kept
//! apart where less than 80 % of it is needed.
//!
//! Where Megatron-LM counts the samples of an order with a partial last one in float32, which is off from
//! 2^24 tokens on, this counts exactly; both agree below.

use std::ops::Range;

use super::{Mt19937, npy::Numbers, packed};
use crate::{Error, Result, progress::Progress};

/// What the order depends on.
#[derive(Debug, Clone)]
pub struct MegatronConfig {
    /// Tokens the model sees at once.
    pub seq_length: u64,
    /// Samples wanted; one epoch where none are given.
    pub n_samples: Option<u64>,
    /// Seed of all shuffles.
    pub seed: u32,
    /// 1 where samples have a token more, as labels need (Megatron-LM's default), else 0.
    pub extra: u64,
    /// Whether a last sample that is not full is left out.
    pub drop_last_partial: bool,
}

/// The three arrays.
#[derive(Debug)]
pub struct Megatron {
    /// As in `packed`.
    pub doc_idx: Vec<i32>,
    /// As in `packed`.
    pub sample_idx: Numbers,
    /// As in `packed`.
    pub shuffle_idx: Numbers,
    /// Times the documents are repeated.
    pub n_epochs: u64,
    /// Whether the last epoch stands apart.
    pub has_separate_epoch: bool,
    /// Tokens of the documents, once.
    pub tokens_per_epoch: u64,
}

/// Builds the arrays for some documents of a dataset with these lengths.
///
/// # Errors
/// More documents than the format numbers or memory holds, no tokens, a zero, or a stop.
pub fn megatron(
    lengths: &[i32],
    documents: Range<usize>,
    config: &MegatronConfig,
    progress: &Progress,
) -> Result<Megatron> {
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
    // Samples of all epochs but the last, if the last stands apart.
    let before_last = ((n_epochs - 1) * tokens).saturating_sub(extra) / seq;
    let of_last = config.n_samples.unwrap_or(0).saturating_sub(before_last);
    let per_epoch = (tokens - extra) / seq;
    let has_separate_epoch = n_epochs > 1 && of_last < (0.80 * per_epoch as f64) as u64;
    let mut rng = Mt19937::new(seed);
    let doc_idx = if has_separate_epoch {
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
    let cut = packed::Cut {
        lengths,
        doc_idx: &doc_idx,
        seq_length: seq,
        extra,
        n_built,
    };
    let sample_idx = if doc_idx.len() <= i32::MAX as usize {
        Numbers::I32(cut.sample_starts(progress, |x| x as i32)?)
    } else {
        Numbers::I64(cut.sample_starts(progress, |x| x as i64)?)
    };
    let apart = if has_separate_epoch {
        before_last
    } else {
        n_built
    };
    let shuffle_idx = if n_built < u64::from(u32::MAX) - 1 {
        let mut items = packed::with_room(n_built)?;
        items.extend(0..n_built as u32);
        rng.shuffle(&mut items[..apart as usize]);
        rng.shuffle(&mut items[apart as usize..]);
        Numbers::U32(items)
    } else {
        let mut items = packed::with_room(n_built)?;
        items.extend(0..n_built as i64);
        rng.shuffle(&mut items[..apart as usize]);
        rng.shuffle(&mut items[apart as usize..]);
        Numbers::I64(items)
    };
    Ok(Megatron {
        doc_idx,
        sample_idx,
        shuffle_idx,
        n_epochs,
        has_separate_epoch,
        tokens_per_epoch: tokens,
    })
}
