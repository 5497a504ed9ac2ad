//! Owns the task tree of a node; what the command line talks to.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use portway_protocol::enrolment::grant_of_node;
use portway_protocol::id::{GrantId, NodeId, ServiceName};
use portway_protocol::key::PublicKey;
use portway_protocol::pairing::code::Digits;
use portway_protocol::permission::Permission;
use portway_protocol::reason::Reason;
use portway_protocol::revocation::{ListError, RevocationList};
use portway_protocol::signal::news::{Interest, Told};
use portway_protocol::token::Confirmation;
use portway_protocol::token::user::{Devices, UserClaims};
use tokio::sync::{broadcast, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::audit::{AuditError, Event, Log, unix_ms};
use crate::config::GatewayConfig;
use crate::grants::{Grants, GrantsError, Issuers};
use crate::links::{self, LinkView};
use crate::news::{Following, News};
use crate::pairing::Pairings;
use crate::pairing::window::{self, Agreed, Window};
use crate::revocations::KnownRevocations;
use crate::service::{AddServiceError, Service, ServiceSpec, Services};
use crate::session::table::{SessionView, Table};
use crate::session::{Audit, Context, Identity, NodeCertificate, unix_now};
use crate::{health, signaling};

/// What the tasks of a gateway share.
pub(crate) struct Shared {
    pub(crate) config: GatewayConfig,
    pub(crate) context: Arc<Context>,
    /// Where guests may pair.
    pub(crate) pairings: Pairings,
    /// What happens to the nodes of the cluster.
    pub(crate) news: Arc<News>,
    /// Whom signaling services that speak TLS are believed to be, if not whom the configuration says.
    pub(crate) tls: RwLock<Option<Arc<rustls::ClientConfig>>>,
    /// Something of the announcement has changed.
    pub(crate) changed: watch::Sender<()>,
    /// Whether each signaling service knows what this node offers, in the order of the configuration.
    pub(crate) online: watch::Sender<Vec<bool>>,
    /// Start of this process, milliseconds since 1970.
    pub(crate) epoch: u64,
}

/// Why a gateway cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Its grants cannot be used.
    #[error(transparent)]
    Grants(#[from] GrantsError),
    /// Its audit log cannot be used.
    #[error(transparent)]
    Audit(#[from] AuditError),
}

/// A gateway that is ready to run.
pub struct Gateway(Arc<Shared>);

/// Access to a running gateway from the same process.
#[derive(Clone)]
pub struct GatewayHandle(Arc<Shared>);

impl Gateway {
    /// Opens grants and audit log; nothing is connected yet.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn new(config: GatewayConfig) -> Result<Self, OpenError> {
        let grants = Grants::open(
            &config.grants_file,
            config.cluster.clone(),
            // Each node says who may open its own services, where the cluster key does not.
            Issuers::new(
                [config.cluster_key, config.node_key.public()],
                &config.certificate.rotations,
            ),
            unix_now(),
        )?;
        let log = Log::open(
            &config.audit_dir,
            config.node.clone(),
            config.node_key.clone(),
        )?;
        log.note(Event::GatewayStarted {
            version: config.version.clone(),
            commit: config.commit.clone(),
        });
        let revocations = KnownRevocations::new(config.cluster.clone(), config.cluster_key);
        if let Some(list) = &config.revocations {
            revocations.hear(list);
        }
        let context = Context {
            identity: Identity {
                cluster: config.cluster.clone(),
                node: config.node.clone(),
                key: config.node_key.clone(),
                certificate: RwLock::new(Arc::new(config.certificate.clone())),
            },
            services: Services::new(config.limits),
            grants,
            table: Table::default(),
            audit: Audit::new(log),
            revocations,
            shortcut: config.shortcut.clone(),
            suspicion: watch::Sender::default(),
            stream_relays: config.stream_relays.clone(),
            tasks: TaskTracker::new(),
            draining: CancellationToken::new(),
        };
        Ok(Self(Arc::new(Shared {
            tls: RwLock::default(),
            online: watch::Sender::new(vec![false; config.signaling.len()]),
            config,
            context: Arc::new(context),
            pairings: Pairings::default(),
            news: Arc::default(),
            changed: watch::Sender::new(()),
            epoch: unix_ms(),
        })))
    }

    /// Access from the same process.
    #[must_use]
    pub fn handle(&self) -> GatewayHandle {
        GatewayHandle(self.0.clone())
    }

    /// Runs until cancelled, then drains: says so, takes no more requests, lets those under way end for
    /// [`DRAIN_TIMEOUT`](crate::session::DRAIN_TIMEOUT) at most, and closes every session.
    pub async fn run(self, cancel: CancellationToken) {
        let health = health::watch(self.0.context.services.clone(), self.0.changed.clone());
        let drained = async {
            cancel.cancelled().await;
            self.0.context.draining.cancel();
            self.0.changed.send_replace(());
            self.0.context.tasks.close();
            self.0.context.tasks.wait().await;
        };
        tokio::select! {
            () = drained => {}
            () = signaling::run(&self.0) => {}
            () = health => {}
            () = self.handle().take_back() => {}
        }
        let log = self.0.context.audit.log();
        log.note(Event::GatewayEnded);
        log.settle().await;
    }
}

impl GatewayHandle {
    /// Adds or replaces a service.
    ///
    /// # Errors
    /// See [`AddServiceError`].
    pub fn add_service(&self, spec: ServiceSpec) -> Result<(), AddServiceError> {
        let service = self.0.context.services.add(spec)?;
        if !signaling::can_announce(&self.0) {
            self.0.context.services.remove(&service.spec.name);
            return Err(AddServiceError::TooMany);
        }
        self.audit().note(Event::ServiceAdded {
            service: service.spec.name.clone(),
            target: service.spec.target.to_string(),
        });
        self.0.changed.send_replace(());
        Ok(())
    }

    /// Takes a service back; sessions that use it go on.
    pub fn remove_service(&self, name: &ServiceName) {
        if self.0.context.services.get(name).is_some() {
            let service = name.clone();
            self.audit().note(Event::ServiceRemoved { service });
        }
        self.0.context.services.remove(name);
        self.0.changed.send_replace(());
    }

    /// All services.
    #[must_use]
    pub fn services(&self) -> Vec<Arc<Service>> {
        self.0.context.services.all()
    }

    /// Believes another certificate of signaling from the next connection on.
    pub fn trust(&self, tls: Arc<rustls::ClientConfig>) {
        *self.0.tls.write().unwrap_or_else(PoisonError::into_inner) = Some(tls);
    }

    /// Believes other authorities about relays from the next connection on.
    pub fn trust_relays(&self, tls: rustls::ClientConfig) {
        self.0.context.stream_relays.trust(tls);
    }

    /// All sessions.
    #[must_use]
    pub fn sessions(&self) -> Vec<SessionView> {
        self.0.context.table.views()
    }

    /// The audit log.
    #[must_use]
    pub fn audit(&self) -> &Log {
        self.0.context.audit.log()
    }

    /// What happens to the nodes of the cluster from now on, as the first signaling service tells that can be
    /// asked; as long as the other thing is kept.
    #[must_use]
    pub fn follow_nodes(&self, interest: Interest) -> (broadcast::Receiver<Told>, Following) {
        self.0.news.follow(interest)
    }

    /// Adds a grant: a user token that the cluster key signed, or this node's.
    ///
    /// # Errors
    /// See [`GrantsError`].
    pub fn add_grant(&self, token: String) -> Result<UserClaims, GrantsError> {
        let known = self.0.context.grants.announced();
        let claims = self.0.context.grants.add(token, unix_now())?;
        if !signaling::can_announce(&self.0) {
            self.0.context.grants.revoke(&claims.jti)?;
            return Err(GrantsError::TooMany);
        }
        if !known.iter().any(|grant| grant.id == claims.jti) {
            self.audit().note(Event::GrantAdded {
                grant: claims.jti,
                user: claims.sub.clone(),
                services: claims.aud.clone(),
                expires: claims.exp,
            });
        }
        self.0.changed.send_replace(());
        Ok(claims)
    }

    /// Lets another node of the cluster open a service with its node key, in place of what it was allowed there
    /// before. Returns the grant, whose token this node has signed.
    ///
    /// # Errors
    /// See [`GrantsError`].
    pub fn let_in(
        &self,
        (node, key): (&NodeId, &PublicKey),
        service: Permission,
        lifetime: Duration,
    ) -> Result<UserClaims, GrantsError> {
        let now = unix_now();
        let claims = UserClaims {
            iss: self.0.config.cluster.clone(),
            aud: vec![service.name.clone()],
            sub: format!("node:{node}"),
            iat: now,
            exp: now + lifetime.as_secs(),
            jti: grant_of_node(key, &service.name),
            services: vec![service],
            cnf: Confirmation { ed25519: *key },
            devices: Devices::Any,
        };
        self.add_grant(claims.issue(&self.0.config.node_key))
    }

    /// Revokes a grant; its sessions end at once. Returns how many; `None` if there is no such grant.
    ///
    /// # Errors
    /// It is revoked, but would be back after a restart; see [`GrantsError`].
    pub fn revoke_grant(&self, id: &GrantId) -> Result<Option<usize>, GrantsError> {
        let sessions = self.sessions();
        let known = self.0.context.grants.announced();
        let revoked = self.0.context.grants.revoke(id);
        if let Some(grant) = known.into_iter().find(|grant| grant.id == *id) {
            self.audit().note(Event::GrantRevoked {
                grant: grant.id,
                services: grant.services,
            });
        }
        self.0.changed.send_replace(());
        let ended = sessions.iter().filter(|view| view.grant == *id).count();
        Ok(revoked?.then_some(ended))
    }

    /// Waits until no session of a grant is left. Those of one that was revoked say goodbye to their clients
    /// before they end.
    pub async fn sessions_ended(&self, id: &GrantId) {
        self.0.context.table.until_ended(id).await;
    }

    /// All grants, what became of them, and how many sessions each has now; the newest first.
    #[must_use]
    pub fn links(&self) -> Vec<LinkView> {
        links::views(self.0.context.grants.all(), &self.sessions())
    }

    /// Opens a window in which a guest may pair with a service, and waits until signaling knows. `grant` is
    /// the id of the grant that comes of it, `cluster_key` what the guest is to believe.
    ///
    /// # Errors
    /// [`Reason::ServiceUnknown`]; [`Reason::PairingTaken`] if the service has one already;
    /// [`Reason::RateLimited`] and [`Reason::PairingSuspended`] if there were too many;
    /// [`Reason::SignalingUnreachable`]; [`Reason::Draining`].
    pub async fn open_pairing(
        &self,
        service: ServiceName,
        cluster_key: PublicKey,
        grant: GrantId,
    ) -> Result<Window, Reason> {
        Window::open(&self.0, service, cluster_key, grant).await
    }

    /// Compares the digits that the owner has typed with those of the window for a grant. There is one try.
    ///
    /// # Errors
    /// [`Reason::PairingMismatch`]; [`Reason::PairingClosed`] if there is no such window, or nobody there.
    pub fn compare_digits(&self, grant: &GrantId, typed: Digits) -> Result<Agreed, Reason> {
        window::compare(&self.0, grant, typed)
    }

    /// Whether a grant is there and valid.
    #[must_use]
    pub fn has_grant(&self, id: &GrantId) -> bool {
        let now = unix_now();
        let announced = self.0.context.grants.announced();
        announced.iter().any(|g| g.id == *id && g.expires > now)
    }

    /// Another certificate, for signaling and clients that come, by this key of the cluster. If that is
    /// another one than before, new grants are believed by it alone; those that are here stay.
    pub fn renew(&self, cluster_key: PublicKey, certificate: NodeCertificate) {
        let node_key = self.0.config.node_key.public();
        let issuers = Issuers::new([cluster_key, node_key], &certificate.rotations);
        self.0.context.grants.believe(issuers);
        self.0.context.identity.renew(certificate);
    }

    /// The key of this node.
    #[must_use]
    pub fn node_key(&self) -> PublicKey {
        self.0.config.node_key.public()
    }

    /// What is known of revoked nodes.
    #[must_use]
    pub fn revocations(&self) -> &KnownRevocations {
        &self.0.context.revocations
    }

    /// Takes a list of revoked nodes, and passes it on if it is news.
    ///
    /// # Errors
    /// See [`ListError`].
    pub fn learn(&self, list: &RevocationList) -> Result<(), ListError> {
        if self.0.context.revocations.learn(list)? {
            self.0.changed.send_replace(());
        }
        Ok(())
    }

    /// Takes back what was granted to nodes that are none any more, for as long as this is polled: who joins again
    /// has to be let in again.
    async fn take_back(self) {
        let mut known = self.0.context.revocations.subscribe();
        loop {
            let revoked = known.borrow_and_update().clone();
            let mut grants = self.0.context.grants.announced();
            grants.retain(|grant| revoked.name(&grant.key));
            for grant in grants {
                tracing::info!(grant = %grant.id, "a grant ends with the node that it was for");
                if let Err(error) = self.revoke_grant(&grant.id) {
                    tracing::error!(%error, "it would be back after a restart");
                }
            }
            // The sender lives in `self`, so waiting cannot fail.
            drop(known.changed().await);
        }
    }

    /// Whether each signaling service knows this node, in the order of the configuration.
    #[must_use]
    pub fn connected(&self) -> Vec<bool> {
        self.0.online.borrow().clone()
    }

    /// Waits until a signaling service knows what this node offers.
    pub async fn online(&self) {
        let mut online = self.0.online.subscribe();
        // The sender lives in `self`, so waiting cannot fail.
        drop(online.wait_for(|online| online.contains(&true)).await);
    }
}
