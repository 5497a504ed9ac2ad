//! Where packets for peers go: out of a relay socket, or to a peer in this process. Hot path.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use crate::batch::Batch;
use crate::local::LocalPeer;
use crate::metrics::Counters;
use crate::ports::{Ports, RelaySocket, Slot};

/// Where packets for peers go.
pub(crate) struct Peers {
    pub(crate) ports: Ports,
    /// Peers in this process.
    pub(crate) attached: HashMap<SocketAddr, Arc<dyn LocalPeer>>,
    /// Whether there are no others.
    pub(crate) attached_only: bool,
}

impl Peers {
    pub(crate) fn send(&self, batch: &Batch<Slot>, counters: &Counters) {
        let flow = batch.flow();
        let Some(socket) = self.ports.get(flow.socket) else {
            return;
        };
        let (packets, segment) = batch.packets();
        if self.is_local(socket, flow.to, packets, segment, counters) {
            return;
        }
        let sent = batch
            .send(&socket.bound)
            .or_else(|error| once_more(error, || batch.send(&socket.bound)));
        if let Err(error) = sent {
            tracing::trace!(%error, "packets to a peer were not sent");
            counters.dropped_unsent.add(batch.count());
        }
    }

    pub(crate) fn send_one(
        &self,
        socket: &RelaySocket,
        to: SocketAddr,
        packet: &[u8],
        counters: &Counters,
    ) {
        if self.is_local(socket, to, packet, packet.len(), counters) {
            return;
        }
        let send = || socket.bound.socket.send_to(packet, to).map(drop);
        if let Err(error) = send().or_else(|error| once_more(error, send)) {
            tracing::trace!(%error, "a packet to a peer was not sent");
            counters.dropped_unsent.add(1);
        }
    }

    /// Whether packets stay in this process: they have been taken by the peer there, or by none.
    fn is_local(
        &self,
        socket: &RelaySocket,
        to: SocketAddr,
        packets: &[u8],
        segment: usize,
        counters: &Counters,
    ) -> bool {
        if let Some(peer) = self.attached.get(&to) {
            peer.receive(socket.public, packets, segment);
        } else if self.attached_only {
            // It was attached when it was named.
            counters.dropped_forbidden.add(1);
        } else {
            return false;
        }
        true
    }
}

/// Sends again unless the system has no room: an ICMP error about a packet before is told to whoever
/// sends next, once.
fn once_more(error: io::Error, send: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
    if error.kind() == io::ErrorKind::WouldBlock {
        return Err(error);
    }
    send()
}
