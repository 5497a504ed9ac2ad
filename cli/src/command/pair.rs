//! `portway pair`: gets a link by reading six digits to the owner of a service.
//!
//! Security: only the owner knows whether the digits were the same. What signaling says of it is not enough:
//! the link is printed once the person here says that the owner has said so.

use std::process::ExitCode;
use std::sync::Arc;

use portway_gateway::client::{Site, pairing};
use portway_protocol::pairing::code::Digits;
use portway_protocol::reason::Reason;
use serde::Serialize;

use crate::args::{Format, Global, Pair};
use crate::exit::Failure;
use crate::output;
use crate::signals::Signals;
use crate::typing;
use crate::{keyring, opened};

/// What is printed with `--json`, a line each; the last one for people, too.
#[derive(Serialize)]
#[serde(tag = "event", rename_all = "lowercase")]
enum Event {
    /// To be read to the owner.
    Digits { digits: Digits },
    /// The node says that its owner has typed the same. A line is read: `y` if the owner says so.
    Accepted,
    /// It is a secret.
    Paired { link: String },
}

/// Pairs, and prints the link.
pub(crate) fn run(global: &Global, args: &Pair) -> anyhow::Result<ExitCode> {
    let site: Site = args.url.parse().map_err(|_| {
        let message = "expected the address of a service, https://SERVICE.CLUSTER.DOMAIN/";
        Failure::new(portway_protocol::reason::Exit::Usage, message)
    })?;
    let tls = Arc::new(keyring::tls(args.ca.as_deref())?);
    typing::run(async {
        let mut signals = Signals::hear()?;
        tokio::select! {
            paired = pair(global.format(), &site, args, &tls) => paired.map(|()| ExitCode::SUCCESS),
            asked = signals.end() => Ok(asked.code()),
        }
    })
}

async fn pair(
    format: Format,
    site: &Site,
    args: &Pair,
    tls: &Arc<rustls::ClientConfig>,
) -> anyhow::Result<()> {
    let begun = pairing::begin(site, args.node.clone(), Some(tls)).await;
    let pairing = begun.map_err(|error| opened::failure(&error))?;
    let digits = pairing.digits();
    tell(format, &Event::Digits { digits }, || {
        format!(
            "\n    {digits}\n\nRead these digits to the owner of {}, by voice. Waiting…",
            site.service
        )
    })?;
    let verdict = pairing.verdict().await;
    let asked = verdict.map_err(|error| opened::failure(&error))?;
    tell(format, &Event::Accepted, || {
        "Did the owner say that the digits were accepted? [y/N]".to_owned()
    })?;
    let answer = typing::answer().await?.unwrap_or_default();
    if !["y", "yes"].contains(&answer.trim().to_ascii_lowercase().as_str()) {
        let reason = Reason::PairingMismatch;
        let message = "the owner has not said so: there is no link";
        return Err(Failure::because(reason, message).into());
    }
    let link = format!("{}/#{}", site.origin(), asked.confirmed());
    output::print(format, &Event::Paired { link }, |event| match event {
        Event::Paired { link } => link.clone(),
        Event::Digits { .. } | Event::Accepted => String::new(),
    })?;
    if format == Format::Human {
        eprintln!("Keep the link as you would keep a key: portway ping --link-file FILE");
    }
    Ok(())
}

/// To people by standard error: data is what comes of it.
fn tell(format: Format, event: &Event, words: impl FnOnce() -> String) -> anyhow::Result<()> {
    match format {
        Format::Json => output::print(format, event, |_| String::new())?,
        Format::Human => eprintln!("{}", words()),
    }
    Ok(())
}
