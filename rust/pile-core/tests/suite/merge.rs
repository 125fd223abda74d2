//! Merged datasets compared with one that was written as a whole.
#![allow(clippy::unwrap_used)]

use std::{
    fs,
    path::{Path, PathBuf},
};

use pile_core::{
    io::hex,
    progress::Progress,
    tokens::{MergeConfig, TokenDataset, TokenSource, TokenType, merge, write_idx},
};
use proptest::prelude::*;
use serde_json::json;
use sha2::{Digest, Sha256};

use crate::shared;

fn write(prefix: &Path, token_type: TokenType, documents: &[Vec<u16>]) {
    let lengths: Vec<i32> = documents.iter().map(|d| d.len() as i32).collect();
    let (mut idx, mut bin) = (Vec::new(), Vec::new());
    write_idx(&mut idx, token_type, &lengths).unwrap();
    let ids: Vec<u32> = documents.iter().flatten().map(|t| u32::from(*t)).collect();
    token_type.encode_all(&ids, &mut bin);
    fs::write(prefix.with_extension("idx"), idx).unwrap();
    fs::write(prefix.with_extension("bin"), bin).unwrap();
}

fn config(inputs: Vec<PathBuf>, folder: &Path) -> MergeConfig {
    MergeConfig {
        inputs,
        folder: folder.join("out"),
        name: "all".into(),
        job: "job".into(),
        discard: false,
        bin_sha256: Vec::new(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn merged_parts_equal_the_whole(
        parts in prop::collection::vec(prop::collection::vec(prop::collection::vec(any::<u16>(), 0..9), 0..6), 1..5),
        is_wide in any::<bool>(),
    ) {
        let folder = tempfile::tempdir().unwrap();
        let token_type = if is_wide { TokenType::I32 } else { TokenType::U16 };
        let inputs: Vec<PathBuf> = (0..parts.len()).map(|i| folder.path().join(format!("part{i}"))).collect();
        for (prefix, documents) in inputs.iter().zip(&parts) {
            write(prefix, token_type, documents);
        }
        let whole = folder.path().join("whole");
        write(&whole, token_type, &parts.concat());
        let summary = merge(&config(inputs, folder.path()), &Progress::default()).unwrap();
        prop_assert_eq!(summary.n_documents, parts.concat().len() as u64);
        for suffix in ["bin", "idx"] {
            let merged = fs::read(folder.path().join("out").join(format!("all.{suffix}"))).unwrap();
            prop_assert_eq!(merged, fs::read(whole.with_extension(suffix)).unwrap());
        }
    }
}

/// The document array of an index, its last one.
fn document_array(idx: &Path) -> Vec<u64> {
    let bytes = fs::read(idx).unwrap();
    let n = u64::from_le_bytes(bytes[18..26].try_into().unwrap()) as usize;
    bytes[34 + 12 * n..]
        .chunks_exact(8)
        .map(|b| u64::from_le_bytes(b.try_into().unwrap()))
        .collect()
}

/// An index of sequences of one token each, with this document array.
fn write_documents(prefix: &Path, n_sequences: usize, array: &[u64]) {
    write(prefix, TokenType::U16, &vec![vec![7]; n_sequences]);
    let mut idx = fs::read(prefix.with_extension("idx")).unwrap();
    idx.truncate(34 + 12 * n_sequences);
    idx[26..34].copy_from_slice(&(array.len() as u64).to_le_bytes());
    idx.extend(array.iter().flat_map(|end| end.to_le_bytes()));
    fs::write(prefix.with_extension("idx"), idx).unwrap();
}

#[test]
fn documents_keep_their_sequences_and_lost_arrays_are_rebuilt() {
    let folder = tempfile::tempdir().unwrap();
    let (a, b, c) = (
        folder.path().join("a"),
        folder.path().join("b"),
        folder.path().join("c"),
    );
    write_documents(&a, 5, &[0, 2, 2, 5]);
    write_documents(&b, 2, &[0]);
    write_documents(&c, 3, &[0, 3]);
    let summary = merge(&config(vec![a, b, c], folder.path()), &Progress::default()).unwrap();
    let lost: Vec<bool> = summary
        .parts
        .iter()
        .map(|p| p.is_document_array_lost)
        .collect();
    assert_eq!(lost, [false, true, false]);
    let merged = folder.path().join("out").join("all");
    assert_eq!(
        document_array(&merged.with_extension("idx")),
        [0, 2, 2, 5, 6, 7, 10]
    );
    let dataset = TokenDataset::open(&merged).unwrap();
    dataset.check().unwrap();
    assert_eq!(dataset.n_documents(), 10);
}

#[test]
fn reference_datasets_of_sentences_merge() {
    let Some(golden) = shared::golden("neox") else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let (mini, sentences) = (
        golden.join("dataset/mini_eod_text_document"),
        golden.join("dataset/sentences"),
    );
    merge(
        &config(
            vec![mini.clone(), sentences.clone(), mini.clone()],
            folder.path(),
        ),
        &Progress::default(),
    )
    .unwrap();
    let read =
        |prefix: &Path, suffix: &str| fs::read(format!("{}.{suffix}", prefix.display())).unwrap();
    let merged = folder.path().join("out/all");
    let (m, s) = (read(&mini, "bin"), read(&sentences, "bin"));
    assert_eq!(read(&merged, "bin"), [m.clone(), s, m].concat());
    TokenDataset::open(&merged).unwrap().check().unwrap();
}

#[test]
fn damaged_document_arrays_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let prefix = folder.path().join("a");
    for (array, message) in [
        (&[0, 2, 4][..], "the document array ends at sequence 4 of 5"),
        (&[1, 5], "entry 0 of the document array is 1"),
        (&[0, 3, 2, 5], "entry 2 of the document array is 2, after 3"),
        (&[0, 6], "entry 1 of the document array is 6, after 0, of 5"),
        (&[], "the document array ends at sequence 0 of 5"),
    ] {
        write_documents(&prefix, 5, array);
        let err = merge(
            &config(vec![prefix.clone()], folder.path()),
            &Progress::default(),
        );
        let text = err.unwrap_err().to_string();
        assert!(
            text.contains(message) && text.contains("a.idx, byte"),
            "{text}"
        );
    }
}

#[test]
fn different_token_types_are_an_error_and_nothing_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let (a, b) = (folder.path().join("a"), folder.path().join("b"));
    write(&a, TokenType::U16, &[vec![1]]);
    write(&b, TokenType::I32, &[vec![1]]);
    let err = merge(&config(vec![a, b], folder.path()), &Progress::default()).unwrap_err();
    assert!(err.to_string().starts_with("stores tokens as int32, but "));
    assert!(!folder.path().join("out").exists());
}

#[test]
fn a_merge_resumes_after_the_copied_inputs_but_not_with_files_of_another_job() {
    let folder = tempfile::tempdir().unwrap();
    let (a, b) = (folder.path().join("a"), folder.path().join("b"));
    write(&a, TokenType::U16, &[vec![1, 2], vec![3]]);
    write(&b, TokenType::U16, &[vec![4]]);
    let config = config(vec![a.clone(), b.clone()], folder.path());
    merge(&config, &Progress::default()).unwrap();
    let bin = config.folder.join("all.bin");
    let whole = fs::read(&bin).unwrap();
    // Killed while the second input was copied: the half token is removed, the copied input is kept.
    let state = |job: &str, copied: &[u8]| {
        let sha256 = hex(&Sha256::digest(copied));
        let files = json!({"all.bin": {"bytes": copied.len(), "sha256": sha256}});
        let state = json!({"job": job, "n_copied": 1});
        let saved = json!({"files": files, "inputs": [], "has_stream": false, "state": state});
        let sha256 = hex(&Sha256::digest(saved.to_string()));
        json!({"sha256": sha256, "saved": saved}).to_string()
    };
    fs::write(config.folder.join("state.json"), state("job", &[9; 6])).unwrap();
    fs::write(&bin, [&[9, 9, 9, 9, 9, 9][..], &[5]].concat()).unwrap();
    merge(&config, &Progress::default()).unwrap();
    assert_eq!(fs::read(&bin).unwrap(), [&[9; 6][..], &whole[6..]].concat());
    // A truncated file, and a file with other bytes than were copied; then the state of another job.
    for bytes in [[9; 5].to_vec(), [8; 7].to_vec()] {
        fs::write(config.folder.join("state.json"), state("job", &[9; 6])).unwrap();
        fs::write(&bin, bytes).unwrap();
        merge(&config, &Progress::default()).unwrap();
        assert_eq!(fs::read(&bin).unwrap(), whole);
    }
    fs::write(config.folder.join("state.json"), state("other", &[9; 6])).unwrap();
    fs::write(&bin, [9; 7]).unwrap();
    let refused = merge(&config, &Progress::default()).unwrap_err();
    let message = "holds 1 finished file of an unfinished run";
    assert!(refused.to_string().contains(message), "{refused}");
    assert_eq!(fs::read(&bin).unwrap(), [9; 7]);
}
