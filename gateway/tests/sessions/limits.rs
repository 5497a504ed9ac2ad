//! How many tunnels there may be to a service, and how long they may be silent.

use std::io::ErrorKind;
use std::time::Duration;

use bytes::Bytes;
use h2::{RecvStream, SendStream};
use http::{Method, Request, Response, StatusCode};
use portway_gateway::Limits;
use portway_protocol::datagram::FLOW_HEADER;
use portway_tests::PATIENCE;
use portway_tests::upstream::Upstream;
use tokio::io::AsyncReadExt as _;
use tokio::net::{TcpListener, TcpSocket, TcpStream, UdpSocket};

use super::{Client, Node, body, reason, request, rest};

/// A short one: there is a test that waits for it.
const MOMENT: Duration = Duration::from_millis(200);

/// Asks for a tunnel, which goes on.
async fn open(client: &Client) -> (SendStream<Bytes>, Response<RecvStream>) {
    send(client, request(Method::POST, "/")).await
}

async fn send(client: &Client, request: Request<()>) -> (SendStream<Bytes>, Response<RecvStream>) {
    let mut requests = client.requests.clone().ready().await.unwrap();
    let (response, stream) = requests.send_request(request, false).unwrap();
    (stream, response.await.unwrap())
}

/// A node before a service that speaks TCP.
async fn stage(limits: Limits) -> (Node, TcpListener) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let target = format!("tcp://{}", listener.local_addr().unwrap());
    (Node::limited(&target, limits), listener)
}

fn at_most(connections: u32) -> Limits {
    Limits {
        connections: connections.try_into().unwrap(),
        ..Limits::default()
    }
}

fn idle_after(timeout: Duration) -> Limits {
    Limits {
        idle_timeout: Some(timeout),
        ..Limits::default()
    }
}

/// Asks for a flow.
fn flow(name: u32) -> Request<()> {
    let mut flow = request(Method::POST, "/");
    flow.headers_mut().insert(FLOW_HEADER, name.into());
    flow
}

/// What comes in time.
async fn soon<T>(coming: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, coming).await.unwrap()
}

/// Until there is a place for another one.
async fn place(again: impl AsyncFn() -> Response<RecvStream>) {
    soon(async {
        while again().await.status() != StatusCode::OK {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_service_takes_so_many_connections_over_all_sessions() {
    let (mut node, listener) = stage(at_most(2)).await;
    let (ann, bob) = (node.open().await, node.open().await);
    let (_one, first) = open(&ann).await;
    let (_two, second) = open(&bob).await;
    let statuses = [first.status(), second.status()];
    assert_eq!(statuses, [StatusCode::OK; 2]);
    for client in [&ann, &bob] {
        let (_three, third) = open(client).await;
        assert_eq!(third.status(), StatusCode::TOO_MANY_REQUESTS);
        assert_eq!(reason(&third), "SERVICE_FULL");
    }
    // There is a place again when one has ended.
    let (far, _) = listener.accept().await.unwrap();
    far.set_zero_linger().unwrap();
    drop(far);
    place(async || open(&bob).await.1).await;
}

#[tokio::test]
async fn flows_are_counted_too() {
    let service = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let target = format!("udp://{}", service.local_addr().unwrap());
    let mut node = Node::limited(&target, at_most(1));
    let client = node.open().await;
    let (mut first, answer) = send(&client, flow(1)).await;
    assert_eq!(answer.status(), StatusCode::OK);
    let (_second, refused) = send(&client, flow(2)).await;
    assert_eq!(reason(&refused), "SERVICE_FULL");
    // A flow that has ended has given its place back.
    first.send_data(Bytes::new(), true).unwrap();
    body(answer).await.unwrap();
    place(async || send(&client, flow(3)).await.1).await;
}

#[tokio::test]
async fn a_silent_flow_ends() {
    let service = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let target = format!("udp://{}", service.local_addr().unwrap());
    let mut node = Node::limited(&target, idle_after(MOMENT));
    let client = node.open().await;
    let (_flow, answer) = send(&client, flow(1)).await;
    assert_eq!(answer.status(), StatusCode::OK);
    assert_eq!(soon(body(answer)).await.unwrap(), b"");
}

#[tokio::test]
async fn a_silent_connection_is_cut_off_at_both_ends() {
    let (mut node, listener) = stage(idle_after(MOMENT)).await;
    let client = node.open().await;
    let (_near, answer) = open(&client).await;
    assert_eq!(answer.status(), StatusCode::OK);
    let (mut far, _) = listener.accept().await.unwrap();
    let read = soon(far.read(&mut [0; 16])).await;
    assert_eq!(read.unwrap_err().kind(), ErrorKind::ConnectionReset);
    let heard = soon(rest(answer.into_body())).await;
    assert!(heard.is_err(), "no clean end");
}

#[tokio::test]
async fn a_silent_websocket_is_cut_off() {
    let upstream = Upstream::start().await.unwrap();
    let mut node = Node::limited(&upstream.target(), idle_after(MOMENT));
    let client = node.open().await;
    let mut connect = request(Method::CONNECT, "/ws");
    let websocket = h2::ext::Protocol::from_static("websocket");
    connect.extensions_mut().insert(websocket);
    let (_outgoing, response) = send(&client, connect).await;
    assert_eq!(response.status(), StatusCode::OK);
    // How it ends does not matter: RFC 6455 has an end of its own, which was not said.
    drop(soon(rest(response.into_body())).await);
}

#[tokio::test]
async fn a_program_has_so_long_to_take_a_connection() {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = socket.listen(1).unwrap();
    let address = listener.local_addr().unwrap();
    // The system takes one more than it was told, and leaves others waiting.
    let mut waiting = Vec::new();
    for _ in 0..2 {
        waiting.push(TcpStream::connect(address).await.unwrap());
    }
    let limits = Limits {
        connect_timeout: MOMENT,
        ..Limits::default()
    };
    let mut node = Node::limited(&format!("tcp://{address}"), limits);
    let client = node.open().await;
    let (_near, answer) = open(&client).await;
    assert_eq!(answer.status(), StatusCode::GATEWAY_TIMEOUT);
    assert_eq!(reason(&answer), "UPSTREAM_CONNECT_TIMEOUT");
}
