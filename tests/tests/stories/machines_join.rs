//! Other machines become nodes of a cluster with a join token, and stay nodes.

use std::os::unix::fs::PermissionsExt as _;

use anyhow::Context as _;
use portway_tests::authority;
use portway_tests::browser::Browser;
use portway_tests::client::{Connected, LinkFile, ping};
use portway_tests::portway::{Portway, State};
use portway_tests::upstream::Upstream;
use portway_tests::{LOOK_AGAIN, PATIENCE};
use serde_json::Value;

use crate::{APP, BOTH, NativeStory, in_app, native, story};

pub(crate) const STORIES: &[crate::Story] = &[
    story!(BOTH, a_page_hears_that_its_machine_was_forgotten),
    story!(BOTH, a_page_says_that_its_machine_is_offline),
];

pub(crate) const NATIVE_STORIES: &[NativeStory] = &[
    native!(a_machine_joins_and_serves),
    native!(a_join_token_is_good_once),
    native!(one_of_two_machines_gets_a_token_s_certificate),
    native!(a_name_has_one_machine),
    native!(certificates_are_renewed_while_sessions_go_on),
    native!(a_machine_that_was_forgotten_is_not_renewed),
    native!(a_machine_that_was_forgotten_is_no_node),
    native!(a_gateway_with_the_cluster_key_lets_machines_join),
    native!(what_is_no_join_token_is_refused),
];

/// Life of a certificate that is renewed often, and how long it is believed after its end, seconds.
const LIFE_S: u64 = 6;
const LEEWAY_S: u64 = 30;

/// The machine with the cluster key.
pub(crate) struct Owner {
    pub(crate) state: State,
    pub(crate) portway: Portway,
}

impl Owner {
    async fn up() -> anyhow::Result<Self> {
        Self::offering(&[]).await
    }

    /// With services, by name and target.
    pub(crate) async fn offering(services: &[(&str, String)]) -> anyhow::Result<Self> {
        let state = State::new()?;
        let services = services
            .iter()
            .map(|(name, target)| format!("{name}={target}"));
        let services: Vec<_> = services.collect();
        let expose = |service| ["--expose", service];
        let args: Vec<_> = services
            .iter()
            .map(String::as_str)
            .flat_map(expose)
            .collect();
        let portway = Portway::up(&state, "127.0.0.1:0", &args).await?;
        Ok(Self { state, portway })
    }

    pub(crate) async fn join_token(&self, args: &[&str]) -> anyhow::Result<String> {
        let args = [&["token", "issue", "join"], args].concat();
        Ok(text(&self.portway.ask(&args).await?["token"]))
    }

    /// A link to `app` of a gateway elsewhere.
    async fn link(&self, gateway: &Portway) -> anyhow::Result<String> {
        let portal = text(&self.portway.ready["portal"]);
        let issue = ["token", "issue", "user", "--service", "app", "--origin"];
        let granted = self
            .portway
            .ask(&[&issue[..], &[portal.as_str()]].concat())
            .await?;
        let token = text(&granted["token"]);
        gateway.tell(&["token", "accept"], &token).await?;
        Ok(text(&granted["link"]))
    }

    /// How often a node came.
    async fn arrivals(&self, node: &str) -> anyhow::Result<usize> {
        let events = self.portway.ask(&["events", "--limit", "1000"]).await?;
        let is_arrival = |it: &&Value| it["event"] == "node_online" && it["node"] == node;
        let events = events["events"].as_array().context("a list")?;
        Ok(events.iter().filter(is_arrival).count())
    }
}

/// Runs `portway join` on a machine.
pub(crate) async fn join(machine: &State, token: &str, args: &[&str]) -> anyhow::Result<Value> {
    let file = machine.file("join.token", token)?;
    let args = [&["join", "--token-file", &file], args].concat();
    machine.ask(&args).await
}

/// What it said when it was refused.
async fn refused(machine: &State, token: &str, args: &[&str]) -> anyhow::Result<String> {
    let outcome = join(machine, token, args).await;
    Ok(outcome.err().context("it was not refused")?.to_string())
}

/// A gateway with no configuration but what it has joined.
async fn gateway(machine: &State, upstream: &Upstream) -> anyhow::Result<Portway> {
    let expose = format!("app={}", upstream.target());
    Portway::start(machine, &["gateway", "--expose", &expose]).await
}

/// Waits until the certificate of a gateway is another one.
async fn renewed(gateway: &Portway, since: &Value) -> anyhow::Result<Value> {
    let renewed = async {
        loop {
            let certificate = gateway.ask(&["status"]).await?["certificate"].clone();
            if certificate["expires"] != *since {
                return anyhow::Ok(certificate);
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    };
    tokio::time::timeout(PATIENCE, renewed).await?
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

async fn a_machine_joins_and_serves() -> anyhow::Result<()> {
    let owner = Owner::up().await?;
    let upstream = Upstream::start().await?;
    let token = owner.join_token(&[]).await?;
    let office = State::new()?;
    let joined = join(&office, &token, &["--node", "office"]).await?;
    let keys = owner.portway.ask(&["key", "show"]).await?;
    assert_eq!(joined["cluster_words"], keys["cluster_words"]);
    assert_eq!(text(&joined["cluster_words"]).split(' ').count(), 8);
    for file in ["node.key", "machine.token", "enrolment.json"] {
        let mode = std::fs::metadata(office.path().join(file))?.permissions();
        assert_eq!(mode.mode() & 0o777, 0o600, "{file}");
    }
    assert!(!office.path().join("cluster.key").exists());

    let running = gateway(&office, &upstream).await?;
    assert_eq!(running.ready["node"], "office");
    let link = LinkFile::new(&owner.link(&running).await?)?;
    let pinged = ping(&link, &["--count", "1"]).await?;
    assert!(pinged.status.success(), "{}", pinged.error);
    assert_eq!(pinged.lines[0]["node"], "office");
    assert_eq!(upstream.requests(), ["GET /"]);

    let enrolled = owner.portway.ask(&["nodes", "enrolled"]).await?;
    assert_eq!(enrolled["enrolled"][0]["node"], "office");
    assert_eq!(enrolled["enrolled"][0]["key"], joined["node_key"]);
    let services = owner.portway.ask(&["services"]).await?;
    assert_eq!(services["services"][0]["name"], "demo");
    assert!(services["services"][1].is_null(), "{services}");

    // Who could read the key may have it.
    running.kill().await?;
    let key = office.path().join("node.key");
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o640))?;
    let said = refused(&office, &token, &[]).await?;
    assert!(said.contains("open to other users"), "{said}");
    Ok(())
}

async fn a_join_token_is_good_once() -> anyhow::Result<()> {
    let owner = Owner::up().await?;
    let token = owner.join_token(&[]).await?;
    let (office, thief) = (State::new()?, State::new()?);
    let first = join(&office, &token, &["--node", "office"]).await?;
    for name in ["office", "attic"] {
        let said = refused(&thief, &token, &["--node", name]).await?;
        assert!(said.contains("GRANT_UNKNOWN"), "{said}");
        assert!(said.contains("used already"), "{said}");
        assert!(!said.contains(&token), "{said}");
    }
    // The answer to this machine was lost: its key is what counts.
    for file in ["machine.token", "enrolment.json"] {
        std::fs::remove_file(office.path().join(file))?;
    }
    let again = join(&office, &token, &["--node", "office"]).await?;
    assert_eq!(again["node_key"], first["node_key"]);
    assert!(office.path().join("machine.token").exists());
    let enrolled = owner.portway.ask(&["nodes", "enrolled"]).await?;
    assert_eq!(enrolled["enrolled"].as_array().map(Vec::len), Some(1));
    Ok(())
}

async fn one_of_two_machines_gets_a_token_s_certificate() -> anyhow::Result<()> {
    let owner = Owner::up().await?;
    let token = owner.join_token(&[]).await?;
    let (office, attic) = (State::new()?, State::new()?);
    let both = tokio::join!(
        join(&office, &token, &["--node", "office"]),
        join(&attic, &token, &["--node", "attic"]),
    );
    assert_ne!(both.0.is_ok(), both.1.is_ok(), "{both:?}");
    let enrolled = owner.portway.ask(&["nodes", "enrolled"]).await?;
    assert_eq!(enrolled["enrolled"].as_array().map(Vec::len), Some(1));
    Ok(())
}

async fn a_name_has_one_machine() -> anyhow::Result<()> {
    let owner = Owner::up().await?;
    let (attic, other) = (State::new()?, State::new()?);
    // A token may be for one name; asking for another one does not use it up.
    let token = owner.join_token(&["--node", "attic"]).await?;
    let said = refused(&attic, &token, &["--node", "office"]).await?;
    assert!(said.contains("PERMISSION_DENIED"), "{said}");
    assert!(said.contains("--node attic"), "{said}");
    assert_eq!(join(&attic, &token, &[]).await?["node"], "attic");

    let token = owner.join_token(&[]).await?;
    let own = text(&owner.portway.ready["node"]);
    for taken in ["attic", &own] {
        let said = refused(&other, &token, &["--node", taken]).await?;
        assert!(said.contains("NODE_NAME_TAKEN"), "{said}");
    }
    let freed = owner.portway.ask(&["nodes", "forget", "attic"]).await?;
    assert_eq!(freed["forgotten"], true);
    assert!(
        owner
            .portway
            .ask(&["nodes", "forget", "attic"])
            .await
            .is_err()
    );
    let joined = join(&other, &token, &["--node", "attic"]).await?;
    assert_eq!(joined["node"], "attic");
    Ok(())
}

async fn certificates_are_renewed_while_sessions_go_on() -> anyhow::Result<()> {
    let owner = Owner::up().await?;
    let upstream = Upstream::start().await?;
    let token = owner
        .join_token(&["--certificate", &format!("{LIFE_S}s")])
        .await?;
    let office = State::new()?;
    join(&office, &token, &["--node", "office"]).await?;
    // A gateway without a good one gets it before it starts.
    std::fs::write(office.path().join("machine.token"), "damaged")?;
    let running = gateway(&office, &upstream).await?;
    let link = LinkFile::new(&owner.link(&running).await?)?;
    let local = Connected::start(&link).await?;
    let before = local.request("GET / HTTP/1.1", b"").await?;
    assert!(before.0.starts_with("HTTP/1.1 200"), "{}", before.0);

    let mut certificate = running.ask(&["status"]).await?["certificate"].clone();
    assert_eq!(certificate["renewal"], "itself");
    // Until nobody would believe the first one any more.
    let first = certificate["expires"].as_u64().context("a time")?;
    while certificate["expires"].as_u64() <= Some(first + LEEWAY_S + LIFE_S) {
        certificate = renewed(&running, &certificate["expires"]).await?;
    }
    let kept = std::fs::read_to_string(office.path().join("machine.token"))?;
    let inspected = owner
        .portway
        .tell(&["token", "inspect"], kept.trim())
        .await?;
    assert_eq!(inspected["claims"]["exp"], certificate["expires"]);

    // One session, one socket to signaling, and both are still the first ones.
    let after = local.request("GET / HTTP/1.1", b"").await?;
    assert!(after.0.starts_with("HTTP/1.1 200"), "{}", after.0);
    let sessions = running.ask(&["sessions"]).await?;
    assert_eq!(sessions["sessions"].as_array().map(Vec::len), Some(1));
    assert_eq!(owner.arrivals("office").await?, 1);
    let pinged = ping(&link, &["--count", "1"]).await?;
    assert!(pinged.status.success(), "{}", pinged.error);
    Ok(())
}

async fn a_machine_that_was_forgotten_is_not_renewed() -> anyhow::Result<()> {
    let owner = Owner::up().await?;
    let upstream = Upstream::start().await?;
    let token = owner.join_token(&["--certificate", "6s"]).await?;
    let office = State::new()?;
    join(&office, &token, &["--node", "office"]).await?;
    let running = gateway(&office, &upstream).await?;
    owner.portway.ask(&["nodes", "forget", "office"]).await?;
    let told = async {
        loop {
            let certificate = running.ask(&["status"]).await?["certificate"].clone();
            if !certificate["failure"].is_null() {
                return anyhow::Ok(text(&certificate["failure"]));
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    };
    let failure = tokio::time::timeout(PATIENCE, told).await??;
    assert!(failure.contains("does not know this machine"), "{failure}");
    Ok(())
}

/// A machine of the owner's cluster, with a service and a link to it.
struct Office {
    state: State,
    upstream: Upstream,
    gateway: Portway,
    link: LinkFile,
    /// The link, as people have it.
    url: String,
}

impl Office {
    async fn join(owner: &Owner) -> anyhow::Result<Self> {
        let (state, upstream) = (State::new()?, Upstream::start().await?);
        let token = owner.join_token(&[]).await?;
        join(&state, &token, &["--node", "office"]).await?;
        let gateway = gateway(&state, &upstream).await?;
        let url = owner.link(&gateway).await?;
        Ok(Self {
            link: LinkFile::new(&url)?,
            state,
            upstream,
            gateway,
            url,
        })
    }
}

async fn a_machine_that_was_forgotten_is_no_node() -> anyhow::Result<()> {
    let owner = Owner::up().await?;
    let office = Office::join(&owner).await?;
    let mut local = Connected::start(&office.link).await?;
    let (head, _) = local.request("GET / HTTP/1.1", b"").await?;
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    let known = office.gateway.ask(&["status"]).await?["revocations"].clone();
    assert_eq!(known["nodes"], 0);

    owner.portway.ask(&["nodes", "forget", "office"]).await?;
    let lost = local.event("lost").await?;
    assert_eq!(lost["reason"], "NODE_REVOKED");
    let pinged = ping(&office.link, &["--count", "1"]).await?;
    assert_eq!(pinged.error["error"]["reason"], "GRANT_UNKNOWN");
    assert_eq!(office.upstream.requests(), ["GET /"]);
    let told = office.gateway.ask(&["status"]).await?["revocations"].clone();
    assert_eq!(told["nodes"], 1);
    assert_eq!(told["names_this_node"], true);
    assert!(told["serial"].as_u64() > known["serial"].as_u64());

    // It does not come back by itself, whatever is started anew.
    let Owner { state, portway } = owner;
    let listen = portway.listen()?;
    portway.kill().await?;
    let portway = Portway::up(&state, &listen, &[]).await?;
    let owner = Owner { state, portway };
    let status = owner.portway.ask(&["status"]).await?;
    assert_eq!(status["revocations"]["nodes"], 1);
    let pinged = ping(&office.link, &["--count", "1"]).await?;
    assert_eq!(pinged.error["error"]["reason"], "GRANT_UNKNOWN");

    // Until the owner invites it again.
    office.gateway.kill().await?;
    let token = owner.join_token(&[]).await?;
    join(&office.state, &token, &["--node", "office"]).await?;
    let _gateway = gateway(&office.state, &office.upstream).await?;
    let pinged = ping(&office.link, &["--count", "1"]).await?;
    assert!(pinged.status.success(), "{}", pinged.error);
    Ok(())
}

async fn a_page_hears_that_its_machine_was_forgotten(browser: &mut Browser) -> anyhow::Result<()> {
    let owner = Owner::up().await?;
    let office = Office::join(&owner).await?;
    browser.open(&office.url).await?;
    let hello = format!("!!{APP}.document.querySelector('#hello')");
    browser.wait_for(&hello, PATIENCE).await?;
    owner.portway.ask(&["nodes", "forget", "office"]).await?;
    let shown = "document.body.innerText.includes('GRANT_UNKNOWN')";
    browser.wait_for(shown, PATIENCE).await?;
    Ok(())
}

/// The fault is not the visitor's, and it may take a while; then the page works again by itself.
async fn a_page_says_that_its_machine_is_offline(browser: &mut Browser) -> anyhow::Result<()> {
    let owner = Owner::up().await?;
    let office = Office::join(&owner).await?;
    browser.open(&office.url).await?;
    let hello = format!("!!{APP}.document.querySelector('#hello')");
    browser.wait_for(&hello, PATIENCE).await?;
    office.gateway.kill().await?;
    let banner = |wanted: &str| {
        format!(
            "document.querySelector('#pw-banner:not([hidden])')?.innerText.includes({wanted:?})"
        )
    };
    let told = banner("The machine is offline");
    browser.wait_for(&told, PATIENCE).await?;
    let _again = gateway(&office.state, &office.upstream).await?;
    let fetch = in_app("fetch('/next').then((r) => r.ok, () => false)");
    browser.wait_for(&fetch, PATIENCE).await?;
    let gone = "document.querySelector('#pw-banner').hidden";
    browser.wait_for(gone, PATIENCE).await?;
    Ok(())
}

async fn a_gateway_with_the_cluster_key_lets_machines_join() -> anyhow::Result<()> {
    let owner = State::new()?;
    let made = owner.ask(&["init", "--cluster", "home"]).await?;
    let key = &made["cluster_key"];
    let apart = State::new()?;
    let ca = authority::certificate()?.display().to_string();
    let tls = authority::issue(&["home.localhost", "*.home.localhost"])?;
    let config = format!(
        "cluster = \"home\"\nlisten = \"127.0.0.1:0\"\ntls_cert = {:?}\ntls_key = {:?}\n\
         [signaling]\ncluster_keys = [{key}]\n",
        tls.certificate, tls.key
    );
    let config = apart.file("portway.toml", &config)?;
    let signaling = Portway::start(&apart, &["signaling", "--config", &config]).await?;
    // It has the key, so it needs no machine token.
    let portal = &signaling.ready["portal"];
    let config = format!(
        "cluster = \"home\"\n[gateway]\ncluster_key = {key}\nsignaling = [{portal}]\n\
         signaling_ca = {ca:?}\nnode = \"keeper\"\n"
    );
    let config = owner.file("portway.toml", &config)?;
    let keeper = Portway::start(&owner, &["gateway", "--config", &config]).await?;
    assert_eq!(keeper.ready["node"], "keeper");

    let token = text(&keeper.ask(&["token", "issue", "join"]).await?["token"]);
    let (office, upstream) = (State::new()?, Upstream::start().await?);
    assert!(token.starts_with("https://enrol.home.localhost:"));
    let joined = join(&office, &token, &["--node", "office", "--ca", &ca]).await?;
    assert_eq!(joined["signaling"][0], text(portal).trim_end_matches('/'));
    let running = gateway(&office, &upstream).await?;
    assert_eq!(running.ready["node"], "office");
    // A gateway without the key makes no tokens.
    let outcome = running.ask(&["token", "issue", "join"]).await;
    let said = outcome.err().context("it was made")?.to_string();
    assert!(said.contains("has no cluster key"), "{said}");
    Ok(())
}

async fn what_is_no_join_token_is_refused() -> anyhow::Result<()> {
    let owner = Owner::up().await?;
    let machine = State::new()?;
    let link = owner.portway.link("demo");
    let said = refused(&machine, &link, &[]).await?;
    assert!(said.contains("not a join token"), "{said}");
    let said = refused(&machine, "nonsense", &[]).await?;
    assert!(said.contains("LINK_INVALID"), "{said}");
    assert!(!machine.path().join("enrolment.json").exists());

    // What opens the service is made for machines only.
    let issue = ["token", "issue", "user", "--service", "enrol"];
    let outcome = owner.portway.ask(&issue).await;
    let said = outcome.err().context("it was made")?.to_string();
    assert!(said.contains("no service for people"), "{said}");
    let outcome = owner
        .portway
        .ask(&["expose", "enrol=http://127.0.0.1:1"])
        .await;
    let said = outcome.err().context("it was exposed")?.to_string();
    assert!(said.contains("reserved"), "{said}");

    // Where the cluster key is, there is nothing to join.
    let token = owner.join_token(&[]).await?;
    let said = refused(&owner.state, &token, &[]).await?;
    assert!(said.contains("a portway runs"), "{said}");
    Ok(())
}
