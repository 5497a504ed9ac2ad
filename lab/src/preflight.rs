//! What a lab needs of this machine, found out before anything is changed.

use std::fs::OpenOptions;
use std::process::{Command, Stdio};

use nix::sched::{CloneFlags, unshare};
use nix::sys::resource::{Resource, getrlimit};
use nix::sys::statvfs::statvfs;
use nix::unistd::{Gid, Uid};
use serde::Serialize;

use crate::launch::become_root;
use crate::network::namespace::Namespace;
use crate::network::netem;
use crate::spec::{MAX_NAMESPACES, Spec};
use crate::state::{LabDir, Mode};

/// Room for logs, copies of the binary and what nodes store.
const MIN_DISK_MIB: u64 = 500;

/// Descriptors of the keeper for a namespace and an emulated link each, and some for everything else.
const MIN_DESCRIPTORS: u64 = 1024;

/// Hidden word of the command line: tries namespaces, and says what can be done there.
pub(crate) const PROBE: &str = "__probe";

/// What was found.
#[derive(Debug, Serialize)]
pub(crate) struct Preflight {
    /// How hosts would be kept apart.
    pub(crate) mode: Mode,
    pub(crate) findings: Vec<Finding>,
}

/// One of them.
#[derive(Debug, Serialize)]
pub(crate) struct Finding {
    pub(crate) what: &'static str,
    pub(crate) grade: Grade,
    pub(crate) detail: String,
}

/// What a finding means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Grade {
    /// As it should be.
    Good,
    /// Something will be missing.
    Limited,
    /// No lab can be started.
    Bad,
}

impl Preflight {
    /// Looks at everything.
    pub(crate) fn run() -> Self {
        let (mode, permissions, probed) = permissions();
        let mut findings = vec![permissions];
        if mode != Mode::Loopback {
            findings.extend(["ip", "nft", "tc"].map(program));
            findings.extend(probed);
        }
        findings.push(names());
        findings.push(disk());
        findings.push(descriptors());
        findings.push(leftovers());
        Self { mode, findings }
    }

    /// What stands in the way of a lab.
    pub(crate) fn obstacles(&self, spec: &Spec, mode: Mode) -> Vec<String> {
        let links = spec.lans.values().map(|lan| &lan.link);
        let has_links = links
            .chain(spec.hosts.values().map(|host| &host.link))
            .any(|link| !link.is_none());
        let counts = |finding: &&Finding| {
            finding.grade == Grade::Bad
                || finding.what == LINKS && finding.grade == Grade::Limited && has_links
        };
        let mut obstacles: Vec<String> = self
            .findings
            .iter()
            .filter(counts)
            .map(|finding| format!("{}: {}", finding.what, finding.detail))
            .collect();
        if mode == Mode::Loopback && has_links {
            obstacles.push("bad links cannot be simulated on plain loopback".to_owned());
        }
        obstacles
    }
}

const LINKS: &str = "links";

fn finding(what: &'static str, grade: Grade, detail: impl Into<String>) -> Finding {
    Finding {
        what,
        grade,
        detail: detail.into(),
    }
}

/// How hosts can be kept apart, and what can be done within namespaces of that kind.
fn permissions() -> (Mode, Finding, Vec<Finding>) {
    let what = "permissions";
    let good = |mode: Mode| finding(what, Grade::Good, mode.describe());
    if Uid::effective().is_root()
        && let Some(probed) = probe("root")
    {
        return (Mode::Root, good(Mode::Root), probed);
    }
    if let Some(probed) = probe("user") {
        return (Mode::User, good(Mode::User), probed);
    }
    let detail = format!(
        "{}. Run as root, or allow user namespaces (sysctl user.max_user_namespaces, \
         kernel.unprivileged_userns_clone, kernel.apparmor_restrict_unprivileged_userns=0)",
        Mode::Loopback.describe()
    );
    (
        Mode::Loopback,
        finding(what, Grade::Limited, detail),
        Vec::new(),
    )
}

fn program(name: &'static str) -> Finding {
    let package = if name == "nft" {
        "nftables"
    } else {
        "iproute2"
    };
    let found = Command::new(name)
        .arg("-V")
        .stdin(Stdio::null())
        .output()
        .map(|output| {
            let told = String::from_utf8_lossy(&output.stdout).into_owned();
            told.lines().next().unwrap_or_default().to_owned()
        });
    match found {
        Ok(version) => finding(name, Grade::Good, version),
        Err(error) => finding(
            name,
            Grade::Bad,
            format!("{error}; on Debian: apt install {package}"),
        ),
    }
}

/// What can be done within namespaces, as a process that has entered some tells: this one shall stay
/// where it is. `None`: they cannot be entered.
fn probe(mode: &str) -> Option<Vec<Finding>> {
    let output = Command::new(std::env::current_exe().ok()?)
        .args([PROBE, mode])
        .stdin(Stdio::null())
        .output()
        .ok()
        .filter(|output| output.status.success())?;
    let told = String::from_utf8_lossy(&output.stdout);
    let findings = told.lines().filter_map(|line| {
        let (what, problem) = line.split_once('\t')?;
        let (what, limited) = match what {
            "nat" => ("kernel", Grade::Bad),
            "bridge" => ("partitions within a LAN", Grade::Limited),
            _ => (LINKS, Grade::Limited),
        };
        Some(match problem.strip_prefix("ok ") {
            Some(detail) => finding(what, Grade::Good, detail),
            None => finding(what, limited, problem),
        })
    });
    Some(findings.collect())
}

/// The other side of [`probe`].
pub(crate) fn run_probe(mode: &str) -> anyhow::Result<()> {
    let (uid, gid) = (Uid::current(), Gid::current());
    // No PID namespace: whoever has asked for one can start no threads.
    let mut flags = CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWNET;
    if mode == "user" {
        flags |= CloneFlags::CLONE_NEWUSER;
    }
    unshare(flags)?;
    if mode == "user" {
        become_root(uid, gid)?;
    }
    let namespace = Namespace::create()?;
    let nat = "table inet t { map m { type inet_service : ipv4_addr . inet_service; flags dynamic,timeout; timeout 1s; }\n\
               chain c { type nat hook postrouting priority 100; masquerade random,fully-random\n }\n}\n";
    let bridge = "table bridge t { chain c { type filter hook forward priority -50; }\n}\n";
    let mut out = String::new();
    for (what, good, rules) in [
        ("nat", "translates addresses (nf_tables)", nat),
        ("bridge", "can be made", bridge),
    ] {
        let outcome = namespace.nft(rules);
        out.push_str(&match outcome {
            Ok(()) => format!("{what}\tok {good}\n"),
            Err(error) => {
                let told = error.to_string();
                let first = told.lines().next().unwrap_or_default();
                format!("{what}\tthe kernel or its permissions lack something: {first}\n")
            }
        });
    }
    out.push_str(&match (netem::is_available(), tap()) {
        (Ok(true), _) => "links\tok emulated by the kernel (sch_netem)\n".to_owned(),
        (_, Ok(())) => {
            "links\tok emulated by portway-lab itself (the kernel has no sch_netem)\n".to_owned()
        }
        (_, Err(error)) => format!(
            "links\tno delay, loss or rate: the kernel has no sch_netem, and /dev/net/tun: {error}\n"
        ),
    });
    crate::output::raw(&out)?;
    Ok(())
}

fn tap() -> std::io::Result<()> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/net/tun")
        .map(drop)
}

fn names() -> Finding {
    use std::net::ToSocketAddrs as _;
    let what = "names";
    let addresses = ("localhost", 80).to_socket_addrs();
    match addresses.map(|mut all| all.all(|address| address.ip().is_loopback())) {
        Ok(true) => finding(what, Grade::Good, "localhost is this machine"),
        Ok(false) => finding(
            what,
            Grade::Bad,
            "localhost is another machine: mend /etc/hosts",
        ),
        Err(error) => finding(
            what,
            Grade::Bad,
            format!("localhost is not known ({error}): mend /etc/hosts"),
        ),
    }
}

fn disk() -> Finding {
    let what = "disk";
    let root = LabDir::root();
    // It may not be there yet.
    let place = root.ancestors().find(|place| place.exists());
    let Some(Ok(stat)) = place.map(statvfs) else {
        return finding(
            what,
            Grade::Bad,
            format!("cannot look at {}", root.display()),
        );
    };
    let free = stat.blocks_available() * stat.fragment_size() / (1024 * 1024);
    let detail = format!("{free} MiB free for {}", root.display());
    if free < MIN_DISK_MIB {
        return finding(
            what,
            Grade::Bad,
            format!("{detail}; {MIN_DISK_MIB} are needed (or set PORTWAY_LAB_ROOT)"),
        );
    }
    finding(what, Grade::Good, detail)
}

fn descriptors() -> Finding {
    let what = "descriptors";
    match getrlimit(Resource::RLIMIT_NOFILE) {
        Ok((soft, _)) if soft < MIN_DESCRIPTORS => finding(
            what,
            Grade::Bad,
            format!("at most {soft} open files: ulimit -n {MIN_DESCRIPTORS} or more"),
        ),
        Ok((soft, _)) => finding(
            what,
            Grade::Good,
            format!("{soft} open files, enough for {MAX_NAMESPACES} namespaces"),
        ),
        Err(error) => finding(what, Grade::Bad, error.to_string()),
    }
}

fn leftovers() -> Finding {
    let what = "leftovers";
    let (mut files, mut processes) = (Vec::new(), Vec::new());
    for (name, dir) in LabDir::all() {
        if dir.is_alive() {
            continue;
        }
        if dir.marked().is_empty() {
            files.push(name.to_string());
        } else {
            processes.push(name.to_string());
        }
    }
    if !processes.is_empty() {
        return finding(
            what,
            Grade::Limited,
            format!(
                "processes of labs that have ended: {} (`portway-lab clean` ends them)",
                processes.join(", ")
            ),
        );
    }
    if files.is_empty() {
        return finding(what, Grade::Good, "none");
    }
    finding(
        what,
        Grade::Good,
        format!(
            "only files, of {} (`portway-lab clean` removes them)",
            files.join(", ")
        ),
    )
}
