//! The configuration file, TOML. Flag > environment > file > default.
//!
//! One file may be that of `up`, or of one role: [`web`] is what `up` and `signaling` share, [`signaling`],
//! [`gateway`] and [`relay`] are the tables of the roles, [`limits`] is that of every node.
//!
//! ```toml
//! cluster = "home"
//! listen = "127.0.0.1:8080"
//!
//! [services]
//! lab = "http://127.0.0.1:8888"
//! nas = "https://192.168.1.5:5001,insecure"
//! ```

pub(crate) mod gateway;
pub(crate) mod limits;
pub(crate) mod relay;
pub(crate) mod signaling;
pub(crate) mod web;

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use portway_gateway::Limits;
use portway_protocol::id::ClusterName;
use serde::Deserialize;
use toml::Spanned;

use crate::args::{Exposed, Global, Span, Up};
use crate::enrolment::revocation::ListLifetime;
use crate::exit::Failure;
use gateway::GatewayFile;
use limits::LimitsFile;
use relay::RelayFile;
use signaling::SignalingFile;
use web::Web;

/// Largest file that is read.
const MAX_FILE: u64 = 1024 * 1024;

/// Below the user's configuration directory.
const DEFAULT_FILE: &str = "portway/portway.toml";

/// Longest life of relay credentials that are handed out to browsers.
const MAX_CREDENTIALS: Duration = Duration::from_secs(600);

/// What a file says.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct File {
    pub(crate) state: Option<PathBuf>,
    pub(crate) cluster: Option<ClusterName>,
    listen: Option<SocketAddr>,
    domain: Option<String>,
    tls_cert: Option<PathBuf>,
    tls_key: Option<PathBuf>,
    ice_servers: Vec<String>,
    stun: Option<bool>,
    turn_username: Option<String>,
    turn_password_file: Option<PathBuf>,
    /// How long lists of revoked nodes are good for, where the cluster key is.
    #[serde(rename = "revocation_lifetime")]
    pub(crate) lists: ListLifetime,
    services: BTreeMap<String, Spanned<String>>,
    pub(crate) limits: LimitsFile,
    pub(crate) relay: RelayFile,
    pub(crate) signaling: SignalingFile,
    pub(crate) gateway: GatewayFile,
    /// The services, as the command line has them.
    #[serde(skip)]
    expose: Vec<Exposed>,
}

/// What `up` shall do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Settings {
    pub(crate) web: Web,
    pub(crate) relay: bool,
    /// Each name once.
    pub(crate) expose: Vec<Exposed>,
    pub(crate) limits: Limits,
}

impl File {
    /// The file of `--config` or the user's own; an empty one if there is none.
    pub(crate) fn load(global: &Global) -> anyhow::Result<Self> {
        match (&global.config, default_path()) {
            (Some(path), _) => Self::read(path),
            (None, Some(path)) if path.exists() => Self::read(&path),
            (None, _) => Ok(Self::default()),
        }
    }

    fn read(path: &Path) -> anyhow::Result<Self> {
        let unusable = |problem: &dyn std::fmt::Display| {
            Failure::configuration(format!("{}: {problem}", path.display()))
        };
        let metadata = fs::metadata(path).map_err(|error| unusable(&error))?;
        if metadata.len() > MAX_FILE {
            return Err(unusable(&"far too large for a configuration").into());
        }
        let text = fs::read_to_string(path).map_err(|error| unusable(&error))?;
        let folder = path.parent().unwrap_or(Path::new("."));
        Ok(Self::parse(&text, folder).map_err(|problem| unusable(&problem))?)
    }

    /// Paths in a file are relative to its folder.
    fn parse(text: &str, folder: &Path) -> Result<Self, String> {
        let mut file: Self = toml::from_str(text).map_err(|error| error.to_string())?;
        for (name, target) in &file.services {
            let line = line(text, target);
            let exposed: Result<Exposed, String> = format!("{name}={}", target.get_ref()).parse();
            let mut exposed =
                exposed.map_err(|problem| format!("line {line}: service `{name}`: {problem}"))?;
            exposed.trust.resolve(folder);
            file.expose.push(exposed);
        }
        file.limits.understand(text)?;
        file.relay.understand(text, folder)?;
        file.signaling.understand(text, folder)?;
        file.gateway.understand(text, folder)?;
        for path in [
            &mut file.state,
            &mut file.tls_cert,
            &mut file.tls_key,
            &mut file.turn_password_file,
        ]
        .into_iter()
        .flatten()
        {
            *path = folder.join(&*path);
        }
        Ok(file)
    }

    /// The services of the command line, and those of the file with other names.
    pub(crate) fn services(&self, flags: &[Exposed]) -> Vec<Exposed> {
        let mut services = flags.to_vec();
        for service in &self.expose {
            if !services.iter().any(|other| other.name == service.name) {
                services.push(service.clone());
            }
        }
        services
    }
}

impl Settings {
    /// What the command line says, and for the rest the file, and for the rest the defaults.
    pub(crate) fn resolve(args: &Up, file: &File) -> anyhow::Result<Self> {
        Ok(Self {
            web: Web::resolve(&args.web, file)?,
            relay: !args.no_relay && !args.web.no_stun && file.relay.is_enabled(),
            expose: file.services(&args.expose),
            limits: file.limits.limits(),
        })
    }
}

/// Where a file is looked for when none is given (XDG Base Directory).
fn default_path() -> Option<PathBuf> {
    let of = |name| std::env::var_os(name).filter(|value| !value.is_empty());
    let folder = of("XDG_CONFIG_HOME")
        .map(PathBuf::from)
        .or_else(|| Some(PathBuf::from(of("HOME")?).join(".config")))?;
    Some(folder.join(DEFAULT_FILE))
}

/// How long relay credentials are good for.
fn credentials_lifetime(wanted: Option<Span>) -> Duration {
    wanted.map_or(MAX_CREDENTIALS, |Span(wanted)| wanted.min(MAX_CREDENTIALS))
}

fn parse_all<T>(text: &str, values: &[Spanned<String>]) -> Result<Vec<T>, String>
where
    T: std::str::FromStr<Err: std::fmt::Display>,
{
    values.iter().map(|value| parse(text, value)).collect()
}

fn optional<T>(text: &str, value: Option<&Spanned<String>>) -> Result<Option<T>, String>
where
    T: std::str::FromStr<Err: std::fmt::Display>,
{
    value.map(|value| parse(text, value)).transpose()
}

fn parse<T>(text: &str, value: &Spanned<String>) -> Result<T, String>
where
    T: std::str::FromStr<Err: std::fmt::Display>,
{
    let line = line(text, value);
    let parsed = value.get_ref().parse();
    parsed.map_err(|problem: T::Err| format!("line {line}: {problem}"))
}

/// The line on which a value begins.
fn line<T>(text: &str, value: &Spanned<T>) -> usize {
    text[..value.span().start].matches('\n').count() + 1
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::Trust;

    fn parse(text: &str) -> Result<File, String> {
        File::parse(text, Path::new("/etc/portway"))
    }

    #[test]
    fn a_flag_wins_over_the_file_and_the_file_over_the_default() {
        let text = "cluster = \"office\"\n[services]\nlab = \"http://a\"\nnas = \"http://b\"\n";
        let file = parse(text).unwrap();
        let args = Up {
            web: crate::args::Web {
                listen: Some("0.0.0.0:443".parse().unwrap()),
                ..crate::args::Web::default()
            },
            expose: vec!["lab=http://c".parse().unwrap()],
            ..Up::default()
        };
        let settings = Settings::resolve(&args, &file).unwrap();
        let cluster = settings.web.cluster.unwrap();
        assert_eq!(cluster.as_str(), "office");
        assert_eq!(settings.web.listen.port(), 443);
        let targets: Vec<String> = settings
            .expose
            .iter()
            .map(|service| format!("{}={}", service.name, service.target))
            .collect();
        assert_eq!(targets, ["lab=http://c:80", "nas=http://b:80"]);
        assert!(settings.web.stun);
    }

    #[test]
    fn a_mistake_is_told_with_its_line() {
        for (text, line) in [
            ("cluster = \"home\"\nlissten = \"x\"\n", "line 2"),
            ("\n\nlisten = \"nowhere\"\n", "line 3"),
            ("[services]\na = \"http://x\"\nb = \"ftp://x\"\n", "line 3"),
            ("\n[signaling]\ncluster_keys = [\"short\"]\n", "line 3"),
            (
                "[[signaling.relays]]\nurls = [\"http://x\"]\nsecret_file = \"s\"\n",
                "line 2",
            ),
            (
                "[[signaling.relays]]\nurls = []\nsecret_file = \"s\"\ncredentials = \"long\"\n",
                "line 4",
            ),
            ("[gateway]\ncluster_key = \"x\"\n", "line 2"),
            ("[gateway]\n\nnode = \"a.b\"\n", "line 3"),
            ("[gateway]\nsignaling = [\n\"ftp://x\"]\n", "line 3"),
            ("[gateway]\nsecret = 1\n", "line 2"),
            ("[limits]\n\nidle_timeout = \"long\"\n", "line 3"),
            ("[limits]\nconnect_timeout = \"0\"\n", "line 2"),
            ("[limits]\n\nconnections = 0\n", "line 3"),
        ] {
            let problem = parse(text).unwrap_err();
            assert!(problem.contains(line), "{problem}");
        }
    }

    #[test]
    fn paths_are_relative_to_the_file() {
        let file = parse("tls_cert = \"cert.pem\"\n[services]\nnas = \"https://x,ca=ca.pem\"\n");
        let file = file.unwrap();
        assert_eq!(file.tls_cert, Some("/etc/portway/cert.pem".into()));
        assert_eq!(
            file.expose[0].trust,
            Trust::Authority("/etc/portway/ca.pem".into())
        );
    }

    #[test]
    fn the_relay_s_limits_are_understood_and_mistakes_told_with_their_line() {
        let text = "[relay]\nrelay_ip = [\"192.0.2.1\"]\ncredentials = \"1h\"\n\
                    [relay.quota]\nchannels = 3\nbandwidth_per_user = \"10Mbit/s\"\n";
        let relay = parse(text).unwrap().relay;
        let resolved = relay.resolve(&crate::args::Relay::default()).unwrap();
        assert_eq!(resolved.quota.channels, 3);
        let bandwidth = resolved.quota.bandwidth_per_user.map(u64::from);
        assert_eq!(bandwidth, Some(1_250_000));
        assert_eq!(resolved.quota.bandwidth_per_source, None);
        assert_eq!(relay.credentials().as_secs(), 600, "ten minutes at most");
        let wrong = text.replace("10Mbit/s", "fast");
        let told = parse(&wrong).unwrap_err();
        assert!(told.contains("line 6") && told.contains("fast"), "{told}");
    }

    #[test]
    fn what_the_file_leaves_open_is_as_it_is_without() {
        let limits = |text| parse(text).unwrap().limits.limits();
        assert_eq!(limits(""), Limits::default());
        let some = limits("[limits]\nidle_timeout = \"2h\"\n");
        assert_eq!(some.idle_timeout, Some(Duration::from_secs(7200)));
        assert_eq!(some.connections, Limits::default().connections);
        let others = limits("[limits]\nconnect_timeout = \"20s\"\nconnections = 8\n");
        assert_eq!(others.idle_timeout, None);
        assert_eq!(others.connect_timeout.as_secs(), 20);
        assert_eq!(others.connections.get(), 8);
    }

    #[test]
    fn the_files_of_the_manual_are_right() {
        for (page, files) in [
            (include_str!("../../docs/operators/cluster.md"), 4),
            (include_str!("../../docs/operators/configuration.md"), 3),
            (include_str!("../../docs/operators/relay.md"), 1),
        ] {
            let blocks = page.split("```toml\n").skip(1);
            let texts: Vec<&str> = blocks.filter_map(|rest| rest.split("```").next()).collect();
            assert_eq!(texts.len(), files);
            for text in texts {
                let file = parse(text).unwrap_or_else(|problem| panic!("{problem} in\n{text}"));
                if text.contains("machine_token_file") && file.cluster.is_some() {
                    let args = crate::args::Gateway::default();
                    gateway::Settings::resolve(&args, &file, None).unwrap();
                }
            }
        }
    }

    #[test]
    fn halves_are_refused() {
        for text in [
            "tls_cert = \"c\"",
            "domain = \"d.example\"",
            "ice_servers = [\"http://x\"]",
        ] {
            let file = parse(text).unwrap();
            assert!(Settings::resolve(&Up::default(), &file).is_err(), "{text}");
        }
    }
}
