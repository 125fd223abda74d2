//! Step 2: writes the positions of the anchors whose hash occurs at least twice, ascending.

use super::{
    records::{RecordBuffer, merge},
    store::{FinishedStep, RunKind, Store},
};
use crate::{Error, Result, progress::Progress};

/// The file of positions, as little-endian numbers.
pub(super) const REPEATED: &str = "repeated";

pub(super) fn find_repeated(store: &mut Store, progress: &Progress) -> Result<()> {
    let runs = store.runs_to_merge(RunKind::Anchors, progress)?;
    let mut positions = RecordBuffer::new(store.memory_share(2));
    // The last anchor's hash and position, and whether the position is passed on.
    let mut last: Option<([u8; 8], [u8; 8], bool)> = None;
    merge(&runs, store.buffer_bytes(), progress, |record| {
        let ([hash, position], []) = record.as_chunks::<8>() else {
            return Err(damaged(store));
        };
        let is_repeated = match &mut last {
            Some((last_hash, last_position, is_passed)) if last_hash == hash => {
                if !*is_passed {
                    positions.push(&[last_position]);
                }
                positions.push(&[position]);
                true
            }
            _ => false,
        };
        last = Some((*hash, *position, is_repeated));
        store.write_run_if_full(RunKind::Repeated, &mut positions)
    })?;
    store.write_run(RunKind::Repeated, &mut positions)?;
    drop(positions);
    let runs = store.runs_to_merge(RunKind::Repeated, progress)?;
    let mut file = store.scratch.grow(REPEATED)?;
    merge(&runs, store.buffer_bytes(), progress, |record| {
        let position = record.try_into().map_err(|_| damaged(store))?;
        file.push(&u64::from_be_bytes(position).to_le_bytes())
    })?;
    file.finish(&mut store.scratch)?;
    let unneeded = [RunKind::Anchors, RunKind::Repeated];
    store.finish_step(FinishedStep::Repeated, &unneeded, None)
}

/// The error for a record of a wrong length.
pub(super) fn damaged(store: &Store) -> Error {
    let what = "a sorted run is damaged; remove the folder and run the job again";
    Error::malformed(&store.scratch.path(""), what)
}
