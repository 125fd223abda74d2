//! Steps of an order, their division among ranks, and the documents of their batches.

use numpy::{IntoPyArray, PyArray1, PyArray2, PyArrayMethods, PyReadonlyArray2};
use pile_core::order::{BatchDocuments, DocumentRun, MicroBatch, Steps};
use pyo3::prelude::*;

use crate::{errors::BindError, order::rows};

/// The first sample that a data-parallel rank reads in a micro-batch of a step, and their number.
///
/// `rank` and `micro_batch` are each an index from 0 and the number of them.
///
/// Raises:
///     ConfigError: There is no such step, rank or micro-batch, or the batch does not divide into equal
///         micro-batches.
#[pyfunction]
pub fn micro_batch_samples(
    n_samples: u64,
    batch_size: u64,
    step: u64,
    rank: (i64, i64),
    micro_batch: (i64, i64),
) -> Result<(u64, u64), BindError> {
    let of = MicroBatch {
        rank: count(rank.0)?,
        n_ranks: count(rank.1)?,
        micro_batch: count(micro_batch.0)?,
        n_micro_batches: count(micro_batch.1)?,
    };
    let samples = Steps::new(n_samples, batch_size)?.micro_batch(step, of)?;
    Ok((samples.start, samples.end - samples.start))
}

fn count(number: i64) -> pile_core::Result<u64> {
    let what = || {
        pile_core::Error::argument(format!(
            "no rank or micro-batch {number}: they count from 0"
        ))
    };
    u64::try_from(number).map_err(|_| what())
}

type Documents<'py> = (
    Bound<'py, PyArray2<i64>>,
    Bound<'py, PyArray2<i32>>,
    Bound<'py, PyArray1<i32>>,
);

/// The documents, position ids and cumulative lengths of a batch: see `pile_tools.order.Batch`.
///
/// Args:
///     spans: The spans of the batch: `TrainingOrder.spans`.
///     n_rows: Number of rows.
///     row_length: Number of tokens of a row.
///     n_inputs: Number of the first tokens of each row that are inputs of the model.
///
/// Returns:
///     The document of each token, (n_rows, row_length) int64; its index in its run, (n_rows, row_length)
///     int32; and the start of each run in the concatenated inputs, then their number, (n_runs + 1,) int32.
///
/// Raises:
///     ConfigError: The spans do not fit the rows.
#[pyfunction]
pub fn batch_documents<'py>(
    py: Python<'py>,
    spans: PyReadonlyArray2<'py, i64>,
    n_rows: usize,
    row_length: usize,
    n_inputs: usize,
) -> PyResult<Documents<'py>> {
    let runs = rows(&spans)?
        .into_iter()
        .map(|[row, document, _, length]| DocumentRun {
            row: row as u64,
            document,
            length: length as u64,
        });
    let batch = BatchDocuments::new(runs, n_rows, row_length, n_inputs).map_err(BindError::from)?;
    let shape = [n_rows, row_length];
    Ok((
        batch.documents.into_pyarray(py).reshape(shape)?,
        batch.position_ids.into_pyarray(py).reshape(shape)?,
        batch.cu_seqlens.into_pyarray(py),
    ))
}
