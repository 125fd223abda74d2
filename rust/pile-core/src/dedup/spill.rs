//! The second pass: the texts of exact copies and the shingles of candidates, on disk.

use std::{borrow::Cow, path::PathBuf};

use super::{
    DedupConfig, RecordNumber, Shingler,
    bits::BitSet,
    documents::{Documents, numbers},
    normalize::normalized,
    sketch::DedupState,
    stored::StoredSignatures,
};
use crate::{
    Error, Result,
    io::{Mapped, Scratch},
    progress::Progress,
    read::{Block, Step, map_blocks},
};

/// The documents that the second pass writes.
pub(super) struct Needed {
    /// Those whose shingles are compared.
    pub(super) shingles: BitSet,
    /// Those whose texts are compared.
    pub(super) texts: BitSet,
}

impl Needed {
    pub(super) fn new(n_documents: u32) -> Self {
        Self {
            shingles: BitSet::new(n_documents as usize),
            texts: BitSet::new(n_documents as usize),
        }
    }

    fn contains(&self, document: u32) -> bool {
        self.shingles.contains(document) || self.texts.contains(document)
    }

    /// Whether a document of a shard is needed.
    pub(super) fn is_in(&self, documents: &Documents, shard: usize) -> bool {
        (documents.first(shard)..documents.end_of(shard + 1))
            .any(|document| self.contains(document))
    }
}

/// A spilled document in the index of its shard: its number, the offset of its data in the file of the shard, its
/// shingles, and the bytes of its text, which follow the shingles and are padded to 8 bytes.
type IndexRow = [u64; 4];

fn data_name(shard: usize) -> String {
    format!("spilled-{shard:06}")
}

fn index_name(shard: usize) -> String {
    format!("spilled-index-{shard:06}")
}

/// A needed document of a block.
struct SpilledDocument {
    document: u32,
    n_shingles: u64,
    n_text_bytes: u64,
    data: Vec<u8>,
}

/// Reads the shards with needed documents that the state does not have yet, and saves the state after each. A resumed
/// job finds the same needed documents, so the shards of an earlier run have them.
pub(super) fn spill_documents(
    config: &DedupConfig,
    scratch: &mut Scratch,
    state: &mut DedupState,
    documents: &Documents,
    needed: &Needed,
    progress: &Progress,
) -> Result<()> {
    for shard in 0..config.shards.len() {
        if !needed.is_in(documents, shard) || state.spilled.contains(&shard) {
            progress.advance(state.shards[shard].summary.bytes)?;
            continue;
        }
        spill_shard(config, scratch, state, (shard, documents, needed), progress)?;
        state.spilled.push(shard);
        scratch.save(state)?;
    }
    Ok(())
}

/// Writes the needed documents of a shard to two files.
pub(super) fn spill_shard(
    config: &DedupConfig,
    scratch: &mut Scratch,
    state: &DedupState,
    (shard, documents, needed): (usize, &Documents, &Needed),
    progress: &Progress,
) -> Result<()> {
    let shingler = config.near.as_ref().map(|near| Shingler::new(near.shingle));
    let workers = vec![shingler; config.n_threads.max(1)];
    // Both files are empty: `Scratch` truncates a file to what the saved state has of it, and the state is saved once
    // the shard is finished.
    let mut data = scratch.grow(&data_name(shard))?;
    let mut index = scratch.grow(&index_name(shard))?;
    let mut offset = 0;
    let spill = |shingler: &mut Option<Shingler>, block: &Block| {
        spill_block(block, shingler.as_mut(), config, (shard, documents, needed))
    };
    let path = &config.shards[shard];
    let has_stored =
        StoredSignatures::by_shard(&config.stored, config.shards.len())?[shard].is_some();
    map_blocks(
        std::slice::from_ref(path),
        &config.rules,
        0, // The first shard of the slice.
        workers,
        progress,
        spill,
        |step| match step {
            Step::Block(spilled) => spilled.iter().try_for_each(|document| {
                let row: IndexRow = [
                    document.document.into(),
                    offset,
                    document.n_shingles,
                    document.n_text_bytes,
                ];
                offset += document.data.len() as u64;
                index.push(bytemuck::cast_slice(&row))?;
                data.push(&document.data)
            }),
            Step::EndOfShard(_, summary) => match summary == state.shards[shard].summary {
                true => Ok(()),
                false if has_stored => Err(Error::malformed(
                    path,
                    "is not what its stored signatures say; make them again",
                )),
                false => Err(changed(path)),
            },
        },
    )?;
    data.finish(scratch)?;
    index.finish(scratch)
}

fn changed(path: &std::path::Path) -> Error {
    let what = "changed since the job read it first; run the same command again";
    Error::malformed(path, what)
}

fn spill_block(
    block: &Block,
    mut shingler: Option<&mut Shingler>,
    config: &DedupConfig,
    (shard, documents, needed): (usize, &Documents, &Needed),
) -> Result<Vec<SpilledDocument>> {
    let mut spilled = Vec::new();
    let number = |record| documents.of_record(RecordNumber { shard, record });
    // A record without a number was bad in the first pass.
    let is_needed = |record| number(record).is_some_and(|number| needed.contains(number));
    let bad = block.each_selected_document(is_needed, |position, document| {
        let Some(number) = number(position.record) else {
            return Ok(());
        };
        let text = normalized(&document.text, config.normalization);
        let (mut data, mut n_shingles, mut n_text_bytes) = (Vec::new(), 0, 0);
        if let (Some(shingler), true) = (&mut shingler, needed.shingles.contains(number)) {
            let shingles = shingler.distinct(&text);
            n_shingles = shingles.len() as u64;
            data.extend_from_slice(bytemuck::cast_slice(shingles));
        }
        if needed.texts.contains(number) {
            n_text_bytes = text.len() as u64;
            data.extend_from_slice(text.as_bytes());
            data.resize(data.len().next_multiple_of(size_of::<u64>()), 0);
        }
        spilled.push(SpilledDocument {
            document: number,
            n_shingles,
            n_text_bytes,
            data,
        });
        Ok(())
    })?;
    match bad.n {
        0 => Ok(spilled),
        _ => Err(changed(block.shard_path())),
    }
}

/// The spilled documents of all shards.
pub(super) struct SpilledDocuments<'a> {
    documents: &'a Documents,
    /// The data and the index of each shard that has any.
    shards: Vec<Option<(Mapped, Mapped)>>,
}

/// What was spilled of a document.
pub(super) struct Spilled<'a> {
    /// Its distinct shingles, ascending.
    pub(super) shingles: &'a [u64],
    /// Its normalized text.
    pub(super) text: &'a [u8],
}

impl<'a> SpilledDocuments<'a> {
    /// Maps the files of the second pass, which are in the folder that `folder` returns for a shard, if it has any.
    pub(super) fn open(
        documents: &'a Documents,
        folder: impl Fn(usize) -> Result<Option<PathBuf>>,
    ) -> Result<Self> {
        let map = |shard| {
            let Some(folder) = folder(shard)? else {
                return Ok(None);
            };
            let data = Mapped::open(&folder.join(data_name(shard)))?;
            let index = Mapped::open(&folder.join(index_name(shard)))?;
            Ok(Some((data, index)))
        };
        Ok(Self {
            documents,
            shards: (0..documents.n_shards()).map(map).collect::<Result<_>>()?,
        })
    }

    /// What was spilled of a document.
    ///
    /// # Errors
    /// Nothing was, or the files are malformed.
    pub(super) fn get(&self, document: u32) -> Result<Spilled<'_>> {
        let shard = self.documents.shard_of(document);
        let missing = |path: Cow<'_, std::path::Path>| {
            let what = format!("document {document} is missing: remove the folder");
            Error::malformed(&path, what)
        };
        let (data, index) = self.shards[shard]
            .as_ref()
            .ok_or_else(|| missing(std::path::Path::new("the second pass").into()))?;
        let n = index.bytes().len() / size_of::<IndexRow>();
        // Ascending by document, as `map_blocks` passes blocks in the order of the data.
        let rows: &[IndexRow] = numbers(index, 0, n as u64)?;
        let found = rows.binary_search_by_key(&u64::from(document), |row| row[0]);
        let [_, start, n_shingles, n_text_bytes] = match found {
            Ok(at) => rows[at],
            Err(_) => return Err(missing(index.path().into())),
        };
        let text_start = start.saturating_add(n_shingles.saturating_mul(8));
        Ok(Spilled {
            shingles: numbers(data, start, n_shingles)?,
            text: data.slice(text_start, n_text_bytes)?,
        })
    }
}
