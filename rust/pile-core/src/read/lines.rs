//! Splits a stream into runs of whole lines. The limit on the length of a record bounds the memory.

use std::path::Path;

use super::{shard::BLOCK_BYTES, stream::Stream};
use crate::{Error, Result};

/// The remaining lines of a shard.
pub(super) struct LineReader {
    stream: Stream,
    /// The bytes read after the last line that was returned.
    rest: Vec<u8>,
    /// Whether the file is named `.json`. Such a file may hold a single array, which gets a message of its own.
    is_json: bool,
    is_started: bool,
}

/// The next lines.
pub(super) enum LineRun {
    /// Whole lines. The last line of a shard may lack its end.
    Lines(Vec<u8>),
    /// One line that exceeds the limit and was skipped.
    TooLong(SkippedRecord),
}

/// A record that was skipped because it exceeds the limit.
#[derive(Debug, Clone, Copy)]
pub(super) struct SkippedRecord {
    /// Bytes of the record, without the line end.
    pub length: u64,
    /// Whether a line end follows.
    pub has_end: bool,
}

impl LineReader {
    pub(super) fn new(stream: Stream, is_json: bool) -> Self {
        Self {
            stream,
            rest: Vec::new(),
            is_json,
            is_started: false,
        }
    }

    pub(super) fn stream(&self) -> &Stream {
        &self.stream
    }

    /// Reads about a block, up to the end of a line. Also returns whether the stream has ended. The bytes of
    /// a line that exceeds `max_record` are dropped; `allow_skip` is called first, and its error ends the
    /// reading.
    pub(super) fn next(
        &mut self,
        path: &Path,
        max_record: u64,
        allow_skip: impl FnOnce() -> Result<()>,
    ) -> Result<(LineRun, bool)> {
        // The rest is less than a block, but may leave less space than the loop reads at least. Twice its length
        // avoids a reallocation then.
        let mut bytes = Vec::with_capacity(BLOCK_BYTES.max(2 * self.rest.len()));
        bytes.append(&mut self.rest);
        // Bytes that are known to hold no line end. None at first: the rest after a skipped line may hold whole lines.
        let mut searched = 0;
        loop {
            let to_read = BLOCK_BYTES.saturating_sub(bytes.len()).max(BLOCK_BYTES / 4);
            let is_last = self.stream.read(to_read, &mut bytes)? < to_read;
            if !self.is_started {
                self.is_started = true;
                check_start(path, &bytes)?;
                check_lines_start(path, &bytes, self.is_json)?;
            }
            if is_last {
                return Ok((LineRun::Lines(bytes), true));
            }
            if let Some(at) = memchr::memrchr(b'\n', &bytes[searched..]) {
                let end = searched + at + 1;
                self.rest.extend_from_slice(&bytes[end..]);
                bytes.truncate(end);
                return Ok((LineRun::Lines(bytes), false));
            }
            searched = bytes.len();
            if searched as u64 > max_record {
                drop(bytes);
                allow_skip()?;
                let skipped = self.skip_line(searched as u64)?;
                return Ok((LineRun::TooLong(skipped), !skipped.has_end));
            }
        }
    }

    /// Skips the rest of a line of which `length` bytes were read.
    fn skip_line(&mut self, mut length: u64) -> Result<SkippedRecord> {
        let mut bytes = Vec::with_capacity(BLOCK_BYTES);
        loop {
            bytes.clear();
            let n = self.stream.read(BLOCK_BYTES, &mut bytes)?;
            let end = memchr::memchr(b'\n', &bytes);
            length += end.unwrap_or(n) as u64;
            if let Some(end) = end {
                self.rest.extend_from_slice(&bytes[end + 1..]);
            }
            if end.is_some() || n < BLOCK_BYTES {
                let has_end = end.is_some();
                return Ok(SkippedRecord { length, has_end });
            }
        }
    }
}

/// Reads a whole stream as one record. If it exceeds `max_record`, its bytes are dropped; `allow_skip` is
/// called first, and its error ends the reading.
pub(super) fn read_whole(
    path: &Path,
    stream: &mut Stream,
    max_record: u64,
    allow_skip: impl FnOnce() -> Result<()>,
) -> Result<std::result::Result<Vec<u8>, SkippedRecord>> {
    let mut bytes = Vec::new();
    while stream.read(BLOCK_BYTES, &mut bytes)? == BLOCK_BYTES {
        if bytes.len() as u64 > max_record {
            break;
        }
    }
    check_start(path, &bytes)?;
    let mut length = bytes.len() as u64;
    if length <= max_record {
        return Ok(Ok(bytes));
    }
    allow_skip()?;
    drop(bytes);
    let mut buffer = Vec::with_capacity(BLOCK_BYTES);
    loop {
        buffer.clear();
        let n = stream.read(BLOCK_BYTES, &mut buffer)?;
        length += n as u64;
        if n < BLOCK_BYTES {
            let has_end = false;
            return Ok(Err(SkippedRecord { length, has_end }));
        }
    }
}

/// Fails if the first bytes are a byte-order mark of another encoding than UTF-8: every line would be a bad
/// record.
fn check_start(path: &Path, bytes: &[u8]) -> Result<()> {
    let encoding = match bytes {
        [0xFF, 0xFE, 0, 0, ..] | [0, 0, 0xFE, 0xFF, ..] => "UTF-32",
        [0xFF, 0xFE, ..] | [0xFE, 0xFF, ..] => "UTF-16",
        _ => return Ok(()),
    };
    Err(not_utf8(path, encoding))
}

fn not_utf8(path: &Path, encoding: &str) -> Error {
    let what =
        format!("{encoding} text, expected UTF-8; `iconv -f {encoding} -t UTF-8` converts it");
    Error::format(path, 0, what)
}

/// Fails if the file starts with UTF-16 without a byte-order mark, with compressed data, or with an array.
fn check_lines_start(path: &Path, bytes: &[u8], is_json: bool) -> Result<()> {
    let compression = match bytes {
        [b'{' | b'"', 0, ..] | [0, b'{' | b'"', ..] => return Err(not_utf8(path, "UTF-16")),
        [0x28, 0xB5, 0x2F, 0xFD, ..] => "zstd",
        [0x1F, 0x8B, ..] => "gzip",
        _ if is_json && starts_array(bytes) => {
            let what = "a JSON array, expected one record a line; `jq -c '.[]'` makes lines of it";
            return Err(Error::format(path, 0, what));
        }
        _ => return Ok(()),
    };
    let what = format!(
        "compressed with {compression}, expected lines of JSON; decompress it, or give the file the name \
         ending of {compression}"
    );
    Err(Error::format(path, 0, what))
}

fn starts_array(bytes: &[u8]) -> bool {
    let bytes = bytes.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(bytes);
    bytes.trim_ascii_start().starts_with(b"[")
}
