//! The thread that appends: in batches, with one write each.

use std::fs::File;
use std::io::{self, Write as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use portway_protocol::id::NodeId;
use portway_protocol::key::SigningKey;
use tokio::sync::oneshot;

use super::event::{Damage, Event};
use super::file::Files;
use super::record::{Entry, Head, Record, VERSION};
use super::{Written, unix_ms, verify};

/// Records of one write.
const BATCH: usize = 64;

/// When nothing has come for so long, what was written is made to survive a loss of power.
const REST: Duration = Duration::from_millis(500);

/// What the thread is asked.
pub(super) enum Work {
    Note(Noted),
    /// Tells when all before is on the disk.
    Settle(oneshot::Sender<()>),
}

/// Something that happened.
pub(super) struct Noted {
    /// Milliseconds since 1970.
    pub(super) at_ms: u64,
    pub(super) event: Event,
}

/// The end of the chain, and the file it is in.
pub(super) struct Appender {
    files: Files,
    pub(super) file: File,
    /// Bytes of the file that are whole records.
    length: u64,
    /// There may be a part of a record behind them.
    pub(super) is_torn: bool,
    head: Head,
    node: NodeId,
    key: SigningKey,
}

impl Appender {
    /// Goes on where the log ends, or begins anew if it cannot be gone on with.
    pub(super) fn open(
        files: Files,
        node: NodeId,
        key: SigningKey,
    ) -> io::Result<(Self, Option<Damage>)> {
        let (head, damage) = match verify::tail(&files, &key.public())? {
            Ok(head) => (head, None),
            Err(problem) => {
                let kept = files.put_aside(unix_ms())?;
                (Head::default(), Some(Damage { problem, kept }))
            }
        };
        let file = files.append()?;
        let length = file.metadata()?.len();
        let appender = Self {
            files,
            file,
            length,
            is_torn: false,
            head,
            node,
            key,
        };
        Ok((appender, damage))
    }

    pub(super) const fn head(&self) -> Head {
        self.head
    }

    /// Writes all or nothing.
    pub(super) fn append(&mut self, batch: Vec<Noted>, lost: u64) -> io::Result<Vec<Entry>> {
        if self.is_torn {
            self.file.set_len(self.length)?;
            self.is_torn = false;
        }
        if self.length >= self.files.max_file {
            self.file.sync_data()?;
            self.files.rotate()?;
            self.file = self.files.append()?;
            self.length = 0;
        }
        let mut head = self.head;
        let mut lost = (lost > 0).then_some(lost);
        let (mut entries, mut lines) = (Vec::new(), String::new());
        for Noted { at_ms, event } in batch {
            let record = Record {
                format: VERSION,
                seq: head.seq + 1,
                at_ms,
                node: self.node.clone(),
                lost: lost.take(),
                event,
                prev: head.hash,
            };
            let (entry, line) = record.seal(&self.key);
            head = Head {
                seq: entry.record.seq,
                hash: entry.hash,
            };
            lines.push_str(&line);
            entries.push(entry);
        }
        self.is_torn = true;
        self.file.write_all(lines.as_bytes())?;
        self.is_torn = false;
        self.length += lines.len() as u64;
        self.head = head;
        Ok(entries)
    }
}

/// Appends until nobody can note anything any more.
pub(super) fn run(
    mut appender: Appender,
    work: &Receiver<Work>,
    lost: &AtomicU64,
    written: &Written,
) {
    let mut is_dirty = false;
    loop {
        let first = if is_dirty {
            work.recv_timeout(REST)
        } else {
            work.recv().map_err(RecvTimeoutError::from)
        };
        let (batch, settled) = match first {
            Ok(first) => gather(first, work),
            Err(RecvTimeoutError::Timeout) => (Vec::new(), Vec::new()),
            Err(RecvTimeoutError::Disconnected) => break,
        };
        let is_resting = batch.is_empty() || !settled.is_empty();
        if !batch.is_empty() {
            is_dirty |= append(&mut appender, batch, lost, written);
        }
        if is_dirty && is_resting {
            sync(&appender);
            is_dirty = false;
        }
        for settled in settled {
            if settled.send(()).is_err() {
                tracing::debug!("nobody waits for the audit log any more");
            }
        }
    }
    if is_dirty {
        sync(&appender);
    }
}

/// What is there, up to a batch.
fn gather(first: Work, work: &Receiver<Work>) -> (Vec<Noted>, Vec<oneshot::Sender<()>>) {
    let (mut batch, mut settled) = (Vec::new(), Vec::new());
    let mut next = Some(first);
    while let Some(work_now) = next {
        match work_now {
            Work::Note(noted) => batch.push(noted),
            Work::Settle(done) => settled.push(done),
        }
        next = if batch.len() < BATCH && settled.is_empty() {
            work.try_recv().ok()
        } else {
            None
        };
    }
    (batch, settled)
}

/// `true` if it was written. What was not is counted, for the next record to tell.
pub(super) fn append(
    appender: &mut Appender,
    batch: Vec<Noted>,
    lost: &AtomicU64,
    written: &Written,
) -> bool {
    let count = batch.len() as u64;
    let missing = lost.swap(0, Ordering::Relaxed);
    match appender.append(batch, missing) {
        Ok(entries) => {
            if missing > 0 {
                tracing::warn!(
                    missing,
                    "the audit log is written again; records are missing"
                );
            }
            written.head.send_replace(appender.head());
            for entry in entries {
                // Nobody may follow.
                drop(written.entries.send(Arc::new(entry)));
            }
            true
        }
        Err(error) => {
            if missing == 0 {
                tracing::error!(%error, "the audit log cannot be written: records are lost");
            }
            lost.fetch_add(missing + count, Ordering::Relaxed);
            false
        }
    }
}

fn sync(appender: &Appender) {
    if let Err(error) = appender.file.sync_data() {
        tracing::warn!(%error, "the audit log may not survive a loss of power");
    }
}
