//! Any sequence of tokens, or any text, in a dataset: how often, where, and what follows it.
//!
//! [`build`] sorts all suffixes of a dataset's documents into an index; [`SuffixIndex`] answers from it. Tokens are
//! sorted by their bytes, so that the tokens which begin with some bytes lie together: that is what makes
//! texts findable whatever the token borders. Nothing is found across the border of two documents.

mod alphabet;
mod build;
mod combine;
mod file;
mod find;
mod index;
mod next;
mod piece;
mod reach;
mod spans;
mod text;

pub use alphabet::Alphabet;
pub use build::{IndexPlan, IndexSummary, build, plan};
pub use combine::{Combined, combine};
pub use index::{Located, SuffixIndex};
pub use next::{NextTokens, Probability};
pub use text::TextPlace;
