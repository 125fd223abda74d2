//! From texts to samples, compared with a byte search of the decoded documents and of samples built independently.
#![allow(clippy::unwrap_used)]

use std::{cmp::Reverse, collections::BTreeSet, fs, sync::Arc};

use pile_core::{
    order::{
        BlendPart, BlendedSamples, IndexedSamples, Mt19937, OrderConfig, OrderRule, Samples,
        TrainingOrder, build, build_blend, npy::Array,
    },
    progress::Progress,
    timeline::{FindOccurrences, Scan, SearchUnit, Sighting, Sightings, TextQuery},
    tokenize::{TokenBytes, TokenBytes as Table, Tokenizer},
    tokens::{ConcatenatedSources, Span, TokenDataset, TokenSource, TokenType, write_idx},
};

use crate::shared;

const WORDS: [&str; 14] = [
    "the ",
    "model ",
    "saw ",
    "日本語の文章",
    "  \n\n    ",
    "def f(x):\n\treturn x",
    "naïve ",
    "🙂👩‍👩‍👧",
    "aaaa",
    " the the",
    "<|endoftext|>",
    "ﬀ漢字かな交じり文",
    "0123456789",
    "\u{a0}\u{3000}",
];

/// A tokenizer, documents, and an order of a little over two epochs.
struct World {
    folder: tempfile::TempDir,
    tokenizer: Tokenizer,
    texts: Vec<Vec<u8>>,
    dataset: TokenDataset,
    seq_length: u64,
}

fn world(seed: u32, seq_length: u64, token_type: TokenType) -> World {
    let tokenizer = shared::tokenizer(&WORDS.concat(), 320);
    let mut rng = Mt19937::new(seed);
    let folder = tempfile::tempdir().unwrap();
    let (mut bin, mut lengths, mut texts) = (Vec::new(), Vec::new(), Vec::new());
    for document in 0..40 {
        let n_words = if document % 7 == 3 {
            0
        } else {
            rng.interval(60)
        };
        let text: String = (0..n_words)
            .map(|_| WORDS[rng.interval(WORDS.len() as u64 - 1) as usize])
            .collect();
        let mut ids = Vec::new();
        tokenizer.encoder().encode(&text, &mut ids).unwrap();
        if document % 3 == 0 {
            // An id that decodes to no bytes.
            ids.insert(ids.len() / 2, 60_000);
        }
        if document % 7 != 3 {
            ids.push(tokenizer.eod().unwrap().1);
        }
        let bytes = ids.iter().filter_map(|id| tokenizer.token_bytes(*id));
        texts.push(bytes.collect::<Vec<_>>().concat());
        lengths.push(ids.len() as i32);
        token_type.encode_all(&ids, &mut bin);
    }
    let prefix = folder.path().join("sample");
    fs::write(prefix.with_extension("bin"), bin).unwrap();
    let mut idx = Vec::new();
    write_idx(&mut idx, token_type, &lengths).unwrap();
    fs::write(prefix.with_extension("idx"), idx).unwrap();
    let dataset = TokenDataset::open(&prefix).unwrap();
    let n_tokens: i32 = lengths.iter().sum();
    let n_samples = (2 * n_tokens as u64).div_ceil(seq_length) + 2;
    let config = OrderConfig::packed(folder.path().join("order"), seq_length, n_samples, seed);
    build(&lengths, None, &config, &Progress::default()).unwrap();
    World {
        folder,
        tokenizer,
        texts,
        dataset,
        seq_length,
    }
}

/// The smallest set of rows of `l + 1` tokens that holds tokens `first` to `last`, found by trying every row
/// for each token. If several sets have the smallest size, the one whose rows reach furthest; this only
/// happens with rows of two tokens.
fn fewest(holding: &[usize], first: usize, last: usize, l: usize) -> Vec<usize> {
    let n = last - first + 1;
    let end_of = |row: usize| (row * l + l).min(last) - first + 1;
    let key = |rows: &[usize]| -> (usize, Vec<_>) {
        let reach = rows.iter().map(|row| (Reverse(end_of(*row)), *row));
        (rows.len(), reach.collect())
    };
    // best[i]: the set for the tokens before first + i.
    let mut best: Vec<Option<Vec<usize>>> = vec![None; n + 1];
    best[0] = Some(Vec::new());
    for i in 0..n {
        let Some(before) = best[i].clone() else {
            continue;
        };
        for row in holding
            .iter()
            .filter(|j| (**j * l..=**j * l + l).contains(&(first + i)))
        {
            let mut rows = before.clone();
            rows.push(*row);
            for reached in &mut best[i + 1..=end_of(*row)] {
                let is_better = |known: &Vec<usize>| key(&rows) < key(known);
                if reached.as_ref().is_none_or(is_better) {
                    *reached = Some(rows.clone());
                }
            }
        }
    }
    best[n].clone().unwrap_or_default()
}

/// (text, document, byte, n_parts, sample, offset, tokens, documents)
type Seen = (u64, u64, u64, u64, u64, u64, u64, u64);

fn seen(s: &Sighting) -> Seen {
    (
        s.text,
        s.document,
        s.byte_offset,
        s.n_parts,
        s.sample,
        s.offset,
        s.length,
        s.n_documents,
    )
}

impl World {
    fn order(&self) -> TrainingOrder<TokenDataset> {
        let dataset = TokenDataset::open(&self.folder.path().join("sample")).unwrap();
        TrainingOrder::open(&self.folder.path().join("order"), self.seq_length, dataset).unwrap()
    }

    fn sightings_of(&self, texts: &[Vec<u8>], n_threads: usize, across: bool) -> Sightings {
        let order = self.order();
        let table = TokenBytes::new(&self.tokenizer);
        let scan = Scan {
            source: order.source(),
            unit: SearchUnit::Text(&table),
            n_threads,
            max_occurrences: 1 << 30,
        };
        let texts: Vec<&[u8]> = texts.iter().map(Vec::as_slice).collect();
        let query = TextQuery {
            texts: &texts,
            across_documents: across.then(|| order.n_samples()),
        };
        query
            .run(&order, &scan, &scan, &Progress::default())
            .unwrap()
    }

    /// The documents strung together as in the order: (document, token, bytes) of each token.
    fn string(&self) -> Vec<(u64, u64, Vec<u8>)> {
        let doc_idx = Array::<i32>::open(&self.folder.path().join("order_doc_idx.npy"), 1).unwrap();
        let mut string = Vec::new();
        for document in doc_idx.items().iter().map(|d| *d as u64) {
            let span = Span {
                document,
                start: 0,
                length: self.dataset.document_length(document).unwrap(),
            };
            let tokens = self.dataset.tokens(&[span]).unwrap();
            string.extend((0..).zip(tokens).map(|(i, id)| {
                let bytes = self.tokenizer.token_bytes(id as u32).unwrap_or_default();
                (document, i, bytes.to_vec())
            }));
        }
        string
    }

    /// What the model saw of each text: the reference, which searches the bytes of the whole string and
    /// computes the samples from their length.
    fn reference(&self, texts: &[Vec<u8>], across: bool) -> BTreeSet<Seen> {
        let shuffle =
            Array::<u32>::open(&self.folder.path().join("order_shuffle_idx.npy"), 1).unwrap();
        let mut position_of = vec![0; shuffle.items().len()];
        for (position, sample) in shuffle.items().iter().enumerate() {
            position_of[*sample as usize] = position as u64;
        }
        let string = self.string();
        let mut all = Vec::new();
        let mut token_of = Vec::new();
        for (number, (_, _, bytes)) in string.iter().enumerate() {
            all.extend_from_slice(bytes);
            token_of.resize(all.len(), number);
        }
        let mut found = BTreeSet::new();
        for (text, bytes) in (0..).zip(texts) {
            for at in (0..all.len()).filter(|at| all[*at..].starts_with(bytes)) {
                let (first, last) = (token_of[at], token_of[at + bytes.len() - 1]);
                let n_documents = 1 + string[first..=last]
                    .windows(2)
                    .filter(|w| w[0].1 >= w[1].1)
                    .count() as u64;
                if n_documents > 1 && !across {
                    continue;
                }
                let start = first - string[first].1 as usize;
                let byte = (at - token_of.partition_point(|token| *token < start)) as u64;
                let document = string[first].0;
                let l = self.seq_length as usize;
                let holds = |j: &usize| j * l <= last && first <= j * l + l;
                let holding: Vec<usize> = (0..position_of.len()).filter(holds).collect();
                let is_whole = |j: &&usize| *j * l <= first && last <= *j * l + l;
                let whole: Vec<&usize> = holding.iter().filter(is_whole).collect();
                let part = |j: usize, n_parts: usize| {
                    let (from, to) = (first.max(j * l), last.min(j * l + l));
                    let (offset, length) = ((from - j * l) as u64, (to - from + 1) as u64);
                    (
                        text,
                        document,
                        byte,
                        n_parts as u64,
                        position_of[j],
                        offset,
                        length,
                        n_documents,
                    )
                };
                if !whole.is_empty() {
                    found.extend(whole.into_iter().map(|j| part(*j, 1)));
                } else if n_documents == 1 && last <= position_of.len() * l {
                    let rows = fewest(&holding, first, last, l);
                    found.extend(rows.iter().map(|j| part(*j, rows.len())));
                }
            }
        }
        found
    }

    /// Texts taken from the documents at any byte, and some that do not occur.
    fn spans(&self, n: usize, rng: &mut Mt19937) -> Vec<Vec<u8>> {
        let mut spans = vec![
            b"not in there".to_vec(),
            b" ".to_vec(),
            "日本".as_bytes().to_vec(),
        ];
        while spans.len() < n {
            let text = &self.texts[rng.interval(self.texts.len() as u64 - 1) as usize];
            if text.is_empty() {
                continue;
            }
            let start = rng.interval(text.len() as u64 - 1) as usize;
            let longest = [3, 20, 100, 1000][rng.interval(3) as usize];
            let length = 1 + rng.interval(longest) as usize;
            spans.push(text[start..(start + length).min(text.len())].to_vec());
        }
        spans
    }
}

#[test]
fn every_text_is_found_exactly_where_its_bytes_are() {
    let mut n_cut = 0;
    for (seed, seq_length, token_type) in [
        (1, 16, TokenType::U16),
        (2, 7, TokenType::I32),
        (3, 1, TokenType::U16),
        (4, 300, TokenType::U16),
    ] {
        let world = world(seed, seq_length, token_type);
        let spans = world.spans(350, &mut Mt19937::new(seed + 100));
        let answer = world.sightings_of(&spans, 2, false);
        let found: BTreeSet<Seen> = answer.sightings.iter().map(seen).collect();
        assert_eq!(found.len(), answer.sightings.len(), "no duplicates");
        assert!(found == world.reference(&spans, false), "seed {seed}");
        n_cut += found.iter().filter(|s| s.3 > 1).count();
        let again = world.sightings_of(&spans, 1, false);
        assert_eq!(again.sightings, answer.sightings, "any number of threads");
        let order = |s: &Sighting| (s.n_parts == 1).then_some((s.sample, s.offset));
        assert!(answer.sightings.iter().filter_map(order).is_sorted());
    }
    assert!(
        n_cut > 1000,
        "only {n_cut} parts across the boundary of rows"
    );
}

#[test]
fn across_documents_only_on_request() {
    let world = world(5, 24, TokenType::U16);
    let mut spans = world.spans(200, &mut Mt19937::new(9));
    let order = world.order();
    let mut rng = Mt19937::new(10);
    for sample in 0..order.n_samples() {
        let tokens = order
            .source()
            .tokens(&order.spans(sample).unwrap())
            .unwrap();
        let ids: Vec<u32> = tokens.iter().map(|t| *t as u32).collect();
        let row: Vec<u8> = ids
            .iter()
            .flat_map(|id| world.tokenizer.token_bytes(*id).unwrap_or_default())
            .copied()
            .collect();
        let start = rng.interval(row.len() as u64 - 1) as usize;
        spans.push(row[start..].to_vec());
    }
    let answer = world.sightings_of(&spans, 2, true);
    let found: BTreeSet<Seen> = answer.sightings.iter().map(seen).collect();
    let expected = world.reference(&spans, true);
    assert!(found == expected);
    assert!(found.iter().filter(|s| s.7 > 1).count() > 20);
    assert_eq!(
        answer.sightings,
        world.sightings_of(&spans, 1, true).sightings
    );
    let within = world.sightings_of(&spans, 2, false);
    assert!(within.sightings.iter().all(|s| s.n_documents == 1));
}

#[test]
fn occurrences_that_no_sample_shows_are_counted() {
    let world = world(6, 50, TokenType::U16);
    let order = world.order();
    let texts = [b"<|endoftext|>".to_vec()];
    let answer = world.sightings_of(&texts, 1, false);
    let doc_idx = Array::<i32>::open(&world.folder.path().join("order_doc_idx.npy"), 1).unwrap();
    let n_copies = (doc_idx.n_rows() / 40) as usize;
    let firsts = answer
        .sightings
        .iter()
        .map(|s| (s.document, s.byte_offset, s.copy));
    let n_seen = firsts.collect::<BTreeSet<_>>().len();
    assert_eq!(
        n_seen + answer.n_unreached[0] as usize,
        answer.occurrences.occurrences.len() * n_copies
    );
    assert_eq!(answer.occurrences.n_documents, 40);
    assert_eq!(answer.occurrences.n_tokens, order.source().n_tokens());
    assert_eq!(answer.occurrences.n_without_bytes, 14);
}

#[test]
fn ids_are_found_at_token_boundaries() {
    let world = world(7, 16, TokenType::U16);
    let order = world.order();
    let span = Span {
        document: 1,
        start: 2,
        length: 3,
    };
    let ids = world.dataset.tokens(&[span]).unwrap();
    let mut text = Vec::new();
    let as_u32: Vec<u32> = ids.iter().map(|id| *id as u32).collect();
    TokenType::U16.encode_all(&as_u32, &mut text);
    let scan = Scan {
        source: order.source(),
        unit: SearchUnit::Ids(TokenType::U16),
        n_threads: 2,
        max_occurrences: 1000,
    };
    let found = scan.find(&[&text], &Progress::default()).unwrap();
    let mut expected = 0;
    for document in 0..40 {
        let length = world.dataset.document_length(document).unwrap();
        let tokens = world
            .dataset
            .tokens(&[Span {
                document,
                start: 0,
                length,
            }])
            .unwrap();
        expected += tokens.windows(3).filter(|w| *w == ids).count();
    }
    assert_eq!(found.occurrences.len(), expected);
    assert!(
        found
            .occurrences
            .iter()
            .any(|p| (p.document, p.token_offset, p.n_tokens) == (1, 2, 3))
    );
}

#[test]
fn errors_name_the_text_and_the_limit() {
    let world = world(8, 16, TokenType::U16);
    let order = world.order();
    let table = Table::new(&world.tokenizer);
    let scan = Scan {
        source: order.source(),
        unit: SearchUnit::Text(&table),
        n_threads: 2,
        max_occurrences: 10,
    };
    let progress = Progress::default();
    let err = scan.find(&[b"a", b""], &progress).unwrap_err();
    assert!(err.to_string().contains("text 1 is empty"), "{err}");
    let err = scan.find(&[b"a"], &progress).unwrap_err();
    assert!(err.to_string().contains("more than 10 times"), "{err}");
    let long = vec![b'a'; 100_000];
    assert_eq!(scan.find(&[&long], &progress).unwrap().occurrences, []);
}

/// (sample, offset, document, start, length) of every part of every document.
type Parts = BTreeSet<(u64, u64, u64, u64, u64)>;

fn assert_appearances_match_the_spans<S: TokenSource>(order: &TrainingOrder<S>, what: &str) {
    let source = order.source();
    let whole = |document| Span {
        document,
        start: 0,
        length: source.document_length(document).unwrap(),
    };
    let queries: Vec<Span> = (0..source.n_documents()).map(whole).collect();
    let appearances = order
        .appearances(&queries, &Progress::default())
        .unwrap()
        .appearances;
    let found: Parts = appearances
        .iter()
        .map(|v| {
            (
                v.sample,
                v.offset,
                queries[v.query as usize].document,
                v.start,
                v.length,
            )
        })
        .collect();
    assert_eq!(found.len(), appearances.len(), "{what}: no duplicates");
    let mut expected = Parts::new();
    for sample in 0..order.n_samples() {
        let mut offset = 0;
        for span in order.spans(sample).unwrap() {
            expected.insert((sample, offset, span.document, span.start, span.length));
            offset += span.length;
        }
    }
    assert!(found == expected, "{what}");
    for copy in appearances.chunk_by(|a, b| (a.query, a.copy) == (b.query, b.copy)) {
        assert!(
            copy.is_sorted_by_key(|appearance| appearance.start),
            "{what}"
        );
    }
}

#[test]
fn appearances_match_the_spans_of_every_rule() {
    let world = world(9, 20, TokenType::U16);
    let lengths = world.dataset.lengths().unwrap();
    let megatron = |extra, drop_last_partial| OrderRule::Megatron {
        extra,
        drop_last_partial,
    };
    let rules = [
        OrderRule::Packed,
        OrderRule::PackUntilOverflow,
        OrderRule::Unpacked,
        megatron(1, true),
        megatron(0, true),
        megatron(1, false),
        megatron(0, false),
    ];
    for rule in rules {
        let stem = world.folder.path().join("rule");
        let n_samples = 3 * world.dataset.n_tokens() / 40;
        let config = OrderConfig {
            rule,
            ..OrderConfig::packed(stem.clone(), 20, n_samples, 5)
        };
        build(&lengths, None, &config, &Progress::default()).unwrap();
        let samples = IndexedSamples::open(&stem, config.layout()).unwrap();
        let source = TokenDataset::open(&world.folder.path().join("sample")).unwrap();
        let order = TrainingOrder::new(Box::new(samples), source, 0);
        assert_appearances_match_the_spans(&order, &format!("{rule:?}"));
    }
}

#[test]
fn appearances_match_the_spans_of_a_blend() {
    let worlds = [world(10, 20, TokenType::U16), world(11, 20, TokenType::U16)];
    let open = |world: &World| {
        let stem = world.folder.path().join("order");
        let config = OrderConfig::packed(stem.clone(), 20, 1, 0);
        IndexedSamples::open(&stem, config.layout()).unwrap()
    };
    let sources = worlds.iter().map(|world| {
        Arc::new(TokenDataset::open(&world.folder.path().join("sample")).unwrap())
            as Arc<dyn TokenSource>
    });
    let concatenated = ConcatenatedSources::new(sources.collect()).unwrap();
    let parts: Vec<BlendPart> = worlds
        .iter()
        .zip(concatenated.first_documents())
        .map(|(world, first)| BlendPart {
            samples: open(world),
            first_document: *first,
        })
        .collect();
    let available: Vec<u64> = parts.iter().map(|part| part.samples.n_samples()).collect();
    let stem = worlds[0].folder.path().join("blend");
    build_blend(&stem, &[0.3, 0.7], &available, false).unwrap();
    let samples = BlendedSamples::open(&stem, parts).unwrap();
    let order = TrainingOrder::new(Box::new(samples), concatenated, 0);
    assert_appearances_match_the_spans(&order, "blend");
}
