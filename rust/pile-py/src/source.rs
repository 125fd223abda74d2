//! The Python class `TokenSource`: tokens whose documents have no known origin.

use std::{path::PathBuf, sync::Arc};

use numpy::{IntoPyArray, PyArray1, PyReadonlyArray1};
use pile_core::tokens::{self, Span, TokenSource as _};
use pyo3::{prelude::*, types::PyDict};

use crate::{
    dataset::{filled, index},
    errors::BindError,
};

#[derive(Clone)]
pub enum SourceKind {
    Rows(Arc<tokens::TokenRows>),
    Indexed(Arc<tokens::TokenDataset>),
}

/// Rows without an index, or an index whose tokens may be absent.
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
        let kind = SourceKind::Indexed(Arc::new(tokens::TokenDataset::open_index(&prefix)?));
        Ok(Self { kind })
    }

    #[getter]
    fn prefix(&self) -> PathBuf {
        match &self.kind {
            SourceKind::Rows(rows) => rows.path().to_owned(),
            SourceKind::Indexed(dataset) => dataset.prefix().to_owned(),
        }
    }

    #[getter]
    fn dtype(&self) -> &'static str {
        self.source().token_type().name()
    }

    #[getter]
    fn knows_documents(&self) -> bool {
        matches!(self.kind, SourceKind::Indexed(_))
    }

    #[getter]
    fn has_tokens(&self) -> bool {
        match &self.kind {
            SourceKind::Rows(_) => true,
            SourceKind::Indexed(dataset) => dataset.has_tokens(),
        }
    }

    #[getter]
    fn has_provenance(&self) -> bool {
        false
    }

    #[getter]
    fn subsets(&self) -> Vec<String> {
        Vec::new()
    }

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

    #[allow(clippy::unused_self)] // the signature of TokenDataset's
    fn origin<'py>(&self, document: u64) -> Option<Bound<'py, PyDict>> {
        let _ = document;
        None
    }

    #[allow(clippy::unused_self)] // the signature of TokenDataset's
    fn subset_numbers<'py>(
        &self,
        py: Python<'py>,
        documents: PyReadonlyArray1<'py, i64>,
    ) -> Bound<'py, PyArray1<i32>> {
        vec![-1; documents.as_array().len()].into_pyarray(py)
    }
}

/// The files of a token file, one or its shards, and their sizes, after checking them against each other and
/// their `.idx`.
#[pyfunction]
pub fn token_files(path: PathBuf) -> Result<Vec<(PathBuf, u64)>, BindError> {
    let (files, _) = tokens::TokenFiles::open_with_index(&path)?;
    Ok(files
        .files()
        .iter()
        .map(|file| (file.path().to_owned(), file.bytes().len() as u64))
        .collect())
}
