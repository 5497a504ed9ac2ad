//! A process that runs one role or several: what `up`, `signaling` and `gateway` share.
//!
//! ```text
//! begin ── parts are spawned ── ready is announced ── signals ── drain ── cancel
//! ```
//! [`signaling`], [`gateway`]: the parts.

pub(crate) mod gateway;
pub(crate) mod signaling;

use std::fs;
use std::future::Future;
use std::io::IsTerminal as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use portway_gateway::session::DRAIN_TIMEOUT;
use portway_gateway::state::Lock;
use tokio::net::UnixListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::control::{self, Parts};
use crate::signals::{Asked, Signals};
use crate::state::State;

/// Time for an orderly end after the first signal.
const END_TIMEOUT: Duration = Duration::from_secs(DRAIN_TIMEOUT.as_secs() + 3);

/// A process and its parts.
pub(crate) struct Process {
    /// What runs. None of them ends by itself.
    pub(crate) tasks: JoinSet<anyhow::Result<()>>,
    /// The first to be cancelled, at a signal: whoever has something under way may end it.
    pub(crate) drain: CancellationToken,
    /// Cancelled by the part that drains, when it has: the others end then.
    pub(crate) cancel: CancellationToken,
    signals: Signals,
    control: UnixListener,
    socket: PathBuf,
    _lock: Lock,
}

/// Runs a role to its end.
pub(crate) fn block_on(
    role: impl Future<Output = anyhow::Result<ExitCode>>,
) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    runtime.block_on(role)
}

impl Process {
    /// Takes the state directory for this process, which no other one may use. Signals are heard from
    /// now on.
    pub(crate) async fn begin(state: &State) -> anyhow::Result<Self> {
        state.prepare()?;
        let socket = state.path(control::SOCKET);
        Ok(Self {
            tasks: JoinSet::new(),
            drain: CancellationToken::new(),
            cancel: CancellationToken::new(),
            signals: Signals::hear()?,
            control: control::bind(&socket).await?,
            _lock: state.lock()?,
            socket,
        })
    }

    /// Answers on the control socket, says that it is ready when it is, and waits for a signal or for a
    /// part to end; then ends the others. A second signal does not wait.
    pub(crate) async fn run(
        self,
        parts: Parts,
        ready: impl Future<Output = anyhow::Result<()>>,
        mut reload: impl FnMut() -> anyhow::Result<()>,
    ) -> anyhow::Result<ExitCode> {
        let Self {
            mut tasks,
            drain,
            cancel,
            mut signals,
            control,
            socket,
            _lock,
        } = self;
        tasks.spawn(control::serve(control, parts, cancel));
        tokio::pin!(ready);
        let mut is_ready = false;
        let outcome = loop {
            tokio::select! {
                asked = signals.next() => match asked {
                    Asked::Reload => match reload() {
                        Ok(()) => tracing::info!("the configuration was reloaded"),
                        Err(error) => {
                            tracing::error!("the configuration is kept as it was: {error:#}");
                        }
                    },
                    end @ (Asked::Interrupt | Asked::Terminate) => break Ok(end.code()),
                },
                Some(ended) = tasks.join_next() => break match ended {
                    Ok(Ok(())) => Err(anyhow::anyhow!("a part of portway ended by itself")),
                    Ok(Err(error)) => Err(error),
                    Err(panic) => Err(panic.into()),
                },
                announced = &mut ready, if !is_ready => match announced {
                    Ok(()) => is_ready = true,
                    Err(error) => break Err(error),
                },
            }
        };
        drain.cancel();
        if std::io::stderr().is_terminal() {
            eprintln!("portway: ending; requests under way may finish (once more: at once)");
        }
        let ended = async { while tasks.join_next().await.is_some() {} };
        tokio::select! {
            () = ended => {}
            () = tokio::time::sleep(END_TIMEOUT) => {}
            _ = signals.end() => {}
        }
        drop(fs::remove_file(socket));
        outcome
    }
}
