//! The configuration file, TOML. Flag > environment > file > default.
//!
//! ```toml
//! cluster = "home"
//! listen = "127.0.0.1:8080"
//!
//! [services]
//! lab = "http://127.0.0.1:8888"
//! nas = "https://192.168.1.5:5001,insecure"
//! ```

pub(crate) mod relay;

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use portway_protocol::id::ClusterName;
use portway_signaling::config::TlsFiles;
use serde::Deserialize;
use toml::Spanned;

use crate::args::{Exposed, Global, Up};
use crate::exit::Failure;
use relay::RelayFile;

/// Largest file that is read.
const MAX_FILE: u64 = 1024 * 1024;

/// Below the user's configuration directory.
const DEFAULT_FILE: &str = "portway/portway.toml";

/// Where browsers meet unless told otherwise: this machine alone.
const DEFAULT_LISTEN: ([u8; 4], u16) = ([127, 0, 0, 1], 8080);

/// Name of the cluster unless told otherwise.
const DEFAULT_CLUSTER: &str = "home";

/// What a file says.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct File {
    pub(crate) state: Option<PathBuf>,
    cluster: Option<ClusterName>,
    listen: Option<SocketAddr>,
    domain: Option<String>,
    tls_cert: Option<PathBuf>,
    tls_key: Option<PathBuf>,
    ice_servers: Vec<String>,
    stun: Option<bool>,
    turn_username: Option<String>,
    turn_password_file: Option<PathBuf>,
    services: BTreeMap<String, Spanned<String>>,
    pub(crate) relay: RelayFile,
    /// The services, as the command line has them.
    #[serde(skip)]
    expose: Vec<Exposed>,
}

/// What `up` shall do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Settings {
    pub(crate) cluster: ClusterName,
    pub(crate) listen: SocketAddr,
    pub(crate) domain: Option<String>,
    pub(crate) tls_cert: Option<PathBuf>,
    pub(crate) tls_key: Option<PathBuf>,
    pub(crate) ice_servers: Vec<String>,
    pub(crate) stun: bool,
    pub(crate) relay: bool,
    pub(crate) turn_username: Option<String>,
    pub(crate) turn_password_file: Option<PathBuf>,
    /// Each name once.
    pub(crate) expose: Vec<Exposed>,
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
            let line = text[..target.span().start].lines().count().max(1);
            let exposed: Result<Exposed, String> = format!("{name}={}", target.get_ref()).parse();
            let mut exposed =
                exposed.map_err(|problem| format!("line {line}: service `{name}`: {problem}"))?;
            exposed.trust.resolve(folder);
            file.expose.push(exposed);
        }
        file.relay.understand(text, folder)?;
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
}

impl Settings {
    /// The certificate, if this end speaks TLS itself.
    pub(crate) fn tls(&self) -> Option<TlsFiles> {
        let (certificate, key) = self.tls_cert.clone().zip(self.tls_key.clone())?;
        Some(TlsFiles { certificate, key })
    }

    /// What the command line says, and for the rest the file, and for the rest the defaults.
    pub(crate) fn resolve(args: &Up, file: &File) -> anyhow::Result<Self> {
        let mut expose = args.expose.clone();
        for service in &file.expose {
            if !expose.iter().any(|other| other.name == service.name) {
                expose.push(service.clone());
            }
        }
        let settings = Self {
            cluster: args
                .cluster
                .clone()
                .or_else(|| file.cluster.clone())
                .unwrap_or_else(|| DEFAULT_CLUSTER.parse().expect("a valid label")),
            listen: args
                .listen
                .or(file.listen)
                .unwrap_or_else(|| DEFAULT_LISTEN.into()),
            domain: args.domain.clone().or_else(|| file.domain.clone()),
            tls_cert: args.tls_cert.clone().or_else(|| file.tls_cert.clone()),
            tls_key: args.tls_key.clone().or_else(|| file.tls_key.clone()),
            ice_servers: if args.ice_server.is_empty() {
                file.ice_servers.clone()
            } else {
                args.ice_server.clone()
            },
            stun: !args.no_stun && file.stun.unwrap_or(true),
            relay: !args.no_relay && !args.no_stun && file.relay.is_enabled(),
            turn_username: args
                .turn_username
                .clone()
                .or_else(|| file.turn_username.clone()),
            turn_password_file: args
                .turn_password_file
                .clone()
                .or_else(|| file.turn_password_file.clone()),
            expose,
        };
        settings.check()?;
        Ok(settings)
    }

    fn check(&self) -> Result<(), Failure> {
        if self.tls_cert.is_some() != self.tls_key.is_some() {
            return Err(Failure::configuration(
                "a certificate and its key belong together: give --tls-cert and --tls-key",
            ));
        }
        if self.domain.is_some() && self.tls_cert.is_none() {
            return Err(Failure::configuration(
                "browsers need a secure origin for a domain: give --tls-cert and --tls-key with --domain",
            ));
        }
        if let Some(url) = self.ice_servers.iter().find(|url| !is_ice_url(url)) {
            return Err(Failure::configuration(format!(
                "`{url}`: an ICE server starts with stun:, turn: or turns:"
            )));
        }
        Ok(())
    }
}

fn is_ice_url(url: &str) -> bool {
    ["stun:", "turn:", "turns:"]
        .iter()
        .any(|scheme| url.starts_with(scheme))
}

/// Where a file is looked for when none is given (XDG Base Directory).
fn default_path() -> Option<PathBuf> {
    let of = |name| std::env::var_os(name).filter(|value| !value.is_empty());
    let folder = of("XDG_CONFIG_HOME")
        .map(PathBuf::from)
        .or_else(|| Some(PathBuf::from(of("HOME")?).join(".config")))?;
    Some(folder.join(DEFAULT_FILE))
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
            listen: Some("0.0.0.0:443".parse().unwrap()),
            expose: vec!["lab=http://c".parse().unwrap()],
            ..Up::default()
        };
        let settings = Settings::resolve(&args, &file).unwrap();
        assert_eq!(settings.cluster.as_str(), "office");
        assert_eq!(settings.listen.port(), 443);
        let targets: Vec<String> = settings
            .expose
            .iter()
            .map(|service| format!("{}={}", service.name, service.target))
            .collect();
        assert_eq!(targets, ["lab=http://c:80", "nas=http://b:80"]);
        assert!(settings.stun);
    }

    #[test]
    fn a_mistake_is_told_with_its_line() {
        for (text, line) in [
            ("cluster = \"home\"\nlissten = \"x\"\n", "line 2"),
            ("\n\nlisten = \"nowhere\"\n", "line 3"),
            ("[services]\na = \"http://x\"\nb = \"ftp://x\"\n", "line 3"),
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
