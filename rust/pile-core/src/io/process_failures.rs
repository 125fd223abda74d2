//! Failures that cannot be returned as a `Result`, reported in one line. Only commands enable this; a library
//! must not end its process.
//!
//! If a file becomes shorter while it is mapped, the next read beyond its end raises SIGBUS. (So does a disk that
//! cannot be read: the message names both.) If an allocation fails, the process aborts. After a call of
//! [`report_failures`], both end the process with exit code 1 and a message on standard error. No clean-up is
//! needed, since jobs resume after being killed.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    sync::atomic::{AtomicBool, Ordering},
};

use crate::bytes::decimal_digits;

static IS_REPORTED: AtomicBool = AtomicBool::new(false);

/// Whether a thread is ending the process.
static IS_ENDING: AtomicBool = AtomicBool::new(false);

/// Enables the reports, for the whole process.
pub fn report_failures() {
    IS_REPORTED.store(true, Ordering::Relaxed);
    #[cfg(target_os = "linux")]
    bus::install();
}

/// The system's allocator. If an allocation fails and reports are enabled, it ends the process with a message.
#[derive(Debug)]
pub struct ReportingAllocator;

// SAFETY: every call is forwarded to the system's allocator. Its result is returned unchanged, or the process
// ends.
unsafe impl GlobalAlloc for ReportingAllocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller upholds the contract of the same method of `System`.
        reported(unsafe { System.alloc(layout) }, layout.size())
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller upholds the contract of the same method of `System`.
        reported(unsafe { System.alloc_zeroed(layout) }, layout.size())
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, n_bytes: usize) -> *mut u8 {
        // SAFETY: the caller upholds the contract of the same method of `System`.
        reported(unsafe { System.realloc(at, layout, n_bytes) }, n_bytes)
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: the caller upholds the contract of the same method of `System`.
        unsafe { System.dealloc(at, layout) }
    }
}

/// Ends the process as a failed allocation of `n_bytes` does. For maps, which do not use the allocator.
pub(crate) fn out_of_memory(n_bytes: usize) -> ! {
    if IS_REPORTED.load(Ordering::Relaxed) {
        end_without_memory(n_bytes);
    }
    let layout = Layout::from_size_align(n_bytes, 1).unwrap_or(Layout::new::<u8>());
    std::alloc::handle_alloc_error(layout)
}

/// Returns the result of an allocation; does not return if it is null and reports are enabled.
#[inline(always)]
fn reported(at: *mut u8, n_bytes: usize) -> *mut u8 {
    if at.is_null() && IS_REPORTED.load(Ordering::Relaxed) {
        end_without_memory(n_bytes);
    }
    at
}

#[cold]
fn end_without_memory(n_bytes: usize) -> ! {
    let mut message = MessageBuffer::new();
    message.push(b"error: there is not enough memory: ");
    message.push_number(n_bytes);
    message.push(b" bytes more are needed\n");
    message.end_process()
}

/// A message that is built without allocating: a signal handler must not allocate, and neither can a failed
/// allocation. Text beyond the buffer is dropped; a path of 4096 bytes fits if most of them are ASCII.
struct MessageBuffer {
    bytes: [u8; 8192],
    n: usize,
}

impl MessageBuffer {
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

    fn push_number(&mut self, number: usize) {
        self.push(decimal_digits(number as u64, &mut [0; 20]));
    }

    /// Appends a file name. Bytes that are not printable ASCII become `\xNN`.
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

    /// Writes the message and ends the process. Threads that fail at the same time give one message: the others
    /// wait for the end.
    fn end_process(&self) -> ! {
        while IS_ENDING.swap(true, Ordering::Relaxed) {
            // SAFETY: `pause` is async-signal-safe.
            unsafe {
                libc::pause();
            }
        }
        // SAFETY: `write` and `_exit` are async-signal-safe. The first `n` bytes of the array exist and are
        // initialised.
        unsafe {
            libc::write(libc::STDERR_FILENO, self.bytes.as_ptr().cast(), self.n);
            libc::_exit(1)
        }
    }
}

#[cfg(target_os = "linux")]
mod bus {
    //! The handler of SIGBUS. It looks up the file of the faulting address in `/proc/self/maps`, so that
    //! files mapped by other libraries are named too. All its calls are async-signal-safe: it neither
    //! allocates nor locks.

    use super::MessageBuffer;
    use std::{mem, ptr};

    pub(super) fn install() {
        // SAFETY: an all-zero `sigaction` is valid, and `handle` has the signature that SA_SIGINFO requires.
        // Both pointers are to live values, or null where that is allowed.
        unsafe {
            let mut action: libc::sigaction = mem::zeroed();
            action.sa_sigaction = handle as *const () as usize;
            // Without SA_ONSTACK: the buffers of the handler are larger than the alternate stack of 8 KiB that a
            // program in Rust gives its threads, and the stack of the faulting thread is intact.
            action.sa_flags = libc::SA_SIGINFO;
            libc::sigemptyset(&mut action.sa_mask);
            libc::sigaction(libc::SIGBUS, &action, ptr::null_mut());
        }
    }

    extern "C" fn handle(_: libc::c_int, info: *mut libc::siginfo_t, _: *mut libc::c_void) {
        // SAFETY: the kernel passes a valid `info`, and `si_addr` is set for SIGBUS.
        let address = unsafe { (*info).si_addr() } as usize;
        let mut message = MessageBuffer::new();
        message.push(b"error: ");
        if push_file_at(address, &mut message) {
            message.push(
                b" became shorter while it was read, or its disk failed; run the command again once it is whole\n",
            );
            message.end_process();
        }
        // The address is of no mapped file. SAFETY: `signal` is async-signal-safe. It restores the default
        // action; after the return the instruction faults again and ends the process.
        unsafe {
            libc::signal(libc::SIGBUS, libc::SIG_DFL);
        }
    }

    /// Appends the name of the file that is mapped at `address`. Returns false if there is none.
    fn push_file_at(address: usize, message: &mut MessageBuffer) -> bool {
        // SAFETY: the path is a NUL-terminated string.
        let maps = unsafe { libc::open(c"/proc/self/maps".as_ptr(), libc::O_RDONLY) };
        if maps < 0 {
            return false;
        }
        let mut line = MapsLine::default();
        let mut buffer = [0_u8; 4096];
        loop {
            // SAFETY: the buffer is writable and has `buffer.len()` bytes.
            let n = unsafe { libc::read(maps, buffer.as_mut_ptr().cast(), buffer.len()) };
            let Some(read) = usize::try_from(n).ok().and_then(|n| buffer.get(..n)) else {
                return false;
            };
            if read.is_empty() {
                return false;
            }
            for byte in read {
                if *byte != b'\n' {
                    line.push(*byte);
                } else if (line.start..line.end).contains(&address) {
                    message.push_name(line.name());
                    return line.n_name > 0;
                } else {
                    line = MapsLine::default();
                }
            }
        }
    }

    /// A line of `/proc/self/maps`, `start-end perms offset device inode   path`, parsed byte by byte: it may
    /// be split between two reads.
    struct MapsLine {
        start: usize,
        end: usize,
        /// Complete fields so far. The path follows five of them.
        n_fields: usize,
        /// Whether the last byte belongs to a field.
        is_in_field: bool,
        /// Whether the `-` between `start` and `end` was read.
        is_end: bool,
        /// The path, of which Linux allows 4096 bytes; `maps` appends " (deleted)" to that of a removed file.
        name: [u8; 4200],
        n_name: usize,
    }

    impl Default for MapsLine {
        fn default() -> Self {
            Self {
                start: 0,
                end: 0,
                n_fields: 0,
                is_in_field: false,
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
                self.n_fields += usize::from(mem::take(&mut self.is_in_field));
                return;
            }
            self.is_in_field = true;
            if self.n_fields > 0 {
                return;
            }
            let bound = if self.is_end {
                &mut self.end
            } else {
                &mut self.start
            };
            match char::from(byte).to_digit(16) {
                Some(digit) => *bound = *bound << 4 | digit as usize,
                None => self.is_end = true,
            }
        }
    }
}

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests {
    use super::*;
    use std::{env, fs, process::Command, sync::Barrier, thread};

    /// The message of a child process in which `n_threads` threads read a file at once after it shrank. Threads of
    /// tests have an alternate signal stack of the smallest size.
    fn message_of_child(n_threads: usize) -> String {
        const CHILD: &str = "PILE_CORE_SHRINKS";
        if let Some(path) = env::var_os(CHILD) {
            let file = fs::File::options()
                .read(true)
                .write(true)
                .open(&path)
                .unwrap();
            // SAFETY: nothing borrows the bytes while the file shrinks; the reads below are meant to fault.
            let map = unsafe { memmap2::Mmap::map(&file) }.unwrap();
            report_failures();
            file.set_len(0).unwrap();
            let barrier = Barrier::new(n_threads);
            thread::scope(|scope| {
                for _ in 0..n_threads {
                    scope.spawn(|| {
                        barrier.wait();
                        std::hint::black_box(&map)[0]
                    });
                }
            });
            unreachable!("the file has no byte");
        }
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("short é");
        fs::write(&path, [1; 9000]).unwrap();
        let child = Command::new(env::current_exe().unwrap())
            .args([thread::current().name().unwrap(), "--exact", "--nocapture"])
            .env(CHILD, &path)
            .output()
            .unwrap();
        let message = String::from_utf8_lossy(&child.stderr).into_owned();
        assert_eq!(child.status.code(), Some(1), "{} {message}", child.status);
        message
    }

    #[test]
    fn a_file_that_shrinks_is_named_from_a_thread_with_an_alternate_stack() {
        let message = message_of_child(1);
        let expected = "short \\xc3\\xa9 became shorter while it was read";
        assert!(message.contains(expected), "{message}");
    }

    #[test]
    fn threads_that_fail_at_once_give_one_message() {
        for _ in 0..20 {
            let message = message_of_child(16);
            assert_eq!(message.matches("became shorter").count(), 1, "{message}");
        }
    }
}
