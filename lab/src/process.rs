//! A program that runs on a host of the lab: started until it is ready, watched until it ends.

use std::fs::{File, OpenOptions};
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::network::namespace::{Namespace, spawn};

/// Lines of a log that an error quotes.
const QUOTED: usize = 12;

/// How a program is started.
#[derive(Debug, Clone)]
pub(crate) struct Recipe {
    pub(crate) program: PathBuf,
    pub(crate) args: Vec<String>,
    pub(crate) env: Vec<(String, String)>,
    /// Its files: `log` with standard error, `ready.jsonl` with standard output.
    pub(crate) folder: PathBuf,
    /// Prints a line with `"event":"ready"` when it is ready; otherwise it is ready at once.
    pub(crate) announces: bool,
}

/// A program that was started.
#[derive(Debug)]
pub(crate) struct Program {
    pub(crate) pid: Pid,
    pub(crate) started: Instant,
    state: Mutex<State>,
    changed: Condvar,
    folder: PathBuf,
    /// Bytes that were in its log before it was started.
    log_start: usize,
}

#[derive(Debug)]
struct State {
    child: Child,
    ready: Option<serde_json::Value>,
    ended: Option<ExitStatus>,
}

impl Program {
    /// Starts it in a namespace, or where this process is.
    pub(crate) fn start(recipe: &Recipe, place: Option<&Namespace>) -> anyhow::Result<Arc<Self>> {
        let log = append(&recipe.folder.join("log"))?;
        let log_start = usize::try_from(log.metadata()?.len())?;
        let mut command = Command::new(&recipe.program);
        command
            .args(&recipe.args)
            .envs(recipe.env.iter().map(|(name, value)| (name, value)))
            .current_dir(&recipe.folder)
            .stdin(Stdio::null())
            .stderr(log);
        let mut output = append(&recipe.folder.join("ready.jsonl"))?;
        if recipe.announces {
            command.stdout(Stdio::piped());
        } else {
            command.stdout(output.try_clone()?);
        }
        let mut child = spawn(place, &mut command)?;
        let stdout = child.stdout.take();
        let pid = Pid::from_raw(i32::try_from(child.id())?);
        let program = Arc::new(Self {
            pid,
            started: Instant::now(),
            state: Mutex::new(State {
                child,
                ready: (!recipe.announces).then_some(serde_json::Value::Null),
                ended: None,
            }),
            changed: Condvar::new(),
            folder: recipe.folder.clone(),
            log_start,
        });
        let watched = program.clone();
        std::thread::Builder::new()
            .name(format!("watch-{pid}"))
            .spawn(move || watched.watch(stdout, &mut output))?;
        Ok(program)
    }

    /// Waits until it is ready; returns what it said of itself.
    pub(crate) fn wait_ready(&self, patience: Duration) -> anyhow::Result<serde_json::Value> {
        let until = Instant::now() + patience;
        let mut state = self.lock();
        loop {
            if let Some(status) = state.ended {
                bail!("it ended with {status}\n{}", self.log_tail());
            }
            if let Some(ready) = &state.ready {
                return Ok(ready.clone());
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                bail!("it was not ready after {patience:?}\n{}", self.log_tail());
            }
            state = self
                .changed
                .wait_timeout(state, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }

    /// How it ended, if it has.
    pub(crate) fn ended(&self) -> Option<ExitStatus> {
        self.lock().ended
    }

    /// Sends a signal; one that has ended gets none.
    pub(crate) fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        // The lock keeps the number from being given to somebody else meanwhile.
        let state = self.lock();
        if state.ended.is_some() {
            bail!("it does not run");
        }
        Ok(kill(self.pid, signal)?)
    }

    /// Waits until it has ended; `false`: it has not.
    pub(crate) fn wait_ended(&self, patience: Duration) -> bool {
        let state = self.lock();
        let waited = self
            .changed
            .wait_timeout_while(state, patience, |state| state.ended.is_none());
        let (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        state.ended.is_some()
    }

    /// The last lines of its log since it was started.
    pub(crate) fn log_tail(&self) -> String {
        let bytes = std::fs::read(self.folder.join("log")).unwrap_or_default();
        let own = bytes.get(self.log_start..).unwrap_or_default();
        let text = String::from_utf8_lossy(own);
        let lines: Vec<String> = text.lines().flat_map(plain).collect();
        let tail = &lines[lines.len().saturating_sub(QUOTED)..];
        tail.iter().map(|line| format!("    | {line}\n")).collect()
    }

    /// Reads what it prints until it ends.
    fn watch(&self, stdout: Option<ChildStdout>, output: &mut File) {
        for line in stdout
            .into_iter()
            .flat_map(|out| BufReader::new(out).lines())
        {
            let Ok(line) = line else { break };
            // A full disk is seen elsewhere; the program must not stand still for it.
            drop(writeln!(output, "{line}"));
            let value: serde_json::Value = serde_json::from_str(&line).unwrap_or_default();
            if value["event"] == "ready" {
                self.lock().ready = Some(value);
                self.changed.notify_all();
            }
        }
        // Its end is near, or it has none: a program that closes its output is asked now and then.
        loop {
            let mut state = self.lock();
            if let Ok(Some(status)) = state.child.try_wait() {
                state.ended = Some(status);
                self.changed.notify_all();
                return;
            }
            drop(state);
            std::thread::sleep(ASK_AGAIN);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Between two questions whether a program that is silent has ended.
const ASK_AGAIN: Duration = Duration::from_millis(20);

/// The same for one that somebody waits for.
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// Waits for a child that is ours alone; `None`: it has not ended by then.
pub(crate) fn wait_at_most(
    child: &mut Child,
    patience: Duration,
) -> std::io::Result<Option<ExitStatus>> {
    let until = Instant::now() + patience;
    loop {
        match child.try_wait()? {
            Some(status) => return Ok(Some(status)),
            None if Instant::now() > until => return Ok(None),
            None => std::thread::sleep(LOOK_AGAIN),
        }
    }
}

/// How a program ended, as shells tell it.
pub(crate) fn exit_code(status: ExitStatus) -> u8 {
    use std::os::unix::process::ExitStatusExt as _;
    let code = status
        .code()
        .or_else(|| status.signal().map(|signal| 128 + signal));
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(1)
}

/// The lines of a log line: those of the message, if it is an error told to programs.
pub(crate) fn plain(line: &str) -> Vec<String> {
    let value: serde_json::Value = serde_json::from_str(line).unwrap_or_default();
    let text = value["error"]["message"].as_str().unwrap_or(line);
    text.lines().map(str::to_owned).collect()
}

fn append(path: &Path) -> anyhow::Result<File> {
    OpenOptions::new()
        .create(true)
        .append(true)
        .open(path)
        .with_context(|| format!("cannot write {}", path.display()))
}
