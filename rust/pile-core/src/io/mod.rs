//! Files, memory and threads: maps, external sorting, atomic writes, checksums, scratch folders, prefetching, and
//! failures of the machine.

mod atomic;
mod checksum;
mod external_sort;
mod mapped;
mod memory;
mod prefetch;
mod process_failures;
mod regular;
mod replacement;
mod scratch;
mod silent;
mod threads;

pub use atomic::{create, remove_if_there, write_atomically};
pub use checksum::{Checksum, HashingReader, hex};
pub(crate) use external_sort::{ExternalSort, RecordFile, RecordWriter};
pub use mapped::{Mapped, check_mapped, is_mapped};
pub use memory::available_memory;
pub use prefetch::prefetch;
pub(crate) use process_failures::out_of_memory;
pub use process_failures::{ReportingAllocator, report_failures};
pub use regular::open_regular;
pub(crate) use replacement::{ReplacementCheck, with_suffix};
pub(crate) use scratch::{GrowingFile, Scratch, checksum_of};
pub(crate) use silent::SilentFile;
pub(crate) use threads::share_work;
pub use threads::spawn;
