//! A tokenizer.json, then a text: what loads encodes as the reference does.
#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use pile_core::tokenize::{Tokenizer, reference::Reference};

/// The reference's time grows with the square of a piece.
const LONGEST_TEXT: usize = 200;

fuzz_target!(|input: &[u8]| {
    let [json, text] = pile_fuzz::parts(input);
    let Ok(tokenizer) = Tokenizer::from_json(json, Path::new("tokenizer.json")) else {
        return;
    };
    let reference =
        Reference::from_json(json, Path::new("tokenizer.json")).expect("it looks for less");
    let text = String::from_utf8_lossy(&text[..text.len().min(LONGEST_TEXT)]);
    let mut ids = Vec::new();
    let encoded = tokenizer.encoder().encode(&text, &mut ids);
    assert_eq!(encoded.ok().map(|()| ids.clone()), reference.encode(&text));
    assert!(
        ids.iter()
            .all(|id| *id <= tokenizer.max_id() && tokenizer.id_to_token(*id).is_some())
    );
    let _ = (
        tokenizer.decode(&ids, false),
        tokenizer.decode(&ids, true),
        tokenizer.eod(),
    );
});
