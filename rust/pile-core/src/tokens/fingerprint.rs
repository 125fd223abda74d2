//! A digest that distinguishes datasets in constant time.
//!
//! SHA-256 over each file's length and bytes; for a file above 512 KiB, over 128 blocks of 4 KiB spread
//! evenly from its first byte to its last. It detects another dataset under the same name. It does not prove
//! that every byte is right; the checksums in the manifest do. It is computed each time an order is opened,
//! so it must take no longer than reading a batch.

use std::ops::Range;

use sha2::{Digest, Sha256};

use crate::io::hex;

const BLOCK_BYTES: usize = 4 << 10;
const N_BLOCKS: usize = 128;

/// The digest of some files, each given as its shards. It does not depend on the boundaries of the shards.
pub(super) fn of_files(files: &[&[&[u8]]]) -> String {
    let mut hash = Sha256::new();
    for shards in files {
        let n_bytes: usize = shards.iter().map(|bytes| bytes.len()).sum();
        hash.update((n_bytes as u64).to_le_bytes());
        if n_bytes <= N_BLOCKS * BLOCK_BYTES {
            shards.iter().for_each(|bytes| hash.update(bytes));
            continue;
        }
        for block in 0..N_BLOCKS {
            let start =
                ((n_bytes - BLOCK_BYTES) as u128 * block as u128 / (N_BLOCKS - 1) as u128) as usize;
            update(&mut hash, shards, start..start + BLOCK_BYTES);
        }
    }
    hex(&hash.finalize())
}

/// Hashes a range of bytes of the concatenated shards.
fn update(hash: &mut Sha256, shards: &[&[u8]], range: Range<usize>) {
    let mut first = 0;
    for bytes in shards {
        let within = |at: usize| at.clamp(first, first + bytes.len()) - first;
        hash.update(&bytes[within(range.start)..within(range.end)]);
        first += bytes.len();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of_whole(files: &[&[u8]]) -> String {
        of_files(&files.iter().map(std::slice::from_ref).collect::<Vec<_>>())
    }

    #[test]
    fn depends_on_any_byte_of_small_files_and_both_ends_of_large_ones() {
        let small = vec![7; 1000];
        let mut other = small.clone();
        other[500] = 8;
        assert_ne!(of_whole(&[&small]), of_whole(&[&other]));
        let large = vec![7; N_BLOCKS * BLOCK_BYTES + 12345];
        for at in [0, large.len() - 1] {
            let mut other = large.clone();
            other[at] = 8;
            assert_ne!(of_whole(&[&large]), of_whole(&[&other]));
        }
        assert_ne!(of_whole(&[&small, &[]]), of_whole(&[&[], &small]));
    }

    #[test]
    fn shards_of_any_size_have_the_digest_of_the_whole() {
        for n_bytes in [0, 1000, N_BLOCKS * BLOCK_BYTES + 12345] {
            let file: Vec<u8> = (0..n_bytes).map(|i| (i * 7 % 251) as u8).collect();
            for shard_bytes in [1001, 4096, 99_999, 500_000] {
                let shards: Vec<&[u8]> = file.chunks(shard_bytes).collect();
                assert_eq!(of_files(&[&shards]), of_whole(&[&file]));
            }
        }
    }
}
