//! `[gateway]`: what a gateway on its own knows of its cluster.

use std::path::{Path, PathBuf};

use portway_protocol::id::{ClusterName, NodeId};
use portway_protocol::key::PublicKey;
use portway_protocol::rotation::Rotation;
use serde::Deserialize;
use toml::Spanned;

use super::{File, optional, parse_all};
use crate::args;
use crate::cluster::Kept;
use crate::exit::Failure;
use crate::node;
use portway_gateway::Limits;
use portway_gateway::enrolment::Enrolled;
use portway_gateway::portal::Portal;

/// `[gateway]`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct GatewayFile {
    cluster_key: Option<Spanned<String>>,
    node: Option<Spanned<String>>,
    machine_token_file: Option<PathBuf>,
    signaling: Vec<Spanned<String>>,
    signaling_ca: Option<PathBuf>,
    #[serde(skip)]
    parsed: Parsed,
}

/// What is text in a file, understood.
#[derive(Debug, Default)]
struct Parsed {
    cluster_key: Option<PublicKey>,
    node: Option<NodeId>,
    signaling: Vec<Portal>,
}

/// What a gateway shall do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Settings {
    pub(crate) cluster: ClusterName,
    pub(crate) cluster_key: PublicKey,
    /// How it came to be that, where this machine has joined.
    pub(crate) rotations: Vec<Rotation>,
    pub(crate) node: NodeId,
    /// Of a token that was made by hand.
    pub(crate) machine_token_file: Option<PathBuf>,
    /// At least one.
    pub(crate) signaling: Vec<Portal>,
    pub(crate) signaling_ca: Option<PathBuf>,
    /// Each name once.
    pub(crate) expose: Vec<args::Exposed>,
    pub(crate) limits: Limits,
}

impl GatewayFile {
    /// Understands what is text; a mistake is told with its line. Paths are relative to `folder`.
    pub(super) fn understand(&mut self, text: &str, folder: &Path) -> Result<(), String> {
        self.parsed = Parsed {
            cluster_key: optional(text, self.cluster_key.as_ref())?,
            node: optional(text, self.node.as_ref())?,
            signaling: parse_all(text, &self.signaling)?,
        };
        let paths = [&mut self.machine_token_file, &mut self.signaling_ca];
        for path in paths.into_iter().flatten() {
            *path = folder.join(&*path);
        }
        Ok(())
    }
}

impl Settings {
    /// What the command line says, and for the rest the file, and for the rest what this machine has got
    /// when it joined, and for the rest the defaults.
    pub(crate) fn resolve(
        args: &args::Gateway,
        file: &File,
        joined: Option<&Enrolled>,
    ) -> Result<Self, Failure> {
        let GatewayFile {
            machine_token_file,
            signaling_ca,
            parsed,
            ..
        } = &file.gateway;
        let known = file.cluster.as_ref();
        let joined = joined.filter(|it| known.is_none_or(|known| *known == it.cluster));
        let cluster = known.or(joined.map(|it| &it.cluster)).cloned();
        let cluster = cluster.ok_or_else(|| {
            Failure::configuration(
                "a gateway needs a cluster: join one with `portway join` (`portway token issue join` makes the \
                 token where the cluster key is), or name it in the configuration file: `cluster = \"home\"`",
            )
        })?;
        let rotations = match (parsed.cluster_key, joined) {
            (None, Some(joined)) => joined.rotations.clone(),
            (Some(_), _) | (None, None) => Vec::new(),
        };
        let cluster_key = parsed.cluster_key.or(joined.map(|it| it.cluster_key));
        let cluster_key = cluster_key.ok_or_else(|| {
            Failure::configuration(
                "[gateway] needs `cluster_key = \"KEY\"`: whom it believes. `portway init` printed the \
                 key; `portway key show` does it again",
            )
        })?;
        let (signaling, ca) = match joined {
            Some(joined) if parsed.signaling.is_empty() => {
                (&joined.signaling, joined.signaling_ca.as_ref())
            }
            Some(_) | None => (&parsed.signaling, None),
        };
        if signaling.is_empty() {
            return Err(Failure::configuration(format!(
                "[gateway] needs `signaling = [\"https://{cluster}.example.org\"]`: where it meets browsers"
            )));
        }
        if let Some(portal) = signaling.iter().find(|it| !it.is_of(&cluster)) {
            return Err(Failure::configuration(format!(
                "`{portal}` is not of the cluster `{cluster}`: that would be {}://{cluster}.DOMAIN",
                portal.scheme()
            )));
        }
        Ok(Self {
            cluster,
            cluster_key,
            rotations,
            node: parsed
                .node
                .clone()
                .or_else(|| joined.map(|it| it.node.clone()))
                .unwrap_or_else(node::host_name),
            machine_token_file: machine_token_file.clone(),
            signaling: signaling.clone(),
            signaling_ca: signaling_ca.as_ref().or(ca).cloned(),
            expose: file.services(&args.expose),
            limits: file.limits.limits(),
        })
    }

    /// Whether its cluster is this one.
    pub(crate) fn is_of(&self, cluster: &Kept) -> bool {
        self.cluster == cluster.name && cluster.keys().contains(&self.cluster_key)
    }

    /// Whether it is as this machine has joined.
    pub(crate) fn has_joined(&self, enrolled: &Enrolled) -> bool {
        self.cluster == enrolled.cluster
            && self.cluster_key == enrolled.cluster_key
            && self.node == enrolled.node
    }

    /// Whether the other differs in nothing but what a reload applies.
    pub(crate) fn is_like(&self, other: &Self) -> bool {
        let rest = |settings: &Self| Self {
            machine_token_file: None,
            expose: Vec::new(),
            ..settings.clone()
        };
        rest(self) == rest(other)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve(text: &str) -> Result<Settings, String> {
        let file = File::parse(text, Path::new("/etc/portway"))?;
        Settings::resolve(&args::Gateway::default(), &file, None).map_err(|error| error.to_string())
    }

    #[test]
    fn a_gateway_is_told_its_cluster_and_where_browsers_are() {
        let key = portway_protocol::key::SigningKey::from_seed(
            &portway_protocol::secret::Secret::new([1; 32]),
        );
        let key = key.public();
        let gateway = format!("[gateway]\ncluster_key = \"{key}\"\nnode = \"office\"\n");
        let urls = "signaling = [\"https://home.example.org\", \"http://home.localhost:8080\"]\n";
        let whole = format!("cluster = \"home\"\n{gateway}{urls}machine_token_file = \"token\"\n");
        let settings = resolve(&whole).unwrap();
        assert_eq!(settings.cluster_key, key);
        assert_eq!(settings.node.to_string(), "office");
        assert_eq!(settings.signaling.len(), 2);
        assert_eq!(
            settings.machine_token_file.as_deref(),
            Some(Path::new("/etc/portway/token"))
        );
        for (text, missing) in [
            (whole.replace("cluster = \"home\"\n", ""), "needs a cluster"),
            (whole.replace(urls, ""), "needs `signaling"),
            (
                whole.replace("home.example.org", "other.example.org"),
                "not of the cluster",
            ),
            ("cluster = \"home\"\n".to_owned(), "needs `cluster_key"),
        ] {
            let problem = resolve(&text).unwrap_err();
            assert!(problem.contains(missing), "{problem}");
        }
    }
}
