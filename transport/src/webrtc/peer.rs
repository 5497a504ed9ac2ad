//! One peer connection with its channel 0.
//!
//! ```text
//! Peer::answer(offer) ─► answer ─► candidates both ways ─► channel opens ─► … ─► close
//! Peer::offer()       ─► offer  ─► accept_answer ─────────┘
//! ```
//! The offerer opens channel 0 in-band (RFC 8832): on a negotiated channel this stack loses what
//! comes in the instant before it knows of its own association (`docs/decisions/0005`). The channel for
//! datagrams is a negotiated one: on one opened in-band, this stack has only its opener send unreliably.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use portway_protocol::limits::{MAX_CANDIDATES, MAX_MESSAGE};
use portway_protocol::liveness;
use portway_protocol::session::binding::{Binding, Fingerprint, FingerprintError};
use portway_protocol::signal::{IceCandidate, IceServer, SdpKind, SessionDescription};
use rtc::ice::mdns::MulticastDnsMode;
use tokio::sync::{Mutex, mpsc};
use tokio_util::sync::CancellationToken;
use webrtc::data_channel::DataChannel;
use webrtc::peer_connection::{
    PeerConnection, PeerConnectionBuilder, PeerConnectionEventHandler, RTCConfigurationBuilder,
    RTCIceCandidateInit, RTCIceConnectionState, RTCIceGatheringState, RTCIceProtocol, RTCIceServer,
    RTCPeerConnectionIceEvent, RTCPeerConnectionState, RTCSessionDescription, SettingEngineBuilder,
};

use super::candidates::{self, LoopbackPolicy};
use super::channel::WebRtcChannel;
use super::datagrams::{self, DatagramChannel};
use super::interfaces;
use super::runtime::PeerRuntime;
use super::shortcut::Shortcut;
use super::stream_relays::{PeerRelays, StreamRelays};
use crate::{CandidateKind, Channel, Closed, Path, PathKind, Protocol, SEND_HIGH_WATER};

/// Time between connectivity checks: 20 ms opens a channel in about 200 ms instead of 600.
const CHECK_INTERVAL: Duration = Duration::from_millis(20);

/// Checks of a pair before it is given up; with [`CHECK_INTERVAL`] about 10 s, because the other
/// end's candidates trickle in late.
const MAX_BINDING_REQUESTS: u16 = 500;

/// How long the offerer waits for a better path once one over a relay works. Every direct path is
/// taken as soon as it works: the stack's own patience is half a second behind a NAT, and a whole one
/// where a packet comes before word of its candidate. What a relay carries has come farther than what is
/// direct, so this covers the packets that open a NAT, no more.
const RELAY_PATIENCE: Duration = Duration::from_millis(100);

/// Silence after which a path counts as disconnected.
const DISCONNECTED_AFTER: Duration = Duration::from_secs(3);

/// Silence after that before the connection is given up. Until a session has another one, the path of the
/// old one may come back; without an answer no data is sent by it (consent, RFC 7675) but what SCTP
/// repeats, one packet in ever longer pauses.
const FAILED_AFTER: Duration = Duration::from_secs(120);

/// Interval of consent checks.
const KEEPALIVE: Duration = Duration::from_secs(1);

/// Events that may wait for the owner of a peer.
const EVENT_QUEUE: usize = 2 * MAX_CANDIDATES;

/// Label of channel 0.
const CHANNEL_LABEL: &str = "portway";

/// How a peer connection is made.
#[derive(Debug, Clone)]
pub struct PeerConfig {
    /// STUN and TURN servers.
    pub ice_servers: Vec<IceServer>,
    /// Local addresses to bind; unspecified addresses stand for every interface of their family.
    pub bind: Vec<std::net::SocketAddr>,
    /// Whether the other end may be reached on a loopback address.
    pub loopback: LoopbackPolicy,
    /// The relay in the same process, if there is one.
    pub shortcut: Option<Arc<dyn Shortcut>>,
    /// How relays are reached by TCP and TLS; best one for all peers of a process.
    pub stream_relays: Arc<StreamRelays>,
}

impl Default for PeerConfig {
    /// Every interface, no servers.
    fn default() -> Self {
        Self {
            ice_servers: Vec::new(),
            bind: interfaces::all(),
            loopback: LoopbackPolicy::default(),
            shortcut: None,
            stream_relays: Arc::default(),
        }
    }
}

/// What happens to a peer. Channel 0 speaks for itself.
#[derive(Debug, Clone)]
pub enum PeerEvent {
    /// A local candidate to send; `None` = end of candidates.
    Candidate(Option<IceCandidate>),
    /// Packets flow.
    Connected,
    /// The path is silent; it may come back.
    Disconnected,
    /// The connection is over.
    Ended,
}

/// Events of one peer, in order.
pub type PeerEvents = mpsc::Receiver<PeerEvent>;

/// Why a peer connection could not be made or changed.
#[derive(Debug, thiserror::Error)]
pub enum PeerError {
    /// The description does not name one certificate.
    #[error(transparent)]
    Fingerprint(#[from] FingerprintError),
    /// A second answer: it could name another certificate.
    #[error("the offer was answered already")]
    Answered,
    /// A description of the wrong kind.
    #[error("expected an {expected:?}")]
    WrongKind {
        /// What was needed.
        expected: SdpKind,
    },
    /// More than [`MAX_CANDIDATES`].
    #[error("more than {MAX_CANDIDATES} candidates")]
    TooManyCandidates,
    /// The stack refused.
    #[error("WebRTC: {0}")]
    Stack(#[from] webrtc::error::Error),
}

/// What the other end has told of itself.
#[derive(Debug, Default)]
struct RemoteCandidates {
    count: usize,
    /// Where relays send from on its behalf. At most [`MAX_CANDIDATES`].
    relays: Vec<std::net::SocketAddr>,
}

/// A peer connection. Dropping it ends it at once; [`Peer::close`] says goodbye first.
pub struct Peer {
    connection: Arc<dyn PeerConnection>,
    /// Channel 0 once the stack has it.
    channel: Mutex<mpsc::Receiver<Arc<dyn DataChannel>>>,
    /// Our end of the channel for datagrams, until somebody wants it.
    datagrams: Mutex<Option<Arc<dyn DataChannel>>>,
    runtime: Arc<PeerRuntime>,
    closed: CancellationToken,
    remote_candidates: Mutex<RemoteCandidates>,
    loopback: LoopbackPolicy,
    /// Of our own description, then of both.
    own: OnceLock<Fingerprint>,
    binding: OnceLock<Binding>,
}

impl Peer {
    /// Answers an offer.
    ///
    /// # Errors
    /// See [`PeerError`].
    pub async fn answer(
        config: &PeerConfig,
        offer: &SessionDescription,
    ) -> Result<(Self, SessionDescription, PeerEvents), PeerError> {
        let client = certificate(offer, SdpKind::Offer)?;
        let (peer, _channels, events) = Self::build(config).await?;
        let remote = RTCSessionDescription::offer(candidates::filter(offer, peer.loopback).sdp)?;
        peer.connection.set_remote_description(remote).await?;
        let answer = peer.connection.create_answer(None).await?;
        let description = peer.adopt(SdpKind::Answer, answer).await?;
        let gateway = Fingerprint::of_description(&description.sdp)?;
        peer.bind(Binding { client, gateway })?;
        Ok((peer, description, events))
    }

    /// Makes an offer.
    ///
    /// # Errors
    /// See [`PeerError`].
    pub async fn offer(
        config: &PeerConfig,
    ) -> Result<(Self, SessionDescription, PeerEvents), PeerError> {
        let (peer, channels, events) = Self::build(config).await?;
        let channel = peer.connection.create_data_channel(CHANNEL_LABEL, None);
        // There is room: no channel comes before the offer has left.
        drop(channels.try_send(channel.await?));
        let offer = peer.connection.create_offer(None).await?;
        let description = peer.adopt(SdpKind::Offer, offer).await?;
        let own = Fingerprint::of_description(&description.sdp)?;
        peer.own.get_or_init(|| own);
        Ok((peer, description, events))
    }

    /// Makes a description ours; returns it for the other end.
    async fn adopt(
        &self,
        kind: SdpKind,
        description: RTCSessionDescription,
    ) -> Result<SessionDescription, PeerError> {
        let sdp = description.sdp.clone();
        self.connection.set_local_description(description).await?;
        Ok(SessionDescription { kind, sdp })
    }

    /// Applies the answer to our offer.
    ///
    /// # Errors
    /// See [`PeerError`].
    pub async fn accept_answer(&self, answer: &SessionDescription) -> Result<(), PeerError> {
        self.bind(self.bound_by(answer)?)?;
        let remote = RTCSessionDescription::answer(candidates::filter(answer, self.loopback).sdp)?;
        self.connection.set_remote_description(remote).await?;
        Ok(())
    }

    /// The certificates of both ends, if this is the answer to our offer.
    ///
    /// # Errors
    /// See [`PeerError`].
    pub fn bound_by(&self, answer: &SessionDescription) -> Result<Binding, PeerError> {
        let gateway = certificate(answer, SdpKind::Answer)?;
        let client = *self.own.get().ok_or(PeerError::Answered)?;
        Ok(Binding { client, gateway })
    }

    fn bind(&self, binding: Binding) -> Result<(), PeerError> {
        self.binding.set(binding).map_err(|_| PeerError::Answered)
    }

    /// The certificates of both ends, once both descriptions are known. The stack ends a connection whose
    /// other end presents another one.
    #[must_use]
    pub fn binding(&self) -> Option<Binding> {
        self.binding.get().copied()
    }

    /// Adds a trickled candidate; one that must not be checked is ignored.
    ///
    /// # Errors
    /// [`PeerError::TooManyCandidates`], or the stack's for a malformed one.
    pub async fn add_candidate(&self, candidate: Option<&IceCandidate>) -> Result<(), PeerError> {
        let Some(candidate) = candidate else {
            return Ok(());
        };
        {
            let mut known = self.remote_candidates.lock().await;
            known.count += 1;
            if known.count > MAX_CANDIDATES {
                return Err(PeerError::TooManyCandidates);
            }
            known.relays.extend(candidates::relay(candidate));
        }
        if !candidates::is_acceptable(candidate, self.loopback) {
            return Ok(());
        }
        let init = RTCIceCandidateInit {
            candidate: candidate.candidate.clone(),
            sdp_mid: candidate.sdp_mid.clone(),
            sdp_mline_index: candidate.sdp_m_line_index,
            username_fragment: candidate.username_fragment.clone(),
            url: None,
        };
        self.connection.add_ice_candidate(init).await?;
        Ok(())
    }

    /// Waits until channel 0 is open and returns it. To be called once.
    ///
    /// # Errors
    /// [`Closed`] if the connection ends before.
    pub async fn open(&self) -> Result<Arc<dyn Channel>, Closed> {
        let mut channels = self.channel.lock().await;
        let channel = tokio::select! {
            biased;
            () = self.closed.cancelled() => None,
            channel = channels.recv() => channel,
        };
        let channel = WebRtcChannel::new(channel.ok_or(Closed)?, self.closed.clone());
        channel.opened().await?;
        Ok(Arc::new(channel))
    }

    /// Waits until the channel for datagrams is open and returns it. To be called once.
    ///
    /// # Errors
    /// [`Closed`] if the connection ends before.
    pub async fn open_datagrams(&self) -> Result<DatagramChannel, Closed> {
        let channel = self.datagrams.lock().await.take();
        DatagramChannel::open(channel.ok_or(Closed)?, self.closed.clone()).await
    }

    /// The path in use, once there is one.
    pub async fn path(&self) -> Option<Path> {
        let ice = self.connection.sctp().await?.transport().ice_transport();
        let pair = ice.get_selected_candidate_pair().await.ok()??;
        let (local, remote) = (pair.local(), pair.remote());
        let remote_ip: std::net::IpAddr = remote.address.parse().ok()?;
        // Packets of a relay may come before word of it: then it counts as peer-reflexive.
        let known = self.remote_candidates.lock().await;
        let local_kind = candidates::kind(local.typ)?;
        let remote_kind = if known.relays.contains(&(remote_ip, remote.port).into()) {
            CandidateKind::Relay
        } else {
            candidates::kind(remote.typ)?
        };
        let relayed = [local_kind, remote_kind].contains(&CandidateKind::Relay);
        Some(Path {
            kind: if relayed {
                PathKind::Relayed
            } else {
                PathKind::Direct
            },
            remote: remote_ip,
            local_kind,
            remote_kind,
            protocol: if local.protocol == RTCIceProtocol::Tcp {
                Protocol::Tcp
            } else {
                Protocol::Udp
            },
        })
    }

    /// Ends the connection in order.
    pub async fn close(&self) {
        self.closed.cancel();
        if let Err(error) = self.connection.close().await {
            tracing::debug!(%error, "the peer connection was closed already");
        }
    }

    async fn build(
        config: &PeerConfig,
    ) -> Result<(Self, mpsc::Sender<Arc<dyn DataChannel>>, PeerEvents), PeerError> {
        let (events, receiver) = mpsc::channel(EVENT_QUEUE);
        let (channels, channel) = mpsc::channel(1);
        let (relays, ice_servers) =
            PeerRelays::new(config.stream_relays.clone(), &config.ice_servers);
        let runtime = Arc::new(PeerRuntime::new(config.shortcut.clone(), relays));
        let closed = CancellationToken::new();
        let settings = SettingEngineBuilder::new()
            .with_multicast_dns_mode(MulticastDnsMode::Disabled)
            .with_ice_connection_attempts(Some(CHECK_INTERVAL), Some(MAX_BINDING_REQUESTS))
            .with_srflx_acceptance_min_wait(Some(Duration::ZERO))
            .with_prflx_acceptance_min_wait(Some(Duration::ZERO))
            .with_relay_acceptance_min_wait(Some(RELAY_PATIENCE))
            .with_ice_timeouts(
                Some(DISCONNECTED_AFTER),
                Some(FAILED_AFTER),
                Some(KEEPALIVE),
            )
            .build();
        let configuration = RTCConfigurationBuilder::new()
            .with_ice_servers(ice_servers.into_iter().map(ice_server).collect())
            .build();
        let handler = Handler {
            runtime: runtime.clone(),
            events,
            channels: channels.clone(),
            closed: closed.clone(),
        };
        let connection: Arc<dyn PeerConnection> = Arc::new(
            PeerConnectionBuilder::new()
                .with_configuration(configuration)
                .with_setting_engine(settings)
                .with_runtime(runtime.clone())
                .with_handler(Arc::new(handler))
                .with_udp_addrs(config.bind.clone())
                .with_data_channel_send_buffer_limit(SEND_HIGH_WATER)
                .build()
                .await?,
        );
        let datagrams = connection
            .create_data_channel(datagrams::LABEL, Some(datagrams::terms()))
            .await?;
        let peer = Self {
            connection,
            datagrams: Mutex::new(Some(datagrams)),
            channel: Mutex::new(channel),
            runtime,
            closed,
            remote_candidates: Mutex::default(),
            loopback: config.loopback,
            own: OnceLock::new(),
            binding: OnceLock::new(),
        };
        Ok((peer, channels, receiver))
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.closed.cancel();
        self.runtime.abort();
    }
}

impl std::fmt::Debug for Peer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Peer").finish_non_exhaustive()
    }
}

/// The certificate that a remote description of the right kind names.
fn certificate(
    description: &SessionDescription,
    expected: SdpKind,
) -> Result<Fingerprint, PeerError> {
    if description.kind != expected {
        return Err(PeerError::WrongKind { expected });
    }
    Ok(Fingerprint::of_description(&description.sdp)?)
}

fn ice_server(server: IceServer) -> RTCIceServer {
    RTCIceServer {
        urls: server.urls,
        username: server.username.unwrap_or_default(),
        credential: server.credential.unwrap_or_default(),
    }
}

/// Turns the stack's callbacks into events. Runs on the connection's driver, so it never waits.
struct Handler {
    runtime: Arc<PeerRuntime>,
    events: mpsc::Sender<PeerEvent>,
    channels: mpsc::Sender<Arc<dyn DataChannel>>,
    closed: CancellationToken,
}

impl Handler {
    fn emit(&self, event: PeerEvent) {
        match self.events.try_send(event) {
            // The owner is done with the connection.
            Ok(()) | Err(mpsc::error::TrySendError::Closed(_)) => {}
            Err(mpsc::error::TrySendError::Full(event)) => {
                tracing::warn!(?event, "an event of a peer connection was dropped");
            }
        }
    }
}

#[async_trait]
impl PeerConnectionEventHandler for Handler {
    async fn on_ice_candidate(&self, event: RTCPeerConnectionIceEvent) {
        match event.candidate.to_json() {
            Ok(init) => self.emit(PeerEvent::Candidate(Some(IceCandidate {
                candidate: init.candidate,
                sdp_mid: None,
                sdp_m_line_index: Some(0),
                username_fragment: None,
            }))),
            Err(error) => tracing::debug!(%error, "a local candidate was unusable"),
        }
    }

    async fn on_data_channel(&self, channel: Arc<dyn DataChannel>) {
        if self.channels.try_send(channel).is_err() {
            tracing::debug!("the other end opened a second channel, which is not used");
        }
    }

    async fn on_ice_gathering_state_change(&self, state: RTCIceGatheringState) {
        if state == RTCIceGatheringState::Complete {
            self.emit(PeerEvent::Candidate(None));
        }
    }

    async fn on_ice_connection_state_change(&self, state: RTCIceConnectionState) {
        let has_path = [
            RTCIceConnectionState::Connected,
            RTCIceConnectionState::Completed,
        ];
        self.runtime.has_path(has_path.contains(&state));
    }

    async fn on_connection_state_change(&self, state: RTCPeerConnectionState) {
        match state {
            RTCPeerConnectionState::Connected => self.emit(PeerEvent::Connected),
            RTCPeerConnectionState::Disconnected => self.emit(PeerEvent::Disconnected),
            RTCPeerConnectionState::Failed | RTCPeerConnectionState::Closed => {
                self.closed.cancel();
                self.emit(PeerEvent::Ended);
            }
            RTCPeerConnectionState::Unspecified
            | RTCPeerConnectionState::New
            | RTCPeerConnectionState::Connecting
            | _ => {}
        }
    }
}

const _: () = assert!(MAX_MESSAGE <= 64 * 1024);
const _: () = assert!(
    FAILED_AFTER.as_secs() > liveness::GATEWAY.silence.as_secs(),
    "as long as a session hopes for another path, the old one may come back"
);
