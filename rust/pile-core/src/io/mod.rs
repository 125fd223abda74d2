//! Files, memory and threads: maps, atomic writes, checksums, prefetching, limits of the machine.

mod atomic;
mod checksum;
mod machine;
mod mapped;
mod prefetch;
mod replaced;
mod scratch;
mod threads;

pub use atomic::{create, remove_if_there, write_atomically};
pub use checksum::{Checksum, HashingReader, hex};
pub(crate) use machine::out_of_memory;
pub use machine::{ReportingAllocator, available_memory, report_failures};
pub use mapped::{Mapped, check_mapped};
pub use prefetch::prefetch;
pub(crate) use replaced::{Unreplaced, with_suffix};
pub(crate) use scratch::{GrowingFile, Scratch, checksum_of};
pub(crate) use threads::share_work;
pub use threads::spawn;
