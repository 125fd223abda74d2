//! `TokenDataset`.

use std::{ffi::OsStr, path::PathBuf, sync::Arc};

use numpy::{IntoPyArray, PyArray1, PyReadonlyArray1};
use pile_core::tokens::{self, Span, TokenSource, TokenType};
use pyo3::{
    exceptions::PyIndexError,
    prelude::*,
    types::{PyDict, PyString},
};

use crate::errors::BindError;

/// GPT-NeoX's `.bin` and `.idx`.
#[pyclass(module = "pile_tools._core", frozen)]
pub struct TokenDataset {
    pub inner: Arc<tokens::TokenDataset>,
}

/// A new array of the stored type and this shape, filled by `read` with the interpreter released.
pub fn filled<'py>(
    py: Python<'py>,
    token_type: TokenType,
    shape: &[usize],
    read: impl FnOnce(&mut [u8]) -> pile_core::Result<()> + Send,
) -> PyResult<Bound<'py, PyAny>> {
    let n_bytes = shape.iter().product::<usize>() * token_type.n_bytes();
    let bytes = py.detach(|| {
        let mut bytes = vec![0; n_bytes];
        read(&mut bytes).map(|()| bytes)
    });
    let array = bytes.map_err(BindError::from)?.into_pyarray(py);
    let typed = array.call_method1("view", (token_type.name(),))?;
    typed.call_method1("reshape", (shape.to_vec(),))
}

/// A Python index, negative from the end, as a number below `n`.
pub fn index(i: i64, n: u64) -> PyResult<u64> {
    let from_start = if i < 0 {
        i.saturating_add_unsigned(n)
    } else {
        i
    };
    u64::try_from(from_start)
        .ok()
        .filter(|i| *i < n)
        .ok_or_else(|| PyIndexError::new_err(format!("{i} is out of range for {n}")))
}

#[pymethods]
impl TokenDataset {
    #[new]
    fn new(prefix: PathBuf) -> Result<Self, BindError> {
        let inner = Arc::new(tokens::TokenDataset::open(&prefix)?);
        Ok(Self { inner })
    }

    #[getter]
    fn prefix(&self) -> &OsStr {
        self.inner.prefix().as_os_str()
    }

    #[getter]
    fn dtype(&self) -> &'static str {
        self.inner.token_type().name()
    }

    #[getter]
    fn n_tokens(&self) -> u64 {
        self.inner.n_tokens()
    }

    #[getter]
    fn has_provenance(&self) -> bool {
        self.inner.provenance().is_some()
    }

    #[getter]
    fn subsets(&self) -> Vec<String> {
        self.inner
            .provenance()
            .map_or(Vec::new(), |p| p.subsets().to_vec())
    }

    #[getter]
    fn shards(&self) -> Vec<String> {
        let shards = self.inner.provenance().map_or(&[][..], |p| p.shards());
        shards.iter().map(|shard| shard.path.clone()).collect()
    }

    #[getter]
    fn fingerprint(&self, py: Python<'_>) -> String {
        py.detach(|| self.inner.fingerprint())
    }

    fn __len__(&self) -> usize {
        self.inner.n_documents() as usize
    }

    fn __getitem__<'py>(&self, py: Python<'py>, document: i64) -> PyResult<Bound<'py, PyAny>> {
        let document = index(document, self.inner.n_documents())?;
        let length = self
            .inner
            .document_length(document)
            .map_err(BindError::from)?;
        let span = Span {
            document,
            start: 0,
            length,
        };
        filled(py, self.inner.token_type(), &[length as usize], |out| {
            self.inner.read(&[span], out).map(drop)
        })
    }

    fn lengths<'py>(&self, py: Python<'py>) -> Result<Bound<'py, PyArray1<i32>>, BindError> {
        Ok(py.detach(|| self.inner.lengths())?.into_pyarray(py))
    }

    fn origin<'py>(&self, py: Python<'py>, document: u64) -> PyResult<Option<Bound<'py, PyDict>>> {
        let Some(provenance) = self.inner.provenance() else {
            return Ok(None);
        };
        let Some(origin) = provenance.origin(document).map_err(BindError::from)? else {
            return Ok(None);
        };
        let dict = PyDict::new(py);
        dict.set_item("shard", PyString::new(py, origin.shard))?;
        dict.set_item("record", origin.record)?;
        dict.set_item("byte_start", origin.byte_start)?;
        dict.set_item("byte_length", origin.byte_length)?;
        dict.set_item("subset", origin.subset)?;
        Ok(Some(dict))
    }

    fn documents_of(&self, py: Python<'_>, shard: u32, record: u64) -> Result<Vec<u64>, BindError> {
        let Some(provenance) = self.inner.provenance() else {
            return Ok(Vec::new());
        };
        Ok(py.detach(|| provenance.documents_of(shard, record))?)
    }

    fn first_token(&self, document: u64) -> Result<u64, BindError> {
        Ok(self.inner.first_token(document)?)
    }

    fn subset_numbers<'py>(
        &self,
        py: Python<'py>,
        documents: PyReadonlyArray1<'py, i64>,
    ) -> Result<Bound<'py, PyArray1<i32>>, BindError> {
        let documents = documents.as_array();
        let numbers = documents
            .iter()
            .map(|document| self.inner.subset_number(*document));
        Ok(numbers
            .collect::<pile_core::Result<Vec<i32>>>()?
            .into_pyarray(py))
    }

    fn check(&self, py: Python<'_>) -> Result<(), BindError> {
        Ok(py.detach(|| self.inner.check())?)
    }

    fn __getnewargs__(&self) -> (PathBuf,) {
        (self.inner.prefix().to_owned(),)
    }
}
