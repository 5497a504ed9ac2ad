//! Writes behind: the registry hands over, one thread stores.

use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread::{self, JoinHandle};

use portway_protocol::id::NodeId;
use tokio::sync::{oneshot, watch};

use super::{Entry, Event, KnownNode, Store, StoreError};
use crate::news::unix_ms;

/// Writes that may wait for the disk; further ones are lost, with a warning.
const QUEUE: usize = 1024;

enum Work {
    Node(Box<KnownNode>),
    Forget(NodeId),
    Event {
        at_ms: u64,
        event: Event,
    },
    Events {
        limit: usize,
        reply: oneshot::Sender<Result<Vec<Entry>, StoreError>>,
    },
}

/// The way to the store's thread, which ends when this is dropped and everything is written.
#[derive(Debug)]
pub struct Recorder {
    queue: Option<SyncSender<Work>>,
    writer: Option<JoinHandle<()>>,
    news: watch::Sender<()>,
}

impl Recorder {
    /// Starts the thread.
    ///
    /// # Errors
    /// The system's.
    pub fn start(store: Box<dyn Store>) -> std::io::Result<Self> {
        let (queue, work) = sync_channel(QUEUE);
        let news = watch::Sender::new(());
        let writer = thread::Builder::new().name("portway-store".into()).spawn({
            let news = news.clone();
            move || write(store, &work, &news)
        })?;
        Ok(Self {
            news,
            queue: Some(queue),
            writer: Some(writer),
        })
    }

    /// Remembers a node.
    pub fn node(&self, node: KnownNode) {
        self.hand_over(Work::Node(Box::new(node)));
    }

    /// Forgets a node.
    pub fn forget(&self, node: NodeId) {
        self.hand_over(Work::Forget(node));
    }

    /// Appends to the event log.
    pub fn event(&self, event: Event) {
        let at_ms = unix_ms();
        self.hand_over(Work::Event { at_ms, event });
    }

    /// The last `limit` entries of the event log, oldest first, those just handed over included.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn events(&self, limit: usize) -> Result<Vec<Entry>, StoreError> {
        let (reply, answer) = oneshot::channel();
        self.hand_over(Work::Events { limit, reply });
        answer.await.map_err(|_| StoreError::Closed)?
    }

    /// Changes when something was appended to the event log.
    pub fn appended(&self) -> watch::Receiver<()> {
        self.news.subscribe()
    }

    fn hand_over(&self, work: Work) {
        match self.queue.as_ref().map(|queue| queue.try_send(work)) {
            Some(Ok(())) => {}
            Some(Err(TrySendError::Full(_))) => {
                tracing::warn!("the disk is too slow: something will not be remembered");
            }
            Some(Err(TrySendError::Disconnected(_))) | None => {
                tracing::warn!("the store has ended: something will not be remembered");
            }
        }
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        drop(self.queue.take());
        if let Some(writer) = self.writer.take()
            && writer.join().is_err()
        {
            tracing::error!("the store's thread has panicked");
        }
    }
}

fn write(mut store: Box<dyn Store>, work: &Receiver<Work>, news: &watch::Sender<()>) {
    while let Ok(work) = work.recv() {
        let outcome = match work {
            Work::Node(node) => store.save_node(&node),
            Work::Forget(node) => store.forget_node(&node),
            Work::Event { at_ms, event } => store
                .append(at_ms, &event)
                .inspect(|()| news.send_replace(())),
            Work::Events { limit, reply } => {
                if reply.send(store.events(limit)).is_err() {
                    tracing::debug!("nobody waits for the events any more");
                }
                Ok(())
            }
        };
        if let Err(error) = outcome {
            tracing::warn!(%error, "something cannot be remembered");
        }
    }
}
