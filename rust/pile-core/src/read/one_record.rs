//! Reads one record of a shard again.

use std::{
    io::{Seek, SeekFrom},
    path::Path,
    sync::Arc,
};

use super::{
    BadRecords, Document, Rules, ShardReader,
    format::{Compression, ShardFormat, is_stream},
    record::{utf8, without_marks},
    shard::{BLOCK_BYTES, too_long},
    stream::Stream,
};
use crate::{Error, Result, io::open_regular};

/// A record that was read again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundRecord {
    /// The decompressed bytes of the line, without its line feed; of a text file, all its decompressed bytes; of a
    /// parquet row, the bytes of its text.
    pub bytes: Vec<u8>,
    /// The text.
    pub text: String,
}

/// The record of this number, counted as [`super::Position::record`] does. The shard is read up to it.
///
/// # Errors
/// The shard is no regular file, is damaged or ends before the record, or the record is bad.
pub fn read_record(path: &Path, rules: &Rules, record: u64) -> Result<FoundRecord> {
    open_regular(path)?;
    refuse_stream(path)?;
    // Bad records before this one must not stop the search. This one is an error if it is bad: see `Block::record`.
    let rules = Rules {
        bad_records: BadRecords::Skip,
        ..rules.clone()
    };
    let mut reader = ShardReader::with_rules(path, Arc::new(rules))?;
    while let Some(block) = reader.next_block()? {
        if let Some(found) = block.record(record) {
            return found;
        }
    }
    let what = format!(
        "there is no record {record}: the shard has {}",
        reader.summary().n_records
    );
    Err(Error::malformed(path, what))
}

/// The bytes of the record at a position of the decompressed shard. A compressed shard is decompressed up to it.
///
/// # Errors
/// The shard is no regular file, is damaged, ends before the record or is a table; or the record is longer than
/// `max_record`.
pub fn read_record_at(
    path: &Path,
    byte_start: u64,
    byte_length: u64,
    max_record: u64,
) -> Result<Vec<u8>> {
    let compression = match ShardFormat::of(path)? {
        ShardFormat::Lines { compression, .. } | ShardFormat::Text(compression) => compression,
        ShardFormat::Parquet => {
            let what = "a row of a table is not at a byte of the file";
            return Err(Error::malformed(path, what));
        }
    };
    if byte_length > max_record {
        return Err(Error::malformed(path, too_long(max_record)));
    }
    let mut file = open_regular(path)?;
    refuse_stream(path)?;
    let mut n_before = byte_start;
    if compression == Compression::None {
        let fail = |err| Error::io(path, err);
        // The system refuses positions that no file can have. From the end, reading says that the shard ends before
        // the record, as in a compressed shard.
        let n_file = file.metadata().map_err(fail)?.len();
        file.seek(SeekFrom::Start(byte_start.min(n_file)))
            .map_err(fail)?;
        n_before = 0;
    }
    // `max_record` also limits the zstd window that is accepted.
    let mut stream = Stream::of(path, Box::new(file), compression, max_record)?;
    let mut bytes = Vec::new();
    while n_before > 0 {
        bytes.clear();
        n_before -= read_some(path, &mut stream, n_before, &mut bytes)?;
    }
    bytes.clear();
    // Block by block: a wrong length must not allocate a large buffer.
    let mut n_missing = byte_length;
    while n_missing > 0 {
        n_missing -= read_some(path, &mut stream, n_missing, &mut bytes)?;
    }
    Ok(bytes)
}

/// Fails for `-`, even if there is a file of that name, and for other names of streams: a record of a stream cannot be
/// read again.
fn refuse_stream(path: &Path) -> Result<()> {
    match is_stream(path) {
        true => Err(Error::malformed(
            path,
            "not a regular file, and a record of a stream cannot be read again",
        )),
        false => Ok(()),
    }
}

/// Appends up to a block of the next `n_bytes` bytes to `out`. Returns their number.
fn read_some(path: &Path, stream: &mut Stream, n_bytes: u64, out: &mut Vec<u8>) -> Result<u64> {
    let n_bytes = n_bytes.min(BLOCK_BYTES as u64) as usize;
    match stream.read(n_bytes, out)? {
        0 => Err(Error::malformed(
            path,
            "ends before the record: the shard has changed",
        )),
        n => Ok(n as u64),
    }
}

/// The text of a record of the shard at `path`, given the record's bytes; `None` if the record is bad.
#[must_use]
pub fn record_text(path: &Path, record: &[u8], text_field: &str) -> Option<String> {
    match ShardFormat::named(path) {
        Some(ShardFormat::Text(_)) => Some(without_marks(utf8(record).ok()?).to_owned()),
        Some(ShardFormat::Parquet) => Some(utf8(record).ok()?.to_owned()),
        // A pipe is read as JSON lines if its name has no known ending.
        Some(ShardFormat::Lines { .. }) | None => {
            let mut scratch = Vec::new();
            let document = Document::parse(record, text_field, &mut scratch).ok()?;
            Some(document.text.into_owned())
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// Shards of lines, plain and compressed, some of which are bad or long.
    fn shards(folder: &Path) -> (Vec<String>, [std::path::PathBuf; 3]) {
        let line = |i: usize| match i % 50 {
            7 => "bad".to_owned(),
            8 => String::new(),
            _ => format!("{{\"text\": \"{i}\\n{}\"}}\r", "x".repeat(i % 977 * 9)),
        };
        let lines: Vec<String> = (0..2000).map(line).collect();
        let bytes = lines.join("\n");
        let paths = ["a.jsonl", "a.jsonl.zst", "a.jsonl.gz"].map(|name| folder.join(name));
        fs::write(&paths[0], &bytes).unwrap();
        fs::write(&paths[1], zstd::encode_all(bytes.as_bytes(), 1).unwrap()).unwrap();
        let level = flate2::Compression::fast();
        let mut packed = flate2::write::GzEncoder::new(Vec::new(), level);
        std::io::Write::write_all(&mut packed, bytes.as_bytes()).unwrap();
        fs::write(&paths[2], packed.finish().unwrap()).unwrap();
        (lines, paths)
    }

    #[test]
    fn records_are_found_by_number_and_by_position() {
        let folder = tempfile::tempdir().unwrap();
        let (lines, paths) = shards(folder.path());
        let starts = lines.iter().scan(0, |start, line| {
            *start += line.len() + 1;
            Some(*start - line.len() - 1)
        });
        let starts: Vec<usize> = starts.collect();
        for path in &paths {
            for i in [0, 1, 7, 8, 1000, 1998, 1999] {
                let (start, n) = (starts[i] as u64, lines[i].len() as u64);
                let at = read_record_at(path, start, n, n).unwrap();
                assert_eq!(at, lines[i].as_bytes());
                let found = read_record(path, &Rules::default(), i as u64);
                let text = record_text(path, &at, "text");
                if matches!(i, 7 | 8) {
                    let refused = found.unwrap_err().to_string();
                    assert!(refused.contains(&format!("record {i}: ")), "{refused}");
                    assert_eq!(text, None);
                } else {
                    let found = found.unwrap();
                    assert_eq!(found.bytes, at);
                    assert!(found.text.starts_with(&format!("{i}\n")));
                    assert_eq!(text, Some(found.text));
                }
            }
            let missing = read_record(path, &Rules::default(), 2000)
                .unwrap_err()
                .to_string();
            assert!(
                missing.contains("there is no record 2000: the shard has 2000"),
                "{missing}"
            );
            for (start, n) in [
                (starts[1999] as u64, 10_000_000),
                (u64::MAX, 1),
                (1 << 40, 1),
            ] {
                let missing = read_record_at(path, start, n, 1 << 30)
                    .unwrap_err()
                    .to_string();
                assert!(missing.contains("ends before the record"), "{missing}");
            }
            let long = read_record_at(path, 0, 11, 10).unwrap_err().to_string();
            assert!(long.contains("more than 10 bytes"), "{long}");
        }
    }

    #[test]
    fn a_record_that_is_a_file_is_found() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.txt");
        fs::write(&path, "\u{FEFF}one\ntwo\n").unwrap();
        let found = read_record(&path, &Rules::default(), 0).unwrap();
        assert_eq!((&*found.text, found.bytes.len()), ("one\ntwo\n", 11));
        assert_eq!(record_text(&path, &found.bytes, "text"), Some(found.text));
        assert!(read_record(&path, &Rules::default(), 1).is_err());
    }
}
