//! Token datasets: GPT-NeoX's memory-mapped `.bin` and `.idx`, and where each document came from.
//!
//! Above this room a token source is only something that holds numbered documents of tokens and
//! reads [`Span`]s of them ([`TokenSource`]); whether it is one file, shards of one, or remote is
//! known here alone.

mod bins;
mod build;
mod dataset;
mod dtype;
mod fingerprint;
mod idx;
mod indexed;
mod label;
mod merge;
mod origins;
mod parts;
mod provenance;
mod rows;
mod several;

pub use bins::Bins;
pub use build::{BuildConfig, BuildSummary, ShardResult, build};
pub use dataset::TokenDataset;
pub use dtype::TokenType;
pub use idx::{IdxHeader, write_idx};
pub use indexed::IndexedTokens;
pub use label::{LabelConfig, LabelSummary, LabelledShard, LabelledSubset, label};
pub use merge::{MergeConfig, MergeSummary, MergedInput, merge};
pub use origins::Place;
pub use provenance::{Origin, OriginColumns, Provenance, ShardSpan, write_provenance};
pub use rows::TokenRows;
pub use several::SeveralSources;

use crate::Result;

/// A run of tokens of one document.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Span {
    /// Number of the document in its token source, from 0.
    pub document: u64,
    /// First token within the document.
    pub start: u64,
    /// Tokens.
    pub length: u64,
}

/// Numbered documents of tokens.
pub trait TokenSource: Send + Sync {
    /// Documents in the source.
    fn n_documents(&self) -> u64;

    /// Tokens of a document.
    ///
    /// # Errors
    /// No such document.
    fn document_length(&self, document: u64) -> Result<u64>;

    /// How a token is stored.
    fn token_type(&self) -> TokenType;

    /// Writes the tokens of `spans`, one after the other, to the front of `out` in the stored type
    /// (little-endian), and returns how many bytes these are.
    ///
    /// # Errors
    /// A span is not within its document, the source cannot be read, or `out` is too short.
    fn read(&self, spans: &[Span], out: &mut [u8]) -> Result<usize>;

    /// The tokens of `spans`, one after the other.
    ///
    /// # Errors
    /// As [`Self::read`].
    fn tokens(&self, spans: &[Span]) -> Result<Vec<i64>> {
        let n_tokens: u64 = spans.iter().map(|span| span.length).sum();
        let width = self.token_type().n_bytes();
        let mut bytes = vec![0; n_tokens as usize * width];
        self.read(spans, &mut bytes)?;
        Ok(bytes
            .chunks_exact(width)
            .map(|b| self.token_type().decode(b))
            .collect())
    }
}
