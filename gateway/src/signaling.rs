//! The gateway's socket to signaling: authenticate, announce, answer offers, come back.
//!
//! Live sessions do not depend on it: when signaling goes away they go on, and only newcomers wait.
//!
//! - `peers`: the peer connections that offers have started.

mod peers;

use std::sync::PoisonError;
use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use http::HeaderValue;
use portway_protocol::backoff::Backoff;
use portway_protocol::limits::MAX_SIGNAL_MESSAGE;
use portway_protocol::reason::Reason;
use portway_protocol::signal::{
    Announce, AnnouncedService, Authenticate, Authenticated, Call, Challenge, Empty, Envelope,
    Heartbeat, NodeStatus, PATH, RpcError, SUBPROTOCOL, decode_result,
};
use portway_protocol::transcript::sign_challenge;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_rustls::TlsConnector;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{Error as WsError, Message};

use crate::agent::Shared;
use peers::Peers;

/// First pause before another attempt.
const RETRY_BASE: Duration = Duration::from_millis(500);

/// Longest pause before another attempt.
const RETRY_CAP: Duration = Duration::from_secs(15);

/// Time for connecting and authenticating.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Messages of peers that may wait for the socket.
pub(crate) const OUTGOING_QUEUE: usize = 256;

/// Id of our `authenticate`, of our `announce`s, of our heartbeats.
const AUTHENTICATE_ID: &str = "authenticate";
const ANNOUNCE_ID: &str = "announce";
const HEARTBEAT_ID: &str = "heartbeat";

/// Why the socket ended.
#[derive(Debug, thiserror::Error)]
enum SocketError {
    #[error("connecting: {0}")]
    Connect(#[from] std::io::Error),
    #[error("WebSocket: {0}")]
    WebSocket(#[from] Box<WsError>),
    #[error("the server did not answer in time")]
    Timeout,
    #[error("the server closed the socket")]
    Closed,
    #[error("the server refused: {}", .0.code())]
    Refused(Reason),
    #[error("the server broke the protocol")]
    Violation,
}

impl From<WsError> for SocketError {
    fn from(error: WsError) -> Self {
        Self::WebSocket(Box::new(error))
    }
}

/// Keeps a socket to signaling until cancelled.
pub(crate) async fn run(shared: &Shared) {
    let (outgoing, mut from_peers) = mpsc::channel(OUTGOING_QUEUE);
    let peers = Peers::new(shared.context.clone(), outgoing, shared.tasks.clone());
    let mut backoff = Backoff::new(RETRY_BASE, RETRY_CAP);
    loop {
        let Err(error) = connect_and_serve(shared, &peers, &mut from_peers, &mut backoff).await;
        shared.online.send_replace(false);
        let delay = backoff.next_delay(random());
        tracing::warn!(%error, retry_in_ms = delay.as_millis(), "no connection to signaling");
        tokio::time::sleep(delay).await;
    }
}

async fn connect_and_serve(
    shared: &Shared,
    peers: &Peers,
    from_peers: &mut mpsc::Receiver<Envelope>,
    backoff: &mut Backoff,
) -> Result<std::convert::Infallible, SocketError> {
    let endpoint = &shared.config.signaling;
    let stream = tokio::time::timeout(CONNECT_TIMEOUT, TcpStream::connect(endpoint.address))
        .await
        .map_err(|_| SocketError::Timeout)??;
    stream.set_nodelay(true)?;
    let tls = shared
        .tls
        .read()
        .unwrap_or_else(PoisonError::into_inner)
        .clone();
    match tls {
        None => serve(shared, peers, from_peers, backoff, "ws", stream).await,
        Some(config) => {
            let name = endpoint
                .host
                .split(':')
                .next()
                .unwrap_or_default()
                .to_owned();
            let name = name
                .try_into()
                .map_err(|error| std::io::Error::new(std::io::ErrorKind::InvalidInput, error))?;
            let connector = TlsConnector::from(config);
            let stream = tokio::time::timeout(CONNECT_TIMEOUT, connector.connect(name, stream))
                .await
                .map_err(|_| SocketError::Timeout)??;
            serve(shared, peers, from_peers, backoff, "wss", stream).await
        }
    }
}

async fn serve<S: AsyncRead + AsyncWrite + Unpin>(
    shared: &Shared,
    peers: &Peers,
    from_peers: &mut mpsc::Receiver<Envelope>,
    backoff: &mut Backoff,
    scheme: &str,
    stream: S,
) -> Result<std::convert::Infallible, SocketError> {
    let url = format!("{scheme}://{}{PATH}", shared.config.signaling.host);
    let mut request = url.into_client_request()?;
    request.headers_mut().insert(
        "sec-websocket-protocol",
        HeaderValue::from_static(SUBPROTOCOL),
    );
    let limits = WebSocketConfig::default()
        .max_message_size(Some(MAX_SIGNAL_MESSAGE))
        .max_frame_size(Some(MAX_SIGNAL_MESSAGE));
    let handshake = tokio_tungstenite::client_async_with_config(request, stream, Some(limits));
    let (mut socket, _response) = tokio::time::timeout(CONNECT_TIMEOUT, handshake)
        .await
        .map_err(|_| SocketError::Timeout)??;
    let heartbeat = tokio::time::timeout(CONNECT_TIMEOUT, authenticate(shared, &mut socket))
        .await
        .map_err(|_| SocketError::Timeout)??;
    backoff.reset();
    tracing::info!("connected to signaling");

    let mut heartbeats = tokio::time::interval(heartbeat);
    heartbeats.reset();
    let mut unanswered_heartbeats = 0_u32;
    send(&mut socket, &announcement(shared)).await?;
    loop {
        tokio::select! {
            message = socket.next() => match message {
                Some(Ok(Message::Text(text))) => {
                    let envelope = Envelope::parse(&text).map_err(|_| SocketError::Violation)?;
                    if envelope.id.as_deref() == Some(HEARTBEAT_ID) {
                        unanswered_heartbeats = 0;
                    }
                    if let Some(reply) = receive(shared, peers, envelope).await? {
                        send(&mut socket, &reply).await?;
                    }
                }
                Some(Ok(Message::Close(frame))) => {
                    tracing::info!(reason = ?frame.map(|frame| frame.reason.to_string()), "signaling closed the socket");
                    return Err(SocketError::Closed);
                }
                Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Binary(_) | Message::Frame(_))) => {}
                Some(Err(error)) => return Err(error.into()),
                None => return Err(SocketError::Closed),
            },
            Some(envelope) = from_peers.recv() => send(&mut socket, &envelope).await?,
            () = shared.changed.notified() => send(&mut socket, &announcement(shared)).await?,
            _tick = heartbeats.tick() => {
                if unanswered_heartbeats >= 2 {
                    return Err(SocketError::Timeout);
                }
                unanswered_heartbeats += 1;
                let call = Call::Heartbeat(Heartbeat {});
                send(&mut socket, &Envelope::call(Some(HEARTBEAT_ID.into()), &call)).await?;
            }
        }
    }
}

/// From the challenge to the server's yes; returns the interval of heartbeats.
async fn authenticate<S: AsyncRead + AsyncWrite + Unpin>(
    shared: &Shared,
    socket: &mut WebSocketStream<S>,
) -> Result<Duration, SocketError> {
    let first = next_envelope(socket).await?;
    let challenge: Challenge = match first.method.as_deref() {
        Some(method) => match Call::from_parts(method, first.params.as_deref()) {
            Ok(Call::Challenge(challenge)) => challenge,
            Ok(_) | Err(_) => return Err(SocketError::Violation),
        },
        None => return Err(SocketError::Violation),
    };
    let config = &shared.config;
    let call = Call::Authenticate(Authenticate::Gateway {
        token: config.machine_token.clone(),
        proof: sign_challenge(&config.node_key, &challenge.nonce, &config.cluster),
    });
    send(socket, &Envelope::call(Some(AUTHENTICATE_ID.into()), &call)).await?;
    let reply = next_envelope(socket).await?;
    if let Some(error) = reply.error {
        return Err(SocketError::Refused(error.reason()));
    }
    let result = reply.result.ok_or(SocketError::Violation)?;
    let _authenticated: Authenticated =
        decode_result(&result).map_err(|_| SocketError::Violation)?;
    Ok(Duration::from_millis(
        challenge.heartbeat_ms.clamp(1_000, 60_000),
    ))
}

/// Handles one message; returns what to answer.
async fn receive(
    shared: &Shared,
    peers: &Peers,
    envelope: Envelope,
) -> Result<Option<Envelope>, SocketError> {
    let Some(method) = envelope.method else {
        if let Some(error) = envelope.error {
            let reason = error.reason();
            tracing::warn!(id = ?envelope.id, %reason, "signaling refused a request");
            if reason == Reason::Replaced {
                return Err(SocketError::Refused(reason));
            }
        } else if envelope.id.as_deref() == Some(ANNOUNCE_ID) {
            shared.online.send_replace(true);
        }
        return Ok(None);
    };
    let call = match Call::from_parts(&method, envelope.params.as_deref()) {
        Ok(call) => call,
        Err(error) => return Ok(Some(Envelope::error(envelope.id, error.to_rpc()))),
    };
    let reply = match call {
        Call::Offer(offer) => {
            let outcome = peers.offer(offer).await;
            envelope.id.map(|id| match outcome {
                Ok(()) => Envelope::result(id, &Empty {}),
                Err(reason) => Envelope::error(Some(id), RpcError::refused(reason)),
            })
        }
        Call::Candidate(candidate) => {
            peers.candidate(candidate);
            None
        }
        Call::Bye(bye) => {
            peers.bye(&bye);
            None
        }
        Call::Challenge(_)
        | Call::Authenticate(_)
        | Call::Announce(_)
        | Call::Heartbeat(_)
        | Call::Answer(_)
        | Call::Presence(_) => None,
    };
    Ok(reply)
}

/// Whether all services and grants fit into the one message that tells of them.
pub(crate) fn can_announce(shared: &Shared) -> bool {
    announcement(shared).to_text().len() <= MAX_SIGNAL_MESSAGE
}

fn announcement(shared: &Shared) -> Envelope {
    let services = shared.context.services.all();
    let announce = Announce {
        epoch: shared.epoch,
        status: if shared.context.draining.is_cancelled() {
            NodeStatus::Draining
        } else {
            NodeStatus::Online
        },
        version: shared.config.version.clone(),
        commit: shared.config.commit.clone(),
        services: services
            .iter()
            .map(|service| AnnouncedService {
                name: service.spec.name.clone(),
                health: service.health(),
            })
            .collect(),
        grants: shared.context.grants.announced(),
    };
    Envelope::call(Some(ANNOUNCE_ID.into()), &Call::Announce(announce))
}

async fn next_envelope<S: AsyncRead + AsyncWrite + Unpin>(
    socket: &mut WebSocketStream<S>,
) -> Result<Envelope, SocketError> {
    loop {
        match socket.next().await {
            Some(Ok(Message::Text(text))) => {
                return Envelope::parse(&text).map_err(|_| SocketError::Violation);
            }
            Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
            Some(Ok(Message::Binary(_) | Message::Frame(_))) => return Err(SocketError::Violation),
            Some(Ok(Message::Close(_))) | None => return Err(SocketError::Closed),
            Some(Err(error)) => return Err(error.into()),
        }
    }
}

async fn send<S: AsyncRead + AsyncWrite + Unpin>(
    socket: &mut WebSocketStream<S>,
    envelope: &Envelope,
) -> Result<(), SocketError> {
    socket.send(Message::text(envelope.to_text())).await?;
    Ok(())
}

fn random() -> u32 {
    let mut bytes = [0; 4];
    getrandom::fill(&mut bytes).expect("the operating system provides randomness");
    u32::from_ne_bytes(bytes)
}
