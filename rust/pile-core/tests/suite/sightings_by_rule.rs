//! The rows in which a text is seen, and repeated documents, for every packing rule: compared with a slow
//! reference that lays out each row token by token and tries every set of rows.
#![allow(clippy::unwrap_used)]

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use pile_core::{
    Result,
    order::{
        IndexedSamples, OrderConfig, OrderRule, SampleLayout, TrainingOrder, build, npy::AnyArray,
    },
    progress::Progress,
    timeline::{RepeatedDocument, RepeatsConfig, Scan, SearchUnit, Sightings, TextQuery, repeats},
    tokens::{Span, TokenSource, TokenType},
};
use proptest::{collection::vec, prelude::*};

struct Documents(Vec<Vec<i32>>);

impl TokenSource for Documents {
    fn n_documents(&self) -> u64 {
        self.0.len() as u64
    }

    fn document_length(&self, document: u64) -> Result<u64> {
        Ok(self.0[document as usize].len() as u64)
    }

    fn token_type(&self) -> TokenType {
        TokenType::I32
    }

    fn read(&self, spans: &[Span], out: &mut [u8]) -> Result<usize> {
        let mut done = 0;
        for span in spans {
            let tokens = &self.0[span.document as usize];
            for token in &tokens[span.start as usize..(span.start + span.length) as usize] {
                out[done..done + 4].copy_from_slice(&token.to_le_bytes());
                done += 4;
            }
        }
        Ok(done)
    }
}

/// A row as the model reads it: for each token, its index in `doc_idx` and its index in that document.
type Row = Vec<(usize, usize)>;

struct World {
    folder: tempfile::TempDir,
    documents: Vec<Vec<i32>>,
    layout: SampleLayout,
    /// Whether samples are whole documents, padded.
    is_whole: bool,
    /// Document numbers, all copies.
    doc_idx: Vec<usize>,
    /// In training order.
    rows: Vec<Row>,
}

fn numbers(path: &Path, width: u64) -> Vec<Vec<i64>> {
    let array = AnyArray::open(path, width).unwrap();
    let row = |i| (0..width as usize).map(move |column| (i, column));
    (0..array.n_rows())
        .map(|i| {
            row(i)
                .map(|(i, c)| array.get_signed(i, c).unwrap())
                .collect()
        })
        .collect()
}

fn world(documents: Vec<Vec<i32>>, rule: OrderRule, seq_length: u64, n: u64, seed: u32) -> World {
    let folder = tempfile::tempdir().unwrap();
    let lengths: Vec<i32> = documents.iter().map(|d| d.len() as i32).collect();
    let config = OrderConfig {
        rule,
        ..OrderConfig::packed(folder.path().join("o"), seq_length, n, seed)
    };
    build(&lengths, None, &config, &Progress::default()).unwrap();
    let layout = config.layout();
    let array = |name: &str, width| numbers(&folder.path().join(format!("o_{name}.npy")), width);
    let doc_idx: Vec<usize> = array("doc_idx", 1).iter().map(|d| d[0] as usize).collect();
    let starts = array("sample_idx", 2);
    // The tokens of all copies in one line, and the index in it at which each copy begins.
    let (mut line, mut begins): (Row, Vec<usize>) = (Vec::new(), Vec::new());
    for (copy, document) in doc_idx.iter().enumerate() {
        begins.push(line.len());
        line.extend((0..documents[*document].len()).map(|token| (copy, token)));
    }
    begins.push(line.len());
    let row_of = |sample: usize| -> Row {
        let [from, to] = [&starts[sample], &starts[sample + 1]];
        let first = begins[from[0] as usize] + from[1] as usize;
        let last_copy = to[0] as usize;
        // The sample includes the shared token, if there is one, unless the document ends before it.
        let end = begins[last_copy] as i64 + to[1] + layout.extra as i64;
        let end = (end as usize).min(*begins.get(last_copy + 1).unwrap_or(&line.len()));
        let longest = (layout.seq_length + layout.extra) as usize;
        line[first..end].iter().copied().take(longest).collect()
    };
    let order = array("shuffle_idx", 1);
    let rows = order
        .iter()
        .map(|sample| row_of(sample[0] as usize))
        .collect();
    World {
        folder,
        documents,
        layout,
        is_whole: matches!(rule, OrderRule::PackUntilOverflow | OrderRule::Unpacked),
        doc_idx,
        rows,
    }
}

/// (sample, offset in the row, first token in the document, tokens)
type Part = (u64, u64, u64, u64);

impl World {
    fn order(&self) -> TrainingOrder<Documents> {
        let samples = IndexedSamples::open(&self.folder.path().join("o"), self.layout).unwrap();
        TrainingOrder::new(Box::new(samples), Documents(self.documents.clone()), -1)
    }

    /// The parts of tokens `first` to `end - 1` of a copy that each row holds.
    fn held(&self, copy: usize, first: usize, end: usize) -> Vec<Part> {
        let mut parts = Vec::new();
        for (sample, row) in (0..).zip(&self.rows) {
            let inside = |t: &(usize, usize)| t.0 == copy && (first..end).contains(&t.1);
            let n = row.iter().filter(|t| inside(t)).count();
            if let Some(offset) = row.iter().position(inside) {
                parts.push((sample, offset as u64, row[offset].1 as u64, n as u64));
            }
        }
        parts
    }

    /// The sets of rows in which these tokens are seen: each row that holds all of them; else the one
    /// smallest set that holds as much as all rows together. Of several such sets, the one whose rows reach
    /// furthest.
    fn seen(&self, copy: usize, first: usize, end: usize) -> Vec<Vec<Part>> {
        let held = self.held(copy, first, end);
        let n = (end - first) as u64;
        let whole: Vec<_> = held.iter().filter(|p| p.3 == n).map(|p| vec![*p]).collect();
        if !whole.is_empty() {
            return whole;
        }
        let tokens = |parts: &[Part]| -> BTreeSet<u64> {
            parts.iter().flat_map(|p| p.2..p.2 + p.3).collect()
        };
        let all = tokens(&held);
        let mut sets = Vec::new();
        for chosen in 0_u32..1 << held.len() {
            let parts = (0..held.len())
                .filter(|i| chosen >> i & 1 == 1)
                .map(|i| held[i]);
            let mut parts: Vec<Part> = parts.collect();
            if tokens(&parts) == all {
                parts.sort_by_key(|p| (p.2, p.3));
                sets.push(parts);
            }
        }
        let reach = |parts: &Vec<Part>| -> (usize, Vec<_>) {
            let of = parts.iter().map(|p| (Reverse(p.2 + p.3), p.2));
            (parts.len(), of.collect())
        };
        sets.into_iter()
            .min_by_key(reach)
            .into_iter()
            .filter(|set| !set.is_empty())
            .collect()
    }

    fn sightings_of(&self, texts: &[Vec<i32>]) -> Sightings {
        let order = self.order();
        let scan = Scan {
            source: order.source(),
            unit: SearchUnit::Ids(TokenType::I32),
            n_threads: 1,
            max_occurrences: 1 << 20,
        };
        let bytes = |text: &Vec<i32>| text.iter().flat_map(|id| id.to_le_bytes()).collect();
        let texts: Vec<Vec<u8>> = texts.iter().map(bytes).collect();
        let query = TextQuery {
            texts: &texts.iter().map(Vec::as_slice).collect::<Vec<_>>(),
            across_documents: None,
        };
        query
            .run(&order, &scan, &scan, &Progress::default())
            .unwrap()
    }

    fn check_sightings(&self, texts: &[Vec<i32>]) -> std::result::Result<(), TestCaseError> {
        let answer = self.sightings_of(texts);
        let found = answer.sightings.iter().map(|s| {
            let of = (s.text, s.document, s.copy, s.token_offset, s.n_tokens);
            (of, s.part, s.n_parts, (s.sample, s.offset, s.length))
        });
        let found: Vec<_> = found.collect();
        let mut expected = Vec::new();
        let mut n_unreached = vec![0; texts.len()];
        let mut n_copies = BTreeMap::new();
        for (copy, document) in self.doc_idx.iter().enumerate() {
            let epoch = n_copies.entry(document).or_insert(0);
            for (text, ids) in texts.iter().enumerate() {
                let tokens = &self.documents[*document];
                let at = (0..tokens.len()).filter(|at| tokens[*at..].starts_with(ids));
                for first in at {
                    let sets = self.seen(copy, first, first + ids.len());
                    let holds_all = |set: &Vec<Part>| {
                        let tokens = set.iter().flat_map(|p| p.2..p.2 + p.3);
                        tokens.collect::<BTreeSet<_>>().len() == ids.len()
                    };
                    let sets: Vec<_> = sets.into_iter().filter(holds_all).collect();
                    n_unreached[text] += u64::from(sets.is_empty());
                    let of = (
                        text as u64,
                        *document as u64,
                        *epoch,
                        first as u64,
                        ids.len() as u64,
                    );
                    for set in &sets {
                        for (part, p) in (0..).zip(set) {
                            expected.push((of, part, set.len() as u64, (p.0, p.1, p.3)));
                        }
                    }
                }
            }
            *epoch += 1;
        }
        // A document that the order lacks counts as one copy that no sample shows.
        for (document, tokens) in self.documents.iter().enumerate() {
            if !n_copies.contains_key(&document) {
                for (text, ids) in texts.iter().enumerate() {
                    let at = (0..tokens.len()).filter(|at| tokens[*at..].starts_with(ids));
                    n_unreached[text] += at.count() as u64;
                }
            }
        }
        let sorted = |mut all: Vec<_>| {
            all.sort();
            all
        };
        prop_assert_eq!(sorted(found), sorted(expected));
        prop_assert_eq!(answer.n_unreached, n_unreached);
        Ok(())
    }

    fn check_repeats(&self, n_samples: u64) -> std::result::Result<(), TestCaseError> {
        let order = self.order();
        let n_inputs = self.layout.seq_length;
        let config = RepeatsConfig {
            n_samples,
            n_inputs,
            interval_samples: 1,
            n_threads: 1,
        };
        let found = repeats(&order, config, &Progress::default()).unwrap();
        let mut seen: BTreeMap<usize, Vec<u64>> = BTreeMap::new();
        let mut n_copies: BTreeMap<usize, u64> = BTreeMap::new();
        for (copy, document) in self.doc_idx.iter().enumerate() {
            let sets = self.seen(copy, 0, self.documents[*document].len());
            let samples = sets
                .iter()
                .flatten()
                .map(|p| p.0)
                .filter(|s| *s < n_samples);
            let samples: Vec<u64> = samples.collect();
            *n_copies.entry(*document).or_default() += u64::from(!samples.is_empty());
            seen.entry(*document).or_default().extend(samples);
        }
        let same = |document: usize| {
            let tokens = &self.documents[document];
            self.documents
                .iter()
                .position(|other| other == tokens)
                .unwrap()
        };
        let mut of_class: BTreeMap<usize, u64> = BTreeMap::new();
        for (document, n) in &n_copies {
            *of_class.entry(same(*document)).or_default() += n;
        }
        let mut expected = Vec::new();
        for (document, samples) in &seen {
            let is_repeated = of_class[&same(*document)] > 1;
            if let Some((first, last)) = samples.iter().min().zip(samples.iter().max())
                && is_repeated
            {
                expected.push(RepeatedDocument {
                    same_as: same(*document) as u64,
                    document: *document as u64,
                    n_tokens: self.documents[*document].len() as u64,
                    n_copies: n_copies[document],
                    first_sample: *first,
                    last_sample: *last,
                });
            }
        }
        expected.sort_by_key(|d| (d.same_as, d.document));
        prop_assert_eq!(&found.documents, &expected);
        // A padded sample may have the next document's first token as an input, which is an input of the next
        // sample too.
        if self.is_whole {
            return Ok(());
        }
        // Each token counts in the row that reads it, by what earlier rows read.
        let (mut by_epoch, mut by_duplicate) = (Vec::new(), Vec::new());
        let (mut read, mut of_any) = (BTreeSet::new(), BTreeSet::new());
        for row in &self.rows[..n_samples as usize] {
            let (mut n_epoch, mut n_duplicate) = (0, 0);
            for (copy, token) in row.iter().take(n_inputs as usize) {
                let document = self.doc_idx[*copy];
                let is_read = !read.insert((document, *token));
                let is_known = !of_any.insert((same(document), *token));
                n_epoch += u64::from(is_read);
                n_duplicate += u64::from(is_known && !is_read);
            }
            by_epoch.push(n_epoch);
            by_duplicate.push(n_duplicate);
        }
        prop_assert_eq!(found.by_epoch, by_epoch);
        prop_assert_eq!(found.by_duplicate, by_duplicate);
        Ok(())
    }
}

fn rules() -> impl Strategy<Value = OrderRule> {
    let megatron =
        (0_u64..2, any::<bool>()).prop_map(|(extra, drop_last_partial)| OrderRule::Megatron {
            extra,
            drop_last_partial,
        });
    prop_oneof![
        3 => Just(OrderRule::Packed),
        1 => Just(OrderRule::PackUntilOverflow),
        1 => Just(OrderRule::Unpacked),
        2 => megatron,
    ]
}

/// Documents of few different tokens, so that texts occur often and documents are equal.
fn documents() -> impl Strategy<Value = Vec<Vec<i32>>> {
    let document = prop_oneof![vec(0_i32..3, 0..4), vec(0_i32..3, 0..12)];
    vec(document, 1..8).prop_filter("tokens", |all| all.iter().flatten().count() > 1)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn a_text_is_seen_in_the_fewest_rows_that_hold_it(
        documents in documents(), rule in rules(), seq_length in 1_u64..7, n in 1_u64..12, seed: u32,
        cut in vec((any::<prop::sample::Index>(), any::<prop::sample::Index>(), 1_usize..9), 1..6),
        run in any::<prop::sample::Index>(),
    ) {
        let tokens = documents.concat().len() as u64;
        let world = world(documents, rule, seq_length, n.min(3 * tokens), seed);
        let texts: BTreeSet<Vec<i32>> = cut.iter().filter_map(|(document, at, length)| {
            let tokens = document.get(&world.documents);
            (!tokens.is_empty()).then(|| {
                let at = at.index(tokens.len());
                tokens[at..(at + length).min(tokens.len())].to_vec()
            })
        }).collect();
        if !texts.is_empty() {
            world.check_sightings(&Vec::from_iter(texts))?;
        }
        world.check_repeats(1 + run.index(world.rows.len()) as u64)?;
    }
}

#[test]
fn a_row_with_only_the_shared_token_is_no_part() {
    // Rows of 2 + 1 tokens over one document: 0-2, 2-4, 4-6.
    let world = world(vec![vec![0, 1, 2, 3, 4, 5, 6]], OrderRule::Packed, 2, 3, 1);
    let n_parts = |text: &[i32]| {
        let answer = world.sightings_of(&[text.to_vec()]);
        answer
            .sightings
            .iter()
            .map(|s| (s.n_parts, s.length))
            .collect::<Vec<_>>()
    };
    assert_eq!(
        n_parts(&[2]),
        [(1, 1), (1, 1)],
        "the shared token alone is seen in both"
    );
    assert_eq!(n_parts(&[2, 3]), [(1, 2)], "whole in one row");
    assert_eq!(
        n_parts(&[2, 3, 4, 5]).len(),
        2,
        "not three: row 0-2 holds only the shared 2"
    );
    assert_eq!(
        n_parts(&[1, 2, 3, 4]).len(),
        2,
        "not three: row 4-6 holds only the shared 4"
    );
    assert_eq!(n_parts(&[1, 2, 3, 4, 5]).len(), 3);
}
