//! A file of an index with any bytes. If the index opens, queries do not panic, and every occurrence is a token of
//! the dataset.
#![no_main]

use std::{
    fs,
    path::PathBuf,
    sync::{Arc, OnceLock},
};

use libfuzzer_sys::fuzz_target;
use pile_core::{search::SuffixIndex, tokens::TokenDataset};
use pile_fuzz::{
    file,
    indexed::{DOCUMENTS, indexed},
};

static INDEXED: OnceLock<(Arc<TokenDataset>, PathBuf, [Vec<u8>; 2])> = OnceLock::new();

const NAMES: [&str; 2] = ["i.index/ranks", "i.index/segment-00000"];

fuzz_target!(|input: (bool, &[u8])| {
    let (is_segment, bytes) = input;
    let (dataset, folder, whole) = INDEXED.get_or_init(|| {
        let (dataset, folder) = indexed();
        let whole = ["ranks", "segment-00000"]
            .map(|name| fs::read(folder.join(name)).expect("the file was just written"));
        (dataset, folder, whole)
    });
    for (i, name) in NAMES.iter().enumerate() {
        let _ = file(
            name,
            if usize::from(is_segment) == i {
                bytes
            } else {
                &whole[i]
            },
        );
    }
    let Ok(index) = SuffixIndex::open(folder, Arc::clone(dataset)) else {
        return;
    };
    for query in [&[][..], &[1], &[2, 3], &[2, 3, 2], &[3, 9], &[5]] {
        let _ = (
            index.count(query),
            index.next_tokens(query),
            index.probability(query, 2),
        );
        for at in index.locate(query, 100).unwrap_or_default() {
            let document = DOCUMENTS[at.document as usize];
            assert!((at.token_offset as usize) < document.len());
        }
    }
    let _ = (
        index.count_text(b"ab"),
        index.locate_text(b"a", 10),
        index.spans("abab", 2, 1),
    );
});
