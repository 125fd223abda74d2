//! Notices that an artifact is replaced while its files are opened.
//!
//! Publishing (see `pile_tools.publish`) keeps the new manifest in the scratch folder while it renames
//! files, and renames the manifest last. A reader that finds no manifest there, before and after, and the
//! same published manifest both times, has the files of one artifact.

use std::{
    fs::{self, Metadata},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use crate::{Error, Result};

/// The state of the artifact with a manifest `PREFIX.manifest.json` before its files are opened.
pub(crate) struct Unreplaced {
    manifest: PathBuf,
    scratch: PathBuf,
    before: Option<Stamp>,
}

type Stamp = (u64, i64, i64, u64);

impl Unreplaced {
    /// Looks at the artifact at `prefix`.
    ///
    /// # Errors
    /// It is being replaced.
    pub fn begin(prefix: &Path) -> Result<Self> {
        let with = |suffix: &str| {
            let mut name = prefix.file_name().unwrap_or_default().to_owned();
            name.push(suffix);
            prefix.with_file_name(name)
        };
        let mut found = Self {
            manifest: with(".manifest.json"),
            scratch: with(".partial"),
            before: None,
        };
        found.before = found.stamp()?;
        Ok(found)
    }

    /// Checks that the files opened since are of one artifact.
    ///
    /// # Errors
    /// It was replaced meanwhile, or is being replaced.
    pub fn end(self) -> Result<()> {
        if self.stamp()? == self.before {
            return Ok(());
        }
        let what = "was replaced while it was opened; try again";
        Err(Error::malformed(&self.manifest, what))
    }

    /// What tells the manifest from any other.
    fn stamp(&self) -> Result<Option<Stamp>> {
        let unpublished = self
            .scratch
            .join(self.manifest.file_name().unwrap_or_default());
        if unpublished.is_file() && self.scratch.join("pile-tools.lock").is_file() {
            let what = "is being replaced; try again, or run the command that was making it again";
            return Err(Error::malformed(&self.manifest, what));
        }
        let told = |m: Metadata| (m.ino(), m.ctime(), m.ctime_nsec(), m.len());
        Ok(fs::metadata(&self.manifest).ok().map(told))
    }
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
        fs::write(folder.path().join("a.partial/pile-tools.lock"), "").unwrap();
        assert!(Unreplaced::begin(&prefix).is_err());
    }
}
