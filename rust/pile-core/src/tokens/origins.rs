//! The entry of one document in a `.provenance` file.
//!
//! An entry is variable-length numbers (LEB128: seven bits a byte, low ones first, the high bit set on
//! all bytes but the last). The first is `byte_length * 4 + kind`:
//!
//! | kind | the record |
//! |---|---|
//! | 0 | follows that of the entry before in the same shard, after one byte (a line end) |
//! | 1 | follows it at once, as texts in a column do |
//! | 2 | is named: shard, record and first byte come next |
//! | 3 | is unknown; nothing else comes |
//!
//! At last, for all but the unknown, comes the subset's number plus one, or 0 where it has none. The
//! first known entry of a block of 64 is named.

/// Entries from one named place to the next: what is gone through for one document.
pub(super) const BLOCK: u64 = 64;

const AFTER_LINE_END: u64 = 0;
const AT_ONCE: u64 = 1;
const NAMED: u64 = 2;
const UNKNOWN: u64 = 3;

/// Where a document came from, shard and subset by number.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Place {
    /// Number of the shard.
    pub shard: u32,
    /// The record's number in its shard, from 0.
    pub record: u64,
    /// The record's first byte in the decompressed shard.
    pub byte_start: u64,
    /// The record's bytes, line end excluded.
    pub byte_length: u64,
    /// Number of the record's subset, if it names one.
    pub subset: Option<u32>,
}

impl Place {
    /// The first byte and number of a record that follows this one after `gap` bytes.
    fn next(&self, gap: u64) -> Option<(u64, u64)> {
        let end = self.byte_start.checked_add(self.byte_length)?;
        Some((end.checked_add(gap)?, self.record.checked_add(1)?))
    }
}

/// Makes the entries of one block.
#[derive(Default)]
pub(super) struct Encoder {
    last: Option<Place>,
}

impl Encoder {
    /// Appends the next entry.
    pub fn push(&mut self, place: Option<Place>, out: &mut Vec<u8>) {
        let Some(place) = place else {
            push_number(u128::from(UNKNOWN), out);
            return;
        };
        let follows = |gap| {
            self.last.is_some_and(|last| {
                last.shard == place.shard
                    && last.next(gap) == Some((place.byte_start, place.record))
            })
        };
        let kind = match (follows(1), follows(0)) {
            (true, _) => AFTER_LINE_END,
            (_, true) => AT_ONCE,
            _ => NAMED,
        };
        push_number(u128::from(place.byte_length) * 4 + u128::from(kind), out);
        if kind == NAMED {
            for number in [u64::from(place.shard), place.record, place.byte_start] {
                push_number(u128::from(number), out);
            }
        }
        let subset = place.subset.map_or(0, |subset| u128::from(subset) + 1);
        push_number(subset, out);
        self.last = Some(place);
    }
}

/// Reads the entries of one block; the bytes may go on behind it.
pub(super) struct Decoder<'a> {
    bytes: &'a [u8],
    last: Option<Place>,
}

impl<'a> Decoder<'a> {
    /// A decoder at a block's start.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, last: None }
    }

    /// The next entry; the outer `None` is damage.
    pub fn next(&mut self) -> Option<Option<Place>> {
        let first = self.number()?;
        let (kind, byte_length) = ((first % 4) as u64, u64::try_from(first / 4).ok()?);
        let (shard, byte_start, record) = match kind {
            UNKNOWN => return Some(None),
            NAMED => {
                let shard = self.small_number()?;
                let record = u64::try_from(self.number()?).ok()?;
                (shard, u64::try_from(self.number()?).ok()?, record)
            }
            _ => {
                let last = self.last?;
                let gap = u64::from(kind == AFTER_LINE_END);
                let (byte_start, record) = last.next(gap)?;
                (last.shard, byte_start, record)
            }
        };
        let subset = self.small_number()?.checked_sub(1);
        let place = Place {
            shard,
            record,
            byte_start,
            byte_length,
            subset,
        };
        self.last = Some(place);
        Some(Some(place))
    }

    fn small_number(&mut self) -> Option<u32> {
        u32::try_from(self.number()?).ok()
    }

    fn number(&mut self) -> Option<u128> {
        let mut number = 0;
        // 64 bits of length and two of kind take ten bytes.
        for shift in (0..70).step_by(7) {
            let (byte, rest) = self.bytes.split_first()?;
            self.bytes = rest;
            number |= u128::from(byte & 0x7F) << shift;
            if *byte < 0x80 {
                return Some(number);
            }
        }
        None
    }
}

fn push_number(mut number: u128, out: &mut Vec<u8>) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}
