//! `portway up`: signaling, gateway and the services given, in one process.

use std::fs;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use portway_gateway::config::SignalingEndpoint;
use portway_gateway::{Gateway, GatewayConfig};
use portway_protocol::id::NodeId;
use portway_protocol::key::SigningKey;
use portway_protocol::signal::IceServer;
use portway_protocol::token::Confirmation;
use portway_protocol::token::machine::MachineClaims;
use portway_signaling::config::TlsFiles;
use portway_signaling::host::Origin;
use portway_signaling::store::Sqlite;
use portway_signaling::{Assets, Config, Signaling};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use serde::Serialize;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::args::{Format, Global, Up};
use crate::control::{self, Exposed};
use crate::demo::Demo;
use crate::exit::{self, Failure};
use crate::links::{Links, random_id, unix_now};
use crate::state::State;
use crate::{assets, output};

/// Files in the state directory.
pub(crate) const CLUSTER_KEY: &str = "cluster.key";
pub(crate) const CLUSTER_NAME: &str = "cluster.name";
const NODE_KEY: &str = "node.key";
const GRANTS: &str = "grants.json";
const REGISTRY: &str = "registry.db";

/// Life of this node's own machine token; made anew at every start.
const MACHINE_TOKEN_LIFETIME: u64 = 30 * 24 * 3600;

/// Time for an orderly end after the first signal.
const DRAIN: Duration = Duration::from_secs(5);

/// Printed with `--json` when everything runs.
#[derive(Serialize)]
struct Ready {
    event: &'static str,
    cluster: String,
    node: String,
    portal: String,
    services: Vec<Exposed>,
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
    let state = State::locate(global.state.as_deref())?;
    state.prepare()?;
    let control = control::bind(&state.path(control::SOCKET)).await?;
    let cluster_key = state.key(CLUSTER_KEY)?;
    fs::write(state.path(CLUSTER_NAME), args.cluster.as_str())?;

    let signaling = Signaling::bind(
        signaling_config(args, &cluster_key)?,
        Assets::new(assets::FILES, &assets::hash()),
        Box::new(registry(&state)?),
    )
    .await
    .map_err(|error| Failure::configuration(error.to_string()))?;
    let signaling_handle = signaling.handle();
    let gateway = Gateway::new(gateway_config(args, &state, &cluster_key, &signaling)?)?;
    let links = Links {
        cluster: args.cluster.clone(),
        cluster_key,
        gateway: gateway.handle(),
        signaling: signaling_handle.clone(),
        state: state.clone(),
    };

    let cancel = CancellationToken::new();
    let mut tasks: JoinSet<anyhow::Result<()>> = JoinSet::new();
    let mut exposed = Vec::new();
    for service in &args.expose {
        let spec = super::client::new_service(service).spec();
        links.gateway.add_service(spec)?;
        exposed.push(service.name.clone());
    }
    if args.expose.is_empty() {
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
    let gateway_cancel = cancel.clone();
    tasks.spawn(async move {
        gateway.run(gateway_cancel).await;
        Ok(())
    });
    tokio::select! {
        () = links.gateway.online() => {}
        Some(ended) = tasks.join_next() => ended??,
    }
    announce(global.format(), args, &links, &exposed)?;
    let code = supervise(&mut tasks, &cancel).await?;
    drop(fs::remove_file(state.path(control::SOCKET)));
    Ok(code)
}

/// Waits for a signal or for a part to end, then ends the others.
async fn supervise(
    tasks: &mut JoinSet<anyhow::Result<()>>,
    cancel: &CancellationToken,
) -> anyhow::Result<ExitCode> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let outcome = tokio::select! {
        _ = interrupt.recv() => Ok(ExitCode::from(exit::INTERRUPTED)),
        _ = terminate.recv() => Ok(ExitCode::SUCCESS),
        Some(ended) = tasks.join_next() => match ended {
            Ok(Ok(())) => Err(anyhow::anyhow!("a part of portway ended by itself")),
            Ok(Err(error)) => Err(error),
            Err(panic) => Err(panic.into()),
        },
    };
    cancel.cancel();
    let drain = async { while tasks.join_next().await.is_some() {} };
    tokio::select! {
        () = drain => {}
        () = tokio::time::sleep(DRAIN) => {}
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    outcome
}

fn announce(
    format: Format,
    args: &Up,
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
        cluster: args.cluster.to_string(),
        node: node_name().to_string(),
        portal: format!("{}/", links.signaling.origin(&Origin::Portal)),
        services,
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

fn signaling_config(args: &Up, cluster_key: &SigningKey) -> anyhow::Result<Config> {
    let tls = match (&args.tls_cert, &args.tls_key) {
        (Some(certificate), Some(key)) => Some(TlsFiles {
            certificate: certificate.clone(),
            key: key.clone(),
        }),
        (None, None) => None,
        _ => {
            return Err(Failure::configuration("--tls-cert and --tls-key belong together").into());
        }
    };
    Ok(Config {
        listen: args.listen,
        cluster: args.cluster.clone(),
        cluster_keys: vec![cluster_key.public()],
        domain: args
            .domain
            .clone()
            .unwrap_or_else(|| "localhost".to_owned()),
        tls,
        ice_servers: ice_servers(args)?,
        stun: !args.no_stun,
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

fn ice_servers(args: &Up) -> anyhow::Result<Vec<IceServer>> {
    let password = match &args.turn_password_file {
        Some(path) => Some(
            fs::read_to_string(path)
                .with_context(|| format!("cannot read {}", path.display()))?
                .trim()
                .to_owned(),
        ),
        None => None,
    };
    args.ice_server
        .iter()
        .map(|url| {
            let is_turn = url.starts_with("turn:") || url.starts_with("turns:");
            if !is_turn && !url.starts_with("stun:") {
                return Err(Failure::configuration(format!(
                    "`{url}`: an ICE server starts with stun:, turn: or turns:"
                ))
                .into());
            }
            Ok(IceServer {
                urls: vec![url.clone()],
                username: is_turn.then(|| args.turn_username.clone()).flatten(),
                credential: is_turn.then(|| password.clone()).flatten(),
            })
        })
        .collect()
}

fn gateway_config(
    args: &Up,
    state: &State,
    cluster_key: &SigningKey,
    signaling: &Signaling,
) -> anyhow::Result<GatewayConfig> {
    let node = node_name();
    let node_key = state.key(NODE_KEY)?;
    let now = unix_now();
    let claims = MachineClaims {
        iss: args.cluster.clone(),
        aud: args.cluster.clone(),
        sub: node.clone(),
        node_id: node.clone(),
        cluster_id: args.cluster.clone(),
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
        cluster: args.cluster.clone(),
        cluster_key: cluster_key.public(),
        node,
        node_key,
        machine_token: claims.issue(cluster_key),
        signaling: SignalingEndpoint {
            address: reachable(listen),
            host,
            tls: args.tls_cert.as_deref().map(own_certificate).transpose()?,
        },
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

/// Trusts just the certificate that this very process presents.
fn own_certificate(path: &std::path::Path) -> anyhow::Result<Arc<rustls::ClientConfig>> {
    let mut roots = rustls::RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(path)? {
        roots.add(certificate?)?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config))
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
