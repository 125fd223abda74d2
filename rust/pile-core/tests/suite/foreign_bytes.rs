//! Untrusted files: for any bytes, opening them succeeds or returns an error.
#![allow(clippy::unwrap_used)]

use std::fs;

use pile_core::{
    order::{OrderConfig, TrainingOrder, build, npy},
    progress::Progress,
    tokenize::{Skipped, Tokenizer},
    tokens::{
        Provenance, RecordLocation, ShardSpan, TokenDataset, TokenSource, TokenType, write_idx,
        write_provenance,
    },
};
use proptest::prelude::*;

/// A valid file with some bytes overwritten and its end removed.
fn damaged(good: &[u8], changes: &[(usize, u8)], keep: usize) -> Vec<u8> {
    let mut bytes = good.to_vec();
    for (at, byte) in changes {
        let at = at % bytes.len();
        bytes[at] = *byte;
    }
    bytes.truncate(keep.max(1));
    bytes
}

fn provenance_file(n_documents: u64) -> Vec<u8> {
    let shard = ShardSpan {
        path: "a".into(),
        first_document: 0,
        end_document: n_documents,
    };
    let location = |i: u64| {
        (i != 1).then_some(RecordLocation {
            record: i,
            byte_start: 90 * i,
            byte_length: 89,
            subset: Some(0),
            shard: 0,
        })
    };
    let locations = (0..n_documents).map(|i| Ok(location(i)));
    let mut bytes = Vec::new();
    write_provenance(
        &mut bytes,
        n_documents,
        vec![shard],
        vec!["S".into()],
        locations,
    )
    .unwrap();
    bytes
}

#[test]
fn a_good_provenance_file_opens() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("p");
    fs::write(&path, provenance_file(3)).unwrap();
    let opened = Provenance::open(&path, 3).unwrap();
    let origin = opened.origin(2).unwrap().unwrap();
    assert_eq!(
        (origin.shard, origin.record, origin.subset),
        ("a", 2, Some("S"))
    );
    assert_eq!(opened.origin(1).unwrap(), None);
    assert!(opened.origin(3).is_err());
    let message = Provenance::open(&path, 4).unwrap_err().to_string();
    assert!(message.contains("is for 3 documents"), "{message}");
}

#[test]
fn a_document_longer_than_its_file_is_an_error_before_memory_is_allocated() {
    let folder = tempfile::tempdir().unwrap();
    let mut idx = Vec::new();
    write_idx(&mut idx, TokenType::I32, &[6, 5]).unwrap();
    idx[34..38].copy_from_slice(&i32::MAX.to_le_bytes());
    fs::write(folder.path().join("d.idx"), idx).unwrap();
    fs::write(folder.path().join("d.bin"), [0; 44]).unwrap();
    let dataset = TokenDataset::open(&folder.path().join("d")).unwrap();
    let message = dataset.document_length(0).unwrap_err().to_string();
    assert!(message.contains("but the file has 44"), "{message}");
    assert_eq!(dataset.document_length(1).unwrap(), 5);
}

proptest! {
    #[test]
    fn provenance(changes in prop::collection::vec((any::<usize>(), any::<u8>()), 0..4), keep in 0_usize..300) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("p");
        fs::write(&path, damaged(&provenance_file(3), &changes, keep)).unwrap();
        if let Ok(opened) = Provenance::open(&path, 3) {
            for document in 0..5 {
                let _ = opened.origin(document);
            }
        }
    }

    #[test]
    fn numpy_arrays(changes in prop::collection::vec((any::<usize>(), any::<u8>()), 0..4), keep in 0_usize..300) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.npy");
        let mut good = Vec::new();
        npy::write(&mut good, &[1_i32, 2, 3, 4, 5, 6], 2).unwrap();
        fs::write(&path, damaged(&good, &changes, keep)).unwrap();
        let _ = npy::descr(&path);
        if let Ok(array) = npy::Array::<i32>::open(&path, 2) {
            prop_assert_eq!(array.items().len() as u64, array.n_rows() * 2);
            prop_assert!(array.row(array.n_rows()).is_none());
        }
    }

    #[test]
    fn orders(array in 0_usize..3, changes in prop::collection::vec((any::<usize>(), any::<u8>()), 1..9)) {
        let folder = tempfile::tempdir().unwrap();
        let prefix = folder.path().join("d");
        let lengths = [5, 0, 7, 1, 9];
        let mut idx = Vec::new();
        write_idx(&mut idx, TokenType::U16, &lengths).unwrap();
        fs::write(folder.path().join("d.idx"), idx).unwrap();
        fs::write(folder.path().join("d.bin"), [0; 44]).unwrap();
        let dataset = TokenDataset::open(&prefix).unwrap();
        let stem = folder.path().join("o");
        let config = OrderConfig::packed(stem.clone(), 4, 20, 1);
        build(&lengths, None, &config, &Progress::default()).unwrap();
        let path = folder.path().join(["o_doc_idx.npy", "o_sample_idx.npy", "o_shuffle_idx.npy"][array]);
        let good = fs::read(&path).unwrap();
        fs::write(&path, damaged(&good, &changes, good.len())).unwrap();
        if let Ok(order) = TrainingOrder::open(&stem, 4, dataset) {
            for sample in 0..order.n_samples() {
                if let Ok(spans) = order.spans(sample) {
                    prop_assert_eq!(spans.iter().map(|s| s.length).sum::<u64>(), 5);
                }
            }
        }
    }

    #[test]
    fn tokenizer_files(changes in prop::collection::vec((any::<usize>(), any::<u8>()), 1..4)) {
        let good = br#"{"added_tokens": [], "normalizer": null, "decoder": {"type": "ByteLevel"},
            "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false},
            "model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 2}, "merges": ["a b"]}}"#;
        prop_assert!(Tokenizer::from_json(good, "t".as_ref()).is_ok());
        if let Ok(tokenizer) = Tokenizer::from_json(&damaged(good, &changes, good.len()), "t".as_ref()) {
            let mut ids = Vec::new();
            // A text with a byte that no token has is an error.
            if tokenizer.encoder().encode("abba \u{e9}", &mut ids).is_ok() {
                let _ = tokenizer.decode(&ids, Skipped::default());
            }
        }
    }
}
