//! The index against counting by hand: n-grams, texts by the scan of `when`, what follows, and / or.
#![allow(clippy::unwrap_used)]

use std::{collections::BTreeMap, fs, iter, path::Path, sync::Arc};

use pile_core::{
    io::hex,
    progress::Progress,
    search::{SuffixIndex, build, combine, plan},
    timeline::{FindOccurrences, IndexSearch, Scan, SearchUnit},
    tokenize::{TokenBytes, Tokenizer, TrainConfig, Trainer},
    tokens::{TokenDataset, TokenType, write_idx},
};
use proptest::prelude::*;
use sha2::{Digest, Sha256};

struct World {
    folder: tempfile::TempDir,
    dataset: Arc<TokenDataset>,
    documents: Vec<Vec<i64>>,
}

fn world(documents: &[Vec<i64>], token_type: TokenType) -> World {
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
    World {
        folder,
        dataset,
        documents: documents.to_vec(),
    }
}

impl World {
    /// The index in pieces of so many tokens.
    fn index(&self, table: Option<&TokenBytes>, piece_tokens: u64) -> SuffixIndex {
        let per_token = plan(&self.dataset, u64::MAX).unwrap();
        let n_tokens: u64 = per_token.pieces.iter().map(|piece| piece.n_tokens).sum();
        let memory = piece_tokens * per_token.memory_bytes.checked_div(n_tokens).unwrap_or(1);
        let folder = self.folder.path().join(format!("index-{piece_tokens}"));
        fs::create_dir_all(&folder).unwrap();
        build(&self.dataset, table, &folder, memory, &Progress::default()).unwrap();
        SuffixIndex::open(&folder, Arc::clone(&self.dataset)).unwrap()
    }

    fn naive(&self, ngram: &[i64]) -> Vec<(u64, u64)> {
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

    fn naive_next(&self, context: &[i64]) -> (BTreeMap<i64, u64>, u64) {
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

/// Queries cut from the documents, some changed, and some that are nowhere.
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
    fn counts_places_and_what_follows_are_those_by_hand(
        // The last ones have many suffixes for each first token.
        documents in prop_oneof![documents(2, 12, 30), documents(5, 12, 30), documents(4, 4, 400)],
        is_i32 in prop::bool::ANY,
        piece_tokens in prop_oneof![Just(1_u64), Just(17), Just(1000)],
    ) {
        let world = world(&documents, if is_i32 { TokenType::I32 } else { TokenType::U16 });
        let index = world.index(None, piece_tokens);
        let queries = queries(&documents);
        for query in &queries {
            let naive = world.naive(query);
            prop_assert_eq!(index.count(query).unwrap(), naive.len() as u64);
            let places = index.locate(query, 1000).unwrap();
            prop_assert_eq!(places.iter().map(|p| (p.document, p.token)).collect::<Vec<_>>(), naive);
            let (next, ends) = world.naive_next(query);
            let found = index.next_tokens(query).unwrap();
            prop_assert_eq!(found.n_ends, ends);
            let counts: BTreeMap<i64, u64> = found.ids.iter().copied().zip(found.counts).collect();
            prop_assert_eq!(&counts, &next);
            for id in 0..5 {
                let p = index.probability(query, id).unwrap();
                let longest = (0..=query.len()).find(|from| !world.naive_next(&query[*from..]).0.is_empty());
                let from = longest.unwrap_or(query.len());
                let (next, _) = world.naive_next(&query[from..]);
                prop_assert_eq!(p.n_context as usize, query.len() - from);
                prop_assert_eq!(p.n_followed_by, next.get(&id).copied().unwrap_or(0));
                prop_assert_eq!(p.n_followed, next.values().sum::<u64>());
            }
        }
        let mut starts = vec![0];
        starts.extend(queries.iter().scan(0, |end, query| { *end += query.len(); Some(*end) }));
        let naive: Vec<u64> = queries.iter().map(|query| world.naive(query).len() as u64).collect();
        for threads in [1, 3] {
            prop_assert_eq!(&index.count_batch(&queries.concat(), &starts, threads).unwrap(), &naive);
        }
    }

    #[test]
    fn and_or_is_what_trying_all_runs_gives(
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
        let found = combine(&clauses, window).unwrap();
        prop_assert_eq!(found.iter().map(|f| (f.document, f.token, f.n_tokens)).collect::<Vec<_>>(), expected);
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

fn tokenizer() -> Tokenizer {
    let config = TrainConfig {
        vocab_size: 320,
        min_frequency: 0,
        special_tokens: vec!["<|endoftext|>".to_owned()],
    };
    let mut trainer = Trainer::new(config).unwrap();
    trainer.add(&WORDS.concat().replace("<|endoftext|>", ""));
    let json = trainer.finish(&Progress::default()).unwrap().to_json();
    Tokenizer::from_json(json.as_bytes(), Path::new("tokenizer.json")).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    #[test]
    fn texts_and_ids_are_found_as_by_the_scan(
        words in prop::collection::vec(prop::collection::vec(0..WORDS.len(), 0..25), 0..10),
        splits in prop::collection::vec(0..300_usize, 40),
        has_eod in prop::bool::ANY,
        is_i32 in prop::bool::ANY,
        piece_tokens in prop_oneof![Just(1_u64), Just(60), Just(100_000)],
    ) {
        let tokenizer = tokenizer();
        let mut texts: Vec<Vec<u8>> = ["a", "aa", " ", "the", "e ", "\n", "語", "never there", "<|endoftext|>", "t", "<|"]
            .iter().map(|text| text.as_bytes().to_vec()).collect();
        let documents: Vec<Vec<i64>> = words.iter().enumerate().map(|(number, words)| {
            let text: String = words.iter().map(|word| WORDS[*word]).collect();
            // Cut anywhere before it is encoded: tokens as the text alone would not have them.
            let mut ids = Vec::new();
            let cut = (0..=text.len()).rev().filter(|at| text.is_char_boundary(*at)).nth(splits[number] % 3).unwrap_or(0);
            tokenizer.encoder().encode(&text[..cut], &mut ids).unwrap();
            tokenizer.encoder().encode(&text[cut..], &mut ids).unwrap();
            if number % 3 == 1 {
                // Ids without bytes, different ones between tokens of the same text.
                let without = |place: usize| splits[(place + number) % 40] as u32;
                let with_others = ids.iter().enumerate().flat_map(|(place, id)| {
                    let other = 60_000 + without(place) % 2;
                    let n = without(place + 1) % 3;
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
        let world = world(&documents, token_type);
        let table = TokenBytes::new(&tokenizer);
        let index = world.index(Some(&table), piece_tokens);
        let ids: Vec<Vec<u8>> = queries(&documents).iter().map(|ids| {
            let mut bytes = Vec::new();
            token_type.encode_all(&ids.iter().map(|id| *id as u32 % 65_000).collect::<Vec<_>>(), &mut bytes);
            bytes
        }).chain([vec![0]]).collect();
        for (unit, asked) in [(SearchUnit::Text(&table), &texts), (SearchUnit::Ids(token_type), &ids)] {
            let asked: Vec<&[u8]> = asked.iter().map(Vec::as_slice).collect();
            let scan = Scan { source: &*world.dataset, unit, n_threads: 1, max_occurrences: 1 << 30 };
            let indexed = IndexSearch::new(&index, unit, 1 << 30).unwrap();
            let expected = scan.find(&asked, &Progress::default()).unwrap();
            let found = indexed.find(&asked, &Progress::default()).unwrap();
            prop_assert_eq!(&found, &expected);
            if let SearchUnit::Text(_) = unit {
                for (number, text) in (0..).zip(&asked) {
                    let n = expected.occurrences.iter().filter(|found| found.text == number).count() as u64;
                    prop_assert_eq!(index.count_text(text).unwrap(), n);
                }
            }
        }
    }
}

fn small() -> World {
    world(
        &[vec![1, 2, 3, 9], vec![], vec![2, 3, 2, 3, 9]],
        TokenType::U16,
    )
}

#[test]
fn empty_queries_and_too_many_places_are_told() {
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
    let world = small();
    let index = world.index(None, 100);
    let folder = index.folder().to_owned();
    let other = self::world(
        &[vec![1, 2, 3, 9], vec![], vec![2, 3, 2, 4, 9]],
        TokenType::U16,
    );
    let err = SuffixIndex::open(&folder, Arc::clone(&other.dataset))
        .unwrap_err()
        .to_string();
    assert!(err.contains("another dataset"), "{err}");
    drop(index);
    for name in ["ranks", "piece-00000"] {
        let path = folder.join(name);
        let whole = fs::read(&path).unwrap();
        for length in 0..whole.len() {
            fs::remove_file(&path).unwrap();
            fs::write(&path, &whole[..length]).unwrap();
            let opened = SuffixIndex::open(&folder, Arc::clone(&world.dataset));
            assert!(opened.is_err(), "{name} cut to {length} bytes");
        }
        for at in 0..whole.len() {
            let mut bytes = whole.clone();
            bytes[at] ^= 0xFF;
            fs::remove_file(&path).unwrap();
            fs::write(&path, &bytes).unwrap();
            // Whatever is in the file, no query may panic.
            if let Ok(index) = SuffixIndex::open(&folder, Arc::clone(&world.dataset)) {
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
    assert!(SuffixIndex::open(&folder, Arc::clone(&world.dataset)).is_ok());
}

#[test]
fn finished_pieces_are_kept_and_the_index_is_the_same() {
    let world = world(
        &(0..20)
            .map(|i| vec![i % 3, 1, 2, i % 5])
            .collect::<Vec<_>>(),
        TokenType::U16,
    );
    let index = world.index(None, 8);
    assert!(index.n_pieces() > 5);
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
    fs::remove_file(folder.join("piece-00003")).unwrap();
    // As a job leaves it that was killed in the fourth piece.
    let state_file = folder.join("state.json");
    let mut state: serde_json::Value =
        serde_json::from_slice(&fs::read(&state_file).unwrap()).unwrap();
    let files = state["saved"]["files"].as_object_mut().unwrap();
    assert!(files.remove("piece-00003").is_some());
    state["sha256"] = hex(&Sha256::digest(state["saved"].to_string())).into();
    fs::write(&state_file, state.to_string()).unwrap();
    let progress = Progress::default();
    let summary = build(&world.dataset, None, &folder, 8 * 8, &progress).unwrap();
    assert_eq!(
        (summary.n_kept, summary.n_pieces),
        (summary.n_pieces - 1, summary.n_pieces)
    );
    assert_eq!(progress.done(), 2 * 80);
    assert_eq!(read(), whole);
    // A piece that changed since makes all of them worth nothing.
    fs::write(folder.join("piece-00002"), &whole[3]).unwrap();
    let summary = build(&world.dataset, None, &folder, 8 * 8, &Progress::default()).unwrap();
    assert_eq!(summary.n_kept, 0);
    assert_eq!(read(), whole);
    // Pieces cut otherwise are of another index.
    let summary = build(&world.dataset, None, &folder, 8 * 16, &Progress::default()).unwrap();
    assert_eq!(summary.n_kept, 0);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    #[test]
    fn spans_stand_in_a_document_and_none_that_does_is_missed(
        words in prop::collection::vec(prop::collection::vec(0..WORDS.len(), 0..12), 1..6),
        asked in prop::collection::vec((0..WORDS.len(), prop::bool::ANY), 0..12),
        min_bytes in 8..20_usize,
        piece_tokens in prop_oneof![Just(30_u64), Just(100_000)],
    ) {
        let tokenizer = tokenizer();
        let mut decoded: Vec<String> = Vec::new();
        let documents: Vec<Vec<i64>> = words.iter().map(|words| {
            let text: String = words.iter().map(|word| WORDS[*word]).collect();
            let mut ids = Vec::new();
            tokenizer.encoder().encode(&text, &mut ids).unwrap();
            decoded.push(tokenizer.decode(&ids, false));
            ids.into_iter().map(i64::from).collect()
        }).collect();
        let world = world(&documents, TokenType::U16);
        let index = world.index(Some(&TokenBytes::new(&tokenizer)), piece_tokens);
        let text: String = asked.iter().map(|(word, is_cut)| {
            let word = WORDS[*word];
            if *is_cut { word.char_indices().nth(1).map_or(word, |(at, _)| &word[at..]) } else { word }
        }).collect();
        let stands = |from: usize, to: usize| decoded.iter().any(|d| d.contains(&text[from..to]));
        let spans = index.spans(&text, min_bytes, 2).unwrap();
        prop_assert_eq!(&spans, &index.spans(&text, min_bytes, 1).unwrap());
        let bounds: Vec<usize> = (0..=text.len()).filter(|at| text.is_char_boundary(*at)).collect();
        for span in &spans {
            prop_assert!(stands(span.start, span.end) && span.len() >= min_bytes, "{:?}", span);
        }
        // Twice the longest token and the minimum: half of it is whole tokens for sure.
        for (i, from) in bounds.iter().enumerate() {
            for to in bounds[i..].iter().filter(|to| **to - from >= min_bytes.max(64)) {
                if stands(*from, *to) {
                    prop_assert!(spans.iter().any(|s| s.start <= *from && *to <= s.end), "{from}..{to}");
                }
            }
        }
    }
}

/// Long runs of few bytes, as token borders fall within them in many ways.
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
    fn spans_of_texts_that_repeat_themselves_are_those_by_hand(
        documents in prop::collection::vec(runs(), 1..8),
        text in runs(),
        min_bytes in 8..20_usize,
        piece_tokens in prop_oneof![Just(30_u64), Just(100_000)],
    ) {
        let config = TrainConfig { vocab_size: 275, min_frequency: 0, special_tokens: vec!["<|endoftext|>".to_owned()] };
        let mut trainer = Trainer::new(config).unwrap();
        trainer.add(&[" ", "a", "ab", "日"].map(|unit| unit.repeat(8)).concat());
        let json = trainer.finish(&Progress::default()).unwrap().to_json();
        let tokenizer = Tokenizer::from_json(json.as_bytes(), Path::new("tokenizer.json")).unwrap();
        let table = TokenBytes::new(&tokenizer);
        let longest = (0..275).map(|id| table.length(id)).max().unwrap();
        let ids: Vec<Vec<i64>> = documents.iter().map(|document| {
            let mut ids = Vec::new();
            tokenizer.encoder().encode(document, &mut ids).unwrap();
            ids.into_iter().map(i64::from).collect()
        }).collect();
        let index = world(&ids, TokenType::U16).index(Some(&table), piece_tokens);
        let spans = index.spans(&text, min_bytes, 1).unwrap();
        let stands = |from: usize, to: usize| documents.iter().any(|d| d.contains(&text[from..to]));
        for span in &spans {
            prop_assert!(stands(span.start, span.end) && span.len() >= min_bytes, "{span:?}");
        }
        let bounds: Vec<usize> = (0..=text.len()).filter(|at| text.is_char_boundary(*at)).collect();
        for (i, from) in bounds.iter().enumerate() {
            // The furthest that stands from here; half of it is whole tokens for sure.
            let to = bounds[i..].iter().rfind(|to| stands(*from, **to)).unwrap();
            if to - from >= min_bytes + 2 * longest {
                prop_assert!(spans.iter().any(|s| s.start <= *from && *to <= s.end), "{from}..{to}");
            }
        }
    }
}
