//! coturn's command-line clients.

#![allow(clippy::unwrap_used, reason = "in a test, a panic is the report")]
#![allow(dead_code, reason = "each test uses a part")]

use std::net::SocketAddr;
use std::process::Command;

/// What `turnutils_uclient` says when all it sent has come back.
pub(crate) const NOTHING_LOST: &str = "Total lost packets 0 (0.000000%)";

/// Runs a tool of coturn against an address; what it printed.
pub(crate) fn run(tool: &str, args: &[&str], server: SocketAddr) -> String {
    let output = command(tool, args, server)
        .output()
        .expect("coturn's tools are installed by `cargo xtask test`");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// A tool of coturn with its arguments.
pub(crate) fn command(tool: &str, args: &[&str], server: SocketAddr) -> Command {
    let mut command = Command::new(tool);
    command
        .args(args)
        .args(["-p", &server.port().to_string(), &server.ip().to_string()]);
    command
}
