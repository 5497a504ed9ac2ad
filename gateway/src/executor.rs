//! Tasks that hyper starts, owned by a tracker.

use std::future::Future;

use tokio_util::task::TaskTracker;

/// Spawns on a tracker, so that the owner can wait for what hyper started.
#[derive(Debug, Clone, Default)]
pub(crate) struct TrackedExecutor(pub(crate) TaskTracker);

impl<F> hyper::rt::Executor<F> for TrackedExecutor
where
    F: Future<Output: Send + 'static> + Send + 'static,
{
    fn execute(&self, future: F) {
        drop(self.0.spawn(future));
    }
}
