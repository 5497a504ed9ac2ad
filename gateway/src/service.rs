//! Services of a node: name, target, how it is trusted, how it does.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};

use hyper_util::client::legacy::Client;
use portway_protocol::id::ServiceName;
use portway_protocol::limits::MAX_SERVICES;
use portway_protocol::reason::Reason;
use portway_protocol::signal::ServiceHealth;
use portway_protocol::target::{ServiceKind, ServiceTarget};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use crate::entrance::Entrance;
use crate::files::Files;
use crate::limits::{CONNECT_TIMEOUT, Limits};
use crate::messages::Messages;
use crate::proxy::connect::{Connector, ConnectorError, Upstream};
use crate::proxy::http::Watched;

/// How the certificate of an `https` target is checked.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Trust {
    /// By the system's authorities.
    #[default]
    System,
    /// By the authorities in this PEM file alone.
    Authority(PathBuf),
    /// Not at all: for devices in the own network with self-made certificates.
    Any,
}

/// A service as configured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceSpec {
    /// Its name.
    pub name: ServiceName,
    /// Where it listens.
    pub target: ServiceTarget,
    /// How it is trusted.
    pub trust: Trust,
}

/// A service that can be opened.
#[derive(Debug)]
pub struct Service {
    /// As configured.
    pub spec: ServiceSpec,
    pub(crate) backend: Backend,
    health: watch::Sender<ServiceHealth>,
}

/// What answers for a service.
#[derive(Debug)]
pub(crate) enum Backend {
    /// Something that listens.
    Program(Program),
    /// Its client: this node takes connections for it.
    Entrance(Entrance),
    /// This node, from its files.
    Files(Files),
    /// This node, as a message bus.
    Messages(Messages),
}

/// A program that listens, and the way to it.
#[derive(Debug)]
pub struct Program {
    /// Name of its service.
    pub name: ServiceName,
    /// The way to it.
    pub upstream: Upstream,
    /// Of its tunnels.
    pub(crate) limits: Limits,
    /// For how many more there is room.
    room: Arc<Semaphore>,
    client: Client<Connector, Watched>,
}

impl Service {
    /// Prepares a service; nothing is connected yet.
    ///
    /// # Errors
    /// See [`ConnectorError`].
    pub fn new(spec: ServiceSpec, limits: Limits) -> Result<Self, ConnectorError> {
        let backend = match &spec.target {
            ServiceTarget::Listen(address) => {
                Backend::Entrance(Entrance::new(address.clone(), limits.idle_timeout))
            }
            ServiceTarget::Files(root, access) => Backend::Files(Files::new(root.clone(), *access)),
            ServiceTarget::Messages => Backend::Messages(Messages::start()),
            ServiceTarget::Http(_)
            | ServiceTarget::Https(_)
            | ServiceTarget::Unix(_)
            | ServiceTarget::Tcp(_)
            | ServiceTarget::TcpUnix(_)
            | ServiceTarget::Udp(_) => Backend::Program(Program::new(&spec, limits)?),
        };
        Ok(Self {
            backend,
            spec,
            health: watch::Sender::new(ServiceHealth::Unknown),
        })
    }

    /// Whether it is there now: a program accepts connections, a directory can be read, a bus always. Of one
    /// that speaks UDP, or is its client's, nobody can say.
    pub(crate) async fn is_there(&self) -> Option<bool> {
        match &self.backend {
            Backend::Program(_) if self.spec.target.kind() == ServiceKind::Udp => None,
            Backend::Program(program) => Some(program.upstream.connect().await.is_ok()),
            Backend::Files(files) => Some(files.is_there().await),
            Backend::Messages(_) => Some(true),
            Backend::Entrance(_) => None,
        }
    }

    /// Result of the last checks.
    #[must_use]
    pub fn health(&self) -> ServiceHealth {
        *self.health.borrow()
    }

    /// Notes a result; `true` if it is news.
    pub(crate) fn set_health(&self, health: ServiceHealth) -> bool {
        self.health.send_if_modified(|known| {
            let changed = *known != health;
            *known = health;
            changed
        })
    }
}

impl Program {
    fn new(spec: &ServiceSpec, limits: Limits) -> Result<Self, ConnectorError> {
        let connect_timeout = match spec.target.kind() {
            ServiceKind::Http => CONNECT_TIMEOUT,
            ServiceKind::Tcp | ServiceKind::Listen | ServiceKind::Udp => limits.connect_timeout,
        };
        let upstream = Upstream::new(spec, connect_timeout)?;
        Ok(Self {
            name: spec.name.clone(),
            limits,
            room: limits.room(),
            client: upstream.client(),
            upstream,
        })
    }

    /// A place for one more connection or flow, as long as it is held.
    ///
    /// # Errors
    /// [`Reason::ServiceFull`] if there are as many as may be.
    pub(crate) fn place(&self) -> Result<OwnedSemaphorePermit, Reason> {
        let place = self.room.clone().try_acquire_owned();
        place.map_err(|_full| {
            let (service, connections) = (&self.name, self.limits.connections);
            tracing::info!(%service, connections, "a service has as many connections as it may");
            Reason::ServiceFull
        })
    }

    /// Its pooled client.
    pub(crate) const fn client(&self) -> &Client<Connector, Watched> {
        &self.client
    }
}

/// Why a service cannot be added.
#[derive(Debug, thiserror::Error)]
pub enum AddServiceError {
    /// Too many.
    #[error("a node offers at most {MAX_SERVICES} services")]
    TooMany,
    /// Its target cannot be used.
    #[error(transparent)]
    Connector(#[from] ConnectorError),
}

/// All services of a node. A later one of the same name replaces the earlier, unless both are message buses: whoever
/// is on it would hear nothing of what comes.
#[derive(Debug, Clone, Default)]
pub struct Services {
    limits: Limits,
    by_name: Arc<RwLock<BTreeMap<ServiceName, Arc<Service>>>>,
}

impl Services {
    /// None yet. Each is to have these limits.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            by_name: Arc::default(),
        }
    }

    /// Adds or replaces a service.
    ///
    /// # Errors
    /// See [`AddServiceError`].
    pub fn add(&self, spec: ServiceSpec) -> Result<Arc<Service>, AddServiceError> {
        let service = Arc::new(Service::new(spec, self.limits)?);
        let mut services = self.by_name.write().unwrap_or_else(PoisonError::into_inner);
        let name = service.spec.name.clone();
        if services.len() >= MAX_SERVICES && !services.contains_key(&name) {
            return Err(AddServiceError::TooMany);
        }
        if let Some(known) = services.get(&name)
            && let (Backend::Messages(_), Backend::Messages(_)) = (&known.backend, &service.backend)
        {
            return Ok(known.clone());
        }
        services.insert(name, service.clone());
        Ok(service)
    }

    /// Removes a service; sessions that use it go on.
    pub(crate) fn remove(&self, name: &ServiceName) {
        let mut services = self.by_name.write().unwrap_or_else(PoisonError::into_inner);
        services.remove(name);
    }

    /// The service of a name.
    #[must_use]
    pub fn get(&self, name: &ServiceName) -> Option<Arc<Service>> {
        self.read().get(name).cloned()
    }

    /// All, by name.
    #[must_use]
    pub fn all(&self) -> Vec<Arc<Service>> {
        self.read().values().cloned().collect()
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, BTreeMap<ServiceName, Arc<Service>>> {
        self.by_name.read().unwrap_or_else(PoisonError::into_inner)
    }
}
