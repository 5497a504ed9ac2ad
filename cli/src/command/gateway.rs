//! `portway gateway`: opens this machine's services, by signaling services that run elsewhere.

use std::fs;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use portway_gateway::config::SignalingEndpoint;
use portway_gateway::proxy::connect::tls_config;
use portway_gateway::service::Trust;
use portway_gateway::{Gateway, GatewayConfig, GatewayHandle, StreamRelays};
use portway_protocol::id::ServiceName;
use portway_protocol::key::{PublicKey, SigningKey};
use portway_protocol::limits::MAX_TOKEN;
use serde::Serialize;
use tokio::sync::watch;

use crate::args::{self, Format, Global};
use crate::cluster::{Current, Kept, MAX_MACHINE_LIFETIME};
use crate::config::File;
use crate::config::gateway::Settings;
use crate::control::Parts;
use crate::control::gateway::{Node, Owner};
use crate::control::status::{Instance, Role};
use crate::enrolment::maker::Maker;
use crate::exit::Failure;
use crate::links::{Links, unix_now};
use crate::role::{self, Process};
use crate::state::{self, State};
use crate::{opener, output};
use portway_gateway::enrolment::Certificate;
use portway_gateway::enrolment::Enrolled;
use portway_gateway::enrolment::certificate::By;
use portway_gateway::enrolment::renewal::{Maker as _, Renewal};
use portway_gateway::grants::GRANTS_FILE;
use portway_gateway::portal::Portal;
use portway_gateway::revocations;

/// A machine token that expires within this time is worth a warning.
const RENEW_WITHIN: Duration = Duration::from_secs(7 * 24 * 3600);

/// Printed when a signaling service knows the node.
#[derive(Serialize)]
struct Ready {
    event: &'static str,
    role: Role,
    cluster: String,
    node: String,
    services: Vec<Offer>,
}

#[derive(Serialize)]
struct Offer {
    name: ServiceName,
    /// What to run on the other machine, where no browser opens it.
    #[serde(skip_serializing_if = "Option::is_none")]
    command: Option<String>,
}

/// Runs until a signal.
pub(crate) fn run(global: &Global, args: &args::Gateway) -> anyhow::Result<ExitCode> {
    role::block_on(serve(global, args))
}

async fn serve(global: &Global, args: &args::Gateway) -> anyhow::Result<ExitCode> {
    let file = File::load(global)?;
    let state = state::configured(global, &file)?;
    state.prepare()?;
    let joined = Enrolled::open(&state)?;
    let settings = Settings::resolve(args, &file, joined.as_ref())?;
    let node_key = state.node_key()?;
    let own = Kept::find(&state)?.filter(|kept| settings.is_of(kept));
    let own = own.map(|kept| kept.open(global, &state)).transpose()?;
    let own = own.map(Current::new);
    let mut maker = maker(&settings, own.as_ref(), joined.as_ref());
    let certificate = match &mut maker {
        Some(maker) => certificate(maker, &settings, &node_key, &state).await?,
        None => made_by_hand(&settings, node_key.public())?,
    };
    let tls = tls_of(&settings)?;
    let mut process = Process::begin(&state).await?;
    let gateway = Gateway::new(GatewayConfig {
        cluster: settings.cluster.clone(),
        cluster_key: certificate.cluster_key,
        node: settings.node.clone(),
        node_key: node_key.clone(),
        certificate: certificate.shown(),
        revocations: revocations::kept(&state),
        signaling: endpoints(&settings, &tls),
        shortcut: None,
        stream_relays: Arc::new(StreamRelays::new(tls)),
        grants_file: state.path(GRANTS_FILE),
        audit_dir: state.dir().to_owned(),
        limits: settings.limits,
        version: crate::VERSION.to_owned(),
        commit: crate::COMMIT.to_owned(),
    })?;
    let handle = gateway.handle();
    let (mut offered, names) = process.offer(&handle, &settings.expose).await?;
    let renewed = maker.as_ref().map_or(By::Hand, |_| By::Itself);
    let standing = watch::Sender::new(certificate.standing(renewed));
    let portals: Arc<[Portal]> = settings.signaling.clone().into();
    let owner = own.map(|cluster| {
        let node = &settings.node;
        Owner::new(cluster, &state, &handle, &portals, node, file.lists)
    });
    if let Some(owner) = &owner {
        process.spawn_issuer(owner.issuer.clone()).await?;
    }
    process.spawn_gateway(gateway, &state);
    let parts = Parts {
        about: Instance::new(Role::Gateway),
        signaling: None,
        node: Some(Node {
            gateway: handle.clone(),
            portals,
            links: links(&settings, &node_key)?,
            standing: standing.subscribe(),
            owner,
            state: state.clone(),
        }),
        relay: None,
    };
    let by_hand = maker.is_none().then(|| standing.clone());
    if let Some(maker) = maker {
        process.spawn_renewal(Renewal {
            maker,
            node: settings.node.clone(),
            key: node_key.clone(),
            state: state.clone(),
            gateway: handle.clone(),
            standing,
            certificate,
        });
    }
    let ready = async {
        handle.online().await;
        announce(global.format(), &settings, &handle, &names)
    };
    let reload = || {
        let new = Settings::resolve(args, &File::load(global)?, joined.as_ref())?;
        let by_hand = by_hand.as_ref();
        let certificate = by_hand
            .map(|_| machine_token_of(&settings, &new, node_key.public()))
            .transpose()?;
        if let Some(ca) = &settings.signaling_ca {
            let tls = tls_config(&Trust::Authority(ca.clone()))?;
            handle.trust_relays(tls.clone());
            handle.trust(Arc::new(tls));
        }
        if let Some((certificate, standing)) = certificate.zip(by_hand) {
            standing.send_replace(certificate.standing(By::Hand));
            handle.renew(certificate.cluster_key, certificate.shown());
        }
        let is_same = new.is_like(&settings);
        offered.reload(new.expose);
        if !is_same {
            tracing::warn!("settings of other kinds take effect at the next start");
        }
        Ok(())
    };
    process.run(parts, ready, reload).await
}

/// Made by this node, for its own services. Its first signaling service introduces whoever has one.
fn links(settings: &Settings, node_key: &SigningKey) -> anyhow::Result<Links> {
    let portal = settings.signaling.first();
    Ok(Links {
        cluster: settings.cluster.clone(),
        cluster_key: settings.cluster_key,
        issuer: node_key.clone(),
        portal: portal.context("signaling is configured")?.clone(),
    })
}

/// Who makes the certificates of this node, unless somebody does by hand.
fn maker(settings: &Settings, own: Option<&Current>, joined: Option<&Enrolled>) -> Option<Maker> {
    if settings.machine_token_file.is_some() {
        return None;
    }
    let own = own.map(|own| Maker::Cluster(own.clone(), MAX_MACHINE_LIFETIME));
    own.or_else(|| {
        let joined = joined.filter(|it| settings.has_joined(it))?;
        Some(Maker::Issuer(Box::new(joined.clone())))
    })
}

/// The certificate that is there, or one that is made now.
async fn certificate(
    maker: &mut Maker,
    settings: &Settings,
    node_key: &SigningKey,
    state: &State,
) -> anyhow::Result<Certificate> {
    if let Maker::Issuer(_) = maker {
        let kept = Settings {
            machine_token_file: Some(Enrolled::token_file(state)),
            ..settings.clone()
        };
        if let Ok(certificate) = machine_token(&kept, node_key.public()) {
            return Ok(certificate);
        }
    }
    let made = maker.make(&settings.node, node_key, state).await;
    made.context("the certificate of this machine has ended and was not renewed; if it is refused, join again")
}

/// The token of the file that is named now, for the node that runs.
fn machine_token_of(
    running: &Settings,
    new: &Settings,
    node_key: PublicKey,
) -> Result<Certificate, Failure> {
    let settings = Settings {
        machine_token_file: new.machine_token_file.clone(),
        ..running.clone()
    };
    made_by_hand(&settings, node_key)
}

/// A machine token that nobody renews but people.
fn made_by_hand(settings: &Settings, node_key: PublicKey) -> Result<Certificate, Failure> {
    let certificate = machine_token(settings, node_key)?;
    let left = certificate.expires.saturating_sub(unix_now());
    if left < RENEW_WITHIN.as_secs() {
        let (node, days) = (&settings.node, left / 86_400);
        tracing::warn!(%node, days, "the machine token expires soon: issue another one");
    }
    Ok(certificate)
}

/// Whom to believe to be signaling or a relay.
fn tls_of(settings: &Settings) -> anyhow::Result<rustls::ClientConfig> {
    let trust = match &settings.signaling_ca {
        Some(path) => Trust::Authority(path.clone()),
        None => Trust::System,
    };
    let tls = tls_config(&trust).map_err(|error| Failure::configuration(error.to_string()))?;
    Ok(tls)
}

fn endpoints(settings: &Settings, tls: &rustls::ClientConfig) -> Vec<SignalingEndpoint> {
    let tls = Arc::new(tls.clone());
    let portals = settings.signaling.iter();
    portals.map(|portal| portal.endpoint(&tls)).collect()
}

/// The token that says that this is the node. What is wrong is told with what to do.
fn machine_token(settings: &Settings, node_key: PublicKey) -> Result<Certificate, Failure> {
    let Some(path) = &settings.machine_token_file else {
        let what =
            "a gateway needs a machine token: [gateway] machine_token_file = \"machine.token\"";
        return Err(needs_token(settings, node_key, what));
    };
    let token = read_token(path).map_err(|problem| {
        let what = format!("{}: {problem}", path.display());
        needs_token(settings, node_key, &what)
    })?;
    let refused = |why: String| {
        let what = format!(
            "the machine token in {} is of no use: {why}",
            path.display()
        );
        needs_token(settings, node_key, &what)
    };
    let keys = (settings.cluster_key, settings.rotations.clone());
    let verified = Certificate::verify(token, &settings.cluster, keys);
    let (certificate, claims) = verified.map_err(|error| refused(error.to_string()))?;
    if claims.cnf.ed25519 != node_key {
        return Err(refused("it is for another node key".to_owned()));
    }
    if claims.node_id != settings.node {
        return Err(refused(format!("it is for the node `{}`", claims.node_id)));
    }
    Ok(certificate)
}

fn read_token(path: &Path) -> Result<String, String> {
    let length = fs::metadata(path).map_err(|error| error.to_string())?.len();
    if length > MAX_TOKEN as u64 + 2 {
        return Err("far too large for a token".to_owned());
    }
    let text = fs::read_to_string(path).map_err(|error| error.to_string())?;
    Ok(text.trim().to_owned())
}

fn needs_token(settings: &Settings, node_key: PublicKey, what: &str) -> Failure {
    Failure::configuration(format!(
        "{what}\n\nJoin the cluster with `portway join`, or by hand: the key of this node is {node_key}. Where the \
         key of the cluster `{}` is, run\n\n  \
         portway token issue machine --node {} --key {node_key}\n\nand put what it prints into that file here.",
        settings.cluster, settings.node
    ))
}

fn announce(
    format: Format,
    settings: &Settings,
    gateway: &GatewayHandle,
    names: &[ServiceName],
) -> anyhow::Result<()> {
    let services = gateway.services();
    let named = services.iter().map(|service| &service.spec);
    let named = named.filter(|spec| names.contains(&spec.name));
    let ready = Ready {
        event: "ready",
        role: Role::Gateway,
        cluster: settings.cluster.to_string(),
        node: settings.node.to_string(),
        services: named
            .map(|spec| Offer {
                command: opener::command_only(&spec.name, &spec.target),
                name: spec.name.clone(),
            })
            .collect(),
    };
    output::print(format, &ready, |ready| {
        let mut text = format!("\n  {} of {} offers\n\n", ready.node, ready.cluster);
        for Offer { name, command } in &ready.services {
            if let Some(command) = command {
                text.push_str(&format!("  {name}, no web page: {command}\n"));
                continue;
            }
            for portal in &settings.signaling {
                text.push_str(&format!("  {}/\n", portal.service(name)));
            }
        }
        text.push_str(
            "\n  A link opens a service: `portway share NAME` makes one. Ctrl-C ends it.\n",
        );
        text
    })?;
    Ok(())
}
