//! One session: handshake on channel 0, then HTTP/2 over the lane, which may outlive the channel.

use std::cell::{OnceCell, RefCell};
use std::future::poll_fn;
use std::rc::Rc;
use std::time::Duration;

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use futures_util::FutureExt as _;
use h2::client::SendRequest;
use portway_protocol::id::{ClusterName, GrantId, NodeId, Nonce, ServiceName, SessionId};
use portway_protocol::key::{PublicKey, SigningKey};
use portway_protocol::lane::{Lane, LaneError, MaxMessage};
use portway_protocol::limits::HANDSHAKE_TIMEOUT;
use portway_protocol::liveness::{self, Liveness, Verdict};
use portway_protocol::reason::Reason;
use portway_protocol::revocation::Revocations;
use portway_protocol::session::binding::{Binding, Fingerprint, FingerprintError};
use portway_protocol::session::handshake::{self, HandshakeError};
use portway_protocol::session::party::{Holder, Proven, Trust};
use portway_protocol::session::resumption::{FailedBy, Resumption, ResumptionKey};
use portway_protocol::signal::SessionDescription;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
use tokio::sync::{Notify, mpsc};
use wasm_bindgen::prelude::*;
use web_sys::{Event, MessageEvent, RtcDataChannel, RtcDataChannelState, RtcDataChannelType};

use crate::clock;
use crate::connection::unix_now;
use crate::device::Device;
use crate::error::Failure;

/// Bytes between HTTP/2 and lane.
const PIPE: usize = 256 * 1024;

/// Bytes taken from HTTP/2 at a time.
const READ_CHUNK: usize = 64 * 1024;

/// HTTP/2 receive window of a stream: what a page may leave unread.
const STREAM_WINDOW: u32 = 1024 * 1024;

/// HTTP/2 receive window of the session.
const CONNECTION_WINDOW: u32 = 8 * 1024 * 1024;

/// Largest DATA frame of a response: fewer, larger messages to the page.
const MAX_FRAME: u32 = 64 * 1024;

/// Bytes in the browser's own send queue above which we wait.
const HIGH_WATER: u32 = 1024 * 1024;

/// Bytes in the browser's own send queue at which we go on.
const LOW_WATER: u32 = 256 * 1024;

/// Messages that may wait to be read. The lane's window keeps far fewer in flight.
const QUEUE: usize = 4096;

/// Where requests go: a new handle for each.
pub(crate) type Requests = SendRequest<Bytes>;

/// Who we are and what we want.
#[derive(Debug, Clone)]
pub(crate) struct Identity {
    pub(crate) cluster: ClusterName,
    pub(crate) service: ServiceName,
    pub(crate) grant: GrantId,
    pub(crate) key: SigningKey,
    /// Pinned by the link.
    pub(crate) cluster_key: PublicKey,
    /// By which the service was opened here before.
    pub(crate) pinned: Option<PublicKey>,
    /// What this runs on.
    pub(crate) device: Device,
}

impl Identity {
    /// What we show.
    pub(crate) const fn holder(&self) -> Holder<'_> {
        Holder {
            grant: self.grant,
            token: None,
            key: &self.key,
            device: self.device.key,
        }
    }

    /// Whom we believe, of a channel between two ends that are known.
    pub(crate) fn trust<'a>(
        &self,
        node: Option<&'a NodeId>,
        certificates: &Certificates,
        revocations: &'a Revocations,
    ) -> Result<Trust<'a>, Failure> {
        Ok(Trust {
            cluster_key: self.cluster_key,
            pinned: self.pinned,
            revocations,
            node,
            // Nothing opens before both are known, and who answers what was not offered is no node.
            binding: certificates
                .binding()
                .ok_or_else(|| Failure::new(Reason::ProtocolViolation))?,
            now: unix_now(),
        })
    }
}

/// A channel that the holder has opened, and what is to become of it.
pub(crate) struct Visit {
    pub(crate) channel: RtcDataChannel,
    /// As signaling knows it.
    pub(crate) session: SessionId,
    /// The node that is meant; any if there is none.
    pub(crate) node: Option<NodeId>,
    /// The certificates that the descriptions of the two ends name; the browser enforces them, and
    /// tells which one was presented.
    pub(crate) certificates: Rc<Certificates>,
    pub(crate) resumption: Option<Resumption>,
    /// Which nodes are none any more.
    pub(crate) revocations: Revocations,
}

/// The certificates of a channel's ends, as far as they are known.
#[derive(Debug, Default)]
pub(crate) struct Certificates {
    client: OnceCell<Fingerprint>,
    gateway: OnceCell<Fingerprint>,
    /// The gateway has presented its own.
    shown: Notify,
}

impl Certificates {
    /// Notes whom our own description names.
    pub(crate) fn offered(&self, offer: &SessionDescription) -> Result<(), Failure> {
        Self::note(&self.client, offer)
    }

    /// Notes whom the answer names. There is only one answer: another could name another.
    pub(crate) fn answered(&self, answer: &SessionDescription) -> Result<(), Failure> {
        Self::note(&self.gateway, answer)
    }

    /// Compares with what the gateway has presented; the browser has, too. It may not tell us what that was.
    pub(crate) fn presented(&self, sha256: Option<[u8; 32]>) -> Result<(), Failure> {
        let presented = sha256.map(Fingerprint::from_bytes);
        if presented.is_some_and(|it| self.gateway.get() != Some(&it)) {
            let message =
                "the other end has presented another certificate than its description names";
            return Err(Failure::with(Reason::E2eAuthFailed, message));
        }
        self.shown.notify_one();
        Ok(())
    }

    fn note(slot: &OnceCell<Fingerprint>, of: &SessionDescription) -> Result<(), Failure> {
        let refused = |error| Failure::with(Reason::E2eAuthFailed, error);
        let named = Fingerprint::of_description(&of.sdp).map_err(refused)?;
        slot.set(named)
            .map_err(|_| refused(FingerprintError::Several))
    }

    fn binding(&self) -> Option<Binding> {
        Some(Binding {
            client: *self.client.get()?,
            gateway: *self.gateway.get()?,
        })
    }
}

/// A channel whose other end has let us in.
pub(crate) struct Reached {
    pub(crate) proven: Proven,
    /// What the session needs to go on over another one.
    pub(crate) resumption: Resumption,
    channel: Channel,
}

/// An attempt that has reached nothing.
pub(crate) struct Unreached {
    pub(crate) by: FailedBy,
    pub(crate) failure: Failure,
}

impl From<Failure> for Unreached {
    fn from(failure: Failure) -> Self {
        let by = FailedBy::Way;
        Self { by, failure }
    }
}

/// A session that has begun.
pub(crate) struct Begun {
    pub(crate) requests: Requests,
    pub(crate) driver: Driver,
}

/// What a session tells while it runs.
#[derive(Debug)]
pub(crate) enum News {
    /// A round trip.
    Measured(Duration),
    /// Nothing comes by its path, or its channel has closed. Told again until something comes.
    Silent,
    /// Something came after that.
    Back,
}

/// Keeps a session going; ends with it.
pub(crate) struct Driver {
    channel: Channel,
    pipe: DuplexStream,
    http: std::pin::Pin<Box<dyn Future<Output = Result<(), h2::Error>>>>,
}

/// Waits for the channel and runs the handshake: for a new session, or for one that goes on.
pub(crate) async fn reach(visit: Visit, identity: &Identity) -> Result<Reached, Unreached> {
    let session = visit.session;
    let mut channel = Channel::new(visit.channel);
    channel.opened().await.map_err(no_path)?;
    let trust = identity.trust(visit.node.as_ref(), &visit.certificates, &visit.revocations)?;
    let timeout = clock::sleep(HANDSHAKE_TIMEOUT);
    let shaking = async {
        visit.certificates.shown.notified().await;
        shake_hands(&mut channel, session, identity, &trust, visit.resumption).await
    };
    let (proven, key) = tokio::select! {
        shaken = shaking => shaken?,
        () = timeout => return Err(Failure::new(Reason::SessionTimeout).into()),
    };
    Ok(Reached {
        proven,
        resumption: Resumption { session, key },
        channel,
    })
}

/// Starts HTTP/2.
pub(crate) async fn begin(reached: Reached) -> Result<Begun, Failure> {
    let (near, far) = tokio::io::duplex(PIPE);
    let handshake = h2::client::Builder::new()
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_frame_size(MAX_FRAME)
        .enable_push(false)
        // A remembered reset is stamped with a clock that wasm does not have.
        .max_concurrent_reset_streams(0)
        .handshake(near);
    let (requests, connection) = handshake.await?;
    let driver = Driver {
        channel: reached.channel,
        pipe: far,
        http: Box::pin(connection),
    };
    Ok(Begun { requests, driver })
}

/// A channel that closes before the gateway's verdict: that is none.
fn no_path(_closed: Failure) -> Failure {
    Failure::new(Reason::IceFailed)
}

async fn shake_hands(
    channel: &mut Channel,
    session: SessionId,
    identity: &Identity,
    trust: &Trust<'_>,
    resumption: Option<Resumption>,
) -> Result<(Proven, ResumptionKey), Unreached> {
    let violation = |error: HandshakeError| {
        let reason = error.reason();
        if let HandshakeError::Refused { reason, message } = error {
            return Unreached {
                by: FailedBy::Gateway,
                failure: Failure { reason, message },
            };
        }
        Failure::with(reason, error).into()
    };
    let (hello, mut state) = handshake::start(
        session,
        identity.cluster.clone(),
        identity.service.clone(),
        Nonce::from_bytes(clock::random()),
    );
    if let Some(resumption) = resumption {
        state = state.resuming(resumption);
    }
    channel.send(&hello).map_err(no_path)?;
    let reply = channel.recv().await.map_err(no_path)?;
    let state = state
        .receive(&reply, trust, identity.holder())
        .map_err(violation)?;
    let by_device = identity.device.sign(state.to_sign()).await?;
    let (proof, state) = state.signed(by_device);
    channel.send(&proof).map_err(no_path)?;
    let verdict = channel.recv().await.map_err(no_path)?;
    let (proven, accepted) = state.receive(&verdict).map_err(violation)?;
    Ok((proven, accepted.resumption))
}

impl Driver {
    /// Runs to the session's end. A notification of `doubt`: the other end may have gone. What comes from
    /// `next` takes the place of the present channel.
    pub(crate) async fn run(
        self,
        doubt: Rc<Notify>,
        news: mpsc::Sender<News>,
        next: mpsc::Receiver<Reached>,
    ) -> Failure {
        let Self {
            channel,
            pipe,
            mut http,
        } = self;
        let lane = Pump {
            channel: Some(channel),
            next,
            lane: Lane::new(MaxMessage::Browser),
            liveness: Liveness::new(liveness::CLIENT, clock::now()),
            measured: None,
            doubt,
            news,
        };
        tokio::select! {
            ended = lane.run(pipe) => ended,
            ended = &mut http => match ended {
                Ok(()) => Failure::new(Reason::SessionLost),
                Err(error) => error.into(),
            },
        }
    }
}

/// Moves bytes between channel and pipe, as the gateway's twin does.
struct Pump {
    /// `None` from when it has closed until there is another.
    channel: Option<Channel>,
    next: mpsc::Receiver<Reached>,
    lane: Lane,
    liveness: Liveness,
    /// The ping whose round trip was told last.
    measured: Option<Duration>,
    doubt: Rc<Notify>,
    news: mpsc::Sender<News>,
}

impl Pump {
    async fn run(mut self, pipe: DuplexStream) -> Failure {
        let lost = || Failure::new(Reason::SessionLost);
        let (mut from_http, mut to_http) = tokio::io::split(pipe);
        let mut chunk = BytesMut::new();
        let mut unread = Bytes::new();
        let mut due = self.liveness.poll_timeout();
        let mut timeout = Box::pin(until(due));
        loop {
            if unread.is_empty() {
                unread = self.lane.read().unwrap_or_default();
            }
            let room = self.lane.room();
            chunk.reserve(READ_CHUNK);
            let mut limited = (&mut chunk).limit(room);
            let full = self.full();
            tokio::select! {
                message = recv(&mut self.channel) => {
                    let taken = match message {
                        Ok(message) => self.receive_all(message),
                        Err(_) => self.lose(),
                    };
                    if let Err(failure) = taken {
                        return failure;
                    }
                }
                Some(reached) = self.next.recv() => self.resume(reached),
                () = notified(full.as_deref()) => {}
                written = to_http.write(&unread), if !unread.is_empty() => match written {
                    Ok(count) => unread.advance(count),
                    Err(_) => return lost(),
                },
                read = from_http.read_buf(&mut limited), if room > 0 => match read {
                    Ok(count) if count > 0 => {
                        let _taken = self.lane.write(chunk.split().freeze());
                    }
                    Ok(_) | Err(_) => return lost(),
                },
                () = self.doubt.notified() => {
                    self.liveness.doubt(clock::now());
                    self.ping();
                }
                () = &mut timeout => {
                    // It is not put off for every message.
                    if clock::now() >= self.liveness.poll_timeout() {
                        match self.liveness.handle_timeout(clock::now()) {
                            Verdict::Ping => self.ping(),
                            Verdict::Silent => {
                                self.ping();
                                self.tell(News::Silent);
                            }
                            Verdict::Dead => return Failure::with(Reason::SessionLost, "no sign of life"),
                        }
                    }
                    due = Duration::MAX;
                }
            }
            let next = self.liveness.poll_timeout();
            if next < due {
                due = next;
                timeout = Box::pin(until(due));
            }
            if let Err(failure) = self.transmit() {
                return failure;
            }
        }
    }

    /// Takes a message and all that are there already, then acknowledges once.
    fn receive_all(&mut self, first: Bytes) -> Result<(), Failure> {
        let now = clock::now();
        let before = self.lane.mark();
        let mut next = Some(first);
        while let Some(message) = next {
            self.lane.receive(message, now).map_err(ended_by)?;
            next = recv(&mut self.channel).now_or_never().and_then(Result::ok);
        }
        let sign = self.lane.sign_since(before);
        if self.liveness.heard(sign, now) {
            self.tell(News::Back);
        }
        if let Some(last) = self.lane.measured() {
            self.liveness.measured(last.rtt);
            if self.measured != Some(last.pinged) {
                self.measured = Some(last.pinged);
                self.tell(News::Measured(last.rtt));
            }
        }
        Ok(())
    }

    /// Silence is told again as long as it lasts, and round trips come often: nothing is lost for good
    /// with what finds no place, and whoever takes news does nothing but that.
    fn tell(&self, news: News) {
        drop(self.news.try_send(news));
    }

    fn ping(&mut self) {
        if self.channel.is_some() {
            self.lane.ping(clock::now());
        }
    }

    /// The channel has closed.
    fn lose(&mut self) -> Result<(), Failure> {
        self.channel = None;
        // Who has said all it wants to say does not come back.
        if self.lane.is_at_end() {
            return Err(Failure::new(Reason::SessionLost));
        }
        if let Ok(reached) = self.next.try_recv() {
            self.resume(reached);
            return Ok(());
        }
        self.liveness.lost(clock::now());
        self.tell(News::Silent);
        Ok(())
    }

    fn resume(&mut self, reached: Reached) {
        self.channel = Some(reached.channel);
        self.lane.resume();
        self.ping();
    }

    /// Sends what there is as long as the browser takes it.
    fn transmit(&mut self) -> Result<(), Failure> {
        while let Some(channel) = self.channel.as_ref().filter(|channel| !channel.is_full()) {
            let message = self.lane.poll_transmit(clock::now());
            let Some(message) = message.or_else(|| self.lane.flush_acks()) else {
                break;
            };
            if channel.send(&message).is_err() {
                self.lose()?;
            }
        }
        Ok(())
    }

    /// What tells of room, if the browser takes nothing more now.
    fn full(&self) -> Option<Rc<Notify>> {
        let channel = self.channel.as_ref().filter(|channel| channel.is_full())?;
        Some(channel.changed.clone())
    }
}

/// Waits until then.
fn until(due: Duration) -> impl Future<Output = ()> {
    clock::sleep(due.saturating_sub(clock::now()))
}

/// What it means that a lane has broken off.
fn ended_by(error: LaneError) -> Failure {
    match error {
        LaneError::Bye(reason) => Failure::new(reason),
        LaneError::Frame(_)
        | LaneError::Gap { .. }
        | LaneError::AckBeyond { .. }
        | LaneError::AfterEnd
        | LaneError::Unexpected => Failure::with(Reason::ProtocolViolation, error),
    }
}

/// The next message; waits for ever while there is no channel.
async fn recv(channel: &mut Option<Channel>) -> Result<Bytes, Failure> {
    match channel {
        Some(channel) => channel.recv().await,
        None => std::future::pending().await,
    }
}

async fn notified(notify: Option<&Notify>) {
    match notify {
        Some(notify) => notify.notified().await,
        None => std::future::pending().await,
    }
}

/// An `RTCDataChannel` with a queue of received messages.
struct Channel {
    inner: RtcDataChannel,
    incoming: mpsc::Receiver<Bytes>,
    /// Opened, drained or closed: look again.
    changed: Rc<Notify>,
    _on_message: Closure<dyn FnMut(MessageEvent)>,
    _on_change: Closure<dyn FnMut(Event)>,
}

impl Channel {
    fn new(inner: RtcDataChannel) -> Self {
        let (sender, incoming) = mpsc::channel(QUEUE);
        let sender = Rc::new(RefCell::new(Some(sender)));
        let changed = Rc::new(Notify::new());
        inner.set_binary_type(RtcDataChannelType::Arraybuffer);
        inner.set_buffered_amount_low_threshold(LOW_WATER);
        let on_message = {
            let sender = sender.clone();
            Closure::<dyn FnMut(MessageEvent)>::new(move |event: MessageEvent| {
                let bytes = js_sys::Uint8Array::new(&event.data()).to_vec();
                let mut slot = sender.borrow_mut();
                let is_full = slot
                    .as_ref()
                    .is_some_and(|sender| sender.try_send(bytes.into()).is_err());
                if is_full {
                    *slot = None;
                }
            })
        };
        let on_change = {
            let (changed, inner) = (changed.clone(), inner.clone());
            Closure::<dyn FnMut(Event)>::new(move |_event: Event| {
                if inner.ready_state() == RtcDataChannelState::Closed {
                    sender.borrow_mut().take();
                }
                changed.notify_one();
            })
        };
        inner.set_onmessage(Some(on_message.as_ref().unchecked_ref()));
        for set in [
            RtcDataChannel::set_onopen,
            RtcDataChannel::set_onclose,
            RtcDataChannel::set_onbufferedamountlow,
        ] {
            set(&inner, Some(on_change.as_ref().unchecked_ref()));
        }
        Self {
            inner,
            incoming,
            changed,
            _on_message: on_message,
            _on_change: on_change,
        }
    }

    async fn opened(&self) -> Result<(), Failure> {
        loop {
            let state = self.inner.ready_state();
            if state == RtcDataChannelState::Open {
                return Ok(());
            }
            if state != RtcDataChannelState::Connecting {
                return Err(Failure::new(Reason::SessionLost));
            }
            self.changed.notified().await;
        }
    }

    /// Whether the browser's own queue is long.
    fn is_full(&self) -> bool {
        self.inner.buffered_amount() > HIGH_WATER
    }

    fn send(&self, message: &[u8]) -> Result<(), Failure> {
        self.inner
            .send_with_u8_array(message)
            .map_err(|_| Failure::new(Reason::SessionLost))
    }

    async fn recv(&mut self) -> Result<Bytes, Failure> {
        self.incoming
            .recv()
            .await
            .ok_or_else(|| Failure::new(Reason::SessionLost))
    }
}

impl Drop for Channel {
    fn drop(&mut self) {
        self.inner.set_onmessage(None);
        self.inner.set_onopen(None);
        self.inner.set_onclose(None);
        self.inner.set_onbufferedamountlow(None);
        self.inner.close();
    }
}

/// Waits until another request may be sent.
pub(crate) async fn ready(mut requests: Requests) -> Result<Requests, Failure> {
    poll_fn(|cx| requests.poll_ready(cx)).await?;
    Ok(requests)
}
