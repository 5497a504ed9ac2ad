//! What opens services for a client command: the links it is given, or this machine's own key where it is a node
//! of the cluster.
//!
//! Security: a link is a secret. It comes from a file or from standard input, never from the command
//! line, which every process of the machine can read; no message repeats it.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;
use portway_gateway::client::{ClientError, Credential, ServiceAddress, Target};
use portway_gateway::proxy::connect::tls_config;
use portway_gateway::revocations::KnownRevocations;
use portway_gateway::service::Trust;
use portway_gateway::tunnel::Pool;
use portway_gateway::tunnel::pool::News;
use portway_protocol::id::{ClusterName, NodeId, ServiceName};
use portway_protocol::key::{PublicKey, SigningKey};
use portway_protocol::reason::Reason;
use tokio::sync::mpsc;

use crate::args::{Credentials, Global};
use crate::command::client::{ask, is_running};
use crate::control::gateway::Membership;
use crate::exit::{self, Failure};
use crate::opened;
use crate::state::{self, State};
use portway_gateway::enrolment::Enrolled;
use portway_gateway::portal::Portal;
use portway_gateway::revocations;

/// In place of a file: standard input.
const STDIN: &str = "-";

/// Longest file that can hold a link, bytes.
const MAX_LINK: u64 = 4 * 1024;

/// Links that one command may be given.
const MAX_LINKS: usize = 64;

/// Key of this device in the state directory. A link for one device goes by it.
const DEVICE_KEY: &str = "device.key";

/// Opens services. Nothing is connected by it.
pub(crate) struct Keyring {
    keys: Keys,
    /// The service that is meant if none is named.
    service: Option<ServiceName>,
    /// The node that shall serve.
    node: Option<NodeId>,
    device: SigningKey,
    tls: rustls::ClientConfig,
    revocations: KnownRevocations,
}

enum Keys {
    Links(Vec<ServiceAddress>),
    Node(Box<Member>),
}

/// This machine as a node.
struct Member {
    cluster: ClusterName,
    cluster_key: PublicKey,
    portal: Portal,
    authority: Option<PathBuf>,
}

impl Keyring {
    /// Reads the links, or what this machine has as a node.
    pub(crate) fn open(
        global: &Global,
        credentials: &Credentials,
        service: Option<&ServiceName>,
    ) -> anyhow::Result<Self> {
        let state = state::locate(global)?;
        let keys = if credentials.link_files.is_empty() {
            Keys::Node(Box::new(Member::find(global, &state)?))
        } else {
            Keys::Links(read_links(&credentials.link_files)?)
        };
        state.prepare()?;
        let (cluster, cluster_key, device, authority) = match &keys {
            Keys::Links(links) => {
                let Credential {
                    cluster,
                    cluster_key,
                    ..
                } = links.first().context("there is a link")?.credential.clone();
                (cluster, cluster_key, state.key(DEVICE_KEY)?, None)
            }
            Keys::Node(member) => {
                let (cluster, cluster_key) = (member.cluster.clone(), member.cluster_key);
                let authority = member.authority.clone();
                (cluster, cluster_key, state.node_key()?, authority)
            }
        };
        let revocations = KnownRevocations::new(cluster, cluster_key);
        if let Some(list) = revocations::kept(&state)
            && let Err(error) = revocations.learn(&list)
        {
            tracing::debug!(%error, "the list of revoked nodes here is another cluster's");
        }
        let keyring = Self {
            keys,
            service: service.cloned(),
            node: credentials.node.clone(),
            device,
            tls: tls(credentials.ca.as_deref().or(authority.as_deref()))?,
            revocations,
        };
        if let Some(service) = &keyring.service {
            keyring.address(service)?;
        }
        Ok(keyring)
    }

    /// The cluster whose services it opens.
    pub(crate) fn cluster(&self) -> &ClusterName {
        match &self.keys {
            Keys::Links(links) => &links[0].credential.cluster,
            Keys::Node(member) => &member.cluster,
        }
    }

    /// The service that is meant where none is named.
    pub(crate) fn service(&self) -> anyhow::Result<ServiceName> {
        let only = match &self.keys {
            Keys::Links(links) if links.len() == 1 => links.first(),
            Keys::Links(_) | Keys::Node(_) => None,
        };
        let service = self.service.as_ref();
        let service = service.or_else(|| only.map(|link| &link.site.service));
        service.cloned().ok_or_else(|| {
            Failure::usage("which service? Name it, as `portway services` does on its node").into()
        })
    }

    /// What opens that service.
    pub(crate) fn target(&self, service: &ServiceName) -> anyhow::Result<Target> {
        let address = self.address(service)?;
        let (device, revocations) = (self.device.clone(), self.revocations.clone());
        Ok(Target {
            node: self.node.clone(),
            ..Target::new(address, device, &self.tls, revocations)
        })
    }

    /// A failure to open a service, with its exit code and what to do.
    pub(crate) fn failure(&self, service: &ServiceName, error: &ClientError) -> Failure {
        match self.keys {
            Keys::Node(_) if error.reason() == Reason::GrantUnknown => {
                let message = format!(
                    "`{service}` is not shared with this node, or not any more: on the node that offers it, run \
                     `portway share {service} --to-node NAME`"
                );
                Failure::because(Reason::PermissionDenied, message)
            }
            Keys::Links(_) | Keys::Node(_) => opened::failure(error),
        }
    }

    /// Sessions to whatever it opens. Whoever gets the news must take them.
    pub(crate) fn pool(self: &Arc<Self>, news: mpsc::Sender<News>) -> Pool {
        let keyring = self.clone();
        let open = move |service: &ServiceName| {
            let target = keyring.target(service);
            target.map_err(|error| exit::reason(&error).unwrap_or(Reason::PermissionDenied))
        };
        Pool::new(open, news)
    }

    fn address(&self, service: &ServiceName) -> anyhow::Result<ServiceAddress> {
        match &self.keys {
            Keys::Links(links) => {
                let link = links.iter().find(|link| link.site.service == *service);
                link.cloned().ok_or_else(|| {
                    let opened = links.iter().map(|link| link.site.service.as_str());
                    let opened = opened.collect::<Vec<_>>().join(", ");
                    let message = format!("no link here opens `{service}`: they open {opened}");
                    Failure::usage(message).into()
                })
            }
            Keys::Node(member) => member.address(service, &self.device),
        }
    }
}

impl Member {
    /// What is kept of the cluster that this machine has joined, or what the instance knows that runs here.
    fn find(global: &Global, state: &State) -> anyhow::Result<Self> {
        if let Some(enrolled) = Enrolled::open(state)? {
            let portal = enrolled.signaling.first();
            return Ok(Self {
                portal: portal.context("signaling is known")?.clone(),
                cluster: enrolled.cluster,
                cluster_key: enrolled.cluster_key,
                authority: enrolled.signaling_ca,
            });
        }
        if !is_running(global)? {
            let message = "a link is needed, --link-file FILE: this machine is no node of a cluster (`portway join` \
                 makes it one), and none runs here";
            return Err(Failure::usage(message).into());
        }
        let Membership {
            cluster,
            cluster_key,
            portal,
        } = ask(global, "GET", "/membership", None::<&()>)?;
        Ok(Self {
            cluster,
            cluster_key,
            portal,
            authority: None,
        })
    }

    fn address(&self, service: &ServiceName, key: &SigningKey) -> anyhow::Result<ServiceAddress> {
        let cluster = (&self.cluster, self.cluster_key);
        Ok(ServiceAddress::of_node(
            &self.portal,
            cluster,
            service,
            key,
        )?)
    }
}

impl Credentials {
    /// Whether a link comes by standard input, which nothing else can be read from then.
    pub(crate) fn take_standard_input(&self) -> bool {
        self.link_files.iter().any(|file| file == Path::new(STDIN))
    }
}

/// Whom to believe to be signaling: this authority, or those of the system.
pub(crate) fn tls(authority: Option<&Path>) -> anyhow::Result<rustls::ClientConfig> {
    let trust = match authority {
        Some(file) => Trust::Authority(file.to_owned()),
        None => Trust::System,
    };
    tls_config(&trust).map_err(|error| Failure::configuration(error.to_string()).into())
}

/// Links of one cluster, a file each.
fn read_links(files: &[PathBuf]) -> anyhow::Result<Vec<ServiceAddress>> {
    if files.len() > MAX_LINKS {
        return Err(Failure::usage(format!("at most {MAX_LINKS} links at a time")).into());
    }
    let mut links: Vec<ServiceAddress> = Vec::new();
    for file in files {
        let link: ServiceAddress = read(file)?.parse().map_err(|error| {
            let message = format!("the link in {}: {error}", file.display());
            Failure::because(Reason::LinkInvalid, message)
        })?;
        let credential = &link.credential;
        if links.iter().any(|other| {
            other.credential.cluster != credential.cluster
                || other.credential.cluster_key != credential.cluster_key
        }) {
            return Err(Failure::usage(
                "the links are for several clusters: run a command for each",
            )
            .into());
        }
        links.push(link);
    }
    Ok(links)
}

fn read(file: &Path) -> anyhow::Result<String> {
    let mut text = String::new();
    if file == Path::new(STDIN) {
        std::io::stdin()
            .take(MAX_LINK)
            .read_to_string(&mut text)
            .context("cannot read the link from standard input")?;
    } else {
        std::fs::File::open(file)
            .and_then(|file| file.take(MAX_LINK).read_to_string(&mut text))
            .map_err(|error| {
                Failure::configuration(format!("cannot read {}: {error}", file.display()))
            })?;
    }
    Ok(text)
}
