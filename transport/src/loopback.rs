//! A channel inside one process, for tests of what runs over channels.

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::{Mutex, mpsc};
use tokio_util::sync::CancellationToken;

use crate::{Channel, Closed};

/// Messages that may wait in each direction.
const QUEUE: usize = 64;

/// One end of a pair.
#[derive(Debug)]
pub struct LoopbackChannel {
    outgoing: mpsc::Sender<Bytes>,
    incoming: Mutex<mpsc::Receiver<Bytes>>,
    closed: CancellationToken,
}

/// Two ends that are connected to each other.
#[must_use]
pub fn pair() -> (LoopbackChannel, LoopbackChannel) {
    let (a_out, b_in) = mpsc::channel(QUEUE);
    let (b_out, a_in) = mpsc::channel(QUEUE);
    let closed = CancellationToken::new();
    let end = |outgoing, incoming| LoopbackChannel {
        outgoing,
        incoming: Mutex::new(incoming),
        closed: closed.clone(),
    };
    (end(a_out, a_in), end(b_out, b_in))
}

#[async_trait]
impl Channel for LoopbackChannel {
    async fn send(&self, message: Bytes) -> Result<(), Closed> {
        tokio::select! {
            biased;
            () = self.closed.cancelled() => Err(Closed),
            sent = self.outgoing.send(message) => sent.map_err(|_| Closed),
        }
    }

    async fn recv(&self) -> Option<Bytes> {
        let mut incoming = self.incoming.lock().await;
        tokio::select! {
            biased;
            message = incoming.recv() => message,
            () = self.closed.cancelled() => None,
        }
    }

    async fn close(&self) {
        self.closed.cancel();
    }
}

impl Drop for LoopbackChannel {
    fn drop(&mut self) {
        self.closed.cancel();
    }
}
