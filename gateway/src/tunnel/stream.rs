//! One local connection to a service that speaks something else than HTTP.

use portway_protocol::reason::Reason;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{tcp, unix};
use tokio_util::sync::CancellationToken;

use super::socks::Greeting;
use super::way::Way;
use crate::client::stream;
use crate::proxy::connect::Stream;

/// Joins a local connection with one to the service, to the end of both directions, or until cancelled. What is
/// cut off on one side is reset on the other, where the system has a way to say so: never a clean end.
pub(super) async fn join(local: Stream, greeting: Greeting, way: &Way, cancel: &CancellationToken) {
    match local {
        Stream::Tcp(local) => {
            let (read, write) = local.into_split();
            join_halves((read, write), greeting, way, cancel).await;
        }
        Stream::Unix(local) => {
            let (read, write) = local.into_split();
            join_halves((read, write), greeting, way, cancel).await;
        }
        // Nobody speaks TLS to us here.
        Stream::Tls(_) => {}
    }
}

async fn join_halves<R, W>(
    (read, mut write): (R, W),
    greeting: Greeting,
    way: &Way,
    cancel: &CancellationToken,
) where
    R: AsyncRead + Send + Unpin + 'static,
    W: AsyncWrite + Unpin + Reset,
{
    let joined = cancel.run_until_cancelled(copy(read, &mut write, greeting, way));
    match joined.await.unwrap_or(Err(Reason::Draining)) {
        Ok(()) => {}
        Err(reason) => {
            tracing::warn!(service = %way.service, %reason, "a connection was cut off");
            write.reset();
        }
    }
}

async fn copy<R, W>(read: R, write: &mut W, greeting: Greeting, way: &Way) -> Result<(), Reason>
where
    R: AsyncRead + Send + Unpin + 'static,
    W: AsyncWrite + Unpin,
{
    let gone = |_| Reason::SessionLost;
    let (request, read_to_its_end) = stream::request(read);
    let opened = match way.send(request).await {
        Ok(response) => stream::opened(response).map_err(|error| error.reason()),
        Err(failure) => Err(failure.reason()),
    };
    let body = match opened {
        Ok(body) => body,
        Err(reason) => {
            greeting.refused(write, reason).await.map_err(gone)?;
            return Err(reason);
        }
    };
    greeting.opened(write).await.map_err(gone)?;
    let received = stream::receive(body, write).await;
    received.map_err(|error| error.reason())?;
    // The local program may still have something to say.
    read_to_its_end.cancelled().await;
    Ok(())
}

/// The half of a connection that can cut it off.
trait Reset {
    /// Cuts it off: who is at the other end gets an error.
    fn reset(self);
}

impl Reset for tcp::OwnedWriteHalf {
    fn reset(self) {
        if let Err(error) = self.as_ref().set_zero_linger() {
            tracing::debug!(%error, "a connection cannot be reset");
        }
        self.forget();
    }
}

impl Reset for unix::OwnedWriteHalf {
    /// A Unix socket has no way to say so but its end.
    fn reset(self) {}
}
