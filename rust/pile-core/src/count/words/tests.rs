use std::{collections::BTreeMap, path::Path};

use proptest::{collection::vec, prelude::*};

use super::{
    super::{
        retained::{
            Retention,
            collect::{AllNgrams, CollectNgrams},
        },
        spill::SpillLimits,
    },
    *,
};

/// A text and the number of its subset.
type TestDocument = (String, usize);

fn count_naively(documents: &[TestDocument], lengths: &[usize]) -> BTreeMap<(usize, String), u64> {
    let mut counts = BTreeMap::new();
    for (text, _) in documents {
        let words: Vec<&str> = words(text).collect();
        for n in lengths {
            for ngram in words.windows(*n) {
                *counts.entry((*n, ngram.join(" "))).or_default() += 1;
            }
        }
    }
    counts
}

/// Counts by subset in up to three shards.
fn count_documents(
    folder: &Path,
    documents: &[TestDocument],
    lengths: &[usize],
    memory: u64,
    n_threads: usize,
) -> Result<(AllNgrams, WordsSummary)> {
    let mut shards = Vec::new();
    for (number, part) in documents
        .chunks(documents.len().div_ceil(3).max(1))
        .enumerate()
    {
        let line = |(text, subset): &TestDocument| {
            let meta = serde_json::json!({ "pile_set_name": format!("s{subset}") });
            serde_json::json!({ "text": text, "meta": meta }).to_string() + "\n"
        };
        let path = folder.join(format!("{number}.jsonl"));
        std::fs::write(&path, part.iter().map(line).collect::<String>()).unwrap();
        shards.push(path);
    }
    let config = WordsConfig {
        counting: NgramConfig {
            lengths: lengths.to_vec(),
            retention: Retention {
                min_count: 0,
                top: None,
            },
            memory,
            n_threads,
            folder: folder.join("scratch"),
            free_bytes: u64::MAX,
            job: "job".to_owned(),
            discard: false,
        },
        shards,
        rules: Rules::default(),
        ignore_case: false,
        by_subset: true,
    };
    let sink = CollectNgrams::default();
    let boxed = sink.clone();
    let summary = count_words(&config, &Progress::default(), move |_| Ok(Box::new(boxed)))?;
    Ok((sink.0.take(), summary))
}

/// The words and the count of each n-gram.
fn words_and_counts(found: &AllNgrams) -> Vec<(String, u64)> {
    let words = |key: &[u8]| String::from_utf8(key.to_vec()).unwrap();
    found
        .iter()
        .map(|(key, count, _)| (words(key), *count))
        .collect()
}

#[test]
fn words_are_split_as_by_python() {
    let text = " a\u{1c}b\u{a0}c\u{200b}d\n\n e\u{85}f\u{3000}";
    assert_eq!(
        words(text).collect::<Vec<_>>(),
        ["a", "b", "c\u{200b}d", "e", "f"]
    );
}

#[test]
fn a_table_is_spilled_before_its_offsets_overflow() {
    let folder = tempfile::tempdir().unwrap();
    let documents: Vec<TestDocument> = (0..20).map(|i| (format!("{i} ").repeat(250), 0)).collect();
    let (found, _) = count_documents(folder.path(), &documents, &[1, 2], 1 << 26, 1).unwrap();
    let expected = count_naively(&documents, &[1, 2]);
    let expected: Vec<_> = expected.into_iter().map(|((_, key), n)| (key, n)).collect();
    assert_eq!(words_and_counts(&found), expected);
}

#[test]
fn a_table_is_spilled_within_a_document() {
    let folder = tempfile::tempdir().unwrap();
    let text: String = (0..400).map(|i| format!("{} ", i * i % 17)).collect();
    let documents = [(text.clone(), 0), ("a b".to_owned(), 1), (text, 2)];
    let lengths = [1, 2, 7, MAX_WORDS];
    let (found, _) = count_documents(folder.path(), &documents, &lengths, 1, 1).unwrap();
    let expected = count_naively(&documents, &lengths);
    let mut expected: Vec<_> = expected.into_iter().map(|((_, key), n)| (key, n)).collect();
    let mut found = words_and_counts(&found);
    expected.sort();
    found.sort();
    assert_eq!(found, expected);
}

#[test]
fn a_document_with_many_times_its_bytes_of_ngrams_is_spilled_before_its_end() {
    let lengths: Vec<usize> = (1..=MAX_WORDS).collect();
    let mut table = WordTable::new(&lengths, 1 << 16, false);
    let text: String = (0..300).map(|i| format!("{i:x} ")).collect();
    let mut n_bytes_at_spills = Vec::new();
    let spill = |table: &mut WordTable<'_>| {
        n_bytes_at_spills.push(table.text.len() - table.n_kept);
        table.clear();
        assert!(table.words.len() < MAX_WORDS);
        Ok(())
    };
    table.add(&text, 0, spill).unwrap();
    assert!(n_bytes_at_spills.len() > 1, "{n_bytes_at_spills:?}");
    assert_eq!(
        n_bytes_at_spills.iter().sum::<usize>() + table.text.len() - table.n_kept,
        text.len()
    );
}

#[test]
fn a_document_that_fits_no_table_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let documents = [("a".repeat(MAX_TEXT_BYTES / MAX_GROWTH + 1), 0)];
    let counted = count_documents(folder.path(), &documents, &[1], 1 << 26, 1);
    let err = counted.unwrap_err().to_string();
    assert!(err.starts_with("a document has 1025 bytes"), "{err}");
}

#[test]
fn a_state_with_too_many_shards_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let limits = SpillLimits {
        free_bytes: u64::MAX,
        memory: 0,
    };
    let scratch = folder.path().join("scratch");
    let mut spill = Spill::open(&scratch, "job", false, limits, &Progress::default()).unwrap();
    let checkpoint = WordsCheckpoint {
        hashes: vec![String::new(); 2],
        ..WordsCheckpoint::default()
    };
    let finished = FinishedInput {
        what: "shards".to_owned(),
        end: 2,
    };
    let json = serde_json::to_string(&checkpoint).unwrap();
    spill
        .finish_input(spill.begin(), finished, vec![json])
        .unwrap();
    let counted = count_documents(folder.path(), &[("a".to_owned(), 0)], &[1], 1 << 26, 1);
    let err = counted.unwrap_err().to_string();
    assert!(err.starts_with("2 shards are finished"), "{err}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn equals_a_naive_count(
        documents in vec(("[a-c é\u{a0}\t]{0,40}", 0_usize..3), 1..30),
        lengths in prop::sample::subsequence(vec![1_usize, 2, 3, 5], 1..4),
        n_threads in 1_usize..3,
        is_tight: bool,
    ) {
        let folder = tempfile::tempdir().unwrap();
        let memory = if is_tight { 1 } else { 1 << 26 };
        let (found, summary) = count_documents(folder.path(), &documents, &lengths, memory, n_threads).unwrap();
        let expected = count_naively(&documents, &lengths);
        let expected: Vec<_> = expected.into_iter().map(|((_, key), n)| (key, n)).collect();
        prop_assert_eq!(words_and_counts(&found), expected);
        for (index, name) in summary.groups.iter().enumerate() {
            let is_of_group = |document: &&TestDocument| Some(format!("s{}", document.1)) == *name;
            let of_group: Vec<_> = documents.iter().filter(is_of_group).cloned().collect();
            let n: u64 = count_naively(&of_group, &lengths).values().sum();
            prop_assert_eq!(found.iter().map(|(_, _, by_group)| by_group[index]).sum::<u64>(), n);
        }
    }
}
