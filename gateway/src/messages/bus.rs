//! The log of a bus, and who reads it.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::{Bytes, BytesMut};
use portway_protocol::message::{Event, Filter, Message, MessageId, Missed, Published, Topic};
use portway_protocol::reason::Reason;
use tokio::sync::watch;

use super::log::Log;

/// Subscriptions at a time.
const MAX_SUBSCRIPTIONS: usize = 256;

/// Bytes from which on a reader gets no more events at once. Many small ones are one frame of HTTP/2: whoever leaves too
/// many of these unread breaks its session.
const BATCH: usize = 16 * 1024;

/// A message that comes.
pub(super) struct Publication {
    pub(super) topic: Topic,
    pub(super) publisher: String,
    pub(super) at_ms: u64,
    pub(super) content_type: String,
    pub(super) body: Bytes,
}

/// What publishers and subscriptions share.
#[derive(Debug)]
pub(super) struct Bus {
    epoch: u64,
    state: Mutex<State>,
    /// Changes with each message.
    news: watch::Sender<()>,
}

#[derive(Debug, Default)]
struct State {
    log: Log,
    readers: BTreeMap<u64, Reader>,
    /// Of the next reader.
    next: u64,
}

/// A subscription.
#[derive(Debug)]
struct Reader {
    filter: Filter,
    /// It has got, or does not want, all up to here.
    at: u64,
    /// Messages that went before it got them.
    missed: u64,
}

/// A place among the readers.
#[derive(Debug)]
pub(super) struct Ticket(u64);

impl Bus {
    pub(super) fn new(epoch: u64) -> Self {
        Self {
            epoch,
            state: Mutex::default(),
            news: watch::Sender::default(),
        }
    }

    pub(super) fn publish(&self, publication: Publication) -> Published {
        let Publication {
            topic,
            publisher,
            at_ms,
            content_type,
            body,
        } = publication;
        let mut state = self.lock();
        let id = self.id(state.log.next());
        let message = Event::Message(Message {
            id,
            topic: topic.clone(),
            publisher,
            at_ms,
            content_type,
            body,
        });
        for dropped in state.log.push(&topic, message.encode()) {
            for reader in state.readers.values_mut() {
                if reader.at < dropped.seq && reader.filter.matches(&dropped.topic) {
                    reader.missed += 1;
                }
            }
        }
        let mut readers = state.readers.values();
        let subscribers = readers
            .by_ref()
            .filter(|it| it.filter.matches(&topic))
            .count();
        drop(state);
        self.news.send_replace(());
        Published { id, subscribers }
    }

    /// Begins to read after `since`, or with what comes from now on. Returns what is to be said first.
    ///
    /// # Errors
    /// There are too many.
    pub(super) fn subscribe(
        &self,
        filter: Filter,
        since: Option<MessageId>,
    ) -> Result<(Ticket, Vec<Event>), Reason> {
        let mut state = self.lock();
        if state.readers.len() >= MAX_SUBSCRIPTIONS {
            return Err(Reason::RateLimited);
        }
        let last = state.log.last();
        let (at, missed) = match since {
            None => (last, None),
            Some(since) if since.epoch != self.epoch => (0, Some(Missed::Restarted)),
            Some(since) => {
                let at = since.seq.min(last);
                let has_gap = state.log.has_dropped_after(at, &filter);
                (at, has_gap.then_some(Missed::Forgotten))
            }
        };
        let ticket = Ticket(state.next);
        state.next += 1;
        let reader = Reader {
            filter,
            at,
            missed: 0,
        };
        state.readers.insert(ticket.0, reader);
        let first = missed.map(Event::Missed).into_iter();
        Ok((
            ticket,
            first.chain([Event::Position(self.id(at))]).collect(),
        ))
    }

    /// What a reader gets next; `None` until there is news.
    pub(super) fn read(&self, ticket: &Ticket) -> Option<Bytes> {
        let mut state = self.lock();
        let State { log, readers, .. } = &mut *state;
        let reader = readers.get_mut(&ticket.0)?;
        let mut events = BytesMut::new();
        if reader.missed > 0 {
            let count = std::mem::take(&mut reader.missed);
            events.extend_from_slice(&Event::Missed(Missed::Slow { count }).encode());
        }
        while events.len() < BATCH {
            let Some((seq, event)) = log.after(reader.at, &reader.filter) else {
                reader.at = log.last();
                break;
            };
            reader.at = seq;
            events.extend_from_slice(&event);
        }
        (!events.is_empty()).then(|| events.freeze())
    }

    /// How far a reader is.
    pub(super) fn position(&self, ticket: &Ticket) -> Event {
        let at = self.lock().readers.get(&ticket.0).map_or(0, |it| it.at);
        Event::Position(self.id(at))
    }

    pub(super) fn unsubscribe(&self, ticket: &Ticket) {
        self.lock().readers.remove(&ticket.0);
    }

    /// Changes whenever a reader might get something.
    pub(super) fn news(&self) -> watch::Receiver<()> {
        self.news.subscribe()
    }

    const fn id(&self, seq: u64) -> MessageId {
        MessageId {
            epoch: self.epoch,
            seq,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
