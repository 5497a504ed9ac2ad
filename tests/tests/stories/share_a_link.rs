//! Somebody shares a service by a link: it opens what it says, where it says, for as long as it says.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use portway_tests::PATIENCE;
use portway_tests::browser::Browser;
use portway_tests::client::{LinkFile, ping};
use portway_tests::portway::{Portway, State};
use portway_tests::upstream::Upstream;
use serde_json::{Value, json};

use crate::{APP, BOTH, in_app, native, story};

pub(crate) const STORIES: &[crate::Story] = &[
    story!(BOTH, a_link_opens_what_it_says),
    story!(BOTH, a_link_that_is_over_says_so),
];

pub(crate) const NATIVE_STORIES: &[crate::NativeStory] = &[
    native!(a_link_is_for_one_device),
    native!(a_revoked_link_stays_revoked),
];

/// What a link allows, and how requests of its page end: status, and the first word of what comes.
const TABLE: &[(&str, &str, u16, &str)] = &[
    ("GET", "/next", 200, "<!doctype html"),
    ("HEAD", "/", 200, ""),
    ("GET", "/bytes?n=0", 200, ""),
    ("GET", "/bytes/below", 404, ""),
    ("POST", "/next", 403, "PERMISSION_DENIED"),
    ("DELETE", "/bytes", 403, "PERMISSION_DENIED"),
    ("GET", "/headers", 403, "PERMISSION_DENIED"),
    ("GET", "/next/below", 403, "PERMISSION_DENIED"),
    ("GET", "/bytes/../headers", 403, "PERMISSION_DENIED"),
    ("GET", "/bytes%2f..%2fheaders", 403, "PERMISSION_DENIED"),
];

const LIMITS: &[&str] = &[
    "--methods",
    "GET,HEAD",
    "--path",
    "/",
    "--path",
    "/next",
    "--path",
    "/bytes*",
];

/// What a page says of a link that was revoked.
pub(crate) const REVOKED: [&str; 2] = ["This link is not valid any more", "GRANT_UNKNOWN"];

/// Two services behind Portway.
struct Stage {
    portway: Portway,
    app: Upstream,
    other: Upstream,
    state: State,
}

impl Stage {
    async fn set() -> anyhow::Result<Self> {
        let (app, other) = (Upstream::start().await?, Upstream::start().await?);
        let state = State::new()?;
        let expose = [&app, &other].map(Upstream::target);
        let [app_target, other_target] = [("app", &expose[0]), ("other", &expose[1])]
            .map(|(name, target)| format!("{name}={target}"));
        let args = ["--expose", &app_target, "--expose", &other_target];
        let portway = Portway::up(&state, "127.0.0.1:0", &args).await?;
        Ok(Self {
            portway,
            app,
            other,
            state,
        })
    }

    /// Shares `app` with more arguments.
    async fn share(&self, args: &[&str]) -> anyhow::Result<Shared> {
        let shared = self
            .portway
            .ask(&[&["share", "app"], args].concat())
            .await?;
        let text = |name: &str| shared[name].as_str().unwrap_or_default().to_owned();
        Ok(Shared {
            link: text("link"),
            id: text("id"),
            expires: shared["expires"].as_u64().unwrap_or_default(),
        })
    }

    /// A link as `portway links` lists it.
    async fn listed(&self, id: &str) -> anyhow::Result<Value> {
        let listed = self.portway.ask(&["links"]).await?;
        let mut links = listed["links"].as_array().into_iter().flatten();
        Ok(links
            .find(|link| link["id"] == id)
            .cloned()
            .unwrap_or_default())
    }
}

struct Shared {
    link: String,
    id: String,
    expires: u64,
}

async fn hello(browser: &mut Browser) -> anyhow::Result<()> {
    let hello = format!("!!{APP}.document.querySelector('#hello')");
    browser.wait_for(&hello, PATIENCE).await?;
    Ok(())
}

/// Waits until the page says why it is closed, in words and by the reason code.
pub(crate) async fn says(browser: &mut Browser, words: [&str; 2]) -> anyhow::Result<()> {
    let said = format!(
        "{}.every((words) => document.body.innerText.includes(words))",
        json!(words)
    );
    browser.wait_for(&said, PATIENCE).await?;
    Ok(())
}

/// The same of the page of a link.
async fn refused(browser: &mut Browser, link: &str, words: [&str; 2]) -> anyhow::Result<()> {
    browser.open(link).await?;
    says(browser, words).await
}

/// Begins a download that is long enough for everything, and waits for some of it. `window.end` of the app
/// tells what becomes of it.
pub(crate) async fn begin_download(browser: &mut Browser) -> anyhow::Result<()> {
    let begin = in_app(
        "fetch('/bytes?n=50000000000').then((r) => { window.got = 0; const reader = r.body.getReader(); \
           (async () => { for (;;) { const { done, value } = await reader.read(); if (done) return 'complete'; \
             window.got += value.length; } })().catch(() => 'cut').then((end) => { window.end = end; }); \
           return r.status; })",
    );
    assert_eq!(browser.eval(&begin).await?, 200);
    let some = in_app("window.got > 1000000");
    browser.wait_for(&some, PATIENCE).await?;
    Ok(())
}

/// Service × method × path, then it is revoked while a download runs.
async fn a_link_opens_what_it_says(browser: &mut Browser) -> anyhow::Result<()> {
    let stage = Stage::set().await?;
    let shared = stage.share(&[&["--user", "ann"], LIMITS].concat()).await?;
    let elsewhere = shared.link.replacen("app.", "other.", 1);
    let not_allowed = ["Your link does not allow this", "PERMISSION_DENIED"];
    refused(browser, &elsewhere, not_allowed).await?;
    assert_eq!(stage.other.requests(), Vec::<String>::new());

    browser.open(&shared.link).await?;
    hello(browser).await?;
    for (method, path, status, first) in TABLE {
        let request = in_app(&format!(
            "fetch('{path}', {{ method: '{method}' }}).then(async (r) => [r.status, await r.text()])"
        ));
        let answer = browser.eval(&request).await?;
        assert_eq!(answer[0], *status, "{method} {path}: {answer}");
        let text = answer[1].as_str().unwrap_or_default();
        assert!(text.starts_with(first), "{method} {path}: {answer}");
    }
    let socket = in_app(
        "new Promise((resolve) => { const socket = new WebSocket(`ws://${location.host}/ws`); \
           socket.onopen = () => resolve('open'); socket.onclose = () => resolve('closed'); })",
    );
    assert_eq!(browser.eval(&socket).await?, "closed");
    let seen = stage.app.requests();
    for (method, path, status, _) in TABLE {
        let line = format!("{method} {path}");
        assert_eq!(seen.contains(&line), *status != 403, "{line}: {seen:?}");
    }

    begin_download(browser).await?;
    let listed = stage.listed(&shared.id).await?;
    assert_eq!(
        (&listed["user"], &listed["open"]),
        (&json!("ann"), &json!(1))
    );
    assert!(listed["sent"].as_u64() > Some(1_000_000), "{listed}");
    let revoked = stage.portway.ask(&["links", "revoke", &shared.id]).await?;
    assert_eq!(revoked["sessions"], 1, "{revoked}");
    says(browser, REVOKED).await?;
    let end = browser.wait_for(&in_app("window.end"), PATIENCE).await?;
    assert_eq!(end, "cut", "half a file is no file");
    let sessions = stage.portway.ask(&["sessions"]).await?;
    assert_eq!(sessions["sessions"], json!([]));
    Ok(())
}

/// It is for a service that nobody offers, used up by another profile, revoked, or its time is over.
async fn a_link_that_is_over_says_so(browser: &mut Browser) -> anyhow::Result<()> {
    let stage = Stage::set().await?;
    let issue = ["token", "issue", "user", "--service", "nothing"];
    let granted = stage.portway.ask(&issue).await?;
    let link = granted["link"].as_str().unwrap_or_default();
    let unknown = ["No machine offers this service", "SERVICE_UNKNOWN"];
    refused(browser, link, unknown).await?;

    let once = stage.share(&["--once"]).await?;
    browser.open(&once.link).await?;
    hello(browser).await?;
    browser.reload().await?;
    hello(browser).await?;
    let first = browser.another_tab().await?;
    browser.open(&once.link).await?;
    hello(browser).await?;
    browser.switch_to(first);
    let listed = stage.listed(&once.id).await?;
    assert_eq!(
        (&listed["once"], &listed["used"]),
        (&json!(true), &json!(true))
    );
    assert_eq!(
        device_keys(browser, &stage).await?,
        json!([[false, "kept"]])
    );

    if !browser.start_afresh().await? {
        *browser = Browser::launch(browser.kind()).await?;
    }
    refused(
        browser,
        &once.link,
        ["This link has been used", "LINK_USED"],
    )
    .await?;
    let pages = stage.app.requests();
    let pages = pages.iter().filter(|request| *request == "GET /").count();
    assert_eq!(pages, 3, "the first one's, reloaded, and in another tab");

    let short = stage.share(&[]).await?;
    browser.open(&short.link).await?;
    hello(browser).await?;
    // At once: the screen that connecting showed is still on its way out.
    stage.portway.ask(&["links", "revoke", &short.id]).await?;
    says(browser, REVOKED).await?;
    // What connecting has left to do to that screen is done by then.
    let stays = format!(
        "new Promise((resolve) => setTimeout(resolve, 1000)).then(() => document.body.innerText.includes('{}'))",
        REVOKED[0]
    );
    assert_eq!(browser.eval(&stays).await?, true);

    let brief = stage.share(&["--for", "1s"]).await?;
    while SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs() <= brief.expires {
        // What is awaited is that time.
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    refused(
        browser,
        &brief.link,
        ["This link has expired", "GRANT_EXPIRED"],
    )
    .await
}

/// The keys of the device that the holder's origin keeps: whether they may be read, and what comes of trying.
async fn device_keys(browser: &mut Browser, stage: &Stage) -> anyhow::Result<Value> {
    let portal = stage.portway.ready["portal"].as_str().unwrap_or_default();
    let holder = portal.replacen("://", "://conn.", 1) + "_portway/holder";
    browser.open(&holder).await?;
    let there = format!("document.readyState === 'complete' && location.href === '{holder}'");
    browser.wait_for(&there, PATIENCE).await?;
    let keys = "new Promise((resolve, reject) => { \
         const opening = indexedDB.open('portway'); \
         opening.onerror = () => reject(opening.error); \
         opening.onsuccess = () => { \
           const all = opening.result.transaction('device').objectStore('device').getAll(); \
           all.onsuccess = () => { opening.result.close(); resolve(all.result); }; }; \
       }).then((pairs) => Promise.all(pairs.map(async ({ privateKey }) => [privateKey.extractable, \
         await crypto.subtle.exportKey('pkcs8', privateKey).then(() => 'told', () => 'kept')])))";
    browser.eval(keys).await
}

/// The same without a browser: the device is the state directory.
async fn a_link_is_for_one_device() -> anyhow::Result<()> {
    let stage = Stage::set().await?;
    let once = stage.share(&["--once"]).await?;
    let (ours, other) = (LinkFile::new(&once.link)?, LinkFile::new(&once.link)?);
    let one = ["--count", "1"];
    for _ in 0..2 {
        let pinged = ping(&ours, &one).await?;
        assert!(pinged.status.success(), "{}", pinged.error);
    }
    let pinged = ping(&other, &one).await?;
    assert_eq!(pinged.status.code(), Some(77));
    assert_eq!(pinged.error["error"]["reason"], "LINK_USED");
    assert_eq!(stage.app.requests(), ["GET /", "GET /"]);
    Ok(())
}

/// Even the owner's own, which is the same one at every start otherwise.
async fn a_revoked_link_stays_revoked() -> anyhow::Result<()> {
    let stage = Stage::set().await?;
    let link = stage.portway.link("app");
    let id = link.split('.').rev().nth(1).unwrap_or_default();
    let revoked = stage.portway.ask(&["token", "revoke", id]).await?;
    assert_eq!(revoked["revoked"], true);
    let listen = stage.portway.listen()?;
    let expose = format!("app={}", stage.app.target());
    stage.portway.kill().await?;
    let portway = Portway::up(&stage.state, &listen, &["--expose", &expose]).await?;
    assert_ne!(portway.link("app"), link);
    let one = ["--count", "1"];
    let old = ping(&LinkFile::new(&link)?, &one).await?;
    assert_eq!(old.error["error"]["reason"], "GRANT_UNKNOWN");
    let new = ping(&LinkFile::new(&portway.link("app"))?, &one).await?;
    assert!(new.status.success(), "{}", new.error);
    Ok(())
}
