//! `portway connect`: a service of another machine as if it were local.

mod stdio;

use std::io;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;

use portway_gateway::client::keeper::{Current, Event, Keeper};
use portway_gateway::client::{ClientError, Target};
use portway_gateway::flows::counters::{Counters, Dropped, Tally};
use portway_gateway::tunnel::{Listener, UdpListener};
use portway_protocol::datagram;
use portway_protocol::id::{NodeId, ServiceName};
use portway_protocol::reason::Reason;
use portway_protocol::target::ServiceKind;
use serde::Serialize;
use tokio::sync::{mpsc, watch};
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
        /// Largest datagram that is not cut up, in bytes.
        #[serde(skip_serializing_if = "Option::is_none")]
        mtu: Option<usize>,
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
    /// At its end: what became of datagrams.
    Datagrams(Tally),
}

/// What takes the local side of a service.
enum Local {
    Stream(Listener),
    Datagrams(UdpListener),
}

impl Local {
    async fn bind(args: &Connect, address: SocketAddr) -> io::Result<Self> {
        Ok(if args.udp {
            Self::Datagrams(UdpListener::bind(address).await?)
        } else {
            Self::Stream(Listener::bind(address).await?)
        })
    }

    const fn address(&self) -> SocketAddr {
        match self {
            Self::Stream(listener) => listener.address(),
            Self::Datagrams(listener) => listener.address(),
        }
    }

    async fn run(
        self,
        service: ServiceName,
        current: watch::Receiver<Current>,
        datagrams: Arc<Counters>,
        cancel: CancellationToken,
    ) {
        match self {
            Self::Stream(listener) => listener.run(service, current, cancel).await,
            Self::Datagrams(listener) => listener.run(service, current, datagrams, cancel).await,
        }
    }
}

/// Whether what is asked for is what the service speaks.
fn check(kind: ServiceKind, args: &Connect) -> Result<(), Failure> {
    let wrong = match kind {
        ServiceKind::Udp => (!args.udp).then_some(Reason::ServiceIsUdp),
        ServiceKind::Http | ServiceKind::Tcp => args.udp.then_some(Reason::ServiceNotUdp),
    };
    wrong.map_or(Ok(()), |reason| {
        Err(Failure::because(reason, reason.message()))
    })
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
        let bound = Local::bind(args, *address).await.map_err(|error| {
            Failure::configuration(format!("cannot listen on {address}: {error}"))
        });
        listeners.push(bound?);
    }
    let mut printer = Printer {
        format,
        listen: listeners.iter().map(Local::address).collect(),
        service: target.address.site.service.clone(),
        is_ready: false,
    };
    let (events, mut told) = mpsc::channel(EVENTS);
    let cancel = CancellationToken::new();
    let keeper = Keeper::new(target, events);
    let mut listening = JoinSet::new();
    for listener in listeners {
        let service = printer.service.clone();
        let datagrams = keeper.datagrams().clone();
        listening.spawn(listener.run(service, keeper.watch(), datagrams, cancel.clone()));
    }
    let datagrams = keeper.datagrams().clone();
    let closing = CancellationToken::new();
    let mut keeping: JoinSet<Result<(), ClientError>> = JoinSet::new();
    keeping.spawn(keeper.run(closing.clone()));
    let outcome = loop {
        tokio::select! {
            Some(event) = told.recv() => {
                if let Event::Connected { kind, .. } = &event
                    && let Err(failure) = check(*kind, args)
                {
                    break Err(failure.into());
                }
                printer.tell(event)?;
            }
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
    if args.udp {
        output::print(format, &Line::Datagrams(datagrams.tally()), human)?;
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
                mtu: (kind == ServiceKind::Udp).then_some(datagram::MTU),
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
            mtu,
            session,
        } => {
            let address = match kind {
                ServiceKind::Http => format!("http://{listen}/"),
                ServiceKind::Tcp => listen.to_string(),
                ServiceKind::Udp => format!("udp://{listen}"),
            };
            let mtu = mtu.map_or_else(String::new, |mtu| format!("; MTU {mtu} bytes"));
            format!("{service} is at {address}, {}{mtu}", session.words())
        }
        Line::Connected(session) => format!("connected again, {}", session.words()),
        Line::Path { reached } => format!("now {}", words(reached.as_ref())),
        Line::Lost {
            reason, message, ..
        } => format!("no connection: {message} [{reason}]; trying again"),
        Line::Datagrams(tally) => format!(
            "datagrams: {} sent, {} received, {} dropped here{}",
            tally.sent,
            tally.received,
            tally.dropped.total(),
            reasons(&tally.dropped)
        ),
    }
}

/// Why datagrams were dropped, if any were.
fn reasons(dropped: &Dropped) -> String {
    let Dropped {
        queue_full,
        too_large,
        no_path,
        unknown_flow,
        malformed,
        refused,
    } = *dropped;
    let told: Vec<_> = [
        ("full", queue_full),
        ("too large", too_large),
        ("no path", no_path),
        ("of no flow", unknown_flow),
        ("malformed", malformed),
        ("refused", refused),
    ]
    .into_iter()
    .filter(|(_, count)| *count > 0)
    .map(|(why, count)| format!("{count} {why}"))
    .collect();
    if told.is_empty() {
        return String::new();
    }
    format!(" ({})", told.join(", "))
}

impl Connected {
    fn words(&self) -> String {
        format!("on {}, {}", self.node, words(self.reached.as_ref()))
    }
}

fn words(reached: Option<&Reached>) -> String {
    reached.map_or_else(|| "by an unknown path".to_owned(), Reached::words)
}
