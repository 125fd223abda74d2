//! `TrainingOrder`.

use std::{path::PathBuf, sync::Arc};

use numpy::{IntoPyArray, PyArray2, PyArrayMethods};
use pile_core::{
    order,
    timeline::find_sequences,
    tokens::{self, TokenSource},
};
use pyo3::prelude::*;

use crate::{
    dataset::{TokenDataset, filled, index},
    errors::BindError,
    progress::watch,
};

/// The samples a model sees, in order.
#[pyclass(module = "pile_tools._core", frozen)]
pub struct TrainingOrder {
    inner: order::TrainingOrder<Arc<tokens::TokenDataset>>,
    stem: PathBuf,
}

/// Rows of `W` columns as a two-dimensional array.
fn table<const W: usize>(
    py: Python<'_>,
    rows: Vec<[i64; W]>,
) -> PyResult<Bound<'_, PyArray2<i64>>> {
    let n_rows = rows.len();
    rows.into_flattened().into_pyarray(py).reshape([n_rows, W])
}

impl TrainingOrder {
    fn read<'py>(
        &self,
        py: Python<'py>,
        first: u64,
        n: u64,
        shape: &[usize],
    ) -> PyResult<Bound<'py, PyAny>> {
        // A number of samples beyond the order is refused before room is made for it.
        self.inner.check_range(first, n).map_err(BindError::from)?;
        filled(py, self.inner.source().token_type(), shape, |out| {
            self.inner.read_batch(first, n, out)
        })
    }
}

#[pymethods]
impl TrainingOrder {
    #[new]
    fn new(stem: PathBuf, seq_length: u64, prefix: PathBuf) -> Result<Self, BindError> {
        let source = Arc::new(tokens::TokenDataset::open(&prefix)?);
        let inner = order::TrainingOrder::open(&stem, seq_length, source)?;
        Ok(Self { inner, stem })
    }

    #[getter]
    fn seq_length(&self) -> u64 {
        self.inner.sample_length() - 1
    }

    #[getter]
    fn dataset(&self) -> TokenDataset {
        TokenDataset::of(Arc::clone(self.inner.source()))
    }

    fn __len__(&self) -> usize {
        self.inner.n_samples() as usize
    }

    fn __getitem__<'py>(&self, py: Python<'py>, sample: i64) -> PyResult<Bound<'py, PyAny>> {
        let sample = index(sample, self.inner.n_samples())?;
        self.read(py, sample, 1, &[self.inner.sample_length() as usize])
    }

    fn samples<'py>(&self, py: Python<'py>, first: u64, n: u64) -> PyResult<Bound<'py, PyAny>> {
        self.read(
            py,
            first,
            n,
            &[n as usize, self.inner.sample_length() as usize],
        )
    }

    fn spans<'py>(
        &self,
        py: Python<'py>,
        first: u64,
        n: u64,
    ) -> PyResult<Bound<'py, PyArray2<i64>>> {
        let spans = py
            .detach(|| self.inner.batch_spans(first, n))
            .map_err(BindError::from)?;
        let row = |s: order::SampleSpan| {
            [s.row, s.span.document, s.span.start, s.span.length].map(|x| x as i64)
        };
        table(py, spans.into_iter().map(row).collect())
    }

    #[pyo3(signature = (sequences, n_samples, on_progress = None))]
    fn find<'py>(
        &self,
        py: Python<'py>,
        sequences: Vec<Vec<i64>>,
        n_samples: u64,
        on_progress: Option<Py<PyAny>>,
    ) -> PyResult<Bound<'py, PyArray2<i64>>> {
        let places = watch(py, on_progress, |progress| {
            find_sequences(&self.inner, &sequences, n_samples, progress)
        })?;
        table(
            py,
            places
                .into_iter()
                .map(|p| [p.sequence, p.sample, p.offset].map(|x| x as i64))
                .collect(),
        )
    }

    fn __getnewargs__(&self) -> (PathBuf, u64, PathBuf) {
        (
            self.stem.clone(),
            self.seq_length(),
            self.inner.source().prefix().to_owned(),
        )
    }
}
