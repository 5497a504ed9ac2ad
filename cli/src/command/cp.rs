//! `portway cp`: files to and from a service of files.
//!
//! ```text
//! place ──► fetch (there to here) ┐                ┌─► report
//!      └──► send (here to there)  ┴─ over a keeper ┘
//! ```
//! - [`place`]: what the two arguments mean. [`fetch`], [`send`]: what is copied, and where it comes to.
//! - [`local`]: the file system here. [`report`]: what is told of it.
//!
//! A session that is lost is opened anew, and what was under way goes on there.

mod fetch;
mod local;
mod place;
mod report;
mod send;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use portway_gateway::client::files::{Counter, FilesClient, FilesError};
use portway_gateway::client::keeper::{Event, Keeper};
use portway_gateway::client::{ClientError, Target};
use portway_gateway::files::partial::Replace;
use portway_protocol::files::{Attributes, FilePath};
use portway_protocol::id::NodeId;
use portway_protocol::reason::{Exit, Reason};
use portway_protocol::target::ServiceKind;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use crate::args::{Cp, Format, Global};
use crate::exit::{Failure, INTERRUPTED};
use crate::keyring::Keyring;
use crate::opened;
use crate::output::Stream;
use crate::signals::Signals;
use fetch::Fetch;
use place::{Place, Remote};
use portway_protocol::printable::printable;
use report::{News, Report};
use send::Send;

/// Events of the session that may wait to be told.
const EVENTS: usize = 16;

/// News of files that may wait to be told.
const NEWS: usize = 64;

/// Files that are copied at a time: many small ones take a round trip each.
const IN_FLIGHT: usize = 8;

/// Time between looks at how far it is, on a terminal and for programs.
const LOOK: Duration = Duration::from_millis(100);
const LOOK_JSON: Duration = Duration::from_secs(1);

/// How files are copied.
#[derive(Debug, Clone, Copy)]
struct Terms {
    replace: Replace,
    compare: Compare,
    tree: Tree,
}

/// By what a file that is there already is told to be the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Compare {
    /// Size and time.
    Attributes,
    /// SHA-256.
    Content,
}

/// Whether directories are copied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Tree {
    Copied,
    Refused,
}

/// What is to be done.
enum Plan {
    Fetch(Remote, PathBuf),
    Print(Remote),
    Send(PathBuf, Remote),
    Pour(Remote),
}

impl Plan {
    fn of(args: &Cp) -> Result<Self, Failure> {
        let usage = |message: &str| Err(Failure::new(Exit::Usage, message));
        match (Place::of(&args.source)?, Place::of(&args.destination)?) {
            (Place::Remote(from), Place::Local(to)) => Ok(Self::Fetch(from, to)),
            (Place::Remote(from), Place::Standard) => Ok(Self::Print(from)),
            (Place::Local(from), Place::Remote(to)) => Ok(Self::Send(from, to)),
            (Place::Standard, Place::Remote(_)) if args.credentials.take_standard_input() => {
                usage("standard input cannot be both the link and the file")
            }
            (Place::Standard, Place::Remote(to)) => Ok(Self::Pour(to)),
            (Place::Remote(_), Place::Remote(_)) => {
                usage("one of the two must be on this machine: copy here first, and then there")
            }
            (Place::Local(_) | Place::Standard, Place::Local(_) | Place::Standard) => usage(
                "one of the two must be on another machine: SERVICE:PATH, or :PATH for the service of the link",
            ),
        }
    }

    const fn remote(&self) -> &Remote {
        match self {
            Self::Fetch(remote, _)
            | Self::Print(remote)
            | Self::Send(_, remote)
            | Self::Pour(remote) => remote,
        }
    }

    /// Where its news go: standard output, unless the file does.
    const fn stream(&self) -> Stream {
        match self {
            Self::Print(_) => Stream::Error,
            Self::Fetch(..) | Self::Send(..) | Self::Pour(_) => Stream::Output,
        }
    }
}

/// Copies until all is copied, or what is left cannot be.
pub(crate) fn run(global: &Global, args: &Cp) -> anyhow::Result<ExitCode> {
    let plan = Plan::of(args)?;
    let remote = plan.remote();
    let keyring = Keyring::open(global, &args.credentials, remote.service.as_ref())?;
    let service = keyring.service()?;
    let mut target = keyring.target(&service)?;
    if let Some(node) = &plan.remote().node {
        target.node = Some(node.clone());
    }
    let terms = Terms {
        replace: if args.force {
            Replace::Always
        } else {
            Replace::Never
        },
        compare: if args.checksum {
            Compare::Content
        } else {
            Compare::Attributes
        },
        tree: if args.recursive {
            Tree::Copied
        } else {
            Tree::Refused
        },
    };
    let names = [&args.source, &args.destination].map(|it| printable(&it.to_string_lossy()));
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let outcome = runtime.block_on(copy(global.format(), terms, plan, (&keyring, target)));
    let outcome = outcome.with_context(|| format!("cannot copy {} to {}", names[0], names[1]));
    // Whoever reads standard input cannot be interrupted.
    runtime.shutdown_background();
    outcome
}

async fn copy(
    format: Format,
    terms: Terms,
    plan: Plan,
    (keyring, target): (&Keyring, Target),
) -> anyhow::Result<ExitCode> {
    let mut signals = Signals::hear()?;
    let (events, mut told) = mpsc::channel(EVENTS);
    let service = target.address.site.service.clone();
    let keeper = Keeper::new(target, events);
    let client = FilesClient::new(service.clone(), keeper.watch());
    let closing = CancellationToken::new();
    let mut keeping: JoinSet<Result<(), ClientError>> = JoinSet::new();
    keeping.spawn(keeper.run(closing.clone()));
    let mut machine = tokio::select! {
        Some(first) = told.recv() => begin(first)?,
        Some(ended) = keeping.join_next() => {
            ended?.map_err(|error| keyring.failure(&service, &error))?;
            None
        }
        _asked = signals.end() => return Ok(ExitCode::from(INTERRUPTED)),
    };

    let counter = Counter::default();
    let mut report = Report::new(format, plan.stream(), counter.clone());
    let (news, mut happened) = mpsc::channel(NEWS);
    let work = work(
        plan,
        Copier {
            client,
            terms,
            counter,
            news,
        },
    );
    tokio::pin!(work);
    let mut looks = tokio::time::interval(match format {
        Format::Human => LOOK,
        Format::Json => LOOK_JSON,
    });
    looks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let outcome = loop {
        tokio::select! {
            outcome = &mut work => break outcome,
            Some(happened) = happened.recv() => report.tell(happened)?,
            Some(event) = told.recv() => {
                if let Event::Connected { node, .. } = &event {
                    machine = Some(node.clone());
                }
                report.session(event)?;
            }
            _tick = looks.tick() => report.progress()?,
            _asked = signals.end() => {
                report.clear();
                eprintln!("portway: interrupted; the same command goes on where it ended");
                return Ok(ExitCode::from(INTERRUPTED));
            }
        }
    };
    while let Ok(happened) = happened.try_recv() {
        report.tell(happened)?;
    }
    closing.cancel();
    while keeping.join_next().await.is_some() {}
    match outcome {
        Ok(()) => report.done(),
        Err(error) => {
            report.clear();
            Err(failure(&error, machine.as_ref()).into())
        }
    }
}

/// The machine that it begins with. Whoever cannot even begin waits for nothing.
fn begin(first: Event) -> Result<Option<NodeId>, Failure> {
    match first {
        Event::Connected {
            kind: ServiceKind::Http,
            node,
            ..
        } => Ok(Some(node)),
        Event::Connected {
            kind: ServiceKind::Tcp | ServiceKind::Listen | ServiceKind::Udp,
            ..
        } => Err(failure(&FilesError::NotFiles, None)),
        Event::Path(_) => Ok(None),
        Event::Lost { error, .. } => Err(opened::failure(&error)),
    }
}

/// How it ends. `machine` is the other one.
fn failure(error: &FilesError, machine: Option<&NodeId>) -> Failure {
    let full = |machine: &str| {
        format!("no space left on {machine}: make room there, and run the same command again")
    };
    let message = match error {
        FilesError::Refused(Reason::DiskFull) => {
            full(machine.map_or("the other machine", NodeId::as_str))
        }
        FilesError::Local(error) if error.reason() == Reason::DiskFull => full("this machine"),
        FilesError::NoSession(_) | FilesError::Lost(_) | FilesError::Cut(_) => {
            format!("{error} The same command goes on where it ended.")
        }
        FilesError::Refused(_)
        | FilesError::NotFiles
        | FilesError::Path(_)
        | FilesError::Invalid
        | FilesError::Local(_) => error.to_string(),
    };
    Failure::because(error.reason(), message)
}

/// What every copy needs.
#[derive(Clone)]
struct Copier {
    client: FilesClient,
    terms: Terms,
    counter: Counter,
    news: mpsc::Sender<News>,
}

async fn work(plan: Plan, copier: Copier) -> Result<(), FilesError> {
    match plan {
        Plan::Fetch(from, to) => Fetch(copier).run(from, to).await,
        Plan::Print(from) => Fetch(copier).print(from).await,
        Plan::Send(from, to) => Send(copier).run(from, to).await,
        Plan::Pour(to) => Send(copier).pour(to).await,
    }
}

impl Copier {
    /// Tells what was not copied.
    ///
    /// # Errors
    /// That very one, if nothing else will be copied either.
    async fn failed(&self, path: &FilePath, error: FilesError) -> Result<(), FilesError> {
        if is_over(&error) {
            return Err(error);
        }
        let path = path.to_text();
        self.tell(News::Failed { path, error }).await;
        Ok(())
    }

    /// Tells something; whoever listened may be about to end.
    async fn tell(&self, news: News) {
        if self.news.send(news).await.is_err() {
            tracing::debug!("nobody listens");
        }
    }

    /// Whether two files are the same as far as size and time tell, or anything could.
    fn may_be_same(&self, one: &Attributes, other: &Attributes) -> bool {
        one.size == other.size
            && match self.terms.compare {
                Compare::Attributes => one.modified_ms == other.modified_ms,
                Compare::Content => true,
            }
    }
}

/// Copies of several files, no more than [`IN_FLIGHT`] at a time.
struct Copies {
    copier: Copier,
    running: JoinSet<News>,
}

impl Copies {
    fn new(copier: &Copier) -> Self {
        Self {
            copier: copier.clone(),
            running: JoinSet::new(),
        }
    }

    /// Begins another one as soon as there is room.
    async fn begin(
        &mut self,
        size: u64,
        copy: impl Future<Output = News> + std::marker::Send + 'static,
    ) -> Result<(), FilesError> {
        while self.running.len() >= IN_FLIGHT {
            self.end_one().await?;
        }
        self.copier.tell(News::Found(size)).await;
        self.running.spawn(copy);
        Ok(())
    }

    /// Waits for all.
    async fn end(mut self) -> Result<(), FilesError> {
        while !self.running.is_empty() {
            self.end_one().await?;
        }
        Ok(())
    }

    async fn end_one(&mut self) -> Result<(), FilesError> {
        match self.running.join_next().await {
            Some(Ok(News::Failed { error, .. })) if is_over(&error) => Err(error),
            Some(Ok(news)) => {
                self.copier.tell(news).await;
                Ok(())
            }
            Some(Err(error)) => std::panic::resume_unwind(error.into_panic()),
            None => Ok(()),
        }
    }
}

/// Whether nothing else will be copied either.
fn is_over(error: &FilesError) -> bool {
    match error {
        FilesError::NoSession(_) | FilesError::NotFiles | FilesError::Invalid => true,
        FilesError::Refused(_) | FilesError::Local(_) => error.reason() == Reason::DiskFull,
        FilesError::Lost(_) | FilesError::Cut(_) | FilesError::Path(_) => false,
    }
}
