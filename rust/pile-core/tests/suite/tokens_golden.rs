//! `.bin` and `.idx` compared with files written by GPT-NeoX, and the errors of damaged ones.
#![allow(clippy::unwrap_used)]

use std::{fs, path::Path};

use pile_core::tokens::{Span, TokenDataset, TokenSource, TokenType, write_idx};
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::shared;

#[test]
fn reference_datasets_open_and_their_indexes_are_reproduced() {
    let Some(golden) = shared::golden("neox") else {
        return;
    };
    let manifest: Value =
        serde_json::from_slice(&fs::read(golden.join("index_manifest.json")).unwrap()).unwrap();
    for (name, truth) in manifest["idx_files"].as_object().unwrap() {
        let dataset = TokenDataset::open(&golden.join(name)).unwrap();
        dataset.check().unwrap();
        assert_eq!(
            dataset.token_type().name(),
            truth["dtype"].as_str().unwrap()
        );
        assert_eq!(dataset.n_documents(), truth["n_seq"].as_u64().unwrap());
        assert_eq!(dataset.n_tokens(), truth["tokens"].as_u64().unwrap());
        // "sentences" has several sequences per document. These can be read, but are never written.
        if truth["n_doc_idx"].as_u64() == Some(dataset.n_documents() + 1) {
            let mut written = Vec::new();
            write_idx(
                &mut written,
                dataset.token_type(),
                &dataset.lengths().unwrap(),
            )
            .unwrap();
            let sha256 = pile_core::io::hex(&Sha256::digest(&written));
            assert_eq!(sha256, truth["sha256_idx"].as_str().unwrap(), "{name}");
        }
    }
}

/// A dataset of three documents: 2, 0 and 3 tokens.
fn write_dataset(folder: &Path) -> std::path::PathBuf {
    let prefix = folder.join("d");
    let mut idx = Vec::new();
    write_idx(&mut idx, TokenType::U16, &[2, 0, 3]).unwrap();
    fs::write(folder.join("d.idx"), idx).unwrap();
    let tokens: Vec<u8> = [1_u16, 2, 3, 4, 65535]
        .iter()
        .flat_map(|t| t.to_le_bytes())
        .collect();
    fs::write(folder.join("d.bin"), tokens).unwrap();
    prefix
}

#[test]
fn spans_are_read_in_order() {
    let folder = tempfile::tempdir().unwrap();
    let dataset = TokenDataset::open(&write_dataset(folder.path())).unwrap();
    let span = |document, start, length| Span {
        document,
        start,
        length,
    };
    let tokens = dataset
        .tokens(&[span(2, 1, 2), span(1, 0, 0), span(0, 0, 1)])
        .unwrap();
    assert_eq!(tokens, [4, 65535, 1]);
    for bad in [
        span(3, 0, 1),
        span(2, 2, 2),
        span(0, u64::MAX, 2),
        span(1, 0, 1),
    ] {
        assert!(dataset.tokens(&[bad]).is_err(), "{bad:?}");
    }
}

#[test]
fn errors_of_damaged_files_name_the_damage() {
    let folder = tempfile::tempdir().unwrap();
    let prefix = write_dataset(folder.path());
    let (bin, idx) = (folder.path().join("d.bin"), folder.path().join("d.idx"));
    let (good_bin, good_idx) = (fs::read(&bin).unwrap(), fs::read(&idx).unwrap());
    let message = || TokenDataset::open(&prefix).unwrap_err().to_string();

    fs::write(&bin, &good_bin[..8]).unwrap();
    assert!(
        message().contains("has 8 bytes, but its index expects 10"),
        "{}",
        message()
    );
    fs::write(&bin, &good_bin).unwrap();

    let damaged = |at: usize, byte: u8| {
        let mut bytes = good_idx.clone();
        bytes[at] = byte;
        bytes
    };
    for (bytes, expected) in [
        (damaged(0, b'X'), "not an index"),
        (damaged(9, 2), "version 2, expected 1"),
        (damaged(17, 6), "code 6, expected 8"),
        (damaged(18, 200), "do not fit a file"),
        (damaged(25, 255), "do not fit a file"),
        (good_idx[..40].to_vec(), "do not fit a file"),
        (good_idx[..5].to_vec(), "the file has 5 in all"),
        (Vec::new(), "the file has 0 in all"),
    ] {
        fs::write(&idx, bytes).unwrap();
        assert!(message().contains(expected), "{} / {expected}", message());
        assert!(message().contains("d.idx, byte"), "{}", message());
    }
    fs::remove_file(&idx).unwrap();
    assert!(message().contains("d.idx"), "{}", message());
}

#[test]
fn check_names_the_first_wrong_document() {
    let folder = tempfile::tempdir().unwrap();
    let prefix = write_dataset(folder.path());
    let idx = folder.path().join("d.idx");
    let mut bytes = fs::read(&idx).unwrap();
    bytes[34 + 12 + 8] = 6; // the second document's pointer
    fs::write(&idx, bytes).unwrap();
    let dataset = TokenDataset::open(&prefix).unwrap();
    let message = dataset.check().unwrap_err().to_string();
    assert!(
        message.contains("sequence 1 starts at byte 6 of the .bin, expected 4"),
        "{message}"
    );
}

proptest::proptest! {
    #[test]
    fn any_bytes_as_index_fail_cleanly(bytes: Vec<u8>, keep in 0_usize..80) {
        let folder = tempfile::tempdir().unwrap();
        let prefix = write_dataset(folder.path());
        let idx = folder.path().join("d.idx");
        let mut foreign = fs::read(&idx).unwrap();
        foreign.truncate(keep);
        foreign.extend(bytes);
        fs::write(&idx, foreign).unwrap();
        if let Ok(dataset) = TokenDataset::open(&prefix) {
            for document in 0..dataset.n_documents().min(100) {
                let _ = dataset.document_length(document).and_then(|length| {
                    dataset.tokens(&[Span { document, start: 0, length: length.min(10) }])
                });
            }
            let _ = dataset.check();
        }
    }
}
