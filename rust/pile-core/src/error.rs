//! The error type of the crate.

use std::{
    fmt, io,
    path::{Path, PathBuf},
};

/// The result type of the crate.
pub type Result<T> = std::result::Result<T, Error>;

/// A failure, with the file and the byte at which it occurred, if any.
#[derive(Debug)]
pub struct Error {
    kind: ErrorKind,
    path: Option<PathBuf>,
    offset: Option<u64>,
}

/// The kinds of failure that callers distinguish.
#[derive(Debug)]
#[non_exhaustive]
pub enum ErrorKind {
    /// An error of the operating system.
    Io(io::Error),
    /// A file that does not conform to its format.
    Format(String),
    /// An argument outside its documented range.
    Argument(String),
    /// An existing file or folder that would be overwritten.
    Exists(String),
    /// The caller requested a stop.
    Cancelled,
}

impl Error {
    /// An I/O failure on `path`.
    pub fn io(path: &Path, err: io::Error) -> Self {
        Self {
            kind: ErrorKind::Io(err),
            path: Some(path.to_owned()),
            offset: None,
        }
    }

    /// A failure of the machine that concerns no file.
    #[must_use]
    pub fn machine(err: io::Error) -> Self {
        Self {
            kind: ErrorKind::Io(err),
            path: None,
            offset: None,
        }
    }

    /// A malformed file, with what was found and expected at a byte offset.
    pub fn format(path: &Path, offset: u64, what: impl Into<String>) -> Self {
        Self {
            kind: ErrorKind::Format(what.into()),
            path: Some(path.to_owned()),
            offset: Some(offset),
        }
    }

    /// A file that is malformed at no particular byte.
    pub fn malformed(path: &Path, what: impl Into<String>) -> Self {
        Self {
            kind: ErrorKind::Format(what.into()),
            path: Some(path.to_owned()),
            offset: None,
        }
    }

    /// An argument outside its documented range.
    pub fn argument(what: impl Into<String>) -> Self {
        Self {
            kind: ErrorKind::Argument(what.into()),
            path: None,
            offset: None,
        }
    }

    /// An existing file or folder that must not be overwritten.
    pub fn exists(path: &Path, what: impl Into<String>) -> Self {
        Self {
            kind: ErrorKind::Exists(what.into()),
            path: Some(path.to_owned()),
            offset: None,
        }
    }

    /// A requested stop.
    #[must_use]
    pub fn cancelled() -> Self {
        Self {
            kind: ErrorKind::Cancelled,
            path: None,
            offset: None,
        }
    }

    /// The kind of this error.
    #[must_use]
    pub fn kind(&self) -> &ErrorKind {
        &self.kind
    }

    /// The file concerned, if any.
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        self.path.as_deref()
    }
}

/// Removes " (os error N)", which Rust appends to messages of the system.
fn without_number(message: &str) -> &str {
    message.split(" (os error ").next().unwrap_or(message)
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kind {
            ErrorKind::Io(e) => f.write_str(without_number(&e.to_string()))?,
            ErrorKind::Format(w) | ErrorKind::Argument(w) | ErrorKind::Exists(w) => {
                f.write_str(w)?
            }
            ErrorKind::Cancelled => f.write_str("cancelled")?,
        }
        if let Some(p) = &self.path {
            write!(f, " ({}", p.display())?;
            if let Some(o) = self.offset {
                write!(f, ", byte {o}")?;
            }
            f.write_str(")")?;
        }
        Ok(())
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match &self.kind {
            ErrorKind::Io(e) => Some(e),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn system_errors_come_without_their_number() {
        let e = Error::io(Path::new("a"), io::Error::from_raw_os_error(2));
        assert_eq!(e.to_string(), "No such file or directory (a)");
    }

    #[test]
    fn display_names_file_and_byte() {
        let e = Error::format(Path::new("a.idx"), 9, "version 2, expected 1");
        assert_eq!(e.to_string(), "version 2, expected 1 (a.idx, byte 9)");
    }
}
