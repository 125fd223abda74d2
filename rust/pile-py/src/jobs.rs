//! The long jobs, with progress reports and Ctrl-C.

use std::path::PathBuf;

use pile_core::{
    order,
    read::{BadRecords, DEFAULT_MAX_RECORD, Rules},
    tokenize,
    tokens::{self, BuildConfig, LabelConfig, MergeConfig},
};
use pyo3::{exceptions::PyRuntimeError, prelude::*};

use crate::{
    errors::BindError,
    progress::{watch, watch_tokens},
    tokenizer::Tokenizer,
};

/// Converts a summary to Python's built-in types, through JSON.
pub fn to_python<'py>(
    py: Python<'py>,
    summary: &impl serde::Serialize,
) -> PyResult<Bound<'py, PyAny>> {
    let json =
        serde_json::to_string(summary).map_err(|err| PyRuntimeError::new_err(err.to_string()))?;
    py.import("json")?.call_method1("loads", (json,))
}

/// The rules by which records are read.
pub fn rules(text_field: &str, skip_bad_records: bool, max_record: u64) -> Rules {
    Rules {
        text_field: text_field.to_owned(),
        bad_records: match skip_bad_records {
            true => BadRecords::Skip,
            false => BadRecords::Refuse,
        },
        max_record,
    }
}

/// Tokenizes shards into `FOLDER/NAME.bin`, `.idx` and `.provenance`, or resumes the same job.
///
/// Args:
///     shards: The shards, in the order of the dataset.
///     tokenizer: The tokenizer.
///     eod: The token that is appended to each document, or None.
///     folder: The folder for the files, unfinished and finished.
///     name: The name of the files.
///     job: A digest of everything that the tokens depend on, except the shards and `skip_bad_records`. Only
///         unfinished files of the same job are resumed.
///     n_threads: Number of threads that encode.
///     is_part: Whether the shards are part of a larger job, so that they may hold no documents.
///     discard: Whether unfinished files of another job are discarded. Otherwise they are an error.
///     on_progress: Called with the compressed bytes read and the tokens made so far.
///     text_field: The field of a record that has its text.
///     skip_bad_records: Whether bad records are skipped. Otherwise they are an error.
///     add_special_tokens: Whether the post-processor of the tokenizer adds its tokens to each text.
///     max_record: Number of bytes above which a record is bad.
///
/// Returns:
///     A `BuildSummary` of `pile_tools.types`.
///
/// Raises:
///     FormatError: A shard is damaged, or all shards together hold no documents.
///     OutputExistsError: The folder has unfinished files of another job, and `discard` is False.
///     OSError: A file cannot be read or written.
#[pyfunction]
#[pyo3(signature = (
    shards, tokenizer, eod, folder, name, job, n_threads, is_part, discard, on_progress = None, *,
    text_field = "text", skip_bad_records = false, add_special_tokens = false,
    max_record = DEFAULT_MAX_RECORD
))]
#[allow(clippy::too_many_arguments)] // the job's config, by keyword from Python
pub fn build_dataset<'py>(
    py: Python<'py>,
    shards: Vec<PathBuf>,
    tokenizer: &Tokenizer,
    eod: Option<u32>,
    folder: PathBuf,
    name: String,
    job: String,
    n_threads: usize,
    is_part: bool,
    discard: bool,
    on_progress: Option<Py<PyAny>>,
    text_field: &str,
    skip_bad_records: bool,
    add_special_tokens: bool,
    max_record: u64,
) -> PyResult<Bound<'py, PyAny>> {
    let config = BuildConfig {
        shards,
        rules: rules(text_field, skip_bad_records, max_record),
        add_special_tokens,
        eod,
        folder,
        name,
        job,
        is_part,
        discard,
        n_threads,
    };
    let summary = watch_tokens(py, on_progress, |progress| {
        tokens::build(&config, &tokenizer.inner, progress)
    })?;
    to_python(py, &summary)
}

/// Merges datasets into `FOLDER/NAME.bin`, `.idx` and `.provenance`, or resumes the same job.
///
/// Args:
///     inputs: The prefixes of the datasets, in order.
///     folder: The folder for the files, unfinished and finished.
///     name: The name of the files.
///     job: A digest of everything that the result depends on. Only unfinished files of the same job are
///         resumed.
///     discard: Whether unfinished files of another job are discarded. Otherwise they are an error.
///     on_progress: Called with the bytes of tokens copied so far.
///     bin_sha256: The SHA-256 that the `.bin` of each input must have, in hexadecimal; empty for no check.
///
/// Returns:
///     A `MergeSummary` of `pile_tools.types`.
///
/// Raises:
///     ConfigError: There are no inputs.
///     FormatError: An input is damaged, has another SHA-256, or differs from the first in its token type.
///     OutputExistsError: The folder has unfinished files of another job, and `discard` is False.
///     OSError: A file cannot be read or written.
#[pyfunction]
#[pyo3(signature = (inputs, folder, name, job, discard, on_progress, bin_sha256))]
#[allow(clippy::too_many_arguments)] // the job's config
pub fn merge_datasets<'py>(
    py: Python<'py>,
    inputs: Vec<PathBuf>,
    folder: PathBuf,
    name: String,
    job: String,
    discard: bool,
    on_progress: Option<Py<PyAny>>,
    bin_sha256: Vec<String>,
) -> PyResult<Bound<'py, PyAny>> {
    let config = MergeConfig {
        inputs,
        folder,
        name,
        job,
        discard,
        bin_sha256,
    };
    let summary = watch(py, on_progress, |progress| tokens::merge(&config, progress))?;
    to_python(py, &summary)
}

/// Finds the record of each document of a dataset by its tokens, and writes `FOLDER/NAME.provenance`.
///
/// Args:
///     prefix: The dataset.
///     shards: The shards, in the order in which the dataset was made.
///     tokenizer: The tokenizer of the dataset.
///     eod: The token that may end each document, or None. The majority of the documents decides whether it
///         does.
///     folder: The folder for the file.
///     name: The name of the file.
///     n_threads: Number of threads that encode.
///     on_progress: Called with the bytes read so far: of the `.bin`, then of the shards on disk.
///     text_field: The field of a record that has its text.
///     skip_bad_records: Whether bad records are skipped. Otherwise they are an error.
///     add_special_tokens: Whether the post-processor of the tokenizer adds its tokens to each text.
///     max_record: Number of bytes above which a record is bad.
///
/// Returns:
///     A `LabelSummary` of `pile_tools.types`.
///
/// Raises:
///     FormatError: The dataset or a shard is damaged, or the dataset is of another tokenizer.
///     OSError: A file cannot be read or written.
#[pyfunction]
#[pyo3(signature = (
    prefix, shards, tokenizer, eod, folder, name, n_threads, on_progress = None, *,
    text_field = "text", skip_bad_records = false, add_special_tokens = false,
    max_record = DEFAULT_MAX_RECORD
))]
#[allow(clippy::too_many_arguments)] // the job's config, by keyword from Python
pub fn label_dataset<'py>(
    py: Python<'py>,
    prefix: PathBuf,
    shards: Vec<PathBuf>,
    tokenizer: &Tokenizer,
    eod: Option<u32>,
    folder: PathBuf,
    name: String,
    n_threads: usize,
    on_progress: Option<Py<PyAny>>,
    text_field: &str,
    skip_bad_records: bool,
    add_special_tokens: bool,
    max_record: u64,
) -> PyResult<Bound<'py, PyAny>> {
    let config = LabelConfig {
        prefix,
        shards,
        add_special_tokens,
        rules: rules(text_field, skip_bad_records, max_record),
        eod,
        folder,
        name,
        n_threads,
    };
    let summary = watch(py, on_progress, |progress| {
        tokens::label(&config, &tokenizer.inner, progress)
    })?;
    to_python(py, &summary)
}

/// Trains a byte-level BPE tokenizer on the documents of shards. The same for any number of threads.
///
/// Args:
///     shards: The shards.
///     vocab_size: Number of tokens: the special ones, 256 bytes and the merges. Fewer if no pair is left to
///         merge.
///     min_frequency: Number of occurrences below which a pair is not merged. 0 means 1.
///     special_tokens: Tokens that get the first ids. Their text in the documents is treated like any other.
///     n_threads: Number of threads.
///     on_progress: Called with the compressed bytes read and the merges made so far, added up.
///     text_field: The field of a record that has its text.
///     skip_bad_records: Whether bad records are skipped. Otherwise they are an error.
///     max_record: Number of bytes above which a record is bad.
///
/// Returns:
///     The content of the `tokenizer.json`, and a `TrainSummary` of `pile_tools.types`.
///
/// Raises:
///     ConfigError: The vocabulary is too small or too large, or a special token is invalid.
///     FormatError: A shard is damaged, or all documents are empty.
///     OSError: A shard cannot be read.
#[pyfunction]
#[pyo3(signature = (
    shards, vocab_size, min_frequency, special_tokens, n_threads, on_progress = None, *,
    text_field = "text", skip_bad_records = false, max_record = DEFAULT_MAX_RECORD
))]
#[allow(clippy::too_many_arguments)] // the job's config, by keyword from Python
pub fn train_tokenizer<'py>(
    py: Python<'py>,
    shards: Vec<PathBuf>,
    vocab_size: u32,
    min_frequency: u64,
    special_tokens: Vec<String>,
    n_threads: usize,
    on_progress: Option<Py<PyAny>>,
    text_field: &str,
    skip_bad_records: bool,
    max_record: u64,
) -> PyResult<(String, Bound<'py, PyAny>)> {
    let config = tokenize::TrainConfig {
        vocab_size,
        min_frequency,
        special_tokens,
    };
    let rules = rules(text_field, skip_bad_records, max_record);
    let (trained, summary) = watch(py, on_progress, |progress| {
        tokenize::train_on_shards(&shards, &rules, config, n_threads, progress)
    })?;
    Ok((trained.to_json(), to_python(py, &summary)?))
}

/// Builds an order and writes it as `STEM_{doc,sample,shuffle}_idx.npy`.
///
/// Args:
///     prefix: The dataset. Only its `.idx` is read.
///     stem: The path of the three arrays, without `_doc_idx.npy` and so on.
///     seq_length: Number of tokens the model sees at once.
///     seed: The seed of all shuffles.
///     samples: Number of samples. Exactly one of `samples` and `epochs` is given.
///     epochs: Number of passes over the documents.
///     rule: GPT-NeoX's `packed`, `pack_until_overflow` or `unpacked`, or `megatron` for Megatron-LM's order.
///     extra: Tokens of a sample beyond `seq_length`: 1 for the last label, or 0. For `megatron` only.
///     drop_last_partial: Whether a partial last sample is dropped. For `megatron` only.
///     documents: The first document to use and the end; None for all.
///     allow_chopped: Whether documents longer than a sample are cut. Otherwise they are excluded. `packed`
///         and `megatron` always cut.
///     labels: A parallel dataset of labels. `pack_until_overflow` and `unpacked` exclude documents whose
///         labels are all masked; the other rules ignore it.
///     on_progress: Called with the samples built so far.
///
/// Returns:
///     An `OrderSummary` of `pile_tools.types`.
///
/// Raises:
///     ConfigError: The arguments do not fit each other or the dataset.
///     FormatError: A dataset is damaged.
///     OSError: A file cannot be read or written.
#[pyfunction]
#[pyo3(signature = (prefix, stem, seq_length, seed, *, samples = None, epochs = None, rule = "packed", extra = 1,
    drop_last_partial = true, documents = None, allow_chopped = true, labels = None, on_progress = None))]
#[allow(clippy::too_many_arguments)] // the job's config, by keyword from Python
pub fn build_order<'py>(
    py: Python<'py>,
    prefix: PathBuf,
    stem: PathBuf,
    seq_length: u64,
    seed: u32,
    samples: Option<u64>,
    epochs: Option<u64>,
    rule: &str,
    extra: u64,
    drop_last_partial: bool,
    documents: Option<(u64, u64)>,
    allow_chopped: bool,
    labels: Option<PathBuf>,
    on_progress: Option<Py<PyAny>>,
) -> PyResult<Bound<'py, PyAny>> {
    let amount = match (samples, epochs) {
        (Some(n), None) => order::Amount::Samples(n),
        (None, Some(n)) => order::Amount::Epochs(n),
        _ => return Err(argument("give samples or epochs")),
    };
    let rule = match rule {
        "packed" => order::OrderRule::Packed,
        "pack_until_overflow" => order::OrderRule::PackUntilOverflow,
        "unpacked" => order::OrderRule::Unpacked,
        "megatron" => order::OrderRule::Megatron {
            extra,
            drop_last_partial,
        },
        _ => return Err(argument(&format!("no rule {rule:?}"))),
    };
    let config = order::OrderConfig {
        stem,
        rule,
        seq_length,
        amount,
        seed,
        documents: documents.map(|(first, end)| first..end),
        allow_chopped,
    };
    let open = |prefix: PathBuf| tokens::TokenDataset::open_index(&prefix).map_err(BindError::from);
    let (dataset, labels) = (open(prefix)?, labels.map(open).transpose()?);
    let summary = watch(py, on_progress, |progress| {
        let labels = labels.as_ref().map(|l| l as &dyn tokens::TokenSource);
        order::build(&dataset.lengths()?, labels, &config, progress)
    })?;
    to_python(py, &summary)
}

fn argument(what: &str) -> PyErr {
    BindError::from(pile_core::Error::argument(what)).into()
}

/// The first document and the end of train, valid and test, by GPT-NeoX's rule.
///
/// `split` is up to three shares such as `969,30,1`.
///
/// Raises:
///     ConfigError: `split` is not such shares, one is negative or not finite, or their sum is 0.
#[pyfunction]
pub fn split_documents(split: &str, n_documents: u64) -> Result<Vec<(u64, u64)>, BindError> {
    let parts = order::split_documents(split, n_documents)?;
    Ok(parts.iter().map(|part| (part.start, part.end)).collect())
}

/// The weights scaled to sum to one, and the number of samples to build of each dataset.
///
/// The number is 1.005 times the share of `n_samples`, rounded up, as in GPT-NeoX.
///
/// Raises:
///     ConfigError: There are no weights, one is negative or not finite, or their sum is 0.
#[pyfunction]
pub fn normalized_weights(
    weights: Vec<f64>,
    n_samples: u64,
) -> Result<(Vec<f64>, Vec<u64>), BindError> {
    Ok(order::normalized_weights(&weights, n_samples)?)
}

/// The weights of datasets by GPT-NeoX's `weight_by_num_documents`.
///
/// A smaller `alpha` gives small datasets more than their share.
#[pyfunction]
pub fn weights_by_documents(n_documents: Vec<u64>, alpha: f64) -> Vec<f64> {
    order::weights_by_documents(&n_documents, alpha)
}

/// Writes the blend of datasets as `STEM_dataset_index.npy` and `STEM_dataset_sample_index.npy`.
///
/// If a dataset runs out of samples, the blend ends there; with `as_gpt_neox`, it starts again with the first
/// sample of the dataset.
///
/// Args:
///     stem: The path of the two arrays, without `_dataset_index.npy` and so on.
///     weights: The weight of each dataset.
///     available: Number of samples of each dataset.
///     as_gpt_neox: Whether the blend is GPT-NeoX's.
///
/// Returns:
///     The number of samples of the blend, and how many are from each dataset.
///
/// Raises:
///     ConfigError: The weights are invalid, or their number is not that of the datasets.
///     OSError: A file cannot be written.
#[pyfunction]
pub fn write_blend(
    py: Python<'_>,
    stem: PathBuf,
    weights: Vec<f64>,
    available: Vec<u64>,
    as_gpt_neox: bool,
) -> Result<(u64, Vec<u64>), BindError> {
    Ok(py.detach(|| order::build_blend(&stem, &weights, &available, as_gpt_neox))?)
}

/// Panics, to test the message that users get.
#[pyfunction]
pub fn _panic(py: Python<'_>) -> PyResult<()> {
    watch(py, None, |_| panic!("on request"))
}
