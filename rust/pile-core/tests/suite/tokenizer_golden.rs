//! Compares the tokenizer with outputs of Hugging Face `tokenizers` 0.23.3 and of gpt-neox.
//!
//! The golden files are in the folder `PILE_TOOLS_SHARED`, by default `shared` next to the repository. Without them
//! the tests print that they are skipped, and pass.
#![allow(clippy::unwrap_used)] // Clippy exempts test functions, but not their helpers.

use pile_core::tokenize::{Class, Skipped, Tokenizer, class_of, reference::Reference};
use proptest::prelude::*;
use serde::Deserialize;
use std::{fs, path::PathBuf, sync::OnceLock};

use crate::shared;

/// Skips whatever can be skipped, as Hugging Face `tokenizers` does by default.
const SPECIAL_AND_UNKNOWN: Skipped = Skipped {
    special_tokens: true,
    unknown_ids: true,
};

/// The path of a golden file; None if it does not exist.
#[allow(clippy::print_stderr)]
fn golden(name: &str) -> Option<PathBuf> {
    let path = shared::golden(name)?;
    if !path.exists() {
        eprintln!("skipped: no golden file {name}; set PILE_TOOLS_SHARED");
        return None;
    }
    Some(path)
}

struct Neox {
    tokenizer: Tokenizer,
    reference: Reference,
}

/// The NeoX tokenizer, loaded once.
fn neox() -> Option<&'static Neox> {
    static NEOX: OnceLock<Option<Neox>> = OnceLock::new();
    let load = || {
        let path = golden("20B_tokenizer.json")?;
        let bytes = fs::read(&path).unwrap();
        Some(Neox {
            tokenizer: Tokenizer::from_json(&bytes, &path).unwrap(),
            reference: Reference::from_json(&bytes, &path).unwrap(),
        })
    };
    NEOX.get_or_init(load).as_ref()
}

#[derive(Deserialize)]
struct Case {
    text: String,
    ids: Vec<u32>,
    decoded: Option<String>,
    nfc: Option<String>,
}

/// Longer texts take the reference too long.
const MAX_REFERENCE_BYTES: usize = 2000;

fn check(neox: &Neox, case: &Case) {
    let mut ids = vec![u32::MAX];
    neox.tokenizer
        .encoder()
        .encode(&case.text, &mut ids)
        .unwrap();
    assert_eq!(ids[1..], case.ids, "{:?}", case.text);
    if case.text.len() <= MAX_REFERENCE_BYTES {
        assert_eq!(
            neox.reference.encode(&case.text).unwrap(),
            case.ids,
            "{:?}",
            case.text
        );
    }
    let nfc = case.nfc.clone().unwrap_or_else(|| {
        let nfc = unicode_normalization_alignments::UnicodeNormalization::nfc(case.text.as_str());
        nfc.map(|(c, _)| c).collect()
    });
    let expected = case.decoded.as_ref().unwrap_or(&nfc);
    assert_eq!(
        neox.tokenizer
            .decode(&case.ids, Skipped::default())
            .unwrap(),
        *expected
    );
}

fn check_all(name: &str, n_lines: usize) {
    let (Some(neox), Some(path)) = (neox(), golden(name)) else {
        return;
    };
    let lines = fs::read_to_string(path).unwrap();
    for line in lines.lines() {
        check(neox, &serde_json::from_str(line).unwrap());
    }
    assert_eq!(lines.lines().count(), n_lines);
}

#[test]
fn difficult_texts() {
    check_all("neox/tokenizer/nasty.jsonl", 1528);
}

#[test]
fn random_unicode_texts() {
    check_all("neox/tokenizer/random_unicode.jsonl", 5000);
}

#[test]
fn texts_where_unicode_versions_differ() {
    check_all("neox/tokenizer/unicode_version.jsonl", 1380);
}

#[test]
fn one_encoder_for_all_texts_gives_the_same_ids() {
    let (Some(neox), Some(path)) = (neox(), golden("neox/tokenizer/random_unicode.jsonl")) else {
        return;
    };
    let mut encoder = neox.tokenizer.encoder();
    for line in fs::read_to_string(path).unwrap().lines() {
        let case: Case = serde_json::from_str(line).unwrap();
        let mut ids = Vec::new();
        encoder.encode(&case.text, &mut ids).unwrap();
        assert_eq!(ids, case.ids);
    }
}

#[test]
fn every_code_point_has_the_class_of_the_golden_file() {
    #[derive(Deserialize)]
    struct Classes {
        ranges: Vec<(u32, u32, char)>,
    }
    let Some(path) = golden("neox/tokenizer/char_classes.json") else {
        return;
    };
    let classes: Classes = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
    let mut n_checked = 0;
    for (first, last, class) in classes.ranges {
        let expected = match class {
            'L' => Class::Letter,
            'N' => Class::Number,
            'S' => Class::Whitespace,
            _ => Class::Other,
        };
        for c in (first..=last).filter_map(char::from_u32) {
            assert_eq!(class_of(c), expected, "{c:?}");
            assert_eq!(
                pile_core::tokenize::reference::class_of(c),
                expected,
                "{c:?}"
            );
            n_checked += 1;
        }
    }
    assert_eq!(n_checked, 1_112_064);
}

#[test]
fn dataset_of_gpt_neox() {
    #[derive(Deserialize)]
    struct Document {
        text: String,
    }
    let folder = "neox/dataset";
    let (Some(neox), Some(folder)) = (neox(), golden(folder)) else {
        return;
    };
    let bin = fs::read(folder.join("mini_eod_text_document.bin")).unwrap();
    let expected: Vec<u32> = bin
        .chunks_exact(2)
        .map(|b| u16::from_le_bytes([b[0], b[1]]).into())
        .collect();
    let (_, eod) = neox.tokenizer.eod().unwrap();
    let mut encoder = neox.tokenizer.encoder();
    let mut ids = Vec::new();
    for line in fs::read_to_string(folder.join("mini.jsonl"))
        .unwrap()
        .lines()
    {
        let document: Document = serde_json::from_str(line).unwrap();
        if !document.text.is_empty() {
            encoder.encode(&document.text, &mut ids).unwrap();
            ids.push(eod);
        }
    }
    assert!(
        ids == expected,
        "{} ids, expected {}",
        ids.len(),
        expected.len()
    );
}

#[test]
fn properties_of_the_vocabulary() {
    let Some(Neox { tokenizer, .. }) = neox() else {
        return;
    };
    assert_eq!(tokenizer.vocab_size(), 50277);
    assert_eq!(tokenizer.max_id(), 50276);
    assert_eq!(tokenizer.eod(), Some(("<|endoftext|>", 0)));
    assert_eq!(tokenizer.token_to_id("Ġthe"), Some(253));
    assert_eq!(tokenizer.id_to_token(253), Some("Ġthe"));
    assert_eq!(tokenizer.id_to_token(50276), Some("  "));
    assert_eq!(tokenizer.id_to_token(50277), None);
    assert_eq!(
        tokenizer
            .decode(&[0, 253, 50277, 50276], SPECIAL_AND_UNKNOWN)
            .unwrap(),
        " the  "
    );
    assert_eq!(
        tokenizer.decode(&[0, 253], Skipped::default()).unwrap(),
        "<|endoftext|> the"
    );
}

#[test]
fn a_million_equal_characters() {
    let Some(neox) = neox() else {
        return;
    };
    for c in ['a', ' ', '\n', '漢', '\''] {
        let text = c.to_string().repeat(1_000_000);
        let mut ids = Vec::new();
        neox.tokenizer.encoder().encode(&text, &mut ids).unwrap();
        assert!(
            neox.tokenizer.decode(&ids, Skipped::default()).unwrap() == text,
            "{c:?}"
        );
    }
}

/// Texts of difficult parts: white space, contractions, combining marks, added tokens, long pretokens.
fn texts() -> impl Strategy<Value = String> {
    let part = prop_oneof![
        "\\PC{0,8}",
        any::<String>(),
        "[ \t\n\r\u{a0}\u{3000}\u{85}]{1,6}",
        " {1,60}",
        "('s|'t|'re|'ve|'m|'ll|'d|'S|''|'l|'r)",
        "[a-zA-Z0-9'. ]{0,12}",
        "[a-e\u{300}-\u{330}\u{1100}-\u{1112}\u{1161}-\u{1175}\u{11a8}-\u{11c2}]{1,8}",
        "(<\\|endoftext\\|>|<\\|padding\\|>|<\\|endof|\\|>|<\\|)",
        "[a-c]{60,90}",
    ];
    proptest::collection::vec(part, 0..8).prop_map(|parts| parts.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn equals_the_reference(text in texts()) {
        if let Some(neox) = neox() {
            let mut ids = Vec::new();
            neox.tokenizer.encoder().encode(&text, &mut ids).unwrap();
            prop_assert_eq!(&ids, &neox.reference.encode(&text).unwrap());
        }
    }
}
