//! Files and memory: maps, atomic writes, checksums, prefetching.

mod atomic;
mod checksum;
mod mapped;
mod prefetch;
mod replaced;
mod scratch;

pub use atomic::{create, remove_if_there, write_atomically};
pub use checksum::{Checksum, HashingReader, hex};
pub use mapped::Mapped;
pub use prefetch::prefetch;
pub(crate) use replaced::Unreplaced;
pub(crate) use scratch::{GrowingFile, Scratch, checksum_of};
