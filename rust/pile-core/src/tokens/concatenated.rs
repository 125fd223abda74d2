//! Several sources as one: the documents of each source follow those of the previous one.

use std::sync::Arc;

use super::{Span, TokenSource, TokenType};
use crate::{Error, Result};

/// Sources one after the other. If their token types differ, all tokens are read as the wider type.
pub struct ConcatenatedSources {
    sources: Vec<Arc<dyn TokenSource>>,
    token_type: TokenType,
    /// Number of each source's first document, then the total number of documents.
    starts: Vec<u64>,
}

impl ConcatenatedSources {
    /// Concatenates sources.
    ///
    /// # Errors
    /// There are none.
    pub fn new(sources: Vec<Arc<dyn TokenSource>>) -> Result<Self> {
        let types = sources.iter().map(|source| source.token_type());
        let Some(token_type) = types.max_by_key(|token_type| token_type.n_bytes()) else {
            return Err(Error::argument("no datasets to concatenate"));
        };
        let mut starts = vec![0];
        for source in &sources {
            starts.push(starts[starts.len() - 1] + source.n_documents());
        }
        Ok(Self {
            sources,
            token_type,
            starts,
        })
    }

    /// Whether the sources differ in their token types.
    #[must_use]
    pub fn is_mixed(&self) -> bool {
        let mut sources = self.sources.iter();
        sources.any(|source| source.token_type() != self.token_type)
    }

    /// Number of each source's first document.
    #[must_use]
    pub fn first_documents(&self) -> &[u64] {
        &self.starts[..self.sources.len()]
    }

    /// The source of a document, and the document's number in it.
    fn locate(&self, document: u64) -> Result<(&dyn TokenSource, u64)> {
        let number = self.starts.partition_point(|first| *first <= document) - 1;
        let source = self.sources.get(number).ok_or_else(|| {
            let n = self.n_documents();
            Error::argument(format!("no document {document}: the datasets have {n}"))
        })?;
        Ok((source, document - self.starts[number]))
    }
}

impl TokenSource for ConcatenatedSources {
    fn n_documents(&self) -> u64 {
        self.starts[self.sources.len()]
    }

    fn document_length(&self, document: u64) -> Result<u64> {
        let (source, document) = self.locate(document)?;
        source.document_length(document)
    }

    fn token_type(&self) -> TokenType {
        self.token_type
    }

    fn read(&self, spans: &[Span], out: &mut [u8]) -> Result<usize> {
        let mut done = 0;
        for span in spans {
            let (source, document) = self.locate(span.document)?;
            let span = Span { document, ..*span };
            let out = &mut out[done..];
            done += if source.token_type() == self.token_type {
                source.read(&[span], out)?
            } else {
                read_widened(source, span, self.token_type, out)?
            };
        }
        Ok(done)
    }
}

/// Reads a span into `out` as the type `to`, which must be able to hold every token of the source.
fn read_widened(
    source: &dyn TokenSource,
    span: Span,
    to: TokenType,
    out: &mut [u8],
) -> Result<usize> {
    let tokens = source.tokens(&[span])?;
    let n_bytes = tokens.len() * to.n_bytes();
    let out_bytes = out.len();
    let out = out.get_mut(..n_bytes).ok_or_else(|| {
        Error::argument(format!("{n_bytes} bytes of tokens do not fit {out_bytes}"))
    })?;
    for (slot, token) in out.chunks_exact_mut(to.n_bytes()).zip(tokens) {
        let token = token.to_le_bytes();
        slot.copy_from_slice(&token[..to.n_bytes()]);
    }
    Ok(n_bytes)
}
