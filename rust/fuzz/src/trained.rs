//! A tokenizer trained on generated text, with the settings on which encoding branches.

use pile_core::{
    progress::Progress,
    tokenize::{TrainConfig, Trainer},
};
use serde_json::{Value, json};

/// Spaces of the longest run that is an added token, as in GPT-NeoX.
const LONGEST_SPACES: usize = 24;

/// The settings on which encoding branches.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// Whether text is normalized to NFC.
    pub is_nfc: bool,
    /// Whether a space is added before a text.
    pub adds_prefix_space: bool,
    /// Whether a pretoken that is in the vocabulary is not merged.
    pub ignores_merges: bool,
}

/// A tokenizer.json with added tokens.
#[must_use]
pub fn tokenizer_json(settings: Settings) -> Vec<u8> {
    let mut file = trained(400);
    if !settings.is_nfc {
        file["normalizer"] = Value::Null;
    }
    file["pre_tokenizer"]["add_prefix_space"] = settings.adds_prefix_space.into();
    file["model"]["ignore_merges"] = settings.ignores_merges.into();
    add_tokens(&mut file);
    serde_json::to_vec(&file).expect("JSON came from JSON")
}

/// A trained tokenizer.json. Its text has syllables of several scripts, so that long pretokens merge into few
/// tokens and some tokens are parts of characters.
#[must_use]
pub fn trained(vocab_size: u32) -> Value {
    let config = TrainConfig {
        vocab_size,
        min_frequency: 0,
        special_tokens: vec!["<|endoftext|>".into(), "<|padding|>".into()],
    };
    let mut trainer = Trainer::new(config).expect("the settings are valid");
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
        .expect("nothing cancels it");
    serde_json::from_str(&trained.to_json()).expect("the output is JSON")
}

/// Adds tokens for runs of spaces, and tokens that include the white space before or after them.
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
        .expect("there are special tokens");
    for (i, (content, is_normalized, strips)) in runs.chain(others).enumerate() {
        added.push(json!({
            "id": first + i, "content": content, "single_word": false, "special": false,
            "lstrip": strips && content == "<left>", "rstrip": strips && content == "<right>",
            "normalized": is_normalized,
        }));
    }
}
