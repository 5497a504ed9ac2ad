//! One attempt: from an address to a session, or to another channel of one.

use std::sync::Arc;
use std::time::Duration;

use portway_protocol::id::{Nonce, SessionId};
use portway_protocol::lane::MaxMessage;
use portway_protocol::limits::HANDSHAKE_TIMEOUT;
use portway_protocol::session::binding::Binding;
use portway_protocol::session::handshake::{self, Accepted};
use portway_protocol::session::party::{Holder, Proven, Trust};
use portway_protocol::session::resumption::{Deadlines, Resumption};
use portway_protocol::signal::{Authenticate, Authenticated, Call, IceServer};
use portway_protocol::transcript::sign_challenge;
use portway_transport::webrtc::{Peer, PeerConfig};
use portway_transport::{Channel, Closed};
use tokio::time::Instant;

use super::address::Site;
use super::exchange::{Exchange, News};
use super::session::{Session, Welcome};
use super::{ClientError, Target};
use crate::flows::Counters;
use crate::random::random;
use crate::session::unix_now;
use crate::signaling::connection::{CONNECT_TIMEOUT, Socket, SocketError};

/// Time from an offer to a session: ICE, DTLS, SCTP, handshake.
const OPEN_TIMEOUT: Duration = Duration::from_secs(20);

/// How long the steps to a session took, each counted from the beginning.
#[derive(Debug, Clone, Copy, Default)]
pub struct Opening {
    /// Signaling has let us in.
    pub signaling: Duration,
    /// The gateway's answer is here.
    pub answer: Duration,
    /// Packets flow: ICE and DTLS are done.
    pub path: Duration,
    /// Channel 0 is open: SCTP is done.
    pub channel: Duration,
    /// The gateway has let us in.
    pub session: Duration,
}

/// Those of a first attempt: nothing is known of the way.
const FIRST: Deadlines = Deadlines {
    meeting: CONNECT_TIMEOUT,
    opening: OPEN_TIMEOUT,
};

/// What an attempt has reached.
pub(super) struct Reached {
    pub(super) id: SessionId,
    pub(super) welcome: Welcome,
    pub(super) opening: Opening,
    pub(super) exchange: Exchange,
}

/// Makes one attempt.
///
/// # Errors
/// See [`ClientError`].
pub async fn connect(target: &Target) -> Result<Session, ClientError> {
    connect_counting(target, Arc::default()).await
}

/// The same, for somebody who counts datagrams over more than one session.
pub(super) async fn connect_counting(
    target: &Target,
    datagrams: Arc<Counters>,
) -> Result<Session, ClientError> {
    let reached = reach(target, None, FIRST).await?;
    Session::start(target.clone(), reached, datagrams).await
}

/// Opens a channel to the gateway and shakes hands: for a new session, or for one to go on with.
pub(super) async fn reach(
    target: &Target,
    resumption: Option<Resumption>,
    deadlines: Deadlines,
) -> Result<Reached, ClientError> {
    let begun = Instant::now();
    let id = SessionId::from_bytes(random());
    let met = tokio::time::timeout(deadlines.meeting, meet(target, id));
    let (socket, heartbeat, ice_servers) = met.await.map_err(|_| SocketError::Timeout)??;
    let mut opening = Opening {
        signaling: begun.elapsed(),
        ..Opening::default()
    };
    let config = PeerConfig {
        ice_servers,
        stream_relays: target.stream_relays.clone(),
        ..PeerConfig::default()
    };
    let (peer, description, events) = Peer::offer(&config).await?;
    let mut exchange = Exchange::new(id, target.clone(), socket, (peer, events), heartbeat);
    exchange.offer(description).await?;
    let introduction = Introduction {
        target,
        id,
        resumption,
        begun,
    };
    let opened = tokio::time::timeout(
        deadlines.opening,
        introduction.run(&mut exchange, &mut opening),
    )
    .await
    .unwrap_or(Err(ClientError::NoPath));
    match opened {
        Ok(welcome) => {
            opening.session = begun.elapsed();
            Ok(Reached {
                id,
                welcome,
                opening,
                exchange,
            })
        }
        Err(error) => {
            exchange.leave(error.reason()).await;
            Err(error)
        }
    }
}

/// Connects to signaling and proves the grant; returns the socket, its interval of heartbeats and the
/// servers to use.
async fn meet(
    target: &Target,
    session: SessionId,
) -> Result<(Socket, Duration, Vec<IceServer>), SocketError> {
    let address = &target.address;
    let mut socket = connect_to(&address.site, target.tls.as_ref()).await?;
    let challenge = socket.challenge().await?;
    let credential = &address.credential;
    let cluster = credential.cluster.clone();
    let call = Call::Authenticate(Authenticate::Client {
        proof: sign_challenge(&credential.key, &challenge.nonce, &cluster),
        cluster,
        grant: credential.grant,
        session,
    });
    let Authenticated {
        ice_servers,
        revocations,
        ..
    } = socket.authenticate(&call).await?;
    if let Some(list) = revocations {
        target.revocations.hear(&list);
    }
    Ok((socket, heartbeat(challenge.heartbeat_ms), ice_servers))
}

/// A socket to the signaling service of a site; nobody is authenticated yet.
pub(super) async fn connect_to(
    site: &Site,
    tls: Option<&Arc<rustls::ClientConfig>>,
) -> Result<Socket, SocketError> {
    let endpoint = site.signaling(tls);
    let tls = endpoint.tls.clone();
    Socket::connect(&endpoint, tls).await
}

/// What the server wants, within reason.
pub(super) fn heartbeat(millis: u64) -> Duration {
    Duration::from_millis(millis.clamp(1_000, 60_000))
}

/// From an offer to the gateway's verdict.
struct Introduction<'a> {
    target: &'a Target,
    id: SessionId,
    resumption: Option<Resumption>,
    begun: Instant,
}

impl Introduction<'_> {
    /// Exchanges descriptions and candidates until the gateway has let us in.
    async fn run(
        self,
        exchange: &mut Exchange,
        opening: &mut Opening,
    ) -> Result<Welcome, ClientError> {
        let peer = exchange.peer();
        let channel = peer.open();
        tokio::pin!(channel);
        let channel = loop {
            tokio::select! {
                channel = &mut channel => break channel.map_err(|Closed| ClientError::NoPath)?,
                event = exchange.event() => match exchange.handle(event).await? {
                    News::Answered => opening.answer = self.begun.elapsed(),
                    News::Connected => opening.path = self.begun.elapsed(),
                    News::SignalingLost(error) => return Err(error.into()),
                    News::PeerEnded => return Err(ClientError::NoPath),
                    News::NodeOffline | News::NodeOnline | News::Nothing => {}
                },
            }
        };
        opening.channel = self.begun.elapsed();
        let binding = peer.binding().ok_or(ClientError::NoPath)?;
        let shaking = self.shake_hands(channel.as_ref(), binding);
        let (proven, accepted) = tokio::time::timeout(HANDSHAKE_TIMEOUT, shaking)
            .await
            .unwrap_or(Err(ClientError::Timeout))?;
        Ok(Welcome {
            channel,
            proven,
            accepted,
        })
    }

    /// The client's side of the handshake.
    async fn shake_hands(
        self,
        channel: &dyn Channel,
        binding: Binding,
    ) -> Result<(Proven, Accepted), ClientError> {
        let Target {
            address, device, ..
        } = self.target;
        let credential = &address.credential;
        let (hello, mut state) = handshake::start(
            self.id,
            credential.cluster.clone(),
            address.site.service.clone(),
            Nonce::from_bytes(random()),
        );
        state = state.taking(MaxMessage::Native);
        if let Some(resumption) = self.resumption {
            state = state.resuming(resumption);
        }
        // Only the gateway itself says that a session is lost.
        let gone = |Closed| ClientError::NoPath;
        channel.send(hello.into()).await.map_err(gone)?;
        let reply = channel.recv().await.ok_or(ClientError::NoPath)?;
        let revocations = self.target.revocations.get();
        let trust = Trust {
            cluster_key: credential.cluster_key,
            pinned: None,
            revocations: &revocations,
            node: self.target.node.as_ref(),
            binding,
            now: unix_now(),
        };
        let holder = Holder {
            grant: credential.grant,
            token: None,
            key: &credential.key,
            device: device.public(),
        };
        let state = state.receive(&reply, &trust, holder)?;
        let by_device = device.sign(state.to_sign());
        let (proof, state) = state.signed(by_device);
        channel.send(proof.into()).await.map_err(gone)?;
        let verdict = channel.recv().await.ok_or(ClientError::NoPath)?;
        Ok(state.receive(&verdict)?)
    }
}
