//! Read-only memory maps.

use std::{
    collections::HashMap,
    fs::{self, File},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{
        LazyLock, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use crate::{Error, Result};

/// A memory-mapped file: read-only bytes, paged in on demand.
///
/// The file must not be shortened while it is mapped. A read of a page beyond the new end raises SIGBUS, which
/// ends the process, in commands with a message ([`super::report_failures`]). What is missing of the last page
/// reads as zeros, which [`check_mapped`] finds. The files that this crate writes are published by a rename and
/// never shortened afterwards.
#[derive(Debug)]
pub struct Mapped {
    path: PathBuf,
    map: Option<memmap2::Mmap>,
    number: u64,
}

/// A file as it was when it was mapped.
#[derive(Debug)]
struct AsMapped {
    path: PathBuf,
    device: u64,
    inode: u64,
    n_bytes: u64,
}

impl AsMapped {
    /// Whether the file is still at its path and has fewer bytes. A file that was replaced keeps its bytes
    /// for as long as it is mapped.
    fn is_shorter(&self) -> bool {
        fs::metadata(&self.path).is_ok_and(|found| {
            (found.dev(), found.ino()) == (self.device, self.inode) && found.len() < self.n_bytes
        })
    }
}

/// The files that are mapped, by number, and those that had become shorter when their map ended.
#[derive(Debug, Default)]
struct Registry {
    mapped: HashMap<u64, AsMapped>,
    shorter: Vec<PathBuf>,
}

static REGISTRY: LazyLock<Mutex<Registry>> = LazyLock::new(Mutex::default);
static NEXT_NUMBER: AtomicU64 = AtomicU64::new(0);

fn registry() -> MutexGuard<'static, Registry> {
    // Each change of the registry is one call: a panic elsewhere leaves it whole.
    REGISTRY.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Checks that no file became shorter while it was mapped. Called before what was made from it is published. A file
/// that is no longer mapped is reported once.
///
/// # Errors
/// [`crate::ErrorKind::Format`] for one that did.
pub fn check_mapped() -> Result<()> {
    match shorter_files().first() {
        None => Ok(()),
        Some(path) => {
            let what = "became shorter while it was read; run the command again once it is whole";
            Err(Error::malformed(path, what))
        }
    }
}

/// Whether the file at a path is mapped by this process, under this name or another one. A file that is not there is not.
#[must_use]
pub fn is_mapped(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|found| {
        let is_it = |of: &AsMapped| (of.device, of.inode) == (found.dev(), found.ino());
        registry().mapped.values().any(is_it)
    })
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
        let metadata = file.metadata().map_err(fail)?;
        let map = if metadata.len() == 0 {
            None
        } else {
            // SAFETY: the map is read-only. The file must not be modified while it is mapped, which is a
            // documented condition of this type: no code can enforce it.
            Some(unsafe { memmap2::Mmap::map(&file) }.map_err(fail)?)
        };
        let number = NEXT_NUMBER.fetch_add(1, Ordering::Relaxed);
        let as_mapped = AsMapped {
            path: path.to_owned(),
            device: metadata.dev(),
            inode: metadata.ino(),
            n_bytes: map.as_deref().map_or(0, <[u8]>::len) as u64,
        };
        registry().mapped.insert(number, as_mapped);
        Ok(Self {
            path: path.to_owned(),
            map,
            number,
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

fn shorter_files() -> Vec<PathBuf> {
    let mut registry = registry();
    let mut shorter = std::mem::take(&mut registry.shorter);
    let live = registry.mapped.values().filter(|file| file.is_shorter());
    shorter.extend(live.map(|file| file.path.clone()));
    shorter.sort();
    shorter
}

impl Drop for Mapped {
    fn drop(&mut self) {
        let mut registry = registry();
        if let Some(file) = registry.mapped.remove(&self.number)
            && file.is_shorter()
        {
            registry.shorter.push(file.path);
        }
    }
}
