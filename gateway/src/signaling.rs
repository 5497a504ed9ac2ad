//! The gateway's sockets to signaling, one to each service: authenticate, announce, answer offers, come
//! back.
//!
//! Live sessions do not depend on them: when a signaling service goes away they go on, and only
//! newcomers wait, who can come through another one.
//!
//! - `connection`: the socket itself. `paths`: what it is told of how sessions are reached. `peers`: the peer connections that offers have started. `order`:
//!   which of their candidates are told first. `seen`: which offers came before.

pub(crate) mod connection;
mod order;
mod paths;
mod peers;
mod seen;

use std::sync::PoisonError;
use std::time::Duration;

use futures_util::future::join_all;
use portway_protocol::backoff::Backoff;
use portway_protocol::limits::MAX_SIGNAL_MESSAGE;
use portway_protocol::reason::Reason;
use portway_protocol::revocation::{MAX_LIST, RevocationList};
use portway_protocol::signal::news::{Interest, Watch};
use portway_protocol::signal::{
    Announce, AnnouncedService, Authenticate, Authenticated, Call, Empty, Envelope, Heartbeat,
    NodeStatus, RpcError,
};
use portway_protocol::transcript::sign_challenge;
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::agent::Shared;
use crate::config::SignalingEndpoint;
use crate::random::random;
use connection::{CONNECT_TIMEOUT, Socket, SocketError};
use paths::Reported;
pub(crate) use peers::Via;
use peers::{Peers, Table};

/// First pause before another attempt.
const RETRY_BASE: Duration = Duration::from_millis(500);

/// Longest pause before another attempt at a service that is there.
const RETRY_CAP: Duration = Duration::from_secs(15);

/// The same where nobody is: there is nobody to spare, and newcomers wait when packets arrive again.
const UNREACHED_CAP: Duration = Duration::from_secs(1);

/// Longest time without asking for a sign of life: TCP itself takes a quarter of an hour to notice that
/// its path is gone, and after a long cut as long as that again to send what waits.
const ASK_INTERVAL: Duration = Duration::from_secs(5);

/// Time for the answer: a long queue on the way, or some lost packets, are no reason for another socket.
const ANSWER_PATIENCE: Duration = Duration::from_secs(3);

const _: () = assert!(ANSWER_PATIENCE.as_millis() < ASK_INTERVAL.as_millis());

/// Time for an answer while there is reason to doubt the socket's path.
pub(crate) const PROBE_PATIENCE: Duration = Duration::from_millis(1200);

/// Messages of peers that may wait for the socket.
pub(crate) const OUTGOING_QUEUE: usize = 256;

/// Prefix of the ids of our `announce`s, which their edition follows; ids of our other requests.
const ANNOUNCE_ID: &str = "announce:";
const HEARTBEAT_ID: &str = "heartbeat";
const WATCH_ID: &str = "watch";

/// Keeps a socket to each signaling service until cancelled.
pub(crate) async fn run(shared: &Shared) {
    let table = Table::default();
    let endpoints = shared.config.signaling.iter().enumerate();
    join_all(endpoints.map(|(at, endpoint)| keep(shared, endpoint, Via(at), table.clone()))).await;
}

/// Keeps a socket to one signaling service until cancelled.
async fn keep(shared: &Shared, endpoint: &SignalingEndpoint, via: Via, table: Table) {
    let (outgoing, mut from_peers) = mpsc::channel(OUTGOING_QUEUE);
    let peers = Peers::new(shared.context.clone(), via, table, outgoing.clone());
    let mut backoff = Backoff::new(RETRY_BASE, RETRY_CAP);
    let mut told = String::new();
    let mut reported = Reported::default();
    loop {
        let ours = (&peers, &outgoing, &mut reported);
        let served = connect_and_serve(shared, endpoint, ours, &mut from_peers, &mut backoff);
        let Err(error) = served.await;
        note(shared, via, Knowledge::Lost);
        shared.pairings.lost(via);
        let delay = backoff.next_delay(u32::from_ne_bytes(random()));
        let delay = match error {
            SocketError::Unreached(_) => delay.min(UNREACHED_CAP),
            // Whoever moves does so alone.
            SocketError::Moved => Duration::ZERO,
            SocketError::Connect(_)
            | SocketError::WebSocket(_)
            | SocketError::Timeout
            | SocketError::Closed
            | SocketError::Refused(_)
            | SocketError::Violation => delay,
        };
        let retry_in_ms = delay.as_millis();
        let (signaling, error) = (&endpoint.host, error.to_string());
        // Once, not at each of many attempts.
        if error == told {
            tracing::debug!(signaling, error, retry_in_ms, "no connection to signaling");
        } else {
            tracing::warn!(signaling, error, retry_in_ms, "no connection to signaling");
            told = error;
        }
        tokio::time::sleep(delay).await;
    }
}

/// What a signaling service knows of this node.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Knowledge {
    /// What it offers.
    Announced,
    /// Nothing.
    Lost,
}

fn note(shared: &Shared, Via(at): Via, knowledge: Knowledge) {
    let is_online = knowledge == Knowledge::Announced;
    shared.online.send_if_modified(|online| {
        let before = std::mem::replace(&mut online[at], is_online);
        before != is_online
    });
}

async fn connect_and_serve(
    shared: &Shared,
    endpoint: &SignalingEndpoint,
    (peers, outgoing, reported): (&Peers, &mpsc::Sender<Envelope>, &mut Reported),
    from_peers: &mut mpsc::Receiver<Envelope>,
    backoff: &mut Backoff,
) -> Result<std::convert::Infallible, SocketError> {
    let renewed = shared
        .tls
        .read()
        .unwrap_or_else(PoisonError::into_inner)
        .clone();
    let tls = endpoint.tls.clone().map(|own| renewed.unwrap_or(own));
    let mut socket = Socket::connect(endpoint, tls).await?;
    let asked = tokio::time::timeout(CONNECT_TIMEOUT, authenticate(shared, &mut socket))
        .await
        .map_err(|_| SocketError::Timeout)??;
    backoff.reset();
    tracing::info!(signaling = endpoint.host, "connected to signaling");
    let mut changed = shared.changed.subscribe();

    let mut heartbeats = tokio::time::interval(asked.min(ASK_INTERVAL));
    heartbeats.reset();
    let mut suspicion = shared.context.suspicion.subscribe();
    let mut probe: Option<Instant> = None;
    let mut followers = shared.news.followers();
    let mut online = shared.online.subscribe();
    let mut asked_for = Interest::Nothing;
    socket.send(&announcement(shared)).await?;
    loop {
        let wanted = if is_first(&online.borrow_and_update(), peers.via()) {
            followers.borrow_and_update().interest()
        } else {
            Interest::Nothing
        };
        if wanted != asked_for {
            asked_for = wanted;
            let watch = Call::Watch(Watch { interest: wanted });
            socket
                .send(&Envelope::call(Some(WATCH_ID.into()), &watch))
                .await?;
        }
        tokio::select! {
            envelope = socket.next() => {
                let envelope = envelope?;
                probe = None;
                if let Some(reply) = receive(shared, peers, outgoing, envelope)? {
                    socket.send(&reply).await?;
                }
            }
            Some(envelope) = from_peers.recv() => socket.send(&envelope).await?,
            Ok(()) = changed.changed() => socket.send(&announcement(shared)).await?,
            _tick = heartbeats.tick(), if probe.is_none() => {
                probe = Some(Instant::now() + ANSWER_PATIENCE);
                socket.send(&heartbeat_call()).await?;
                if let Some(paths) = reported.news(shared.context.table.paths()) {
                    socket.send(&Envelope::call(None, &Call::Paths(paths))).await?;
                }
            }
            // What is asked for may be something else now.
            Ok(()) = followers.changed() => {}
            Ok(()) = online.changed() => {}
            Ok(()) = suspicion.changed() => {
                let soon = Instant::now() + PROBE_PATIENCE;
                if probe.is_none() {
                    socket.send(&heartbeat_call()).await?;
                }
                probe = Some(probe.map_or(soon, |due| due.min(soon)));
            }
            () = until(probe) => return Err(SocketError::Timeout),
        }
    }
}

/// Whether it is the first service that knows this node: one is asked for news, not all.
fn is_first(online: &[bool], Via(at): Via) -> bool {
    online.iter().position(|is_online| *is_online) == Some(at)
}

fn heartbeat_call() -> Envelope {
    let call = Call::Heartbeat(Heartbeat {});
    Envelope::call(Some(HEARTBEAT_ID.into()), &call)
}

/// For ever if there is no deadline.
pub(crate) async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

/// From the challenge to the server's yes; returns the interval of heartbeats.
async fn authenticate(shared: &Shared, socket: &mut Socket) -> Result<Duration, SocketError> {
    let challenge = socket.challenge().await?;
    let config = &shared.config;
    let certificate = shared.context.identity.certificate();
    let call = Call::Authenticate(Authenticate::Gateway {
        token: certificate.token.clone(),
        proof: sign_challenge(&config.node_key, &challenge.nonce, &config.cluster),
    });
    let authenticated: Authenticated = socket.authenticate(&call).await?;
    if let Some(list) = authenticated.revocations {
        learn(shared, &list);
    }
    Ok(Duration::from_millis(
        challenge.heartbeat_ms.clamp(1_000, 60_000),
    ))
}

/// Handles one message; returns what to answer. `outgoing`: where more goes later.
fn receive(
    shared: &Shared,
    peers: &Peers,
    outgoing: &mpsc::Sender<Envelope>,
    envelope: Envelope,
) -> Result<Option<Envelope>, SocketError> {
    let Some(method) = envelope.method else {
        if let Some(error) = envelope.error {
            let reason = error.reason();
            tracing::warn!(id = ?envelope.id, %reason, "signaling refused a request");
            if reason == Reason::Replaced {
                return Err(SocketError::Refused(reason));
            }
        } else if let Some(edition) = envelope.id.as_deref().and_then(edition_of) {
            note(shared, peers.via(), Knowledge::Announced);
            shared.pairings.announced(edition);
        }
        return Ok(None);
    };
    let call = match Call::from_parts(&method, envelope.params.as_deref()) {
        Ok(call) => call,
        Err(error) => return Ok(Some(Envelope::error(envelope.id, error.to_rpc()))),
    };
    let reply = match call {
        Call::Offer(offer) => {
            let outcome = peers.offer(offer);
            envelope.id.map(|id| match outcome {
                Ok(()) => Envelope::result(id, &Empty {}),
                Err(reason) => Envelope::error(Some(id), RpcError::refused(reason)),
            })
        }
        Call::Candidate(candidate) => {
            peers.candidate(candidate);
            None
        }
        Call::Bye(bye) => {
            peers.bye(&bye);
            None
        }
        Call::Revocations(list) => {
            learn(shared, &list);
            None
        }
        Call::News(told) => {
            shared.news.hear(told);
            None
        }
        Call::Pair(pair) => {
            let identity = &shared.context.identity;
            let way = (peers.via(), outgoing);
            let outcome = shared.pairings.pair(identity, way, pair);
            envelope.id.map(|id| match outcome {
                Ok(reply) => Envelope::result(id, &reply),
                Err(reason) => Envelope::error(Some(id), RpcError::refused(reason)),
            })
        }
        Call::Reveal(reveal) => {
            let audit = &shared.context.audit;
            shared.pairings.reveal(peers.via(), &reveal, audit);
            None
        }
        Call::Cancel(cancel) => {
            shared.pairings.cancel(peers.via(), &cancel);
            None
        }
        Call::Challenge(_)
        | Call::Authenticate(_)
        | Call::Announce(_)
        | Call::Heartbeat(_)
        | Call::Answer(_)
        | Call::Paired(_)
        | Call::Paths(_)
        | Call::Watch(_)
        | Call::Presence(_) => None,
    };
    Ok(reply)
}

/// Takes a list of revoked nodes, and passes it on to the other signaling services if it is news.
fn learn(shared: &Shared, list: &RevocationList) {
    if !shared.context.revocations.hear(list) {
        return;
    }
    if list.names(&shared.config.node_key.public()) {
        tracing::error!(
            "this machine was taken out of its cluster: nobody believes it any more; join again with a new join token"
        );
    }
    shared.changed.send_replace(());
}

/// Whether all services and grants fit into the one message that tells of them, whatever list of revoked
/// nodes comes.
pub(crate) fn can_announce(shared: &Shared) -> bool {
    announcement(shared).to_text().len() + MAX_LIST <= MAX_SIGNAL_MESSAGE
}

/// Of an announcement, by the id of its request.
fn edition_of(id: &str) -> Option<u64> {
    id.strip_prefix(ANNOUNCE_ID)?.parse().ok()
}

fn announcement(shared: &Shared) -> Envelope {
    // What changes after this is of a later edition.
    let edition = shared.pairings.edition();
    let services = shared.context.services.all();
    let announce = Announce {
        epoch: shared.epoch,
        status: if shared.context.draining.is_cancelled() {
            NodeStatus::Draining
        } else {
            NodeStatus::Online
        },
        version: shared.config.version.clone(),
        commit: shared.config.commit.clone(),
        services: services
            .iter()
            .map(|service| AnnouncedService {
                name: service.spec.name.clone(),
                health: service.health(),
            })
            .collect(),
        grants: shared.context.grants.announced(),
        revocations: shared.context.revocations.get().list().cloned(),
        pairing: shared.pairings.services(),
    };
    let id = format!("{ANNOUNCE_ID}{edition}");
    Envelope::call(Some(id), &Call::Announce(announce))
}
