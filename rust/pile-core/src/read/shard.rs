//! Cuts one shard into blocks of whole lines.

use std::{
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
};

use super::Block;
use crate::{Error, Result, io::HashingReader};

/// Bytes a block aims at; a longer line makes a longer block.
const BLOCK_BYTES: usize = 1 << 20;

/// The largest zstd window that is accepted (2 GiB, `zstd --long=31`).
const WINDOW_LOG_MAX: u32 = 31;

/// What was read of a shard, once it is at its end.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct ShardSummary {
    /// Bytes of the file as it is on disk.
    pub bytes: u64,
    /// SHA-256 of the file as it is on disk.
    pub sha256: String,
    /// Lines.
    pub n_records: u64,
    /// Bytes of the lines, decompressed.
    pub n_text_bytes: u64,
}

/// Reads a shard from its start, block by block.
pub struct ShardReader {
    path: PathBuf,
    source: Source,
    /// The unfinished line at the end of the block before.
    rest: Vec<u8>,
    next_record: u64,
    next_byte: u64,
    is_done: bool,
}

enum Source {
    Plain(HashingReader<File>),
    Zstd(Box<zstd::Decoder<'static, io::BufReader<HashingReader<File>>>>),
}

impl Source {
    fn open(path: &Path) -> io::Result<Self> {
        let file = HashingReader::new(File::open(path)?);
        if path.extension().is_some_and(|e| e == "zst") {
            let mut decoder =
                zstd::Decoder::with_buffer(io::BufReader::with_capacity(1 << 17, file))?;
            decoder.window_log_max(WINDOW_LOG_MAX)?;
            Ok(Self::Zstd(Box::new(decoder)))
        } else {
            Ok(Self::Plain(file))
        }
    }

    fn raw(&self) -> &HashingReader<File> {
        match self {
            Self::Plain(file) => file,
            Self::Zstd(decoder) => decoder.get_ref().get_ref(),
        }
    }
}

impl Read for Source {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(file) => file.read(buffer),
            Self::Zstd(decoder) => decoder.read(buffer),
        }
    }
}

/// Whether a file's name says that it is a shard this reader knows.
#[must_use]
fn is_known(path: &Path) -> bool {
    let name = path.as_os_str().to_string_lossy();
    name.ends_with(".jsonl") || name.ends_with(".jsonl.zst")
}

impl ShardReader {
    /// Opens a shard.
    ///
    /// # Errors
    /// The name ends in neither `.jsonl` nor `.jsonl.zst`, or the file cannot be opened.
    pub fn open(path: &Path) -> Result<Self> {
        if !is_known(path) {
            let what = "not a shard by its name: .jsonl and .jsonl.zst are read";
            return Err(Error::malformed(path, what));
        }
        Ok(Self {
            path: path.to_owned(),
            source: Source::open(path).map_err(|err| Error::io(path, err))?,
            rest: Vec::new(),
            next_record: 0,
            next_byte: 0,
            is_done: false,
        })
    }

    /// Bytes of the file read so far, as they are on disk.
    #[must_use]
    pub fn bytes_read(&self) -> u64 {
        self.source.raw().n_bytes()
    }

    /// The next block of whole lines, or `None` at the end.
    ///
    /// # Errors
    /// The file cannot be read, is cut short, or is not zstd.
    pub fn next_block(&mut self) -> Result<Option<Block>> {
        if self.is_done {
            return Ok(None);
        }
        let mut bytes = std::mem::take(&mut self.rest);
        let lines_end = self.fill(&mut bytes)?;
        self.rest = bytes.split_off(lines_end);
        if bytes.is_empty() {
            return Ok(None);
        }
        let block = Block::new(self.path.clone(), self.next_record, self.next_byte, bytes);
        self.next_record += block.n_records();
        self.next_byte += block.n_bytes();
        Ok(Some(block))
    }

    /// Reads until `bytes` holds at least a block and a line's end, or the file is at its end;
    /// returns where the last whole line ends.
    fn fill(&mut self, bytes: &mut Vec<u8>) -> Result<usize> {
        let mut searched = bytes.len();
        loop {
            let before = bytes.len();
            let wanted = (BLOCK_BYTES.saturating_sub(before)).max(BLOCK_BYTES / 4) as u64;
            let read = (&mut self.source).take(wanted).read_to_end(bytes);
            let n = read.map_err(|err| self.explain(err))?;
            if n == 0 {
                self.is_done = true;
                return Ok(bytes.len());
            }
            if bytes.len() >= BLOCK_BYTES {
                if let Some(at) = bytes[searched..].iter().rposition(|b| *b == b'\n') {
                    return Ok(searched + at + 1);
                }
                searched = bytes.len();
            }
        }
    }

    fn explain(&self, err: io::Error) -> Error {
        match (&self.source, err.kind()) {
            (Source::Zstd(_), io::ErrorKind::UnexpectedEof) => Error::format(
                &self.path,
                self.bytes_read(),
                "the file ends in the middle of a zstd frame: it is cut short, get it again",
            ),
            (Source::Zstd(_), io::ErrorKind::Other) => Error::format(
                &self.path,
                self.bytes_read(),
                format!("not a zstd stream, or a damaged one: {err}"),
            ),
            _ => Error::io(&self.path, err),
        }
    }

    /// What was read, once [`Self::next_block`] has returned `None`.
    #[must_use]
    pub fn summary(&self) -> ShardSummary {
        let raw = self.source.raw();
        ShardSummary {
            bytes: raw.n_bytes(),
            sha256: raw.sha256(),
            n_records: self.next_record,
            n_text_bytes: self.next_byte,
        }
    }
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
    fn a_truncated_file_is_named_as_one() {
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
        assert!(message.contains("not a zstd stream"), "{message}");
    }

    #[test]
    fn an_empty_file_has_no_documents() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.jsonl");
        fs::write(&path, "").unwrap();
        assert_eq!(read_all(&path).unwrap().0.len(), 0);
    }

    #[test]
    fn an_unknown_name_is_refused() {
        let message = ShardReader::open(Path::new("a.csv"))
            .err()
            .unwrap()
            .to_string();
        assert!(message.contains(".jsonl.zst are read (a.csv)"), "{message}");
    }
}
