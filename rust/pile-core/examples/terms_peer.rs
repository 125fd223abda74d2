//! Counts terms with the aho-corasick crate in parsed JSON lines, as a peer for the benchmark of `count-terms`.
//!
//! `terms_peer TERMS SHARD.jsonl...` prints the occurrences, overlapping ones included, and the documents of each term.
#![allow(clippy::unwrap_used, clippy::print_stdout)] // a peer of the benches, not a part of the product

use std::{
    fs::{self, File},
    io::{BufRead, BufReader},
};

use aho_corasick::{AhoCorasick, AhoCorasickKind};
use serde::Deserialize;

#[derive(Deserialize)]
struct Record {
    text: String,
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let terms = fs::read_to_string(arguments.next().unwrap()).unwrap();
    let terms: Vec<&str> = terms.lines().collect();
    // The fastest kind for thousands of patterns: the tables of a DFA are far larger than the caches.
    let kind = Some(AhoCorasickKind::ContiguousNFA);
    let automaton = AhoCorasick::builder().kind(kind).build(&terms).unwrap();
    let mut counts = vec![(0_u64, 0_u64); terms.len()];
    let mut last = vec![0_u64; terms.len()];
    let mut document = 0;
    for path in arguments {
        for line in BufReader::with_capacity(1 << 20, File::open(path).unwrap()).lines() {
            let record: Record = serde_json::from_str(&line.unwrap()).unwrap();
            document += 1;
            for found in automaton.find_overlapping_iter(&record.text) {
                let term = found.pattern().as_usize();
                counts[term].0 += 1;
                if last[term] != document {
                    last[term] = document;
                    counts[term].1 += 1;
                }
            }
        }
    }
    for (occurrences, documents) in counts {
        println!("{occurrences}\t{documents}");
    }
}
