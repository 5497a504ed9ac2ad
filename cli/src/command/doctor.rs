//! `portway doctor`: what could be in the way on this machine, and what to do about it.

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use portway_protocol::stun;
use serde::Serialize;

use crate::args::{Doctor, Global};
use crate::assets;
use crate::cluster::Kept;
use crate::command::client::duration;
use crate::config::relay::outgoing_ip;
use crate::exit::Failure;
use crate::links::unix_now;
use crate::output;
use crate::state::{self, random_bytes};
use portway_gateway::enrolment::Enrolled;

/// Socket buffer that the transport asks for, see `portway_transport`.
const WANTED_BUFFER: usize = 4 * 1024 * 1024;

/// How long to wait for a STUN answer; two attempts.
const STUN_TIMEOUT: Duration = Duration::from_secs(2);

/// A date before which this program did not exist: 2026-01-01.
const EARLIEST_CLOCK: Duration = Duration::from_secs(1_767_225_600);

/// Outcome of one check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Verdict {
    Ok,
    Warning,
    Failure,
}

/// One check.
#[derive(Debug, Serialize)]
struct Check {
    check: &'static str,
    verdict: Verdict,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<String>,
}

impl Check {
    fn ok(check: &'static str, message: impl Into<String>) -> Self {
        Self {
            check,
            verdict: Verdict::Ok,
            reason: None,
            message: message.into(),
            hint: None,
        }
    }

    fn warning(
        check: &'static str,
        reason: &'static str,
        message: impl Into<String>,
        hint: impl Into<String>,
    ) -> Self {
        Self {
            check,
            verdict: Verdict::Warning,
            reason: Some(reason),
            message: message.into(),
            hint: Some(hint.into()),
        }
    }

    fn failure(
        check: &'static str,
        reason: &'static str,
        message: impl Into<String>,
        hint: impl Into<String>,
    ) -> Self {
        Self {
            verdict: Verdict::Failure,
            ..Self::warning(check, reason, message, hint)
        }
    }
}

/// All checks.
#[derive(Debug, Serialize)]
struct Report {
    checks: Vec<Check>,
}

/// Runs the checks; fails if one of them does.
pub(crate) fn run(global: &Global, args: &Doctor) -> anyhow::Result<()> {
    let mut checks = vec![
        web_client(),
        state(global),
        clock(),
        listen(args.listen),
        interfaces(),
        socket_buffers(),
    ];
    checks.extend(certificate(global));
    if let Some(server) = &args.stun {
        checks.push(check_stun(server));
    }
    let report = Report { checks };
    output::print(global.format(), &report, human)?;
    let failed = report
        .checks
        .iter()
        .filter(|check| check.verdict == Verdict::Failure)
        .count();
    if failed > 0 {
        return Err(Failure::configuration(format!("{failed} check(s) failed")).into());
    }
    Ok(())
}

fn human(report: &Report) -> String {
    let mut text = String::new();
    for check in &report.checks {
        let mark = match check.verdict {
            Verdict::Ok => "ok  ",
            Verdict::Warning => "warn",
            Verdict::Failure => "FAIL",
        };
        text.push_str(&format!("{mark}  {:<12} {}", check.check, check.message));
        if let Some(reason) = check.reason {
            text.push_str(&format!(" [{reason}]"));
        }
        text.push('\n');
        if let Some(hint) = &check.hint {
            text.push_str(&format!("                   → {hint}\n"));
        }
    }
    text
}

fn web_client() -> Check {
    if assets::are_embedded() {
        Check::ok("web client", format!("built in, {}", assets::hash()))
    } else {
        Check::failure(
            "web client",
            "WEB_CLIENT_MISSING",
            "this binary was built without the browser client",
            "build it with `cargo xtask build`",
        )
    }
}

fn state(global: &Global) -> Check {
    let opened = state::locate(global).and_then(|state| {
        state.prepare()?;
        Kept::find(&state)?;
        state.read_secret("node.key")?;
        Ok(())
    });
    match opened {
        Ok(()) => Check::ok("state", "the state directory is private and readable"),
        Err(error) => Check::failure(
            "state",
            "STATE_UNUSABLE",
            format!("{error:#}"),
            "see the message, or choose another directory with --state",
        ),
    }
}

/// How the certificate of a machine stands that has joined a cluster.
fn certificate(global: &Global) -> Option<Check> {
    let unusable = |error: anyhow::Error| {
        Check::failure(
            "certificate",
            "CERTIFICATE_UNUSABLE",
            format!("{error:#}"),
            "`portway gateway` renews it if it can; otherwise join again with a new join token",
        )
    };
    let kept = state::locate(global).and_then(|state| {
        let joined = Enrolled::open(&state)?;
        let certificate = joined.map(|joined| joined.certificate(&state));
        Ok(certificate.transpose()?)
    });
    let certificate = match kept.transpose()? {
        Ok(certificate) => certificate,
        Err(error) => return Some(unusable(error)),
    };
    let left = duration(certificate.expires.saturating_sub(unix_now()));
    Some(if certificate.is_overdue(unix_now()) {
        Check::warning(
            "certificate",
            "CERTIFICATE_ENDS",
            format!("it ends in {left} and was not renewed"),
            "run `portway gateway`, which renews it; if it runs, `portway status` tells why it fails",
        )
    } else {
        Check::ok("certificate", format!("good for {left}"))
    })
}

fn clock() -> Check {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    if now < EARLIEST_CLOCK {
        return Check::failure(
            "clock",
            "CLOCK_WRONG",
            "this machine's clock is years behind: every token will look invalid",
            "set the time, e.g. with `timedatectl set-ntp true`",
        );
    }
    Check::ok("clock", "plausible")
}

fn listen(address: SocketAddr) -> Check {
    match std::net::TcpListener::bind(address) {
        Ok(_) => Check::ok("port", format!("{address} is free")),
        Err(error) if error.kind() == ErrorKind::AddrInUse => Check::warning(
            "port",
            "PORT_IN_USE",
            format!("{address} is in use"),
            "fine if Portway runs there; otherwise choose another with --listen",
        ),
        Err(error) => Check::failure(
            "port",
            "PORT_UNUSABLE",
            format!("cannot listen on {address}: {error}"),
            "choose another with --listen; ports below 1024 need privileges",
        ),
    }
}

/// Whether there is a way to other networks.
fn interfaces() -> Check {
    match outgoing_ip() {
        Ok(IpAddr::V4(ip)) if !ip.is_loopback() => {
            Check::ok("network", format!("packets leave from {ip}"))
        }
        Ok(_) | Err(_) => Check::warning(
            "network",
            "NO_NETWORK",
            "no network interface but loopback",
            "browsers on this machine may still fail to connect (Firefox does): give it an address, \
             e.g. `ip link add portway0 type dummy && ip addr add 192.0.2.1/32 dev portway0 && ip link set portway0 up`",
        ),
    }
}

fn socket_buffers() -> Check {
    let granted = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|socket| {
        let socket = socket2::SockRef::from(&socket);
        socket.set_recv_buffer_size(WANTED_BUFFER)?;
        // Linux reports twice what it granted.
        Ok(socket.recv_buffer_size()? / 2)
    });
    match granted {
        Ok(granted) if granted >= WANTED_BUFFER => Check::ok("UDP buffers", "4 MiB granted"),
        Ok(granted) => Check::warning(
            "UDP buffers",
            "SMALL_UDP_BUFFERS",
            format!(
                "only {} KiB of 4096 granted: transfers will be slow",
                granted / 1024
            ),
            "`sysctl -w net.core.rmem_max=4194304 net.core.wmem_max=4194304`",
        ),
        Err(error) => Check::failure(
            "UDP buffers",
            "UDP_UNUSABLE",
            format!("cannot open a UDP socket: {error}"),
            "something on this machine forbids UDP",
        ),
    }
}

fn check_stun(server: &str) -> Check {
    match binding(server) {
        Ok(public) => Check::ok("STUN", format!("{server} sees this machine as {public}")),
        Err(error) => Check::failure(
            "STUN",
            "STUN_UNREACHABLE",
            format!("{server}: {error}"),
            "a firewall may block UDP: then a TURN relay over TCP or TLS is needed",
        ),
    }
}

/// One Binding transaction (RFC 8489 §6.1).
fn binding(server: &str) -> std::io::Result<SocketAddr> {
    use std::net::ToSocketAddrs as _;
    let server = server
        .to_socket_addrs()?
        .next()
        .ok_or_else(|| std::io::Error::new(ErrorKind::NotFound, "the name has no address"))?;
    let local: IpAddr = match server {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => std::net::Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((local, 0))?;
    socket.connect(server)?;
    socket.set_read_timeout(Some(STUN_TIMEOUT))?;
    let transaction: stun::TransactionId = random_bytes();
    let request = stun::binding_request(&transaction);
    let mut buffer = [0; stun::MAX_MESSAGE];
    for _attempt in 0..2 {
        socket.send(&request)?;
        match socket.recv(&mut buffer) {
            Ok(len) => {
                if let Some(address) = stun::mapped_address(&buffer[..len], &transaction) {
                    return Ok(address);
                }
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Err(error) => return Err(error),
        }
    }
    Err(std::io::Error::new(ErrorKind::TimedOut, "no answer"))
}
