//! The order job: a token dataset in, the three `.npy` files out.

use std::path::{Path, PathBuf};

use serde::Serialize;

use super::{Amount, SampleIndex, ShuffleIndex, npy, packed};
use crate::{Result, io::write_atomically, progress::Progress, tokens::TokenDataset};

/// What to build.
#[derive(Debug, Clone)]
pub struct OrderConfig {
    /// The files are `STEM_doc_idx.npy`, `STEM_sample_idx.npy`, `STEM_shuffle_idx.npy`.
    pub stem: PathBuf,
    /// Tokens of a sample less one: what the model sees at once.
    pub seq_length: u64,
    /// Samples asked for; the built order has at least as many.
    pub n_samples: u64,
    /// Seed of both shuffles.
    pub seed: u32,
}

/// What was built.
#[derive(Debug, Clone, Serialize)]
pub struct OrderSummary {
    /// Samples in the order.
    pub n_samples: u64,
    /// Times the documents are repeated.
    pub n_epochs: u64,
    /// Tokens of the documents, once.
    pub tokens_per_epoch: u64,
    /// Documents, once.
    pub n_documents: u64,
}

/// The name GPT-NeoX gives the files of a `packed` order, less `_doc_idx.npy` and so on.
///
/// `name` is `train_0` for separate training paths, `train` for one path with a split.
#[must_use]
pub fn file_stem(
    prefix_name: &str,
    name: &str,
    n_samples: u64,
    seq_length: u64,
    seed: u32,
) -> String {
    format!("{prefix_name}_{name}_indexmap_{n_samples}ns_{seq_length}sl_{seed}s_packedpi_ac")
}

/// Builds the order and writes its files, each by rename.
///
/// # Errors
/// As [`packed`], or the files cannot be written.
pub fn build(
    dataset: &TokenDataset,
    config: &OrderConfig,
    progress: &Progress,
) -> Result<OrderSummary> {
    let lengths = dataset.lengths()?;
    let amount = Amount::Samples(config.n_samples);
    let built = packed(
        &lengths,
        0..lengths.len(),
        config.seq_length,
        amount,
        config.seed,
        progress,
    )?;
    write(&config.stem, "doc_idx", &built.doc_idx, 1)?;
    match &built.sample_idx {
        SampleIndex::I32(items) => write(&config.stem, "sample_idx", items, 2)?,
        SampleIndex::I64(items) => write(&config.stem, "sample_idx", items, 2)?,
    };
    let n_samples = match &built.shuffle_idx {
        ShuffleIndex::U32(items) => write(&config.stem, "shuffle_idx", items, 1)?,
        ShuffleIndex::I64(items) => write(&config.stem, "shuffle_idx", items, 1)?,
    };
    Ok(OrderSummary {
        n_samples: n_samples as u64,
        n_epochs: built.n_epochs,
        tokens_per_epoch: built.tokens_per_epoch,
        n_documents: lengths.len() as u64,
    })
}

/// `STEM_ARRAY.npy`.
pub(super) fn array_path(stem: &Path, array: &str) -> PathBuf {
    let mut path = stem.as_os_str().to_owned();
    path.push(format!("_{array}.npy"));
    PathBuf::from(path)
}

fn write<T: npy::Element>(stem: &Path, array: &str, items: &[T], width: usize) -> Result<usize> {
    write_atomically(&array_path(stem, array), |out| {
        npy::write(out, items, width)
    })?;
    Ok(items.len())
}
