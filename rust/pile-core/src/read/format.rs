//! Which kind of shard a file is, by its name.

use std::{fs, path::Path};

use crate::{Error, Result};

/// A kind of shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    /// JSON, one record a line; a file named `.json` is refused if it is one array.
    Lines { packing: Packing, is_json: bool },
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

const PACKINGS: [(&str, Packing); 3] = [
    (".zst", Packing::Zstd),
    (".zstd", Packing::Zstd),
    (".gz", Packing::Gzip),
];

impl Format {
    /// The format of a path: by its name in any letter case, and JSON lines for a pipe that the shell named.
    pub(super) fn of(path: &Path) -> Result<Self> {
        if path.as_os_str() == STANDARD_INPUT {
            return Ok(Self::lines(Packing::StandardInput));
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
            return Ok(Self::lines(Packing::Plain));
        }
        let what = "not a shard by its name: .jsonl, .ndjson, .json and .txt are read, plain or \
                    compressed (.zst, .zstd, .gz), and .parquet";
        Err(Error::malformed(path, what))
    }

    fn lines(packing: Packing) -> Self {
        Self::Lines {
            packing,
            is_json: false,
        }
    }

    fn named(path: &Path) -> Option<Self> {
        let name = path.as_os_str().to_string_lossy().to_ascii_lowercase();
        if name.ends_with(".parquet") {
            return Some(Self::Parquet);
        }
        let packed = PACKINGS
            .iter()
            .find_map(|(suffix, packing)| Some((name.strip_suffix(suffix)?, *packing)));
        let (name, packing) = packed.unwrap_or((&name, Packing::Plain));
        match name.rsplit_once('.')?.1 {
            "jsonl" | "ndjson" => Some(Self::lines(packing)),
            "json" => Some(Self::Lines {
                packing,
                is_json: true,
            }),
            "txt" => Some(Self::Text(packing)),
            _ => None,
        }
    }
}

/// Whether a path is a pipe or a device rather than a file: its bytes can be read once.
fn is_stream(path: &Path) -> bool {
    use std::os::unix::fs::FileTypeExt as _;
    // What a shell's `<(...)` is called; such a path may also be a file that was redirected.
    if path.starts_with("/dev/fd")
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
    fn names_are_known_in_any_case_and_compression() {
        let lines = |packing| Some(Format::lines(packing));
        for (suffix, packing) in [
            ("", Packing::Plain),
            (".gz", Packing::Gzip),
            (".zst", Packing::Zstd),
            (".zstd", Packing::Zstd),
        ] {
            for name in ["a.jsonl", "a.ndjson", "A.JSONL", "x.y.JsonL"] {
                let name = format!("{name}{suffix}");
                assert_eq!(Format::named(Path::new(&name)), lines(packing), "{name}");
                let name = name.to_ascii_uppercase();
                assert_eq!(Format::named(Path::new(&name)), lines(packing), "{name}");
            }
            let text = Format::named(Path::new(&format!("a.txt{suffix}")));
            assert_eq!(text, Some(Format::Text(packing)));
            let json = Format::named(Path::new(&format!("a.json{suffix}")));
            assert_eq!(
                json,
                Some(Format::Lines {
                    packing,
                    is_json: true
                })
            );
        }
        assert_eq!(Format::named(Path::new("a.Parquet")), Some(Format::Parquet));
        for name in [
            "a",
            "a.gz",
            "a.zst",
            "jsonl",
            "a.parquet.gz",
            "a.csv",
            "a.jsonl.bz2",
        ] {
            assert_eq!(Format::named(Path::new(name)), None, "{name}");
        }
    }
}
