//! `portway share SERVICE --pair`: waits for a guest who has no link, and compares six digits.
//!
//! Security: the owner types what the guest reads, so that nobody can say "yes, yes" without having heard it.

use std::net::IpAddr;
use std::path::Path;
use std::process::ExitCode;

use portway_protocol::id::{GrantId, ServiceName};
use portway_protocol::pairing::code::Digits;
use portway_protocol::reason::{Exit, Reason};
use serde::Serialize;
use tokio::sync::mpsc;

use super::limits;
use crate::args::{Format, Global, Share};
use crate::command::client::duration;
use crate::control;
use crate::control::pairing::{Line, Typed, Verdict};
use crate::exit::Failure;
use crate::links::{GrantRequest, unix_now};
use crate::output;
use crate::signals::Signals;
use crate::state;
use crate::typing;

/// Lines of the running instance that may wait: there are three at most.
const LINES: usize = 4;

/// What is printed with `--json`, a line each; the last one for people, too.
#[derive(Serialize)]
#[serde(tag = "event", rename_all = "lowercase")]
enum Event<'a> {
    Waiting {
        url: &'a str,
    },
    Guest {
        address: Option<IpAddr>,
    },
    Paired {
        service: &'a ServiceName,
        id: GrantId,
        expires: u64,
    },
}

pub(super) fn run(global: &Global, args: &Share) -> anyhow::Result<ExitCode> {
    let socket = state::locate(global)?.path(control::SOCKET);
    let host = Host {
        format: global.format(),
        socket: &socket,
        args,
        request: GrantRequest::new([&args.service], &args.terms),
    };
    typing::run(host.run())
}

struct Host<'a> {
    format: Format,
    socket: &'a Path,
    args: &'a Share,
    request: GrantRequest,
}

impl Host<'_> {
    async fn run(self) -> anyhow::Result<ExitCode> {
        let mut signals = Signals::hear()?;
        let (said, lines) = mpsc::channel(LINES);
        let body = serde_json::to_vec(&self.request)?;
        let heard = move |line: Line| {
            said.try_send(line)
                .map_err(|_| anyhow::anyhow!("the running portway says more than it should"))
        };
        // As long as we listen, the window is open.
        let listening = control::follow(self.socket, "POST", "/pairings", Some(body), heard);
        let pairing = self.pair(lines);
        tokio::pin!(pairing);
        tokio::select! {
            biased;
            paired = &mut pairing => paired?,
            asked = signals.end() => return Ok(asked.code()),
            // What it has said last is still to be read.
            listened = listening => {
                listened?;
                pairing.await?;
            }
        }
        Ok(ExitCode::SUCCESS)
    }

    async fn pair(&self, mut lines: mpsc::Receiver<Line>) -> anyhow::Result<()> {
        let (grant, url) = match lines.recv().await {
            Some(Line::Waiting { grant, url }) => (grant, url),
            line => return Err(over(line).into()),
        };
        self.tell(&Event::Waiting { url: &url }, || waiting(&url))?;
        let address = match lines.recv().await {
            Some(Line::Guest { address }) => address,
            line => return Err(over(line).into()),
        };
        self.tell(&Event::Guest { address }, || guest(address))?;
        let digits = tokio::select! {
            digits = typed() => digits?,
            line = lines.recv() => return Err(over(line).into()),
        };
        let request = self.request.clone();
        let body = serde_json::to_vec(&Typed { digits, request })?;
        let path = format!("/pairings/{grant}");
        match control::ask(self.socket, "POST", &path, Some(body)).await? {
            Verdict::Refused { reason } => Err(Failure::because(reason, reason.message()).into()),
            Verdict::Paired { expires } => {
                let service = &self.args.service;
                let paired = Event::Paired {
                    service,
                    id: grant,
                    expires,
                };
                output::print(self.format, &paired, |_| self.paired(grant, expires))?;
                Ok(())
            }
        }
    }

    /// To people by standard error: data is what comes of it.
    fn tell(&self, event: &Event<'_>, words: impl FnOnce() -> String) -> anyhow::Result<()> {
        match self.format {
            Format::Json => output::print(self.format, event, |_| String::new())?,
            Format::Human => eprintln!("{}", words()),
        }
        Ok(())
    }

    fn paired(&self, grant: GrantId, expires: u64) -> String {
        let left = duration(expires.saturating_sub(unix_now()));
        format!(
            "Paired. Tell them that the digits were accepted: they go on only then.\n\
             It opens {} for {left}{}.\nTo take it back: portway links revoke {grant}",
            self.args.service,
            limits(&self.args.terms),
        )
    }
}

fn waiting(url: &str) -> String {
    format!(
        "On the other device, open {url} and choose “Pair this device”\n\
         (without a browser: portway pair {url}).\n\
         Waiting for 10 minutes at most; Ctrl-C ends it."
    )
}

fn guest(address: Option<IpAddr>) -> String {
    let from = address.map_or_else(String::new, |address| format!(" from {address}"));
    format!(
        "Somebody is pairing{from}. Ask them for the six digits on their screen, by voice,\n\
         and type them here within 3 minutes. There is one try:"
    )
}

/// Asks until there are six: a slip of another length is no try.
async fn typed() -> anyhow::Result<Digits> {
    loop {
        let Some(line) = typing::answer().await? else {
            let message = "no digits came from standard input: nothing was granted";
            return Err(Failure::new(Exit::Usage, message).into());
        };
        match line.parse() {
            Ok(digits) => return Ok(digits),
            Err(error) => eprintln!("{error}:"),
        }
    }
}

/// Why it is over before there was anything to compare.
fn over(line: Option<Line>) -> Failure {
    let reason = match line {
        Some(Line::Over { reason }) => reason,
        Some(Line::Waiting { .. } | Line::Guest { .. }) => Reason::ProtocolViolation,
        None => Reason::Draining,
    };
    let message = if reason == Reason::PairingTaken {
        "another `portway share --pair` waits for this service already"
    } else {
        reason.message()
    };
    Failure::because(reason, message)
}
