//! A cluster of several machines: signaling, relay and gateways are processes of their own, and only one
//! more state directory has the cluster key.

use std::time::Duration;

use portway_tests::PATIENCE;
use portway_tests::authority;
use portway_tests::browser::Browser;
use portway_tests::coturn::own_ip;
use portway_tests::portway::{Portway, Program, State};
use portway_tests::upstream::Upstream;
use serde_json::Value;

use crate::behind_a_relay::revoke_and_free;
use crate::{APP, BOTH, in_app, story};

pub(crate) const STORIES: &[crate::Story] = &[
    story!(BOTH, roles_run_apart),
    story!(BOTH, one_of_two_signaling_services_is_lost),
];

/// How long credentials of the relay are good for here.
const CREDENTIALS: Duration = Duration::from_secs(20);

/// Who has the cluster key, and runs nothing.
pub(crate) struct Owner {
    pub(crate) state: State,
    key: String,
}

impl Owner {
    pub(crate) async fn init() -> anyhow::Result<Self> {
        let state = State::new()?;
        let made = state.ask(&["init", "--cluster", "home"]).await?;
        let again = state.ask(&["init"]).await?;
        assert_eq!(made, again, "it is made once");
        assert!(state.ask(&["init", "--cluster", "other"]).await.is_err());
        Ok(Self {
            state,
            key: text(&made["cluster_key"]),
        })
    }

    /// What a signaling service is told, with more lines.
    pub(crate) fn signaling(&self, more: &str) -> anyhow::Result<(State, String)> {
        let state = State::new()?;
        let config = format!(
            "cluster = \"home\"\nlisten = \"127.0.0.1:0\"\n{more}\n[signaling]\ncluster_keys = [{:?}]\n",
            self.key
        );
        let file = state.file("portway.toml", &config)?;
        Ok((state, file))
    }

    /// Starts a gateway: it tells its key, and gets a machine token for it.
    pub(crate) async fn gateway(
        &self,
        name: &str,
        portals: &[&str],
        services: &str,
    ) -> anyhow::Result<(State, Portway)> {
        self.gateway_as(&Program::default(), name, portals, services)
            .await
    }

    /// The same of another build.
    pub(crate) async fn gateway_as(
        &self,
        program: &Program,
        name: &str,
        portals: &[&str],
        services: &str,
    ) -> anyhow::Result<(State, Portway)> {
        let state = State::new()?;
        let config = format!(
            "cluster = \"home\"\n[gateway]\ncluster_key = {:?}\nnode = {name:?}\nsignaling = {portals:?}\n\
             signaling_ca = {:?}\nmachine_token_file = \"token\"\n[services]\n{services}",
            self.key,
            authority::certificate()?,
        );
        let config = state.file("portway.toml", &config)?;
        let args = ["gateway", "--config", &config];
        let refused = state.ask(&args).await.err().map(|error| error.to_string());
        let refused = refused.unwrap_or_default();
        let node_key = text(&state.ask(&["key", "show"]).await?["node_key"]);
        let wanted = format!("portway token issue machine --node {name} --key {node_key}");
        assert!(refused.contains(&wanted), "{refused}");
        let (issue, key) = (
            ["token", "issue", "machine", "--node", name],
            ["--key", &node_key],
        );
        let issued = self.state.ask(&[&issue[..], &key].concat()).await?;
        state.file("token", &text(&issued["token"]))?;
        let running = Portway::start_as(program, &state, &args).await?;
        Ok((state, running))
    }

    /// A link to `app` by a signaling service, which the gateway of the service accepts.
    async fn link(&self, gateway: &Portway, portal: &str) -> anyhow::Result<String> {
        self.link_to(gateway, &["--service", "app", "--origin", portal])
            .await
    }

    /// A link that is asked for like this, which the gateway of its services accepts.
    pub(crate) async fn link_to(
        &self,
        gateway: &Portway,
        asked: &[&str],
    ) -> anyhow::Result<String> {
        let args = [&["token", "issue", "user"], asked].concat();
        let granted = self.state.ask(&args).await?;
        let accepted = gateway
            .tell(
                &["token", "accept"],
                granted["token"].as_str().unwrap_or_default(),
            )
            .await?;
        assert_eq!(accepted["id"], granted["id"]);
        Ok(text(&granted["link"]))
    }
}

pub(crate) fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

pub(crate) fn portal(signaling: &Portway) -> String {
    text(&signaling.ready["portal"])
}

async fn hello(browser: &mut Browser, link: &str) -> anyhow::Result<()> {
    browser.open(link).await?;
    let hello = format!("!!{APP}.document.querySelector('#hello')");
    browser.wait_for(&hello, PATIENCE).await?;
    Ok(())
}

async fn roles_run_apart(browser: &mut Browser) -> anyhow::Result<()> {
    let owner = Owner::init().await?;
    let ip = own_ip()?;
    let state = State::new()?;
    state.file("secret", "a secret of two\n")?;
    let config = format!(
        "[relay]\nlisten = [\"udp://{ip}:0\"]\nrelay_ip = [\"{ip}\"]\nallow_peers = [\"{ip}\"]\n\
         secret_file = \"secret\"\nprolong = \"24h\"\n"
    );
    let config = state.file("portway.toml", &config)?;
    let relay = Portway::start(&state, &["relay", "--config", &config]).await?;

    let certificate = authority::issue(&["home.localhost", "*.home.localhost"])?;
    let tls = format!(
        "tls_cert = {:?}\ntls_key = {:?}\n",
        certificate.certificate, certificate.key
    );
    let (state, config) = owner.signaling(&tls)?;
    state.file("secret", "a secret of two\n")?;
    let relays = format!(
        "\n[[signaling.relays]]\nurls = [{:?}]\nsecret_file = \"secret\"\n\
         credentials = \"20s\"\n",
        text(&relay.ready["relay"][0])
    );
    state.file(
        "portway.toml",
        &(std::fs::read_to_string(&config)? + &relays),
    )?;
    let signaling = Portway::start(&state, &["signaling", "--config", &config]).await?;
    let portal = portal(&signaling);
    assert!(portal.starts_with("https://home.localhost:"), "{portal}");

    let upstream = Upstream::start().await?;
    let app = format!("app = {:?}\n", upstream.target());
    let (_attic, attic) = owner.gateway("attic", &[&portal], "").await?;
    let (_office, office) = owner.gateway("office", &[&portal], &app).await?;
    assert_eq!(attic.ready["services"][0]["name"], "demo");
    assert_eq!(office.ready["services"][0]["name"], "app");
    let nodes = signaling.ask(&["nodes"]).await?;
    let online = nodes["nodes"].as_array().into_iter().flatten();
    let names: Vec<String> = online
        .filter(|node| node["status"] == "online")
        .map(|node| text(&node["node"]))
        .collect();
    assert_eq!(names, ["attic", "office"]);

    let link = owner.link(&office, &portal).await?;
    browser.allow_relays_only("udp").await?;
    hello(browser, &link).await?;
    let fetch =
        in_app("fetch('/bytes?n=1000000').then((r) => r.arrayBuffer()).then((b) => b.byteLength)");
    assert_eq!(browser.eval(&fetch).await?, 1_000_000);
    let sessions = office.ask(&["sessions"]).await?;
    assert_eq!(sessions["sessions"][0]["path"], "relayed", "{sessions}");

    // What is awaited is the time at which an allocation of these credentials would have ended.
    tokio::time::sleep(CREDENTIALS + Duration::from_secs(2)).await;
    assert_eq!(browser.eval(&fetch).await?, 1_000_000);
    let later = office.ask(&["sessions"]).await?;
    let session = |listed: &Value| listed["sessions"][0]["session"].clone();
    assert_eq!(session(&later), session(&sessions), "the same session");

    // Nobody tells the relay: both ends give back what they had of it.
    revoke_and_free(browser, &link, &office, &relay).await?;

    let mut executables = Vec::new();
    for (process, role) in [
        (&relay, "relay"),
        (&signaling, "signaling"),
        (&attic, "gateway"),
        (&office, "gateway"),
    ] {
        let status = process.ask(&["status"]).await?;
        assert_eq!(status["role"], role);
        executables.push(text(&status["executable"]));
    }
    executables.dedup();
    assert_eq!(executables.len(), 1, "one build");
    assert_eq!(executables[0].len(), 64, "SHA-256, hexadecimal");
    assert!(
        office.ask(&["nodes"]).await.is_err(),
        "a gateway knows no nodes"
    );
    assert!(
        signaling.ask(&["sessions"]).await.is_err(),
        "signaling has no sessions"
    );
    Ok(())
}

async fn one_of_two_signaling_services_is_lost(browser: &mut Browser) -> anyhow::Result<()> {
    let owner = Owner::init().await?;
    let (state, config) = owner.signaling("")?;
    let first = Portway::start(&state, &["signaling", "--config", &config]).await?;
    let (state, config) = owner.signaling("")?;
    let second = Portway::start(&state, &["signaling", "--config", &config]).await?;
    let portals = [portal(&first), portal(&second)];

    let upstream = Upstream::start().await?;
    let app = format!("app = {:?}\n", upstream.target());
    let both = [portals[0].as_str(), portals[1].as_str()];
    let (_state, gateway) = owner.gateway("office", &both, &app).await?;
    let links = [
        owner.link(&gateway, &portals[0]).await?,
        owner.link(&gateway, &portals[1]).await?,
    ];
    hello(browser, &links[0]).await?;
    let by_first = browser.another_tab().await?;

    first.kill().await?;
    hello(browser, &links[1]).await?;
    browser.switch_to(by_first);
    let fetch =
        in_app("fetch('/bytes?n=100000').then((r) => r.arrayBuffer()).then((b) => b.byteLength)");
    assert_eq!(
        browser.eval(&fetch).await?,
        100_000,
        "who was there goes on"
    );

    let connected = async {
        loop {
            let status = gateway.ask(&["status"]).await?;
            let one_by_one = status["signaling"].as_array().cloned().unwrap_or_default();
            let connected: Vec<bool> = one_by_one
                .iter()
                .map(|it| it["connected"] == true)
                .collect();
            if connected == [false, true] {
                return anyhow::Ok(());
            }
        }
    };
    tokio::time::timeout(PATIENCE, connected).await??;
    Ok(())
}
