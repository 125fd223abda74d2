//! Reads the tokens of a source in blocks, with the tokens after each block that its n-grams need.

use std::path::Path;

use crate::{
    Error, Result,
    tokens::{Span, TokenSource, TokenType},
};

/// Maximum n-gram starts of a window: enough for one call of a source to cost little for each. Their ids take 256 KiB
/// in each thread.
const WINDOW_TOKENS: u64 = 1 << 16;

/// The largest id that is counted. There is a counter of four bytes for each id, in each thread.
pub(super) const MAX_ID: u32 = (1 << 24) - 1;

/// Consecutive tokens of a source, whose documents follow each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TokenRun {
    /// The document of the first token.
    pub(super) document: u64,
    /// The offset of the first token in its document.
    pub(super) token: u64,
    pub(super) n_tokens: u64,
}

/// A block of tokens.
#[derive(Debug, Clone, Copy)]
pub(super) struct TokenWindow<'a> {
    pub(super) tokens: &'a [u32],
    /// An n-gram starts at each of the first `n_starts` tokens. `tokens` holds all tokens of these n-grams.
    pub(super) n_starts: usize,
    /// The group of the document in which the n-grams start.
    pub(super) group: u32,
}

/// The n-grams of a source.
#[derive(Debug)]
pub(super) struct TokenWindows<'a, S> {
    pub(super) source: &'a S,
    /// Tokens of an n-gram.
    pub(super) n: usize,
    /// Whether an n-gram may continue in the next documents.
    pub(super) across: bool,
    /// Group of each document; empty if there is one group.
    pub(super) groups: &'a [u32],
}

/// Buffers that are reused from window to window.
#[derive(Debug, Default)]
struct ReadBuffers {
    spans: Vec<Span>,
    raw: Vec<u8>,
    tokens: Vec<u32>,
}

impl ReadBuffers {
    /// Reads the tokens of `spans`.
    fn read(&mut self, source: &impl TokenSource) -> Result<()> {
        let token_type = source.token_type();
        let n: u64 = self.spans.iter().map(|span| span.length).sum();
        self.raw.resize(n as usize * token_type.n_bytes(), 0);
        source.read(&self.spans, &mut self.raw)?;
        self.tokens.clear();
        match token_type {
            TokenType::U16 => {
                let ids = self.raw.as_chunks::<2>().0.iter();
                self.tokens
                    .extend(ids.map(|id| u32::from(u16::from_le_bytes(*id))));
            }
            // A negative id becomes one above `MAX_ID`.
            TokenType::I32 => {
                let ids = self.raw.as_chunks::<4>().0.iter();
                self.tokens.extend(ids.map(|id| u32::from_le_bytes(*id)));
            }
        }
        Ok(())
    }
}

impl<S: TokenSource> TokenWindows<'_, S> {
    /// Calls `visit` with windows whose n-gram starts are together all those in `run`, in order.
    pub(super) fn for_each(
        &self,
        run: TokenRun,
        mut visit: impl FnMut(TokenWindow<'_>) -> Result<()>,
    ) -> Result<()> {
        let mut buffers = ReadBuffers::default();
        let TokenRun {
            mut document,
            mut token,
            n_tokens: mut n_remaining,
        } = run;
        while n_remaining > 0 {
            let document_length = self.source.document_length(document)?;
            let span = Span {
                document,
                start: token,
                length: n_remaining.min(document_length - token).min(WINDOW_TOKENS),
            };
            if span.length > 0 {
                self.read(&mut buffers, span, document_length)?;
                let n_starts = (buffers.tokens.len() + 1).saturating_sub(self.n);
                visit(TokenWindow {
                    tokens: &buffers.tokens,
                    n_starts: n_starts.min(span.length as usize),
                    group: self.groups.get(document as usize).copied().unwrap_or(0),
                })?;
            }
            n_remaining -= span.length;
            token += span.length;
            if token == document_length {
                (document, token) = (document + 1, 0);
            }
        }
        Ok(())
    }

    /// Reads the tokens of `span`, and those after it that belong to n-grams that start in it.
    fn read(&self, buffers: &mut ReadBuffers, span: Span, document_length: u64) -> Result<()> {
        // Tokens after the span that are not covered by `buffers.spans` yet.
        let mut n_after = self.n as u64 - 1;
        let n_in_document = n_after.min(document_length - span.start - span.length);
        buffers.spans.clear();
        buffers.spans.push(Span {
            length: span.length + n_in_document,
            ..span
        });
        n_after -= n_in_document;
        let mut next = span.document + 1;
        while self.across && n_after > 0 && next < self.source.n_documents() {
            let length = n_after.min(self.source.document_length(next)?);
            if length > 0 {
                buffers.spans.push(Span {
                    document: next,
                    start: 0,
                    length,
                });
            }
            n_after -= length;
            next += 1;
        }
        buffers.read(self.source)
    }
}

/// The largest id in `source`, or of its token type if that has 16 bits.
///
/// # Errors
/// An id that is negative or above [`MAX_ID`], or a source that cannot be read.
pub(super) fn largest_id(source: &impl TokenSource, path: &Path) -> Result<u32> {
    if source.token_type() == TokenType::U16 {
        return Ok(source.token_type().max_id());
    }
    let windows = TokenWindows {
        source,
        n: 1,
        across: false,
        groups: &[],
    };
    let mut largest = 0;
    for document in 0..source.n_documents() {
        let run = TokenRun {
            document,
            token: 0,
            n_tokens: source.document_length(document)?,
        };
        windows.for_each(run, |window| {
            let ids = window.tokens[..window.n_starts].iter().copied();
            largest = ids.fold(largest, u32::max);
            Ok(())
        })?;
        if largest > MAX_ID {
            let id = largest as i32;
            let expected = match id {
                ..0 => "negative ids are labels, not tokens".to_owned(),
                _ => format!("n-grams are counted of ids up to {MAX_ID}"),
            };
            let what = format!("id {id} in document {document}; {expected}");
            return Err(Error::malformed(path, what));
        }
    }
    Ok(largest)
}
