//! `portway relay test`: is that TURN server good?

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::net::SocketAddr;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use portway_gateway::proxy::connect::tls_config;
use portway_gateway::service::Trust;
use portway_protocol::reason::Exit;
use portway_relay_client::check::{self, Credentials, Options, Outcome, Report, Step, Verdict};
use portway_relay_proto::auth::ephemeral_credentials;
use serde::Serialize;

use crate::args::{Format, Global, RelayTest};
use crate::config::relay::read_secrets;
use crate::exit::Failure;
use crate::links::unix_now;
use crate::output;

/// Who an ephemeral credential is made for, unless told otherwise.
const TEST_USER: &str = "portway-test";

/// Life of one: longer than the longest lifetime of an allocation, which it would shorten.
const CREDENTIALS_LIFETIME: u64 = 2 * 3600;

/// Largest password that is read.
const MAX_PASSWORD: u64 = 4096;

/// Printed with `--json`.
#[derive(Serialize)]
struct View<'a> {
    ok: bool,
    steps: Vec<StepView<'a>>,
    #[serde(flatten)]
    figures: Figures,
}

#[derive(Serialize)]
struct StepView<'a> {
    step: &'a str,
    outcome: &'static str,
    detail: &'a str,
    ms: f64,
}

/// What was measured, as far as it was.
#[derive(Serialize)]
struct Figures {
    server: Option<SocketAddr>,
    reflexive: Option<SocketAddr>,
    challenge_bytes: Option<usize>,
    relayed: Option<SocketAddr>,
    relayed_ipv6: Option<SocketAddr>,
    lifetime_s: Option<u32>,
    rtt_p50_ms: Option<f64>,
    rtt_p99_ms: Option<f64>,
    loss: Option<f64>,
    bits_per_s: Option<f64>,
}

/// Checks, and tells each step when it is done.
pub(crate) fn run(global: &Global, args: &RelayTest) -> anyhow::Result<ExitCode> {
    let trust = match (&args.ca, args.insecure) {
        (Some(path), _) => Trust::Authority(path.clone()),
        (None, true) => Trust::Any,
        (None, false) => Trust::System,
    };
    let mut tls = tls_config(&trust).map_err(|error| Failure::configuration(error.to_string()))?;
    // That of HTTP, which a relay does not speak.
    tls.alpn_protocols.clear();
    let options = Options {
        credentials: credentials(args)?,
        peer: args.peer,
        duration: args.duration,
        tls: tls.into(),
    };
    let format = global.format();
    let mut told = Ok(());
    let report = check::run(&args.url, &options, &mut |step| {
        if format == Format::Human && told.is_ok() {
            told = tell(step);
        }
    });
    told?;
    match format {
        Format::Json => output::print(format, &view(&report), |_| String::new())?,
        Format::Human => conclude(&report)?,
    }
    let exit = match report.verdict {
        Verdict::Good => return Ok(ExitCode::SUCCESS),
        Verdict::Bad => Exit::Failure,
        Verdict::Denied => Exit::Denied,
        Verdict::Unreachable => Exit::Unavailable,
    };
    let failed = report
        .steps
        .iter()
        .filter(|step| step.outcome == Outcome::Bad);
    let names: Vec<&str> = failed.map(|step| step.name).collect();
    Err(Failure::new(exit, format!("not good: {}", names.join(", "))).into())
}

fn credentials(args: &RelayTest) -> anyhow::Result<Option<Credentials>> {
    if let Some(path) = &args.secret_file {
        let secrets = read_secrets(path)?;
        let newest = secrets.last().context("there is a secret")?;
        let name = args.username.as_deref().unwrap_or(TEST_USER);
        let expires = unix_now() + CREDENTIALS_LIFETIME;
        let (username, password) = ephemeral_credentials(newest, name, expires);
        return Ok(Some(Credentials { username, password }));
    }
    match (&args.username, &args.credential_file) {
        (Some(username), Some(path)) => Ok(Some(Credentials {
            username: username.clone(),
            password: password(path)?,
        })),
        (None, None) => Ok(None),
        (Some(_), None) => Err(Failure::new(
            Exit::Usage,
            "a user name needs its password: --credential-file FILE, or `-` for standard input",
        )
        .into()),
        (None, Some(_)) => {
            Err(Failure::new(Exit::Usage, "a password needs its user name: --username").into())
        }
    }
}

fn password(path: &Path) -> anyhow::Result<String> {
    let mut text = String::new();
    let read = if path == Path::new("-") {
        io::stdin().take(MAX_PASSWORD).read_to_string(&mut text)
    } else {
        File::open(path).and_then(|file| file.take(MAX_PASSWORD).read_to_string(&mut text))
    };
    read.map_err(|error| Failure::configuration(format!("{}: {error}", path.display())))?;
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}

fn tell(step: &Step) -> io::Result<()> {
    let mark = match step.outcome {
        Outcome::Good => "✓",
        Outcome::Warning => "!",
        Outcome::Bad => "✗",
        Outcome::Skipped => "–",
    };
    let mut out = io::stdout().lock();
    writeln!(
        out,
        "{mark} {:<18}{:>8.1} ms  {}",
        step.name,
        milliseconds(step.took),
        portway_protocol::printable::printable(&step.detail)
    )?;
    out.flush()
}

/// The last line, if there is nothing that is an error.
fn conclude(report: &Report) -> io::Result<()> {
    if report.verdict != Verdict::Good {
        return Ok(());
    }
    let count = |outcome| {
        let steps = report.steps.iter();
        steps.filter(|step| step.outcome == outcome).count()
    };
    let text = match (count(Outcome::Warning), count(Outcome::Skipped)) {
        (0, 0) => "Good.".to_owned(),
        (0, _) => "Good; what is marked – is not offered or was not tried.".to_owned(),
        (1, _) => "It works; one thing (!) is worth a look.".to_owned(),
        (many, _) => format!("It works; {many} things (!) are worth a look."),
    };
    writeln!(io::stdout().lock(), "\n{text}")
}

fn view(report: &Report) -> View<'_> {
    let found = &report.figures;
    View {
        ok: report.verdict == Verdict::Good,
        steps: report.steps.iter().map(StepView::from).collect(),
        figures: Figures {
            server: found.server,
            reflexive: found.reflexive,
            challenge_bytes: found.challenge_bytes,
            relayed: found.relayed,
            relayed_ipv6: found.relayed_ipv6,
            lifetime_s: found.lifetime_s,
            rtt_p50_ms: found.rtt_p50.map(milliseconds),
            rtt_p99_ms: found.rtt_p99.map(milliseconds),
            loss: found.loss,
            bits_per_s: found.bits_per_s,
        },
    }
}

impl<'a> From<&'a Step> for StepView<'a> {
    fn from(step: &'a Step) -> Self {
        Self {
            step: step.name,
            outcome: match step.outcome {
                Outcome::Good => "good",
                Outcome::Warning => "warning",
                Outcome::Bad => "bad",
                Outcome::Skipped => "skipped",
            },
            detail: &step.detail,
            ms: milliseconds(step.took),
        }
    }
}

fn milliseconds(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e6).round() / 1e3
}
