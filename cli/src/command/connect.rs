//! `portway connect`: services of other machines as if they were local.

mod stdio;

use std::collections::HashMap;
use std::io;
use std::ops::ControlFlow;
use std::process::ExitCode;
use std::sync::Arc;

use portway_gateway::client::ClientError;
use portway_gateway::client::keeper::{Current, Event};
use portway_gateway::flows::counters::{Dropped, Tally};
use portway_gateway::tunnel::pool::News;
use portway_gateway::tunnel::{Listener, LocalAddress, Pool, Socks, UdpListener};
use portway_protocol::datagram;
use portway_protocol::id::{ClusterName, NodeId, ServiceName};
use portway_protocol::reason::Reason;
use portway_protocol::target::ServiceKind;
use serde::Serialize;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::args::{Connect, Format, Forward, Global};
use crate::exit::{self, Failure};
use crate::keyring::Keyring;
use crate::opened::{Reached, Took, millis};
use crate::output;
use crate::signals::Signals;

/// News that may wait to be printed.
const NEWS: usize = 16;

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

/// What takes the local side of a service.
enum Local {
    Stream(Listener),
    Datagrams(UdpListener),
}

impl Local {
    async fn bind(args: &Connect, address: &LocalAddress) -> Result<Self, Failure> {
        let cannot = |error| cannot_listen(address, &error);
        Ok(match (args.udp, address) {
            (false, address) => Self::Stream(Listener::bind(address).await.map_err(cannot)?),
            (true, LocalAddress::Tcp(at)) => {
                Self::Datagrams(UdpListener::bind(*at).await.map_err(cannot)?)
            }
            (true, LocalAddress::Unix(_)) => {
                return Err(Failure::usage("datagrams need a port: -L [ADDR:]PORT"));
            }
        })
    }

    fn address(&self) -> LocalAddress {
        match self {
            Self::Stream(listener) => listener.address().clone(),
            Self::Datagrams(listener) => LocalAddress::Tcp(listener.address()),
        }
    }

    async fn run(
        self,
        service: ServiceName,
        pool: Arc<Pool>,
        current: watch::Receiver<Current>,
        cancel: CancellationToken,
    ) {
        match self {
            Self::Stream(listener) => listener.run(service, current, cancel).await,
            Self::Datagrams(listener) => {
                let datagrams = pool.datagrams().clone();
                listener.run(service, current, datagrams, cancel).await;
            }
        }
    }
}

/// Whether what is asked for is what the service speaks.
fn check(service: &ServiceName, kind: ServiceKind, args: &Connect) -> Result<(), Failure> {
    let wrong = match kind {
        ServiceKind::Udp => (!args.udp).then_some(Reason::ServiceIsUdp),
        ServiceKind::Http | ServiceKind::Tcp => args.udp.then_some(Reason::ServiceNotUdp),
    };
    wrong.map_or(Ok(()), |reason| Err(refused(service)(reason)))
}

/// A listener, and the service that it is for.
type Forwarded = (Local, ServiceName);

/// Runs until a signal, or until a service that is to be at an address is refused.
pub(crate) fn run(global: &Global, args: &Connect) -> anyhow::Result<ExitCode> {
    let keyring = Keyring::open(
        global,
        &args.opened.credentials,
        args.opened.service.as_ref(),
    )?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let outcome = if args.stdio {
        runtime.block_on(stdio::run(&keyring))
    } else {
        runtime.block_on(serve(global.format(), args, Arc::new(keyring)))
    };
    // Whoever reads standard input cannot be interrupted.
    runtime.shutdown_background();
    outcome
}

async fn serve(format: Format, args: &Connect, keyring: Arc<Keyring>) -> anyhow::Result<ExitCode> {
    let mut signals = Signals::hear()?;
    let forwarded = listeners(args, &keyring).await?;
    let socks = match &args.socks {
        Some(address) => {
            let bound = Socks::bind(address).await;
            Some(bound.map_err(|error| cannot_listen(address, &error))?)
        }
        None => None,
    };
    let cluster = keyring.cluster().clone();
    let mut printer = Printer {
        format,
        waiting: HashMap::new(),
    };
    let (news, mut told) = mpsc::channel(NEWS);
    let keys = keyring.clone();
    let open = move |service: &ServiceName| {
        let target = keys.target(service);
        target.map_err(|error| exit::reason(&error).unwrap_or(Reason::PermissionDenied))
    };
    let pool = Arc::new(Pool::new(open, news));
    let cancel = CancellationToken::new();
    let mut listening = JoinSet::new();
    for (listener, service) in forwarded {
        let session = pool.current(&service).map_err(refused(&service))?;
        let waiting = printer.waiting.entry(service.clone());
        waiting.or_default().push(listener.address());
        listening.spawn(listener.run(service, pool.clone(), session, cancel.clone()));
    }
    if let Some(socks) = socks {
        printer.proxy(&socks, &cluster)?;
        listening.spawn(socks.run(cluster, pool.clone(), cancel.clone()));
    }
    let outcome = loop {
        tokio::select! {
            Some(news) = told.recv() => {
                if let News::Session(service, Event::Connected { kind, .. }) = &news
                    && printer.waiting.contains_key(service)
                    && let Err(failure) = check(service, *kind, args)
                {
                    break Err(failure.into());
                }
                match printer.tell(news)? {
                    ControlFlow::Continue(()) => {}
                    ControlFlow::Break((service, error)) => {
                        break Err(keyring.failure(&service, &error).into());
                    }
                }
            }
            Some(ended) = listening.join_next() => {
                ended?;
                break Err(anyhow::anyhow!("a listener ended by itself"));
            }
            asked = signals.end() => break Ok(asked.code()),
        }
    };
    // Requests under way first: they need their sessions. What happens to these is no more told.
    drop(told);
    cancel.cancel();
    let ended = async {
        while listening.join_next().await.is_some() {}
        pool.close().await;
    };
    tokio::select! {
        () = ended => {}
        // A second one does not wait.
        _ = signals.end() => {}
    }
    if args.udp {
        let tally = pool.datagrams().tally();
        output::print(format, &Line::Datagrams(tally), human)?;
    }
    outcome
}

/// Binds the addresses; nothing is served yet.
async fn listeners(args: &Connect, keyring: &Keyring) -> anyhow::Result<Vec<Forwarded>> {
    let mut listeners = Vec::new();
    for Forward { address, service } in &args.listen {
        let service = match service {
            Some(service) => service.clone(),
            None => keyring.service()?,
        };
        keyring.target(&service)?;
        let listener = Local::bind(args, address).await?;
        listeners.push((listener, service));
    }
    Ok(listeners)
}

fn cannot_listen(address: &LocalAddress, error: &io::Error) -> Failure {
    Failure::configuration(format!("cannot listen on {address}: {error}"))
}

fn refused(service: &ServiceName) -> impl FnOnce(Reason) -> Failure {
    move |reason| Failure::because(reason, format!("{service}: {}", reason.message()))
}

/// Tells what happens.
struct Printer {
    format: Format,
    /// Addresses of services that there was no session to.
    waiting: HashMap<ServiceName, Vec<LocalAddress>>,
}

impl Printer {
    fn proxy(&self, socks: &Socks, cluster: &ClusterName) -> io::Result<()> {
        let line = Line::Proxy {
            listen: socks.address().clone(),
            cluster: cluster.clone(),
        };
        output::print(self.format, &line, human)
    }

    /// Breaks if an address leads nowhere for good.
    fn tell(&mut self, news: News) -> io::Result<ControlFlow<(ServiceName, ClientError)>> {
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
                let session = Connected {
                    service,
                    kind,
                    node,
                    reached: path.map(Reached::of),
                    took: Took::of(&opening),
                };
                match waiting {
                    Some(listen) if !listen.is_empty() => {
                        self.ready(listen, &session)?;
                        return Ok(ControlFlow::Continue(()));
                    }
                    Some(_) | None => Line::Connected(session),
                }
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
                return Ok(ControlFlow::Break((service, error)));
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

    /// A line for each address.
    fn ready(&self, listen: Vec<LocalAddress>, session: &Connected) -> io::Result<()> {
        listen.into_iter().try_for_each(|listen| {
            let line = Line::Ready {
                listen,
                mtu: (session.kind == ServiceKind::Udp).then_some(datagram::MTU),
                session: session.clone(),
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
                (ServiceKind::Http, LocalAddress::Unix(_)) | (ServiceKind::Tcp, _) => {
                    listen.to_string()
                }
                (ServiceKind::Udp, _) => format!("udp://{listen}"),
            };
            let mtu = mtu.map_or_else(String::new, |mtu| format!("; MTU {mtu} bytes"));
            format!(
                "{} is at {address}, {}{mtu}",
                session.service,
                session.words()
            )
        }
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
