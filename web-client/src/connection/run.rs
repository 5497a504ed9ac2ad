//! A session that was accepted, to its end, over whatever channels it takes.
//!
//! ```text
//! connected ── silence ──► another introduction, another channel ── accepted ──► the lane moves there
//!     ▲  ▲                     │ failed: again, as long as the silence lasts             │
//!     │  └── the old path is back first                                                  │
//!     └──────────────────────────────────────────────────────────────────────────────────┘
//! ```
//! What is under way waits: the lane and what it runs over survive. Only the gateway ends the session, by its
//! word on a channel, or a silence that was too long. Signaling does not: it may lie.

use std::pin::Pin;
use std::rc::Rc;
use std::time::Duration;

use portway_protocol::id::{NodeId, SessionId};
use portway_protocol::key::PublicKey;
use portway_protocol::reason::Reason;
use portway_protocol::session::party::Proven;
use portway_protocol::session::resumption::{Deadlines, PAUSE, Resumption, is_over};
use portway_protocol::signal::{Envelope, Heartbeat};
use tokio::sync::{Notify, mpsc};

use super::holder::{FromHolder, Held};
use super::introduce::{Introduction, hear, introduce, presence, relay};
use super::{Event, Inner, QUEUE, Status};
use crate::clock;
use crate::error::Failure;
use crate::session::{self, News, Reached, Unreached};
use crate::signaling::{self, Signaling, is_there};

/// Interval of heartbeats to signaling.
const HEARTBEAT: Duration = Duration::from_secs(25);

/// News of a session that may wait.
const NEWS: usize = 8;

/// Channels that may wait for the session to take them.
const CHANNELS: usize = 4;

const HEARTBEAT_ID: &str = "heartbeat";

/// A channel, with all that belongs to it.
struct Found<'a> {
    held: Held<'a>,
    signaling: Signaling,
    reached: Reached,
}

/// Another channel, while it is looked for.
struct Attempt<'a> {
    session: SessionId,
    since: Duration,
    deadlines: Deadlines,
    /// What the holder says of it.
    events: mpsc::Sender<Event>,
    /// The machine has another network.
    network: Rc<Notify>,
    finding: Pin<Box<dyn Future<Output = Result<Found<'a>, Unreached>> + 'a>>,
}

/// A silence, and what was done about it.
#[derive(Debug, Clone, Copy)]
struct Silence {
    since: Duration,
    failures: u32,
    /// Whether signaling was found to be away, and not just silent as well.
    is_refused: bool,
}

struct Run<'a> {
    inner: &'a Inner,
    held: Held<'a>,
    /// The node that has the session.
    node: NodeId,
    resumption: Resumption,
    deadlines: Deadlines,
    /// Until its socket is lost: what is connected does not need it.
    signaling: &'a mut Option<Signaling>,
    silence: Option<Silence>,
    attempt: Option<Attempt<'a>>,
    channels: mpsc::Sender<Reached>,
    doubt: Rc<Notify>,
}

/// Runs an accepted session to its end.
pub(super) async fn drive<'a>(
    inner: &'a Inner,
    signaling: &'a mut Option<Signaling>,
    events: &mut mpsc::Receiver<Event>,
    held: Held<'a>,
    reached: Reached,
    deadlines: Deadlines,
) -> Failure {
    let (proven, resumption) = (reached.proven.clone(), reached.resumption.clone());
    let Proven {
        node,
        key,
        cluster_key,
    } = proven;
    let begun = match session::begin(reached).await {
        Ok(begun) => begun,
        Err(failure) => return failure,
    };
    let path = inner.status.borrow().path.clone();
    inner.tell(Status {
        state: "connected",
        key: Some(cluster_key),
        words: Some(cluster_key.words().to_string()),
        node: Some(node.to_string()),
        path,
        ..Status::default()
    });
    inner.requests.send_replace(Some(begun.requests));
    let doubt = Rc::new(Notify::new());
    let (news, mut path_news) = mpsc::channel(NEWS);
    let (channels, next) = mpsc::channel(CHANNELS);
    let running = begun.driver.run(doubt.clone(), news, next);
    tokio::pin!(running);
    let mut run = Run {
        inner,
        held,
        node,
        resumption,
        deadlines,
        signaling,
        silence: None,
        attempt: None,
        channels,
        doubt,
    };
    let mut heartbeat = Box::pin(clock::sleep(HEARTBEAT));
    loop {
        let outcome = tokio::select! {
            ended = &mut running => return ended,
            () = revoked(inner, key) => return Failure::new(Reason::NodeRevoked),
            Some(news) = path_news.recv() => {
                run.learn(news);
                Ok(())
            }
            event = events.recv() => match event {
                Some(event) => {
                    run.take(event);
                    Ok(())
                }
                None => Err(Failure::new(Reason::Internal)),
            },
            message = next_message(run.signaling) => {
                run.receive(message);
                Ok(())
            }
            found = found(&mut run.attempt) => run.conclude(found),
            () = &mut heartbeat => {
                run.beat();
                heartbeat = Box::pin(clock::sleep(HEARTBEAT));
                Ok(())
            }
        };
        if let Err(failure) = outcome {
            return failure;
        }
    }
}

impl<'a> Run<'a> {
    fn learn(&mut self, news: News) {
        let mut status = self.inner.status.borrow().clone();
        match news {
            News::Measured(rtt) => {
                let millis = (rtt.as_secs_f64() * 10_000.0).round() / 10.0;
                if status.state == "connected" && status.rtt != Some(millis) {
                    status.rtt = Some(millis);
                    self.inner.tell(status);
                }
            }
            News::Silent => {
                if self.silence.is_none() {
                    self.silence = Some(Silence {
                        since: clock::now(),
                        failures: 0,
                        is_refused: false,
                    });
                    status.state = "reconnecting";
                    self.inner.tell(status);
                }
                self.look();
            }
            News::Back => {
                self.silence = None;
                self.inner.tell(Status {
                    state: "connected",
                    reason: None,
                    message: None,
                    ..status
                });
            }
        }
    }

    /// Looks for another channel. The present one stays: its path may come back first.
    fn look(&mut self) {
        let Some(silence) = self.silence.filter(|_| self.attempt.is_none()) else {
            return;
        };
        let patience = signaling::patience(silence.failures);
        let deadlines = Deadlines {
            meeting: self.deadlines.meeting.max(patience),
            ..self.deadlines
        }
        .after_failures(silence.failures);
        let introduction = Introduction {
            session: SessionId::from_bytes(clock::random()),
            node: Some(self.node.clone()),
        };
        let (events, heard) = mpsc::channel(QUEUE);
        let network = Rc::new(Notify::new());
        let search = Search {
            inner: self.inner,
            deadlines,
            is_refused: silence.is_refused,
            network: network.clone(),
        };
        self.attempt = Some(Attempt {
            session: introduction.session,
            since: clock::now(),
            events,
            deadlines,
            network,
            finding: Box::pin(search.find(introduction, self.resumption.clone(), heard)),
        });
    }

    fn silence(&self) -> Duration {
        self.silence.map_or(Duration::ZERO, |silence| {
            clock::now().saturating_sub(silence.since)
        })
    }

    /// An attempt has ended.
    fn conclude(&mut self, found: Result<Found<'a>, Unreached>) -> Result<(), Failure> {
        let Some(attempt) = self.attempt.take() else {
            return Ok(());
        };
        match found {
            Ok(Found {
                held,
                signaling,
                reached,
            }) => {
                // A pump that does not take it has four to choose from.
                drop(self.channels.try_send(reached));
                self.held = held;
                *self.signaling = Some(signaling);
                Ok(())
            }
            Err(Unreached { by, failure }) if is_over(by, failure.reason, self.silence()) => {
                Err(failure)
            }
            Err(Unreached { failure, .. }) => {
                self.tell_whether_away(&failure);
                let took = clock::now().saturating_sub(attempt.since);
                if let Some(silence) = &mut self.silence {
                    silence.failures += 1;
                    silence.is_refused = failure.reason == Reason::SignalingUnreachable
                        && took < attempt.deadlines.meeting;
                }
                if took >= PAUSE {
                    self.look();
                }
                Ok(())
            }
        }
    }

    /// Whoever looks at the page should know that the fault is not theirs, and that it may take a while.
    fn tell_whether_away(&self, failure: &Failure) {
        let status = self.inner.status.borrow().clone();
        let is_away = failure.reason == Reason::NodeOffline;
        let reason = is_away.then_some(failure.reason);
        if self.silence.is_some() && status.reason != reason {
            self.inner.tell(Status {
                reason,
                message: is_away.then(|| failure.message.clone()),
                ..status
            });
        }
    }

    fn beat(&self) {
        if let Some(signaling) = self.signaling.as_ref() {
            // A socket that takes nothing tells so itself.
            drop(signaling.send(&Envelope::of(Some(HEARTBEAT_ID.into()), &Heartbeat {})));
        }
    }

    fn take(&mut self, event: Event) {
        let of = match &event {
            Event::Holder(message) => message.session(),
            Event::Channel(session, _) => Some(*session),
            Event::Retry => None,
        };
        if let Some(attempt) = &self.attempt
            && of == Some(attempt.session)
        {
            // Only a flood could fill its queue, and then its deadline cleans up.
            drop(attempt.events.try_send(event));
            return;
        }
        let session = self.held.session();
        match event {
            // The browser has given the path up; our own count has not.
            Event::Holder(FromHolder::State { state, .. }) if of == Some(session) => {
                if matches!(state.as_str(), "disconnected" | "failed") {
                    self.doubt.notify_one();
                }
            }
            Event::Holder(FromHolder::NetworkChanged) | Event::Retry => {
                self.doubt.notify_one();
                if let Some(attempt) = &self.attempt {
                    attempt.network.notify_one();
                }
            }
            Event::Holder(message) => {
                let introduction = Introduction {
                    session,
                    node: None,
                };
                if let Some(signaling) = self.signaling.as_ref()
                    && relay(self.inner, signaling, &introduction, message).is_err()
                {
                    *self.signaling = None;
                }
            }
            Event::Channel(..) => {}
        }
    }

    fn receive(&mut self, message: Result<Envelope, Failure>) {
        // A node's socket came anew, or went: for the same reason our path may have.
        if message.as_ref().is_ok_and(|it| presence(it).is_some()) {
            self.doubt.notify_one();
        }
        // Whoever is connected has its answer.
        let heard = message.and_then(|it| hear(self.inner, self.held.session(), it));
        if heard.is_err() {
            // The session does not need it, whatever it says; yet its end may be the first sign that the
            // path has gone.
            *self.signaling = None;
            self.doubt.notify_one();
        }
    }
}

/// How another channel is looked for.
struct Search<'a> {
    inner: &'a Inner,
    deadlines: Deadlines,
    is_refused: bool,
    network: Rc<Notify>,
}

impl<'a> Search<'a> {
    /// Meets signaling anew and is introduced to the node that has the session.
    async fn find(
        self,
        introduction: Introduction,
        resumption: Resumption,
        mut events: mpsc::Receiver<Event>,
    ) -> Result<Found<'a>, Unreached> {
        let mut signaling = self.meet(introduction.session).await?;
        let timeout = clock::sleep(self.deadlines.opening);
        let introduced = introduce(
            self.inner,
            &mut signaling,
            &mut events,
            introduction,
            Some(resumption),
        );
        let (held, reached) = tokio::select! {
            introduced = introduced => introduced?,
            () = timeout => return Err(Failure::new(Reason::IceFailed).into()),
        };
        Ok(Found {
            held,
            signaling,
            reached,
        })
    }

    /// Meets signaling, from the network that there is now.
    async fn meet(&self, session: SessionId) -> Result<Signaling, Failure> {
        let mut timeout = Box::pin(clock::sleep(self.deadlines.meeting));
        loop {
            let meeting = async {
                // Not where nothing answers at all: a browser takes a new request to a connection that it
                // has begun to open for an old one, and that may try again only after many seconds.
                if self.is_refused {
                    is_there(&self.inner.options.signal_url, self.deadlines.meeting).await?;
                }
                self.inner.meet(session).await
            };
            tokio::select! {
                met = meeting => return met,
                () = &mut timeout => return Err(Failure::new(Reason::SignalingUnreachable)),
                () = self.network.notified() => {}
            }
        }
    }
}

/// Waits until a node's key is revoked.
async fn revoked(inner: &Inner, key: PublicKey) {
    let mut known = inner.revocations.subscribe();
    // The sender lives as long as the connection, so waiting cannot fail.
    drop(known.wait_for(|known| known.name(&key)).await);
}

async fn next_message(signaling: &mut Option<Signaling>) -> Result<Envelope, Failure> {
    match signaling.as_mut() {
        Some(signaling) => signaling.next().await,
        None => std::future::pending().await,
    }
}

async fn found<'a>(attempt: &mut Option<Attempt<'a>>) -> Result<Found<'a>, Unreached> {
    match attempt.as_mut() {
        Some(attempt) => attempt.finding.as_mut().await,
        None => std::future::pending().await,
    }
}
