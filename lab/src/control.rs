//! What commands ask the keeper of a lab: one JSON line, and one in return.

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::net::UnixStream;

use anyhow::{Context as _, bail};
use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::network::fault::Direction;
use crate::spec::{Impairment, Name};
use crate::state::LabDir;

/// A question.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "kebab-case")]
pub(crate) enum Request {
    /// Who is there. → `Status`
    Status,
    /// Whether all is well. → `Health`
    Health,
    /// How fast one node reaches another. → `PairFigures`
    Measure {
        /// One.
        from: Name,
        /// The other.
        to: Name,
        /// To download.
        bytes: u64,
    },
    /// End. The answer comes before the end.
    Stop,
    /// Start a node anew, or all, with the binary that there is now.
    Restart {
        /// Which.
        node: Option<Name>,
        /// The binary.
        portway: std::path::PathBuf,
    },
    /// Where the namespace of a host is. → [`Door`]
    Door {
        /// Which.
        host: Name,
    },
    /// Make two silent for each other, or one for all.
    Cut {
        /// One.
        from: Name,
        /// The other.
        to: Option<Name>,
        /// Which packets.
        direction: Direction,
    },
    /// End partitions. → number
    Heal {
        /// Of this one only,
        one: Option<Name>,
        /// with that one only.
        other: Option<Name>,
    },
    /// A router forgets its flows.
    Rebind {
        /// Which.
        router: Name,
        /// Another external address, too.
        address: bool,
    },
    /// A host moves.
    Roam {
        /// Which.
        host: Name,
        /// Where to; otherwise to the public segment.
        lan: Option<Name>,
    },
    /// A link becomes bad, or good.
    Slow {
        /// Whose.
        name: Name,
        /// What it does.
        change: Impairment,
    },
    /// A signal for what a host runs.
    Signal {
        /// Which.
        host: Name,
        /// What.
        signal: Nudge,
    },
    /// A host's clock goes wrong.
    Clock {
        /// Which.
        host: Name,
        /// Seconds ahead.
        offset: i64,
    },
}

/// What processes can be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Nudge {
    /// End in order.
    Terminate,
    /// End at once.
    Kill,
    /// Stand still.
    Freeze,
    /// Go on.
    Thaw,
}

/// An answer.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Answer {
    /// As asked.
    Ok(serde_json::Value),
    /// Why not.
    Error(String),
}

/// How to get into the namespaces of a host.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Door {
    /// Descriptor of the keeper that is the network namespace; none in a lab on plain loopback.
    pub(crate) descriptor: Option<i32>,
}

/// Asks the keeper; also tells its process id as this process sees it.
pub(crate) fn ask_with_pid<T: DeserializeOwned>(
    dir: &LabDir,
    request: &Request,
) -> anyhow::Result<(T, i32)> {
    let mut stream = UnixStream::connect(dir.socket()).with_context(|| {
        format!(
            "no lab runs in {} (see `portway-lab status`, `portway-lab start`)",
            dir.path().display()
        )
    })?;
    let pid = getsockopt(&stream, PeerCredentials)
        .with_context(|| format!("who is behind descriptor {}?", stream.as_raw_fd()))?
        .pid();
    let mut line = serde_json::to_string(request)?;
    line.push('\n');
    stream.write_all(line.as_bytes())?;
    let mut answer = String::new();
    BufReader::new(stream).read_line(&mut answer)?;
    if answer.is_empty() {
        bail!(
            "the lab ended before it answered; see {}",
            dir.file("keeper.log").display()
        );
    }
    match serde_json::from_str(&answer)? {
        Answer::Ok(value) => Ok((serde_json::from_value(value)?, pid)),
        Answer::Error(error) => bail!(error),
    }
}

/// Asks the keeper.
pub(crate) fn ask<T: DeserializeOwned>(dir: &LabDir, request: &Request) -> anyhow::Result<T> {
    ask_with_pid(dir, request).map(|(answer, _)| answer)
}
