//! All blocks of some shards through several workers, results in the order of the data.
//!
//! One thread reads and decompresses, each worker has a thread, the calling thread takes the
//! results. The bytes of blocks in flight are bounded.

use std::{
    collections::BTreeMap,
    panic,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        mpsc::{Receiver, Sender, channel},
    },
    thread,
};

use super::{Block, Rules, ShardReader, ShardSummary};
use crate::{Error, Result, io::spawn, progress::Progress};

/// Bytes of blocks in flight for each worker; of larger blocks only one is in flight.
const BYTES_PER_WORKER: u64 = 4 << 20;

/// What a sink is given, in the order of the data.
#[derive(Debug)]
pub enum Step<R> {
    /// The result for a block.
    Block(R),
    /// Every block of this shard has been given.
    EndOfShard(usize, ShardSummary),
}

/// Reads `shards` from number `first_shard`, calls `map` on each block with one of the workers, and
/// `sink` with the results one after the other, the same for any number of workers. Returns the
/// workers. `progress` advances by bytes on disk.
///
/// # Errors
/// The first failure in the order of the data, of reading, `map` or `sink`.
pub fn map_blocks<W: Send, R: Send>(
    shards: &[PathBuf],
    rules: &Rules,
    first_shard: usize,
    workers: Vec<W>,
    progress: &Progress,
    map: impl Fn(&mut W, &Block) -> Result<R> + Sync,
    sink: impl FnMut(Step<R>) -> Result<()>,
) -> Result<Vec<W>> {
    let (give_back, given_back) = channel();
    let (send_piece, pieces) = channel();
    let (send_done, done) = channel();
    let (pieces, map) = (&Mutex::new(pieces), &map);
    thread::scope(|scope| {
        let send_failure = send_done.clone();
        let reading = Reading {
            rules: Arc::new(rules.clone()),
            given_back,
            bytes_in_flight: 0,
            most_bytes: BYTES_PER_WORKER * workers.len() as u64,
            send_piece,
            progress,
            n_pieces: 0,
        };
        spawn(scope, move || {
            reading.run(shards, first_shard, &send_failure)
        })?;
        let start = |worker| {
            let send_done = send_done.clone();
            spawn(scope, move || work(worker, map, pieces, &send_done))
        };
        // Where one cannot be started, reader and workers end as below.
        let threads = workers.into_iter().map(start).collect::<Result<Vec<_>>>()?;
        drop(send_done);
        // Returning drops both channels: reader and workers see that and end.
        let outcome = in_order(done, give_back, sink);
        let join = |thread: thread::ScopedJoinHandle<'_, W>| {
            thread
                .join()
                .unwrap_or_else(|payload| panic::resume_unwind(payload))
        };
        let workers = threads.into_iter().map(join).collect();
        outcome.map(|()| workers)
    })
}

/// What the reader hands out, in order.
type Piece = Step<Block>;

/// A piece's number and bytes, and what became of it.
type Done<R> = (u64, u64, Result<Step<R>>);

impl Piece {
    /// Bytes it holds in memory; the end of a shard counts as one.
    fn n_bytes(&self) -> u64 {
        match self {
            Self::Block(block) => block.memory_bytes().max(1),
            Self::EndOfShard(..) => 1,
        }
    }
}

struct Reading<'a> {
    rules: Arc<Rules>,
    /// Bytes of blocks whose results were taken.
    given_back: Receiver<u64>,
    bytes_in_flight: u64,
    most_bytes: u64,
    send_piece: Sender<(u64, Piece)>,
    progress: &'a Progress,
    n_pieces: u64,
}

impl Reading<'_> {
    /// Reads all shards; a failure takes the place of the piece that could not be read.
    fn run<R>(mut self, shards: &[PathBuf], first: usize, send_failure: &Sender<Done<R>>) {
        for (shard, path) in shards.iter().enumerate().skip(first) {
            if let Err(err) = self.shard(path, shard) {
                let _ = send_failure.send((self.n_pieces, 0, Err(err)));
                return;
            }
        }
    }

    fn shard(&mut self, path: &Path, shard: usize) -> Result<()> {
        let mut reader = ShardReader::with_rules(path, Arc::clone(&self.rules))?;
        let mut reported = 0;
        loop {
            let block = reader.next_block()?;
            self.progress.advance(reader.bytes_read() - reported)?;
            reported = reader.bytes_read();
            let Some(block) = block else { break };
            self.send(Piece::Block(block))?;
        }
        self.send(Piece::EndOfShard(shard, reader.summary()))
    }

    /// Waits for room, then hands a piece to the workers; that they are gone is a stop.
    fn send(&mut self, piece: Piece) -> Result<()> {
        let n_bytes = piece.n_bytes();
        while self.bytes_in_flight > 0 && self.bytes_in_flight + n_bytes > self.most_bytes {
            self.bytes_in_flight -= self.given_back.recv().map_err(|_| Error::cancelled())?;
        }
        self.bytes_in_flight += n_bytes;
        self.send_piece
            .send((self.n_pieces, piece))
            .map_err(|_| Error::cancelled())?;
        self.n_pieces += 1;
        Ok(())
    }
}

/// Tells the sink that a piece will never come, so that a bug ends the job instead of hanging it.
struct EndOnPanic<'a, R> {
    number: u64,
    send_done: &'a Sender<Done<R>>,
}

impl<R> Drop for EndOnPanic<'_, R> {
    fn drop(&mut self) {
        if thread::panicking() {
            let _ = self
                .send_done
                .send((self.number, 0, Err(Error::cancelled())));
        }
    }
}

fn work<W, R>(
    mut worker: W,
    map: impl Fn(&mut W, &Block) -> Result<R>,
    pieces: &Mutex<Receiver<(u64, Piece)>>,
    send_done: &Sender<Done<R>>,
) -> W {
    loop {
        // A poisoned lock is another worker's panic, which the caller sees when it joins.
        let next = pieces.lock().ok().and_then(|pieces| pieces.recv().ok());
        let Some((number, piece)) = next else {
            return worker;
        };
        let _guard = EndOnPanic { number, send_done };
        let n_bytes = piece.n_bytes();
        let done = match piece {
            Piece::Block(block) => map(&mut worker, &block).map(Step::Block),
            Piece::EndOfShard(shard, summary) => Ok(Step::EndOfShard(shard, summary)),
        };
        if send_done.send((number, n_bytes, done)).is_err() {
            return worker;
        }
    }
}

/// Gives each step to the sink as soon as all before it were given.
fn in_order<R>(
    done: Receiver<Done<R>>,
    give_back: Sender<u64>,
    mut sink: impl FnMut(Step<R>) -> Result<()>,
) -> Result<()> {
    let mut early = BTreeMap::new();
    let mut next = 0;
    for (number, n_bytes, step) in done {
        early.insert(number, (n_bytes, step));
        while let Some((n_bytes, step)) = early.remove(&next) {
            sink(step?)?;
            let _ = give_back.send(n_bytes); // the reader may be at its end
            next += 1;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn shards(folder: &Path) -> Vec<PathBuf> {
        (0..3)
            .map(|shard| {
                let path = folder.join(format!("{shard}.jsonl"));
                let line =
                    |i: usize| format!("{{\"text\": \"{shard} {i} {}\"}}\n", "x".repeat(i % 999));
                fs::write(&path, (0..9000).map(line).collect::<String>()).unwrap();
                path
            })
            .collect()
    }

    fn texts(shards: &[PathBuf], n_workers: usize) -> Vec<String> {
        let mut all = Vec::new();
        let read = |_: &mut (), block: &Block| {
            block
                .documents()
                .map(|d| d.map(|(_, d)| d.text.into_owned()))
                .collect::<Result<Vec<_>>>()
        };
        map_blocks(
            shards,
            &Rules::default(),
            0,
            vec![(); n_workers],
            &Progress::default(),
            read,
            |step| {
                match step {
                    Step::Block(texts) => all.extend(texts),
                    Step::EndOfShard(shard, _) => all.push(format!("end {shard}")),
                }
                Ok(())
            },
        )
        .unwrap();
        all
    }

    #[test]
    fn any_number_of_workers_gives_the_same() {
        let folder = tempfile::tempdir().unwrap();
        let shards = shards(folder.path());
        let one = texts(&shards, 1);
        assert_eq!(one.len(), 3 * 9001);
        assert_eq!(one, texts(&shards, 5));
    }

    #[test]
    fn the_first_failure_in_the_order_of_the_data_is_reported() {
        let folder = tempfile::tempdir().unwrap();
        let mut shards = shards(folder.path());
        fs::write(&shards[1], "{\"text\": \"good\"}\nbad\n").unwrap();
        shards.push(folder.path().join("missing.jsonl"));
        for n_workers in [1, 4] {
            let read = |_: &mut (), block: &Block| block.documents().try_for_each(|d| d.map(drop));
            let failed = map_blocks(
                &shards,
                &Rules::default(),
                0,
                vec![(); n_workers],
                &Progress::default(),
                read,
                |_| Ok(()),
            );
            let message = failed.unwrap_err().to_string();
            assert!(message.starts_with("record 1: not JSON"), "{message}");
        }
    }

    #[test]
    fn a_panic_ends_the_job() {
        let folder = tempfile::tempdir().unwrap();
        let shards = shards(folder.path());
        let run = || {
            let boom = |_: &mut (), block: &Block| -> Result<()> {
                assert!(block.shard_path() != shards[1], "boom");
                Ok(())
            };
            map_blocks(
                &shards,
                &Rules::default(),
                0,
                vec![(); 2],
                &Progress::default(),
                boom,
                |_| Ok(()),
            )
        };
        assert!(panic::catch_unwind(panic::AssertUnwindSafe(run)).is_err());
    }
}
