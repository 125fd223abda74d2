//! A token file, either one `NAME.bin` or its shards `NAME-000NN-of-000MM.bin`, where `MM` is the number of
//! the last shard.
//!
//! Shards are cut at any byte: a document or row may begin in one shard and end in the next. They are read as
//! they are.

use std::{
    borrow::Cow,
    ffi::{OsStr, OsString},
    fs,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

use super::IdxHeader;
use crate::{
    Error, Result,
    io::{Mapped, ReplacementCheck, with_suffix},
};

/// The bytes of a token file or of its shards, memory-mapped.
#[derive(Debug)]
pub struct TokenFiles {
    files: Vec<Mapped>,
    /// Offset of each file's first byte in the whole, then the total size.
    starts: Vec<u64>,
}

/// The base of a shard's name, unless the file has an index of its own, as a part of a dataset has: it is then no shard.
fn shard_base(path: &Path) -> Option<&OsStr> {
    let (base, ..) = parse_name(name_of(path))?;
    (!path.with_extension("idx").exists()).then_some(base)
}

/// Splits the name of a shard into its base, its number and the number of the last shard. The base may be any bytes: two
/// of them may be the same text.
fn parse_name(name: &OsStr) -> Option<(&OsStr, u64, u64)> {
    let text = name.to_string_lossy();
    let (rest, last) = text.strip_suffix(".bin")?.rsplit_once("-of-")?;
    let (base, number) = rest.rsplit_once('-')?;
    let digits = |text: &str| text.len() >= 5 && text.bytes().all(|b| b.is_ascii_digit());
    if base.is_empty() || !digits(number) || !digits(last) {
        return None;
    }
    // What follows the base is ASCII, which has as many bytes in the text as in the name.
    let n_bytes = name.len() - (text.len() - base.len());
    let base = OsStr::from_bytes(&name.as_bytes()[..n_bytes]);
    Some((base, number.parse().ok()?, last.parse().ok()?))
}

fn name_of(path: &Path) -> &OsStr {
    path.file_name().unwrap_or_default()
}

/// The prefix of the dataset to which a token file or shard belongs.
fn prefix_of(path: &Path) -> PathBuf {
    match shard_base(path) {
        Some(base) => path.with_file_name(base),
        None if path.extension().is_some_and(|suffix| suffix == "bin") => path.with_extension(""),
        None => path.to_owned(),
    }
}

fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    }
}

/// The files of the token file that `path` names: by its folder, its name with or without `.bin`, or one of
/// its shards.
fn find(path: &Path) -> Result<Vec<PathBuf>> {
    if path.is_dir() {
        let (shards, whole) = scan(path, None)?;
        return match (shards.as_slice(), whole.as_slice()) {
            ([], [one]) => Ok(vec![one.clone()]),
            ([], []) => Err(Error::malformed(path, no_shards(OsStr::new("NAME")))),
            ([], _) => {
                let what = format!("{} .bin files, expected one; name it", whole.len());
                Err(Error::malformed(path, what))
            }
            _ => Ok(shards),
        };
    }
    // A missing shard or a broken link is an error that `scan` words from the names of the other shards.
    if let Some(base) = shard_base(path) {
        let (shards, _) = scan(folder_of(path), Some(base))?;
        return match shards.as_slice() {
            [] => Err(Error::malformed(folder_of(path), no_shards(base))),
            _ => Ok(shards),
        };
    }
    if path.extension().is_some_and(|suffix| suffix == "bin") || path.is_file() {
        return Ok(vec![path.to_owned()]);
    }
    match find_prefix(path)?.as_slice() {
        [] => Err(Error::malformed(folder_of(path), no_shards(name_of(path)))),
        found => Ok(found.to_vec()),
    }
}

/// `PREFIX.bin`, else its shards; empty if neither exists.
fn find_prefix(prefix: &Path) -> Result<Vec<PathBuf>> {
    let whole = with_suffix(prefix, ".bin");
    if whole.symlink_metadata().is_ok() {
        return Ok(vec![whole]);
    }
    Ok(scan(folder_of(prefix), Some(name_of(prefix)))?.0)
}

/// A shard with the parts of its name. The order of the fields sorts the shards of one file by number.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct NamedShard {
    base: OsString,
    number: u64,
    last_number: u64,
    path: PathBuf,
}

/// The shards in a folder, and its other `.bin` files. With `base`, only the shards with this base.
///
/// # Errors
/// The shards are of several files, or one is missing.
fn scan(folder: &Path, base: Option<&OsStr>) -> Result<(Vec<PathBuf>, Vec<PathBuf>)> {
    let fail = |err| Error::io(folder, err);
    let mut found: Vec<NamedShard> = Vec::new();
    let mut whole = Vec::new();
    for entry in fs::read_dir(folder).map_err(fail)? {
        let path = entry.map_err(fail)?.path();
        match parse_name(name_of(&path)) {
            Some((own, number, last_number)) if base.is_none_or(|base| base == own) => {
                let base = own.to_owned();
                found.push(NamedShard {
                    base,
                    number,
                    last_number,
                    path,
                });
            }
            None if name_of(&path).as_bytes().ends_with(b".bin") => whole.push(path),
            _ => {}
        }
    }
    found.sort();
    check_names(folder, &found)?;
    Ok((found.into_iter().map(|shard| shard.path).collect(), whole))
}

/// Checks that the sorted shards are of one file and complete.
fn check_names(folder: &Path, found: &[NamedShard]) -> Result<()> {
    let wrong = |what| Err(Error::malformed(folder, what));
    let Some(first) = found.first() else {
        return Ok(());
    };
    let (name, last) = (first.base.to_string_lossy(), &first.last_number);
    if let Some(other) = found.iter().find(|shard| shard.base != first.base) {
        return wrong(format!(
            "shards of two files, {name} and {}; name one of them",
            other.base.to_string_lossy()
        ));
    }
    if let Some(other) = found.iter().find(|shard| shard.last_number != *last) {
        return wrong(format!(
            "{name}: shard {} is of {}, another is of {last}",
            other.number, other.last_number
        ));
    }
    let numbers: Vec<u64> = found.iter().map(|shard| shard.number).collect();
    if let Some(pair) = numbers.windows(2).find(|pair| pair[0] == pair[1]) {
        return wrong(format!("{name}: two files are shard {:05}", pair[0]));
    }
    // Iterates over the shards that exist. The number of shards in a name is not trustworthy: it could be huge.
    if let Some((i, _)) = (0..).zip(&numbers).find(|(i, number)| i != *number) {
        return wrong(missing(&name, i, *last, numbers.len()));
    }
    match numbers.len() as u64 {
        n if n > last.saturating_add(1) => wrong(format!(
            "{name}: shard {} is beyond the last, {last}",
            n - 1
        )),
        n if n <= *last => wrong(missing(&name, n, *last, numbers.len())),
        _ => Ok(()),
    }
}

fn missing(name: &str, i: u64, last: u64, n_here: usize) -> String {
    let n = last.saturating_add(1);
    format!("{name}-{i:05}-of-{last:05}.bin is missing, {n_here} of {n} shards are here")
}

fn no_shards(name: &OsStr) -> String {
    let name = name.to_string_lossy();
    format!("no {name}.bin and no {name}-00000-of-000NN.bin here")
}

/// Maps a regular file. Other kinds are refused: opening a pipe would wait for its writer forever.
pub(super) fn map_regular(path: &Path) -> Result<Mapped> {
    let metadata = fs::metadata(path).map_err(|err| Error::io(path, err))?;
    if !metadata.is_file() {
        return Err(Error::malformed(
            path,
            "not a regular file: tokens are read from files",
        ));
    }
    Mapped::open(path)
}

impl TokenFiles {
    /// Opens a token file by its folder, its name with or without `.bin`, or one of its shards.
    ///
    /// # Errors
    /// There is no such file; a shard is missing, surplus, unreadable, or differs in size from the others.
    pub fn open(path: &Path) -> Result<Self> {
        Self::map(&find(path)?)
    }

    /// Opens a token file, see [`Self::open`], and the `.idx` of the same name if there is one.
    ///
    /// # Errors
    /// As [`Self::open`]; a damaged index, or one whose tokens do not end with the file.
    pub fn open_with_index(path: &Path) -> Result<(Self, Option<(IdxHeader, Mapped)>)> {
        let files = find(path).or_else(|err| {
            // If files are missing because they are being replaced, that is the error to report.
            ReplacementCheck::check_folder(if path.is_dir() { path } else { folder_of(path) })?;
            Err(err)
        })?;
        let replacement = ReplacementCheck::begin(&prefix_of(&files[0]))?;
        // Searched again: the first search found the prefix, and may have found names that are gone since.
        let opened = Self::open_files(path);
        replacement.end()?;
        opened
    }

    fn open_files(path: &Path) -> Result<(Self, Option<(IdxHeader, Mapped)>)> {
        let files = Self::open(path)?;
        if files.n_bytes() % 2 != 0 {
            let what = format!(
                "{} bytes are not a whole number of tokens of 2 or 4 bytes: the file is cut short",
                files.n_bytes()
            );
            return Err(Error::malformed(files.path(), what));
        }
        let idx_path = with_suffix(&prefix_of(files.path()), ".idx");
        if idx_path.symlink_metadata().is_err() {
            return Ok((files, None));
        }
        let idx = map_regular(&idx_path)?;
        let header = IdxHeader::read(&idx)?;
        files.check_end(header.end(&idx)?)?;
        Ok((files, Some((header, idx))))
    }

    /// Opens `PREFIX.bin` or its shards; `None` if neither exists.
    pub(super) fn of_prefix(prefix: &Path) -> Result<Option<Self>> {
        let paths = find_prefix(prefix)?;
        if paths.is_empty() {
            return Ok(None);
        }
        Self::map(&paths).map(Some)
    }

    fn map(paths: &[PathBuf]) -> Result<Self> {
        let mut files = Vec::with_capacity(paths.len());
        let mut starts = vec![0];
        for path in paths {
            let file = map_regular(path)?;
            starts.push(starts[starts.len() - 1] + file.bytes().len() as u64);
            files.push(file);
        }
        let files = Self { files, starts };
        files.check_sizes()?;
        Ok(files)
    }

    /// Checks that all shards have the size of the first, except that the last may be smaller, and that none
    /// is empty.
    fn check_sizes(&self) -> Result<()> {
        let n = |file: &Mapped| file.bytes().len();
        let (first, last) = (&self.files[0], &self.files[self.files.len() - 1]);
        if self.files.len() == 1 {
            return Ok(());
        }
        for file in &self.files {
            let (found, expected) = (n(file), n(first));
            let is_last = std::ptr::eq(file, last);
            if found > 0 && (found == expected || is_last && found < expected) {
                continue;
            }
            let what = format!(
                "has {found} bytes, the first shard has {expected}: one of the two is damaged"
            );
            return Err(Error::malformed(file.path(), what));
        }
        Ok(())
    }

    /// Checks that the total size is the one that the index expects.
    pub(super) fn check_end(&self, expected: u64) -> Result<()> {
        if self.n_bytes() == expected {
            return Ok(());
        }
        let (subject, whose, path) = match self.files.as_slice() {
            [one] => ("has".to_owned(), "its", one.path()),
            files => (
                format!("the {} shards have", files.len()),
                "their",
                files[files.len() - 1].path(),
            ),
        };
        let what = format!(
            "{subject} {} bytes, but {whose} index expects {expected}: one of the two is of another dataset or cut short",
            self.n_bytes()
        );
        Err(Error::malformed(path, what))
    }

    /// Total size in bytes.
    #[must_use]
    pub fn n_bytes(&self) -> u64 {
        self.starts[self.files.len()]
    }

    /// Path of the first file.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.files[0].path()
    }

    /// The files, in order.
    #[must_use]
    pub fn files(&self) -> &[Mapped] {
        &self.files
    }

    /// The bytes of each file.
    pub(super) fn bytes(&self) -> impl Iterator<Item = &[u8]> {
        self.files.iter().map(Mapped::bytes)
    }

    /// The index of the file that holds a byte, and the byte's offset in that file.
    fn locate(&self, start: u64) -> (usize, u64) {
        let file = self.starts.partition_point(|first| *first <= start) - 1;
        (file, start - self.starts[file])
    }

    /// `n` bytes from `start`: borrowed from the map, or a copy if they are in more than one file.
    ///
    /// # Errors
    /// The files end before that.
    pub fn slice(&self, start: u64, n: u64) -> Result<Cow<'_, [u8]>> {
        if start.checked_add(n).is_none_or(|end| end > self.n_bytes()) {
            let what = format!(
                "expected {n} bytes here, but there are {} in all",
                self.n_bytes()
            );
            return Err(Error::format(self.path(), start, what));
        }
        let (file, at) = self.locate(start);
        match self.files.get(file) {
            None => Ok(Cow::Borrowed(&[])),
            Some(mapped) if start + n <= self.starts[file + 1] => {
                mapped.slice(at, n).map(Cow::Borrowed)
            }
            Some(_) => {
                let mut bytes = vec![0; n as usize];
                self.read(start, &mut bytes)?;
                Ok(Cow::Owned(bytes))
            }
        }
    }

    /// Fills `out` with the bytes from `start`.
    ///
    /// # Errors
    /// The files end before that.
    pub fn read(&self, start: u64, out: &mut [u8]) -> Result<()> {
        let (mut file, mut at) = self.locate(start);
        let mut done = 0;
        while done < out.len() {
            let Some(mapped) = self.files.get(file) else {
                let what = format!("ends before byte {}", start + out.len() as u64);
                return Err(Error::format(self.path(), self.n_bytes(), what));
            };
            let n = (mapped.bytes().len() as u64 - at).min((out.len() - done) as u64);
            let bytes = mapped.slice(at, n)?;
            out[done..done + bytes.len()].copy_from_slice(bytes);
            (done, at, file) = (done + bytes.len(), 0, file + 1);
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
    fn missing_surplus_and_foreign_shards_are_named() {
        for (files, message) in [
            (
                &[("a-00000-of-00002.bin", 8), ("a-00002-of-00002.bin", 8)][..],
                "00001-of-00002.bin is missing",
            ),
            (
                &[("a-00000-of-00001.bin", 8)],
                "00001-of-00001.bin is missing",
            ),
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
                "is of 1",
            ),
            (
                &[("a-00000-of-00001.bin", 8), ("a-000000-of-00001.bin", 8)],
                "two files are shard 00000",
            ),
            (
                &[("a-00001-of-00002.bin", 8), ("a-00002-of-00002.bin", 8)],
                "00000-of-00002.bin is missing",
            ),
            (&[("a-00000-of-999999999.bin", 8)], "is missing, 1 of"),
            (
                &[("a-00000-of-00001.bin", 8), ("a-00001-of-00001.bin", 9)],
                "damaged",
            ),
            (
                &[("a-00000-of-00001.bin", 8), ("a-00001-of-00001.bin", 0)],
                "damaged",
            ),
            (
                &[("a-00000-of-00001.bin", 0), ("a-00001-of-00001.bin", 0)],
                "damaged",
            ),
            (
                &[
                    ("a-00000-of-00002.bin", 8),
                    ("a-00001-of-00002.bin", 7),
                    ("a-00002-of-00002.bin", 8),
                ],
                "damaged",
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
            let Err(err) = TokenFiles::open(folder.path()) else {
                // With a number beyond 64 bits it is an ordinary name, not a shard's.
                assert!(message.contains('|'));
                continue;
            };
            assert!(err.to_string().contains(message), "{err}");
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
            let files = TokenFiles::open(&path).unwrap();
            for start in 0..7_u8 {
                for end in start..=7 {
                    let mut out = vec![0; usize::from(end - start)];
                    files.read(u64::from(start), &mut out).unwrap();
                    assert_eq!(out, (start..end).collect::<Vec<_>>());
                    let slice = files.slice(start.into(), (end - start).into()).unwrap();
                    assert_eq!(*slice, out);
                    let crosses = start < end && start / 3 != (end - 1) / 3;
                    assert_eq!(matches!(slice, Cow::Owned(_)), crosses);
                }
            }
            assert!(files.read(5, &mut [0; 3]).is_err());
            assert!(files.slice(5, 3).is_err());
            assert!(files.slice(u64::MAX, 2).is_err());
        }
    }
}
