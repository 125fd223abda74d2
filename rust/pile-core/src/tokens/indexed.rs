//! A dataset of which the index is here: its tokens may be shards of one file, or not be here at all.

use std::path::{Path, PathBuf};

use super::{
    Bins, IdxHeader, Span, TokenSource, TokenType,
    dataset::with_suffix,
    fingerprint,
    rows::{check_span, read_spans},
};
use crate::{
    Error, ErrorKind, Result,
    io::{Mapped, Unreplaced},
};

/// `PREFIX.idx` with `PREFIX-000NN-of-000MM.bin`, `PREFIX.bin` or no tokens: documents are known all the same.
#[derive(Debug)]
pub struct IndexedTokens {
    prefix: PathBuf,
    idx: Mapped,
    header: IdxHeader,
    bins: Option<Bins>,
}

impl IndexedTokens {
    /// Opens `PREFIX.idx` and what there is of its tokens.
    ///
    /// # Errors
    /// The index is missing or malformed, a shard is missing, or the two do not belong together.
    pub fn open(prefix: &Path) -> Result<Self> {
        let unreplaced = Unreplaced::begin(prefix)?;
        let idx = Mapped::open(&with_suffix(prefix, ".idx"))?;
        let header = IdxHeader::read(&idx)?;
        let bins = match Bins::open(prefix) {
            Ok(bins) => Some(bins),
            // No file of that name: the index alone.
            Err(err) if is_absent(&err) => None,
            Err(err) => return Err(err),
        };
        let tokens = Self {
            prefix: prefix.to_owned(),
            idx,
            header,
            bins,
        };
        unreplaced.end()?;
        tokens.check_end()?;
        Ok(tokens)
    }

    fn check_end(&self) -> Result<()> {
        let Some(bins) = &self.bins else {
            return Ok(());
        };
        let expected = match self.header.n_sequences.checked_sub(1) {
            Some(last) => {
                let bytes =
                    self.header.length(&self.idx, last)? * self.header.token_type.n_bytes() as u64;
                self.header.pointer(&self.idx, last)?.saturating_add(bytes)
            }
            None => 0,
        };
        if bins.n_bytes() == expected {
            return Ok(());
        }
        let what = format!(
            "the tokens have {} bytes, but their index speaks of {expected}: one of the two is of another dataset or cut short",
            bins.n_bytes()
        );
        Err(Error::malformed(bins.path(), what))
    }

    /// The path without its suffixes.
    #[must_use]
    pub fn prefix(&self) -> &Path {
        &self.prefix
    }

    /// Whether the tokens are here too.
    #[must_use]
    pub fn has_tokens(&self) -> bool {
        self.bins.is_some()
    }

    /// Tokens of each document, as stored.
    ///
    /// # Errors
    /// A length in the index is negative.
    pub fn lengths(&self) -> Result<Vec<i32>> {
        self.header.checked_lengths(&self.idx)
    }

    /// A digest over the index and the tokens that are here.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        let bins = self.bins.iter().flat_map(Bins::bytes);
        let files: Vec<&[u8]> = std::iter::once(self.idx.bytes()).chain(bins).collect();
        fingerprint::of_files(&files)
    }
}

fn is_absent(err: &Error) -> bool {
    matches!(err.kind(), ErrorKind::Format(what) if what.starts_with("no "))
}

impl TokenSource for IndexedTokens {
    fn n_documents(&self) -> u64 {
        self.header.n_sequences
    }

    fn document_length(&self, document: u64) -> Result<u64> {
        if document < self.header.n_sequences {
            return self.header.length(&self.idx, document);
        }
        let n = self.header.n_sequences;
        Err(Error::argument(format!(
            "no document {document}: the dataset has {n} ({})",
            self.prefix.display()
        )))
    }

    fn token_type(&self) -> TokenType {
        self.header.token_type
    }

    fn read(&self, spans: &[Span], out: &mut [u8]) -> Result<usize> {
        let bins = self.bins.as_ref().ok_or_else(|| {
            let what =
                "the index is here, its tokens are not: documents can be told, their text cannot";
            Error::malformed(&with_suffix(&self.prefix, ".bin"), what)
        })?;
        read_spans(spans, out, self.header.token_type, |span| {
            check_span(span, self.document_length(span.document)?)?;
            let first = self.header.pointer(&self.idx, span.document)?;
            Ok((
                bins,
                first.saturating_add(span.start * self.token_type().n_bytes() as u64),
            ))
        })
    }
}
