//! The text that a dataset stores for a text: what its tokens decode to. It is computed without encoding.
//!
//! Queries and terms are normalized in this way before they are compared with a dataset.

use crate::text::nfc::nfc;
use crate::tokenize::{model::added_tokens::AddedTokenSplit, model::tokenizer::Tokenizer};
use std::borrow::Cow;

impl Tokenizer {
    /// Name of the normalizer of the file; None if it changes no text.
    #[must_use]
    pub fn normalizer(&self) -> Option<&'static str> {
        self.is_nfc.then_some("NFC")
    }

    /// The bytes that a dataset of this tokenizer stores for `text` inside a document.
    ///
    /// Added tokens are replaced by what they decode to. The rest is normalized.
    #[must_use]
    pub fn normalize<'t>(&self, text: &'t str) -> Cow<'t, [u8]> {
        self.stored_text(text, false)
    }

    /// The bytes that a dataset stores for `text` as a whole document. Unlike [`Self::normalize`], this includes
    /// the space that some tokenizers put first.
    #[must_use]
    pub fn normalize_document<'t>(&self, text: &'t str) -> Cow<'t, [u8]> {
        self.stored_text(text, self.adds_prefix_space)
    }

    /// `adds_space`: whether the prefix space is added to a text that starts without an added token.
    fn stored_text<'t>(&self, text: &'t str, mut adds_space: bool) -> Cow<'t, [u8]> {
        let mut stored = Vec::with_capacity(text.len());
        for cut in self.raw_added_tokens.split(text) {
            match cut {
                AddedTokenSplit::Token(id) => {
                    stored.extend_from_slice(self.token_bytes(id).unwrap_or_default())
                }
                AddedTokenSplit::Text(text) => {
                    self.push_normalized(&self.nfc_if_declared(text), adds_space, &mut stored)
                }
            }
            // Text after an added token is always the start of a text to the tokenizer.
            adds_space = self.adds_prefix_space;
        }
        match stored == text.as_bytes() {
            true => Cow::Borrowed(text.as_bytes()),
            false => Cow::Owned(stored),
        }
    }

    fn nfc_if_declared<'t>(&self, text: &'t str) -> Cow<'t, str> {
        match self.is_nfc {
            true => nfc(text),
            false => Cow::Borrowed(text),
        }
    }

    /// Appends normalized text, with its added tokens replaced by what they decode to.
    fn push_normalized(&self, text: &str, mut adds_space: bool, stored: &mut Vec<u8>) {
        if self.space_runs.is_some() {
            // The added tokens are runs of spaces, which decode to themselves. A tokenizer with a prefix space has no
            // `space_runs`.
            return stored.extend_from_slice(text.as_bytes());
        }
        for cut in self.normalized_added_tokens.split(text) {
            match cut {
                AddedTokenSplit::Token(id) => {
                    stored.extend_from_slice(self.token_bytes(id).unwrap_or_default())
                }
                AddedTokenSplit::Text(text) => {
                    if adds_space && !text.starts_with(' ') {
                        stored.push(b' ');
                    }
                    stored.extend_from_slice(text.as_bytes());
                }
            }
            adds_space = self.adds_prefix_space;
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::{
        progress::Progress,
        tokenize::{TrainConfig, Trainer},
    };
    use proptest::{collection::vec, prelude::*, sample::select};
    use serde_json::{Value, json};

    /// Strings that normalizers and added tokens change, alone or next to each other.
    pub(crate) const STRINGS: [&str; 24] = [
        "e",
        "\u{301}",
        "\u{323}",
        "é",
        "\u{2126}",
        "\u{212a}",
        "\u{212b}",
        "\u{1112}",
        "\u{1161}",
        "\u{11ab}",
        "\u{fa10}",
        "\u{f900}",
        " ",
        "  ",
        "<raw e\u{301}>",
        "<raw é>",
        "<strip>",
        "<norm e\u{301}>",
        "<norm é>",
        "word",
        "\n",
        "\u{344}",
        "\u{958}",
        "<|endoftext|>",
    ];

    /// With each normalizer, with and without a prefix space and added tokens.
    pub(crate) fn tokenizers() -> Vec<Tokenizer> {
        let mut trainer = Trainer::new(TrainConfig {
            vocab_size: 270,
            min_frequency: 0,
            special_tokens: vec!["<|endoftext|>".to_owned()],
        })
        .unwrap();
        trainer.add("the café's word; the words");
        let json = trainer.finish(&Progress::default()).unwrap().to_json();
        let mut all = Vec::new();
        for normalizer in [
            json!(null),
            json!({"type": "NFC"}),
            json!({"type": "Sequence", "normalizers": []}),
            json!({"type": "Sequence", "normalizers": [{"type": "NFC"}, {"type": "NFC"}]}),
        ] {
            for adds_space in [false, true] {
                for adds_tokens in [false, true] {
                    let mut json: Value = serde_json::from_str(&json).unwrap();
                    json["normalizer"] = normalizer.clone();
                    json["pre_tokenizer"] = json!({"type": "ByteLevel", "add_prefix_space": adds_space,
                        "trim_offsets": true, "use_regex": true});
                    if adds_tokens {
                        let first = json["model"]["vocab"].as_object().unwrap().len();
                        for (id, (content, is_normalized, strips)) in (first..).zip([
                            ("<raw e\u{301}>", false, false),
                            ("<norm e\u{301}>", true, false),
                            ("<strip>", false, true),
                        ]) {
                            let token = json!({"id": id, "content": content, "single_word": false,
                                "lstrip": strips, "rstrip": strips, "normalized": is_normalized,
                                "special": false});
                            json["added_tokens"].as_array_mut().unwrap().push(token);
                        }
                    }
                    let bytes = json.to_string();
                    all.push(Tokenizer::from_json(bytes.as_bytes(), "t.json".as_ref()).unwrap());
                }
            }
        }
        all
    }

    fn decoded(tokenizer: &Tokenizer, text: &str) -> Vec<u8> {
        let mut ids = Vec::new();
        tokenizer.encoder().encode(text, &mut ids).unwrap();
        let bytes = ids.iter().map(|id| tokenizer.token_bytes(*id).unwrap());
        bytes.flatten().copied().collect()
    }

    #[test]
    fn a_query_is_normalized_as_documents_are() {
        let [unnormalized, .., nfc] = &tokenizers()[..] else {
            panic!("expected several tokenizers")
        };
        assert_eq!(
            unnormalized.normalize("Zoe\u{301}"),
            "Zoe\u{301}".as_bytes()
        );
        assert_eq!(nfc.normalizer(), Some("NFC"));
        assert_eq!(nfc.normalize("Zoe\u{301}"), "Zoé".as_bytes());
        assert_eq!(nfc.normalize("e <strip> e"), "e<strip> e".as_bytes());
        assert_eq!(&*nfc.normalize_document("e"), b" e");
        assert_eq!(nfc.normalize("<raw e\u{301}>"), "<raw e\u{301}>".as_bytes());
        assert_eq!(nfc.normalize("<norm e\u{301}>"), "<norm é>".as_bytes());
        assert!(matches!(nfc.normalize("Plain é"), Cow::Borrowed(_)));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(100))]
        #[test]
        fn equals_what_the_tokens_decode_to(strings in vec(select(&STRINGS[..]), 0..12)) {
            let text = strings.concat();
            for tokenizer in tokenizers() {
                let expected = decoded(&tokenizer, &text);
                prop_assert_eq!(&*tokenizer.normalize_document(&text), &expected[..]);
                let query = tokenizer.normalize(&text);
                let inner = expected.strip_prefix(b" ").filter(|_| tokenizer.adds_prefix_space);
                prop_assert!(*query == expected[..] || Some(&*query) == inner);
            }
        }
    }
}
