//! The long jobs, each watched for progress and Ctrl-C.

use std::path::PathBuf;

use pile_core::{
    order, tokenize,
    tokens::{self, BuildConfig, LabelConfig, MergeConfig},
};
use pyo3::{exceptions::PyRuntimeError, prelude::*};

use crate::{errors::BindError, progress::watch, tokenizer::Tokenizer};

/// A summary as Python's own types, through JSON.
fn to_python<'py>(py: Python<'py>, summary: &impl serde::Serialize) -> PyResult<Bound<'py, PyAny>> {
    let json =
        serde_json::to_string(summary).map_err(|err| PyRuntimeError::new_err(err.to_string()))?;
    py.import("json")?.call_method1("loads", (json,))
}

/// Tokenizes shards into a dataset's files.
#[pyfunction]
#[pyo3(signature = (shards, tokenizer, eod, folder, name, job, n_threads, is_part, discard, on_progress = None))]
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
) -> PyResult<Bound<'py, PyAny>> {
    let config = BuildConfig {
        shards,
        eod,
        folder,
        name,
        job,
        is_part,
        discard,
        n_threads,
    };
    let summary = watch(py, on_progress, |progress| {
        tokens::build(&config, &tokenizer.inner, progress)
    })?;
    to_python(py, &summary)
}

/// Merges datasets into one.
#[pyfunction]
#[pyo3(signature = (inputs, folder, name, job, discard, on_progress = None))]
pub fn merge_datasets<'py>(
    py: Python<'py>,
    inputs: Vec<PathBuf>,
    folder: PathBuf,
    name: String,
    job: String,
    discard: bool,
    on_progress: Option<Py<PyAny>>,
) -> PyResult<Bound<'py, PyAny>> {
    let config = MergeConfig {
        inputs,
        folder,
        name,
        job,
        discard,
    };
    let summary = watch(py, on_progress, |progress| tokens::merge(&config, progress))?;
    to_python(py, &summary)
}

/// Finds where a dataset's documents came from.
#[pyfunction]
#[pyo3(signature = (prefix, shards, tokenizer, eod, folder, name, n_threads, on_progress = None))]
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
) -> PyResult<Bound<'py, PyAny>> {
    let config = LabelConfig {
        prefix,
        shards,
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
#[pyo3(signature = (shards, vocab_size, min_frequency, special_tokens, n_threads, on_progress = None))]
pub fn train_tokenizer<'py>(
    py: Python<'py>,
    shards: Vec<PathBuf>,
    vocab_size: u32,
    min_frequency: u64,
    special_tokens: Vec<String>,
    n_threads: usize,
    on_progress: Option<Py<PyAny>>,
) -> PyResult<(String, Bound<'py, PyAny>)> {
    let config = tokenize::TrainConfig {
        vocab_size,
        min_frequency,
        special_tokens,
    };
    let (trained, summary) = watch(py, on_progress, |progress| {
        tokenize::train_on_shards(&shards, config, n_threads, progress)
    })?;
    Ok((trained.to_json(), to_python(py, &summary)?))
}

/// Builds an order's files.
#[pyfunction]
#[pyo3(signature = (prefix, stem, seq_length, n_samples, seed, on_progress = None))]
pub fn build_order<'py>(
    py: Python<'py>,
    prefix: PathBuf,
    stem: PathBuf,
    seq_length: u64,
    n_samples: u64,
    seed: u32,
    on_progress: Option<Py<PyAny>>,
) -> PyResult<Bound<'py, PyAny>> {
    let dataset = tokens::TokenDataset::open(&prefix).map_err(BindError::from)?;
    let config = order::OrderConfig {
        stem,
        seq_length,
        n_samples,
        seed,
    };
    let summary = watch(py, on_progress, |progress| {
        order::build(&dataset, &config, progress)
    })?;
    to_python(py, &summary)
}

/// GPT-NeoX's name of an order's files.
#[pyfunction]
pub fn order_file_stem(
    prefix_name: &str,
    name: &str,
    n_samples: u64,
    seq_length: u64,
    seed: u32,
) -> String {
    order::file_stem(prefix_name, name, n_samples, seq_length, seed)
}

/// Panics inside a watched job, so that a test can see what users are told then.
#[pyfunction]
pub fn _panic(py: Python<'_>) -> PyResult<()> {
    watch(py, None, |_| panic!("on request"))
}
