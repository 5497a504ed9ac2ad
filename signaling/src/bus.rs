//! How a message reaches a socket.
//!
//! The registry says who talks to whom; the bus carries. [`Local`] knows the sockets of this
//! process. A bus between instances carries the same messages to sockets that another one holds.

use std::collections::HashMap;
use std::fmt::Debug;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use portway_protocol::reason::Reason;
use tokio::sync::mpsc;

/// Messages that may wait for a socket. One that lets more pile up is closed.
pub const QUEUE: usize = 256;

/// Address of a socket on the bus.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SocketId(pub u64);

/// What a socket's task is told.
#[derive(Debug)]
pub enum Outgoing {
    /// Send this text.
    Text(String),
    /// Close for this reason.
    Close(Reason),
}

/// The socket is gone, or does not read fast enough.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the socket is gone or does not read")]
pub struct Undelivered;

/// Carries messages to sockets.
pub trait Bus: Debug + Send + Sync {
    /// A new socket of this process: what is sent to its address arrives at the receiver, in order,
    /// at most [`QUEUE`] messages ahead of it.
    fn open(&self) -> (SocketId, mpsc::Receiver<Outgoing>);

    /// The socket is gone. What was sent before can still be received.
    fn close(&self, socket: SocketId);

    /// Sends without waiting.
    ///
    /// # Errors
    /// If it is known that the message will not arrive. Without an error it may still be lost with
    /// its socket.
    fn send(&self, to: SocketId, message: Outgoing) -> Result<(), Undelivered>;
}

/// All sockets are in this process.
#[derive(Debug, Default)]
pub struct Local {
    next: AtomicU64,
    sockets: Mutex<HashMap<SocketId, mpsc::Sender<Outgoing>>>,
}

impl Local {
    fn sockets(&self) -> std::sync::MutexGuard<'_, HashMap<SocketId, mpsc::Sender<Outgoing>>> {
        self.sockets.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Bus for Local {
    fn open(&self) -> (SocketId, mpsc::Receiver<Outgoing>) {
        let (queue, receiver) = mpsc::channel(QUEUE);
        let id = SocketId(self.next.fetch_add(1, Ordering::Relaxed));
        self.sockets().insert(id, queue);
        (id, receiver)
    }

    fn close(&self, socket: SocketId) {
        self.sockets().remove(&socket);
    }

    fn send(&self, to: SocketId, message: Outgoing) -> Result<(), Undelivered> {
        let sockets = self.sockets();
        let queue = sockets.get(&to).ok_or(Undelivered)?;
        queue.try_send(message).map_err(|_| Undelivered)
    }
}

/// The receiving end of a socket of this process; its address is gone when this is dropped.
#[derive(Debug)]
pub(crate) struct Mailbox {
    pub(crate) id: SocketId,
    pub(crate) receiver: mpsc::Receiver<Outgoing>,
    bus: Arc<dyn Bus>,
}

impl Mailbox {
    pub(crate) fn open(bus: &Arc<dyn Bus>) -> Self {
        let (id, receiver) = bus.open();
        Self {
            id,
            receiver,
            bus: Arc::clone(bus),
        }
    }
}

impl Drop for Mailbox {
    fn drop(&mut self) {
        self.bus.close(self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(bus: &dyn Bus, to: SocketId, text: &str) -> Result<(), Undelivered> {
        bus.send(to, Outgoing::Text(text.into()))
    }

    #[test]
    fn messages_arrive_in_order_until_a_socket_is_gone() {
        let bus: Arc<dyn Bus> = Arc::new(Local::default());
        let mut mailbox = Mailbox::open(&bus);
        let other = Mailbox::open(&bus);
        text(&*bus, mailbox.id, "a").unwrap();
        text(&*bus, other.id, "x").unwrap();
        text(&*bus, mailbox.id, "b").unwrap();
        let mut next = || match mailbox.receiver.try_recv() {
            Ok(Outgoing::Text(text)) => text,
            got => panic!("expected a text, got {got:?}"),
        };
        assert_eq!((next(), next()), ("a".into(), "b".into()));
        let gone = mailbox.id;
        drop(mailbox);
        assert_eq!(text(&*bus, gone, "c"), Err(Undelivered));
    }

    #[test]
    fn a_socket_that_does_not_read_loses_messages_and_says_so() {
        let bus = Local::default();
        let (id, _receiver) = bus.open();
        assert!((0..QUEUE).all(|_| text(&bus, id, "x").is_ok()));
        assert_eq!(text(&bus, id, "x"), Err(Undelivered));
    }
}
