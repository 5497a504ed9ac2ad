//! Services are opened by another machine's programs, not by a browser.

use futures_util::{SinkExt as _, StreamExt as _};
use portway_tests::client::{Connected, LinkFile, ping};
use portway_tests::portway::{Portway, State};
use portway_tests::upstream::{Upstream, is_right, pattern};
use serde_json::json;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;

use crate::{NativeStory, native};

pub(crate) const STORIES: &[NativeStory] = &[
    native!(ping_tells_path_and_status),
    native!(many_pings_at_once_are_quick),
    native!(a_wrong_link_is_denied),
    native!(a_node_that_is_not_there_is_unavailable),
    native!(a_service_becomes_local),
    native!(local_bodies_arrive_whole),
    native!(a_local_websocket_echoes),
    native!(a_strange_host_is_misdirected),
    native!(local_requests_survive_a_restart),
];

/// Size of bodies: many windows of every layer.
const BODY: usize = 64 * 1024 * 1024;

/// Denied, unavailable.
const DENIED: i32 = 77;
const UNAVAILABLE: i32 = 69;

/// A node with one service, `app`.
struct Stage {
    state: State,
    portway: Portway,
    upstream: Upstream,
    link: LinkFile,
}

impl Stage {
    async fn set() -> anyhow::Result<Self> {
        let upstream = Upstream::start().await?;
        let state = State::new()?;
        let expose = format!("app={}", upstream.target());
        let portway = Portway::up(&state, "127.0.0.1:0", &["--expose", &expose]).await?;
        let link = LinkFile::new(&portway.link("app"))?;
        Ok(Self {
            state,
            portway,
            upstream,
            link,
        })
    }
}

async fn ping_tells_path_and_status() -> anyhow::Result<()> {
    let stage = Stage::set().await?;
    let pinged = ping(&stage.link, &["--count", "3", "--interval", "10ms"]).await?;
    assert!(pinged.status.success(), "{}", pinged.error);
    let events: Vec<_> = pinged.lines.iter().map(|line| &line["event"]).collect();
    assert_eq!(
        events,
        ["open", "request", "ping", "ping", "ping", "summary"]
    );
    let summary = pinged.lines.last().expect("six lines");
    assert_eq!(summary["v"], 1);
    assert_eq!(summary["service"], "app");
    assert_eq!(summary["path"], "direct");
    assert_eq!(summary["protocol"], "udp");
    assert_eq!(summary["request"]["status"], 200);
    assert_eq!((&summary["sent"], &summary["lost"]), (&json!(3), &json!(0)));
    for figure in ["open_ms", "signaling_ms"] {
        assert!(summary[figure].as_f64() > Some(0.0), "{figure}: {summary}");
    }
    assert!(summary["rtt_ms"]["min"].as_f64() <= summary["rtt_ms"]["avg"].as_f64());
    assert_eq!(stage.upstream.requests(), ["GET /"]);
    Ok(())
}

async fn many_pings_at_once_are_quick() -> anyhow::Result<()> {
    let stage = Stage::set().await?;
    let all = (0..20).map(|_| ping(&stage.link, &["--count", "1"]));
    for pinged in futures_util::future::join_all(all).await {
        let pinged = pinged?;
        assert!(pinged.status.success(), "{}", pinged.error);
    }
    Ok(())
}

async fn a_wrong_link_is_denied() -> anyhow::Result<()> {
    let stage = Stage::set().await?;
    let mut link = stage.portway.link("app");
    // Another secret of the right form.
    let secret = link.rfind('.').expect("it has parts") + 1;
    link.replace_range(secret.., &"A".repeat(43));
    let pinged = ping(&LinkFile::new(&link)?, &[]).await?;
    assert_eq!(pinged.status.code(), Some(DENIED));
    assert_eq!(pinged.error["error"]["reason"], "PROOF_INVALID");
    let pinged = ping(&LinkFile::new(&link[..secret])?, &[]).await?;
    assert_eq!(pinged.status.code(), Some(DENIED));
    assert_eq!(pinged.error["error"]["reason"], "LINK_INVALID");
    Ok(())
}

async fn a_node_that_is_not_there_is_unavailable() -> anyhow::Result<()> {
    let stage = Stage::set().await?;
    let pinged = ping(&stage.link, &["--node", "nowhere"]).await?;
    assert_eq!(pinged.status.code(), Some(UNAVAILABLE));
    assert_eq!(pinged.error["error"]["reason"], "SERVED_ELSEWHERE");
    let node = stage.portway.ready["node"].as_str().unwrap_or_default();
    let pinged = ping(&stage.link, &["--node", node, "--count", "1"]).await?;
    assert!(pinged.status.success(), "{}", pinged.error);
    stage.portway.kill().await?;
    let pinged = ping(&stage.link, &[]).await?;
    assert_eq!(pinged.status.code(), Some(UNAVAILABLE));
    assert_eq!(pinged.error["error"]["reason"], "SIGNALING_UNREACHABLE");
    Ok(())
}

async fn a_service_becomes_local() -> anyhow::Result<()> {
    let stage = Stage::set().await?;
    let local = Connected::start(&stage.link).await?;
    assert_eq!(local.ready["path"], "direct");
    let (head, body) = local.request("GET / HTTP/1.1", b"").await?;
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    assert!(String::from_utf8(body)?.contains("Hello from the service"));
    let (head, body) = local.request("HEAD / HTTP/1.1", b"").await?;
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    assert!(head.contains("content-length: "), "{head}");
    assert_eq!(body, b"");
    let (head, _) = local.request("GET /nowhere HTTP/1.1", b"").await?;
    assert!(head.starts_with("HTTP/1.1 404 "), "{head}");
    let (_, body) = local.request("GET /headers HTTP/1.1", b"").await?;
    let headers = String::from_utf8(body)?;
    let origin = format!("[\"x-forwarded-host\",\"{}\"]", local.listen());
    assert!(headers.contains(&origin), "{headers}");
    let (head, _) = local
        .request("GET /cut HTTP/1.1", b"")
        .await
        .unwrap_or_default();
    assert!(!head.contains("content-length: 9\r\n"), "cut is not whole");
    assert!(local.terminate().await?.success());
    Ok(())
}

async fn local_bodies_arrive_whole() -> anyhow::Result<()> {
    let stage = Stage::set().await?;
    let local = Connected::start(&stage.link).await?;
    let pattern = pattern();
    let (head, body) = local
        .request(&format!("GET /bytes?n={BODY} HTTP/1.1"), b"")
        .await?;
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    assert_eq!(body.len(), BODY);
    assert!(is_right(&pattern, 0, &body));
    let head = format!("POST /sum HTTP/1.1\r\ncontent-length: {BODY}");
    let (_, answer) = local.request(&head, &body).await?;
    assert_eq!(String::from_utf8(answer)?, format!("{BODY} of {BODY}"));
    Ok(())
}

async fn a_local_websocket_echoes() -> anyhow::Result<()> {
    let stage = Stage::set().await?;
    let local = Connected::start(&stage.link).await?;
    let mut request = format!("ws://{}/ws", local.listen()).into_client_request()?;
    let wanted = "chat, other".parse()?;
    request
        .headers_mut()
        .insert("sec-websocket-protocol", wanted);
    let (mut socket, response) = tokio_tungstenite::connect_async(request).await?;
    assert_eq!(response.headers()["sec-websocket-protocol"], "chat");
    for message in [Message::text("hello"), Message::binary(vec![7; 100_000])] {
        socket.send(message.clone()).await?;
        let echoed = socket.next().await.expect("it is open")?;
        assert_eq!(echoed, message);
    }
    socket.close(None).await?;
    while let Some(Ok(_)) = socket.next().await {}
    let refused = format!("ws://{}/ws-refused", local.listen());
    let error = tokio_tungstenite::connect_async(refused).await.err();
    assert!(format!("{error:?}").contains("403"), "{error:?}");
    Ok(())
}

async fn a_strange_host_is_misdirected() -> anyhow::Result<()> {
    let stage = Stage::set().await?;
    let local = Connected::start(&stage.link).await?;
    let port = local.listen().rsplit(':').next().unwrap_or_default();
    for (host, status) in [
        ("evil.example", 421),
        ("localhost", 200),
        ("127.0.0.2", 421),
    ] {
        let host = format!("{host}:{port}");
        let (head, _) = local.request_as(&host, "GET / HTTP/1.1", b"").await?;
        assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{head}");
    }
    assert_eq!(stage.upstream.requests(), ["GET /"]);
    Ok(())
}

async fn local_requests_survive_a_restart() -> anyhow::Result<()> {
    let stage = Stage::set().await?;
    let mut local = Connected::start(&stage.link).await?;
    let listen = stage.portway.listen()?;
    stage.portway.kill().await?;
    let lost = local.event("lost").await?;
    assert_eq!(lost["reason"], "SESSION_LOST");
    let expose = format!("app={}", stage.upstream.target());
    let restart = async {
        let args = ["--expose", expose.as_str()];
        Portway::up(&stage.state, &listen, &args).await
    };
    // It comes while there is no session.
    let (_portway, answer) = tokio::try_join!(restart, local.request("GET / HTTP/1.1", b""))?;
    assert!(answer.0.starts_with("HTTP/1.1 200 "), "{}", answer.0);
    local.event("connected").await?;
    Ok(())
}
