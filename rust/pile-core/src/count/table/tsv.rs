//! Tab-separated text, one n-gram a line.

use std::{
    fs::File,
    io::{BufWriter, Write},
    path::{Path, PathBuf},
};

use super::{Gram, GramSink, Keys, ids, text_of};
use crate::{Error, Result, io::create};

pub(super) struct TsvTable<'a> {
    path: PathBuf,
    file: BufWriter<File>,
    keys: Keys<'a>,
    has_groups: bool,
    line: Vec<u8>,
    scratch: Vec<u8>,
}

/// Appends a text on one line and in one column: backslash, tab and line ends as `\\`, `\t`, `\n`, `\r`.
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

fn put_number(line: &mut Vec<u8>, mut number: u64) {
    let mut digits = [0; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    line.extend_from_slice(&digits[at..]);
}

impl<'a> TsvTable<'a> {
    pub(super) fn create(path: &Path, keys: Keys<'a>, groups: &[String]) -> Result<Self> {
        let file = create(path)?;
        let mut table = Self {
            path: path.to_owned(),
            file: BufWriter::with_capacity(1 << 18, file),
            keys,
            has_groups: !groups.is_empty(),
            line: Vec::new(),
            scratch: Vec::new(),
        };
        table.line.extend_from_slice(match table.keys {
            Keys::Words => b"words",
            Keys::Tokens(None) => b"tokens",
            Keys::Tokens(Some(_)) => b"tokens\ttext",
        });
        table.line.extend_from_slice(b"\tcount");
        for name in groups {
            table.line.push(b'\t');
            put_escaped(&mut table.line, name);
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

impl GramSink for TsvTable<'_> {
    fn take(&mut self, gram: &Gram<'_>) -> Result<()> {
        match self.keys {
            // Words of shards are UTF-8.
            Keys::Words => put_escaped(&mut self.line, &String::from_utf8_lossy(gram.key)),
            Keys::Tokens(table) => {
                for (i, id) in ids(gram.key).enumerate() {
                    if i > 0 {
                        self.line.push(b' ');
                    }
                    put_number(&mut self.line, u64::from(id));
                }
                if let Some(table) = table {
                    self.line.push(b'\t');
                    put_escaped(&mut self.line, &text_of(gram.key, table, &mut self.scratch));
                }
            }
        }
        self.line.push(b'\t');
        put_number(&mut self.line, gram.count);
        if self.has_groups {
            for count in gram.by_group {
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
