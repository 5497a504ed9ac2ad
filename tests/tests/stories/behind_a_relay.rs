//! Somebody whose network lets no direct path through: a relay helps, ours or one that is not.

use std::path::PathBuf;
use std::time::Duration;

use portway_tests::PATIENCE;
use portway_tests::browser::Browser;
use portway_tests::coturn::{Coturn, USERNAME};
use portway_tests::portway::{Portway, State};
use portway_tests::upstream::Upstream;
use serde_json::Value;

use crate::{APP, BOTH, in_app, story};

pub(crate) const STORIES: &[crate::Story] = &[
    story!(BOTH, our_relay_carries_a_session),
    story!(BOTH, our_relay_carries_a_session_over_tcp),
    story!(BOTH, a_relayed_session_outlives_its_credentials),
    story!(BOTH, coturn_carries_a_session),
];

/// Without a word of configuration: `up` has a relay where it listens to others.
async fn our_relay_carries_a_session(browser: &mut Browser) -> anyhow::Result<()> {
    let upstream = Upstream::start().await?;
    let state = State::new()?;
    let expose = format!("app={}", upstream.target());
    let portway = Portway::up(&state, "0.0.0.0:0", &["--expose", &expose]).await?;
    assert!(portway.ready["relay"].is_string(), "{}", portway.ready);
    work_over_a_relay(browser, &portway, "udp").await
}

/// The network lets no UDP through at all: the relay is at the port of the page, too.
async fn our_relay_carries_a_session_over_tcp(browser: &mut Browser) -> anyhow::Result<()> {
    let upstream = Upstream::start().await?;
    let state = State::new()?;
    let expose = format!("app={}", upstream.target());
    let portway = Portway::up(&state, "0.0.0.0:0", &["--expose", &expose]).await?;
    work_over_a_relay(browser, &portway, "tcp").await
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
    work_over(browser, &turn).await
}

/// A TURN server that `up` is told of.
struct Turn {
    url: String,
    username: String,
    password: PathBuf,
}

async fn work_over(browser: &mut Browser, turn: &Turn) -> anyhow::Result<()> {
    let upstream = Upstream::start().await?;
    let state = State::new()?;
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
    let portway = Portway::up(&state, "127.0.0.1:0", &args).await?;
    work_over_a_relay(browser, &portway, "udp").await
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
