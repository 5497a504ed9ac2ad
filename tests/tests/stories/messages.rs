//! Nodes of a cluster, and people with links, tell each other things over a message bus.

use anyhow::{Context as _, ensure};
use portway_tests::PATIENCE;
use portway_tests::browser::Browser;
use portway_tests::client::{Connected, LinkFile};
use portway_tests::portway::{Portway, State};
use portway_tests::upstream::Upstream;
use serde_json::Value;

use crate::machines_join::{Owner, join};
use crate::{APP, BOTH, NativeStory, in_app, native, story};

pub(crate) const STORIES: &[crate::Story] = &[story!(BOTH, a_page_hears_what_nodes_say)];

pub(crate) const NATIVE_STORIES: &[NativeStory] = &[
    native!(nodes_hear_each_other),
    native!(a_node_says_and_hears_what_it_may),
    native!(a_subscriber_goes_on_after_the_bus_was_away),
    native!(a_subscriber_begins_where_it_is_told_to),
    native!(what_cannot_be_said_is_refused_before_it_is_sent),
];

/// Denied.
const DENIED: i32 = 77;

/// The owner's machine, which offers the bus `bus` and an app.
async fn owner() -> anyhow::Result<(Owner, Upstream)> {
    let upstream = Upstream::start().await?;
    let services = [("bus", "messages:".to_owned()), ("app", upstream.target())];
    Ok((Owner::offering(&services).await?, upstream))
}

/// Another machine of the cluster, which may do this on the bus.
async fn node(owner: &Owner, name: &str, terms: &[&str]) -> anyhow::Result<(State, String)> {
    let state = State::new()?;
    join(&state, &owner.join_token(&[]).await?, &["--node", name]).await?;
    let grant = share(&owner.portway, name, terms).await?;
    Ok((state, grant))
}

/// Lets a node onto the bus of a gateway.
async fn share(gateway: &Portway, node: &str, terms: &[&str]) -> anyhow::Result<String> {
    let share = ["share", "bus", "--to-node", node];
    let shared = gateway.ask(&[&share, terms].concat()).await?;
    Ok(shared["id"].as_str().context("an id")?.to_owned())
}

async fn publish(state: &State, topic: &str, message: &str) -> anyhow::Result<Value> {
    state.ask(&["publish", topic, "--message", message]).await
}

async fn subscribe(state: &State, args: &[&str]) -> anyhow::Result<Connected> {
    Connected::as_node(state, "subscribe", args, "subscribed").await
}

/// What is said when a command is refused.
async fn refusal(state: &State, args: &[&str]) -> anyhow::Result<String> {
    let refused = state.ask(args).await;
    Ok(refused.err().context("it was not refused")?.to_string())
}

async fn nodes_hear_each_other() -> anyhow::Result<()> {
    let (owner, _app) = owner().await?;
    let (office, _) = node(&owner, "office", &[]).await?;
    let (cabin, _) = node(&owner, "cabin", &[]).await?;
    let mut alarms = subscribe(&cabin, &["bus/alarms/*", "bus/doors/front"]).await?;
    alarms.event("subscribed").await?;

    let unheard = publish(&office, "bus/news", "nobody listens").await?;
    assert_eq!(unheard["subscribers"], 0);
    let fire = publish(&office, "bus/alarms/cellar", "it \u{1b}[31mburns\n").await?;
    assert_eq!(fire["subscribers"], 1);
    let heard = alarms.any_event().await?;
    assert_eq!(heard["event"], "message");
    assert_eq!(heard["v"], 1);
    assert_eq!(heard["id"], fire["id"]);
    assert_eq!(heard["service"], "bus");
    assert_eq!(heard["topic"], "alarms/cellar");
    assert_eq!(heard["publisher"], "node:office");
    assert_eq!(heard["text"], "it \u{1b}[31mburns\n");
    assert_eq!(heard["content_type"], "text/plain; charset=utf-8");

    // The owner's machine says something on its own bus, by standard input.
    let link = LinkFile::new(&owner.portway.link("bus"))?;
    let say = ["publish", "bus/doors/front", "--link-file", &link.path()];
    owner.portway.tell(&say, "open").await?;
    let heard = alarms.any_event().await?;
    assert_eq!(heard["publisher"], "owner");
    assert_eq!(heard["text"], "open");
    assert!(alarms.terminate().await?.success());
    Ok(())
}

async fn a_node_says_and_hears_what_it_may() -> anyhow::Result<()> {
    let (owner, _app) = owner().await?;
    let hears = ["--methods", "GET", "--path", "/alarms/*"];
    let (cabin, grant) = node(&owner, "cabin", &hears).await?;
    let (sensor, _) = node(
        &owner,
        "sensor",
        &["--methods", "POST", "--path", "/alarms/cellar"],
    )
    .await?;
    let mut alarms = subscribe(&cabin, &["bus/alarms/*"]).await?;
    publish(&sensor, "bus/alarms/cellar", "fire").await?;
    assert_eq!(alarms.event("message").await?["publisher"], "node:sensor");
    for (state, args) in [
        (
            &cabin,
            ["publish", "bus/alarms/cellar", "--message=x"].as_slice(),
        ),
        (&cabin, &["subscribe", "bus/*"]),
        (&cabin, &["subscribe", "bus/doors"]),
        (&sensor, &["publish", "bus/alarms/attic", "--message=x"]),
        (&sensor, &["subscribe", "bus/alarms/cellar"]),
    ] {
        let refusal = refusal(state, args).await?;
        assert!(refusal.contains("PERMISSION_DENIED"), "{args:?}: {refusal}");
    }
    owner.portway.ask(&["links", "revoke", &grant]).await?;
    assert_eq!(alarms.ended().await?.code(), Some(DENIED));
    Ok(())
}

async fn a_subscriber_goes_on_after_the_bus_was_away() -> anyhow::Result<()> {
    let (owner, _app) = owner().await?;
    let office = State::new()?;
    join(
        &office,
        &owner.join_token(&[]).await?,
        &["--node", "office"],
    )
    .await?;
    let args = ["gateway", "--expose", "theirs=messages:"];
    let gateway = Portway::start(&office, &args).await?;
    let name = owner.portway.ready["node"].as_str().context("a name")?;
    gateway.ask(&["share", "theirs", "--to-node", name]).await?;
    gateway
        .ask(&["share", "theirs", "--to-node", "office"])
        .await?;
    let mut listening = subscribe(&owner.state, &["theirs/*"]).await?;
    let first = listening.ready["id"].clone();
    publish(&office, "theirs/a", "before").await?;
    assert_eq!(listening.event("message").await?["text"], "before");

    gateway.kill().await?;
    let lost = listening.event("lost").await?;
    ensure!(lost["retry_ms"].is_number(), "{lost}");
    let _gateway = Portway::start(&office, &args).await?;
    publish(&office, "theirs/a", "after").await?;
    let missed = listening.event("missed").await?;
    assert_eq!(missed["why"], "restarted");
    let again = listening.any_event().await?;
    assert_eq!(again["event"], "subscribed");
    assert_ne!(again["id"], first);
    // Whether it was said before the subscriber was back or after.
    assert_eq!(listening.any_event().await?["text"], "after");
    assert!(listening.terminate().await?.success());
    Ok(())
}

async fn a_subscriber_begins_where_it_is_told_to() -> anyhow::Result<()> {
    let (owner, _app) = owner().await?;
    let (office, _) = node(&owner, "office", &[]).await?;
    let first = publish(&office, "bus/a", "1").await?;
    for text in ["2", "3"] {
        publish(&office, "bus/a", text).await?;
    }
    let since = first["id"].as_str().context("an id")?;
    let mut listening = subscribe(&office, &["bus/a", "--since", since]).await?;
    for text in ["2", "3"] {
        assert_eq!(listening.any_event().await?["text"], text);
    }
    // The same service again is the same bus.
    owner.portway.ask(&["expose", "bus=messages:"]).await?;
    publish(&office, "bus/a", "4").await?;
    assert_eq!(listening.any_event().await?["text"], "4");
    Ok(())
}

async fn what_cannot_be_said_is_refused_before_it_is_sent() -> anyhow::Result<()> {
    let (owner, app) = owner().await?;
    let (office, _) = node(&owner, "office", &[]).await?;
    let large = "x".repeat(64 * 1024 + 1);
    let refused = owner.portway.tell(&["publish", "bus/a"], &large).await;
    let refused = refused.err().context("it was not refused")?.to_string();
    assert!(refused.contains("MESSAGE_TOO_LARGE"), "{refused}");
    for (args, words) in [
        (
            ["publish", "bus", "--message=x"].as_slice(),
            "SERVICE/TOPIC",
        ),
        (&["publish", "bus/A", "--message=x"], "is not a topic"),
        (&["publish", "bus/a/*", "--message=x"], "is not a topic"),
        (&["subscribe", "bus/a/*", "bus/a/b"], "in common"),
        (&["subscribe", "bus/a", "--since", "now"], "two numbers"),
    ] {
        let refusal = refusal(&office, args).await?;
        assert!(refusal.contains(words), "{args:?}: {refusal}");
    }
    let share = ["share", "app", "--to-node", "office"];
    owner.portway.ask(&share).await?;
    let refusal = refusal(&office, &["subscribe", "app/next"]).await?;
    assert!(refusal.contains("SERVICE_NOT_MESSAGES"), "{refusal}");
    assert_eq!(app.requests(), ["GET /next"]);
    Ok(())
}

async fn a_page_hears_what_nodes_say(browser: &mut Browser) -> anyhow::Result<()> {
    let (owner, _app) = owner().await?;
    let (office, _) = node(&owner, "office", &[]).await?;
    browser.open(&owner.portway.link("bus")).await?;
    let there = format!("{APP}.document.body.innerText.includes('TOPIC_INVALID')");
    browser.wait_for(&there, PATIENCE).await?;
    let listen = "new Promise((resolve) => { \
        window.heard = []; \
        window.bus = new EventSource('/alarms/*'); \
        bus.onmessage = ({ data, lastEventId }) => heard.push({ ...JSON.parse(data), lastEventId }); \
        bus.onopen = () => resolve(true); })";
    browser.eval(&in_app(listen)).await?;
    // It is open when the answer has begun, which is after the subscription has.
    let said = publish(&office, "bus/alarms/cellar", "fire").await?;
    assert_eq!(said["subscribers"], 1);
    browser
        .wait_for(&in_app("heard.length === 1"), PATIENCE)
        .await?;
    let heard = browser.eval(&in_app("heard[0]")).await?;
    assert_eq!(heard["text"], "fire");
    assert_eq!(heard["publisher"], "node:office");
    assert_eq!(heard["lastEventId"], said["id"]);

    let mut listening = subscribe(&office, &["bus/answers"]).await?;
    let answer = "fetch('/answers', { method: 'POST', body: 'coming' }).then((it) => it.json())";
    let said = browser.eval(&in_app(answer)).await?;
    assert_eq!(said["subscribers"], 1);
    let heard = listening.event("message").await?;
    assert_eq!(heard["text"], "coming");
    assert_eq!(heard["publisher"], "owner");
    Ok(())
}
