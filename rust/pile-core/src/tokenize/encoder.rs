//! Text to tokens, fast.
//!
//! The steps, each where the reference has it: added tokens are cut out of the raw text; what
//! is between them is normalized; added tokens are cut out of that; what is between is cut into
//! pieces, on its own; each piece is merged. `reference` does the same plainly.

use super::{
    added::Cut, cache::PieceCache, merges::Scratch, normalize::nfc, pieces::pieces,
    tokenizer::Tokenizer,
};
use std::borrow::Cow;

/// Encodes texts; owns what is reused from text to text, so keep one per thread.
#[derive(Debug)]
pub struct Encoder<'t> {
    tokenizer: &'t Tokenizer,
    cache: PieceCache,
    scratch: Scratch,
}

impl<'t> Encoder<'t> {
    pub(super) fn new(tokenizer: &'t Tokenizer) -> Self {
        Self {
            tokenizer,
            cache: PieceCache::default(),
            scratch: Scratch::default(),
        }
    }

    /// Appends the ids of `text` to `out`; a post-processor of the file adds nothing.
    ///
    /// Cost: O(n) to O(n log n) of a text of n bytes without break; nothing depends on texts
    /// seen before but the time.
    pub fn encode(&mut self, text: &str, out: &mut Vec<u32>) {
        let tokenizer = self.tokenizer;
        for cut in tokenizer.raw.cuts(text) {
            match cut {
                Cut::Token(id) => out.push(id),
                Cut::Text(text) => self.encode_raw(text, out),
            }
        }
    }

    /// Encodes text that is not normalized yet.
    fn encode_raw(&mut self, text: &str, out: &mut Vec<u32>) {
        let tokenizer = self.tokenizer;
        let text = match tokenizer.is_nfc {
            true => nfc(text),
            false => Cow::Borrowed(text),
        };
        for cut in tokenizer.normalized.cuts(&text) {
            match cut {
                Cut::Token(id) => out.push(id),
                Cut::Text(text) => self.encode_plain(text, out),
            }
        }
    }

    /// Encodes text without added tokens.
    fn encode_plain(&mut self, text: &str, out: &mut Vec<u32>) {
        if self.tokenizer.adds_prefix_space && !text.starts_with(' ') {
            self.encode_pieces(&format!(" {text}"), out);
        } else {
            self.encode_pieces(text, out);
        }
    }

    fn encode_pieces(&mut self, text: &str, out: &mut Vec<u32>) {
        let (tokenizer, scratch) = (self.tokenizer, &mut self.scratch);
        for piece in pieces(text) {
            let piece = piece.as_bytes();
            self.cache
                .ids(piece, out, |out| match tokenizer.whole.get(piece) {
                    Some(id) => out.push(*id),
                    None => tokenizer.merges.merge(piece, scratch, out),
                });
        }
    }
}
