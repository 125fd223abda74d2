//! The packed order against arrays and samples made by GPT-NeoX itself.
#![allow(clippy::unwrap_used)]

mod shared;

use std::{fs, path::Path};

use pile_core::{
    order::{
        Amount, Mt19937, OrderConfig, SampleIndex, ShuffleIndex, TrainingOrder, build, file_stem,
        npy, packed,
    },
    progress::Progress,
    timeline::find_sequences,
    tokens::{Span, TokenDataset, TokenSource},
};
use serde_json::Value;
use sha2::{Digest, Sha256};

fn sha256(bytes: &[u8]) -> String {
    pile_core::io::hex(&Sha256::digest(bytes))
}

fn le_bytes(tokens: &[i64]) -> Vec<u8> {
    tokens.iter().flat_map(|t| t.to_le_bytes()).collect()
}

/// All cases of the packed rule: splits and whole datasets, by samples and by epochs.
fn packed_cases(golden: &Path) -> Vec<Value> {
    let manifest = fs::read(golden.join("index_manifest.json")).unwrap();
    let manifest: Value = serde_json::from_slice(&manifest).unwrap();
    let all = manifest["cases"].as_array().unwrap().clone();
    let is_packed = |case: &Value| case["pack_impl"] == "packed";
    all.into_iter().filter(is_packed).collect()
}

/// The cases over a whole dataset, which is what the order job builds.
fn cases(golden: &Path) -> Vec<Value> {
    let is_whole = |c: &Value| c["split"].is_null() && c["num_samples"].is_u64();
    packed_cases(golden).into_iter().filter(is_whole).collect()
}

fn npy_bytes<T: npy::Element>(items: &[T], width: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    npy::write(&mut bytes, items, width).unwrap();
    bytes
}

#[test]
fn arrays_of_every_packed_case_are_the_references() {
    let Some(golden) = shared::golden("neox") else {
        return;
    };
    let cases = packed_cases(&golden);
    assert!(cases.len() >= 20, "{}", cases.len());
    for case in cases {
        let dataset = TokenDataset::open(&golden.join(case["dataset"].as_str().unwrap())).unwrap();
        let number = |value: &Value| value.as_u64().unwrap();
        let documents =
            number(&case["documents"][0]) as usize..number(&case["documents"][1]) as usize;
        let amount = match case["num_epochs_arg"].as_u64() {
            Some(n_epochs) => Amount::Epochs(n_epochs),
            None => Amount::Samples(number(&case["num_samples"])),
        };
        let (seq_length, seed) = (number(&case["seq_length"]), number(&case["seed"]) as u32);
        let lengths = dataset.lengths().unwrap();
        let progress = Progress::default();
        let built = packed(&lengths, documents, seq_length, amount, seed, &progress).unwrap();
        let arrays = [
            npy_bytes(&built.doc_idx, 1),
            match &built.sample_idx {
                SampleIndex::I32(items) => npy_bytes(items, 2),
                SampleIndex::I64(items) => npy_bytes(items, 2),
            },
            match &built.shuffle_idx {
                ShuffleIndex::U32(items) => npy_bytes(items, 1),
                ShuffleIndex::I64(items) => npy_bytes(items, 1),
            },
        ];
        for (file, array) in case["files"].as_array().unwrap().iter().zip(arrays) {
            let expected = &case["npy_sha256"][file.as_str().unwrap()];
            assert_eq!(
                sha256(&array),
                expected.as_str().unwrap(),
                "{} {file}",
                case["id"]
            );
        }
    }
}

#[test]
fn orders_that_no_memory_holds_are_refused() {
    let build = |amount| packed(&[10, 20], 0..2, 4, amount, 1, &Progress::default());
    for amount in [
        Amount::Samples(u64::MAX),
        Amount::Epochs(u64::MAX),
        Amount::Epochs(1 << 58),
    ] {
        assert!(
            build(amount)
                .unwrap_err()
                .to_string()
                .contains("does not fit into memory")
        );
    }
    let empty = packed(&[0, 0], 0..2, 4, Amount::Epochs(1), 1, &Progress::default());
    assert!(empty.unwrap_err().to_string().contains("no tokens"));
}

#[test]
fn arrays_and_samples_are_the_references() {
    let Some(golden) = shared::golden("neox") else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let cases = cases(&golden);
    assert!(cases.len() >= 15, "{}", cases.len());
    for case in cases {
        let dataset = TokenDataset::open(&golden.join(case["dataset"].as_str().unwrap())).unwrap();
        let name = dataset
            .prefix()
            .file_name()
            .unwrap()
            .to_str()
            .unwrap()
            .to_owned();
        let [n_samples, seq_length, seed] =
            ["num_samples", "seq_length", "seed"].map(|key| case[key].as_u64().unwrap());
        let stem = file_stem(
            &name,
            case["name"].as_str().unwrap(),
            n_samples,
            seq_length,
            seed as u32,
        );
        let stem = folder.path().join(stem);
        let config = OrderConfig {
            stem: stem.clone(),
            seq_length,
            n_samples,
            seed: seed as u32,
        };
        build(&dataset, &config, &Progress::default()).unwrap();
        for (file, expected) in case["npy_sha256"].as_object().unwrap() {
            let bytes = fs::read(folder.path().join(file)).unwrap();
            assert_eq!(
                sha256(&bytes),
                expected.as_str().unwrap(),
                "{} {file}",
                case["id"]
            );
        }
        check_samples(
            &case,
            &TrainingOrder::open(&stem, seq_length, dataset).unwrap(),
        );
    }
}

fn check_samples(case: &Value, order: &TrainingOrder<TokenDataset>) {
    let tokens = |i: u64| order.source().tokens(&order.spans(i).unwrap()).unwrap();
    for sample in case["samples"].as_array().unwrap() {
        let found = sha256(&le_bytes(&tokens(sample["i"].as_u64().unwrap())));
        assert_eq!(
            found,
            sample["sha256"].as_str().unwrap(),
            "{} {}",
            case["id"],
            sample["i"]
        );
    }
    // The reference never reaches its last sample; we do.
    let reachable = case["len"].as_u64().unwrap();
    assert_eq!(order.n_samples(), reachable + 1);
    let mut all = Sha256::new();
    (0..reachable).for_each(|i| all.update(le_bytes(&tokens(i))));
    assert_eq!(
        pile_core::io::hex(&all.finalize()),
        case["sha256_all_text"].as_str().unwrap(),
        "{}",
        case["id"]
    );
}

#[test]
fn shuffles_are_numpys() {
    let Some(golden) = shared::golden("neox") else {
        return;
    };
    let truth = fs::read(golden.join("mt19937_shuffle.json")).unwrap();
    let truth: Value = serde_json::from_slice(&truth).unwrap();
    for case in truth["shuffle"].as_array().unwrap() {
        let mut rng = Mt19937::new(case["seed"].as_u64().unwrap() as u32);
        let mut items: Vec<u32> = (0..case["n"].as_u64().unwrap() as u32).collect();
        rng.shuffle(&mut items);
        let bytes: Vec<u8> = items.iter().flat_map(|i| i.to_le_bytes()).collect();
        assert_eq!(
            sha256(&bytes),
            case["sha256_u32le"].as_str().unwrap(),
            "{case}"
        );
        assert_eq!(
            u64::from(rng.next_u32()),
            case["next_u32"].as_u64().unwrap(),
            "{case}"
        );
    }
}

#[test]
fn sequences_are_found_where_a_plain_scan_finds_them() {
    let Some(golden) = shared::golden("neox") else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let dataset = TokenDataset::open(&golden.join("dataset/mini_eod_text_document")).unwrap();
    let stem = folder.path().join("order");
    let config = OrderConfig {
        stem: stem.clone(),
        seq_length: 64,
        n_samples: 4000,
        seed: 7,
    };
    build(&dataset, &config, &Progress::default()).unwrap();
    let order = TrainingOrder::open(&stem, 64, dataset).unwrap();
    let n_samples = order.n_samples();
    let source = order.source();
    let wanted: Vec<Vec<i64>> = (0..40)
        .map(|i| {
            let document = i * 5;
            let length = source.document_length(document).unwrap().min(6);
            source
                .tokens(&[Span {
                    document,
                    start: 0,
                    length,
                }])
                .unwrap()
        })
        .filter(|tokens| tokens.len() >= 4)
        .collect();
    let found = find_sequences(&order, &wanted, n_samples, &Progress::default()).unwrap();
    let mut n_expected = 0;
    for sample in 0..n_samples {
        let row = source.tokens(&order.spans(sample).unwrap()).unwrap();
        for (sequence, tokens) in wanted.iter().enumerate() {
            for (offset, window) in row.windows(tokens.len()).enumerate() {
                if window == tokens {
                    n_expected += 1;
                    let at = |p: &&pile_core::timeline::SequencePlace| {
                        (p.sequence, p.sample, p.offset) == (sequence as u64, sample, offset as u64)
                    };
                    assert_eq!(found.iter().filter(at).count(), 1);
                }
            }
        }
    }
    assert_eq!(found.len(), n_expected);
    assert!(n_expected > 40);
}
