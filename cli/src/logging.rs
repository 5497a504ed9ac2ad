//! Logs go to standard error: readable on a terminal, JSON with `--json`.

use std::io::IsTerminal as _;

use tracing_subscriber::EnvFilter;

use crate::args::Global;

/// Starts logging. `PORTWAY_LOG` overrides the level, e.g. `portway_gateway=debug`.
pub(crate) fn start(global: &Global) {
    let level = match (global.quiet, global.verbose) {
        (true, _) => "error",
        (false, 0) => "warn",
        (false, 1) => "info,webrtc=warn,rtc=warn",
        (false, 2) => {
            "info,portway=debug,portway_gateway=debug,portway_signaling=debug,portway_transport=debug"
        }
        (false, _) => "trace",
    };
    let filter = EnvFilter::try_from_env("PORTWAY_LOG").unwrap_or_else(|_| EnvFilter::new(level));
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none());
    if global.json {
        builder.json().init();
    } else {
        builder.with_target(false).init();
    }
}
