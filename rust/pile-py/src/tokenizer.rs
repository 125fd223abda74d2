//! The Python class `Tokenizer`.

use std::{path::PathBuf, sync::Arc};

use numpy::{IntoPyArray, PyArray1, PyReadonlyArray1};
use pile_core::{Error, tokenize};
use pyo3::{
    prelude::*,
    types::{PyBytes, PyString},
};

use crate::errors::BindError;

type Ids<'py> = Bound<'py, PyArray1<u32>>;

/// A byte-level BPE tokenizer.
#[pyclass(module = "pile_tools._core", frozen)]
pub struct Tokenizer {
    pub inner: Arc<tokenize::Tokenizer>,
    /// The file, from which a copy in another process is loaded.
    json: Vec<u8>,
}

fn load(json: Vec<u8>, path: &std::path::Path) -> Result<Tokenizer, BindError> {
    let inner = Arc::new(tokenize::Tokenizer::from_json(&json, path)?);
    Ok(Tokenizer { inner, json })
}

/// Ids, as a numpy array of `uint32` or as a sequence of integers.
#[derive(FromPyObject)]
pub enum IdsArgument<'py> {
    U32(PyReadonlyArray1<'py, u32>),
    List(Vec<i64>),
}

impl IdsArgument<'_> {
    fn to_vec(&self) -> Result<Vec<u32>, BindError> {
        match self {
            Self::U32(array) => Ok(array.as_array().iter().copied().collect()),
            Self::List(ids) => ids.iter().map(|id| id_of(*id)).collect(),
        }
    }
}

fn id_of(id: i64) -> Result<u32, BindError> {
    u32::try_from(id).map_err(|_| Error::argument(format!("id {id} is not within 0..2^32")).into())
}

impl Tokenizer {
    fn encoder(&self, add_special_tokens: bool) -> pile_core::Result<tokenize::Encoder<'_>> {
        match add_special_tokens {
            true => self.inner.encoder_with_special_tokens(),
            false => Ok(self.inner.encoder()),
        }
    }
}

#[pymethods]
impl Tokenizer {
    #[new]
    fn new(json: &[u8]) -> Result<Self, BindError> {
        load(json.to_vec(), "tokenizer.json".as_ref())
    }

    #[staticmethod]
    fn from_file(path: PathBuf) -> Result<Self, BindError> {
        let json = tokenize::Tokenizer::read_json(&path)?;
        load(json, &path)
    }

    #[getter]
    fn vocab_size(&self) -> u32 {
        self.inner.vocab_size()
    }

    #[getter]
    fn eod(&self) -> Option<(&str, u32)> {
        self.inner.eod()
    }

    #[pyo3(signature = (text, *, add_special_tokens = false))]
    fn encode<'py>(
        &self,
        py: Python<'py>,
        text: &str,
        add_special_tokens: bool,
    ) -> Result<Ids<'py>, BindError> {
        let ids = py.detach(|| {
            let mut ids = Vec::new();
            self.encoder(add_special_tokens)?.encode(text, &mut ids)?;
            Ok::<_, Error>(ids)
        })?;
        Ok(ids.into_pyarray(py))
    }

    #[pyo3(signature = (texts, *, add_special_tokens = false))]
    fn encode_batch<'py>(
        &self,
        py: Python<'py>,
        texts: Vec<pyo3::pybacked::PyBackedStr>,
        add_special_tokens: bool,
    ) -> Result<(Ids<'py>, Bound<'py, PyArray1<u64>>), BindError> {
        let (ids, offsets) = py.detach(|| {
            let mut encoder = self.encoder(add_special_tokens)?;
            let (mut ids, mut offsets) = (Vec::new(), vec![0]);
            for text in &texts {
                encoder.encode(text, &mut ids)?;
                offsets.push(ids.len() as u64);
            }
            Ok::<_, Error>((ids, offsets))
        })?;
        Ok((ids.into_pyarray(py), offsets.into_pyarray(py)))
    }

    #[pyo3(signature = (ids, skip_special_tokens = true))]
    fn decode<'py>(
        &self,
        py: Python<'py>,
        ids: IdsArgument<'_>,
        skip_special_tokens: bool,
    ) -> PyResult<Bound<'py, PyString>> {
        let ids = ids.to_vec()?;
        let text = py
            .detach(|| self.inner.decode(&ids, skip_special_tokens))
            .map_err(BindError::from)?;
        // `PyString::new` panics where there is no memory for a long text.
        PyString::from_bytes(py, text.as_bytes())
    }

    #[getter]
    fn normalizer(&self) -> Option<&'static str> {
        self.inner.normalizer()
    }

    fn normalize<'py>(&self, py: Python<'py>, text: &str) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &py.detach(|| self.inner.normalize(text)))
    }

    fn token_to_id(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
    }

    fn id_to_token(&self, id: u32) -> Option<&str> {
        self.inner.id_to_token(id)
    }

    fn __getnewargs__<'py>(&self, py: Python<'py>) -> (Bound<'py, PyBytes>,) {
        (PyBytes::new(py, &self.json),)
    }
}
