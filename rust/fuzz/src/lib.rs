//! What the fuzz targets share: files by path, a small trained tokenizer, and oracles.

pub mod indexed;
pub mod record;
pub mod trained;

use std::{
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
    process,
};

/// The path of a file in a folder of this process, where those of the input before are replaced.
#[must_use]
pub fn path(name: &str) -> PathBuf {
    let files = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/files");
    files.join(process::id().to_string()).join(name)
}

/// Writes a file of that name and returns its path; nothing may still have it mapped.
///
/// Written over, not replaced: some file systems bring a file to disk that was cut to nothing and written anew.
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

/// The parts of an input of several files: cut where a line of just `----` stands, as the seeds have it.
#[must_use]
pub fn parts<const N: usize>(input: &[u8]) -> [&[u8]; N] {
    const CUT: &[u8] = b"\n----\n";
    let mut rest = input;
    std::array::from_fn(|i| {
        let at = rest.windows(CUT.len()).position(|window| window == CUT);
        match at {
            Some(at) if i + 1 < N => {
                let part = &rest[..at];
                rest = &rest[at + CUT.len()..];
                part
            }
            _ => std::mem::take(&mut rest),
        }
    })
}

/// Joins parts as [`parts`] cuts them.
#[must_use]
pub fn join(parts: &[&[u8]]) -> Vec<u8> {
    parts.join(&b"\n----\n"[..])
}
