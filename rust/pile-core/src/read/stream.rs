//! The decompressed bytes of a file, and the size and checksum of the file as stored.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Read},
    mem,
    path::{Path, PathBuf},
};

use flate2::bufread::GzDecoder;

use super::format::{Compression, is_stream};
use crate::{
    Error, Result,
    io::{HashingReader, SilentFile},
    progress::StopRequest,
};

/// Log2 of the largest zstd window that is ever accepted: 2 GiB, as of `zstd --long=31`. A decoder keeps a
/// window in memory.
const WINDOW_LOG_MAX: u32 = 31;

/// Log2 of the largest zstd window that is always accepted: zstd itself reads it without an option.
const WINDOW_LOG_ALWAYS: u32 = 27;

/// Bytes that a decoder reads at once: the size of a zstd block, which zstd recommends for its input.
const BUFFER_BYTES: usize = 1 << 17;

/// The stored bytes, hashed as they are read.
type Raw = HashingReader<Box<dyn Read + Send>>;

/// The decompressed bytes of a file.
pub(super) struct Stream {
    path: PathBuf,
    source: Decompressor,
    /// Log2 of the largest zstd window that is accepted.
    window_log: u32,
    stop: StopRequest,
}

enum Decompressor {
    None(Raw),
    Zstd(Box<zstd::Decoder<'static, BufReader<Raw>>>),
    Gzip(Box<Gunzip>),
}

impl Stream {
    /// Opens a file. A zstd window may be up to twice `max_record`, but see the two constants: files with
    /// long records are often compressed with large windows.
    pub(super) fn open(path: &Path, compression: Compression, max_record: u64) -> Result<Self> {
        Self::until_stop(path, compression, max_record, StopRequest::default())
    }

    /// Opens a file, or a pipe whose bytes are waited for until the job is to stop.
    pub(super) fn until_stop(
        path: &Path,
        compression: Compression,
        max_record: u64,
        stop: StopRequest,
    ) -> Result<Self> {
        let open = || -> io::Result<Box<dyn Read + Send>> {
            Ok(match compression {
                Compression::StandardInput => {
                    match SilentFile::standard_input(stop.clone()) {
                        // Closed, so nothing comes from it.
                        Err(err) if err.raw_os_error() == Some(libc::EBADF) => {
                            Box::new(io::empty())
                        }
                        opened => Box::new(opened?),
                    }
                }
                _ if is_stream(path) => Box::new(SilentFile::open(path, stop.clone())?),
                _ => Box::new(File::open(path)?),
            })
        };
        let bytes = open().map_err(|err| Error::io(path, err))?;
        let opened = Self::of(path, bytes, compression, max_record)?;
        Ok(Self { stop, ..opened })
    }

    /// Reads the stored bytes of `path` from a reader.
    pub(super) fn of(
        path: &Path,
        bytes: Box<dyn Read + Send>,
        compression: Compression,
        max_record: u64,
    ) -> Result<Self> {
        let window_log = (max_record.max(1).ilog2() + 1).clamp(WINDOW_LOG_ALWAYS, WINDOW_LOG_MAX);
        let source = Decompressor::new(bytes, compression, window_log)
            .map_err(|err| Error::io(path, err))?;
        Ok(Self {
            path: path.to_owned(),
            source,
            window_log,
            stop: StopRequest::default(),
        })
    }

    pub(super) fn raw(&self) -> &Raw {
        match &self.source {
            Decompressor::None(raw) => raw,
            Decompressor::Zstd(decoder) => decoder.get_ref().get_ref(),
            Decompressor::Gzip(decoder) => decoder.0.get_ref().get_ref(),
        }
    }

    /// Appends up to `n_bytes` bytes to `out`, fewer only at the end. Returns their number.
    pub(super) fn read(&mut self, n_bytes: usize, out: &mut Vec<u8>) -> Result<usize> {
        let start = out.len();
        out.resize(start + n_bytes, 0);
        let mut end = start;
        while end < out.len() {
            match self.source.read(&mut out[end..]) {
                Ok(0) => break,
                Ok(n) => end += n,
                Err(err) if err.kind() == io::ErrorKind::Interrupted => {}
                Err(_) if self.stop.is_made() => return Err(Error::cancelled()),
                Err(err) => return Err(self.explain(err)),
            }
        }
        out.truncate(end);
        if end == start
            && self.raw().n_bytes() == 0
            && !matches!(self.source, Decompressor::None(_))
        {
            // A compressed file of no bytes is truncated: even empty data compresses to some bytes.
            return Err(self.explain(io::ErrorKind::UnexpectedEof.into()));
        }
        Ok(end - start)
    }

    /// The error of the decompressor. Its offset is the end of the bytes read so far, up to [`BUFFER_BYTES`] after
    /// the wrong one.
    fn explain(&self, err: io::Error) -> Error {
        let format = match self.source {
            Decompressor::None(_) => return Error::io(&self.path, err),
            Decompressor::Zstd(_) => "zstd",
            Decompressor::Gzip(_) => "gzip",
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
                match format_of_start(&self.path) {
                    Some(start) if start == format => {
                        format!("the {format} data are damaged: {err}; get the file again")
                    }
                    start => {
                        let advice = start.map(renaming).unwrap_or_default();
                        format!("not {format}, or damaged: {err}{advice}")
                    }
                }
            }
            _ => return Error::io(&self.path, err),
        };
        Error::format(&self.path, self.raw().n_bytes(), what)
    }
}

/// The format of a regular file by its first bytes; None if it is not known. It opens the file again, so it is for
/// errors only; a pipe can be read only once.
fn format_of_start(path: &Path) -> Option<&'static str> {
    let mut start = [0; 4];
    if !path.metadata().ok()?.is_file() {
        return None;
    }
    File::open(path).ok()?.read_exact(&mut start).ok()?;
    match start {
        [0x1f, 0x8b, ..] => Some("gzip"),
        [0x28, 0xb5, 0x2f, 0xfd] => Some("zstd"),
        [b'{' | b'"', ..] => Some("JSON"),
        _ => None,
    }
}

/// What to do about a file of this format that is named as one of another.
fn renaming(format: &str) -> &'static str {
    match format {
        "gzip" => "; it starts as gzip data do: rename it to end with .gz",
        "zstd" => "; it starts as zstd data do: rename it to end with .zst",
        _ => "; it starts as plain JSON does: rename it to end without .zst or .gz",
    }
}

impl Decompressor {
    fn new(
        bytes: Box<dyn Read + Send>,
        compression: Compression,
        window_log: u32,
    ) -> io::Result<Self> {
        let raw = HashingReader::new(bytes);
        Ok(match compression {
            Compression::None | Compression::StandardInput => Self::None(raw),
            Compression::Zstd => {
                let buffered = BufReader::with_capacity(BUFFER_BYTES, raw);
                let mut decoder = zstd::Decoder::with_buffer(buffered)?;
                decoder.window_log_max(window_log)?;
                Self::Zstd(Box::new(decoder))
            }
            Compression::Gzip => {
                let buffered = BufReader::with_capacity(BUFFER_BYTES, raw);
                Self::Gzip(Box::new(Gunzip(GzDecoder::new(buffered))))
            }
        })
    }
}

impl Read for Decompressor {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::None(raw) => raw.read(buffer),
            Self::Zstd(decoder) => decoder.read(buffer),
            Self::Gzip(decoder) => decoder.read(buffer),
        }
    }
}

/// Decompresses the members of a gzip file one after the other. Zero bytes after a member are padding, as for
/// gzip itself and Python's `gzip`; `flate2::bufread::MultiGzDecoder` would take them for a bad header.
struct Gunzip(GzDecoder<BufReader<Raw>>);

impl Gunzip {
    /// Skips padding. If another member follows, replaces the decoder and returns true.
    fn next_member(&mut self) -> io::Result<bool> {
        loop {
            let bytes = self.0.get_mut().fill_buf()?;
            let n_zeros = bytes.iter().take_while(|&&byte| byte == 0).count();
            match bytes.len() {
                0 => return Ok(false),
                n if n > n_zeros => {
                    self.0.get_mut().consume(n_zeros);
                    // `into_inner` needs the decoder by value, so an empty one replaces it meanwhile.
                    let empty: Box<dyn Read + Send> = Box::new(io::empty());
                    let empty = BufReader::with_capacity(0, HashingReader::new(empty));
                    let finished = mem::replace(&mut self.0, GzDecoder::new(empty));
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
