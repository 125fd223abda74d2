//! The Python class `TokenSource`: documents or rows of tokens, without the origins of documents.

use std::{
    ffi::{OsStr, OsString},
    path::PathBuf,
    sync::Arc,
};

use numpy::{IntoPyArray, PyArray1, PyReadonlyArray1};
use pile_core::tokens::{self, Span, TokenSource as _};
use pyo3::{prelude::*, types::PyDict};

use crate::{
    dataset::{filled, index, quoted},
    errors::BindError,
};

#[derive(Clone)]
pub enum SourceKind {
    Rows(Arc<tokens::TokenRows>),
    Indexed(Arc<tokens::TokenDataset>),
}

/// Tokens in documents or rows, without the origins of documents, which `TokenDataset` has.
///
/// `TokenSource(prefix)` opens `PREFIX.idx`, and `PREFIX.bin` or its shards if they exist. Without
/// tokens, the documents can still be counted and ordered. Rows come from `rows_order`. `source[i]` is
/// the tokens of a document or row, (n_tokens,) uint16 or int32; `len(source)` is their number.
///
/// Raises:
///     FormatError: A shard is missing or damaged, or the files do not belong together; on access, there
///         are no tokens.
///     OSError: A file cannot be read.
///     IndexError: On access, there is no such document or row.
#[pyclass(module = "pile_tools._core", frozen)]
pub struct TokenSource {
    pub kind: SourceKind,
}

impl TokenSource {
    fn source(&self) -> Arc<dyn tokens::TokenSource> {
        match &self.kind {
            SourceKind::Rows(rows) => Arc::clone(rows) as _,
            SourceKind::Indexed(dataset) => Arc::clone(dataset) as _,
        }
    }
}

#[pymethods]
impl TokenSource {
    #[new]
    fn new(prefix: PathBuf) -> Result<Self, BindError> {
        let kind = SourceKind::Indexed(Arc::new(tokens::TokenDataset::open_unlabelled(&prefix)?));
        Ok(Self { kind })
    }

    /// Raises FormatError if the dataset at the prefix was replaced since; rows are not checked.
    fn check_unchanged(&self) -> Result<(), BindError> {
        match &self.kind {
            SourceKind::Rows(_) => Ok(()),
            SourceKind::Indexed(dataset) => Ok(dataset.check_unchanged()?),
        }
    }

    /// The path of the files, without suffixes; for rows, the path of their first file.
    #[getter]
    fn prefix(&self) -> &OsStr {
        match &self.kind {
            SourceKind::Rows(rows) => rows.path().as_os_str(),
            SourceKind::Indexed(dataset) => dataset.prefix().as_os_str(),
        }
    }

    /// The stored type of the tokens: `uint16` or `int32`.
    #[getter]
    fn dtype(&self) -> &'static str {
        self.source().token_type().name()
    }

    /// Whether the items are documents. Otherwise they are rows.
    #[getter]
    fn knows_documents(&self) -> bool {
        matches!(self.kind, SourceKind::Indexed(_))
    }

    /// Whether the tokens exist, not only the index.
    #[getter]
    fn has_tokens(&self) -> bool {
        match &self.kind {
            SourceKind::Rows(_) => true,
            SourceKind::Indexed(dataset) => dataset.has_tokens(),
        }
    }

    /// False: the origins are unknown.
    #[getter]
    fn has_provenance(&self) -> bool {
        false
    }

    /// An empty list: the subsets are unknown.
    #[getter]
    fn subsets(&self) -> Vec<String> {
        Vec::new()
    }

    /// A digest of the files that exist, in hexadecimal, as `TokenDataset.fingerprint`.
    #[getter]
    fn fingerprint(&self, py: Python<'_>) -> String {
        py.detach(|| match &self.kind {
            SourceKind::Rows(rows) => rows.fingerprint(),
            SourceKind::Indexed(dataset) => dataset.fingerprint(),
        })
    }

    fn __len__(&self) -> usize {
        self.source().n_documents() as usize
    }

    fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
        Ok(format!(
            "<TokenSource {}: {} {}, {}{}>",
            quoted(py, self.prefix())?,
            self.__len__(),
            if self.knows_documents() {
                "documents"
            } else {
                "rows"
            },
            self.dtype(),
            if self.has_tokens() { "" } else { ", no tokens" },
        ))
    }

    fn __getitem__<'py>(&self, py: Python<'py>, document: i64) -> PyResult<Bound<'py, PyAny>> {
        let source = self.source();
        let document = index(document, source.n_documents())?;
        let length = source.document_length(document).map_err(BindError::from)?;
        let span = Span {
            document,
            start: 0,
            length,
        };
        // Reading the first token fails if there are no tokens, before an array of the length in the index is
        // allocated.
        source
            .tokens(&[Span {
                length: length.min(1),
                ..span
            }])
            .map_err(BindError::from)?;
        filled(py, source.token_type(), &[length as usize], |out| {
            source.read(&[span], out).map(drop)
        })
    }

    /// None: the origin of every document is unknown.
    #[allow(clippy::unused_self)] // the signature of TokenDataset's
    fn origin<'py>(&self, document: u64) -> Option<Bound<'py, PyDict>> {
        let _ = document;
        None
    }

    /// -1 for each document, as its subset is unknown: (n,) int64 to (n,) int32.
    #[allow(clippy::unused_self)] // the signature of TokenDataset's
    fn subset_numbers<'py>(
        &self,
        py: Python<'py>,
        documents: PyReadonlyArray1<'py, i64>,
    ) -> Bound<'py, PyArray1<i32>> {
        vec![-1; documents.as_array().len()].into_pyarray(py)
    }
}

/// The files of a token file, one or its shards, and their sizes in bytes.
///
/// Checks them against each other and against their `.idx`, if there is one.
///
/// Raises:
///     FormatError: There is no such file, a shard is missing, surplus or of a wrong size, or the index is
///         damaged.
///     OSError: A file cannot be read.
#[pyfunction]
pub fn token_files(path: PathBuf) -> Result<Vec<(OsString, u64)>, BindError> {
    let (files, _) = tokens::TokenFiles::open_with_index(&path)?;
    Ok(files
        .files()
        .iter()
        .map(|file| (file.path().into(), file.bytes().len() as u64))
        .collect())
}
