//! Lookups by the first bytes of a text: filters of one bit per slot, and tables from a prefix to terms.
//!
//! All of them take the first eight bytes of the text as a little-endian number, so that the text's first byte is
//! the lowest one. A text of fewer bytes may be padded with any bytes; the caller checks its length.

/// Bytes of a text that are loaded at once. Keys have at most as many.
pub(super) const LOADED_BYTES: usize = 8;

/// Bits of a filter per key: at most one bit in 16 is set, so that the filter passes at most one in 16 of random
/// texts that start with no key.
const BITS_PER_KEY: usize = 16;

/// Minimum bits of a filter. It has 4 KiB, which fit the L1 data cache next to the finder's lists of offsets.
const MIN_BITS: usize = 1 << 15;

/// Up to eight bytes as a little-endian number, padded with zeros.
fn load(bytes: &[u8]) -> u64 {
    let mut loaded = [0; LOADED_BYTES];
    let n = bytes.len().min(LOADED_BYTES);
    loaded[..n].copy_from_slice(&bytes[..n]);
    u64::from_le_bytes(loaded)
}

/// Multiplicative hashing of the first bytes of a text.
#[derive(Debug, Clone, Copy)]
struct PrefixHash {
    /// An odd number, shifted left so that the bytes after the prefix are shifted out of the 64-bit product.
    multiplier: u64,
    /// Right shift that leaves the bits of an index.
    shift: u32,
}

impl PrefixHash {
    /// Hashes prefixes of 1 to 8 bytes to indices below `n`, a power of two above 1.
    fn new(prefix_bytes: usize, n: usize) -> Self {
        Self {
            multiplier: 0x9E37_79B9_7F4A_7C15 << (8 * (LOADED_BYTES - prefix_bytes)),
            shift: u64::BITS - n.trailing_zeros(),
        }
    }

    #[inline]
    fn index(self, loaded: u64) -> usize {
        (loaded.wrapping_mul(self.multiplier) >> self.shift) as usize
    }
}

/// A Bloom filter with one hash function: finds most texts that start with none of its keys.
#[derive(Debug)]
pub(super) struct PrefixFilter {
    hash: PrefixHash,
    bits: Vec<u64>,
}

impl PrefixFilter {
    /// A filter of the first `prefix_bytes` bytes, at most 8, of each of `keys`.
    pub(super) fn new<'a>(
        prefix_bytes: usize,
        keys: impl Iterator<Item = &'a [u8]> + Clone,
    ) -> Self {
        let n_bits = keys.clone().count() * BITS_PER_KEY;
        let n_bits = n_bits.next_power_of_two().max(MIN_BITS);
        let mut filter = Self {
            hash: PrefixHash::new(prefix_bytes, n_bits),
            bits: vec![0; n_bits / 64],
        };
        for key in keys {
            let index = filter.hash.index(load(key));
            filter.bits[index / 64] |= 1 << (index % 64);
        }
        filter
    }

    /// 0 if the text starts with no key; if it is 1, the text may start with one.
    #[inline]
    pub(super) fn bit(&self, loaded: u64) -> u64 {
        let index = self.hash.index(loaded);
        self.bits[index / 64] >> (index % 64) & 1
    }
}

/// The terms of one or two bytes, in tables indexed by these bytes.
#[derive(Debug)]
pub(super) struct ShortTerms {
    /// A bit for each two bytes: whether a text that starts with them starts with a term.
    bits: Box<[u64; 1 << 10]>,
    by_one_byte: Box<[u32; 1 << 8]>,
    has_one_byte: bool,
    by_two_bytes: Box<[u32]>,
}

impl ShortTerms {
    /// No term.
    pub(super) const NONE: u32 = u32::MAX;

    /// Tables of the terms of one or two bytes among `terms`, which come with their numbers.
    pub(super) fn new<'a>(terms: impl Iterator<Item = (&'a [u8], u32)>) -> Self {
        let mut tables = Self {
            bits: Box::new([0; 1 << 10]),
            by_one_byte: Box::new([Self::NONE; 1 << 8]),
            has_one_byte: false,
            by_two_bytes: vec![Self::NONE; 1 << 16].into_boxed_slice(),
        };
        for (term, number) in terms {
            match term {
                [first] => {
                    tables.has_one_byte = true;
                    tables.by_one_byte[usize::from(*first)] = number;
                    (0..=255).for_each(|second| tables.set_bit([*first, second]));
                }
                [first, second] => {
                    let index = usize::from(u16::from_le_bytes([*first, *second]));
                    tables.by_two_bytes[index] = number;
                    tables.set_bit([*first, *second]);
                }
                _ => {}
            }
        }
        tables
    }

    fn set_bit(&mut self, bytes: [u8; 2]) {
        let index = usize::from(u16::from_le_bytes(bytes));
        self.bits[index / 64] |= 1 << (index % 64);
    }

    /// 1 if the text starts with a term of one or two bytes, otherwise 0.
    #[inline]
    pub(super) fn bit(&self, loaded: u64) -> u64 {
        let index = (loaded & 0xffff) as usize;
        self.bits[index / 64] >> (index % 64) & 1
    }

    /// Whether any term has one byte.
    pub(super) fn has_one_byte(&self) -> bool {
        self.has_one_byte
    }

    /// The term that is the first byte of the text, or [`Self::NONE`].
    #[inline]
    pub(super) fn of_one_byte(&self, loaded: u64) -> u32 {
        self.by_one_byte[(loaded & 0xff) as usize]
    }

    /// The term that is the first two bytes of the text, or [`Self::NONE`].
    #[inline]
    pub(super) fn of_two_bytes(&self, loaded: u64) -> u32 {
        self.by_two_bytes[(loaded & 0xffff) as usize]
    }
}

/// A prefix and the range of the terms that start with it. A slot of a table is empty if the range is.
#[derive(Debug, Clone, Copy, Default)]
struct PrefixSlot {
    prefix: u64,
    start: u32,
    end: u32,
}

/// The ranges of terms that start with each of several prefixes of the same length.
#[derive(Debug)]
pub(super) struct PrefixTable {
    pub(super) prefix_bytes: usize,
    pub(super) filter: PrefixFilter,
    hash: PrefixHash,
    /// The bytes of a loaded number that belong to the prefix.
    mask: u64,
    /// A hash table with linear probing. At least half of the slots are empty, so probing ends.
    slots: Vec<PrefixSlot>,
}

impl PrefixTable {
    /// A table of distinct prefixes of `prefix_bytes` bytes, each with a range of terms that is not empty.
    pub(super) fn new(prefix_bytes: usize, ranges: &[(&[u8], u32, u32)]) -> Self {
        let n_slots = (2 * ranges.len()).next_power_of_two().max(2);
        let mut table = Self {
            prefix_bytes,
            filter: PrefixFilter::new(prefix_bytes, ranges.iter().map(|(prefix, ..)| *prefix)),
            hash: PrefixHash::new(prefix_bytes, n_slots),
            mask: u64::MAX >> (64 - 8 * prefix_bytes),
            slots: vec![PrefixSlot::default(); n_slots],
        };
        for (prefix, start, end) in ranges {
            let prefix = load(prefix);
            let index = table.find_slot(prefix);
            table.slots[index] = PrefixSlot {
                prefix,
                start: *start,
                end: *end,
            };
        }
        table
    }

    /// The slot of `prefix`, or the empty slot where it is to be inserted.
    #[inline]
    fn find_slot(&self, prefix: u64) -> usize {
        let mut index = self.hash.index(prefix);
        loop {
            let slot = self.slots[index];
            if slot.prefix == prefix || slot.start == slot.end {
                return index;
            }
            index = (index + 1) & (self.slots.len() - 1);
        }
    }

    /// The start and end of the range of terms that have the prefix of the text. They are equal if there is none.
    #[inline]
    pub(super) fn range(&self, loaded: u64) -> (u32, u32) {
        let PrefixSlot { start, end, .. } = self.slots[self.find_slot(loaded & self.mask)];
        (start, end)
    }
}
