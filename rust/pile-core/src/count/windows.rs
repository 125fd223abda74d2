//! Every place of a token source where an n-gram may stand.

use crate::{
    Error, Result,
    tokens::{Span, TokenSource, TokenType},
};

/// Tokens read at once.
const PIECE_TOKENS: u64 = 1 << 16;

/// Ids up to this one are counted: there is a counter for each.
pub(super) const MAX_ID: u32 = (1 << 24) - 1;

/// A place in the documents of a source, one after the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Cut {
    pub(super) document: u64,
    pub(super) token: u64,
    /// Tokens from here to the next cut.
    pub(super) n_tokens: u64,
}

/// The n-grams of a source.
#[derive(Debug)]
pub(super) struct Windows<'a, S> {
    pub(super) source: &'a S,
    /// Tokens of an n-gram.
    pub(super) n: usize,
    /// Whether an n-gram may run into the next documents.
    pub(super) across: bool,
    /// Group of each document; none of them for one group.
    pub(super) groups: &'a [u32],
}

/// Room that is used again.
#[derive(Debug, Default)]
struct Piece {
    spans: Vec<Span>,
    raw: Vec<u8>,
    tokens: Vec<u32>,
}

impl Piece {
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
            TokenType::I32 => {
                let ids = self.raw.as_chunks::<4>().0.iter();
                self.tokens.extend(ids.map(|id| u32::from_le_bytes(*id)));
            }
        }
        Ok(())
    }
}

impl<S: TokenSource> Windows<'_, S> {
    /// Calls `visit(tokens, n_starts, group)` for pieces of the tokens from `cut` to the next one: an n-gram
    /// starts at each of the first `n_starts` tokens.
    pub(super) fn each(
        &self,
        cut: Cut,
        mut visit: impl FnMut(&[u32], usize, u32) -> Result<()>,
    ) -> Result<()> {
        let mut piece = Piece::default();
        let Cut {
            mut document,
            mut token,
            n_tokens: mut left,
        } = cut;
        while left > 0 {
            let length = self.source.document_length(document)?;
            let n = left.min(length - token).min(PIECE_TOKENS);
            if n > 0 {
                self.read(&mut piece, (document, token, n), length)?;
                let n_starts = (piece.tokens.len() + 1).saturating_sub(self.n);
                let group = self.groups.get(document as usize).copied().unwrap_or(0);
                visit(&piece.tokens, n_starts.min(n as usize), group)?;
            }
            (left, token) = (left - n, token + n);
            if token == length {
                (document, token) = (document + 1, 0);
            }
        }
        Ok(())
    }

    /// Reads `n` tokens, and what of the following ones belongs to n-grams that start in them.
    fn read(
        &self,
        piece: &mut Piece,
        (document, start, n): (u64, u64, u64),
        length: u64,
    ) -> Result<()> {
        let mut ahead = self.n as u64 - 1;
        let within = ahead.min(length - start - n);
        piece.spans.clear();
        piece.spans.push(Span {
            document,
            start,
            length: n + within,
        });
        ahead -= within;
        let mut next = document + 1;
        while self.across && ahead > 0 && next < self.source.n_documents() {
            let length = ahead.min(self.source.document_length(next)?);
            if length > 0 {
                piece.spans.push(Span {
                    document: next,
                    start: 0,
                    length,
                });
            }
            ahead -= length;
            next += 1;
        }
        piece.read(self.source)
    }
}

/// The largest id of a source.
///
/// # Errors
/// Ids that are no tokens, or too large to be counted.
pub(super) fn largest_id(source: &impl TokenSource) -> Result<u32> {
    if source.token_type() == TokenType::U16 {
        return Ok(source.token_type().max_id());
    }
    let windows = Windows {
        source,
        n: 1,
        across: false,
        groups: &[],
    };
    let mut largest = 0;
    let mut document = 0;
    while document < source.n_documents() && largest <= MAX_ID {
        let cut = Cut {
            document,
            token: 0,
            n_tokens: source.document_length(document)?,
        };
        windows.each(cut, |tokens, n_starts, _| {
            largest = tokens[..n_starts].iter().copied().fold(largest, u32::max);
            Ok(())
        })?;
        document += 1;
    }
    if largest <= MAX_ID {
        return Ok(largest);
    }
    let id = largest as i32;
    let what = match id {
        ..0 => "ids below 0 are labels, not tokens: count the tokens' own dataset".to_owned(),
        _ => format!("ids up to {MAX_ID} are counted"),
    };
    Err(Error::argument(format!(
        "id {id} in document {}; {what}",
        document - 1
    )))
}
