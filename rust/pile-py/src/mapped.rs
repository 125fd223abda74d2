//! Memory-mapped bytes as numpy arrays.

use std::{
    ffi::{c_int, c_void},
    path::PathBuf,
    sync::Arc,
};

use pile_core::{io::Mapped, tokens::TokenDataset};
use pyo3::{ffi, prelude::*};

use crate::errors::BindError;

/// Bytes of a map as a Python buffer. Views of the buffer keep the map alive.
#[pyclass(module = "pile_tools._core", frozen)]
struct MappedBuffer(MappedFile);

/// What owns a map.
pub enum MappedFile {
    /// A file of the tokens of a dataset, which has mapped it.
    TokenFile {
        dataset: Arc<TokenDataset>,
        /// Index of the file.
        number: usize,
    },
    /// Any other file.
    File(Mapped),
}

/// A view of the bytes: (n,) uint8.
pub fn numpy_bytes(py: Python<'_>, file: MappedFile) -> PyResult<Bound<'_, PyAny>> {
    let buffer = MappedBuffer(file).into_pyobject(py)?;
    py.import("numpy")?
        .call_method1("frombuffer", (buffer, "uint8"))
}

/// The bytes of a file, memory-mapped: a read-only array, (n_bytes,) uint8.
///
/// While the array lives, `check_mapped` watches the file.
///
/// Raises:
///     FormatError: The path is of another kind than a regular file.
///     OSError: The file cannot be read.
#[pyfunction]
pub fn mapped_bytes(py: Python<'_>, path: PathBuf) -> PyResult<Bound<'_, PyAny>> {
    let file = Mapped::open(&path).map_err(BindError::from)?;
    numpy_bytes(py, MappedFile::File(file))
}

impl MappedFile {
    fn bytes(&self) -> PyResult<&[u8]> {
        Ok(match self {
            Self::TokenFile { dataset, number } => {
                let files = dataset.token_files().map_err(BindError::from)?;
                files.files()[*number].bytes()
            }
            Self::File(file) => file.bytes(),
        })
    }
}

#[pymethods]
impl MappedBuffer {
    unsafe fn __getbuffer__(
        slf: Bound<'_, Self>,
        view: *mut ffi::Py_buffer,
        flags: c_int,
    ) -> PyResult<()> {
        let bytes = slf.get().0.bytes()?;
        let (start, length) = (bytes.as_ptr().cast_mut().cast::<c_void>(), bytes.len());
        // SAFETY: Python calls this with a valid `view` to fill. `PyBuffer_FillInfo` stores a reference to
        // `slf` in it, which owns the map, so that it outlives every view. The buffer is read-only (the 1):
        // nothing writes through the pointer.
        let status =
            unsafe { ffi::PyBuffer_FillInfo(view, slf.as_ptr(), start, length as isize, 1, flags) };
        match status {
            0 => Ok(()),
            _ => Err(PyErr::fetch(slf.py())),
        }
    }
}
