//! A socket that gives the stack some packets twice: see [`Nominations`]. Hot path.

use std::io::{self, IoSliceMut};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use webrtc::runtime::{AsyncUdpSocket, RecvMeta, Transmit};

use super::nomination::Nominations;

/// A UDP socket.
#[derive(Debug)]
pub(super) struct Again {
    pub(super) inner: Arc<dyn AsyncUdpSocket>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    nominations: Nominations,
    /// What the stack gets next.
    next: Option<(SocketAddr, Box<[u8]>)>,
}

impl Again {
    pub(super) fn new(inner: Arc<dyn AsyncUdpSocket>) -> Self {
        Self {
            inner,
            state: Mutex::default(),
        }
    }
}

impl AsyncUdpSocket for Again {
    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.inner.local_addr()
    }

    fn max_gso_segments(&self) -> usize {
        self.inner.max_gso_segments()
    }

    fn max_gro_segments(&self) -> usize {
        self.inner.max_gro_segments()
    }

    fn poll_send(&self, cx: &mut Context<'_>, transmit: &Transmit<'_>) -> Poll<io::Result<usize>> {
        self.inner.poll_send(cx, transmit)
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        // One task reads: the lock is never waited for.
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((from, packet)) = state.next.take()
            && let (Some(buffer), Some(meta)) = (bufs.first_mut(), meta.first_mut())
        {
            let length = packet.len().min(buffer.len());
            buffer[..length].copy_from_slice(&packet[..length]);
            *meta = RecvMeta::default();
            (meta.addr, meta.len, meta.stride) = (from, length, length);
            return Poll::Ready(Ok(1));
        }
        let received = self.inner.poll_recv(cx, bufs, meta);
        if let Poll::Ready(Ok(count)) = received {
            for (buffer, meta) in bufs.iter().zip(meta.iter()).take(count) {
                let bytes = &buffer[..meta.len.min(buffer.len())];
                // A burst of data, which needs no second look.
                if bytes.first().is_none_or(|first| *first > 1) {
                    continue;
                }
                for packet in bytes.chunks(meta.stride.max(1)) {
                    if let Some(request) = state.nominations.pass(meta.addr, packet) {
                        state.next = Some((meta.addr, request));
                    }
                }
            }
        }
        received
    }
}
