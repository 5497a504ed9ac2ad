//! Flows of clients that have no channel for datagrams, and of clients that ask for what they may not.

use bytes::Bytes;
use h2::SendStream;
use http::{Method, Request, StatusCode};
use portway_protocol::datagram::{FLOW_HEADER, capsule};
use tokio::net::UdpSocket;

use super::{Client, Node, rest};

/// A flow under this name; its request goes on.
async fn open(client: &Client, flow: &str) -> (SendStream<Bytes>, StatusCode, h2::RecvStream) {
    let request = Request::builder()
        .method(Method::POST)
        .uri("http://app/")
        .header(FLOW_HEADER, flow)
        .body(())
        .unwrap();
    let mut requests = client.requests.clone().ready().await.unwrap();
    let (response, body) = requests.send_request(request, false).unwrap();
    let (head, answer) = response.await.unwrap().into_parts();
    (body, head.status, answer)
}

/// A node before a service that speaks UDP.
async fn stage() -> (Node, Client, UdpSocket) {
    let service = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let target = format!("udp://{}", service.local_addr().unwrap());
    let mut node = Node::everything(&target);
    let client = node.open().await;
    (node, client, service)
}

#[tokio::test]
async fn datagrams_go_as_capsules_where_there_is_no_channel() {
    let (_node, client, service) = stage().await;
    let (mut body, status, mut answer) = open(&client, "7").await;
    assert_eq!(status, StatusCode::OK);
    let mut reader = capsule::Reader::default();
    let mut heard = [0; 100];
    for question in [&b"one"[..], b"", b"three"] {
        // A capsule of no known type is skipped.
        let capsules = [&b"\x21\x02no"[..], &capsule::encode(question).unwrap()].concat();
        body.send_data(capsules.into(), false).unwrap();
        let (len, gateway) = service.recv_from(&mut heard).await.unwrap();
        assert_eq!(&heard[..len], question);
        service.send_to(question, gateway).await.unwrap();
        let read = loop {
            if let Some(read) = reader.take().unwrap() {
                break read;
            }
            reader.push(&answer.data().await.unwrap().unwrap());
        };
        assert_eq!(read, question);
    }
    // Who ends the request ends the flow, and the answer.
    body.send_data(Bytes::new(), true).unwrap();
    assert_eq!(rest(answer).await.unwrap(), b"");
}

#[tokio::test]
async fn a_flow_is_named_once_and_properly() {
    let (_node, client, _service) = stage().await;
    let (_first, status, _answer) = open(&client, "7").await;
    assert_eq!(status, StatusCode::OK);
    for name in ["7", "", "-1", "1073741824", "seven"] {
        let (_body, status, answer) = open(&client, name).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{name:?}");
        drop(answer);
    }
    let page = client.get("/").await.unwrap();
    assert_eq!(page.headers()["portway-reason"], "SERVICE_NOT_HTTP");
}
