//! The Python class `TrainingOrder`.

use std::{path::PathBuf, sync::Arc};

use numpy::{IntoPyArray, PyArray2, PyArrayMethods, PyReadonlyArray1};
use pile_core::{
    order,
    timeline::find_sequences,
    tokens::{self, TokenSource},
};
use pyo3::{IntoPyObjectExt, prelude::*};

use crate::{
    dataset::{TokenDataset, filled, index},
    errors::BindError,
    progress::watch,
    source::{SourceKind, TokenSource as SourceClass},
};

/// The samples that a model sees, in order.
#[pyclass(module = "pile_tools._core", frozen)]
pub struct TrainingOrder {
    pub inner: order::TrainingOrder<Arc<dyn TokenSource>>,
    origin: OrderOrigin,
}

/// What an order was opened from, for `dataset` and pickling.
enum OrderOrigin {
    Arrays {
        stem: PathBuf,
        prefix: PathBuf,
        padding: i64,
        layout: order::SampleLayout,
        dataset: Arc<tokens::TokenDataset>,
    },
    Rows {
        path: PathBuf,
        rows: Arc<tokens::TokenRows>,
    },
    Blend {
        stem: PathBuf,
        parts: Vec<Py<TrainingOrder>>,
        is_mixed: bool,
    },
}

/// An order of rows that are stored in training order.
#[pyfunction]
#[pyo3(signature = (path, row_length = None, dtype = None))]
pub fn rows_order(
    path: PathBuf,
    row_length: Option<u64>,
    dtype: Option<&str>,
) -> Result<TrainingOrder, BindError> {
    let token_type = match dtype {
        None => None,
        Some("uint16") => Some(tokens::TokenType::U16),
        Some("int32") => Some(tokens::TokenType::I32),
        Some(dtype) => {
            let what = format!("tokens of type {dtype:?}, expected uint16 or int32");
            return Err(pile_core::Error::argument(what).into());
        }
    };
    let rows = Arc::new(tokens::TokenRows::open(&path, row_length, token_type)?);
    let samples = order::RowSamples {
        n_rows: rows.n_documents(),
        row_length: rows.row_length(),
    };
    let source: Arc<dyn TokenSource> = Arc::clone(&rows) as _;
    Ok(TrainingOrder {
        inner: order::TrainingOrder::new(Box::new(samples), source, 0),
        origin: OrderOrigin::Rows { path, rows },
    })
}

/// The blend of orders, by the two arrays of a blend.
#[pyfunction]
pub fn blended_order(
    stem: PathBuf,
    parts: Vec<Py<TrainingOrder>>,
) -> Result<TrainingOrder, BindError> {
    let sources = parts
        .iter()
        .map(|part| Arc::clone(part.get().inner.source()));
    let sources = tokens::ConcatenatedSources::new(sources.collect())?;
    let mut opened = Vec::new();
    for (part, first) in parts.iter().zip(sources.first_documents()) {
        let OrderOrigin::Arrays { stem, layout, .. } = &part.get().origin else {
            return Err(pile_core::Error::argument(
                "a blend is made of orders over one dataset each",
            )
            .into());
        };
        opened.push(order::BlendPart {
            samples: order::IndexedSamples::open(stem, *layout)?,
            first_document: *first,
        });
    }
    let samples = order::BlendedSamples::open(&stem, opened)?;
    let is_mixed = sources.is_mixed();
    let source: Arc<dyn TokenSource> = Arc::new(sources);
    Ok(TrainingOrder {
        inner: order::TrainingOrder::new(Box::new(samples), source, 0),
        origin: OrderOrigin::Blend {
            stem,
            parts,
            is_mixed,
        },
    })
}

/// Rows of `W` columns as a two-dimensional array.
pub fn table<const W: usize>(
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
        // Checked first: an array for an absurd number of samples must not be allocated.
        self.inner.check_range(first, n).map_err(BindError::from)?;
        self.filled(py, shape, |out| self.inner.read_batch(first, n, out))
    }

    /// An array of tokens in the stored type. If the datasets of a blend differ in type, int64, as in GPT-NeoX and
    /// Megatron-LM.
    fn filled<'py>(
        &self,
        py: Python<'py>,
        shape: &[usize],
        read: impl FnOnce(&mut [u8]) -> pile_core::Result<()> + Send,
    ) -> PyResult<Bound<'py, PyAny>> {
        let tokens = filled(py, self.inner.source().token_type(), shape, read)?;
        match self.origin {
            OrderOrigin::Blend { is_mixed: true, .. } => tokens.call_method1("astype", ("int64",)),
            _ => Ok(tokens),
        }
    }
}

#[pymethods]
impl TrainingOrder {
    #[new]
    #[pyo3(signature = (stem, seq_length, prefix, extra = 1, is_padded = false, padding = 0, as_gpt_neox = false))]
    fn new(
        stem: PathBuf,
        seq_length: u64,
        prefix: PathBuf,
        extra: u64,
        is_padded: bool,
        padding: i64,
        as_gpt_neox: bool,
    ) -> Result<Self, BindError> {
        let layout = order::SampleLayout {
            seq_length,
            extra,
            is_padded,
            as_gpt_neox,
        };
        let dataset = Arc::new(tokens::TokenDataset::open_index(&prefix)?);
        let samples = order::IndexedSamples::open(&stem, layout)?;
        Ok(Self {
            inner: order::TrainingOrder::new(Box::new(samples), Arc::clone(&dataset) as _, padding),
            origin: OrderOrigin::Arrays {
                stem,
                prefix,
                padding,
                layout,
                dataset,
            },
        })
    }

    #[getter]
    pub fn seq_length(&self) -> u64 {
        match &self.origin {
            OrderOrigin::Arrays { layout, .. } => layout.seq_length,
            _ => self.inner.sample_length() - 1,
        }
    }

    #[getter]
    fn sample_length(&self) -> u64 {
        self.inner.sample_length()
    }

    #[getter]
    fn stored_dtype(&self) -> &'static str {
        self.inner.source().token_type().name()
    }

    #[getter]
    fn replaced(&self, py: Python<'_>) -> Vec<u64> {
        py.detach(|| self.inner.replaced())
    }

    #[getter]
    fn dataset<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let source = |kind| Bound::new(py, SourceClass { kind }).map(Bound::into_any);
        match &self.origin {
            OrderOrigin::Arrays { dataset, .. } if dataset.has_tokens() => {
                let dataset = TokenDataset::of(Arc::clone(dataset));
                Ok(Bound::new(py, dataset)?.into_any())
            }
            OrderOrigin::Arrays { dataset, .. } => source(SourceKind::Indexed(Arc::clone(dataset))),
            OrderOrigin::Rows { rows, .. } => source(SourceKind::Rows(Arc::clone(rows))),
            OrderOrigin::Blend { parts, .. } => {
                let parts = parts.iter().map(|part| part.get().dataset(py));
                let parts = parts.collect::<PyResult<Vec<_>>>()?;
                parts.into_pyobject(py)
            }
        }
    }

    fn __len__(&self) -> usize {
        self.inner.n_samples() as usize
    }

    fn __getitem__<'py>(&self, py: Python<'py>, sample: i64) -> PyResult<Bound<'py, PyAny>> {
        let sample = index(sample, self.inner.n_samples())?;
        self.read(py, sample, 1, &[self.inner.sample_length() as usize])
    }

    fn take<'py>(
        &self,
        py: Python<'py>,
        indices: PyReadonlyArray1<'py, i64>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let n_samples = self.inner.n_samples();
        let indices = indices.as_array().into_iter().map(|i| index(*i, n_samples));
        let indices = indices.collect::<PyResult<Vec<u64>>>()?;
        let shape = [indices.len(), self.inner.sample_length() as usize];
        self.filled(py, &shape, |out| self.inner.read_samples(&indices, out))
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
        let is_known = !matches!(self.origin, OrderOrigin::Rows { .. });
        let row = |s: order::SampleSpan| {
            let document = if is_known { s.span.document as i64 } else { -1 };
            [
                s.row as i64,
                document,
                s.span.start as i64,
                s.span.length as i64,
            ]
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
        let found = watch(py, on_progress, |progress| {
            find_sequences(&self.inner, &sequences, n_samples, progress)
        })?;
        table(
            py,
            found
                .into_iter()
                .map(|p| [p.sequence, p.sample, p.offset].map(|x| x as i64))
                .collect(),
        )
    }

    fn __reduce__<'py>(slf: Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        let py = slf.py();
        let core = py.import("pile_tools._core")?;
        let order = slf.get();
        match &order.origin {
            OrderOrigin::Arrays {
                stem,
                prefix,
                padding,
                layout: l,
                ..
            } => {
                let layout = (l.extra, l.is_padded, *padding, l.as_gpt_neox);
                let arguments = (
                    stem,
                    l.seq_length,
                    prefix,
                    layout.0,
                    layout.1,
                    layout.2,
                    layout.3,
                );
                (slf.get_type(), arguments).into_bound_py_any(py)
            }
            OrderOrigin::Rows { path, rows } => {
                let arguments = (path, rows.row_length(), rows.token_type().name());
                (core.getattr("rows_order")?, arguments).into_bound_py_any(py)
            }
            OrderOrigin::Blend { stem, parts, .. } => {
                let parts: Vec<_> = parts.iter().map(|part| part.bind(py)).collect();
                (core.getattr("blended_order")?, (stem, parts)).into_bound_py_any(py)
            }
        }
    }
}
