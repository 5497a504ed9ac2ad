//! The server against a model: after any requests of two clients and any time, exactly what the model
//! permits passes, in both directions.

#![allow(clippy::unwrap_used, reason = "in a test, a panic is the report")]

mod world;

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};

use portway_relay_proto::command::RelayId;
use portway_relay_proto::server::{FromClient, FromPeer};
use proptest::prelude::*;
use turn_types::attribute::{Lifetime, RequestedTransport};
use turn_types::message::{ALLOCATE, REFRESH};
use world::{Client, World, channel_packet, code, send_packet};

const CLIENTS: usize = 2;
const CHANNELS: [u16; 2] = [0x4000, 0x4001];

/// Two ports of one address, and another address.
fn peers() -> [SocketAddr; 3] {
    ["8.8.8.8:1", "8.8.8.8:2", "9.9.9.9:1"].map(|peer| peer.parse().unwrap())
}

#[derive(Debug, Clone)]
enum Step {
    Allocate(usize),
    Refresh(usize, u32),
    Permit(usize, usize),
    Bind(usize, usize, usize),
    Pass(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let (client, peer, channel) = (0..CLIENTS, 0..3usize, 0..CHANNELS.len());
    let step = prop_oneof![
        client.clone().prop_map(Step::Allocate),
        (client.clone(), prop_oneof![Just(0u32), 1u32..4000])
            .prop_map(|(c, s)| Step::Refresh(c, s)),
        (client.clone(), peer.clone()).prop_map(|(c, p)| Step::Permit(c, p)),
        (client, channel, peer).prop_map(|(c, n, p)| Step::Bind(c, n, p)),
        (1u64..700).prop_map(Step::Pass),
    ];
    proptest::collection::vec(step, 1..40)
}

/// What one client should hold.
#[derive(Debug)]
struct Held {
    relay: RelayId,
    until: u64,
    permissions: HashMap<IpAddr, u64>,
    channels: HashMap<u16, (SocketAddr, u64)>,
}

impl Held {
    fn permits(&self, peer: SocketAddr, now: u64) -> bool {
        self.permissions
            .get(&peer.ip())
            .is_some_and(|until| *until > now)
    }

    /// Whether a number can be bound to a peer now.
    fn can_bind(&self, number: u16, peer: SocketAddr, now: u64) -> bool {
        self.channels
            .iter()
            .filter(|(_, (_, until))| *until > now)
            .all(|(own, (bound, _))| (*own == number) == (*bound == peer))
    }
}

/// The world with its model.
struct Checked {
    world: World,
    clients: Vec<Client>,
    held: Vec<Option<Held>>,
}

impl Checked {
    fn new() -> Self {
        let mut world = World::new();
        let clients = (0..CLIENTS)
            .map(|i| world.client(&format!("192.0.2.{i}:1000"), "ann", "ann's"))
            .collect();
        Self {
            world,
            clients,
            held: (0..CLIENTS).map(|_| None).collect(),
        }
    }

    fn now(&self) -> u64 {
        self.world.now.monotonic.as_secs()
    }

    fn step(&mut self, step: &Step) {
        let now = self.now();
        if let Step::Allocate(c) | Step::Refresh(c, _) | Step::Permit(c, _) | Step::Bind(c, _, _) =
            step
        {
            self.world.challenge(&mut self.clients[*c]);
        }
        match *step {
            Step::Allocate(c) => {
                let answer =
                    self.world
                        .ask(&self.clients[c], ALLOCATE, &[&RequestedTransport::new(17)]);
                let expected = self.held[c].as_ref().map(|_| 437);
                assert_eq!(code(&answer), expected, "{step:?}");
                if expected.is_none() {
                    self.held[c] = Some(Held {
                        relay: self.world.last_relay.unwrap(),
                        until: now + 600,
                        permissions: HashMap::new(),
                        channels: HashMap::new(),
                    });
                }
            }
            Step::Refresh(c, seconds) => {
                let answer = self
                    .world
                    .ask(&self.clients[c], REFRESH, &[&Lifetime::new(seconds)]);
                let expected = self.held[c].is_none().then_some(437);
                assert_eq!(code(&answer), expected, "{step:?}");
                match (&mut self.held[c], seconds) {
                    (held, 0) => *held = None,
                    (Some(held), _) => held.until = now + u64::from(seconds).clamp(600, 3600),
                    (None, _) => {}
                }
            }
            Step::Permit(c, peer) => {
                let peer = peers()[peer];
                let answer = self.world.permit(&self.clients[c], peer);
                match &mut self.held[c] {
                    None => assert_eq!(code(&answer), Some(437), "{step:?}"),
                    Some(held) => {
                        assert_eq!(code(&answer), None, "{step:?}");
                        held.permissions.insert(peer.ip(), now + 300);
                    }
                }
            }
            Step::Bind(c, number, peer) => {
                let (number, peer) = (CHANNELS[number], peers()[peer]);
                let answer = self.world.bind(&self.clients[c], number, peer);
                match &mut self.held[c] {
                    None => assert_eq!(code(&answer), Some(437), "{step:?}"),
                    Some(held) if held.can_bind(number, peer, now) => {
                        assert_eq!(code(&answer), None, "{step:?}");
                        held.permissions.insert(peer.ip(), now + 300);
                        held.channels.retain(|_, (_, until)| *until > now);
                        held.channels.insert(number, (peer, now + 600));
                    }
                    Some(_) => assert_eq!(code(&answer), Some(400), "{step:?}"),
                }
            }
            Step::Pass(seconds) => {
                self.world.pass(seconds);
                let now = self.now();
                for held in &mut self.held {
                    if held.as_ref().is_some_and(|held| held.until <= now) {
                        *held = None;
                    }
                }
            }
        }
    }

    /// Compares what passes with what should.
    fn check(&mut self) {
        let now = self.now();
        let held_count = self.held.iter().flatten().count();
        assert_eq!(self.world.server.allocation_count(), held_count);
        for (client, held) in self.clients.iter().zip(&self.held) {
            for peer in peers() {
                let permitted = held.as_ref().is_some_and(|held| held.permits(peer, now));
                let sent = self.world.send(client, &send_packet(peer, b"x"));
                assert_eq!(
                    matches!(sent, FromClient::ToPeer { .. }),
                    permitted,
                    "{sent:?}"
                );
                let Some(held) = held else { continue };
                let heard = self
                    .world
                    .server
                    .handle_peer(held.relay, peer, 1, self.world.now);
                match heard {
                    FromPeer::ToClient { client: to, .. } => {
                        assert!(permitted && to == client.tuple)
                    }
                    FromPeer::Dropped(why) => assert!(!permitted, "{why:?}"),
                }
            }
            for number in CHANNELS {
                let bound = held.as_ref().and_then(|held| held.channels.get(&number));
                let expected = bound
                    .filter(|(peer, until)| {
                        *until > now && held.as_ref().unwrap().permits(*peer, now)
                    })
                    .map(|(peer, _)| *peer);
                let reached = match self.world.send(client, &channel_packet(number, b"x")) {
                    FromClient::ToPeer { peer, .. } => Some(peer),
                    FromClient::Answered | FromClient::Dropped(_) => None,
                };
                assert_eq!(reached, expected, "channel {number:x}");
            }
        }
    }
}

proptest! {
    #[test]
    fn exactly_what_is_permitted_passes(steps in steps()) {
        let mut checked = Checked::new();
        for step in &steps {
            checked.step(step);
            checked.check();
        }
    }
}
