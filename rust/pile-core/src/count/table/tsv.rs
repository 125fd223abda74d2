//! Tab-separated text with one n-gram per line.

use std::{
    fs::File,
    io::{BufWriter, Write},
    path::{Path, PathBuf},
};

use super::{KeyColumns, Ngram, NgramSink, ids_of, text_of};
use crate::{Error, Result, bytes::decimal_digits, io::create};

/// Writes n-grams to a file.
pub(super) struct TsvTable<'a> {
    path: PathBuf,
    file: BufWriter<File>,
    keys: KeyColumns<'a>,
    has_groups: bool,
    line: Vec<u8>,
    scratch: Vec<u8>,
}

/// Appends `text` with backslash, tab, line feed and carriage return as `\\`, `\t`, `\n` and `\r`, so that it is one
/// field.
fn put_escaped(line: &mut Vec<u8>, text: &str) {
    for byte in text.bytes() {
        match byte {
            b'\\' => line.extend_from_slice(b"\\\\"),
            b'\t' => line.extend_from_slice(b"\\t"),
            b'\n' => line.extend_from_slice(b"\\n"),
            b'\r' => line.extend_from_slice(b"\\r"),
            byte => line.push(byte),
        }
    }
}

/// `text` as [`put_escaped`] writes it.
pub(super) fn escaped(text: &str) -> String {
    let mut line = Vec::with_capacity(text.len());
    put_escaped(&mut line, text);
    String::from_utf8_lossy(&line).into_owned()
}

fn put_number(line: &mut Vec<u8>, number: u64) {
    line.extend_from_slice(decimal_digits(number, &mut [0; 20]));
}

impl<'a> TsvTable<'a> {
    pub(super) fn create(path: &Path, keys: KeyColumns<'a>, columns: &[String]) -> Result<Self> {
        let file = create(path)?;
        let mut table = Self {
            path: path.to_owned(),
            file: BufWriter::with_capacity(1 << 18, file),
            keys,
            has_groups: !columns.is_empty(),
            line: Vec::new(),
            scratch: Vec::new(),
        };
        table.line.extend_from_slice(match table.keys {
            KeyColumns::Words => b"words",
            KeyColumns::Tokens(None) => b"tokens",
            KeyColumns::Tokens(Some(_)) => b"tokens\ttext",
        });
        table.line.extend_from_slice(b"\tcount");
        // The names are escaped already.
        for name in columns {
            table.line.push(b'\t');
            table.line.extend_from_slice(name.as_bytes());
        }
        table.write_line()?;
        Ok(table)
    }

    fn write_line(&mut self) -> Result<()> {
        self.line.push(b'\n');
        let written = self.file.write_all(&self.line);
        self.line.clear();
        written.map_err(|err| Error::io(&self.path, err))
    }
}

impl NgramSink for TsvTable<'_> {
    fn take(&mut self, ngram: &Ngram<'_>) -> Result<()> {
        match self.keys {
            // Nothing is lost: words are from documents, whose text is UTF-8.
            KeyColumns::Words => put_escaped(&mut self.line, &String::from_utf8_lossy(ngram.key)),
            KeyColumns::Tokens(token_bytes) => {
                for (i, id) in ids_of(ngram.key).enumerate() {
                    if i > 0 {
                        self.line.push(b' ');
                    }
                    put_number(&mut self.line, u64::from(id));
                }
                if let Some(token_bytes) = token_bytes {
                    self.line.push(b'\t');
                    let text = text_of(ngram.key, token_bytes, &mut self.scratch)?;
                    put_escaped(&mut self.line, &text);
                }
            }
        }
        self.line.push(b'\t');
        put_number(&mut self.line, ngram.count);
        if self.has_groups {
            for count in ngram.by_group {
                self.line.push(b'\t');
                put_number(&mut self.line, *count);
            }
        }
        self.write_line()
    }

    fn finish(mut self: Box<Self>) -> Result<()> {
        let finished = self.file.flush();
        let finished = finished.and_then(|()| self.file.get_ref().sync_all());
        finished.map_err(|err| Error::io(&self.path, err))
    }
}
