//! The scratch folder of a job: files that grow, and a state with the length and checksum of their finished parts.
//!
//! The caller holds the folder's lock until the finished files are published. A job that was killed resumes
//! from the state if it is the same job, the finished part of every file still has its checksum, and no input
//! has changed.

use std::{
    collections::BTreeMap,
    fs::{self, File, Metadata, OpenOptions},
    io::{BufWriter, Read, Seek, SeekFrom, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::{Checksum, remove_if_there, write_atomically};
use crate::{Error, Result, progress::Progress};

/// The file of the state.
const STATE: &str = "state.json";

/// Files of `pile_tools.publish` in the folder, which are not removed.
const PUBLISHING_FILES: [&str; 2] = ["pile-tools.lock", "replaced.json"];

/// Bytes hashed between two checks for a stop.
const CHUNK_BYTES: usize = 4 << 20;

/// The finished part of a file: its first `bytes` bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct FinishedFile {
    bytes: u64,
    sha256: String,
}

/// An input from which finished parts were made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct UsedInput {
    path: String,
    sha256: String,
}

/// The content of the state file.
#[derive(Serialize, Deserialize)]
struct SavedState<S> {
    files: BTreeMap<String, FinishedFile>,
    inputs: Vec<UsedInput>,
    /// Whether an input was a stream. A stream cannot be read again, so no run resumes from this state.
    has_stream: bool,
    /// The job's own state.
    state: S,
}

/// The scratch folder of a job.
pub(crate) struct Scratch {
    folder: PathBuf,
    files: BTreeMap<String, FinishedFile>,
    inputs: Vec<UsedInput>,
    has_stream: bool,
    /// Checksums of the finished parts of a resumed job's files, which continue as the files grow.
    checksums: BTreeMap<String, Checksum>,
}

impl Scratch {
    /// Opens or creates the folder. Returns the job's saved state if `may_resume` accepts it and files and
    /// inputs are unchanged. Otherwise the folder is cleared.
    ///
    /// # Errors
    /// The folder has finished work of another job and `discard` is off; the file system fails; or a stop.
    pub fn open<S: DeserializeOwned>(
        folder: &Path,
        discard: bool,
        progress: &Progress,
        may_resume: impl FnOnce(&S) -> bool,
    ) -> Result<(Self, Option<S>)> {
        fs::create_dir_all(folder).map_err(|err| Error::io(folder, err))?;
        let mut scratch = Self {
            folder: folder.to_owned(),
            files: BTreeMap::new(),
            inputs: Vec::new(),
            has_stream: false,
            checksums: BTreeMap::new(),
        };
        let state_file = scratch.path(STATE);
        let Some((saved, metadata)) = read_regular(&state_file)? else {
            scratch.clear()?;
            return Ok((scratch, None));
        };
        match serde_json::from_slice::<SavedState<S>>(&saved) {
            Ok(SavedState {
                has_stream: true, ..
            }) => {}
            Ok(SavedState {
                files,
                inputs,
                state,
                ..
            }) if may_resume(&state) => {
                if scratch.has_files(&files, progress)? && has_inputs(&inputs, &metadata, progress)?
                {
                    scratch.files = files;
                    scratch.inputs = inputs;
                    return Ok((scratch, Some(state)));
                }
            }
            _ if discard => {}
            _ => scratch.refuse_to_discard(&saved)?,
        }
        scratch.clear()?;
        Ok((scratch, None))
    }

    /// The path of a file in the folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Opens a file for appending. It is created if needed and truncated to its finished part.
    pub fn grow(&mut self, name: &str) -> Result<GrowingFile> {
        let path = self.path(name);
        let finished = self.files.get(name).map_or(0, |file| file.bytes);
        let open = || {
            let mut file = OpenOptions::new()
                .create(true)
                .truncate(false)
                .write(true)
                .custom_flags(libc::O_NOFOLLOW)
                .open(&path)?;
            file.set_len(finished)?;
            file.seek(SeekFrom::End(0))?;
            Ok(file)
        };
        let file = open().map_err(|err| Error::io(&path, err))?;
        Ok(GrowingFile {
            name: name.to_owned(),
            path,
            out: BufWriter::with_capacity(1 << 18, file),
            checksum: self.checksums.remove(name).unwrap_or_default(),
        })
    }

    /// Records that all bytes of a file are finished. The file must be synced.
    pub fn finish_file(&mut self, name: &str, checksum: &Checksum) {
        let finished = FinishedFile {
            bytes: checksum.n_bytes(),
            sha256: checksum.sha256(),
        };
        self.files.insert(name.to_owned(), finished);
    }

    /// Removes a file from the record, before the file itself is removed.
    pub fn forget_file(&mut self, name: &str) {
        self.files.remove(name);
    }

    /// Whether a file has a finished part.
    pub fn is_finished(&self, name: &str) -> bool {
        self.files.contains_key(name)
    }

    /// Records an input from which finished parts are made. Anything but a regular file counts as a stream.
    pub fn use_input(&mut self, path: &Path, sha256: &str) {
        if !fs::metadata(path).is_ok_and(|found| found.is_file()) {
            self.has_stream = true;
            return;
        }
        self.inputs.push(UsedInput {
            path: path.to_string_lossy().into_owned(),
            sha256: sha256.to_owned(),
        });
    }

    /// Replaces the state on disk. A job that is killed later resumes from it.
    pub fn save(&self, state: &impl Serialize) -> Result<()> {
        let saved = SavedState {
            files: self.files.clone(),
            inputs: self.inputs.clone(),
            has_stream: self.has_stream,
            state,
        };
        let json = serde_json::to_vec(&saved)
            .map_err(|err| Error::malformed(&self.folder, err.to_string()))?;
        write_atomically(&self.path(STATE), |out| out.write_all(&json))
    }

    /// Whether the finished part of each file has its recorded checksum. Keeps the checksums to continue them.
    fn has_files(
        &mut self,
        files: &BTreeMap<String, FinishedFile>,
        progress: &Progress,
    ) -> Result<bool> {
        for (name, finished) in files {
            // The names come from a file that anyone could have written: none may lead out of the folder.
            let is_file_name =
                !name.is_empty() && name != "." && name != ".." && !name.contains('/');
            let path = self.path(name);
            let checksum = match open_regular(&path)? {
                Some((file, metadata)) if is_file_name && metadata.len() >= finished.bytes => {
                    hash(&path, file.take(finished.bytes), progress)?
                }
                _ => return Ok(false),
            };
            if checksum.sha256() != finished.sha256 {
                return Ok(false);
            }
            self.checksums.insert(name.clone(), checksum);
        }
        Ok(true)
    }

    /// Fails if the saved state of another job has finished work: a mistyped setting must not discard hours of it.
    fn refuse_to_discard(&self, saved: &[u8]) -> Result<()> {
        let saved: serde_json::Value = serde_json::from_slice(saved).unwrap_or_default();
        let state = &saved["state"];
        let n_of = |kind: &str| state[kind].as_array().map_or(0, Vec::len);
        let finished = match n_of("shards") {
            0 => format!("{} finished parts", n_of("pieces")),
            n => format!("{n} finished shards"),
        };
        if n_of("shards") + n_of("pieces") == 0 {
            return Ok(());
        }
        let what = format!(
            "holds {finished} of an unfinished run with other shards or settings; \
             the command of that run resumes it, force discards it"
        );
        Err(Error::exists(&self.folder, what))
    }

    /// Removes everything but the files of `pile_tools.publish`.
    fn clear(&self) -> Result<()> {
        let fail = |err| Error::io(&self.folder, err);
        // The state first: if this is interrupted, no state may refer to removed files.
        remove_if_there(&self.path(STATE))?;
        for entry in fs::read_dir(&self.folder).map_err(fail)? {
            let entry = entry.map_err(fail)?;
            if PUBLISHING_FILES
                .iter()
                .any(|kept| entry.file_name() == *kept)
            {
                continue;
            }
            // The type of the entry itself: of a link only the link is removed, not its target.
            if entry.file_type().map_err(fail)?.is_dir() {
                fs::remove_dir_all(entry.path()).map_err(fail)?;
            } else {
                remove_if_there(&entry.path())?;
            }
        }
        Ok(())
    }
}

/// A file that is appended to, and its checksum.
pub(crate) struct GrowingFile {
    name: String,
    path: PathBuf,
    out: BufWriter<File>,
    checksum: Checksum,
}

impl GrowingFile {
    /// Appends bytes.
    pub fn push(&mut self, bytes: &[u8]) -> Result<()> {
        self.checksum.update(bytes);
        self.out
            .write_all(bytes)
            .map_err(|err| Error::io(&self.path, err))
    }

    /// Syncs the file, and records all its bytes as finished.
    pub fn finish(&mut self, scratch: &mut Scratch) -> Result<()> {
        let done = self
            .out
            .flush()
            .and_then(|()| self.out.get_ref().sync_data());
        done.map_err(|err| Error::io(&self.path, err))?;
        scratch.finish_file(&self.name, &self.checksum);
        Ok(())
    }

    /// Path of the file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// SHA-256 of all bytes, in hexadecimal.
    pub fn sha256(&self) -> String {
        self.checksum.sha256()
    }
}

/// Returns the checksum of a file.
///
/// # Errors
/// Those of the file system, or a stop.
pub(crate) fn checksum_of(path: &Path, progress: &Progress) -> Result<Checksum> {
    let file = File::open(path).map_err(|err| Error::io(path, err))?;
    hash(path, file, progress)
}

fn hash(path: &Path, mut from: impl Read, progress: &Progress) -> Result<Checksum> {
    let mut checksum = Checksum::default();
    let mut chunk = vec![0; CHUNK_BYTES];
    loop {
        match from.read(&mut chunk).map_err(|err| Error::io(path, err))? {
            0 => return Ok(checksum),
            n => checksum.update(&chunk[..n]),
        }
        progress.advance(0)?;
    }
}

/// Whether the inputs are unchanged. An input whose status change time is before the state's is unchanged, as
/// programs cannot set that time. Others are compared by their checksum.
fn has_inputs(inputs: &[UsedInput], state: &Metadata, progress: &Progress) -> Result<bool> {
    let ctime = |found: &Metadata| (found.ctime(), found.ctime_nsec());
    for input in inputs {
        let path = Path::new(&input.path);
        let Ok(found) = fs::metadata(path) else {
            return Ok(false);
        };
        let is_newer = ctime(&found) >= ctime(state);
        if !found.is_file() || (is_newer && checksum_of(path, progress)?.sha256() != input.sha256) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Opens a regular file for reading, without following links; `None` if there is none.
fn open_regular(path: &Path) -> Result<Option<(File, Metadata)>> {
    let is_regular = fs::symlink_metadata(path).is_ok_and(|found| found.is_file());
    if !is_regular {
        return Ok(None);
    }
    let open = || {
        let file = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NOFOLLOW)
            .open(path)?;
        let metadata = file.metadata()?;
        Ok((file, metadata))
    };
    open().map(Some).map_err(|err| Error::io(path, err))
}

/// Reads a regular file, without following links; `None` if there is none.
fn read_regular(path: &Path) -> Result<Option<(Vec<u8>, Metadata)>> {
    let Some((mut file, metadata)) = open_regular(path)? else {
        return Ok(None);
    };
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)
        .map_err(|err| Error::io(path, err))?;
    Ok(Some((bytes, metadata)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(folder: &Path, discard: bool) -> Result<(Scratch, Option<String>)> {
        Scratch::open(folder, discard, &Progress::default(), |job: &String| {
            job == "job"
        })
    }

    /// Leaves a scratch folder whose file `a` has 3 finished and 2 unfinished bytes, made from the input `in`.
    fn interrupted(folder: &Path) {
        fs::write(folder.join("in"), "input").unwrap();
        let path = folder.join("scratch");
        let (mut scratch, state) = open(&path, false).unwrap();
        assert_eq!(state, None);
        let mut file = scratch.grow("a").unwrap();
        file.push(b"abc").unwrap();
        file.finish(&mut scratch).unwrap();
        let input = checksum_of(&folder.join("in"), &Progress::default()).unwrap();
        scratch.use_input(&folder.join("in"), &input.sha256());
        scratch.save(&"job").unwrap();
        file.push(b"de").unwrap();
        drop(file);
    }

    #[test]
    fn a_job_resumes_after_its_finished_bytes_with_their_checksum() {
        let folder = tempfile::tempdir().unwrap();
        interrupted(folder.path());
        let (mut scratch, state) = open(&folder.path().join("scratch"), false).unwrap();
        assert_eq!(state.as_deref(), Some("job"));
        let mut file = scratch.grow("a").unwrap();
        file.push(b"f").unwrap();
        file.finish(&mut scratch).unwrap();
        assert_eq!(fs::read(file.path()).unwrap(), b"abcf");
        let whole = checksum_of(file.path(), &Progress::default()).unwrap();
        assert_eq!(file.sha256(), whole.sha256());
    }

    #[test]
    fn damaged_files_and_changed_inputs_are_not_resumed_from() {
        type Damage = fn(&Path);
        let damages: [Damage; 6] = [
            |folder| fs::write(folder.join("scratch/a"), "abX").unwrap(),
            |folder| fs::write(folder.join("scratch/a"), "ab").unwrap(),
            |folder| fs::remove_file(folder.join("scratch/a")).unwrap(),
            |folder| fs::write(folder.join("in"), "INPUT").unwrap(),
            |folder| fs::remove_file(folder.join("in")).unwrap(),
            |folder| {
                fs::remove_file(folder.join("scratch/a")).unwrap();
                fs::write(folder.join("victim"), "abc").unwrap();
                std::os::unix::fs::symlink(folder.join("victim"), folder.join("scratch/a"))
                    .unwrap();
            },
        ];
        for (number, damage) in damages.into_iter().enumerate() {
            let folder = tempfile::tempdir().unwrap();
            interrupted(folder.path());
            damage(folder.path());
            let (scratch, state) = open(&folder.path().join("scratch"), false).unwrap();
            assert_eq!(state, None, "damage {number}");
            assert!(!scratch.path("a").exists(), "damage {number}");
            if number == 5 {
                assert_eq!(fs::read(folder.path().join("victim")).unwrap(), b"abc");
            }
        }
    }

    #[test]
    fn an_input_that_was_only_touched_is_unchanged() {
        let folder = tempfile::tempdir().unwrap();
        interrupted(folder.path());
        fs::write(folder.path().join("in"), "input").unwrap();
        let (_, state) = open(&folder.path().join("scratch"), false).unwrap();
        assert_eq!(state.as_deref(), Some("job"));
    }
}
