//! Outputs appear whole: written beside their place, then renamed into it.

use std::{
    fs::{self, File},
    io::{self, BufWriter, Write},
    path::Path,
};

use crate::{Error, Result};

/// Writes a file through `fill`, syncs it and renames it to `path`; on failure `path` is untouched.
///
/// # Errors
/// What `fill` or the file system reports.
pub fn write_atomically(
    path: &Path,
    fill: impl FnOnce(&mut BufWriter<File>) -> io::Result<()>,
) -> Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".tmp");
    let temporary = path.with_file_name(name);
    let result = write_and_sync(&temporary, fill)
        .and_then(|()| fs::rename(&temporary, path))
        .map_err(|err| Error::io(path, err));
    if result.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    result
}

fn write_and_sync(
    path: &Path,
    fill: impl FnOnce(&mut BufWriter<File>) -> io::Result<()>,
) -> io::Result<()> {
    let mut writer = BufWriter::with_capacity(1 << 20, File::create(path)?);
    fill(&mut writer)?;
    writer.flush()?;
    writer.get_ref().sync_all()
}

/// Removes a file; that it is not there is no failure.
///
/// # Errors
/// What the file system reports.
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
}
