//! Processes the blocks of shards on several threads, with results in the order of the data.
//!
//! One thread reads and decompresses, each worker has a thread, and the calling thread receives the results.
//! The bytes of the blocks in flight, which are read but whose results are not yet received, are bounded.

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

/// Bytes of blocks in flight per worker: about four blocks, one with the worker and the others read ahead or waiting
/// for an earlier result. A block larger than the whole bound is in flight alone.
const BYTES_PER_WORKER: u64 = 4 << 20;

/// A step of a job, in the order of the data.
#[derive(Debug)]
pub enum Step<R> {
    /// The result for a block.
    Block(R),
    /// All blocks of the shard with this number came before.
    EndOfShard(usize, ShardSummary),
}

/// Reads `shards` from number `first_shard` on. Calls `map` on each block with one of the workers, and `sink`
/// with the results in the order of the data, which is the same for any number of workers. Returns the
/// workers, of which there must be at least one. `progress` advances by bytes on disk.
///
/// # Errors
/// The first failure of reading, `map` or `sink` in the order of the data.
pub fn map_blocks<W: Send, R: Send>(
    shards: &[PathBuf],
    rules: &Rules,
    first_shard: usize,
    workers: Vec<W>,
    progress: &Progress,
    map: impl Fn(&mut W, &Block) -> Result<R> + Sync,
    sink: impl FnMut(Step<R>) -> Result<()>,
) -> Result<Vec<W>> {
    let (send_released, released) = channel();
    let (send_item, items) = channel();
    let (send_done, done) = channel();
    let (items, map) = (&Mutex::new(items), &map);
    thread::scope(|scope| {
        let send_failure = send_done.clone();
        let reader = BlockReader {
            rules: Arc::new(rules.clone()),
            released,
            bytes_in_flight: 0,
            max_bytes: BYTES_PER_WORKER * workers.len() as u64,
            send_item,
            progress,
            n_items: 0,
        };
        spawn(scope, move || {
            reader.run(shards, first_shard, &send_failure)
        })?;
        let start = |worker| {
            let send_done = send_done.clone();
            spawn(scope, move || work(worker, map, items, &send_done))
        };
        // If a thread cannot be started, this returns and drops the channels, so the others end as below.
        let threads = workers.into_iter().map(start).collect::<Result<Vec<_>>>()?;
        drop(send_done);
        // When this returns, its ends of both channels are dropped, which ends the reader and the workers.
        let outcome = receive_in_order(done, send_released, sink);
        let join = |thread: thread::ScopedJoinHandle<'_, W>| {
            thread
                .join()
                .unwrap_or_else(|payload| panic::resume_unwind(payload))
        };
        let workers = threads.into_iter().map(join).collect();
        outcome.map(|()| workers)
    })
}

/// A work item: a block, or the end of a shard.
type Item = Step<Block>;

/// The result of an item.
struct Done<R> {
    number: u64,
    /// Bytes of the item, which are no longer in flight once the result is received.
    n_bytes: u64,
    result: Result<Step<R>>,
}

impl Item {
    /// Bytes in memory, at least one.
    fn n_bytes(&self) -> u64 {
        match self {
            Self::Block(block) => block.memory_bytes().max(1),
            Self::EndOfShard(..) => 1,
        }
    }
}

/// Reads the blocks of all shards.
struct BlockReader<'a> {
    rules: Arc<Rules>,
    /// Bytes of items whose results were received.
    released: Receiver<u64>,
    bytes_in_flight: u64,
    /// Bound on the bytes in flight.
    max_bytes: u64,
    send_item: Sender<(u64, Item)>,
    progress: &'a Progress,
    /// Items sent, which is the number of the next one.
    n_items: u64,
}

impl BlockReader<'_> {
    /// Reads all shards. A failure is sent as the result of the item that could not be read.
    fn run<R>(mut self, shards: &[PathBuf], first: usize, send_failure: &Sender<Done<R>>) {
        for (shard, path) in shards.iter().enumerate().skip(first) {
            if let Err(err) = self.read_shard(path, shard) {
                let _ = send_failure.send(Done {
                    number: self.n_items,
                    n_bytes: 0,
                    result: Err(err),
                });
                return;
            }
        }
    }

    fn read_shard(&mut self, path: &Path, shard: usize) -> Result<()> {
        let stop = self.progress.stop_request();
        let mut reader = ShardReader::until_stop(path, Arc::clone(&self.rules), stop)?;
        let mut reported = 0;
        loop {
            let block = reader.next_block()?;
            self.progress.advance(reader.bytes_read() - reported)?;
            reported = reader.bytes_read();
            let Some(block) = block else { break };
            self.send(Item::Block(block))?;
        }
        self.send(Item::EndOfShard(shard, reader.summary()))
    }

    /// Sends an item to the workers, after waiting until the bound on the bytes in flight allows it.
    ///
    /// # Errors
    /// The receiver or the workers have ended.
    fn send(&mut self, item: Item) -> Result<()> {
        let n_bytes = item.n_bytes();
        while self.bytes_in_flight > 0 && self.bytes_in_flight + n_bytes > self.max_bytes {
            self.bytes_in_flight -= self.released.recv().map_err(|_| Error::cancelled())?;
        }
        self.bytes_in_flight += n_bytes;
        self.send_item
            .send((self.n_items, item))
            .map_err(|_| Error::cancelled())?;
        self.n_items += 1;
        Ok(())
    }
}

/// Sends a failure as the result of an item if its worker panics. The receiver would otherwise wait for the
/// result forever.
struct FailOnPanic<'a, R> {
    number: u64,
    send_done: &'a Sender<Done<R>>,
}

impl<R> Drop for FailOnPanic<'_, R> {
    fn drop(&mut self) {
        if thread::panicking() {
            let _ = self.send_done.send(Done {
                number: self.number,
                n_bytes: 0,
                result: Err(Error::cancelled()),
            });
        }
    }
}

/// Runs a worker until there are no more items, and returns it.
fn work<W, R>(
    mut worker: W,
    map: impl Fn(&mut W, &Block) -> Result<R>,
    items: &Mutex<Receiver<(u64, Item)>>,
    send_done: &Sender<Done<R>>,
) -> W {
    loop {
        // Other workers wait for the lock while this one waits for an item. No panic poisons the lock: it is not
        // held while `map` runs.
        let next = items.lock().ok().and_then(|items| items.recv().ok());
        let Some((number, item)) = next else {
            return worker;
        };
        let _guard = FailOnPanic { number, send_done };
        let n_bytes = item.n_bytes();
        let result = match item {
            Item::Block(block) => map(&mut worker, &block).map(Step::Block),
            Item::EndOfShard(shard, summary) => Ok(Step::EndOfShard(shard, summary)),
        };
        let done = Done {
            number,
            n_bytes,
            result,
        };
        if send_done.send(done).is_err() {
            return worker;
        }
    }
}

/// Passes the results to the sink in the order of the items.
fn receive_in_order<R>(
    done: Receiver<Done<R>>,
    send_released: Sender<u64>,
    mut sink: impl FnMut(Step<R>) -> Result<()>,
) -> Result<()> {
    // Results whose predecessors are still missing.
    let mut early = BTreeMap::new();
    let mut next = 0;
    for item in done {
        early.insert(item.number, item);
        while let Some(Done {
            n_bytes, result, ..
        }) = early.remove(&next)
        {
            sink(result?)?;
            // Fails if the reader has ended, which is fine.
            let _ = send_released.send(n_bytes);
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
    fn the_results_are_the_same_for_any_number_of_workers() {
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

    fn pipe(folder: &Path) -> PathBuf {
        let path = folder.join("pipe.jsonl");
        let made = std::process::Command::new("mkfifo").arg(&path).status();
        assert!(made.unwrap().success());
        path
    }

    /// Reads a pipe, and calls `other` meanwhile.
    fn read_pipe(path: &Path, other: impl FnOnce(&Progress) + Send) -> Result<u64> {
        let (progress, mut n_records) = (Progress::default(), 0);
        thread::scope(|scope| {
            scope.spawn(|| other(&progress));
            let count = |(): &mut (), block: &Block| Ok(block.documents().count() as u64);
            let add = |step| {
                n_records += if let Step::Block(n) = step { n } else { 0 };
                Ok(())
            };
            let (shards, rules) = ([path.to_owned()], Rules::default());
            map_blocks(&shards, &rules, 0, vec![()], &progress, count, add)
        })?;
        Ok(n_records)
    }

    #[test]
    fn a_stop_ends_the_wait_for_a_pipe() {
        let folder = tempfile::tempdir().unwrap();
        let path = pipe(folder.path());
        let soon = std::time::Duration::from_millis(150);
        let stop = |progress: &Progress| {
            thread::sleep(soon);
            progress.stop();
        };
        let is_cancelled = |outcome: Result<u64>| {
            matches!(outcome.unwrap_err().kind(), crate::ErrorKind::Cancelled)
        };
        let without_writer = read_pipe(&path, stop);
        assert!(is_cancelled(without_writer));
        // A reader and writer that is silent.
        let writer = fs::OpenOptions::new()
            .read(true)
            .write(true)
            .open(&path)
            .unwrap();
        let with_writer = read_pipe(&path, stop);
        assert!(is_cancelled(with_writer));
        drop(writer);
        // A writer that comes late and pauses.
        let n_records = read_pipe(&path, |_| {
            thread::sleep(soon);
            let mut pipe = fs::OpenOptions::new().write(true).open(&path).unwrap();
            for line in ["{\"text\": \"a\"}\n", "{\"text\": \"b\"}\n"] {
                std::io::Write::write_all(&mut pipe, line.as_bytes()).unwrap();
                thread::sleep(soon);
            }
        });
        assert_eq!(n_records.unwrap(), 2);
    }
}
