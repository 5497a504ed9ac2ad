//! What `portway connect` tells: a line for each event.

use std::collections::HashMap;
use std::io;
use std::ops::ControlFlow;

use portway_gateway::client::ClientError;
use portway_gateway::client::keeper::Event;
use portway_gateway::flows::counters::{Dropped, Tally};
use portway_gateway::tunnel::pool::News;
use portway_gateway::tunnel::{LocalAddress, Socks};
use portway_protocol::datagram;
use portway_protocol::id::{ClusterName, NodeId, ServiceName};
use portway_protocol::reason::Reason;
use portway_protocol::target::ServiceKind;
use serde::Serialize;

use super::local::{End, Purpose};
use crate::args::Format;
use crate::opened::{Reached, Took, millis};
use crate::output;

/// What is printed, a line each.
#[derive(Serialize)]
#[serde(tag = "event", rename_all = "lowercase")]
enum Line {
    /// The proxy is there.
    Proxy {
        listen: LocalAddress,
        cluster: ClusterName,
    },
    /// Requests are answered from now on.
    Ready {
        listen: LocalAddress,
        /// Largest datagram that is not cut up, in bytes.
        #[serde(skip_serializing_if = "Option::is_none")]
        mtu: Option<usize>,
        #[serde(flatten)]
        session: Connected,
    },
    /// Connections to the node come here from now on.
    Reverse {
        to: LocalAddress,
        #[serde(flatten)]
        session: Connected,
    },
    /// There is a session, or one again.
    Connected(Connected),
    /// The node is reached another way.
    Path {
        service: ServiceName,
        #[serde(flatten)]
        reached: Option<Reached>,
    },
    /// There is no session.
    Lost {
        service: ServiceName,
        reason: Reason,
        message: String,
        /// None if there will be none.
        retry_ms: Option<f64>,
    },
    /// At its end: what became of datagrams.
    Datagrams(Tally),
}

/// A session that is there.
#[derive(Serialize, Clone)]
struct Connected {
    service: ServiceName,
    kind: ServiceKind,
    node: NodeId,
    #[serde(flatten)]
    reached: Option<Reached>,
    #[serde(flatten)]
    took: Took,
}

/// Tells what happens.
pub(super) struct Printer {
    format: Format,
    /// Local ends of services; none are left once there was a session.
    waiting: HashMap<ServiceName, Vec<End>>,
}

/// Why there is nothing more to tell.
pub(super) enum Over {
    /// An end leads nowhere for good.
    Refused(ServiceName, ClientError),
    /// It is for another kind of service.
    Wrong(ServiceName, Reason),
}

impl Printer {
    pub(super) fn new(format: Format) -> Self {
        Self {
            format,
            waiting: HashMap::new(),
        }
    }

    /// There will be a line for this end of a service.
    pub(super) fn expect(&mut self, service: ServiceName, end: End) {
        self.waiting.entry(service).or_default().push(end);
    }

    pub(super) fn proxy(&self, socks: &Socks, cluster: &ClusterName) -> io::Result<()> {
        let line = Line::Proxy {
            listen: socks.address().clone(),
            cluster: cluster.clone(),
        };
        output::print(self.format, &line, human)
    }

    /// At its end: what became of datagrams.
    pub(super) fn datagrams(&self, tally: Tally) -> io::Result<()> {
        output::print(self.format, &Line::Datagrams(tally), human)
    }

    /// Breaks if an end leads nowhere for good.
    pub(super) fn tell(&mut self, news: News) -> io::Result<ControlFlow<Over>> {
        let line = match news {
            News::Session(
                service,
                Event::Connected {
                    node,
                    kind,
                    path,
                    opening,
                },
            ) => {
                let waiting = self.waiting.get_mut(&service).map(std::mem::take);
                let waiting = waiting.unwrap_or_default();
                let checked = waiting.iter().try_for_each(|end| end.purpose.check(kind));
                if let Err(reason) = checked {
                    return Ok(ControlFlow::Break(Over::Wrong(service, reason)));
                }
                let session = Connected {
                    service,
                    kind,
                    node,
                    reached: path.map(Reached::of),
                    took: Took::of(&opening),
                };
                if !waiting.is_empty() {
                    self.ready(waiting, &session)?;
                    return Ok(ControlFlow::Continue(()));
                }
                Line::Connected(session)
            }
            News::Session(service, Event::Path(path)) => Line::Path {
                service,
                reached: path.map(Reached::of),
            },
            News::Session(service, Event::Lost { error, retry_in }) => Line::Lost {
                service,
                reason: error.reason(),
                message: error.to_string(),
                retry_ms: Some(millis(retry_in)),
            },
            News::Refused(service, error) if self.waiting.contains_key(&service) => {
                return Ok(ControlFlow::Break(Over::Refused(service, error)));
            }
            News::Refused(service, error) => Line::Lost {
                service,
                reason: error.reason(),
                message: error.to_string(),
                retry_ms: None,
            },
        };
        output::print(self.format, &line, human)?;
        Ok(ControlFlow::Continue(()))
    }

    /// A line for each end.
    fn ready(&self, ends: Vec<End>, session: &Connected) -> io::Result<()> {
        ends.into_iter().try_for_each(|End { address, purpose }| {
            let session = session.clone();
            let line = match purpose {
                Purpose::Stream | Purpose::Datagrams => Line::Ready {
                    listen: address,
                    mtu: (purpose == Purpose::Datagrams).then_some(datagram::MTU),
                    session,
                },
                Purpose::Reverse => Line::Reverse {
                    to: address,
                    session,
                },
            };
            output::print(self.format, &line, human)
        })
    }
}

fn human(line: &Line) -> String {
    match line {
        Line::Proxy { listen, cluster } => format!(
            "SOCKS5 at {listen} for SERVICE.{cluster}, e.g. curl -x socks5h://{listen} http://SERVICE.{cluster}/"
        ),
        Line::Ready {
            listen,
            mtu,
            session,
        } => {
            let address = match (session.kind, listen) {
                (ServiceKind::Http, LocalAddress::Tcp(listen)) => format!("http://{listen}/"),
                (ServiceKind::Udp, _) => format!("udp://{listen}"),
                (ServiceKind::Http, LocalAddress::Unix(_))
                | (ServiceKind::Tcp | ServiceKind::Listen, _) => listen.to_string(),
            };
            let mtu = mtu.map_or_else(String::new, |mtu| format!("; MTU {mtu} bytes"));
            format!(
                "{} is at {address}, {}{mtu}",
                session.service,
                session.words()
            )
        }
        Line::Reverse { to, session } => format!(
            "who connects to {} comes to {to}, {}",
            session.service,
            session.words()
        ),
        Line::Connected(session) => {
            format!("{} is connected, {}", session.service, session.words())
        }
        Line::Path { service, reached } => format!("{service}: now {}", words(reached.as_ref())),
        Line::Lost {
            service,
            reason,
            message,
            retry_ms,
        } => {
            let then = retry_ms.map_or("", |_| "; trying again");
            format!("{service}: no connection: {message} [{reason}]{then}")
        }
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
