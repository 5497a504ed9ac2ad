//! The keeper's socket: a thread for each question, a bounded number of them.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context as _, bail};
use serde::Serialize;

use super::{Keeper, bench, health, lock};
use crate::control::{Answer, Door, Request};
use crate::network::fault::Cut;
use crate::network::{Network, Rebinding};

/// Questions at a time.
const MAX_QUESTIONS: usize = 32;

/// Longest question.
const MAX_LINE: u64 = 64 * 1024;

/// Listens from now on, until the process ends.
pub(super) fn serve(keeper: &Arc<Keeper>) -> anyhow::Result<()> {
    let socket = keeper.dir.socket();
    if socket.exists() {
        fs::remove_file(&socket)?;
    }
    let listener = UnixListener::bind(&socket)
        .with_context(|| format!("cannot listen at {}", socket.display()))?;
    fs::set_permissions(&socket, fs::Permissions::from_mode(0o600))?;
    let keeper = keeper.clone();
    let under_way = Arc::new(AtomicUsize::new(0));
    std::thread::Builder::new()
        .name("control".to_owned())
        .spawn(move || {
            for stream in listener.incoming().flatten() {
                if under_way.fetch_add(1, Ordering::Relaxed) >= MAX_QUESTIONS {
                    under_way.fetch_sub(1, Ordering::Relaxed);
                    continue;
                }
                let (keeper, counted) = (keeper.clone(), under_way.clone());
                let thread = std::thread::Builder::new().name("question".to_owned());
                let started = thread.spawn(move || {
                    if let Err(error) = converse(&keeper, stream) {
                        eprintln!("a question was not answered: {error:#}");
                    }
                    counted.fetch_sub(1, Ordering::Relaxed);
                });
                if started.is_err() {
                    under_way.fetch_sub(1, Ordering::Relaxed);
                }
            }
        })?;
    Ok(())
}

fn converse(keeper: &Keeper, mut stream: UnixStream) -> anyhow::Result<()> {
    let mut line = String::new();
    BufReader::new((&stream).take(MAX_LINE)).read_line(&mut line)?;
    let request: Request = serde_json::from_str(&line)?;
    let ends = matches!(request, Request::Stop);
    eprintln!("asked: {}", line.trim_end());
    let answer = match answer(keeper, request) {
        Ok(value) => Answer::Ok(value),
        Err(error) => Answer::Error(format!("{error:#}")),
    };
    let mut line = serde_json::to_string(&answer)?;
    line.push('\n');
    stream.write_all(line.as_bytes())?;
    if ends {
        keeper.stop.want();
    }
    Ok(())
}

fn answer(keeper: &Keeper, request: Request) -> anyhow::Result<serde_json::Value> {
    match request {
        Request::Status => json(keeper.status()?),
        Request::Health => json(health::check(keeper)?),
        Request::Measure { from, to, bytes } => json(bench::measure(keeper, &from, &to, bytes)?),
        Request::Stop => json(()),
        Request::Restart { node, portway } => json(keeper.restart(node.as_ref(), &portway)?),
        Request::Door { host } => {
            let descriptor = match &keeper.network {
                Some(network) => Some(lock(network).namespace(&host)?.descriptor()),
                None => None,
            };
            json(Door { descriptor })
        }
        Request::Cut {
            from,
            to,
            direction,
        } => with_network(keeper, |network| {
            network.cut(Cut {
                from,
                to,
                direction,
            })
        }),
        Request::Heal { one, other } => {
            with_network(keeper, |network| network.heal(one.as_ref(), other.as_ref()))
        }
        Request::Rebind { router, address } => with_network(keeper, |network| {
            let kind = if address {
                Rebinding::PortsAndAddress
            } else {
                Rebinding::Ports
            };
            network.rebind(&router, kind)
        }),
        Request::Roam { host, lan } => with_network(keeper, |network| {
            network.roam(&host, lan.as_ref())?;
            network.addresses(&host)
        }),
        Request::Slow { name, change } => with_network(keeper, |network| {
            let impairment = network.impairment(&name)?.changed(&change);
            network.impair(&name, impairment.clone())?;
            Ok(impairment)
        }),
        Request::Signal { host, signal } => json(keeper.signal(&host, signal)?),
        Request::Clock { host, offset } => json(keeper.clock(&host, offset)?),
    }
}

fn with_network<T: Serialize>(
    keeper: &Keeper,
    action: impl FnOnce(&mut Network) -> Result<T, crate::network::NetworkError>,
) -> anyhow::Result<serde_json::Value> {
    let Some(network) = &keeper.network else {
        bail!(
            "this lab runs on plain loopback, where there is no network to change: \
             namespaces need root, or user namespaces (see `portway-lab preflight`)"
        );
    };
    json(action(&mut lock(network))?)
}

fn json(value: impl Serialize) -> anyhow::Result<serde_json::Value> {
    Ok(serde_json::to_value(value)?)
}
