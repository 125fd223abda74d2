//! Encodes any text with each setting of a trained tokenizer, and compares the ids with the reference.
#![no_main]

use std::{cell::RefCell, path::Path, sync::LazyLock};

use libfuzzer_sys::fuzz_target;
use pile_core::tokenize::{Encoder, Skipped, Tokenizer, reference::Reference};
use pile_fuzz::trained::{Settings, tokenizer_json};

/// One variant for each combination of the three settings.
const N_VARIANTS: usize = 8;

/// The time of the reference is quadratic in the length of a pretoken.
const MAX_TEXT_BYTES: usize = 1000;

static TOKENIZERS: LazyLock<Vec<(Tokenizer, Reference)>> = LazyLock::new(|| {
    let variants = (0..N_VARIANTS).map(|variant| tokenizer_json(settings(variant)));
    let path = Path::new("tokenizer.json");
    let load = |json: Vec<u8>| {
        (
            Tokenizer::from_json(&json, path).expect("the file is valid"),
            Reference::from_json(&json, path).expect("the file is valid"),
        )
    };
    variants.map(load).collect()
});

thread_local! {
    /// Reused from input to input, so that the cache has the pretokens of other texts.
    static ENCODERS: RefCell<Vec<Encoder<'static>>> =
        RefCell::new(TOKENIZERS.iter().map(|(tokenizer, _)| tokenizer.encoder()).collect());
}

fn settings(variant: usize) -> Settings {
    Settings {
        is_nfc: variant & 1 == 0,
        adds_prefix_space: variant & 2 != 0,
        ignores_merges: variant & 4 != 0,
    }
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
    let text = String::from_utf8_lossy(&input.1[..input.1.len().min(MAX_TEXT_BYTES)]);
    ENCODERS.with_borrow_mut(|encoders| {
        let encoder = &mut encoders[variant];
        let ids = check_encoding(encoder, variant, &text);
        check_decoding(encoder, variant, &text, &ids);
    });
});

/// Checks the ids twice: with the cache of earlier texts, and when it has the pretokens of this text.
fn check_encoding(encoder: &mut Encoder<'_>, variant: usize, text: &str) -> Vec<u32> {
    let (tokenizer, reference) = &TOKENIZERS[variant];
    let expected = reference.encode(text).expect("every byte has a token");
    for _ in 0..2 {
        let found = encode(encoder, text);
        if found != expected {
            let fresh = encode(&mut tokenizer.encoder(), text);
            panic!("{found:?}, from a new encoder {fresh:?}, expected {expected:?}");
        }
    }
    expected
}

/// Checks that the ids decode to the text, or with NFC to a text that NFC does not change.
fn check_decoding(encoder: &mut Encoder<'_>, variant: usize, text: &str, ids: &[u32]) {
    let Settings {
        is_nfc,
        adds_prefix_space,
        ..
    } = settings(variant);
    let adds_or_strips = adds_prefix_space || text.contains("<left>") || text.contains("<right>");
    if adds_or_strips {
        return;
    }
    let tokenizer = &TOKENIZERS[variant].0;
    let decoded = tokenizer.decode(ids, Skipped::default()).unwrap();
    if !is_nfc {
        assert_eq!(decoded, text);
        return;
    }
    let again = encode(encoder, &decoded);
    assert_eq!(
        tokenizer.decode(&again, Skipped::default()).unwrap(),
        decoded,
        "normalized twice"
    );
}
