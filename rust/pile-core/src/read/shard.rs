//! Reads a shard as blocks of whole records.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{
    BadRecords, Block, Rules,
    block::BlockContent,
    format::ShardFormat,
    lines::{LineReader, LineRun, read_whole},
    parquet::ParquetReader,
    stream::Stream,
};
use crate::{Error, Result, progress::StopRequest};

/// Target size of a block. A longer record makes a longer block.
pub(super) const BLOCK_BYTES: usize = 1 << 20;

/// Figures of a shard that was read to its end.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct ShardSummary {
    /// Size of the stored file in bytes.
    pub bytes: u64,
    /// SHA-256 of the stored file.
    pub sha256: String,
    /// Number of records.
    pub n_records: u64,
    /// Decompressed bytes of the records.
    pub n_text_bytes: u64,
}

/// Reads a shard from its start, block by block.
pub struct ShardReader {
    path: PathBuf,
    rules: Arc<Rules>,
    source: ShardSource,
    next_record: u64,
    next_byte: u64,
    is_done: bool,
}

enum ShardSource {
    Lines(LineReader),
    Text(Stream),
    Parquet(Box<ParquetReader>),
}

impl ShardReader {
    /// Opens a shard with the default rules; `-` is standard input.
    ///
    /// # Errors
    /// The name is not that of a shard, or the file cannot be opened.
    pub fn open(path: &Path) -> Result<Self> {
        Self::with_rules(path, Arc::default())
    }

    /// Opens a shard.
    ///
    /// # Errors
    /// As [`Self::open`], or a parquet file without a column of texts of that name.
    pub fn with_rules(path: &Path, rules: Arc<Rules>) -> Result<Self> {
        Self::until_stop(path, rules, StopRequest::default())
    }

    /// Opens a shard for a job. If it is a pipe, a request to stop ends the wait for its bytes.
    pub(super) fn until_stop(path: &Path, rules: Arc<Rules>, stop: StopRequest) -> Result<Self> {
        let stream =
            |compression| Stream::until_stop(path, compression, rules.max_record, stop.clone());
        let source = match ShardFormat::of(path)? {
            ShardFormat::Lines {
                compression,
                is_json,
            } => ShardSource::Lines(LineReader::new(stream(compression)?, is_json)),
            ShardFormat::Text(compression) => ShardSource::Text(stream(compression)?),
            ShardFormat::Parquet => {
                ShardSource::Parquet(Box::new(ParquetReader::open(path, &rules)?))
            }
        };
        Ok(Self {
            path: path.to_owned(),
            rules,
            source,
            next_record: 0,
            next_byte: 0,
            is_done: false,
        })
    }

    /// Stored bytes that were read so far.
    #[must_use]
    pub fn bytes_read(&self) -> u64 {
        match &self.source {
            ShardSource::Lines(lines) => lines.stream().raw().n_bytes(),
            ShardSource::Text(stream) => stream.raw().n_bytes(),
            ShardSource::Parquet(parquet) => parquet.raw().n_bytes(),
        }
    }

    /// The next block of whole records, or `None` at the end.
    ///
    /// # Errors
    /// The file cannot be read, is truncated, or does not have the format that its name says.
    pub fn next_block(&mut self) -> Result<Option<Block>> {
        if self.is_done {
            return Ok(None);
        }
        // Called for a record that exceeds the limit. If the rules refuse it, the rest of it is not read.
        let (path, max_record, skips) = (
            &self.path,
            self.rules.max_record,
            self.rules.bad_records == BadRecords::Skip,
        );
        let (record, first_byte) = (self.next_record, self.next_byte);
        let allow_skip = || match skips {
            true => Ok(()),
            false => Err(bad_record(path, record, first_byte, &too_long(max_record))),
        };
        let (bytes, content) = match &mut self.source {
            ShardSource::Lines(lines) => {
                let (run, is_last) = lines.next(path, max_record, allow_skip)?;
                self.is_done = is_last;
                match run {
                    LineRun::Lines(bytes) => (bytes, BlockContent::Lines),
                    LineRun::TooLong(skipped) => (Vec::new(), BlockContent::TooLong(skipped)),
                }
            }
            ShardSource::Text(stream) => {
                self.is_done = true;
                match read_whole(path, stream, max_record, allow_skip)? {
                    Ok(bytes) => (bytes, BlockContent::File),
                    Err(skipped) => (Vec::new(), BlockContent::TooLong(skipped)),
                }
            }
            ShardSource::Parquet(parquet) => {
                let found = parquet.next_texts()?;
                (found.bytes, BlockContent::Texts(found.texts))
            }
        };
        let block = Block {
            path: self.path.clone(),
            rules: Arc::clone(&self.rules),
            first_record: self.next_record,
            first_byte: self.next_byte,
            bytes,
            content,
        };
        let n_records = block.n_records();
        if n_records == 0 {
            self.is_done = true;
            return Ok(None);
        }
        self.next_record += n_records;
        self.next_byte += block.n_bytes();
        Ok(Some(block))
    }

    /// Figures of the shard. They are complete after [`Self::next_block`] has returned `None`.
    #[must_use]
    pub fn summary(&self) -> ShardSummary {
        let (bytes, sha256) = match &self.source {
            ShardSource::Lines(lines) => {
                let raw = lines.stream().raw();
                (raw.n_bytes(), raw.sha256())
            }
            ShardSource::Text(stream) => (stream.raw().n_bytes(), stream.raw().sha256()),
            ShardSource::Parquet(parquet) => (parquet.raw().n_bytes(), parquet.raw().sha256()),
        };
        ShardSummary {
            bytes,
            sha256,
            n_records: self.next_record,
            n_text_bytes: self.next_byte,
        }
    }
}

/// The reason why a record that exceeds the limit is bad.
pub(super) fn too_long(max_record: u64) -> String {
    format!("a record of more than {max_record} bytes, the most that max-record allows")
}

/// The error for a bad record that ends the job.
pub(super) fn bad_record(path: &Path, record: u64, first_byte: u64, what: &str) -> Error {
    let advice = "on-bad-record skip leaves such records out";
    Error::format(
        path,
        first_byte,
        format!("record {record}: {what}; {advice}"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn read_all(path: &Path) -> Result<(Vec<String>, ShardSummary)> {
        let mut reader = ShardReader::open(path)?;
        let mut texts = Vec::new();
        while let Some(block) = reader.next_block()? {
            for document in block.documents() {
                texts.push(document?.1.text.into_owned());
            }
        }
        Ok((texts, reader.summary()))
    }

    fn lines(n: usize) -> Vec<u8> {
        let lines = (0..n).map(|i| format!("{{\"text\": \"{i} {}\"}}\n", "x".repeat(i % 977)));
        lines.collect::<String>().into_bytes()
    }

    #[test]
    fn plain_and_compressed_give_the_same_documents() {
        let folder = tempfile::tempdir().unwrap();
        let (plain, packed) = (
            folder.path().join("a.jsonl"),
            folder.path().join("a.jsonl.zst"),
        );
        let bytes = lines(5000);
        fs::write(&plain, &bytes).unwrap();
        // Two frames, as `cat a.zst b.zst` makes them.
        let (head, tail) = bytes.split_at(bytes.len() / 3);
        let frames = [
            zstd::encode_all(head, 3).unwrap(),
            zstd::encode_all(tail, 3).unwrap(),
        ];
        fs::write(&packed, frames.concat()).unwrap();
        let (a, b) = (read_all(&plain).unwrap(), read_all(&packed).unwrap());
        assert_eq!(a.0, b.0);
        assert_eq!(a.0.len(), 5000);
        assert_eq!(
            (b.1.n_records, b.1.n_text_bytes),
            (5000, bytes.len() as u64)
        );
        assert_eq!(b.1.bytes, fs::metadata(&packed).unwrap().len());
    }

    #[test]
    fn a_line_longer_than_a_block_is_one_document() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.jsonl");
        let long = "y".repeat(3 * BLOCK_BYTES + 5);
        fs::write(
            &path,
            format!("{{\"text\":\"{long}\"}}\n{{\"text\":\"b\"}}"),
        )
        .unwrap();
        let (texts, summary) = read_all(&path).unwrap();
        assert_eq!(texts, [long, "b".to_owned()]);
        assert_eq!(summary.n_records, 2);
    }

    #[test]
    fn a_truncated_file_is_reported_as_such() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.jsonl.zst");
        let mut bytes = zstd::encode_all(&lines(2000)[..], 3).unwrap();
        bytes.truncate(bytes.len() - 9);
        fs::write(&path, bytes).unwrap();
        let message = read_all(&path).unwrap_err().to_string();
        assert!(
            message.contains("cut short") && message.contains("a.jsonl.zst, byte"),
            "{message}"
        );
    }

    #[test]
    fn other_bytes_are_not_zstd() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.jsonl.zst");
        fs::write(&path, "{\"text\": \"plain after all\"}\n").unwrap();
        let message = read_all(&path).unwrap_err().to_string();
        assert!(message.contains("not zstd"), "{message}");
        assert!(message.contains("end without .zst"), "{message}");
    }

    #[test]
    fn a_file_with_the_suffix_of_another_compression_is_to_be_renamed() {
        let folder = tempfile::tempdir().unwrap();
        let packed = zstd::encode_all(&lines(9)[..], 3).unwrap();
        for (name, bytes, advice) in [
            ("a.jsonl.zst", gzip(&lines(9)), "rename it to end with .gz"),
            ("a.jsonl.gz", packed, "rename it to end with .zst"),
        ] {
            let path = folder.path().join(name);
            fs::write(&path, bytes).unwrap();
            let message = read_all(&path).unwrap_err().to_string();
            assert!(message.contains(advice), "{message}");
        }
    }

    #[test]
    fn an_empty_file_has_no_documents() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.jsonl");
        fs::write(&path, "").unwrap();
        assert_eq!(read_all(&path).unwrap().0.len(), 0);
    }

    #[test]
    fn an_unknown_name_is_an_error() {
        let message = ShardReader::open(Path::new("a.csv"))
            .err()
            .unwrap()
            .to_string();
        assert!(message.contains("not a shard by its name"), "{message}");
    }

    #[test]
    fn gzip_members_are_read_one_after_the_other() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.jsonl.gz");
        let bytes = lines(5000);
        let (head, tail) = bytes.split_at(bytes.len() / 3);
        let packed = [gzip(head), gzip(tail)].concat();
        fs::write(&path, &packed).unwrap();
        let (texts, summary) = read_all(&path).unwrap();
        assert_eq!((texts.len(), summary.bytes), (5000, packed.len() as u64));
        assert_eq!(summary.n_text_bytes, bytes.len() as u64);
        // Zeros after a member are padding, even if there are more of them than fit into the buffer.
        let zeros = vec![0; 300_000];
        let padded = [gzip(head), zeros.clone(), gzip(tail), zeros].concat();
        fs::write(&path, &padded).unwrap();
        let (texts, summary) = read_all(&path).unwrap();
        assert_eq!((texts.len(), summary.bytes), (5000, padded.len() as u64));
        fs::write(&path, [&*packed, b"x"].concat()).unwrap();
        assert!(read_all(&path).is_err());
        for (keep, what) in [(packed.len() - 5, "cut short"), (0, "cut short")] {
            fs::write(&path, &packed[..keep]).unwrap();
            let message = read_all(&path).unwrap_err().to_string();
            assert!(message.contains(what), "{message}");
        }
        fs::write(&path, &bytes).unwrap();
        let message = read_all(&path).unwrap_err().to_string();
        assert!(message.contains("not gzip, or damaged"), "{message}");
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        std::io::Write::write_all(&mut packed, bytes).unwrap();
        packed.finish().unwrap()
    }

    #[test]
    fn a_text_file_is_one_document() {
        let folder = tempfile::tempdir().unwrap();
        let text = "two\nlines\n".repeat(300_000);
        let path = folder.path().join("a.txt");
        fs::write(&path, &text).unwrap();
        assert_eq!(read_all(&path).unwrap().0, std::slice::from_ref(&text));
        let path = folder.path().join("a.txt.gz");
        fs::write(&path, gzip(text.as_bytes())).unwrap();
        assert_eq!(read_all(&path).unwrap().0, [text]);
    }

    /// Writes a file with a column `text` and two row groups. Every seventh row is null.
    fn write_parquet(path: &Path, n_rows: usize) {
        use parquet::{
            data_type::{ByteArray, ByteArrayType},
            file::writer::SerializedFileWriter,
            schema::parser::parse_message_type,
        };
        let schema = "message m { required int64 id; optional binary text (STRING);
            optional group meta { optional binary pile_set_name (STRING); } }";
        let schema = Arc::new(parse_message_type(schema).unwrap());
        let file = fs::File::create(path).unwrap();
        let mut writer = SerializedFileWriter::new(file, schema, Arc::default()).unwrap();
        for rows in [0..n_rows / 3, n_rows / 3..n_rows] {
            let mut group = writer.next_row_group().unwrap();
            let has_text = |row: &usize| row % 7 != 6;
            let mut column = group.next_column().unwrap().unwrap();
            let ids: Vec<i64> = rows.clone().map(|row| row as i64).collect();
            let ids_column = column.typed::<parquet::data_type::Int64Type>();
            ids_column.write_batch(&ids, None, None).unwrap();
            column.close().unwrap();
            let texts = rows
                .clone()
                .filter(has_text)
                .map(|row| format!("{row} é {}", "x".repeat(row % 977)));
            let texts: Vec<ByteArray> = texts
                .map(|text| ByteArray::from(text.into_bytes()))
                .collect();
            let levels: Vec<i16> = rows.clone().map(|row| has_text(&row).into()).collect();
            let mut column = group.next_column().unwrap().unwrap();
            let text_column = column.typed::<ByteArrayType>();
            text_column
                .write_batch(&texts, Some(&levels), None)
                .unwrap();
            column.close().unwrap();
            let names: Vec<ByteArray> = rows
                .clone()
                .filter(has_text)
                .map(|_| ByteArray::from("S"))
                .collect();
            let levels: Vec<i16> = rows.map(|row| if has_text(&row) { 2 } else { 1 }).collect();
            let mut column = group.next_column().unwrap().unwrap();
            let name_column = column.typed::<ByteArrayType>();
            name_column
                .write_batch(&names, Some(&levels), None)
                .unwrap();
            column.close().unwrap();
            group.close().unwrap();
        }
        writer.close().unwrap();
    }

    #[test]
    fn the_rows_of_a_parquet_file_are_documents() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.parquet");
        write_parquet(&path, 6000);
        let rules = Rules {
            bad_records: crate::read::BadRecords::Skip,
            ..Rules::default()
        };
        let mut reader = ShardReader::with_rules(&path, Arc::new(rules)).unwrap();
        let (mut n_documents, mut n_bad, mut n_blocks, mut byte) = (0, 0, 0, 0);
        while let Some(block) = reader.next_block().unwrap() {
            n_blocks += 1;
            let bad = block.each_document(|at, document| {
                assert!(
                    document.text.starts_with(&format!("{} é x", at.record))
                        || at.record % 977 == 0
                );
                assert_eq!(document.subset.as_deref(), Some("S"));
                assert_eq!(
                    (at.byte_start, at.byte_length),
                    (byte, document.text.len() as u64)
                );
                byte += at.byte_length;
                n_documents += 1;
                Ok(())
            });
            let bad = bad.unwrap();
            assert!(
                bad.first
                    .iter()
                    .all(|bad| bad.record % 7 == 6 && bad.reason.contains("null"))
            );
            n_bad += bad.n;
        }
        assert_eq!((n_documents, n_bad), (6000 - 6000 / 7, 6000 / 7));
        assert!(n_blocks > 1);
        let summary = reader.summary();
        assert_eq!((summary.n_records, summary.n_text_bytes), (6000, byte));
        let mut whole = crate::io::HashingReader::new(fs::File::open(&path).unwrap());
        std::io::copy(&mut whole, &mut std::io::sink()).unwrap();
        assert_eq!(
            (summary.bytes, summary.sha256),
            (whole.n_bytes(), whole.sha256())
        );
    }

    #[test]
    fn errors_of_parquet_files_say_what_is_wrong() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.parquet");
        write_parquet(&path, 300);
        let message = |text_field: &str| {
            let rules = Rules {
                text_field: text_field.to_owned(),
                ..Rules::default()
            };
            let reader = ShardReader::with_rules(&path, Arc::new(rules));
            reader
                .and_then(|mut reader| reader.next_block())
                .unwrap_err()
                .to_string()
        };
        let missing = message("content");
        assert!(
            missing.starts_with("no column \"content\"; there are: id, text, meta ("),
            "{missing}"
        );
        let number = message("id");
        assert!(
            number.starts_with("column \"id\" is INT64, expected strings ("),
            "{number}"
        );
        let group = message("meta");
        assert!(
            group.contains("is a list or struct, expected strings"),
            "{group}"
        );
        let good = fs::read(&path).unwrap();
        for keep in [0, 3, good.len() / 2, good.len() - 1] {
            fs::write(&path, &good[..keep]).unwrap();
            assert!(message("text").contains("it is none, or cut short"));
        }
        for at in (0..good.len()).step_by(37) {
            let mut bad = good.clone();
            bad[at] ^= 0x55;
            fs::write(&path, bad).unwrap();
            // Some damage cannot be detected, as the file has no checksums.
            let _ = read_all(&path);
        }
    }

    #[test]
    fn skipped_records_are_counted_and_the_first_listed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.jsonl");
        let lines = (0..500).map(|i| {
            if i % 2 == 0 {
                "{\"text\": \"a\"}\n"
            } else {
                "no\n"
            }
        });
        fs::write(&path, lines.collect::<String>()).unwrap();
        let refused = read_all(&path).unwrap_err().to_string();
        assert!(refused.contains("record 1: not JSON"), "{refused}");
        let rules = Rules {
            bad_records: crate::read::BadRecords::Skip,
            ..Rules::default()
        };
        let mut reader = ShardReader::with_rules(&path, Arc::new(rules)).unwrap();
        let block = reader.next_block().unwrap().unwrap();
        let bad = block.each_document(|_, _| Ok(())).unwrap();
        assert_eq!((bad.n, bad.first.len()), (250, 100));
        assert_eq!((bad.first[1].record, bad.first[1].byte), (3, 31));
        assert!(bad.first[1].reason.starts_with("not JSON: expected"));
    }
}
