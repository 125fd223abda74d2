//! Arbitrary bytes as an `.npy` file: what can be opened is the same after writing and reading it again.
#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use pile_core::order::npy::{self, Array, Element};

fn check<T: Element + PartialEq + std::fmt::Debug>(path: &Path, width: u64) {
    let Ok(array) = Array::<T>::open(path, width) else {
        return;
    };
    assert_eq!(npy::descr(path).expect("it opened"), T::DESCR);
    assert_eq!(array.items().len() as u64, array.n_rows() * width);
    assert!(array.row(array.n_rows()).is_none());
    let mut written = Vec::new();
    npy::write(&mut written, array.items(), width as usize).expect("in memory");
    let copy =
        Array::<T>::open(&pile_fuzz::file("copy.npy", &written), width).expect("we wrote it");
    assert_eq!(copy.items(), array.items());
}

fuzz_target!(|bytes: &[u8]| {
    let path = pile_fuzz::file("a.npy", bytes);
    for width in [1, 2] {
        check::<i32>(&path, width);
        check::<u32>(&path, width);
        check::<i64>(&path, width);
    }
});
