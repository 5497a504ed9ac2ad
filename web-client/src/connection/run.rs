//! A session that was accepted, to its end, whatever paths it takes.
//!
//! ```text
//! connected ── silence ──► restart: offer by signaling, anew if its socket is silent too ──┐
//!     ▲                                │ again, as long as the silence lasts               │
//!     └─────────── something comes ◄───┘        the gateway knows nothing of it: the end ◄─┘
//! ```
//! What is under way waits: the lane and what it runs over survive the change of path.

use std::pin::Pin;
use std::rc::Rc;
use std::time::Duration;

use portway_protocol::id::SessionId;
use portway_protocol::reason::Reason;
use portway_protocol::signal::{Call, Envelope, Generation, Heartbeat, NodeStatus};
use tokio::sync::{Notify, mpsc};

use super::holder::{FromHolder, ToHolder};
use super::introduce::{Introduction, OFFER_ID, hear, presence, relay};
use super::{Event, Inner, Status};
use crate::clock;
use crate::error::Failure;
use crate::session::{Accepted, News};
use crate::signaling::Signaling;

/// Interval of heartbeats to signaling.
const HEARTBEAT: Duration = Duration::from_secs(25);

/// Time for an answer of signaling while the session's path is silent: its socket may have been on it.
const PROBE_PATIENCE: Duration = Duration::from_millis(1200);

/// Time for a new socket to signaling; another one may do better.
const SOCKET_PATIENCE: Duration = Duration::from_secs(4);

/// How long a node may be away from signaling before its session is given up: a new one may find another.
const NODE_PATIENCE: Duration = Duration::from_secs(12);

/// News of a session that may wait.
const NEWS: usize = 8;

const HEARTBEAT_ID: &str = "heartbeat";

type Connecting<'a> = Pin<Box<dyn Future<Output = Result<Signaling, Failure>> + 'a>>;

type Timer = Pin<Box<dyn Future<Output = ()>>>;

/// How it is with the path.
enum Path {
    Works,
    /// Since then another one is looked for.
    Silent(Duration),
}

struct Run<'a> {
    inner: &'a Inner,
    introduction: Introduction,
    signaling: &'a mut Option<Signaling>,
    /// A socket to take its place.
    connecting: Option<Connecting<'a>>,
    /// When the socket must have answered.
    probe: Option<Timer>,
    path: Path,
    doubt: Rc<Notify>,
}

/// Runs an accepted session to its end.
pub(super) async fn drive(
    inner: &Inner,
    signaling: &mut Option<Signaling>,
    events: &mut mpsc::Receiver<Event>,
    session: SessionId,
    accepted: Accepted,
) -> Failure {
    let path = inner.status.borrow().path.clone();
    inner.tell(Status {
        state: "connected",
        node: Some(accepted.node.to_string()),
        path,
        ..Status::default()
    });
    inner.requests.send_replace(Some(accepted.requests));
    let doubt = Rc::new(Notify::new());
    let (news, mut path_news) = mpsc::channel(NEWS);
    let running = accepted.driver.run(doubt.clone(), news);
    tokio::pin!(running);
    let mut run = Run {
        inner,
        introduction: Introduction {
            session,
            generation: Generation::FIRST,
            node: Some(accepted.node),
        },
        signaling,
        connecting: None,
        probe: None,
        path: Path::Works,
        doubt,
    };
    let mut heartbeat = Box::pin(clock::sleep(HEARTBEAT));
    loop {
        let outcome = tokio::select! {
            ended = &mut running => return ended,
            Some(news) = path_news.recv() => {
                run.learn(news);
                Ok(())
            }
            event = events.recv() => match event {
                Some(event) => run.take(event),
                None => Err(Failure::new(Reason::Internal)),
            },
            message = next(run.signaling) => run.receive(message),
            connected = ready(&mut run.connecting) => {
                run.connected(connected);
                Ok(())
            }
            () = due(&mut run.probe) => {
                run.reconnect();
                Ok(())
            }
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
                if matches!(self.path, Path::Works) {
                    self.path = Path::Silent(clock::now());
                    status.state = "reconnecting";
                    self.inner.tell(status);
                }
                self.restart();
            }
            News::Back => {
                self.path = Path::Works;
                self.probe = None;
                status.state = "connected";
                self.inner.tell(status);
            }
        }
    }

    /// Looks for another path, if there is a way to tell the gateway.
    fn restart(&mut self) {
        let Some(signaling) = self.signaling.as_ref() else {
            self.reconnect();
            return;
        };
        self.introduction.generation = self.introduction.generation.next();
        self.inner.holder(&ToHolder::Restart {
            session: self.introduction.session,
            ice_servers: &signaling.ice_servers,
        });
        self.beat();
        if self.probe.is_none() {
            self.probe = Some(Box::pin(clock::sleep(PROBE_PATIENCE)));
        }
    }

    /// Takes another socket to signaling.
    fn reconnect(&mut self) {
        self.probe = None;
        *self.signaling = None;
        if self.connecting.is_some() {
            return;
        }
        let inner = self.inner;
        let session = self.introduction.session;
        self.connecting = Some(Box::pin(async move {
            let connecting = inner.meet(session);
            let timeout = clock::sleep(SOCKET_PATIENCE);
            tokio::select! {
                connected = connecting => connected,
                () = timeout => Err(Failure::new(Reason::SignalingUnreachable)),
            }
        }));
    }

    fn connected(&mut self, connected: Result<Signaling, Failure>) {
        self.connecting = None;
        // The silence asks again for what did not succeed.
        if let Ok(signaling) = connected {
            *self.signaling = Some(signaling);
            if matches!(self.path, Path::Silent(_)) {
                self.restart();
            }
        }
    }

    fn beat(&self) {
        if let Some(signaling) = self.signaling.as_ref() {
            let call = Call::Heartbeat(Heartbeat {});
            // A socket that takes nothing tells so itself.
            drop(signaling.send(&Envelope::call(Some(HEARTBEAT_ID.into()), &call)));
        }
    }

    fn take(&mut self, event: Event) -> Result<(), Failure> {
        match event {
            Event::Holder(FromHolder::NetworkChanged) => self.doubt.notify_one(),
            // The browser has given the path up; our own count has not.
            Event::Holder(FromHolder::State { session, state })
                if session == self.introduction.session =>
            {
                if matches!(state.as_str(), "disconnected" | "failed") {
                    self.doubt.notify_one();
                }
            }
            Event::Holder(message) => {
                if let Some(signaling) = self.signaling.as_ref()
                    && relay(self.inner, signaling, &self.introduction, message).is_err()
                {
                    self.reconnect();
                }
            }
            Event::Retry => self.doubt.notify_one(),
            Event::Channel(..) => {}
        }
        Ok(())
    }

    fn receive(&mut self, message: Result<Envelope, Failure>) -> Result<(), Failure> {
        let Ok(envelope) = message else {
            // The session does not need it, yet its end may be the first sign that the path has gone.
            self.doubt.notify_one();
            self.reconnect();
            return Ok(());
        };
        self.probe = None;
        match presence(&envelope) {
            Some(NodeStatus::Online) if matches!(self.path, Path::Silent(_)) => self.restart(),
            // Its socket came anew, or went: for the same reason our path may have.
            Some(_) => self.doubt.notify_one(),
            None => {}
        }
        let is_reply = envelope.id.as_deref() == Some(OFFER_ID);
        match hear(self.inner, &self.introduction, envelope) {
            Ok(()) => Ok(()),
            Err(failure) if is_reply && self.may_come_back(failure.reason) => Ok(()),
            Err(_) => Err(Failure::new(Reason::SessionLost)),
        }
    }

    /// Whether a refused restart may succeed later.
    fn may_come_back(&self, reason: Reason) -> bool {
        match self.path {
            Path::Works => true,
            Path::Silent(since) => {
                reason != Reason::SessionLost && clock::now() < since + NODE_PATIENCE
            }
        }
    }
}

async fn next(signaling: &mut Option<Signaling>) -> Result<Envelope, Failure> {
    match signaling.as_mut() {
        Some(signaling) => signaling.next().await,
        None => std::future::pending().await,
    }
}

async fn ready(connecting: &mut Option<Connecting<'_>>) -> Result<Signaling, Failure> {
    match connecting.as_mut() {
        Some(connecting) => connecting.await,
        None => std::future::pending().await,
    }
}

async fn due(timer: &mut Option<Timer>) {
    match timer.as_mut() {
        Some(timer) => timer.await,
        None => std::future::pending().await,
    }
}
