//! The sockets of a peer connection: the kernel's, with other ways beside it. Hot path.

use std::io::{self, IoSliceMut};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use webrtc::runtime::{AsyncUdpSocket, RecvMeta, Transmit};

use super::nomination::Nominations;
use super::shortcut::{Attached, Inbox};
use super::stream_relays::Lines;

/// A UDP socket as the stack sees it.
#[derive(Debug)]
pub(super) struct Socket {
    pub(super) kernel: Arc<dyn AsyncUdpSocket>,
    pub(super) inbox: Arc<Inbox>,
    /// Its place at the relay of the same process, if there is one.
    pub(super) attached: Option<Box<dyn Attached>>,
    /// Its ways to relays by TCP and TLS, if there are any.
    pub(super) lines: Option<Lines>,
    /// Checks that are given to the stack again. One task reads, so this is never waited for.
    pub(super) nominations: Mutex<Nominations>,
}

impl Socket {
    /// Looks for checks in what was received. They are never in one burst with data, which is passed
    /// over by its first byte.
    fn look_at(&self, bytes: &[u8], meta: &RecvMeta) {
        if bytes.first().is_none_or(|first| *first > 1) {
            return;
        }
        let mut nominations = self
            .nominations
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        for packet in bytes.chunks(meta.stride.max(1)) {
            if let Some(again) = nominations.pass(meta.addr, packet) {
                self.inbox.push(meta.addr, &again, again.len());
            }
        }
    }
}

impl AsyncUdpSocket for Socket {
    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.kernel.local_addr()
    }

    fn max_gso_segments(&self) -> usize {
        self.kernel.max_gso_segments()
    }

    fn max_gro_segments(&self) -> usize {
        self.kernel.max_gro_segments()
    }

    fn poll_send(&self, cx: &mut Context<'_>, transmit: &Transmit<'_>) -> Poll<io::Result<usize>> {
        let length = transmit.contents.len();
        let segment = transmit.segment_size.unwrap_or(length);
        if let Some(attached) = &self.attached
            && attached.send(transmit.destination, transmit.contents, segment)
        {
            return Poll::Ready(Ok(length));
        }
        if let Some(lines) = &self.lines
            && let Some(sent) = lines.send(transmit.destination, transmit.contents, segment)
        {
            return Poll::Ready(sent.map(|()| length));
        }
        self.kernel.poll_send(cx, transmit)
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let received = match self.inbox.read(cx, bufs, meta) {
            0 => {
                let received = self.kernel.poll_recv(cx, bufs, meta);
                if let (Poll::Ready(Ok(1..)), Some(lines)) = (&received, &self.lines) {
                    lines.hear();
                }
                received
            }
            count => Poll::Ready(Ok(count)),
        };
        if let Poll::Ready(Ok(count)) = received {
            for (buffer, meta) in bufs.iter().zip(meta.iter()).take(count) {
                self.look_at(&buffer[..meta.len.min(buffer.len())], meta);
            }
        }
        received
    }
}
