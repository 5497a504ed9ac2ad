//! Stories: what somebody does with Portway, in real browsers, with real services.
//!
//! One binary, so that what is slow to prepare for one story is prepared while another one runs.

mod drive_a_browser;
mod endurance;
mod jupyterlab;
mod open_an_app;
mod signaling_restarts;

use serde_json::json;

/// The app's window: a frame of the same origin that fills the page.
const APP: &str = "document.querySelector('#portway-app').contentWindow";

/// An expression that is evaluated in the app's own window.
fn in_app(script: &str) -> String {
    format!("{APP}.eval({})", json!(script))
}
