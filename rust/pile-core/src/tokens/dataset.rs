//! A token dataset: an `.idx` and its tokens, in one `.bin` or in shards.

use std::{
    borrow::Cow,
    ops::Range,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{
    IdxHeader, Provenance, Span, TokenFiles, TokenSource, TokenType, fingerprint, idx,
    rows::{check_span, read_spans},
    token_files::map_regular,
};
use crate::{
    Error, Result,
    io::{Mapped, ReplacementCheck, with_suffix},
    progress::Progress,
};

/// Documents between two checks for a stop.
const STOP_INTERVAL: usize = 1 << 16;

/// A dataset in GPT-NeoX's format, memory-mapped: `PREFIX.idx`, `PREFIX.bin` or its shards
/// `PREFIX-000NN-of-000MM.bin`, and `PREFIX.provenance` if it exists.
#[derive(Debug)]
pub struct TokenDataset {
    prefix: PathBuf,
    /// `None` if only the index exists.
    token_files: Option<TokenFiles>,
    idx: Mapped,
    header: IdxHeader,
    /// Size of the tokens by the index: the end of the last sequence. Opening checks that the files have this size;
    /// [`Self::check`] that the sequences follow each other up to it.
    n_bytes: u64,
    provenance: Option<Provenance>,
    replacement: Arc<ReplacementCheck>,
}

impl TokenDataset {
    /// Opens `PREFIX.idx` and its tokens, in constant time: only headers are read.
    ///
    /// # Errors
    /// A file is missing or malformed, or they do not belong together.
    pub fn open(prefix: &Path) -> Result<Self> {
        let dataset = Self::open_index(prefix)?;
        dataset.require_tokens()?;
        Ok(dataset)
    }

    /// Fails with the error of the missing file if only the index exists.
    pub(super) fn require_tokens(&self) -> Result<()> {
        if !self.has_tokens() {
            map_regular(&with_suffix(&self.prefix, ".bin"))?;
        }
        Ok(())
    }

    /// Opens `PREFIX.idx`, and its tokens if they exist. The lengths and the provenance of documents need
    /// only the index.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn open_index(prefix: &Path) -> Result<Self> {
        Self::open_unreplaced(prefix, true)
    }

    /// As [`Self::open_index`], but without the provenance, which may be damaged.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn open_unlabelled(prefix: &Path) -> Result<Self> {
        Self::open_unreplaced(prefix, false)
    }

    fn open_unreplaced(prefix: &Path, is_labelled: bool) -> Result<Self> {
        let replacement = Arc::new(ReplacementCheck::begin(prefix)?);
        let opened = Self::open_files(prefix, is_labelled, &replacement);
        // If an error comes from a dataset that is being replaced, that is the error to report.
        replacement.end()?;
        opened
    }

    /// Checks that the dataset at the prefix is still this one. What is read by path later, such as the manifest that
    /// names its tokenizer, is of this dataset if the check succeeds afterwards.
    ///
    /// # Errors
    /// It was replaced, or is being replaced.
    pub fn check_unchanged(&self) -> Result<()> {
        self.replacement.end_later()
    }

    fn open_files(
        prefix: &Path,
        is_labelled: bool,
        replacement: &Arc<ReplacementCheck>,
    ) -> Result<Self> {
        let idx = map_regular(&with_suffix(prefix, ".idx"))?;
        let token_files = TokenFiles::of_prefix(prefix)?;
        let header = IdxHeader::read(&idx)?;
        let path = with_suffix(prefix, ".provenance");
        let provenance = if is_labelled && path.exists() {
            Some(Provenance::open(&path, header.n_sequences)?)
        } else {
            None
        };
        let n_bytes = header.end(&idx)?;
        if let Some(files) = &token_files {
            files.check_end(n_bytes)?;
        }
        Ok(Self {
            prefix: prefix.to_owned(),
            token_files,
            idx,
            header,
            n_bytes,
            provenance,
            replacement: Arc::clone(replacement),
        })
    }

    /// Whether the tokens exist, not only the index.
    #[must_use]
    pub fn has_tokens(&self) -> bool {
        self.token_files.is_some()
    }

    /// The files of the tokens.
    ///
    /// # Errors
    /// They do not exist.
    pub fn token_files(&self) -> Result<&TokenFiles> {
        self.token_files.as_ref().ok_or_else(|| {
            let what =
                "the index exists, but its tokens do not: document numbers are known, their content is not";
            Error::malformed(&with_suffix(&self.prefix, ".bin"), what)
        })
    }

    /// The first byte of a document in the token file, and the byte after its last.
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

    /// The path without suffixes.
    #[must_use]
    pub fn prefix(&self) -> &Path {
        &self.prefix
    }

    /// The header and the file of the index.
    pub(super) fn index(&self) -> (&IdxHeader, &Mapped) {
        (&self.header, &self.idx)
    }

    /// Tokens in all documents.
    #[must_use]
    pub fn n_tokens(&self) -> u64 {
        self.n_bytes / self.token_type().n_bytes() as u64
    }

    /// The stored bytes of a range of the dataset's tokens: borrowed from the map, or a copy if they are in
    /// several shards.
    ///
    /// # Errors
    /// The range exceeds the dataset, or the tokens do not exist.
    pub fn stored(&self, tokens: Range<u64>) -> Result<Cow<'_, [u8]>> {
        let width = self.token_type().n_bytes() as u64;
        let n = tokens.end.saturating_sub(tokens.start);
        self.token_files()?
            .slice(tokens.start.saturating_mul(width), n.saturating_mul(width))
    }

    /// The range of a document's tokens in the token file.
    ///
    /// # Errors
    /// No such document, or an index that does not fit the token file.
    pub fn token_range(&self, document: u64) -> Result<Range<u64>> {
        self.check_document(document)?;
        let (first, end) = self.byte_range(document)?;
        let width = self.token_type().n_bytes() as u64;
        if first % width != 0 || end > self.n_bytes {
            let what =
                format!("document {document} starts within a token or ends after the last one");
            return Err(Error::malformed(self.idx.path(), what));
        }
        Ok(first / width..end / width)
    }

    /// The stored bytes of a document.
    pub(super) fn document_bytes(&self, document: u64) -> Result<Cow<'_, [u8]>> {
        self.check_document(document)?;
        let (first, end) = self.byte_range(document)?;
        self.token_files()?.slice(first, end - first)
    }

    /// Number of tokens of each document.
    ///
    /// # Errors
    /// A length in the index is negative.
    pub fn lengths(&self) -> Result<Vec<i32>> {
        self.header.checked_lengths(&self.idx)
    }

    /// The provenance of the documents; `None` for a dataset written by another tool.
    #[must_use]
    pub fn provenance(&self) -> Option<&Provenance> {
        self.provenance.as_ref()
    }

    /// Indices of documents' subsets in [`Provenance::subsets`]; -1 for none or an unknown one. Documents that follow each
    /// other are decoded once. `progress` does not advance.
    ///
    /// # Errors
    /// No such document, a damaged provenance file, or a stop.
    pub fn subset_numbers(
        &self,
        documents: impl Iterator<Item = i64>,
        progress: &Progress,
    ) -> Result<Vec<i32>> {
        let mut numbers = Vec::with_capacity(documents.size_hint().0);
        // The locations of the documents from `next` on.
        let (mut locations, mut next) = (None, 0);
        for document in documents {
            if numbers.len().is_multiple_of(STOP_INTERVAL) {
                progress.advance(0)?;
            }
            let document = u64::try_from(document).map_err(|_| {
                Error::argument(format!("no document {document}: numbers start at 0"))
            })?;
            self.check_document(document)?;
            let location = match &self.provenance {
                None => None,
                Some(provenance) => {
                    if locations.is_none() || document != next {
                        locations = Some(provenance.locations(document, u64::MAX));
                    }
                    next = document + 1;
                    let found = locations.as_mut().and_then(Iterator::next);
                    found.unwrap_or(Ok(None))?
                }
            };
            let subset = location.and_then(|location| location.subset);
            numbers.push(subset.map_or(-1, |subset| subset as i32));
        }
        Ok(numbers)
    }

    /// A digest that distinguishes datasets in constant time: see [`fingerprint`].
    ///
    /// [`fingerprint`]: super::fingerprint
    #[must_use]
    pub fn fingerprint(&self) -> String {
        let shards: Vec<&[u8]> = self
            .token_files
            .iter()
            .flat_map(TokenFiles::bytes)
            .collect();
        match self.has_tokens() {
            true => fingerprint::of_files(&[&[self.idx.bytes()], &shards]),
            false => fingerprint::of_files(&[&[self.idx.bytes()]]),
        }
    }

    /// Checks the whole index against the token file.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Format`] with the first document that is wrong.
    pub fn check(&self) -> Result<()> {
        let files = self.token_files()?;
        idx::check_arrays(&self.header, &self.idx, files.path(), files.n_bytes())
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
            // Callers allocate this many tokens, so a damaged index must fail here.
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
        let files = self.token_files()?;
        read_spans(spans, out, self.token_type(), |span| {
            self.check_document(span.document)?;
            let (first, end) = self.byte_range(span.document)?;
            let width = self.token_type().n_bytes() as u64;
            check_span(span, (end - first) / width, &self.prefix)?;
            Ok((files, first + span.start * width))
        })
    }
}
