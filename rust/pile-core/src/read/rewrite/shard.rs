//! Writes one shard again.

use std::{
    fs::File,
    io::{self, Read, Write},
    path::Path,
};

use super::{
    RewrittenShard,
    changes::{RecordChange, ShardChanges},
    compressor::{Compressor, Levels},
    line_copier::LineCopier,
    parquet,
};
use crate::{
    Error, Result,
    io::{GrowingFile, HashingReader},
    read::{
        Document, Rules, cut_record,
        format::{Compression, ShardFormat},
        lines::read_whole,
        mark_record,
        record::{utf8, without_marks},
        record_edit::cut_text,
        shard::{BLOCK_BYTES, too_long},
        stream::Stream,
    },
};

/// Writes a shard with its changes.
pub(super) struct ShardRewriter<'a> {
    pub path: &'a Path,
    pub rules: &'a Rules,
    pub changes: ShardChanges<'a>,
    pub levels: Levels,
    /// Called with the number of stored bytes that were read since the last call.
    pub advance: &'a mut dyn FnMut(u64) -> Result<()>,
}

/// Figures of a shard and the file that was written, if any.
pub(super) type Rewritten = (RewrittenShard, Option<GrowingFile>);

impl ShardRewriter<'_> {
    /// Writes the file that `create` opens.
    pub fn run(self, create: impl FnOnce() -> Result<GrowingFile>) -> Result<Rewritten> {
        let format = ShardFormat::of(self.path)?;
        if self.changes.next_record().is_none() {
            return self.copy(create()?);
        }
        match format {
            ShardFormat::Lines { compression, .. } => self.lines(compression, create()?),
            ShardFormat::Text(compression) => self.text(compression, create),
            ShardFormat::Parquet => parquet::rewrite(self, create()?),
        }
    }

    /// Copies a shard without changes.
    fn copy(self, mut out: GrowingFile) -> Result<Rewritten> {
        let file = File::open(self.path).map_err(|err| Error::io(self.path, err))?;
        let mut reader = HashingReader::new(file);
        let mut buffer = vec![0; BLOCK_BYTES];
        loop {
            let n = match reader.read(&mut buffer) {
                Ok(0) => break,
                Ok(n) => n,
                Err(err) if err.kind() == io::ErrorKind::Interrupted => continue,
                Err(err) => return Err(Error::io(self.path, err)),
            };
            out.push(&buffer[..n])?;
            (self.advance)(n as u64)?;
        }
        let done = RewrittenShard::of(self.path, reader.n_bytes(), reader.sha256());
        Ok((done, Some(out)))
    }

    /// Writes a shard of JSON lines.
    fn lines(mut self, compression: Compression, out: GrowingFile) -> Result<Rewritten> {
        let out_path = out.path().to_owned();
        let fail = |err| Error::io(&out_path, err);
        let mut out = Compressor::new(out, compression, self.levels).map_err(fail)?;
        let stream = Stream::open(self.path, compression, self.rules.max_record)?;
        let mut lines = LineCopier::new(self.path, stream, self.advance);
        let mut done = RewrittenShard::of(self.path, 0, String::new());
        let mut edited = Vec::new();
        while let Some(record) = self.changes.next_record() {
            lines.copy_before(record, |bytes| out.write_all(bytes).map_err(fail))?;
            let (line, line_end) = lines.take(self.rules.max_record)?;
            let Some(change) = self.changes.take(record)? else {
                continue;
            };
            edited.clear();
            edit(line, &change, self.rules, &mut edited, &mut done)
                .map_err(|what| Error::malformed(self.path, format!("record {record}: {what}")))?;
            if change != RecordChange::Remove {
                edited.extend_from_slice(line_end);
            }
            out.write_all(&edited).map_err(fail)?;
        }
        let n_records = lines.copy_all(|bytes| out.write_all(bytes).map_err(fail))?;
        done.read(lines.stream());
        done.n_kept = Some(n_records - done.n_removed);
        let out = out.finish().map_err(fail)?;
        Ok((done, Some(out)))
    }

    /// Writes a shard that is one document.
    fn text(
        mut self,
        compression: Compression,
        create: impl FnOnce() -> Result<GrowingFile>,
    ) -> Result<Rewritten> {
        let fail = |record: u64, what: String| {
            Error::malformed(self.path, format!("record {record}: {what}"))
        };
        let max_record = self.rules.max_record;
        let mut stream = Stream::open(self.path, compression, max_record)?;
        let refused = || fail(0, too_long(max_record));
        let read = read_whole(self.path, &mut stream, max_record, || Err(refused()))?;
        let bytes = read.map_err(|_| refused())?;
        (self.advance)(stream.raw().n_bytes())?;
        let mut done = RewrittenShard::of(self.path, 0, String::new());
        done.read(&stream);
        let mut file = Some(bytes);
        while let Some(record) = self.changes.next_record() {
            let change = self.changes.take(record)?;
            if record > 0 {
                return Err(fail(
                    record,
                    "the file is one document, record 0".to_owned(),
                ));
            }
            let whole = file.take().unwrap_or_default();
            let text = utf8(&whole).map_err(|what| fail(record, what))?;
            let (text, marks) = (without_marks(text), text.len() - without_marks(text).len());
            match change {
                Some(RecordChange::Remove) => {
                    done.n_removed += 1;
                    done.n_text_bytes_removed += text.len() as u64;
                }
                Some(RecordChange::Cut(ranges)) => {
                    let mut rest = "\u{FEFF}".repeat(marks / '\u{FEFF}'.len_utf8());
                    let n = cut_text(text, &ranges, &mut rest);
                    done.n_text_bytes_removed += n.map_err(|what| fail(record, what))?;
                    done.n_cut += 1;
                    file = Some(rest.into_bytes());
                }
                Some(RecordChange::Mark { .. }) | None => {
                    let what = "a text file has no place for a mark; use JSON lines";
                    return Err(fail(record, what.to_owned()));
                }
            }
        }
        done.n_kept = Some(u64::from(file.is_some()));
        let Some(bytes) = file else {
            return Ok((done, None));
        };
        let out = create()?;
        let out_path = out.path().to_owned();
        let fail = |err| Error::io(&out_path, err);
        let mut out = Compressor::new(out, compression, self.levels).map_err(fail)?;
        out.write_all(&bytes).map_err(fail)?;
        Ok((done, Some(out.finish().map_err(fail)?)))
    }
}

/// Appends the changed line to `out`, without its end; nothing if it is removed. The error says why that is impossible.
fn edit(
    line: &[u8],
    change: &RecordChange<'_>,
    rules: &Rules,
    out: &mut Vec<u8>,
    done: &mut RewrittenShard,
) -> std::result::Result<(), String> {
    match change {
        RecordChange::Remove => {
            let mut scratch = Vec::new();
            let document = Document::parse(line, &rules.text_field, &mut scratch)?;
            done.n_removed += 1;
            done.n_text_bytes_removed += document.text.len() as u64;
        }
        RecordChange::Cut(ranges) => {
            done.n_cut += 1;
            done.n_text_bytes_removed += cut_record(line, &rules.text_field, ranges, out)?;
        }
        RecordChange::Mark { key, value } => {
            done.n_marked += 1;
            mark_record(line, &rules.text_field, key, value, out)?;
        }
    }
    Ok(())
}

impl RewrittenShard {
    /// The figures of a shard without changes.
    pub(super) fn of(path: &Path, bytes: u64, sha256: String) -> Self {
        Self {
            path: path.to_string_lossy().into_owned(),
            bytes,
            sha256,
            n_kept: None,
            n_removed: 0,
            n_cut: 0,
            n_marked: 0,
            n_text_bytes_removed: 0,
            output: None,
        }
    }

    /// Sets size and checksum to those of a stream that was read to its end.
    fn read(&mut self, stream: &Stream) {
        self.bytes = stream.raw().n_bytes();
        self.sha256 = stream.raw().sha256();
    }
}
