//! Labels compared with a slow reference, and with the provenance that `build` writes.

use std::fs;

use proptest::prelude::*;

use super::*;
use crate::{
    tokenize::{TrainConfig, Trainer},
    tokens::{BuildConfig, MergeConfig, Provenance, build, merge, write_idx},
};

const WORDS: [&str; 7] = ["", "a", "b", "ab ab", "the cat", "é\n", "\"quoted\""];

fn tokenizer() -> Tokenizer {
    let mut trainer = Trainer::new(TrainConfig {
        vocab_size: 262,
        min_frequency: 0,
        special_tokens: vec!["<|endoftext|>".to_owned()],
    })
    .unwrap();
    trainer.add("the cat sat on the mat");
    let trained = trainer.finish(&Progress::default()).unwrap();
    Tokenizer::from_json(trained.to_json().as_bytes(), Path::new("t.json")).unwrap()
}

/// Writes shards of these texts, given by their index in [`WORDS`], with or without a subset.
fn write_shards(folder: &Path, shards: &[Vec<usize>]) -> Vec<PathBuf> {
    let write = |(number, texts): (usize, &Vec<usize>)| {
        let path = folder.join(format!("{number}.jsonl"));
        let line = |i: &usize| {
            let text = serde_json::to_string(WORDS[*i]).unwrap();
            match i % 3 {
                0 => format!("{{\"text\": {text}}}\n"),
                subset => {
                    format!("{{\"text\":{text}, \"meta\": {{\"pile_set_name\": \"S{subset}\"}}}}\n")
                }
            }
        };
        fs::write(&path, texts.iter().map(line).collect::<String>()).unwrap();
        path
    };
    shards.iter().enumerate().map(write).collect()
}

/// Writes a dataset of these texts without provenance.
fn write_dataset(prefix: &Path, tokenizer: &Tokenizer, texts: &[usize], eod: Option<u32>) {
    let (mut bin, mut lengths) = (Vec::new(), Vec::new());
    for text in texts {
        let mut ids = Vec::new();
        tokenizer.encoder().encode(WORDS[*text], &mut ids).unwrap();
        ids.extend(eod);
        lengths.push(ids.len() as i32);
        TokenType::U16.encode_all(&ids, &mut bin);
    }
    let mut idx = Vec::new();
    write_idx(&mut idx, TokenType::U16, &lengths).unwrap();
    fs::write(prefix.with_extension("idx"), idx).unwrap();
    fs::write(prefix.with_extension("bin"), bin).unwrap();
}

fn config(prefix: &Path, shards: &[PathBuf], eod: Option<u32>, n_threads: usize) -> LabelConfig {
    LabelConfig {
        prefix: prefix.to_owned(),
        shards: shards.to_owned(),
        rules: Rules::default(),
        add_special_tokens: false,
        eod,
        folder: prefix.parent().unwrap().to_owned(),
        name: prefix.file_name().unwrap().to_string_lossy().into_owned(),
        n_threads,
    }
}

/// The shard and record of each document, by the rule of the module.
fn expected(shards: &[Vec<usize>], documents: &[usize]) -> Vec<Option<(usize, usize)>> {
    let all = shards.iter().enumerate();
    let all: Vec<(usize, (usize, usize))> = all
        .flat_map(|(shard, texts)| {
            let records = texts.iter().enumerate();
            records.map(move |(record, text)| (*text, (shard, record)))
        })
        .filter(|(text, _)| !WORDS[*text].is_empty())
        .collect();
    let label = |(i, text): (usize, &usize)| {
        let records: Vec<_> = all.iter().filter(|(t, _)| t == text).collect();
        let n_equal = documents.iter().filter(|d| *d == text).count();
        let n_before = documents[..i].iter().filter(|d| *d == text).count();
        let k = if records.len() == n_equal {
            n_before
        } else {
            0
        };
        records.get(k).map(|(_, location)| *location)
    };
    documents.iter().enumerate().map(label).collect()
}

fn one_hash_for_all(_: &[u8]) -> u64 {
    7
}

fn few_hashes(tokens: &[u8]) -> u64 {
    tokens.len() as u64 % 2
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn documents_in_any_order_get_their_records(
        shards in prop::collection::vec(prop::collection::vec(0..WORDS.len() - 1, 0..12), 1..4),
        documents in prop::collection::vec(1..WORDS.len(), 0..20),
        has_eod in any::<bool>(),
        n_threads in 1_usize..4,
    ) {
        let folder = tempfile::tempdir().unwrap();
        let tokenizer = tokenizer();
        let eod = tokenizer.eod().map(|(_, id)| id);
        let (paths, prefix) = (write_shards(folder.path(), &shards), folder.path().join("d"));
        write_dataset(&prefix, &tokenizer, &documents, eod.filter(|_| has_eod));
        let expected = expected(&shards, &documents);
        let provenance = prefix.with_extension("provenance");
        let mut files = Vec::new();
        for hash in [document_index::hash, one_hash_for_all, few_hashes] {
            let _ = fs::remove_file(&provenance);
            let config = config(&prefix, &paths, eod, n_threads);
            let summary = label_by(&config, &tokenizer, hash, &Progress::default()).unwrap();
            prop_assert_eq!(summary.has_eod, has_eod && !documents.is_empty());
            let n_found = expected.iter().flatten().count() as u64;
            prop_assert_eq!(summary.n_found, n_found);
            prop_assert_eq!(summary.subsets.iter().map(|s| s.n_documents).sum::<u64>(), n_found);
            prop_assert_eq!(summary.shards.iter().map(|s| s.n_documents).sum::<u64>(), n_found);
            files.push(fs::read(&provenance).unwrap());
        }
        prop_assert!(files.windows(2).all(|two| two[0] == two[1]));
        prop_assert!(!folder.path().join("locations").exists());
        let opened = Provenance::open(&provenance, documents.len() as u64).unwrap();
        for (document, location) in expected.iter().enumerate() {
            let found = opened.origin(document as u64).unwrap();
            prop_assert_eq!(found.is_some(), location.is_some());
            let (Some(found), Some((shard, record))) = (found, location) else { continue };
            prop_assert_eq!(found.shard, paths[*shard].to_str().unwrap());
            prop_assert_eq!(found.record, *record as u64);
            let bytes = fs::read(found.shard).unwrap();
            let line = &bytes[found.byte_start as usize..][..found.byte_length as usize];
            prop_assert_eq!(line, bytes.split(|b| *b == b'\n').nth(*record).unwrap());
            let subset = documents[document] % 3;
            prop_assert_eq!(found.subset.map(str::to_owned), (subset > 0).then(|| format!("S{subset}")));
            let same = |other: &usize| expected[*other] == *location;
            let same: Vec<u64> = (0..documents.len()).filter(same).map(|i| i as u64).collect();
            prop_assert_eq!(opened.documents_of(*shard as u32, *record as u64).unwrap(), same);
        }
    }

    #[test]
    fn labels_equal_the_provenance_that_build_wrote(
        shards in prop::collection::vec(prop::collection::vec(0..WORDS.len(), 0..12), 1..5),
        has_eod in any::<bool>(),
    ) {
        prop_assume!(shards.iter().flatten().any(|text| *text > 0));
        let folder = tempfile::tempdir().unwrap();
        let tokenizer = tokenizer();
        let eod = tokenizer.eod().map(|(_, id)| id);
        let shards = write_shards(folder.path(), &shards);
        let built = BuildConfig {
            shards: shards.clone(),
            rules: Rules::default(),
            add_special_tokens: false,
            eod: eod.filter(|_| has_eod),
            folder: folder.path().join("out"),
            name: "d".into(),
            job: "job".into(),
            is_part: false,
            discard: false,
            n_threads: 1,
        };
        build(&built, &tokenizer, &Progress::default()).unwrap();
        let prefix = built.folder.join("d");
        let path = prefix.with_extension("provenance");
        let before = fs::read(&path).unwrap();
        fs::remove_file(&path).unwrap();
        let config = config(&prefix, &shards, eod, 2);
        let summary = label(&config, &tokenizer, &Progress::default()).unwrap();
        prop_assert_eq!(fs::read(&path).unwrap(), before);
        prop_assert_eq!(summary.n_found, summary.n_documents);
        prop_assert_eq!(summary.n_ambiguous + summary.n_other_texts, 0);
    }

    #[test]
    fn merged_labels_equal_those_of_the_parts(
        parts in prop::collection::vec(
            (prop::collection::vec(1..WORDS.len() - 1, 0..9), prop::collection::vec(1..WORDS.len(), 0..9)), 1..4
        ),
    ) {
        let tokenizer = tokenizer();
        let folder = tempfile::tempdir().unwrap();
        let mut inputs = Vec::new();
        for (i, (texts, documents)) in parts.iter().enumerate() {
            let folder = folder.path().join(i.to_string());
            fs::create_dir(&folder).unwrap();
            let (shards, prefix) = (write_shards(&folder, std::slice::from_ref(texts)), folder.join("d"));
            write_dataset(&prefix, &tokenizer, documents, None);
            label(&config(&prefix, &shards, None, 1), &tokenizer, &Progress::default()).unwrap();
            inputs.push(prefix);
        }
        let merged = MergeConfig {
            inputs: inputs.clone(),
            folder: folder.path().join("out"),
            name: "all".into(),
            job: "job".into(),
            discard: false,
            bin_sha256: Vec::new(),
        };
        merge(&merged, &Progress::default()).unwrap();
        let merged = TokenDataset::open(&merged.folder.join("all")).unwrap();
        let merged = merged.provenance().unwrap();
        let mut document = 0;
        for prefix in inputs {
            let part = TokenDataset::open(&prefix).unwrap();
            for i in 0..part.n_documents() {
                let origin = part.provenance().unwrap().origin(i).unwrap();
                prop_assert_eq!(merged.origin(document).unwrap(), origin);
                document += 1;
            }
        }
    }
}

#[test]
fn equal_documents_are_assigned_by_order_or_ambiguous() {
    let folder = tempfile::tempdir().unwrap();
    let tokenizer = tokenizer();
    // Word 1: two records, two documents. Word 2: one and two. Word 3: three and two. Word 4: none and one.
    let shards = write_shards(folder.path(), &[vec![1, 2, 3, 3], vec![1, 3, 0]]);
    let prefix = folder.path().join("d");
    write_dataset(&prefix, &tokenizer, &[1, 2, 3, 1, 2, 3, 4], None);
    let summary = label(
        &config(&prefix, &shards, None, 1),
        &tokenizer,
        &Progress::default(),
    );
    let summary = summary.unwrap();
    let counts = (summary.n_found, summary.n_by_order, summary.n_ambiguous);
    assert_eq!(counts, (6, 2, 2));
    assert_eq!((summary.n_texts, summary.n_other_texts), (6, 0));
    let found = Provenance::open(&prefix.with_extension("provenance"), 7).unwrap();
    let location = |i: u64| found.location(i).unwrap().map(|l| (l.shard, l.record));
    let locations: Vec<_> = (0..7).map(location).collect();
    let [first, other, third] = [Some((0, 0)), Some((0, 1)), Some((0, 2))];
    assert_eq!(
        locations,
        [first, other, third, Some((1, 0)), other, third, None]
    );
    assert_eq!(found.documents_of(0, 1).unwrap(), [1, 4]);
    assert!(found.documents_of(2, 0).is_err());
}

#[test]
fn a_dataset_of_another_tokenizer_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let prefix = folder.path().join("d");
    let mut trained = serde_json::json!({"added_tokens": [], "normalizer": null, "decoder": {"type": "ByteLevel"},
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false},
        "model": {"type": "BPE", "vocab": {}, "merges": []}});
    trained["model"]["vocab"]["a"] = 70_000.into();
    let large = Tokenizer::from_json(trained.to_string().as_bytes(), Path::new("t.json")).unwrap();
    write_dataset(&prefix, &tokenizer(), &[1], None);
    let err = label(&config(&prefix, &[], None, 1), &large, &Progress::default()).unwrap_err();
    assert!(err.to_string().contains("largest id is 70000"), "{err}");
}

#[test]
fn locations_survive_packing() {
    let location = RecordLocation {
        shard: 3,
        record: 1 << 31,
        byte_start: u64::MAX,
        byte_length: 5,
        subset: Some(0),
    };
    for location in [
        location,
        RecordLocation {
            subset: None,
            ..location
        },
    ] {
        assert_eq!(from_bytes(&to_bytes(location)), location);
    }
}
