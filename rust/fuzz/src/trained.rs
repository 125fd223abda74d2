//! A tokenizer trained on words made up here, in every variant that encoding branches on.

use pile_core::{
    progress::Progress,
    tokenize::{TrainConfig, Trainer},
};
use serde_json::{Value, json};

/// Longest run of spaces with a token of its own, as in GPT-NeoX.
const LONGEST_SPACES: usize = 24;

/// A tokenizer.json.
#[must_use]
pub fn tokenizer_json(is_nfc: bool, adds_prefix_space: bool, ignores_merges: bool) -> Vec<u8> {
    let mut file = trained(400);
    if !is_nfc {
        file["normalizer"] = Value::Null;
    }
    file["pre_tokenizer"]["add_prefix_space"] = adds_prefix_space.into();
    file["model"]["ignore_merges"] = ignores_merges.into();
    add_tokens(&mut file);
    serde_json::to_vec(&file).expect("JSON came from JSON")
}

/// Learnt from syllables of several scripts, so that pieces merge far and bytes of characters split.
#[must_use]
pub fn trained(vocab_size: u32) -> Value {
    let config = TrainConfig {
        vocab_size,
        min_frequency: 0,
        special_tokens: vec!["<|endoftext|>".into(), "<|padding|>".into()],
    };
    let mut trainer = Trainer::new(config).expect("the sizes are allowed");
    let syllables = [
        "aa", "ab", "ba", "ne", " the", "ing", "'ll", "e\u{301}", "é", "日本", "はし", "ий", "10",
        "==", "\n\t", "  ",
    ];
    for (i, first) in syllables.iter().enumerate() {
        for (j, second) in syllables.iter().enumerate() {
            trainer.add(&format!("{first}{second}{first}").repeat(1 + i * j % 7));
        }
    }
    let trained = trainer
        .finish(&Progress::default())
        .expect("nobody stops it");
    serde_json::from_str(&trained.to_json()).expect("we write JSON")
}

/// Runs of spaces looked for in normalized text, and tokens that strip what is beside them.
fn add_tokens(file: &mut Value) {
    let first = file["model"]["vocab"]
        .as_object()
        .map_or(0, serde_json::Map::len);
    let runs = (2..=LONGEST_SPACES)
        .rev()
        .map(|n| (" ".repeat(n), true, false));
    let others = [("<left>", false), ("<right>", true), ("né日", false)];
    let others = others.map(|(content, is_normalized)| (content.to_owned(), is_normalized, true));
    let added = file["added_tokens"]
        .as_array_mut()
        .expect("special tokens were given");
    for (i, (content, is_normalized, strips)) in runs.chain(others).enumerate() {
        added.push(json!({
            "id": first + i, "content": content, "single_word": false, "special": false,
            "lstrip": strips && content == "<left>", "rstrip": strips && content == "<right>",
            "normalized": is_normalized,
        }));
    }
}
