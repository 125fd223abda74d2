//! Read-only memory maps.

use std::{fs::File, path::Path, path::PathBuf};

use crate::{Error, Result};

/// A memory-mapped file: read-only bytes, paged in on demand.
///
/// The file must not be shortened while it is mapped. A read beyond the new end raises SIGBUS, which ends the
/// process, in commands with a message ([`super::report_failures`]). The files that this crate writes are
/// published by a rename and never shortened afterwards.
#[derive(Debug)]
pub struct Mapped {
    path: PathBuf,
    map: Option<memmap2::Mmap>,
}

impl Mapped {
    /// Maps a file. An empty file has no map and no bytes.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Io`] if it cannot be opened or mapped, [`crate::ErrorKind::Format`] if it is not a regular file.
    pub fn open(path: &Path) -> Result<Self> {
        let fail = |err| Error::io(path, err);
        // Opening a pipe would wait for its writer, and a device may do anything.
        if !std::fs::metadata(path).map_err(fail)?.is_file() {
            return Err(Error::malformed(path, "not a regular file"));
        }
        let file = File::open(path).map_err(fail)?;
        let is_empty = file.metadata().map_err(fail)?.len() == 0;
        let map = if is_empty {
            None
        } else {
            // SAFETY: the map is read-only. The file must not be modified while it is mapped, which is a
            // documented condition of this type: no code can enforce it.
            Some(unsafe { memmap2::Mmap::map(&file) }.map_err(fail)?)
        };
        Ok(Self {
            path: path.to_owned(),
            map,
        })
    }

    /// All bytes of the file.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        self.map.as_deref().unwrap_or_default()
    }

    /// Path of the file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// `length` bytes from `start`.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Format`] if the file is too short.
    pub fn slice(&self, start: u64, length: u64) -> Result<&[u8]> {
        let end = start.checked_add(length);
        let range =
            end.and_then(|end| Some(usize::try_from(start).ok()?..usize::try_from(end).ok()?));
        range
            .and_then(|range| self.bytes().get(range))
            .ok_or_else(|| {
                let found = self.bytes().len();
                Error::format(
                    &self.path,
                    start,
                    format!("{length} bytes expected here, but the file has {found} in all"),
                )
            })
    }
}
