//! `portway ping`: opens a service as a browser would, and tells how that went.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use http_body_util::{BodyExt as _, Empty};
use hyper::Request;
use hyper::body::Bytes;
use portway_gateway::client::session::RequestBody;
use portway_gateway::client::{self, Session};
use portway_protocol::id::{NodeId, ServiceName};
use portway_protocol::reason::Reason;
use portway_protocol::target::ServiceKind;
use serde::Serialize;

use crate::args::{Format, Global, Ping};
use crate::exit::Failure;
use crate::keyring::Keyring;
use crate::opened::{self, Reached, Took, millis};

use crate::output;
use crate::signals::{Asked, Signals};

/// A round trip that takes longer is lost.
const ROUND_TRIP_TIMEOUT: Duration = Duration::from_secs(3);

/// Time for the service's answer.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

/// A session that is there.
#[derive(Serialize, Clone)]
struct Facts {
    service: ServiceName,
    node: NodeId,
    #[serde(flatten)]
    reached: Option<Reached>,
    #[serde(flatten)]
    took: Took,
}

/// One real request.
#[derive(Serialize, Clone, Copy)]
struct Answered {
    status: u16,
    ms: f64,
}

/// What is printed, a line each.
#[derive(Serialize)]
#[serde(tag = "event", rename_all = "lowercase")]
enum Line {
    /// The session is there.
    Open(Facts),
    /// The service has answered.
    Request(Answered),
    /// A round trip; none: lost.
    Ping { seq: u32, rtt_ms: Option<f64> },
    /// The last line.
    Summary {
        #[serde(flatten)]
        facts: Facts,
        request: Option<Answered>,
        rtt_ms: Option<Statistics>,
        sent: u32,
        lost: u32,
    },
}

/// Of the round trips that came back.
#[derive(Serialize, Clone, Copy)]
struct Statistics {
    min: f64,
    avg: f64,
    max: f64,
}

/// Runs it.
pub(crate) fn run(global: &Global, args: &Ping) -> anyhow::Result<ExitCode> {
    let keyring = Keyring::open(
        global,
        &args.opened.credentials,
        args.opened.service.as_ref(),
    )?;
    // One session keeps one thread busy at most, and many of us may run at once.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(ping(global.format(), args, &keyring))
}

async fn ping(format: Format, args: &Ping, keyring: &Keyring) -> anyhow::Result<ExitCode> {
    let service = keyring.service()?;
    let target = keyring.target(&service)?;
    let mut signals = Signals::hear()?;
    let connected = tokio::select! {
        connected = client::connect(&target) => connected,
        asked = signals.end() => return Ok(asked.code()),
    };
    let session = connected.map_err(|error| keyring.failure(&service, &error))?;
    let facts = Facts {
        service,
        node: session.node.clone(),
        reached: session.path().await.map(Reached::of),
        took: Took::of(&session.opening),
    };
    print(format, &Line::Open(facts.clone()))?;
    let mut run = Run {
        format,
        request: None,
        rtts: Vec::new(),
        sent: 0,
    };
    let ended = tokio::select! {
        outcome = run.measure(&session, args) => Ended::Done(outcome),
        asked = signals.end() => Ended::Asked(asked),
    };
    let summary = Line::Summary {
        facts,
        request: run.request,
        rtt_ms: statistics(&run.rtts),
        sent: run.sent,
        lost: run.lost(),
    };
    print(format, &summary)?;
    session.close().await;
    match ended {
        Ended::Asked(asked) => Ok(asked.code()),
        Ended::Done(Err(error)) => Err(error),
        Ended::Done(Ok(())) if run.rtts.is_empty() => {
            Err(Failure::because(Reason::SessionLost, "no ping was answered").into())
        }
        Ended::Done(Ok(())) => Ok(ExitCode::SUCCESS),
    }
}

/// How measuring ended.
enum Ended {
    Done(anyhow::Result<()>),
    Asked(Asked),
}

/// What has been measured so far.
struct Run {
    format: Format,
    request: Option<Answered>,
    /// Of those that came back, in milliseconds.
    rtts: Vec<f64>,
    sent: u32,
}

impl Run {
    async fn measure(&mut self, session: &Session, args: &Ping) -> anyhow::Result<()> {
        // Who speaks something else than HTTP is not to be disturbed.
        if session.accepted.kind == ServiceKind::Http {
            let answered = request(session).await?;
            self.request = Some(answered);
            print(self.format, &Line::Request(answered))?;
        }
        let mut ticks = tokio::time::interval(args.interval);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        for seq in 1..=args.count {
            ticks.tick().await;
            self.sent = seq;
            let rtt_ms = match tokio::time::timeout(ROUND_TRIP_TIMEOUT, session.ping()).await {
                Ok(measured) => Some(millis(measured.map_err(|error| opened::failure(&error))?)),
                Err(_) => None,
            };
            self.rtts.extend(rtt_ms);
            print(self.format, &Line::Ping { seq, rtt_ms })?;
        }
        Ok(())
    }

    fn lost(&self) -> u32 {
        let answered = u32::try_from(self.rtts.len()).unwrap_or(u32::MAX);
        self.sent.saturating_sub(answered)
    }
}

/// `GET /`, through to the service.
async fn request(session: &Session) -> anyhow::Result<Answered> {
    let body: RequestBody = Empty::<Bytes>::new()
        .map_err(|never| match never {})
        .boxed_unsync();
    let request = Request::get("http://service/")
        .header("accept", "*/*")
        .header(
            "user-agent",
            concat!("portway-ping/", env!("CARGO_PKG_VERSION")),
        )
        .body(body)?;
    let begun = Instant::now();
    let mut requests = session.requests();
    let answer = tokio::time::timeout(REQUEST_TIMEOUT, requests.send(request)).await;
    match answer {
        Ok(Ok(response)) => Ok(Answered {
            status: response.status().as_u16(),
            ms: millis(begun.elapsed()),
        }),
        Ok(Err(unanswered)) => Err(opened::failure(&unanswered.into()).into()),
        Err(_) => Err(Failure::because(
            Reason::UpstreamTimeout,
            "the service did not answer a request in time",
        )
        .into()),
    }
}

fn statistics(rtts: &[f64]) -> Option<Statistics> {
    let count = u32::try_from(rtts.len()).ok().filter(|count| *count > 0)?;
    let sum: f64 = rtts.iter().sum();
    Some(Statistics {
        min: rtts.iter().copied().fold(f64::INFINITY, f64::min),
        avg: (sum / f64::from(count) * 100.0).round() / 100.0,
        max: rtts.iter().copied().fold(0.0, f64::max),
    })
}

fn print(format: Format, line: &Line) -> std::io::Result<()> {
    output::print(format, line, human)
}

fn human(line: &Line) -> String {
    match line {
        Line::Open(facts) => {
            let reached = facts
                .reached
                .as_ref()
                .map_or_else(|| "by an unknown path".to_owned(), Reached::words);
            format!(
                "{} on {}: {reached}\n{}",
                facts.service,
                facts.node,
                facts.took.words(),
            )
        }
        Line::Request(answered) => {
            format!("GET /: status {} in {:.1} ms", answered.status, answered.ms)
        }
        Line::Ping { seq, rtt_ms } => match rtt_ms {
            Some(rtt) => format!("ping {seq}: {rtt:.2} ms"),
            None => format!("ping {seq}: lost"),
        },
        Line::Summary {
            rtt_ms, sent, lost, ..
        } => {
            let rtt = rtt_ms.map_or_else(String::new, |rtt| {
                format!(
                    ", round trip min/avg/max {:.2}/{:.2}/{:.2} ms",
                    rtt.min, rtt.avg, rtt.max
                )
            });
            format!("{sent} sent, {lost} lost{rtt}")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statistics_are_of_what_came_back() {
        assert!(statistics(&[]).is_none());
        let rtts = statistics(&[1.0, 2.0, 4.5]).unwrap();
        assert_eq!((rtts.min, rtts.avg, rtts.max), (1.0, 2.5, 4.5));
    }
}
