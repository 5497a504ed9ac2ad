//! The signaling part of a process: the pages, and where browsers and gateways meet.

use portway_protocol::id::ClusterName;
use portway_protocol::key::PublicKey;
use portway_signaling::config::Stun;
use portway_signaling::host::Origin;
use portway_signaling::server::SignalingHandle;
use portway_signaling::store::Sqlite;
use portway_signaling::{Assets, Config, Signaling};

use super::Process;
use crate::assets;
use crate::config::web::Web;
use crate::exit::Failure;
use crate::state::State;
use portway_gateway::portal::Portal;

/// File in the state directory: nodes, and what happened.
const REGISTRY: &str = "registry.db";

/// Binds it. `keys`: whose machine tokens are believed.
pub(crate) async fn bind(
    web: &Web,
    cluster: &ClusterName,
    keys: Vec<PublicKey>,
    stun: Stun,
    state: &State,
) -> anyhow::Result<Signaling> {
    let config = Config {
        listen: web.listen,
        cluster: cluster.clone(),
        cluster_keys: keys,
        domain: web.domain_or_localhost(),
        tls: web.tls(),
        ice_servers: web.ice_servers()?,
        stun,
        version: crate::VERSION.to_owned(),
    };
    let assets = Assets::new(assets::FILES, &assets::hash());
    Signaling::bind(config, assets, Box::new(registry(state)?))
        .await
        .map_err(|error| Failure::configuration(error.to_string()).into())
}

/// Its portal, as browsers know it.
pub(crate) fn portal(signaling: &SignalingHandle) -> anyhow::Result<Portal> {
    let origin = signaling.origin(&Origin::Portal);
    origin.parse().map_err(anyhow::Error::msg)
}

/// Refuses to serve pages that are not there.
pub(crate) fn require_pages() -> Result<(), Failure> {
    if assets::are_embedded() {
        return Ok(());
    }
    Err(Failure::configuration(
        "this binary was built without the browser client: build it with `cargo xtask build`",
    ))
}

impl Process {
    /// Serves until everything is cancelled.
    pub(crate) fn spawn_signaling(&mut self, signaling: Signaling) {
        let cancel = self.cancel.clone();
        self.tasks.spawn(async move {
            signaling.run(cancel).await;
            Ok(())
        });
    }
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
