//! The whole job, compared with brute force over all pairs.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    thread,
};

use proptest::{collection::vec, prelude::*};

use super::{
    documents::Documents,
    exact::ExactGroups,
    normalize::normalized,
    sketch::DedupState,
    spill::SpilledDocuments,
    stored::DocumentSignatures,
    verify::{ComparedTexts, verify_copies},
    *,
};
use crate::{
    Error, ErrorKind, Result, io::Scratch, progress::Progress, read::Rules, text::words::words,
};

/// A document of a test.
#[derive(Debug, Clone)]
struct PlantedDocument {
    text: String,
    subset: Option<&'static str>,
    is_protected: bool,
}

impl PlantedDocument {
    fn new(text: &str) -> Self {
        Self {
            text: text.to_owned(),
            subset: None,
            is_protected: false,
        }
    }
}

/// A row of the result, as brute force finds it: document, cluster, its size, decision, kept copy, similarity, kind.
type TestRow = (u32, u32, u32, u8, u32, f64, u8);

fn rows(found: &DuplicateRows) -> Vec<TestRow> {
    (0..found.len())
        .map(|i| {
            (
                found.document[i],
                found.cluster[i],
                found.cluster_size[i],
                found.decision[i],
                found.kept_copy[i],
                found.similarity[i],
                found.kind[i],
            )
        })
        .collect()
}

/// The shingles of a text as texts.
fn shingles(text: &str, shingle: Shingle) -> BTreeSet<Vec<String>> {
    let parts: Vec<String> = match shingle {
        Shingle::Words(_) => words(text).map(str::to_owned).collect(),
        Shingle::Chars(_) => text.chars().map(String::from).collect(),
    };
    parts.windows(shingle.length()).map(<[_]>::to_vec).collect()
}

/// The result by brute force over all pairs.
fn expected(documents: &[PlantedDocument], config: &DedupConfig) -> Vec<TestRow> {
    let texts: Vec<_> = documents
        .iter()
        .map(|document| normalized(&document.text, config.normalization))
        .collect();
    let sets: Vec<_> = match &config.near {
        None => vec![BTreeSet::new(); texts.len()],
        Some(near) => texts
            .iter()
            .map(|text| shingles(text, near.shingle))
            .collect(),
    };
    // The similarity of each similar pair.
    let similarity = |a: usize, b: usize| -> Option<f64> {
        if texts[a] == texts[b] {
            return Some(1.0);
        }
        let near = config.near.as_ref()?;
        let shared = sets[a].intersection(&sets[b]).count() as u64;
        let all = match near.verification {
            Verification::Jaccard => sets[a].union(&sets[b]).count(),
            Verification::Containment => sets[a].len().min(sets[b].len()),
        } as u64;
        let is_similar = shared > 0 && near.threshold.is_reached(shared, all);
        is_similar.then(|| shared as f64 / all as f64)
    };
    let n = documents.len();
    let mut clusters: Vec<usize> = (0..n).collect();
    for a in 0..n {
        for b in 0..a {
            if similarity(a, b).is_some() {
                let (old, new) = (clusters[a].max(clusters[b]), clusters[a].min(clusters[b]));
                clusters
                    .iter_mut()
                    .filter(|c| **c == old)
                    .for_each(|c| *c = new);
            }
        }
    }
    let size = |document: usize| {
        clusters
            .iter()
            .filter(|c| **c == clusters[document])
            .count()
    };
    let is_left_alone =
        |document| !config.large_clusters && size(document) as u64 > config.max_cluster;
    let mut order: Vec<usize> = (0..n).collect();
    order.sort_by_key(|i| {
        let document = &documents[*i];
        let key = match &config.preference {
            Preference::First => 0,
            Preference::Longest => usize::MAX - document.text.len(),
            Preference::Subset(names) => {
                let index = names
                    .iter()
                    .position(|name| Some(&**name) == document.subset);
                index.unwrap_or(names.len())
            }
        };
        (!document.is_protected, key, *i)
    });
    let mut kept: Vec<usize> = Vec::new();
    let mut removed = BTreeMap::new();
    for document in &order {
        let document = *document;
        // A copy of a kept preferred member is charged to it, even if a more preferred document is similar to both.
        let member = order.iter().find(|other| texts[**other] == texts[document]);
        let member = member.filter(|member| kept.contains(member));
        let most_preferred = || kept.iter().find(|k| similarity(**k, document).is_some());
        let copy = member.or_else(most_preferred).copied();
        let copy = copy.and_then(|copy| Some((copy, similarity(copy, document)?)));
        match copy {
            Some(copy) if !documents[document].is_protected && !is_left_alone(document) => {
                removed.insert(document, copy);
            }
            _ => kept.push(document),
        }
    }
    let row = |document: usize| {
        let (decision, (copy, similarity), kind) = match removed.get(&document) {
            Some(copy) if texts[copy.0] == texts[document] => (1, *copy, 1),
            Some(copy) => (1, *copy, 2),
            None if is_left_alone(document) => (2, (document, 1.0), 0),
            None => (0, (document, 1.0), 0),
        };
        let (cluster, size) = (clusters[document] as u32, size(document) as u32);
        (
            document as u32,
            cluster,
            size,
            decision,
            copy as u32,
            similarity,
            kind,
        )
    };
    (0..n)
        .filter(|document| size(*document) > 1)
        .map(row)
        .collect()
}

/// Writes documents to shards of `n_per_shard`, every other one compressed.
fn write_shards(folder: &Path, documents: &[PlantedDocument], n_per_shard: usize) -> Vec<PathBuf> {
    let write = |(number, documents): (usize, &[PlantedDocument])| {
        let line = |document: &PlantedDocument| {
            let meta = serde_json::json!({"pile_set_name": document.subset});
            format!(
                "{}\n",
                serde_json::json!({"text": document.text, "meta": meta})
            )
        };
        let bytes: Vec<u8> = documents.iter().map(line).collect::<String>().into();
        let (name, bytes) = match number % 2 {
            0 => (format!("{number}.jsonl"), bytes),
            _ => (
                format!("{number}.jsonl.zst"),
                zstd::encode_all(&*bytes, 1).unwrap(),
            ),
        };
        fs::write(folder.join(&name), bytes).unwrap();
        folder.join(name)
    };
    documents
        .chunks(n_per_shard)
        .enumerate()
        .map(write)
        .collect()
}

/// The settings of near duplicates with bands that find every pair with an equal number in the signatures.
fn near(threshold: &str, shingle: Shingle) -> NearConfig {
    NearConfig {
        threshold: Threshold::parse(threshold).unwrap(),
        shingle,
        verification: Verification::Jaccard,
        permutations: 256,
        bands: Bands {
            bands: 256,
            rows: 1,
        },
    }
}

fn config(folder: &Path, documents: &[PlantedDocument], n_per_shard: usize) -> DedupConfig {
    let protected = documents.iter().enumerate();
    let protected = protected.filter(|(_, document)| document.is_protected);
    let protected = protected.map(|(i, _)| RecordNumber {
        shard: i / n_per_shard,
        record: (i % n_per_shard) as u64,
    });
    DedupConfig {
        protected: protected.collect(),
        protected_texts: Vec::new(),
        stored: Vec::new(),
        estimates_older: false,
        n_older: 0,
        shards: write_shards(folder, documents, n_per_shard),
        rules: Rules::default(),
        folder: folder.join("scratch"),
        job: "job".to_owned(),
        discard: false,
        near: None,
        normalization: Normalization::None,
        preference: Preference::First,
        max_cluster: 1000,
        large_clusters: false,
        memory: 1 << 20,
        n_threads: 2,
    }
}

fn run(config: &DedupConfig) -> Result<Duplicates> {
    find_duplicates(config, None, &Progress::default())
}

/// Runs tasks in this process, the last one first and each twice, with settings that must not matter.
struct LastFirst {
    config: DedupConfig,
    /// Fails once this many tasks have run.
    n_left: usize,
}

impl LastFirst {
    fn of(config: &DedupConfig, n_left: usize) -> Self {
        let config = DedupConfig {
            n_threads: 3,
            memory: 900,
            ..config.clone()
        };
        Self { config, n_left }
    }
}

impl TaskRunner for LastFirst {
    fn run(&mut self, tasks: &[DedupTask]) -> Result<()> {
        for task in tasks.iter().rev() {
            if self.n_left == 0 {
                return Err(Error::argument("killed"));
            }
            self.n_left -= 1;
            // As it comes from another process.
            let task = serde_json::from_str(&serde_json::to_string(task).unwrap()).unwrap();
            run_task(&self.config, task, &Progress::default())?;
            run_task(&self.config, task, &Progress::default())?;
        }
        Ok(())
    }
}

/// Runs the job with tasks, up to `n_tasks` of them.
fn run_tasks(config: &DedupConfig, n_tasks: usize) -> Result<Duplicates> {
    let mut runner = LastFirst::of(config, n_tasks);
    find_duplicates(config, Some(&mut runner), &Progress::default())
}

/// Runs the job in an empty folder.
fn run_anew(config: &DedupConfig) -> Duplicates {
    let _ = fs::remove_dir_all(&config.folder);
    run(config).unwrap()
}

/// Stores the signatures of all shards, for use by those with an index for which `is_used`.
fn stored(config: &DedupConfig, is_used: impl Fn(usize) -> bool) -> Vec<StoredSignatures> {
    let near = config.near.as_ref().unwrap();
    let folder = config.folder.with_file_name("stored");
    let sketching = SignaturesConfig {
        shards: config.shards.clone(),
        rules: config.rules.clone(),
        folder: folder.clone(),
        job: config.job.clone(),
        discard: false,
        shingle: near.shingle,
        permutations: near.permutations,
        normalization: config.normalization,
        memory: config.memory,
        n_threads: config.n_threads,
    };
    let made = write_signatures(&sketching, &Progress::default()).unwrap();
    let shard = |index: usize| StoredShard {
        index,
        number: index,
        n_documents: made.shards[index].n_documents,
        summary: made.shards[index].summary.clone(),
        rows_sha256: made.files[2 * index].sha256.clone(),
        signatures_sha256: made.files[2 * index + 1].sha256.clone(),
    };
    let used = (0..made.shards.len()).filter(|index| is_used(*index));
    vec![StoredSignatures {
        folder,
        shards: used.map(shard).collect(),
        subsets: made.subsets.clone(),
    }]
}

/// Finds the duplicates of single texts with the default settings of a test.
fn find(texts: &[&str], near: Option<NearConfig>) -> Vec<TestRow> {
    let folder = tempfile::tempdir().unwrap();
    let documents: Vec<_> = texts
        .iter()
        .map(|text| PlantedDocument::new(text))
        .collect();
    let config = DedupConfig {
        near,
        ..config(folder.path(), &documents, 2)
    };
    let found = rows(&run(&config).unwrap().rows);
    assert_eq!(found, expected(&documents, &config));
    found
}

prop_compose! {
    /// A few base texts, and documents that are edited copies of them.
    fn documents()(
        bases in vec(vec(0_usize..12, 0..20), 1..4),
        copies in vec((0_usize..4, vec((0_usize..20, 0_usize..12), 0..3), 0_usize..3, 0_usize..3, 0_u8..8), 1..22),
    ) -> Vec<PlantedDocument> {
        const WORDS: [&str; 12] =
            ["a", "b", "the", "A", "Tree", "tree", "naïve", "語", "x1", "don't", "ß", "ss"];
        copies.iter().map(|(base, edits, spaces, subset, protection)| {
            let mut text = bases[base % bases.len()].clone();
            for (at, word) in edits {
                match text.get_mut(*at) {
                    Some(old) => *old = *word,
                    None => text.push(*word),
                }
            }
            let text: Vec<&str> = text.iter().map(|word| WORDS[*word]).collect();
            PlantedDocument {
                text: text.join([" ", "  ", "\n"][*spaces]),
                subset: [None, Some("Books"), Some("Code")][*subset],
                is_protected: *protection == 0,
            }
        }).collect()
    }
}

fn preferences() -> impl Strategy<Value = Preference> {
    prop_oneof![
        Just(Preference::First),
        Just(Preference::Longest),
        Just(Preference::Subset(vec![
            "Code".into(),
            "none".into(),
            "Books".into()
        ])),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn equals_brute_force(
        documents in documents(),
        kind in prop_oneof![
            Just(None),
            ("0\\.5|0\\.67|0\\.8|0\\.9|1", 1_usize..4, any::<bool>(), any::<bool>()).prop_map(Some),
        ],
        normalization in prop_oneof![
            Just(Normalization::None), Just(Normalization::Whitespace), Just(Normalization::Case)
        ],
        preference in preferences(),
        max_cluster in 2_u64..12,
        large_clusters: bool,
        n_per_shard in 6_usize..12,
    ) {
        let folder = tempfile::tempdir().unwrap();
        let near = kind.map(|(threshold, n, is_words, is_jaccard): (String, _, _, bool)| NearConfig {
            verification: match is_jaccard {
                true => Verification::Jaccard,
                false => Verification::Containment,
            },
            ..near(&threshold, if is_words { Shingle::Words(n) } else { Shingle::Chars(3 * n) })
        });
        let config = DedupConfig {
            near,
            normalization,
            preference,
            max_cluster,
            large_clusters,
            ..config(folder.path(), &documents, n_per_shard)
        };
        let first = run_anew(&config);
        prop_assert_eq!(rows(&first.rows), expected(&documents, &config));
        let n_removed = first.rows.decision.iter().filter(|decision| **decision == 1).count();
        prop_assert_eq!(first.summary.n_removed, n_removed as u64);
        prop_assert_eq!(first.summary.n_documents, documents.len() as u64);
        let n_bytes: usize = documents.iter().map(|document| document.text.len()).sum();
        prop_assert_eq!(first.summary.n_text_bytes, n_bytes as u64);
        let mut others: Vec<_> = [(1, 0), (5, 600)]
            .map(|(n_threads, memory)| DedupConfig { n_threads, memory, ..config.clone() })
            .into();
        if config.near.is_some() {
            // Of some shards, so that the numbers of subsets differ.
            others.push(DedupConfig { stored: stored(&config, |shard| shard % 3 > 0), ..config.clone() });
        }
        let json = |found: &Duplicates| serde_json::to_string(&found.summary).unwrap();
        for other in &others {
            let other = run_anew(other);
            prop_assert_eq!(&first.rows, &other.rows);
            prop_assert_eq!(json(&first), json(&other));
        }
        // With stored signatures, if near duplicates are searched. One is enough: each task syncs its files.
        let last = &others[others.len() - 1];
        fs::remove_dir_all(&last.folder).unwrap();
        let divided = run_tasks(last, usize::MAX).unwrap();
        prop_assert_eq!(&first.rows, &divided.rows);
        prop_assert_eq!(json(&first), json(&divided));
    }
}

#[test]
fn similarities_to_older_documents_that_are_not_read_are_estimates() {
    let folder = tempfile::tempdir().unwrap();
    let texts = [
        numbered(0..100),
        numbered(200..300),
        numbered(0..100),
        numbered(20..120),
        numbered(200..300) + " w300",
        numbered(250..350),
    ];
    let documents = texts.each_ref().map(|text| PlantedDocument::new(text));
    let mut config = DedupConfig {
        near: Some(near("0.6", Shingle::Words(1))),
        ..config(folder.path(), &documents, 2)
    };
    config.n_older = 1;
    config.stored = stored(&config, |shard| shard == 0);
    config.estimates_older = true;
    fs::remove_file(&config.shards[0]).unwrap();
    let found = run(&config).unwrap().rows;
    // Without the texts: an equal hash, and shares of equal numbers near 80 / 120 and 100 / 101.
    assert_eq!(found.document, [0, 1, 2, 3, 4]);
    assert_eq!(found.decision, [0, 0, 1, 1, 1]);
    assert_eq!(found.kept_copy, [0, 1, 0, 0, 1]);
    assert_eq!(found.kind, [0, 0, 1, 3, 3]);
    assert_eq!(found.similarity[2], 1.0);
    for (document, expected) in [(3, 80.0 / 120.0), (4, 100.0 / 101.0)] {
        let similarity = found.similarity[document];
        assert!((similarity - expected).abs() < 0.09, "{similarity}");
        assert_eq!((similarity * 256.0).fract(), 0.0);
    }
    config.stored.clear();
    let message = run(&config).unwrap_err().to_string();
    assert!(message.contains("need stored signatures"), "{message}");
}

/// A text of different words.
fn numbered(range: std::ops::Range<usize>) -> String {
    let words: Vec<String> = range.map(|i| format!("w{i}")).collect();
    words.join(" ")
}

#[test]
fn a_chain_does_not_remove_what_is_unlike_the_kept_copy() {
    // Neighbors share 80 of 120 words, the ends 60 of 140.
    let chain = [numbered(0..100), numbered(20..120), numbered(40..140)];
    let chain = chain.each_ref().map(String::as_str);
    let found = find(&chain, Some(near("0.6", Shingle::Words(1))));
    let similarity = 80.0 / 120.0;
    assert_eq!(
        found,
        [
            (0, 0, 3, 0, 0, 1.0, 0),
            (1, 0, 3, 1, 0, similarity, 2),
            (2, 0, 3, 0, 2, 1.0, 0),
        ]
    );
}

#[test]
fn copies_of_a_removed_document_are_charged_to_the_same_document() {
    let texts = [
        numbered(0..100),
        numbered(5..105),
        numbered(5..105),
        numbered(0..100),
    ];
    let texts = texts.each_ref().map(String::as_str);
    let found = find(&texts, Some(near("0.8", Shingle::Words(1))));
    let similarity = 95.0 / 105.0;
    assert_eq!(
        found,
        [
            (0, 0, 4, 0, 0, 1.0, 0),
            (1, 0, 4, 1, 0, similarity, 2),
            (2, 0, 4, 1, 0, similarity, 2),
            (3, 0, 4, 1, 0, 1.0, 1),
        ]
    );
}

#[test]
fn texts_without_shingles_are_compared_exactly() {
    let texts = ["", "word", "", "word", "other", "two words"];
    let found = find(&texts, Some(near("0.5", Shingle::Words(2))));
    let documents: Vec<_> = found.iter().map(|row| (row.0, row.4, row.6)).collect();
    assert_eq!(documents, [(0, 0, 0), (1, 1, 0), (2, 0, 1), (3, 1, 1)]);
    assert_eq!(find(&[], None), []);
}

#[test]
fn many_similar_documents_are_all_removed() {
    let texts: Vec<String> = (0..200)
        .map(|i| format!("{} end{i}", numbered(0..60)))
        .collect();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let found = find(&texts, Some(near("0.8", Shingle::Words(2))));
    assert_eq!(found.iter().filter(|row| row.3 == 1).count(), 199);
}

/// Enough documents for shards of several blocks, with duplicates across shards.
fn many_documents() -> Vec<PlantedDocument> {
    let text = |i: usize| match i % 5 {
        0 => numbered(i..i + 200),
        1 => format!("{} end", numbered(i - 1..i + 199)),
        2 => numbered(10 * (i % 7)..200),
        _ => format!("{i} {}", numbered(3 * i..3 * i + 150)),
    };
    (0..1200).map(|i| PlantedDocument::new(&text(i))).collect()
}

#[test]
fn an_interrupted_job_resumes() {
    let folder = tempfile::tempdir().unwrap();
    let documents = many_documents();
    let config = DedupConfig {
        near: Some(near("0.9", Shingle::Words(3))),
        ..config(folder.path(), &documents, 100)
    };
    let expected = run_anew(&config);
    let n_bytes: u64 = config
        .shards
        .iter()
        .map(|path| 2 * fs::metadata(path).unwrap().len())
        .sum();
    fs::remove_dir_all(&config.folder).unwrap();
    let mut n_stopped = 0;
    for part in 1..=12 {
        let progress = Progress::default();
        let result = thread::scope(|scope| {
            let job = scope.spawn(|| find_duplicates(&config, None, &progress));
            while progress.done() < n_bytes * part / 12 && !job.is_finished() {
                thread::yield_now();
            }
            progress.stop();
            job.join().unwrap()
        });
        match result {
            Err(err) => {
                assert!(matches!(err.kind(), ErrorKind::Cancelled), "{err}");
                n_stopped += 1;
            }
            Ok(found) => assert_eq!(found.rows, expected.rows),
        }
    }
    assert!(n_stopped > 0);
    let resumed = run(&config).unwrap();
    assert_eq!(resumed.rows, expected.rows);
    assert!(resumed.summary.n_resumed_shards > 0);
    assert_eq!(resumed.summary.histogram, expected.summary.histogram);
    assert!(!config.folder.join("sort").exists());
}

#[test]
fn a_job_resumes_after_its_finished_shards() {
    let folder = tempfile::tempdir().unwrap();
    let documents = many_documents();
    let config = DedupConfig {
        near: Some(near("0.9", Shingle::Words(3))),
        ..config(folder.path(), &documents, 300)
    };
    let expected = run_anew(&config);
    fs::remove_dir_all(&config.folder).unwrap();
    let good = fs::read(&config.shards[2]).unwrap();
    fs::write(&config.shards[2], b"bad\n").unwrap();
    let message = run(&config).unwrap_err().to_string();
    assert!(message.starts_with("record 0: not JSON"), "{message}");
    fs::write(&config.shards[2], good).unwrap();
    let other = DedupConfig {
        job: "other".to_owned(),
        ..config.clone()
    };
    let message = run(&other).unwrap_err().to_string();
    assert!(message.contains("holds 2 finished shards"), "{message}");
    let resumed = run(&config).unwrap();
    assert_eq!(resumed.rows, expected.rows);
    assert_eq!(resumed.summary.n_resumed_shards, 2);
    // A finished job is repeated from its sketches.
    assert_eq!(run(&config).unwrap().rows, expected.rows);
}

#[test]
fn bad_records_have_no_number() {
    let folder = tempfile::tempdir().unwrap();
    let shard = folder.path().join("a.jsonl");
    fs::write(
        &shard,
        "{\"text\": \"a\"}\nbad\n{\"text\": \"b\"}\n\n{\"text\": \"a\"}\n",
    )
    .unwrap();
    let config = DedupConfig {
        shards: vec![shard],
        rules: Rules {
            bad_records: crate::read::BadRecords::Skip,
            ..Rules::default()
        },
        ..config(folder.path(), &[], 1)
    };
    let found = run(&config).unwrap();
    assert_eq!(
        (found.rows.document, found.rows.record),
        (vec![0, 2], vec![0, 4])
    );
    assert_eq!(found.summary.shards[0].bad_records.n, 2);
    let protected = |record| {
        let protected = vec![RecordNumber { shard: 0, record }];
        run(&DedupConfig {
            protected,
            ..config.clone()
        })
    };
    assert_eq!(protected(4).unwrap().rows.kept_copy, [2, 2]);
    let message = protected(1).unwrap_err().to_string();
    assert!(message.contains("record 1 of"), "{message}");
}

#[test]
fn what_cannot_be_read_twice_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let config = DedupConfig {
        shards: vec![PathBuf::from("/dev/null")],
        ..config(folder.path(), &[], 1)
    };
    let message = run(&config).unwrap_err().to_string();
    assert!(message.contains("reads each shard twice"), "{message}");
}

#[test]
fn files_of_the_same_request_with_other_signatures_are_discarded() {
    let folder = tempfile::tempdir().unwrap();
    let documents = ["a", "a", "b"].map(PlantedDocument::new);
    let mut config = config(folder.path(), &documents, 1);
    for (job, is_refused) in [("a.1", false), ("a.2", false), ("a", false), ("b.2", true)] {
        job.clone_into(&mut config.job);
        let refused = find_duplicates(&config, None, &Progress::default()).err();
        assert_eq!(refused.is_some(), is_refused, "{job}: {refused:?}");
    }
}

#[test]
fn texts_that_only_share_a_hash_are_no_copies() {
    let folder = tempfile::tempdir().unwrap();
    let documents = ["a", "a", "b", "b", "ba"].map(PlantedDocument::new);
    let config = config(folder.path(), &documents, 2);
    run(&config).unwrap();
    let (progress, any) = (Progress::default(), |_: &DedupState| true);
    let (_, state) = Scratch::open(&config.folder, false, &progress, any).unwrap();
    let state = state.unwrap();
    let documents = Documents::open(&config.folder, &state).unwrap();
    let folder_of = |shard| {
        Ok(state
            .spilled
            .contains(&shard)
            .then(|| config.folder.clone()))
    };
    let spilled = SpilledDocuments::open(&documents, folder_of).unwrap();
    let texts = ComparedTexts {
        documents: &documents,
        spilled: &spilled,
        signatures: DocumentSignatures::default(),
        n_estimated: 0,
    };
    // As if all hashes were equal.
    let mut groups = ExactGroups {
        preferred: vec![0, 0, 0, 2, 4],
    };
    verify_copies(&mut groups, &texts, 2, &progress).unwrap();
    assert_eq!(groups.preferred, [0, 0, 2, 2, 4]);
    groups.preferred[4] = 0;
    let message = verify_copies(&mut groups, &texts, 1, &progress).unwrap_err();
    assert!(
        message.to_string().contains("document 4 is missing"),
        "{message}"
    );
}

#[test]
fn a_job_whose_tasks_stop_resumes() {
    let folder = tempfile::tempdir().unwrap();
    let documents = many_documents();
    let config = DedupConfig {
        near: Some(near("0.9", Shingle::Words(3))),
        ..config(folder.path(), &documents[..200], 60)
    };
    let expected = run_anew(&config);
    fs::remove_dir_all(&config.folder).unwrap();
    let mut n_tasks = 0;
    // Each run goes some tasks further, from what the ones before it have finished.
    let found = loop {
        n_tasks += 5;
        match run_tasks(&config, n_tasks) {
            Ok(found) => break found,
            Err(err) => assert!(err.to_string().contains("killed"), "{err}"),
        }
    };
    assert!(n_tasks > 30, "{n_tasks}");
    assert_eq!(found.rows, expected.rows);
    // A damaged file of a task is made again.
    for name in [
        "bands-000000/data",
        "pairs-000001/data",
        "spill-000001/spilled-000001",
    ] {
        let path = config.folder.join("tasks").join(name);
        let mut bytes = fs::read(&path).unwrap();
        assert!(!bytes.is_empty(), "{name}");
        bytes[0] ^= 1;
        fs::write(&path, bytes).unwrap();
        assert_eq!(run_tasks(&config, usize::MAX).unwrap().rows, expected.rows);
    }
    // Another job uses none of them.
    let other = DedupConfig {
        job: "other".to_owned(),
        discard: true,
        near: Some(near("0.5", Shingle::Words(3))),
        ..config
    };
    let divided = run_tasks(&other, usize::MAX).unwrap();
    assert_eq!(divided.rows, run_anew(&other).rows);
    assert_ne!(divided.rows, expected.rows);
}

#[test]
fn a_task_that_the_job_has_not_come_to_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let documents = many_documents();
    let config = DedupConfig {
        near: Some(near("0.9", Shingle::Words(3))),
        ..config(folder.path(), &documents[..20], 10)
    };
    let task = |task| {
        run_task(&config, task, &Progress::default())
            .unwrap_err()
            .to_string()
    };
    assert!(task(DedupTask::Bands { shard: 0 }).contains("no state of this job"));
    run(&config).unwrap();
    assert!(task(DedupTask::Pairs { band: 0 }).contains("shared-candidates"));
    let exact = DedupConfig {
        near: None,
        ..config
    };
    let none = run_task(&exact, DedupTask::Bands { shard: 0 }, &Progress::default());
    assert!(
        none.unwrap_err()
            .to_string()
            .contains("for near duplicates")
    );
}

#[test]
fn damaged_files_of_a_killed_job_are_made_anew() {
    let folder = tempfile::tempdir().unwrap();
    let documents = many_documents();
    let config = DedupConfig {
        near: Some(near("0.9", Shingle::Words(3))),
        ..config(folder.path(), &documents[..200], 100)
    };
    let expected = run(&config).unwrap();
    for name in [
        "rows-000000",
        "signatures-000001",
        "spilled-000001",
        "state.json",
    ] {
        let path = config.folder.join(name);
        let mut bytes = fs::read(&path).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs::write(&path, bytes).unwrap();
        let found = run(&config).unwrap();
        assert_eq!(found.rows, expected.rows);
        assert_eq!(found.summary.n_resumed_shards, 0, "{name}");
    }
}
