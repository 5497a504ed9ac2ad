//! What a client command opens: the link from its file, and whom to believe.
//!
//! Security: a link is a secret. It comes from a file or from standard input, never from the command
//! line, which every process of the machine can read; no message repeats it.

use std::io::Read as _;
use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;
use portway_gateway::StreamRelays;
use portway_gateway::client::address::Scheme;
use portway_gateway::client::{ClientError, ServiceAddress, Target};
use portway_gateway::proxy::connect::tls_config;
use portway_gateway::service::Trust;
use portway_protocol::reason::Reason;

use crate::args::Opened;
use crate::exit::Failure;

/// Longest file that can hold a link, bytes.
const MAX_LINK: u64 = 4 * 1024;

/// Reads the link and prepares the way; nothing is connected.
pub(crate) fn target(opened: &Opened) -> anyhow::Result<Target> {
    let text = read(&opened.link_file)?;
    let address: ServiceAddress = text
        .parse()
        .map_err(|error| Failure::because(Reason::LinkInvalid, format!("the link: {error}")))?;
    let trust = match &opened.ca {
        Some(file) => Trust::Authority(file.clone()),
        None => Trust::System,
    };
    let tls = tls_config(&trust).map_err(|error| Failure::configuration(error.to_string()))?;
    Ok(Target {
        node: opened.node.clone(),
        stream_relays: Arc::new(StreamRelays::new(tls.clone())),
        tls: match address.scheme {
            Scheme::Http => None,
            Scheme::Https => Some(Arc::new(tls)),
        },
        address,
    })
}

/// A failure of the client, with its exit code.
pub(crate) fn failure(error: &ClientError) -> Failure {
    Failure::because(error.reason(), error.to_string())
}

fn read(file: &Path) -> anyhow::Result<String> {
    let mut text = String::new();
    if file == Path::new("-") {
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
