//! Step 4: finds the repeated windows among the contexts of anchors with equal hashes, and writes their ranges.
//!
//! Equal windows have equal anchors at equal offsets, so they are in contexts of one group. All windows of a context
//! that equals an earlier one are repeated. Of each distinct context, each window is looked up in a hash table of the
//! windows of earlier ones, and compared unit by unit. So the time is proportional to the length of the contexts.
//!
//! **A group that exceeds its share of the memory** is not held: a record for each window of each distinct context,
//! and one for each equal context, goes to an external sort by a hash of 122 bits. Windows with equal hashes are taken
//! as equal, as their texts are not in memory: see [`WideRollingHash`]. Groups have that many distinct contexts only if
//! a string of [`WindowShape::anchor_length`](super::anchors::WindowShape) units is very common.

use std::ops::Range;

use super::{
    PassagesConfig,
    contexts::ContextRecord,
    ranges::{BorderTrim, RepeatedRange},
    records::{RecordBuffer, merge},
    repeated::damaged,
    rolling::{RollingHash, WideRollingHash},
    store::{FinishedStep, RunKind, Store},
    units::Unit,
};
use crate::{Result, progress::Progress};

/// A distinct context of a group.
struct DistinctContext {
    /// Its range in the text of the group.
    text: Range<usize>,
    /// Its range in the positions of the group, of which the first is the earliest.
    positions: Range<usize>,
}

/// The contexts of anchors with equal hashes.
struct Group<U> {
    hash: Option<u64>,
    /// The key of the last context. Records are sorted by hash, key and position, so equal contexts follow each other.
    key: Vec<u8>,
    text: Vec<U>,
    positions: Vec<u64>,
    contexts: Vec<DistinctContext>,
    /// If the group is too large for memory, the windows of the first occurrence of the last context.
    spilled: Option<SpilledWindows>,
}

impl<U: Unit> Group<U> {
    fn new() -> Self {
        Self {
            hash: None,
            key: Vec::new(),
            text: Vec::new(),
            positions: Vec::new(),
            contexts: Vec::new(),
            spilled: None,
        }
    }

    fn clear(&mut self) {
        self.hash = None;
        self.key.clear();
        self.text.clear();
        self.positions.clear();
        self.contexts.clear();
        self.spilled = None;
    }

    /// Bytes of memory, and of the hash table of its windows. Vectors and the table may be half empty.
    fn n_bytes(&self, length: usize) -> usize {
        let n_distinct = self.contexts.len();
        let n_windows = self.text.len() - n_distinct * (length - 1);
        let of_contexts = n_distinct * (size_of::<DistinctContext>() + size_of::<usize>());
        2 * (U::BYTES * self.text.len() + 8 * self.positions.len() + of_contexts)
            + 4 * n_windows * size_of::<WindowSlot>()
    }
}

/// Consecutive windows of a context of a spilled group.
#[derive(Clone, Copy)]
struct SpilledWindows {
    /// Hash of the first one.
    hash: [u64; 2],
    position: u64,
    n_windows: u32,
    trim: BorderTrim,
}

impl SpilledWindows {
    fn parse(record: &[u8]) -> Option<Self> {
        let (hash, rest) = record.split_first_chunk::<16>()?;
        let (position, rest) = rest.split_first_chunk()?;
        let (n_windows, rest) = rest.split_first_chunk()?;
        let halves = hash.as_chunks::<8>().0;
        Some(Self {
            hash: [u64::from_be_bytes(halves[0]), u64::from_be_bytes(halves[1])],
            position: u64::from_be_bytes(*position),
            n_windows: u32::from_be_bytes(*n_windows),
            trim: BorderTrim::unpack(*rest.first()?),
        })
    }

    fn range(&self, copy: u64, length: usize) -> RepeatedRange {
        RepeatedRange {
            start: self.position,
            end: self.position + u64::from(self.n_windows) - 1 + length as u64,
            copy,
            trim: self.trim,
        }
    }
}

/// A window of a distinct context.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct ContextWindow {
    context: u32,
    /// Its start in the context.
    start: u32,
}

/// A slot of the hash table.
#[derive(Clone, Copy)]
struct WindowSlot {
    hash: u64,
    window: Option<ContextWindow>,
}

/// A hash table with linear probing. At least half of its slots are empty, so probing ends.
#[derive(Default)]
struct WindowTable {
    slots: Vec<WindowSlot>,
}

impl WindowTable {
    fn clear(&mut self, n_windows: usize) {
        let empty = WindowSlot {
            hash: 0,
            window: None,
        };
        self.slots.clear();
        self.slots
            .resize((2 * n_windows).next_power_of_two(), empty);
    }

    /// The earlier window that equals this one. If there is none, the window is added.
    fn find_or_add(
        &mut self,
        hash: u64,
        window: ContextWindow,
        is_equal: impl Fn(ContextWindow) -> bool,
    ) -> Option<ContextWindow> {
        let mask = self.slots.len() - 1;
        let mut index = hash as usize & mask;
        loop {
            let slot = &mut self.slots[index];
            match slot.window {
                None => {
                    *slot = WindowSlot {
                        hash,
                        window: Some(window),
                    };
                    return None;
                }
                Some(known) if slot.hash == hash && is_equal(known) => return Some(known),
                Some(_) => index = (index + 1) & mask,
            }
        }
    }
}

/// Consecutive repeated windows of a context.
struct RepeatedWindows {
    first: usize,
    last: usize,
    /// An earlier position of the first one.
    copy: u64,
}

/// Writes ranges to runs.
struct RangeSink<'a> {
    store: &'a mut Store,
    ranges: RecordBuffer,
    length: usize,
}

impl RangeSink<'_> {
    fn put(&mut self, range: RepeatedRange) -> Result<()> {
        self.ranges.push(&[&range.to_record()]);
        self.store
            .write_run_if_full(RunKind::Ranges, &mut self.ranges)
    }

    /// Writes the range of windows of a context at `position`.
    fn put_windows<U: Unit>(
        &mut self,
        context: &[U],
        position: u64,
        windows: &RepeatedWindows,
    ) -> Result<()> {
        let end = windows.last + self.length;
        self.put(RepeatedRange {
            start: position + windows.first as u64,
            end: position + end as u64,
            copy: windows.copy,
            trim: U::trim(&context[windows.first..end]),
        })
    }
}

/// The step's state.
struct GroupStep<'a, U> {
    sink: RangeSink<'a>,
    every_copy: bool,
    max_group_bytes: usize,
    group: Group<U>,
    /// The units of a context of a spilled group.
    units: Vec<U>,
    table: WindowTable,
    windows: RecordBuffer,
    rolling: RollingHash,
    wide: WideRollingHash,
    progress: &'a Progress,
}

impl<U: Unit> GroupStep<'_, U> {
    fn add(&mut self, record: &ContextRecord<'_>) -> Result<()> {
        if self.group.hash != Some(record.hash) {
            self.finish_group()?;
            self.group.hash = Some(record.hash);
        }
        let is_new = self.group.key != record.key;
        if is_new {
            self.group.key.clear();
            self.group.key.extend_from_slice(record.key);
        }
        if let Some(context) = self.group.spilled {
            return match is_new {
                true => self.spill_record(record),
                false => self.spill_equal(context, record.position),
            };
        }
        let group = &mut self.group;
        let (text, n) = (group.text.len(), group.positions.len());
        group.positions.push(record.position);
        match group.contexts.last_mut() {
            Some(context) if !is_new => context.positions.end = n + 1,
            _ => {
                U::read(record.text, &mut group.text);
                group.contexts.push(DistinctContext {
                    text: text..group.text.len(),
                    positions: n..n + 1,
                });
            }
        }
        match group.n_bytes(self.sink.length) > self.max_group_bytes {
            true => self.spill_group(),
            false => Ok(()),
        }
    }

    fn finish_group(&mut self) -> Result<()> {
        let found = match (self.group.spilled, self.group.contexts.as_slice()) {
            (Some(_), _) => self.find_in_spilled(),
            (None, []) => Ok(()),
            (None, [_]) => self.put_equal(0, None),
            (None, _) => self.find_in_memory(),
        };
        self.group.clear();
        found
    }

    /// Writes the ranges of all but the first occurrence of a context. `copy` is an earlier position of its first
    /// window than the context's.
    fn put_equal(&mut self, context: usize, copy: Option<u64>) -> Result<()> {
        let group = &self.group;
        let DistinctContext { text, positions } = &group.contexts[context];
        let (text, positions) = (
            &group.text[text.clone()],
            &group.positions[positions.clone()],
        );
        let windows = RepeatedWindows {
            first: 0,
            last: text.len() - self.sink.length,
            copy: copy.unwrap_or(positions[0]),
        };
        // The first occurrence is a copy too if any follows.
        let first = usize::from(!self.every_copy || positions.len() == 1);
        for position in &positions[first..] {
            self.sink.put_windows(text, *position, &windows)?;
        }
        Ok(())
    }

    fn find_in_memory(&mut self) -> Result<()> {
        let n_contexts = self.group.contexts.len();
        let n_windows = self.group.text.len() - n_contexts * (self.sink.length - 1);
        self.table.clear(n_windows);
        // For each unit of the text, whether a later window equals the one that starts there.
        let mut has_copy = vec![
            false;
            if self.every_copy {
                self.group.text.len()
            } else {
                0
            }
        ];
        // Each window has one anchor, so no two contexts share a window: in this order, all windows of the first
        // occurrences ascend, and the table has the earliest of equal ones.
        let mut order: Vec<usize> = (0..n_contexts).collect();
        order.sort_unstable_by_key(|i| {
            self.group.positions[self.group.contexts[*i].positions.start]
        });
        for number in order {
            let copy = self.find_in_context(number, &mut has_copy)?;
            self.put_equal(number, copy)?;
        }
        if self.every_copy {
            self.put_first_copies(&has_copy)?;
        }
        Ok(())
    }

    /// Writes the ranges of the windows of a context that are in earlier ones. Returns the position of the earliest
    /// window that equals the first.
    fn find_in_context(&mut self, number: usize, has_copy: &mut [bool]) -> Result<Option<u64>> {
        let length = self.sink.length;
        let Group {
            text,
            positions,
            contexts,
            ..
        } = &self.group;
        let of_context = |number: u32| &text[contexts[number as usize].text.clone()];
        let units_of =
            |window: ContextWindow| &of_context(window.context)[window.start as usize..][..length];
        let first_position = |context: usize| positions[contexts[context].positions.start];
        let (context, position) = (of_context(number as u32), first_position(number));
        let mut partial_hash = self.rolling.start(context);
        let (mut copy_of_first, mut repeated): (_, Option<RepeatedWindows>) = (None, None);
        // The window that equals the last one.
        let mut matched: Option<ContextWindow> = None;
        for start in 0..=context.len() - length {
            let entering = context[start + length - 1];
            let hash = RollingHash::append(partial_hash, entering);
            partial_hash = self.rolling.without_first(hash, context[start]);
            let window = ContextWindow {
                context: number as u32,
                start: start as u32,
            };
            // If the window before has a match, this one and the window after that match can differ only in the last
            // unit.
            let next = matched.and_then(|ContextWindow { context, start }| {
                let next = of_context(context).get(start as usize + length)?;
                (*next == entering).then_some(ContextWindow {
                    context,
                    start: start + 1,
                })
            });
            matched = next.or_else(|| {
                let is_equal = |known| units_of(known) == units_of(window);
                self.table
                    .find_or_add(RollingHash::mix(hash), window, is_equal)
            });
            match (matched, &mut repeated) {
                (Some(_), Some(repeated)) => repeated.last = start,
                (Some(copy), None) => {
                    let of_copy = first_position(copy.context as usize) + u64::from(copy.start);
                    if start == 0 {
                        copy_of_first = Some(of_copy);
                    }
                    repeated = Some(RepeatedWindows {
                        first: start,
                        last: start,
                        copy: of_copy,
                    });
                }
                (None, _) => {
                    if let Some(windows) = repeated.take() {
                        self.sink.put_windows(context, position, &windows)?;
                    }
                }
            }
            if let (true, Some(copy)) = (self.every_copy, matched) {
                has_copy[contexts[copy.context as usize].text.start + copy.start as usize] = true;
            }
        }
        if let Some(windows) = repeated {
            self.sink.put_windows(context, position, &windows)?;
        }
        Ok(copy_of_first)
    }

    /// Writes the ranges of windows that later windows equal.
    fn put_first_copies(&mut self, has_copy: &[bool]) -> Result<()> {
        for DistinctContext { text, positions } in &self.group.contexts {
            let position = self.group.positions[positions.start];
            let context = &self.group.text[text.clone()];
            let has_copy = &has_copy[text.clone()];
            for first in (0..has_copy.len()).filter(|i| has_copy[*i]) {
                let windows = RepeatedWindows {
                    first,
                    last: first,
                    copy: position + first as u64,
                };
                self.sink.put_windows(context, position, &windows)?;
            }
        }
        Ok(())
    }

    /// Moves the group's contexts to the external sort.
    fn spill_group(&mut self) -> Result<()> {
        // A job that was interrupted may have left windows of another group.
        if self.sink.store.has_runs(RunKind::Windows) {
            self.sink.store.remove_runs(RunKind::Windows)?;
        }
        let (text, positions) = (
            std::mem::take(&mut self.group.text),
            std::mem::take(&mut self.group.positions),
        );
        let contexts = std::mem::take(&mut self.group.contexts);
        for context in &contexts {
            let positions = &positions[context.positions.clone()];
            self.spill_context(&text[context.text.clone()], positions[0])?;
            if let Some(spilled) = self.group.spilled {
                for position in &positions[1..] {
                    self.spill_equal(spilled, *position)?;
                }
            }
        }
        Ok(())
    }

    fn spill_record(&mut self, record: &ContextRecord<'_>) -> Result<()> {
        let mut units = std::mem::take(&mut self.units);
        units.clear();
        U::read(record.text, &mut units);
        let spilled = self.spill_context(&units, record.position);
        self.units = units;
        spilled
    }

    /// Writes a record for each window of the first occurrence of a context.
    fn spill_context(&mut self, context: &[U], position: u64) -> Result<()> {
        let length = self.sink.length;
        let mut spilled = None;
        // The records of a context are few beside the buffer.
        let windows = &mut self.windows;
        self.wide.each(context, |start, hash| {
            push_windows(
                windows,
                SpilledWindows {
                    hash,
                    position: position + start as u64,
                    n_windows: 1,
                    trim: U::trim(&context[start..start + length]),
                },
            );
            spilled.get_or_insert(SpilledWindows {
                hash,
                position,
                n_windows: (context.len() - length + 1) as u32,
                trim: U::trim(context),
            });
        });
        self.group.spilled = spilled;
        self.sink
            .store
            .write_run_if_full(RunKind::Windows, &mut self.windows)
    }

    /// Writes the record of a later occurrence of a context.
    fn spill_equal(&mut self, first: SpilledWindows, position: u64) -> Result<()> {
        if self.every_copy {
            // Once for each occurrence: the merge passes on equal records once.
            self.sink
                .put(first.range(first.position, self.sink.length))?;
        }
        push_windows(&mut self.windows, SpilledWindows { position, ..first });
        self.sink
            .store
            .write_run_if_full(RunKind::Windows, &mut self.windows)
    }

    fn find_in_spilled(&mut self) -> Result<()> {
        let mut finder = SpilledFinder {
            first: None,
            every_copy: self.every_copy,
        };
        let (sink, windows) = (&mut self.sink, &mut self.windows);
        if !sink.store.has_runs(RunKind::Windows) {
            return windows.drain(|record| finder.add(record, sink));
        }
        sink.store.write_run(RunKind::Windows, windows)?;
        let runs = sink.store.runs_to_merge(RunKind::Windows, self.progress)?;
        merge(&runs, sink.store.buffer_bytes(), self.progress, |record| {
            finder.add(record, sink)
        })?;
        sink.store.remove_runs(RunKind::Windows)
    }
}

fn push_windows(windows: &mut RecordBuffer, record: SpilledWindows) {
    windows.push(&[
        &record.hash[0].to_be_bytes(),
        &record.hash[1].to_be_bytes(),
        &record.position.to_be_bytes(),
        &record.n_windows.to_be_bytes(),
        &[record.trim.pack()],
    ]);
}

/// Finds the repeated windows among sorted records of windows.
struct SpilledFinder {
    /// The earliest window of the last hash. It is a window alone: only later occurrences of a context have records
    /// of several.
    first: Option<SpilledWindows>,
    every_copy: bool,
}

impl SpilledFinder {
    fn add(&mut self, record: &[u8], sink: &mut RangeSink<'_>) -> Result<()> {
        let windows = SpilledWindows::parse(record).ok_or_else(|| damaged(sink.store))?;
        match self.first {
            Some(first) if first.hash == windows.hash => {
                if self.every_copy {
                    sink.put(first.range(first.position, sink.length))?;
                }
                sink.put(windows.range(first.position, sink.length))
            }
            _ => {
                self.first = Some(windows);
                Ok(())
            }
        }
    }
}

/// Whether these can be the bytes of a context.
fn is_context<U: Unit>(bytes: &[u8], length: usize) -> bool {
    bytes.len() >= length * U::BYTES && bytes.len().is_multiple_of(U::BYTES)
}

pub(super) fn find_ranges<U: Unit>(
    config: &PassagesConfig,
    store: &mut Store,
    progress: &Progress,
) -> Result<()> {
    let runs = store.runs_to_merge(RunKind::Contexts, progress)?;
    let checksums = store.state.shards.iter().map(|shard| &*shard.sha256);
    let wide = WideRollingHash::new(config.length, checksums);
    let (buffer_bytes, share) = (store.buffer_bytes(), store.memory_share(8));
    let mut step = GroupStep {
        max_group_bytes: store.memory_share(4),
        sink: RangeSink {
            store,
            ranges: RecordBuffer::new(share),
            length: config.length,
        },
        every_copy: config.every_copy,
        group: Group::<U>::new(),
        units: Vec::new(),
        table: WindowTable::default(),
        windows: RecordBuffer::new(share),
        rolling: RollingHash::new(config.length),
        wide,
        progress,
    };
    merge(
        &runs,
        buffer_bytes,
        progress,
        |record| match ContextRecord::parse(record) {
            Some(context) if is_context::<U>(context.text, config.length) => step.add(&context),
            _ => Err(damaged(step.sink.store)),
        },
    )?;
    step.finish_group()?;
    let RangeSink {
        store, mut ranges, ..
    } = step.sink;
    store.write_run(RunKind::Ranges, &mut ranges)?;
    store.finish_step(
        FinishedStep::Ranges,
        &[RunKind::Contexts, RunKind::Windows],
        None,
    )
}
