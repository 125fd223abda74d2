//! Loads any tokenizer.json, encodes a text with it, and compares the ids with the reference.
#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use pile_core::tokenize::{Skipped, Tokenizer, reference::Reference};

/// The time of the reference is quadratic in the length of a pretoken.
const MAX_TEXT_BYTES: usize = 200;

fn skipped(special_tokens: bool) -> Skipped {
    Skipped {
        special_tokens,
        unknown_ids: true,
    }
}

fuzz_target!(|input: &[u8]| {
    let [json, text] = pile_fuzz::parts(input);
    let Ok(tokenizer) = Tokenizer::from_json(json, Path::new("tokenizer.json")) else {
        return;
    };
    let reference =
        Reference::from_json(json, Path::new("tokenizer.json")).expect("it checks less");
    let text = String::from_utf8_lossy(&text[..text.len().min(MAX_TEXT_BYTES)]);
    let mut ids = Vec::new();
    let encoded = tokenizer.encoder().encode(&text, &mut ids);
    assert_eq!(encoded.ok().map(|()| ids.clone()), reference.encode(&text));
    assert!(
        ids.iter()
            .all(|id| *id <= tokenizer.max_id() && tokenizer.id_to_token(*id).is_some())
    );
    let _ = (
        tokenizer.decode(&ids, skipped(false)),
        tokenizer.decode(&ids, skipped(true)),
        tokenizer.eod(),
    );
});
