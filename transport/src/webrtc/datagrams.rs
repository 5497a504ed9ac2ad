//! The datagram channel of a peer connection: messages that are sent once, at most, and never waited for.
//! Hot path.
//!
//! Each end has it without asking the other; whether that one listens is said elsewhere. It shares packets and congestion control with channel 0. What finds the way full is not queued.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::{Bytes, BytesMut};
use tokio_util::sync::CancellationToken;
use webrtc::data_channel::{DataChannel, DataChannelEvent, RTCDataChannelInit};

use super::channel;
use crate::{Closed, SEND_HIGH_WATER};

/// Label of the channel, for whoever looks at the stack.
pub(super) const LABEL: &str = "portway-datagrams";

/// Its stream, which both ends know without a word. In-band, an end begins with 0 or 1.
const STREAM: u16 = 2;

/// Bytes on their way, waiting or not yet acknowledged, above which a datagram is dropped. Covers 40 ms at
/// 100 Mbit/s; at 10 Mbit/s a datagram waits for at most 0.4 s behind others.
pub const HIGH_WATER: usize = 512 * 1024;

/// A datagram channel. Its end is not that of its peer. A peer that does not know of it hears nothing.
pub struct DatagramChannel {
    inner: Arc<dyn DataChannel>,
    /// The peer's.
    closed: CancellationToken,
    /// Bytes that may be sent before we have to ask again how many are on their way.
    budget: AtomicUsize,
}

/// Why a datagram was not sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotSent {
    /// The way is full.
    #[error("too much is on its way")]
    Full,
    /// There is no channel any more.
    #[error(transparent)]
    Closed(#[from] Closed),
}

/// Unordered, and never sent again.
pub(super) fn terms() -> RTCDataChannelInit {
    RTCDataChannelInit {
        ordered: false,
        max_retransmits: Some(0),
        negotiated: Some(STREAM),
        ..RTCDataChannelInit::default()
    }
}

impl DatagramChannel {
    /// Waits until messages can be sent.
    pub(super) async fn open(
        inner: Arc<dyn DataChannel>,
        closed: CancellationToken,
    ) -> Result<Self, Closed> {
        channel::opened(inner.as_ref(), &closed).await?;
        Ok(Self {
            inner,
            closed,
            budget: AtomicUsize::new(0),
        })
    }

    /// Sends a datagram now, or not at all.
    ///
    /// # Errors
    /// See [`NotSent`].
    pub async fn try_send(&self, datagram: Bytes) -> Result<(), NotSent> {
        let len = datagram.len();
        if self.closed.is_cancelled() {
            return Err(Closed.into());
        }
        let mut budget = self.budget.load(Ordering::Relaxed);
        if budget < len {
            // What is on its way grows by what is sent here alone.
            let under_way = self.inner.outstanding_bytes().await.map_err(|_| Closed)?;
            budget = HIGH_WATER.saturating_sub(under_way);
            if budget < len {
                return Err(NotSent::Full);
            }
        }
        self.budget.store(budget - len, Ordering::Relaxed);
        let sent = self.inner.try_send(BytesMut::from(datagram)).await;
        sent.map_err(|_| Closed.into())
    }

    /// The next datagram; `None` once the channel is closed. Whoever has it must take what comes: what waits
    /// here holds up all channels of the peer.
    pub async fn recv(&self) -> Option<Bytes> {
        loop {
            let event = tokio::select! {
                biased;
                event = self.inner.poll() => event?,
                () = self.closed.cancelled() => return None,
            };
            match event {
                DataChannelEvent::OnMessage(message) => return Some(message.data.freeze()),
                DataChannelEvent::OnClose | DataChannelEvent::OnClosing => return None,
                DataChannelEvent::OnOpen | DataChannelEvent::OnError | _ => {}
            }
        }
    }
}

impl std::fmt::Debug for DatagramChannel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DatagramChannel").finish_non_exhaustive()
    }
}

const _: () = assert!(
    HIGH_WATER < SEND_HIGH_WATER,
    "the stack's own limit never refuses"
);
