//! Arbitrary arrays of an order over a dataset of fixed lengths: every sample is complete or an error.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pile_core::{
    order::TrainingOrder,
    tokens::{TokenDataset, TokenType, write_idx},
};
use pile_fuzz::{file, parts};

const SEQ_LENGTH: u64 = 4;
const LENGTHS: [i32; 5] = [5, 0, 7, 1, 9];

fn dataset() -> TokenDataset {
    let mut idx = Vec::new();
    write_idx(&mut idx, TokenType::U16, &LENGTHS).expect("in memory");
    let _ = file("d.idx", &idx);
    let bin = file("d.bin", &[0; 44]);
    TokenDataset::open(&bin.with_file_name("d")).expect("we wrote it")
}

fuzz_target!(|input: &[u8]| {
    let arrays: [&[u8]; 3] = parts(input);
    for (name, bytes) in ["o_doc_idx.npy", "o_sample_idx.npy", "o_shuffle_idx.npy"]
        .iter()
        .zip(arrays)
    {
        let _ = file(name, bytes);
    }
    let Ok(order) = TrainingOrder::open(&pile_fuzz::path("o"), SEQ_LENGTH, dataset()) else {
        return;
    };
    for sample in 0..order.n_samples() {
        let Ok(spans) = order.spans(sample) else {
            continue;
        };
        assert_eq!(
            spans.iter().map(|span| span.length).sum::<u64>(),
            SEQ_LENGTH + 1
        );
        let mut batch = [0; 2 * (SEQ_LENGTH as usize + 1)];
        let _ = order.read_batch(sample, 1, &mut batch);
    }
    assert!(order.spans(order.n_samples()).is_err());
});
