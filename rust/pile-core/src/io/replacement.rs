//! Detects that an artifact is replaced while its files are opened.
//!
//! Publishing (see `pile_tools.publish`) writes the manifest to the scratch folder when all files are finished, then
//! renames the files to their final names and the manifest last. So while files are renamed, the scratch folder has
//! a manifest. A reader has the files of one artifact if, both before and after it opens them, the scratch folder
//! has no manifest and the published manifest is the same.

use std::{
    ffi::{OsStr, OsString},
    fs::{self, Metadata},
    os::{
        fd::AsRawFd,
        unix::{ffi::OsStrExt, fs::MetadataExt},
    },
    path::{Path, PathBuf},
};

use crate::{Error, Result};

/// The suffixes, after a dataset's prefix, of the artifacts to which its files may belong: the dataset, its
/// labels, its token shards, and its token file merged from shards.
const STEMS: [&str; 4] = ["", ".provenance", ".shards", ".bin"];

const MANIFEST_SUFFIX: &str = ".manifest.json";
const SCRATCH_SUFFIX: &str = ".partial";

/// The manifests of a dataset's artifacts before its files are opened.
#[derive(Debug)]
pub(crate) struct ReplacementCheck {
    before: Vec<(PathBuf, Option<Stamp>)>,
}

/// Identifies a version of a file. The time of change (ctime) is left out: a rerun of the command that made the file
/// may remove a hard link to it, which changes that time and not the file.
#[derive(Debug, PartialEq, Eq)]
struct Stamp {
    inode: u64,
    mtime: i64,
    mtime_nanoseconds: i64,
    n_bytes: u64,
}

impl ReplacementCheck {
    /// Records the manifests of the dataset at `prefix`, before its files are opened.
    ///
    /// # Errors
    /// An artifact is being replaced.
    pub fn begin(prefix: &Path) -> Result<Self> {
        let mut before = Vec::with_capacity(STEMS.len());
        for stem in STEMS {
            let path = with_suffix(prefix, &format!("{stem}{MANIFEST_SUFFIX}"));
            let stamp = stamp(&path)?;
            before.push((path, stamp));
        }
        Ok(Self { before })
    }

    /// Checks that the files opened since [`Self::begin`] are of one artifact.
    ///
    /// # Errors
    /// An artifact was replaced meanwhile, or is being replaced.
    pub fn end(&self) -> Result<()> {
        self.check("was replaced while it was opened; try again")
    }

    /// As [`Self::end`], for files that are read later and must be of the same artifact.
    pub fn end_later(&self) -> Result<()> {
        self.check("was replaced since it was opened; open it again")
    }

    fn check(&self, what: &str) -> Result<()> {
        for (path, before) in &self.before {
            if stamp(path)? != *before {
                return Err(Error::malformed(path, what));
            }
        }
        Ok(())
    }

    /// Checks that no artifact in a folder is being replaced. For readers that found no file and thus know no prefix:
    /// the files may be missing because they are being replaced.
    ///
    /// # Errors
    /// An artifact is being replaced, or the folder cannot be read.
    pub fn check_folder(folder: &Path) -> Result<()> {
        let fail = |err| Error::io(folder, err);
        for entry in fs::read_dir(folder).map_err(fail)? {
            let path = entry.map_err(fail)?.path();
            let name = path.file_name().unwrap_or_default();
            if let Some(stem) = name.as_bytes().strip_suffix(SCRATCH_SUFFIX.as_bytes()) {
                let artifact = path.with_file_name(OsStr::from_bytes(stem));
                // Only its error matters: that the artifact is being replaced.
                stamp(&with_suffix(&artifact, MANIFEST_SUFFIX))?;
            }
        }
        Ok(())
    }
}

/// The version of the manifest at `path`; `None` if it does not exist.
///
/// # Errors
/// The artifact is being replaced: its scratch folder holds a manifest. A folder of that name without a lock file is
/// none of ours.
fn stamp(path: &Path) -> Result<Option<Stamp>> {
    let name = path.file_name().unwrap_or_default();
    let stem = name.as_bytes().strip_suffix(MANIFEST_SUFFIX.as_bytes());
    let artifact = path.with_file_name(OsStr::from_bytes(stem.unwrap_or_default()));
    let scratch = with_suffix(&artifact, SCRATCH_SUFFIX);
    let lock = scratch.join("pile-tools.lock");
    // A killed job also leaves a manifest in its scratch folder. If the artifact is the dataset, its files may be half
    // old, half new. Labels, shards and a merged token file are additions without which the dataset is whole, and
    // the job that resumes must be able to open it. So for these a process must hold the lock.
    let is_dataset = !STEMS[1..]
        .iter()
        .any(|end| artifact.as_os_str().as_bytes().ends_with(end.as_bytes()));
    if scratch.join(name).is_file() && lock.is_file() && (is_dataset || is_locked(&lock)) {
        let what = "is being replaced; try again, or run again the command that makes it";
        return Err(Error::malformed(path, what));
    }
    let stamp = |m: Metadata| Stamp {
        inode: m.ino(),
        mtime: m.mtime(),
        mtime_nanoseconds: m.mtime_nsec(),
        n_bytes: m.len(),
    };
    Ok(fs::metadata(path).ok().map(stamp))
}

/// Whether a process holds a lock on a file. False where the file system has no locks. `flock` cannot ask without
/// locking, so a job that starts in this moment may find the file locked.
fn is_locked(path: &Path) -> bool {
    let Ok(file) = fs::File::open(path) else {
        return false;
    };
    // SAFETY: the descriptor is open. Closing it ends the lock.
    let taken = unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_SH | libc::LOCK_NB) };
    taken != 0 && std::io::Error::last_os_error().kind() == std::io::ErrorKind::WouldBlock
}

/// Appends `suffix` to a path; unlike `with_extension`, it replaces nothing.
pub(crate) fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(suffix);
    PathBuf::from(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replacement_is_detected() {
        let folder = tempfile::tempdir().unwrap();
        let prefix = folder.path().join("a");
        let manifest = folder.path().join("a.manifest.json");
        ReplacementCheck::begin(&prefix).unwrap().end().unwrap();
        let check = ReplacementCheck::begin(&prefix).unwrap();
        fs::write(&manifest, "1").unwrap();
        assert!(check.end().is_err());
        let check = ReplacementCheck::begin(&prefix).unwrap();
        fs::write(folder.path().join("new"), "2").unwrap();
        fs::rename(folder.path().join("new"), &manifest).unwrap();
        let err = check.end().unwrap_err().to_string();
        assert!(err.starts_with("was replaced"), "{err}");
        fs::create_dir(folder.path().join("a.partial")).unwrap();
        fs::write(folder.path().join("a.partial/a.manifest.json"), "3").unwrap();
        // A folder without a lock file is not a scratch folder.
        ReplacementCheck::begin(&prefix).unwrap().end().unwrap();
        ReplacementCheck::check_folder(folder.path()).unwrap();
        fs::write(folder.path().join("a.partial/pile-tools.lock"), "").unwrap();
        assert!(ReplacementCheck::begin(&prefix).is_err());
        assert!(ReplacementCheck::check_folder(folder.path()).is_err());
    }

    #[test]
    fn each_artifact_of_a_dataset_is_checked() {
        for stem in STEMS {
            let folder = tempfile::tempdir().unwrap();
            let prefix = folder.path().join("a");
            let scratch = folder.path().join(format!("a{stem}.partial"));
            fs::create_dir(&scratch).unwrap();
            let lock = fs::File::create(scratch.join("pile-tools.lock")).unwrap();
            // SAFETY: the descriptor is open.
            assert_eq!(unsafe { libc::flock(lock.as_raw_fd(), libc::LOCK_EX) }, 0);
            ReplacementCheck::begin(&prefix).unwrap().end().unwrap();
            let check = ReplacementCheck::begin(&prefix).unwrap();
            fs::write(scratch.join(format!("a{stem}.manifest.json")), "1").unwrap();
            let err = check.end().unwrap_err().to_string();
            assert!(err.starts_with("is being replaced"), "{err}");
            drop(lock);
            assert_eq!(ReplacementCheck::begin(&prefix).is_err(), stem.is_empty());
        }
    }
}
