//! The bytes of a file, decompressed, with size and checksum of the file as it is on disk.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Read},
    mem,
    path::{Path, PathBuf},
};

use flate2::bufread::GzDecoder;

use super::format::Packing;
use crate::{Error, Result, io::HashingReader};

/// The largest zstd window that is accepted (2 GiB, `zstd --long=31`), and the largest that is always
/// accepted: what zstd itself reads without an option. A decoder keeps a window in memory.
const WINDOW_LOG_MAX: u32 = 31;
const WINDOW_LOG_ALWAYS: u32 = 27;

const BUFFER_BYTES: usize = 1 << 17;

type Raw = HashingReader<Box<dyn Read + Send>>;

pub(super) struct Stream {
    path: PathBuf,
    source: Source,
    /// Accepted windows of zstd have at most two to this power bytes.
    window_log: u32,
}

enum Source {
    Plain(Raw),
    Zstd(Box<zstd::Decoder<'static, BufReader<Raw>>>),
    Gzip(Box<Gunzip>),
}

impl Stream {
    /// Opens a file. What is kept in memory of it grows with the longest record that is to be read: a zstd
    /// window may have twice its bytes.
    pub(super) fn open(path: &Path, packing: Packing, max_record: u64) -> Result<Self> {
        let window_log = (max_record.max(1).ilog2() + 1).clamp(WINDOW_LOG_ALWAYS, WINDOW_LOG_MAX);
        let source = Source::open(path, packing, window_log).map_err(|err| Error::io(path, err))?;
        Ok(Self {
            path: path.to_owned(),
            source,
            window_log,
        })
    }

    pub(super) fn raw(&self) -> &Raw {
        match &self.source {
            Source::Plain(raw) => raw,
            Source::Zstd(decoder) => decoder.get_ref().get_ref(),
            Source::Gzip(decoder) => decoder.0.get_ref().get_ref(),
        }
    }

    /// Appends up to `n_bytes`, fewer only at the end; returns how many.
    pub(super) fn read(&mut self, n_bytes: usize, out: &mut Vec<u8>) -> Result<usize> {
        let start = out.len();
        out.resize(start + n_bytes, 0);
        let mut end = start;
        while end < out.len() {
            match self.source.read(&mut out[end..]) {
                Ok(0) => break,
                Ok(n) => end += n,
                Err(err) if err.kind() == io::ErrorKind::Interrupted => {}
                Err(err) => return Err(self.explain(err)),
            }
        }
        out.truncate(end);
        if end == 0 && self.raw().n_bytes() == 0 && !matches!(self.source, Source::Plain(_)) {
            // Compressed, even nothing is something.
            return Err(self.explain(io::ErrorKind::UnexpectedEof.into()));
        }
        Ok(end - start)
    }

    fn explain(&self, err: io::Error) -> Error {
        let format = match self.source {
            Source::Plain(_) => return Error::io(&self.path, err),
            Source::Zstd(_) => "zstd",
            Source::Gzip(_) => "gzip",
        };
        let what = match err.kind() {
            io::ErrorKind::UnexpectedEof => {
                format!("the {format} data ends in the middle: the file is cut short, get it again")
            }
            _ if err.to_string().contains("Frame requires too much memory") => format!(
                "its zstd window is larger than {} bytes, the most that max-record allows",
                1_u64 << self.window_log
            ),
            io::ErrorKind::Other | io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData => {
                format!("not {format}, or damaged: {err}")
            }
            _ => return Error::io(&self.path, err),
        };
        Error::format(&self.path, self.raw().n_bytes(), what)
    }
}

impl Source {
    fn open(path: &Path, packing: Packing, window_log: u32) -> io::Result<Self> {
        let bytes: Box<dyn Read + Send> = match packing {
            Packing::StandardInput => Box::new(io::stdin()),
            _ => Box::new(File::open(path)?),
        };
        let raw = HashingReader::new(bytes);
        Ok(match packing {
            Packing::Plain | Packing::StandardInput => Self::Plain(raw),
            Packing::Zstd => {
                let buffered = BufReader::with_capacity(BUFFER_BYTES, raw);
                let mut decoder = zstd::Decoder::with_buffer(buffered)?;
                decoder.window_log_max(window_log)?;
                Self::Zstd(Box::new(decoder))
            }
            Packing::Gzip => {
                let buffered = BufReader::with_capacity(BUFFER_BYTES, raw);
                Self::Gzip(Box::new(Gunzip(GzDecoder::new(buffered))))
            }
        })
    }
}

impl Read for Source {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(raw) => raw.read(buffer),
            Self::Zstd(decoder) => decoder.read(buffer),
            Self::Gzip(decoder) => decoder.read(buffer),
        }
    }
}

/// Decompresses the members of a gzip file one after the other. Zeros after a member are padding, as they are
/// to gzip itself and to Python's `gzip`; `flate2::bufread::MultiGzDecoder` takes them for a bad header.
struct Gunzip(GzDecoder<BufReader<Raw>>);

impl Gunzip {
    /// Skips padding; whether another member follows, whose decoder then replaces that of the finished one.
    fn next_member(&mut self) -> io::Result<bool> {
        loop {
            let bytes = self.0.get_mut().fill_buf()?;
            let n_zeros = bytes.iter().take_while(|&&byte| byte == 0).count();
            match bytes.len() {
                0 => return Ok(false),
                n if n > n_zeros => {
                    self.0.get_mut().consume(n_zeros);
                    let nothing: Box<dyn Read + Send> = Box::new(io::empty());
                    let nothing = BufReader::with_capacity(0, HashingReader::new(nothing));
                    let finished = mem::replace(&mut self.0, GzDecoder::new(nothing));
                    self.0 = GzDecoder::new(finished.into_inner());
                    return Ok(true);
                }
                _ => self.0.get_mut().consume(n_zeros),
            }
        }
    }
}

impl Read for Gunzip {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let n = self.0.read(buffer)?;
            if n > 0 || buffer.is_empty() || !self.next_member()? {
                return Ok(n);
            }
        }
    }
}
