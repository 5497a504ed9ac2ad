//! The audit log of a node: who opened what, from where, by which path, how much, and what was refused.
//!
//! ```text
//! session, proxy, agent ── note ──► queue ──► writer ──► audit.jsonl ── full ──► audit.1.jsonl …
//!                                                 └──► followers, head
//! ```
//! - [`event`]: what is recorded. [`record`]: its bytes, hash and signature. `file`: where they lie.
//! - `writer`: the thread that appends. `session`: what a session notes of itself. [`verify`]: the checks.
//!
//! Security: each record's hash covers the one before, and the node key signs it, so whoever can write
//! the file but has no key can only cut its end off. Against that, the head of the chain is told by the
//! running gateway, and may be noted elsewhere. Records hold names and addresses, never a secret, a
//! header, a query or a body.
//!
//! Nothing waits for the disk: what the queue cannot take, or the disk, is counted, and the next record
//! that is written says how many are missing.

pub mod event;
mod file;
pub mod record;
mod session;
#[cfg(test)]
mod tests;
pub mod verify;
mod writer;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use portway_protocol::id::NodeId;
use portway_protocol::key::SigningKey;
use tokio::sync::{broadcast, oneshot, watch};

pub use event::Event;
pub use record::{Entry, Hash, Head};
pub(crate) use session::{Denials, SessionLog};

use file::Files;
use writer::{Appender, Noted, Work};

/// Records that may wait for the disk; further ones are counted as lost.
const QUEUE: usize = 1024;

/// Records that a follower may be behind before it misses some.
const FOLLOWED: usize = 1024;

/// Time for what is queued to be written at the end of a gateway.
const SETTLE: Duration = Duration::from_secs(2);

/// Why the log cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("audit log {path}: {source}")]
pub struct AuditError {
    /// The file or directory.
    path: PathBuf,
    /// Why.
    source: std::io::Error,
}

/// The way to the log. Cheap to clone; the last one to go ends the writer when all is written.
#[derive(Debug, Clone)]
pub struct Log(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    files: Files,
    queue: Option<SyncSender<Work>>,
    writer: Option<JoinHandle<()>>,
    lost: Arc<AtomicU64>,
    written: Written,
}

/// What the writer tells others.
#[derive(Debug, Clone)]
struct Written {
    head: watch::Sender<Head>,
    entries: broadcast::Sender<Arc<Entry>>,
}

impl Log {
    /// Opens the log in a directory, or begins one. One that is damaged is put aside, and another chain
    /// begins that says so.
    ///
    /// # Errors
    /// The system's.
    pub fn open(dir: &Path, node: NodeId, key: SigningKey) -> Result<Self, AuditError> {
        let files = Files::new(dir);
        let failed = |source| AuditError {
            path: files.current(),
            source,
        };
        let (appender, damage) = Appender::open(files.clone(), node, key).map_err(failed)?;
        let written = Written {
            head: watch::Sender::new(appender.head()),
            entries: broadcast::Sender::new(FOLLOWED),
        };
        let (queue, work) = sync_channel(QUEUE);
        let lost = Arc::new(AtomicU64::new(0));
        let writing = {
            let (lost, written) = (lost.clone(), written.clone());
            move || writer::run(appender, &work, &lost, &written)
        };
        let writer = thread::Builder::new()
            .name("portway-audit".into())
            .spawn(writing)
            .map_err(failed)?;
        let log = Self(Arc::new(Shared {
            files,
            queue: Some(queue),
            writer: Some(writer),
            lost,
            written,
        }));
        if let Some(damage) = damage {
            tracing::error!(problem = %damage.problem, kept = %damage.kept, "the audit log was damaged: another one begins");
            log.note(Event::ChainBegun(damage));
        }
        Ok(log)
    }

    /// Records that something happened now. Never waits.
    pub fn note(&self, event: Event) {
        let noted = Noted {
            at_ms: unix_ms(),
            event,
        };
        let queued = self
            .0
            .queue
            .as_ref()
            .map(|queue| queue.try_send(Work::Note(noted)));
        match queued {
            Some(Ok(())) => {}
            Some(Err(TrySendError::Full(_) | TrySendError::Disconnected(_))) | None => {
                if self.0.lost.fetch_add(1, Ordering::Relaxed) == 0 {
                    tracing::error!("the audit log cannot take what happens: records are lost");
                }
            }
        }
    }

    /// Waits, not for long, until what has been noted is on the disk.
    pub(crate) async fn settle(&self) {
        let (done, settled) = oneshot::channel();
        let Some(queue) = &self.0.queue else { return };
        if queue.try_send(Work::Settle(done)).is_err()
            || tokio::time::timeout(SETTLE, settled).await.is_err()
        {
            tracing::error!("the end of the audit log may not be on the disk");
        }
    }

    /// Position and hash of the last record.
    #[must_use]
    pub fn head(&self) -> Head {
        *self.0.written.head.borrow()
    }

    /// Records that come from now on.
    #[must_use]
    pub fn follow(&self) -> broadcast::Receiver<Arc<Entry>> {
        self.0.written.entries.subscribe()
    }

    /// The last `limit` records, oldest first. Reads the disk.
    ///
    /// # Errors
    /// The system's; [`std::io::ErrorKind::InvalidData`] if a record cannot be read.
    pub fn last(&self, limit: usize) -> Result<Vec<Entry>, AuditError> {
        self.0.files.last(limit).map_err(|source| AuditError {
            path: self.0.files.current(),
            source,
        })
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        drop(self.queue.take());
        if let Some(writer) = self.writer.take()
            && writer.join().is_err()
        {
            tracing::error!("the audit log's thread has panicked");
        }
    }
}

/// Milliseconds since 1970.
pub(crate) fn unix_ms() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |now| u64::try_from(now.as_millis()).unwrap_or(u64::MAX))
}
