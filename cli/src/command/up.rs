//! `portway up`: signaling, relay, gateway and the services given, in one process.

use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;

use portway_gateway::config::SignalingEndpoint;
use portway_gateway::proxy::connect::tls_config;
use portway_gateway::service::Trust;
use portway_gateway::shortcut::Shortcut;
use portway_gateway::{Gateway, GatewayConfig, GatewayHandle, StreamRelays};
use portway_protocol::id::ServiceName;
use portway_signaling::Signaling;
use portway_signaling::config::Stun;
use portway_signaling::server::SignalingHandle;
use serde::Serialize;
use tokio::sync::watch;

use crate::args::{Format, Global, Up};
use crate::cluster::{Cluster, Current, MAX_MACHINE_LIFETIME};
use crate::config::{File, Settings};
use crate::control::Parts;
use crate::control::gateway::{Exposed, Node, Owner};
use crate::control::status::{Instance, Role};
use crate::enrolment::maker::Maker;
use crate::links::Links;
use crate::relay::Beside;
use crate::role::gateway::Offered;
use crate::role::{self, Process, signaling};
use crate::state;
use crate::{node, opener, output, pinned};
use portway_gateway::enrolment::certificate::By;
use portway_gateway::enrolment::renewal::{Maker as _, Renewal};
use portway_gateway::grants::GRANTS_FILE;
use portway_gateway::portal::Portal;
use portway_gateway::revocations;

/// Printed with `--json` when everything runs.
#[derive(Serialize)]
struct Ready {
    event: &'static str,
    cluster: String,
    node: String,
    portal: String,
    services: Vec<Exposed>,
    #[serde(skip_serializing_if = "Option::is_none")]
    relay: Option<String>,
}

/// Runs until a signal.
pub(crate) fn run(global: &Global, args: &Up) -> anyhow::Result<ExitCode> {
    signaling::require_pages()?;
    role::block_on(serve(global, args))
}

async fn serve(global: &Global, args: &Up) -> anyhow::Result<ExitCode> {
    let file = File::load(global)?;
    let settings = Settings::resolve(args, &file)?;
    let state = state::configured(global, &file)?;
    let mut process = Process::begin(&state).await?;
    let cluster = Cluster::open_or_make(global, &state, settings.web.cluster.as_ref())?;
    let with_relay = wants_relay(&settings, &file);
    let stun = match (settings.web.stun, with_relay) {
        (false, _) => Stun::Nobody,
        (true, false) => Stun::Own,
        (true, true) => Stun::Relay,
    };
    let keys = cluster.keys();
    let service = signaling::bind(&settings.web, &cluster.name, keys, stun, &state).await?;
    let signaling = service.handle();
    let portal = signaling::portal(&signaling)?;
    let relay = with_relay
        .then(|| start_relay(&file, &settings, &cluster, &service))
        .transpose()?;
    let (name, key) = (node::host_name(), state.node_key()?);
    let current = Current::new(cluster.clone());
    let mut maker = Maker::Cluster(current.clone(), MAX_MACHINE_LIFETIME);
    // Made anew at every start.
    let certificate = maker.make(&name, &key, &state).await?;
    let gateway = Gateway::new(GatewayConfig {
        cluster: cluster.name.clone(),
        cluster_key: cluster.key.public(),
        node: name.clone(),
        node_key: key.clone(),
        certificate: certificate.shown(),
        revocations: revocations::kept(&state),
        signaling: vec![endpoint(&settings, &service, &portal)?],
        shortcut: relay.clone().map(|relay| relay as Arc<dyn Shortcut>),
        stream_relays: Arc::new(StreamRelays::new(tls_config(&Trust::System)?)),
        grants_file: state.path(GRANTS_FILE),
        audit_dir: state.dir().to_owned(),
        limits: settings.limits,
        version: crate::VERSION.to_owned(),
        commit: crate::COMMIT.to_owned(),
    })?;
    let handle = gateway.handle();
    let standing = watch::Sender::new(certificate.standing(By::Itself));
    let portals: Arc<[Portal]> = [portal.clone()].into();
    let owner = Owner {
        relay: relay.clone(),
        ..Owner::new(current, &state, &handle, &portals, &name, file.lists)
    };
    process.spawn_issuer(owner.issuer.clone()).await?;
    let node = Node {
        gateway: handle.clone(),
        portals,
        links: Links {
            cluster: cluster.name.clone(),
            cluster_key: cluster.key.public(),
            issuer: key.clone(),
            portal,
        },
        standing: standing.subscribe(),
        owner: Some(owner),
        state: state.clone(),
    };
    process.spawn_renewal(Renewal {
        maker,
        node: name,
        key,
        state: state.clone(),
        gateway: handle,
        standing,
        certificate,
    });
    let (offered, names) = process.offer(&node.gateway, &settings.expose).await?;
    process.spawn_signaling(service);
    if let Some(relay) = &relay {
        process.spawn_relay(relay, &node.gateway);
    }
    process.spawn_gateway(gateway, &state);
    let parts = Parts {
        about: Instance::new(Role::Up),
        signaling: Some(signaling.clone()),
        node: Some(node.clone()),
        relay: relay.as_ref().map(|relay| relay.operated().clone()),
    };
    let ready = async {
        node.gateway.online().await;
        announce(global.format(), &cluster, &node, &names)
    };
    let mut reload = Reload {
        global,
        args,
        settings,
        signaling,
        gateway: node.gateway.clone(),
        relay,
        offered,
    };
    process.run(parts, ready, || reload.run()).await
}

/// Whether there is to be a relay: where nobody but this machine comes, nobody needs it.
fn wants_relay(settings: &Settings, file: &File) -> bool {
    if !settings.relay || settings.web.listen.ip().is_loopback() {
        return false;
    }
    let has_address = file.relay.has_address(settings.web.listen);
    if !has_address {
        tracing::warn!("no relay: this machine has no way to other networks (see relay_ip)");
    }
    has_address
}

fn start_relay(
    file: &File,
    settings: &Settings,
    cluster: &Cluster,
    signaling: &Signaling,
) -> anyhow::Result<Arc<Beside>> {
    let domain = settings.web.domain.as_ref();
    let name = domain.map(|domain| format!("{}.{domain}", cluster.name));
    let relay = Beside::start(&file.relay, signaling.local_addr()?, name.as_deref())?;
    let relay = Arc::new(relay);
    signaling.offer_relay(relay.clone());
    Ok(relay)
}

impl Process {
    /// The relay runs by itself; what is to be done is to tell it which sessions live.
    fn spawn_relay(&mut self, relay: &Arc<Beside>, gateway: &GatewayHandle) {
        let keeping = relay.clone().keep(gateway.clone(), self.cancel.clone());
        self.tasks.spawn(async {
            keeping.await;
            Ok(())
        });
        let (lost, cancelled) = (relay.operated().relay.lost(), self.cancel.clone());
        self.tasks.spawn(async move {
            tokio::select! {
                lost = lost => Err(lost.into()),
                () = cancelled.cancelled() => Ok(()),
            }
        });
    }
}

/// What SIGHUP needs.
struct Reload<'a> {
    global: &'a Global,
    args: &'a Up,
    settings: Settings,
    signaling: SignalingHandle,
    gateway: GatewayHandle,
    relay: Option<Arc<Beside>>,
    offered: Offered,
}

impl Reload<'_> {
    /// Reads the configuration again and applies its services, quotas of the relay and the
    /// certificate. A bad one changes nothing.
    fn run(&mut self) -> anyhow::Result<()> {
        let file = File::load(self.global)?;
        let new = Settings::resolve(self.args, &file)?;
        if let Some(files) = self.settings.web.tls() {
            let trusted = pinned::client_config(&files.certificate)?;
            self.signaling.renew(&files)?;
            self.gateway.trust(trusted);
        }
        if let Some(relay) = &self.relay {
            relay.reload(&file.relay)?;
        }
        let old = &self.settings;
        if new.web != old.web || new.relay != old.relay || new.limits != old.limits {
            tracing::warn!("settings of other kinds take effect at the next start");
        }
        self.offered.reload(new.expose);
        Ok(())
    }
}

fn announce(
    format: Format,
    cluster: &Cluster,
    node: &Node,
    names: &[ServiceName],
) -> anyhow::Result<()> {
    let services = names.iter().map(|name| node.exposed(name));
    let relay = node.owner.as_ref().and_then(|owner| owner.relay.as_ref());
    let portal = node.portals.first();
    let ready = Ready {
        event: "ready",
        cluster: cluster.name.to_string(),
        node: node::host_name().to_string(),
        portal: portal
            .map(|portal| format!("{portal}/"))
            .unwrap_or_default(),
        services: services.collect::<anyhow::Result<Vec<_>>>()?,
        relay: relay.map(|relay| relay.url().to_owned()),
    };
    output::print(format, &ready, human)?;
    Ok(())
}

fn human(ready: &Ready) -> String {
    let mut text = String::new();
    for service in &ready.services {
        let Some(link) = &service.link else { continue };
        if let Some(command) = &service.command {
            text.push_str(&format!(
                "\n  {name} is no web page. On the other machine, put its link\n\n  {link}\n\n  into a file that \
                 only you can read, and run\n\n  {}\n",
                opener::with_link(&service.name, command),
                name = service.name
            ));
            continue;
        }
        text.push_str(&format!("\n  {} is open at\n\n  {link}\n", service.name));
        if output::is_fancy()
            && let Some(qr) = output::qr(link)
        {
            text.push('\n');
            text.push_str(&qr);
            text.push('\n');
        }
    }
    text.push_str(
        "\n  Whoever has a link can open its service: send it as you would send a key.\n",
    );
    text.push_str("  Ctrl-C ends it.\n");
    text
}

/// Signaling as its own gateway finds it.
fn endpoint(
    settings: &Settings,
    signaling: &Signaling,
    portal: &Portal,
) -> anyhow::Result<SignalingEndpoint> {
    let certificate = settings.web.tls_cert.as_deref();
    Ok(SignalingEndpoint {
        address: Some(reachable(signaling.local_addr()?)),
        host: portal.holder_host(),
        tls: certificate.map(pinned::client_config).transpose()?,
    })
}

/// The address by which this process reaches its own listener.
fn reachable(listen: SocketAddr) -> SocketAddr {
    let mut address = listen;
    if listen.ip().is_unspecified() {
        address.set_ip(match listen {
            SocketAddr::V4(_) => std::net::Ipv4Addr::LOCALHOST.into(),
            SocketAddr::V6(_) => std::net::Ipv6Addr::LOCALHOST.into(),
        });
    }
    address
}
