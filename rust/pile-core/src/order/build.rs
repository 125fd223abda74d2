//! The order job: builds the three `.npy` files for a token dataset.

use std::{
    ops::Range,
    path::{Path, PathBuf},
};

use serde::Serialize;

use super::{
    Amount, IndexedSamples, MegatronConfig, SampleLayout, Samples, WholeDocumentConfig, megatron,
    npy::Numbers, pack_until_overflow, packed, unpacked,
};
use crate::{
    Error, Result,
    io::write_atomically,
    progress::Progress,
    tokens::{Span, TokenSource},
};

/// The rule by which documents become samples.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OrderRule {
    /// GPT-NeoX's `packed`.
    Packed,
    /// GPT-NeoX's `pack_until_overflow`.
    PackUntilOverflow,
    /// GPT-NeoX's `unpacked`.
    Unpacked,
    /// Megatron-LM's order.
    Megatron {
        /// 1 if samples have one token more than the model sees, the last label; else 0.
        extra: u64,
        /// Whether a partial last sample is dropped.
        drop_last_partial: bool,
    },
}

/// The settings of an order.
#[derive(Debug, Clone)]
pub struct OrderConfig {
    /// The files are `STEM_doc_idx.npy`, `STEM_sample_idx.npy`, `STEM_shuffle_idx.npy`.
    pub stem: PathBuf,
    /// The rule by which documents become samples.
    pub rule: OrderRule,
    /// Tokens that the model sees at once: a sample's tokens minus the last label.
    pub seq_length: u64,
    /// Number of samples or epochs.
    pub amount: Amount,
    /// Seed of all shuffles.
    pub seed: u32,
    /// The documents to use; all if `None`.
    pub documents: Option<Range<u64>>,
    /// Whether documents longer than a sample are cut, else excluded. `packed` and Megatron-LM orders always cut.
    pub allow_chopped: bool,
}

impl OrderConfig {
    /// A `packed` order of a whole dataset.
    #[must_use]
    pub fn packed(stem: PathBuf, seq_length: u64, n_samples: u64, seed: u32) -> Self {
        Self {
            stem,
            rule: OrderRule::Packed,
            seq_length,
            amount: Amount::Samples(n_samples),
            seed,
            documents: None,
            allow_chopped: true,
        }
    }

    /// The layout with which the arrays of this order are read.
    #[must_use]
    pub fn layout(&self) -> SampleLayout {
        let mut layout = SampleLayout::packed(self.seq_length);
        match self.rule {
            OrderRule::Packed => {}
            OrderRule::PackUntilOverflow | OrderRule::Unpacked => layout.is_padded = true,
            OrderRule::Megatron {
                extra,
                drop_last_partial,
            } => {
                layout.extra = extra;
                layout.is_padded = !drop_last_partial;
            }
        }
        layout
    }
}

/// Figures of a built order.
#[derive(Debug, Clone, Serialize)]
pub struct OrderSummary {
    /// Number of samples.
    pub n_samples: u64,
    /// Passes over the documents; `None` for rules that do not count them.
    pub n_epochs: Option<u64>,
    /// Whether the last epoch is shuffled separately (Megatron-LM).
    pub has_separate_epoch: bool,
    /// Tokens of the documents, each counted once.
    pub tokens_per_epoch: u64,
    /// Documents, each counted once.
    pub n_documents: u64,
    /// Positions of the samples that GPT-NeoX cannot read and replaces by another sample. Only
    /// `pack_until_overflow` has one: its last sample, which no document follows.
    pub replaced_by_gpt_neox: Vec<u64>,
}

struct BuiltArrays {
    /// The document, sample and shuffle index.
    arrays: [Numbers; 3],
    n_epochs: Option<u64>,
    has_separate_epoch: bool,
}

/// Builds an order and writes its files, each atomically. `labels` is the parallel dataset of labels, if
/// there is one: `pack_until_overflow` and `unpacked` exclude documents whose labels are all masked, and the other
/// rules ignore it.
///
/// # Errors
/// No documents, documents outside the dataset or without tokens, no samples, the errors of the rule, or files that
/// cannot be written.
pub fn build(
    lengths: &[i32],
    labels: Option<&dyn TokenSource>,
    config: &OrderConfig,
    progress: &Progress,
) -> Result<OrderSummary> {
    let documents = config.documents.clone().unwrap_or(0..lengths.len() as u64);
    let documents = documents.start as usize..documents.end as usize;
    if documents.is_empty() {
        return Err(Error::argument(format!(
            "no documents: this part of the {} is empty",
            lengths.len()
        )));
    }
    // Fails if the range is not within the dataset: the slice of `lengths` below relies on it.
    let tokens_per_epoch = packed::tokens_of(lengths, &documents)?;
    let n_documents = documents.len() as u64;
    let built = arrays(lengths, documents, labels, config, progress)?;
    // Whole documents are repeated until there are samples enough: only the other rules, which count epochs, can
    // have none.
    if built.arrays[2].is_empty() {
        let n_tokens = tokens_per_epoch * built.n_epochs.unwrap_or(1);
        return Err(Error::argument(format!(
            "no samples: {n_tokens} tokens do not fill one of sequence length {}",
            config.seq_length
        )));
    }
    for ((name, width), numbers) in [("doc_idx", 1), ("sample_idx", 2), ("shuffle_idx", 1)]
        .iter()
        .zip(&built.arrays)
    {
        write_atomically(&array_path(&config.stem, name), |out| {
            numbers.write(out, *width)
        })?;
    }
    Ok(OrderSummary {
        n_samples: built.arrays[2].len() as u64,
        n_epochs: built.n_epochs,
        has_separate_epoch: built.has_separate_epoch,
        tokens_per_epoch,
        n_documents,
        replaced_by_gpt_neox: IndexedSamples::open(&config.stem, config.layout())?.replaced(),
    })
}

fn arrays(
    lengths: &[i32],
    documents: Range<usize>,
    labels: Option<&dyn TokenSource>,
    config: &OrderConfig,
    progress: &Progress,
) -> Result<BuiltArrays> {
    let (seq_length, seed) = (config.seq_length, config.seed);
    match config.rule {
        OrderRule::Packed => {
            let built = packed(
                lengths,
                documents,
                seq_length,
                config.amount,
                seed,
                progress,
            )?;
            Ok(BuiltArrays {
                arrays: [
                    Numbers::I32(built.doc_idx),
                    built.sample_idx,
                    built.shuffle_idx,
                ],
                n_epochs: Some(built.n_epochs),
                has_separate_epoch: false,
            })
        }
        OrderRule::Megatron {
            extra,
            drop_last_partial,
        } => {
            let n_samples = match config.amount {
                Amount::Samples(n) => Some(n),
                Amount::Epochs(1) => None,
                Amount::Epochs(n) => {
                    return Err(Error::argument(format!(
                        "{n} epochs: Megatron-LM takes a number of samples, or one epoch"
                    )));
                }
            };
            let megatron_config = MegatronConfig {
                seq_length,
                n_samples,
                seed,
                extra,
                drop_last_partial,
            };
            let built = megatron(lengths, documents, &megatron_config, progress)?;
            Ok(BuiltArrays {
                arrays: [
                    Numbers::I32(built.doc_idx),
                    built.sample_idx,
                    built.shuffle_idx,
                ],
                n_epochs: Some(built.n_epochs),
                has_separate_epoch: built.has_separate_epoch,
            })
        }
        OrderRule::PackUntilOverflow | OrderRule::Unpacked => {
            whole_documents(lengths, &documents, labels, config)
        }
    }
}

fn whole_documents(
    lengths: &[i32],
    documents: &Range<usize>,
    labels: Option<&dyn TokenSource>,
    config: &OrderConfig,
) -> Result<BuiltArrays> {
    let Amount::Samples(n_samples) = config.amount else {
        return Err(Error::argument(
            "whole documents are packed to a number of samples, not of epochs",
        ));
    };
    if documents.start != 0 {
        return Err(Error::argument(
            "GPT-NeoX numbers the documents of this rule from the dataset's first one in every part of a split, so only the first part of a split can be built",
        ));
    }
    let is_masked = |document: u64, n_tokens: u64| {
        labels.map_or(Ok(false), |labels| is_masked(labels, document, n_tokens))
    };
    let whole_config = WholeDocumentConfig {
        lengths: &lengths[documents.clone()],
        seq_length: config.seq_length,
        n_samples,
        seed: config.seed,
        allow_chopped: config.allow_chopped,
        is_masked: &is_masked,
    };
    let built = if config.rule == OrderRule::Unpacked {
        unpacked(&whole_config)?
    } else {
        pack_until_overflow(&whole_config)?
    };
    Ok(BuiltArrays {
        arrays: [built.doc_idx, built.sample_idx, built.shuffle_idx].map(Numbers::I64),
        n_epochs: None,
        has_separate_epoch: false,
    })
}

/// The label of a token without loss, PyTorch's default `ignore_index`.
const MASKED: i64 = -100;

/// Whether the labels of the first `n_tokens` tokens of a document are all masked, as in a document without tokens. The
/// rules differ in `n_tokens`: `unpacked` leaves out the last label of a sample.
fn is_masked(labels: &dyn TokenSource, document: u64, n_tokens: u64) -> Result<bool> {
    let length = labels.document_length(document)?.min(n_tokens);
    let span = Span {
        document,
        start: 0,
        length,
    };
    Ok(labels.tokens(&[span])?.iter().all(|token| *token == MASKED))
}

/// `STEM_ARRAY.npy`.
pub(super) fn array_path(stem: &Path, array: &str) -> PathBuf {
    let mut path = stem.as_os_str().to_owned();
    path.push(format!("_{array}.npy"));
    PathBuf::from(path)
}
