//! `portway init`: makes a cluster.

use serde::Serialize;

use crate::args::{Global, Init};
use crate::cluster::{Cluster, Kept};
use crate::exit::Failure;
use crate::output;
use crate::passphrase;
use crate::state::{self, State};

#[derive(Serialize)]
struct Made {
    cluster: String,
    cluster_key: String,
    cluster_words: String,
}

/// Makes the key of a cluster, or shows the one that is there.
pub(crate) fn run(global: &Global, args: &Init) -> anyhow::Result<()> {
    let state = state::locate(global)?;
    state.prepare()?;
    let kept = make(global, &state, args)?;
    let made = Made {
        cluster: kept.name.to_string(),
        cluster_key: kept.public().to_string(),
        cluster_words: kept.public().words().to_string(),
    };
    output::print(global.format(), &made, |made| {
        format!(
            "cluster      {}\ncluster key  {}\n             {}\n\n\
             The private key is in {}. Whoever has it decides what belongs to the cluster: keep a\n\
             backup, and copy it to no machine that serves.\n\n\
             Next:\n  \
             portway signaling   where browsers come; [signaling] cluster_keys = [\"{}\"]\n  \
             portway gateway     on each node; [gateway] cluster_key = \"{}\"\n  \
             portway token issue machine --node NAME --key KEY   here; `portway key show` on the node tells KEY\n\n\
             Or all in one process, here: portway up. Other machines join it with `portway token issue join`.",
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

/// What is there, or made now. A key that is there stays as it is.
fn make(global: &Global, state: &State, args: &Init) -> anyhow::Result<Kept> {
    let kept = match Kept::find(state)? {
        Some(kept) => kept,
        None => {
            let passphrase = if args.encrypt {
                Some(passphrase::chosen(global)?)
            } else {
                passphrase::of_file(global)?
            };
            Cluster::make(state, args.cluster.clone(), passphrase.as_ref())?;
            Kept::required(state)?
        }
    };
    kept.require_name(state, args.cluster.as_ref())?;
    if args.encrypt && !kept.is_sealed() {
        return Err(Failure::configuration(
            "the key is there already, without a passphrase: `portway key encrypt` gives it one",
        )
        .into());
    }
    Ok(kept)
}
