//! Cuts a stream of lines into runs of whole ones; memory is bounded by the longest record that is read.

use std::path::Path;

use super::{shard::BLOCK_BYTES, stream::Stream};
use crate::{Error, Result};

/// Lines of a shard that are not read yet.
pub(super) struct Lines {
    stream: Stream,
    /// What was read behind the last line that was given.
    rest: Vec<u8>,
    /// Whether the file is called `.json`, which other tools give to one array, too.
    is_json: bool,
    is_started: bool,
}

/// The next lines.
pub(super) enum Run {
    /// Whole lines; the last one of a shard may have no end.
    Lines(Vec<u8>),
    /// One line that is too long to be read, and was passed over.
    TooLong(TooLong),
}

/// A record that was passed over for its length.
#[derive(Debug, Clone, Copy)]
pub(super) struct TooLong {
    /// Its bytes, the line's end excluded.
    pub length: u64,
    /// Whether a line's end follows.
    pub has_end: bool,
}

impl Lines {
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

    /// Reads at least a block and up to a line's end; also whether that was all. A line of more than
    /// `max_record` bytes is not kept: `pass_over` says whether to read on behind it.
    pub(super) fn next(
        &mut self,
        path: &Path,
        max_record: u64,
        pass_over: impl FnOnce() -> Result<()>,
    ) -> Result<(Run, bool)> {
        let mut bytes = Vec::with_capacity(BLOCK_BYTES.max(2 * self.rest.len()));
        bytes.append(&mut self.rest);
        let mut searched = 0;
        loop {
            let wanted = BLOCK_BYTES.saturating_sub(bytes.len()).max(BLOCK_BYTES / 4);
            let is_last = self.stream.read(wanted, &mut bytes)? < wanted;
            if !self.is_started {
                self.is_started = true;
                check_start(path, &bytes)?;
                check_lines_start(path, &bytes, self.is_json)?;
            }
            if is_last {
                return Ok((Run::Lines(bytes), true));
            }
            if let Some(at) = memchr::memrchr(b'\n', &bytes[searched..]) {
                let end = searched + at + 1;
                self.rest.extend_from_slice(&bytes[end..]);
                bytes.truncate(end);
                return Ok((Run::Lines(bytes), false));
            }
            searched = bytes.len();
            if searched as u64 > max_record {
                drop(bytes);
                pass_over()?;
                let too_long = self.pass_over(searched as u64)?;
                return Ok((Run::TooLong(too_long), !too_long.has_end));
            }
        }
    }

    /// Reads up to the end of a line of which `length` bytes were read.
    fn pass_over(&mut self, mut length: u64) -> Result<TooLong> {
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
                return Ok(TooLong { length, has_end });
            }
        }
    }
}

/// All of a stream, or its length if that is more than `max_record`; the bytes are not kept then.
pub(super) fn whole(
    path: &Path,
    stream: &mut Stream,
    max_record: u64,
    pass_over: impl FnOnce() -> Result<()>,
) -> Result<std::result::Result<Vec<u8>, TooLong>> {
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
    pass_over()?;
    drop(bytes);
    let mut passed = Vec::with_capacity(BLOCK_BYTES);
    loop {
        passed.clear();
        let n = stream.read(BLOCK_BYTES, &mut passed)?;
        length += n as u64;
        if n < BLOCK_BYTES {
            let has_end = false;
            return Ok(Err(TooLong { length, has_end }));
        }
    }
}

/// Refuses a file that is not UTF-8 by its first bytes: each of its lines would be a bad record.
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

/// Refuses what is no lines of JSON: UTF-16 without a mark, compressed data, an array.
fn check_lines_start(path: &Path, bytes: &[u8], is_json: bool) -> Result<()> {
    let packed = match bytes {
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
        "compressed with {packed}, expected lines of JSON; decompress it, or give the file the name \
         ending of {packed}"
    );
    Err(Error::format(path, 0, what))
}

fn starts_array(bytes: &[u8]) -> bool {
    let bytes = bytes.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(bytes);
    bytes.trim_ascii_start().starts_with(b"[")
}
