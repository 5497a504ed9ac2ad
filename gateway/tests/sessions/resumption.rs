//! A session whose channel is lost goes on over another one, for its own client and nobody else.

use portway_protocol::id::SessionId;
use portway_protocol::session::resumption::ResumptionKey;

use super::*;

const LENGTH: usize = 3_000_000;

/// Another grant for the same service, with the same key.
const OTHER_GRANT: [u8; 9] = [8; 9];

fn visit(resumption: Resumption, key: &SigningKey) -> Visit<'_> {
    Visit {
        service: "app",
        key,
        grant: GRANT,
        device: device(),
        resumption: Some(resumption),
    }
}

async fn begun(client: &Client) -> (RecvStream, Vec<u8>) {
    let path = format!("/bytes?n={LENGTH}");
    let mut stream = client.get(&path).await.unwrap().into_body();
    let first = piece(&mut stream).await;
    (stream, first)
}

/// The next piece of a body.
async fn piece(stream: &mut RecvStream) -> Vec<u8> {
    let piece = stream.data().await.unwrap().unwrap();
    stream.flow_control().release_capacity(piece.len()).unwrap();
    piece.to_vec()
}

#[tokio::test]
async fn a_download_goes_on_over_another_channel() {
    let upstream = Upstream::start().await.unwrap();
    let mut node = Node::everything(&upstream.target());
    let channel = node.channel();
    let resumption = shake_hands(&channel, "app", &key(2)).await.unwrap();
    let (client, carriers) = Client::lasting(channel).await;
    let (mut stream, mut bytes) = begun(&client).await;
    for _ in 0..3 {
        let next = node.channel();
        let visited = visit(resumption.clone(), &key(2)).shake_hands(&next).await;
        let (introduction, _accepted) = visited.unwrap();
        carriers.send(carrier(next)).await.unwrap();
        node.tasks.join_next().await.unwrap().unwrap().unwrap();
        let views = node.context.table.views();
        assert_eq!(views.len(), 1);
        assert_eq!(views[0].session, resumption.session);
        assert_eq!(views[0].introduction, introduction, "the relay knows it so");
        bytes.extend(piece(&mut stream).await);
    }
    let right: Vec<u8> = (0..LENGTH).map(byte).collect();
    bytes.extend(rest(stream).await.unwrap());
    assert!(bytes == right);
    assert_eq!(upstream.requests().len(), 1, "it was asked once");
}

#[tokio::test]
async fn a_session_waits_for_its_client_when_its_channel_has_closed() {
    let upstream = Upstream::start().await.unwrap();
    let mut node = Node::everything(&upstream.target());
    let channel = node.channel();
    let resumption = shake_hands(&channel, "app", &key(2)).await.unwrap();
    let (client, carriers) = Client::lasting(channel).await;
    let (stream, mut bytes) = begun(&client).await;
    let (short_lived, _far) = loopback::pair();
    carriers.send(carrier(short_lived)).await.unwrap();
    // The client has let the first channel go; the gateway sees it close.
    node.tasks.join_next().await.unwrap().unwrap().unwrap();
    let next = node.channel();
    visit(resumption, &key(2)).shake_hands(&next).await.unwrap();
    carriers.send(carrier(next)).await.unwrap();
    let right: Vec<u8> = (0..LENGTH).map(byte).collect();
    bytes.extend(rest(stream).await.unwrap());
    assert!(bytes == right);
}

#[tokio::test]
async fn nobody_else_goes_on_with_a_session() {
    let upstream = Upstream::start().await.unwrap();
    let mut node = Node::everything(&upstream.target());
    let other = token(OTHER_GRANT, Permission::all("app".parse().unwrap()));
    node.context.grants.add(other, unix_now()).unwrap();
    let channel = node.channel();
    let resumption = shake_hands(&channel, "app", &key(2)).await.unwrap();
    let client = Client::over(channel).await;
    let guessed = Resumption {
        key: ResumptionKey::from_bytes([0; 32]),
        ..resumption.clone()
    };
    let unknown = Resumption {
        session: SessionId::from_bytes([255; 16]),
        ..resumption.clone()
    };
    let (own, strange) = (key(2), key(3));
    let by_other_grant = Visit {
        grant: OTHER_GRANT,
        ..visit(resumption.clone(), &own)
    };
    let on_another_device = Visit {
        device: key(21),
        ..visit(resumption.clone(), &own)
    };
    let attempts = [
        (visit(guessed, &own), Reason::ProofInvalid),
        (visit(unknown, &own), Reason::SessionLost),
        (by_other_grant, Reason::PermissionDenied),
        (on_another_device, Reason::PermissionDenied),
        (visit(resumption, &strange), Reason::ProofInvalid),
    ];
    for (attempt, reason) in attempts {
        let channel = node.channel();
        let refused = attempt.shake_hands(&channel).await.unwrap_err();
        assert_eq!(refused.reason(), reason);
    }
    let response = client.get("/").await.unwrap();
    assert_eq!(response.status(), StatusCode::OK, "it goes on as it was");
}
