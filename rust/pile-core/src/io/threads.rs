//! Starting threads, which the system may refuse.

use std::thread::{Builder, Scope, ScopedJoinHandle};

use crate::{Error, Result};

/// Starts a thread in `scope`.
///
/// # Errors
/// [`crate::ErrorKind::Io`] if the system refuses, because of a limit or for lack of memory.
pub fn spawn<'scope, T: Send + 'scope>(
    scope: &'scope Scope<'scope, '_>,
    work: impl FnOnce() -> T + Send + 'scope,
) -> Result<ScopedJoinHandle<'scope, T>> {
    Builder::new()
        .spawn_scoped(scope, work)
        .map_err(Error::machine)
}

/// Runs `work` on `n_threads` threads, including the calling one, or on fewer if the system refuses to start
/// more. `work` must take its items from a shared source, so that any number of threads completes them.
pub(crate) fn share_work(n_threads: usize, work: impl Fn() + Sync) {
    std::thread::scope(|scope| {
        let more = (1..n_threads).map(|_| spawn(scope, &work));
        // Stops at the first refusal.
        for _ in more.take_while(Result::is_ok) {}
        work();
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[test]
    fn work_runs_on_each_thread() {
        let n = AtomicUsize::new(0);
        share_work(5, || {
            n.fetch_add(1, Ordering::Relaxed);
        });
        assert_eq!(n.into_inner(), 5);
    }

    #[test]
    fn a_thread_returns_its_result() {
        let found = std::thread::scope(|scope| spawn(scope, || 7).unwrap().join().unwrap());
        assert_eq!(found, 7);
    }
}
