//! Somebody opens a local web app from a browser, by its link.

use portway_tests::PATIENCE;
use portway_tests::browser::{Browser, Kind};
use portway_tests::portway::{Portway, State};
use portway_tests::upstream::{Upstream, pattern};
use serde_json::json;

use crate::{APP, BOTH, in_app, story};

pub(crate) const STORIES: &[crate::Story] = &[
    story!(BOTH, an_app_behaves_like_a_site),
    story!(BOTH, bodies_arrive_whole),
    story!(BOTH, a_websocket_echoes),
    story!(BOTH, cookies_belong_to_the_service),
    story!(BOTH, a_file_is_saved),
    story!(BOTH, a_reload_during_a_download_is_harmless),
    story!(BOTH, two_tabs_do_not_disturb_each_other),
    // Only Chromium lets a test stop them.
    story!(&[Kind::Chromium], a_killed_service_worker_is_not_missed),
    story!(BOTH, a_restart_is_survived),
    story!(BOTH, an_orderly_end_cuts_nothing),
    story!(BOTH, no_link_no_byte),
    story!(BOTH, a_service_that_is_down_recovers),
];

/// A running service behind Portway, opened in a browser.
struct Open {
    portway: Portway,
    upstream: Upstream,
    state: State,
}

async fn open(browser: &mut Browser) -> anyhow::Result<Open> {
    let upstream = Upstream::start().await?;
    let state = State::new()?;
    let expose = format!("app={}", upstream.target());
    let portway = Portway::up(&state, "127.0.0.1:0", &["--expose", &expose]).await?;
    browser.open(&portway.link("app")).await?;
    let hello = format!("{APP}.document.querySelector('#hello')?.textContent");
    let text = browser.wait_for(&hello, PATIENCE).await?;
    assert_eq!(text, "Hello from the service");
    Ok(Open {
        portway,
        upstream,
        state,
    })
}

/// The page appears; the address hides the secret; title, links, reload and deep links work.
async fn an_app_behaves_like_a_site(browser: &mut Browser) -> anyhow::Result<()> {
    let open = open(browser).await?;
    assert_eq!(
        browser.eval("location.hash").await?,
        "",
        "the link's secret left the address"
    );
    browser
        .wait_for("document.title === 'The service'", PATIENCE)
        .await?;

    browser
        .click(&format!("{APP}.document.querySelector('#next')"))
        .await?;
    browser
        .wait_for(
            "document.title === 'Next page' && location.pathname === '/next'",
            PATIENCE,
        )
        .await?;
    browser.reload().await?;
    browser
        .wait_for(&format!("{APP}.document.title === 'Next page'"), PATIENCE)
        .await?;

    browser
        .open(&format!("{}deep/link", open.portway.url("app")))
        .await?;
    browser
        .wait_for(&format!("{APP}.document.title === 'Next page'"), PATIENCE)
        .await?;
    assert!(
        open.upstream
            .requests()
            .contains(&"GET /deep/link".to_owned())
    );
    Ok(())
}

/// Bytes arrive whole in both directions, a cut body is an error.
async fn bodies_arrive_whole(browser: &mut Browser) -> anyhow::Result<()> {
    let _open = open(browser).await?;
    let download = in_app(
        "fetch('/bytes?n=5000000').then((r) => r.arrayBuffer()).then((b) => { \
           const bytes = new Uint8Array(b); \
           const right = bytes.every((v, i) => v === ((i * 31) >> 3) % 251); \
           return [bytes.length, right]; })",
    );
    assert_eq!(browser.eval(&download).await?, json!([5_000_000, true]));

    let upload = in_app(
        "fetch('/sum', { method: 'POST', body: Uint8Array.from({ length: 3000000 }, (_, i) => ((i * 31) >> 3) % 251) }) \
           .then((r) => r.text())",
    );
    assert_eq!(browser.eval(&upload).await?, "3000000 of 3000000");
    let nothing = in_app("fetch('/sum', { method: 'POST', body: '' }).then((r) => r.text())");
    assert_eq!(browser.eval(&nothing).await?, "0 of 0");

    // A reset may overtake what came before it: then the answer is ours, and says so.
    let cut = in_app(
        "Promise.all(Array.from({ length: 100 }, (_, i) => fetch(i % 2 ? '/cut' : '/cut-chunked').then( \
           (r) => r.text().then((text) => r.ok ? 'complete' : text, () => 'cut')))).then((all) => \
             [...new Set(all)].filter((one) => one !== 'cut' && !one.includes('(BODY_TRUNCATED)')))",
    );
    assert_eq!(browser.eval(&cut).await?, json!([]));
    Ok(())
}

/// A WebSocket opens, speaks its subprotocol, echoes text and bytes, and closes cleanly.
async fn a_websocket_echoes(browser: &mut Browser) -> anyhow::Result<()> {
    let _open = open(browser).await?;
    let script = in_app(
        "new Promise((resolve, reject) => { \
           const socket = new WebSocket(`ws://${location.host}/ws`, ['chat', 'other']); \
           socket.binaryType = 'arraybuffer'; \
           const got = []; \
           socket.onopen = () => { got.push(socket.protocol); socket.send('hello'); socket.send(new Uint8Array([1, 2, 3])); }; \
           socket.onmessage = ({ data }) => { \
             got.push(typeof data === 'string' ? data : Array.from(new Uint8Array(data))); \
             if (got.length === 3) socket.close(1000, 'done'); }; \
           socket.onclose = (e) => resolve([...got, e.code, e.wasClean]); \
           socket.onerror = () => reject(new Error('socket error')); })",
    );
    assert_eq!(
        browser.eval(&script).await?,
        json!(["chat", "hello", [1, 2, 3], 1000, true])
    );
    Ok(())
}

/// Cookies work, HttpOnly ones are hidden from scripts, none reaches the web server.
async fn cookies_belong_to_the_service(browser: &mut Browser) -> anyhow::Result<()> {
    let _open = open(browser).await?;
    browser
        .eval(&in_app("fetch('/set-cookies').then((r) => r.text())"))
        .await?;
    browser
        .wait_for(&in_app("document.cookie === 'seen=1'"), PATIENCE)
        .await?;
    browser
        .eval(&in_app("document.cookie = 'mine=2; path=/'"))
        .await?;
    assert_eq!(
        browser.eval(&in_app("document.cookie")).await?,
        "seen=1; mine=2"
    );
    let sent =
        in_app("fetch('/headers').then((r) => r.json()).then((h) => Object.fromEntries(h).cookie)");
    assert_eq!(browser.eval(&sent).await?, "session=s3cret; seen=1; mine=2");
    Ok(())
}

/// A link that saves: under the name that the page wishes, asked for as if by the page itself.
async fn a_file_is_saved(browser: &mut Browser) -> anyhow::Result<()> {
    let _open = open(browser).await?;
    let save = in_app(
        "(() => { const link = document.createElement('a'); \
           link.href = '/own-pages-only'; link.download = 'mine.txt'; \
           document.body.append(link); link.click(); link.remove(); })()",
    );
    browser.eval(&save).await?;
    let saved = browser.downloaded("mine.txt", PATIENCE).await?;
    assert_eq!(String::from_utf8(saved)?, "a file");
    Ok(())
}

/// A reload in the middle of a download ends the download, and nothing else.
async fn a_reload_during_a_download_is_harmless(browser: &mut Browser) -> anyhow::Result<()> {
    let _open = open(browser).await?;
    let begin = in_app(
        "fetch('/bytes?n=500000000').then(async (r) => { \
           window.reader = r.body.getReader(); return (await reader.read()).value.length; })",
    );
    assert!(browser.eval(&begin).await?.as_u64() > Some(0));
    browser.reload().await?;
    let fetch = in_app(
        "!window.reader && fetch('/bytes?n=1000').then((r) => r.arrayBuffer()).then((b) => b.byteLength)",
    );
    assert_eq!(browser.wait_for(&fetch, PATIENCE).await?, 1000);
    Ok(())
}

/// A second tab needs no link, and what one tab does is no business of the other.
async fn two_tabs_do_not_disturb_each_other(browser: &mut Browser) -> anyhow::Result<()> {
    let open = open(browser).await?;
    let begin = in_app(
        "fetch('/held').then((r) => { \
           r.arrayBuffer().then((b) => { window.got = b.byteLength; }); return r.ok; })",
    );
    assert_eq!(browser.eval(&begin).await?, true);

    let first = browser.another_tab().await?;
    browser.open(&open.portway.url("app")).await?;
    let hello = format!("!!{APP}.document.querySelector('#hello')");
    browser.wait_for(&hello, PATIENCE).await?;
    let set = in_app("(() => { document.cookie = 'both=tabs'; return document.cookie; })()");
    assert_eq!(browser.eval(&set).await?, "both=tabs");

    let second = browser.switch_to(first);
    assert_eq!(
        browser.eval(&in_app("window.got ?? 'under way'")).await?,
        "under way"
    );
    let release = in_app("fetch('/release').then((r) => r.ok)");
    assert_eq!(browser.eval(&release).await?, true);
    let got = browser.wait_for(&in_app("window.got"), PATIENCE).await?;
    assert_eq!(got, 2 * pattern().len());
    let sent = in_app("fetch('/headers').then((r) => r.text())");
    browser
        .wait_for(
            &format!("({sent}).then((t) => t.includes('both=tabs'))"),
            PATIENCE,
        )
        .await?;

    browser.open("about:blank").await?;
    browser.switch_to(second);
    let fetch =
        in_app("fetch('/bytes?n=1000').then((r) => r.arrayBuffer()).then((b) => b.byteLength)");
    assert_eq!(browser.eval(&fetch).await?, 1000);
    Ok(())
}

/// Browsers stop service workers as they like: the page does not notice.
async fn a_killed_service_worker_is_not_missed(browser: &mut Browser) -> anyhow::Result<()> {
    let _open = open(browser).await?;
    browser.stop_service_workers().await?;
    let fetch = in_app("fetch('/next').then((r) => r.text()).then((t) => t.includes('Next page'))");
    assert_eq!(browser.eval(&fetch).await?, true);
    Ok(())
}

/// The gateway dies and comes back: the page recovers by itself.
async fn a_restart_is_survived(browser: &mut Browser) -> anyhow::Result<()> {
    let Open {
        portway,
        upstream,
        state,
    } = open(browser).await?;
    let listen = portway.listen()?;
    let expose = format!("app={}", upstream.target());
    portway.kill().await?;
    let told = "!document.querySelector('#pw-banner').hidden && document.body.innerText.includes('Try now')";
    browser.wait_for(told, PATIENCE).await?;
    let _portway = Portway::up(&state, &listen, &["--expose", &expose]).await?;
    let fetch = in_app("fetch('/next').then((r) => r.ok, () => false)");
    browser.wait_for(&fetch, PATIENCE).await?;
    browser
        .wait_for("document.querySelector('#pw-banner').hidden", PATIENCE)
        .await?;
    Ok(())
}

/// Somebody ends the gateway in order: what is under way arrives, then the page is told at once.
async fn an_orderly_end_cuts_nothing(browser: &mut Browser) -> anyhow::Result<()> {
    let open = open(browser).await?;
    let begin = in_app(
        "fetch('/held').then((r) => { \
           r.arrayBuffer().then((b) => { window.got = b.byteLength; }, (e) => { window.got = String(e); }); \
           return r.ok; })",
    );
    assert_eq!(browser.eval(&begin).await?, true);
    open.portway.terminate().await?;
    open.upstream.release();
    let got = browser.wait_for(&in_app("window.got"), PATIENCE).await?;
    assert_eq!(got, 2 * pattern().len());
    let Open { portway, .. } = open;
    assert!(portway.ended().await?.success());
    browser
        .wait_for("document.body.innerText.includes('Try now')", PATIENCE)
        .await?;
    Ok(())
}

/// Without the link nothing of the service is seen; a revoked link ends what it opened.
async fn no_link_no_byte(browser: &mut Browser) -> anyhow::Result<()> {
    let upstream = Upstream::start().await?;
    let state = State::new()?;
    let expose = format!("app={}", upstream.target());
    let portway = Portway::up(&state, "127.0.0.1:0", &["--expose", &expose]).await?;
    browser.open(&portway.url("app")).await?;
    browser
        .wait_for("document.body.innerText.includes('LINK_MISSING')", PATIENCE)
        .await?;

    let granted = portway
        .ask(&["token", "issue", "user", "--service", "app"])
        .await?;
    let grant = granted["id"].as_str().unwrap_or_default();
    portway.ask(&["token", "revoke", grant]).await?;
    browser
        .open(granted["link"].as_str().unwrap_or_default())
        .await?;
    browser
        .wait_for(
            "document.body.innerText.includes('GRANT_UNKNOWN')",
            PATIENCE,
        )
        .await?;
    assert_eq!(
        upstream.requests(),
        Vec::<String>::new(),
        "no request reached the service"
    );
    Ok(())
}

/// The service is down: a readable page, which recovers when the service is back.
async fn a_service_that_is_down_recovers(browser: &mut Browser) -> anyhow::Result<()> {
    let upstream = Upstream::start().await?;
    let address = upstream.address.to_string();
    drop(upstream);
    let state = State::new()?;
    let expose = format!("app=http://{address}");
    let portway = Portway::up(&state, "127.0.0.1:0", &["--expose", &expose]).await?;
    browser.open(&portway.link("app")).await?;
    let shown = format!("{APP}.document.body.innerText.includes('UPSTREAM_REFUSED')");
    browser.wait_for(&shown, PATIENCE).await?;
    let _upstream = Upstream::start_at(&address).await?;
    let hello = format!("{APP}.document.querySelector('#hello')?.textContent");
    browser.wait_for(&hello, PATIENCE).await?;
    Ok(())
}
