//! Rows of equal length without an index, such as Pythia's published data: 2,049 uint16 tokens each, in
//! training order.

use std::path::Path;

use super::{Span, TokenFiles, TokenSource, TokenType, fingerprint};
use crate::{Error, Result};

/// A token file, or its shards, cut into rows. The documents in them are not known.
#[derive(Debug)]
pub struct TokenRows {
    files: TokenFiles,
    row_length: u64,
    token_type: TokenType,
    n_rows: u64,
}

/// Tokens of a row in Pythia's published data.
pub const PYTHIA_ROW_LENGTH: u64 = 2049;

impl TokenRows {
    /// Opens the rows of a token file by its folder, its name, or one of its shards.
    ///
    /// Without a row length, rows have Pythia's. Tokens with an `.idx` are then documents, which is an error,
    /// unless every sequence is one such row, as in Pythia's own published `.idx`. The default of the token
    /// type is the type in the `.idx`, else uint16.
    ///
    /// # Errors
    /// As [`TokenFiles::open_with_index`]; bytes that are not a whole number of rows; tokens that are documents.
    pub fn open(
        path: &Path,
        row_length: Option<u64>,
        token_type: Option<TokenType>,
    ) -> Result<Self> {
        let (files, index) = TokenFiles::open_with_index(path)?;
        if let (Some((header, idx)), None) = (&index, row_length)
            && let Some((i, n)) = (0_u64..)
                .zip(header.lengths(idx))
                .find(|(_, n)| i64::from(*n) != PYTHIA_ROW_LENGTH as i64)
        {
            let what = format!(
                "the tokens are documents, not rows in training order: sequence {i} of this index has {n} tokens, \
                 rows have {PYTHIA_ROW_LENGTH}; build an order of it, or give the length of its rows"
            );
            return Err(Error::malformed(idx.path(), what));
        }
        let row_length = row_length.unwrap_or(PYTHIA_ROW_LENGTH);
        let indexed_type = index.map(|(header, _)| header.token_type);
        let token_type = token_type.or(indexed_type).unwrap_or(TokenType::U16);
        let row_bytes = row_length.checked_mul(token_type.n_bytes() as u64);
        let row_bytes = row_bytes.filter(|bytes| *bytes > 0).ok_or_else(|| {
            Error::argument(format!(
                "no rows of {row_length} tokens: the row length must be at least 1"
            ))
        })?;
        if files.n_bytes() % row_bytes != 0 {
            let what = format!(
                "{} bytes are not a whole number of rows of {row_length} {} tokens: cut short, or of another row length",
                files.n_bytes(),
                token_type.name()
            );
            return Err(Error::malformed(files.path(), what));
        }
        let n_rows = files.n_bytes() / row_bytes;
        Ok(Self {
            files,
            row_length,
            token_type,
            n_rows,
        })
    }

    /// Tokens of a row.
    #[must_use]
    pub fn row_length(&self) -> u64 {
        self.row_length
    }

    /// Path of the first file.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.files.path()
    }

    /// A digest that distinguishes token files: see [`fingerprint`].
    #[must_use]
    pub fn fingerprint(&self) -> String {
        fingerprint::of_files(&[&self.files.bytes().collect::<Vec<_>>()])
    }
}

impl TokenSource for TokenRows {
    fn n_documents(&self) -> u64 {
        self.n_rows
    }

    fn document_length(&self, document: u64) -> Result<u64> {
        if document < self.n_rows {
            return Ok(self.row_length);
        }
        let what = format!("no row {document}: there are {}", self.n_rows);
        Err(Error::argument(what))
    }

    fn token_type(&self) -> TokenType {
        self.token_type
    }

    fn read(&self, spans: &[Span], out: &mut [u8]) -> Result<usize> {
        read_spans(spans, out, self.token_type, |span| {
            check_span(span, self.document_length(span.document)?, self.path())?;
            let first = span.document * self.row_length + span.start;
            Ok((&self.files, first * self.token_type.n_bytes() as u64))
        })
    }
}

/// Checks that a span is within its document, which has `n_tokens` tokens.
pub(super) fn check_span(span: &Span, n_tokens: u64, path: &Path) -> Result<()> {
    let end = span.start.checked_add(span.length);
    if end.is_some_and(|end| end <= n_tokens) {
        return Ok(());
    }
    Err(Error::argument(format!(
        "no {} tokens from {} in document {}: it has {n_tokens} ({})",
        span.length,
        span.start,
        span.document,
        path.display()
    )))
}

/// Reads spans one after the other, each from the files and the byte that `locate` returns after [`check_span`].
/// Returns the number of bytes written to `out`.
pub(super) fn read_spans<'a>(
    spans: &[Span],
    out: &mut [u8],
    token_type: TokenType,
    locate: impl Fn(&Span) -> Result<(&'a TokenFiles, u64)>,
) -> Result<usize> {
    let (n_bytes, mut done) = (out.len(), 0);
    for span in spans {
        let (files, start) = locate(span)?;
        let end = done + span.length as usize * token_type.n_bytes();
        let part = out.get_mut(done..end).ok_or_else(|| {
            let what = format!("the tokens of the spans exceed the buffer of {n_bytes} bytes");
            Error::argument(what)
        })?;
        files.read(start, part)?;
        done = end;
    }
    Ok(done)
}
