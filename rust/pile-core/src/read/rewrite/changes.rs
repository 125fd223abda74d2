//! What is done with the records of a job's shards.

use std::fmt::Write as _;

use crate::{Error, Result, read::ByteRange};

/// Records of shards, ascending by shard and record.
#[derive(Debug, Clone, Copy, Default)]
pub struct RecordColumns<'a> {
    /// Number of the shard of each record.
    pub shards: &'a [u32],
    /// Number of each record in its shard.
    pub records: &'a [u64],
}

/// Ranges that are cut from texts, ascending by shard, record and start. A record may have several. The ranges are
/// checked when they are cut, against the text.
#[derive(Debug, Clone, Copy, Default)]
pub struct Cuts<'a> {
    /// The records.
    pub at: RecordColumns<'a>,
    /// First byte of each range in the text.
    pub starts: &'a [u64],
    /// End of each range.
    pub ends: &'a [u64],
}

/// Records that are marked with a JSON object of numbers in their `meta`.
#[derive(Debug, Clone, Default)]
pub struct Marks<'a> {
    /// The records.
    pub at: RecordColumns<'a>,
    /// The key of the object in `meta`.
    pub key: &'a str,
    /// The keys of the object, each with its value for every record.
    pub members: Vec<(&'a str, &'a [u64])>,
}

/// What is done with the records of all shards. Those not named stay as they are.
#[derive(Debug, Clone, Default)]
pub struct Changes<'a> {
    /// The records that are left out.
    pub removed: RecordColumns<'a>,
    /// What is cut from the texts of others.
    pub cuts: Cuts<'a>,
    /// The marks of others.
    pub marks: Marks<'a>,
}

impl Changes<'_> {
    /// Checks that the columns of each list have the same length and are in order, and that all shards exist. A record
    /// may repeat in the cuts, but not in the other lists. Whether a record is in two lists is checked when its change
    /// is taken.
    pub(super) fn check(&self, n_shards: usize) -> Result<()> {
        self.removed.check("removed", n_shards, false)?;
        self.cuts.at.check("cuts", n_shards, true)?;
        self.marks.at.check("marks", n_shards, false)?;
        let n_cuts = self.cuts.at.records.len();
        let n_marks = self.marks.at.records.len();
        let has_values = |(_, values): &(&str, &[u64])| values.len() == n_marks;
        if (self.cuts.starts.len(), self.cuts.ends.len()) != (n_cuts, n_cuts)
            || !self.marks.members.iter().all(has_values)
        {
            return Err(Error::argument("columns of different lengths"));
        }
        Ok(())
    }

    /// The changes of a shard.
    pub(super) fn of_shard(&self, shard: usize) -> ShardChanges<'_> {
        let cuts = self.cuts.at.range_of(shard);
        let marks = self.marks.at.range_of(shard);
        let members = self.marks.members.iter();
        ShardChanges {
            removed: &self.removed.records[self.removed.range_of(shard)],
            cut: &self.cuts.at.records[cuts.clone()],
            starts: &self.cuts.starts[cuts.clone()],
            ends: &self.cuts.ends[cuts],
            marked: &self.marks.at.records[marks.clone()],
            key: self.marks.key,
            members: members
                .map(|(name, values)| (*name, &values[marks.clone()]))
                .collect(),
        }
    }
}

impl RecordColumns<'_> {
    fn check(&self, name: &str, n_shards: usize, may_repeat: bool) -> Result<()> {
        let fail = |what: &str| Err(Error::argument(format!("{name}: {what}")));
        if self.shards.len() != self.records.len() {
            return fail("columns of different lengths");
        }
        let pairs = || self.shards.iter().zip(self.records);
        let is_ordered = |(a, b): ((&u32, &u64), (&u32, &u64))| a < b || (may_repeat && a == b);
        if !pairs().zip(pairs().skip(1)).all(is_ordered) {
            return fail(match may_repeat {
                true => "the records are not in ascending order",
                false => "the records are not in ascending order, each once",
            });
        }
        // The last one is the largest.
        match self.shards.last() {
            Some(last) if *last as usize >= n_shards => {
                fail(&format!("shard {last}, but there are {n_shards}"))
            }
            _ => Ok(()),
        }
    }

    fn range_of(&self, shard: usize) -> std::ops::Range<usize> {
        let start = self.shards.partition_point(|s| (*s as usize) < shard);
        let end = self.shards.partition_point(|s| (*s as usize) <= shard);
        start..end
    }
}

/// The changes of a shard that are still to be made, in the order of its records. Lists of one entry a change: the
/// cuts are `cut`, `starts` and `ends`; the marks are `marked` and the values of each member.
#[derive(Debug, Clone)]
pub(super) struct ShardChanges<'a> {
    removed: &'a [u64],
    cut: &'a [u64],
    starts: &'a [u64],
    ends: &'a [u64],
    marked: &'a [u64],
    key: &'a str,
    members: Vec<(&'a str, &'a [u64])>,
}

/// What is done with a record.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum RecordChange<'a> {
    Remove,
    Cut(Vec<ByteRange>),
    Mark { key: &'a str, value: String },
}

impl<'a> ShardChanges<'a> {
    /// The number of the next record with a change.
    pub(super) fn next_record(&self) -> Option<u64> {
        let firsts = [self.removed, self.cut, self.marked].map(<[u64]>::first);
        firsts.into_iter().flatten().min().copied()
    }

    /// Whether any record is still to be marked.
    pub(super) fn has_marks(&self) -> bool {
        !self.marked.is_empty()
    }

    /// Takes the change of a record, if it has one. The caller takes that of [`Self::next_record`] until there are no
    /// more, so none is passed over.
    ///
    /// # Errors
    /// The record has two changes.
    pub(super) fn take(&mut self, record: u64) -> Result<Option<RecordChange<'a>>> {
        let is_next = |records: &[u64]| records.first() == Some(&record);
        let change = match (
            is_next(self.removed),
            is_next(self.cut),
            is_next(self.marked),
        ) {
            (false, false, false) => return Ok(None),
            (true, false, false) => {
                self.removed = &self.removed[1..];
                RecordChange::Remove
            }
            (false, true, false) => self.take_cuts(record),
            (false, false, true) => self.take_mark(),
            _ => {
                let what = format!("record {record} has more than one change");
                return Err(Error::argument(what));
            }
        };
        Ok(Some(change))
    }

    fn take_cuts(&mut self, record: u64) -> RecordChange<'a> {
        let n = self.cut.partition_point(|r| *r == record);
        let ranges = self.starts[..n].iter().zip(&self.ends[..n]);
        let ranges = ranges.map(|(start, end)| ByteRange {
            start: *start,
            end: *end,
        });
        let change = RecordChange::Cut(ranges.collect());
        self.cut = &self.cut[n..];
        self.starts = &self.starts[n..];
        self.ends = &self.ends[n..];
        change
    }

    fn take_mark(&mut self) -> RecordChange<'a> {
        let mut value = "{".to_owned();
        for (i, (name, values)) in self.members.iter_mut().enumerate() {
            let comma = if i > 0 { ", " } else { "" };
            let name = serde_json::Value::from(*name);
            let _ = write!(value, "{comma}{name}: {}", values[0]);
            *values = &values[1..];
        }
        value.push('}');
        self.marked = &self.marked[1..];
        RecordChange::Mark {
            key: self.key,
            value,
        }
    }
}
