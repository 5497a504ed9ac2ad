//! One data channel of a peer connection as a [`Channel`].

use std::sync::Arc;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use tokio_util::sync::CancellationToken;
use webrtc::data_channel::{DataChannel, DataChannelEvent};

use crate::{Channel, Closed};

/// A data channel. Closed with its peer.
pub(super) struct WebRtcChannel {
    inner: Arc<dyn DataChannel>,
    closed: CancellationToken,
}

impl WebRtcChannel {
    /// `closed` is cancelled when the peer connection ends: the stack itself keeps a channel open
    /// on a dead path.
    pub(super) const fn new(inner: Arc<dyn DataChannel>, closed: CancellationToken) -> Self {
        Self { inner, closed }
    }

    /// Waits until messages can be sent.
    pub(super) async fn opened(&self) -> Result<(), Closed> {
        opened(self.inner.as_ref(), &self.closed).await
    }
}

/// Waits until messages can be sent. The stack refuses them before.
pub(super) async fn opened(
    channel: &dyn DataChannel,
    closed: &CancellationToken,
) -> Result<(), Closed> {
    loop {
        let event = tokio::select! {
            biased;
            event = channel.poll() => event,
            () = closed.cancelled() => None,
        };
        match event {
            Some(DataChannelEvent::OnOpen) => return Ok(()),
            None
            | Some(
                DataChannelEvent::OnClose | DataChannelEvent::OnClosing | DataChannelEvent::OnError,
            ) => return Err(Closed),
            Some(_) => {}
        }
    }
}

#[async_trait]
impl Channel for WebRtcChannel {
    async fn send(&self, message: Bytes) -> Result<(), Closed> {
        tokio::select! {
            biased;
            () = self.closed.cancelled() => Err(Closed),
            // A message that nobody else holds becomes mutable without a copy.
            sent = self.inner.send(BytesMut::from(message)) => sent.map_err(|_| Closed),
        }
    }

    async fn recv(&self) -> Option<Bytes> {
        loop {
            let event = tokio::select! {
                biased;
                event = self.inner.poll() => event,
                () = self.closed.cancelled() => None,
            };
            match event {
                Some(DataChannelEvent::OnMessage(message)) => return Some(message.data.freeze()),
                None
                | Some(
                    DataChannelEvent::OnClose
                    | DataChannelEvent::OnClosing
                    | DataChannelEvent::OnError,
                ) => {
                    self.closed.cancel();
                    return None;
                }
                Some(_) => {}
            }
        }
    }

    async fn close(&self) {
        if let Err(error) = self.inner.close().await {
            tracing::debug!(%error, "the data channel was closed already");
        }
        self.closed.cancel();
    }
}
