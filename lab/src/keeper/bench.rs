//! How fast one node reaches another.
//!
//! A session is opened anew for each repeat; the download goes through one more. Beside it stands the
//! same download over plain TCP between the same two hosts, if a router does not forbid it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use anyhow::{Context as _, bail};
use serde::{Deserialize, Serialize};

use super::client::{self, Opening, Pinged};
use super::transfer::{Transfer, download, serve};
use super::{Keeper, lock};
use crate::network::namespace::within;
use crate::spec::{Name, Role};
use crate::statistics::median;

/// Sessions that are opened for a median.
const REPEATS: usize = 5;

/// Time for plain TCP to connect: after that there is no direct path.
const CONNECT: Duration = Duration::from_secs(3);

/// Most bytes that are asked for: what the demo service sends at most.
const MAX_BYTES: u64 = 1024 * 1024 * 1024;

/// Figures of a pair. Times are medians over the repeats, milliseconds.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct PairFigures {
    pub(crate) from: Name,
    pub(crate) to: Name,
    /// How many sessions were opened; figures of fewer than asked for come with an error.
    pub(crate) opened: usize,
    /// `direct` or `relayed`; both if sessions differed.
    pub(crate) paths: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) open_ms: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) rtt_ms: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) request_ms: Option<f64>,
    /// Through Portway.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) download: Option<Transfer>,
    /// The same over plain TCP; none: there is no direct path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) direct_tcp: Option<Transfer>,
    /// What could not be measured, and why.
    pub(crate) errors: Vec<String>,
}

/// Measures a pair, one thing after the other.
pub(super) fn measure(
    keeper: &Keeper,
    from: &Name,
    to: &Name,
    bytes: u64,
) -> anyhow::Result<PairFigures> {
    for name in [from, to] {
        if !keeper
            .plan
            .spec
            .running(Role::Gateway)
            .any(|node| node == name)
        {
            bail!("`{name}` is no node of this lab");
        }
    }
    if bytes > MAX_BYTES {
        bail!("{bytes} bytes: at most {MAX_BYTES} can be downloaded");
    }
    let opening = Opening {
        from,
        to,
        signaling: signaling(keeper)?,
    };
    let mut errors = Vec::new();
    let mut pinged: Vec<Pinged> = Vec::new();
    for _ in 0..REPEATS {
        match client::ping(keeper, opening) {
            Ok(one) => pinged.push(one),
            // The next one would take as long to fail.
            Err(error) => {
                errors.push(format!("ping: {error:#}"));
                break;
            }
        }
    }
    let mut paths: Vec<String> = pinged.iter().map(|one| one.path.clone()).collect();
    let mut measured = |what: &str, outcome: anyhow::Result<Option<Transfer>>| {
        outcome.unwrap_or_else(|error| {
            errors.push(format!("{what}: {error:#}").trim_end().to_owned());
            None
        })
    };
    let through = if pinged.is_empty() {
        // Nothing opens: one reason is enough.
        Ok(None)
    } else {
        through(keeper, opening, bytes).map(|(path, transfer)| {
            paths.push(path);
            Some(transfer)
        })
    };
    let download = measured("connect", through);
    let direct_tcp = measured("direct TCP", reference(keeper, from, to, bytes));
    paths.sort();
    paths.dedup();
    let times = |time: fn(&Pinged) -> Option<f64>| {
        let times: Vec<f64> = pinged.iter().filter_map(time).collect();
        median(&times)
    };
    Ok(PairFigures {
        from: from.clone(),
        to: to.clone(),
        opened: pinged.len(),
        open_ms: times(|one| Some(one.open_ms)),
        rtt_ms: times(|one| one.rtt_ms.as_ref().map(|rtt| rtt.avg)),
        request_ms: times(|one| one.request.as_ref().map(|request| request.ms)),
        paths,
        download,
        direct_tcp,
        errors,
    })
}

/// One that runs.
fn signaling(keeper: &Keeper) -> anyhow::Result<&Name> {
    let running = keeper.running();
    let runs = |name: &Name| {
        let part = running.get(name).and_then(|host| host.part.as_ref());
        part.is_some_and(|part| part.ended().is_none())
    };
    let mut services = keeper.plan.spec.running(Role::Signaling);
    services
        .find(|name| runs(name))
        .context("no signaling service runs")
}

/// A download through Portway, and its path.
fn through(
    keeper: &Keeper,
    opening: Opening<'_>,
    bytes: u64,
) -> anyhow::Result<(String, Transfer)> {
    let connected = client::connect(keeper, opening)?;
    let place = keeper.place(opening.from)?;
    let stream = within(place.as_ref(), || TcpStream::connect(connected.listen))??;
    let transfer = download(stream, bytes)?;
    Ok((connected.path.clone(), transfer))
}

/// The same download over plain TCP; none if there is no direct path.
fn reference(
    keeper: &Keeper,
    from: &Name,
    to: &Name,
    bytes: u64,
) -> anyhow::Result<Option<Transfer>> {
    let ip = address(keeper, to)?;
    let any = match ip {
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    };
    let (near, far) = (keeper.place(from)?, keeper.place(to)?);
    // A socket stays in the namespace that it was made in, whoever uses it.
    let listener = within(far.as_ref(), || TcpListener::bind((any, 0)))??;
    let target = SocketAddr::new(ip, listener.local_addr()?.port());
    let connected = within(near.as_ref(), || {
        TcpStream::connect_timeout(&target, CONNECT)
    })?;
    let Ok(stream) = connected else {
        return Ok(None);
    };
    std::thread::scope(|scope| {
        let server = scope.spawn(|| serve(&listener, CONNECT, bytes));
        let transfer = download(stream, bytes);
        // Of a download that was broken off the server has an error, too.
        drop(server.join());
        Ok(Some(transfer?))
    })
}

fn address(keeper: &Keeper, host: &Name) -> anyhow::Result<IpAddr> {
    let Some(network) = &keeper.network else {
        return Ok(Ipv4Addr::LOCALHOST.into());
    };
    let addresses = lock(network).addresses(host)?;
    let first = addresses.into_iter().next();
    first.with_context(|| format!("{host} has no address"))
}
