//! `portway key show`: the public keys of a state directory.

use serde::Serialize;

use crate::args::{Global, Key};
use crate::cluster::Cluster;
use crate::state::State;
use crate::{node, output};

#[derive(Serialize)]
struct Keys {
    #[serde(skip_serializing_if = "Option::is_none")]
    cluster: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cluster_key: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cluster_words: Option<String>,
    node_key: String,
}

/// Runs the sub-command.
pub(crate) fn run(global: &Global, args: Key) -> anyhow::Result<()> {
    match args {
        Key::Show => show(global),
    }
}

fn show(global: &Global) -> anyhow::Result<()> {
    let state = State::locate(global)?;
    state.prepare()?;
    let cluster = Cluster::open(&state)?;
    let keys = Keys {
        cluster: cluster.as_ref().map(|it| it.name.to_string()),
        cluster_key: cluster.as_ref().map(|it| it.key.public().to_string()),
        cluster_words: cluster
            .as_ref()
            .map(|it| it.key.public().words().to_string()),
        node_key: node::key(&state)?.public().to_string(),
    };
    output::print(global.format(), &keys, |keys| {
        let mut text = String::new();
        if let (Some(name), Some(key), Some(words)) =
            (&keys.cluster, &keys.cluster_key, &keys.cluster_words)
        {
            text.push_str(&format!(
                "cluster      {name}\ncluster key  {key}\n             {words}\n"
            ));
        }
        text.push_str(&format!("node key     {}", keys.node_key));
        text
    })?;
    Ok(())
}
