//! The scratch folder of a job: growing files and a state that says how much of them is finished.
//!
//! The caller holds the folder's lock until the finished files are published. A killed job resumes from
//! its state if the job is the same, every finished file still has the recorded checksum, and no input
//! has changed since.
//!
//! An input that is still the same inode, with the same size and times, is unchanged: any other one (it was
//! written, touched, or another file is at its path now) is compared by its checksum.

use std::{
    collections::BTreeMap,
    fs::{self, File, Metadata, OpenOptions},
    io::{BufWriter, Read, Seek, SeekFrom, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
    time::SystemTime,
};

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::value::RawValue;

use super::{Checksum, remove_if_there, write_atomically};
use crate::{Error, Result, progress::Progress};

/// The state, and the files that the publishing side keeps in the folder.
const STATE: &str = "state.json";
const KEPT: [&str; 2] = ["pile-tools.lock", "replaced.json"];

/// Bytes hashed between two looks at the stop flag.
const CHUNK_BYTES: usize = 4 << 20;

/// A file of which the first `bytes` are finished.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct FinishedFile {
    bytes: u64,
    sha256: String,
}

/// An input that finished files were made from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct UsedInput {
    path: String,
    sha256: String,
    /// None for an input that may have changed while the job read it.
    identity: Option<Identity>,
}

/// What a file system says of an unchanged file: device, inode, bytes, and times of modification and change in
/// seconds and nanoseconds. No program can set the time of change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Identity(u64, u64, u64, (i64, i64), (i64, i64));

impl Identity {
    fn of(found: &Metadata) -> Self {
        let modified = (found.mtime(), found.mtime_nsec());
        let changed = (found.ctime(), found.ctime_nsec());
        Self(found.dev(), found.ino(), found.len(), modified, changed)
    }
}

#[derive(Serialize, Deserialize)]
struct Saved<S> {
    files: BTreeMap<String, FinishedFile>,
    inputs: Vec<UsedInput>,
    /// An input was a stream, which nobody can read again: no run resumes from this.
    has_stream: bool,
    /// The job's own state.
    state: S,
}

/// The state file: `saved`, and the checksum of its bytes.
#[derive(Serialize, Deserialize)]
struct StateFile<'a> {
    sha256: String,
    #[serde(borrow)]
    saved: &'a RawValue,
}

impl<'a> StateFile<'a> {
    /// What is saved in a state file; None if the file is damaged.
    fn saved(file: &'a [u8]) -> Option<&'a str> {
        let found: Self = serde_json::from_slice(file).ok()?;
        let saved = found.saved.get();
        (sha256_of(saved) == found.sha256).then_some(saved)
    }
}

fn sha256_of(text: &str) -> String {
    let mut checksum = Checksum::default();
    checksum.update(text.as_bytes());
    checksum.sha256()
}

/// A scratch folder.
pub(crate) struct Scratch {
    folder: PathBuf,
    files: BTreeMap<String, FinishedFile>,
    inputs: Vec<UsedInput>,
    has_stream: bool,
    /// When this run of the job began to read inputs, in seconds since 1970.
    started: i64,
    /// Checksums of the files of a resumed job, to be continued.
    checksums: BTreeMap<String, Checksum>,
}

impl Scratch {
    /// Opens or creates the folder, with the job's state if `is_of_job` and all is as recorded; otherwise
    /// the folder is cleared.
    ///
    /// # Errors
    /// Another job's finished work is in it and `discard` is off; the file system fails; or a stop.
    pub fn open<S: DeserializeOwned>(
        folder: &Path,
        discard: bool,
        progress: &Progress,
        is_of_job: impl FnOnce(&S) -> bool,
    ) -> Result<(Self, Option<S>)> {
        fs::create_dir_all(folder).map_err(|err| Error::io(folder, err))?;
        let mut scratch = Self {
            folder: folder.to_owned(),
            files: BTreeMap::new(),
            inputs: Vec::new(),
            has_stream: false,
            started: now(),
            checksums: BTreeMap::new(),
        };
        let state_file = scratch.path(STATE);
        let file = read_regular(&state_file)?.unwrap_or_default();
        let Some(saved) = StateFile::saved(&file) else {
            scratch.clear()?;
            return Ok((scratch, None));
        };
        match serde_json::from_str::<Saved<S>>(saved) {
            Ok(Saved {
                has_stream: true, ..
            }) => {}
            Ok(Saved {
                files,
                inputs,
                state,
                ..
            }) if is_of_job(&state) => {
                if scratch.has_files(&files, progress)? && has_inputs(&inputs, progress)? {
                    scratch.files = files;
                    scratch.inputs = inputs;
                    return Ok((scratch, Some(state)));
                }
            }
            _ if discard => {}
            _ => scratch.refuse_to_discard(saved)?,
        }
        scratch.clear()?;
        Ok((scratch, None))
    }

    /// The path of one of its files.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// A file to append to after its finished bytes; what follows them is cut off.
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

    /// Records that all bytes of a file, which must be synced, are finished.
    pub fn finish_file(&mut self, name: &str, checksum: &Checksum) {
        let finished = FinishedFile {
            bytes: checksum.n_bytes(),
            sha256: checksum.sha256(),
        };
        self.files.insert(name.to_owned(), finished);
    }

    /// Forgets a file that is about to be removed.
    pub fn forget_file(&mut self, name: &str) {
        self.files.remove(name);
    }

    /// Whether a file was finished by an earlier run of the job.
    pub fn is_finished(&self, name: &str) -> bool {
        self.files.contains_key(name)
    }

    /// Records an input that finished files were made from; what is no regular file is a stream.
    pub fn use_input(&mut self, path: &Path, sha256: &str) {
        let found = match fs::metadata(path) {
            Ok(found) if found.is_file() => found,
            _ => {
                self.has_stream = true;
                return;
            }
        };
        // The file was read since the start. One that changed later, or so shortly before that its time may
        // not tell, is not known to be the one that was read.
        let is_settled = found.ctime() < self.started - 1;
        self.inputs.push(UsedInput {
            path: path.to_string_lossy().into_owned(),
            sha256: sha256.to_owned(),
            identity: is_settled.then(|| Identity::of(&found)),
        });
    }

    /// Replaces the state on disk: a run that is killed from here on resumes from it.
    pub fn save(&self, state: &impl Serialize) -> Result<()> {
        let saved = Saved {
            files: self.files.clone(),
            inputs: self.inputs.clone(),
            has_stream: self.has_stream,
            state,
        };
        let fail = |err: serde_json::Error| Error::malformed(&self.folder, err.to_string());
        let saved = serde_json::value::to_raw_value(&saved).map_err(fail)?;
        let file = StateFile {
            sha256: sha256_of(saved.get()),
            saved: &saved,
        };
        let json = serde_json::to_vec(&file).map_err(fail)?;
        write_atomically(&self.path(STATE), |out| out.write_all(&json))
    }

    /// Whether the finished bytes of each file are there as recorded; keeps their checksums. Cuts off what
    /// follows them.
    fn has_files(
        &mut self,
        files: &BTreeMap<String, FinishedFile>,
        progress: &Progress,
    ) -> Result<bool> {
        for (name, finished) in files {
            let is_plain = !name.is_empty() && name != "." && name != ".." && !name.contains('/');
            let path = self.path(name);
            let (checksum, found) = match open_regular(&path)? {
                Some((file, metadata)) if is_plain && metadata.len() >= finished.bytes => {
                    let checksum = hash(&path, file.take(finished.bytes), progress)?;
                    (checksum, metadata.len())
                }
                _ => return Ok(false),
            };
            if checksum.sha256() != finished.sha256 {
                return Ok(false);
            }
            if found > finished.bytes {
                let cut = OpenOptions::new()
                    .write(true)
                    .custom_flags(libc::O_NOFOLLOW)
                    .open(&path)
                    .and_then(|file| file.set_len(finished.bytes));
                cut.map_err(|err| Error::io(&path, err))?;
            }
            self.checksums.insert(name.clone(), checksum);
        }
        Ok(true)
    }

    /// Hours of work are not thrown away for a mistyped option.
    fn refuse_to_discard(&self, saved: &str) -> Result<()> {
        let saved: serde_json::Value = serde_json::from_str(saved).unwrap_or_default();
        let n_shards = saved["state"]["shards"].as_array().map_or(0, Vec::len);
        let files = saved["files"].as_object();
        let n_files = files.map_or(0, |files| {
            files.values().filter(|file| file["bytes"] != 0).count()
        });
        let finished = match (n_shards, n_files) {
            (0, 0) => return Ok(()),
            (0, n) => format!("{n} finished files"),
            (n, _) => format!("{n} finished shards"),
        };
        let what = format!(
            "holds {finished} of an unfinished run with other shards or settings; \
             that run's command resumes from them, --force discards them"
        );
        Err(Error::exists(&self.folder, what))
    }

    /// Removes everything but the files of the publishing side.
    fn clear(&mut self) -> Result<()> {
        self.checksums.clear();
        let fail = |err| Error::io(&self.folder, err);
        // The state first: it must not outlive the files it speaks of.
        let state = self.path(STATE);
        match fs::symlink_metadata(&state) {
            Ok(found) if found.is_dir() => fs::remove_dir_all(&state).map_err(fail)?,
            _ => remove_if_there(&state)?,
        }
        for entry in fs::read_dir(&self.folder).map_err(fail)? {
            let entry = entry.map_err(fail)?;
            if KEPT.iter().any(|kept| entry.file_name() == *kept) {
                continue;
            }
            // The type of the entry itself: a link is removed, what it names stays.
            if entry.file_type().map_err(fail)?.is_dir() {
                fs::remove_dir_all(entry.path()).map_err(fail)?;
            } else {
                remove_if_there(&entry.path())?;
            }
        }
        Ok(())
    }
}

/// A file that grows at its end, and its checksum.
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

    /// Syncs the file and records that all its bytes are finished.
    pub fn finish(&mut self, scratch: &mut Scratch) -> Result<()> {
        let done = self
            .out
            .flush()
            .and_then(|()| self.out.get_ref().sync_data());
        done.map_err(|err| Error::io(&self.path, err))?;
        scratch.finish_file(&self.name, &self.checksum);
        Ok(())
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// SHA-256 of what was written, in hexadecimal.
    pub fn sha256(&self) -> String {
        self.checksum.sha256()
    }
}

/// Checksum of a finished file.
///
/// # Errors
/// What the file system reports; a stop.
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

/// Whether the inputs are those that were used.
fn has_inputs(inputs: &[UsedInput], progress: &Progress) -> Result<bool> {
    for input in inputs {
        let path = Path::new(&input.path);
        let found = match fs::metadata(path) {
            Ok(found) if found.is_file() => found,
            _ => return Ok(false),
        };
        if input.identity != Some(Identity::of(&found))
            && checksum_of(path, progress)?.sha256() != input.sha256
        {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Seconds since 1970.
fn now() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs().try_into().unwrap_or(i64::MAX))
}

/// A regular file opened for reading, no link followed; `None` if there is none.
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

fn read_regular(path: &Path) -> Result<Option<Vec<u8>>> {
    let Some((mut file, _)) = open_regular(path)? else {
        return Ok(None);
    };
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)
        .map_err(|err| Error::io(path, err))?;
    Ok(Some(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(folder: &Path, discard: bool) -> Result<(Scratch, Option<String>)> {
        Scratch::open(folder, discard, &Progress::default(), |job: &String| {
            job == "job"
        })
    }

    /// A folder whose file `a` has 3 finished bytes and 2 unfinished ones, made from the input `in`.
    fn interrupted(folder: &Path) {
        fs::create_dir(folder.join("of")).unwrap();
        fs::write(folder.join("of/in"), "input").unwrap();
        fs::create_dir(folder.join("other")).unwrap();
        fs::write(folder.join("other/in"), "other").unwrap();
        std::os::unix::fs::symlink("of/in", folder.join("in")).unwrap();
        let path = folder.join("scratch");
        let (mut scratch, state) = open(&path, false).unwrap();
        assert_eq!(state, None);
        // As if the input had been there for long.
        scratch.started += 10;
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
        assert_eq!(fs::read(scratch.path("a")).unwrap(), b"abc");
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
        let damages: [Damage; 10] = [
            |folder| {
                let state = folder.join("scratch/state.json");
                let edited = fs::read_to_string(&state).unwrap().replace("job", "jab");
                fs::write(&state, edited).unwrap();
            },
            |folder| {
                fs::remove_file(folder.join("scratch/state.json")).unwrap();
                fs::create_dir_all(folder.join("scratch/state.json/a")).unwrap();
            },
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
            // Files that did not change themselves, and are another input now.
            |folder| {
                fs::rename(folder.join("of"), folder.join("old")).unwrap();
                fs::rename(folder.join("other"), folder.join("of")).unwrap();
            },
            |folder| {
                fs::remove_file(folder.join("in")).unwrap();
                std::os::unix::fs::symlink("other/in", folder.join("in")).unwrap();
            },
        ];
        for (number, damage) in damages.into_iter().enumerate() {
            let folder = tempfile::tempdir().unwrap();
            interrupted(folder.path());
            damage(folder.path());
            let (mut scratch, state) = open(&folder.path().join("scratch"), false).unwrap();
            assert_eq!(state, None, "damage {number}");
            assert!(!scratch.path("a").exists(), "damage {number}");
            let mut file = scratch.grow("a").unwrap();
            file.push(b"new").unwrap();
            file.finish(&mut scratch).unwrap();
            let whole = checksum_of(file.path(), &Progress::default()).unwrap();
            assert_eq!(file.sha256(), whole.sha256(), "damage {number}");
            if number == 7 {
                assert_eq!(fs::read(folder.path().join("victim")).unwrap(), b"abc");
            }
        }
    }

    #[test]
    fn an_input_that_was_only_touched_is_the_same() {
        let folder = tempfile::tempdir().unwrap();
        interrupted(folder.path());
        fs::write(folder.path().join("in"), "input").unwrap();
        let (_, state) = open(&folder.path().join("scratch"), false).unwrap();
        assert_eq!(state.as_deref(), Some("job"));
    }
}
