//! What the messages of one socket mean: from challenge to authenticated gateway or client.
//!
//! Text and time come in; replies go to the socket's own outbox, consequences to the registry. No
//! IO, no clock, no rng of its own.
//!
//! ```text
//! Fresh ── authenticate ──► Gateway ── announce, heartbeat, answer, candidate, bye, paired, cancel
//!                       ├─► Client ─── offer, heartbeat, candidate, bye
//!                       └─► Guest ──── pair, reveal, heartbeat, cancel
//! ```

use std::net::IpAddr;
use std::time::Instant;

use portway_protocol::budget::Budget;
use portway_protocol::id::{GrantId, NodeId, Nonce, ServiceName, SessionId};
use portway_protocol::key::PublicKey;
use portway_protocol::limits::{
    HEARTBEAT_INTERVAL, MAX_GRANTS, MAX_SERVICES, NODE_LEASE, PAIRING_TIMEOUT, SIGNAL_AUTH_TIMEOUT,
};
use portway_protocol::reason::Reason;
use portway_protocol::signal::news::MAX_PATHS;
use portway_protocol::signal::pairing::Pair;
use portway_protocol::signal::{
    Announce, Authenticate, Authenticated, Call, Challenge, Empty, Envelope, Offer, RpcError,
};
use portway_protocol::token::machine::MachineClaims;
use portway_protocol::transcript::verify_challenge;

use crate::pairings::Seat;
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
    /// Where it comes from, if that is known.
    address: Option<IpAddr>,
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
    Guest {
        _seat: Seat,
        attempt: Attempt,
    },
}

/// The one that a guest has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Attempt {
    Left,
    Made,
}

/// Why a socket is closed by us.
pub(crate) type Closing = Reason;

impl Session {
    /// A new socket, and where it comes from; `nonce` is fresh. Sends the challenge.
    pub(crate) fn new(
        (outbox, address): (Outbox, Option<IpAddr>),
        nonce: Nonce,
        version: &str,
        now: Instant,
    ) -> Self {
        let challenge = Challenge {
            nonce,
            version: version.to_owned(),
            heartbeat_ms: u64::try_from(HEARTBEAT_INTERVAL.as_millis()).unwrap_or(u64::MAX),
        };
        outbox.send(&Envelope::call(None, &Call::Challenge(challenge)));
        Self {
            outbox,
            address,
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
            Role::Guest { .. } => {
                let silent = self.last_message + NODE_LEASE;
                silent.min(self.opened + PAIRING_TIMEOUT)
            }
        }
    }

    /// The deadline has passed: the socket is to be closed.
    pub(crate) fn on_deadline(&self) -> Closing {
        match self.role {
            Role::Fresh => Reason::SignalingRefused,
            Role::Gateway { .. } | Role::Client { .. } => Reason::SessionTimeout,
            Role::Guest { .. } => Reason::PairingExpired,
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
        state.pairings.remove(self.outbox.id);
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
        match (&mut self.role, call) {
            (Role::Fresh, Call::Authenticate(params)) => {
                return self.authenticate(id, params, state, now, unix_now);
            }
            (Role::Gateway { node, key }, Call::Announce(announce)) => {
                let (node, key) = (node.clone(), *key);
                return self.announce(id, (&node, key), announce, state);
            }
            (Role::Gateway { node, .. }, Call::Heartbeat(_)) => {
                state.registry.heartbeat(node, self.outbox.id);
                self.reply(id, &Empty {});
            }
            (Role::Gateway { node, .. }, Call::Paths(paths)) => {
                if paths.paths.len() <= MAX_PATHS {
                    state.registry.paths(node, paths);
                } else {
                    self.refuse(id, Reason::RateLimited, state);
                }
            }
            (Role::Gateway { .. }, Call::Watch(watch)) => {
                state.registry.news().watch(&self.outbox, watch.interest);
                self.reply(id, &Empty {});
            }
            (Role::Client { .. } | Role::Guest { .. }, Call::Heartbeat(_)) => {
                self.reply(id, &Empty {});
            }
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
            (Role::Guest { attempt, .. }, Call::Pair(pair)) => {
                let before = std::mem::replace(attempt, Attempt::Made);
                if let Err(reason) = self.pair(id.as_deref(), before, pair, state) {
                    self.refuse(id, reason, state);
                }
            }
            (Role::Guest { .. }, Call::Reveal(reveal)) => {
                let pairing = reveal.pairing;
                let call = Call::Reveal(reveal);
                state.pairings.pass(self.outbox.id, &pairing, &call);
            }
            (Role::Gateway { .. }, Call::Paired(paired)) => {
                let pairing = paired.pairing;
                let call = Call::Paired(paired);
                state.pairings.end(self.outbox.id, &pairing, &call);
            }
            (Role::Gateway { .. } | Role::Guest { .. }, Call::Cancel(cancel)) => {
                let pairing = cancel.pairing;
                let call = Call::Cancel(cancel);
                state.pairings.end(self.outbox.id, &pairing, &call);
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
        let Some(id) = envelope.id else { return };
        let session = id
            .strip_prefix(OFFER_ID)
            .and_then(|session| session.parse::<SessionId>().ok());
        if let Some(session) = session {
            let outcome = match envelope.error {
                None => Ok(()),
                Some(error) => Err(error),
            };
            state.registry.answered(node, session, outcome);
        } else if let Some(result) = envelope.result {
            state.pairings.answered(self.outbox.id, &id, Ok(result));
        } else if let Some(error) = envelope.error {
            state.pairings.answered(self.outbox.id, &id, Err(error));
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
            Authenticate::Guest { cluster } => {
                if cluster == state.config.cluster {
                    let seat = state.pairings.admit(self.address, now);
                    seat.map(|seat| Role::Guest {
                        _seat: seat,
                        attempt: Attempt::Left,
                    })
                } else {
                    Err(Reason::ServiceUnknown)
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
            Role::Client { .. } => {
                state.registry.add_client(&self.outbox);
                None
            }
            Role::Guest { .. } | Role::Fresh => None,
        };
        let ice_servers = match &role {
            Role::Client { lease, .. } => state.ice_servers(lease),
            Role::Gateway { .. } => state.config.ice_servers.clone(),
            Role::Guest { .. } | Role::Fresh => Vec::new(),
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

    /// A guest has one attempt on a socket.
    fn pair(
        &self,
        id: Option<&str>,
        attempt: Attempt,
        mut pair: Pair,
        state: &Inner,
    ) -> Result<(), Reason> {
        let request = id.ok_or(Reason::ProtocolViolation)?;
        if attempt == Attempt::Made {
            return Err(Reason::RateLimited);
        }
        let waiting = state.registry.waiting(&pair.service, pair.node.as_ref());
        let gateway = waiting.ok_or(Reason::PairingClosed)?;
        pair.address = self.address;
        let guest = (&self.outbox, request.to_owned());
        state.pairings.begin(guest, gateway, pair)
    }

    fn announce(
        &self,
        id: Option<String>,
        (node, key): (&NodeId, PublicKey),
        mut announce: Announce,
        state: &Inner,
    ) -> Result<(), Closing> {
        if announce.services.len() > MAX_SERVICES
            || announce.pairing.len() > MAX_SERVICES
            || announce.grants.len() > MAX_GRANTS
        {
            self.refuse(id, Reason::RateLimited, state);
            return Ok(());
        }
        let revocations = announce.revocations.take();
        if !state.registry.announce((node, key), &self.outbox, announce) {
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
