//! Read-only memory maps.

use std::{fs::File, path::Path, path::PathBuf};

use crate::{Error, Result};

/// A file as read-only bytes, paged in on demand.
///
/// Sizes are checked on opening. The file must not be shortened while it is mapped: the system ends a
/// process that reads beyond the new end, with SIGBUS in a library, and in a command with a message
/// ([`super::report_failures`]). Everything this crate writes is renamed into place and never shortened
/// afterwards.
#[derive(Debug)]
pub struct Mapped {
    path: PathBuf,
    map: Option<memmap2::Mmap>,
}

impl Mapped {
    /// Maps a file; an empty one gives no bytes.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Io`] if it cannot be opened or mapped, [`crate::ErrorKind::Format`] for
    /// anything but a file.
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
            // SAFETY: the map is read-only and private to this process; that nobody shortens the
            // file meanwhile is this type's documented condition.
            Some(unsafe { memmap2::Mmap::map(&file) }.map_err(fail)?)
        };
        Ok(Self {
            path: path.to_owned(),
            map,
        })
    }

    /// Maps a file of a job's scratch folder that must hold `n_items` of `width` bytes each.
    ///
    /// The job has written them itself, but where locks do not work another process may have begun the
    /// job anew, and anyone may edit the state that a killed job resumes from.
    ///
    /// # Errors
    /// Those of [`Self::open`]; [`crate::ErrorKind::Format`] if the size is another.
    pub fn open_written(path: &Path, n_items: u64, width: u64) -> Result<Self> {
        let file = Self::open(path)?;
        let (found, written) = (file.bytes().len(), n_items.saturating_mul(width));
        if found as u64 != written {
            let what = format!(
                "has {found} bytes, {written} were written: another process changed it; \
                 remove its folder and run the same command again"
            );
            return Err(Error::malformed(path, what));
        }
        Ok(file)
    }

    /// All bytes of the file.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        self.map.as_deref().unwrap_or_default()
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// `length` bytes from `start`, or an error that says the file is too short.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Format`] if the file ends before.
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
