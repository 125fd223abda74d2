//! Orders of the size of the Pile: no 32-bit overflow, and no more memory than the arrays. The lengths of the
//! documents are synthetic, and there is no token file.
//!
//! The largest orders need gigabytes and minutes, so these tests run only on request:
//! `cargo test --release -p pile-core --test order_scale -- --ignored --test-threads 1 --nocapture`
#![allow(clippy::unwrap_used)]
#![allow(clippy::print_stdout)] // prints measurements

use std::time::Instant;

use pile_core::{
    Result,
    order::{
        Amount, IndexedSamples, OrderConfig, PackedArrays, TrainingOrder, build, npy::Numbers,
        packed,
    },
    progress::Progress,
    tokens::{Span, TokenSource, TokenType},
};

const SEQ_LENGTH: u64 = 2048;

/// Pseudorandom lengths from 0 to `2 * mean`.
fn lengths(n_documents: usize, mean: u64) -> Vec<i32> {
    let of = |i: usize| (i as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 40;
    let length = |i| {
        let x = of(i) % 4096;
        (x * mean * 2 / 4095) as i32
    };
    (0..n_documents).map(length).collect()
}

fn at(numbers: &Numbers, i: usize) -> u64 {
    match numbers {
        Numbers::U8(items) => u64::from(items[i]),
        Numbers::I32(items) => items[i] as u64,
        Numbers::U32(items) => u64::from(items[i]),
        Numbers::I64(items) => items[i] as u64,
    }
}

/// Checks that each document occurs once per epoch, that each sample starts at its multiple of `seq_length` in the
/// documents strung together, and that the shuffle is a permutation.
fn assert_is_right(built: &PackedArrays, lengths: &[i32], seq_length: u64) {
    let mut n_copies = vec![0_u8; lengths.len()];
    for document in &built.doc_idx {
        n_copies[*document as usize] += 1;
    }
    assert!(n_copies.iter().all(|n| u64::from(*n) == built.n_epochs));
    let n_samples = built.shuffle_idx.len() as u64;
    assert_eq!(
        built.n_epochs * built.tokens_per_epoch,
        lengths
            .iter()
            .map(|l| u64::try_from(*l).unwrap())
            .sum::<u64>()
            * built.n_epochs
    );
    let mut first = 0_u64;
    let mut sample = 1_u64;
    for (entry, document) in built.doc_idx.iter().enumerate() {
        let end = first + lengths[*document as usize] as u64;
        while sample <= n_samples && sample * seq_length < end {
            let found = [0, 1].map(|k| at(&built.sample_idx, 2 * sample as usize + k));
            assert_eq!(
                found,
                [entry as u64, sample * seq_length - first],
                "{sample}"
            );
            sample += 1;
        }
        first = end;
    }
    assert_eq!(sample, n_samples + 1, "a sample starts after all documents");
    assert_eq!([0, 1].map(|k| at(&built.sample_idx, k)), [0, 0]);
    let mut is_taken = vec![0_u64; n_samples.div_ceil(64) as usize];
    for i in 0..n_samples as usize {
        let taken = at(&built.shuffle_idx, i);
        assert!(taken < n_samples);
        is_taken[(taken / 64) as usize] |= 1 << (taken % 64);
    }
    let n_taken: u64 = is_taken.iter().map(|w| u64::from(w.count_ones())).sum();
    assert_eq!(n_taken, n_samples);
}

/// Documents of these lengths, without tokens.
struct LengthsOnly(Vec<i32>);

impl TokenSource for LengthsOnly {
    fn n_documents(&self) -> u64 {
        self.0.len() as u64
    }

    fn document_length(&self, document: u64) -> Result<u64> {
        Ok(self.0[document as usize] as u64)
    }

    fn token_type(&self) -> TokenType {
        TokenType::I32
    }

    fn read(&self, _: &[Span], _: &mut [u8]) -> Result<usize> {
        unreachable!("no tokens are read")
    }
}

#[test]
fn documents_of_two_billion_tokens_are_cut_at_the_right_tokens() {
    // 3.9 * 10^12 tokens: the total exceeds 32 bits, and offsets within a document need all 31.
    let lengths: Vec<i32> = (0..1800).map(|i| i32::MAX - i * i % 1013).collect();
    let (seq_length, n_samples) = (3_000_017, 1_200_000);
    let all = 0..lengths.len();
    let amount = Amount::Samples(n_samples);
    let built = packed(&lengths, all, seq_length, amount, 7, &Progress::default()).unwrap();
    assert_eq!(built.n_epochs, 1);
    assert_is_right(&built, &lengths, seq_length);
    let folder = tempfile::tempdir().unwrap();
    let config = OrderConfig::packed(folder.path().join("o"), seq_length, n_samples, 7);
    build(&lengths, None, &config, &Progress::default()).unwrap();
    let samples = IndexedSamples::open(&config.stem, config.layout()).unwrap();
    let order = TrainingOrder::new(Box::new(samples), LengthsOnly(lengths), 0);
    for i in (0..order.n_samples()).step_by(997) {
        let spans = order.spans(i).unwrap();
        let n: u64 = spans.iter().map(|span| span.length).sum();
        assert_eq!(n, seq_length + 1);
        for span in spans {
            assert!(span.start + span.length <= i32::MAX as u64);
        }
    }
}

#[test]
fn two_million_documents_in_three_epochs() {
    let lengths = lengths(2_000_000, 300);
    let all = 0..lengths.len();
    let built = packed(
        &lengths,
        all,
        SEQ_LENGTH,
        Amount::Epochs(3),
        1,
        &Progress::default(),
    )
    .unwrap();
    assert_is_right(&built, &lengths, SEQ_LENGTH);
}

fn arrays_bytes(built: &PackedArrays) -> u64 {
    let bytes = |numbers: &Numbers| {
        let width = if matches!(numbers, Numbers::I64(_)) {
            8
        } else {
            4
        };
        numbers.len() as u64 * width
    };
    built.doc_idx.len() as u64 * 4 + bytes(&built.sample_idx) + bytes(&built.shuffle_idx)
}

/// Resident memory in bytes, by its name in `/proc/self/status`.
fn memory(name: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with(name)).unwrap();
    let kib: u64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    kib * 1024
}

fn at_scale(n_documents: usize, mean: u64, n_samples: u64, n_epochs: u64) {
    let lengths = lengths(n_documents, mean);
    // Resets the peak of the resident memory.
    std::fs::write("/proc/self/clear_refs", "5").unwrap();
    let before = memory("VmRSS:");
    let started = Instant::now();
    let all = 0..lengths.len();
    let amount = Amount::Samples(n_samples);
    let built = packed(
        &lengths,
        all,
        SEQ_LENGTH,
        amount,
        1234,
        &Progress::default(),
    )
    .unwrap();
    let seconds = started.elapsed().as_secs_f64();
    let peak = memory("VmHWM:") - before;
    let bytes = arrays_bytes(&built);
    println!(
        "{n_documents} documents, {} samples of {} epochs: {seconds:.1} s, arrays {:.2} GB, peak {:.2} GB without the lengths",
        built.shuffle_idx.len(),
        built.n_epochs,
        bytes as f64 / 1e9,
        peak as f64 / 1e9,
    );
    assert!(
        peak <= bytes + bytes / 10,
        "{peak} bytes for arrays of {bytes}"
    );
    assert_eq!(built.n_epochs, n_epochs);
    assert!(built.shuffle_idx.len() as u64 >= n_samples);
    assert_is_right(&built, &lengths, SEQ_LENGTH);
}

#[test]
#[ignore = "7 GB of memory and a minute"]
fn twenty_million_documents_and_three_hundred_million_samples() {
    at_scale(20_000_000, 995, 300_000_000, 31);
}

/// Pythia's 147 million samples are one and a half epochs; the index has two whole epochs.
#[test]
#[ignore = "6 GB of memory and some minutes"]
fn the_pile() {
    at_scale(210_000_000, 957, 147_164_160, 2);
}
