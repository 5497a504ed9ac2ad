//! `portway connect`: services of other machines as if they were local, and the other way round.
//!
//! - [`local`]: the local ends. [`stdio`]: one connection over standard input and output. [`tell`]: what happens.

mod local;
mod stdio;
mod tell;

use std::io;
use std::ops::ControlFlow;
use std::process::ExitCode;
use std::sync::Arc;

use portway_gateway::tunnel::{LocalAddress, Reverse, Socks};
use portway_protocol::id::ServiceName;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::args::{Connect, Format, Forward, Global};
use crate::exit::Failure;
use crate::keyring::Keyring;
use crate::opened::refusal;
use crate::signals::Signals;
use local::Local;
use tell::{Over, Printer};

/// News that may wait to be printed.
const NEWS: usize = 16;

/// A local end, and the service that it is for.
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
        runtime.block_on(stdio::run(&keyring, args.idle_timeout))
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
            let bound = Socks::bind(address, args.limits()).await;
            Some(bound.map_err(|error| cannot_listen(address, &error))?)
        }
        None => None,
    };
    let cluster = keyring.cluster().clone();
    let mut printer = Printer::new(format);
    let (news, mut told) = mpsc::channel(NEWS);
    let pool = Arc::new(keyring.pool(news));
    let cancel = CancellationToken::new();
    let mut listening = JoinSet::new();
    for (listener, service) in forwarded {
        let session = pool.current(&service).map_err(refusal(&service))?;
        printer.expect(service.clone(), listener.end());
        listening.spawn(listener.run(service, pool.clone(), session, cancel.clone()));
    }
    if let Some(socks) = socks {
        printer.proxy(&socks, &cluster)?;
        listening.spawn(socks.run(cluster, pool.clone(), cancel.clone()));
    }
    let outcome = loop {
        tokio::select! {
            Some(news) = told.recv() => match printer.tell(news)? {
                ControlFlow::Continue(()) => {}
                ControlFlow::Break(Over::Refused(service, error)) => {
                    break Err(keyring.failure(&service, &error).into());
                }
                ControlFlow::Break(Over::Wrong(service, reason)) => {
                    break Err(refusal(&service)(reason).into());
                }
            },
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
        printer.datagrams(pool.datagrams().tally())?;
    }
    outcome
}

/// The local ends; nothing is served yet.
async fn listeners(args: &Connect, keyring: &Keyring) -> anyhow::Result<Vec<Forwarded>> {
    let (mut ends, limits) = (Vec::new(), args.limits());
    for forward in &args.listen {
        let service = meant(forward, keyring)?;
        let listener = Local::bind(&forward.address, args.udp, limits).await?;
        ends.push((listener, service));
    }
    for forward in &args.reverse {
        let service = meant(forward, keyring)?;
        let reverse = Reverse::new(forward.address.clone(), service.clone(), limits)?;
        ends.push((Local::Reverse(reverse), service));
    }
    Ok(ends)
}

/// The service that a local end is for. Something opens it.
fn meant(forward: &Forward, keyring: &Keyring) -> anyhow::Result<ServiceName> {
    let service = match &forward.service {
        Some(service) => service.clone(),
        None => keyring.service()?,
    };
    keyring.target(&service)?;
    Ok(service)
}

fn cannot_listen(address: &LocalAddress, error: &io::Error) -> Failure {
    Failure::configuration(format!("cannot listen on {address}: {error}"))
}
