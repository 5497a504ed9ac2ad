//! A browser remembers by which key it has opened a service. It stops if a link names another one, and
//! follows where the old key vouches for the new.

use portway_tests::browser::Browser;
use portway_tests::client::{Connected, LinkFile, ping};
use portway_tests::portway::{Portway, State};
use portway_tests::upstream::Upstream;
use portway_tests::{LOOK_AGAIN, PATIENCE};
use serde_json::{Value, json};

use crate::roles_apart::text;
use crate::{APP, BOTH, NativeStory, in_app, native, story};

pub(crate) const STORIES: &[crate::Story] = &[
    story!(BOTH, another_key_is_a_hard_stop),
    story!(BOTH, a_key_that_is_vouched_for_is_followed),
];

pub(crate) const NATIVE_STORIES: &[NativeStory] =
    &[native!(the_cluster_key_is_replaced_while_it_runs)];

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
    let listen = first.listen()?;
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

/// The state directory's cluster key is replaced while everything runs: what is open stays so, and the
/// browser follows silently.
async fn a_key_that_is_vouched_for_is_followed(browser: &mut Browser) -> anyhow::Result<()> {
    let upstream = Upstream::start().await?;
    let (_state, portway, old_words) = cluster("127.0.0.1:0", &upstream).await?;
    browser.open(&portway.link("app")).await?;
    browser.wait_for(&hello(), PATIENCE).await?;
    let before = portway.ask(&["sessions"]).await?["sessions"][0]["session"].clone();
    // A download is under way.
    let begin = "window.got = 0; (async () => { \
        const reader = (await fetch('/held')).body.getReader(); \
        for (;;) { const { done, value } = await reader.read(); if (done) break; window.got += value.length; } \
        window.all = true; })(); true";
    browser.eval(&in_app(begin)).await?;
    browser
        .wait_for(&in_app("window.got > 0"), PATIENCE)
        .await?;

    let rotated = portway.ask(&["key", "rotate"]).await?;
    assert_eq!(rotated["running"], true);
    assert_ne!(rotated["cluster_words"], old_words);
    upstream.release();
    browser.wait_for(&in_app("window.all"), PATIENCE).await?;
    let after = portway.ask(&["sessions"]).await?["sessions"][0]["session"].clone();
    assert_eq!(before, after, "the session went on");

    // A new link names the new key: the old one leads to it.
    let granted = portway
        .ask(&["token", "issue", "user", "--service", "app"])
        .await?;
    let link = text(&granted["link"]);
    assert!(link.contains(&text(&rotated["cluster_key"])), "{link}");
    browser.open(&link).await?;
    browser.wait_for(&hello(), PATIENCE).await?;
    let shown = format!(
        "document.querySelector('#pw-facts').textContent.includes({})",
        rotated["cluster_words"]
    );
    browser.wait_for(&shown, PATIENCE).await?;
    // And the old link still opens it.
    browser.open(&portway.link("app")).await?;
    browser.wait_for(&hello(), PATIENCE).await?;
    browser.wait_for(&shown, PATIENCE).await?;
    Ok(())
}

async fn the_cluster_key_is_replaced_while_it_runs() -> anyhow::Result<()> {
    let upstream = Upstream::start().await?;
    let (state, portway, old_words) = cluster("127.0.0.1:0", &upstream).await?;
    let old = LinkFile::new(&portway.link("app"))?;
    let token = portway.ask(&["token", "issue", "join"]).await?["token"].clone();
    let office = State::new()?;
    let file = office.file("join.token", &text(&token))?;
    office
        .ask(&["join", "--token-file", &file, "--node", "office"])
        .await?;
    let expose = format!("far={}", upstream.target());
    let running = Portway::start(&office, &["gateway", "--expose", &expose]).await?;
    let local = Connected::start(&old).await?;
    let open = local.request("GET / HTTP/1.1", b"").await?;
    assert!(open.0.starts_with("HTTP/1.1 200"), "{}", open.0);

    for serial in 1..=2 {
        let rotated = portway.ask(&["key", "rotate"]).await?;
        assert_eq!(rotated["serial"], serial);
        assert_ne!(rotated["cluster_words"], old_words);
        let shown = portway.ask(&["key", "show"]).await?;
        assert_eq!(shown["cluster_key"], rotated["cluster_key"]);
        let status = portway.ask(&["status"]).await?;
        assert_eq!(status["certificate"]["cluster_key"], rotated["cluster_key"]);
    }
    let still = local.request("GET / HTTP/1.1", b"").await?;
    assert!(still.0.starts_with("HTTP/1.1 200"), "{}", still.0);
    let newest = portway
        .ask(&["token", "issue", "user", "--service", "app"])
        .await?;
    let newest = LinkFile::new(&text(&newest["link"]))?;
    for link in [&old, &newest] {
        let pinged = ping(link, &["--count", "1"]).await?;
        assert!(pinged.status.success(), "{}", pinged.error);
    }

    // The other machine asks when it starts, too, and then serves links of the new key.
    running.kill().await?;
    let running = Portway::start(&office, &["gateway", "--expose", &expose]).await?;
    let newest_key = portway.ask(&["key", "show"]).await?["cluster_key"].clone();
    let renewed = async {
        while running.ask(&["status"]).await?["certificate"]["cluster_key"] != newest_key {
            tokio::time::sleep(LOOK_AGAIN).await;
        }
        anyhow::Ok(())
    };
    tokio::time::timeout(PATIENCE, renewed).await??;
    let portal = text(&portway.ready["portal"]);
    let asked = [
        "token",
        "issue",
        "user",
        "--service",
        "far",
        "--origin",
        &portal,
    ];
    let granted = portway.ask(&asked).await?;
    running
        .tell(&["token", "accept"], &text(&granted["token"]))
        .await?;
    let far = LinkFile::new(&text(&granted["link"]))?;
    let pinged = ping(&far, &["--count", "1"]).await?;
    assert!(pinged.status.success(), "{}", pinged.error);

    // After a restart all is as it was.
    let url = portway.url("app");
    let port = url
        .trim_end_matches('/')
        .rsplit(':')
        .next()
        .unwrap_or_default();
    let listen = format!("127.0.0.1:{port}");
    portway.kill().await?;
    let expose = format!("app={}", upstream.target());
    let _portway = Portway::up(&state, &listen, &["--expose", &expose]).await?;
    for link in [&old, &newest] {
        let pinged = ping(link, &["--count", "1"]).await?;
        assert!(pinged.status.success(), "{}", pinged.error);
    }
    Ok(())
}
