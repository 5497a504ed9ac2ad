//! A worker that ends although nobody told it to: it has panicked, or cannot wait for packets.
//!
//! Its clients and its share of the listeners are lost, for the kernel goes on leading packets there. No
//! thread takes its place, for what state it left is not known: the process shall end and be started anew.

use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};

/// A relay thread has ended although nobody told it to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("relay thread {worker} has ended by itself: some clients are served no more")]
pub struct WorkerLost {
    /// Which, from 0.
    pub worker: usize,
}

/// Where workers are missed.
#[derive(Debug, Clone, Default)]
pub(crate) struct Failure(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    lost: Option<WorkerLost>,
    waiting: Vec<Waker>,
}

impl Failure {
    /// A worker begins: it is missed when this is dropped, be it by a panic.
    pub(crate) fn watch(&self, worker: usize) -> Watched {
        Watched {
            worker,
            failure: self.clone(),
            is_told: false,
        }
    }

    /// The first that is missed.
    pub(crate) async fn lost(self) -> WorkerLost {
        poll_fn(|context| {
            let mut state = self.lock();
            if let Some(lost) = state.lost {
                return Poll::Ready(lost);
            }
            let own = context.waker();
            if !state.waiting.iter().any(|waker| waker.will_wake(own)) {
                state.waiting.push(own.clone());
            }
            Poll::Pending
        })
        .await
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A worker that is missed when it ends.
#[derive(Debug)]
pub(crate) struct Watched {
    worker: usize,
    failure: Failure,
    is_told: bool,
}

impl Watched {
    /// It ends as it was told.
    pub(crate) fn end(mut self) {
        self.is_told = true;
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        if self.is_told {
            return;
        }
        let worker = self.worker;
        let mut state = self.failure.lock();
        state.lost.get_or_insert(WorkerLost { worker });
        for waker in state.waiting.drain(..) {
            waker.wake();
        }
    }
}
