//! Decoded runs of documents, with the way back from a byte to its token.

use crate::{
    Result,
    tokenize::TokenBytes,
    tokens::{Span, TokenSource, TokenType},
};

use super::grams::SLACK_BYTES;

/// Tokens from one mark to the next.
const MARK_TOKENS: usize = 64;

/// What is searched: the text that tokens decode to, or the ids themselves.
#[derive(Debug, Clone, Copy)]
pub enum Alphabet<'a> {
    /// The bytes of the decoded text.
    Text(&'a TokenBytes),
    /// The stored ids, little-endian.
    Ids(TokenType),
}

impl Alphabet<'_> {
    fn length(&self, id: i64) -> usize {
        match self {
            Self::Text(table) => table.length(id),
            Self::Ids(token_type) => token_type.n_bytes(),
        }
    }

    /// Whether an occurrence may begin or end at this byte of its document.
    fn may_cut(&self, byte: usize) -> bool {
        match self {
            Self::Text(_) => true,
            Self::Ids(token_type) => byte.is_multiple_of(token_type.n_bytes()),
        }
    }
}

/// A span within a chunk.
#[derive(Debug, Clone, Copy)]
struct Segment {
    span: Span,
    first_token: usize,
    first_byte: usize,
}

/// Spans decoded one after the other.
#[derive(Debug)]
pub(super) struct Chunk<'a> {
    alphabet: Alphabet<'a>,
    token_type: TokenType,
    raw: Vec<u8>,
    n_tokens: usize,
    /// Decoded bytes, and at least [`SLACK_BYTES`] behind them.
    bytes: Vec<u8>,
    n_bytes: usize,
    /// The first byte of every [`MARK_TOKENS`]th token.
    marks: Vec<usize>,
    segments: Vec<Segment>,
    n_without_bytes: u64,
}

/// Where bytes stand in a chunk's spans.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Found {
    /// The document in which they begin.
    pub(super) document: u64,
    /// The token of the document in which they begin.
    pub(super) token: u64,
    /// Tokens from the one in which they begin to the one in which they end, both counted.
    pub(super) n_tokens: u64,
    /// Bytes of the chunk's tokens before that token's span begins, and in it before them.
    pub(super) byte_in_span: u64,
    /// Tokens of the chunk before the one in which they begin.
    pub(super) token_in_chunk: u64,
    /// Spans in which they stand.
    pub(super) n_spans: u64,
}

impl<'a> Chunk<'a> {
    pub(super) fn new(alphabet: Alphabet<'a>, token_type: TokenType) -> Self {
        Self {
            alphabet,
            token_type,
            raw: Vec::new(),
            n_tokens: 0,
            bytes: vec![0; SLACK_BYTES],
            n_bytes: 0,
            marks: Vec::new(),
            segments: Vec::new(),
            n_without_bytes: 0,
        }
    }

    /// Decodes `spans` in place of what was there.
    pub(super) fn fill(&mut self, source: &impl TokenSource, spans: &[Span]) -> Result<()> {
        self.n_tokens = 0;
        self.n_bytes = 0;
        self.n_without_bytes = 0;
        self.raw.clear();
        self.marks.clear();
        self.segments.clear();
        self.append(source, spans)
    }

    fn append(&mut self, source: &impl TokenSource, spans: &[Span]) -> Result<()> {
        let width = self.token_type.n_bytes();
        let n_new: u64 = spans.iter().map(|span| span.length).sum();
        self.raw.resize((self.n_tokens + n_new as usize) * width, 0);
        source.read(spans, &mut self.raw[self.n_tokens * width..])?;
        for span in spans {
            self.segments.push(Segment {
                span: *span,
                first_token: self.n_tokens,
                first_byte: self.n_bytes,
            });
            self.decode(span.length as usize);
        }
        Ok(())
    }

    /// Lengthens the last span by tokens of its document until `n_bytes` more are decoded or it ends;
    /// returns where the bytes ended before.
    pub(super) fn look_ahead(
        &mut self,
        source: &impl TokenSource,
        n_bytes: usize,
    ) -> Result<usize> {
        let before = self.n_bytes;
        let width = self.token_type.n_bytes();
        let Some(last) = self.segments.last().copied() else {
            return Ok(before);
        };
        let mut span = last.span;
        let length = source.document_length(span.document)?;
        while self.n_bytes < before + n_bytes && span.start + span.length < length {
            let more = Span {
                document: span.document,
                start: span.start + span.length,
                length: (length - span.start - span.length).min(n_bytes as u64),
            };
            self.raw
                .resize((self.n_tokens + more.length as usize) * width, 0);
            source.read(&[more], &mut self.raw[self.n_tokens * width..])?;
            self.decode(more.length as usize);
            span.length += more.length;
        }
        if let Some(last) = self.segments.last_mut() {
            last.span = span;
        }
        Ok(before)
    }

    /// Decodes `n` more of the raw tokens.
    fn decode(&mut self, n: usize) {
        let width = self.token_type.n_bytes();
        let end = self.n_tokens + n;
        while self.n_tokens < end {
            let of_mark = self.n_tokens % MARK_TOKENS;
            if of_mark == 0 {
                self.marks.push(self.n_bytes);
            }
            let n = (MARK_TOKENS - of_mark).min(end - self.n_tokens);
            let raw = &self.raw[self.n_tokens * width..(self.n_tokens + n) * width];
            match (self.alphabet, self.token_type) {
                (Alphabet::Ids(_), _) => {
                    let end = self.n_bytes + raw.len();
                    if self.bytes.len() < end {
                        self.bytes.resize(end, 0);
                    }
                    self.bytes[self.n_bytes..end].copy_from_slice(raw);
                    self.n_bytes = end;
                }
                (Alphabet::Text(table), TokenType::U16) => {
                    let ids = raw.as_chunks::<2>().0.iter();
                    let ids = ids.map(|id| i64::from(u16::from_le_bytes(*id)));
                    let decoded = table.decode(ids, &mut self.bytes, self.n_bytes);
                    self.add(decoded);
                }
                (Alphabet::Text(table), token_type) => {
                    let ids = raw.chunks_exact(width).map(|id| token_type.decode(id));
                    let decoded = table.decode(ids, &mut self.bytes, self.n_bytes);
                    self.add(decoded);
                }
            }
            self.n_tokens += n;
        }
        if self.bytes.len() < self.n_bytes + SLACK_BYTES {
            self.bytes.resize(self.n_bytes + SLACK_BYTES, 0);
        }
    }

    fn add(&mut self, (end, n_without): (usize, u64)) {
        self.n_bytes = end;
        self.n_without_bytes += n_without;
    }

    /// The decoded bytes with what is behind them, and how many they are.
    pub(super) fn haystack(&self) -> (&[u8], usize) {
        (&self.bytes, self.n_bytes)
    }

    /// Where the last span begins among the bytes.
    pub(super) fn last_first_byte(&self) -> usize {
        self.segments.last().map_or(0, |last| last.first_byte)
    }

    /// Tokens whose ids decode to nothing.
    pub(super) fn n_without_bytes(&self) -> u64 {
        self.n_without_bytes
    }

    /// Where `length` bytes from byte `at` stand; None where they are not tokens of the alphabet.
    pub(super) fn place(&self, at: usize, length: usize) -> Option<Found> {
        let last_byte = at + length - 1;
        let first = self.segment_of(at);
        let last = self.segment_of(last_byte);
        let segment = self.segments[first];
        if !self.alphabet.may_cut(at) || !self.alphabet.may_cut(at + length) {
            return None;
        }
        let token = self.token_of(at);
        let token_in_span = (token - segment.first_token) as u64;
        Some(Found {
            document: segment.span.document,
            token: segment.span.start + token_in_span,
            n_tokens: (self.token_of(last_byte) - token + 1) as u64,
            byte_in_span: (at - segment.first_byte) as u64,
            token_in_chunk: token as u64,
            n_spans: (last - first + 1) as u64,
        })
    }

    /// The span in which a byte stands. Of spans that begin at the same byte all but the last are empty.
    fn segment_of(&self, byte: usize) -> usize {
        self.segments.partition_point(|s| s.first_byte <= byte) - 1
    }

    /// The token in which a byte stands.
    fn token_of(&self, byte: usize) -> usize {
        let width = self.token_type.n_bytes();
        let mark = self.marks.partition_point(|first| *first <= byte) - 1;
        let (mut token, mut end) = (mark * MARK_TOKENS, self.marks[mark]);
        loop {
            let raw = &self.raw[token * width..(token + 1) * width];
            end += self.alphabet.length(self.token_type.decode(raw));
            if end > byte {
                return token;
            }
            token += 1;
        }
    }
}
