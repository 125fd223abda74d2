//! The index against naive searches of the same documents, and against the scan of `timeline` for texts.
#![allow(clippy::unwrap_used)]

use std::{collections::BTreeMap, fs, iter, sync::Arc};

use pile_core::{
    io::hex,
    progress::Progress,
    search::{ClauseOccurrence, SuffixIndex, build, combine, plan},
    timeline::{FindOccurrences, IndexSearch, Scan, SearchUnit},
    tokenize::{Skipped, TokenBytes},
    tokens::{TokenDataset, TokenType, write_idx},
};
use proptest::prelude::*;
use sha2::{Digest, Sha256};

use crate::shared;

/// A dataset in a temporary folder, with its documents.
struct Fixture {
    folder: tempfile::TempDir,
    dataset: Arc<TokenDataset>,
    documents: Vec<Vec<i64>>,
}

fn fixture(documents: &[Vec<i64>], token_type: TokenType) -> Fixture {
    let folder = tempfile::tempdir().unwrap();
    let prefix = folder.path().join("d");
    let mut bin = Vec::new();
    for document in documents {
        for id in document {
            match token_type {
                TokenType::U16 => bin.extend((*id as u16).to_le_bytes()),
                TokenType::I32 => bin.extend((*id as i32).to_le_bytes()),
            }
        }
    }
    let lengths: Vec<i32> = documents.iter().map(|d| d.len() as i32).collect();
    let mut idx = Vec::new();
    write_idx(&mut idx, token_type, &lengths).unwrap();
    fs::write(folder.path().join("d.bin"), bin).unwrap();
    fs::write(folder.path().join("d.idx"), idx).unwrap();
    let dataset = Arc::new(TokenDataset::open(&prefix).unwrap());
    Fixture {
        folder,
        dataset,
        documents: documents.to_vec(),
    }
}

impl Fixture {
    /// Builds the index in segments of `segment_tokens` tokens and opens it.
    fn index(&self, table: Option<&TokenBytes>, segment_tokens: u64) -> SuffixIndex {
        let plan = plan(&self.dataset, u64::MAX).unwrap();
        let n_tokens: u64 = plan.segments.iter().map(|segment| segment.n_tokens).sum();
        let memory = segment_tokens * plan.memory_bytes.checked_div(n_tokens).unwrap_or(1);
        let folder = self.folder.path().join(format!("index-{segment_tokens}"));
        fs::create_dir_all(&folder).unwrap();
        build(
            &self.dataset,
            table,
            &folder,
            memory,
            false,
            &Progress::default(),
        )
        .unwrap();
        SuffixIndex::open(&folder, Arc::clone(&self.dataset)).unwrap()
    }

    fn occurrences(&self, ngram: &[i64]) -> Vec<(u64, u64)> {
        let mut found = Vec::new();
        for (number, document) in (0..).zip(&self.documents) {
            let windows = (0..).zip(document.windows(ngram.len()));
            found.extend(
                windows
                    .filter(|(_, window)| *window == ngram)
                    .map(|(at, _)| (number, at)),
            );
        }
        found
    }

    fn next_tokens_of(&self, context: &[i64]) -> (BTreeMap<i64, u64>, u64) {
        let (mut next, mut ends) = (BTreeMap::new(), 0);
        for document in &self.documents {
            for at in 0..document.len() {
                if document[at..].starts_with(context) {
                    match document.get(at + context.len()) {
                        Some(id) => *next.entry(*id).or_default() += 1,
                        None => ends += 1,
                    }
                }
            }
        }
        (next, ends)
    }
}

fn documents(
    max_id: i64,
    max_documents: usize,
    max_tokens: usize,
) -> impl Strategy<Value = Vec<Vec<i64>>> {
    let document = prop::collection::vec(0..max_id, 0..max_tokens);
    let eod = prop::bool::ANY;
    (prop::collection::vec(document, 0..max_documents), eod).prop_map(
        move |(mut documents, eod)| {
            if eod {
                documents
                    .iter_mut()
                    .filter(|d| d.len() % 5 != 4)
                    .for_each(|d| d.push(max_id));
            }
            documents
        },
    )
}

/// N-grams of the documents, and some that occur nowhere.
fn queries(documents: &[Vec<i64>]) -> Vec<Vec<i64>> {
    let all: Vec<i64> = documents.concat();
    let mut queries: Vec<Vec<i64>> =
        vec![vec![0], vec![3, 3], vec![-1], vec![70_000], vec![1, 70_000]];
    for length in [1, 2, 3, 5, 9] {
        let step = 3.max(all.len() / 50);
        queries.extend(all.windows(length).step_by(step).map(<[i64]>::to_vec));
    }
    queries
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    #[test]
    fn counts_occurrences_and_next_tokens_equal_those_of_a_naive_search(
        // Documents of the last kind have many suffixes for each first token, so that the samples are used.
        documents in prop_oneof![documents(2, 12, 30), documents(5, 12, 30), documents(4, 4, 400)],
        is_i32 in prop::bool::ANY,
        segment_tokens in prop_oneof![Just(1_u64), Just(17), Just(1000)],
    ) {
        let fixture = fixture(&documents, if is_i32 { TokenType::I32 } else { TokenType::U16 });
        let index = fixture.index(None, segment_tokens);
        let queries = queries(&documents);
        for query in &queries {
            let naive = fixture.occurrences(query);
            prop_assert_eq!(index.count(query).unwrap(), naive.len() as u64);
            let found = index.locate(query, 1000).unwrap();
            prop_assert_eq!(found.iter().map(|o| (o.document, o.token_offset)).collect::<Vec<_>>(), naive);
            let (next, ends) = fixture.next_tokens_of(query);
            let found = index.next_tokens(query).unwrap();
            prop_assert_eq!(found.n_ends, ends);
            let counts: BTreeMap<i64, u64> = found.ids.iter().copied().zip(found.counts).collect();
            prop_assert_eq!(&counts, &next);
            for id in 0..5 {
                let p = index.probability(query, id).unwrap();
                let longest = (0..=query.len()).find(|from| !fixture.next_tokens_of(&query[*from..]).0.is_empty());
                let from = longest.unwrap_or(query.len());
                let (next, _) = fixture.next_tokens_of(&query[from..]);
                prop_assert_eq!(p.n_context as usize, query.len() - from);
                prop_assert_eq!(p.n_followed_by, next.get(&id).copied().unwrap_or(0));
                prop_assert_eq!(p.n_followed, next.values().sum::<u64>());
            }
        }
        let mut starts = vec![0];
        starts.extend(queries.iter().scan(0, |end, query| { *end += query.len(); Some(*end) }));
        let naive: Vec<u64> = queries.iter().map(|query| fixture.occurrences(query).len() as u64).collect();
        for threads in [1, 3] {
            prop_assert_eq!(&index.count_batch(&queries.concat(), &starts, threads).unwrap(), &naive);
        }
    }

    #[test]
    fn combined_clauses_equal_those_of_a_trial_of_all_runs(
        clauses in prop::collection::vec(prop::collection::vec((0..3_u64, 0..20_u64, 1..4_u64), 0..6), 1..4),
        window in prop::option::of(1..12_u64),
    ) {
        let mut expected = Vec::new();
        for document in 0..3 {
            let holds = |clause: &Vec<(u64, u64, u64)>, from: u64, to: u64| {
                clause.iter().any(|&(d, start, n)| d == document && from <= start && start + n <= to)
            };
            let shortest = (1..=window.unwrap_or(30)).find_map(|length| {
                (0..25).find(|from| clauses.iter().all(|c| holds(c, *from, from + length))).map(|from| (from, length))
            });
            expected.extend(shortest.map(|(from, length)| (document, from, length)));
        }
        let clauses: Vec<Vec<ClauseOccurrence>> = clauses.iter().map(|clause| {
            let occurrences = clause.iter().map(|&(document, token_offset, n_tokens)| {
                ClauseOccurrence { document, token_offset, n_tokens }
            });
            occurrences.collect()
        }).collect();
        let found = combine(&clauses, window).unwrap();
        prop_assert_eq!(found.iter().map(|f| (f.document, f.token_offset, f.n_tokens)).collect::<Vec<_>>(), expected);
    }
}

const WORDS: [&str; 12] = [
    "the ",
    "model ",
    "saw ",
    "日本語の文章",
    "  \n\n    ",
    "naïve ",
    "🙂👩‍👩‍👧",
    "aaaa",
    " the the",
    "<|endoftext|>",
    "ab",
    "a",
];

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    #[test]
    fn texts_and_ids_have_the_occurrences_that_a_scan_finds(
        words in prop::collection::vec(prop::collection::vec(0..WORDS.len(), 0..25), 0..10),
        splits in prop::collection::vec(0..300_usize, 40),
        has_eod in prop::bool::ANY,
        is_i32 in prop::bool::ANY,
        segment_tokens in prop_oneof![Just(1_u64), Just(60), Just(100_000)],
    ) {
        let tokenizer = shared::tokenizer(&WORDS.concat(), 320);
        let mut texts: Vec<Vec<u8>> = ["a", "aa", " ", "the", "e ", "\n", "語", "never there", "<|endoftext|>", "t", "<|"]
            .iter().map(|text| text.as_bytes().to_vec()).collect();
        let documents: Vec<Vec<i64>> = words.iter().enumerate().map(|(number, words)| {
            let text: String = words.iter().map(|word| WORDS[*word]).collect();
            // Encoded in two parts, so that the tokens differ from those of the whole text.
            let mut ids = Vec::new();
            let cut = (0..=text.len()).rev().filter(|at| text.is_char_boundary(*at)).nth(splits[number] % 3).unwrap_or(0);
            tokenizer.encoder().encode(&text[..cut], &mut ids).unwrap();
            tokenizer.encoder().encode(&text[cut..], &mut ids).unwrap();
            if number % 3 == 1 {
                // Up to two ids without bytes after each token, of two different ones.
                let random = |i: usize| splits[(i + number) % 40] as u32;
                let with_others = ids.iter().enumerate().flat_map(|(i, id)| {
                    let other = 60_000 + random(i) % 2;
                    let n = random(i + 1) % 3;
                    iter::once(*id).chain(iter::repeat_n(other, n as usize))
                });
                ids = with_others.collect();
            }
            if has_eod {
                ids.push(tokenizer.eod().unwrap().1);
            }
            for cut in splits.chunks(2).skip(number) {
                let from = cut[0] % (text.len() + 1);
                let to = (from + 1 + cut[1] % 20).min(text.len());
                texts.extend((from < to).then(|| text.as_bytes()[from..to].to_vec()));
            }
            ids.into_iter().map(i64::from).collect()
        }).collect();
        let token_type = if is_i32 { TokenType::I32 } else { TokenType::U16 };
        let fixture = fixture(&documents, token_type);
        let table = TokenBytes::new(&tokenizer);
        let index = fixture.index(Some(&table), segment_tokens);
        let ids: Vec<Vec<u8>> = queries(&documents).iter().map(|ids| {
            let mut bytes = Vec::new();
            token_type.encode_all(&ids.iter().map(|id| *id as u32 % 65_000).collect::<Vec<_>>(), &mut bytes);
            bytes
        }).chain([vec![0]]).collect();
        for (unit, queries) in [(SearchUnit::Text(&table), &texts), (SearchUnit::Ids(token_type), &ids)] {
            let queries: Vec<&[u8]> = queries.iter().map(Vec::as_slice).collect();
            let scan = Scan { source: &*fixture.dataset, unit, n_threads: 1, max_occurrences: 1 << 30 };
            let indexed = IndexSearch::new(&index, unit, 1 << 30).unwrap();
            let expected = scan.find(&queries, &Progress::default()).unwrap();
            let found = indexed.find(&queries, &Progress::default()).unwrap();
            prop_assert_eq!(&found, &expected);
            if let SearchUnit::Text(_) = unit {
                for (number, text) in (0..).zip(&queries) {
                    let n = expected.occurrences.iter().filter(|found| found.text == number).count() as u64;
                    prop_assert_eq!(index.count_text(text).unwrap(), n);
                }
            }
        }
    }
}

fn small() -> Fixture {
    fixture(
        &[vec![1, 2, 3, 9], vec![], vec![2, 3, 2, 3, 9]],
        TokenType::U16,
    )
}

#[test]
fn empty_queries_and_too_many_occurrences_are_refused() {
    let index = small().index(None, 100);
    assert!(
        index
            .count(&[])
            .unwrap_err()
            .to_string()
            .contains("query is empty")
    );
    assert!(
        index
            .count_batch(&[1], &[0, 1, 1], 1)
            .unwrap_err()
            .to_string()
            .contains("n-gram 1 is empty")
    );
    assert!(index.count_batch(&[1], &[0, 2], 1).is_err());
    assert!(
        index
            .locate(&[3], 2)
            .unwrap_err()
            .to_string()
            .contains("more than 2 times")
    );
    assert!(
        index
            .count_text(b"a")
            .unwrap_err()
            .to_string()
            .contains("without a tokenizer")
    );
    assert!(combine(&[], None).is_err());
}

#[test]
fn an_index_of_another_dataset_or_a_damaged_one_is_refused() {
    let fixture = small();
    let index = fixture.index(None, 100);
    let folder = index.folder().to_owned();
    let other = self::fixture(
        &[vec![1, 2, 3, 9], vec![], vec![2, 3, 2, 4, 9]],
        TokenType::U16,
    );
    let err = SuffixIndex::open(&folder, Arc::clone(&other.dataset))
        .unwrap_err()
        .to_string();
    assert!(err.contains("another dataset"), "{err}");
    drop(index);
    for name in ["ranks", "segment-00000"] {
        let path = folder.join(name);
        let whole = fs::read(&path).unwrap();
        for length in 0..whole.len() {
            fs::remove_file(&path).unwrap();
            fs::write(&path, &whole[..length]).unwrap();
            let opened = SuffixIndex::open(&folder, Arc::clone(&fixture.dataset));
            assert!(opened.is_err(), "{name} cut to {length} bytes");
        }
        for at in 0..whole.len() {
            let mut bytes = whole.clone();
            bytes[at] ^= 0xFF;
            fs::remove_file(&path).unwrap();
            fs::write(&path, &bytes).unwrap();
            // A damaged file may give any answer, but no query may panic.
            if let Ok(index) = SuffixIndex::open(&folder, Arc::clone(&fixture.dataset)) {
                for query in [&[1][..], &[2, 3], &[2, 3, 2], &[3, 9]] {
                    let _ = (
                        index.count(query),
                        index.locate(query, 10),
                        index.next_tokens(query),
                    );
                }
            }
        }
        fs::remove_file(&path).unwrap();
        fs::write(&path, &whole).unwrap();
    }
    assert!(SuffixIndex::open(&folder, Arc::clone(&fixture.dataset)).is_ok());
}

#[test]
fn a_header_of_another_version_or_length_is_refused_for_that_reason() {
    let fixture = small();
    let index = fixture.index(None, 100);
    let folder = index.folder().to_owned();
    drop(index);
    for name in ["ranks", "segment-00000"] {
        let path = folder.join(name);
        let whole = fs::read(&path).unwrap();
        let length = u64::from_le_bytes(whole[8..16].try_into().unwrap());
        let header_end = 16 + length as usize;
        let header = str::from_utf8(&whole[16..header_end]).unwrap();
        let with_header = |header: &str| {
            let length = (header.len() as u64).to_le_bytes();
            [
                &whole[..8],
                &length,
                header.as_bytes(),
                &whole[header_end..],
            ]
            .concat()
        };
        let newer = header.replace("\"version\":2", "\"version\":3");
        for (bytes, expected) in [
            (with_header(&newer), "version 3, expected 2".to_owned()),
            (
                with_header(&format!("{header} ")),
                format!("a header of {} bytes, expected a multiple of 8", length + 1),
            ),
        ] {
            fs::remove_file(&path).unwrap();
            fs::write(&path, bytes).unwrap();
            let err = SuffixIndex::open(&folder, Arc::clone(&fixture.dataset)).unwrap_err();
            assert!(err.to_string().contains(&expected), "{err}");
        }
        fs::remove_file(&path).unwrap();
        fs::write(&path, &whole).unwrap();
    }
}

#[test]
fn finished_segments_are_reused_and_the_index_is_the_same() {
    let fixture = fixture(
        &(0..20)
            .map(|i| vec![i % 3, 1, 2, i % 5])
            .collect::<Vec<_>>(),
        TokenType::U16,
    );
    let index = fixture.index(None, 8);
    assert!(index.n_segments() > 5);
    let folder = index.folder().to_owned();
    let read = || -> Vec<Vec<u8>> {
        let mut names: Vec<_> = fs::read_dir(&folder)
            .unwrap()
            .map(|f| f.unwrap().path())
            .collect();
        names.sort();
        names.iter().map(|name| fs::read(name).unwrap()).collect()
    };
    let whole = read();
    drop(index);
    fs::remove_file(folder.join("ranks")).unwrap();
    fs::remove_file(folder.join("segment-00003")).unwrap();
    // The state of a job that was killed in the fourth segment.
    let state_file = folder.join("state.json");
    let mut state: serde_json::Value =
        serde_json::from_slice(&fs::read(&state_file).unwrap()).unwrap();
    let files = state["saved"]["files"].as_object_mut().unwrap();
    assert!(files.remove("segment-00003").is_some());
    state["sha256"] = hex(&Sha256::digest(state["saved"].to_string())).into();
    fs::write(&state_file, state.to_string()).unwrap();
    let progress = Progress::default();
    let summary = build(&fixture.dataset, None, &folder, 8 * 8, false, &progress).unwrap();
    assert_eq!(
        (summary.n_reused, summary.n_segments),
        (summary.n_segments - 1, summary.n_segments)
    );
    assert_eq!(progress.done(), 2 * 80);
    assert_eq!(read(), whole);
    // If a finished segment has changed, none is reused.
    fs::write(folder.join("segment-00002"), &whole[4]).unwrap();
    let summary = build(
        &fixture.dataset,
        None,
        &folder,
        8 * 8,
        false,
        &Progress::default(),
    )
    .unwrap();
    assert_eq!(summary.n_reused, 0);
    assert_eq!(read(), whole);
    // Segments of another size belong to another index.
    let summary = build(
        &fixture.dataset,
        None,
        &folder,
        8 * 16,
        false,
        &Progress::default(),
    )
    .unwrap();
    assert_eq!(summary.n_reused, 0);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    #[test]
    fn spans_occur_in_a_document_and_none_is_missed(
        words in prop::collection::vec(prop::collection::vec(0..WORDS.len(), 0..12), 1..6),
        query in prop::collection::vec((0..WORDS.len(), prop::bool::ANY), 0..12),
        min_bytes in 8..20_usize,
        segment_tokens in prop_oneof![Just(30_u64), Just(100_000)],
    ) {
        let tokenizer = shared::tokenizer(&WORDS.concat(), 320);
        let mut decoded: Vec<String> = Vec::new();
        let documents: Vec<Vec<i64>> = words.iter().map(|words| {
            let text: String = words.iter().map(|word| WORDS[*word]).collect();
            let mut ids = Vec::new();
            tokenizer.encoder().encode(&text, &mut ids).unwrap();
            decoded.push(tokenizer.decode(&ids, Skipped::default()).unwrap());
            ids.into_iter().map(i64::from).collect()
        }).collect();
        let fixture = fixture(&documents, TokenType::U16);
        let index = fixture.index(Some(&TokenBytes::new(&tokenizer)), segment_tokens);
        let text: String = query.iter().map(|(word, is_cut)| {
            let word = WORDS[*word];
            if *is_cut { word.char_indices().nth(1).map_or(word, |(at, _)| &word[at..]) } else { word }
        }).collect();
        let occurs = |from: usize, to: usize| decoded.iter().any(|d| d.contains(&text[from..to]));
        let spans = index.spans(&text, min_bytes, 2).unwrap();
        prop_assert_eq!(&spans, &index.spans(&text, min_bytes, 1).unwrap());
        let bounds: Vec<usize> = (0..=text.len()).filter(|at| text.is_char_boundary(*at)).collect();
        for span in &spans {
            prop_assert!(occurs(span.start, span.end) && span.len() >= min_bytes, "{:?}", span);
        }
        // In so long a span, whole tokens have at least half of `min_bytes`.
        for (i, from) in bounds.iter().enumerate() {
            for to in bounds[i..].iter().filter(|to| **to - from >= min_bytes.max(64)) {
                if occurs(*from, *to) {
                    prop_assert!(spans.iter().any(|s| s.start <= *from && *to <= s.end), "{from}..{to}");
                }
            }
        }
    }
}

/// Texts of long runs of a unit, in which token boundaries can be anywhere.
fn runs() -> impl Strategy<Value = String> {
    let run = (
        prop::sample::select(vec![" ", "a", "ab", "日"]),
        1..40_usize,
    );
    let runs = prop::collection::vec(run, 0..6);
    runs.prop_map(|runs| runs.iter().map(|(unit, n)| unit.repeat(*n)).collect())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    #[test]
    fn spans_of_texts_that_repeat_themselves_occur_and_none_is_missed(
        documents in prop::collection::vec(runs(), 1..8),
        text in runs(),
        min_bytes in 8..20_usize,
        segment_tokens in prop_oneof![Just(30_u64), Just(100_000)],
    ) {
        let tokenizer = shared::tokenizer(&[" ", "a", "ab", "日"].map(|unit| unit.repeat(8)).concat(), 275);
        let table = TokenBytes::new(&tokenizer);
        let longest = (0..275).map(|id| table.length(id)).max().unwrap();
        let ids: Vec<Vec<i64>> = documents.iter().map(|document| {
            let mut ids = Vec::new();
            tokenizer.encoder().encode(document, &mut ids).unwrap();
            ids.into_iter().map(i64::from).collect()
        }).collect();
        let index = fixture(&ids, TokenType::U16).index(Some(&table), segment_tokens);
        let spans = index.spans(&text, min_bytes, 1).unwrap();
        let occurs = |from: usize, to: usize| documents.iter().any(|d| d.contains(&text[from..to]));
        for span in &spans {
            prop_assert!(occurs(span.start, span.end) && span.len() >= min_bytes, "{span:?}");
        }
        let bounds: Vec<usize> = (0..=text.len()).filter(|at| text.is_char_boundary(*at)).collect();
        for (i, from) in bounds.iter().enumerate() {
            // The longest span from here. If it is long enough, whole tokens have at least half of `min_bytes`.
            let to = bounds[i..].iter().rfind(|to| occurs(*from, **to)).unwrap();
            if to - from >= min_bytes + 2 * longest {
                prop_assert!(spans.iter().any(|s| s.start <= *from && *to <= s.end), "{from}..{to}");
            }
        }
    }
}
