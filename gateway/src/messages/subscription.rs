//! The way of one subscriber through the log.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{Stream, stream};
use portway_protocol::message::{Event, Filter, MessageId};
use portway_protocol::reason::Reason;
use tokio::sync::watch;

use super::bus::{Bus, Ticket};

/// Longest time in which a subscriber hears nothing: it can tell silence from death.
const SIGN_OF_LIFE: Duration = Duration::from_secs(15);

/// Ends when it is dropped.
pub(super) struct Subscription {
    bus: Arc<Bus>,
    ticket: Ticket,
    /// What it hears before anything else.
    first: VecDeque<Event>,
    news: watch::Receiver<()>,
}

impl Subscription {
    /// See [`Bus::subscribe`].
    pub(super) fn start(
        bus: &Arc<Bus>,
        filter: Filter,
        since: Option<MessageId>,
    ) -> Result<Self, Reason> {
        let (ticket, first) = bus.subscribe(filter, since)?;
        Ok(Self {
            ticket,
            first: first.into(),
            news: bus.news(),
            bus: bus.clone(),
        })
    }

    /// Blocks of events, each made when it is asked for. They do not end.
    pub(super) fn into_events(self) -> impl Stream<Item = Bytes> {
        stream::unfold(self, |mut subscription| async {
            let event = subscription.next().await;
            Some((event, subscription))
        })
    }

    async fn next(&mut self) -> Bytes {
        if let Some(event) = self.first.pop_front() {
            return event.encode();
        }
        let wake = tokio::time::sleep(SIGN_OF_LIFE);
        tokio::pin!(wake);
        loop {
            self.news.mark_unchanged();
            if let Some(event) = self.bus.read(&self.ticket) {
                return event;
            }
            tokio::select! {
                // The sender lives in the bus, so waiting cannot fail.
                _changed = self.news.changed() => {}
                () = &mut wake => return self.bus.position(&self.ticket).encode(),
            }
        }
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.bus.unsubscribe(&self.ticket);
    }
}
