//! Any ids, against the bytes of their tokens one after the other.
#![no_main]

use std::{collections::HashMap, path::Path, sync::LazyLock};

use libfuzzer_sys::fuzz_target;
use pile_core::tokenize::Tokenizer;
use pile_fuzz::trained::tokenizer_json;

static TOKENIZER: LazyLock<Tokenizer> = LazyLock::new(|| {
    let json = tokenizer_json(true, false, false);
    Tokenizer::from_json(&json, Path::new("tokenizer.json")).expect("we made it")
});

/// GPT-2's printable spelling of bytes.
static BYTES: LazyLock<HashMap<char, u8>> = LazyLock::new(|| {
    let is_itself = |byte: u8| matches!(byte, 0x21..=0x7E | 0xA1..=0xAC | 0xAE..=0xFF);
    let (themselves, others): (Vec<u8>, Vec<u8>) = (0..=u8::MAX).partition(|byte| is_itself(*byte));
    let spelt = ('\u{100}'..).zip(others);
    themselves
        .into_iter()
        .map(|byte| (char::from(byte), byte))
        .chain(spelt)
        .collect()
});

/// A token's bytes; one with a character outside that alphabet stands for itself.
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
    assert_eq!(
        TOKENIZER.decode(&ids, skips_special),
        String::from_utf8_lossy(&bytes)
    );
});
