//! Rows of equal length without an index: Pythia's published data, 2,049 uint16 tokens each in training order.

use std::path::Path;

use super::{Bins, Span, TokenSource, TokenType, fingerprint};
use crate::{Error, Result};

/// A token file (or the shards of one) cut into rows. Which documents they hold cannot be told.
#[derive(Debug)]
pub struct TokenRows {
    bins: Bins,
    row_length: u64,
    token_type: TokenType,
    n_rows: u64,
}

/// Tokens of a row in Pythia's published data.
pub const PYTHIA_ROW_LENGTH: u64 = 2049;

impl TokenRows {
    /// Opens rows by the file's folder, its name, or one of its shards.
    ///
    /// Without a row length, rows are Pythia's. An `.idx` beside the tokens then means documents, unless every
    /// sequence is one such row, as in Pythia's own published `.idx`. The token type is by default that of the
    /// `.idx`, or uint16.
    ///
    /// # Errors
    /// As [`Bins::open_with_index`], the bytes are no whole number of rows, or they are documents.
    pub fn open(
        path: &Path,
        row_length: Option<u64>,
        token_type: Option<TokenType>,
    ) -> Result<Self> {
        let (bins, index) = Bins::open_with_index(path)?;
        if let (Some((header, idx)), None) = (&index, row_length)
            && let Some((i, n)) = (0..)
                .zip(header.lengths(idx))
                .find(|(_, n)| i64::from(*n) != PYTHIA_ROW_LENGTH as i64)
        {
            let i: u64 = i;
            let what = format!(
                "the tokens are documents, not rows in training order: sequence {i} of this index has {n} tokens, \
                 rows have {PYTHIA_ROW_LENGTH}; build an order of it, or give the length of its rows"
            );
            return Err(Error::malformed(idx.path(), what));
        }
        let row_length = row_length.unwrap_or(PYTHIA_ROW_LENGTH);
        let of_index = index.map(|(header, _)| header.token_type);
        let token_type = token_type.or(of_index).unwrap_or(TokenType::U16);
        let row_bytes = row_length.checked_mul(token_type.n_bytes() as u64);
        let row_bytes = row_bytes
            .filter(|bytes| *bytes > 0)
            .ok_or_else(|| Error::argument(format!("rows of {row_length} tokens cannot be")))?;
        if bins.n_bytes() % row_bytes != 0 {
            let what = format!(
                "{} bytes are no whole number of rows of {row_length} {} tokens: cut short, or of another row length",
                bins.n_bytes(),
                token_type.name()
            );
            return Err(Error::malformed(bins.path(), what));
        }
        let n_rows = bins.n_bytes() / row_bytes;
        Ok(Self {
            bins,
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

    /// The first of the files.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.bins.path()
    }

    /// A digest that tells such files apart, as a dataset's.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        fingerprint::of_files(&[&self.bins.bytes().collect::<Vec<_>>()])
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
            Ok((&self.bins, first * self.token_type.n_bytes() as u64))
        })
    }
}

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

/// Reads spans one after the other, each from the file and the byte that `place` gives.
pub(super) fn read_spans<'a>(
    spans: &[Span],
    out: &mut [u8],
    token_type: TokenType,
    place: impl Fn(&Span) -> Result<(&'a Bins, u64)>,
) -> Result<usize> {
    let (room, mut done) = (out.len(), 0);
    for span in spans {
        let (bins, start) = place(span)?;
        let end = done + span.length as usize * token_type.n_bytes();
        let part = out.get_mut(done..end).ok_or_else(|| {
            let what = format!("the spans hold more than the {room} bytes there is room for");
            Error::argument(what)
        })?;
        bins.read(start, part)?;
        done = end;
    }
    Ok(done)
}
