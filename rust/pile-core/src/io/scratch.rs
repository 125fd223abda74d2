//! The scratch folder of a job: files that grow, and a state with the length and checksum of their finished parts.
//!
//! The caller holds the folder's lock until the finished files are published. A job that was killed resumes
//! from the state if it is the same job, the finished part of every file still has its checksum, and no input
//! has changed.
//!
//! An input that is still the same inode, with the same size and times, is unchanged. Any other one (it was
//! written or touched, or another file is at its path now) is compared by its checksum.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fs::{self, File, Metadata, OpenOptions},
    io::{BufWriter, ErrorKind, Read, Seek, SeekFrom, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
    time::SystemTime,
};

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::value::RawValue;

use super::{Checksum, check_mapped, remove_if_there, write_atomically};
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
    path: InputPath,
    sha256: String,
    /// None for an input that may have changed while the job read it.
    identity: Option<Identity>,
}

/// The path of an input, byte for byte: with replacement characters it could be that of another file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
enum InputPath {
    Utf8(String),
    Other(OsString),
}

impl InputPath {
    fn of(path: &Path) -> Self {
        path.to_str().map_or_else(
            || Self::Other(path.as_os_str().to_owned()),
            |text| Self::Utf8(text.to_owned()),
        )
    }

    fn as_path(&self) -> &Path {
        match self {
            Self::Utf8(text) => Path::new(text),
            Self::Other(text) => Path::new(text),
        }
    }
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

/// The scratch folder of a job.
pub(crate) struct Scratch {
    folder: PathBuf,
    files: BTreeMap<String, FinishedFile>,
    inputs: Vec<UsedInput>,
    has_stream: bool,
    /// When this run of the job began to read inputs, in seconds since 1970.
    started: i64,
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
            started: now(),
            checksums: BTreeMap::new(),
        };
        let state_file = scratch.path(STATE);
        let file = read_regular(&state_file)?.unwrap_or_default();
        let Some(saved) = StateFile::saved(&file) else {
            scratch.clear()?;
            return Ok((scratch, None));
        };
        match serde_json::from_str::<SavedState<S>>(saved) {
            Ok(SavedState {
                has_stream: true, ..
            }) => {}
            Ok(SavedState {
                files,
                inputs,
                state,
                ..
            }) if may_resume(&state) => {
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

    /// The saved state of a job in a folder, whose files are not checked; `None` if there is none, or it is damaged.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn saved_state<S: DeserializeOwned>(folder: &Path) -> Result<Option<S>> {
        let file = read_regular(&folder.join(STATE))?.unwrap_or_default();
        let saved = StateFile::saved(&file).map(serde_json::from_str::<SavedState<S>>);
        Ok(saved.and_then(|saved| saved.ok()).map(|saved| saved.state))
    }

    /// Whether a file of this name is not the job's: the state, or a file of `pile_tools.publish`.
    pub fn has_own(name: &str) -> bool {
        name == STATE || PUBLISHING_FILES.contains(&name)
    }

    /// The path of a file in the folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Opens a file for appending. It is created if needed and truncated to its finished part. Called once per file:
    /// the checksum of the finished part passes to the result.
    pub fn grow(&mut self, name: &str) -> Result<GrowingFile> {
        let path = self.path(name);
        let finished = self.files.get(name).map_or(0, |file| file.bytes);
        if finished == 0 {
            // Made anew, not truncated: the old one may have another name elsewhere.
            remove_if_there(&path)?;
        }
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
        self.checksums.remove(name);
    }

    /// Whether a file has a finished part.
    pub fn is_finished(&self, name: &str) -> bool {
        self.files.contains_key(name)
    }

    /// SHA-256 of the finished part of a file, in hexadecimal; `None` if it has none.
    pub fn sha256(&self, name: &str) -> Option<&str> {
        self.files.get(name).map(|file| &*file.sha256)
    }

    /// Declares the inputs of the job. If one of them is not a regular file, no run resumes from a state saved
    /// after this, not even from one saved before that input is read.
    pub fn declare_inputs(&mut self, paths: &[PathBuf]) {
        let is_stream = |path: &PathBuf| fs::metadata(path).is_ok_and(|found| !found.is_file());
        self.has_stream |= paths.iter().any(is_stream);
    }

    /// Records an input from which finished parts are made. Anything but a regular file counts as a stream.
    pub fn use_input(&mut self, path: &Path, sha256: &str) {
        let found = match fs::metadata(path) {
            Ok(found) if found.is_file() => found,
            _ => {
                self.has_stream = true;
                return;
            }
        };
        // The file was read since the start. One that changed later is not known to be the one that was read, nor one
        // that changed up to a second before: file systems may round times to seconds.
        let is_settled = found.ctime() < self.started - 1;
        self.inputs.push(UsedInput {
            path: InputPath::of(path),
            sha256: sha256.to_owned(),
            identity: is_settled.then(|| Identity::of(&found)),
        });
    }

    /// Replaces the state on disk. A job that is killed later resumes from it.
    ///
    /// # Errors
    /// A mapped input was cut short: what was made from it must not be resumed from; or the file system fails.
    pub fn save(&self, state: &impl Serialize) -> Result<()> {
        check_mapped()?;
        let saved = SavedState {
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

    /// Whether the finished part of each file has its recorded checksum. Keeps the checksums to continue them, and
    /// cuts off what follows the finished parts, since the job may use a file without growing it. A file that has
    /// another name too is not continued: the copy of the folder that it belongs to would change with it.
    fn has_files(
        &mut self,
        files: &BTreeMap<String, FinishedFile>,
        progress: &Progress,
    ) -> Result<bool> {
        for (name, finished) in files {
            // The names come from a file that anyone could have written: none may lead out of the folder.
            if name.is_empty() || name == "." || name == ".." || name.contains('/') {
                return Ok(false);
            }
            let path = self.path(name);
            let (checksum, found) = match open_regular(&path)? {
                Some((file, metadata))
                    if metadata.len() >= finished.bytes && metadata.nlink() == 1 =>
                {
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

    /// Fails if the saved state of another job has finished work: a mistyped setting must not discard hours of it.
    /// Its type is unknown, but jobs that finish shards list them as `shards`.
    fn refuse_to_discard(&self, saved: &str) -> Result<()> {
        let saved: serde_json::Value = serde_json::from_str(saved).unwrap_or_default();
        let n_shards = saved["state"]["shards"].as_array().map_or(0, Vec::len);
        let files = saved["files"].as_object();
        let n_files = files.map_or(0, |files| {
            files.values().filter(|file| file["bytes"] != 0).count()
        });
        let finished = match (n_shards, n_files) {
            (0, 0) => return Ok(()),
            (0, n) => format!("{n} finished file{}", if n == 1 { "" } else { "s" }),
            (n, _) => format!("{n} finished shard{}", if n == 1 { "" } else { "s" }),
        };
        let what = format!(
            "holds {finished} of an unfinished run with other shards or settings; \
             the command of that run resumes it"
        );
        Err(Error::exists(&self.folder, what))
    }

    /// Removes everything but the files of `pile_tools.publish`.
    fn clear(&mut self) -> Result<()> {
        self.checksums.clear();
        let fail = |err| Error::io(&self.folder, err);
        // The state first: if this is interrupted, no state may refer to removed files.
        let state = self.path(STATE);
        match fs::symlink_metadata(&state) {
            Ok(found) if found.is_dir() => fs::remove_dir_all(&state).map_err(fail)?,
            _ => remove_if_there(&state)?,
        }
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
        self.write_all(bytes)
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

    /// Number of bytes, those of earlier runs included.
    pub fn n_bytes(&self) -> u64 {
        self.checksum.n_bytes()
    }
}

/// For compressors, which write to any [`Write`].
impl Write for GrowingFile {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let n = self.out.write(bytes)?;
        self.checksum.update(&bytes[..n]);
        Ok(n)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.out.flush()
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
        match from.read(&mut chunk) {
            Ok(0) => return Ok(checksum),
            Ok(n) => checksum.update(&chunk[..n]),
            // By a signal, on file systems over a network. `progress` reports a stop.
            Err(err) if err.kind() == ErrorKind::Interrupted => {}
            Err(err) => return Err(Error::io(path, err)),
        }
        progress.advance(0)?;
    }
}

/// Whether the inputs are unchanged.
fn has_inputs(inputs: &[UsedInput], progress: &Progress) -> Result<bool> {
    for input in inputs {
        let path = input.path.as_path();
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

    /// Leaves a scratch folder whose file `a` has 3 finished and 2 unfinished bytes, made from the input `in`.
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
    fn an_input_is_compared_by_the_bytes_of_its_name() {
        use std::os::unix::ffi::OsStrExt;
        let folder = tempfile::tempdir().unwrap();
        let named = |name: &[u8]| folder.path().join(std::ffi::OsStr::from_bytes(name));
        let (input, path) = (named(b"\xff"), named(b"scratch"));
        fs::write(&input, "input").unwrap();
        fs::write(named("\u{fffd}".as_bytes()), "input").unwrap();
        let (mut scratch, _) = open(&path, false).unwrap();
        let checksum = checksum_of(&input, &Progress::default()).unwrap();
        scratch.use_input(&input, &checksum.sha256());
        scratch.save(&"job").unwrap();
        assert_eq!(open(&path, false).unwrap().1.as_deref(), Some("job"));
        fs::write(&input, "other").unwrap();
        assert_eq!(open(&path, false).unwrap().1, None);
    }

    #[test]
    fn a_file_with_another_name_is_made_anew() {
        let folder = tempfile::tempdir().unwrap();
        interrupted(folder.path());
        let copy = folder.path().join("copy");
        fs::hard_link(folder.path().join("scratch/a"), &copy).unwrap();
        let (mut scratch, state) = open(&folder.path().join("scratch"), false).unwrap();
        assert_eq!(state, None);
        let mut file = scratch.grow("a").unwrap();
        file.push(b"f").unwrap();
        file.finish(&mut scratch).unwrap();
        assert_eq!(fs::read(file.path()).unwrap(), b"f");
        assert_eq!(fs::read(copy).unwrap(), b"abcde");
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
    fn interrupted_reads_are_repeated() {
        struct Interrupted<'a>(&'a [u8], bool);
        impl Read for Interrupted<'_> {
            fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
                self.1 = !self.1;
                match self.1 {
                    true => Err(ErrorKind::Interrupted.into()),
                    false => self.0.read(&mut buffer[..1]),
                }
            }
        }
        let read = hash(
            Path::new("a"),
            Interrupted(b"abc", false),
            &Progress::default(),
        );
        assert_eq!(read.unwrap().sha256(), sha256_of("abc"));
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
