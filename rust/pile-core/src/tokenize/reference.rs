//! A reference implementation of encoding, with which tests and benchmarks compare the encoder.
//!
//! It shares with the encoder only the parser of tokenizer.json and the table of class ranges. Tokens and merges
//! are strings, classes are found by binary search, and each added token is tried at each position. The time is
//! quadratic in the length of a pretoken.

use crate::Result;
use crate::text::{classes::Class, classes_table::CLASSES, nfc::nfc_always};
use crate::tokenize::{
    model::added_tokens::AddedToken, model::byte_alphabet::spell,
    pretokenize::reference::reference_pretokens, spec::tokenizer_json::Spec,
};
use std::{cell::Cell, collections::HashMap, path::Path};

/// A tokenizer that is slow and simple enough to be verified by reading.
#[derive(Debug)]
pub struct Reference {
    spec: Spec,
    vocab: HashMap<String, u32>,
    ranks: HashMap<(String, String), usize>,
}

impl Reference {
    /// Loads the bytes of a tokenizer.json. Messages name the file `path`.
    ///
    /// # Errors
    /// Those of [`crate::tokenize::Tokenizer::from_json`], except that contradictions in the file are not detected.
    pub fn from_json(bytes: &[u8], path: &Path) -> Result<Self> {
        let spec = Spec::from_json(bytes, path)?;
        let vocab = spec.vocab.iter().cloned().collect();
        let ranks = spec.merges.iter().cloned().zip(0..).collect();
        Ok(Self { spec, vocab, ranks })
    }

    /// The ids of `text`, without the tokens of the post-processor. None if one of its bytes has no token; Hugging
    /// Face `tokenizers` drops such bytes.
    #[must_use]
    pub fn encode(&self, text: &str) -> Option<Vec<u32>> {
        let mut ids = Vec::new();
        let is_complete = Cell::new(true);
        self.split_added(text, false, &mut ids, &|text, ids| {
            let text = self.normalized(text);
            self.split_added(&text, true, ids, &|text, ids| {
                is_complete.set(self.encode_normalized(text, ids) && is_complete.get());
            });
        });
        is_complete.get().then_some(ids)
    }

    fn normalized(&self, text: &str) -> String {
        match self.spec.is_nfc {
            true => nfc_always(text),
            false => text.to_owned(),
        }
    }

    /// Appends the added tokens of raw or of normalized text to `ids`, and calls `between` for the text between
    /// them.
    fn split_added(
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
            // A token may be within the white space that the one before stripped.
            if start < end {
                ids.push(token.id);
                done = end;
            }
            at += len;
        }
        if done < text.len() {
            between(&text[done..], ids);
        }
    }

    /// The longest added token at the start of `text`, and its length in bytes.
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

    /// Appends the ids of normalized text without added tokens. Returns whether every byte has a token.
    fn encode_normalized(&self, text: &str, ids: &mut Vec<u32>) -> bool {
        let text = match self.spec.adds_prefix_space && !text.starts_with(' ') {
            true => format!(" {text}"),
            false => text.to_owned(),
        };
        let mut pretokens = reference_pretokens(&text, self.spec.pattern).into_iter();
        pretokens.all(|pretoken| self.merge(&spell(pretoken.as_bytes()), ids))
    }

    /// Appends the ids of a pretoken, written in the byte-level alphabet. Returns whether every byte has a token.
    fn merge(&self, pretoken: &str, ids: &mut Vec<u32>) -> bool {
        if let (true, Some(id)) = (self.spec.ignores_merges, self.vocab.get(pretoken)) {
            ids.push(*id);
            return true;
        }
        let mut symbols: Vec<String> = pretoken.chars().map(String::from).collect();
        if !symbols.iter().all(|s| self.vocab.contains_key(s)) {
            return false;
        }
        while let Some(at) = self.best_pair(&symbols) {
            let right = symbols.remove(at + 1);
            symbols[at].push_str(&right);
        }
        ids.extend(symbols.iter().map(|s| self.vocab[s]));
        true
    }

    /// Index of the left symbol of the pair of lowest rank, the leftmost of equals.
    fn best_pair(&self, symbols: &[String]) -> Option<usize> {
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

/// The class of `c`, by binary search in the ranges.
#[must_use]
pub fn class_of(c: char) -> Class {
    let after = CLASSES.partition_point(|(start, _)| *start <= u32::from(c));
    CLASSES[after - 1].1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equals_the_lookup_table() {
        for c in '\0'..=char::MAX {
            assert_eq!(class_of(c), crate::tokenize::class_of(c), "{c:?}");
        }
    }
}
