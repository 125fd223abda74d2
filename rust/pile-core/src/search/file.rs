//! The layout shared by the files of an index: 8 bytes of magic, the length of a JSON header as u64, the
//! header, arrays. All numbers are little-endian.

use std::io::{self, Write};

use bytemuck::Pod;
use serde::{Serialize, de::DeserializeOwned};

use crate::{Error, Result, io::Mapped};

/// The format version of all files of an index.
pub(super) const VERSION: u32 = 2;

/// Byte offset of the header: after the magic and the length.
pub(super) const HEADER_AT: u64 = 16;

/// Writes magic, length and header.
///
/// The header is padded with spaces to a multiple of 8 bytes, so that the arrays after it are aligned for any
/// type.
pub(super) fn write_header(
    out: &mut impl Write,
    magic: &[u8; 8],
    header: &impl Serialize,
) -> io::Result<()> {
    let mut json = serde_json::to_vec(header)?;
    json.resize(json.len().next_multiple_of(8), b' ');
    out.write_all(magic)?;
    out.write_all(&(json.len() as u64).to_le_bytes())?;
    out.write_all(&json)
}

/// Reads the header of a file. Returns it with the byte offset of the arrays, which is a multiple of 8.
///
/// # Errors
/// The magic is not `magic`; or the header is truncated, damaged, or of another version.
pub(super) fn read_header<H: DeserializeOwned>(file: &Mapped, magic: &[u8; 8]) -> Result<(H, u64)> {
    let path = file.path();
    if file.slice(0, 8)? != magic {
        let what = format!(
            "expected {:?}: not a file of an index of pile-tools",
            String::from_utf8_lossy(magic)
        );
        return Err(Error::format(path, 0, what));
    }
    let length: [u8; 8] = file.slice(8, 8)?.try_into().unwrap_or_default();
    let length = u64::from_le_bytes(length);
    let json = file.slice(HEADER_AT, length)?;
    let damaged =
        |err: serde_json::Error| Error::format(path, HEADER_AT, format!("damaged header: {err}"));
    // The version is read before the other keys, as they depend on it.
    let values: serde_json::Value = serde_json::from_slice(json).map_err(damaged)?;
    if values["version"] != VERSION {
        let what = format!("version {}, expected {VERSION}", values["version"]);
        return Err(Error::format(path, HEADER_AT, what));
    }
    if !length.is_multiple_of(8) {
        let what = format!("a header of {length} bytes, expected a multiple of 8");
        return Err(Error::format(path, 8, what));
    }
    Ok((
        serde_json::from_value(values).map_err(damaged)?,
        HEADER_AT + length,
    ))
}

/// Reads `n` values at the byte offset `start`. Returns them with the offset of their end.
///
/// # Errors
/// The file is too short, or `start` is not a multiple of the alignment of `T`.
pub(super) fn array<T: Pod>(file: &Mapped, start: u64, n: u64) -> Result<(&[T], u64)> {
    let n_bytes = n.saturating_mul(size_of::<T>() as u64);
    let values = bytemuck::try_cast_slice(file.slice(start, n_bytes)?);
    let values = values.map_err(|err| Error::format(file.path(), start, err.to_string()))?;
    Ok((values, start + n_bytes))
}
