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

/// Tokenizes shards into a dataset's files.
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

/// Merges datasets into one.
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

/// Finds the provenance of a dataset.
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

/// Trains a tokenizer on shards.
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

/// Builds an order's files.
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

/// The ranges of documents of train, valid and test.
#[pyfunction]
pub fn split_documents(split: &str, n_documents: u64) -> Result<Vec<(u64, u64)>, BindError> {
    let parts = order::split_documents(split, n_documents)?;
    Ok(parts.iter().map(|part| (part.start, part.end)).collect())
}

/// The normalized weights, and the number of samples to build of each dataset.
#[pyfunction]
pub fn normalized_weights(
    weights: Vec<f64>,
    n_samples: u64,
) -> Result<(Vec<f64>, Vec<u64>), BindError> {
    Ok(order::normalized_weights(&weights, n_samples)?)
}

/// The weights of datasets by their numbers of documents.
#[pyfunction]
pub fn weights_by_documents(n_documents: Vec<u64>, alpha: f64) -> Vec<f64> {
    order::weights_by_documents(&n_documents, alpha)
}

/// Writes the two arrays of a blend. Returns its number of samples, and how many are from each dataset.
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

/// Panics inside a watched job, to test the message that users get.
#[pyfunction]
pub fn _panic(py: Python<'_>) -> PyResult<()> {
    watch(py, None, |_| panic!("on request"))
}
