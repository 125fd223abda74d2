//! Failures of the machine that no `Result` can carry, said in one line: for commands, never for a library.
//!
//! A file that becomes shorter while it is mapped raises SIGBUS at the next read beyond its end, and an
//! allocation that fails aborts the process. Once [`report_failures`] is called, both end the process with
//! exit code 1 and a message on standard error. Nothing has to be cleaned up: a job that is killed resumes.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    sync::atomic::{AtomicBool, Ordering},
};

/// Bytes of memory that the system says can be taken without swapping; None where it does not say.
#[must_use]
pub fn available_memory() -> Option<u64> {
    let known = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = known
        .lines()
        .find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kib: u64 = line.trim().trim_end_matches("kB").trim().parse().ok()?;
    Some(kib << 10)
}

static IS_REPORTED: AtomicBool = AtomicBool::new(false);

/// Reports files that shrink and allocations that fail, from now on and for the whole process.
pub fn report_failures() {
    IS_REPORTED.store(true, Ordering::Relaxed);
    #[cfg(target_os = "linux")]
    bus::install();
}

/// The system's allocator, which ends a command with a message where memory is used up.
#[derive(Debug)]
pub struct ReportingAllocator;

// SAFETY: every call is handed on to the system's allocator; a null pointer comes back as it is, or never.
unsafe impl GlobalAlloc for ReportingAllocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promise is the same.
        reported(unsafe { System.alloc(layout) }, layout.size())
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promise is the same.
        reported(unsafe { System.alloc_zeroed(layout) }, layout.size())
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, n_bytes: usize) -> *mut u8 {
        // SAFETY: the caller's promise is the same.
        reported(unsafe { System.realloc(at, layout, n_bytes) }, n_bytes)
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise is the same.
        unsafe { System.dealloc(at, layout) }
    }
}

/// Ends the process where memory is used up, as an allocation does that fails.
pub(crate) fn out_of_memory(n_bytes: usize) -> ! {
    if IS_REPORTED.load(Ordering::Relaxed) {
        end_without_memory(n_bytes);
    }
    let layout = Layout::from_size_align(n_bytes, 1).unwrap_or(Layout::new::<u8>());
    std::alloc::handle_alloc_error(layout)
}

#[inline(always)]
fn reported(at: *mut u8, n_bytes: usize) -> *mut u8 {
    if at.is_null() && IS_REPORTED.load(Ordering::Relaxed) {
        end_without_memory(n_bytes);
    }
    at
}

#[cold]
fn end_without_memory(n_bytes: usize) -> ! {
    let mut line = Line::new();
    line.push(b"error: there is not enough memory: ");
    line.push_number(n_bytes);
    line.push(b" bytes more are needed\n");
    line.end_process()
}

/// A message put together without allocating, as a signal handler has to.
struct Line {
    bytes: [u8; 8192],
    n: usize,
}

impl Line {
    fn new() -> Self {
        Self {
            bytes: [0; 8192],
            n: 0,
        }
    }

    fn push(&mut self, more: &[u8]) {
        for byte in more {
            if let Some(slot) = self.bytes.get_mut(self.n) {
                *slot = *byte;
                self.n += 1;
            }
        }
    }

    fn push_number(&mut self, mut number: usize) {
        let mut digits = [0; 20];
        let mut at = digits.len();
        loop {
            at -= 1;
            digits[at] = b'0' + (number % 10) as u8;
            number /= 10;
            if number == 0 {
                break;
            }
        }
        self.push(&digits[at..]);
    }

    /// A file's name; bytes that are not printable ASCII are shown as `\xNN`.
    #[cfg(target_os = "linux")]
    fn push_name(&mut self, name: &[u8]) {
        const HEX: &[u8; 16] = b"0123456789abcdef";
        for byte in name {
            match byte {
                b' '..=b'~' => self.push(&[*byte]),
                _ => {
                    let (high, low) = (usize::from(byte >> 4), usize::from(byte & 15));
                    self.push(&[b'\\', b'x', HEX[high], HEX[low]]);
                }
            }
        }
    }

    fn end_process(&self) -> ! {
        // SAFETY: both calls are allowed in a signal handler; the bytes are initialised.
        unsafe {
            libc::write(libc::STDERR_FILENO, self.bytes.as_ptr().cast(), self.n);
            libc::_exit(1)
        }
    }
}

#[cfg(target_os = "linux")]
mod bus {
    //! The handler of SIGBUS. The kernel's own list of maps says which file an address is of, so that files
    //! that other libraries map are named too. Only calls that POSIX allows in a handler are made.

    use super::Line;
    use std::{mem, ptr};

    pub(super) fn install() {
        // SAFETY: an all-zero `sigaction` is a valid one, and `handle` has the signature of SA_SIGINFO.
        unsafe {
            let mut action: libc::sigaction = mem::zeroed();
            action.sa_sigaction = handle as *const () as usize;
            action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
            libc::sigemptyset(&mut action.sa_mask);
            libc::sigaction(libc::SIGBUS, &action, ptr::null_mut());
        }
    }

    extern "C" fn handle(_: libc::c_int, info: *mut libc::siginfo_t, _: *mut libc::c_void) {
        // SAFETY: the kernel passes a valid `info`, which has an address for this signal.
        let address = unsafe { (*info).si_addr() } as usize;
        let mut line = Line::new();
        line.push(b"error: ");
        if push_file_at(address, &mut line) {
            line.push(
                b" became shorter while it was read; run the command again once it is whole\n",
            );
            line.end_process();
        }
        // SAFETY: restores what the system does by default; the faulting instruction then runs again.
        unsafe {
            libc::signal(libc::SIGBUS, libc::SIG_DFL);
        }
    }

    /// Appends the name of the file that is mapped at `address`; false if there is none.
    fn push_file_at(address: usize, line: &mut Line) -> bool {
        // SAFETY: the path is a C string.
        let maps = unsafe { libc::open(c"/proc/self/maps".as_ptr(), libc::O_RDONLY) };
        if maps < 0 {
            return false;
        }
        let mut found = MapsLine::default();
        let mut buffer = [0_u8; 4096];
        loop {
            // SAFETY: the buffer is as long as is said.
            let n = unsafe { libc::read(maps, buffer.as_mut_ptr().cast(), buffer.len()) };
            let Some(read) = usize::try_from(n).ok().and_then(|n| buffer.get(..n)) else {
                return false;
            };
            if read.is_empty() {
                return false;
            }
            for byte in read {
                if *byte != b'\n' {
                    found.push(*byte);
                } else if (found.start..found.end).contains(&address) {
                    line.push_name(found.name());
                    return found.n_name > 0;
                } else {
                    found = MapsLine::default();
                }
            }
        }
    }

    /// A line of `/proc/self/maps`: `start-end perms offset device inode   path`.
    struct MapsLine {
        start: usize,
        end: usize,
        /// Fields before the path, and whether the last byte belonged to one.
        n_fields: usize,
        is_inside: bool,
        is_end: bool,
        name: [u8; 4200],
        n_name: usize,
    }

    impl Default for MapsLine {
        fn default() -> Self {
            Self {
                start: 0,
                end: 0,
                n_fields: 0,
                is_inside: false,
                is_end: false,
                name: [0; 4200],
                n_name: 0,
            }
        }
    }

    impl MapsLine {
        fn name(&self) -> &[u8] {
            &self.name[..self.n_name]
        }

        fn push(&mut self, byte: u8) {
            if self.n_fields == 5 && (byte != b' ' || self.n_name > 0) {
                if let Some(slot) = self.name.get_mut(self.n_name) {
                    *slot = byte;
                    self.n_name += 1;
                }
                return;
            }
            if byte == b' ' {
                self.n_fields += usize::from(mem::take(&mut self.is_inside));
                return;
            }
            self.is_inside = true;
            if self.n_fields > 0 {
                return;
            }
            let side = if self.is_end {
                &mut self.end
            } else {
                &mut self.start
            };
            match char::from(byte).to_digit(16) {
                Some(digit) => *side = *side << 4 | digit as usize,
                None => self.is_end = true,
            }
        }
    }
}
