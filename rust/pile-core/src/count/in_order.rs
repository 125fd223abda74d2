//! Runs numbered work items on several threads and yields the results in the order of the items.

use std::{
    sync::mpsc::{Receiver, sync_channel},
    thread,
};

use crate::{Result, io::spawn};

/// Calls `work` with each number below `n`, and `sink` with the results in the order of the numbers.
///
/// Each thread has a state of its own, which `work` gets as its second argument. A thread computes one result ahead of
/// the one that waits for `sink`, so at most two results per thread are in memory.
///
/// # Errors
/// The first error of `work` in the order of the numbers, or an error of `sink`.
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
            let (sender, receiver) = sync_channel(1);
            let run = move || {
                let mut state = W::default();
                for number in (first..n).step_by(n_threads) {
                    let result = work(number, &mut state);
                    let failed = result.is_err();
                    // Sending fails if the receiver was dropped: another item or the sink failed.
                    if sender.send(result).is_err() || failed {
                        return;
                    }
                }
            };
            Ok((spawn(scope, run)?, receiver))
        };
        // If a thread cannot be started, this drops the receivers of the earlier ones, which then end.
        let started = (0..n_threads).map(start).collect::<Result<Vec<_>>>()?;
        let (threads, receivers): (Vec<_>, Vec<_>) = started.into_iter().unzip();
        let outcome = receive_all(n, &receivers, &mut sink);
        drop(receivers);
        for thread in threads {
            if let Err(payload) = thread.join() {
                std::panic::resume_unwind(payload);
            }
        }
        outcome
    })
}

/// Passes the results of all `n` items to `sink`. Item `i` is done by thread `i % receivers.len()`.
fn receive_all<T>(
    n: usize,
    receivers: &[Receiver<Result<T>>],
    sink: &mut impl FnMut(T) -> Result<()>,
) -> Result<()> {
    for number in 0..n {
        match receivers[number % receivers.len()].recv() {
            Ok(result) => sink(result?)?,
            // The thread panicked. The caller resumes the panic when it joins the thread.
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
    fn results_are_in_order_and_the_first_error_is_returned() {
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
    fn a_panic_is_propagated() {
        let boom = |number: usize, _: &mut ()| {
            assert!(number != 3, "boom");
            Ok(())
        };
        let _ = in_order(10, 2, boom, Ok);
    }
}
