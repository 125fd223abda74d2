//! Things by the first bytes of texts, up to eight of them: a sieve of bits, and a table behind it.

/// Bytes that are looked at together.
pub(super) const EIGHT: usize = 8;

/// Bits of a sieve for each key: one place in sixteen or fewer lets something else through.
const BITS_PER_KEY: usize = 16;

/// Bits of a sieve at least: four KiB stay in the nearest cache.
const MIN_BITS: usize = 1 << 15;

/// Bytes as a number, zeros behind them.
fn number(bytes: &[u8]) -> u64 {
    let mut eight = [0; EIGHT];
    let n = bytes.len().min(EIGHT);
    eight[..n].copy_from_slice(&bytes[..n]);
    u64::from_le_bytes(eight)
}

/// Hashes the first so many bytes of texts.
#[derive(Debug, Clone, Copy)]
struct Hash {
    /// A random odd number, shifted so that bytes behind the first ones fall out of the product.
    multiplier: u64,
    /// What leaves as many of the product's high bits as a place has.
    shift: u32,
}

impl Hash {
    /// Hashes `length` bytes, up to eight, to one of so many places, a power of two.
    fn new(length: usize, n_places: usize) -> Self {
        Self {
            multiplier: 0x9E37_79B9_7F4A_7C15 << (8 * (EIGHT - length)),
            shift: u64::BITS - n_places.trailing_zeros(),
        }
    }

    #[inline]
    fn place(self, eight: u64) -> usize {
        (eight.wrapping_mul(self.multiplier) >> self.shift) as usize
    }
}

/// Says of texts that they do not begin with any of some keys, all of the same length.
#[derive(Debug)]
pub(super) struct Sieve {
    hash: Hash,
    bits: Vec<u64>,
}

impl Sieve {
    /// A sieve of these keys of `length` bytes, up to eight; of longer ones the first bytes count.
    pub(super) fn new<'a>(length: usize, keys: impl Iterator<Item = &'a [u8]> + Clone) -> Self {
        let n_bits = keys.clone().count() * BITS_PER_KEY;
        let n_bits = n_bits.next_power_of_two().max(MIN_BITS);
        let mut this = Self {
            hash: Hash::new(length, n_bits),
            bits: vec![0; n_bits / 64],
        };
        for key in keys {
            let place = this.hash.place(number(key));
            this.bits[place / 64] |= 1 << (place % 64);
        }
        this
    }

    /// 0 if a text begins with none of the keys, which its first eight bytes say; otherwise mostly 1.
    #[inline]
    pub(super) fn bit(&self, eight: u64) -> u64 {
        let place = self.hash.place(eight);
        self.bits[place / 64] >> (place % 64) & 1
    }
}

/// Numbers by keys of one or two bytes.
#[derive(Debug)]
pub(super) struct Short {
    /// Whether there is a key, by two bytes.
    bits: Box<[u64; 1 << 10]>,
    one: Box<[u32; 1 << 8]>,
    has_one: bool,
    two: Box<[u32]>,
}

impl Short {
    /// No number.
    pub(super) const NONE: u32 = u32::MAX;

    pub(super) fn new<'a>(keys: impl Iterator<Item = (&'a [u8], u32)>) -> Self {
        let mut this = Self {
            bits: Box::new([0; 1 << 10]),
            one: Box::new([Self::NONE; 1 << 8]),
            has_one: false,
            two: vec![Self::NONE; 1 << 16].into_boxed_slice(),
        };
        for (key, number) in keys {
            match key {
                [one] => {
                    this.has_one = true;
                    this.one[usize::from(*one)] = number;
                    (0..=255).for_each(|any| this.set([*one, any]));
                }
                [one, two] => {
                    this.two[usize::from(u16::from_le_bytes([*one, *two]))] = number;
                    this.set([*one, *two]);
                }
                _ => {}
            }
        }
        this
    }

    fn set(&mut self, two: [u8; 2]) {
        let place = usize::from(u16::from_le_bytes(two));
        self.bits[place / 64] |= 1 << (place % 64);
    }

    /// 1 if a text begins with a key, which its first eight bytes say; otherwise 0.
    #[inline]
    pub(super) fn bit(&self, eight: u64) -> u64 {
        let place = (eight & 0xffff) as usize;
        self.bits[place / 64] >> (place % 64) & 1
    }

    /// Whether any key has one byte.
    pub(super) fn has_one(&self) -> bool {
        self.has_one
    }

    /// The number of the first byte of a text.
    #[inline]
    pub(super) fn one(&self, eight: u64) -> u32 {
        self.one[(eight & 0xff) as usize]
    }

    /// The number of its first two bytes.
    #[inline]
    pub(super) fn two(&self, eight: u64) -> u32 {
        self.two[(eight & 0xffff) as usize]
    }
}

/// Ranges of numbers by keys of the same length.
#[derive(Debug)]
pub(super) struct Beginnings {
    pub(super) length: usize,
    pub(super) sieve: Sieve,
    hash: Hash,
    /// The bytes of a key in a number of eight.
    mask: u64,
    /// A key, and where its range starts and ends; an empty place has an empty one. Half are empty at least.
    places: Vec<(u64, u32, u32)>,
}

impl Beginnings {
    /// A table of different keys of `length` bytes, or longer ones of which the first eight count.
    pub(super) fn new(length: usize, ranges: &[(&[u8], u32, u32)]) -> Self {
        let n_places = (2 * ranges.len()).next_power_of_two().max(2);
        let mut this = Self {
            length,
            sieve: Sieve::new(length, ranges.iter().map(|(key, ..)| *key)),
            hash: Hash::new(length, n_places),
            mask: u64::MAX >> (64 - 8 * length),
            places: vec![(0, 0, 0); n_places],
        };
        for (key, start, end) in ranges {
            let key = number(key);
            let place = this.place(key);
            this.places[place] = (key, *start, *end);
        }
        this
    }

    /// Where a key is, or would be.
    #[inline]
    fn place(&self, key: u64) -> usize {
        let mut place = self.hash.place(key);
        loop {
            let (other, start, end) = self.places[place];
            if other == key || start == end {
                return place;
            }
            place = (place + 1) & (self.places.len() - 1);
        }
    }

    /// The range of the key that a text begins with; an empty one if there is none.
    #[inline]
    pub(super) fn range(&self, eight: u64) -> (u32, u32) {
        let (_, start, end) = self.places[self.place(eight & self.mask)];
        (start, end)
    }
}
