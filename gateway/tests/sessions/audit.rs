//! Sessions are recorded: who came, what they were refused, how it ended.

use std::sync::Arc;

use portway_gateway::audit::event::Ending;
use portway_gateway::audit::{Entry, Event};
use portway_protocol::permission::Permission;
use portway_protocol::reason::Reason;
use portway_tests::upstream::Upstream;
use tokio::sync::broadcast;

use super::{Client, GRANT, Node, Visit, carrier, device, key, shake_hands};

async fn next(follower: &mut broadcast::Receiver<Arc<Entry>>) -> Event {
    follower.recv().await.unwrap().record.event.clone()
}

#[tokio::test]
async fn a_session_and_its_denied_requests_are_recorded() {
    let upstream = Upstream::start().await.unwrap();
    let permission = Permission {
        methods: Some(vec!["GET".into()]),
        paths: Some(vec!["/bytes".into()]),
        ..Permission::all("app".parse().unwrap())
    };
    let mut node = Node::granting(&upstream.target(), permission);
    let mut follower = node.context.audit.log().follow();
    let channel = node.channel();
    let opened = shake_hands(&channel, "app", &key(2)).await.unwrap();
    let client = Client::over(channel).await;
    let event = next(&mut follower).await;
    let Event::SessionOpened {
        session,
        user,
        grant,
        service,
        route,
        device: from,
    } = event
    else {
        panic!("{event:?}");
    };
    assert_eq!((session, user.as_str()), (opened.session, "ann"));
    assert_eq!(
        (grant.as_bytes(), from),
        (&GRANT, Box::new(device().public()))
    );
    assert_eq!(service.as_str(), "app");
    assert_eq!(route, None, "a channel inside the process has no path");

    let allowed = client.get("/bytes?n=10&token=secret").await.unwrap();
    assert_eq!(allowed.status(), 200);
    let denied = client.get("/admin?token=secret").await.unwrap();
    assert_eq!(denied.status(), 403);
    assert_eq!(
        next(&mut follower).await,
        Event::RequestDenied {
            session: opened.session,
            method: "GET".into(),
            path: "/admin".into(),
            reason: Reason::PermissionDenied,
            unrecorded: 0,
        }
    );

    client.leave().await;
    let event = next(&mut follower).await;
    let Event::SessionEnded {
        session,
        received,
        sent,
        requests,
        denied,
        why,
        duration_ms: _,
    } = event
    else {
        panic!("{event:?}");
    };
    assert_eq!((session, why), (opened.session, Ending::ClientLeft));
    assert_eq!((requests, denied), (2, 1));
    assert!(received > 0 && sent > 10, "{received} {sent}");
}

#[tokio::test]
async fn a_revoked_grant_is_why_a_session_ends_and_the_next_is_refused() {
    let upstream = Upstream::start().await.unwrap();
    let mut node = Node::everything(&upstream.target());
    let mut follower = node.context.audit.log().follow();
    let client = node.open().await;
    assert!(matches!(
        next(&mut follower).await,
        Event::SessionOpened { .. }
    ));
    let grant = portway_protocol::id::GrantId::from_bytes(GRANT);
    node.context.grants.revoke(&grant).unwrap();
    let event = next(&mut follower).await;
    let Event::SessionEnded { why, .. } = event else {
        panic!("{event:?}");
    };
    assert_eq!(why, Ending::GrantEnded);
    drop(client);

    let channel = node.channel();
    assert!(shake_hands(&channel, "app", &key(2)).await.is_err());
    assert_eq!(
        next(&mut follower).await,
        Event::SessionRefused {
            service: Some("app".parse().unwrap()),
            grant: Some(grant),
            reason: Reason::GrantUnknown,
            route: None,
            unrecorded: 0,
        }
    );
}

#[tokio::test]
async fn a_session_that_moves_is_recorded() {
    let upstream = Upstream::start().await.unwrap();
    let mut node = Node::everything(&upstream.target());
    let mut follower = node.context.audit.log().follow();
    let channel = node.channel();
    let resumption = shake_hands(&channel, "app", &key(2)).await.unwrap();
    let session = resumption.session;
    let (client, carriers) = Client::lasting(channel).await;
    let channel = node.channel();
    let visit = Visit {
        service: "app",
        key: &key(2),
        device: device(),
        grant: GRANT,
        resumption: Some(resumption),
    };
    visit.shake_hands(&channel).await.unwrap();
    carriers.send(carrier(channel)).await.unwrap();
    assert_eq!(client.get("/").await.unwrap().status(), 200);
    let event = next(&mut follower).await;
    assert!(matches!(event, Event::SessionOpened { .. }), "{event:?}");
    let moved = Event::SessionMoved {
        session,
        route: None,
    };
    assert_eq!(next(&mut follower).await, moved);
}
