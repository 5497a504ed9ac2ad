//! A grant for one device is that of the first that redeems it.

use super::*;

/// A node whose grant is for the first device.
fn node(target: &str) -> Node {
    let node = Node::everything(target);
    let once = UserClaims {
        devices: Devices::First,
        ..claims(GRANT, Permission::all("app".parse().unwrap()))
    };
    let token = once.issue(&key(1));
    node.context.grants.add(token, unix_now()).unwrap();
    node
}

fn from(device: SigningKey, key: &SigningKey) -> Visit<'_> {
    Visit {
        service: "app",
        key,
        grant: GRANT,
        device,
        resumption: None,
    }
}

#[tokio::test]
async fn the_first_device_comes_back_and_no_other_comes_in() {
    let upstream = Upstream::start().await.unwrap();
    let mut node = node(&upstream.target());
    let (ann, stranger) = (key(2), key(9));
    // Who cannot prove the grant uses nothing up.
    let visit = from(key(21), &stranger);
    let refused = visit.shake_hands(&node.channel()).await.unwrap_err();
    assert_eq!(refused.reason(), Reason::ProofInvalid);

    let channel = node.channel();
    from(key(20), &ann).shake_hands(&channel).await.unwrap();
    let client = Client::over(channel).await;
    let kept = std::fs::read_to_string(node.grants_file()).unwrap();
    assert!(
        kept.contains(&key(20).public().to_string()),
        "it was on disk before"
    );

    let visit = from(key(21), &ann);
    let refused = visit.shake_hands(&node.channel()).await.unwrap_err();
    assert_eq!(refused.reason(), Reason::LinkUsed);
    assert!(refused.reason().is_final());
    assert_eq!(node.context.table.views().len(), 1);

    let again = node.channel();
    from(key(20), &ann).shake_hands(&again).await.unwrap();
    let response = client.get("/").await.unwrap();
    assert_eq!(response.status(), StatusCode::OK, "and the first goes on");
    assert_eq!(upstream.requests(), ["GET /"]);
}

#[tokio::test]
async fn what_a_session_moved_is_known_when_it_has_ended() {
    let upstream = Upstream::start().await.unwrap();
    let mut node = node(&upstream.target());
    let channel = node.channel();
    shake_hands(&channel, "app", &key(2)).await.unwrap();
    let client = Client::over(channel).await;
    let response = client.get("/bytes?n=100000").await.unwrap();
    assert_eq!(body(response).await.unwrap().len(), 100_000);
    client.leave().await;
    node.context.tasks.close();
    node.context.tasks.wait().await;
    let (_claims, usage) = node.context.grants.all().remove(0);
    assert_eq!(usage.sessions, 1);
    assert!(usage.sent > 100_000 && usage.received > 0, "{usage:?}");
    assert_eq!(usage.last.unwrap().device, device().public());
}
