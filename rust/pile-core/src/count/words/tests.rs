use std::{cell::RefCell, collections::BTreeMap, rc::Rc};

use proptest::{collection::vec, prelude::*};

use super::{
    super::kept::{Gram, Keep},
    *,
};

type All = Vec<(String, Vec<u64>)>;

#[derive(Clone, Default)]
struct Collected(Rc<RefCell<All>>);

impl GramSink for Collected {
    fn take(&mut self, gram: &Gram<'_>) -> Result<()> {
        let key = String::from_utf8(gram.key.to_vec()).unwrap();
        self.0.borrow_mut().push((key, gram.by_group.to_vec()));
        Ok(())
    }

    fn finish(self: Box<Self>) -> Result<()> {
        Ok(())
    }
}

fn naively(documents: &[(String, usize)], lengths: &[usize]) -> BTreeMap<(usize, String), u64> {
    let mut counts = BTreeMap::new();
    for (text, _) in documents {
        let words: Vec<&str> = words(text).collect();
        for n in lengths {
            for gram in words.windows(*n) {
                *counts.entry((*n, gram.join(" "))).or_default() += 1;
            }
        }
    }
    counts
}

fn counted(
    folder: &std::path::Path,
    documents: &[(String, usize)],
    lengths: &[usize],
    (memory, n_threads, by_subset): (u64, usize, bool),
) -> (All, WordsSummary) {
    let mut shards = Vec::new();
    for (number, part) in documents
        .chunks(documents.len().div_ceil(3).max(1))
        .enumerate()
    {
        let line = |(text, subset): &(String, usize)| {
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
            keep: Keep {
                min_count: 0,
                top: None,
            },
            memory,
            n_threads,
            folder: folder.join(format!("partial-{memory}-{n_threads}")),
            free_bytes: u64::MAX,
            job: "job".to_owned(),
            discard: false,
        },
        shards,
        rules: Rules::default(),
        ignore_case: false,
        by_subset,
    };
    let sink = Collected::default();
    let boxed = sink.clone();
    let told = count_words(&config, &Progress::default(), move |_| Ok(Box::new(boxed))).unwrap();
    (sink.0.take(), told)
}

#[test]
fn words_are_those_of_python() {
    let text = " a\u{1c}b\u{a0}c\u{200b}d\n\n e\u{85}f\u{3000}";
    assert_eq!(
        words(text).collect::<Vec<_>>(),
        ["a", "b", "c\u{200b}d", "e", "f"]
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn as_a_naive_count(
        documents in vec(("[a-c é\u{a0}\t]{0,40}", 0_usize..3), 1..30),
        lengths in prop::sample::subsequence(vec![1_usize, 2, 3, 5], 1..4),
        n_threads in 1_usize..3,
        is_tight: bool,
    ) {
        let folder = tempfile::tempdir().unwrap();
        let memory = if is_tight { 1 } else { 1 << 26 };
        let (found, told) = counted(folder.path(), &documents, &lengths, (memory, n_threads, true));
        let expected = naively(&documents, &lengths);
        let sums: Vec<(String, u64)> = found.iter().map(|(k, c)| (k.clone(), c.iter().sum())).collect();
        prop_assert_eq!(sums, expected.into_iter().map(|((_, k), n)| (k, n)).collect::<Vec<_>>());
        for (place, name) in told.groups.iter().enumerate() {
            let of: Vec<_> = documents.iter().filter(|d| Some(format!("s{}", d.1)) == *name).cloned().collect();
            let n: u64 = naively(&of, &lengths).values().sum();
            prop_assert_eq!(found.iter().map(|(_, c)| c[place]).sum::<u64>(), n);
        }
    }
}
