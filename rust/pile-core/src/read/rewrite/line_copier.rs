//! Copies the lines of a stream, a block at a time, and passes single lines to the caller.

use std::path::Path;

use crate::{
    Error, Result,
    read::{
        shard::{BLOCK_BYTES, too_long},
        stream::Stream,
    },
};

/// The remaining lines of a stream.
pub(super) struct LineCopier<'a, A> {
    path: &'a Path,
    stream: Stream,
    /// Called with the number of stored bytes that were read since the last call.
    advance: A,
    n_reported: u64,
    buffer: Vec<u8>,
    /// The bytes of the buffer before this one were copied or taken.
    at: usize,
    is_last: bool,
    /// Number of the current line.
    record: u64,
    /// Whether bytes of the current line were copied.
    is_inside: bool,
}

impl<'a, A: FnMut(u64) -> Result<()>> LineCopier<'a, A> {
    pub fn new(path: &'a Path, stream: Stream, advance: A) -> Self {
        Self {
            path,
            stream,
            advance,
            n_reported: 0,
            buffer: Vec::new(),
            at: 0,
            is_last: false,
            record: 0,
            is_inside: false,
        }
    }

    /// Passes the bytes of the lines before `record` to `write`. The shard must have them.
    pub fn copy_before(
        &mut self,
        record: u64,
        mut write: impl FnMut(&[u8]) -> Result<()>,
    ) -> Result<()> {
        while self.record < record {
            if !self.copy_from_buffer(record, &mut write)? && !self.fill()? {
                return Err(self.ends_before(record));
            }
        }
        Ok(())
    }

    /// Passes the bytes of all remaining lines to `write`. Returns the number of lines of the stream.
    pub fn copy_all(&mut self, mut write: impl FnMut(&[u8]) -> Result<()>) -> Result<u64> {
        while self.copy_from_buffer(u64::MAX, &mut write)? || self.fill()? {}
        Ok(self.record + u64::from(self.is_inside))
    }

    /// Copies bytes of the buffer up to line `record`. Returns false if there are none.
    fn copy_from_buffer(
        &mut self,
        record: u64,
        write: &mut impl FnMut(&[u8]) -> Result<()>,
    ) -> Result<bool> {
        let rest = &self.buffer[self.at..];
        let Some(last) = rest.last() else {
            return Ok(false);
        };
        let ends = || memchr::memchr_iter(b'\n', rest);
        let n_lines = record - self.record;
        let nth = usize::try_from(n_lines - 1)
            .ok()
            .and_then(|n| ends().nth(n));
        let n_bytes = match nth {
            Some(end) => {
                self.record = record;
                self.is_inside = false;
                end + 1
            }
            None => {
                self.record += ends().count() as u64;
                self.is_inside = *last != b'\n';
                rest.len()
            }
        };
        write(&rest[..n_bytes])?;
        self.at += n_bytes;
        Ok(true)
    }

    /// Takes the current line, which may have up to `max_record` bytes, and its end: a line feed, or nothing at the
    /// end of the stream.
    pub fn take(&mut self, max_record: u64) -> Result<(&[u8], &[u8])> {
        let mut searched = 0;
        let line_end = loop {
            let rest = &self.buffer[self.at..];
            if let Some(found) = memchr::memchr(b'\n', &rest[searched..]) {
                break searched + found;
            }
            searched = rest.len();
            if searched as u64 > max_record || !self.fill()? {
                break searched;
            }
        };
        if line_end as u64 > max_record {
            let what = format!("record {}: {}", self.record, too_long(max_record));
            return Err(Error::malformed(self.path, what));
        }
        let rest = &self.buffer[self.at..];
        if rest.is_empty() {
            return Err(self.ends_before(self.record));
        }
        let end = rest.len().min(line_end + 1);
        self.at += end;
        self.record += 1;
        Ok((&rest[..line_end], &rest[line_end..end]))
    }

    pub fn stream(&self) -> &Stream {
        &self.stream
    }

    fn ends_before(&self, record: u64) -> Error {
        let what = format!("ends before record {record}: the shard has changed");
        Error::malformed(self.path, what)
    }

    /// Reads more after the rest of the buffer. Returns false at the end of the stream.
    fn fill(&mut self) -> Result<bool> {
        if self.is_last {
            return Ok(false);
        }
        self.buffer.drain(..self.at);
        self.at = 0;
        let n = self.stream.read(BLOCK_BYTES, &mut self.buffer)?;
        self.is_last = n < BLOCK_BYTES;
        let n_read = self.stream.raw().n_bytes();
        (self.advance)(n_read - self.n_reported)?;
        self.n_reported = n_read;
        Ok(n > 0)
    }
}
