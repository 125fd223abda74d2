//! Steps of an order, their division among ranks, and the documents of their batches.

use numpy::{IntoPyArray, PyArray1, PyArray2, PyArrayMethods, PyReadonlyArray2};
use pile_core::order::{BatchDocuments, DocumentRun, MicroBatch, Steps};
use pyo3::prelude::*;

use crate::errors::BindError;

/// The position of the first sample that one rank reads in one micro-batch, and the number of samples it reads.
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

/// The document and position of each token of a batch, and the cumulative lengths of the runs of documents.
#[pyfunction]
pub fn batch_documents<'py>(
    py: Python<'py>,
    spans: PyReadonlyArray2<'py, i64>,
    n_rows: usize,
    row_length: usize,
    n_inputs: usize,
) -> PyResult<Documents<'py>> {
    let spans = spans.as_array();
    let runs = spans.rows().into_iter().map(|span| DocumentRun {
        row: span[0] as u64,
        document: span[1],
        length: span[3] as u64,
    });
    let batch = BatchDocuments::new(runs, n_rows, row_length, n_inputs).map_err(BindError::from)?;
    let shape = [n_rows, row_length];
    Ok((
        batch.documents.into_pyarray(py).reshape(shape)?,
        batch.position_ids.into_pyarray(py).reshape(shape)?,
        batch.cu_seqlens.into_pyarray(py),
    ))
}
