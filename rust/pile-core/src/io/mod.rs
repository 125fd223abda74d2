//! Files and memory: maps, atomic writes, checksums, prefetching.

mod atomic;
mod checksum;
mod mapped;
mod prefetch;

pub use atomic::{remove_if_there, write_atomically};
pub use checksum::{HashingReader, hex};
pub use mapped::Mapped;
pub use prefetch::prefetch;
