//! Atomic writes: an output is written to a temporary file in its folder, which is then renamed.
//!
//! The folder is not synced, as all outputs are made in scratch folders: `pile_tools.publish` syncs the folder before
//! it publishes them. If the machine crashes before, a job may find an older state than its last one; it checks the
//! files that a state names.

use std::{
    fs::{self, File},
    io::{self, BufWriter, Write},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::{SystemTime, UNIX_EPOCH},
};

use crate::{Error, Result};

/// Writes a file through `fill`, syncs it and renames it to `path`. On failure `path` is unchanged.
///
/// # Errors
/// Those of `fill` and of the file system. If `fill` wraps an [`Error`] of what it reads, that error is returned.
pub fn write_atomically(
    path: &Path,
    fill: impl FnOnce(&mut BufWriter<File>) -> io::Result<()>,
) -> Result<()> {
    let temporary = temporary_beside(path);
    let result = write_and_sync(&temporary, fill)
        .and_then(|()| fs::rename(&temporary, path))
        .map_err(|err| match err.downcast::<Error>() {
            Ok(of_input) => of_input,
            Err(err) => Error::io(path, err),
        });
    if result.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    result
}

fn write_and_sync(
    path: &Path,
    fill: impl FnOnce(&mut BufWriter<File>) -> io::Result<()>,
) -> io::Result<()> {
    let file = File::options().write(true).create_new(true).open(path)?;
    let mut writer = BufWriter::with_capacity(1 << 20, file);
    fill(&mut writer)?;
    writer.flush()?;
    writer.get_ref().sync_all()
}

/// A unique name in the folder of `path`, made from the process id, the time and a counter. It does not contain
/// the name of `path`: one as long as the file system allows could not be extended.
///
/// The file is created exclusively: if a file or link with this name exists all the same, it is neither
/// followed nor replaced.
fn temporary_beside(path: &Path) -> PathBuf {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let count = COUNT.fetch_add(1, Relaxed);
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    let nanoseconds = since.map_or(0, |since| since.as_nanos());
    let process = std::process::id();
    path.with_file_name(format!(".pile-tools-{process}-{nanoseconds}-{count}.tmp"))
}

/// Creates a file in a scratch folder, after removing an existing file or link of this name. A link that another
/// process puts there is not followed.
///
/// # Errors
/// Those of the file system.
pub fn create(path: &Path) -> Result<File> {
    remove_if_there(path)?;
    let created = File::options().write(true).create_new(true).open(path);
    created.map_err(|err| Error::io(path, err))
}

/// Removes a file if it exists.
///
/// # Errors
/// Those of the file system.
pub fn remove_if_there(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(err) if err.kind() != io::ErrorKind::NotFound => Err(Error::io(path, err)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_write_leaves_the_old_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        fs::write(&path, "old").unwrap();
        let failed = write_atomically(&path, |w| {
            w.write_all(b"half")?;
            Err(io::Error::other("no"))
        });
        assert!(failed.is_err());
        assert_eq!(fs::read(&path).unwrap(), b"old");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn an_error_of_an_input_does_not_name_the_output() {
        let folder = tempfile::tempdir().unwrap();
        let damaged = || Error::malformed(Path::new("input"), "is damaged");
        let failed = write_atomically(&folder.path().join("a"), |_| {
            Err(io::Error::other(damaged()))
        });
        let failed = failed.unwrap_err();
        assert_eq!(failed.to_string(), damaged().to_string());
        assert!(matches!(failed.kind(), crate::ErrorKind::Format(_)));
    }

    #[test]
    fn a_name_may_be_as_long_as_the_file_system_allows() {
        let folder = tempfile::tempdir().unwrap();
        for letter in ["a", "é", "語", "😀"] {
            let path = folder.path().join(letter.repeat(255 / letter.len()));
            write_atomically(&path, |w| w.write_all(b"x")).unwrap();
            assert_eq!(fs::read(&path).unwrap(), b"x");
        }
    }
}
