//! `portway connect`: a service of another machine as if it were local.

mod stdio;

use std::net::SocketAddr;
use std::process::ExitCode;

use portway_gateway::client::keeper::{Event, Keeper};
use portway_gateway::client::{ClientError, Target};
use portway_gateway::tunnel::Listener;
use portway_protocol::id::{NodeId, ServiceName};
use portway_protocol::reason::Reason;
use portway_protocol::target::ServiceKind;
use serde::Serialize;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::args::{Connect, Format, Global, LocalAddress};
use crate::exit::Failure;
use crate::opened::{self, Reached, Took, millis};
use crate::output;
use crate::signals::Signals;

/// Events that may wait to be printed.
const EVENTS: usize = 16;

/// What is printed, a line each.
#[derive(Serialize)]
#[serde(tag = "event", rename_all = "lowercase")]
enum Line {
    /// Requests are answered from now on.
    Ready {
        listen: SocketAddr,
        service: ServiceName,
        kind: ServiceKind,
        #[serde(flatten)]
        session: Connected,
    },
    /// There is a session again.
    Connected(Connected),
    /// The node is reached another way.
    Path {
        #[serde(flatten)]
        reached: Option<Reached>,
    },
    /// There is no session.
    Lost {
        reason: Reason,
        message: String,
        retry_ms: f64,
    },
}

/// A session that is there.
#[derive(Serialize, Clone)]
struct Connected {
    node: NodeId,
    #[serde(flatten)]
    reached: Option<Reached>,
    #[serde(flatten)]
    took: Took,
}

/// Runs until a signal, or until the link is refused.
pub(crate) fn run(global: &Global, args: &Connect) -> anyhow::Result<ExitCode> {
    let target = opened::target(global, &args.opened)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let outcome = if args.stdio {
        runtime.block_on(stdio::run(target))
    } else {
        runtime.block_on(serve(global.format(), args, target))
    };
    // Whoever reads standard input cannot be interrupted.
    runtime.shutdown_background();
    outcome
}

async fn serve(format: Format, args: &Connect, target: Target) -> anyhow::Result<ExitCode> {
    let mut signals = Signals::hear()?;
    let mut listeners = Vec::new();
    for LocalAddress(address) in &args.listen {
        let bound = Listener::bind(*address).await.map_err(|error| {
            Failure::configuration(format!("cannot listen on {address}: {error}"))
        });
        listeners.push(bound?);
    }
    let mut printer = Printer {
        format,
        listen: listeners.iter().map(Listener::address).collect(),
        service: target.address.site.service.clone(),
        is_ready: false,
    };
    let (events, mut told) = mpsc::channel(EVENTS);
    let cancel = CancellationToken::new();
    let keeper = Keeper::new(target, events);
    let mut listening = JoinSet::new();
    for listener in listeners {
        listening.spawn(listener.run(printer.service.clone(), keeper.watch(), cancel.clone()));
    }
    let closing = CancellationToken::new();
    let mut keeping: JoinSet<Result<(), ClientError>> = JoinSet::new();
    keeping.spawn(keeper.run(closing.clone()));
    let outcome = loop {
        tokio::select! {
            Some(event) = told.recv() => printer.tell(event)?,
            Some(ended) = keeping.join_next() => break match ended? {
                Ok(()) => Ok(ExitCode::SUCCESS),
                Err(error) => Err(opened::failure(&error).into()),
            },
            Some(ended) = listening.join_next() => {
                ended?;
                break Err(anyhow::anyhow!("a listener ended by itself"));
            }
            asked = signals.end() => break Ok(asked.code()),
        }
    };
    // Requests under way first: they need the session.
    cancel.cancel();
    let ended = async {
        while listening.join_next().await.is_some() {}
        closing.cancel();
        while keeping.join_next().await.is_some() {}
    };
    tokio::select! {
        () = ended => {}
        // A second one does not wait.
        _ = signals.end() => {}
    }
    outcome
}

/// Tells what happens.
struct Printer {
    format: Format,
    listen: Vec<SocketAddr>,
    service: ServiceName,
    is_ready: bool,
}

impl Printer {
    fn tell(&mut self, event: Event) -> std::io::Result<()> {
        let line = match event {
            Event::Connected {
                node,
                kind,
                path,
                opening,
            } => {
                let session = Connected {
                    node,
                    reached: path.map(Reached::of),
                    took: Took::of(&opening),
                };
                if !self.is_ready {
                    self.is_ready = true;
                    return self.ready(kind, &session);
                }
                Line::Connected(session)
            }
            Event::Path(path) => Line::Path {
                reached: path.map(Reached::of),
            },
            Event::Lost { error, retry_in } => Line::Lost {
                reason: error.reason(),
                message: error.to_string(),
                retry_ms: millis(retry_in),
            },
        };
        output::print(self.format, &line, human)
    }

    /// A line for each address.
    fn ready(&self, kind: ServiceKind, session: &Connected) -> std::io::Result<()> {
        self.listen.iter().try_for_each(|listen| {
            let line = Line::Ready {
                listen: *listen,
                service: self.service.clone(),
                kind,
                session: session.clone(),
            };
            output::print(self.format, &line, human)
        })
    }
}

fn human(line: &Line) -> String {
    match line {
        Line::Ready {
            listen,
            service,
            kind,
            session,
        } => {
            let address = match kind {
                ServiceKind::Http => format!("http://{listen}/"),
                ServiceKind::Tcp => listen.to_string(),
            };
            format!("{service} is at {address}, {}", session.words())
        }
        Line::Connected(session) => format!("connected again, {}", session.words()),
        Line::Path { reached } => format!("now {}", words(reached.as_ref())),
        Line::Lost {
            reason, message, ..
        } => format!("no connection: {message} [{reason}]; trying again"),
    }
}

impl Connected {
    fn words(&self) -> String {
        format!("on {}, {}", self.node, words(self.reached.as_ref()))
    }
}

fn words(reached: Option<&Reached>) -> String {
    reached.map_or_else(|| "by an unknown path".to_owned(), Reached::words)
}
