//! Several sources as one: the documents of each follow those of the one before.

use std::sync::Arc;

use super::{Span, TokenSource, TokenType};
use crate::{Error, Result};

/// Sources of one token type, one after the other.
pub struct SeveralSources {
    sources: Vec<Arc<dyn TokenSource>>,
    /// Number of each one's first document, and of all documents.
    starts: Vec<u64>,
}

impl SeveralSources {
    /// Puts sources one after the other.
    ///
    /// # Errors
    /// There are none, or they store tokens differently.
    pub fn new(sources: Vec<Arc<dyn TokenSource>>) -> Result<Self> {
        let Some(first) = sources.first() else {
            return Err(Error::argument("no datasets to put together"));
        };
        let token_type = first.token_type();
        if let Some(other) = sources.iter().find(|s| s.token_type() != token_type) {
            return Err(Error::argument(format!(
                "datasets of {} and {} tokens cannot be blended",
                token_type.name(),
                other.token_type().name()
            )));
        }
        let mut starts = vec![0];
        for source in &sources {
            starts.push(starts[starts.len() - 1] + source.n_documents());
        }
        Ok(Self { sources, starts })
    }

    /// Number of each source's first document.
    #[must_use]
    pub fn first_documents(&self) -> &[u64] {
        &self.starts[..self.sources.len()]
    }

    fn place(&self, document: u64) -> Result<(&dyn TokenSource, u64)> {
        let number = self.starts.partition_point(|first| *first <= document) - 1;
        let source = self.sources.get(number).ok_or_else(|| {
            let n = self.n_documents();
            Error::argument(format!("no document {document}: the datasets have {n}"))
        })?;
        Ok((source, document - self.starts[number]))
    }
}

impl TokenSource for SeveralSources {
    fn n_documents(&self) -> u64 {
        self.starts[self.sources.len()]
    }

    fn document_length(&self, document: u64) -> Result<u64> {
        let (source, document) = self.place(document)?;
        source.document_length(document)
    }

    fn token_type(&self) -> TokenType {
        self.sources[0].token_type()
    }

    fn read(&self, spans: &[Span], out: &mut [u8]) -> Result<usize> {
        let mut done = 0;
        for span in spans {
            let (source, document) = self.place(span.document)?;
            done += source.read(&[Span { document, ..*span }], &mut out[done..])?;
        }
        Ok(done)
    }
}
