//! Finds the golden data, which lie beside the checkout and are not part of it, and makes tokenizers.
#![allow(clippy::print_stderr, clippy::unwrap_used, unreachable_pub)]

use std::{env, path::Path, path::PathBuf};

use pile_core::{
    progress::Progress,
    tokenize::{Tokenizer, TrainConfig, Trainer},
};

/// The folder with corpora and golden data, or `None`, said why, where it is absent.
pub fn folder() -> Option<PathBuf> {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared");
    let folder = env::var_os("PILE_TOOLS_SHARED").map_or(beside, PathBuf::from);
    if folder.is_dir() {
        return Some(folder);
    }
    eprintln!(
        "skipped: no golden data at {}; PILE_TOOLS_SHARED names the folder",
        folder.display()
    );
    None
}

/// A folder of golden data.
pub fn golden(name: &str) -> Option<PathBuf> {
    folder().map(|folder| folder.join("golden").join(name))
}

/// A tokenizer trained on a text, with `<|endoftext|>`, which the text itself is read without.
pub fn tokenizer(text: &str, vocab_size: u32) -> Tokenizer {
    let config = TrainConfig {
        vocab_size,
        min_frequency: 0,
        special_tokens: vec!["<|endoftext|>".to_owned()],
    };
    let mut trainer = Trainer::new(config).unwrap();
    trainer.add(&text.replace("<|endoftext|>", ""));
    let json = trainer.finish(&Progress::default()).unwrap().to_json();
    Tokenizer::from_json(json.as_bytes(), Path::new("tokenizer.json")).unwrap()
}
