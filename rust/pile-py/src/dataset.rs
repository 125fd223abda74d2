//! The Python class `TokenDataset`.

use std::{
    ffi::{OsStr, OsString},
    ops::Range,
    path::{Path, PathBuf},
    sync::Arc,
};

use numpy::{IntoPyArray, PyArray1, PyArrayMethods, PyReadonlyArray1};
use pile_core::{
    progress::Progress,
    tokens::{self, TokenSource, TokenType},
};
use pyo3::{
    exceptions::{PyIndexError, PyMemoryError, PyTypeError},
    prelude::*,
    sync::PyOnceLock,
    types::{PyDict, PyList, PySlice, PySliceMethods, PyString},
};

use crate::{
    errors::BindError,
    mapped::{MappedFile, numpy_bytes},
    progress::{detached, watch},
};

/// Documents from which on a call takes long enough to be interrupted.
const WATCHED: usize = 1 << 16;

/// A dataset in GPT-NeoX's format: `PREFIX.bin` and `PREFIX.idx`, memory-mapped.
///
/// A document is one sequence of the index, as GPT-NeoX counts them. `PREFIX.provenance`, if it exists,
/// has the origins of the documents. The tokens may be in shards `PREFIX-000NN-of-000MM.bin`.
///
/// `dataset[i]` is the tokens of a document, (n_tokens,) uint16 or int32; a slice gives a list of
/// documents. They are read-only views of the map, which stay valid after the dataset is deleted; a
/// document that spans shards is a copy. `len(dataset)` is the number of documents. Opens in constant
/// time. Pickles by path, so that the workers of a `torch.utils.data.DataLoader` can use it.
///
///     >>> dataset = TokenDataset("tokens/sample")
///     >>> dataset[0]  # the first document
///     array([ 12, 1044,  ...,    0], dtype=uint16)
///     >>> longest = max(dataset, key=len)
///     >>> dataset.origin(7)["subset"]
///     'Books'
///
/// Raises:
///     FormatError: The files are malformed or do not belong together; on access, the index is damaged
///         there.
///     OSError: A file cannot be read.
///     IndexError: On access, there is no such document.
#[pyclass(module = "pile_tools._core", frozen)]
pub struct TokenDataset {
    pub inner: Arc<tokens::TokenDataset>,
    /// The array of all tokens, created on first use.
    tokens: PyOnceLock<Py<PyAny>>,
}

impl TokenDataset {
    pub fn of(inner: Arc<tokens::TokenDataset>) -> Self {
        Self {
            inner,
            tokens: PyOnceLock::new(),
        }
    }

    /// A document's tokens: a view of the map, or a copy if they are in several shards.
    fn document<'py>(&self, py: Python<'py>, document: u64) -> PyResult<Bound<'py, PyAny>> {
        let range = self.inner.token_range(document).map_err(BindError::from)?;
        if self.token_files()?.files().len() == 1 {
            let slice = PySlice::new(py, range.start as isize, range.end as isize, 1);
            return self.tokens(py)?.get_item(slice);
        }
        self.tokens_in_shards(py, range)
    }

    /// A range of the tokens of a dataset in shards: a view if one shard holds all of them, else a copy.
    fn tokens_in_shards<'py>(
        &self,
        py: Python<'py>,
        range: Range<u64>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let token_type = self.inner.token_type();
        let width = token_type.n_bytes() as u64;
        let (start, end) = (range.start * width, range.end * width);
        let mut first = 0;
        for (number, file) in self.token_files()?.files().iter().enumerate() {
            let n_bytes = file.bytes().len() as u64;
            // An empty range is copied: it has nothing to view.
            if first <= start && end <= first + n_bytes && start < end {
                let bytes = numpy_bytes(
                    py,
                    MappedFile::TokenFile {
                        dataset: self.inner.clone(),
                        number,
                    },
                )?;
                let slice = PySlice::new(py, (start - first) as isize, (end - first) as isize, 1);
                return bytes
                    .get_item(slice)?
                    .call_method1("view", (token_type.name(),));
            }
            first += n_bytes;
        }
        let n_tokens = (range.end - range.start) as usize;
        let copy = filled(py, token_type, &[n_tokens], |out| {
            self.inner.token_files()?.read(start, out)
        })?;
        copy.getattr("flags")?.setattr("writeable", false)?;
        Ok(copy)
    }

    fn token_files(&self) -> PyResult<&tokens::TokenFiles> {
        Ok(self.inner.token_files().map_err(BindError::from)?)
    }
}

/// A new array of the stored type and the given shape. `read` fills it with the interpreter released.
pub fn filled<'py>(
    py: Python<'py>,
    token_type: TokenType,
    shape: &[usize],
    read: impl FnOnce(&mut [u8]) -> pile_core::Result<()> + Send,
) -> PyResult<Bound<'py, PyAny>> {
    let n_bytes = shape
        .iter()
        .try_fold(token_type.n_bytes(), |n, length| n.checked_mul(*length))
        .filter(|n| isize::try_from(*n).is_ok())
        .ok_or_else(|| PyMemoryError::new_err(format!("an array of shape {shape:?}")))?;
    // Allocated by numpy, which asks the system for huge pages. That saves a page fault for every 4 KiB. Called
    // through Python, as `PyArray1::zeros` panics if there is too little memory.
    let array = py
        .import("numpy")?
        .call_method1("zeros", (n_bytes, "uint8"))?;
    let array = array.cast_into::<PyArray1<u8>>()?;
    let mut bytes = array.readwrite();
    let slice = bytes.as_slice_mut()?;
    py.detach(|| read(slice)).map_err(BindError::from)?;
    drop(bytes);
    let typed = array.call_method1("view", (token_type.name(),))?;
    typed.call_method1("reshape", (shape.to_vec(),))
}

/// A path in quotes, as `repr` of Python writes it: on one line, whatever its name.
pub fn quoted(py: Python<'_>, path: &OsStr) -> PyResult<String> {
    Ok(path.into_pyobject(py)?.repr()?.to_string())
}

/// The absolute form of a path, for pickling: the process that unpickles may have another working directory.
pub fn absolute(path: &Path) -> PyResult<OsString> {
    Ok(std::path::absolute(path)?.into())
}

/// Converts a Python index, which counts from the end if negative, to a number below `n`.
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
        Ok(Self::of(Arc::new(tokens::TokenDataset::open(&prefix)?)))
    }

    /// Raises FormatError if the dataset at the prefix was replaced since it was opened.
    fn check_unchanged(&self) -> Result<(), BindError> {
        Ok(self.inner.check_unchanged()?)
    }

    /// The path of the files, without suffixes.
    #[getter]
    fn prefix(&self) -> &OsStr {
        self.inner.prefix().as_os_str()
    }

    /// The stored type of the tokens: `uint16` or `int32`.
    #[getter]
    fn dtype(&self) -> &'static str {
        self.inner.token_type().name()
    }

    /// Number of tokens of all documents.
    #[getter]
    fn n_tokens(&self) -> u64 {
        self.inner.n_tokens()
    }

    /// Whether `PREFIX.provenance` exists. The origin of a document may still be unknown.
    #[getter]
    fn has_provenance(&self) -> bool {
        self.inner.provenance().is_some()
    }

    /// Names of the subsets, in order of first appearance; empty without provenance.
    #[getter]
    fn subsets(&self) -> Vec<String> {
        self.inner
            .provenance()
            .map_or(Vec::new(), |p| p.subsets().to_vec())
    }

    /// Paths of the shards that the documents came from, as they were given; empty without provenance.
    #[getter]
    fn shards(&self) -> Vec<String> {
        let shards = self.inner.provenance().map_or(&[][..], |p| p.shards());
        shards.iter().map(|shard| shard.path.clone()).collect()
    }

    /// A digest of the index and the tokens, in hexadecimal.
    ///
    /// Of a file above 512 KiB, it covers 128 blocks of 4 KiB. It does not depend on the division into
    /// shards.
    #[getter]
    fn fingerprint(&self, py: Python<'_>) -> String {
        py.detach(|| self.inner.fingerprint())
    }

    fn __len__(&self) -> usize {
        self.inner.n_documents() as usize
    }

    fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
        Ok(format!(
            "<TokenDataset {}: {} documents, {} tokens, {}>",
            quoted(py, self.prefix())?,
            self.inner.n_documents(),
            self.inner.n_tokens(),
            self.dtype(),
        ))
    }

    /// The concatenated tokens of all documents: (n_tokens,) uint16 or int32, a read-only view.
    ///
    /// If the tokens are in several shards, it is a new copy each time.
    #[getter]
    fn tokens<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        if self.token_files()?.files().len() > 1 {
            return self.tokens_in_shards(py, 0..self.inner.n_tokens());
        }
        let make = || {
            let bytes = numpy_bytes(
                py,
                MappedFile::TokenFile {
                    dataset: self.inner.clone(),
                    number: 0,
                },
            )?;
            let array = bytes.call_method1("view", (self.inner.token_type().name(),))?;
            Ok::<_, PyErr>(array.unbind())
        };
        Ok(self.tokens.get_or_try_init(py, make)?.bind(py).clone())
    }

    fn __getitem__<'py>(&self, which: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        let (py, n) = (which.py(), self.inner.n_documents());
        if let Ok(slice) = which.cast::<PySlice>() {
            let chosen = slice.indices(n as isize)?;
            let documents =
                (0..chosen.slicelength as isize).map(|i| chosen.start + i * chosen.step);
            let views = documents.map(|document| self.document(py, document as u64));
            return Ok(PyList::new(py, views.collect::<PyResult<Vec<_>>>()?)?.into_any());
        }
        let document = which.call_method0("__index__").map_err(|_| {
            PyTypeError::new_err("documents are chosen by a number or a slice of numbers")
        })?;
        let Ok(i) = document.extract() else {
            // More than 64 bits.
            return Err(PyIndexError::new_err(format!(
                "{document} is out of range for {n}"
            )));
        };
        self.document(py, index(i, n)?)
    }

    fn __iter__<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        let builtins = slf.py().import("builtins")?;
        let documents = builtins.call_method1("range", (slf.len()?,))?;
        builtins.call_method1("map", (slf.getattr("__getitem__")?, documents))
    }

    /// Number of tokens of each document: (n_documents,) int32.
    ///
    /// Raises:
    ///     FormatError: The index is damaged.
    fn lengths<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyArray1<i32>>> {
        let lengths = detached(py, || self.inner.lengths())?.map_err(BindError::from)?;
        Ok(lengths.into_pyarray(py))
    }

    /// The origin of a document, or None if it is unknown.
    ///
    /// Raises:
    ///     ConfigError: There is no such document.
    ///     FormatError: The provenance file is damaged.
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

    /// The origins of all documents as columns, or None without provenance.
    ///
    /// `shard` and `subset` are indices into `shards` and `subsets`. Unknown values are -1.
    ///
    /// Raises:
    ///     FormatError: The provenance file is damaged.
    fn origins<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyDict>>> {
        let Some(provenance) = self.inner.provenance() else {
            return Ok(None);
        };
        let columns = detached(py, || provenance.columns())?.map_err(BindError::from)?;
        let dict = PyDict::new(py);
        dict.set_item("shard", columns.shard.into_pyarray(py))?;
        dict.set_item("record", columns.record.into_pyarray(py))?;
        dict.set_item("byte_start", columns.byte_start.into_pyarray(py))?;
        dict.set_item("byte_length", columns.byte_length.into_pyarray(py))?;
        dict.set_item("subset", columns.subset.into_pyarray(py))?;
        Ok(Some(dict))
    }

    /// The documents that came from a record of `shards[shard]`, ascending; empty without provenance.
    ///
    /// Reads the locations of all documents of the shard.
    ///
    /// Raises:
    ///     ConfigError: There is no such shard.
    ///     FormatError: The provenance file is damaged.
    fn documents_of(&self, py: Python<'_>, shard: u32, record: u64) -> Result<Vec<u64>, BindError> {
        let Some(provenance) = self.inner.provenance() else {
            return Ok(Vec::new());
        };
        Ok(py.detach(|| provenance.documents_of(shard, record))?)
    }

    /// Index of a document's first token in `tokens`.
    ///
    /// Raises:
    ///     ConfigError: There is no such document.
    ///     FormatError: The index is damaged there.
    fn first_token(&self, document: u64) -> Result<u64, BindError> {
        Ok(self.inner.token_range(document)?.start)
    }

    /// Indices into `subsets` of documents, -1 if unknown: (n,) int64 to (n,) int32.
    ///
    /// Raises:
    ///     ConfigError: There is no such document.
    ///     FormatError: The provenance file is damaged.
    fn subset_numbers<'py>(
        &self,
        py: Python<'py>,
        documents: PyReadonlyArray1<'py, i64>,
    ) -> PyResult<Bound<'py, PyArray1<i32>>> {
        let documents = documents.as_array();
        let of = |progress: &Progress| {
            self.inner
                .subset_numbers(documents.iter().copied(), progress)
        };
        // A thread costs more than the numbers of a batch.
        let numbers = match documents.len() < WATCHED {
            true => of(&Progress::default()).map_err(BindError::from)?,
            false => watch(py, None, of)?,
        };
        Ok(numbers.into_pyarray(py))
    }

    /// Checks the whole index against the tokens.
    ///
    /// Raises:
    ///     FormatError: The index is damaged; the message names the first wrong document.
    fn check(&self, py: Python<'_>) -> Result<(), BindError> {
        Ok(py.detach(|| self.inner.check())?)
    }

    fn __getnewargs__(&self) -> PyResult<(OsString,)> {
        Ok((absolute(self.inner.prefix())?,))
    }
}
