//! The token file, whole or as the shards of one: `NAME-000NN-of-000MM.bin`, MM being the last one's number.
//!
//! Shards are cut at any byte, so a row may stand in two of them; nothing needs to be put together again.

use std::{
    fs,
    path::{Path, PathBuf},
};

use super::dataset::with_suffix;
use crate::{Error, Result, io::Mapped};

/// The bytes of a token file in one or more files, memory-mapped.
#[derive(Debug)]
pub struct Bins {
    files: Vec<Mapped>,
    /// First byte of each file in the whole, and the end of the last.
    starts: Vec<u64>,
}

/// The parts of a shard's name: what stands before, its number, the last one's number.
fn parse_name(name: &str) -> Option<(&str, u64, u64)> {
    let (rest, last) = name.strip_suffix(".bin")?.rsplit_once("-of-")?;
    let (base, number) = rest.rsplit_once('-')?;
    let digits = |text: &str| text.len() >= 5 && text.bytes().all(|b| b.is_ascii_digit());
    if !digits(number) || !digits(last) {
        return None;
    }
    Some((base, number.parse().ok()?, last.parse().ok()?))
}

/// The files of a token file given as its folder, its name with or without `.bin`, or one of its shards.
fn find(path: &Path) -> Result<Vec<PathBuf>> {
    if path.is_file() {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        return match parse_name(&name) {
            Some((base, _, _)) => shards(path.parent().unwrap_or(Path::new("")), Some(base)),
            None => Ok(vec![path.to_owned()]),
        };
    }
    if path.is_dir() {
        return shards(path, None);
    }
    let whole = with_suffix(path, ".bin");
    if whole.is_file() {
        return Ok(vec![whole]);
    }
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let folder = match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    };
    shards(folder, Some(&name))
}

/// The shards in a folder, all of one file and none missing; failing these, its one `.bin`.
fn shards(folder: &Path, base: Option<&str>) -> Result<Vec<PathBuf>> {
    let fail = |err| Error::io(folder, err);
    let mut found: Vec<(String, u64, u64, PathBuf)> = Vec::new();
    let mut whole = Vec::new();
    for entry in fs::read_dir(folder).map_err(fail)? {
        let path = entry.map_err(fail)?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        match parse_name(&name) {
            Some((own, number, last)) if base.is_none_or(|base| base == own) => {
                let own = own.to_owned();
                found.push((own, number, last, path));
            }
            None if base.is_none() && name.ends_with(".bin") => whole.push(path),
            _ => {}
        }
    }
    found.sort();
    let Some((name, _, last, _)) = found.first().cloned() else {
        return match whole.as_slice() {
            [one] => Ok(vec![one.clone()]),
            [] => Err(Error::malformed(folder, no_shards(base))),
            _ => Err(Error::malformed(
                folder,
                format!("{} .bin files, expected one; name it", whole.len()),
            )),
        };
    };
    if let Some((other, ..)) = found.iter().find(|(own, ..)| *own != name) {
        let what = format!("shards of two files, {name} and {other}; name one of them");
        return Err(Error::malformed(folder, what));
    }
    if let Some((_, number, other, _)) = found.iter().find(|(_, _, of, _)| *of != last) {
        let what = format!("{name}: shard {number} is of {other}, shard 0 of {last}");
        return Err(Error::malformed(folder, what));
    }
    let have: Vec<u64> = found.iter().map(|(_, number, ..)| *number).collect();
    // Names come from anyone: the numbers that are there are gone through, not those that are claimed.
    let expected = (0..).take(have.len()).collect::<Vec<u64>>();
    if have != expected || have.last() != Some(&last) {
        let missing = (0..=last).find(|i| have.binary_search(i).is_err());
        let what = match missing {
            Some(i) => format!(
                "{name}: shard {i:05} of {last:05} is missing, {} of {} are here",
                have.len(),
                last.saturating_add(1)
            ),
            None => format!(
                "{name}: shard {} is beyond the last, {last}",
                have[have.len() - 1]
            ),
        };
        return Err(Error::malformed(folder, what));
    }
    Ok(found.into_iter().map(|(.., path)| path).collect())
}

fn no_shards(base: Option<&str>) -> String {
    let name = base.unwrap_or("NAME");
    format!("no {name}.bin and no {name}-00000-of-000NN.bin here")
}

impl Bins {
    /// Opens a token file by its folder, its name with or without `.bin`, or one of its shards.
    ///
    /// # Errors
    /// None is there, a shard is missing or too many or of another size than the others, or unreadable.
    pub fn open(path: &Path) -> Result<Self> {
        let paths = find(path)?;
        let mut files = Vec::with_capacity(paths.len());
        let mut starts = vec![0];
        for path in &paths {
            let file = Mapped::open(path)?;
            starts.push(starts[starts.len() - 1] + file.bytes().len() as u64);
            files.push(file);
        }
        let size = |file: &Mapped| file.bytes().len();
        for file in &files {
            let (own, first) = (size(file), size(&files[0]));
            let is_last = std::ptr::eq(file, &files[files.len() - 1]);
            if own == first || (is_last && own < first) {
                continue;
            }
            let what =
                format!("has {own} bytes, the first shard has {first}: one of the two is damaged");
            return Err(Error::malformed(file.path(), what));
        }
        Ok(Self { files, starts })
    }

    /// Bytes of all files.
    #[must_use]
    pub fn n_bytes(&self) -> u64 {
        self.starts[self.files.len()]
    }

    /// The first file.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.files[0].path()
    }

    /// The bytes of each file.
    pub(super) fn bytes(&self) -> impl Iterator<Item = &[u8]> {
        self.files.iter().map(Mapped::bytes)
    }

    /// Fills `out` with the bytes from `start`.
    ///
    /// # Errors
    /// The files end before.
    pub fn read(&self, start: u64, out: &mut [u8]) -> Result<()> {
        let mut file = self.starts.partition_point(|first| *first <= start) - 1;
        let (mut at, mut done) = (start, 0);
        while done < out.len() {
            let Some(mapped) = self.files.get(file) else {
                let what = format!("ends before byte {}", start + out.len() as u64);
                return Err(Error::format(self.path(), self.n_bytes(), what));
            };
            let n = (self.starts[file + 1] - at).min((out.len() - done) as u64);
            let bytes = mapped.slice(at - self.starts[file], n)?;
            out[done..done + bytes.len()].copy_from_slice(bytes);
            (done, at, file) = (done + bytes.len(), at + n, file + 1);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(files: &[(&str, usize)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (name, n) in files {
            fs::write(folder.path().join(name), vec![1; *n]).unwrap();
        }
        folder
    }

    #[test]
    fn shards_missing_too_many_or_of_two_files_are_told() {
        for (files, told) in [
            (
                &[("a-00000-of-00002.bin", 8), ("a-00002-of-00002.bin", 8)][..],
                "00001 of 00002 is missing",
            ),
            (&[("a-00000-of-00001.bin", 8)], "00001 of 00001 is missing"),
            (
                &[
                    ("a-00000-of-00001.bin", 8),
                    ("a-00001-of-00001.bin", 8),
                    ("a-00002-of-00001.bin", 8),
                ],
                "beyond the last",
            ),
            (
                &[("a-00000-of-00001.bin", 8), ("b-00001-of-00001.bin", 8)],
                "two files",
            ),
            (
                &[("a-00000-of-00001.bin", 8), ("a-00001-of-00002.bin", 8)],
                "is of 2",
            ),
            (
                &[("a-00000-of-00001.bin", 7), ("a-00001-of-00001.bin", 8)],
                "damaged",
            ),
            (
                &[("a-00000-of-99999999999999999999.bin", 7)],
                "expected one|no NAME",
            ),
            (&[], "no NAME.bin"),
        ] {
            let folder = folder(files);
            let Err(err) = Bins::open(folder.path()) else {
                // A number beyond all numbers makes it an ordinary name.
                assert!(told.contains('|'));
                continue;
            };
            assert!(err.to_string().contains(told), "{err}");
        }
    }

    #[test]
    fn bytes_are_read_across_shards() {
        let folder = tempfile::tempdir().unwrap();
        for (i, bytes) in [&[0, 1, 2][..], &[3, 4, 5], &[6]].iter().enumerate() {
            fs::write(folder.path().join(format!("a-0000{i}-of-00002.bin")), bytes).unwrap();
        }
        for path in [
            folder.path().to_owned(),
            folder.path().join("a"),
            folder.path().join("a-00001-of-00002.bin"),
        ] {
            let bins = Bins::open(&path).unwrap();
            for start in 0..7_u8 {
                for end in start..=7 {
                    let mut out = vec![0; usize::from(end - start)];
                    bins.read(u64::from(start), &mut out).unwrap();
                    assert_eq!(out, (start..end).collect::<Vec<_>>());
                }
            }
            assert!(bins.read(5, &mut [0; 3]).is_err());
        }
    }
}
