//! Whoever follows the events of any node of a cluster sees what happens to all of them.

use anyhow::{Context as _, ensure};
use portway_tests::client::{Connected, LinkFile};
use portway_tests::portway::{Follower, Portway, State};
use serde_json::Value;

use crate::machines_join::{Owner, join};
use crate::{NativeStory, native};

pub(crate) const NATIVE_STORIES: &[NativeStory] = &[
    native!(all_nodes_see_one_come_and_go),
    native!(the_path_of_a_session_is_told_everywhere),
    native!(signs_of_life_are_told_on_request),
];

/// A machine that joins, and its gateway.
async fn gateway(owner: &Owner, name: &str) -> anyhow::Result<(State, Portway)> {
    let state = State::new()?;
    join(&state, &owner.join_token(&[]).await?, &["--node", name]).await?;
    let gateway = start(&state).await?;
    Ok((state, gateway))
}

async fn start(state: &State) -> anyhow::Result<Portway> {
    Portway::start(state, &["gateway", "--expose", "bus=messages:"]).await
}

/// A follower that hears already what happens to nodes.
async fn follow(gateway: &Portway, owner: &Owner) -> anyhow::Result<Follower> {
    let mut follower = gateway.follow_with(&["--heartbeats"])?;
    let name = owner.portway.ready["node"].as_str().context("a name")?;
    of_node(&mut follower, "node_heartbeat", name).await?;
    Ok(follower)
}

/// Waits for an event of that node.
async fn of_node(follower: &mut Follower, kind: &str, node: &str) -> anyhow::Result<Value> {
    loop {
        let event = follower.next(kind).await?;
        if event["node"] == node {
            return Ok(event);
        }
    }
}

async fn all_nodes_see_one_come_and_go() -> anyhow::Result<()> {
    let owner = Owner::offering(&[]).await?;
    let (_attic, attic) = gateway(&owner, "attic").await?;
    let mut followers = [owner.portway.follow()?, follow(&attic, &owner).await?];

    let (state, office) = gateway(&owner, "office").await?;
    for follower in &mut followers {
        of_node(follower, "node_joined", "office").await?;
        let online = of_node(follower, "node_online", "office").await?;
        ensure!(online["version"].is_string(), "{online}");
    }
    office.kill().await?;
    for follower in &mut followers {
        of_node(follower, "node_offline", "office").await?;
    }
    let office = start(&state).await?;
    for follower in &mut followers {
        of_node(follower, "node_online", "office").await?;
    }
    office.interrupt().await?;
    for follower in &mut followers {
        of_node(follower, "node_offline", "office").await?;
    }
    drop(office);
    owner.portway.ask(&["nodes", "forget", "office"]).await?;
    let [at_owner, at_attic] = &mut followers;
    let kept = of_node(at_owner, "node_left", "office").await?;
    assert_eq!(kept["source"], "signaling");
    let told = of_node(at_attic, "node_left", "office").await?;
    assert_eq!(told["source"], "cluster");
    let nodes = owner.portway.ask(&["nodes"]).await?;
    ensure!(!nodes.to_string().contains("office"), "{nodes}");
    Ok(())
}

async fn the_path_of_a_session_is_told_everywhere() -> anyhow::Result<()> {
    let owner = Owner::offering(&[("bus", "messages:".to_owned())]).await?;
    let (_attic, attic) = gateway(&owner, "attic").await?;
    let mut followers = [
        follow(&owner.portway, &owner).await?,
        follow(&attic, &owner).await?,
    ];
    let link = LinkFile::new(&owner.portway.link("bus"))?;
    let (device, path) = (State::new()?, link.path());
    let args = ["--link-file", &path, "bus/*"];
    let _listening = Connected::as_node(&device, "subscribe", &args, "subscribed").await?;
    for follower in &mut followers {
        let event = follower.next("session_path").await?;
        assert_eq!(event["source"], "cluster");
        assert_eq!(event["node"], owner.portway.ready["node"]);
        assert_eq!(event["service"], "bus");
        assert_eq!(event["path"], "direct");
        assert_eq!(event["local_kind"], "host");
        assert_eq!(event["protocol"], "udp");
        ensure!(event["session"].is_string(), "{event}");
        ensure!(
            !event.to_string().contains("127.0.0.1"),
            "no addresses: {event}"
        );
        ensure!(event["user"].is_null(), "no users: {event}");
    }
    Ok(())
}

async fn signs_of_life_are_told_on_request() -> anyhow::Result<()> {
    let owner = Owner::offering(&[]).await?;
    let (_attic, attic) = gateway(&owner, "attic").await?;
    let mut heartbeats = owner.portway.follow_with(&["--heartbeats"])?;
    let beat = of_node(&mut heartbeats, "node_heartbeat", "attic").await?;
    assert_eq!(beat["v"], 1);
    assert_eq!(beat["source"], "cluster");
    // They are not kept.
    attic.kill().await?;
    of_node(&mut heartbeats, "node_offline", "attic").await?;
    let events = owner.portway.ask(&["events"]).await?;
    ensure!(!events.to_string().contains("heartbeat"), "{events}");
    let refused = owner.portway.ask(&["events", "--heartbeats"]).await;
    let refused = refused.err().context("there is nothing to add them to")?;
    ensure!(refused.to_string().contains("--follow"), "{refused}");
    Ok(())
}
