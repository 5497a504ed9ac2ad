//! What the system asks a running instance by signals.

use std::io;
use std::process::ExitCode;

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::exit;

/// The signals that are heard, from the moment when this is made: before "ready" is said, for whoever
/// reads that may send one at once.
pub(crate) struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
}

/// What is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Asked {
    /// SIGINT.
    Interrupt,
    /// SIGTERM.
    Terminate,
    /// SIGHUP.
    Reload,
}

impl Asked {
    /// What a process says that ends for it.
    pub(crate) fn code(self) -> ExitCode {
        match self {
            Self::Interrupt => ExitCode::from(exit::INTERRUPTED),
            Self::Terminate | Self::Reload => ExitCode::SUCCESS,
        }
    }
}

impl Signals {
    /// Hears them from now on. Needs a runtime.
    pub(crate) fn hear() -> io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    /// The next one.
    pub(crate) async fn next(&mut self) -> Asked {
        tokio::select! {
            _ = self.interrupt.recv() => Asked::Interrupt,
            _ = self.terminate.recv() => Asked::Terminate,
            _ = self.hangup.recv() => Asked::Reload,
        }
    }

    /// The next one to end.
    pub(crate) async fn end(&mut self) -> Asked {
        loop {
            match self.next().await {
                Asked::Reload => tracing::info!("it is ending and reloads nothing"),
                end @ (Asked::Interrupt | Asked::Terminate) => return end,
            }
        }
    }
}
