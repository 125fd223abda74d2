//! The `.idx` file of GPT-NeoX's memory-mapped datasets, little-endian and without padding:
//!
//! | offset | type | value |
//! |---|---|---|
//! | 0 | 9 bytes | `MMIDIDX\0\0` |
//! | 9 | u64 | version, 1 |
//! | 17 | u8 | code of the token type |
//! | 18 | u64 | n, the number of sequences |
//! | 26 | u64 | d, the number of documents + 1 |
//! | 34 | i32\[n\] | tokens of each sequence |
//! | 34 + 4n | i64\[n\] | first byte of each sequence in the `.bin` |
//! | 34 + 12n | i64\[d\] | 0, then the number of sequences after each document |
//!
//! GPT-NeoX trains on sequences and never reads the last array. Here each document is written as one sequence.

use std::{
    io::{self, Write},
    path::Path,
};

use super::TokenType;
use crate::{Error, Result, io::Mapped};

const MAGIC: &[u8; 9] = b"MMIDIDX\0\0";
const VERSION: u64 = 1;
const HEADER_BYTES: u64 = 34;

/// The header of an `.idx` file, checked against the file's size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IdxHeader {
    /// The type of the tokens in the `.bin`.
    pub token_type: TokenType,
    /// Number of sequences.
    pub n_sequences: u64,
    /// Entries of the document array.
    pub n_document_entries: u64,
}

impl IdxHeader {
    /// Reads and checks the header.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Format`]: unexpected magic, version or type, or a size that does not fit.
    pub fn read(idx: &Mapped) -> Result<Self> {
        let wrong = |offset, what: String| Err(Error::format(idx.path(), offset, what));
        let u64_at = |offset| -> Result<u64> {
            let mut bytes = [0; 8];
            bytes.copy_from_slice(idx.slice(offset, 8)?);
            Ok(u64::from_le_bytes(bytes))
        };
        let magic = idx.slice(0, 9)?;
        if magic != MAGIC {
            let found = String::from_utf8_lossy(magic).into_owned();
            return wrong(
                0,
                format!(
                    "starts with {found:?}, expected \"MMIDIDX\": not an index of a GPT-NeoX dataset"
                ),
            );
        }
        let version = u64_at(9)?;
        if version != VERSION {
            return wrong(9, format!("version {version}, expected {VERSION}"));
        }
        let code = idx.slice(17, 1)?[0];
        let Some(token_type) = TokenType::from_code(code) else {
            return wrong(
                17,
                format!("token type code {code}, expected 8 (uint16) or 4 (int32)"),
            );
        };
        let header = Self {
            token_type,
            n_sequences: u64_at(18)?,
            n_document_entries: u64_at(26)?,
        };
        let found = idx.bytes().len() as u64;
        match header.file_bytes() {
            Some(expected) if expected == found => Ok(header),
            _ => wrong(
                18,
                format!(
                    "{} sequences and {} document entries do not fit a file of {found} bytes: it is cut short or not an index",
                    header.n_sequences, header.n_document_entries
                ),
            ),
        }
    }

    fn file_bytes(&self) -> Option<u64> {
        let sequences = self.n_sequences.checked_mul(12)?;
        let documents = self.n_document_entries.checked_mul(8)?;
        HEADER_BYTES.checked_add(sequences)?.checked_add(documents)
    }

    /// Number of tokens of sequence `i`, which must be below `n_sequences`.
    pub(super) fn length(&self, idx: &Mapped, i: u64) -> Result<u64> {
        let at = HEADER_BYTES + 4 * i;
        let mut bytes = [0; 4];
        bytes.copy_from_slice(idx.slice(at, 4)?);
        u64::try_from(i32::from_le_bytes(bytes)).map_err(|_| {
            Error::format(
                idx.path(),
                at,
                format!("sequence {i} has a negative length"),
            )
        })
    }

    /// The byte after the last sequence in the `.bin`.
    pub(super) fn end(&self, idx: &Mapped) -> Result<u64> {
        match self.n_sequences.checked_sub(1) {
            Some(last) => Ok(self.byte_range(idx, last)?.1),
            None => Ok(0),
        }
    }

    /// The first byte of sequence `i` in the `.bin`, and the byte after its last; `i` must be below `n_sequences`.
    pub(super) fn byte_range(&self, idx: &Mapped, i: u64) -> Result<(u64, u64)> {
        let (start, length) = (self.pointer(idx, i)?, self.length(idx, i)?);
        let end = length
            .checked_mul(self.token_type.n_bytes() as u64)
            .and_then(|bytes| start.checked_add(bytes));
        let no_end = || {
            Error::malformed(
                idx.path(),
                format!("the end of sequence {i} exceeds 64 bits"),
            )
        };
        Ok((start, end.ok_or_else(no_end)?))
    }

    /// Number of tokens of each sequence, checked not to be negative.
    pub(super) fn checked_lengths(&self, idx: &Mapped) -> Result<Vec<i32>> {
        let mut lengths = Vec::with_capacity(self.n_sequences as usize);
        for i in 0..self.n_sequences {
            lengths.push(self.length(idx, i)? as i32);
        }
        Ok(lengths)
    }

    /// Number of tokens of each sequence, unchecked. `idx` must be the file of this header.
    pub(super) fn lengths<'a>(
        &self,
        idx: &'a Mapped,
    ) -> impl Iterator<Item = i32> + Clone + use<'a> {
        let end = HEADER_BYTES + 4 * self.n_sequences;
        let bytes = &idx.bytes()[HEADER_BYTES as usize..end as usize];
        bytes
            .chunks_exact(4)
            .map(|b| i32::from_le_bytes([b[0], b[1], b[2], b[3]]))
    }

    /// The document array: 0, then the number of sequences up to the end of each document. `idx` must be the
    /// file of this header.
    pub(super) fn document_array<'a>(
        &self,
        idx: &'a Mapped,
    ) -> impl Iterator<Item = u64> + use<'a> {
        idx.bytes()[self.documents_start() as usize..]
            .chunks_exact(8)
            .map(|b| u64::from_le_bytes([b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7]]))
    }

    fn documents_start(&self) -> u64 {
        HEADER_BYTES + 12 * self.n_sequences
    }

    /// First byte of sequence `i` in the `.bin`; `i` must be below `n_sequences`.
    pub(super) fn pointer(&self, idx: &Mapped, i: u64) -> Result<u64> {
        let at = HEADER_BYTES + 4 * self.n_sequences + 8 * i;
        let mut bytes = [0; 8];
        bytes.copy_from_slice(idx.slice(at, 8)?);
        u64::try_from(i64::from_le_bytes(bytes)).map_err(|_| {
            Error::format(
                idx.path(),
                at,
                format!("sequence {i} starts before the file"),
            )
        })
    }
}

/// Writes an `.idx` with one sequence per document, of the given numbers of tokens.
///
/// # Errors
/// What the writer reports.
pub fn write_idx(out: &mut impl Write, token_type: TokenType, lengths: &[i32]) -> io::Result<()> {
    let n = lengths.len() as u64;
    let arrays = IdxArrays {
        n_sequences: n,
        lengths: lengths.iter().copied(),
        n_documents: n,
        document_ends: 1..=n,
    };
    write_arrays(out, token_type, arrays)
}

/// The arrays of an `.idx`, as iterators: the memory of writing does not depend on their number of items.
pub(super) struct IdxArrays<L, D> {
    pub n_sequences: u64,
    /// Number of tokens of each sequence.
    pub lengths: L,
    pub n_documents: u64,
    /// Number of sequences up to the end of each document.
    pub document_ends: D,
}

/// Writes an `.idx`.
///
/// # Errors
/// What the writer reports.
pub(super) fn write_arrays(
    out: &mut impl Write,
    token_type: TokenType,
    arrays: IdxArrays<impl Iterator<Item = i32> + Clone, impl Iterator<Item = u64>>,
) -> io::Result<()> {
    let IdxArrays {
        n_sequences,
        lengths,
        n_documents,
        document_ends,
    } = arrays;
    out.write_all(MAGIC)?;
    out.write_all(&VERSION.to_le_bytes())?;
    out.write_all(&[token_type.code()])?;
    out.write_all(&n_sequences.to_le_bytes())?;
    out.write_all(&(n_documents + 1).to_le_bytes())?;
    for length in lengths.clone() {
        out.write_all(&length.to_le_bytes())?;
    }
    let mut pointer = 0_i64;
    for length in lengths {
        out.write_all(&pointer.to_le_bytes())?;
        pointer += i64::from(length) * token_type.n_bytes() as i64;
    }
    out.write_all(&0_u64.to_le_bytes())?;
    for end in document_ends {
        out.write_all(&end.to_le_bytes())?;
    }
    Ok(())
}

/// Checks the arrays of an `.idx` against its `.bin`: each sequence must start at the end of the previous one.
///
/// # Errors
/// [`crate::ErrorKind::Format`] with the first sequence that does not.
pub(super) fn check_arrays(
    header: &IdxHeader,
    idx: &Mapped,
    bin: &Path,
    bin_bytes: u64,
) -> Result<()> {
    let width = header.token_type.n_bytes() as u64;
    let mut expected = 0;
    for i in 0..header.n_sequences {
        let found = header.pointer(idx, i)?;
        if found != expected {
            let at = HEADER_BYTES + 4 * header.n_sequences + 8 * i;
            let what =
                format!("sequence {i} starts at byte {found} of the .bin, expected {expected}");
            return Err(Error::format(idx.path(), at, what));
        }
        expected += header.length(idx, i)? * width;
    }
    if expected == bin_bytes {
        return Ok(());
    }
    let what = format!("has {bin_bytes} bytes, but its index expects {expected}");
    Err(Error::malformed(bin, what))
}

/// Checks that the document array starts at 0, never descends and ends with the last sequence.
///
/// # Errors
/// [`crate::ErrorKind::Format`] with the first entry that is wrong.
pub(super) fn check_documents(header: &IdxHeader, idx: &Mapped) -> Result<()> {
    let mut previous = 0;
    for (i, end) in header.document_array(idx).enumerate() {
        let is_right = if i == 0 { end == 0 } else { end >= previous };
        if !is_right || end > header.n_sequences {
            let at = header.documents_start() + 8 * i as u64;
            let what = format!(
                "entry {i} of the document array is {end}, after {previous}, of {} sequences",
                header.n_sequences
            );
            return Err(Error::format(idx.path(), at, what));
        }
        previous = end;
    }
    if previous == header.n_sequences && header.n_document_entries > 0 {
        return Ok(());
    }
    let what = format!(
        "the document array ends at sequence {previous} of {}",
        header.n_sequences
    );
    Err(Error::format(idx.path(), header.documents_start(), what))
}
