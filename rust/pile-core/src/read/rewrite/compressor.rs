//! Compresses a shard as its name says.

use std::io::{self, Write};

use flate2::write::GzEncoder;

use crate::{Error, Result, read::format::Compression};

/// The compression levels of shards that are written again.
#[derive(Debug, Clone, Copy)]
pub(super) struct Levels {
    pub zstd: i32,
    pub gzip: u32,
}

impl Levels {
    /// Fails for levels that the formats do not have.
    pub fn check(self) -> Result<()> {
        let fail = |what: String| Err(Error::argument(what));
        match (self.zstd, self.gzip) {
            (1..=22, 0..=9) => Ok(()),
            (1..=22, level) => fail(format!("gzip has the levels 0 to 9, got {level}")),
            (level, _) => fail(format!("zstd has the levels 1 to 22, got {level}")),
        }
    }
}

/// A writer that compresses. The bytes depend on the data and the level alone: the gzip header has no time and no name.
pub(super) enum Compressor<W: Write> {
    None(W),
    Zstd(zstd::Encoder<'static, W>),
    Gzip(GzEncoder<W>),
}

impl<W: Write> Compressor<W> {
    pub fn new(out: W, compression: Compression, levels: Levels) -> io::Result<Self> {
        Ok(match compression {
            Compression::None | Compression::StandardInput => Self::None(out),
            Compression::Zstd => {
                let mut encoder = zstd::Encoder::new(out, levels.zstd)?;
                // As the zstd command does, so that damage is found.
                encoder.include_checksum(true)?;
                Self::Zstd(encoder)
            }
            Compression::Gzip => {
                let level = flate2::Compression::new(levels.gzip);
                Self::Gzip(GzEncoder::new(out, level))
            }
        })
    }

    /// Writes the end of the compressed data.
    pub fn finish(self) -> io::Result<W> {
        match self {
            Self::None(out) => Ok(out),
            Self::Zstd(encoder) => encoder.finish(),
            Self::Gzip(encoder) => encoder.finish(),
        }
    }
}

impl<W: Write> Write for Compressor<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::None(out) => out.write(bytes),
            Self::Zstd(encoder) => encoder.write(bytes),
            Self::Gzip(encoder) => encoder.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::None(out) => out.flush(),
            Self::Zstd(encoder) => encoder.flush(),
            Self::Gzip(encoder) => encoder.flush(),
        }
    }
}
