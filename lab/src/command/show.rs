//! What is seen of a lab.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::process::{ExitCode, ExitStatus};
use std::time::Duration;

use anyhow::{Context as _, bail};
use serde::{Deserialize, Serialize};

use super::events::describe;
use crate::Format;
use crate::cluster::run_json;
use crate::control::{Request, ask};
use crate::enter;
use crate::keeper::{Health, HostState, HostStatus, Status};
use crate::output;
use crate::spec::{Counts, Name, Role, builtin, descriptions};
use crate::state::LabDir;

/// Between two looks at a log that may have grown.
const LOOK_AGAIN: Duration = Duration::from_millis(200);

/// `portway-lab status`: of this lab, or of all if there is none.
pub(super) fn status(dir: &LabDir, format: Format) -> anyhow::Result<()> {
    if dir.is_alive() {
        let status: Status = ask(dir, &Request::Status)?;
        return output::print(format, &status, human);
    }
    #[derive(Serialize)]
    struct Labs {
        labs: BTreeMap<String, bool>,
    }
    let all = LabDir::all().into_iter();
    let labs = Labs {
        labs: all
            .map(|(name, dir)| (name.to_string(), dir.is_alive()))
            .collect(),
    };
    output::print(format, &labs, |labs| {
        let rows: Vec<_> = labs
            .labs
            .iter()
            .map(|(name, runs)| {
                let state = if *runs { "runs" } else { "has ended" };
                vec![name.clone(), state.to_owned()]
            })
            .collect();
        if rows.is_empty() {
            return "no lab runs; `portway-lab start` starts one".to_owned();
        }
        output::table(&["LAB", "STATE"], &rows)
    })
}

fn human(status: &Status) -> String {
    let host = |host: &HostStatus| {
        let dash = || "–".to_owned();
        vec![
            host.host.to_string(),
            host.role.map_or_else(dash, |role| role.to_string()),
            match host.state {
                HostState::Nothing => dash(),
                HostState::Running => "runs".to_owned(),
                HostState::Frozen => "stands still".to_owned(),
                HostState::Ended => "has ended".to_owned(),
            },
            host.lan
                .as_ref()
                .map_or_else(|| "internet".to_owned(), Name::to_string),
            host.pid.map_or_else(dash, |pid| pid.to_string()),
            list(&host.addresses),
            describe(&host.link),
        ]
    };
    let rows: Vec<_> = status.hosts.iter().map(host).collect();
    let mut text = format!(
        "lab `{}`: {}, commit {}, {}\n\n",
        status.name,
        status.net,
        status.commit,
        status.mode.describe()
    );
    text.push_str(&output::table(
        &["HOST", "RUNS", "STATE", "IN", "PID", "ADDRESSES", "LINK"],
        &rows,
    ));
    for cut in &status.cuts {
        let to = cut.to.as_ref().map_or("everybody", Name::as_str);
        text.push_str(&format!(
            "\npartition: {} from {to} ({:?})",
            cut.from, cut.direction
        ));
    }
    for (name, portal) in &status.portals {
        text.push_str(&format!("\nportal of {name}: {portal}"));
    }
    text
}

fn list(addresses: &[IpAddr]) -> String {
    let addresses: Vec<String> = addresses.iter().map(IpAddr::to_string).collect();
    addresses.join(" ")
}

/// `portway-lab logs`.
pub(super) fn logs(dir: &LabDir, node: Option<&Name>, follow: bool) -> anyhow::Result<()> {
    let path = match node {
        Some(node) => dir.node(node).join("log"),
        None => dir.file("keeper.log"),
    };
    let mut file = File::open(&path).with_context(|| {
        format!(
            "there is no log {} (see `portway-lab status`)",
            path.display()
        )
    })?;
    loop {
        let mut text = Vec::new();
        file.read_to_end(&mut text)?;
        output::raw(&String::from_utf8_lossy(&text))?;
        if !follow {
            return Ok(());
        }
        if !dir.is_alive() {
            bail!("the lab has ended");
        }
        if file.metadata()?.len() < file.stream_position()? {
            file.seek(SeekFrom::Start(0))?;
        }
        std::thread::sleep(LOOK_AGAIN);
    }
}

/// `portway-lab forward`.
pub(super) fn forward(
    dir: &LabDir,
    host: &Name,
    target: &str,
    listen: SocketAddr,
    format: Format,
) -> anyhow::Result<()> {
    #[derive(Serialize)]
    struct Ready {
        event: &'static str,
        listen: SocketAddr,
        target: SocketAddr,
    }
    let target = enter::target(target)?;
    enter::forward(dir, host, target, listen, |listen| {
        let ready = Ready {
            event: "ready",
            listen,
            target,
        };
        output::print(format, &ready, |ready| {
            format!(
                "{} leads to {} of {host}; Ctrl-C ends it",
                ready.listen, ready.target
            )
        })
    })
}

/// `portway-lab capture`.
pub(super) fn capture(dir: &LabDir, host: &Name, file: &Path) -> anyhow::Result<ExitStatus> {
    let file = file.to_str().context("the file's name is no text")?;
    let command = ["tcpdump", "-i", "any", "-U", "-w", file].map(str::to_owned);
    enter::exec(dir, host, &command).context("on Debian: apt install tcpdump")
}

/// `portway-lab health`.
pub(super) fn health(dir: &LabDir, format: Format) -> anyhow::Result<ExitCode> {
    let health: Health = ask(dir, &Request::Health)?;
    output::print(format, &health, health_text)?;
    Ok(if health.healthy {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn health_text(health: &Health) -> String {
    let mut text = String::new();
    for part in &health.parts {
        let is_good = part.checks.iter().all(|check| check.ok);
        text.push_str(&format!(
            "{} {} ({})\n",
            output::mark(is_good),
            part.host,
            part.role
        ));
        for check in &part.checks {
            text.push_str(&format!(
                "    {:<3} {:<12} {}\n",
                output::mark(check.ok),
                check.name,
                check.detail
            ));
        }
    }
    let ms = |figure: Option<f64>| figure.map_or_else(|| "–".to_owned(), |ms| format!("{ms:.1}"));
    let rows: Vec<_> = health
        .pairs
        .iter()
        .map(|pair| {
            let status = pair
                .status
                .map_or_else(|| "–".to_owned(), |status| status.to_string());
            vec![
                output::mark(pair.is_ok()).to_owned(),
                format!("{} → {}", pair.from, pair.to),
                pair.path.clone().unwrap_or_else(|| "–".to_owned()),
                ms(pair.open_ms),
                ms(pair.rtt_ms),
                format!("{status} in {}", ms(pair.request_ms)),
                pair.error.clone().unwrap_or_default(),
            ]
        })
        .collect();
    if !rows.is_empty() {
        let head = ["", "PAIR", "PATH", "OPEN ms", "RTT ms", "REQUEST ms", ""];
        text.push_str(&output::table(&head, &rows));
    }
    let verdict = if health.healthy {
        "all is well"
    } else {
        "not all is well"
    };
    text.push_str(&format!("{verdict} ({} ms)\n", health.took_ms));
    text
}

/// Who is where, and who is connected with whom.
#[derive(Debug, Serialize)]
struct Topology {
    status: Status,
    sessions: BTreeMap<Name, Vec<Session>>,
}

/// A session, as `portway sessions --json` tells it.
#[derive(Debug, Serialize, Deserialize)]
struct Session {
    user: String,
    service: String,
    path: Option<String>,
    address: Option<String>,
    rtt_ms: Option<f64>,
}

#[derive(Deserialize)]
struct Sessions {
    sessions: Vec<Session>,
}

/// `portway-lab topology`.
pub(super) fn topology(dir: &LabDir, format: Format) -> anyhow::Result<()> {
    let status: Status = ask(dir, &Request::Status)?;
    let portway = dir.plan()?.portway;
    let gateways = status
        .hosts
        .iter()
        .filter(|host| host.role == Some(Role::Gateway) && host.state == HostState::Running);
    let mut sessions = BTreeMap::new();
    for host in gateways {
        let state = dir.node(&host.host).join("state").display().to_string();
        let known: Sessions = run_json(&portway, &["sessions", "--state", &state], "")?;
        sessions.insert(host.host.clone(), known.sessions);
    }
    let topology = Topology { status, sessions };
    output::print(format, &topology, |topology| {
        let mut text = String::from("internet\n");
        tree(&mut text, topology, None, 1);
        text
    })
}

fn tree(text: &mut String, topology: &Topology, place: Option<&Name>, depth: usize) {
    let indent = "  ".repeat(depth);
    let status = &topology.status;
    for host in status
        .hosts
        .iter()
        .filter(|host| host.lan.as_ref() == place)
    {
        let role = host
            .role
            .map(|role| format!(" [{role}]"))
            .unwrap_or_default();
        text.push_str(&format!(
            "{indent}{}{role} {}\n",
            host.host,
            list(&host.addresses)
        ));
        for session in topology.sessions.get(&host.host).into_iter().flatten() {
            let rtt = session
                .rtt_ms
                .map(|rtt| format!(", {rtt:.1} ms"))
                .unwrap_or_default();
            text.push_str(&format!(
                "{indent}    ← {} for {}, {} from {}{rtt}\n",
                session.user,
                session.service,
                session.path.as_deref().unwrap_or("?"),
                session.address.as_deref().unwrap_or("?"),
            ));
        }
    }
    let routers = status.routers.iter();
    for router in routers.filter(|router| router.via.as_ref() == place) {
        let link = describe(&router.link);
        let link = if link == "good" {
            String::new()
        } else {
            format!(" ({link})")
        };
        text.push_str(&format!(
            "{indent}{} ({}) {}{link}\n",
            router.router,
            router.nat,
            list(&router.addresses)
        ));
        tree(text, topology, Some(&router.router), depth + 1);
    }
}

/// `portway-lab nets`.
pub(super) fn nets(name: Option<&str>, format: Format) -> anyhow::Result<()> {
    #[derive(Serialize)]
    struct Nets {
        nets: BTreeMap<&'static str, &'static str>,
    }
    let Some(name) = name else {
        let nets = Nets {
            nets: descriptions().collect(),
        };
        return output::print(format, &nets, |nets| {
            let nets = nets.nets.iter();
            let rows: Vec<_> = nets
                .map(|(name, what)| vec![(*name).to_owned(), (*what).to_owned()])
                .collect();
            output::table(&["NAME", "WHAT"], &rows)
        });
    };
    let counts = Counts {
        nodes: 3,
        signaling: 1,
        relays: 1,
    };
    let spec = builtin(name, counts).with_context(|| format!("there is no network `{name}`"))?;
    output::raw(&toml::to_string(&spec)?)?;
    Ok(())
}
