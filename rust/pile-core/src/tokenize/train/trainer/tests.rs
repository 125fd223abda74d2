//! Tests of the trainer, with merges worked out by hand.

use super::*;
use crate::ErrorKind;
use crate::tokenize::{pretokenize::pattern::Pattern, pretokenize::reference::reference_pretokens};
use proptest::prelude::*;
use std::cmp::Reverse;

fn config(n_merges: u32) -> TrainConfig {
    TrainConfig {
        vocab_size: 257 + n_merges,
        min_frequency: 0,
        special_tokens: vec!["<|endoftext|>".to_owned()],
    }
}

fn train(config: TrainConfig, texts: &[&str]) -> Trained {
    let mut trainer = Trainer::new(config).unwrap();
    texts.iter().for_each(|t| trainer.add(t));
    trainer.finish(&Progress::default()).unwrap()
}

/// Merges as "left+right".
fn merges(trained: &Trained) -> Vec<String> {
    let pairs = trained.merges();
    pairs
        .map(|(left, right)| format!("{left}+{right}"))
        .collect()
}

#[test]
fn most_frequent_first_then_smaller_ids() {
    // Pretokens abc, Ġab, Ġabc: a+b 3 times; then Ġ+ab and ab+c twice, of which Ġ has the smaller id
    // (a byte before a merge); then ab+c and Ġab+c once.
    let trained = train(config(3), &["abc ab abc"]);
    assert_eq!(merges(&trained), ["a+b", "Ġ+ab", "ab+c"]);
    assert_eq!(trained.vocab_size(), 260);
}

#[test]
fn stops_when_pairs_run_out() {
    let trained = train(config(100), &["aaaa"]);
    assert_eq!(merges(&trained), ["a+a", "aa+aa"]);
    assert_eq!(trained.n_merges(), 2);
    assert_eq!(train(config(100), &[]).n_merges(), 0);
    assert_eq!(train(config(100), &["", "a"]).vocab_size(), 257);
}

#[test]
fn min_frequency_counts() {
    let at_least = |min_frequency| TrainConfig {
        min_frequency,
        ..config(100)
    };
    // Once a+b is merged, Ġ+a is left once.
    assert_eq!(merges(&train(at_least(2), &["ab ab ac"])), ["a+b"]);
    assert_eq!(merges(&train(at_least(3), &["ab ab ac"])), [""; 0]);
}

#[test]
fn texts_are_normalized() {
    assert_eq!(
        merges(&train(config(1), &["e\u{301}"])),
        merges(&train(config(1), &["é"]))
    );
}

#[test]
fn cancelled_between_merges() {
    let mut trainer = Trainer::new(config(10)).unwrap();
    trainer.add("abcd");
    let progress = Progress::default();
    progress.stop();
    let err = trainer.finish(&progress).unwrap_err();
    assert!(matches!(err.kind(), ErrorKind::Cancelled));
}

#[test]
fn settings_are_checked() {
    let refused = |vocab_size, special: &[&str]| {
        let special_tokens = special.iter().map(|s| (*s).to_owned()).collect();
        let config = TrainConfig {
            vocab_size,
            min_frequency: 0,
            special_tokens,
        };
        Trainer::new(config).unwrap_err().to_string()
    };
    let expected = "vocab_size must be 257 (256 bytes and 1 special tokens) to 1048576, got 256";
    assert_eq!(refused(256, &["<s>"]), expected);
    assert!(refused(u32::MAX, &[]).ends_with("got 4294967295"));
    assert_eq!(
        refused(300, &["a", "a"]),
        "special token \"a\" is empty or repeated"
    );
    assert_eq!(
        refused(300, &[""]),
        "special token \"\" is empty or repeated"
    );
}

#[test]
fn n_bytes_counts_text_before_normalization() {
    let mut trainer = Trainer::new(config(0)).unwrap();
    trainer.add("e\u{301}");
    trainer.add("");
    assert_eq!(trainer.n_bytes(), 3);
}

/// Trains by counting all pairs before each merge.
fn naive(texts: &[String], n_merges: usize) -> Vec<String> {
    let mut pretokens: Vec<Vec<String>> = Vec::new();
    let split = |text: &String| reference_pretokens(text, Pattern::Gpt2);
    for pretoken in texts.iter().flat_map(split) {
        let text = crate::tokenize::model::byte_alphabet::spell(pretoken.as_bytes());
        pretokens.push(text.chars().map(String::from).collect());
    }
    let mut vocab = TrainingVocab::new(&config(0).special_tokens);
    let mut merges = Vec::new();
    while merges.len() < n_merges {
        let id = |token: &String| vocab.tokens.iter().position(|t| t == token).unwrap() as u32;
        let mut counts: FxHashMap<Pair, u64> = FxHashMap::default();
        for pair in pretokens.iter().flat_map(|tokens| tokens.windows(2)) {
            *counts.entry((id(&pair[0]), id(&pair[1]))).or_default() += 1;
        }
        let best = counts.iter().map(|(p, n)| (*n, Reverse(*p))).max();
        let Some((_, Reverse(best))) = best else {
            break;
        };
        let [left, right] = [best.0, best.1].map(|id| vocab.tokens[id as usize].clone());
        merges.push(format!("{left}+{right}"));
        vocab.push_merge(best);
        for pretoken in &mut pretokens {
            let mut at = 0;
            while at + 1 < pretoken.len() {
                if pretoken[at] == left && pretoken[at + 1] == right {
                    let second = pretoken.remove(at + 1);
                    pretoken[at].push_str(&second);
                }
                at += 1;
            }
        }
    }
    merges
}

proptest! {
    #[test]
    fn equals_naive_training(texts in proptest::collection::vec("[abé ]{0,12}", 0..8)) {
        let expected = naive(&texts, 8);
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        prop_assert_eq!(merges(&train(config(8), &texts)), expected);
    }

    #[test]
    fn division_and_order_of_documents_do_not_matter(
        texts in proptest::collection::vec("[a-c' ]{0,20}", 0..10),
        split in 0..10usize,
    ) {
        let mut first = Trainer::new(config(20)).unwrap();
        let mut second = Trainer::new(config(20)).unwrap();
        for (i, text) in texts.iter().enumerate().rev() {
            if i < split { first.add(text) } else { second.add(text) }
        }
        first.absorb(second);
        let joined = first.finish(&Progress::default()).unwrap();
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        prop_assert_eq!(joined.to_json(), train(config(20), &texts).to_json());
    }
}
