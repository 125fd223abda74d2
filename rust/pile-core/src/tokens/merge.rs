//! The merge job: concatenates token datasets into one.
//!
//! The tokens are copied from file to file, and the index is written in one pass, so memory does not depend
//! on the size of the datasets. A killed job resumes after the last dataset that was copied completely.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{
    TokenDataset, TokenSource, TokenType,
    idx::{self, IdxArrays, write_arrays},
    provenance::{self, MergedProvenance},
};
use crate::{
    Error, Result,
    io::{self, Checksum, Scratch, with_suffix},
    progress::Progress,
};

/// Bytes copied between two checks for a stop.
const CHUNK_BYTES: usize = 4 << 20;

/// The settings of the merge job.
#[derive(Debug, Clone)]
pub struct MergeConfig {
    /// Paths of the datasets without suffixes, in the order of the result.
    pub inputs: Vec<PathBuf>,
    /// Folder for the files, unfinished and finished.
    pub folder: PathBuf,
    /// The files are `NAME.bin`, `NAME.idx` and `NAME.provenance`.
    pub name: String,
    /// Names the inputs by their content. Unfinished files are resumed only by a job of the same name. Whether the
    /// copied inputs themselves are unchanged is checked too before a job is resumed, but only if `bin_sha256` is given.
    pub job: String,
    /// Whether unfinished files of another job in the folder are discarded; otherwise they are an error.
    pub discard: bool,
    /// The SHA-256 that the tokens of each input must have, in hexadecimal, one for each input; empty if none is known.
    pub bin_sha256: Vec<String>,
}

/// Figures of one merged dataset.
#[derive(Debug, Clone, Serialize)]
pub struct MergedInput {
    /// The path as given.
    pub path: String,
    /// Number of its first sequence in the result.
    pub first_document: u64,
    /// Number of sequences. pile-tools and GPT-NeoX write one per document.
    pub n_documents: u64,
    /// Number of tokens.
    pub n_tokens: u64,
    /// Whether its document array is missing, as after GPT-NeoX's own merge. Each sequence then counts as a
    /// document.
    pub is_document_array_lost: bool,
    /// Whether it has provenance. Otherwise the origins of its documents are unknown.
    pub has_provenance: bool,
}

/// Figures of a merged dataset.
#[derive(Debug, Clone, Serialize)]
pub struct MergeSummary {
    /// numpy's name of the type of the tokens.
    pub dtype: &'static str,
    /// Number of sequences. pile-tools and GPT-NeoX write one per document.
    pub n_documents: u64,
    /// Number of tokens.
    pub n_tokens: u64,
    /// SHA-256 of the `.bin`, computed as it was written.
    pub bin_sha256: String,
    /// By input.
    pub parts: Vec<MergedInput>,
}

/// The state of a merge, saved after each input.
#[derive(Serialize, Deserialize)]
struct MergeState {
    job: String,
    /// Inputs whose tokens are copied.
    n_copied: usize,
}

/// Runs the job or resumes it. `progress` advances by bytes of tokens.
///
/// # Errors
/// An input is missing or damaged, does not have the given checksum, or differs from the first in its token type; the
/// folder has work of another job; the file system fails; or a stop.
pub fn merge(config: &MergeConfig, progress: &Progress) -> Result<MergeSummary> {
    let inputs = config.inputs.iter();
    let inputs: Vec<CheckedInput> = inputs
        .map(|path| CheckedInput::open(path))
        .collect::<Result<_>>()?;
    let Some(first) = inputs.first() else {
        return Err(Error::argument("nothing to merge"));
    };
    let token_type = first.dataset.token_type();
    if let Some(other) = inputs.iter().find(|i| i.dataset.token_type() != token_type) {
        return Err(differing_types(&first.dataset, &other.dataset));
    }
    let bin = format!("{}.bin", config.name);
    let may_resume = |state: &MergeState| state.job == config.job && state.n_copied <= inputs.len();
    let (mut scratch, state) = Scratch::open(&config.folder, config.discard, progress, may_resume)?;
    let n_copied = state.map_or(0, |state: MergeState| state.n_copied);
    let bin_sha256 = copy_tokens(config, &mut scratch, &bin, &inputs, n_copied, progress)?;
    let idx = scratch.path(&format!("{}.idx", config.name));
    io::write_atomically(&idx, |out| write_index(out, token_type, &inputs))?;
    let parts: Vec<_> = inputs.iter().map(CheckedInput::provenance).collect();
    if parts.iter().any(|part| part.provenance.is_some()) {
        let path = scratch.path(&format!("{}.provenance", config.name));
        io::write_atomically(&path, |out| provenance::write_merged(out, &parts))?;
    }
    Ok(summary(config, token_type, bin_sha256, &inputs))
}

/// A checked dataset to merge.
struct CheckedInput {
    dataset: TokenDataset,
    is_document_array_lost: bool,
}

impl CheckedInput {
    fn open(prefix: &Path) -> Result<Self> {
        let dataset = TokenDataset::open(prefix)?;
        dataset.check()?;
        let (header, file) = dataset.index();
        // GPT-NeoX's merge keeps only the first entry. Its trainer never reads the array.
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

    fn provenance(&self) -> MergedProvenance<'_> {
        MergedProvenance {
            n_documents: self.dataset.n_documents(),
            provenance: self.dataset.provenance(),
        }
    }

    /// Entries of its document array without the leading 0. The dataset itself counts sequences as documents.
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
        // The array without its leading 0.
        let stored = (!self.is_document_array_lost).then(|| header.document_array(file).skip(1));
        (1..=n_lost).chain(stored.into_iter().flatten())
    }
}

fn n_bytes(inputs: &[CheckedInput]) -> u64 {
    inputs.iter().map(CheckedInput::n_bytes).sum()
}

fn differing_types(first: &TokenDataset, other: &TokenDataset) -> Error {
    let what = format!(
        "stores tokens as {}, but {} as {}: they were made with different tokenizers",
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
    inputs: &[CheckedInput],
    n_copied: usize,
    progress: &Progress,
) -> Result<String> {
    progress.advance(n_bytes(&inputs[..n_copied]))?;
    let mut out = scratch.grow(bin)?;
    for (i, input) in inputs.iter().enumerate().skip(n_copied) {
        // Hashing again what `out` hashes costs less than another pass over the file.
        let mut copied = Checksum::default();
        for file in input.dataset.token_files()?.files() {
            for chunk in file.bytes().chunks(CHUNK_BYTES) {
                out.push(chunk)?;
                if !config.bin_sha256.is_empty() {
                    copied.update(chunk);
                }
                progress.advance(chunk.len() as u64)?;
            }
        }
        if let Some(expected) = config.bin_sha256.get(i) {
            let bin = with_suffix(input.dataset.prefix(), ".bin");
            if *expected != copied.sha256() {
                let what = "is not what its manifest says; make the part again";
                return Err(Error::malformed(&bin, what));
            }
            // Recorded in the state: `Scratch::open` resumes only if this file is unchanged.
            scratch.use_input(&bin, expected);
        }
        // Syncs the bytes so far and records their number: a resumed job truncates the file to it. More may follow.
        out.finish(scratch)?;
        scratch.save(&MergeState {
            job: config.job.clone(),
            n_copied: i + 1,
        })?;
    }
    Ok(out.sha256())
}

fn write_index(
    out: &mut impl std::io::Write,
    token_type: TokenType,
    inputs: &[CheckedInput],
) -> std::io::Result<()> {
    let n_sequences = |input: &CheckedInput| input.dataset.n_documents();
    let lengths = inputs.iter().flat_map(|input| {
        let (header, file) = input.dataset.index();
        header.lengths(file)
    });
    let mut n_before = 0;
    let document_ends = inputs.iter().flat_map(|input| {
        let first = n_before;
        n_before += n_sequences(input);
        input.document_ends().map(move |end| first + end)
    });
    let n_documents = inputs.iter().map(CheckedInput::n_documents).sum();
    let arrays = IdxArrays {
        n_sequences: inputs.iter().map(n_sequences).sum(),
        lengths,
        n_documents,
        document_ends,
    };
    write_arrays(out, token_type, arrays)
}

fn summary(
    config: &MergeConfig,
    token_type: TokenType,
    bin_sha256: String,
    inputs: &[CheckedInput],
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
