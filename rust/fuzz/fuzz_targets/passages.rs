//! Documents that repeat each other, in small memory. The passages are those of a map of all windows.
#![no_main]

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use pile_core::{
    dedup::passages::{PassagesConfig, find_passages, reference},
    progress::Progress,
    read::Rules,
};

#[derive(Debug, Arbitrary)]
struct Input<'a> {
    length: u8,
    memory: u16,
    every_copy: bool,
    /// Cut into documents at line feeds. A digit repeats the character before it that many times.
    text: &'a str,
}

/// Bounds the time of an input.
const MAX_BYTES: usize = 1 << 14;

fn documents(text: &str) -> Vec<String> {
    let mut n_bytes = 0;
    let repeated = |line: &str| {
        let (mut document, mut last) = (String::new(), 'a');
        for c in line.chars() {
            let n = c.to_digit(10).unwrap_or(0) as usize * 17;
            last = if c.is_ascii_digit() { last } else { c };
            for _ in 0..n.max(1) {
                n_bytes += last.len_utf8();
                if n_bytes <= MAX_BYTES {
                    document.push(last);
                }
            }
        }
        document
    };
    text.split('\n').map(repeated).collect()
}

fuzz_target!(|input: Input<'_>| {
    let documents = documents(input.text);
    let lines: Vec<String> = documents
        .iter()
        .map(|text| serde_json::json!({ "text": text }).to_string() + "\n")
        .collect();
    let (first, second) = lines.split_at(lines.len() / 2);
    let config = PassagesConfig {
        shards: vec![
            pile_fuzz::file("a.jsonl", first.concat().as_bytes()),
            pile_fuzz::file("b.jsonl", second.concat().as_bytes()),
        ],
        rules: Rules::default(),
        length: 32 + usize::from(input.length) % 64,
        every_copy: input.every_copy,
        protected: Vec::new(),
        protected_texts: Vec::new(),
        memory: u64::from(input.memory),
        job: String::new(),
        n_threads: 1,
        folder: pile_fuzz::path("scratch"),
        discard: true,
    };
    // The files of the previous input.
    let _ = std::fs::remove_dir_all(&config.folder);
    let (found, _) =
        find_passages(&config, None, &Progress::default()).expect("the shards are valid");
    let found: Vec<_> = found
        .iter()
        .map(|passage| reference::ReferencePassage {
            document: passage.document as usize,
            raw_start: passage.raw_start as usize,
            raw_end: passage.raw_end as usize,
            start: passage.start as usize,
            end: passage.end as usize,
            copy: (passage.copy_document as usize, passage.copy_start as usize),
        })
        .collect();
    let texts: Vec<&str> = documents.iter().map(String::as_str).collect();
    assert_eq!(
        found,
        reference::passages(&texts, config.length, config.every_copy)
    );
});
