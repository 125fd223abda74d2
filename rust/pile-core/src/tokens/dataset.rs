//! A token dataset: an `.idx` with its tokens in one `.bin` or in shards of one.

use std::{
    borrow::Cow,
    ops::Range,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{
    Bins, IdxHeader, Provenance, Span, TokenSource, TokenType,
    bins::map_regular,
    fingerprint, idx,
    rows::{check_span, read_spans},
};
use crate::{
    Error, Result,
    io::{Mapped, Unreplaced, with_suffix},
};

/// GPT-NeoX's `PREFIX.idx` with `PREFIX.bin` or its shards `PREFIX-000NN-of-000MM.bin`, memory-mapped, and
/// `PREFIX.provenance` if it is there.
#[derive(Debug)]
pub struct TokenDataset {
    prefix: PathBuf,
    /// None where the index alone is here.
    bins: Option<Bins>,
    idx: Mapped,
    header: IdxHeader,
    n_bytes: u64,
    provenance: Option<Provenance>,
}

impl TokenDataset {
    /// Opens `PREFIX.idx` and its tokens; in constant time, as nothing but the header is read.
    ///
    /// # Errors
    /// A file is missing or malformed, or they do not belong together.
    pub fn open(prefix: &Path) -> Result<Self> {
        let dataset = Self::open_index(prefix)?;
        if !dataset.has_tokens() {
            // Without any tokens the error is that of the missing file.
            map_regular(&with_suffix(prefix, ".bin"))?;
        }
        Ok(dataset)
    }

    /// As [`Self::open`], but the tokens may be absent: documents are known all the same.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn open_index(prefix: &Path) -> Result<Self> {
        let unreplaced = Unreplaced::begin(prefix)?;
        let opened = Self::open_files(prefix);
        // A file may be missing, or of another dataset, only because the dataset is being replaced.
        unreplaced.end()?;
        opened
    }

    fn open_files(prefix: &Path) -> Result<Self> {
        let idx = map_regular(&with_suffix(prefix, ".idx"))?;
        let bins = Bins::of_prefix(prefix)?;
        let header = IdxHeader::read(&idx)?;
        let path = with_suffix(prefix, ".provenance");
        let provenance = if path.exists() {
            Some(Provenance::open(&path, header.n_sequences)?)
        } else {
            None
        };
        let n_bytes = header.end(&idx)?;
        if let Some(bins) = &bins {
            bins.check_end(n_bytes)?;
        }
        Ok(Self {
            prefix: prefix.to_owned(),
            bins,
            idx,
            header,
            n_bytes,
            provenance,
        })
    }

    /// Whether the tokens are here too.
    #[must_use]
    pub fn has_tokens(&self) -> bool {
        self.bins.is_some()
    }

    /// The tokens, in one file or several.
    ///
    /// # Errors
    /// They are not here.
    pub fn bins(&self) -> Result<&Bins> {
        self.bins.as_ref().ok_or_else(|| {
            let what =
                "the index is here, its tokens are not: documents can be told, their text cannot";
            Error::malformed(&with_suffix(&self.prefix, ".bin"), what)
        })
    }

    /// First and end byte of a document among those of the tokens.
    fn byte_range(&self, document: u64) -> Result<(u64, u64)> {
        self.header.byte_range(&self.idx, document)
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
        self.n_bytes / self.token_type().n_bytes() as u64
    }

    /// The stored bytes of a range of all tokens: of the map, or a copy where they lie in several shards.
    ///
    /// # Errors
    /// There are not so many, or they are not here.
    pub fn stored(&self, tokens: Range<u64>) -> Result<Cow<'_, [u8]>> {
        let width = self.token_type().n_bytes() as u64;
        let n = tokens.end.saturating_sub(tokens.start);
        self.bins()?
            .slice(tokens.start.saturating_mul(width), n.saturating_mul(width))
    }

    /// Where a document's tokens are among those of the `.bin`.
    ///
    /// # Errors
    /// No such document, or the index and the `.bin` do not agree on it.
    pub fn token_range(&self, document: u64) -> Result<Range<u64>> {
        self.check_document(document)?;
        let (first, end) = self.byte_range(document)?;
        let width = self.token_type().n_bytes() as u64;
        if first % width != 0 || end > self.n_bytes {
            let what = format!("document {document} is not where the index says");
            return Err(Error::malformed(self.idx.path(), what));
        }
        Ok(first / width..end / width)
    }

    /// The stored bytes of a document.
    pub(super) fn document_bytes(&self, document: u64) -> Result<Cow<'_, [u8]>> {
        self.check_document(document)?;
        let (first, end) = self.byte_range(document)?;
        self.bins()?.slice(first, end - first)
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
        let shards: Vec<&[u8]> = self.bins.iter().flat_map(Bins::bytes).collect();
        match self.has_tokens() {
            true => fingerprint::of_files(&[&[self.idx.bytes()], &shards]),
            false => fingerprint::of_files(&[&[self.idx.bytes()]]),
        }
    }

    /// Checks the whole index against the `.bin`.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Format`] naming the first document that is wrong.
    pub fn check(&self) -> Result<()> {
        let bins = self.bins()?;
        idx::check_arrays(&self.header, &self.idx, bins.path(), bins.n_bytes())
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
        if end > self.n_bytes && self.has_tokens() {
            // What the index claims is believed only if it is there: callers make room for it.
            let what = format!(
                "document {document} ends at byte {end} of the tokens, but the file has {}",
                self.n_bytes
            );
            return Err(Error::malformed(self.idx.path(), what));
        }
        Ok((end - first) / self.token_type().n_bytes() as u64)
    }

    fn token_type(&self) -> TokenType {
        self.header.token_type
    }

    fn read(&self, spans: &[Span], out: &mut [u8]) -> Result<usize> {
        let bins = self.bins()?;
        read_spans(spans, out, self.token_type(), |span| {
            self.check_document(span.document)?;
            let (first, end) = self.byte_range(span.document)?;
            let width = self.token_type().n_bytes() as u64;
            check_span(span, (end - first) / width, &self.prefix)?;
            Ok((bins, first + span.start * width))
        })
    }
}
