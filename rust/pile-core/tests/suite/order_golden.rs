//! Orders compared with arrays and samples that GPT-NeoX and Megatron-LM built.
#![allow(clippy::unwrap_used)]

use std::{fs, path::Path};

use pile_core::{
    order::{
        Amount, IndexedSamples, Mt19937, OrderConfig, OrderRule, SampleLayout, TrainingOrder,
        blend, build, normalized_weights, npy::Numbers, packed, split_documents,
        weights_by_documents,
    },
    progress::Progress,
    tokens::{TokenDataset, TokenSource},
};
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::shared;

/// The common beginning of the reference's file names for a case.
fn stem_of(case: &Value) -> String {
    let file = case["files"][0].as_str().unwrap();
    file.strip_suffix("_doc_idx.npy").unwrap().to_owned()
}

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

/// The packed cases over a whole dataset.
fn cases(golden: &Path) -> Vec<Value> {
    let is_whole = |c: &Value| c["split"].is_null() && c["num_samples"].is_u64();
    packed_cases(golden).into_iter().filter(is_whole).collect()
}

fn npy_bytes(items: &Numbers, width: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    items.write(&mut bytes, width).unwrap();
    bytes
}

#[test]
fn arrays_of_every_packed_case_equal_the_reference() {
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
            npy_bytes(&Numbers::I32(built.doc_idx), 1),
            npy_bytes(&built.sample_idx, 2),
            npy_bytes(&built.shuffle_idx, 1),
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
fn orders_larger_than_memory_are_errors() {
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
fn arrays_and_samples_equal_the_reference() {
    let Some(golden) = shared::golden("neox") else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let cases = cases(&golden);
    assert!(cases.len() >= 15, "{}", cases.len());
    for case in cases {
        let dataset = TokenDataset::open(&golden.join(case["dataset"].as_str().unwrap())).unwrap();
        let [n_samples, seq_length, seed] =
            ["num_samples", "seq_length", "seed"].map(|key| case[key].as_u64().unwrap());
        let stem = folder.path().join(stem_of(&case));
        let config = OrderConfig::packed(stem.clone(), seq_length, n_samples, seed as u32);
        build(
            &dataset.lengths().unwrap(),
            None,
            &config,
            &Progress::default(),
        )
        .unwrap();
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
    // The reference never reaches its last sample. This order has it.
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
fn shuffles_equal_numpy() {
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

/// serde_json may be off in the last digit of a float.
fn are_close(a: &[f64], b: &[f64]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| (a - b).abs() <= 1e-15)
}

fn open(golden: &Path, path: &Value) -> TokenDataset {
    TokenDataset::open(&golden.join(path.as_str().unwrap())).unwrap()
}

fn manifest(golden: &Path, name: &str) -> Value {
    serde_json::from_slice(&fs::read(golden.join(name)).unwrap()).unwrap()
}

#[test]
fn orders_of_whole_documents_equal_the_reference() {
    let Some(golden) = shared::golden("neox") else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let all = manifest(&golden, "index_manifest.json")["cases"].clone();
    let is_whole = |case: &&Value| case["pack_impl"] != "packed";
    let cases: Vec<&Value> = all.as_array().unwrap().iter().filter(is_whole).collect();
    assert!(cases.len() >= 5);
    for case in cases {
        let dataset = open(&golden, &case["dataset"]);
        let labels = case["label_dataset"]
            .is_string()
            .then(|| open(&golden, &case["label_dataset"]));
        let [n_samples, seq_length, seed] =
            ["num_samples", "seq_length", "seed"].map(|key| case[key].as_u64().unwrap());
        let stem = folder.path().join(stem_of(case));
        let mut config = OrderConfig::packed(stem.clone(), seq_length, n_samples, seed as u32);
        config.rule = if case["pack_impl"] == "unpacked" {
            OrderRule::Unpacked
        } else {
            OrderRule::PackUntilOverflow
        };
        config.allow_chopped = case["allow_chopped"].as_bool().unwrap();
        let lengths = dataset.lengths().unwrap();
        let as_source = labels.as_ref().map(|l| l as &dyn TokenSource);
        let summary = build(&lengths, as_source, &config, &Progress::default()).unwrap();
        for (file, expected) in case["npy_sha256"].as_object().unwrap() {
            let bytes = fs::read(folder.path().join(file)).unwrap();
            assert_eq!(sha256(&bytes), expected.as_str().unwrap(), "{file}");
        }
        let samples = |as_gpt_neox| {
            let layout = SampleLayout {
                as_gpt_neox,
                ..config.layout()
            };
            Box::new(IndexedSamples::open(&stem, layout).unwrap())
        };
        let reference = TrainingOrder::new(samples(true), open(&golden, &case["dataset"]), 0);
        let row = |order: &TrainingOrder<TokenDataset>, i: u64| -> Vec<i64> {
            let width = dataset.token_type().n_bytes();
            let mut bytes = vec![0; order.sample_length() as usize * width];
            order.read_batch(i, 1, &mut bytes).unwrap();
            bytes
                .chunks_exact(width)
                .map(|b| dataset.token_type().decode(b))
                .collect()
        };
        let mut hash = Sha256::new();
        let reachable = case["len"].as_u64().unwrap();
        (0..reachable).for_each(|i| hash.update(le_bytes(&row(&reference, i))));
        let all_text = case["sha256_all_text"].as_str().unwrap();
        assert_eq!(
            pile_core::io::hex(&hash.finalize()),
            all_text,
            "{}",
            case["id"]
        );
        if labels.is_some() {
            let labels =
                TrainingOrder::new(samples(true), open(&golden, &case["label_dataset"]), -100);
            for sample in case["samples"].as_array().unwrap() {
                let found = sha256(&le_bytes(&row(&labels, sample["i"].as_u64().unwrap())));
                assert_eq!(
                    found,
                    sample["label_sha256"].as_str().unwrap(),
                    "{}",
                    case["id"]
                );
            }
        }
        // By default the order returns the true sample. The summary lists the positions where GPT-NeoX
        // returns another one.
        let order = TrainingOrder::new(samples(false), dataset_again(&golden, case), 0);
        for i in 0..n_samples {
            let differs = row(&order, i) != row(&reference, i);
            assert_eq!(differs, summary.replaced_by_gpt_neox.contains(&i), "{i}");
        }
        assert_eq!(
            summary.replaced_by_gpt_neox.len(),
            usize::from(config.rule == OrderRule::PackUntilOverflow)
        );
    }
}

fn dataset_again(golden: &Path, case: &Value) -> TokenDataset {
    open(golden, &case["dataset"])
}

#[test]
fn where_the_reference_crashes_the_next_permutation_follows() {
    let Some(golden) = shared::golden("neox") else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let crashes = manifest(&golden, "index_manifest.json")["reference_crashes"].clone();
    assert_eq!(crashes.as_array().unwrap().len(), 1);
    let dataset = TokenDataset::open(&golden.join("dataset/mixed32")).unwrap();
    let labels = TokenDataset::open(&golden.join("dataset/mixed32_label")).unwrap();
    let stem = folder.path().join("order");
    let config = OrderConfig {
        rule: OrderRule::PackUntilOverflow,
        allow_chopped: false,
        ..OrderConfig::packed(stem, 128, 60, 1)
    };
    let lengths = dataset.lengths().unwrap();
    let summary = build(&lengths, Some(&labels), &config, &Progress::default()).unwrap();
    assert_eq!(summary.n_samples, 60);
}

#[test]
fn splits_weights_and_blends_equal_the_reference() {
    let Some(golden) = shared::golden("neox") else {
        return;
    };
    let manifest = manifest(&golden, "index_manifest.json");
    let list = |name: &str| manifest[name].as_array().unwrap().clone();
    let floats = |v: &Value| -> Vec<f64> { serde_json::from_value(v.clone()).unwrap() };
    for case in list("splits") {
        let size = case["size"].as_u64().unwrap();
        let parts = split_documents(case["split"].as_str().unwrap(), size).unwrap();
        let bounds = vec![parts[0].start, parts[0].end, parts[1].end, parts[2].end];
        let expected: Vec<u64> = serde_json::from_value(case["index"].clone()).unwrap();
        assert_eq!(bounds, expected, "{case}");
    }
    for case in list("normalized_weights_num_samples") {
        let n = case["num_samples"].as_u64();
        let (weights, samples) =
            normalized_weights(&floats(&case["weights"]), n.unwrap_or(0)).unwrap();
        assert!(are_close(&weights, &floats(&case["out"][0])), "{case}");
        if n.is_some() {
            let expected: Vec<u64> = serde_json::from_value(case["out"][1].clone()).unwrap();
            assert_eq!(samples, expected, "{case}");
        }
    }
    for case in list("weights_by_num_docs") {
        let counts: Vec<u64> = serde_json::from_value(case["l"].clone()).unwrap();
        let found = weights_by_documents(&counts, case["alpha"].as_f64().unwrap());
        assert!(are_close(&found, &floats(&case["out"])), "{case}");
    }
    for case in list("blend") {
        let weights = normalized_weights(&floats(&case["weights"]), 0).unwrap().0;
        let blended = blend(&weights, case["size"].as_u64().unwrap()).unwrap();
        let expected = case["sha256_dataset_index"].as_str().unwrap();
        assert_eq!(sha256(&blended.dataset_index), expected, "{}", case["id"]);
        let expected = case["sha256_dataset_sample_index"].as_str().unwrap();
        assert_eq!(
            sha256(&le_bytes(&blended.sample_index)),
            expected,
            "{}",
            case["id"]
        );
    }
}

#[test]
fn orders_of_megatron_equal_the_reference() {
    let Some(golden) = shared::golden("neox") else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let cases = manifest(&golden, "megatron_manifest.json");
    for case in cases.as_array().unwrap() {
        let dataset = open(&golden, &case["dataset"]);
        let number = |key: &str| case[key].as_u64().unwrap();
        let stem = folder.path().join(case["id"].as_str().unwrap());
        let n_samples = case["num_samples"].as_u64();
        let config = OrderConfig {
            rule: OrderRule::Megatron {
                extra: number("add_extra_token"),
                drop_last_partial: case["drop_last_partial"].as_bool().unwrap(),
            },
            amount: n_samples.map_or(Amount::Epochs(1), Amount::Samples),
            documents: Some(
                case["documents"][0].as_u64().unwrap()..case["documents"][1].as_u64().unwrap(),
            ),
            ..OrderConfig::packed(stem.clone(), number("seq_length"), 1, number("seed") as u32)
        };
        let lengths = dataset.lengths().unwrap();
        let summary = build(&lengths, None, &config, &Progress::default()).unwrap();
        assert_eq!(summary.n_epochs, Some(number("num_epochs")));
        let is_separate = case["separate_final_epoch"].as_bool().unwrap();
        assert_eq!(summary.has_separate_epoch, is_separate, "{}", case["id"]);
        for (ours, theirs) in [
            ("doc_idx", "document_index"),
            ("sample_idx", "sample_index"),
            ("shuffle_idx", "shuffle_index"),
        ] {
            let path = folder
                .path()
                .join(format!("{}_{ours}.npy", case["id"].as_str().unwrap()));
            let bytes = fs::read(path).unwrap();
            let data_start = 10 + usize::from(u16::from_le_bytes([bytes[8], bytes[9]]));
            let expected = case[theirs]["sha256"].as_str().unwrap();
            assert_eq!(
                sha256(&bytes[data_start..]),
                expected,
                "{} {ours}",
                case["id"]
            );
        }
        let samples = Box::new(IndexedSamples::open(&stem, config.layout()).unwrap());
        let order = TrainingOrder::new(samples, dataset, -1);
        for i in 0..order.n_samples() {
            order.spans(i).unwrap();
        }
    }
}
