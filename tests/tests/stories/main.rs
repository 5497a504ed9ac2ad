//! Stories: what somebody does with Portway, in real browsers, with real services.
//!
//! They have a harness of their own, for stories come one at a time (two browsers make a small
//! machine too slow for either), stories share a browser's process where they can, and JupyterLab is
//! installed while other stories run.

mod audit;
mod bare_channel;
mod behind_a_relay;
mod drive_a_browser;
mod endurance;
mod files;
mod hostile_signaling;
mod jupyterlab;
mod key_changes;
mod limits;
mod machine_to_machine;
mod machines_join;
mod messages;
mod nodes_come_and_go;
mod open_an_app;
mod openers;
mod pair_a_device;
mod roles_apart;
mod secrets;
mod share_a_link;
mod signaling_restarts;
mod tunnel_load;
mod tunnels;
mod udp;
mod websocket_cases;
mod without_a_browser;

use std::process::ExitCode;
use std::sync::Arc;

use futures_util::future::LocalBoxFuture;
use libtest_mimic::{Arguments, Failed, Trial};
use portway_tests::browser::{Browser, Kind};
use serde_json::json;
use tokio::runtime::Runtime;
use tokio::sync::Mutex;

/// The app's window: a frame of the same origin that fills the page.
const APP: &str = "document.querySelector('#portway-app').contentWindow";

/// An expression that is evaluated in the app's own window.
fn in_app(script: &str) -> String {
    format!("{APP}.eval({})", json!(script))
}

/// Something that somebody does in a browser just installed.
struct Story {
    name: &'static str,
    /// Browsers that can show it.
    kinds: &'static [Kind],
    run: for<'a> fn(&'a mut Browser) -> LocalBoxFuture<'a, anyhow::Result<()>>,
}

/// Something that somebody does without one.
struct NativeStory {
    name: &'static str,
    run: fn() -> LocalBoxFuture<'static, anyhow::Result<()>>,
}

/// A [`NativeStory`] of a function.
macro_rules! native {
    ($function:ident) => {
        crate::NativeStory {
            name: stringify!($function),
            run: || Box::pin($function()),
        }
    };
}
use native;

const BOTH: &[Kind] = &[Kind::Chromium, Kind::Firefox];

/// A [`Story`] of a function, in the given browsers.
macro_rules! story {
    ($kinds:expr, $function:ident) => {
        crate::Story {
            name: stringify!($function),
            kinds: $kinds,
            run: |browser| Box::pin($function(browser)),
        }
    };
}
use story;

/// What the stories share.
struct Stage {
    runtime: Runtime,
    /// The browser of the last story, unless that failed.
    browser: Mutex<Option<Browser>>,
}

impl Stage {
    fn play(&self, story: &Story, kind: Kind) -> anyhow::Result<()> {
        self.runtime.block_on(async {
            let mut slot = self.browser.lock().await;
            let mut reusable = slot.take().filter(|browser| browser.kind() == kind);
            if let Some(browser) = &mut reusable
                && !browser.start_afresh().await?
            {
                reusable = None;
            }
            let mut browser = match reusable {
                Some(browser) => browser,
                None => Browser::launch(kind).await?,
            };
            (story.run)(&mut browser).await?;
            *slot = Some(browser);
            Ok(())
        })
    }
}

fn main() -> anyhow::Result<ExitCode> {
    let mut arguments = Arguments::from_args();
    arguments.test_threads = Some(1);
    let stage = Arc::new(Stage {
        runtime: Runtime::new()?,
        browser: Mutex::new(None),
    });
    let mut trials = Vec::new();
    for story in without_a_browser::STORIES
        .iter()
        .chain(share_a_link::NATIVE_STORIES)
        .chain(machines_join::NATIVE_STORIES)
        .chain(machine_to_machine::NATIVE_STORIES)
        .chain(messages::NATIVE_STORIES)
        .chain(nodes_come_and_go::NATIVE_STORIES)
        .chain(signaling_restarts::NATIVE_STORIES)
        .chain(audit::STORIES)
        .chain(secrets::STORIES)
        .chain(hostile_signaling::NATIVE_STORIES)
        .chain(hostile_signaling::live_sessions::NATIVE_STORIES)
        .chain(key_changes::NATIVE_STORIES)
        .chain(tunnels::NATIVE_STORIES)
        .chain(limits::NATIVE_STORIES)
        .chain(openers::NATIVE_STORIES)
        .chain(udp::NATIVE_STORIES)
        .chain(tunnel_load::STORIES)
        .chain(pair_a_device::NATIVE_STORIES)
        .chain(files::NATIVE_STORIES)
        .chain(files::access::NATIVE_STORIES)
        .chain(files::full_disk::NATIVE_STORIES)
    {
        let stage = stage.clone();
        trials.push(Trial::test(format!("native::{}", story.name), move || {
            stage
                .runtime
                .block_on((story.run)())
                .map_err(|error| Failed::from(format!("{error:?}")))
        }));
    }
    for kind in BOTH {
        for story in [
            drive_a_browser::STORIES,
            bare_channel::STORIES,
            open_an_app::STORIES,
            websocket_cases::STORIES,
            share_a_link::STORIES,
            signaling_restarts::STORIES,
            behind_a_relay::STORIES,
            roles_apart::STORIES,
            hostile_signaling::STORIES,
            hostile_signaling::live_sessions::STORIES,
            key_changes::STORIES,
            machines_join::STORIES,
            messages::STORIES,
            tunnels::STORIES,
            pair_a_device::STORIES,
            files::STORIES,
            endurance::STORIES,
            jupyterlab::STORIES,
        ]
        .into_iter()
        .flatten()
        {
            if story.kinds.contains(kind) {
                let stage = stage.clone();
                let name = format!("{kind:?}::{}", story.name).to_lowercase();
                trials.push(Trial::test(name, move || {
                    stage
                        .play(story, *kind)
                        .map_err(|error| Failed::from(format!("{error:?}")))
                }));
            }
        }
    }
    let is_played = |trial: &Trial| {
        trial.name().contains(jupyterlab::NAME) && !arguments.is_filtered_out(trial)
    };
    if !arguments.list && trials.iter().any(is_played) {
        // Its story says so if this fails.
        stage.runtime.spawn(portway_tests::jupyter::prepare());
    }
    Ok(libtest_mimic::run(&arguments, trials).exit_code())
}
