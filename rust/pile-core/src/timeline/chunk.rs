//! Decoded spans of documents, and the token that each byte belongs to.

use crate::{
    Result,
    tokenize::TokenBytes,
    tokens::{Span, TokenSource, TokenType},
};

use super::grams::SLACK_BYTES;

/// Distance of the marks in tokens. A lookup decodes the lengths of fewer than this many tokens; a mark for every
/// token would take more memory than the tokens themselves.
const MARK_TOKENS: usize = 64;

/// The units of a search: the bytes of the text that tokens decode to, or the ids themselves.
#[derive(Debug, Clone, Copy)]
pub enum SearchUnit<'a> {
    /// The bytes of the decoded text.
    Text(&'a TokenBytes),
    /// The stored ids, as little-endian bytes.
    Ids(TokenType),
}

impl SearchUnit<'_> {
    /// Bytes of a token.
    pub(super) fn length(&self, id: i64) -> usize {
        match self {
            Self::Text(table) => table.length(id),
            Self::Ids(token_type) => token_type.n_bytes(),
        }
    }

    /// Bytes of the longest token.
    pub(super) fn longest(&self) -> usize {
        match self {
            Self::Text(table) => table.longest(),
            Self::Ids(token_type) => token_type.n_bytes(),
        }
    }

    /// Whether an occurrence may begin or end at this byte: with ids, only between two ids.
    fn is_boundary(&self, byte: usize) -> bool {
        match self {
            Self::Text(_) => true,
            Self::Ids(token_type) => byte.is_multiple_of(token_type.n_bytes()),
        }
    }
}

/// A span of the chunk and its position in the chunk.
#[derive(Debug, Clone, Copy)]
struct ChunkSpan {
    span: Span,
    first_token: usize,
    first_byte: usize,
}

/// Decoded spans, one after the other, in buffers that are reused for the next spans.
#[derive(Debug)]
pub(super) struct Chunk<'a> {
    unit: SearchUnit<'a>,
    token_type: TokenType,
    /// The stored tokens.
    raw: Vec<u8>,
    n_tokens: usize,
    /// `n_bytes` decoded bytes, then at least [`SLACK_BYTES`] bytes of any content.
    bytes: Vec<u8>,
    n_bytes: usize,
    /// The first byte of every [`MARK_TOKENS`]th token.
    marks: Vec<usize>,
    spans: Vec<ChunkSpan>,
    n_without_bytes: u64,
}

/// The location of a byte range in a chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ChunkRange {
    /// The document of the first byte.
    pub(super) document: u64,
    /// The token of that document that holds the first byte.
    pub(super) token_offset: u64,
    /// Tokens from the one with the first byte to the one with the last byte, both included.
    pub(super) n_tokens: u64,
    /// The first byte, counted from the start of its span.
    pub(super) byte_in_span: u64,
    /// The first byte, counted from the start of its token.
    pub(super) byte_in_token: u64,
    /// The token with the first byte, counted from the start of the chunk.
    pub(super) token_in_chunk: u64,
    /// Spans from the one with the first byte to the one with the last byte, both included.
    pub(super) n_spans: u64,
}

impl<'a> Chunk<'a> {
    pub(super) fn new(unit: SearchUnit<'a>, token_type: TokenType) -> Self {
        Self {
            unit,
            token_type,
            raw: Vec::new(),
            n_tokens: 0,
            bytes: vec![0; SLACK_BYTES],
            n_bytes: 0,
            marks: Vec::new(),
            spans: Vec::new(),
            n_without_bytes: 0,
        }
    }

    /// Replaces the content by the decoded `spans`.
    pub(super) fn fill(&mut self, source: &impl TokenSource, spans: &[Span]) -> Result<()> {
        self.fill_with(spans, |out| source.read(spans, out))
    }

    /// Replaces the content by the decoded `spans`, whose tokens `read` writes to its argument.
    pub(super) fn fill_with(
        &mut self,
        spans: &[Span],
        read: impl FnOnce(&mut [u8]) -> Result<usize>,
    ) -> Result<()> {
        self.n_tokens = 0;
        self.n_bytes = 0;
        self.n_without_bytes = 0;
        self.marks.clear();
        self.spans.clear();
        let n_tokens: u64 = spans.iter().map(|span| span.length).sum();
        self.raw.clear();
        self.raw
            .resize(n_tokens as usize * self.token_type.n_bytes(), 0);
        read(&mut self.raw)?;
        for span in spans {
            self.spans.push(ChunkSpan {
                span: *span,
                first_token: self.n_tokens,
                first_byte: self.n_bytes,
            });
            self.decode(span.length as usize)?;
        }
        Ok(())
    }

    /// Extends the last span within its document by at least `n_bytes` bytes, or to the document's end, so that an
    /// occurrence that begins in the span is found whole. Returns the number of bytes before the extension.
    pub(super) fn look_ahead(
        &mut self,
        source: &impl TokenSource,
        n_bytes: usize,
    ) -> Result<usize> {
        let before = self.n_bytes;
        let width = self.token_type.n_bytes();
        let Some(last) = self.spans.last().copied() else {
            return Ok(before);
        };
        let mut span = last.span;
        let length = source.document_length(span.document)?;
        // Most tokens have a byte or more, so the first `n_bytes` tokens are nearly always enough.
        while self.n_bytes < before + n_bytes && span.start + span.length < length {
            let more = Span {
                document: span.document,
                start: span.start + span.length,
                length: (length - span.start - span.length).min(n_bytes as u64),
            };
            self.raw
                .resize((self.n_tokens + more.length as usize) * width, 0);
            source.read(&[more], &mut self.raw[self.n_tokens * width..])?;
            self.decode(more.length as usize)?;
            span.length += more.length;
        }
        if let Some(last) = self.spans.last_mut() {
            last.span = span;
        }
        Ok(before)
    }

    /// Decodes the next `n` tokens of `raw`.
    fn decode(&mut self, n: usize) -> Result<()> {
        let width = self.token_type.n_bytes();
        let end = self.n_tokens + n;
        while self.n_tokens < end {
            let since_mark = self.n_tokens % MARK_TOKENS;
            if since_mark == 0 {
                self.marks.push(self.n_bytes);
            }
            let n = (MARK_TOKENS - since_mark).min(end - self.n_tokens);
            let raw = &self.raw[self.n_tokens * width..(self.n_tokens + n) * width];
            match (self.unit, self.token_type) {
                (SearchUnit::Ids(_), _) => {
                    let end = self.n_bytes + raw.len();
                    if self.bytes.len() < end {
                        self.bytes.resize(end, 0);
                    }
                    self.bytes[self.n_bytes..end].copy_from_slice(raw);
                    self.n_bytes = end;
                }
                (SearchUnit::Text(table), TokenType::U16) => {
                    let ids = raw.as_chunks::<2>().0.iter();
                    let ids = ids.map(|id| i64::from(u16::from_le_bytes(*id)));
                    let decoded = table.decode(ids, &mut self.bytes, self.n_bytes)?;
                    self.add(decoded);
                }
                (SearchUnit::Text(table), token_type) => {
                    let ids = raw.chunks_exact(width).map(|id| token_type.decode(id));
                    let decoded = table.decode(ids, &mut self.bytes, self.n_bytes)?;
                    self.add(decoded);
                }
            }
            self.n_tokens += n;
        }
        if self.bytes.len() < self.n_bytes + SLACK_BYTES {
            self.bytes.resize(self.n_bytes + SLACK_BYTES, 0);
        }
        Ok(())
    }

    fn add(&mut self, (end, n_without): (usize, u64)) {
        self.n_bytes = end;
        self.n_without_bytes += n_without;
    }

    /// The decoded bytes followed by the slack, and the number of decoded bytes.
    pub(super) fn haystack(&self) -> (&[u8], usize) {
        (&self.bytes, self.n_bytes)
    }

    /// Index of the last span's first byte.
    pub(super) fn last_first_byte(&self) -> usize {
        self.spans.last().map_or(0, |last| last.first_byte)
    }

    /// Tokens whose ids decode to no bytes, those looked ahead included.
    pub(super) fn n_without_bytes(&self) -> u64 {
        self.n_without_bytes
    }

    /// The location of `length` bytes from byte `at`; `None` if an end is not at a boundary of the search unit.
    pub(super) fn locate(&self, at: usize, length: usize) -> Option<ChunkRange> {
        let last_byte = at + length - 1;
        let first = self.span_of(at);
        let last = self.span_of(last_byte);
        let span = self.spans[first];
        if !self.unit.is_boundary(at) || !self.unit.is_boundary(at + length) {
            return None;
        }
        let (token, first_byte) = self.token_of(at);
        let token_in_span = (token - span.first_token) as u64;
        Some(ChunkRange {
            document: span.span.document,
            token_offset: span.span.start + token_in_span,
            n_tokens: (self.token_of(last_byte).0 - token + 1) as u64,
            byte_in_span: (at - span.first_byte) as u64,
            byte_in_token: (at - first_byte) as u64,
            token_in_chunk: token as u64,
            n_spans: (last - first + 1) as u64,
        })
    }

    /// Index of the span that holds a byte. Of spans that begin at the same byte only the last one has bytes,
    /// so it is the one that `partition_point` selects.
    fn span_of(&self, byte: usize) -> usize {
        self.spans.partition_point(|s| s.first_byte <= byte) - 1
    }

    /// The token that holds a byte, and the token's first byte.
    fn token_of(&self, byte: usize) -> (usize, usize) {
        let width = self.token_type.n_bytes();
        let mark = self.marks.partition_point(|first| *first <= byte) - 1;
        let (mut token, mut first) = (mark * MARK_TOKENS, self.marks[mark]);
        loop {
            let raw = &self.raw[token * width..(token + 1) * width];
            let end = first + self.unit.length(self.token_type.decode(raw));
            if end > byte {
                return (token, first);
            }
            (token, first) = (token + 1, end);
        }
    }
}
