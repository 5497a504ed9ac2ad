//! The shell of a lane: moves bytes between a channel and a pipe. Hot path.
//!
//! A lane may outlive its channel: whoever runs it hands in another one when the path has died, and what
//! is under way goes on over that.
//!
//! Nothing here waits for the pipe's reader while messages could be taken: acknowledgements must be
//! seen even when HTTP/2 does not read, or both ends could wait for each other. What piles up is
//! bounded by the HTTP/2 connection window, and by `MAX_UNREAD` against a peer that ignores it.
//! Nor does anything wait for a channel that takes nothing: that may be because its path has died, which
//! only the silence tells.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use futures_util::FutureExt as _;
use portway_protocol::lane::{Lane, LaneError, MaxMessage, WHOLE_MESSAGES, frame};
use portway_protocol::liveness::{Liveness, Patience, Verdict};
use portway_protocol::reason::Reason;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::{Channel, Closed};

/// Bytes that the user of the lane has not read; HTTP/2 connection windows are 12 MiB.
const MAX_UNREAD: usize = 16 * 1024 * 1024;

/// From so many bytes on, what came is acknowledged as soon as no more is there: the other end may wait for
/// room. What is less is one half of a conversation.
const PROMPT_ACK: u64 = 4 * 1024;

/// How long less than that waits for an answer that takes the acknowledgement along. On a packet of its own
/// it costs both ends as much as the data.
const ACK_DELAY: Duration = Duration::from_millis(2);

/// What a lane has moved so far, and how far away the other end is. Updated while it runs.
#[derive(Debug, Default)]
pub struct Traffic {
    /// Bytes from the other end.
    pub received: AtomicU64,
    /// Bytes to the other end.
    pub sent: AtomicU64,
    /// Round trip in microseconds; 0 = not measured yet.
    pub rtt: AtomicU64,
}

/// What somebody may want of a lane while it runs.
#[derive(Debug)]
pub enum Ask {
    /// A round trip, measured now. Dropped when the lane ends before it is.
    Ping(oneshot::Sender<Duration>),
    /// To look soon whether the other end is still there: something suggests that it is not.
    Doubt,
    /// To end the session, and tell the other end why. What is under way is cut.
    Leave(Reason),
}

/// Time for a goodbye to reach the other end.
pub const FAREWELL: Duration = Duration::from_secs(1);

/// A channel that a lane runs over.
pub struct Carrier {
    channel: Arc<dyn Channel>,
    _in_use: DropGuard,
}

impl Carrier {
    /// Returns what is cancelled when the lane uses the channel no more.
    #[must_use]
    pub fn new(channel: Arc<dyn Channel>) -> (Self, CancellationToken) {
        let released = CancellationToken::new();
        let carrier = Self {
            channel,
            _in_use: released.clone().drop_guard(),
        };
        (carrier, released)
    }
}

/// Carriers that may wait for a lane to take them.
pub const CARRIERS: usize = 4;

/// What a lane finds out about its path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PathNews {
    /// Nothing comes by it, or its channel has closed. Told again until something comes.
    Silent,
    /// Something came after that.
    Back,
}

/// Pings asked for that may wait for their answer; then nobody is heard until one comes.
const MAX_PINGS: usize = 16;

/// How a lane is run.
#[derive(Debug)]
pub struct Terms<'a> {
    /// Counters to keep.
    pub traffic: &'a Traffic,
    /// With a silent end.
    pub patience: Patience,
    /// What the other end takes.
    pub max_message: MaxMessage,
    /// What is wanted meanwhile, if there is anybody who may ask.
    pub asks: Option<mpsc::Receiver<Ask>>,
    /// Who is told of the path. Told once more while it is silent if this is full.
    pub news: Option<mpsc::Sender<PathNews>>,
    /// What takes the place of the present carrier. If nothing can, the lane ends with its channel.
    pub carriers: Option<mpsc::Receiver<Carrier>>,
}

/// Why a lane ended.
#[derive(Debug, thiserror::Error)]
pub enum EndedBy {
    /// The other end has ended the session.
    #[error("the other end has ended it: {0}")]
    Bye(Reason),
    /// The channel closed, and there is no other one.
    #[error(transparent)]
    Closed(#[from] Closed),
    /// The other end broke the protocol.
    #[error(transparent)]
    Violation(LaneError),
    /// The other end ignores the windows of what runs over the lane.
    #[error("the other end sent more than its windows allow")]
    Overrun,
    /// No sign of life.
    #[error("silence")]
    Silence,
    /// Whoever used the pipe is gone.
    #[error("the user of the lane has ended")]
    Pipe(#[from] std::io::Error),
}

impl From<LaneError> for EndedBy {
    fn from(error: LaneError) -> Self {
        match error {
            LaneError::Bye(reason) => Self::Bye(reason),
            LaneError::Frame(_)
            | LaneError::Gap { .. }
            | LaneError::AckBeyond { .. }
            | LaneError::AfterEnd
            | LaneError::Unexpected => Self::Violation(error),
        }
    }
}

/// Runs until this end is done and the other end has all of it, or this end was asked to leave (`Ok`), or
/// either end is gone.
///
/// # Errors
/// See [`EndedBy`].
pub async fn run(carrier: Carrier, pipe: DuplexStream, terms: Terms<'_>) -> Result<(), EndedBy> {
    Shell::new(carrier, terms).run(pipe).await
}

/// A message that waits for room in its channel.
type Sending = Pin<Box<dyn Future<Output = Result<(), Closed>> + Send>>;

struct Shell<'a> {
    /// `None` from when its channel has closed until there is another.
    carrier: Option<Carrier>,
    /// What the carrier does not take yet. Nothing else is sent before it.
    sending: Option<Sending>,
    carriers: Option<mpsc::Receiver<Carrier>>,
    traffic: &'a Traffic,
    lane: Lane,
    started: Instant,
    liveness: Liveness,
    asks: Option<mpsc::Receiver<Ask>>,
    news: Option<mpsc::Sender<PathNews>>,
    /// Pings asked for, and when they were sent.
    pings: VecDeque<(Duration, oneshot::Sender<Duration>)>,
    /// What the user shall read next.
    unread: Bytes,
    /// What comes after it.
    queue: VecDeque<Bytes>,
    unread_total: usize,
    /// When an acknowledgement that is owed is sent, if nothing takes it along.
    ack_due: Duration,
}

impl<'a> Shell<'a> {
    fn new(carrier: Carrier, terms: Terms<'a>) -> Self {
        Self {
            carrier: Some(carrier),
            sending: None,
            carriers: terms.carriers,
            traffic: terms.traffic,
            lane: Lane::new(terms.max_message),
            started: Instant::now(),
            liveness: Liveness::new(terms.patience, Duration::ZERO),
            asks: terms.asks,
            news: terms.news,
            pings: VecDeque::new(),
            unread: Bytes::new(),
            queue: VecDeque::new(),
            unread_total: 0,
            ack_due: Duration::ZERO,
        }
    }

    async fn run(mut self, pipe: DuplexStream) -> Result<(), EndedBy> {
        let (mut from_http, mut to_http) = tokio::io::split(pipe);
        let mut chunk = BytesMut::new();
        self.ping();
        self.transmit()?;
        let timeout = tokio::time::sleep_until(self.timeout());
        let ack_timer = tokio::time::sleep(ACK_DELAY);
        tokio::pin!(timeout, ack_timer);
        let (mut is_done, mut is_heard) = (false, true);
        while !self.lane.is_delivered() {
            let room = if is_done { 0 } else { self.lane.room() };
            let room = room.min(WHOLE_MESSAGES);
            chunk.reserve(WHOLE_MESSAGES);
            let mut limited = (&mut chunk).limit(room);
            tokio::select! {
                message = recv(self.carrier.as_ref()) => match message {
                    Some(message) => {
                        let owed_before = self.lane.owed();
                        self.receive_all(message)?;
                        if owed_before == 0 && self.lane.owed() > 0 {
                            self.ack_due = self.now() + ACK_DELAY;
                            ack_timer.as_mut().reset((self.started + self.ack_due).into());
                        }
                    }
                    None => self.lose()?,
                },
                () = &mut ack_timer, if self.lane.owed() > 0 && self.may_send() => {}
                sent = sent(&mut self.sending) => {
                    self.sending = None;
                    if sent.is_err() {
                        self.lose()?;
                    }
                }
                Some(carrier) = next(&mut self.carriers) => self.resume(carrier),
                written = to_http.write(&self.unread), if is_heard && !self.unread.is_empty() => match written {
                    Ok(written) => {
                        self.unread.advance(written);
                        self.unread_total -= written;
                    }
                    // It has ended; what it said before is still to be sent.
                    Err(_) => is_heard = false,
                },
                read = from_http.read_buf(&mut limited), if room > 0 => {
                    if read? == 0 {
                        self.lane.finish();
                        is_done = true;
                    } else {
                        let bytes = chunk.split().freeze();
                        let taken = self.lane.write(bytes.clone());
                        debug_assert_eq!(taken, bytes.len(), "no more was read than there was room");
                    }
                }
                Some(ask) = next(&mut self.asks), if self.pings.len() < MAX_PINGS => {
                    match ask {
                        Ask::Ping(asker) => self.pings.push_back((self.now(), asker)),
                        Ask::Doubt => self.liveness.doubt(self.now()),
                        Ask::Leave(reason) => {
                            self.leave(reason).await;
                            return Ok(());
                        }
                    }
                    self.ping();
                }
                () = &mut timeout => {
                    // It is not put off for every message.
                    if self.now() >= self.liveness.poll_timeout() {
                        match self.liveness.handle_timeout(self.now()) {
                            Verdict::Ping => self.ping(),
                            Verdict::Silent => {
                                self.ping();
                                self.tell(PathNews::Silent);
                            }
                            Verdict::Dead => return Err(EndedBy::Silence),
                        }
                    }
                }
            }
            let due = self.timeout();
            if timeout.is_elapsed() || due < timeout.deadline() {
                timeout.as_mut().reset(due);
            }
            if self.unread.is_empty() {
                self.unread = self.queue.pop_front().unwrap_or_default();
            }
            self.transmit()?;
        }
        Ok(())
    }

    /// Takes a message and all that are there already, then acknowledges once.
    fn receive_all(&mut self, first: Bytes) -> Result<(), EndedBy> {
        let before = self.lane.mark();
        let mut next = Some(first);
        while let Some(message) = next {
            self.lane.receive(message, self.now())?;
            while let Some(bytes) = self.lane.read() {
                self.unread_total += bytes.len();
                self.queue.push_back(bytes);
            }
            if self.unread_total > MAX_UNREAD {
                return Err(EndedBy::Overrun);
            }
            next = recv(self.carrier.as_ref()).now_or_never().flatten();
        }
        let sign = self.lane.sign_since(before);
        if self.liveness.heard(sign, self.now()) {
            self.tell(PathNews::Back);
        }
        if let Some(measured) = self.lane.measured() {
            let micros = u64::try_from(measured.rtt.as_micros()).unwrap_or(u64::MAX);
            self.traffic.rtt.store(micros, Ordering::Relaxed);
            self.liveness.measured(measured.rtt);
            // What is measured is known in whole microseconds.
            let pinged = measured.pinged.as_micros();
            while let Some((_, asker)) = self
                .pings
                .pop_front_if(|(sent, _)| sent.as_micros() <= pinged)
            {
                if asker.send(measured.rtt).is_err() {
                    tracing::trace!("whoever asked for a ping has gone");
                }
            }
        }
        Ok(())
    }

    /// Says goodbye, and waits until the other end has read it: it closes the channel then.
    async fn leave(self, reason: Reason) {
        let Some(carrier) = self.carrier else {
            return;
        };
        let said = async {
            if carrier.channel.send(frame::bye(reason)).await.is_ok() {
                while carrier.channel.recv().await.is_some() {}
            }
        };
        if tokio::time::timeout(FAREWELL, said).await.is_err() {
            tracing::debug!(%reason, "nobody has taken our goodbye");
        }
    }

    fn ping(&mut self) {
        if self.carrier.is_some() {
            self.lane.ping(self.now());
        }
    }

    /// The channel has closed.
    fn lose(&mut self) -> Result<(), Closed> {
        self.carrier = None;
        self.sending = None;
        // Who has said all it wants to say does not come back.
        let carriers = self.carriers.as_mut().filter(|_| !self.lane.is_at_end());
        if let Ok(next) = carriers.ok_or(Closed)?.try_recv() {
            self.resume(next);
            return Ok(());
        }
        self.liveness.lost(self.now());
        self.tell(PathNews::Silent);
        Ok(())
    }

    fn resume(&mut self, carrier: Carrier) {
        self.carrier = Some(carrier);
        // What the last one did not take is sent again.
        self.sending = None;
        self.lane.resume();
        self.ping();
    }

    fn tell(&self, news: PathNews) {
        if let Some(listener) = &self.news
            && listener.try_send(news).is_err()
        {
            tracing::debug!(?news, "nobody takes news of the path");
        }
    }

    /// Sends what there is as long as the channel takes it.
    fn transmit(&mut self) -> Result<(), EndedBy> {
        let now = self.now();
        while let Some(carrier) = self.carrier.as_ref().filter(|_| self.sending.is_none()) {
            let message = match self.lane.poll_transmit(now) {
                Some(message) => {
                    // What is owed goes along.
                    self.ack_due = now;
                    message
                }
                None if self.may_owe(now) => break,
                None => match self.lane.flush_acks() {
                    Some(message) => message,
                    None => break,
                },
            };
            let channel = carrier.channel.clone();
            let mut sending: Sending = Box::pin(async move { channel.send(message).await });
            match (&mut sending).now_or_never() {
                Some(Ok(())) => {}
                Some(Err(Closed)) => self.lose()?,
                None => self.sending = Some(sending),
            }
        }
        let traffic = self.lane.traffic();
        let counters = self.traffic;
        counters.received.store(traffic.received, Ordering::Relaxed);
        counters.sent.store(traffic.sent, Ordering::Relaxed);
        Ok(())
    }

    /// Whether a message would be taken now, as far as we know.
    const fn may_send(&self) -> bool {
        self.carrier.is_some() && self.sending.is_none()
    }

    /// Whether an acknowledgement may wait for an answer. Not the last one: nobody waits for it here.
    fn may_owe(&self, now: Duration) -> bool {
        let is_ending = self.lane.is_at_end() || self.lane.is_delivered();
        self.lane.owed() < PROMPT_ACK && now < self.ack_due && !is_ending
    }

    fn now(&self) -> Duration {
        self.started.elapsed()
    }

    /// When the silence has to be looked at.
    fn timeout(&self) -> tokio::time::Instant {
        (self.started + self.liveness.poll_timeout()).into()
    }
}

/// The next message; waits for ever while there is no channel.
async fn recv(carrier: Option<&Carrier>) -> Option<Bytes> {
    match carrier {
        Some(carrier) => carrier.channel.recv().await,
        None => std::future::pending().await,
    }
}

/// Waits until the message has been taken; for ever if there is none.
async fn sent(sending: &mut Option<Sending>) -> Result<(), Closed> {
    match sending {
        Some(sending) => sending.await,
        None => std::future::pending().await,
    }
}

/// The next of what may come; waits for ever where nothing can.
async fn next<T>(receiver: &mut Option<mpsc::Receiver<T>>) -> Option<T> {
    match receiver {
        Some(receiver) => receiver.recv().await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use portway_protocol::liveness;

    use super::*;
    use crate::loopback;

    const PIPE: usize = 1024;

    /// Both ends of a channel.
    fn carriers() -> (Carrier, Carrier) {
        let (a, b) = loopback::pair();
        (Carrier::new(Arc::new(a)).0, Carrier::new(Arc::new(b)).0)
    }

    /// Those of a native client to whom nobody speaks.
    fn terms(traffic: &Traffic) -> Terms<'_> {
        Terms {
            traffic,
            patience: liveness::CLIENT,
            max_message: MaxMessage::Native,
            asks: None,
            news: None,
            carriers: None,
        }
    }

    #[tokio::test]
    async fn bytes_go_on_over_another_channel() {
        const SIZE: usize = 3_000_000;
        let (a, b) = loopback::pair();
        let (a, b): (Arc<dyn Channel>, Arc<dyn Channel>) = (Arc::new(a), Arc::new(b));
        let (a_pipe, mut a_user) = tokio::io::duplex(PIPE);
        let (b_pipe, mut b_user) = tokio::io::duplex(PIPE);
        let (a_traffic, b_traffic) = (Traffic::default(), Traffic::default());
        let (to_a, a_carriers) = mpsc::channel(CARRIERS);
        let (to_b, b_carriers) = mpsc::channel(CARRIERS);
        let terms = |traffic, carriers| Terms {
            carriers: Some(carriers),
            ..terms(traffic)
        };
        let (a_carrier, a_released) = Carrier::new(a.clone());
        let (b_carrier, _) = Carrier::new(b);
        let sent: Vec<u8> = (0..SIZE).map(|i| (i % 251) as u8).collect();
        let write = async {
            a_user.write_all(&sent).await.unwrap();
            std::future::pending::<()>().await;
        };
        let read = async {
            let mut got = vec![0; SIZE];
            let (early, late) = got.split_at_mut(SIZE / 3);
            b_user.read_exact(early).await.unwrap();
            let (next_a, next_b) = carriers();
            // One end still has its channel, the other has seen it close.
            a.close().await;
            to_a.send(next_a).await.unwrap();
            to_b.send(next_b).await.unwrap();
            b_user.read_exact(late).await.unwrap();
            got
        };
        let got = tokio::select! {
            ended = run(a_carrier, a_pipe, terms(&a_traffic, a_carriers)) => panic!("{ended:?}"),
            ended = run(b_carrier, b_pipe, terms(&b_traffic, b_carriers)) => panic!("{ended:?}"),
            () = write => unreachable!("it waits"),
            got = read => got,
        };
        assert!(got == sent, "what arrives is what was sent");
        assert!(a_released.is_cancelled());
    }

    /// A channel whose path has died, and which has no room left.
    struct Stuck;

    #[async_trait::async_trait]
    impl Channel for Stuck {
        async fn send(&self, _message: Bytes) -> Result<(), Closed> {
            std::future::pending().await
        }

        async fn recv(&self) -> Option<Bytes> {
            std::future::pending().await
        }

        async fn close(&self) {}
    }

    /// However long it would have been until the next regular ping.
    #[tokio::test]
    async fn a_lull_is_looked_at_soon() {
        let (near, far) = loopback::pair();
        let (pipe, _user) = tokio::io::duplex(PIPE);
        let traffic = Traffic::default();
        let (news, mut heard) = mpsc::channel(1);
        let patience = liveness::Patience {
            ping: Duration::from_secs(3600),
            lull: Duration::from_millis(20),
            answer: Duration::from_millis(20),
            ..liveness::CLIENT
        };
        let terms = Terms {
            patience,
            news: Some(news),
            ..terms(&traffic)
        };
        let talk_once = async {
            let mut lane = Lane::default();
            lane.write(Bytes::from_static(b"x"));
            let message = lane.poll_transmit(Duration::ZERO).unwrap();
            far.send(message).await.unwrap();
            heard.recv().await
        };
        tokio::select! {
            ended = run(Carrier::new(Arc::new(near)).0, pipe, terms) => panic!("{ended:?}"),
            told = tokio::time::timeout(Duration::from_secs(20), talk_once) => {
                assert_eq!(told.expect("it is told"), Some(PathNews::Silent));
            }
        }
    }

    #[tokio::test]
    async fn a_channel_that_takes_nothing_is_silent() {
        let (pipe, _user) = tokio::io::duplex(PIPE);
        let traffic = Traffic::default();
        let (news, mut heard) = mpsc::channel(1);
        let millis = Duration::from_millis;
        let patience = liveness::Patience {
            ping: millis(20),
            insist: millis(10),
            answer: millis(40),
            again: millis(40),
            ..liveness::CLIENT
        };
        let terms = Terms {
            patience,
            news: Some(news),
            ..terms(&traffic)
        };
        let carrier = Carrier::new(Arc::new(Stuck)).0;
        let silent = async {
            for _ in 0..2 {
                assert_eq!(heard.recv().await, Some(PathNews::Silent));
            }
        };
        tokio::select! {
            ended = run(carrier, pipe, terms) => panic!("{ended:?}"),
            told = tokio::time::timeout(Duration::from_secs(20), silent) => told.expect("it is told"),
        }
    }

    #[tokio::test]
    async fn a_ping_that_somebody_asks_for_is_answered() {
        let (a, b) = carriers();
        let (a_pipe, _a_user) = tokio::io::duplex(PIPE);
        let (b_pipe, _b_user) = tokio::io::duplex(PIPE);
        let (a_traffic, b_traffic) = (Traffic::default(), Traffic::default());
        let (asks, asked) = mpsc::channel(1);
        let terms = |traffic, asks| Terms {
            asks,
            ..terms(traffic)
        };
        let ask = async {
            let (asker, measured) = oneshot::channel();
            asks.send(Ask::Ping(asker)).await.unwrap();
            measured.await.unwrap()
        };
        tokio::select! {
            ended = run(a, a_pipe, terms(&a_traffic, Some(asked))) => panic!("{ended:?}"),
            ended = run(b, b_pipe, terms(&b_traffic, None)) => panic!("{ended:?}"),
            rtt = ask => assert!(rtt < liveness::CLIENT.ping),
        }
    }
}
