//! Arbitrary bytes as an `.idx` with a `.bin` of some size: reading an opened dataset returns tokens or errors.
#![no_main]

use std::fs;

use libfuzzer_sys::fuzz_target;
use pile_core::tokens::{Span, TokenDataset, TokenSource};

fuzz_target!(|input: (u16, &[u8])| {
    let (bin_bytes, idx) = input;
    let _ = fs::remove_file(pile_fuzz::path("a.provenance"));
    let bin = pile_fuzz::file("a.bin", &vec![7; usize::from(bin_bytes)]);
    let _ = pile_fuzz::file("a.idx", idx);
    let Ok(dataset) = TokenDataset::open(&bin.with_file_name("a")) else {
        return;
    };
    let is_whole = dataset.check().is_ok();
    let mut n_tokens = 0;
    for document in 0..dataset.n_documents() {
        let length = dataset.document_length(document);
        let read = length.and_then(|length| {
            dataset.tokens(&[Span {
                document,
                start: 0,
                length,
            }])
        });
        match read {
            Ok(tokens) => n_tokens += tokens.len() as u64,
            Err(err) => assert!(!is_whole, "checked, but {err}"),
        }
    }
    if is_whole {
        assert_eq!(n_tokens, dataset.n_tokens());
    }
    assert!(dataset.document_length(dataset.n_documents()).is_err());
    let _ = (dataset.lengths(), dataset.fingerprint());
});
