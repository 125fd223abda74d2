//! Threads that the system may refuse to start.

use std::thread::{Builder, Scope, ScopedJoinHandle};

use crate::{Error, Result};

/// Starts a thread in `scope`.
///
/// # Errors
/// [`crate::ErrorKind::Io`] if the system starts no more threads: by its limits, or for want of memory.
pub fn spawn<'scope, T: Send + 'scope>(
    scope: &'scope Scope<'scope, '_>,
    work: impl FnOnce() -> T + Send + 'scope,
) -> Result<ScopedJoinHandle<'scope, T>> {
    Builder::new()
        .spawn_scoped(scope, work)
        .map_err(Error::machine)
}

/// Runs `work` on `n_threads` threads, this one included. With fewer where the system starts no more: they share
/// the work, and its result is the same.
pub(crate) fn share_work(n_threads: usize, work: impl Fn() + Sync) {
    std::thread::scope(|scope| {
        let more = (1..n_threads).map(|_| spawn(scope, &work));
        // The first refusal ends the starting.
        for _ in more.take_while(Result::is_ok) {}
        work();
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[test]
    fn work_is_shared_by_so_many_threads() {
        let n = AtomicUsize::new(0);
        share_work(5, || {
            n.fetch_add(1, Ordering::Relaxed);
        });
        assert_eq!(n.into_inner(), 5);
    }

    #[test]
    fn a_thread_gives_its_result() {
        let found = std::thread::scope(|scope| spawn(scope, || 7).unwrap().join().unwrap());
        assert_eq!(found, 7);
    }
}
