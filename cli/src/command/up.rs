//! `portway up`: signaling, relay, gateway and the services given, in one process.

use std::fs;
use std::io::IsTerminal as _;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use portway_gateway::config::SignalingEndpoint;
use portway_gateway::session::DRAIN_TIMEOUT;
use portway_gateway::shortcut::Shortcut;
use portway_gateway::{Gateway, GatewayConfig};
use portway_protocol::id::NodeId;
use portway_protocol::key::SigningKey;
use portway_protocol::signal::IceServer;
use portway_protocol::token::Confirmation;
use portway_protocol::token::machine::MachineClaims;
use portway_signaling::config::Stun;
use portway_signaling::host::Origin;
use portway_signaling::store::Sqlite;
use portway_signaling::{Assets, Config, Signaling};
use serde::Serialize;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::args::{Format, Global, Up};
use crate::config::{File, Settings};
use crate::control::{self, Exposed, NewService};
use crate::demo::Demo;
use crate::exit::Failure;
use crate::links::{Links, random_id, unix_now};
use crate::relay::Beside;
use crate::signals::{Asked, Signals};
use crate::state::State;
use crate::{assets, output, pinned};

/// Files in the state directory.
pub(crate) const CLUSTER_KEY: &str = "cluster.key";
pub(crate) const CLUSTER_NAME: &str = "cluster.name";
const NODE_KEY: &str = "node.key";
const GRANTS: &str = "grants.json";
const REGISTRY: &str = "registry.db";

/// Life of this node's own machine token; made anew at every start.
const MACHINE_TOKEN_LIFETIME: u64 = 30 * 24 * 3600;

/// Time for an orderly end after the first signal.
const END_TIMEOUT: Duration = Duration::from_secs(DRAIN_TIMEOUT.as_secs() + 3);

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
    if !assets::are_embedded() {
        return Err(Failure::configuration(
            "this binary was built without the browser client: build it with `cargo xtask build`",
        )
        .into());
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    runtime.block_on(serve(global, args))
}

async fn serve(global: &Global, args: &Up) -> anyhow::Result<ExitCode> {
    let file = File::load(global)?;
    let settings = Settings::resolve(args, &file)?;
    let state = State::configured(global, &file)?;
    state.prepare()?;
    let control = control::bind(&state.path(control::SOCKET)).await?;
    let cluster_key = state.key(CLUSTER_KEY)?;
    fs::write(state.path(CLUSTER_NAME), settings.cluster.as_str())?;

    let with_relay = wants_relay(&settings, &file);
    let signaling = Signaling::bind(
        signaling_config(&settings, &cluster_key, with_relay)?,
        Assets::new(assets::FILES, &assets::hash()),
        Box::new(registry(&state)?),
    )
    .await
    .map_err(|error| Failure::configuration(error.to_string()))?;
    let signaling_handle = signaling.handle();
    let relay = with_relay
        .then(|| {
            let domain = settings.domain.as_ref();
            let name = domain.map(|domain| format!("{}.{domain}", settings.cluster));
            Beside::start(&file.relay, signaling.local_addr()?, name.as_deref())
        })
        .transpose()?
        .map(Arc::new);
    if let Some(relay) = &relay {
        signaling.offer_relay(relay.clone());
    }
    let gateway = Gateway::new(gateway_config(
        &settings,
        &state,
        &cluster_key,
        &signaling,
        relay.clone(),
    )?)?;
    let links = Links {
        cluster: settings.cluster.clone(),
        cluster_key,
        gateway: gateway.handle(),
        signaling: signaling_handle.clone(),
        state: state.clone(),
        relay,
    };

    // The gateway ends first, for what is under way needs the others.
    let (drain, cancel) = (CancellationToken::new(), CancellationToken::new());
    let mut tasks: JoinSet<anyhow::Result<()>> = JoinSet::new();
    let mut exposed = Vec::new();
    for service in &settings.expose {
        links
            .gateway
            .add_service(NewService::from(service).spec())?;
        exposed.push(service.name.clone());
    }
    if settings.expose.is_empty() {
        let demo = Demo::bind().await?;
        let target = format!("http://{}", demo.address()?).parse()?;
        let name: portway_protocol::id::ServiceName = "demo".parse()?;
        links
            .gateway
            .add_service(portway_gateway::service::ServiceSpec {
                name: name.clone(),
                target,
                trust: portway_gateway::service::Trust::System,
            })?;
        exposed.push(name);
        tasks.spawn(demo.run(cancel.clone()));
    }
    tasks.spawn(control::serve(control, links.clone(), cancel.clone()));
    let signaling_cancel = cancel.clone();
    tasks.spawn(async move {
        signaling.run(signaling_cancel).await;
        Ok(())
    });
    if let Some(relay) = &links.relay {
        let keeping = relay.clone().keep(links.gateway.clone(), cancel.clone());
        tasks.spawn(async {
            keeping.await;
            Ok(())
        });
        let (lost, cancelled) = (relay.operated().relay.lost(), cancel.clone());
        tasks.spawn(async move {
            tokio::select! {
                lost = lost => Err(lost.into()),
                () = cancelled.cancelled() => Ok(()),
            }
        });
    }
    let gateway_drain = drain.clone();
    tasks.spawn(async move {
        gateway.run(gateway_drain).await;
        cancel.cancel();
        Ok(())
    });
    tokio::select! {
        () = links.gateway.online() => {}
        Some(ended) = tasks.join_next() => ended??,
    }
    let signals = Signals::hear()?;
    announce(global.format(), &settings, &links, &exposed)?;
    let reload = Reload {
        global,
        args,
        settings,
        links,
    };
    let code = supervise(&mut tasks, &drain, signals, reload).await?;
    drop(fs::remove_file(state.path(control::SOCKET)));
    Ok(code)
}

/// Whether there is to be a relay: where nobody but this machine comes, nobody needs it.
fn wants_relay(settings: &Settings, file: &File) -> bool {
    if !settings.relay || settings.listen.ip().is_loopback() {
        return false;
    }
    let has_address = file.relay.has_address(settings.listen);
    if !has_address {
        tracing::warn!("no relay: this machine has no way to other networks (see relay_ip)");
    }
    has_address
}

/// Waits for a signal or for a part to end, then ends the others. A second signal does not wait.
async fn supervise(
    tasks: &mut JoinSet<anyhow::Result<()>>,
    drain: &CancellationToken,
    mut signals: Signals,
    mut reload: Reload<'_>,
) -> anyhow::Result<ExitCode> {
    let outcome = loop {
        tokio::select! {
            asked = signals.next() => match asked {
                Asked::Reload => reload.run(),
                end @ (Asked::Interrupt | Asked::Terminate) => break Ok(end.code()),
            },
            Some(ended) = tasks.join_next() => break match ended {
                Ok(Ok(())) => Err(anyhow::anyhow!("a part of portway ended by itself")),
                Ok(Err(error)) => Err(error),
                Err(panic) => Err(panic.into()),
            },
        }
    };
    drain.cancel();
    if std::io::stderr().is_terminal() {
        eprintln!("portway: ending; requests under way may finish (once more: at once)");
    }
    let ended = async { while tasks.join_next().await.is_some() {} };
    tokio::select! {
        () = ended => {}
        () = tokio::time::sleep(END_TIMEOUT) => {}
        _ = signals.end() => {}
    }
    outcome
}

/// What SIGHUP needs.
struct Reload<'a> {
    global: &'a Global,
    args: &'a Up,
    settings: Settings,
    links: Links,
}

impl Reload<'_> {
    /// Reads the configuration again and applies its services, quotas of the relay and the
    /// certificate. A bad one changes nothing.
    fn run(&mut self) {
        let read = File::load(self.global)
            .and_then(|file| Ok((Settings::resolve(self.args, &file)?, file.relay)));
        let applied = read.and_then(|(new, relay)| {
            if let Some(files) = self.settings.tls() {
                let trusted = pinned::client_config(&files.certificate)?;
                self.links.signaling.renew(&files)?;
                self.links.gateway.trust(trusted);
            }
            if let Some(beside) = &self.links.relay {
                beside.reload(&relay)?;
            }
            self.services(new);
            Ok(())
        });
        match applied {
            Ok(()) => tracing::info!("the configuration was reloaded"),
            Err(error) => tracing::error!("the configuration is kept as it was: {error:#}"),
        }
    }

    fn services(&mut self, new: Settings) {
        let gateway = &self.links.gateway;
        let mut expose = Vec::new();
        for old in &self.settings.expose {
            if new.expose.iter().any(|service| service.name == old.name) {
                continue;
            }
            gateway.remove_service(&old.name);
        }
        for service in &new.expose {
            let known = self.settings.expose.contains(service);
            if !known && let Err(error) = gateway.add_service(NewService::from(service).spec()) {
                tracing::error!(service = %service.name, %error, "a service is left out");
                continue;
            }
            expose.push(service.clone());
        }
        let rest = Settings {
            expose,
            ..self.settings.clone()
        };
        let wanted = Settings {
            expose: rest.expose.clone(),
            ..new
        };
        if rest != wanted {
            tracing::warn!("settings of other kinds take effect at the next start");
        }
        self.settings = rest;
    }
}

fn announce(
    format: Format,
    settings: &Settings,
    links: &Links,
    names: &[portway_protocol::id::ServiceName],
) -> anyhow::Result<()> {
    let services = names
        .iter()
        .map(|name| {
            let granted = links.owner_link(name)?;
            Ok(Exposed {
                name: name.clone(),
                url: format!("{}/", links.origin(name)),
                link: granted.link,
            })
        })
        .collect::<anyhow::Result<Vec<_>>>()?;
    let ready = Ready {
        event: "ready",
        cluster: settings.cluster.to_string(),
        node: node_name().to_string(),
        portal: format!("{}/", links.signaling.origin(&Origin::Portal)),
        services,
        relay: links.relay.as_ref().map(|relay| relay.url().to_owned()),
    };
    output::print(format, &ready, human)?;
    Ok(())
}

fn human(ready: &Ready) -> String {
    let mut text = String::new();
    for service in &ready.services {
        text.push_str(&format!(
            "\n  {} is open at\n\n  {}\n",
            service.name, service.link
        ));
        if output::is_fancy()
            && let Some(qr) = output::qr(&service.link)
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

/// `with_relay`: that answers STUN too, on the same port.
fn signaling_config(
    settings: &Settings,
    cluster_key: &SigningKey,
    with_relay: bool,
) -> anyhow::Result<Config> {
    Ok(Config {
        listen: settings.listen,
        cluster: settings.cluster.clone(),
        cluster_keys: vec![cluster_key.public()],
        domain: settings
            .domain
            .clone()
            .unwrap_or_else(|| "localhost".to_owned()),
        tls: settings.tls(),
        ice_servers: ice_servers(settings)?,
        stun: match (settings.stun, with_relay) {
            (false, _) => Stun::Nobody,
            (true, false) => Stun::Own,
            (true, true) => Stun::Relay,
        },
        version: crate::VERSION.to_owned(),
    })
}

fn registry(state: &State) -> anyhow::Result<Sqlite> {
    let path = state.path(REGISTRY);
    Sqlite::open(&path).map_err(|error| {
        Failure::configuration(format!(
            "cannot use {}: {error} (it holds history only: without it portway starts anew)",
            path.display()
        ))
        .into()
    })
}

fn ice_servers(settings: &Settings) -> anyhow::Result<Vec<IceServer>> {
    let password = match &settings.turn_password_file {
        Some(path) => Some(
            fs::read_to_string(path)
                .with_context(|| format!("cannot read {}", path.display()))?
                .trim()
                .to_owned(),
        ),
        None => None,
    };
    let server = |url: &String| {
        let is_turn = url.starts_with("turn");
        IceServer {
            urls: vec![url.clone()],
            username: is_turn.then(|| settings.turn_username.clone()).flatten(),
            credential: is_turn.then(|| password.clone()).flatten(),
        }
    };
    Ok(settings.ice_servers.iter().map(server).collect())
}

fn gateway_config(
    settings: &Settings,
    state: &State,
    cluster_key: &SigningKey,
    signaling: &Signaling,
    relay: Option<Arc<Beside>>,
) -> anyhow::Result<GatewayConfig> {
    let node = node_name();
    let node_key = state.key(NODE_KEY)?;
    let now = unix_now();
    let claims = MachineClaims {
        iss: settings.cluster.clone(),
        aud: settings.cluster.clone(),
        sub: node.clone(),
        node_id: node.clone(),
        cluster_id: settings.cluster.clone(),
        iat: now,
        exp: now + MACHINE_TOKEN_LIFETIME,
        jti: random_id(),
        cnf: Confirmation {
            ed25519: node_key.public(),
        },
    };
    let listen = signaling.local_addr()?;
    let origin = signaling.handle().origin(&Origin::Holder);
    let host = origin.split("://").nth(1).unwrap_or_default().to_owned();
    Ok(GatewayConfig {
        cluster: settings.cluster.clone(),
        cluster_key: cluster_key.public(),
        node,
        node_key,
        machine_token: claims.issue(cluster_key),
        signaling: SignalingEndpoint {
            address: Some(reachable(listen)),
            host,
            tls: settings
                .tls_cert
                .as_deref()
                .map(pinned::client_config)
                .transpose()?,
        },
        shortcut: relay.map(|relay| relay as Arc<dyn Shortcut>),
        grants_file: state.path(GRANTS),
        version: crate::VERSION.to_owned(),
        commit: crate::COMMIT.to_owned(),
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

/// This machine's host name as a DNS label.
pub(crate) fn node_name() -> NodeId {
    let host = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let first = host.trim().split('.').next().unwrap_or_default();
    let label: String = first
        .to_ascii_lowercase()
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c } else { '-' })
        .collect();
    label
        .trim_matches('-')
        .parse()
        .unwrap_or_else(|_| "node".parse().expect("a valid label"))
}
