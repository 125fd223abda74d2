//! Arbitrary bytes as a shard of each format, and the same lines plain and compressed.
#![no_main]

use std::path::Path;

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use pile_core::read::ShardReader;

#[derive(Debug, Arbitrary)]
enum Input<'a> {
    /// The bytes of a file with one of the names in [`FORMATS`].
    Raw(u8, &'a [u8]),
    /// Lines, which are compressed into three frames, split at two offsets.
    Lines(u16, u16, &'a [u8]),
}

const FORMATS: [&str; 5] = ["a.jsonl", "a.jsonl.zst", "a.jsonl.gz", "a.parquet", "a.txt"];

/// The documents of a shard, as record, first byte, length and text, and its total size or the error that
/// ended it.
type Read = (Vec<(u64, u64, u64, String)>, Result<u64, String>);

fn read(path: &Path) -> Read {
    let mut documents = Vec::new();
    let end = read_into(path, &mut documents).map_err(|err| err.to_string());
    (documents, end)
}

fn read_into(path: &Path, documents: &mut Vec<(u64, u64, u64, String)>) -> pile_core::Result<u64> {
    let mut reader = ShardReader::open(path)?;
    while let Some(block) = reader.next_block()? {
        for document in block.documents() {
            let (at, document) = document?;
            documents.push((
                at.record,
                at.byte_start,
                at.byte_length,
                document.text.into(),
            ));
        }
    }
    Ok(reader.summary().n_text_bytes)
}

/// Checks that records are numbered from 0 and follow each other, lines with a line end in between.
fn check_positions(name: &str, (documents, end): &Read) {
    let line_end = u64::from(name.contains("jsonl"));
    let mut next_byte = 0;
    for (i, (record, start, length, _)) in documents.iter().enumerate() {
        assert_eq!((*record, *start), (i as u64, next_byte));
        next_byte += length + line_end;
    }
    if let Ok(n_bytes) = end {
        // The last line may have no end.
        assert!(next_byte == *n_bytes || next_byte == n_bytes + line_end);
    }
}

fuzz_target!(|input: Input<'_>| {
    match input {
        Input::Raw(format, bytes) => {
            let name = FORMATS[usize::from(format) % FORMATS.len()];
            check_positions(name, &read(&pile_fuzz::file(name, bytes)));
        }
        Input::Lines(first, second, bytes) => {
            let plain = read(&pile_fuzz::file("a.jsonl", bytes));
            check_positions("a.jsonl", &plain);
            let (head, rest) = bytes.split_at(usize::from(first) % (bytes.len() + 1));
            let (middle, tail) = rest.split_at(usize::from(second) % (rest.len() + 1));
            let frames =
                [head, middle, tail].map(|part| zstd::encode_all(part, 1).expect("in memory"));
            let packed = read(&pile_fuzz::file("a.jsonl.zst", &frames.concat()));
            let without_name =
                |end: Result<u64, String>| end.map_err(|what| what.replace(".zst", ""));
            assert_eq!((packed.0, without_name(packed.1)), plain);
        }
    }
});
