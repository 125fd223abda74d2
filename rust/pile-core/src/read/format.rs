//! The kinds of shards, recognized by the name of the file.

use std::{fs, path::Path};

use crate::{Error, Result};

/// A kind of shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ShardFormat {
    /// JSON, one record per line. `is_json`: the file is named `.json`, which may also be a single array;
    /// that is an error.
    Lines {
        compression: Compression,
        is_json: bool,
    },
    /// One document.
    Text(Compression),
    /// A column of texts.
    Parquet,
}

/// How a file is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Compression {
    None,
    Zstd,
    Gzip,
    /// Standard input, which is not compressed.
    StandardInput,
}

/// The path that means standard input.
pub(super) const STANDARD_INPUT: &str = "-";

const COMPRESSIONS: [(&str, Compression); 3] = [
    (".zst", Compression::Zstd),
    (".zstd", Compression::Zstd),
    (".gz", Compression::Gzip),
];

impl ShardFormat {
    /// The format of a path, by its name in any letter case. A pipe whose name has no known ending is JSON lines.
    pub(super) fn of(path: &Path) -> Result<Self> {
        if path.as_os_str() == STANDARD_INPUT {
            return Ok(Self::lines(Compression::StandardInput));
        }
        if let Some(format) = Self::named(path) {
            return match format {
                Self::Parquet if is_stream(path) => {
                    let what = "a pipe: parquet is read from its end, so it must be a file";
                    Err(Error::malformed(path, what))
                }
                format => Ok(format),
            };
        }
        if is_stream(path) {
            return Ok(Self::lines(Compression::None));
        }
        let what = "not a shard by its name: .jsonl, .ndjson, .json and .txt are read, plain or \
                    compressed (.zst, .zstd, .gz), and .parquet";
        Err(Error::malformed(path, what))
    }

    fn lines(compression: Compression) -> Self {
        Self::Lines {
            compression,
            is_json: false,
        }
    }

    /// The format by the name alone.
    pub(super) fn named(path: &Path) -> Option<Self> {
        let name = path.as_os_str().to_string_lossy().to_ascii_lowercase();
        if name.ends_with(".parquet") {
            return Some(Self::Parquet);
        }
        let compressed = COMPRESSIONS
            .iter()
            .find_map(|(suffix, compression)| Some((name.strip_suffix(suffix)?, *compression)));
        let (name, compression) = compressed.unwrap_or((&name, Compression::None));
        match name.rsplit_once('.')?.1 {
            "jsonl" | "ndjson" => Some(Self::lines(compression)),
            "json" => Some(Self::Lines {
                compression,
                is_json: true,
            }),
            "txt" => Some(Self::Text(compression)),
            _ => None,
        }
    }
}

/// Whether a path is standard input, a pipe or a device, whose bytes can be read only once.
pub(super) fn is_stream(path: &Path) -> bool {
    use std::os::unix::fs::FileTypeExt as _;
    // A shell's `<(...)` has such a name. If a file was redirected, the path is treated as a pipe all the same.
    if path == Path::new(STANDARD_INPUT)
        || path.starts_with("/dev/fd")
        || path.starts_with("/proc/self/fd")
        || path == Path::new("/dev/stdin")
    {
        return true;
    }
    fs::metadata(path).is_ok_and(|found| {
        let kind = found.file_type();
        kind.is_fifo() || kind.is_char_device()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_are_recognized_in_any_case_and_compression() {
        let lines = |compression| Some(ShardFormat::lines(compression));
        for (suffix, compression) in [
            ("", Compression::None),
            (".gz", Compression::Gzip),
            (".zst", Compression::Zstd),
            (".zstd", Compression::Zstd),
        ] {
            for name in ["a.jsonl", "a.ndjson", "A.JSONL", "x.y.JsonL"] {
                let name = format!("{name}{suffix}");
                assert_eq!(
                    ShardFormat::named(Path::new(&name)),
                    lines(compression),
                    "{name}"
                );
                let name = name.to_ascii_uppercase();
                assert_eq!(
                    ShardFormat::named(Path::new(&name)),
                    lines(compression),
                    "{name}"
                );
            }
            let text = ShardFormat::named(Path::new(&format!("a.txt{suffix}")));
            assert_eq!(text, Some(ShardFormat::Text(compression)));
            let json = ShardFormat::named(Path::new(&format!("a.json{suffix}")));
            assert_eq!(
                json,
                Some(ShardFormat::Lines {
                    compression,
                    is_json: true
                })
            );
        }
        assert_eq!(
            ShardFormat::named(Path::new("a.Parquet")),
            Some(ShardFormat::Parquet)
        );
        for name in [
            "a",
            "a.gz",
            "a.zst",
            "jsonl",
            "a.parquet.gz",
            "a.csv",
            "a.jsonl.bz2",
        ] {
            assert_eq!(ShardFormat::named(Path::new(name)), None, "{name}");
        }
    }
}
