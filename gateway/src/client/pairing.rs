//! The guest's side of a pairing, over one socket to signaling.

use std::sync::Arc;

use portway_protocol::id::{NodeId, Nonce, PairingId};
use portway_protocol::limits::PAIRING_TIMEOUT;
use portway_protocol::pairing::code::Digits;
use portway_protocol::pairing::guest::{self, AwaitingVerdict, AwaitingWord, Fresh, Wanted};
use portway_protocol::reason::Reason;
use portway_protocol::secret::Secret;
use portway_protocol::signal::pairing::{Cancel, PairReply};
use portway_protocol::signal::{
    Authenticate, Authenticated, Call, Envelope, Heartbeat, decode_result,
};
use tokio::time::{Instant, Interval};

use super::ClientError;
use super::address::Site;
use super::connect::{connect_to, heartbeat};
use crate::random::random;
use crate::session::unix_now;
use crate::signaling::connection::{CONNECT_TIMEOUT, Socket, SocketError};

/// Id of our one request but for heartbeats; theirs.
const PAIR_ID: &str = "pair";
const HEARTBEAT_ID: &str = "heartbeat";

/// A pairing whose digits are there. The node is told if this is dropped: its socket closes.
pub struct Pairing {
    line: Line,
    state: AwaitingVerdict,
}

/// The socket, kept alive.
struct Line {
    pairing: PairingId,
    socket: Socket,
    heartbeats: Interval,
    deadline: Instant,
}

/// Begins to pair with a service, if somebody waits there. `tls`: whom to believe to be signaling, where the
/// site says TLS.
///
/// # Errors
/// See [`ClientError`]; [`Reason::PairingClosed`] if nobody waits.
pub async fn begin(
    site: &Site,
    node: Option<NodeId>,
    tls: Option<&Arc<rustls::ClientConfig>>,
) -> Result<Pairing, ClientError> {
    let wanted = Wanted {
        cluster: site.cluster.clone(),
        service: site.service.clone(),
        node,
    };
    let fresh = Fresh {
        pairing: PairingId::from_bytes(random()),
        secret: Secret::new(random()),
        nonce: Nonce::from_bytes(random()),
    };
    let pairing = fresh.pairing;
    let (pair, state) = guest::start(wanted, fresh);
    let entering = Line::enter(site, pairing, tls);
    let mut line = tokio::time::timeout(CONNECT_TIMEOUT, entering)
        .await
        .map_err(|_| SocketError::Timeout)??;
    let asked = Envelope::call(Some(PAIR_ID.into()), &Call::Pair(pair));
    line.socket.send(&asked).await?;
    let reply = line.reply().await?;
    let (reveal, state) = state.receive(&reply, unix_now())?;
    let reveal = Envelope::call(None, &Call::Reveal(reveal));
    line.socket.send(&reveal).await?;
    Ok(Pairing { line, state })
}

impl Pairing {
    /// To be read to the owner.
    #[must_use]
    pub const fn digits(&self) -> Digits {
        self.state.digits()
    }

    /// Waits until the node says that its owner has typed the same.
    ///
    /// # Errors
    /// See [`ClientError`]; [`Reason::PairingMismatch`] if the owner has typed others.
    pub async fn verdict(mut self) -> Result<AwaitingWord, ClientError> {
        loop {
            let envelope = self.line.next().await?;
            let method = envelope.method.as_deref().unwrap_or_default();
            match Call::from_parts(method, envelope.params.as_deref()) {
                Ok(Call::Paired(paired)) if paired.pairing == self.line.pairing => {
                    return Ok(self.state.paired());
                }
                Ok(Call::Cancel(Cancel { pairing, reason })) if pairing == self.line.pairing => {
                    return Err(ClientError::Refused(reason));
                }
                Ok(_) | Err(_) => tracing::debug!(method, "a message of no use to a guest"),
            }
        }
    }
}

impl Line {
    async fn enter(
        site: &Site,
        pairing: PairingId,
        tls: Option<&Arc<rustls::ClientConfig>>,
    ) -> Result<Self, SocketError> {
        let mut socket = connect_to(site, tls).await?;
        let challenge = socket.challenge().await?;
        let cluster = site.cluster.clone();
        let call = Call::Authenticate(Authenticate::Guest { cluster });
        let _authenticated: Authenticated = socket.authenticate(&call).await?;
        let mut heartbeats = tokio::time::interval(heartbeat(challenge.heartbeat_ms));
        heartbeats.reset();
        Ok(Self {
            pairing,
            socket,
            heartbeats,
            deadline: Instant::now() + PAIRING_TIMEOUT,
        })
    }

    /// The node's answer.
    async fn reply(&mut self) -> Result<PairReply, ClientError> {
        let envelope = loop {
            let envelope = self.next().await?;
            if envelope.id.as_deref() == Some(PAIR_ID) {
                break envelope;
            }
        };
        if let Some(error) = envelope.error {
            return Err(ClientError::Refused(error.reason()));
        }
        let result = envelope.result.ok_or(SocketError::Violation)?;
        Ok(decode_result(&result).map_err(|_| SocketError::Violation)?)
    }

    /// The next message that is no answer to a heartbeat.
    async fn next(&mut self) -> Result<Envelope, ClientError> {
        loop {
            tokio::select! {
                envelope = self.socket.next() => {
                    let envelope = envelope?;
                    if envelope.id.as_deref() != Some(HEARTBEAT_ID) {
                        return Ok(envelope);
                    }
                }
                _tick = self.heartbeats.tick() => {
                    let call = Call::Heartbeat(Heartbeat {});
                    self.socket.send(&Envelope::call(Some(HEARTBEAT_ID.into()), &call)).await?;
                }
                () = tokio::time::sleep_until(self.deadline) => {
                    return Err(ClientError::Refused(Reason::PairingExpired));
                }
            }
        }
    }
}
