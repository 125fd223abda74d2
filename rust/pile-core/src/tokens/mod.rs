//! Token datasets: GPT-NeoX's memory-mapped `.bin` and `.idx`, and the provenance of each document.
//!
//! The layers above see a [`TokenSource`]: numbered documents of tokens, read as [`Span`]s. Whether it is one
//! file, the shards of a file or several datasets is known in this layer alone.

mod build;
mod concatenated;
mod dataset;
mod dtype;
mod fingerprint;
mod idx;
mod in_memory;
mod label;
mod merge;
mod provenance;
mod record_location;
mod rows;
mod token_files;
mod writer;

pub use build::{BuildConfig, BuildSummary, ShardResult, build};
pub use concatenated::ConcatenatedSources;
pub use dataset::TokenDataset;
pub use dtype::TokenType;
pub use idx::{IdxHeader, write_idx};
pub use in_memory::TokensInMemory;
pub use label::{LabelConfig, LabelSummary, LabelledShard, LabelledSubset, label};
pub use merge::{MergeConfig, MergeSummary, MergedInput, merge};
pub use provenance::{Origin, OriginColumns, Provenance, ShardSpan, write_provenance};
pub use record_location::RecordLocation;
pub use rows::{PYTHIA_ROW_LENGTH, TokenRows};
pub use token_files::TokenFiles;

use crate::Result;

/// Consecutive tokens of one document.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Span {
    /// Number of the document in its token source, from 0.
    pub document: u64,
    /// First token within the document.
    pub start: u64,
    /// Number of tokens.
    pub length: u64,
}

/// Minimum tokens of a work item, except for the last one.
const ITEM_TOKENS: u64 = 1 << 18;

/// Splits all documents into work items: the first document of each one, and the end of the last one.
pub(crate) fn work_items<S: TokenSource + ?Sized>(source: &S) -> Result<Vec<u64>> {
    let mut firsts = vec![0];
    let mut n_tokens = 0;
    for document in 0..source.n_documents() {
        n_tokens += source.document_length(document)?;
        if n_tokens >= ITEM_TOKENS || document + 1 == source.n_documents() {
            firsts.push(document + 1);
            n_tokens = 0;
        }
    }
    Ok(firsts)
}

/// Numbered documents of tokens.
pub trait TokenSource: Send + Sync {
    /// Number of documents.
    fn n_documents(&self) -> u64;

    /// Number of tokens of a document.
    ///
    /// # Errors
    /// No such document.
    fn document_length(&self, document: u64) -> Result<u64>;

    /// The type in which tokens are stored.
    fn token_type(&self) -> TokenType;

    /// Writes the tokens of `spans`, one span after the other, to the beginning of `out` in the stored type
    /// (little-endian). Returns the number of bytes written.
    ///
    /// # Errors
    /// A span is not within its document, the source cannot be read, or `out` is too short.
    fn read(&self, spans: &[Span], out: &mut [u8]) -> Result<usize>;

    /// The tokens of `spans`, one span after the other.
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
