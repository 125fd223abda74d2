//! The folder of a dataset in the making: growing files and a state that says how far they are good.
//!
//! The caller holds the folder's lock until the finished files are where they belong.

use std::{
    fs::{self, File, OpenOptions},
    io::{Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};

use serde::{Serialize, de::DeserializeOwned};

use crate::{Error, Result, io};

/// Names of files in the folder that are not the dataset's.
const STATE: &str = "state.json";
const LOCK: &str = "lock";

/// The folder of an unfinished dataset.
pub(crate) struct Partial {
    folder: PathBuf,
}

impl Partial {
    /// Opens or creates the folder, with its state if `is_usable`; otherwise the folder is cleared.
    ///
    /// # Errors
    /// Another job's finished shards are in it and `discard` is off; or the file system fails.
    pub fn open<S: DeserializeOwned>(
        folder: &Path,
        discard: bool,
        is_usable: impl FnOnce(&Self, &S) -> bool,
    ) -> Result<(Self, Option<S>)> {
        fs::create_dir_all(folder).map_err(|err| Error::io(folder, err))?;
        let partial = Self {
            folder: folder.to_owned(),
        };
        let saved = fs::read(partial.path(STATE)).unwrap_or_default();
        if let Ok(state) = serde_json::from_slice::<S>(&saved)
            && is_usable(&partial, &state)
        {
            return Ok((partial, Some(state)));
        }
        if !discard {
            partial.refuse_to_discard(&saved)?;
        }
        partial.clear()?;
        Ok((partial, None))
    }

    /// The path of one of its files.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Whether a file is there and has so many bytes or more.
    pub fn holds(&self, name: &str, n_bytes: u64) -> bool {
        fs::metadata(self.path(name)).is_ok_and(|found| found.len() >= n_bytes)
    }

    /// A file to go on writing after its first `keep_bytes`; what follows them is cut off.
    pub fn grow(&self, name: &str, keep_bytes: u64) -> Result<File> {
        let path = self.path(name);
        let open = || {
            let mut file = OpenOptions::new()
                .create(true)
                .truncate(false)
                .write(true)
                .open(&path)?;
            file.set_len(keep_bytes)?;
            file.seek(SeekFrom::End(0))?;
            Ok(file)
        };
        open().map_err(|err| Error::io(&path, err))
    }

    /// Replaces the state; the files it speaks of must be synced.
    pub fn save(&self, state: &impl Serialize) -> Result<()> {
        let json = serde_json::to_vec(state)
            .map_err(|err| Error::malformed(&self.folder, err.to_string()))?;
        io::write_atomically(&self.path(STATE), |out| out.write_all(&json))
    }

    /// Hours of work are not thrown away for a mistyped option.
    fn refuse_to_discard(&self, saved: &[u8]) -> Result<()> {
        let saved: serde_json::Value = serde_json::from_slice(saved).unwrap_or_default();
        let n_of = |kind: &str| saved[kind].as_array().map_or(0, Vec::len);
        let finished = match n_of("shards") {
            0 => format!("{} finished pieces", n_of("pieces")),
            n => format!("{n} finished shards"),
        };
        // With what came from standard input or a pipe of the shell nothing can go on.
        let first = saved["shards"][0]["path"].as_str().unwrap_or_default();
        let is_stream = first == "-" || first.starts_with("/dev/fd/");
        if n_of("shards") + n_of("pieces") == 0 || is_stream {
            return Ok(());
        }
        let what = format!(
            "holds {finished} of an unfinished run with other shards or settings; \
             that run's command goes on with them, --force discards them"
        );
        Err(Error::exists(&self.folder, what))
    }

    /// Removes all files but the lock.
    fn clear(&self) -> Result<()> {
        let fail = |err| Error::io(&self.folder, err);
        // The state first: it must not outlive the files it speaks of.
        io::remove_if_there(&self.path(STATE))?;
        for entry in fs::read_dir(&self.folder).map_err(fail)? {
            let entry = entry.map_err(fail)?;
            if entry.file_name() != LOCK {
                io::remove_if_there(&entry.path())?;
            }
        }
        Ok(())
    }
}
