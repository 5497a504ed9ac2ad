//! What a client command opens, the link from its file and whom to believe, and how it tells of it.
//!
//! Security: a link is a secret. It comes from a file or from standard input, never from the command
//! line, which every process of the machine can read; no message repeats it.

use std::io::Read as _;
use std::net::IpAddr;
use std::path::Path as FilePath;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use portway_gateway::StreamRelays;
use portway_gateway::client::address::Scheme;
use portway_gateway::client::{ClientError, Credential, Opening, Path, ServiceAddress, Target};
use portway_gateway::proxy::connect::tls_config;
use portway_gateway::revocations::KnownRevocations;
use portway_gateway::service::Trust;
use portway_protocol::reason::Reason;
use serde::Serialize;

use crate::args::{Global, Opened};
use crate::exit::Failure;
use crate::state::State;

/// How a node is reached.
#[derive(Serialize, Clone, Copy, PartialEq)]
pub(crate) struct Reached {
    /// `direct` or `relayed`.
    path: &'static str,
    /// Where the node's packets come from.
    remote: IpAddr,
    /// Kind of our candidate, as ICE calls it.
    local_kind: &'static str,
    /// Kind of the node's.
    remote_kind: &'static str,
    protocol: &'static str,
}

/// Steps to a session, in milliseconds. Each follows the one before; `open_ms` is all of them.
#[derive(Serialize, Clone, Copy)]
pub(crate) struct Took {
    open_ms: f64,
    signaling_ms: f64,
    answer_ms: f64,
    ice_ms: f64,
    channel_ms: f64,
    handshake_ms: f64,
}

/// Longest file that can hold a link, bytes.
const MAX_LINK: u64 = 4 * 1024;

/// Key of this device in the state directory. A link for one device goes by it.
const DEVICE_KEY: &str = "device.key";

/// Reads the link and prepares the way; nothing is connected.
pub(crate) fn target(global: &Global, opened: &Opened) -> anyhow::Result<Target> {
    let text = read(&opened.link_file)?;
    let address: ServiceAddress = text
        .parse()
        .map_err(|error| Failure::because(Reason::LinkInvalid, format!("the link: {error}")))?;
    let tls = tls(opened.ca.as_deref())?;
    let state = State::locate(global)?;
    state.prepare()?;
    let Credential {
        cluster,
        cluster_key,
        ..
    } = address.credential.clone();
    Ok(Target {
        device: state.key(DEVICE_KEY)?,
        node: opened.node.clone(),
        stream_relays: Arc::new(StreamRelays::new(tls.clone())),
        tls: match address.site.scheme {
            Scheme::Http => None,
            Scheme::Https => Some(Arc::new(tls)),
        },
        revocations: KnownRevocations::new(cluster, cluster_key),
        address,
    })
}

/// Whom to believe to be signaling: this authority, or those of the system.
pub(crate) fn tls(authority: Option<&FilePath>) -> anyhow::Result<rustls::ClientConfig> {
    let trust = match authority {
        Some(file) => Trust::Authority(file.to_owned()),
        None => Trust::System,
    };
    tls_config(&trust).map_err(|error| Failure::configuration(error.to_string()).into())
}

/// A failure of the client, with its exit code.
pub(crate) fn failure(error: &ClientError) -> Failure {
    Failure::because(error.reason(), error.to_string())
}

fn read(file: &FilePath) -> anyhow::Result<String> {
    let mut text = String::new();
    if file == FilePath::new("-") {
        std::io::stdin()
            .take(MAX_LINK)
            .read_to_string(&mut text)
            .context("cannot read the link from standard input")?;
    } else {
        std::fs::File::open(file)
            .and_then(|file| file.take(MAX_LINK).read_to_string(&mut text))
            .map_err(|error| {
                Failure::configuration(format!("cannot read {}: {error}", file.display()))
            })?;
    }
    Ok(text)
}

impl Reached {
    pub(crate) fn of(path: Path) -> Self {
        Self {
            path: path.kind.as_str(),
            remote: path.remote,
            local_kind: path.local_kind.as_str(),
            remote_kind: path.remote_kind.as_str(),
            protocol: path.protocol.as_str(),
        }
    }

    /// For people.
    pub(crate) fn words(&self) -> String {
        format!(
            "{} to {} ({} – {}, {})",
            self.path, self.remote, self.local_kind, self.remote_kind, self.protocol
        )
    }
}

impl Took {
    pub(crate) fn of(opening: &Opening) -> Self {
        let step = |from: Duration, to: Duration| millis(to.saturating_sub(from));
        Self {
            open_ms: millis(opening.session),
            signaling_ms: millis(opening.signaling),
            answer_ms: step(opening.signaling, opening.answer),
            ice_ms: step(opening.answer, opening.path),
            channel_ms: step(opening.path, opening.channel),
            handshake_ms: step(opening.channel, opening.session),
        }
    }

    /// For people.
    pub(crate) fn words(&self) -> String {
        format!(
            "open in {:.0} ms: signaling {:.0}, answer {:.0}, ICE and DTLS {:.0}, channel {:.0}, handshake {:.0}",
            self.open_ms,
            self.signaling_ms,
            self.answer_ms,
            self.ice_ms,
            self.channel_ms,
            self.handshake_ms,
        )
    }
}

/// Milliseconds with two digits.
pub(crate) fn millis(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 100_000.0).round() / 100.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_add_up() {
        let at = Duration::from_millis;
        let took = Took::of(&Opening {
            signaling: at(5),
            answer: at(12),
            path: at(40),
            channel: at(42),
            session: at(45),
        });
        assert_eq!((took.answer_ms, took.ice_ms), (7.0, 28.0));
        assert_eq!(
            (took.channel_ms, took.handshake_ms, took.open_ms),
            (2.0, 3.0, 45.0)
        );
    }
}
