//! Signaling speaks of sessions that do not need it any more: they go on.

use anyhow::{Context as _, ensure};
use portway_tests::PATIENCE;
use portway_tests::adversary::{Capture, Scheme, Toward, honest};
use portway_tests::browser::Browser;
use portway_tests::client::{Connected, LinkFile};
use portway_tests::portway::Program;
use portway_tests::upstream::{is_right, pattern};
use serde_json::{Value, json};

use super::attacks::Attack;
use super::{Stage, look_again};
use crate::{APP, BOTH, NativeStory, in_app, native, story};

pub(crate) const NATIVE_STORIES: &[NativeStory] = &[
    native!(a_live_download_does_not_hear_signaling),
    native!(a_download_whose_session_may_not_move_goes_on),
];

pub(crate) const STORIES: &[crate::Story] = &[
    story!(BOTH, a_live_page_does_not_hear_signaling),
    story!(BOTH, a_page_whose_session_may_not_move_goes_on),
];

/// What signaling says of a session.
type Lie = fn(&Capture, &Value) -> Value;

const LIES: &[(&str, Lie)] = &[
    ("the other end is lost", |_, session| {
        bye(session, "SESSION_LOST")
    }),
    ("the link was revoked", |_, session| {
        bye(session, "GRANT_UNKNOWN")
    }),
    ("the other end is somebody else", |_, session| {
        bye(session, "E2E_AUTH_FAILED")
    }),
    ("the offer is refused after all", |_, _| {
        refusal(&json!("offer"), "GRANT_UNKNOWN")
    }),
    ("the answer comes again", |capture, _| {
        let mut answers = capture.signaling("answer");
        answers.pop().expect("there is a session")
    }),
    ("an answer of nobody", |_, session| {
        notification("answer", json!({"session": session}))
    }),
    ("a candidate that is none", |_, session| {
        let candidate = json!({"candidate": "candidate:nonsense", "sdpMLineIndex": 0});
        notification(
            "candidate",
            json!({"session": session, "candidate": candidate}),
        )
    }),
];

const HELD: &str = "GET /held";

/// What follows each lie: no message at all. Whoever gets it closes the socket, and has heard the lie.
fn broken() -> Value {
    json!([])
}

/// What signaling answers to what a client has asked.
type Refusal = fn(&Value) -> Value;

/// How it refuses attempts to move the first session, and by which message each: one after the other, then it
/// is honest.
const REFUSALS: &[(&str, Refusal)] = &[
    ("authenticate", |asked| {
        refusal(&asked["id"], "SESSION_LOST")
    }),
    ("authenticate", |asked| {
        refusal(&asked["id"], "GRANT_UNKNOWN")
    }),
    ("offer", |asked| refusal(&asked["id"], "SESSION_LOST")),
    ("offer", |asked| {
        bye(&asked["params"]["session"], "GRANT_UNKNOWN")
    }),
    ("offer", |asked| {
        let session = &asked["params"]["session"];
        notification("answer", json!({"session": session}))
    }),
];

fn notification(method: &str, params: Value) -> Value {
    json!({"jsonrpc": "2.0", "method": method, "params": params})
}

fn bye(session: &Value, reason: &str) -> Value {
    notification("bye", json!({"session": session, "reason": reason}))
}

fn refusal(id: &Value, reason: &str) -> Value {
    let error = json!({"code": -32000, "message": "no", "data": {"reason": reason}});
    json!({"jsonrpc": "2.0", "id": id, "error": error})
}

fn refusing_to_move() -> Scheme {
    let mut met = 0_usize;
    Box::new(move |toward, message, outlet| {
        let asked = toward == Toward::Gateway;
        if asked && message["method"] == "authenticate" {
            met += 1;
        }
        let refusal = met.checked_sub(2).and_then(|at| REFUSALS.get(at));
        match refusal {
            Some((method, refuse)) if asked && message["method"] == *method => {
                outlet.send(Toward::Client, refuse(&message));
            }
            Some(_) | None => outlet.send(toward, message),
        }
    })
}

/// Somebody who only listens, until told what to say.
fn listeners() -> [Attack; 2] {
    let listener = || Attack::new("the truth", |_, _| Ok(Box::new(honest)));
    [listener(), listener().next_to_the_client()]
}

async fn a_live_download_does_not_hear_signaling() -> anyhow::Result<()> {
    for listener in &listeners() {
        let stage = Stage::set(listener, &Program::default()).await?;
        let link = LinkFile::new(&stage.link)?;
        for (name, lie) in LIES {
            let local = Connected::start(&link).await?;
            let lying = stage.while_held(lie_to(&stage, listener.near, *lie));
            let downloaded = stage.undisturbed(download(&local, lying)).await;
            downloaded.with_context(|| format!("{name}, to the {:?}", listener.near))?;
        }
    }
    Ok(())
}

async fn a_live_page_does_not_hear_signaling(browser: &mut Browser) -> anyhow::Result<()> {
    for listener in &listeners() {
        let stage = Stage::set(listener, &Program::default()).await?;
        browser.open(&stage.link).await?;
        hello(browser).await?;
        for (name, lie) in LIES {
            browser.reload().await?;
            hello(browser).await?;
            let lying = stage.while_held(lie_to(&stage, listener.near, *lie));
            let downloaded = stage.undisturbed(download_in(browser, lying)).await;
            downloaded.with_context(|| format!("{name}, to the {:?}", listener.near))?;
        }
    }
    Ok(())
}

async fn a_download_whose_session_may_not_move_goes_on() -> anyhow::Result<()> {
    let attack = Attack::new("no move", |_, _| Ok(refusing_to_move())).next_to_the_client();
    let stage = Stage::set(&attack, &Program::default()).await?;
    let local = Connected::start(&LinkFile::new(&stage.link)?).await?;
    download(&local, stage.while_held(keep_from_moving(&stage))).await?;
    stage.has_the_first_session().await
}

async fn a_page_whose_session_may_not_move_goes_on(browser: &mut Browser) -> anyhow::Result<()> {
    let attack = Attack::new("no move", |_, _| Ok(refusing_to_move())).next_to_the_client();
    let stage = Stage::set(&attack, &Program::default()).await?;
    browser.open(&stage.link).await?;
    hello(browser).await?;
    download_in(browser, stage.while_held(keep_from_moving(&stage))).await?;
    stage.has_the_first_session().await
}

/// Waits for the page of the service.
async fn hello(browser: &mut Browser) -> anyhow::Result<()> {
    let hello = format!("!!{APP}.document.querySelector('#hello')");
    browser.wait_for(&hello, PATIENCE).await?;
    Ok(())
}

/// Says it to one end, until that wants to hear no more.
async fn lie_to(stage: &Stage, near: Toward, lie: Lie) -> anyhow::Result<()> {
    let capture = &stage.adversary.capture;
    let mut offers = capture.signaling("offer");
    let offer = offers.pop().context("there is a session")?;
    let outlet = stage.adversary.outlet().context("there is a socket")?;
    outlet.send(near, lie(capture, &offer["params"]["session"]));
    outlet.send(near, broken());
    outlet.closed().await;
    Ok(())
}

/// The path is silent until every attempt to find another one has been refused.
async fn keep_from_moving(stage: &Stage) -> anyhow::Result<()> {
    stage.gateway.pause().await?;
    let met = || stage.adversary.capture.signaling("authenticate").len();
    let first = 1;
    while met() <= first + REFUSALS.len() {
        look_again().await;
    }
    stage.gateway.unpause().await
}

/// Downloads a body, in the middle of which something happens.
async fn download(
    local: &Connected,
    meanwhile: impl Future<Output = anyhow::Result<()>>,
) -> anyhow::Result<()> {
    let request = format!("{HELD} HTTP/1.1");
    let (downloaded, happened) = tokio::join!(local.request(&request, b""), meanwhile);
    happened?;
    let (head, body) = downloaded?;
    ensure!(head.starts_with("HTTP/1.1 200 "), "{head}");
    let pattern = pattern();
    ensure!(body.len() == 2 * pattern.len(), "{} bytes", body.len());
    ensure!(is_right(&pattern, 0, &body), "other bytes");
    Ok(())
}

/// The same in a page.
async fn download_in(
    browser: &mut Browser,
    meanwhile: impl Future<Output = anyhow::Result<()>>,
) -> anyhow::Result<()> {
    let begin = in_app(
        "fetch('/held').then((r) => r.arrayBuffer()).then((b) => new Uint8Array(b)).then((bytes) => \
           bytes.every((value, i) => value === ((i * 31) >> 3) % 251) ? bytes.length : 'other bytes') \
           .catch(String).then((end) => { window.end = end; }), true",
    );
    browser.eval(&begin).await?;
    meanwhile.await?;
    let end = browser.wait_for(&in_app("window.end"), PATIENCE).await?;
    ensure!(end == 2 * pattern().len(), "{end}");
    Ok(())
}

impl Stage {
    /// Does something while the service holds a body back, then lets it go on.
    fn while_held(
        &self,
        happening: impl Future<Output = anyhow::Result<()>>,
    ) -> impl Future<Output = anyhow::Result<()>> {
        let held = || {
            let requests = self.upstream.requests();
            requests.iter().filter(|it| *it == HELD).count()
        };
        let before = held();
        let happened = async move {
            while held() == before {
                look_again().await;
            }
            happening.await
        };
        async {
            let happened = tokio::time::timeout(PATIENCE, happened).await;
            self.upstream.release();
            happened?
        }
    }

    /// Does something by a session, which needs no other channel for that.
    async fn undisturbed(
        &self,
        doing: impl Future<Output = anyhow::Result<()>>,
    ) -> anyhow::Result<()> {
        let offers = || self.adversary.capture.signaling("offer").len();
        let before = offers();
        doing.await?;
        ensure!(offers() == before, "it had to look for another channel");
        Ok(())
    }

    /// The session that goes on is the one that was opened.
    async fn has_the_first_session(&self) -> anyhow::Result<()> {
        let offers = self.adversary.capture.signaling("offer");
        let opened = &offers.first().context("there was a session")?["params"]["session"];
        let sessions = &self.gateway.ask(&["sessions"]).await?["sessions"];
        ensure!(
            sessions[0]["session"] == *opened,
            "{sessions}, not {opened}"
        );
        Ok(())
    }
}
