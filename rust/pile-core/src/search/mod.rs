//! Occurrences of any token sequence or text in a dataset: how many, where, and which token follows.
//!
//! [`build()`] sorts the suffixes of all documents into an index, and [`SuffixIndex`] answers queries from it.
//! Tokens are sorted by their bytes, so that the tokens that start with given bytes are adjacent. That makes
//! a text findable wherever the documents' token boundaries are. No occurrence crosses the boundary of two
//! documents.

mod alphabet;
mod build;
mod combine;
mod file;
mod find;
mod index;
mod match_ends;
mod next;
mod segment;
mod spans;
mod text;

pub use alphabet::Alphabet;
pub use build::{IndexPlan, IndexSummary, build, plan};
pub use combine::{ClauseOccurrence, DocumentMatch, combine};
pub use index::{SuffixIndex, TokenOccurrence};
pub use next::{NextTokens, Probability};
pub use text::TextOccurrence;
