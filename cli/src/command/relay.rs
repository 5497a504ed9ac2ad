//! `portway relay`: a STUN/TURN relay of its own, for Portway or for anybody else's WebRTC.
//! [`operate`]: what its operator asks while it runs. [`mod@test`]: any relay, seen from outside.

mod operate;
mod test;

use std::fs;
use std::io::{self, IsTerminal as _};
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::IntoResponse as _;
use axum::routing::get;
use portway_relay::Relay;
use portway_relay::config::{Config, Listen, Transport};
use portway_relay::metrics::users_prometheus;
use portway_relay_proto::auth::ephemeral_credentials;
use portway_relay_proto::peer_policy::PeerPolicy;
use serde::Serialize;
use tokio::net::{TcpListener, UnixListener};

use crate::args::{self, RelayCommand};
use crate::config::{File, relay};
use crate::control;
use crate::control::relay::Operated;
use crate::control::status::{Instance, Role};
use crate::exit::Failure;
use crate::links::{random_id, unix_now};
use crate::output;
use crate::signals::{Asked, Signals};
use crate::state;

/// Name of the user that a relay without users makes up.
const TRIAL_USER: &str = "trial";

/// How often a relay that drains looks whether somebody is left, and how often it tells.
const LOOK_AGAIN: Duration = Duration::from_millis(200);
const TELL_AGAIN: Duration = Duration::from_secs(5);

/// Printed when everything runs.
#[derive(Serialize)]
struct Ready {
    event: &'static str,
    relay: Vec<String>,
    realm: String,
    /// The socket that `status` and `revoke` ask.
    #[serde(skip_serializing_if = "Option::is_none")]
    control: Option<PathBuf>,
    /// Where scrapes are answered.
    #[serde(skip_serializing_if = "Option::is_none")]
    metrics: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    trial: Option<Credentials>,
}

/// What a client needs besides the address.
#[derive(Serialize)]
struct Credentials {
    username: String,
    credential: String,
}

/// Runs until a signal, or what its subcommand says.
pub(crate) fn run(global: &args::Global, args: &args::Relay) -> anyhow::Result<ExitCode> {
    match &args.command {
        None => serve(global, args),
        Some(RelayCommand::Credentials {
            secret_file,
            user,
            lifetime,
        }) => {
            let secrets = relay::read_secrets(secret_file)?;
            let newest = secrets.last().context("there is a secret")?;
            let expires = unix_now() + lifetime.as_secs();
            let (username, credential) = ephemeral_credentials(newest, user, expires);
            let credentials = Credentials {
                username,
                credential,
            };
            output::print(global.format(), &credentials, |it| {
                format!("username    {}\ncredential  {}", it.username, it.credential)
            })?;
            Ok(ExitCode::SUCCESS)
        }
        Some(RelayCommand::Test(args)) => test::run(global, args),
        Some(RelayCommand::Status) => operate::status(global).map(|()| ExitCode::SUCCESS),
        Some(RelayCommand::Revoke { target, lifetime }) => {
            operate::revoke(global, target, *lifetime).map(|()| ExitCode::SUCCESS)
        }
    }
}

fn serve(global: &args::Global, args: &args::Relay) -> anyhow::Result<ExitCode> {
    let file = File::load(global)?;
    let mut config = file.relay.resolve(args)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    let scrapes = match file.relay.metrics(args) {
        Some(address) => Some(Scrapes {
            listener: runtime.block_on(listen(address))?,
            names_users: file.relay.names_users(),
        }),
        None => None,
    };
    let trial = (config.users.is_empty() && config.secrets.is_empty()).then(|| Credentials {
        username: TRIAL_USER.to_owned(),
        credential: random_id(),
    });
    if let Some(Credentials {
        username,
        credential,
    }) = &trial
    {
        config.users.push((username.clone(), credential.clone()));
    }
    let running =
        Relay::start(&config).map_err(|error| Failure::configuration(error.to_string()))?;
    let running = Arc::new(running);
    let control = runtime.block_on(bind_control(global, &file));
    let (control, socket) = control.unzip();
    let ready = Ready {
        event: "ready",
        relay: urls(&config, running.listening()),
        realm: config.realm.clone(),
        control: socket.clone(),
        metrics: scrapes.as_ref().map(Scrapes::url).transpose()?,
        trial,
    };
    let signals = {
        let _context = runtime.enter();
        Signals::hear()?
    };
    output::print(global.format(), &ready, |ready| human(ready, &config))?;
    let drain = file.relay.drain(args);
    let about = Instance::new(Role::Relay);
    let reload = || {
        let mut new = File::load(global)?.relay.resolve(args)?;
        // Passwords of clients belong to the realm that they were told.
        new.realm.clone_from(&config.realm);
        if new.users.is_empty() && new.secrets.is_empty() {
            // The user of a trial stays.
            new.users.clone_from(&config.users);
        }
        Ok(running.reload(&new)?)
    };
    let code = runtime.block_on(async {
        tokio::select! {
            code = wait(signals, reload, &running, drain) => Ok(code),
            lost = running.lost() => Err(lost.into()),
            ended = serve_metrics(scrapes, running.clone()) => Err(ended),
            ended = serve_control(control, about, Operated::new(running.clone(), &config)) => Err(ended),
        }
    });
    if let Some(socket) = socket {
        drop(fs::remove_file(socket));
    }
    let code = code?;
    // With it go those who are being answered.
    drop(runtime);
    let passed = running.metrics();
    drop(running);
    tracing::info!(
        sockets = passed.sockets_total,
        bytes_to_peers = passed.bytes_to_peers,
        bytes_to_clients = passed.bytes_to_clients,
        "the relay has ended"
    );
    Ok(code)
}

/// Waits for a signal to end: SIGINT at once, SIGTERM when those who are there have gone. SIGHUP reloads.
async fn wait(
    mut signals: Signals,
    reload: impl Fn() -> anyhow::Result<()>,
    relay: &Relay,
    drain: Duration,
) -> ExitCode {
    loop {
        match signals.next().await {
            Asked::Interrupt => return Asked::Interrupt.code(),
            Asked::Terminate => break,
            Asked::Reload => match reload() {
                Ok(()) => tracing::info!("the configuration was reloaded"),
                Err(error) => tracing::error!("the configuration is kept as it was: {error:#}"),
            },
        }
    }
    tokio::select! {
        () = drained(relay, drain) => ExitCode::SUCCESS,
        asked = signals.end() => asked.code(),
    }
}

/// Lets nobody new in, and waits until the others have gone, up to a limit.
async fn drained(relay: &Relay, limit: Duration) {
    relay.drain();
    let ends = Instant::now() + limit;
    let mut look = tokio::time::interval(LOOK_AGAIN);
    let mut tell = Instant::now();
    for turn in 0_u64.. {
        look.tick().await;
        let allocations = relay.metrics().allocations;
        let now = Instant::now();
        if allocations == 0 {
            tracing::info!("nobody is left");
            return;
        }
        if now >= ends {
            tracing::warn!(allocations, "the time to drain is over: these are cut off");
            return;
        }
        let left_s = (ends - now).as_secs();
        if turn == 0 {
            tracing::warn!(allocations, left_s, "draining: nobody new is let in");
            if io::stderr().is_terminal() {
                eprintln!(
                    "portway: ending when those who are there have gone (once more: at once)"
                );
            }
        } else if now >= tell {
            tracing::info!(allocations, left_s, "draining");
        } else {
            continue;
        }
        tell = now + TELL_AGAIN;
    }
}

/// The control socket and its path. A relay that cannot have one still relays.
async fn bind_control(global: &args::Global, file: &File) -> Option<(UnixListener, PathBuf)> {
    let bound = async {
        let state = state::configured(global, file)?;
        state.prepare()?;
        let path = state.path(control::relay::SOCKET);
        anyhow::Ok((control::bind(&path).await?, path))
    };
    bound
        .await
        .inspect_err(|error| {
            tracing::warn!("this relay answers no `relay status` and `relay revoke`: {error:#}");
        })
        .ok()
}

/// Answers the operator, if there is a place for that. Ends with what went wrong only.
async fn serve_control(
    listener: Option<UnixListener>,
    about: Instance,
    relay: Operated,
) -> anyhow::Error {
    let Some(listener) = listener else {
        return std::future::pending().await;
    };
    match control::relay::serve(listener, about, relay).await {
        Ok(()) => anyhow::anyhow!("the control socket ended by itself"),
        Err(error) => error,
    }
}

async fn listen(address: SocketAddr) -> Result<TcpListener, Failure> {
    let failed = |error| Failure::configuration(format!("cannot listen on {address}: {error}"));
    TcpListener::bind(address).await.map_err(failed)
}

/// Where metrics are served, and which.
struct Scrapes {
    listener: TcpListener,
    names_users: bool,
}

impl Scrapes {
    fn url(&self) -> anyhow::Result<String> {
        Ok(format!("http://{}/metrics", self.listener.local_addr()?))
    }
}

/// Answers scrapes, if there is a place for them. Ends with what went wrong only.
async fn serve_metrics(scrapes: Option<Scrapes>, relay: Arc<Relay>) -> anyhow::Error {
    let Some(scrapes) = scrapes else {
        return std::future::pending().await;
    };
    let answer = move |headers: HeaderMap| {
        let relay = relay.clone();
        async move {
            if !is_plain_host(&headers) {
                return StatusCode::MISDIRECTED_REQUEST.into_response();
            }
            let metrics = tokio::task::spawn_blocking(move || {
                let mut text = relay.metrics().prometheus();
                if scrapes.names_users {
                    text.push_str(&users_prometheus(&relay.users()));
                }
                text
            });
            let content = [(header::CONTENT_TYPE, "text/plain; version=0.0.4")];
            match metrics.await {
                Ok(text) => (content, text).into_response(),
                Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
            }
        }
    };
    let router = axum::Router::new().route("/metrics", get(answer));
    match axum::serve(scrapes.listener, router).await {
        Ok(()) => anyhow::anyhow!("the metrics server ended by itself"),
        Err(error) => error.into(),
    }
}

/// Whether a request names an address or this machine. A page elsewhere whose name leads here (DNS
/// rebinding) names itself.
fn is_plain_host(headers: &HeaderMap) -> bool {
    let host = headers
        .get(header::HOST)
        .and_then(|host| host.to_str().ok());
    let Some(host) = host else { return false };
    let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
    host.parse::<SocketAddr>().is_ok() || name.parse::<IpAddr>().is_ok() || name == "localhost"
}

/// As browsers have them. A wildcard is told as the address that peers see.
fn urls(config: &Config, listening: &[Listen]) -> Vec<String> {
    let public = |listen: &Listen| {
        let address = &listen.address;
        let of_family = |ips: &[std::net::IpAddr]| {
            ips.iter()
                .copied()
                .find(|ip| ip.is_ipv4() == address.is_ipv4())
        };
        let mut address = *address;
        if address.ip().is_unspecified()
            && let Some(ip) = of_family(&config.external_ips).or(of_family(&config.relay_ips))
        {
            address.set_ip(ip);
        }
        match listen.transport {
            Transport::Udp => format!("turn:{address}?transport=udp"),
            Transport::Tcp => format!("turn:{address}?transport=tcp"),
            Transport::Tls => format!("turns:{address}?transport=tcp"),
        }
    };
    listening.iter().map(public).collect()
}

fn human(ready: &Ready, config: &Config) -> String {
    let mut text = String::from("\n");
    for url in &ready.relay {
        text.push_str(&format!("  {url}\n"));
    }
    match &ready.trial {
        Some(trial) => text.push_str(&format!(
            "  username   {}\n  credential {}\n\n  \
             A user for this run only: name yours in [relay.users], or share a secret with --secret-file.\n",
            trial.username, trial.credential
        )),
        None => text.push_str(&format!("  realm {}\n", ready.realm)),
    }
    let strict = PeerPolicy::default();
    let is_inside = config.relay_ips.iter().any(|ip| !strict.permits_ip(*ip));
    if is_inside && config.peers.allow.is_empty() {
        text.push_str(
            "  Peers in private networks are refused; allow yours with --allow-peer 192.168.0.0/16.\n",
        );
    }
    if let Some(metrics) = &ready.metrics {
        text.push_str(&format!("  metrics {metrics}\n"));
    }
    if ready.control.is_some() {
        text.push_str("  `portway relay status` shows who is there.\n");
    }
    text.push_str("  Ctrl-C ends it.\n");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scrapes_name_an_address_or_this_machine() {
        let is_plain = |host: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::HOST, host.parse().unwrap());
            is_plain_host(&headers)
        };
        for host in [
            "127.0.0.1:9641",
            "127.0.0.1",
            "[::1]:9641",
            "localhost",
            "localhost:9641",
        ] {
            assert!(is_plain(host), "{host}");
        }
        for host in ["rebind.example:9641", "localhost.example", ""] {
            assert!(!is_plain(host), "{host}");
        }
        assert!(!is_plain_host(&HeaderMap::new()));
    }
}
