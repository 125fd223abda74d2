//! Algorithms of pile-tools: read -> tokenize -> tokens -> count / search -> order -> timeline.
//!
//! Deduplication will stand between read and tokenize.
//!
//! Plain Rust: knows no Python, prints nothing, parses no options. Modules use only modules
//! named before them in [`ROOMS`]; `tests/layers.rs` holds this.

#[cfg(target_endian = "big")]
compile_error!("the token formats are little-endian and are memory-mapped as they are");

pub mod count;
pub mod error;
pub mod io;
pub mod order;
pub mod progress;
pub mod read;
pub mod search;
pub mod timeline;
pub mod tokenize;
pub mod tokens;

pub use error::{Error, ErrorKind, Result};

/// The modules in the direction in which data flows: each may use only those before it.
pub const ROOMS: [&str; 10] = [
    "error", "progress", "io", "read", "tokenize", "tokens", "count", "search", "order", "timeline",
];
