//! Any text, by each variant of a trained tokenizer, against the reference.
#![no_main]

use std::{cell::RefCell, path::Path, sync::LazyLock};

use libfuzzer_sys::fuzz_target;
use pile_core::tokenize::{Encoder, Tokenizer, reference::Reference};
use pile_fuzz::trained::tokenizer_json;

const N_VARIANTS: usize = 8;

/// The reference's time grows with the square of a piece.
const LONGEST_TEXT: usize = 1000;

static TOKENIZERS: LazyLock<Vec<(Tokenizer, Reference)>> = LazyLock::new(|| {
    let variants = (0..N_VARIANTS).map(|v| tokenizer_json(is_nfc(v), v & 2 != 0, v & 4 != 0));
    let path = Path::new("tokenizer.json");
    let load = |json: Vec<u8>| {
        (
            Tokenizer::from_json(&json, path).expect("we made it"),
            Reference::from_json(&json, path).expect("we made it"),
        )
    };
    variants.map(load).collect()
});

thread_local! {
    /// Kept from input to input, so that the cache is full of other texts' pieces.
    static ENCODERS: RefCell<Vec<Encoder<'static>>> =
        RefCell::new(TOKENIZERS.iter().map(|(tokenizer, _)| tokenizer.encoder()).collect());
}

fn is_nfc(variant: usize) -> bool {
    variant & 1 == 0
}

fn encode(encoder: &mut Encoder<'_>, text: &str) -> Vec<u32> {
    let mut ids = Vec::new();
    encoder
        .encode(text, &mut ids)
        .expect("every byte has a token");
    ids
}

fuzz_target!(|input: (u8, &[u8])| {
    let variant = usize::from(input.0) % N_VARIANTS;
    let text = String::from_utf8_lossy(&input.1[..input.1.len().min(LONGEST_TEXT)]);
    ENCODERS.with_borrow_mut(|encoders| {
        let encoder = &mut encoders[variant];
        let ids = check_encoding(encoder, variant, &text);
        check_decoding(encoder, variant, &text, &ids);
    });
});

/// The ids are the reference's, whatever the cache is full of, and again when it has the text's pieces.
fn check_encoding(encoder: &mut Encoder<'_>, variant: usize, text: &str) -> Vec<u32> {
    let (tokenizer, reference) = &TOKENIZERS[variant];
    let expected = reference.encode(text).expect("every byte has a token");
    for _ in 0..2 {
        let found = encode(encoder, text);
        if found != expected {
            let fresh = encode(&mut tokenizer.encoder(), text);
            panic!("{found:?}, by a fresh encoder {fresh:?}, expected {expected:?}");
        }
    }
    expected
}

/// Tokens give the text back; with NFC, a text that NFC leaves alone.
fn check_decoding(encoder: &mut Encoder<'_>, variant: usize, text: &str, ids: &[u32]) {
    let adds_or_strips = variant & 2 != 0 || text.contains("<left>") || text.contains("<right>");
    if adds_or_strips {
        return;
    }
    let tokenizer = &TOKENIZERS[variant].0;
    let decoded = tokenizer.decode(ids, false);
    if !is_nfc(variant) {
        assert_eq!(decoded, text);
        return;
    }
    let again = encode(encoder, &decoded);
    assert_eq!(tokenizer.decode(&again, false), decoded, "normalized twice");
}
