//! A message bus: who hears what, what is missed, and what it refuses.

use portway_protocol::message::event::Decoder;
use portway_protocol::message::{Event, MAX_BODY, Message, MessageId, Missed, Published};
use portway_tests::PATIENCE;

use super::*;

/// A node whose service is a bus.
fn bus() -> Node {
    Node::everything("messages:")
}

/// One on which the only grant is for these methods and paths.
fn restricted(methods: &[&str], path: &str) -> Node {
    let permission = Permission {
        name: "app".parse().unwrap(),
        methods: Some(methods.iter().map(|it| (*it).to_owned()).collect()),
        paths: Some(vec![path.to_owned()]),
    };
    Node::granting("messages:", permission)
}

/// What comes by one subscription.
struct Events {
    stream: RecvStream,
    decoder: Decoder,
}

impl Events {
    async fn of(client: &Client, path: &str, since: Option<MessageId>) -> Self {
        let mut request = request(Method::GET, path);
        if let Some(since) = since {
            let since = since.to_string().parse().unwrap();
            request.headers_mut().insert("last-event-id", since);
        }
        let response = client.send(request).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        Self {
            stream: response.into_body(),
            decoder: Decoder::default(),
        }
    }

    /// `None` at the end.
    async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some(event) = self.decoder.next_event().unwrap() {
                return Some(event);
            }
            let data = self.stream.data().await?.unwrap();
            self.decoder.feed(&data);
            let flow = self.stream.flow_control();
            flow.release_capacity(data.len()).unwrap();
        }
    }

    async fn position(&mut self) -> MessageId {
        match self.next().await {
            Some(Event::Position(id)) => id,
            other => panic!("{other:?}"),
        }
    }

    async fn message(&mut self) -> Message {
        match self.next().await {
            Some(Event::Message(message)) => message,
            other => panic!("{other:?}"),
        }
    }
}

impl Client {
    async fn post(&self, path: &str, body: impl Into<Bytes>) -> Response<RecvStream> {
        let requests = self.requests.clone().ready().await.unwrap();
        let mut request = request(Method::POST, path);
        let media_type = "text/x-test".parse().unwrap();
        request.headers_mut().insert("content-type", media_type);
        let (response, mut stream) = { requests }.send_request(request, false).unwrap();
        stream.send_data(body.into(), true).unwrap();
        response.await.unwrap()
    }

    async fn publish(&self, path: &str, message: impl Into<Bytes>) -> Published {
        let response = self.post(path, message).await;
        assert_eq!(response.status(), StatusCode::OK);
        serde_json::from_slice(&body(response).await.unwrap()).unwrap()
    }
}

#[tokio::test]
async fn who_subscribes_hears_what_comes_from_then_on() {
    let mut node = bus();
    let (speaker, listener) = (node.open().await, node.open().await);
    let early = speaker.publish("/alarms/cellar", "too early").await;
    assert_eq!(early.subscribers, 0);
    let mut alarms = Events::of(&listener, "/alarms/*", None).await;
    let mut cellar = Events::of(&listener, "/alarms/cellar", None).await;
    assert_eq!(alarms.position().await, early.id);
    assert_eq!(cellar.position().await, early.id);

    let fire = speaker.publish("/alarms/cellar", "fire").await;
    assert_eq!(fire.subscribers, 2);
    assert_eq!(speaker.publish("/alarms", "not below").await.subscribers, 0);
    let bytes = vec![0xff; MAX_BODY];
    let smoke = speaker.publish("/alarms/attic", bytes.clone()).await;
    assert_eq!(smoke.subscribers, 1);

    let heard = alarms.message().await;
    assert_eq!(heard, cellar.message().await);
    assert_eq!((heard.id, &heard.body[..]), (fire.id, &b"fire"[..]));
    assert_eq!(heard.topic.as_str(), "alarms/cellar");
    assert_eq!(
        (heard.publisher.as_str(), heard.content_type.as_str()),
        ("ann", "text/x-test")
    );
    let heard = alarms.message().await;
    assert_eq!((heard.id, &heard.body[..]), (smoke.id, &bytes[..]));

    drop(alarms);
    drop(cellar);
    // That they have gone arrives in its own time.
    while speaker
        .publish("/alarms/cellar", "anybody?")
        .await
        .subscribers
        > 0
    {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn who_comes_back_hears_what_was_said_meanwhile() {
    let mut node = bus();
    let client = node.open().await;
    let mut events = Events::of(&client, "/a/*", None).await;
    let start = events.position().await;
    client.publish("/a/x", "1").await;
    let last = events.message().await.id;
    drop(events);
    client.publish("/b", "other").await;
    client.publish("/a/y", "2").await;
    let mut events = Events::of(&client, "/a/*", Some(last)).await;
    assert_eq!(events.position().await, last);
    assert_eq!(events.message().await.body, "2");

    // 256 of a topic are kept.
    let client = node.open().await;
    for n in 0..130 {
        client.publish("/a/x", n.to_string()).await;
    }
    let client = node.open().await;
    for n in 130..260 {
        client.publish("/a/x", n.to_string()).await;
    }
    let mut events = Events::of(&client, "/a/x", Some(start)).await;
    assert_eq!(events.next().await, Some(Event::Missed(Missed::Forgotten)));
    assert_eq!(events.position().await, start);
    assert_eq!(events.message().await.body, "4");
    let mut quiet = Events::of(&client, "/a/y", Some(start)).await;
    assert_eq!(quiet.position().await, start);
    assert_eq!(quiet.message().await.body, "2");

    let other = MessageId { epoch: 1, seq: 7 };
    let mut events = Events::of(&client, "/b", Some(other)).await;
    assert_eq!(events.next().await, Some(Event::Missed(Missed::Restarted)));
    assert_eq!(events.position().await.seq, 0);
    assert_eq!(events.message().await.body, "other");
}

#[tokio::test]
async fn a_slow_subscriber_is_told_how_much_it_has_missed() {
    const MESSAGES: u64 = 190;
    let mut node = bus();
    let (speaker, listener) = (node.open().await, node.open().await);
    let mut slow = Events::of(&listener, "/*", None).await;
    slow.position().await;
    for n in 0..MESSAGES {
        let sent = speaker
            .publish(&format!("/t{n}"), vec![b'x'; MAX_BODY])
            .await;
        assert_eq!(sent.subscribers, 1);
    }
    let (mut heard, mut missed) = (0, 0);
    let last = format!("t{}", MESSAGES - 1);
    loop {
        match slow.next().await.unwrap() {
            Event::Message(message) => {
                assert_eq!(message.topic.to_string(), format!("t{}", heard + missed));
                heard += 1;
                if message.topic.as_str() == last {
                    break;
                }
            }
            Event::Missed(Missed::Slow { count }) => missed += count,
            other @ (Event::Position(_) | Event::Missed(_)) => panic!("{other:?}"),
        }
    }
    assert!(missed > 0, "8 MiB are kept");
    assert_eq!(heard + missed, MESSAGES);
}

#[tokio::test]
async fn methods_say_who_speaks_and_paths_what_about() {
    let mut node = restricted(&["GET"], "/alarms/*");
    let client = node.open().await;
    for path in ["/alarms/*", "/alarms/cellar", "/alarms/cellar/*"] {
        Events::of(&client, path, None).await.position().await;
    }
    for path in ["/*", "/doors/*", "/alarms", "/alarms*"] {
        let response = client.get(path).await.unwrap();
        assert_eq!(reason(&response), "PERMISSION_DENIED", "{path}");
    }
    let response = client.post("/alarms/cellar", "fire").await;
    assert_eq!(reason(&response), "PERMISSION_DENIED");

    let mut node = restricted(&["POST"], "/alarms/cellar");
    let client = node.open().await;
    client.publish("/alarms/cellar", "fire").await;
    for (method, path) in [
        (Method::GET, "/alarms/cellar"),
        (Method::POST, "/alarms/attic"),
    ] {
        let response = client.send(request(method, path)).await.unwrap();
        assert_eq!(reason(&response), "PERMISSION_DENIED");
    }

    // What such a glob covers of the path of a filter, it does not cover of its topics.
    let mut node = restricted(&["GET"], "/alarms/**");
    let client = node.open().await;
    let response = client.get("/alarms/*").await.unwrap();
    assert_eq!(reason(&response), "PERMISSION_DENIED");
}

#[tokio::test]
async fn what_is_no_message_is_refused() {
    let mut node = bus();
    let client = node.open().await;
    let response = client.post("/a", vec![0; MAX_BODY + 1]).await;
    assert_eq!(response.status(), StatusCode::PAYLOAD_TOO_LARGE);
    assert_eq!(reason(&response), "MESSAGE_TOO_LARGE");
    for (method, path, wanted) in [
        (Method::POST, "/", "TOPIC_INVALID"),
        (Method::POST, "/A", "TOPIC_INVALID"),
        (Method::POST, "/a/*", "TOPIC_INVALID"),
        (Method::POST, "/a%2fb", "TOPIC_INVALID"),
        (Method::GET, "/", "TOPIC_INVALID"),
        (Method::GET, "/a*", "TOPIC_INVALID"),
        (Method::PUT, "/a", "REQUEST_INVALID"),
        (Method::DELETE, "/a", "REQUEST_INVALID"),
    ] {
        let response = client.send(request(method.clone(), path)).await.unwrap();
        assert_eq!(
            response.status(),
            StatusCode::BAD_REQUEST,
            "{method} {path}"
        );
        assert_eq!(reason(&response), wanted, "{method} {path}");
    }
    let mut wrong = request(Method::GET, "/a");
    let since = "yesterday".parse().unwrap();
    wrong.headers_mut().insert("last-event-id", since);
    let response = client.send(wrong).await.unwrap();
    assert_eq!(reason(&response), "REQUEST_INVALID");
}

#[tokio::test]
async fn nobody_speaks_or_listens_without_end() {
    let mut node = bus();
    let client = node.open().await;
    let refused = loop {
        let response = client.post("/a", "again").await;
        if response.status() != StatusCode::OK {
            break response;
        }
    };
    assert_eq!(refused.status(), StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(reason(&refused), "RATE_LIMITED");
    // Another session has an allowance of its own.
    node.open().await.publish("/a", "me too").await;

    let mut clients = Vec::new();
    let mut subscriptions = Vec::new();
    for n in 0..256 {
        if n % 64 == 0 {
            clients.push(node.open().await);
        }
        let client = clients.last().unwrap();
        subscriptions.push(Events::of(client, "/a", None).await);
    }
    let response = client.get("/a").await.unwrap();
    assert_eq!(reason(&response), "RATE_LIMITED");
    // A session that ends takes its own with it.
    drop(subscriptions);
    clients.clear();
    let again = async {
        while client.get("/a").await.unwrap().status() != StatusCode::OK {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, again).await.unwrap();
}

#[tokio::test]
async fn a_subscription_ends_in_order_with_its_gateway() {
    let mut node = bus();
    let client = node.open().await;
    let mut events = Events::of(&client, "/*", None).await;
    events.position().await;
    node.context.draining.cancel();
    assert_eq!(events.next().await, None);
}
