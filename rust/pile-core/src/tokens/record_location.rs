//! The entry of one document in a `.provenance` file: the location of its record.
//!
//! An entry is a sequence of variable-length numbers (LEB128: seven bits per byte, low bits first, the high
//! bit set on all bytes but the last). The first number is `byte_length * 4 + kind`:
//!
//! | kind | the record |
//! |---|---|
//! | 0 | follows the record of the previous known entry in the same shard, after one byte (a line end) |
//! | 1 | follows it without a gap, as texts in a column do |
//! | 2 | is explicit: the numbers of its shard, its record and its first byte follow |
//! | 3 | is unknown; the entry ends here |
//!
//! The last number of a known entry is its subset's number plus one, or 0 without a subset. Entries are in
//! blocks of 64. The first known entry of a block is explicit, so a block can be decoded alone.

/// Entries of a block. Looking up one document decodes at most one block.
pub(super) const BLOCK: u64 = 64;

const FOLLOWS_AFTER_LINE_END: u64 = 0;
const FOLLOWS_WITHOUT_GAP: u64 = 1;
const EXPLICIT: u64 = 2;
const UNKNOWN: u64 = 3;

/// The location of a document's record, with shard and subset by number.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RecordLocation {
    /// Number of the shard.
    pub shard: u32,
    /// The record's number in its shard, from 0.
    pub record: u64,
    /// The record's first byte in the decompressed shard.
    pub byte_start: u64,
    /// Bytes of the record, without the line end.
    pub byte_length: u64,
    /// Number of the record's subset, if it has one.
    pub subset: Option<u32>,
}

impl RecordLocation {
    /// The first byte and the number of the record that follows this one after `gap` bytes.
    fn next(&self, gap: u64) -> Option<(u64, u64)> {
        let end = self.byte_start.checked_add(self.byte_length)?;
        Some((end.checked_add(gap)?, self.record.checked_add(1)?))
    }
}

/// Encodes the entries of one block.
#[derive(Default)]
pub(super) struct LocationEncoder {
    last: Option<RecordLocation>,
}

impl LocationEncoder {
    /// Appends the next entry to `out`.
    pub fn push(&mut self, location: Option<RecordLocation>, out: &mut Vec<u8>) {
        let Some(location) = location else {
            push_number(u128::from(UNKNOWN), out);
            return;
        };
        let follows = |gap| {
            self.last.is_some_and(|last| {
                last.shard == location.shard
                    && last.next(gap) == Some((location.byte_start, location.record))
            })
        };
        let kind = match (follows(1), follows(0)) {
            (true, _) => FOLLOWS_AFTER_LINE_END,
            (_, true) => FOLLOWS_WITHOUT_GAP,
            _ => EXPLICIT,
        };
        push_number(u128::from(location.byte_length) * 4 + u128::from(kind), out);
        if kind == EXPLICIT {
            for number in [
                u64::from(location.shard),
                location.record,
                location.byte_start,
            ] {
                push_number(u128::from(number), out);
            }
        }
        let subset = location.subset.map_or(0, |subset| u128::from(subset) + 1);
        push_number(subset, out);
        self.last = Some(location);
    }
}

/// Decodes the entries of one block. The bytes may extend beyond the block.
pub(super) struct LocationDecoder<'a> {
    bytes: &'a [u8],
    last: Option<RecordLocation>,
}

impl<'a> LocationDecoder<'a> {
    /// A decoder at the start of a block.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, last: None }
    }

    /// The next entry: `None` if it is damaged, `Some(None)` if its location is unknown.
    pub fn next(&mut self) -> Option<Option<RecordLocation>> {
        let first = self.number()?;
        let (kind, byte_length) = ((first % 4) as u64, u64::try_from(first / 4).ok()?);
        let (shard, byte_start, record) = match kind {
            UNKNOWN => return Some(None),
            EXPLICIT => {
                let shard = self.small_number()?;
                let record = u64::try_from(self.number()?).ok()?;
                (shard, u64::try_from(self.number()?).ok()?, record)
            }
            _ => {
                let last = self.last?;
                let gap = u64::from(kind == FOLLOWS_AFTER_LINE_END);
                let (byte_start, record) = last.next(gap)?;
                (last.shard, byte_start, record)
            }
        };
        let subset = self.small_number()?.checked_sub(1);
        let location = RecordLocation {
            shard,
            record,
            byte_start,
            byte_length,
            subset,
        };
        self.last = Some(location);
        Some(Some(location))
    }

    fn small_number(&mut self) -> Option<u32> {
        u32::try_from(self.number()?).ok()
    }

    fn number(&mut self) -> Option<u128> {
        let mut number = 0;
        // The largest number has 66 bits, of length and kind, which take ten bytes of seven bits.
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
