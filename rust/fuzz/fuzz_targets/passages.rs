//! Documents that repeat each other, in small memory, as bytes or as tokens. The passages are those of a map of all
//! windows.
#![no_main]

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use pile_core::{
    Result,
    dedup::passages::{PassagesConfig, TextTokenizer, TokenSplitter, find_passages, reference},
    progress::Progress,
    read::Rules,
};

#[derive(Debug, Arbitrary)]
struct Input<'a> {
    length: u8,
    memory: u16,
    every_copy: bool,
    are_tokens: bool,
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

/// Tokens that depend on the bytes before them, some of them parts of characters.
struct Tokens;

impl TextTokenizer for Tokens {
    fn splitter(&self) -> Box<dyn TokenSplitter + '_> {
        Box::new(Splitter::default())
    }
}

#[derive(Default)]
struct Splitter {
    ids: Vec<u32>,
    ends: Vec<usize>,
}

impl TokenSplitter for Splitter {
    fn split<'a>(&'a mut self, text: &'a str) -> Result<&'a [u32]> {
        self.ids.clear();
        self.ends.clear();
        let mut start = 0;
        for (i, byte) in text.bytes().enumerate() {
            let end = i + 1;
            if byte % 3 == 0 || end - start == 4 || end == text.len() {
                let bytes = &text.as_bytes()[start..end];
                let id = bytes.iter().fold(1, |id, byte| id << 8 | u32::from(*byte));
                self.ids.push(id);
                self.ends.push(end);
                start = end;
            }
        }
        Ok(&self.ids)
    }

    fn borders(&self, text: &str, put: &mut dyn FnMut(Option<usize>)) {
        put(Some(0));
        for end in &self.ends {
            // As after a normalization that has replaced characters, some offsets are not known.
            let is_known = *end == text.len() || text.as_bytes()[*end] % 5 != 0;
            put((is_known && text.is_char_boundary(*end)).then_some(*end));
        }
    }
}

/// The passages of tokens by the reference.
fn token_reference(
    texts: &[&str],
    length: usize,
    every_copy: bool,
) -> Vec<reference::ReferencePassage> {
    let mut splitter = Splitter::default();
    let (mut ids, mut borders) = (Vec::new(), Vec::new());
    for text in texts {
        ids.push(splitter.split(text).expect("no text is refused").to_vec());
        let mut of_text = Vec::new();
        splitter.borders(text, &mut |offset| of_text.push(offset));
        borders.push(of_text);
    }
    let ids: Vec<&[u32]> = ids.iter().map(Vec::as_slice).collect();
    let mut passages = reference::token_passages(&ids, &borders, length, every_copy);
    // The reference numbers tokens there; the core has bytes, which are trimmed already.
    for passage in &mut passages {
        (passage.raw_start, passage.raw_end) = (passage.start, passage.end);
    }
    passages
}

fuzz_target!(|input: Input<'_>| {
    let documents = documents(input.text);
    let lines: Vec<String> = documents
        .iter()
        .map(|text| serde_json::json!({ "text": text }).to_string() + "\n")
        .collect();
    let (first, second) = lines.split_at(lines.len() / 2);
    let shortest = if input.are_tokens { 16 } else { 32 };
    let length = shortest + usize::from(input.length) % 64;
    let config = PassagesConfig {
        shards: vec![
            pile_fuzz::file("a.jsonl", first.concat().as_bytes()),
            pile_fuzz::file("b.jsonl", second.concat().as_bytes()),
        ],
        rules: Rules::default(),
        length,
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
    let tokens: Option<&dyn TextTokenizer> = input.are_tokens.then_some(&Tokens);
    let (found, _) =
        find_passages(&config, tokens, &Progress::default()).expect("the shards are valid");
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
    let expected = if input.are_tokens {
        token_reference(&texts, length, input.every_copy)
    } else {
        reference::passages(&texts, length, input.every_copy)
    };
    assert_eq!(found, expected);
});
