//! A browser remembers by which key it has opened a service, and stops if a link names another one.

use portway_tests::PATIENCE;
use portway_tests::browser::Browser;
use portway_tests::portway::{Portway, State};
use portway_tests::upstream::Upstream;
use serde_json::{Value, json};

use crate::{APP, BOTH, story};

pub(crate) const STORIES: &[crate::Story] = &[story!(BOTH, another_key_is_a_hard_stop)];

/// Shown once the service is.
fn hello() -> String {
    format!("!!{APP}.document.querySelector('#hello')")
}

/// A cluster whose key was just made, at this address.
async fn cluster(listen: &str, upstream: &Upstream) -> anyhow::Result<(State, Portway, Value)> {
    let state = State::new()?;
    let expose = format!("app={}", upstream.target());
    let portway = Portway::up(&state, listen, &["--expose", &expose]).await?;
    let words = portway.ask(&["key", "show"]).await?["cluster_words"].clone();
    assert!(words.is_string(), "{words}");
    Ok((state, portway, words))
}

async fn another_key_is_a_hard_stop(browser: &mut Browser) -> anyhow::Result<()> {
    let upstream = Upstream::start().await?;
    let (_state, first, old_words) = cluster("127.0.0.1:0", &upstream).await?;
    browser.open(&first.link("app")).await?;
    browser.wait_for(&hello(), PATIENCE).await?;
    let panel = "document.querySelector('#pw-facts').textContent";
    let shown = format!("{panel}.includes({old_words})");
    browser.wait_for(&shown, PATIENCE).await?;
    let url = first.url("app");
    let port = url
        .trim_end_matches('/')
        .rsplit(':')
        .next()
        .unwrap_or_default();
    let listen = format!("127.0.0.1:{port}");
    first.kill().await?;

    let (_state, second, new_words) = cluster(&listen, &upstream).await?;
    assert_ne!(old_words, new_words);
    let before = upstream.requests().len();
    browser.open(&second.link("app")).await?;
    let stopped = "document.body.innerText.includes('CLUSTER_KEY_CHANGED')";
    browser.wait_for(stopped, PATIENCE).await?;
    let keys = browser
        .eval("[...document.querySelectorAll('#pw-keys dd')].map((it) => it.textContent)")
        .await?;
    assert_eq!(keys, json!([old_words, new_words]));
    assert_eq!(upstream.requests().len(), before, "nothing was asked for");

    // The stop is not passed by coming again, nor does the old link lead anywhere.
    browser.open(&second.link("app")).await?;
    browser.wait_for(stopped, PATIENCE).await?;

    browser
        .eval("document.querySelector('#pw-replace').click()")
        .await?;
    browser.wait_for(&hello(), PATIENCE).await?;
    browser
        .wait_for(&format!("{panel}.includes({new_words})"), PATIENCE)
        .await?;
    Ok(())
}
