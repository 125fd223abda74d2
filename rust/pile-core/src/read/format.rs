//! Which kind of shard a file is, by its name.

use std::path::Path;

use crate::{Error, Result};

/// A kind of shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    /// JSON, one record a line.
    Lines(Packing),
    /// One document.
    Text(Packing),
    /// A column of texts.
    Parquet,
}

/// How a file is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Packing {
    Plain,
    Zstd,
    Gzip,
    /// Standard input, plain.
    StandardInput,
}

/// The path that stands for standard input.
pub(super) const STANDARD_INPUT: &str = "-";

const SUFFIXES: [(&str, Format); 7] = [
    (".jsonl", Format::Lines(Packing::Plain)),
    (".jsonl.zst", Format::Lines(Packing::Zstd)),
    (".jsonl.gz", Format::Lines(Packing::Gzip)),
    (".parquet", Format::Parquet),
    (".txt", Format::Text(Packing::Plain)),
    (".txt.zst", Format::Text(Packing::Zstd)),
    (".txt.gz", Format::Text(Packing::Gzip)),
];

impl Format {
    pub(super) fn of(path: &Path) -> Result<Self> {
        if path.as_os_str() == STANDARD_INPUT {
            return Ok(Self::Lines(Packing::StandardInput));
        }
        let name = path.as_os_str().to_string_lossy();
        let known = SUFFIXES.iter().find(|(suffix, _)| name.ends_with(suffix));
        known.map(|(_, format)| *format).ok_or_else(|| {
            let what = "not a shard by its name: .jsonl, .jsonl.zst, .jsonl.gz, .parquet, .txt, \
                        .txt.zst and .txt.gz are read";
            Error::malformed(path, what)
        })
    }
}
