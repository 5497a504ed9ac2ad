//! Logs go to standard error: readable on a terminal, JSON with `--json`.

use std::io::IsTerminal as _;

use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{Layer as _, fmt};

use crate::args::Global;

/// Starts logging. `PORTWAY_LOG` overrides the level, e.g. `portway_gateway=debug`.
pub(crate) fn start(global: &Global) {
    let level = match (global.quiet, global.verbose) {
        (true, _) => "error",
        (false, 0) => "warn",
        (false, 1) => "info,webrtc=warn,rtc=warn",
        (false, 2) => {
            "info,portway=debug,portway_gateway=debug,portway_signaling=debug,portway_transport=debug,portway_relay=debug"
        }
        (false, _) => "trace",
    };
    let filter = match std::env::var("PORTWAY_LOG") {
        Ok(wanted) => wanted.parse().unwrap_or_else(|error| {
            eprintln!("portway: PORTWAY_LOG is ignored: {error}");
            targets(level)
        }),
        Err(_) => targets(level),
    };
    // It tells every mistake of strangers at level warn, and keys at level trace.
    let filter = filter.with_target("stun_types", LevelFilter::OFF);
    let lines = fmt::layer()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none());
    let lines = if global.json {
        lines.json().boxed()
    } else {
        lines.with_target(false).boxed()
    };
    tracing_subscriber::registry()
        .with(lines.with_filter(filter))
        .init();
}

/// A filter of ours, which is known to be well-formed.
fn targets(level: &str) -> Targets {
    level.parse().unwrap_or_default()
}
