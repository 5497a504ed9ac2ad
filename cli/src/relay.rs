//! The relay of `portway up`: on the same port as signaling, over UDP, TCP and TLS, for this machine's
//! gateway only.
//!
//! Security: its only peers are the sockets of this process's gateway, which are attached to it, so
//! that a link opens no way to anything else. Credentials are made for one session of a client and
//! are good for minutes; what was allocated by them lives on while that session does.
//! [`tickets`]: how they are made, also for relays elsewhere.

pub(crate) mod tickets;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use portway_gateway::GatewayHandle;
use portway_gateway::session::table::SessionView;
use portway_gateway::shortcut::{Attached, Inbox, Shortcut};
use portway_protocol::id::GrantId;
use portway_protocol::signal::IceServer;
use portway_relay::config::Config;
use portway_relay::{Arrived, Attachment, LocalPeer, Relay};
use portway_relay_proto::peer_policy::PeerPolicy;
use portway_signaling::relay::{Issuer, Lease, StunConnection};
use tokio_util::sync::CancellationToken;

use crate::args;
use crate::config::relay::RelayFile;
use crate::control::relay::Operated;
use crate::exit::Failure;
use crate::links::unix_now;
use tickets::{SEPARATOR, Tickets};

/// Sessions are looked at this often within the lifetime of credentials.
const LOOKS: u32 = 10;

/// A relay that runs beside signaling.
pub(crate) struct Beside {
    running: Operated,
    listen: SocketAddr,
    tickets: Tickets,
}

impl Beside {
    /// Starts it at the address of signaling. `name`: its host name, for which it has a certificate.
    pub(crate) fn start(
        file: &RelayFile,
        listen: SocketAddr,
        name: Option<&str>,
    ) -> anyhow::Result<Self> {
        let mut secret = [0; 32];
        getrandom::fill(&mut secret).map_err(|error| anyhow::anyhow!("no randomness: {error}"))?;
        let config = config(file, listen, &secret)?;
        let public: IpAddr = *config
            .external_ips
            .first()
            .or(config.relay_ips.first())
            .context("a relay has an address")?;
        let urls = match name {
            None => {
                let host = SocketAddr::new(public, listen.port());
                ["udp", "tcp"].map(|transport| format!("turn:{host}?transport={transport}"))
            }
            Some(name) => {
                let host = format!("{name}:{}", listen.port());
                [
                    format!("turn:{host}?transport=udp"),
                    format!("turns:{host}?transport=tcp"),
                ]
            }
        };
        let running = Relay::start(&config)
            .map_err(|error| Failure::configuration(format!("the relay: {error}")))?;
        Ok(Self {
            running: Operated::new(Arc::new(running), &config),
            listen,
            tickets: Tickets {
                urls: urls.to_vec(),
                secret: secret.to_vec(),
                lifetime: file.credentials(),
            },
        })
    }

    /// Takes what may change of a configuration: quotas.
    pub(crate) fn reload(&self, file: &RelayFile) -> anyhow::Result<()> {
        let config = config(file, self.listen, &self.tickets.secret)?;
        Ok(self.running.relay.reload(&config)?)
    }

    /// Its address over UDP, as browsers have it.
    pub(crate) fn url(&self) -> &str {
        &self.tickets.urls[0]
    }

    /// Keeps alive what the sessions of a gateway have allocated, until cancelled.
    pub(crate) async fn keep(self: Arc<Self>, gateway: GatewayHandle, cancel: CancellationToken) {
        loop {
            tokio::select! {
                () = tokio::time::sleep(self.tickets.lifetime / LOOKS) => {}
                () = cancel.cancelled() => return,
            }
            let until = unix_now() + self.tickets.lifetime.as_secs();
            let name = |view: SessionView| {
                let user = view.grant.to_string().into();
                ((user, view.introduction.to_string().into()), until)
            };
            let sessions = gateway.sessions().into_iter().map(name).collect();
            let relay = self.clone();
            let told =
                tokio::task::spawn_blocking(move || relay.running.relay.prolong(sessions)).await;
            if let Err(panic) = told {
                tracing::error!(%panic, "the relay was not told which sessions live");
            }
        }
    }

    /// As its operator sees it.
    pub(crate) const fn operated(&self) -> &Operated {
        &self.running
    }

    /// Ends what a grant has relayed, and refuses the credentials made for it; returns how many
    /// allocations there were.
    pub(crate) fn revoke(&self, grant: &GrantId) -> usize {
        let revoked = self
            .running
            .relay
            .revoke(&grant.to_string(), self.tickets.lifetime);
        revoked.ended
    }
}

/// What the file says, and what is never otherwise beside signaling.
fn config(file: &RelayFile, listen: SocketAddr, secret: &[u8]) -> anyhow::Result<Config> {
    let mut addresses = vec![listen];
    if listen.ip() == Ipv6Addr::UNSPECIFIED {
        // Signaling takes both families on this address; a UDP socket of ours takes one.
        addresses.push((Ipv4Addr::UNSPECIFIED, listen.port()).into());
    }
    let mut config = file.resolve(&args::Relay::at(addresses))?;
    config.secrets = vec![secret.to_vec()];
    config.users.clear();
    config.tcp_allocations = false;
    config.session_separator = Some(SEPARATOR);
    // The gateway says what lives.
    config.prolong = Duration::ZERO;
    config.peers = PeerPolicy {
        attached_only: true,
        ..PeerPolicy::default()
    };
    Ok(config)
}

impl Issuer for Beside {
    fn issue(&self, lease: &Lease) -> Vec<IceServer> {
        self.tickets.issue(lease)
    }
}

impl portway_signaling::relay::Relay for Beside {
    fn take(&self, connection: StunConnection) {
        self.running.relay.take(Arrived {
            socket: connection.socket,
            tls: connection.tls,
            client: connection.peer,
        });
    }
}

impl Shortcut for Beside {
    fn attach(&self, local: SocketAddr, inbox: Arc<Inbox>) -> Box<dyn Attached> {
        Box::new(Place(
            self.running.relay.attach(local, Arc::new(Mouth(inbox))),
        ))
    }
}

impl std::fmt::Debug for Beside {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Beside")
            .field("tickets", &self.tickets)
            .finish_non_exhaustive()
    }
}

/// Where packets for a gateway's socket go in.
#[derive(Debug)]
struct Mouth(Arc<Inbox>);

impl LocalPeer for Mouth {
    fn receive(&self, from: SocketAddr, packets: &[u8], segment: usize) {
        self.0.push(from, packets, segment);
    }
}

/// A gateway's socket at the relay.
#[derive(Debug)]
struct Place(Attachment);

impl Attached for Place {
    fn send(&self, to: SocketAddr, packets: &[u8], segment: usize) -> bool {
        self.0.send(to, packets, segment)
    }
}
