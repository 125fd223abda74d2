use std::collections::HashMap;

use proptest::{collection::vec, prelude::*};

use super::*;
use crate::{
    dedup::passages::{
        PassagesConfig, find_passages, reference,
        tests::{config, write_shards},
    },
    progress::Progress,
    tokenize::{TrainConfig, Trainer},
};

fn ids(text: &str, tokenizer: &Tokenizer) -> Vec<u32> {
    let mut ids = Vec::new();
    tokenizer.encoder().encode(text, &mut ids).unwrap();
    ids
}

/// The offset in a text of each border of its tokens that is one of characters: the text up to it is stored as the
/// bytes of the tokens up to it.
fn token_borders(text: &str, tokenizer: &Tokenizer, ids: &[u32]) -> Vec<Option<usize>> {
    let stored = tokenizer.normalize_document(text);
    let mut offsets = HashMap::new();
    for end in (0..=text.len()).filter(|end| text.is_char_boundary(*end)) {
        if *stored == *text.as_bytes() {
            offsets.insert(end, end);
            continue;
        }
        let before = tokenizer.normalize_document(&text[..end]);
        if stored.starts_with(&before) {
            offsets.insert(before.len(), end);
        }
    }
    let n_bytes = |id: &u32| tokenizer.token_bytes(*id).map_or(0, <[u8]>::len);
    (0..=ids.len())
        .map(|i| offsets.get(&ids[..i].iter().map(n_bytes).sum()).copied())
        .collect()
}

/// A tokenizer with several bytes of many characters in a token, and with a part of a character in some.
fn tokenizer(normalizer: &serde_json::Value) -> Tokenizer {
    let config = TrainConfig {
        vocab_size: 290,
        min_frequency: 0,
        special_tokens: vec!["<|endoftext|>".to_owned()],
    };
    let mut trainer = Trainer::new(config).unwrap();
    trainer.add("abab aba bbb cab caca é語é 😀語é ab  ab 語語 aé語 😀😁");
    let json = trainer.finish(&Progress::default()).unwrap().to_json();
    let mut json: serde_json::Value = serde_json::from_str(&json).unwrap();
    json["normalizer"] = normalizer.clone();
    Tokenizer::from_json(json.to_string().as_bytes(), "t.json".as_ref()).unwrap()
}

/// Texts that repeat tokens, of which normalization changes some.
fn token_texts() -> impl Strategy<Value = Vec<String>> {
    let fragment = prop_oneof![
        "[ab ]{0,60}",
        "([abc é語😀😁]|e\u{301}){0,60}",
        ("([a語é]|e\u{301}){1,3}", 0_usize..60).prop_map(|(unit, n)| unit.repeat(n)),
        ("[a-c ]{1,20}", 0_usize..8).prop_map(|(unit, n)| unit.repeat(n)),
    ];
    let glue = "([a-c ]|e\u{301}|<.endoftext.>){0,3}";
    (
        vec(fragment, 1..5),
        vec(vec((0_usize..5, glue), 0..6), 0..12),
    )
        .prop_map(|(fragments, documents)| {
            let text = |parts: Vec<(usize, String)>| {
                let part = |(i, glue): (usize, String)| {
                    format!("{}{glue}", fragments[i % fragments.len()])
                };
                parts.into_iter().map(part).collect()
            };
            documents.into_iter().map(text).collect()
        })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn tokens_equal_the_reference(
        texts in token_texts(),
        length in 16_usize..30,
        n_threads in prop::sample::select(vec![1_usize, 3]),
        n_shards in 1_usize..4,
        memory in prop::sample::select(vec![0_u64, 1 << 13, 1 << 26]),
        every_copy: bool,
        is_nfc: bool,
    ) {
        let normalizer = if is_nfc { serde_json::json!({"type": "NFC"}) } else { serde_json::Value::Null };
        let tokenizer = tokenizer(&normalizer);
        let folder = tempfile::tempdir().unwrap();
        let shards = write_shards(folder.path(), &texts, n_shards);
        let config = PassagesConfig { memory, n_threads, every_copy, ..config(folder.path(), shards, length) };
        let documents: Vec<Vec<u32>> = texts.iter().map(|text| ids(text, &tokenizer)).collect();
        let slices: Vec<&[u32]> = documents.iter().map(Vec::as_slice).collect();
        let borders: Vec<_> = texts
            .iter()
            .zip(&documents)
            .map(|(text, ids)| token_borders(text, &tokenizer, ids))
            .collect();
        let expected = reference::token_passages(&slices, &borders, length, every_copy);
        let tokens = PassageTokens::new(&tokenizer);
        let (passages, summary) = find_passages(&config, Some(&tokens), &Progress::default()).unwrap();
        let found: Vec<_> = passages.iter().map(|p| (p.document, p.start, p.end, p.copy_document, p.copy_start)).collect();
        let expected: Vec<_> = expected
            .iter()
            .map(|p| (p.document as u64, p.start as u64, p.end as u64, p.copy.0 as u64, p.copy.1 as u64))
            .collect();
        prop_assert_eq!(&found, &expected);
        prop_assert_eq!(summary.n_text_bytes, texts.iter().map(|text| text.len() as u64).sum::<u64>());
        prop_assert_eq!(summary.n_repeated_bytes, found.iter().map(|p| p.2 - p.1).sum::<u64>());
        for passage in passages.iter() {
            let text = &texts[passage.document as usize];
            prop_assert!(text.is_char_boundary(passage.start as usize) && text.is_char_boundary(passage.end as usize));
        }
        // A job of bytes does not resume one of tokens.
        let of_bytes = find_passages(&PassagesConfig { length: 32, ..config }, None, &Progress::default());
        prop_assert!(of_bytes.is_err());
    }
}

#[test]
fn too_few_tokens_are_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let tokenizer = tokenizer(&serde_json::Value::Null);
    let config = config(folder.path(), Vec::new(), 15);
    let tokens = PassageTokens::new(&tokenizer);
    let found = find_passages(&config, Some(&tokens), &Progress::default());
    let err = found.map(|_| ()).unwrap_err();
    assert!(
        err.to_string().contains("16 to 1048576 tokens, got 15"),
        "{err}"
    );
}
