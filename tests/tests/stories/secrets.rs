//! Secrets stay where they belong: with everything logged, no log has one, nor has a command line.

use std::fs::File;

use portway_tests::client::{Connected, LinkFile};
use portway_tests::pairing::Person;
use portway_tests::portway::{Portway, State};
use portway_tests::upstream::Upstream;

use crate::roles_apart::text;
use crate::{NativeStory, native};

pub(crate) const STORIES: &[NativeStory] = &[native!(no_secret_is_told)];

/// What a visitor sends, and what the service answers with.
const QUERY: &str = "canary-of-the-query";
const COOKIE: &str = "canary-of-the-cookie";
const PASSWORD: &str = "canary-of-the-password";
const BODY: &str = "canary-of-the-body";
const SET_COOKIE: &str = "s3cret";

async fn no_secret_is_told() -> anyhow::Result<()> {
    let upstream = Upstream::start().await?;
    let state = State::new()?;
    let expose = format!("app={}", upstream.target());
    let logs = tempfile::tempdir()?;
    let (of_node, of_client) = (logs.path().join("node"), logs.path().join("client"));
    let up = ["up", "--listen", "127.0.0.1:0", "-vvv", "--expose", &expose];
    let portway = Portway::start_logging(&state, &up, File::create(&of_node)?).await?;
    let link = portway.link("app");
    let file = LinkFile::new(&link)?;
    let log = File::create(&of_client)?;
    let local = Connected::start_logging(&file, &["-vvv"], log).await?;

    let headers = format!("cookie: a={COOKIE}\r\nauthorization: Bearer {PASSWORD}");
    let head = format!("GET /headers?q={QUERY} HTTP/1.1\r\n{headers}");
    let (_, told) = local.request(&head, b"").await?;
    let told = String::from_utf8(told)?;
    assert!(told.contains(COOKIE) && told.contains(PASSWORD), "{told}");
    let head = format!(
        "POST /sum?q={QUERY} HTTP/1.1\r\n{headers}\r\ncontent-length: {}",
        BODY.len()
    );
    local.request(&head, BODY.as_bytes()).await?;
    let (head, _) = local.request("GET /set-cookies HTTP/1.1", b"").await?;
    assert!(head.contains(SET_COOKIE), "{head}");

    let mut owner = Person::owner(&state, "app", &[])?;
    let url = text(&owner.hears("waiting").await?["url"]);
    let mut guest = Person::guest_with(&url, &["-vvv"])?;
    owner
        .types(&text(&guest.hears("digits").await?["digits"]))
        .await?;
    owner.hears("guest").await?;
    owner.hears("paired").await?;
    guest.hears("accepted").await?;
    guest.types("y").await?;
    let paired = text(&guest.hears("paired").await?["link"]);
    let of_guest = guest.ends().await?.log;

    let key = |name: &str| std::fs::read_to_string(state.path().join(name));
    let (cluster_key, node_key) = (key("cluster.key")?, key("node.key")?);
    let secret = link.rsplit('.').next().unwrap_or_default();
    let secrets = [
        ("the link's secret", secret),
        (
            "the secret of a link that was paired",
            paired.rsplit('.').next().unwrap_or_default(),
        ),
        ("the cluster key", cluster_key.trim()),
        ("the node key", node_key.trim()),
        ("a query", QUERY),
        ("a cookie", COOKIE),
        ("a password", PASSWORD),
        ("a body", BODY),
        ("a cookie of the service", SET_COOKIE),
    ];
    let lines = [portway.command_line()?, local.command_line()?];
    local.terminate().await?;
    let audit = std::fs::read_to_string(state.path().join("audit.jsonl"))?;

    let [node, client] = [&of_node, &of_client].map(std::fs::read_to_string);
    let (node, client) = (node?, client?);
    assert!(node.contains("\"level\":\"TRACE\"") && client.contains("\"level\":\"TRACE\""));
    let told = [
        ("the node's log", &node),
        ("the client's log", &client),
        ("the guest's log", &of_guest),
        ("the audit log", &audit),
        ("the node's command line", &lines[0]),
        ("the client's command line", &lines[1]),
    ];
    let mut leaks = Vec::new();
    for (place, text) in told {
        for (what, secret) in secrets {
            assert!(secret.len() >= 6, "{what} is too short to be looked for");
            let line = text.lines().find(|line| line.contains(secret));
            leaks.extend(line.map(|line| format!("{what} in {place}: {line}")));
        }
    }
    assert!(leaks.is_empty(), "{}", leaks.join("\n"));
    Ok(())
}
