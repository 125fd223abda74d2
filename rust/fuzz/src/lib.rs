//! Shared by the fuzz targets: files, a small trained tokenizer, and references.

pub mod indexed;
pub mod record;
pub mod trained;

use std::{
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
    process,
};

/// The path of a file in the folder of this process. Each input replaces the files of the previous one.
#[must_use]
pub fn path(name: &str) -> PathBuf {
    let files = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/files");
    files.join(process::id().to_string()).join(name)
}

/// Writes a file and returns its path. The file must not be mapped.
///
/// It is overwritten in place: some file systems flush a file that was truncated to nothing and rewritten.
#[must_use]
pub fn file(name: &str, bytes: &[u8]) -> PathBuf {
    let path = path(name);
    let written = write_over(&path, bytes).or_else(|_| {
        fs::create_dir_all(path.parent().expect("it is in a folder"))?;
        write_over(&path, bytes)
    });
    written.expect("room for small files");
    path
}

fn write_over(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = File::options()
        .write(true)
        .create(true)
        .truncate(false)
        .open(path)?;
    file.write_all(bytes)?;
    file.set_len(bytes.len() as u64)
}

/// Splits an input into the contents of several files, at lines of `----`. The seeds are written so.
#[must_use]
pub fn parts<const N: usize>(input: &[u8]) -> [&[u8]; N] {
    const SEPARATOR: &[u8] = b"\n----\n";
    let mut rest = input;
    std::array::from_fn(|i| {
        let at = rest
            .windows(SEPARATOR.len())
            .position(|window| window == SEPARATOR);
        match at {
            Some(at) if i + 1 < N => {
                let part = &rest[..at];
                rest = &rest[at + SEPARATOR.len()..];
                part
            }
            _ => std::mem::take(&mut rest),
        }
    })
}

/// Joins parts so that [`parts`] splits them again.
#[must_use]
pub fn join(parts: &[&[u8]]) -> Vec<u8> {
    parts.join(&b"\n----\n"[..])
}
