//! The merge job: token datasets in, one dataset of all their documents, in the order given.
//!
//! Tokens are copied file to file, the index is written in one pass: memory does not depend on the
//! datasets' sizes. A killed job goes on after the last dataset that was copied whole.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{
    Provenance, TokenDataset, TokenSource, TokenType,
    idx::{self, write_arrays},
    provenance,
};
use crate::{
    Error, Result,
    io::{self, Scratch},
    progress::Progress,
};

/// Bytes copied between two looks at the stop flag.
const CHUNK_BYTES: usize = 4 << 20;

/// What to merge.
#[derive(Debug, Clone)]
pub struct MergeConfig {
    /// The datasets' paths without suffixes, in the order that is to be the result's.
    pub inputs: Vec<PathBuf>,
    /// Folder for the unfinished and then the finished files.
    pub folder: PathBuf,
    /// The files are called `NAME.bin`, `NAME.idx`, `NAME.provenance`.
    pub name: String,
    /// Names the inputs: only files of the same job are gone on with.
    pub job: String,
    /// Throw away what another job has finished in the folder, instead of refusing to.
    pub discard: bool,
}

/// One of the datasets that were merged.
#[derive(Debug, Clone, Serialize)]
pub struct MergedInput {
    /// Its path as it was given.
    pub path: String,
    /// Number of its first sequence in the result.
    pub first_document: u64,
    /// Sequences; our tools and GPT-NeoX write one a document.
    pub n_documents: u64,
    /// Tokens.
    pub n_tokens: u64,
    /// Whether its document array was lost, as GPT-NeoX's own merge loses it: each sequence is then
    /// taken for a document.
    pub is_document_array_lost: bool,
    /// Whether it says where its documents came from; they stay of unknown origin otherwise.
    pub has_provenance: bool,
}

/// What was made.
#[derive(Debug, Clone, Serialize)]
pub struct MergeSummary {
    /// How tokens are stored, by numpy's name.
    pub dtype: &'static str,
    /// Sequences; our tools and GPT-NeoX write one a document.
    pub n_documents: u64,
    /// Tokens.
    pub n_tokens: u64,
    /// SHA-256 of the `.bin`, taken while it was written.
    pub bin_sha256: String,
    /// By input.
    pub parts: Vec<MergedInput>,
}

/// How far a merge is.
#[derive(Serialize, Deserialize)]
struct State {
    job: String,
    n_copied: usize,
}

/// Runs the job, or goes on with it; `progress` advances by bytes of tokens.
///
/// # Errors
/// An input is missing, damaged, or stores its tokens otherwise than the first.
pub fn merge(config: &MergeConfig, progress: &Progress) -> Result<MergeSummary> {
    let inputs = config.inputs.iter();
    let inputs: Vec<Input> = inputs
        .map(|path| Input::open(path))
        .collect::<Result<_>>()?;
    let Some(first) = inputs.first() else {
        return Err(Error::argument("nothing to merge"));
    };
    let token_type = first.dataset.token_type();
    if let Some(other) = inputs.iter().find(|i| i.dataset.token_type() != token_type) {
        return Err(differing_types(&first.dataset, &other.dataset));
    }
    let bin = format!("{}.bin", config.name);
    let is_of_job = |state: &State| state.job == config.job && state.n_copied <= inputs.len();
    let (mut scratch, state) = Scratch::open(&config.folder, config.discard, progress, is_of_job)?;
    let n_copied = state.map_or(0, |state: State| state.n_copied);
    let bin_sha256 = copy_tokens(config, &mut scratch, &bin, &inputs, n_copied, progress)?;
    let idx = scratch.path(&format!("{}.idx", config.name));
    io::write_atomically(&idx, |out| write_index(out, token_type, &inputs))?;
    let parts: Vec<_> = inputs.iter().map(Input::provenance).collect();
    if parts.iter().any(|(_, provenance)| provenance.is_some()) {
        let path = scratch.path(&format!("{}.provenance", config.name));
        io::write_atomically(&path, |out| provenance::write_merged(out, &parts))?;
    }
    Ok(summary(config, token_type, bin_sha256, &inputs))
}

/// A dataset to be merged, checked.
struct Input {
    dataset: TokenDataset,
    is_document_array_lost: bool,
}

impl Input {
    fn open(prefix: &Path) -> Result<Self> {
        let dataset = TokenDataset::open(prefix)?;
        dataset.check()?;
        let (header, file) = dataset.index();
        // GPT-NeoX's merge leaves the first entry only, and its trainer never looks.
        let is_document_array_lost = header.n_document_entries == 1 && header.n_sequences > 0;
        if !is_document_array_lost {
            idx::check_documents(header, file)?;
        }
        Ok(Self {
            dataset,
            is_document_array_lost,
        })
    }

    fn n_bytes(&self) -> u64 {
        self.dataset.n_tokens() * self.dataset.token_type().n_bytes() as u64
    }

    /// Its sequences, and where they came from.
    fn provenance(&self) -> (u64, Option<&Provenance>) {
        (self.dataset.n_documents(), self.dataset.provenance())
    }

    fn n_documents(&self) -> u64 {
        let (header, _) = self.dataset.index();
        if self.is_document_array_lost {
            header.n_sequences
        } else {
            header.n_document_entries - 1
        }
    }

    /// Number of sequences up to the end of each document.
    fn document_ends(&self) -> impl Iterator<Item = u64> {
        let (header, file) = self.dataset.index();
        let n_lost = if self.is_document_array_lost {
            header.n_sequences
        } else {
            0
        };
        // The array less its leading 0.
        let stored = (!self.is_document_array_lost).then(|| header.document_array(file).skip(1));
        (1..=n_lost).chain(stored.into_iter().flatten())
    }
}

fn n_bytes(inputs: &[Input]) -> u64 {
    inputs.iter().map(Input::n_bytes).sum()
}

fn differing_types(first: &TokenDataset, other: &TokenDataset) -> Error {
    let what = format!(
        "stores tokens as {}, but {} as {}: they are of different tokenizers",
        other.token_type().name(),
        first.prefix().display(),
        first.token_type().name()
    );
    Error::malformed(other.prefix(), what)
}

fn copy_tokens(
    config: &MergeConfig,
    scratch: &mut Scratch,
    bin: &str,
    inputs: &[Input],
    n_copied: usize,
    progress: &Progress,
) -> Result<String> {
    progress.advance(n_bytes(&inputs[..n_copied]))?;
    let mut out = scratch.grow(bin)?;
    for (i, input) in inputs.iter().enumerate().skip(n_copied) {
        for chunk in input.dataset.bin_bytes().chunks(CHUNK_BYTES) {
            out.push(chunk)?;
            progress.advance(chunk.len() as u64)?;
        }
        out.finish(scratch)?;
        scratch.save(&State {
            job: config.job.clone(),
            n_copied: i + 1,
        })?;
    }
    Ok(out.sha256())
}

fn write_index(
    out: &mut impl std::io::Write,
    token_type: TokenType,
    inputs: &[Input],
) -> std::io::Result<()> {
    let n_sequences = |input: &Input| input.dataset.n_documents();
    let lengths = inputs.iter().flat_map(|input| {
        let (header, file) = input.dataset.index();
        header.lengths(file)
    });
    let mut before = 0;
    let ends = inputs.iter().flat_map(|input| {
        let first = before;
        before += n_sequences(input);
        input.document_ends().map(move |end| first + end)
    });
    let n_documents = inputs.iter().map(Input::n_documents).sum();
    write_arrays(
        out,
        token_type,
        (inputs.iter().map(n_sequences).sum(), lengths),
        (n_documents, ends),
    )
}

fn summary(
    config: &MergeConfig,
    token_type: TokenType,
    bin_sha256: String,
    inputs: &[Input],
) -> MergeSummary {
    let (mut n_documents, mut n_tokens) = (0, 0);
    let parts = config.inputs.iter().zip(inputs).map(|(path, input)| {
        let part = MergedInput {
            path: path.to_string_lossy().into_owned(),
            first_document: n_documents,
            n_documents: input.dataset.n_documents(),
            n_tokens: input.dataset.n_tokens(),
            is_document_array_lost: input.is_document_array_lost,
            has_provenance: input.dataset.provenance().is_some(),
        };
        n_documents += part.n_documents;
        n_tokens += part.n_tokens;
        part
    });
    MergeSummary {
        dtype: token_type.name(),
        bin_sha256,
        parts: parts.collect(),
        n_documents,
        n_tokens,
    }
}
