//! The text that the tokens of a text decode to, without encoding it.
//!
//! A dataset holds this text, so queries and terms are compared with it.

use crate::tokenize::{model::added::Cut, model::tokenizer::Tokenizer, normalize::nfc::nfc};
use std::borrow::Cow;

impl Tokenizer {
    /// Name of the normalizer that the file declares, if it changes any text.
    #[must_use]
    pub fn normalizer(&self) -> Option<&'static str> {
        self.is_nfc.then_some("NFC")
    }

    /// The bytes by which a dataset of this tokenizer holds `text` in the middle of a document: added tokens
    /// as they decode, the rest normalized.
    #[must_use]
    pub fn normalize<'t>(&self, text: &'t str) -> Cow<'t, [u8]> {
        self.held(text, false)
    }

    /// The bytes by which a dataset holds `text` as a whole document; the tokenizer may put a space first.
    #[must_use]
    pub fn normalize_document<'t>(&self, text: &'t str) -> Cow<'t, [u8]> {
        self.held(text, self.adds_prefix_space)
    }

    fn held<'t>(&self, text: &'t str, mut adds_space: bool) -> Cow<'t, [u8]> {
        let mut held = Vec::with_capacity(text.len());
        for cut in self.raw.cuts(text) {
            match cut {
                Cut::Token(id) => held.extend_from_slice(self.token_bytes(id).unwrap_or_default()),
                Cut::Text(text) => self.put_normalized(&self.normal(text), adds_space, &mut held),
            }
            // Only what begins the text may be the middle of a word.
            adds_space = self.adds_prefix_space;
        }
        match held == text.as_bytes() {
            true => Cow::Borrowed(text.as_bytes()),
            false => Cow::Owned(held),
        }
    }

    fn normal<'t>(&self, text: &'t str) -> Cow<'t, str> {
        match self.is_nfc {
            true => nfc(text),
            false => Cow::Borrowed(text),
        }
    }

    /// Appends normalized text, with the added tokens that it holds as they decode.
    fn put_normalized(&self, text: &str, mut adds_space: bool, held: &mut Vec<u8>) {
        if self.space_runs.is_some() {
            // The added tokens are runs of spaces, which decode to themselves.
            return held.extend_from_slice(text.as_bytes());
        }
        for cut in self.normalized.cuts(text) {
            match cut {
                Cut::Token(id) => held.extend_from_slice(self.token_bytes(id).unwrap_or_default()),
                Cut::Text(text) => {
                    if adds_space && !text.starts_with(' ') {
                        held.push(b' ');
                    }
                    held.extend_from_slice(text.as_bytes());
                }
            }
            adds_space = self.adds_prefix_space;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        progress::Progress,
        tokenize::{TrainConfig, Trainer},
    };
    use proptest::{collection::vec, prelude::*, sample::select};
    use serde_json::{Value, json};

    /// Pieces that normalizers and added tokens change, alone or side by side.
    const PIECES: [&str; 24] = [
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

    fn tokenizers() -> Vec<Tokenizer> {
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
    fn a_query_is_what_a_document_holds() {
        let [plain, .., nfc] = &tokenizers()[..] else {
            panic!("several")
        };
        assert_eq!(plain.normalize("Zoe\u{301}"), "Zoe\u{301}".as_bytes());
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
        fn equals_what_the_tokens_decode_to(pieces in vec(select(&PIECES[..]), 0..12)) {
            let text = pieces.concat();
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
