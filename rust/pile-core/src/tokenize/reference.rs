//! The oracle: the same encoding by the plainest means, for tests and checks of speed-ups.
//!
//! Shares with the fast encoder only the reading of the file and the table of ranges. Tokens are
//! strings, merges are looked up as strings, classes by binary search, added tokens by trying
//! each at each place. Quadratic in the length of a piece.

use crate::Result;
use crate::tokenize::{
    model::added::AddedToken, model::bytes::spell, normalize::nfc::nfc_always,
    pretokenize::classes::Class, pretokenize::classes_table::CLASSES,
    pretokenize::plain::plain_pieces, spec::tokenizer_json::Spec,
};
use std::{cell::Cell, collections::HashMap, path::Path};

/// A tokenizer that is slow and obviously right.
#[derive(Debug)]
pub struct Reference {
    spec: Spec,
    vocab: HashMap<String, u32>,
    ranks: HashMap<(String, String), usize>,
}

impl Reference {
    /// Reads the bytes of a tokenizer.json; `path` is for messages.
    ///
    /// # Errors
    /// As [`crate::tokenize::Tokenizer::from_json`], but contradictions in the file are not looked for.
    pub fn from_json(bytes: &[u8], path: &Path) -> Result<Self> {
        let spec = Spec::from_json(bytes, path)?;
        let vocab = spec.vocab.iter().cloned().collect();
        let ranks = spec.merges.iter().cloned().zip(0..).collect();
        Ok(Self { spec, vocab, ranks })
    }

    /// The ids of `text`; no tokens of a post-processor. None where a byte of it has no token: the reference leaves
    /// such bytes out.
    #[must_use]
    pub fn encode(&self, text: &str) -> Option<Vec<u32>> {
        let mut ids = Vec::new();
        let is_whole = Cell::new(true);
        self.cut(text, false, &mut ids, &|text, ids| {
            let text = self.normalized(text);
            self.cut(&text, true, ids, &|text, ids| {
                is_whole.set(self.encode_plain(text, ids) && is_whole.get());
            });
        });
        is_whole.get().then_some(ids)
    }

    fn normalized(&self, text: &str) -> String {
        match self.spec.is_nfc {
            true => nfc_always(text),
            false => text.to_owned(),
        }
    }

    /// Puts the added tokens of one kind in `ids`, and what `between` gives for the rest.
    fn cut(
        &self,
        text: &str,
        is_normalized: bool,
        ids: &mut Vec<u32>,
        between: &dyn Fn(&str, &mut Vec<u32>),
    ) {
        let (mut done, mut at) = (0, 0);
        while at < text.len() {
            let Some((token, len)) = self.added_at(&text[at..], is_normalized) else {
                at += text[at..].chars().next().map_or(1, char::len_utf8);
                continue;
            };
            let (mut start, mut end) = (at, at + len);
            if token.is_single_word
                && (ends_with_word(&text[..start]) || starts_with_word(&text[end..]))
            {
                at = end;
                continue;
            }
            if token.strips_left {
                start = done.max(text[..start].trim_end().len());
            }
            if token.strips_right {
                end += text[end..].len() - text[end..].trim_start().len();
            }
            if done < start {
                between(&text[done..start], ids);
            }
            if start < end {
                ids.push(token.id);
            }
            (done, at) = (end, at + len);
        }
        if done < text.len() {
            between(&text[done..], ids);
        }
    }

    /// The longest added token that `text` starts with, and its length there.
    fn added_at(&self, text: &str, is_normalized: bool) -> Option<(&AddedToken, usize)> {
        let mut best: Option<(&AddedToken, usize)> = None;
        let of_kind = self
            .spec
            .added
            .iter()
            .filter(|t| t.is_normalized == is_normalized);
        for token in of_kind {
            let content = match is_normalized {
                true => self.normalized(&token.content),
                false => token.content.clone(),
            };
            let is_longer = best.is_none_or(|(_, len)| content.len() > len);
            if is_longer && text.starts_with(&content) {
                best = Some((token, content.len()));
            }
        }
        best
    }

    /// Whether every byte has a token.
    fn encode_plain(&self, text: &str, ids: &mut Vec<u32>) -> bool {
        let text = match self.spec.adds_prefix_space && !text.starts_with(' ') {
            true => format!(" {text}"),
            false => text.to_owned(),
        };
        let mut pieces = plain_pieces(&text, self.spec.pattern).into_iter();
        pieces.all(|piece| self.merge(&spell(piece.as_bytes()), ids))
    }

    /// Merges one piece, spelt in the byte-level alphabet; whether every byte has a token.
    fn merge(&self, piece: &str, ids: &mut Vec<u32>) -> bool {
        if let (true, Some(id)) = (self.spec.ignores_merges, self.vocab.get(piece)) {
            ids.push(*id);
            return true;
        }
        let mut symbols: Vec<String> = piece.chars().map(String::from).collect();
        if !symbols.iter().all(|s| self.vocab.contains_key(s)) {
            return false;
        }
        while let Some(at) = self.lowest(&symbols) {
            let right = symbols.remove(at + 1);
            symbols[at].push_str(&right);
        }
        ids.extend(symbols.iter().map(|s| self.vocab[s]));
        true
    }

    /// Where the pair of lowest rank is, the leftmost of equals.
    fn lowest(&self, symbols: &[String]) -> Option<usize> {
        let rank = |w: &[String]| self.ranks.get(&(w[0].clone(), w[1].clone())).copied();
        let ranked = symbols
            .windows(2)
            .enumerate()
            .filter_map(|(i, w)| Some((rank(w)?, i)));
        ranked.min().map(|(_, i)| i)
    }
}

fn starts_with_word(text: &str) -> bool {
    text.chars()
        .next()
        .is_some_and(regex_syntax::is_word_character)
}

fn ends_with_word(text: &str) -> bool {
    text.chars()
        .next_back()
        .is_some_and(regex_syntax::is_word_character)
}

/// Class of `c`, by binary search in the ranges.
#[must_use]
pub fn class_of(c: char) -> Class {
    let after = CLASSES.partition_point(|(start, _)| *start <= u32::from(c));
    CLASSES[after - 1].1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_lookups_of_classes_agree() {
        for c in '\0'..=char::MAX {
            assert_eq!(class_of(c), crate::tokenize::class_of(c), "{c:?}");
        }
    }
}
