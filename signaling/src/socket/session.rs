//! What the messages of one socket mean: from challenge to authenticated gateway or client.
//!
//! Text and time come in; replies go to the socket's own outbox, consequences to the registry. No
//! IO, no clock, no rng of its own.
//!
//! ```text
//! Fresh ── authenticate ──► Gateway ── announce, heartbeat, answer, candidate, bye
//!                       └─► Client ─── offer, heartbeat, candidate, bye
//! ```

use std::time::{Duration, Instant};

use portway_protocol::id::{GrantId, NodeId, Nonce, ServiceName, SessionId};
use portway_protocol::key::PublicKey;
use portway_protocol::limits::{
    HEARTBEAT_INTERVAL, MAX_GRANTS, MAX_SERVICES, NODE_LEASE, SIGNAL_AUTH_TIMEOUT,
};
use portway_protocol::reason::Reason;
use portway_protocol::signal::{
    Announce, Authenticate, Authenticated, Call, Challenge, Empty, Envelope, Offer, RpcError,
};
use portway_protocol::token::machine::MachineClaims;
use portway_protocol::transcript::verify_challenge;

use crate::registry::Outbox;
use crate::relay::Lease;
use crate::state::{Inner, count};

/// Messages a second that a client may send for long.
const CLIENT_RATE: f64 = 20.0;
/// Messages that a client may send at once.
const CLIENT_BURST: f64 = 100.0;
/// Messages a second that a gateway may send for long: it speaks for all its visitors.
const GATEWAY_RATE: f64 = 1000.0;
/// Messages that a gateway may send at once.
const GATEWAY_BURST: f64 = 4000.0;

/// Prefix of the ids of our requests to gateways; the session follows.
const OFFER_ID: &str = "offer:";

/// One socket.
pub(crate) struct Session {
    outbox: Outbox,
    nonce: Nonce,
    role: Role,
    opened: Instant,
    last_message: Instant,
    budget: Budget,
}

enum Role {
    Fresh,
    Gateway {
        node: NodeId,
        key: PublicKey,
    },
    Client {
        lease: Lease,
        services: Vec<ServiceName>,
    },
}

/// Why a socket is closed by us.
pub(crate) type Closing = Reason;

impl Session {
    /// A new socket; `nonce` is fresh. Sends the challenge.
    pub(crate) fn new(outbox: Outbox, nonce: Nonce, version: &str, now: Instant) -> Self {
        let challenge = Challenge {
            nonce,
            version: version.to_owned(),
            heartbeat_ms: u64::try_from(HEARTBEAT_INTERVAL.as_millis()).unwrap_or(u64::MAX),
        };
        outbox.send(&Envelope::call(None, &Call::Challenge(challenge)));
        Self {
            outbox,
            nonce,
            role: Role::Fresh,
            opened: now,
            last_message: now,
            budget: Budget::new(now, CLIENT_RATE, CLIENT_BURST),
        }
    }

    /// When [`Session::on_deadline`] is due.
    pub(crate) fn deadline(&self) -> Instant {
        match self.role {
            Role::Fresh => self.opened + SIGNAL_AUTH_TIMEOUT,
            Role::Gateway { .. } | Role::Client { .. } => self.last_message + NODE_LEASE,
        }
    }

    /// The deadline has passed: the socket is to be closed.
    pub(crate) fn on_deadline(&self) -> Closing {
        match self.role {
            Role::Fresh => Reason::SignalingRefused,
            Role::Gateway { .. } | Role::Client { .. } => Reason::SessionTimeout,
        }
    }

    /// Takes one message.
    ///
    /// # Errors
    /// The socket is to be closed for this reason.
    pub(crate) fn on_text(
        &mut self,
        text: &str,
        state: &Inner,
        now: Instant,
        unix_now: u64,
    ) -> Result<(), Closing> {
        self.last_message = now;
        if !self.budget.take(now) {
            return Err(Reason::RateLimited);
        }
        let envelope = match Envelope::parse(text) {
            Ok(envelope) => envelope,
            Err(error) => {
                self.outbox.send(&Envelope::error(None, error.to_rpc()));
                return Err(Reason::ProtocolViolation);
            }
        };
        let Some(method) = envelope.method else {
            self.on_response(envelope, state);
            return Ok(());
        };
        match Call::from_parts(&method, envelope.params.as_deref()) {
            Ok(call) => self.on_call(envelope.id, call, state, now, unix_now),
            Err(error) => {
                self.outbox
                    .send(&Envelope::error(envelope.id, error.to_rpc()));
                Ok(())
            }
        }
    }

    /// The socket is gone.
    pub(crate) fn on_closed(&self, state: &Inner) {
        state.registry.remove(self.outbox.id);
        if let Role::Gateway { node, .. } = &self.role {
            tracing::info!(%node, "node offline");
        }
    }

    fn on_call(
        &mut self,
        id: Option<String>,
        call: Call,
        state: &Inner,
        now: Instant,
        unix_now: u64,
    ) -> Result<(), Closing> {
        match (&self.role, call) {
            (Role::Fresh, Call::Authenticate(params)) => {
                return self.authenticate(id, params, state, now, unix_now);
            }
            (Role::Gateway { node, key }, Call::Announce(announce)) => {
                return self.announce(id, (node, key), announce, state);
            }
            (Role::Gateway { node, .. }, Call::Heartbeat(_)) => {
                state.registry.heartbeat(node, self.outbox.id);
                self.reply(id, &Empty {});
            }
            (Role::Client { .. }, Call::Heartbeat(_)) => self.reply(id, &Empty {}),
            (Role::Client { lease, services }, Call::Offer(offer)) => {
                let outcome = offered(&self.outbox, id.as_deref(), lease, services, offer, state);
                if let Err(reason) = outcome {
                    self.refuse(id, reason, state);
                }
            }
            (Role::Gateway { .. }, Call::Answer(answer)) => {
                let session = answer.session;
                self.pass(&session, Call::Answer(answer), state);
            }
            (Role::Gateway { .. } | Role::Client { .. }, Call::Candidate(candidate)) => {
                let session = candidate.session;
                self.pass(&session, Call::Candidate(candidate), state);
            }
            (Role::Gateway { .. } | Role::Client { .. }, Call::Bye(bye)) => {
                let session = bye.session;
                self.pass(&session, Call::Bye(bye), state);
                if state.registry.other_end(&session, self.outbox.id).is_some() {
                    state.registry.forget(&session);
                }
            }
            _ => {
                self.refuse(id, Reason::ProtocolViolation, state);
                if matches!(self.role, Role::Fresh) {
                    return Err(Reason::SignalingRefused);
                }
            }
        }
        Ok(())
    }

    /// A gateway's answer to our request.
    fn on_response(&self, envelope: Envelope, state: &Inner) {
        let Role::Gateway { node, .. } = &self.role else {
            return;
        };
        let session = envelope
            .id
            .as_deref()
            .and_then(|id| id.strip_prefix(OFFER_ID))
            .and_then(|session| session.parse::<SessionId>().ok());
        if let Some(session) = session {
            let outcome = match envelope.error {
                None => Ok(()),
                Some(error) => Err(error),
            };
            state.registry.answered(node, session, outcome);
        }
    }

    fn authenticate(
        &mut self,
        id: Option<String>,
        params: Authenticate,
        state: &Inner,
        now: Instant,
        unix_now: u64,
    ) -> Result<(), Closing> {
        let checked = match params {
            Authenticate::Gateway { token, proof } => {
                let cluster = &state.config.cluster;
                MachineClaims::verify(&token, cluster, &state.keys(), unix_now)
                    .map_err(|error| {
                        tracing::info!(%error, "a machine token was refused");
                        error.reason()
                    })
                    .and_then(|claims| {
                        verify_challenge(&claims.cnf.ed25519, &self.nonce, cluster, &proof)
                            .map_err(|_| Reason::ProofInvalid)?;
                        let key = claims.cnf.ed25519;
                        if state.revocations().name(&key) {
                            return Err(Reason::NodeRevoked);
                        }
                        Ok(Role::Gateway {
                            node: claims.node_id,
                            key,
                        })
                    })
            }
            Authenticate::Client {
                cluster,
                grant,
                session,
                proof,
            } => {
                if cluster == state.config.cluster {
                    self.check_grant(grant, session, &proof, state, unix_now)
                } else {
                    Err(Reason::LinkInvalid)
                }
            }
        };
        let role = match checked {
            Ok(role) => role,
            Err(reason) => {
                self.refuse(id, reason, state);
                return Err(reason);
            }
        };
        let lease_ms = match &role {
            Role::Gateway { node, .. } => {
                tracing::info!(%node, "gateway authenticated");
                self.budget = Budget::new(now, GATEWAY_RATE, GATEWAY_BURST);
                Some(u64::try_from(NODE_LEASE.as_millis()).unwrap_or(u64::MAX))
            }
            Role::Client { .. } | Role::Fresh => {
                state.registry.add_client(&self.outbox);
                None
            }
        };
        let ice_servers = match &role {
            Role::Client { lease, .. } => state.ice_servers(lease),
            Role::Gateway { .. } | Role::Fresh => state.config.ice_servers.clone(),
        };
        self.role = role;
        self.reply(
            id,
            &Authenticated {
                cluster: state.config.cluster.clone(),
                lease_ms,
                ice_servers,
                revocations: state.revocations().list().cloned(),
            },
        );
        Ok(())
    }

    fn check_grant(
        &self,
        grant: GrantId,
        session: SessionId,
        proof: &portway_protocol::key::Signature,
        state: &Inner,
        unix_now: u64,
    ) -> Result<Role, Reason> {
        let announced = state.registry.grant(&grant, unix_now)?;
        verify_challenge(&announced.key, &self.nonce, &state.config.cluster, proof)
            .map_err(|_| Reason::ProofInvalid)?;
        Ok(Role::Client {
            lease: Lease {
                grant,
                session,
                expires: announced.expires,
            },
            services: announced.services,
        })
    }

    fn announce(
        &self,
        id: Option<String>,
        (node, key): (&NodeId, &PublicKey),
        mut announce: Announce,
        state: &Inner,
    ) -> Result<(), Closing> {
        if announce.services.len() > MAX_SERVICES || announce.grants.len() > MAX_GRANTS {
            self.refuse(id, Reason::RateLimited, state);
            return Ok(());
        }
        let revocations = announce.revocations.take();
        if !state
            .registry
            .announce((node, *key), &self.outbox, announce)
        {
            self.refuse(id, Reason::Replaced, state);
            return Err(Reason::Replaced);
        }
        self.reply(id, &Empty {});
        if let Some(list) = revocations {
            state.learn(&list);
        }
        Ok(())
    }

    fn pass(&self, session: &SessionId, call: Call, state: &Inner) {
        match state.registry.other_end(session, self.outbox.id) {
            Some(other) => other.send(&Envelope::call(None, &call)),
            None => tracing::debug!(%session, "a message for an unknown session was dropped"),
        }
    }

    fn reply<T: serde::Serialize>(&self, id: Option<String>, result: &T) {
        if let Some(id) = id {
            self.outbox.send(&Envelope::result(id, result));
        }
    }

    fn refuse(&self, id: Option<String>, reason: Reason, state: &Inner) {
        count(&state.counters.refused);
        self.outbox
            .send(&Envelope::error(id, RpcError::refused(reason)));
    }
}

/// Passes an offer on to a node; the reply to the client follows the node's.
fn offered(
    client: &Outbox,
    id: Option<&str>,
    lease: &Lease,
    services: &[ServiceName],
    mut offer: Offer,
    state: &Inner,
) -> Result<(), Reason> {
    let request = id.ok_or(Reason::ProtocolViolation)?;
    if !services.contains(&offer.service) {
        return Err(Reason::PermissionDenied);
    }
    let gateway = state
        .registry
        .introduce((client.id, lease.grant), request.to_owned(), &offer)?;
    offer.grant = Some(lease.grant);
    offer.ice_servers = state.ice_servers_of_node(lease);
    let id = format!("{OFFER_ID}{}", offer.session);
    gateway.send(&Envelope::call(Some(id), &Call::Offer(offer)));
    Ok(())
}

/// A token bucket over messages.
struct Budget {
    tokens: f64,
    rate: f64,
    burst: f64,
    at: Instant,
}

impl Budget {
    const fn new(now: Instant, rate: f64, burst: f64) -> Self {
        Self {
            tokens: burst,
            rate,
            burst,
            at: now,
        }
    }

    fn take(&mut self, now: Instant) -> bool {
        let elapsed: Duration = now.saturating_duration_since(self.at);
        self.at = now;
        self.tokens = self
            .burst
            .min(self.tokens + elapsed.as_secs_f64() * self.rate);
        if self.tokens < 1.0 {
            return false;
        }
        self.tokens -= 1.0;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_allows_a_burst_and_then_a_rate() {
        let start = Instant::now();
        let mut budget = Budget::new(start, 10.0, 3.0);
        assert!((0..3).all(|_| budget.take(start)));
        assert!(!budget.take(start));
        assert!(budget.take(start + Duration::from_millis(110)));
        assert!(!budget.take(start + Duration::from_millis(120)));
    }
}
