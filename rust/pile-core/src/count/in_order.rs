//! Numbered work on several threads, results in the order of the numbers, few of them waiting at a time.

use std::{
    sync::mpsc::{Receiver, sync_channel},
    thread,
};

use crate::{Result, io::spawn};

/// Gives what `work` makes of each number below `n` to `sink`, in order; each thread has a state of its own.
///
/// # Errors
/// The first failure in the order of the numbers.
pub(crate) fn in_order<T: Send, W: Default>(
    n: usize,
    n_threads: usize,
    work: impl Fn(usize, &mut W) -> Result<T> + Sync,
    mut sink: impl FnMut(T) -> Result<()>,
) -> Result<()> {
    let n_threads = n_threads.clamp(1, n.max(1));
    if n_threads == 1 {
        let mut state = W::default();
        return (0..n).try_for_each(|number| sink(work(number, &mut state)?));
    }
    let work = &work;
    thread::scope(|scope| {
        let start = |first: usize| {
            // One result waits while the next is made.
            let (send, receive) = sync_channel(1);
            let run = move || {
                let mut state = W::default();
                for number in (first..n).step_by(n_threads) {
                    let made = work(number, &mut state);
                    let failed = made.is_err();
                    // That nobody receives any more is a stop.
                    if send.send(made).is_err() || failed {
                        return;
                    }
                }
            };
            Ok((spawn(scope, run)?, receive))
        };
        // Where one cannot be started, those before it find that nobody receives, and end.
        let started = (0..n_threads).map(start).collect::<Result<Vec<_>>>()?;
        let (threads, receivers): (Vec<_>, Vec<_>) = started.into_iter().unzip();
        let outcome = take(n, &receivers, &mut sink);
        drop(receivers);
        for thread in threads {
            if let Err(payload) = thread.join() {
                std::panic::resume_unwind(payload);
            }
        }
        outcome
    })
}

fn take<T>(
    n: usize,
    receivers: &[Receiver<Result<T>>],
    sink: &mut impl FnMut(T) -> Result<()>,
) -> Result<()> {
    for number in 0..n {
        match receivers[number % receivers.len()].recv() {
            Ok(made) => sink(made?)?,
            // The thread panicked: joining it says so.
            Err(_) => return Ok(()),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Error;

    #[test]
    fn results_come_in_order_and_the_first_failure_counts() {
        for n_threads in [1, 2, 3, 20] {
            let mut all = Vec::new();
            let square = |number: usize, _: &mut ()| Ok(number * number);
            in_order(10, n_threads, square, |n| {
                all.push(n);
                Ok(())
            })
            .unwrap();
            assert_eq!(all, (0..10).map(|n| n * n).collect::<Vec<_>>());
            let fails = |number: usize, _: &mut ()| match number {
                0..5 => Ok(()),
                _ => Err(Error::argument(format!("at {number}"))),
            };
            let err = in_order(10, n_threads, fails, Ok).unwrap_err();
            assert_eq!(err.to_string(), "at 5");
        }
    }

    #[test]
    #[should_panic(expected = "boom")]
    fn a_panic_is_passed_on() {
        let boom = |number: usize, _: &mut ()| {
            assert!(number != 3, "boom");
            Ok(())
        };
        let _ = in_order(10, 2, boom, Ok);
    }
}
