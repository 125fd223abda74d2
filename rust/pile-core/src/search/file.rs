//! Files of the index: eight bytes of magic, the length of a JSON header, the header, arrays.

use std::io::{self, Write};

use bytemuck::Pod;
use serde::{Serialize, de::DeserializeOwned};

use crate::{Error, Result, io::Mapped};

/// The format of all files of an index.
pub(super) const VERSION: u32 = 2;

/// Writes magic, length and header, padded so that arrays of any type may follow.
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

/// The header of a file, and the byte at which its arrays begin.
///
/// # Errors
/// Another magic, a header that is cut short, or is of another version.
pub(super) fn read_header<H: DeserializeOwned>(file: &Mapped, magic: &[u8; 8]) -> Result<(H, u64)> {
    let path = file.path();
    if file.slice(0, 8)? != magic {
        let what = format!(
            "expected {:?}: not of an index of pile-tools",
            String::from_utf8_lossy(magic)
        );
        return Err(Error::format(path, 0, what));
    }
    let length: [u8; 8] = file.slice(8, 8)?.try_into().unwrap_or_default();
    let length = u64::from_le_bytes(length);
    let json = file.slice(16, length)?;
    let wrong = |err: serde_json::Error| Error::format(path, 16, format!("damaged header: {err}"));
    let values: serde_json::Value = serde_json::from_slice(json).map_err(wrong)?;
    if values["version"] != VERSION || !length.is_multiple_of(8) {
        let what = format!("version {}, expected {VERSION}", values["version"]);
        return Err(Error::format(path, 16, what));
    }
    Ok((serde_json::from_value(values).map_err(wrong)?, 16 + length))
}

/// `n` values from a byte that is a multiple of their size, and the byte behind them.
///
/// # Errors
/// The file ends before.
pub(super) fn array<T: Pod>(file: &Mapped, start: u64, n: u64) -> Result<(&[T], u64)> {
    let n_bytes = n.saturating_mul(size_of::<T>() as u64);
    let values = bytemuck::try_cast_slice(file.slice(start, n_bytes)?);
    let values = values.map_err(|err| Error::format(file.path(), start, err.to_string()))?;
    Ok((values, start + n_bytes))
}
