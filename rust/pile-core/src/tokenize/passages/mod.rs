//! The tokens of texts as `dedup` searches them for repeated passages.

use super::{Encoder, TokenBytes, Tokenizer};
use crate::{
    Result,
    dedup::passages::{TextTokenizer, TokenSplitter},
};

/// The tokens of a tokenizer, without those that it adds to texts.
pub struct PassageTokens<'t> {
    tokenizer: &'t Tokenizer,
    table: TokenBytes,
}

impl<'t> PassageTokens<'t> {
    /// Tokens of this tokenizer.
    #[must_use]
    pub fn new(tokenizer: &'t Tokenizer) -> Self {
        let table = TokenBytes::new(tokenizer);
        Self { tokenizer, table }
    }
}

impl TextTokenizer for PassageTokens<'_> {
    fn splitter(&self) -> Box<dyn TokenSplitter + '_> {
        Box::new(PassageSplitter {
            tokenizer: self.tokenizer,
            table: &self.table,
            encoder: self.tokenizer.encoder(),
            ids: Vec::new(),
        })
    }
}

struct PassageSplitter<'t> {
    tokenizer: &'t Tokenizer,
    table: &'t TokenBytes,
    encoder: Encoder<'t>,
    ids: Vec<u32>,
}

impl PassageSplitter<'_> {
    /// The offset of each border of the tokens in the bytes that they decode to, which a dataset stores.
    fn stored_offsets(&self) -> impl Iterator<Item = usize> {
        let ends = self.ids.iter().scan(0, |end, id| {
            *end += self.table.length(i64::from(*id));
            Some(*end)
        });
        std::iter::once(0).chain(ends)
    }

    /// Whether the tokens decode to `text`.
    fn decode_to(&self, text: &[u8]) -> bool {
        let mut rest = text;
        let is_next = |id: &u32| match rest.strip_prefix(self.table.bytes(i64::from(*id))) {
            Some(after) => {
                rest = after;
                true
            }
            None => false,
        };
        self.ids.iter().all(is_next) && rest.is_empty()
    }
}

impl TokenSplitter for PassageSplitter<'_> {
    fn split<'a>(&'a mut self, text: &'a str) -> Result<&'a [u32]> {
        self.ids.clear();
        self.encoder.encode(text, &mut self.ids)?;
        Ok(&self.ids)
    }

    fn borders(&self, text: &str, put: &mut dyn FnMut(Option<usize>)) {
        // Texts that normalization changes are few.
        if self.decode_to(text.as_bytes()) {
            for offset in self.stored_offsets() {
                put(text.is_char_boundary(offset).then_some(offset));
            }
            return;
        }
        let mut origins = self.tokenizer.alignment(text).into_origins();
        for (i, offset) in self.stored_offsets().enumerate() {
            // The tokens end where the text does, even if its last characters are stored as other bytes or none.
            let is_end = i == self.ids.len();
            let origin = if is_end {
                Some(text.len())
            } else {
                origins.of(offset)
            };
            put(origin.filter(|offset| text.is_char_boundary(*offset)));
        }
    }
}

#[cfg(test)]
mod tests;
