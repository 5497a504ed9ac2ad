//! One socket to signaling, whoever opens it: a node, or the native client.

use std::collections::VecDeque;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::FuturesUnordered;
use futures_util::{SinkExt as _, StreamExt as _};
use http::HeaderValue;
use portway_protocol::limits::MAX_SIGNAL_MESSAGE;
use portway_protocol::reason::Reason;
use portway_protocol::signal::{
    Authenticated, Call, Challenge, Envelope, PATH, SUBPROTOCOL, decode_result,
};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, lookup_host};
use tokio::time::{Interval, MissedTickBehavior};
use tokio_rustls::TlsConnector;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{Error as WsError, Message};

use crate::config::SignalingEndpoint;

/// Time for connecting, and again for authenticating.
pub(crate) const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Time for TCP to reach an address.
const REACH_TIMEOUT: Duration = Duration::from_secs(2);

/// Time from one attempt to the next (RFC 8305 §8). TCP itself asks again only after a second.
const ATTEMPT_DELAY: Duration = Duration::from_millis(250);

/// How often we look whether this machine still has the address that its socket began with. TCP does not
/// tell that it has gone: its packets stay unanswered, as after any loss.
const ADDRESS_CHECK: Duration = Duration::from_millis(500);

/// Id of the first request.
const AUTHENTICATE_ID: &str = "authenticate";

/// Why the socket ended.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// Nobody is there: no address, or no TCP to one.
    #[error("connecting: {0}")]
    Unreached(#[source] io::Error),
    /// No TLS over the connection.
    #[error("connecting: {0}")]
    Connect(#[from] io::Error),
    /// No WebSocket, or a broken one.
    #[error("WebSocket: {0}")]
    WebSocket(#[from] Box<WsError>),
    /// No answer.
    #[error("the server did not answer in time")]
    Timeout,
    /// This machine has lost the address that the socket began with.
    #[error("this machine has moved to another network")]
    Moved,
    /// Closed by the server.
    #[error("the server closed the socket")]
    Closed,
    /// The server said no.
    #[error("the server refused: {}", .0.code())]
    Refused(Reason),
    /// The server does not speak as it should.
    #[error("the server broke the protocol")]
    Violation,
}

impl SocketError {
    /// The reason code.
    #[must_use]
    pub const fn reason(&self) -> Reason {
        match self {
            Self::Unreached(_)
            | Self::Connect(_)
            | Self::WebSocket(_)
            | Self::Timeout
            | Self::Moved
            | Self::Closed => Reason::SignalingUnreachable,
            Self::Refused(reason) => *reason,
            Self::Violation => Reason::ProtocolViolation,
        }
    }
}

impl From<WsError> for SocketError {
    fn from(error: WsError) -> Self {
        Self::WebSocket(Box::new(error))
    }
}

/// TCP, or TLS over it.
trait Stream: AsyncRead + AsyncWrite + Unpin + Send + Sync {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + Sync> Stream for S {}

/// A WebSocket that carries envelopes.
pub(crate) struct Socket {
    inner: WebSocketStream<Box<dyn Stream>>,
    /// Our address.
    local: SocketAddr,
    checks: Interval,
}

impl Socket {
    /// Connects; nobody is authenticated yet. `tls`: whom to believe, if TLS is spoken there.
    pub(crate) async fn connect(
        endpoint: &SignalingEndpoint,
        tls: Option<Arc<rustls::ClientConfig>>,
    ) -> Result<Self, SocketError> {
        tokio::time::timeout(CONNECT_TIMEOUT, Self::open(endpoint, tls))
            .await
            .map_err(|_| SocketError::Timeout)?
    }

    async fn open(
        endpoint: &SignalingEndpoint,
        tls: Option<Arc<rustls::ClientConfig>>,
    ) -> Result<Self, SocketError> {
        let (name, port) = endpoint.name_and_port();
        let stream = match endpoint.address {
            Some(address) => reach([address]).await,
            None => match lookup_host((name, port)).await {
                Ok(addresses) => reach(addresses).await,
                Err(error) => Err(error),
            },
        };
        let stream = stream.map_err(SocketError::Unreached)?;
        stream.set_nodelay(true)?;
        let local = stream.local_addr()?;
        let (scheme, stream): (_, Box<dyn Stream>) = match tls {
            None => ("ws", Box::new(stream)),
            Some(config) => {
                let name = name
                    .to_owned()
                    .try_into()
                    .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
                let connector = TlsConnector::from(config);
                ("wss", Box::new(connector.connect(name, stream).await?))
            }
        };
        let mut request = format!("{scheme}://{}{PATH}", endpoint.host).into_client_request()?;
        request.headers_mut().insert(
            "sec-websocket-protocol",
            HeaderValue::from_static(SUBPROTOCOL),
        );
        let limits = WebSocketConfig::default()
            .max_message_size(Some(MAX_SIGNAL_MESSAGE))
            .max_frame_size(Some(MAX_SIGNAL_MESSAGE));
        let (inner, _response) =
            tokio_tungstenite::client_async_with_config(request, stream, Some(limits)).await?;
        let mut checks = tokio::time::interval(ADDRESS_CHECK);
        checks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Ok(Self {
            inner,
            local,
            checks,
        })
    }

    /// The server's first message.
    pub(crate) async fn challenge(&mut self) -> Result<Challenge, SocketError> {
        let first = self.next().await?;
        let method = first.method.ok_or(SocketError::Violation)?;
        match Call::from_parts(&method, first.params.as_deref()) {
            Ok(Call::Challenge(challenge)) => Ok(challenge),
            Ok(_) | Err(_) => Err(SocketError::Violation),
        }
    }

    /// Says who we are, and waits for the server's yes.
    pub(crate) async fn authenticate(&mut self, call: &Call) -> Result<Authenticated, SocketError> {
        self.send(&Envelope::call(Some(AUTHENTICATE_ID.into()), call))
            .await?;
        let reply = self.next().await?;
        if let Some(error) = reply.error {
            return Err(SocketError::Refused(error.reason()));
        }
        let result = reply.result.ok_or(SocketError::Violation)?;
        decode_result(&result).map_err(|_| SocketError::Violation)
    }

    /// The next message. Nothing is lost if this is cancelled.
    pub(crate) async fn next(&mut self) -> Result<Envelope, SocketError> {
        loop {
            let next = tokio::select! {
                next = self.inner.next() => next,
                _tick = self.checks.tick() => {
                    if !is_ours(self.local) {
                        return Err(SocketError::Moved);
                    }
                    continue;
                }
            };
            match next {
                Some(Ok(Message::Text(text))) => {
                    return Envelope::parse(&text).map_err(|_| SocketError::Violation);
                }
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                Some(Ok(Message::Binary(_) | Message::Frame(_))) => {
                    return Err(SocketError::Violation);
                }
                Some(Ok(Message::Close(frame))) => {
                    let reason = frame.map(|frame| frame.reason.to_string());
                    tracing::info!(?reason, "signaling closed the socket");
                    return Err(SocketError::Closed);
                }
                None => return Err(SocketError::Closed),
                Some(Err(error)) => return Err(error.into()),
            }
        }
    }

    /// Sends one message.
    pub(crate) async fn send(&mut self, envelope: &Envelope) -> Result<(), SocketError> {
        self.inner.send(Message::text(envelope.to_text())).await?;
        Ok(())
    }
}

/// Whether this machine has the address. What cannot be told counts as yes.
fn is_ours(mut address: SocketAddr) -> bool {
    address.set_port(0);
    let bound = UdpSocket::bind(address).map_err(|error| error.kind());
    !matches!(bound, Err(io::ErrorKind::AddrNotAvailable))
}

/// TCP to the first address that answers: the next attempt begins beside those that have not ended (RFC 8305
/// §5). An address that says nothing is asked again, and one that refuses is not.
async fn reach(addresses: impl IntoIterator<Item = SocketAddr>) -> io::Result<TcpStream> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    let mut addresses: VecDeque<_> = addresses.into_iter().collect();
    let mut attempts = FuturesUnordered::new();
    let mut delay = tokio::time::interval(ATTEMPT_DELAY);
    let deadline = tokio::time::sleep(REACH_TIMEOUT);
    tokio::pin!(deadline);
    while !(addresses.is_empty() && attempts.is_empty()) {
        tokio::select! {
            () = &mut deadline => return Err(io::ErrorKind::TimedOut.into()),
            Some((address, outcome)) = attempts.next() => match outcome {
                Ok(stream) => return Ok(stream),
                Err(error) => {
                    addresses.retain(|other| *other != address);
                    last = error;
                    delay.reset_immediately();
                }
            },
            _tick = delay.tick(), if !addresses.is_empty() => {
                addresses.rotate_left(1);
                let asked = addresses.back().copied();
                attempts.extend(asked.map(|address| async move {
                    (address, TcpStream::connect(address).await)
                }));
            }
        }
    }
    Err(last)
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    #[test]
    fn an_address_is_ours_or_not_whatever_its_port() {
        assert!(is_ours(([127, 0, 0, 1], 443).into()));
        assert!(!is_ours(([192, 0, 2, 77], 443).into()), "TEST-NET-1");
    }

    #[tokio::test]
    async fn the_first_address_that_answers_is_taken_and_refusals_end_the_attempt() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let there = listener.local_addr().unwrap();
        let gone = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let refusing = gone.local_addr().unwrap();
        drop(gone);
        let stream = reach([refusing, there, refusing]).await.unwrap();
        assert_eq!(stream.peer_addr().unwrap(), there);
        let error = reach([refusing, refusing]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
        assert_eq!(reach([]).await.unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
