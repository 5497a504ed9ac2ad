//! Network namespaces without names: each lives as long as a descriptor of it is open or a process is
//! in it, so that nothing can be left over.

use std::fs::File;
use std::io::Write as _;
use std::os::fd::AsRawFd as _;
use std::process::{Child, Command, Stdio};

use nix::sched::{CloneFlags, setns, unshare};

use super::NetworkError;

/// The namespace of a thread, by its file in `/proc`.
const OWN: &str = "/proc/thread-self/ns/net";

/// A network namespace.
#[derive(Debug)]
pub(crate) struct Namespace(File);

impl Namespace {
    /// Makes an empty one.
    pub(crate) fn create() -> Result<Self, NetworkError> {
        let make = || -> Result<File, NetworkError> {
            unshare(CloneFlags::CLONE_NEWNET).map_err(NetworkError::Create)?;
            File::open(OWN).map_err(NetworkError::Open)
        };
        in_thread(make).map(Self)
    }

    /// The same one, once more.
    pub(crate) fn again(&self) -> Result<Self, NetworkError> {
        self.0.try_clone().map(Self).map_err(NetworkError::Open)
    }

    /// Number of the descriptor: `/proc/PID/fd/NUMBER` is the namespace for others.
    pub(crate) fn descriptor(&self) -> i32 {
        self.0.as_raw_fd()
    }

    /// Runs `action` within, on a thread of its own.
    pub(crate) fn run<T: Send>(
        &self,
        action: impl FnOnce() -> Result<T, NetworkError> + Send,
    ) -> Result<T, NetworkError> {
        in_thread(|| {
            setns(&self.0, CloneFlags::CLONE_NEWNET).map_err(NetworkError::Enter)?;
            action()
        })
    }

    /// `ip` does these lines within.
    pub(crate) fn ip(&self, batch: &str) -> Result<(), NetworkError> {
        self.run(|| feed("ip", &["-batch", "-"], batch))
    }

    /// `nft` loads this ruleset within.
    pub(crate) fn nft(&self, ruleset: &str) -> Result<(), NetworkError> {
        self.run(|| feed("nft", &["-f", "-"], ruleset))
    }

    /// `tc` does these lines within.
    pub(crate) fn tc(&self, batch: &str) -> Result<(), NetworkError> {
        self.run(|| feed("tc", &["-batch", "-"], batch))
    }
}

/// Runs `action` in a namespace, or where this process is.
pub(crate) fn within<T: Send>(
    place: Option<&Namespace>,
    action: impl FnOnce() -> T + Send,
) -> Result<T, NetworkError> {
    match place {
        Some(namespace) => namespace.run(|| Ok(action())),
        None => Ok(action()),
    }
}

/// Starts a program in a namespace, or where this process is.
pub(crate) fn spawn(
    place: Option<&Namespace>,
    command: &mut Command,
) -> Result<Child, NetworkError> {
    let started = within(place, || command.spawn())?;
    started.map_err(|error| NetworkError::Start {
        program: command.get_program().to_string_lossy().into_owned(),
        error,
    })
}

/// Runs a program that reads `input`; what it said is told if it fails.
fn feed(program: &'static str, args: &[&str], input: &str) -> Result<(), NetworkError> {
    let failed = |error| NetworkError::Start {
        program: program.to_owned(),
        error,
    };
    let mut child = Command::new(program)
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(failed)?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(input.as_bytes()).map_err(failed)?;
    }
    let output = child.wait_with_output().map_err(failed)?;
    if output.status.success() {
        return Ok(());
    }
    Err(NetworkError::Refused {
        program,
        told: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
        input: input.to_owned(),
    })
}

/// Namespaces are a thread's own: this one's stays as it is.
fn in_thread<T: Send>(
    action: impl FnOnce() -> Result<T, NetworkError> + Send,
) -> Result<T, NetworkError> {
    std::thread::scope(|scope| match scope.spawn(action).join() {
        Ok(outcome) => outcome,
        Err(panic) => std::panic::resume_unwind(panic),
    })
}
