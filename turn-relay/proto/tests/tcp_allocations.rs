//! Clients with TCP allocations (RFC 6062), in virtual time.

#![allow(clippy::unwrap_used, reason = "in a test, a panic is the report")]

mod world;

use portway_relay_proto::auth::Users;
use portway_relay_proto::command::{Command, Family, RelayId};
use portway_relay_proto::peer_policy::PeerPolicy;
use portway_relay_proto::quota::Quota;
use portway_relay_proto::server::{Drop, FromClient};
use portway_relay_proto::tcp::{CONNECT, CONNECTION_ATTEMPT, CONNECTION_BIND, ConnectionId};
use stun_types::attribute::AttributeWrite;
use stun_types::message::Message;
use turn_types::attribute::{
    ConnectionId as ConnectionIdAttribute, DontFragment, EvenPort, RequestedTransport,
    XorPeerAddress,
};
use turn_types::message::ALLOCATE;
use world::*;

const TCP: u8 = 6;

/// A client of a user that comes by a connection.
fn streaming(world: &mut World, address: &str, user: &str) -> Client {
    let mut client = world.client(address, user, &format!("{user}'s"));
    client.tuple.listener = STREAM;
    world.challenge(&mut client);
    client
}

/// A client with a TCP allocation.
fn ann(world: &mut World) -> (Client, RelayId) {
    let client = streaming(world, "192.0.2.1:1", "ann");
    let answer = world.ask(&client, ALLOCATE, &[&RequestedTransport::new(TCP)]);
    assert_eq!(code(&answer), None);
    (client, world.last_relay.unwrap())
}

/// Asks for a connection with the peer; its name, or why not.
fn connect(world: &mut World, client: &Client) -> Result<ConnectionId, u16> {
    let request = naming_peers(client, CONNECT, &[peer()], None);
    world
        .server
        .handle_client(client.tuple, &request, world.now);
    if let Some(answer) = world.settle() {
        return Err(code(&answer).unwrap());
    }
    match world.wishes.pop() {
        Some(Command::Connect {
            connection,
            peer: to,
            ..
        }) if to == peer() => Ok(connection),
        other => panic!("{other:?}"),
    }
}

/// The peer is reached, or not; what the client hears.
fn connected(world: &mut World, id: ConnectionId, is_reached: bool) -> Vec<u8> {
    world.server.peer_connected(id, is_reached, world.now);
    world.settle().unwrap()
}

fn id(answer: &[u8]) -> ConnectionId {
    let message = Message::from_bytes(answer).unwrap();
    let id: ConnectionIdAttribute = message.attribute().unwrap();
    ConnectionId(id.id())
}

fn bind(world: &mut World, client: &Client, id: ConnectionId) -> Vec<u8> {
    world.ask(
        client,
        CONNECTION_BIND,
        &[&ConnectionIdAttribute::new(id.0)],
    )
}

#[test]
fn a_connection_of_a_client_is_joined_to_one_with_a_peer() {
    let mut world = World::new();
    let (ann, _) = ann(&mut world);
    let connection = connect(&mut world, &ann).unwrap();
    assert_eq!(connect(&mut world, &ann), Err(446), "under way");
    let answer = connected(&mut world, connection, true);
    assert_eq!((code(&answer), id(&answer)), (None, connection));
    assert_eq!(connect(&mut world, &ann), Err(446), "there");

    let data = streaming(&mut world, "192.0.2.1:2", "ann");
    let other = streaming(&mut world, "192.0.2.7:2", "bob");
    assert_eq!(code(&bind(&mut world, &other, connection)), Some(441));
    assert_eq!(
        code(&bind(&mut world, &ann, connection)),
        Some(400),
        "it is for control"
    );
    let nobody = ConnectionId(connection.0 ^ 1);
    assert_eq!(code(&bind(&mut world, &data, nobody)), Some(400));
    let answer = bind(&mut world, &data, connection);
    assert_eq!((code(&answer), id(&answer)), (None, connection));
    let client = data.tuple;
    assert_eq!(
        world.wishes.pop(),
        Some(Command::Splice { connection, client })
    );
    assert!(world.server.has_allocation(&client), "it may stay");
    let again = streaming(&mut world, "192.0.2.1:3", "ann");
    assert_eq!(
        code(&bind(&mut world, &again, connection)),
        Some(400),
        "it is taken"
    );

    world.server.spliced(connection, 5, 7);
    let session = world.server.sessions(world.now).next().unwrap();
    assert_eq!(
        (
            session.traffic.bytes_to_peers,
            session.traffic.bytes_to_client
        ),
        (5, 7)
    );
    world.pass(500);
    assert!(
        world.server.has_allocation(&client),
        "it has no deadline of its own"
    );
    world.server.client_gone(&client);
    world.settle();
    assert_eq!(
        world.wishes.pop(),
        Some(Command::CloseConnection(connection))
    );
    assert!(!world.server.has_allocation(&client));
    connect(&mut world, &ann).unwrap();
}

#[test]
fn a_peer_that_is_not_reached_is_told() {
    let mut world = World::new();
    let (ann, _) = ann(&mut world);
    let refused = connect(&mut world, &ann).unwrap();
    assert_eq!(code(&connected(&mut world, refused, false)), Some(447));
    let silent = connect(&mut world, &ann).unwrap();
    world.pass(30);
    assert_eq!(world.wishes.pop(), Some(Command::CloseConnection(silent)));
    let unused = connect(&mut world, &ann).unwrap();
    connected(&mut world, unused, true);
    world.pass(29);
    assert!(world.wishes.is_empty());
    world.pass(1);
    assert_eq!(world.wishes.pop(), Some(Command::CloseConnection(unused)));
    connect(&mut world, &ann).unwrap();
}

#[test]
fn a_peer_comes_by_itself_if_it_may() {
    let mut world = World::new();
    let (ann, relay) = ann(&mut world);
    assert_eq!(world.server.peer_arrived(relay, peer(), world.now), None);
    world.permit(&ann, peer());
    let connection = world.server.peer_arrived(relay, peer(), world.now).unwrap();
    let told = world.settle().unwrap();
    let message = Message::from_bytes(&told).unwrap();
    assert_eq!(message.method(), CONNECTION_ATTEMPT);
    assert_eq!(id(&told), connection);
    let named: XorPeerAddress = message.attribute().unwrap();
    assert_eq!(named.addr(message.transaction_id()), peer());
    assert_eq!(
        world.server.peer_arrived(relay, peer(), world.now),
        None,
        "once"
    );
    let data = streaming(&mut world, "192.0.2.1:2", "ann");
    assert_eq!(code(&bind(&mut world, &data, connection)), None);
    world.server.revoke("ann", 0, world.now);
    world.settle();
    assert!(world.wishes.contains(&Command::CloseConnection(connection)));
    assert!(!world.server.has_allocation(&data.tuple));
}

#[test]
fn what_does_not_fit_is_refused() {
    let mut world = World::new();
    let tcp = RequestedTransport::new(TCP);
    let datagrams = world.ann();
    assert_eq!(code(&world.ask(&datagrams, ALLOCATE, &[&tcp])), Some(400));
    let client = streaming(&mut world, "192.0.2.1:1", "ann");
    for attribute in [
        &EvenPort::new(false) as &dyn AttributeWrite,
        &DontFragment::new(),
    ] {
        assert_eq!(
            code(&world.ask(&client, ALLOCATE, &[&tcp, attribute])),
            Some(400)
        );
    }
    assert_eq!(
        code(&world.ask(&client, ALLOCATE, &[&RequestedTransport::new(132)])),
        Some(442)
    );
    assert_eq!(
        connect(&mut world, &client),
        Err(437),
        "nothing is allocated"
    );
    assert_eq!(code(&world.ask(&client, ALLOCATE, &[&tcp])), None);
    assert_eq!(
        code(&world.bind(&client, 0x4000, peer())),
        Some(400),
        "no channels"
    );
    world.permit(&client, peer());
    let sent = world.send(&client, &send_packet(peer(), b"datagram"));
    assert_eq!(sent, FromClient::Dropped(Drop::NoPermission));
    let request = naming_peers(&client, CONNECT, &["10.0.0.1:80".parse().unwrap()], None);
    world.send(&client, &request);
    assert_eq!(code(&world.settle().unwrap()), Some(403));
    // An allocation for datagrams has no connections.
    let other = streaming(&mut world, "192.0.2.1:9", "ann");
    world.allocate(&other);
    assert_eq!(connect(&mut world, &other), Err(437));
}

#[test]
fn an_allocation_holds_a_few_connections() {
    let quota = Quota {
        channels: 1,
        ..Quota::default()
    };
    let mut world = World::with(quota, vec![Family::V4]);
    let (ann, _) = ann(&mut world);
    connect(&mut world, &ann).unwrap();
    let second = naming_peers(&ann, CONNECT, &["8.8.4.4:80".parse().unwrap()], None);
    world.send(&ann, &second);
    assert_eq!(code(&world.settle().unwrap()), Some(508));
}

#[test]
fn a_peer_that_may_not_be_named_any_more_is_cut_off() {
    let mut world = World::new();
    let (ann, _) = ann(&mut world);
    let connection = connect(&mut world, &ann).unwrap();
    connected(&mut world, connection, true);
    let data = streaming(&mut world, "192.0.2.1:2", "ann");
    assert_eq!(code(&bind(&mut world, &data, connection)), None);
    let mut users = Users::new(REALM);
    users.add("ann", "ann's");
    let denied = PeerPolicy {
        deny: vec![peer().ip().into()],
        ..PeerPolicy::default()
    };
    world.server.reload(users, denied, Quota::default());
    world.settle();
    assert_eq!(world.server.allocation_count(), 1);
    assert!(world.wishes.contains(&Command::CloseConnection(connection)));
    assert!(!world.server.has_allocation(&data.tuple));
}
