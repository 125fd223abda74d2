//! Opens files that may only be regular ones: reading a pipe or a device could block or never end.

use std::{
    fs::{self, File, FileType, OpenOptions},
    os::unix::fs::{FileTypeExt as _, OpenOptionsExt as _},
    path::Path,
};

use crate::{Error, Result};

/// Opens a regular file, or a link to one, for reading.
///
/// # Errors
/// It is a folder, pipe, socket or device; or those of the file system.
pub fn open_regular(path: &Path) -> Result<File> {
    let fail = |err| Error::io(path, err);
    check(path, fs::metadata(path).map_err(fail)?.file_type())?;
    // Another process may have replaced the file by a pipe: O_NONBLOCK keeps `open` from waiting for a writer.
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
        .open(path)
        .map_err(fail)?;
    check(path, file.metadata().map_err(fail)?.file_type())?;
    Ok(file)
}

fn check(path: &Path, found: FileType) -> Result<()> {
    let kind = match found {
        kind if kind.is_file() => return Ok(()),
        kind if kind.is_dir() => "folder",
        kind if kind.is_fifo() => "pipe",
        kind if kind.is_socket() => "socket",
        _ => "device",
    };
    let what = format!("expected a file, found a {kind}");
    Err(Error::malformed(path, what))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_files_and_links_to_them_are_opened() {
        let folder = tempfile::tempdir().unwrap();
        let (file, link) = (folder.path().join("file"), folder.path().join("link"));
        fs::write(&file, "a").unwrap();
        std::os::unix::fs::symlink(&file, &link).unwrap();
        assert!(open_regular(&file).is_ok() && open_regular(&link).is_ok());
        let socket = folder.path().join("socket");
        let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        for (path, kind) in [
            (folder.path(), "folder"),
            (&socket, "socket"),
            (Path::new("/dev/null"), "device"),
        ] {
            let refused = open_regular(path).unwrap_err().to_string();
            let expected = format!("expected a file, found a {kind} ({})", path.display());
            assert_eq!(refused, expected);
        }
    }
}
