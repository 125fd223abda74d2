//! A digest that tells datasets apart in constant time.
//!
//! SHA-256 over each file's length and bytes; of a file above 512 KiB, over 128 pieces of 4 KiB
//! spread evenly from its first byte to its last. It notices another dataset under the same name;
//! that every byte is right is what the manifest's checksums and `verify` prove. An order takes it
//! each time it is opened, so it must cost no more than a batch does.

use std::ops::Range;

use sha2::{Digest, Sha256};

use crate::io::hex;

const PIECE_BYTES: usize = 4 << 10;
const N_PIECES: usize = 128;

/// The digest over some files' bytes, in order. Each is given as its shards: how a file is cut changes nothing.
pub(super) fn of_files(files: &[&[&[u8]]]) -> String {
    let mut hash = Sha256::new();
    for shards in files {
        let n_bytes: usize = shards.iter().map(|bytes| bytes.len()).sum();
        hash.update((n_bytes as u64).to_le_bytes());
        if n_bytes <= N_PIECES * PIECE_BYTES {
            shards.iter().for_each(|bytes| hash.update(bytes));
            continue;
        }
        for piece in 0..N_PIECES {
            let start =
                ((n_bytes - PIECE_BYTES) as u128 * piece as u128 / (N_PIECES - 1) as u128) as usize;
            update(&mut hash, shards, start..start + PIECE_BYTES);
        }
    }
    hex(&hash.finalize())
}

/// Hashes the bytes of `range` of the shards' concatenation.
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
    fn any_byte_of_small_files_and_both_ends_of_large_ones_count() {
        let small = vec![7; 1000];
        let mut other = small.clone();
        other[500] = 8;
        assert_ne!(of_whole(&[&small]), of_whole(&[&other]));
        let large = vec![7; N_PIECES * PIECE_BYTES + 12345];
        for at in [0, large.len() - 1] {
            let mut other = large.clone();
            other[at] = 8;
            assert_ne!(of_whole(&[&large]), of_whole(&[&other]));
        }
        assert_ne!(of_whole(&[&small, &[]]), of_whole(&[&[], &small]));
    }

    #[test]
    fn shards_of_any_size_give_the_digest_of_the_whole() {
        for n_bytes in [0, 1000, N_PIECES * PIECE_BYTES + 12345] {
            let file: Vec<u8> = (0..n_bytes).map(|i| (i * 7 % 251) as u8).collect();
            for shard_bytes in [1001, 4096, 99_999, 500_000] {
                let shards: Vec<&[u8]> = file.chunks(shard_bytes).collect();
                assert_eq!(of_files(&[&shards]), of_whole(&[&file]));
            }
        }
    }
}
