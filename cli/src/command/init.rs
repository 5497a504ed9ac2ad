//! `portway init`: makes a cluster.

use serde::Serialize;

use crate::args::{Global, Init};
use crate::cluster::Cluster;
use crate::output;
use crate::state::State;

#[derive(Serialize)]
struct Made {
    cluster: String,
    cluster_key: String,
    cluster_words: String,
}

/// Makes the key of a cluster, or shows the one that is there.
pub(crate) fn run(global: &Global, args: &Init) -> anyhow::Result<()> {
    let state = State::locate(global)?;
    state.prepare()?;
    let cluster = Cluster::open_or_make(&state, args.cluster.as_ref())?;
    let made = Made {
        cluster: cluster.name.to_string(),
        cluster_key: cluster.key.public().to_string(),
        cluster_words: cluster.key.public().words().to_string(),
    };
    output::print(global.format(), &made, |made| {
        format!(
            "cluster      {}\ncluster key  {}\n             {}\n\n\
             The private key is in {}. Whoever has it decides what belongs to the cluster: keep a\n\
             backup, and copy it to no machine that serves.\n\n\
             Next:\n  \
             portway signaling   where browsers come; [signaling] cluster_keys = [\"{}\"]\n  \
             portway gateway     on each node; [gateway] cluster_key = \"{}\"\n  \
             portway token issue machine --node NAME --key KEY   here; `portway key show` on the node tells KEY",
            made.cluster,
            made.cluster_key,
            made.cluster_words,
            state.dir().display(),
            made.cluster_key,
            made.cluster_key,
        )
    })?;
    Ok(())
}
