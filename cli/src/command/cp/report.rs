//! What `portway cp` tells: on a terminal how far it is, otherwise what happened; with `--json` both, a line each.

use std::io::{self, IsTerminal as _};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use portway_gateway::client::files::{Counter, FilesError, Transferred};
use portway_gateway::client::keeper::Event;
use portway_protocol::files::Sha256Digest;
use portway_protocol::reason::Reason;
use serde::Serialize;

use crate::args::Format;
use crate::command::client::bytes;
use crate::exit::Failure;
use crate::opened::millis;
use crate::output::{self, Stream};
use portway_protocol::printable::printable;

/// What a line shows.
const STYLE: &str = "{bytes}/{total_bytes}  {bytes_per_sec}  ETA {eta}  {wide_msg}";

/// Something that a copy has come to.
#[derive(Debug)]
pub(super) enum News {
    /// There is a file of this size to copy.
    Found(u64),
    /// It is copied.
    Copied {
        path: String,
        size: u64,
        transferred: Transferred,
    },
    /// It is the same at both ends already.
    Unchanged { path: String, size: u64 },
    /// It is nothing that can be copied.
    Skipped { path: String },
    /// It is not copied.
    Failed { path: String, error: FilesError },
}

/// What is printed, a line each.
#[derive(Serialize)]
#[serde(tag = "event", rename_all = "lowercase")]
enum Line {
    Progress {
        bytes: u64,
        total: u64,
        rate: f64,
        #[serde(skip_serializing_if = "Option::is_none")]
        eta_s: Option<f64>,
    },
    File {
        path: String,
        bytes: u64,
        resumed_at: u64,
        sha256: Sha256Digest,
    },
    Unchanged {
        path: String,
    },
    Skipped {
        path: String,
    },
    Failed {
        path: String,
        reason: Reason,
        message: String,
    },
    Lost {
        reason: Reason,
        message: String,
        retry_ms: f64,
    },
    Connected,
    Done {
        files: u64,
        unchanged: u64,
        skipped: u64,
        failed: u64,
        bytes: u64,
        moved: u64,
        seconds: f64,
        #[serde(skip)]
        last: Option<Sha256Digest>,
    },
}

/// Tells it.
pub(super) struct Report {
    format: Format,
    stream: Stream,
    counter: Counter,
    bar: ProgressBar,
    started: Instant,
    total: u64,
    files: u64,
    unchanged: u64,
    skipped: u64,
    failed: u64,
    /// Of the last file that was copied.
    digest: Option<Sha256Digest>,
    first_failure: Option<Reason>,
}

impl Report {
    /// Nothing has happened. `stream` is where data goes: not where the copy does.
    pub(super) fn new(format: Format, stream: Stream, counter: Counter) -> Self {
        let target = match format {
            Format::Human if io::stderr().is_terminal() => ProgressDrawTarget::stderr(),
            Format::Human | Format::Json => ProgressDrawTarget::hidden(),
        };
        let bar = ProgressBar::with_draw_target(Some(0), target);
        bar.set_style(ProgressStyle::with_template(STYLE).expect("the template is right"));
        Self {
            format,
            stream,
            counter,
            bar,
            started: Instant::now(),
            total: 0,
            files: 0,
            unchanged: 0,
            skipped: 0,
            failed: 0,
            digest: None,
            first_failure: None,
        }
    }

    pub(super) fn tell(&mut self, news: News) -> io::Result<()> {
        match news {
            News::Found(size) => {
                self.total += size;
                Ok(())
            }
            News::Copied {
                path,
                size,
                transferred,
            } => {
                self.files += 1;
                self.digest = Some(transferred.digest);
                self.bar.set_message(printable(&path));
                self.event(&Line::File {
                    path,
                    bytes: size,
                    resumed_at: transferred.resumed_at,
                    sha256: transferred.digest,
                })
            }
            News::Unchanged { path, size } => {
                self.unchanged += 1;
                self.counter.add_present(size);
                self.event(&Line::Unchanged { path })
            }
            News::Skipped { path } => {
                self.skipped += 1;
                self.complain(&format!(
                    "{}: skipped, no file or directory of its own",
                    printable(&path)
                ));
                self.event(&Line::Skipped { path })
            }
            News::Failed { path, error } => {
                self.failed += 1;
                let (reason, message) = (error.reason(), error.to_string());
                self.complain(&format!("{}: {message} [{reason}]", printable(&path)));
                self.first_failure.get_or_insert(reason);
                self.event(&Line::Failed {
                    path,
                    reason,
                    message,
                })
            }
        }
    }

    /// Tells how the session does, after the first.
    pub(super) fn session(&self, event: Event) -> io::Result<()> {
        match event {
            Event::Connected { .. } => self.event(&Line::Connected),
            Event::Path(_) => Ok(()),
            Event::Lost { error, retry_in } => {
                let (reason, message) = (error.reason(), error.to_string());
                self.complain(&format!("{message} [{reason}]; trying again"));
                self.event(&Line::Lost {
                    reason,
                    message,
                    retry_ms: millis(retry_in),
                })
            }
        }
    }

    /// Tells how far it is.
    pub(super) fn progress(&self) -> io::Result<()> {
        let bytes = self.bytes();
        self.bar.set_length(self.total);
        self.bar.set_position(bytes);
        self.event(&Line::Progress {
            bytes,
            total: self.total,
            rate: self.rate(),
            eta_s: self.eta().map(|eta| eta.as_secs_f64()),
        })
    }

    /// Tells what has come of it.
    pub(super) fn done(self) -> anyhow::Result<ExitCode> {
        self.bar.finish_and_clear();
        let done = Line::Done {
            files: self.files,
            unchanged: self.unchanged,
            skipped: self.skipped,
            failed: self.failed,
            bytes: self.total,
            moved: self.counter.moved(),
            seconds: self.started.elapsed().as_secs_f64(),
            last: self.digest,
        };
        output::print_to(self.stream, self.format, &done, human)?;
        match self.first_failure {
            None => Ok(ExitCode::SUCCESS),
            Some(reason) => {
                let of = self.files + self.unchanged + self.failed;
                let message = format!("{} of {of} not copied", self.failed);
                Err(Failure::because(reason, message).into())
            }
        }
    }

    /// Removes the line of progress.
    pub(super) fn clear(&self) {
        self.bar.finish_and_clear();
    }

    fn bytes(&self) -> u64 {
        self.counter.moved() + self.counter.present()
    }

    /// Bytes a second, so far.
    fn rate(&self) -> f64 {
        #[allow(clippy::cast_precision_loss, reason = "it is a figure for people")]
        let moved = self.counter.moved() as f64;
        (moved / self.started.elapsed().as_secs_f64()).round()
    }

    fn eta(&self) -> Option<Duration> {
        let left = self.total.saturating_sub(self.bytes());
        #[allow(clippy::cast_precision_loss, reason = "it is a figure for people")]
        let seconds = left as f64 / self.rate();
        Duration::try_from_secs_f64(seconds).ok()
    }

    /// For programs, which read each.
    fn event(&self, line: &Line) -> io::Result<()> {
        match self.format {
            Format::Json => output::print_to(self.stream, self.format, line, human),
            Format::Human => Ok(()),
        }
    }

    /// For people.
    fn complain(&self, text: &str) {
        match self.format {
            Format::Human => self.bar.suspend(|| eprintln!("portway: {text}")),
            Format::Json => {}
        }
    }
}

fn human(line: &Line) -> String {
    let Line::Done {
        files,
        unchanged,
        moved,
        seconds,
        last,
        ..
    } = line
    else {
        return String::new();
    };
    let plural = |count: u64| match count {
        1 => "1 file".to_owned(),
        count => format!("{count} files"),
    };
    if *files == 0 && *unchanged > 0 {
        return format!("{} unchanged", plural(*unchanged));
    }
    let mut text = plural(*files);
    #[allow(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "it is a figure for people"
    )]
    let rate = (*moved as f64 / seconds) as u64;
    text.push_str(&format!(
        ", {} in {seconds:.1} s ({}/s)",
        bytes(*moved),
        bytes(rate)
    ));
    if *unchanged > 0 {
        text.push_str(&format!(", {unchanged} unchanged"));
    }
    if let (1, Some(digest)) = (files, last) {
        text.push_str(&format!(", sha256 {digest}"));
    }
    text
}
