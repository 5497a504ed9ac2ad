//! The cluster of a lab: its keys, certificates, and a configuration for every part, made by the
//! shipped binary as an operator would make them.

mod tls;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Write as _;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context as _, bail};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::lines::put;
use crate::process::Recipe;
use crate::spec::{Host, Name, Role, Spec};
use crate::state::{LabDir, write_private};
use tls::Authority;

/// Name of every lab's cluster.
pub(crate) const CLUSTER: &str = "lab";

/// Service of a gateway that was given none.
const DEMO: &str = "demo";

/// Ports of a host on the public segment.
const HTTPS: u16 = 443;
const TURN: u16 = 3478;

/// The user whose links the lab uses.
const USER: &str = "lab";

/// What a lab's cluster is made of.
#[derive(Debug)]
pub(crate) struct Cluster {
    dir: LabDir,
    portway: PathBuf,
    spec: Spec,
    /// Portal of each signaling service.
    pub(crate) portals: BTreeMap<Name, Portal>,
    token: String,
}

/// Where a signaling service is met.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Portal {
    /// Its origin, without a slash at the end.
    pub(crate) origin: String,
    /// `http` or `https`, and what comes behind a service's own label.
    scheme: String,
    suffix: String,
    listen: SocketAddr,
}

impl Portal {
    /// The origin of a service.
    pub(crate) fn service(&self, service: &str) -> String {
        format!("{}://{service}.{}", self.scheme, self.suffix)
    }
}

#[derive(Deserialize)]
struct Initialised {
    cluster_key: String,
}

#[derive(Deserialize)]
struct Keys {
    node_key: String,
}

#[derive(Deserialize)]
struct Token {
    token: String,
}

#[derive(Deserialize)]
struct Grant {
    link: String,
    token: String,
}

/// Address of each host, if hosts have their own.
pub(crate) type HostAddresses = BTreeMap<Name, Vec<IpAddr>>;

impl Cluster {
    /// Makes keys, certificates and configurations. `addresses`: none in a lab on plain loopback.
    pub(crate) fn make(
        dir: &LabDir,
        portway: PathBuf,
        spec: &Spec,
        addresses: Option<&HostAddresses>,
    ) -> anyhow::Result<Self> {
        let portals = portals(spec, addresses.is_some())?;
        let mut cluster = Self {
            dir: dir.clone(),
            portway,
            spec: spec.clone(),
            portals,
            token: String::new(),
        };
        if spec.hosts.values().all(|host| host.run.is_none()) {
            return Ok(cluster);
        }
        fs::create_dir_all(dir.file("cluster/links"))?;
        let state = dir.file("cluster").display().to_string();
        let made: Initialised =
            cluster.run(&["init", "--cluster", CLUSTER, "--state", &state], "")?;
        let authority = addresses.map(|_| Authority::make(dir)).transpose()?;
        let secret = secret();
        for (name, host) in &spec.hosts {
            let folder = dir.node(name);
            fs::create_dir_all(folder.join("state"))?;
            let config = match host.run {
                None => continue,
                Some(Role::Signaling) => {
                    cluster.signaling(name, &made.cluster_key, authority.as_ref(), addresses)?
                }
                Some(Role::Relay) => relay(name, authority.as_ref(), addresses)?,
                Some(Role::Gateway) => cluster.gateway(name, host, &made.cluster_key, &state)?,
            };
            write_private(&folder.join("portway.toml"), config.as_bytes())?;
            // Nodes have no use for it.
            if host.run != Some(Role::Gateway) {
                write_private(&folder.join("relay.secret"), secret.as_bytes())?;
            }
        }
        cluster.issue_links(&state)?;
        Ok(cluster)
    }

    /// How a host's part of Portway is started.
    pub(crate) fn recipe(&self, name: &Name, role: Role, portway: &std::path::Path) -> Recipe {
        let folder = self.dir.node(name);
        let file = |name: &str| folder.join(name).display().to_string();
        let mut args = vec![role.to_string()];
        for (flag, value) in [("--config", "portway.toml"), ("--state", "state")] {
            args.extend([flag.to_owned(), file(value)]);
        }
        args.extend(["--json".to_owned(), "-v".to_owned()]);
        Recipe {
            program: portway.to_owned(),
            args,
            env: vec![self.dir.mark()],
            folder,
            announces: true,
        }
    }

    /// Lets the lab's own links into a gateway that runs.
    pub(crate) fn admit(&self, name: &Name) -> anyhow::Result<()> {
        let state = self.dir.node(name).join("state").display().to_string();
        let _accepted: serde_json::Value =
            self.run(&["token", "accept", "--state", &state], &self.token)?;
        Ok(())
    }

    /// Services of a gateway.
    pub(crate) fn services(host: &Host) -> Vec<String> {
        if host.services.is_empty() {
            return vec![DEMO.to_owned()];
        }
        host.services.keys().map(Name::to_string).collect()
    }

    /// File of the link to a service by way of a signaling service.
    pub(crate) fn link_file(&self, service: &str, signaling: &Name) -> PathBuf {
        self.dir
            .file("cluster/links")
            .join(format!("{service}.{signaling}"))
    }

    /// File of the authority that browsers and gateways must trust, if there is one.
    pub(crate) fn authority_file(dir: &LabDir) -> PathBuf {
        dir.file("tls/authority.pem")
    }

    /// Lines for `/etc/hosts`.
    pub(crate) fn hosts_file(&self, addresses: &HostAddresses) -> String {
        let mut text = String::from("127.0.0.1 localhost\n::1 localhost\n");
        for (name, addresses) in addresses {
            let mut names = vec![name.to_string(), format!("{name}.test")];
            if let Some(portal) = self.portals.get(name) {
                let of = |label: &str| format!("{label}.{}", portal.suffix);
                names.push(portal.suffix.clone());
                names.push(of("conn"));
                names.extend(self.all_services().iter().map(|service| of(service)));
            }
            // Chromium asks for the servers of WebRTC by names that end with a dot.
            let with_dots: Vec<String> = names.iter().map(|name| format!("{name}.")).collect();
            names.extend(with_dots);
            // One of each family: the second one is for those who ask for it by number.
            for is_v4 in [true, false] {
                let first = addresses.iter().find(|address| address.is_ipv4() == is_v4);
                if let Some(address) = first {
                    put(&mut text, format_args!("{address} {}", names.join(" ")));
                }
            }
        }
        text
    }

    fn all_services(&self) -> BTreeSet<String> {
        let gateways = self.spec.running(Role::Gateway);
        gateways
            .flat_map(|name| Self::services(&self.spec.hosts[name]))
            .collect()
    }

    fn signaling(
        &self,
        name: &Name,
        cluster_key: &str,
        authority: Option<&Authority>,
        addresses: Option<&HostAddresses>,
    ) -> anyhow::Result<String> {
        let portal = &self.portals[name];
        let mut config = format!("cluster = \"{CLUSTER}\"\nlisten = \"{}\"\n", portal.listen);
        if let Some(authority) = authority {
            let domain = format!("{name}.test");
            let files = authority.issue(
                name,
                &[
                    &domain,
                    &format!("*.{domain}"),
                    &portal.suffix,
                    &format!("*.{}", portal.suffix),
                ],
            )?;
            put(&mut config, format_args!("domain = \"{domain}\""));
            put(
                &mut config,
                format_args!("tls_cert = \"{}\"", files.certificate.display()),
            );
            put(
                &mut config,
                format_args!("tls_key = \"{}\"", files.key.display()),
            );
        }
        put(
            &mut config,
            format_args!("\n[signaling]\ncluster_keys = [\"{cluster_key}\"]"),
        );
        if addresses.is_some() {
            for relay in self.spec.running(Role::Relay) {
                let urls = [
                    format!("turn:{relay}.test:{TURN}?transport=udp"),
                    format!("turn:{relay}.test:{TURN}?transport=tcp"),
                    format!("turns:{relay}.test:{HTTPS}?transport=tcp"),
                ];
                let urls = urls.map(|url| format!("\"{url}\"")).join(", ");
                put(
                    &mut config,
                    format_args!(
                        "\n[[signaling.relays]]\nurls = [{urls}]\nsecret_file = \"relay.secret\""
                    ),
                );
            }
        }
        Ok(config)
    }

    fn gateway(
        &self,
        name: &Name,
        host: &Host,
        cluster_key: &str,
        cluster_state: &str,
    ) -> anyhow::Result<String> {
        let folder = self.dir.node(name);
        let state = folder.join("state").display().to_string();
        let keys: Keys = self.run(&["key", "show", "--state", &state], "")?;
        let issue = ["token", "issue", "machine", "--state", cluster_state];
        let token: Token = self.run(
            &[
                &issue[..],
                &["--node", name.as_str(), "--key", &keys.node_key],
            ]
            .concat(),
            "",
        )?;
        write_private(&folder.join("machine.token"), token.token.as_bytes())?;
        let origins = self
            .portals
            .values()
            .map(|portal| format!("\"{}\"", portal.origin));
        let origins: Vec<String> = origins.collect();
        let mut config = format!(
            "cluster = \"{CLUSTER}\"\n\n[gateway]\ncluster_key = \"{cluster_key}\"\nnode = \"{name}\"\n\
             machine_token_file = \"machine.token\"\nsignaling = [{}]\n",
            origins.join(", ")
        );
        let authority = Self::authority_file(&self.dir);
        if authority.exists() {
            put(
                &mut config,
                format_args!("signaling_ca = \"{}\"", authority.display()),
            );
        }
        if !host.services.is_empty() {
            config.push_str("\n[services]\n");
            for (service, target) in &host.services {
                let target = toml::Value::from(target.as_str());
                put(&mut config, format_args!("{service} = {target}"));
            }
        }
        Ok(config)
    }

    /// One grant for everything, as a link for each service and each signaling service.
    fn issue_links(&mut self, cluster_state: &str) -> anyhow::Result<()> {
        let services = self.all_services();
        let (Some(first), Some(portal)) = (services.first(), self.portals.values().next()) else {
            return Ok(());
        };
        let mut args = vec![
            "token",
            "issue",
            "user",
            "--state",
            cluster_state,
            "--user",
            USER,
        ];
        for service in &services {
            args.extend(["--service", service]);
        }
        args.extend(["--origin", &portal.origin]);
        let grant: Grant = self.run(&args, "")?;
        let fragment = grant
            .link
            .split_once('#')
            .with_context(|| format!("the link to {first} has no secret"))?
            .1;
        for service in &services {
            for (signaling, portal) in &self.portals {
                let link = format!("{}/#{fragment}\n", portal.service(service));
                write_private(&self.link_file(service, signaling), link.as_bytes())?;
            }
        }
        self.token = grant.token;
        Ok(())
    }

    /// Runs `portway … --json` and reads what it prints.
    fn run<T: DeserializeOwned>(&self, args: &[&str], input: &str) -> anyhow::Result<T> {
        run_json(&self.portway, args, input)
    }
}

/// Runs `portway … --json` and reads what it prints.
pub(crate) fn run_json<T: DeserializeOwned>(
    portway: &std::path::Path,
    args: &[&str],
    input: &str,
) -> anyhow::Result<T> {
    let mut child = Command::new(portway)
        .args(args)
        .arg("--json")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot run {}", portway.display()))?;
    if let Some(mut stdin) = child.stdin.take() {
        // One that does not read it says why by its exit code.
        drop(stdin.write_all(input.as_bytes()));
    }
    let output = child.wait_with_output()?;
    let told = || String::from_utf8_lossy(&output.stderr).trim().to_owned();
    if !output.status.success() {
        bail!("`portway {}`: {}", args.join(" "), told());
    }
    serde_json::from_slice(&output.stdout)
        .with_context(|| format!("`portway {} --json` printed something else", args.join(" ")))
}

fn portals(spec: &Spec, own_addresses: bool) -> anyhow::Result<BTreeMap<Name, Portal>> {
    let portal = |name: &Name| -> anyhow::Result<Portal> {
        if own_addresses {
            let suffix = format!("{CLUSTER}.{name}.test");
            return Ok(Portal {
                origin: format!("https://{suffix}"),
                scheme: "https".to_owned(),
                suffix,
                listen: ([0, 0, 0, 0, 0, 0, 0, 0], HTTPS).into(),
            });
        }
        let listen = free_address()?;
        let suffix = format!("{CLUSTER}.localhost:{}", listen.port());
        Ok(Portal {
            origin: format!("http://{suffix}"),
            scheme: "http".to_owned(),
            suffix,
            listen,
        })
    };
    let names = spec.running(Role::Signaling);
    names
        .map(|name| Ok((name.clone(), portal(name)?)))
        .collect()
}

fn relay(
    name: &Name,
    authority: Option<&Authority>,
    addresses: Option<&HostAddresses>,
) -> anyhow::Result<String> {
    let own = addresses.and_then(|addresses| addresses.get(name));
    let (Some(authority), Some(own)) = (authority, own) else {
        bail!("a lab on plain loopback has no relay: nobody there would need one");
    };
    let files = authority.issue(name, &[&format!("{name}.test")])?;
    let mut config = format!(
        "[relay]\ntls = {{ cert = \"{}\", key = \"{}\" }}\nlisten = [\n",
        files.certificate.display(),
        files.key.display()
    );
    let second = own.iter().filter(|address| address.is_ipv4()).nth(1);
    for ip in own.iter().filter(|ip| Some(*ip) != second) {
        for (scheme, port) in [("udp", TURN), ("tcp", TURN), ("tls", HTTPS)] {
            put(
                &mut config,
                format_args!("  \"{scheme}://{}\",", SocketAddr::new(*ip, port)),
            );
        }
    }
    put(
        &mut config,
        format_args!("]\nrealm = \"{name}.test\"\nsecret_file = \"relay.secret\""),
    );
    let ips = own.iter().filter(|ip| Some(*ip) != second);
    let ips: Vec<String> = ips.map(|ip| format!("\"{ip}\"")).collect();
    put(&mut config, format_args!("relay_ip = [{}]", ips.join(", ")));
    if let Some(second) = second {
        put(
            &mut config,
            format_args!("alternate = \"{}\"", SocketAddr::new(*second, TURN + 1)),
        );
    }
    Ok(config)
}

/// A port of the loopback interface that nobody uses now.
fn free_address() -> anyhow::Result<SocketAddr> {
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?)
}

fn secret() -> String {
    let mut bytes = [0; 24];
    getrandom::fill(&mut bytes).expect("the operating system provides randomness");
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
