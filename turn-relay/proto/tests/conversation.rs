//! Clients talk to a server, in virtual time.

#![allow(clippy::unwrap_used, reason = "in a test, a panic is the report")]

mod world;

use std::net::SocketAddr;
use std::num::NonZeroU64;
use std::time::Duration;

use portway_relay_proto::allocation::AllocationId;
use portway_relay_proto::auth::{Users, ephemeral_credentials};
use portway_relay_proto::command::Family;
use portway_relay_proto::event::{Ending, Event};
use portway_relay_proto::icmp::IcmpError;
use portway_relay_proto::peer_policy::PeerPolicy;
use portway_relay_proto::quota::Quota;
use portway_relay_proto::server::{Drop, FromClient, FromPeer};
use portway_relay_proto::session::Traffic;
use proptest::prelude::*;
use stun_types::attribute::{AttributeWrite, RawAttribute, UnknownAttributes, XorMappedAddress};
use stun_types::message::{BINDING, Message, MessageWrite as _, MessageWriteVec};
use turn_types::AddressFamily;
use turn_types::attribute::{
    AdditionalAddressFamily, AddressErrorCode, EvenPort, Icmp, Lifetime, RequestedAddressFamily,
    RequestedTransport, ReservationToken, XorPeerAddress, XorRelayedAddress,
};
use turn_types::message::{ALLOCATE, CHANNEL_BIND, CREATE_PERMISSION, REFRESH};
use world::*;

#[test]
fn a_binding_tells_the_address_in_32_bytes() {
    let mut world = World::new();
    let ann = world.ann();
    let answer = world.naked(&ann, BINDING, &[]);
    assert_eq!(answer.len(), 32);
    let message = Message::from_bytes(&answer).unwrap();
    let mapped: XorMappedAddress = message.attribute().unwrap();
    assert_eq!(mapped.addr(message.transaction_id()), ann.tuple.client);
}

#[test]
fn who_proves_nothing_gets_64_bytes_and_leaves_nothing() {
    let mut world = World::new();
    let ann = world.ann();
    let answer = world.naked(&ann, ALLOCATE, &[&RequestedTransport::new(17)]);
    assert_eq!(code(&answer), Some(401));
    assert!(answer.len() <= 64, "{} bytes", answer.len());
    for method in [REFRESH, CREATE_PERMISSION, CHANNEL_BIND] {
        assert_eq!(code(&world.naked(&ann, method, &[])), Some(401));
    }
    assert_eq!(world.server.allocation_count(), 0);
    assert_eq!(world.server.poll_timeout(), None);
}

#[test]
fn strangers_are_answered_so_often_and_users_always() {
    let quota = Quota {
        strangers_per_second: 2,
        ..Quota::default()
    };
    let mut world = World::with(quota, vec![Family::V4]);
    let ann = world.ann();
    world.naked(&ann, BINDING, &[]);
    let again = Message::builder_request(BINDING, MessageWriteVec::new()).finish();
    assert_eq!(world.send(&ann, &again), FromClient::Dropped(Drop::TooMany));
    let unproved = Message::builder_request(ALLOCATE, MessageWriteVec::new()).finish();
    assert_eq!(
        world.send(&ann, &unproved),
        FromClient::Dropped(Drop::TooMany)
    );
    assert_eq!(
        code(&world.allocate(&ann)),
        None,
        "who proves itself is served"
    );
    world.pass(1);
    world.naked(&ann, BINDING, &[]);
}

#[test]
fn an_allocation_lives_as_long_as_it_is_refreshed() {
    let mut world = World::new();
    let ann = world.ann();
    let answer = world.allocate(&ann);
    let message = Message::from_bytes(&answer).unwrap();
    assert!(message.validate_integrity(&credentials(&ann)).is_ok());
    let relayed: XorRelayedAddress = message.attribute().unwrap();
    assert_eq!(
        relayed.addr(message.transaction_id()),
        "198.51.100.1:50001".parse().unwrap()
    );
    assert_eq!(granted(&answer), 600);
    world.pass(599);
    let answer = world.ask(&ann, REFRESH, &[&Lifetime::new(100_000)]);
    assert_eq!(granted(&answer), 3600);
    world.pass(3599);
    assert_eq!(world.server.allocation_count(), 1);
    world.pass(1);
    assert_eq!(world.server.allocation_count(), 0);
    assert_eq!(world.closed.len(), 1);
}

#[test]
fn a_lost_answer_is_repeated_and_a_second_allocation_refused() {
    let mut world = World::new();
    let ann = world.ann();
    let request = signed(&ann, ALLOCATE, &[&RequestedTransport::new(17)]);
    world.send(&ann, &request);
    let first = world.settle().unwrap();
    world.send(&ann, &request);
    assert_eq!(world.settle().unwrap(), first);
    assert_eq!(code(&world.allocate(&ann)), Some(437));
    assert_eq!(world.server.allocation_count(), 1);
}

#[test]
fn a_client_gives_its_allocation_back() {
    let mut world = World::new();
    let ann = world.ann();
    world.allocate(&ann);
    assert_eq!(granted(&world.ask(&ann, REFRESH, &[&Lifetime::new(0)])), 0);
    assert_eq!(
        (world.server.allocation_count(), world.closed.len()),
        (0, 1)
    );
    assert_eq!(code(&world.ask(&ann, REFRESH, &[])), Some(437));
}

#[test]
fn data_passes_with_a_permission_only_and_while_it_lasts() {
    let mut world = World::new();
    let ann = world.ann();
    world.allocate(&ann);
    let packet = send_packet(peer(), b"hello");
    assert_eq!(
        world.send(&ann, &packet),
        FromClient::Dropped(Drop::NoPermission)
    );
    assert_eq!(
        world.hear_peer(peer(), 5),
        FromPeer::Dropped(Drop::NoPermission)
    );
    assert_eq!(code(&world.permit(&ann, peer())), None);
    let FromClient::ToPeer {
        peer: to, payload, ..
    } = world.send(&ann, &packet)
    else {
        panic!("it is permitted");
    };
    assert_eq!((to, &packet[payload]), (peer(), &b"hello"[..]));
    let other_port = SocketAddr::new(peer().ip(), 1);
    assert!(matches!(
        world.hear_peer(other_port, 5),
        FromPeer::ToClient { .. }
    ));
    world.pass(300);
    assert_eq!(
        world.send(&ann, &packet),
        FromClient::Dropped(Drop::NoPermission)
    );
    assert_eq!(
        world.hear_peer(peer(), 5),
        FromPeer::Dropped(Drop::NoPermission)
    );
}

#[test]
fn a_channel_carries_data_both_ways() {
    let mut world = World::new();
    let ann = world.ann();
    world.allocate(&ann);
    let packet = channel_packet(0x4001, b"hello");
    assert_eq!(
        world.send(&ann, &packet),
        FromClient::Dropped(Drop::NoChannel)
    );
    assert_eq!(code(&world.bind(&ann, 0x4001, peer())), None);
    assert!(matches!(
        world.send(&ann, &packet),
        FromClient::ToPeer { peer: to, payload, .. } if to == peer() && packet[payload.clone()] == *b"hello"
    ));
    let FromPeer::ToClient { client, prefix } = world.hear_peer(peer(), 5) else {
        panic!("it is permitted");
    };
    assert_eq!(
        (client, prefix.as_bytes()),
        (ann.tuple, &[0x40, 1, 0, 5][..])
    );
}

#[test]
fn a_channel_stands_for_one_peer_and_a_peer_has_one_channel() {
    let mut world = World::new();
    let ann = world.ann();
    world.allocate(&ann);
    assert_eq!(code(&world.bind(&ann, 0x4001, peer())), None);
    assert_eq!(
        code(&world.bind(&ann, 0x4001, peer())),
        None,
        "again is a refresh"
    );
    assert_eq!(code(&world.bind(&ann, 0x4002, peer())), Some(400));
    let other = SocketAddr::new(peer().ip(), 1);
    assert_eq!(code(&world.bind(&ann, 0x4001, other)), Some(400));
    for wrong in [0x3fff, 0x5000, 0] {
        assert_eq!(
            code(&world.bind(&ann, wrong, other)),
            Some(400),
            "{wrong:x}"
        );
    }
}

#[test]
fn special_peers_are_forbidden_however_they_are_named() {
    let mut world = World::with(Quota::default(), vec![Family::V4, Family::V6]);
    let ann = world.ann();
    world.ask(
        &ann,
        ALLOCATE,
        &[
            &RequestedTransport::new(17),
            &AdditionalAddressFamily::new(AddressFamily::IPV6),
        ],
    );
    for ip in [
        "127.0.0.1",
        "10.0.0.1",
        "169.254.169.254",
        "::1",
        "::ffff:127.0.0.1",
        "64:ff9b::a00:1",
        "2002:7f00:1::",
    ] {
        let peer = SocketAddr::new(ip.parse().unwrap(), 80);
        assert_eq!(code(&world.permit(&ann, peer)), Some(403), "{ip}");
        assert_eq!(code(&world.bind(&ann, 0x4001, peer)), Some(403), "{ip}");
        assert_eq!(
            world.send(&ann, &send_packet(peer, b"x")),
            FromClient::Dropped(Drop::Forbidden),
            "{ip}"
        );
    }
}

#[test]
fn one_bad_peer_of_many_permits_none() {
    let mut world = World::new();
    let ann = world.ann();
    world.allocate(&ann);
    let peers = [peer(), "10.0.0.1:1".parse().unwrap()];
    assert_eq!(code(&world.permit_all(&ann, &peers)), Some(403));
    assert_eq!(
        world.hear_peer(peer(), 1),
        FromPeer::Dropped(Drop::NoPermission)
    );
}

#[test]
fn nobody_touches_the_allocation_of_another() {
    let mut world = World::new();
    let ann = world.ann();
    world.allocate(&ann);
    // The same five-tuple, another user.
    let mut bob = world.client("192.0.2.1:1000", "bob", "bob's");
    assert_eq!(
        code(&world.ask(&bob, REFRESH, &[&Lifetime::new(0)])),
        Some(441)
    );
    assert_eq!(code(&world.permit(&bob, peer())), Some(441));
    // Another five-tuple.
    bob.tuple.client = "192.0.2.1:1001".parse().unwrap();
    world.challenge(&mut bob);
    assert_eq!(code(&world.ask(&bob, REFRESH, &[])), Some(437));
    assert_eq!(
        world.send(&bob, &channel_packet(0x4001, b"x")),
        FromClient::Dropped(Drop::NoAllocation)
    );
    assert_eq!(world.server.allocation_count(), 1);
}

#[test]
fn proofs_are_checked() {
    let mut world = World::new();
    let mut ann = world.ann();
    ann.password = "wrong".to_owned();
    assert_eq!(code(&world.allocate(&ann)), Some(401));
    ann.password = "ann's".to_owned();
    ann.username = "nobody".to_owned();
    assert_eq!(code(&world.allocate(&ann)), Some(401));
    ann.username = "ann".to_owned();
    world.pass(601);
    assert_eq!(code(&world.allocate(&ann)), Some(438), "an old nonce");
    world.challenge(&mut ann);
    ann.tuple.client = "192.0.2.9:9".parse().unwrap();
    assert_eq!(
        code(&world.allocate(&ann)),
        Some(438),
        "the nonce of another"
    );
    world.challenge(&mut ann);
    assert_eq!(code(&world.allocate(&ann)), None);
}

#[test]
fn an_allocation_ends_with_its_credentials() {
    let mut world = World::new();
    let (username, password) = ephemeral_credentials(SECRET, "eve", world.now.unix + 60);
    let mut eve = world.client("192.0.2.5:5", &username, &password);
    assert_eq!(granted(&world.allocate(&eve)), 60);
    world.pass(30);
    // Newer credentials of the same user go on.
    (eve.username, eve.password) = ephemeral_credentials(SECRET, "eve", world.now.unix + 100);
    assert_eq!(granted(&world.ask(&eve, REFRESH, &[])), 100);
    world.pass(99);
    assert_eq!(world.server.allocation_count(), 1);
    world.pass(1);
    assert_eq!(world.server.allocation_count(), 0);
    world.challenge(&mut eve);
    assert_eq!(code(&world.allocate(&eve)), Some(401));
}

#[test]
fn prolonged_credentials_keep_an_allocation_and_make_no_other() {
    let mut world = World::new();
    let until = world.now.unix + 60;
    let (username, password) = ephemeral_credentials(SECRET, "eve", until);
    let mut eve = world.client("192.0.2.5:5", &username, &password);
    assert_eq!(granted(&world.allocate(&eve)), 60);
    world
        .server
        .prolong(|identity| (&*identity.user == "eve").then_some(until + 40));
    world.pass(59);
    assert_eq!(granted(&world.ask(&eve, REFRESH, &[])), 41);
    world.pass(1);
    let mut elsewhere = world.client("192.0.2.5:6", &username, &password);
    world.challenge(&mut elsewhere);
    assert_eq!(code(&world.allocate(&elsewhere)), Some(401), "expired");
    world.challenge(&mut eve);
    assert_eq!(granted(&world.ask(&eve, REFRESH, &[])), 40);
    world.server.prolong(|_| None);
    world.pass(40);
    assert_eq!(world.server.allocation_count(), 0);
}

#[test]
fn an_allocation_outlives_its_credentials_where_that_is_wanted() {
    let mut world = World::new();
    let mut users = Users::new(REALM);
    users.add_secret(SECRET);
    users.prolong_allocations(Duration::from_secs(1800));
    world
        .server
        .reload(users, PeerPolicy::default(), Quota::default());
    let (username, password) = ephemeral_credentials(SECRET, "eve", world.now.unix + 60);
    let mut eve = world.client("192.0.2.5:5", &username, &password);
    assert_eq!(granted(&world.allocate(&eve)), 600);
    for _ in 0..3 {
        world.pass(599);
        world.challenge(&mut eve);
        assert!(granted(&world.ask(&eve, REFRESH, &[])) > 0);
    }
    let mut elsewhere = world.client("192.0.2.5:6", &username, &password);
    world.challenge(&mut elsewhere);
    assert_eq!(code(&world.allocate(&elsewhere)), Some(401), "expired");
    world.pass(63);
    assert_eq!(world.server.allocation_count(), 0);
}

#[test]
fn bandwidth_is_shared_by_all_that_a_user_holds() {
    let quota = Quota {
        // A burst is half a second: five packets.
        bandwidth_per_user: NonZeroU64::new(10_000),
        ..Quota::default()
    };
    let mut world = World::with(quota, vec![Family::V4]);
    let clients: Vec<Client> = [
        ("1", "ann", "ann's"),
        ("2", "ann", "ann's"),
        ("3", "bob", "bob's"),
    ]
    .iter()
    .map(|(n, user, password)| world.client(&format!("192.0.2.{n}:1"), user, password))
    .collect();
    for client in &clients {
        assert_eq!(code(&world.allocate(client)), None);
        assert_eq!(code(&world.bind(client, 0x4000, peer())), None);
    }
    let passes = |world: &mut World, client: &Client| {
        let packet = [&[0x40, 0, 3, 0xe8][..], &[0; 1000]].concat();
        match world.send(client, &packet) {
            FromClient::ToPeer { .. } => true,
            FromClient::Dropped(Drop::TooFast) => false,
            other @ (FromClient::Answered | FromClient::Dropped(_)) => panic!("{other:?}"),
        }
    };
    for client in [0, 0, 1, 1, 0] {
        assert!(passes(&mut world, &clients[client]));
    }
    assert!(!passes(&mut world, &clients[0]));
    assert!(!passes(&mut world, &clients[1]), "the same user");
    assert!(passes(&mut world, &clients[2]), "another user");
    world.pass(1);
    assert!(passes(&mut world, &clients[0]));
    // The other direction has a meter of its own.
    let relay = world.last_relay.unwrap();
    let sent = (0..6).map(|_| world.server.handle_peer(relay, peer(), 1000, world.now));
    let dropped = sent.filter(|sent| *sent == FromPeer::Dropped(Drop::TooFast));
    assert_eq!(dropped.count(), 1);
}

#[test]
fn quotas_bound_what_one_user_holds() {
    let quota = Quota {
        allocations_per_user: 2,
        permissions: 2,
        channels: 1,
        ..Quota::default()
    };
    let mut world = World::with(quota, vec![Family::V4]);
    let clients: Vec<Client> = (0..3)
        .map(|i| world.client(&format!("192.0.2.{i}:1"), "ann", "ann's"))
        .collect();
    assert_eq!(code(&world.allocate(&clients[0])), None);
    assert_eq!(code(&world.allocate(&clients[1])), None);
    assert_eq!(code(&world.allocate(&clients[2])), Some(486));
    world.ask(&clients[0], REFRESH, &[&Lifetime::new(0)]);
    assert_eq!(code(&world.allocate(&clients[2])), None);
    for (ip, expected) in [
        ("8.8.8.1", None),
        ("8.8.8.2", None),
        ("8.8.8.1", None),
        ("8.8.8.3", Some(508)),
    ] {
        let peer = SocketAddr::new(ip.parse().unwrap(), 1);
        assert_eq!(code(&world.permit(&clients[2], peer)), expected, "{ip}");
    }
    world.pass(301);
    assert_eq!(code(&world.bind(&clients[2], 0x4000, peer())), None);
    assert_eq!(
        code(&world.bind(&clients[2], 0x4001, "8.8.8.8:1".parse().unwrap())),
        Some(508)
    );
}

#[test]
fn a_revoked_user_loses_every_allocation() {
    let mut world = World::new();
    let ann = world.ann();
    let bob = world.client("192.0.2.2:2", "bob", "bob's");
    world.allocate(&ann);
    world.allocate(&bob);
    let revoked = world.server.revoke("ann", world.now.unix, world.now);
    assert_eq!((revoked.ended, revoked.has_password), (1, true));
    world.settle();
    assert_eq!(
        (world.server.allocation_count(), world.closed.len()),
        (1, 1)
    );
    assert_eq!(
        world.send(&ann, &send_packet(peer(), b"x")),
        FromClient::Dropped(Drop::NoAllocation)
    );
}

#[test]
fn what_was_handed_out_before_a_revocation_lets_nobody_in_again() {
    let mut world = World::new();
    let lifetime = 300;
    let credentials = |world: &mut World, address: &str, name: &str| {
        let (username, password) = ephemeral_credentials(SECRET, name, world.now.unix + lifetime);
        world.client(address, &username, &password)
    };
    let before = credentials(&mut world, "192.0.2.1:1", "ann");
    let other = credentials(&mut world, "192.0.2.2:1", "bob");
    assert_eq!(code(&world.allocate(&before)), None);
    let until = world.now.unix + lifetime;
    let revoked = world.server.revoke(&before.username, until, world.now);
    assert_eq!(
        (revoked.ended, revoked.is_remembered, revoked.has_password),
        (1, true, true)
    );
    world.settle();
    assert_eq!(code(&world.allocate(&before)), Some(401), "the same again");
    assert_eq!(code(&world.allocate(&other)), None, "another name");
    world.pass(1);
    let after = credentials(&mut world, "192.0.2.3:1", "ann");
    assert_eq!(code(&world.allocate(&after)), None, "handed out later");
    assert_eq!(world.server.revocation_count(world.now), 1);
    world.pass(lifetime);
    assert_eq!(world.server.revocation_count(world.now), 0);
    assert_eq!(
        code(&world.allocate(&before)),
        Some(401),
        "it is over anyway"
    );
}

#[test]
fn a_session_tells_what_it_holds_and_can_be_ended_alone() {
    let mut world = World::new();
    let (ann, again) = (world.ann(), world.client("192.0.2.9:9", "ann", "ann's"));
    world.allocate(&ann);
    let relay = world.last_relay.unwrap();
    world.allocate(&again);
    world.bind(&ann, 0x4000, peer());
    world.send(&ann, &send_packet(peer(), b"hello"));
    for _packet in 0..2 {
        let now = world.now;
        world.server.handle_peer(relay, peer(), 7, now);
    }
    let stranger = "9.9.9.9:9".parse().unwrap();
    world.server.handle_peer(relay, stranger, 7, world.now);
    world.pass(10);
    let sessions: Vec<_> = world.server.sessions(world.now).collect();
    let its = sessions
        .iter()
        .find(|session| session.client == ann.tuple)
        .unwrap();
    assert_eq!((&*its.user, its.relayed.len()), ("ann", 1));
    assert_eq!((its.permissions, its.channels), (1, 1));
    assert_eq!((its.age.as_secs(), its.expires_in.as_secs()), (10, 590));
    let expected = Traffic {
        packets_to_peers: 1,
        bytes_to_peers: 5,
        packets_to_client: 2,
        bytes_to_client: 14,
    };
    assert_eq!(its.traffic, expected, "what was dropped does not count");
    let id = AllocationId::from_bits(its.id.to_bits());
    assert_eq!(world.server.revoke_session(id).as_deref(), Some("ann"));
    assert_eq!(world.server.revoke_session(id), None);
    assert_eq!(world.server.allocation_count(), 1);
    assert_eq!(code(&world.allocate(&ann)), None, "it may come back");
}

#[test]
fn what_happens_is_told_with_its_reason() {
    let mut world = World::new();
    let clients: Vec<Client> = (1..=4)
        .map(|i| world.client(&format!("192.0.2.{i}:1"), "ann", "ann's"))
        .collect();
    world.events.clear();
    for client in &clients {
        world.allocate(client);
    }
    world.bind(&clients[0], 0x4000, peer());
    world.send(&clients[0], &send_packet(peer(), b"hello"));
    assert_eq!(code(&world.allocate(&clients[0])), Some(437));
    assert_eq!(world.events.last(), Some(&Event::Refused(437)));
    world.ask(&clients[0], REFRESH, &[&Lifetime::new(0)]);
    world.server.client_gone(&clients[1].tuple);
    let id = world.server.sessions(world.now).next().unwrap().id;
    world.server.revoke_session(id);
    world.settle();
    world.pass(601);
    let refused = world.naked(&clients[0], ALLOCATE, &[&RequestedTransport::new(17)]);
    assert_eq!(code(&refused), Some(401));
    let is_begun = |event: &&Event| matches!(event, Event::Allocated { .. });
    assert_eq!(world.events.iter().filter(is_begun).count(), 4);
    let endings: Vec<(Ending, u64)> = world
        .events
        .iter()
        .filter_map(|event| match event {
            Event::Ended { why, traffic, .. } => Some((*why, traffic.bytes_to_peers)),
            Event::Allocated { .. } | Event::Moved | Event::Refused(_) => None,
        })
        .collect();
    let expected = [
        (Ending::Deleted, 5),
        (Ending::ClientGone, 0),
        (Ending::Revoked, 0),
        (Ending::Expired, 0),
    ];
    assert_eq!(endings, expected);
    assert_eq!(world.events.last(), Some(&Event::Refused(401)));
}

#[test]
fn a_server_that_drains_keeps_its_clients_and_takes_no_more() {
    let mut world = World::new();
    let ann = world.ann();
    let bob = world.client("192.0.2.2:2", "bob", "bob's");
    let request = signed(&ann, ALLOCATE, &[&RequestedTransport::new(17)]);
    world.send(&ann, &request);
    let answer = world.settle();
    world.server.drain();
    world.send(&ann, &request);
    assert_eq!(world.settle(), answer, "its answer was lost");
    assert_eq!(code(&world.allocate(&bob)), Some(508));
    assert_eq!(code(&world.bind(&ann, 0x4000, peer())), None);
    assert_eq!(code(&world.ask(&ann, REFRESH, &[])), None);
    assert_eq!(code(&world.naked(&bob, BINDING, &[])), None);
}

#[test]
fn a_reload_cuts_off_who_is_gone_and_what_is_denied() {
    let mut world = World::new();
    let ann = world.ann();
    let bob = world.client("192.0.2.2:2", "bob", "bob's");
    let (username, password) = ephemeral_credentials(SECRET, "eve", world.now.unix + 600);
    let eve = world.client("192.0.2.3:3", &username, &password);
    for client in [&ann, &bob, &eve] {
        assert_eq!(code(&world.allocate(client)), None);
        assert_eq!(code(&world.bind(client, 0x4000, peer())), None);
    }
    let mut users = Users::new(REALM);
    users.add("ann", "ann's");
    users.add("bob", "another");
    users.add_secret(SECRET);
    world
        .server
        .reload(users, PeerPolicy::default(), Quota::default());
    world.settle();
    let packet = channel_packet(0x4000, b"x");
    for (client, is_known) in [(&ann, true), (&bob, false), (&eve, true)] {
        let passes = matches!(world.send(client, &packet), FromClient::ToPeer { .. });
        assert_eq!(passes, is_known, "{}", client.username);
    }
    let mut users = Users::new(REALM);
    users.add("ann", "ann's");
    let peers = PeerPolicy {
        deny: vec![peer().ip().into()],
        ..PeerPolicy::default()
    };
    world.server.reload(users, peers, Quota::default());
    world.settle();
    assert_eq!(world.server.allocation_count(), 1);
    assert_eq!(
        world.send(&ann, &packet),
        FromClient::Dropped(Drop::NoChannel)
    );
    assert_eq!(code(&world.permit(&ann, peer())), Some(403));
}

#[test]
fn what_is_not_understood_is_said() {
    let mut world = World::new();
    let ann = world.ann();
    let odd = RawAttribute::new(0x7777.into(), &[1, 2, 3, 4]);
    let answer = world.ask(&ann, ALLOCATE, &[&RequestedTransport::new(17), &odd]);
    let message = Message::from_bytes(&answer).unwrap();
    assert_eq!(code(&answer), Some(420));
    assert!(
        message
            .attribute::<UnknownAttributes>()
            .unwrap()
            .has_attribute(0x7777.into())
    );
    assert_eq!(
        code(&world.ask(&ann, ALLOCATE, &[])),
        Some(400),
        "no transport"
    );
    assert_eq!(
        code(&world.ask(&ann, ALLOCATE, &[&RequestedTransport::new(132)])),
        Some(442)
    );
    let v6 = RequestedAddressFamily::new(AddressFamily::IPV6);
    assert_eq!(
        code(&world.ask(&ann, ALLOCATE, &[&RequestedTransport::new(17), &v6])),
        Some(440)
    );
    world.allocate(&ann);
    assert_eq!(
        code(&world.permit(&ann, "[2a00::5]:1".parse().unwrap())),
        Some(443)
    );
}

#[test]
fn an_even_port_and_the_one_beside_it() {
    let mut world = World::new();
    let ann = world.ann();
    let answer = world.ask(
        &ann,
        ALLOCATE,
        &[&RequestedTransport::new(17), &EvenPort::new(true)],
    );
    let message = Message::from_bytes(&answer).unwrap();
    let token: ReservationToken = message.attribute().unwrap();
    let second = world.client("192.0.2.1:1001", "ann", "ann's");
    let thief = world.client("192.0.2.1:1002", "bob", "bob's");
    let ask = [&RequestedTransport::new(17) as &dyn AttributeWrite, &token];
    assert_eq!(code(&world.ask(&thief, ALLOCATE, &ask)), Some(508));
    assert_eq!(code(&world.ask(&second, ALLOCATE, &ask)), None);
    world.pass(31);
    assert_eq!(world.released, 0, "it was asked for");
    // Who may have no more does not lose what was kept.
    let quota = Quota {
        allocations_per_user: 1,
        ..Quota::default()
    };
    let mut poor = World::with(quota, vec![Family::V4]);
    let ann = poor.ann();
    let answer = poor.ask(
        &ann,
        ALLOCATE,
        &[&RequestedTransport::new(17), &EvenPort::new(true)],
    );
    let message = Message::from_bytes(&answer).unwrap();
    let token: ReservationToken = message.attribute().unwrap();
    let second = poor.client("192.0.2.1:1001", "ann", "ann's");
    let ask = [&RequestedTransport::new(17) as &dyn AttributeWrite, &token];
    assert_eq!(code(&poor.ask(&second, ALLOCATE, &ask)), Some(486));
    poor.pass(31);
    assert_eq!(poor.released, 1);
    let third = world.client("192.0.2.1:1003", "ann", "ann's");
    world.ask(
        &third,
        ALLOCATE,
        &[&RequestedTransport::new(17), &EvenPort::new(true)],
    );
    world.pass(31);
    assert_eq!(world.released, 1);
}

proptest! {
    /// Whatever comes, nothing panics, and only what was permitted goes out.
    #[test]
    fn strangers_reach_nobody(packets in proptest::collection::vec((0u8..4, proptest::collection::vec(any::<u8>(), 0..80)), 0..40)) {
        let mut world = World::new();
        let ann = world.ann();
        world.allocate(&ann);
        for (kind, mut packet) in packets {
            // Of the shapes that are looked at first.
            match (kind, packet.as_mut_slice()) {
                (0, [first, ..]) => *first = 0x40,
                (1, [a, b, ..]) => (*a, *b) = (0, 0x16),
                (2, [a, b, _, _, c @ .., _]) if c.len() >= 4 => {
                    (*a, *b) = (0, 3);
                    c[..4].copy_from_slice(&[0x21, 0x12, 0xa4, 0x42]);
                }
                _ => {}
            }
            let sent = world.send(&ann, &packet);
            prop_assert!(!matches!(sent, FromClient::ToPeer { .. }), "{sent:?}");
            world.settle();
            world.pass(1);
        }
        prop_assert_eq!(world.server.allocation_count(), 1);
    }
}

#[test]
fn both_families_at_once_or_what_there_is() {
    let ask = [
        &RequestedTransport::new(17) as &dyn AttributeWrite,
        &AdditionalAddressFamily::new(AddressFamily::IPV6),
    ];
    let mut world = World::with(Quota::default(), vec![Family::V4, Family::V6]);
    let ann = world.ann();
    let answer = world.ask(&ann, ALLOCATE, &ask);
    let message = Message::from_bytes(&answer).unwrap();
    assert!(message.nth_attribute::<XorRelayedAddress>(1).is_ok());
    world.ask(&ann, REFRESH, &[&Lifetime::new(0)]);
    assert_eq!(world.closed.len(), 2);

    let mut world = World::new();
    let ann = world.ann();
    let answer = world.ask(&ann, ALLOCATE, &ask);
    let message = Message::from_bytes(&answer).unwrap();
    let error: AddressErrorCode = message.attribute().unwrap();
    assert_eq!((code(&answer), error.error().code()), (None, 440));
}

#[test]
fn a_client_hears_of_packets_that_did_not_arrive_if_it_may_hear_of_the_peer() {
    let mut world = World::new();
    let ann = world.ann();
    world.allocate(&ann);
    let relay = world.last_relay.unwrap();
    let unreachable = IcmpError {
        kind: 3,
        code: 1,
        data: 0,
    };
    let hears = |world: &mut World, error: IcmpError| {
        world.server.handle_icmp(relay, peer(), error, world.now);
        world.settle()
    };
    assert_eq!(hears(&mut world, unreachable), None, "no permission");
    world.permit(&ann, peer());
    let told = hears(&mut world, unreachable).unwrap();
    let message = Message::from_bytes(&told).unwrap();
    let named: XorPeerAddress = message.attribute().unwrap();
    assert_eq!(named.addr(message.transaction_id()), peer());
    let icmp: Icmp = message.attribute().unwrap();
    assert_eq!((icmp.icmp_type(), icmp.code(), icmp.data()), (3, 1, 0));
    let told = hears(&mut world, IcmpError::too_big(Family::V4, 1280)).unwrap();
    let icmp: Icmp = Message::from_bytes(&told).unwrap().attribute().unwrap();
    assert_eq!((icmp.icmp_type(), icmp.code(), icmp.data()), (3, 4, 1280));
    let redirect = IcmpError {
        kind: 5,
        ..unreachable
    };
    assert_eq!(hears(&mut world, redirect), None);
    world.pass(301);
    assert_eq!(
        hears(&mut world, unreachable),
        None,
        "no permission any more"
    );
}
