//! Notices that an artifact is replaced while its files are opened.
//!
//! Publishing (see `pile_tools.publish`) keeps the new manifest in the scratch folder while it renames
//! files, and renames the manifest last. A reader that finds no manifest there, before and after, and the
//! same published manifest both times, has the files of one artifact.

use std::{
    ffi::{OsStr, OsString},
    fs::{self, Metadata},
    os::unix::{ffi::OsStrExt, fs::MetadataExt},
    path::{Path, PathBuf},
};

use crate::{Error, Result};

/// What follows a dataset's prefix in the names of the artifacts that write its files: the dataset, its
/// labels, its token shards, and its token file made from shards.
const STEMS: [&str; 4] = ["", ".provenance", ".shards", ".bin"];

const MANIFEST_SUFFIX: &str = ".manifest.json";
const SCRATCH_SUFFIX: &str = ".partial";

/// The state of the artifacts that write a dataset's files, before these are opened.
pub(crate) struct Unreplaced {
    before: Vec<(PathBuf, Option<Stamp>)>,
}

type Stamp = (u64, i64, i64, u64);

impl Unreplaced {
    /// Looks at the artifacts of the dataset at `prefix`.
    ///
    /// # Errors
    /// One is being replaced.
    pub fn begin(prefix: &Path) -> Result<Self> {
        let mut before = Vec::with_capacity(STEMS.len());
        for stem in STEMS {
            let path = with_suffix(prefix, &format!("{stem}{MANIFEST_SUFFIX}"));
            let stamp = stamp(&path)?;
            before.push((path, stamp));
        }
        Ok(Self { before })
    }

    /// Checks that the files opened since are of one artifact.
    ///
    /// # Errors
    /// It was replaced meanwhile, or is being replaced.
    pub fn end(self) -> Result<()> {
        for (path, before) in self.before {
            if stamp(&path)? != before {
                let what = "was replaced while it was opened; try again";
                return Err(Error::malformed(&path, what));
            }
        }
        Ok(())
    }

    /// Checks that no artifact in a folder is being replaced, where its files are searched by their suffix.
    ///
    /// # Errors
    /// One is being replaced, or the folder cannot be read.
    pub fn check_folder(folder: &Path) -> Result<()> {
        let fail = |err| Error::io(folder, err);
        for entry in fs::read_dir(folder).map_err(fail)? {
            let path = entry.map_err(fail)?.path();
            let name = path.file_name().unwrap_or_default();
            if let Some(stem) = name.as_bytes().strip_suffix(SCRATCH_SUFFIX.as_bytes()) {
                let artifact = path.with_file_name(OsStr::from_bytes(stem));
                stamp(&with_suffix(&artifact, MANIFEST_SUFFIX))?;
            }
        }
        Ok(())
    }
}

/// What tells the manifest at `path` from any other; None where there is none.
fn stamp(path: &Path) -> Result<Option<Stamp>> {
    let name = path.file_name().unwrap_or_default();
    let stem = name.as_bytes().strip_suffix(MANIFEST_SUFFIX.as_bytes());
    let artifact = path.with_file_name(OsStr::from_bytes(stem.unwrap_or_default()));
    let scratch = with_suffix(&artifact, SCRATCH_SUFFIX);
    if scratch.join(name).is_file() && scratch.join("pile-tools.lock").is_file() {
        let what = "is being replaced; try again, or run the command that was making it again";
        return Err(Error::malformed(path, what));
    }
    let told = |m: Metadata| (m.ino(), m.ctime(), m.ctime_nsec(), m.len());
    Ok(fs::metadata(path).ok().map(told))
}

/// `path` + `suffix`: a suffix is appended, it replaces nothing.
pub(crate) fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(suffix);
    PathBuf::from(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replacement_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let prefix = folder.path().join("a");
        let manifest = folder.path().join("a.manifest.json");
        Unreplaced::begin(&prefix).unwrap().end().unwrap();
        let begun = Unreplaced::begin(&prefix).unwrap();
        fs::write(&manifest, "1").unwrap();
        assert!(begun.end().is_err());
        let begun = Unreplaced::begin(&prefix).unwrap();
        fs::write(folder.path().join("new"), "2").unwrap();
        fs::rename(folder.path().join("new"), &manifest).unwrap();
        let err = begun.end().unwrap_err().to_string();
        assert!(err.starts_with("was replaced"), "{err}");
        fs::create_dir(folder.path().join("a.partial")).unwrap();
        fs::write(folder.path().join("a.partial/a.manifest.json"), "3").unwrap();
        // A folder that is not ours says nothing.
        Unreplaced::begin(&prefix).unwrap().end().unwrap();
        Unreplaced::check_folder(folder.path()).unwrap();
        fs::write(folder.path().join("a.partial/pile-tools.lock"), "").unwrap();
        assert!(Unreplaced::begin(&prefix).is_err());
        assert!(Unreplaced::check_folder(folder.path()).is_err());
    }

    #[test]
    fn each_artifact_of_a_dataset_is_looked_at() {
        for stem in STEMS {
            let folder = tempfile::tempdir().unwrap();
            let prefix = folder.path().join("a");
            let scratch = folder.path().join(format!("a{stem}.partial"));
            fs::create_dir(&scratch).unwrap();
            fs::write(scratch.join("pile-tools.lock"), "").unwrap();
            Unreplaced::begin(&prefix).unwrap().end().unwrap();
            let begun = Unreplaced::begin(&prefix).unwrap();
            fs::write(scratch.join(format!("a{stem}.manifest.json")), "1").unwrap();
            let err = begun.end().unwrap_err().to_string();
            assert!(err.starts_with("is being replaced"), "{err}");
        }
    }
}
