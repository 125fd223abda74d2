//! A line of a shard, compared with serde_json parsing all of it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pile_fuzz::record::{Expected, expected, parsed};

fuzz_target!(|line: &[u8]| {
    let found = parsed(line);
    match expected(line) {
        Expected::Unknown => {}
        Expected::Refused => assert_eq!(found, None, "accepted a line that serde_json refuses"),
        Expected::Document(text, subset) => assert_eq!(found, Some((text, subset))),
    }
});
