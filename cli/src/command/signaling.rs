//! `portway signaling`: where browsers and gateways meet, alone.

use std::process::ExitCode;
use std::sync::Arc;

use portway_protocol::id::ClusterName;
use portway_signaling::config::Stun;
use portway_signaling::relay::Issuer;
use serde::Serialize;

use crate::args::{self, Format, Global};
use crate::config::File;
use crate::config::signaling::SignalingFile;
use crate::config::web::Web;
use crate::control::Parts;
use crate::control::status::{Instance, Role};
use crate::exit::Failure;
use crate::output;
use crate::relay::tickets::Tickets;
use crate::role::{self, Process, signaling};
use crate::state;
use portway_gateway::portal::Portal;

/// Printed when it serves.
#[derive(Serialize)]
struct Ready {
    event: &'static str,
    role: Role,
    cluster: String,
    portal: String,
}

/// Runs until a signal.
pub(crate) fn run(global: &Global, args: &args::Signaling) -> anyhow::Result<ExitCode> {
    signaling::require_pages()?;
    role::block_on(serve(global, args))
}

async fn serve(global: &Global, args: &args::Signaling) -> anyhow::Result<ExitCode> {
    let file = File::load(global)?;
    let web = Web::resolve(&args.web, &file)?;
    let cluster = cluster(&web)?;
    let keys = file.signaling.cluster_keys()?;
    let relays = issuers(&file.signaling)?;
    let state = state::configured(global, &file)?;
    let mut process = Process::begin(&state).await?;
    let stun = if web.stun { Stun::Own } else { Stun::Nobody };
    let service = signaling::bind(&web, &cluster, keys.clone(), stun, &state).await?;
    let handle = service.handle();
    handle.offer_relays(relays);
    // Nothing is under way here that could not come again: it ends at once.
    process.cancel = process.drain.clone();
    process.spawn_signaling(service);
    let portal = signaling::portal(&handle)?;
    let parts = Parts {
        about: Instance::new(Role::Signaling),
        signaling: Some(handle.clone()),
        node: None,
        relay: None,
    };
    let ready = async { announce(global.format(), &cluster, &portal) };
    let reload = || {
        let file = File::load(global)?;
        let new = Web::resolve(&args.web, &file)?;
        let relays = issuers(&file.signaling)?;
        if let Some(files) = web.tls() {
            handle.renew(&files)?;
        }
        handle.offer_relays(relays);
        if new != web || file.signaling.cluster_keys()? != keys {
            tracing::warn!("settings of other kinds take effect at the next start");
        }
        Ok(())
    };
    process.run(parts, ready, reload).await
}

fn cluster(web: &Web) -> Result<ClusterName, Failure> {
    web.cluster.clone().ok_or_else(|| {
        Failure::configuration(
            "a signaling service needs the name of its cluster: `cluster = \"home\"`, or --cluster",
        )
    })
}

fn issuers(file: &SignalingFile) -> anyhow::Result<Vec<Arc<dyn Issuer>>> {
    let relays = file.relays().iter();
    relays
        .map(|relay| Ok(Arc::new(Tickets::elsewhere(relay)?) as Arc<dyn Issuer>))
        .collect()
}

fn announce(format: Format, cluster: &ClusterName, portal: &Portal) -> anyhow::Result<()> {
    let ready = Ready {
        event: "ready",
        role: Role::Signaling,
        cluster: cluster.to_string(),
        portal: format!("{portal}/"),
    };
    output::print(format, &ready, |ready| {
        format!(
            "\n  The cluster {} meets at {}\n\n  Its gateways need: [gateway] signaling = [\"{portal}\"]\n  \
             Ctrl-C ends it.",
            ready.cluster, ready.portal
        )
    })?;
    Ok(())
}
