//! Decodes any ids, and compares the text with the concatenated bytes of their tokens.
#![no_main]

use std::{collections::HashMap, path::Path, sync::LazyLock};

use libfuzzer_sys::fuzz_target;
use pile_core::tokenize::{Skipped, Tokenizer};
use pile_fuzz::trained::{Settings, tokenizer_json};

static TOKENIZER: LazyLock<Tokenizer> = LazyLock::new(|| {
    let json = tokenizer_json(Settings {
        is_nfc: true,
        adds_prefix_space: false,
        ignores_merges: false,
    });
    Tokenizer::from_json(&json, Path::new("tokenizer.json")).expect("the file is valid")
});

/// The byte of each character of GPT-2's byte-level alphabet.
static BYTES: LazyLock<HashMap<char, u8>> = LazyLock::new(|| {
    let is_itself = |byte: u8| matches!(byte, 0x21..=0x7E | 0xA1..=0xAC | 0xAE..=0xFF);
    let (themselves, others): (Vec<u8>, Vec<u8>) = (0..=u8::MAX).partition(|byte| is_itself(*byte));
    let shifted = ('\u{100}'..).zip(others);
    themselves
        .into_iter()
        .map(|byte| (char::from(byte), byte))
        .chain(shifted)
        .collect()
});

/// The bytes of a token. A token with a character outside the alphabet represents its own text.
fn bytes_of(token: &str) -> Vec<u8> {
    let bytes: Option<Vec<u8>> = token.chars().map(|c| BYTES.get(&c).copied()).collect();
    bytes.unwrap_or_else(|| token.as_bytes().to_vec())
}

fuzz_target!(|input: (bool, &[u8])| {
    let (skips_special, ids) = input;
    let ids: Vec<u32> = ids
        .chunks_exact(2)
        .map(|id| u32::from(id[0]) | u32::from(id[1]) << 8)
        .collect();
    let tokens = ids.iter().filter_map(|id| TOKENIZER.id_to_token(*id));
    let shown = tokens.filter(|token| !(skips_special && token.starts_with("<|")));
    let bytes: Vec<u8> = shown.flat_map(bytes_of).collect();
    let skipped = Skipped {
        special_tokens: skips_special,
        unknown_ids: true,
    };
    assert_eq!(
        TOKENIZER.decode(&ids, skipped).unwrap(),
        String::from_utf8_lossy(&bytes)
    );
});
