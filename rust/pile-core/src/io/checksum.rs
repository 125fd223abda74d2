//! SHA-256, the checksum in every manifest.

use std::{
    fmt::Write as _,
    io::{self, Read},
};

use sha2::{Digest, Sha256};

/// Bytes as lower-case hexadecimal.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// The SHA-256 and the number of some bytes, updated as they come.
#[derive(Debug, Clone, Default)]
pub struct Checksum {
    hash: Sha256,
    n_bytes: u64,
}

impl Checksum {
    /// Adds bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.hash.update(bytes);
        self.n_bytes += bytes.len() as u64;
    }

    /// Number of bytes so far.
    #[must_use]
    pub fn n_bytes(&self) -> u64 {
        self.n_bytes
    }

    /// SHA-256 in hexadecimal of the bytes so far.
    #[must_use]
    pub fn sha256(&self) -> String {
        hex(&self.hash.clone().finalize())
    }
}

/// A reader that hashes and counts the bytes read through it.
pub struct HashingReader<R> {
    inner: R,
    checksum: Checksum,
}

impl<R: Read> HashingReader<R> {
    /// A reader over `inner`.
    pub fn new(inner: R) -> Self {
        Self {
            inner,
            checksum: Checksum::default(),
        }
    }

    /// Number of bytes read so far.
    pub fn n_bytes(&self) -> u64 {
        self.checksum.n_bytes()
    }

    /// SHA-256 in hexadecimal of the bytes read so far.
    pub fn sha256(&self) -> String {
        self.checksum.sha256()
    }
}

impl<R: Read> Read for HashingReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buffer)?;
        self.checksum.update(&buffer[..n]);
        Ok(n)
    }
}
