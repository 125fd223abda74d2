//! Conversion of the core's errors to Python exceptions.
//!
//! The exception classes are defined in `pile_tools.errors`.

use pile_core::ErrorKind;
use pyo3::{exceptions::PyOSError, prelude::*, types::PyType};

/// Carries a core error to the Python boundary so that `?` works in bindings.
pub struct BindError(pile_core::Error);

impl From<pile_core::Error> for BindError {
    fn from(err: pile_core::Error) -> Self {
        Self(err)
    }
}

impl From<BindError> for PyErr {
    fn from(BindError(err): BindError) -> Self {
        let text = err.to_string();
        match err.kind() {
            ErrorKind::Io(e) => match e.raw_os_error() {
                // Python's OSError(errno, message, filename) picks the subclass by errno.
                Some(code) => PyOSError::new_err((code, text)),
                None => PyOSError::new_err(text),
            },
            ErrorKind::Argument(_) => raise("ConfigError", text),
            ErrorKind::Format(_) => raise("FormatError", text),
            ErrorKind::Exists(_) => raise("OutputExistsError", text),
            ErrorKind::Cancelled => raise("CancelledError", text),
            _ => raise("PileError", text),
        }
    }
}

fn raise(class: &str, text: String) -> PyErr {
    Python::attach(|py| {
        let class = py
            .import("pile_tools.errors")
            .and_then(|module| module.getattr(class))
            .and_then(|class| Ok(class.cast_into::<PyType>()?));
        match class {
            Ok(class) => PyErr::from_type(class, text),
            Err(err) => err,
        }
    })
}
