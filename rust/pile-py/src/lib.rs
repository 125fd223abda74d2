//! `pile_tools._core`: the Python face of `pile-core`.

mod errors;
mod progress;

use pyo3::prelude::*;

#[pymodule]
mod _core {}
