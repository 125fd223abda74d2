//! Reads standard input, pipes, terminals and other devices, which may be silent for hours.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read},
    os::{
        fd::{AsFd as _, AsRawFd as _},
        unix::fs::OpenOptionsExt as _,
    },
    path::Path,
};

use crate::progress::StopRequest;

/// Maximum milliseconds between two checks of the stop request.
const TICK: libc::c_int = 100;

/// A stream whose reads wait for bytes, and fail once a stop is requested.
pub(crate) struct SilentFile {
    file: File,
    stop: StopRequest,
}

impl SilentFile {
    /// Opens a pipe or device without waiting for its writer.
    ///
    /// # Errors
    /// The path cannot be opened.
    pub fn open(path: &Path, stop: StopRequest) -> io::Result<Self> {
        let mut how = OpenOptions::new();
        let file = how.read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
        Ok(Self { file, stop })
    }

    /// Standard input. Other processes share the open file, so it is not made nonblocking: a read waits, past a stop
    /// request too, if one of them takes the bytes between `poll` and `read`.
    ///
    /// # Errors
    /// Standard input is closed.
    pub fn standard_input(stop: StopRequest) -> io::Result<Self> {
        let file = io::stdin().as_fd().try_clone_to_owned()?.into();
        Ok(Self { file, stop })
    }

    /// Whether a read returns at once: bytes, the end or an error. Waits a tick at most.
    fn is_ready(&self) -> io::Result<bool> {
        let mut entry = libc::pollfd {
            fd: self.file.as_raw_fd(),
            events: libc::POLLIN,
            revents: 0,
        };
        // SAFETY: `entry` is one valid entry, and its descriptor is open.
        match unsafe { libc::poll(&raw mut entry, 1, TICK) } {
            -1 => Err(io::Error::last_os_error()),
            n => Ok(n > 0),
        }
    }
}

impl Read for SilentFile {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            if self.stop.is_made() {
                // Not shown: the caller reports that it was interrupted.
                return Err(io::Error::other("the job is to stop"));
            }
            // Before its first writer opens a pipe, `read` returns 0 as at its end; `poll` waits for the writer.
            if self.is_ready()? {
                match self.file.read(buffer) {
                    // Another reader of the pipe was faster.
                    Err(err) if err.kind() == io::ErrorKind::WouldBlock => {}
                    outcome => return outcome,
                }
            }
        }
    }
}
