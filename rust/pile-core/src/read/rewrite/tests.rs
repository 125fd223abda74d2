use std::{fs, io::Write as _, path::Path};

use proptest::prelude::*;

use super::*;
use crate::read::ByteRange;

/// Names of shards of lines, one for each compression.
const LINES: [&str; 3] = ["a.jsonl", "a.jsonl.zst", "a.jsonl.gz"];

/// Changes with columns of their own.
#[derive(Debug, Clone, Default)]
struct OwnedChanges {
    removed: (Vec<u32>, Vec<u64>),
    cuts: (Vec<u32>, Vec<u64>, Vec<u64>, Vec<u64>),
    marks: (Vec<u32>, Vec<u64>, Vec<u64>),
}

impl OwnedChanges {
    fn remove(records: &[(u32, u64)]) -> Self {
        Self {
            removed: records.iter().copied().unzip(),
            ..Self::default()
        }
    }

    fn cut(mut self, shard: u32, record: u64, start: u64, end: u64) -> Self {
        self.cuts.0.push(shard);
        self.cuts.1.push(record);
        self.cuts.2.push(start);
        self.cuts.3.push(end);
        self
    }

    fn mark(mut self, shard: u32, record: u64, cluster: u64) -> Self {
        self.marks.0.push(shard);
        self.marks.1.push(record);
        self.marks.2.push(cluster);
        self
    }

    fn changes(&self) -> Changes<'_> {
        Changes {
            removed: RecordColumns {
                shards: &self.removed.0,
                records: &self.removed.1,
            },
            cuts: Cuts {
                at: RecordColumns {
                    shards: &self.cuts.0,
                    records: &self.cuts.1,
                },
                starts: &self.cuts.2,
                ends: &self.cuts.3,
            },
            marks: Marks {
                at: RecordColumns {
                    shards: &self.marks.0,
                    records: &self.marks.1,
                },
                key: "dedup",
                members: vec![("cluster", &self.marks.2)],
            },
        }
    }
}

fn config<'a>(shards: Vec<PathBuf>, out: &Path, changes: &'a OwnedChanges) -> RewriteConfig<'a> {
    let name = |path: &PathBuf| path.file_name().unwrap().to_string_lossy().into_owned();
    RewriteConfig {
        names: shards.iter().map(name).collect(),
        shards,
        sha256: Vec::new(),
        rules: Rules::default(),
        changes: changes.changes(),
        zstd_level: 3,
        gzip_level: 6,
        folder: out.to_owned(),
        job: "job".to_owned(),
        discard: false,
        n_threads: 1,
    }
}

/// Rewrites one shard with the content `bytes`. Returns the content of the new shard and its figures.
fn rewritten(
    name: &str,
    bytes: &[u8],
    changes: &OwnedChanges,
) -> Result<(Vec<u8>, RewrittenShard)> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    fs::write(&path, packed(name, bytes)).unwrap();
    let out = folder.path().join("out");
    let summary = rewrite_shards(&config(vec![path], &out, changes), &Progress::default())?;
    let file = fs::read(out.join(name)).unwrap_or_default();
    let done = summary.shards[0].clone();
    if let Some(written) = &done.output {
        let checksum = crate::io::checksum_of(&out.join(name), &Progress::default()).unwrap();
        assert_eq!(
            (written.bytes, &written.sha256),
            (file.len() as u64, &checksum.sha256())
        );
    }
    let plain = done.output.as_ref().map(|_| unpacked(name, &file));
    Ok((plain.unwrap_or_default(), done))
}

/// Compresses a shard as its name says, in two frames.
fn packed(name: &str, bytes: &[u8]) -> Vec<u8> {
    let pack = |bytes: &[u8]| match name.rsplit_once('.').unwrap().1 {
        "zst" => zstd::encode_all(bytes, 1).unwrap(),
        "gz" => {
            let level = flate2::Compression::fast();
            let mut packed = flate2::write::GzEncoder::new(Vec::new(), level);
            packed.write_all(bytes).unwrap();
            packed.finish().unwrap()
        }
        _ => bytes.to_vec(),
    };
    let (head, tail) = bytes.split_at(bytes.len() / 3);
    [pack(head), pack(tail)].concat()
}

fn unpacked(name: &str, bytes: &[u8]) -> Vec<u8> {
    let mut plain = Vec::new();
    match name.rsplit_once('.').unwrap().1 {
        "zst" => plain = zstd::decode_all(bytes).unwrap(),
        "gz" => {
            let mut decoder = flate2::read::MultiGzDecoder::new(bytes);
            std::io::Read::read_to_end(&mut decoder, &mut plain).unwrap();
        }
        _ => plain.extend_from_slice(bytes),
    }
    plain
}

/// Lines of every kind, which are documents or not. Each ends with a line feed but for the last, which may not.
fn lines() -> impl Strategy<Value = Vec<Vec<u8>>> {
    let line = prop_oneof![
        4 => any::<String>().prop_map(|text| {
            serde_json::json!({"text": text, "meta": {"pile_set_name": "A"}}).to_string()
        }),
        1 => Just("\u{FEFF}{\"text\": \"marked\"}\r".to_owned()),
        1 => Just(String::new()),
        1 => Just("not JSON".to_owned()),
        1 => Just(format!("{{\"text\": \"{}\"}}", "long ".repeat(300_000))),
    ];
    (prop::collection::vec(line, 1..20), any::<bool>()).prop_map(|(lines, is_open)| {
        let mut lines: Vec<Vec<u8>> = lines
            .into_iter()
            .map(|line| [line.as_bytes(), b"\n"].concat())
            .collect();
        if is_open {
            let last = lines.last_mut().unwrap();
            last.pop();
            if last.is_empty() {
                lines.pop();
            }
        }
        lines
    })
}

fn is_document(line: &[u8]) -> bool {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    crate::read::Document::parse(line, "text", &mut Vec::new()).is_ok()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn removing_records_filters_the_lines(
        lines in lines(), removed: Vec<bool>, format in prop::sample::select(LINES.to_vec())
    ) {
        let is_removed =
            |i: usize| removed.get(i) == Some(&true) && is_document(&lines[i]);
        let records: Vec<(u32, u64)> =
            (0..lines.len()).filter(|i| is_removed(*i)).map(|i| (0, i as u64)).collect();
        let bytes = lines.concat();
        let (found, done) =
            rewritten(format, &bytes, &OwnedChanges::remove(&records)).unwrap();
        let kept: Vec<&[u8]> =
            (0..lines.len()).filter(|i| !is_removed(*i)).map(|i| &*lines[i]).collect();
        prop_assert!(found == kept.concat());
        prop_assert_eq!(done.n_removed, records.len() as u64);
        if !records.is_empty() {
            prop_assert_eq!(done.n_kept, Some(kept.len() as u64));
        }
    }

    #[test]
    fn a_mark_changes_only_its_record(
        lines in lines(), at: prop::sample::Index, format in prop::sample::select(LINES.to_vec())
    ) {
        let at = at.index(lines.len().max(1));
        if lines.get(at).is_some_and(|line| is_document(line)) {
            let changes = OwnedChanges::default().mark(0, at as u64, 7);
            let (found, done) = rewritten(format, &lines.concat(), &changes).unwrap();
            let (before, after) = (lines[..at].concat(), lines[at + 1..].concat());
            prop_assert!(found.starts_with(&before) && found.ends_with(&after));
            let marked = &found[before.len()..found.len() - after.len()];
            prop_assert_eq!(marked.ends_with(b"\n"), lines[at].ends_with(b"\n"));
            let marked = String::from_utf8_lossy(marked);
            prop_assert!(marked.contains("\"dedup\": {\"cluster\": 7}}"), "{}", marked);
            prop_assert_eq!((done.n_kept, done.n_marked), (Some(lines.len() as u64), 1));
        }
    }
}

#[test]
fn a_shard_without_changes_is_copied() {
    for name in LINES
        .into_iter()
        .chain(["a.txt", "a.txt.gz", "a.json", "a.parquet"])
    {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        let bytes = packed(name, b"any bytes\nof any kind");
        fs::write(&path, &bytes).unwrap();
        let out = folder.path().join("out");
        let changes = OwnedChanges::default();
        let progress = Progress::default();
        let summary = rewrite_shards(&config(vec![path], &out, &changes), &progress).unwrap();
        assert_eq!(fs::read(out.join(name)).unwrap(), bytes);
        let done = &summary.shards[0];
        assert_eq!(Some(&done.sha256), done.output.as_ref().map(|o| &o.sha256));
        assert_eq!((done.n_kept, progress.done()), (None, bytes.len() as u64));
    }
}

#[test]
fn cuts_and_marks_and_removals_may_be_in_one_shard() {
    let lines = [
        r#"{"id": 1.0e3, "text": "ab\u00e9\u0064", "x": [ ]}"#,
        r#"{"text": "b"}"#,
        r#""c""#,
        r#"{"text": ["d", "e"], "meta":null}"#,
        r#"{"text": "f", "meta": { } }"#,
        r#"{"text": "g", "meta": {"a": NaN , "dedup": 1, "b": 2 } , "z": 0}"#,
    ];
    let bytes = lines.join("\r\n");
    let changes = OwnedChanges::remove(&[(0, 1)])
        .cut(0, 0, 0, 1)
        .cut(0, 0, 2, 4)
        .cut(0, 3, 1, 3)
        .mark(0, 2, 5)
        .mark(0, 4, 6)
        .mark(0, 5, 7);
    let expected = [
        r#"{"id": 1.0e3, "text": "bd", "x": [ ]}"#,
        r#"{"text": "c", "meta": {"dedup": {"cluster": 5}}}"#,
        r#"{"text": "de", "meta":null}"#,
        r#"{"text": "f", "meta": {"dedup": {"cluster": 6} } }"#,
        r#"{"text": "g", "meta": {"a": NaN , "dedup": {"cluster": 7}, "b": 2 } , "z": 0}"#,
    ];
    for name in LINES {
        let (found, done) = rewritten(name, bytes.as_bytes(), &changes).unwrap();
        assert_eq!(String::from_utf8(found).unwrap(), expected.join("\r\n"));
        let counts = (done.n_kept, done.n_removed, done.n_cut, done.n_marked);
        assert_eq!(counts, (Some(5), 1, 2, 3));
        assert_eq!(done.n_text_bytes_removed, 1 + 1 + 2 + 2);
    }
}

#[test]
fn a_text_file_is_left_out_or_cut() {
    for name in ["a.txt", "a.txt.zst", "a.txt.gz"] {
        let text = "\u{FEFF}one\r\ntwo";
        let cut = OwnedChanges::default().cut(0, 0, 3, 5);
        let (found, done) = rewritten(name, text.as_bytes(), &cut).unwrap();
        assert_eq!(String::from_utf8(found).unwrap(), "\u{FEFF}onetwo");
        assert_eq!((done.n_kept, done.n_text_bytes_removed), (Some(1), 2));
        let (_, done) = rewritten(name, text.as_bytes(), &OwnedChanges::remove(&[(0, 0)])).unwrap();
        assert_eq!(
            (done.output, done.n_kept, done.n_removed),
            (None, Some(0), 1)
        );
        assert_eq!(done.n_text_bytes_removed, 8);
        let mark = OwnedChanges::default().mark(0, 0, 1);
        let refused = rewritten(name, text.as_bytes(), &mark)
            .unwrap_err()
            .to_string();
        assert!(refused.contains("no place for a mark"), "{refused}");
    }
}

#[test]
fn changes_that_do_not_fit_the_shard_are_refused() {
    let bytes = "{\"text\": \"é\", \"meta\": [1]}\nbad\n{\"text\": \"b\"}".as_bytes();
    let none = OwnedChanges::default;
    for (changes, message) in [
        (OwnedChanges::remove(&[(0, 3)]), "ends before record 3"),
        (
            OwnedChanges::remove(&[(0, 2), (0, 9)]),
            "ends before record 9",
        ),
        (OwnedChanges::remove(&[(0, 1)]), "record 1: not JSON"),
        (
            OwnedChanges::remove(&[(0, 1), (0, 1)]),
            "removed: the records are not in ascending order",
        ),
        (
            OwnedChanges::remove(&[(1, 1)]),
            "removed: shard 1, but there are 1",
        ),
        (
            none().cut(0, 0, 1, 2),
            "record 0: bytes 1 to 2 cannot be cut from its text of 2 bytes",
        ),
        (none().cut(0, 0, 0, 3), "bytes 0 to 3"),
        (none().cut(0, 0, 0, 0), "bytes 0 to 0"),
        (none().cut(0, 2, 0, 1).cut(0, 2, 0, 1), "bytes 0 to 1"),
        (
            none().cut(0, 2, 2, u64::MAX),
            "bytes 2 to 18446744073709551615",
        ),
        (none().mark(0, 0, 1), "record 0: its \"meta\" is no object"),
        (
            OwnedChanges::remove(&[(0, 2)]).mark(0, 2, 1),
            "record 2 has more than one change",
        ),
    ] {
        let refused = rewritten("a.jsonl", bytes, &changes)
            .unwrap_err()
            .to_string();
        assert!(refused.contains(message), "{refused}");
    }
}

#[test]
fn a_record_beyond_the_limit_is_kept_but_not_changed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.jsonl");
    let long = format!("{{\"text\": \"{}\"}}\n", "x".repeat(3 << 20));
    fs::write(
        &path,
        format!("{{\"text\": \"a\"}}\n{long}{{\"text\": \"b\"}}\n"),
    )
    .unwrap();
    let run = |changes: &OwnedChanges, out: &str| {
        let mut config = config(vec![path.clone()], &folder.path().join(out), changes);
        config.rules.max_record = 1000;
        rewrite_shards(&config, &Progress::default())
    };
    run(&OwnedChanges::remove(&[(0, 0), (0, 2)]), "out").unwrap();
    assert!(fs::read_to_string(folder.path().join("out/a.jsonl")).unwrap() == long);
    let refused = run(&OwnedChanges::remove(&[(0, 1)]), "other").unwrap_err();
    assert!(
        refused
            .to_string()
            .contains("record 1: a record of more than 1000 bytes")
    );
}

/// Ten shards of every compression, and the changes of a job over them.
fn shards(folder: &Path) -> (Vec<PathBuf>, OwnedChanges) {
    let mut changes = OwnedChanges::default();
    let mut removed = Vec::new();
    let paths = (0..10).map(|number: u32| {
        let name = format!("{number}-{}", LINES[number as usize % 3]);
        let line = |i: usize| format!("{{\"text\": \"{number} {i} {}\"}}\n", "x".repeat(i % 977));
        let lines: String = (0..2000).map(line).collect();
        let path = folder.join(&name);
        fs::write(&path, packed(&name, lines.as_bytes())).unwrap();
        if !number.is_multiple_of(4) {
            removed.extend((0..2000).filter(|i| i % 7 == 3).map(|i| (number, i)));
            changes = std::mem::take(&mut changes)
                .cut(number, 4, 0, 2)
                .mark(number, 5, 9);
        }
        path
    });
    let paths = paths.collect();
    changes.removed = removed.into_iter().unzip();
    (paths, changes)
}

fn files(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let entries = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let mut files: Vec<_> = entries
        .filter(|path| !path.ends_with("state.json"))
        .map(|path| {
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            (name, fs::read(&path).unwrap())
        })
        .collect();
    files.sort();
    files
}

#[test]
fn the_bytes_are_the_same_for_any_number_of_threads_and_after_any_stop() {
    let folder = tempfile::tempdir().unwrap();
    let (shards, changes) = shards(folder.path());
    let total: u64 = shards
        .iter()
        .map(|path| fs::metadata(path).unwrap().len())
        .sum();
    let one = config(shards.clone(), &folder.path().join("one"), &changes);
    let progress = Progress::default();
    let expected = rewrite_shards(&one, &progress).unwrap();
    assert_eq!(progress.done(), total);
    for n_threads in [2, 5] {
        let out = folder.path().join(n_threads.to_string());
        let mut config = config(shards.clone(), &out, &changes);
        config.n_threads = n_threads;
        // The job fails at a shard that is missing at first.
        let hidden = folder.path().join("hidden");
        fs::rename(&shards[6], &hidden).unwrap();
        let failed = rewrite_shards(&config, &Progress::default()).unwrap_err();
        assert!(failed.to_string().contains("6-a.jsonl"), "{failed}");
        fs::rename(&hidden, &shards[6]).unwrap();
        // What another run left unfinished is written again.
        fs::write(out.join("6-a.jsonl"), "half").unwrap();
        let progress = Progress::default();
        let found = rewrite_shards(&config, &progress).unwrap();
        assert!(found.n_resumed_shards >= 1);
        assert_eq!(progress.done(), total);
        assert_eq!(found.shards, expected.shards);
        assert!(files(&out) == files(&one.folder));
    }
}

#[test]
fn another_job_does_not_resume() {
    let folder = tempfile::tempdir().unwrap();
    let (shards, changes) = shards(folder.path());
    let mut config = config(shards, &folder.path().join("out"), &changes);
    rewrite_shards(&config, &Progress::default()).unwrap();
    config.job = "other".to_owned();
    let refused = rewrite_shards(&config, &Progress::default()).unwrap_err();
    assert!(
        refused
            .to_string()
            .contains("10 finished shards of an unfinished run")
    );
    config.discard = true;
    let summary = rewrite_shards(&config, &Progress::default()).unwrap();
    assert_eq!(summary.n_resumed_shards, 0);
}

#[test]
fn the_first_failing_shard_is_named_by_any_number_of_threads() {
    let folder = tempfile::tempdir().unwrap();
    let (shards, changes) = shards(folder.path());
    for missing in [3, 7, 9] {
        fs::remove_file(&shards[missing]).unwrap();
    }
    for n_threads in [1, 2, 8] {
        let mut config = config(shards.clone(), &folder.path().join("out"), &changes);
        config.n_threads = n_threads;
        let failed = rewrite_shards(&config, &Progress::default()).unwrap_err();
        assert!(failed.to_string().contains("3-a.jsonl"), "{failed}");
    }
}

#[test]
fn a_shard_that_changed_and_a_stream_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (shards, changes) = shards(folder.path());
    let mut config = config(shards, &folder.path().join("out"), &changes);
    config.sha256 = vec!["0".repeat(64); 10];
    let refused = rewrite_shards(&config, &Progress::default()).unwrap_err();
    assert!(refused.to_string().contains("has changed since"));
    config.shards[9] = PathBuf::from("-");
    let refused = rewrite_shards(&config, &Progress::default()).unwrap_err();
    assert!(refused.to_string().contains("can be read only once"));
}

#[test]
fn invalid_settings_are_refused() {
    let changes = OwnedChanges::default();
    let valid = config(vec![], Path::new("/nonexistent"), &changes);
    let invalid = [
        RewriteConfig {
            zstd_level: 23,
            ..valid.clone()
        },
        RewriteConfig {
            zstd_level: 0,
            ..valid.clone()
        },
        RewriteConfig {
            gzip_level: 10,
            ..valid.clone()
        },
        RewriteConfig {
            names: vec!["a".to_owned()],
            ..valid.clone()
        },
        RewriteConfig {
            shards: vec![PathBuf::from("in/state.json")],
            names: vec!["state.json".to_owned()],
            ..valid
        },
    ];
    for config in invalid {
        let refused = rewrite_shards(&config, &Progress::default()).unwrap_err();
        assert!(
            matches!(refused.kind(), crate::ErrorKind::Argument(_)),
            "{refused}"
        );
    }
}

#[test]
fn ranges_are_cut_from_any_text() {
    let cut = |line: &str, ranges: &[(u64, u64)]| {
        let ranges: Vec<ByteRange> = ranges
            .iter()
            .map(|(start, end)| ByteRange {
                start: *start,
                end: *end,
            })
            .collect();
        let mut out = Vec::new();
        let n = crate::read::cut_record(line.as_bytes(), "text", &ranges, &mut out).unwrap();
        (String::from_utf8(out).unwrap(), n)
    };
    // The last value of a key counts, whatever its spelling.
    let (found, _) = cut(r#"{"text": "a", "t\u0065xt" : "bc" }"#, &[(0, 1)]);
    assert_eq!(found, r#"{"text": "a", "t\u0065xt" : "c" }"#);
    // Canonical escapes; a lone surrogate is U+FFFD in the text.
    let (found, _) = cut(r#" "\u0001\/\ud800\ud83d\ude00\"x" "#, &[(10, 11)]);
    assert_eq!(found, " \"\\u0001/\u{FFFD}😀\\\"\" ");
    let (found, n) = cut(
        "\u{FEFF}{\"y\": NaN, \"text\": [\"a\", \"b\"]}\r",
        &[(0, 4)],
    );
    assert_eq!((&*found, n), ("\u{FEFF}{\"y\": NaN, \"text\": \"\"}\r", 4));
}
