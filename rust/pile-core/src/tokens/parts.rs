//! A dataset in the making: growing column files and a state that says how far they are good.
//!
//! After each shard the files are synced and `state.json` replaced. A killed job cuts the files back
//! to that state and goes on with the next shard, so at most one shard's work is lost and the bytes
//! are those of an uninterrupted run.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{BufReader, BufWriter, Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::{ShardResult, ShardSpan, TokenType, provenance, write_idx};
use crate::{Error, Result, io, read::Position};

/// How far a job is: written after each shard.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct State {
    /// What is being made: inputs and settings. Another job does not go on with these parts.
    pub job: String,
    pub n_documents: u64,
    pub n_tokens: u64,
    pub subsets: Vec<SubsetTotal>,
    pub shards: Vec<ShardResult>,
}

/// Documents and tokens of one subset.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SubsetTotal {
    /// `meta.pile_set_name`; `None` for records without one.
    pub name: Option<String>,
    /// Documents.
    pub n_documents: u64,
    /// Tokens, end-of-document tokens included.
    pub n_tokens: u64,
    /// Bytes of text, UTF-8.
    pub n_text_bytes: u64,
}

/// One document as it is added.
pub(super) struct NewDocument<'a> {
    pub position: Position,
    pub n_tokens: u64,
    pub n_text_bytes: u64,
    pub subset: Option<&'a str>,
}

/// A file that grows at its end.
struct Column {
    path: PathBuf,
    out: BufWriter<File>,
}

impl Column {
    fn open(path: PathBuf, keep_bytes: u64) -> Result<Self> {
        let fail = |err| Error::io(&path, err);
        let options = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path);
        let mut file = options.map_err(fail)?;
        file.set_len(keep_bytes).map_err(fail)?;
        file.seek(SeekFrom::End(0)).map_err(fail)?;
        Ok(Self {
            out: BufWriter::with_capacity(1 << 18, file),
            path,
        })
    }

    fn push(&mut self, bytes: &[u8]) -> Result<()> {
        self.out
            .write_all(bytes)
            .map_err(|err| Error::io(&self.path, err))
    }

    fn sync(&mut self) -> Result<()> {
        let done = self
            .out
            .flush()
            .and_then(|()| self.out.get_ref().sync_data());
        done.map_err(|err| Error::io(&self.path, err))
    }
}

/// The columns: tokens, then by document its length, byte start, byte length, record and subset.
const COLUMNS: [(&str, u64); 6] = [
    ("tokens", 0),
    ("lengths", 4),
    ("byte_start", 8),
    ("byte_length", 8),
    ("record", 4),
    ("subset", 2),
];

/// The folder of a dataset in the making, locked against a second process.
pub(super) struct Parts {
    folder: PathBuf,
    token_type: TokenType,
    pub state: State,
    columns: [Column; 6],
    _lock: File,
}

impl Parts {
    /// Opens or creates the folder; parts that are not ours by their state are thrown away.
    pub fn open(
        folder: &Path,
        job: &str,
        token_type: TokenType,
        is_ours: impl Fn(&State) -> bool,
    ) -> Result<Self> {
        fs::create_dir_all(folder).map_err(|err| Error::io(folder, err))?;
        let lock = lock(&folder.join("lock"))?;
        let state = match fs::read(folder.join("state.json")) {
            Ok(bytes) => serde_json::from_slice(&bytes).ok().filter(is_ours),
            Err(_) => None,
        };
        let state = state.unwrap_or_else(|| State {
            job: job.to_owned(),
            n_documents: 0,
            n_tokens: 0,
            subsets: Vec::new(),
            shards: Vec::new(),
        });
        let open = |(name, width): (&str, u64)| {
            let is_tokens = name == "tokens";
            let keep = if is_tokens {
                state.n_tokens * token_type.n_bytes() as u64
            } else {
                state.n_documents * width
            };
            Column::open(folder.join(name), keep)
        };
        let [tokens, lengths, start, length, record, subset] = COLUMNS;
        let columns = [
            open(tokens)?,
            open(lengths)?,
            open(start)?,
            open(length)?,
            open(record)?,
            open(subset)?,
        ];
        Ok(Self {
            folder: folder.to_owned(),
            token_type,
            state,
            columns,
            _lock: lock,
        })
    }

    /// Adds tokens of documents to come, in the stored type.
    pub fn push_tokens(&mut self, bytes: &[u8]) -> Result<()> {
        self.columns[0].push(bytes)
    }

    /// Adds a document of `shard`, whose tokens were pushed.
    pub fn push_document(&mut self, shard: &Path, document: NewDocument<'_>) -> Result<()> {
        let Position {
            record,
            byte_start,
            byte_length,
        } = document.position;
        let too_large = |what: &str| {
            Error::format(
                shard,
                byte_start,
                format!("record {record}: {what} beyond what the format holds"),
            )
        };
        let length = i32::try_from(document.n_tokens).map_err(|_| too_large("tokens"))?;
        let short_record =
            u32::try_from(record).map_err(|_| too_large("its number in the shard is"))?;
        let subset = self.count_subset(shard, &document)?;
        let [_, lengths, starts, byte_lengths, records, subsets] = &mut self.columns;
        lengths.push(&length.to_le_bytes())?;
        starts.push(&byte_start.to_le_bytes())?;
        byte_lengths.push(&byte_length.to_le_bytes())?;
        records.push(&short_record.to_le_bytes())?;
        subsets.push(&subset.to_le_bytes())?;
        self.state.n_documents += 1;
        self.state.n_tokens += document.n_tokens;
        Ok(())
    }

    /// The document's subset as a number, its totals counted.
    fn count_subset(&mut self, shard: &Path, document: &NewDocument<'_>) -> Result<u16> {
        let subsets = &mut self.state.subsets;
        let at = subsets
            .iter()
            .position(|s| s.name.as_deref() == document.subset)
            .unwrap_or_else(|| {
                subsets.push(SubsetTotal {
                    name: document.subset.map(str::to_owned),
                    n_documents: 0,
                    n_tokens: 0,
                    n_text_bytes: 0,
                });
                subsets.len() - 1
            });
        let total = &mut subsets[at];
        total.n_documents += 1;
        total.n_tokens += document.n_tokens;
        total.n_text_bytes += document.n_text_bytes;
        if document.subset.is_none() {
            return Ok(provenance::NO_SUBSET);
        }
        // Numbers count the named subsets only.
        let number = subsets[..at].iter().filter(|s| s.name.is_some()).count();
        u16::try_from(number)
            .ok()
            .filter(|number| *number != provenance::NO_SUBSET)
            .ok_or_else(|| Error::malformed(shard, "more than 65,535 different subsets"))
    }

    /// Records that a shard is finished: from here on a killed job does not do it again.
    pub fn finish_shard(&mut self, shard: ShardResult) -> Result<()> {
        self.state.shards.push(shard);
        for column in &mut self.columns {
            column.sync()?;
        }
        let json = serde_json::to_vec(&self.state)
            .map_err(|err| Error::malformed(&self.folder, err.to_string()))?;
        io::write_atomically(&self.folder.join("state.json"), |out| out.write_all(&json))
    }

    /// Writes the finished dataset as `NAME.bin`, `NAME.idx` and `NAME.provenance` in the folder.
    pub fn assemble(self, name: &str) -> Result<State> {
        let path = |suffix: &str| self.folder.join(format!("{name}{suffix}"));
        let lengths = read_lengths(&self.columns[1].path)?;
        io::write_atomically(&path(".idx"), |out| {
            write_idx(out, self.token_type, &lengths)
        })?;
        let shards = self.state.shards.iter();
        let shards = shards
            .map(|s| ShardSpan {
                path: s.path.clone(),
                first_document: s.first_document,
            })
            .collect();
        let subsets = self
            .state
            .subsets
            .iter()
            .filter_map(|s| s.name.clone())
            .collect();
        io::write_atomically(&path(".provenance"), |out| {
            provenance::write_header(out, self.state.n_documents, shards, subsets)?;
            for column in &self.columns[2..] {
                std::io::copy(&mut File::open(&column.path)?, out)?;
            }
            Ok(())
        })?;
        fs::rename(&self.columns[0].path, path(".bin"))
            .map_err(|err| Error::io(&path(".bin"), err))?;
        for column in &self.columns[1..] {
            io::remove_if_there(&column.path)?;
        }
        io::remove_if_there(&self.folder.join("state.json"))?;
        Ok(self.state)
    }
}

fn read_lengths(path: &Path) -> Result<Vec<i32>> {
    let fail = |err| Error::io(path, err);
    let mut bytes = Vec::new();
    BufReader::new(File::open(path).map_err(fail)?)
        .read_to_end(&mut bytes)
        .map_err(fail)?;
    Ok(bytes
        .chunks_exact(4)
        .map(|b| i32::from_le_bytes([b[0], b[1], b[2], b[3]]))
        .collect())
}

/// Takes the lock of a folder for as long as the file lives.
fn lock(path: &Path) -> Result<File> {
    let file = File::create(path).map_err(|err| Error::io(path, err))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(Error::malformed(
            path,
            "another process is making this dataset; wait for it or stop it",
        )),
        Err(TryLockError::Error(err)) => Err(Error::io(path, err)),
    }
}
