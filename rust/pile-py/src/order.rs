//! The Python class `TrainingOrder`.

use std::{path::PathBuf, sync::Arc};

use numpy::{IntoPyArray, PyArray2, PyArrayMethods, PyReadonlyArray1, PyReadonlyArray2};
use pile_core::{
    order,
    tokens::{self, TokenSource},
};
use pyo3::{IntoPyObjectExt, prelude::*};

use crate::{
    dataset::{TokenDataset, absolute, filled, index, quoted},
    errors::BindError,
    source::{SourceKind, TokenSource as SourceClass},
};

/// The samples that a model sees, in order, from `STEM_{doc,sample,shuffle}_idx.npy` and a dataset.
///
/// `order[i]` is the sample at an index, (sample_length,) uint16 or int32, or int64 if the datasets of a
/// blend differ in type. `len(order)` is the number of samples. `pile_tools.open_order(FOLDER)` reads the
/// arguments from the folder's `order.json`. Opens in constant time. Pickles by path, with the
/// fingerprint of the dataset.
///
/// Args:
///     stem: The path of the three arrays, without `_doc_idx.npy` and so on.
///     seq_length: Number of tokens the model sees at once.
///     prefix: The dataset. If only its `.idx` exists, `spans` works but samples cannot be read.
///     extra: Tokens of a sample beyond `seq_length`: 1 for the last label, or 0 (an option of
///         Megatron-LM).
///     is_padded: Whether the documents of a sample may be shorter or longer, and are padded or cut.
///     padding: The token that fills short samples.
///     as_gpt_neox: Whether a sample that GPT-NeoX cannot read is replaced by the one that it returns
///         instead.
///
/// Raises:
///     FormatError: The files are malformed or do not belong together; on access, there are no tokens.
///     OSError: A file cannot be read.
///     IndexError: On access, there is no such sample.
#[pyclass(module = "pile_tools._core", frozen)]
pub struct TrainingOrder {
    pub inner: Arc<order::TrainingOrder<Arc<dyn TokenSource>>>,
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
    /// An order with changes, which are in the inner order.
    Changed { base: Py<TrainingOrder> },
}

/// The order of rows that are stored in training order: a folder of shards, one shard, or a whole file.
///
/// Args:
///     path: The folder or file.
///     row_length: Number of tokens of a row. None is the 2,049 of Pythia's data; an `.idx` with a sequence
///         of another length is then an error, as its tokens are documents.
///     dtype: `uint16` or `int32`. None is the type in the `.idx` of the tokens, or uint16 without one.
///
/// Raises:
///     FormatError: A shard is missing or damaged, or the bytes are not a whole number of rows.
///     ConfigError: `dtype` is another type.
///     OSError: A file cannot be read.
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
        inner: Arc::new(order::TrainingOrder::new(Box::new(samples), source, 0)),
        origin: OrderOrigin::Rows { path, rows },
    })
}

/// The blend of orders by `STEM_dataset_index.npy` and `STEM_dataset_sample_index.npy`.
///
/// Each of the orders has one dataset. Short samples are padded with token 0.
///
/// Raises:
///     FormatError: A file is malformed.
///     ConfigError: There are no orders, they differ in sequence length, or one is a blend or an order of
///         rows.
///     OSError: A file cannot be read.
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
        inner: Arc::new(order::TrainingOrder::new(Box::new(samples), source, 0)),
        origin: OrderOrigin::Blend {
            stem,
            parts,
            is_mixed,
        },
    })
}

/// An order with changed tokens, as an intervention on it reads.
///
/// Its documents are those of `base`, and then the inserted texts in the order of `changes`.
///
/// Args:
///     base: The order without the changes, which is not of this kind itself.
///     changes: Changed tokens, by sample and offset: (n, 4) int64 with the columns sample, offset of the
///         first token in the sample, n_tokens, and 1 for an inserted text or 0 for replaced tokens.
///     tokens: The tokens of all changes, one after the other: (n_tokens,) int64.
///
/// Raises:
///     ConfigError: The changes are not sorted, overlap, are not within a sample, or have tokens that the
///         dataset cannot store.
#[pyfunction]
pub fn changed_order(
    base: Py<TrainingOrder>,
    changes: PyReadonlyArray2<'_, i64>,
    tokens: PyReadonlyArray1<'_, i64>,
) -> Result<TrainingOrder, BindError> {
    let mut tokens = tokens.as_array().to_vec().into_iter();
    let mut read = Vec::new();
    for [sample, offset, n_tokens, is_inserted] in rows(&changes)? {
        let n_tokens = usize::try_from(n_tokens).unwrap_or(0);
        let of_change: Vec<i64> = tokens.by_ref().take(n_tokens).collect();
        if of_change.len() < n_tokens {
            let what = "the changes have more tokens than are given";
            return Err(pile_core::Error::argument(what).into());
        }
        read.push(order::Change {
            // A negative number becomes one that no order has.
            sample: sample as u64,
            offset: u64::from(u32::try_from(offset).unwrap_or(u32::MAX)),
            tokens: of_change,
            kind: if is_inserted == 0 {
                order::ChangeKind::Replaced
            } else {
                order::ChangeKind::Inserted
            },
        });
    }
    let inner = order::TrainingOrder::with_changes(Arc::clone(&base.get().inner), read)?;
    Ok(TrainingOrder {
        inner: Arc::new(inner),
        origin: OrderOrigin::Changed { base },
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

/// The rows of a two-dimensional array, which must have `W` columns.
pub fn rows<const W: usize>(array: &PyReadonlyArray2<'_, i64>) -> Result<Vec<[i64; W]>, BindError> {
    let array = array.as_array();
    if array.ncols() != W {
        let what = format!("an array has {} columns, expected {W}", array.ncols());
        return Err(pile_core::Error::argument(what).into());
    }
    let row = |row: usize| std::array::from_fn(|column| array[[row, column]]);
    Ok((0..array.nrows()).map(row).collect())
}

impl TrainingOrder {
    /// The order itself, or the one that the changes were made to.
    fn unchanged<'a>(&'a self, py: Python<'a>) -> &'a Self {
        match &self.origin {
            OrderOrigin::Changed { base } => base.bind(py).get(),
            _ => self,
        }
    }

    fn read_shaped<'py>(
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
        match self.unchanged(py).origin {
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
            inner: Arc::new(order::TrainingOrder::new(
                Box::new(samples),
                Arc::clone(&dataset) as _,
                padding,
            )),
            origin: OrderOrigin::Arrays {
                stem,
                prefix,
                padding,
                layout,
                dataset,
            },
        })
    }

    /// Number of tokens the model sees at once.
    #[getter]
    pub fn seq_length(&self) -> u64 {
        match &self.origin {
            OrderOrigin::Arrays { layout, .. } => layout.seq_length,
            OrderOrigin::Changed { base } => base.get().seq_length(),
            // A blend has at least one part.
            OrderOrigin::Blend { parts, .. } => parts[0].get().seq_length(),
            OrderOrigin::Rows { .. } => self.inner.sample_length() - 1,
        }
    }

    /// Number of tokens of a sample, usually `seq_length + 1`.
    #[getter]
    fn sample_length(&self) -> u64 {
        self.inner.sample_length()
    }

    /// The type in which token ids are searched for, `uint16` or `int32`; `int32` for a blend of both.
    #[getter]
    fn stored_dtype(&self) -> &'static str {
        self.inner.source().token_type().name()
    }

    /// Indices of the samples that GPT-NeoX cannot read and replaces by another sample, ascending.
    #[getter]
    fn replaced(&self, py: Python<'_>) -> Vec<u64> {
        py.detach(|| self.inner.replaced())
    }

    /// The source of the documents: a `TokenDataset` or a `TokenSource`; for a blend, a list of them.
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
            OrderOrigin::Changed { base } => base.get().dataset(py),
        }
    }

    fn __len__(&self) -> usize {
        self.inner.n_samples() as usize
    }

    fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
        let (path, source) = match &self.origin {
            OrderOrigin::Changed { base } => {
                let base: String = base.bind(py).repr()?.extract()?;
                let n = self
                    .inner
                    .changes()
                    .map_or(0, |changes| changes.changes().len());
                return Ok(format!("<TrainingOrder with {n} changes of {base}>"));
            }
            OrderOrigin::Arrays { stem, prefix, .. } => {
                (stem, format!("dataset {}", quoted(py, prefix.as_os_str())?))
            }
            OrderOrigin::Rows { path, .. } => (path, "rows".to_owned()),
            OrderOrigin::Blend { stem, parts, .. } => (stem, format!("{} datasets", parts.len())),
        };
        Ok(format!(
            "<TrainingOrder {} of {source}: {} samples of {} tokens>",
            quoted(py, path.as_os_str())?,
            self.inner.n_samples(),
            self.inner.sample_length(),
        ))
    }

    fn __getitem__<'py>(&self, py: Python<'py>, sample: i64) -> PyResult<Bound<'py, PyAny>> {
        let sample = index(sample, self.inner.n_samples())?;
        self.read_shaped(py, sample, 1, &[self.inner.sample_length() as usize])
    }

    /// The samples at any indices: (n,) int64 to (n, sample_length) in the type of `read`.
    ///
    /// Raises:
    ///     IndexError: There is no such sample.
    ///     FormatError: The dataset or an array is damaged, or there are no tokens.
    ///     MemoryError: The samples do not fit into memory.
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

    /// `n` consecutive samples from index `first`: (n, sample_length) uint16 or int32.
    ///
    /// The type is int64 if the datasets of a blend differ in type, as in GPT-NeoX and Megatron-LM.
    ///
    /// Raises:
    ///     ConfigError: The order has fewer samples.
    ///     FormatError: The dataset or an array is damaged, or there are no tokens.
    ///     MemoryError: The samples do not fit into memory.
    fn read<'py>(&self, py: Python<'py>, first: u64, n: u64) -> PyResult<Bound<'py, PyAny>> {
        self.read_shaped(
            py,
            first,
            n,
            &[n as usize, self.inner.sample_length() as usize],
        )
    }

    /// The spans of documents in `n` consecutive samples from index `first`: (n_spans, 4) int64.
    ///
    /// The columns are row, document (-1: unknown), first token in the document, and number of tokens.
    ///
    /// Raises:
    ///     ConfigError: The order has fewer samples.
    ///     FormatError: The dataset or an array is damaged.
    fn spans<'py>(
        &self,
        py: Python<'py>,
        first: u64,
        n: u64,
    ) -> PyResult<Bound<'py, PyArray2<i64>>> {
        let spans = py
            .detach(|| self.inner.batch_spans(first, n))
            .map_err(BindError::from)?;
        let is_known = !matches!(self.unchanged(py).origin, OrderOrigin::Rows { .. });
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

    /// Compares the fingerprint of the reopened dataset with that of the pickled order.
    ///
    /// Raises:
    ///     FormatError: The dataset was replaced meanwhile.
    fn __setstate__(&self, py: Python<'_>, of_dataset: &str) -> Result<(), BindError> {
        let (path, found) = match &self.origin {
            OrderOrigin::Arrays {
                prefix, dataset, ..
            } => (prefix, py.detach(|| dataset.fingerprint())),
            OrderOrigin::Rows { path, rows } => (path, py.detach(|| rows.fingerprint())),
            OrderOrigin::Changed { .. } | OrderOrigin::Blend { .. } => return Ok(()),
        };
        if found == of_dataset {
            return Ok(());
        }
        let what = "was replaced since the order was opened; open it again";
        Err(pile_core::Error::malformed(path, what).into())
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
                dataset,
            } => {
                let arguments = (
                    absolute(stem)?,
                    l.seq_length,
                    absolute(prefix)?,
                    l.extra,
                    l.is_padded,
                    *padding,
                    l.as_gpt_neox,
                );
                let of_dataset = py.detach(|| dataset.fingerprint());
                (slf.get_type(), arguments, of_dataset).into_bound_py_any(py)
            }
            OrderOrigin::Rows { path, rows } => {
                let arguments = (absolute(path)?, rows.row_length(), rows.token_type().name());
                let of_rows = py.detach(|| rows.fingerprint());
                (core.getattr("rows_order")?, arguments, of_rows).into_bound_py_any(py)
            }
            OrderOrigin::Changed { base } => {
                let changes = order.inner.changes().map_or(&[][..], |all| all.changes());
                let row = |change: &order::Change| {
                    let is_inserted = change.kind == order::ChangeKind::Inserted;
                    let numbers = [change.sample, change.offset, change.tokens.len() as u64];
                    let [sample, offset, n_tokens] = numbers.map(|number| number as i64);
                    [sample, offset, n_tokens, i64::from(is_inserted)]
                };
                let rows = table(py, changes.iter().map(row).collect())?;
                let tokens = changes
                    .iter()
                    .flat_map(|change| change.tokens.iter().copied());
                let tokens = tokens.collect::<Vec<i64>>().into_pyarray(py);
                (
                    core.getattr("changed_order")?,
                    (base.bind(py), rows, tokens),
                )
                    .into_bound_py_any(py)
            }
            OrderOrigin::Blend { stem, parts, .. } => {
                let parts: Vec<_> = parts.iter().map(|part| part.bind(py)).collect();
                (core.getattr("blended_order")?, (absolute(stem)?, parts)).into_bound_py_any(py)
            }
        }
    }
}
