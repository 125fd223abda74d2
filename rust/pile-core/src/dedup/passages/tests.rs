use std::path::Path;

use proptest::{collection::vec, prelude::*};

use super::{store::WindowUnit, *};

/// Writes the texts to `n_shards` shards, with a bad record in between and the subsets `s0` to `s2`.
pub(crate) fn write_shards(folder: &Path, texts: &[String], n_shards: usize) -> Vec<PathBuf> {
    let mut shards = Vec::new();
    let per_shard = texts.len().div_ceil(n_shards).max(1);
    for number in 0..n_shards {
        let mut lines = String::new();
        for (i, text) in texts
            .iter()
            .enumerate()
            .skip(number * per_shard)
            .take(per_shard)
        {
            let meta = serde_json::json!({ "pile_set_name": format!("s{}", i % 3) });
            lines += &serde_json::json!({ "text": text, "meta": meta }).to_string();
            lines += "\n";
            if i % 4 == 1 {
                lines += "bad\n";
            }
        }
        let path = folder.join(format!("{number}.jsonl"));
        std::fs::write(&path, lines).unwrap();
        shards.push(path);
    }
    shards
}

pub(crate) fn config(folder: &Path, shards: Vec<PathBuf>, length: usize) -> PassagesConfig {
    PassagesConfig {
        shards,
        rules: Rules {
            bad_records: crate::read::BadRecords::Skip,
            ..Rules::default()
        },
        length,
        every_copy: false,
        protected: Vec::new(),
        protected_texts: Vec::new(),
        memory: 1 << 26,
        n_threads: 1,
        job: "test".to_owned(),
        folder: folder.join("scratch"),
        discard: false,
    }
}

type Found = (Vec<RepeatedPassage>, PassagesSummary);

fn find(config: &PassagesConfig) -> Result<Found> {
    let (passages, summary) = find_passages(config, None, &Progress::default())?;
    Ok((passages.iter().collect(), summary))
}

/// Compares the result with the reference, and its totals and record numbers with the texts.
fn check(texts: &[String], n_shards: usize, config: &PassagesConfig, (found, summary): &Found) {
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let expected = reference::passages(&texts, config.length, config.every_copy);
    let as_reference = |passage: &RepeatedPassage| reference::ReferencePassage {
        document: passage.document as usize,
        raw_start: passage.raw_start as usize,
        raw_end: passage.raw_end as usize,
        start: passage.start as usize,
        end: passage.end as usize,
        copy: (passage.copy_document as usize, passage.copy_start as usize),
    };
    let found_so: Vec<_> = found.iter().map(as_reference).collect();
    let different = found_so
        .iter()
        .zip(&expected)
        .find(|(found, expected)| found != expected);
    assert_eq!(different, None);
    assert_eq!(found_so.len(), expected.len());
    let per_shard = texts.len().div_ceil(n_shards).max(1);
    let mut by_subset = [0; 3];
    for passage in found {
        let document = passage.document as usize;
        let shard = document / per_shard;
        let n_bad = (shard * per_shard..document).filter(|i| i % 4 == 1).count();
        let record = document - shard * per_shard + n_bad;
        assert_eq!(
            (passage.shard, passage.record),
            (shard as u64, record as u64)
        );
        by_subset[document % 3] += passage.end - passage.start;
    }
    assert_eq!(summary.n_documents, texts.len() as u64);
    assert_eq!(
        summary.n_text_bytes,
        texts.iter().map(|text| text.len() as u64).sum::<u64>()
    );
    assert_eq!(summary.n_passages, found.len() as u64);
    assert_eq!(summary.n_repeated_bytes, by_subset.iter().sum::<u64>());
    assert_eq!(
        summary.n_bad_records,
        (0..texts.len()).filter(|i| i % 4 == 1).count() as u64
    );
    for subset in &summary.subsets {
        let number: usize = subset.name.as_ref().unwrap()[1..].parse().unwrap();
        let of_subset = || texts.iter().skip(number).step_by(3);
        assert_eq!(subset.n_documents, of_subset().count() as u64);
        assert_eq!(
            subset.n_text_bytes,
            of_subset().map(|text| text.len() as u64).sum::<u64>()
        );
        assert_eq!(subset.n_repeated_bytes, by_subset[number]);
    }
}

/// Texts that repeat each other: built from a few fragments, runs and random characters.
fn texts() -> impl Strategy<Value = Vec<String>> {
    let fragment = prop_oneof![
        "[ab]{0,90}",
        "[a-zé語😀 ]{0,90}",
        ("[a語é]{1,3}", 0_usize..60).prop_map(|(unit, n)| unit.repeat(n)),
        ("[a-c]{1,40}", 0_usize..8).prop_map(|(unit, n)| unit.repeat(n)),
    ];
    (
        vec(fragment, 1..6),
        vec(vec((0_usize..6, any::<bool>(), "[a-cé]{0,3}"), 0..6), 0..14),
    )
        .prop_map(|(fragments, documents)| {
            let text = |parts: Vec<(usize, bool, String)>| {
                let part = |(i, is_half, glue): (usize, bool, String)| {
                    let fragment = &fragments[i % fragments.len()];
                    let n_chars = fragment.chars().count();
                    let skipped = if is_half { n_chars / 3 } else { 0 };
                    fragment
                        .chars()
                        .skip(skipped)
                        .chain(glue.chars())
                        .collect::<String>()
                };
                parts.into_iter().map(part).collect()
            };
            documents.into_iter().map(text).collect()
        })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn equals_the_reference(
        texts in texts(),
        length in 32_usize..60,
        n_threads in prop::sample::select(vec![1_usize, 2, 5]),
        n_shards in 1_usize..4,
        memory in prop::sample::select(vec![0_u64, 1 << 13, 1 << 26]),
        every_copy: bool,
    ) {
        let folder = tempfile::tempdir().unwrap();
        let shards = write_shards(folder.path(), &texts, n_shards);
        let config = PassagesConfig { memory, n_threads, every_copy, ..config(folder.path(), shards, length) };
        let found = find(&config).unwrap();
        check(&texts, n_shards, &config, &found);
        // A finished job is not done again.
        prop_assert_eq!(find(&config).unwrap(), found);
    }

    #[test]
    fn each_step_resumes(texts in texts(), memory in prop::sample::select(vec![0_u64, 1 << 26])) {
        let folder = tempfile::tempdir().unwrap();
        let shards = write_shards(folder.path(), &texts, 3);
        let config = PassagesConfig { memory, ..config(folder.path(), shards, 32) };
        let steps = [
            FinishedStep::None,
            FinishedStep::Anchors,
            FinishedStep::Repeated,
            FinishedStep::Contexts,
            FinishedStep::Ranges,
        ];
        for step in steps {
            let progress = Progress::default();
            let mut store = Store::open(&config.folder, &config.job, WindowUnit::Bytes, false, memory, &progress).unwrap();
            // Files that an interrupted run of the next step would leave.
            for kind in ["anchors", "repeated", "contexts", "windows", "ranges"] {
                for number in 0..40 {
                    let path = config.folder.join(format!("{kind}-{number:06}"));
                    if !path.exists() {
                        std::fs::write(path, "interrupted").unwrap();
                    }
                }
            }
            run_steps(&config, &|| ByteSplitter, &mut store, &progress, step).unwrap();
            prop_assert_eq!(store.state.finished, step);
        }
        check(&texts, 3, &config, &find(&config).unwrap());
    }
}

/// Texts of three documents with a common license, and runs.
fn licensed_texts() -> Vec<String> {
    let license: String = (0..900)
        .map(|i| format!("clause {} of {i}; ", i * 7 % 13))
        .collect();
    let text = |i: usize| {
        format!(
            "{}\n{}{license}{}",
            i * 7919,
            " ".repeat(i * 50),
            "語=".repeat(i * 40)
        )
    };
    (0..24).map(text).collect()
}

#[test]
fn a_job_that_is_stopped_at_any_time_resumes() {
    let folder = tempfile::tempdir().unwrap();
    let texts = licensed_texts();
    let shards = write_shards(folder.path(), &texts, 6);
    let config = PassagesConfig {
        memory: 1 << 14,
        n_threads: 2,
        ..config(folder.path(), shards, 100)
    };
    let mut n_stopped = 0;
    for microseconds in (0..).map(|i: u64| i * 1500) {
        let progress = Progress::default();
        let found = std::thread::scope(|scope| {
            scope.spawn(|| {
                std::thread::sleep(std::time::Duration::from_micros(microseconds));
                progress.stop();
            });
            find_passages(&config, None, &progress)
        });
        match found {
            Ok((passages, summary)) => {
                check(&texts, 6, &config, &(passages.iter().collect(), summary));
                break;
            }
            Err(err) => assert!(matches!(err.kind(), crate::ErrorKind::Cancelled), "{err}"),
        }
        n_stopped += 1;
    }
    assert!(n_stopped > 0);
}

#[test]
fn a_job_that_failed_resumes_after_its_finished_shards() {
    let folder = tempfile::tempdir().unwrap();
    let texts = licensed_texts();
    let shards = write_shards(folder.path(), &texts, 6);
    let config = PassagesConfig {
        memory: 0,
        ..config(folder.path(), shards, 100)
    };
    let hidden = folder.path().join("hidden");
    std::fs::rename(&config.shards[4], &hidden).unwrap();
    std::fs::write(&config.shards[4], b"\x28\xb5\x2f\xfd not JSON").unwrap();
    let refusing = PassagesConfig {
        rules: Rules::default(),
        ..config.clone()
    };
    assert!(find(&refusing).is_err());
    std::fs::rename(&hidden, &config.shards[4]).unwrap();
    check(&texts, 6, &config, &find(&config).unwrap());
}

#[test]
fn a_shard_that_changes_between_the_passes_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let texts = licensed_texts();
    let shards = write_shards(folder.path(), &texts, 2);
    let config = config(folder.path(), shards, 100);
    let progress = Progress::default();
    let unit = WindowUnit::Bytes;
    let (folder, job) = (&config.folder, &config.job);
    let mut store = Store::open(folder, job, unit, false, 1 << 26, &progress).unwrap();
    let steps =
        |store: &mut Store, last| run_steps(&config, &|| ByteSplitter, store, &progress, last);
    steps(&mut store, FinishedStep::Repeated).unwrap();
    let changed = std::fs::read_to_string(&config.shards[1])
        .unwrap()
        .replace("clause", "clausE");
    std::fs::write(&config.shards[1], changed).unwrap();
    let err = steps(&mut store, FinishedStep::Passages).unwrap_err();
    assert!(err.to_string().contains("1.jsonl"), "{err}");
    assert!(err.to_string().starts_with("changed since"), "{err}");
}

#[test]
fn a_group_too_large_for_memory_is_found_on_disk() {
    let folder = tempfile::tempdir().unwrap();
    let common = "the same words in every one of these documents, of which there are many: ";
    let text = |i: usize| format!("{}{common}{common}{}", "x".repeat(i % 3), i * i % 50);
    let texts: Vec<String> = (0..300).map(text).collect();
    let shards = write_shards(folder.path(), &texts, 1);
    for every_copy in [false, true] {
        let config = PassagesConfig {
            memory: 0,
            every_copy,
            job: every_copy.to_string(),
            discard: true,
            ..config(folder.path(), shards.clone(), 64)
        };
        check(&texts, 1, &config, &find(&config).unwrap());
    }
}

#[test]
fn long_runs_take_no_records() {
    let folder = tempfile::tempdir().unwrap();
    let texts = vec![
        " ".repeat(1 << 20),
        "=- ".repeat(1 << 18),
        String::new(),
        " ".repeat(99),
    ];
    let shards = write_shards(folder.path(), &texts, 1);
    let config = config(folder.path(), shards, 100);
    check(&texts, 1, &config, &find(&config).unwrap());
}

#[test]
fn no_shards_have_no_passages() {
    let folder = tempfile::tempdir().unwrap();
    let config = config(folder.path(), Vec::new(), 100);
    let (found, summary) = find(&config).unwrap();
    assert_eq!((found.len(), summary.n_documents), (0, 0));
}

#[test]
fn the_number_of_subsets_is_limited() {
    let folder = tempfile::tempdir().unwrap();
    // Names are compared within a block, so a large one of distinct names takes long.
    let shards = (0..66).map(|shard| {
        let line = |i: usize| {
            let name = i.min(65_536);
            format!("{{\"text\": \"\", \"meta\": {{\"pile_set_name\": \"{name}\"}}}}\n")
        };
        let path = folder.path().join(format!("{shard}.jsonl"));
        let lines: String = (1000 * shard..1000 * (shard + 1)).map(line).collect();
        std::fs::write(&path, lines).unwrap();
        path
    });
    let shards: Vec<PathBuf> = shards.collect();
    find(&config(folder.path(), shards[..65].to_vec(), 100)).unwrap();
    let mut all = config(folder.path(), shards, 100);
    all.folder = folder.path().join("all");
    let err = find(&all).unwrap_err();
    assert!(err.to_string().contains("one more subset"), "{err}");
    assert!(err.to_string().contains("65.jsonl"), "{err}");
}

#[test]
fn arguments_are_checked() {
    let folder = tempfile::tempdir().unwrap();
    let err = find(&config(folder.path(), Vec::new(), 31)).unwrap_err();
    assert!(
        err.to_string().contains("32 to 1048576 bytes, got 31"),
        "{err}"
    );
    let shards = vec![PathBuf::from("/dev/null")];
    let err = find(&config(folder.path(), shards, 100)).unwrap_err();
    assert!(
        err.to_string().contains("no regular file") && err.to_string().ends_with("(/dev/null)"),
        "{err}"
    );
}
