//! Ranges of repeated windows: their records, their union, and their UTF-8 borders.

use crate::Result;

/// A range of positions whose windows are all repeated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct RepeatedRange {
    pub(super) start: u64,
    pub(super) end: u64,
    /// An earlier position of the first window.
    pub(super) copy: u64,
    pub(super) trim: BorderTrim,
}

/// How many bytes at the borders of a range are parts of characters.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct BorderTrim {
    pub(super) at_start: u8,
    pub(super) at_end: u8,
}

fn is_continuation(byte: u8) -> bool {
    byte & 0xC0 == 0x80
}

impl BorderTrim {
    /// That of a range whose bytes are `bytes`. They are a part of a valid text and at least four.
    pub(super) fn of(bytes: &[u8]) -> Self {
        let at_start = bytes
            .iter()
            .take(3)
            .take_while(|byte| is_continuation(**byte));
        // The last byte that starts a character, and the bytes from it to the end.
        let last = (1..=4)
            .zip(bytes.iter().rev())
            .find(|(_, byte)| !is_continuation(**byte));
        let at_end = last.map_or(0, |(n_bytes, lead)| {
            let length = match lead {
                ..0xC0 => 1,
                0xC0..0xE0 => 2,
                0xE0..0xF0 => 3,
                _ => 4,
            };
            if n_bytes < length { n_bytes } else { 0 }
        });
        Self {
            at_start: at_start.count() as u8,
            at_end,
        }
    }

    /// As one byte.
    pub(super) fn pack(self) -> u8 {
        self.at_start | self.at_end << 2
    }

    pub(super) fn unpack(packed: u8) -> Self {
        Self {
            at_start: packed & 3,
            at_end: packed >> 2 & 3,
        }
    }
}

impl RepeatedRange {
    /// Bytes of a record.
    pub(super) const RECORD_BYTES: usize = 25;

    /// A record, which sorts by start.
    pub(super) fn to_record(self) -> [u8; Self::RECORD_BYTES] {
        let mut record = [0; Self::RECORD_BYTES];
        record[..8].copy_from_slice(&self.start.to_be_bytes());
        record[8..16].copy_from_slice(&self.end.to_be_bytes());
        record[16..24].copy_from_slice(&self.copy.to_be_bytes());
        record[24] = self.trim.pack();
        record
    }

    pub(super) fn from_record(record: &[u8]) -> Option<Self> {
        let ([start, end, copy], [trim]) = record.as_chunks::<8>() else {
            return None;
        };
        Some(Self {
            start: u64::from_be_bytes(*start),
            end: u64::from_be_bytes(*end),
            copy: u64::from_be_bytes(*copy),
            trim: BorderTrim::unpack(*trim),
        })
    }
}

/// Unites ranges that overlap or touch. Takes them sorted by start, and passes on each union.
pub(super) struct RangeUnion<F> {
    current: Option<RepeatedRange>,
    take: F,
}

impl<F: FnMut(RepeatedRange) -> Result<()>> RangeUnion<F> {
    pub(super) fn new(take: F) -> Self {
        Self {
            current: None,
            take,
        }
    }

    pub(super) fn add(&mut self, range: RepeatedRange) -> Result<()> {
        match &mut self.current {
            Some(current) if range.start <= current.end => {
                if range.start == current.start {
                    current.copy = current.copy.min(range.copy);
                }
                if range.end > current.end {
                    current.end = range.end;
                    current.trim.at_end = range.trim.at_end;
                }
                Ok(())
            }
            current => match current.replace(range) {
                Some(done) => (self.take)(done),
                None => Ok(()),
            },
        }
    }

    /// Passes on the last union.
    pub(super) fn finish(mut self) -> Result<()> {
        self.current.take().map_or(Ok(()), &mut self.take)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::{collection::vec, prelude::*};

    proptest! {
        #[test]
        fn trimmed_borders_are_those_of_characters(text in "[aé語😀]{8,12}", start in 0_usize..4, end in 0_usize..4) {
            let end = text.len() - end;
            let trim = BorderTrim::of(&text.as_bytes()[start..end]);
            prop_assert_eq!(BorderTrim::unpack(trim.pack()), trim);
            let expected = (start..).find(|at| text.is_char_boundary(*at)).unwrap();
            prop_assert_eq!(start + usize::from(trim.at_start), expected);
            let expected = (0..=end).rev().find(|at| text.is_char_boundary(*at)).unwrap();
            prop_assert_eq!(end - usize::from(trim.at_end), expected);
        }

        #[test]
        fn a_union_has_the_bytes_of_its_ranges(ranges in vec((0_u64..60, 1_u64..9, 0_u64..9), 0..20)) {
            let mut ranges: Vec<_> = ranges
                .into_iter()
                .map(|(start, length, copy)| RepeatedRange { start, end: start + length, copy, trim: BorderTrim::default() })
                .collect();
            ranges.sort_by_key(|range| range.to_record());
            let mut found = Vec::new();
            let mut union = RangeUnion::new(|range| {
                found.push(range);
                Ok(())
            });
            for range in &ranges {
                prop_assert_eq!(RepeatedRange::from_record(&range.to_record()), Some(*range));
                union.add(*range).unwrap();
            }
            union.finish().unwrap();
            prop_assert!(found.windows(2).all(|pair| pair[0].end < pair[1].start));
            for position in 0..80 {
                let is_in = |ranges: &[RepeatedRange]| ranges.iter().any(|r| (r.start..r.end).contains(&position));
                prop_assert_eq!(is_in(&found), is_in(&ranges));
            }
            for range in found {
                let with_start = ranges.iter().filter(|r| r.start == range.start);
                prop_assert_eq!(with_start.map(|r| r.copy).min(), Some(range.copy));
            }
        }
    }
}
