//! Somebody whose network lets no direct path through: a relay helps, ours or one that is not.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use portway_tests::authority;
use portway_tests::browser::Browser;
use portway_tests::coturn::{Coturn, USERNAME};
use portway_tests::portway::{Portway, State};
use portway_tests::relay::Relay;
use portway_tests::upstream::Upstream;
use portway_tests::{LOOK_AGAIN, PATIENCE};
use serde_json::Value;

use crate::share_a_link::{REVOKED, begin_download, says};
use crate::{APP, BOTH, in_app, story};

pub(crate) const STORIES: &[crate::Story] = &[
    story!(BOTH, our_relay_carries_a_session),
    story!(BOTH, our_relay_carries_a_session_over_tcp),
    story!(BOTH, our_relay_carries_a_session_over_tls),
    story!(BOTH, one_port_is_enough),
    story!(BOTH, a_relayed_session_outlives_its_credentials),
    story!(BOTH, coturn_carries_a_session),
    story!(BOTH, a_revoked_link_frees_the_relay),
];

/// Half of the silence after which a page gives a session up: it is told, and does not wait for that.
const TOLD: Duration = Duration::from_secs(30);

/// Without a word of configuration: `up` has a relay where it listens to others.
async fn our_relay_carries_a_session(browser: &mut Browser) -> anyhow::Result<()> {
    let upstream = Upstream::start().await?;
    let state = State::new()?;
    let expose = format!("app={}", upstream.target());
    let portway = Portway::up(&state, "0.0.0.0:0", &["--expose", &expose]).await?;
    assert!(portway.ready["relay"].is_string(), "{}", portway.ready);
    work_over_a_relay(browser, &portway, "udp").await?;
    // Its operator sees whose link it is, and what has passed.
    let grant = portway.ask(&["sessions"]).await?["sessions"][0]["grant"].clone();
    let status = portway.ask(&["relay", "status"]).await?;
    let sessions = status["sessions"].as_array().cloned().unwrap_or_default();
    let theirs = |session: &&Value| session["user"] == grant;
    let passed = |session: &Value| session["bytes_to_client"].as_u64().unwrap_or_default();
    let sum: u64 = sessions.iter().filter(theirs).map(passed).sum();
    assert!(sum > 1_000_000, "{status}");
    Ok(())
}

/// The network lets no UDP through at all: the relay is at the port of the page, too.
async fn our_relay_carries_a_session_over_tcp(browser: &mut Browser) -> anyhow::Result<()> {
    let upstream = Upstream::start().await?;
    let state = State::new()?;
    let expose = format!("app={}", upstream.target());
    let portway = Portway::up(&state, "0.0.0.0:0", &["--expose", &expose]).await?;
    work_over_a_relay(browser, &portway, "tcp").await
}

/// A relay of somebody's own, and a network that lets nothing but TLS through. The relay dies and
/// comes back: so does the session, the same one by another path, or a new one.
async fn our_relay_carries_a_session_over_tls(browser: &mut Browser) -> anyhow::Result<()> {
    let relay = Relay::start().await?;
    let turn = Turn {
        url: relay.url(),
        username: relay.username().to_owned(),
        password: relay.password_file(),
    };
    let (upstream, state) = (Upstream::start().await?, State::new()?);
    let portway = up_with(&state, &upstream, &turn).await?;
    work_over_a_relay(browser, &portway, "tcp").await?;
    let _relay = relay.replace().await?;
    let fetch =
        in_app("fetch('/bytes?n=1000').then((r) => r.arrayBuffer()).then((b) => b.byteLength)");
    // What is asked while the path is silent may fail, with a reason; a page asks again.
    let back = async { while browser.eval(&fetch).await.ok() != Some(1_000.into()) {} };
    tokio::time::timeout(PATIENCE, back)
        .await
        .context("the session does not come back")?;
    Ok(())
}

/// A domain, a certificate, and one port for pages, signaling and the relay within TLS: a network that
/// lets nothing but HTTPS through is no obstacle.
async fn one_port_is_enough(browser: &mut Browser) -> anyhow::Result<()> {
    let upstream = Upstream::start().await?;
    let state = State::new()?;
    let certificate = authority::issue(&["home.portway.test", "*.home.portway.test"])?;
    let expose = format!("app={}", upstream.target());
    let args = [
        "--expose",
        &expose,
        "--cluster",
        "home",
        "--domain",
        "portway.test",
        "--tls-cert",
        &certificate.certificate.display().to_string(),
        "--tls-key",
        &certificate.key.display().to_string(),
    ];
    let portway = Portway::up(&state, "0.0.0.0:0", &args).await?;
    assert!(portway.link("app").starts_with("https://"));
    work_over_a_relay(browser, &portway, "tcp").await?;
    let status = portway.ask(&["relay", "status"]).await?;
    assert_eq!(status["sessions"][0]["transport"], "tls", "{status}");
    Ok(())
}

/// Credentials are good for seconds here: nobody can use them later, but who works goes on working.
async fn a_relayed_session_outlives_its_credentials(browser: &mut Browser) -> anyhow::Result<()> {
    const CREDENTIALS: Duration = Duration::from_secs(20);
    let upstream = Upstream::start().await?;
    let state = State::new()?;
    let config = state.path().with_file_name("portway.toml");
    std::fs::write(&config, "[relay]\ncredentials = \"20s\"\n")?;
    let expose = format!("app={}", upstream.target());
    let args = [
        "--config",
        &config.display().to_string(),
        "--expose",
        &expose,
    ];
    let portway = Portway::up(&state, "0.0.0.0:0", &args).await?;
    work_over_a_relay(browser, &portway, "udp").await?;
    let before = session_ids(&portway).await?;
    assert_eq!(before.len(), 1);
    // What is awaited is the time at which an allocation of these credentials would have ended.
    tokio::time::sleep(CREDENTIALS + Duration::from_secs(2)).await;
    let fetch =
        in_app("fetch('/bytes?n=1000').then((r) => r.arrayBuffer()).then((b) => b.byteLength)");
    assert_eq!(browser.eval(&fetch).await?, 1_000);
    assert_eq!(session_ids(&portway).await?, before);
    Ok(())
}

async fn session_ids(portway: &Portway) -> anyhow::Result<Vec<Value>> {
    let listed = portway.ask(&["sessions"]).await?;
    let sessions = listed["sessions"].as_array().cloned().unwrap_or_default();
    Ok(sessions
        .iter()
        .map(|view| view["session"].clone())
        .collect())
}

async fn coturn_carries_a_session(browser: &mut Browser) -> anyhow::Result<()> {
    let coturn = Coturn::start().await?;
    let turn = Turn {
        url: coturn.url(),
        username: USERNAME.to_owned(),
        password: coturn.password_file(),
    };
    let (upstream, state) = (Upstream::start().await?, State::new()?);
    let portway = up_with(&state, &upstream, &turn).await?;
    work_over_a_relay(browser, &portway, "udp").await
}

/// The relay is that of `up`, which revokes its credentials with the link.
async fn a_revoked_link_frees_the_relay(browser: &mut Browser) -> anyhow::Result<()> {
    let (upstream, state) = (Upstream::start().await?, State::new()?);
    let expose = format!("app={}", upstream.target());
    let portway = Portway::up(&state, "0.0.0.0:0", &["--expose", &expose]).await?;
    assert_eq!(allocations(&portway).await?, 0);
    work_over_a_relay(browser, &portway, "udp").await?;
    revoke_and_free(browser, &portway.link("app"), &portway, &portway).await
}

/// Revokes the link of a page while something comes by the relay: the page says why it ends, and nothing is
/// left at the relay.
pub(crate) async fn revoke_and_free(
    browser: &mut Browser,
    link: &str,
    gateway: &Portway,
    relay: &Portway,
) -> anyhow::Result<()> {
    begin_download(browser).await?;
    assert!(allocations(relay).await? > 0, "it comes by the relay");
    let id = link.split('.').rev().nth(1).context("a link has an id")?;
    let begun = Instant::now();
    let revoked = gateway.ask(&["links", "revoke", id]).await?;
    assert_eq!(revoked["sessions"], 1, "{revoked}");
    let answered = begun.elapsed();
    let freed = async {
        while allocations(relay).await? > 0 {
            tokio::time::sleep(LOOK_AGAIN).await;
        }
        anyhow::Ok(begun.elapsed())
    };
    let freed = tokio::time::timeout(PATIENCE, freed).await??;
    let said = tokio::time::timeout(TOLD, says(browser, REVOKED)).await;
    said.context("nobody told the page")??;
    let told = begun.elapsed();
    eprintln!("revoked after {answered:?}, the relay free after {freed:?}, seen after {told:?}");
    let end = browser.wait_for(&in_app("window.end"), PATIENCE).await?;
    assert_eq!(end, "cut");
    Ok(())
}

async fn allocations(relay: &Portway) -> anyhow::Result<u64> {
    let status = relay.ask(&["relay", "status"]).await?;
    status["allocations"]
        .as_u64()
        .context("a relay counts them")
}

/// A TURN server that `up` is told of.
struct Turn {
    url: String,
    username: String,
    password: PathBuf,
}

async fn up_with(state: &State, upstream: &Upstream, turn: &Turn) -> anyhow::Result<Portway> {
    let (expose, password) = (
        format!("app={}", upstream.target()),
        turn.password.display().to_string(),
    );
    let args = [
        "--expose",
        &expose,
        "--ice-server",
        &turn.url,
        "--turn-username",
        &turn.username,
        "--turn-password-file",
        &password,
    ];
    Portway::up(state, "127.0.0.1:0", &args).await
}

/// Opens the app with relayed paths only, and loads something.
async fn work_over_a_relay(
    browser: &mut Browser,
    portway: &Portway,
    transport: &str,
) -> anyhow::Result<()> {
    browser.allow_relays_only(transport).await?;
    browser.open(&portway.link("app")).await?;
    let hello = format!("!!{APP}.document.querySelector('#hello')");
    browser.wait_for(&hello, PATIENCE).await?;
    let fetch =
        in_app("fetch('/bytes?n=1000000').then((r) => r.arrayBuffer()).then((b) => b.byteLength)");
    assert_eq!(browser.eval(&fetch).await?, 1_000_000);

    browser
        .wait_for(
            "document.querySelector('#pw-short').textContent.startsWith('Relayed')",
            PATIENCE,
        )
        .await?;
    let sessions = portway.ask(&["sessions"]).await?;
    assert_eq!(sessions["sessions"][0]["path"], "relayed");
    Ok(())
}
