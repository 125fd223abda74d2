//! A token dataset in one `.bin` with its `.idx`.

use std::{
    ffi::OsString,
    ops::Range,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{IdxHeader, Provenance, Span, TokenSource, TokenType, fingerprint, idx};
use crate::{
    Error, Result,
    io::{Mapped, Unreplaced},
};

/// GPT-NeoX's `PREFIX.bin` and `PREFIX.idx`, memory-mapped, and `PREFIX.provenance` if it is there.
#[derive(Debug)]
pub struct TokenDataset {
    prefix: PathBuf,
    bin: Mapped,
    idx: Mapped,
    header: IdxHeader,
    provenance: Option<Provenance>,
}

/// `PREFIX` + `suffix`: a suffix is appended, it replaces nothing.
pub(super) fn with_suffix(prefix: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(prefix);
    name.push(suffix);
    PathBuf::from(name)
}

impl TokenDataset {
    /// Opens `PREFIX.bin` and `PREFIX.idx`; in constant time, as nothing but the header is read.
    ///
    /// # Errors
    /// A file is missing or malformed, or the two do not belong together.
    pub fn open(prefix: &Path) -> Result<Self> {
        let unreplaced = Unreplaced::begin(prefix)?;
        let idx = Mapped::open(&with_suffix(prefix, ".idx"))?;
        let bin = Mapped::open(&with_suffix(prefix, ".bin"))?;
        let header = IdxHeader::read(&idx)?;
        let path = with_suffix(prefix, ".provenance");
        let provenance = if path.exists() {
            Some(Provenance::open(&path, header.n_sequences)?)
        } else {
            None
        };
        let dataset = Self {
            prefix: prefix.to_owned(),
            bin,
            idx,
            header,
            provenance,
        };
        unreplaced.end()?;
        dataset.check_end()?;
        Ok(dataset)
    }

    /// The last sequence must end where the `.bin` ends.
    fn check_end(&self) -> Result<()> {
        let expected = match self.header.n_sequences.checked_sub(1) {
            Some(last) => self.byte_range(last)?.1,
            None => 0,
        };
        let found = self.bin.bytes().len() as u64;
        if found == expected {
            return Ok(());
        }
        let what = format!(
            "has {found} bytes, but its index speaks of {expected}: one of the two is of another dataset or cut short"
        );
        Err(Error::malformed(self.bin.path(), what))
    }

    /// First and end byte of a document in the `.bin`.
    fn byte_range(&self, document: u64) -> Result<(u64, u64)> {
        let start = self.header.pointer(&self.idx, document)?;
        let length = self.header.length(&self.idx, document)?;
        let end = length
            .checked_mul(self.token_type().n_bytes() as u64)
            .and_then(|bytes| start.checked_add(bytes))
            .ok_or_else(|| {
                Error::malformed(self.idx.path(), format!("document {document} has no end"))
            })?;
        Ok((start, end))
    }

    fn check_document(&self, document: u64) -> Result<()> {
        let n = self.n_documents();
        if document < n {
            return Ok(());
        }
        Err(Error::argument(format!(
            "no document {document}: the dataset has {n} ({})",
            self.prefix.display()
        )))
    }

    /// The path without its suffixes.
    #[must_use]
    pub fn prefix(&self) -> &Path {
        &self.prefix
    }

    /// The index: its header, and the file.
    pub(super) fn index(&self) -> (&IdxHeader, &Mapped) {
        (&self.header, &self.idx)
    }

    /// Tokens in all documents.
    #[must_use]
    pub fn n_tokens(&self) -> u64 {
        (self.bin.bytes().len() / self.token_type().n_bytes()) as u64
    }

    /// The whole `.bin`: the tokens of all documents in the stored type.
    #[must_use]
    pub fn bin_bytes(&self) -> &[u8] {
        self.bin.bytes()
    }

    /// Where a document's tokens are among those of the `.bin`.
    ///
    /// # Errors
    /// No such document, or the index and the `.bin` do not agree on it.
    pub fn token_range(&self, document: u64) -> Result<Range<u64>> {
        self.check_document(document)?;
        let (first, end) = self.byte_range(document)?;
        let width = self.token_type().n_bytes() as u64;
        if first % width != 0 || end > self.bin.bytes().len() as u64 {
            let what = format!("document {document} is not where the index says");
            return Err(Error::malformed(self.idx.path(), what));
        }
        Ok(first / width..end / width)
    }

    /// The stored bytes of a document.
    pub(super) fn document_bytes(&self, document: u64) -> Result<&[u8]> {
        self.check_document(document)?;
        let (first, end) = self.byte_range(document)?;
        self.bin.slice(first, end - first)
    }

    /// Tokens of each document, as stored.
    ///
    /// # Errors
    /// A length in the index is negative.
    pub fn lengths(&self) -> Result<Vec<i32>> {
        self.header.checked_lengths(&self.idx)
    }

    /// Where the documents came from; `None` for a dataset written by another tool.
    #[must_use]
    pub fn provenance(&self) -> Option<&Provenance> {
        self.provenance.as_ref()
    }

    /// Number of a document's subset among the provenance's, -1 where it has none or none is known.
    ///
    /// # Errors
    /// No such document, or a damaged provenance file.
    pub fn subset_number(&self, document: i64) -> Result<i32> {
        let number = u64::try_from(document)
            .map_err(|_| Error::argument(format!("no document {document}: numbers start at 0")))?;
        self.check_document(number)?;
        let Some(provenance) = &self.provenance else {
            return Ok(-1);
        };
        Ok(provenance.subset_number(number)?.map_or(-1, |i| i as i32))
    }

    /// A digest that tells datasets apart at once, whatever their size: see [`fingerprint`].
    ///
    /// [`fingerprint`]: super::fingerprint
    #[must_use]
    pub fn fingerprint(&self) -> String {
        fingerprint::of_files(&[self.idx.bytes(), self.bin.bytes()])
    }

    /// Checks the whole index against the `.bin`.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Format`] naming the first document that is wrong.
    pub fn check(&self) -> Result<()> {
        idx::check_arrays(
            &self.header,
            &self.idx,
            self.bin.path(),
            self.bin.bytes().len() as u64,
        )
    }

    /// The stored bytes of a span.
    fn span_bytes(&self, span: Span) -> Result<&[u8]> {
        self.check_document(span.document)?;
        let (first, end) = self.byte_range(span.document)?;
        let width = self.token_type().n_bytes() as u64;
        let n_tokens = (end - first) / width;
        if span
            .start
            .checked_add(span.length)
            .is_none_or(|last| last > n_tokens)
        {
            let Span {
                document,
                start,
                length,
            } = span;
            return Err(Error::argument(format!(
                "no {length} tokens from {start} in document {document}: it has {n_tokens} ({})",
                self.prefix.display()
            )));
        }
        self.bin
            .slice(first + span.start * width, span.length * width)
    }
}

impl<S: TokenSource + ?Sized> TokenSource for Arc<S> {
    fn n_documents(&self) -> u64 {
        (**self).n_documents()
    }

    fn document_length(&self, document: u64) -> Result<u64> {
        (**self).document_length(document)
    }

    fn token_type(&self) -> TokenType {
        (**self).token_type()
    }

    fn read(&self, spans: &[Span], out: &mut [u8]) -> Result<usize> {
        (**self).read(spans, out)
    }
}

impl TokenSource for TokenDataset {
    fn n_documents(&self) -> u64 {
        self.header.n_sequences
    }

    fn document_length(&self, document: u64) -> Result<u64> {
        self.check_document(document)?;
        let (first, end) = self.byte_range(document)?;
        // What the index claims is believed only if it is there: callers make room for it.
        let bytes = self.bin.slice(first, end - first)?;
        Ok((bytes.len() / self.token_type().n_bytes()) as u64)
    }

    fn token_type(&self) -> TokenType {
        self.header.token_type
    }

    fn read(&self, spans: &[Span], out: &mut [u8]) -> Result<usize> {
        let mut done = 0;
        for span in spans {
            let bytes = self.span_bytes(*span)?;
            let room = out.len();
            let place = out.get_mut(done..done + bytes.len()).ok_or_else(|| {
                Error::argument(format!(
                    "the spans hold more than the {room} bytes there is room for"
                ))
            })?;
            place.copy_from_slice(bytes);
            done += bytes.len();
        }
        Ok(done)
    }
}
