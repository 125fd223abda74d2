//! The algorithms of pile-tools, in layers: io -> read -> dedup -> tokenize -> tokens -> count -> search -> order
//! -> timeline -> contamination.
//!
//! This crate does not depend on Python, prints nothing and parses no options. A layer uses only the layers before it,
//! which `tests/layers.rs` checks; any layer may use `error`, `progress`, `bytes` and `text`.

#[cfg(target_endian = "big")]
compile_error!("the token formats are little-endian and are memory-mapped as they are");

mod bytes;
pub mod contamination;
pub mod count;
pub mod dedup;
pub mod error;
pub mod io;
pub mod order;
pub mod progress;
pub mod read;
pub mod search;
mod text;
pub mod timeline;
pub mod tokenize;
pub mod tokens;

pub use error::{Error, ErrorKind, Result};
