//! Data of clients on its way to peers, hot path; and what routers and hosts say of it.

use std::net::SocketAddr;
use std::ops::Range;
use std::time::Duration;

use stun_types::message::{Message, MessageWrite as _, MessageWriteExt as _, MessageWriteVec};
use turn_types::attribute::{Icmp, XorPeerAddress};
use turn_types::message::DATA;

use super::{Drop, FromClient, Server};
use crate::Now;
use crate::allocation::{Allocation, AllocationId};
use crate::command::{Command, Family, RelayId};
use crate::five_tuple::FiveTuple;
use crate::icmp::IcmpError;
use crate::quota::{Direction, Quota};
use crate::wire::{channel_data, indication};

impl Server {
    pub(super) fn channel_data(
        &mut self,
        client: &FiveTuple,
        packet: &[u8],
        now: Duration,
    ) -> FromClient {
        let Some((number, payload)) = channel_data::parse(packet) else {
            return FromClient::Dropped(Drop::Malformed);
        };
        let quota = self.quota;
        let Some((id, allocation)) = self.of_mut(client) else {
            return FromClient::Dropped(Drop::NoAllocation);
        };
        let Some(peer) = allocation.channels.peer(number, now) else {
            return FromClient::Dropped(Drop::NoChannel);
        };
        Self::to_peer(id, allocation, peer, payload, &quota, now)
    }

    pub(super) fn send_indication(
        &mut self,
        client: &FiveTuple,
        packet: &[u8],
        now: Duration,
    ) -> FromClient {
        let Some((peer, payload)) = indication::parse_send(packet) else {
            return FromClient::Dropped(Drop::Malformed);
        };
        // A permission has been judged when it was installed; the rules may have changed since.
        let (quota, is_permitted) = (self.quota, self.peers.permits(&peer));
        let Some((id, allocation)) = self.of_mut(client) else {
            return FromClient::Dropped(Drop::NoAllocation);
        };
        if !is_permitted {
            return FromClient::Dropped(Drop::Forbidden);
        }
        Self::to_peer(id, allocation, peer, payload, &quota, now)
    }

    fn to_peer(
        id: AllocationId,
        allocation: &mut Allocation,
        peer: SocketAddr,
        payload: Range<usize>,
        quota: &Quota,
        now: Duration,
    ) -> FromClient {
        if allocation.tcp.is_some() || !allocation.permissions.allows(peer.ip(), now) {
            return FromClient::Dropped(Drop::NoPermission);
        }
        let length = payload.len();
        if !allocation
            .place
            .may_pass(Direction::ToPeer, length, quota, now)
        {
            return FromClient::Dropped(Drop::TooFast);
        }
        allocation.traffic.count_to_peer(length);
        let relay = RelayId {
            allocation: id,
            family: Family::of(&peer),
        };
        FromClient::ToPeer {
            relay,
            peer,
            payload,
        }
    }

    /// Something on the way said of a packet from a relay socket to `peer` that it did not arrive (RFC 8656
    /// §11.4): the client hears of it if it may hear of the peer.
    pub fn handle_icmp(&mut self, relay: RelayId, peer: SocketAddr, error: IcmpError, now: Now) {
        let Some(allocation) = self.allocations.get(relay.allocation) else {
            return;
        };
        if !error.is_passed_on(relay.family)
            || !allocation.permissions.allows(peer.ip(), now.monotonic)
        {
            return;
        }
        let to = allocation.client;
        let mut indication = Message::builder_indication(DATA, MessageWriteVec::new());
        let transaction = indication.transaction_id();
        let icmp = Icmp::new(error.kind, error.code, error.data);
        indication
            .add_attribute(&XorPeerAddress::new(peer, transaction))
            .and_then(|()| indication.add_attribute(&icmp))
            .expect("two short attributes");
        let message = indication.finish();
        self.commands.push_back(Command::Reply { to, message });
    }
}
