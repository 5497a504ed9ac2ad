//! The sockets of a peer connection: the kernel's, with other ways beside it. Hot path.

use std::io::{self, IoSliceMut};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use webrtc::runtime::{AsyncUdpSocket, RecvMeta, Transmit};

use super::shortcut::{Attached, Inbox};
use super::stream_relays::Lines;

/// A UDP socket as the stack sees it.
#[derive(Debug)]
pub(super) struct Socket {
    pub(super) kernel: Arc<dyn AsyncUdpSocket>,
    /// Whether data comes by a relay of this end, or may soon.
    pub(super) is_relayed: Arc<AtomicBool>,
    pub(super) inbox: Arc<Inbox>,
    /// Its place at the relay of the same process, if there is one.
    pub(super) attached: Option<Box<dyn Attached>>,
    /// Its ways to relays by TCP and TLS, if there are any.
    pub(super) lines: Option<Lines>,
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
        if let Poll::Ready(Ok(1..)) = received
            && let Some(is_relayed) = is_relayed(&bufs[0])
            && is_relayed != self.is_relayed.load(Ordering::Relaxed)
        {
            self.is_relayed.store(is_relayed, Ordering::Relaxed);
        }
        received
    }
}

/// Whether a packet is data that a relay of ours has passed on, or its consent to, by its first bytes (RFC
/// 7983 §7); `None` if it tells nothing of data.
fn is_relayed(packet: &[u8]) -> Option<bool> {
    match packet {
        // ChannelData, or a Data indication (RFC 8656 §18).
        [64..=79, ..] | [0x00, 0x17, ..] => Some(true),
        // Success of Allocate, CreatePermission, ChannelBind.
        [0x01, 0x03 | 0x08 | 0x09, ..] => Some(true),
        // DTLS.
        [20..=63, ..] => Some(false),
        [..] => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_of_a_relay_is_told_from_other_data() {
        assert_eq!(is_relayed(&[0x40, 0, 0, 4]), Some(true));
        assert_eq!(is_relayed(&[0x00, 0x17, 0, 4]), Some(true));
        assert_eq!(is_relayed(&[0x01, 0x03, 0, 8]), Some(true));
        assert_eq!(is_relayed(&[0x17, 0xfe, 0xfd]), Some(false));
        assert_eq!(is_relayed(&[0x01, 0x01, 0, 8]), None);
        assert_eq!(is_relayed(&[]), None);
    }
}
