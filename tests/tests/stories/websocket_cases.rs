//! What a page notices of its WebSockets, case by case: through Portway as by the browser's own, with
//! a server that is no code of ours. The cases are in `peers/websocket_cases/cases.js`.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use anyhow::bail;
use portway_tests::PATIENCE;
use portway_tests::browser::{Browser, Kind};
use portway_tests::portway::{Portway, State};
use portway_tests::websocket_peer::WebSocketPeer;

use crate::{APP, BOTH, in_app, story};

pub(crate) const STORIES: &[crate::Story] = &[story!(BOTH, websockets_are_as_the_browsers_own)];

/// The longest that all cases may take: some wait for what does not come, as browsers do.
const ALL_CASES_PATIENCE: Duration = Duration::from_secs(600);

/// By case: what happened, in order.
type Outcomes = BTreeMap<String, Vec<String>>;

/// A case that is another through Portway, and stays so.
struct Difference {
    /// How its name begins.
    case: &'static str,
    /// Where it is.
    kinds: &'static [Kind],
    why: &'static str,
}

/// Where browsers differ from each other, we do what the standard says, or else the one that bears more.
const KNOWN: &[Difference] = &[
    Difference {
        case: "12 compression",
        kinds: BOTH,
        why: "the channel's ends are no neighbours of the service: `extensions` is empty",
    },
    Difference {
        case: "7 a close that is not answered",
        kinds: BOTH,
        why: "Chromium waits a minute, we 10 s as Firefox, which calls it an error",
    },
    Difference {
        case: "in a dedicated worker",
        kinds: BOTH,
        why: "a worker has the browser's own, which reaches the web server alone",
    },
    Difference {
        case: "in a shared worker",
        kinds: BOTH,
        why: "as in a dedicated one",
    },
    Difference {
        case: "in a frame of about:blank",
        kinds: BOTH,
        why: "no script of ours comes with a document that nobody fetches",
    },
    Difference {
        case: "in a frame of srcdoc",
        kinds: BOTH,
        why: "as about:blank",
    },
    Difference {
        case: "6 invalid in a",
        kinds: CHROMIUM,
        why: "it looks at text before the message is whole",
    },
    Difference {
        case: "7 data after the close",
        kinds: CHROMIUM,
        why: "it calls clean what ends with the close frame, but not if more has come with it",
    },
    Difference {
        case: "7 ping after the close",
        kinds: CHROMIUM,
        why: "as data",
    },
    Difference {
        case: "7 two closes",
        kinds: CHROMIUM,
        why: "as data",
    },
    Difference {
        case: "7 page closes with a reason alone",
        kinds: CHROMIUM,
        why: "it wants a code with it",
    },
    Difference {
        case: "4 masked frame",
        kinds: FIREFOX,
        why: "it takes them",
    },
    Difference {
        case: "7 server closes with 1005",
        kinds: FIREFOX,
        why: "it takes codes that may not be sent",
    },
    Difference {
        case: "7 server closes with 1006",
        kinds: FIREFOX,
        why: "as 1005",
    },
    Difference {
        case: "7 server closes with 1015",
        kinds: FIREFOX,
        why: "as 1005",
    },
    Difference {
        case: "7 server closes with 0",
        kinds: FIREFOX,
        why: "it takes it, too, but does not send it back",
    },
    Difference {
        case: "7 server closes with one byte",
        kinds: FIREFOX,
        why: "it takes it for no code",
    },
    Difference {
        case: "7 TCP is reset",
        kinds: FIREFOX,
        why: "it calls it an error",
    },
    Difference {
        case: "subprotocol: none of two",
        kinds: FIREFOX,
        why: "it takes a server that chooses none",
    },
    Difference {
        case: "subprotocol: one of none",
        kinds: FIREFOX,
        why: "it takes a server that chooses unasked",
    },
];

/// How an outcome begins that says nothing of WebSockets.
const NOT_PLAYED: &str = "not played";

const CHROMIUM: &[Kind] = &[Kind::Chromium];
const FIREFOX: &[Kind] = &[Kind::Firefox];

/// Plays every case with the browser's own WebSocket and through Portway; the outcomes are equal.
async fn websockets_are_as_the_browsers_own(browser: &mut Browser) -> anyhow::Result<()> {
    let kind = browser.kind();
    *browser = Browser::launch_forgiving(kind).await?;
    let peer = WebSocketPeer::start().await?;
    browser.open(&peer.target()).await?;
    let own = outcomes(browser, str::to_owned).await?;

    let state = State::new()?;
    let expose = format!("cases={}", peer.target());
    let portway = Portway::up(&state, "127.0.0.1:0", &["--expose", &expose]).await?;
    browser.open(&portway.link("cases")).await?;
    let ready = format!("!!{APP}.document.querySelector('#hello')");
    browser.wait_for(&ready, PATIENCE).await?;
    let ours = outcomes(browser, in_app).await?;

    // What follows has one as people have it.
    *browser = Browser::launch(kind).await?;
    compare(kind, &own, &ours)
}

/// Plays all cases in a window of which `within` makes an expression.
async fn outcomes(
    browser: &mut Browser,
    within: impl Fn(&str) -> String,
) -> anyhow::Result<Outcomes> {
    browser
        .wait_for(&within("typeof runEverything === 'function'"), PATIENCE)
        .await?;
    let begin = "runEverything().then((all) => { window.outcomes = all; }, \
                 (error) => { window.outcomes = String(error); }), true";
    browser.eval(&within(begin)).await?;
    let outcomes = browser
        .wait_for(&within("window.outcomes"), ALL_CASES_PATIENCE)
        .await?;
    Ok(serde_json::from_value(outcomes)?)
}

fn compare(kind: Kind, own: &Outcomes, ours: &Outcomes) -> anyhow::Result<()> {
    let mut report = String::new();
    for (case, expected) in own {
        let expected = noticed(kind, expected);
        let got = noticed(kind, ours.get(case).map_or(&[], Vec::as_slice));
        let known = KNOWN
            .iter()
            .find(|each| each.kinds.contains(&kind) && case.starts_with(each.case));
        if expected.iter().any(|what| what.starts_with(NOT_PLAYED)) {
            writeln!(report, "{case}\n    was not played: {expected:?}")?;
        }
        match known {
            None if got != expected => {
                writeln!(report, "{case}\n    own  {expected:?}\n    ours {got:?}")?
            }
            Some(known) if got == expected => {
                writeln!(report, "{case}\n    is equal, in spite of: {}", known.why)?;
            }
            None | Some(_) => {}
        }
    }
    if !report.is_empty() {
        bail!("{kind:?}: not as listed:\n{report}");
    }
    Ok(())
}

/// What counts of a case.
fn noticed(kind: Kind, outcome: &[String]) -> Vec<&String> {
    outcome
        .iter()
        .filter(|what| match kind {
            Kind::Chromium => true,
            // It gives a server up that breaks the protocol without a word.
            Kind::Firefox => *what != "server: close with a complaint",
        })
        .collect()
}
