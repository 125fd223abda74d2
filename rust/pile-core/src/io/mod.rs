//! Files: memory maps (the crate's one `unsafe`), atomic writes, checksums.

mod atomic;
mod checksum;
mod mapped;

pub use atomic::{remove_if_there, write_atomically};
pub use checksum::{HashingReader, hex};
pub use mapped::Mapped;
