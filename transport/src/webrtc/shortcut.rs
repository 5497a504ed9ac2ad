//! A way past the kernel to a relay in the same process.
//!
//! Security: what comes by it is treated as what comes from the network: the relay has checked
//! permissions only, and the sender is whoever the relay says.

use std::collections::VecDeque;
use std::fmt::Debug;
use std::io::IoSliceMut;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Waker};

use webrtc::runtime::RecvMeta;

use super::runtime::SOCKET_BUFFER;

/// A relay in the same process.
pub trait Shortcut: Debug + Send + Sync {
    /// Makes the socket at `local` known: what is relayed to it goes into `inbox`.
    fn attach(&self, local: SocketAddr, inbox: Arc<Inbox>) -> Box<dyn Attached>;
}

/// A socket's place at the relay, until dropped.
pub trait Attached: Debug + Send + Sync {
    /// Sends packets, cut every `segment` bytes, if `to` is an address of the relay; `false`: it is not.
    fn send(&self, to: SocketAddr, packets: &[u8], segment: usize) -> bool;
}

/// What the relay has for a socket. Bounded as a socket is: packets that find no room are dropped.
#[derive(Debug, Default)]
pub struct Inbox(Mutex<Waiting>);

#[derive(Debug, Default)]
struct Waiting {
    bursts: VecDeque<Burst>,
    bytes: usize,
    reader: Option<Waker>,
}

/// Packets of one sender, all of `segment` bytes but the last, which may be shorter.
#[derive(Debug)]
struct Burst {
    from: SocketAddr,
    packets: Vec<u8>,
    /// Bytes of `packets` that have been read.
    at: usize,
    segment: usize,
}

impl Inbox {
    /// Adds packets, cut every `segment` bytes. An empty one is left out: nothing that WebRTC multiplexes
    /// on a socket (RFC 7983) is empty, and it would take none of the room that bounds what waits.
    pub fn push(&self, from: SocketAddr, packets: &[u8], segment: usize) {
        let mut waiting = self.lock();
        if packets.is_empty() || waiting.bytes + packets.len() > SOCKET_BUFFER {
            return;
        }
        waiting.bytes += packets.len();
        waiting.bursts.push_back(Burst {
            from,
            packets: packets.to_vec(),
            at: 0,
            segment: segment.max(1),
        });
        let reader = waiting.reader.take();
        drop(waiting);
        if let Some(reader) = reader {
            reader.wake();
        }
    }

    /// Fills buffers, each with packets of one sender; 0: nothing is there, and `cx` will be woken.
    pub(super) fn read(
        &self,
        cx: &Context<'_>,
        buffers: &mut [IoSliceMut<'_>],
        metas: &mut [RecvMeta],
    ) -> usize {
        let mut waiting = self.lock();
        let mut count = 0;
        for (buffer, meta) in buffers.iter_mut().zip(metas) {
            let Some(burst) = waiting.bursts.front_mut() else {
                break;
            };
            let rest = &burst.packets[burst.at..];
            let whole = buffer.len() / burst.segment * burst.segment;
            // A packet that is larger than the buffer is cut, as the system does it.
            let taken = rest.len().min(whole.max(burst.segment));
            let length = taken.min(buffer.len());
            buffer[..length].copy_from_slice(&rest[..length]);
            *meta = RecvMeta::default();
            (meta.addr, meta.len, meta.stride) = (burst.from, length, burst.segment.min(length));
            burst.at += taken;
            if burst.at == burst.packets.len() {
                waiting.bursts.pop_front();
            }
            waiting.bytes -= taken;
            count += 1;
        }
        if count == 0 {
            waiting.reader = Some(cx.waker().clone());
        }
        count
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(inbox: &Inbox, buffer: &mut [u8]) -> Option<RecvMeta> {
        let mut metas = [RecvMeta::default()];
        let count = inbox.read(
            &Context::from_waker(Waker::noop()),
            &mut [IoSliceMut::new(buffer)],
            &mut metas,
        );
        (count == 1).then_some(metas[0])
    }

    #[test]
    fn a_burst_is_read_in_whole_packets() {
        let inbox = Inbox::default();
        let from = "192.0.2.1:5000".parse().unwrap();
        inbox.push(from, b"aaabbbcccd", 3);
        let mut buffer = [0; 8];
        let meta = read(&inbox, &mut buffer).unwrap();
        assert_eq!((meta.addr, meta.len, meta.stride), (from, 6, 3));
        assert_eq!(&buffer[..6], b"aaabbb");
        let meta = read(&inbox, &mut buffer).unwrap();
        assert_eq!((meta.len, meta.stride), (4, 3));
        assert_eq!(&buffer[..4], b"cccd");
        assert!(read(&inbox, &mut buffer).is_none());
        assert_eq!(inbox.lock().bytes, 0);
    }

    #[test]
    fn a_packet_without_room_is_dropped_and_a_long_one_cut() {
        let inbox = Inbox::default();
        let from = "192.0.2.1:5000".parse().unwrap();
        let full = vec![1; SOCKET_BUFFER];
        inbox.push(from, &full, SOCKET_BUFFER);
        inbox.push(from, b"x", 1);
        let mut buffer = [0; 8];
        assert_eq!(read(&inbox, &mut buffer).unwrap().len, 8);
        assert!(read(&inbox, &mut buffer).is_none());
        inbox.push(from, b"x", 1);
        assert_eq!(read(&inbox, &mut buffer).unwrap().len, 1);
    }
}
