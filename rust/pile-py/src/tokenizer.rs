//! The Python class `Tokenizer`.

use std::{path::PathBuf, sync::Arc};

use numpy::{IntoPyArray, PyArray1, PyReadonlyArray1};
use pile_core::{Error, tokenize};
use pyo3::{
    prelude::*,
    types::{PyBytes, PyString},
};

use crate::{errors::BindError, progress::detached};

type Ids<'py> = Bound<'py, PyArray1<u32>>;

/// A byte-level BPE tokenizer in Hugging Face's `tokenizer.json` format. Gives the same ids.
///
/// `Tokenizer(json)` loads the bytes of a `tokenizer.json`; `Tokenizer.from_file` loads a file. Threads
/// may share a tokenizer. It pickles by the content of its file.
///
/// Raises:
///     FormatError: The bytes are not a `tokenizer.json`, or a component is not supported; the message
///         names it.
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

    /// Loads a `tokenizer.json`.
    ///
    /// Raises:
    ///     FormatError: The file is not a `tokenizer.json`, or a component is not supported; the message
    ///         names it.
    ///     OSError: The file cannot be read.
    #[staticmethod]
    fn from_file(path: PathBuf) -> Result<Self, BindError> {
        let json = tokenize::Tokenizer::read_json(&path)?;
        load(json, &path)
    }

    /// Number of distinct tokens, added tokens included.
    #[getter]
    fn vocab_size(&self) -> u32 {
        self.inner.vocab_size()
    }

    /// The end-of-document token of the file and its id, or None.
    ///
    /// It is the first special added token of `<|endoftext|>`, `<|end_of_text|>`, `</s>`, `<eos>` and
    /// `<|im_end|>` that the file has.
    #[getter]
    fn eod(&self) -> Option<(&str, u32)> {
        self.inner.eod()
    }

    /// The ids of a text: (n_tokens,) uint32.
    ///
    /// With `add_special_tokens`, the post-processor of the file adds its tokens.
    ///
    /// Raises:
    ///     FormatError: A byte of the text has no token, or the post-processor cannot be applied.
    ///     ConfigError: The text has 4 GiB or more, or a run of more than 32 MiB that cannot be split.
    #[pyo3(signature = (text, *, add_special_tokens = false))]
    fn encode<'py>(
        &self,
        py: Python<'py>,
        text: &str,
        add_special_tokens: bool,
    ) -> PyResult<Ids<'py>> {
        let ids = detached(py, || {
            let mut ids = Vec::new();
            self.encoder(add_special_tokens)?.encode(text, &mut ids)?;
            Ok::<_, Error>(ids)
        })?
        .map_err(BindError::from)?;
        Ok(ids.into_pyarray(py))
    }

    /// The concatenated ids of texts, and their offsets: (n_tokens,) uint32 and (n_texts + 1,) uint64.
    ///
    /// The ids of text i are `ids[offsets[i]:offsets[i + 1]]`.
    ///
    /// Raises:
    ///     FormatError: As `encode`.
    ///     ConfigError: As `encode`.
    #[pyo3(signature = (texts, *, add_special_tokens = false))]
    fn encode_batch<'py>(
        &self,
        py: Python<'py>,
        texts: Vec<pyo3::pybacked::PyBackedStr>,
        add_special_tokens: bool,
    ) -> PyResult<(Ids<'py>, Bound<'py, PyArray1<u64>>)> {
        let (ids, offsets) = detached(py, || {
            let mut encoder = self.encoder(add_special_tokens)?;
            let (mut ids, mut offsets) = (Vec::new(), vec![0]);
            for text in &texts {
                encoder.encode(text, &mut ids)?;
                offsets.push(ids.len() as u64);
            }
            Ok::<_, Error>((ids, offsets))
        })?
        .map_err(BindError::from)?;
        Ok((ids.into_pyarray(py), offsets.into_pyarray(py)))
    }

    /// The text of ids. Invalid UTF-8 becomes U+FFFD, as in `tokenizers`, which also skips unknown ids.
    ///
    /// Raises:
    ///     ConfigError: An id is unknown and `skip_unknown` is off, negative, or above 2**32 - 1.
    ///     FormatError: The text is longer than 1 GiB.
    #[pyo3(signature = (ids, skip_special_tokens = true, skip_unknown = false))]
    fn decode<'py>(
        &self,
        py: Python<'py>,
        ids: IdsArgument<'_>,
        skip_special_tokens: bool,
        skip_unknown: bool,
    ) -> PyResult<Bound<'py, PyString>> {
        let ids = ids.to_vec()?;
        let skipped = tokenize::Skipped {
            special_tokens: skip_special_tokens,
            unknown_ids: skip_unknown,
        };
        let text = py
            .detach(|| self.inner.decode(&ids, skipped))
            .map_err(BindError::from)?;
        // `PyString::new` panics where there is no memory for a long text.
        PyString::from_bytes(py, text.as_bytes())
    }

    /// Name of the normalizer of the file, `NFC`, or None if texts are not normalized.
    #[getter]
    fn normalizer(&self) -> Option<&'static str> {
        self.inner.normalizer()
    }

    /// The bytes that a dataset of this tokenizer stores for a text inside a document.
    ///
    /// Added tokens are replaced by what they decode to, and the rest is normalized. No prefix space is
    /// added.
    fn normalize<'py>(&self, py: Python<'py>, text: &str) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &py.detach(|| self.inner.normalize(text)))
    }

    /// The id of a token in the spelling of the vocabulary, or None.
    fn token_to_id(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
    }

    /// The token of an id in the spelling of the vocabulary, or None.
    fn id_to_token(&self, id: u32) -> Option<&str> {
        self.inner.id_to_token(id)
    }

    fn __repr__(&self) -> String {
        format!("<Tokenizer: {} tokens>", self.inner.vocab_size())
    }

    fn __getnewargs__<'py>(&self, py: Python<'py>) -> (Bound<'py, PyBytes>,) {
        (PyBytes::new(py, &self.json),)
    }
}
