//! Documents that are not on disk: texts that an intervention inserts, and documents as a run's rows show them.

use super::{Span, TokenSource, TokenType};
use crate::{Error, Result};

/// Documents of tokens in memory.
#[derive(Debug, Clone)]
pub struct TokensInMemory {
    token_type: TokenType,
    /// The tokens of all documents, as a file would store them.
    bytes: Vec<u8>,
    /// Index in `bytes` of each document's first token, then the length of `bytes`.
    starts: Vec<usize>,
}

impl TokensInMemory {
    /// No documents, of tokens that are read as `token_type`.
    #[must_use]
    pub fn new(token_type: TokenType) -> Self {
        Self {
            token_type,
            bytes: Vec::new(),
            starts: vec![0],
        }
    }

    /// Appends a document.
    ///
    /// # Errors
    /// A token that the token type cannot store. The next document would then start with the tokens before it.
    pub fn push(&mut self, tokens: &[i64]) -> Result<()> {
        for token in tokens {
            self.token_type.append(*token, &mut self.bytes)?;
        }
        self.starts.push(self.bytes.len());
        Ok(())
    }

    /// The stored tokens of a document.
    fn document(&self, document: u64) -> Result<&[u8]> {
        let number = document as usize;
        match (self.starts.get(number), self.starts.get(number + 1)) {
            (Some(start), Some(end)) => Ok(&self.bytes[*start..*end]),
            _ => {
                let n = self.n_documents();
                Err(Error::argument(format!(
                    "no document {document}: there are {n}"
                )))
            }
        }
    }
}

impl TokenSource for TokensInMemory {
    fn n_documents(&self) -> u64 {
        self.starts.len() as u64 - 1
    }

    fn document_length(&self, document: u64) -> Result<u64> {
        Ok((self.document(document)?.len() / self.token_type.n_bytes()) as u64)
    }

    fn token_type(&self) -> TokenType {
        self.token_type
    }

    fn read(&self, spans: &[Span], out: &mut [u8]) -> Result<usize> {
        let width = self.token_type.n_bytes();
        let (n_bytes, mut done) = (out.len(), 0);
        for span in spans {
            let document = self.document(span.document)?;
            let end = span.start.saturating_add(span.length) as usize;
            let start = (span.start as usize).saturating_mul(width);
            let tokens = document.get(start..end.saturating_mul(width));
            let tokens = tokens.ok_or_else(|| {
                Error::argument(format!(
                    "no {} tokens from {} in document {}: it has {}",
                    span.length,
                    span.start,
                    span.document,
                    document.len() / width
                ))
            })?;
            let slot = out.get_mut(done..done + tokens.len()).ok_or_else(|| {
                let what = format!("the tokens of the spans exceed the buffer of {n_bytes} bytes");
                Error::argument(what)
            })?;
            slot.copy_from_slice(tokens);
            done += tokens.len();
        }
        Ok(done)
    }
}
