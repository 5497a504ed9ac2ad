//! `portway subscribe`: hears what is said on message buses.

use std::io;
use std::process::ExitCode;
use std::sync::Arc;

use portway_gateway::client::ClientError;
use portway_gateway::client::keeper::Event;
use portway_gateway::client::messages::{Heard, Subscriber};
use portway_gateway::tunnel::pool::News;
use portway_protocol::id::ServiceName;
use portway_protocol::message::event::Content;
use portway_protocol::message::{Filter, MessageId, Missed, Topic};
use portway_protocol::reason::Reason;
use serde::Serialize;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::events::clock;
use crate::args::{At, Format, Global, Subscribe};
use crate::exit::Failure;
use crate::keyring::Keyring;
use crate::opened::{millis, refusal};
use crate::output;
use crate::signals::Signals;
use portway_protocol::printable::printable;

/// News of sessions that may wait to be printed.
const NEWS: usize = 16;

/// Messages that may wait to be printed; the bus keeps the rest.
const HEARD: usize = 16;

/// What is printed, a line each.
#[derive(Serialize)]
#[serde(tag = "event", rename_all = "lowercase")]
enum Line {
    /// What comes from now on is heard.
    Subscribed {
        service: ServiceName,
        topic: Filter,
        id: MessageId,
    },
    /// A message.
    Message {
        service: ServiceName,
        id: MessageId,
        topic: Topic,
        publisher: String,
        at_ms: u64,
        content_type: String,
        #[serde(flatten)]
        content: Content,
        #[serde(skip)]
        size: usize,
    },
    /// Messages that never come.
    Missed {
        service: ServiceName,
        topic: Filter,
        #[serde(flatten)]
        missed: Missed,
    },
    /// There is no session.
    Lost {
        service: ServiceName,
        reason: Reason,
        message: String,
        retry_ms: f64,
    },
}

/// Why a subscription ended by itself, and which.
type Ended = (ServiceName, ClientError);

/// Runs until a signal, or until a bus refuses.
pub(crate) fn run(global: &Global, args: &Subscribe) -> anyhow::Result<ExitCode> {
    require_distinct(&args.topics)?;
    let keyring = Keyring::open(global, &args.credentials, None)?;
    for at in &args.topics {
        keyring.target(&at.service)?;
    }
    // Whoever does not take what is printed shall not keep sessions from being alive.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    runtime.block_on(listen(global.format(), args, Arc::new(keyring)))
}

/// Nobody wants to hear a message twice.
fn require_distinct(topics: &[At<Filter>]) -> Result<(), Failure> {
    for (index, at) in topics.iter().enumerate() {
        let mut before = topics[..index].iter();
        let is_same = |it: &&At<Filter>| it.service == at.service && it.topic.overlaps(&at.topic);
        if let Some(same) = before.find(is_same) {
            let message = format!(
                "{0}/{1} and {0}/{2} have topics in common: leave one out",
                at.service, same.topic, at.topic
            );
            return Err(Failure::usage(message));
        }
    }
    Ok(())
}

async fn listen(
    format: Format,
    args: &Subscribe,
    keyring: Arc<Keyring>,
) -> anyhow::Result<ExitCode> {
    let mut signals = Signals::hear()?;
    let (news, mut told) = mpsc::channel(NEWS);
    let (hearing, mut heard) = mpsc::channel(HEARD);
    let pool = keyring.pool(news);
    let mut listening = JoinSet::new();
    for at in &args.topics {
        let sessions = pool.current(&at.service).map_err(refusal(&at.service))?;
        let subscriber = Subscriber::new(sessions, at.topic.clone(), args.since);
        listening.spawn(hear(subscriber, at.clone(), hearing.clone()));
    }
    let outcome = loop {
        tokio::select! {
            Some(line) = heard.recv() => print(format, &line)?,
            Some(news) = told.recv() => match news {
                News::Session(service, Event::Lost { error, retry_in }) => {
                    let lost = Line::Lost {
                        service,
                        reason: error.reason(),
                        message: error.to_string(),
                        retry_ms: millis(retry_in),
                    };
                    print(format, &lost)?;
                }
                News::Session(_, Event::Connected { .. } | Event::Path(_)) => {}
                News::Refused(service, error) => break Err(keyring.failure(&service, &error).into()),
            },
            Some(ended) = listening.join_next() => match ended? {
                // Why there are no more sessions is among the news.
                (_, ClientError::Ended) => {}
                (service, error) => break Err(keyring.failure(&service, &error).into()),
            },
            asked = signals.end() => break Ok(asked.code()),
        }
    };
    // What happens to these is no more told.
    drop(told);
    listening.shutdown().await;
    tokio::select! {
        () = pool.close() => {}
        // A second one does not wait.
        _ = signals.end() => {}
    }
    outcome
}

/// Passes on what a subscriber hears, as fast as it is taken.
async fn hear(
    mut subscriber: Subscriber,
    At { service, topic }: At<Filter>,
    lines: mpsc::Sender<Line>,
) -> Ended {
    loop {
        let heard = match subscriber.next().await {
            Ok(heard) => heard,
            Err(error) => return (service, error),
        };
        let line = Line::of(&service, &topic, heard);
        if lines.send(line).await.is_err() {
            return (service, ClientError::Ended);
        }
    }
}

impl Line {
    fn of(service: &ServiceName, filter: &Filter, heard: Heard) -> Self {
        let (service, topic) = (service.clone(), filter.clone());
        match heard {
            Heard::Subscribed(id) => Self::Subscribed { service, topic, id },
            Heard::Missed(missed) => Self::Missed {
                service,
                topic,
                missed,
            },
            Heard::Message(message) => Self::Message {
                service,
                id: message.id,
                topic: message.topic,
                publisher: message.publisher,
                at_ms: message.at_ms,
                content_type: message.content_type,
                content: Content::of(&message.body),
                size: message.body.len(),
            },
        }
    }
}

/// Messages are data; the rest is, too, for programs.
fn print(format: Format, line: &Line) -> io::Result<()> {
    match (format, line) {
        (Format::Human, Line::Subscribed { .. } | Line::Missed { .. } | Line::Lost { .. }) => {
            eprintln!("portway: {}", human(line));
            Ok(())
        }
        (Format::Human, Line::Message { .. }) | (Format::Json, _) => {
            output::print(format, line, human)
        }
    }
}

fn human(line: &Line) -> String {
    match line {
        Line::Subscribed { service, topic, .. } => format!("listening to {service}/{topic}"),
        Line::Message {
            topic,
            publisher,
            at_ms,
            content_type,
            content,
            size,
            ..
        } => {
            let said = match content {
                Content::Text(text) => printable(text.trim_end()),
                Content::Base64(_) => format!("({size} bytes of {})", printable(content_type)),
            };
            let publisher = printable(publisher);
            format!("{}  {publisher}  {topic}  {said}", clock(*at_ms))
        }
        Line::Missed {
            service,
            topic,
            missed,
        } => {
            let what = match missed {
                Missed::Slow { count: 1 } => {
                    "1 message was missed: it came faster than it was read".to_owned()
                }
                Missed::Slow { count } => {
                    format!("{count} messages were missed: they came faster than they were read")
                }
                Missed::Forgotten => {
                    "messages were missed: too many have come meanwhile".to_owned()
                }
                Missed::Restarted => {
                    "the bus has restarted: what was said before and not heard is lost".to_owned()
                }
            };
            format!("{service}/{topic}: {what}")
        }
        Line::Lost {
            service,
            reason,
            message,
            ..
        } => format!("{service}: no connection: {message} [{reason}]; trying again"),
    }
}
