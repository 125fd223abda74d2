//! Work items on a pool of threads.

use std::sync::{
    Mutex, PoisonError,
    atomic::{AtomicUsize, Ordering::Relaxed},
};

use crate::{Error, Result, io::share_work};

/// Runs `work` on each item number below `n` and returns the results in no particular order.
///
/// Each thread has its own state `W`, for buffers that are reused between items. Of several errors the one
/// of the lowest item number is returned. That makes the error the same for any number of threads: items
/// are handed out in ascending order, so every item below a failed one has been started and runs to its end.
pub(super) fn in_parallel<T: Send, W: Default>(
    n: usize,
    n_threads: usize,
    work: impl Fn(usize, &mut W) -> Result<T> + Sync,
) -> Result<Vec<T>> {
    let next = AtomicUsize::new(0);
    let done = Mutex::new(Vec::with_capacity(n));
    let failed: Mutex<Option<(usize, Error)>> = Mutex::new(None);
    share_work(n_threads.clamp(1, n.max(1)), || {
        let mut state = W::default();
        loop {
            let number = next.fetch_add(1, Relaxed);
            if number >= n {
                return;
            }
            match work(number, &mut state) {
                Ok(result) => done
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .push(result),
                Err(err) => {
                    next.store(n, Relaxed);
                    let mut failed = failed.lock().unwrap_or_else(PoisonError::into_inner);
                    if failed.as_ref().is_none_or(|(first, _)| number < *first) {
                        *failed = Some((number, err));
                    }
                }
            }
        }
    });
    match failed.into_inner().unwrap_or_else(PoisonError::into_inner) {
        Some((_, err)) => Err(err),
        None => Ok(done.into_inner().unwrap_or_else(PoisonError::into_inner)),
    }
}
