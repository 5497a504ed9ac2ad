//! One local connection to a service that speaks something else than HTTP.

use std::time::Duration;

use portway_protocol::reason::Reason;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{tcp, unix};
use tokio_util::sync::CancellationToken;

use super::socks::Greeting;
use super::way::Way;
use crate::client::{ClientError, stream};
use crate::limits::activity::Activity;
use crate::proxy::connect::Stream;

/// Joins a local connection with one to the service, to the end of both directions, or until cancelled, or until
/// both are silent for too long. What is cut off on one side is reset on the other, where the system has a way to
/// say so: never a clean end.
pub(super) async fn join(
    local: Stream,
    greeting: Greeting,
    way: &Way,
    cancel: &CancellationToken,
    idle_timeout: Option<Duration>,
) {
    match local {
        Stream::Tcp(local) => {
            let halves = local.into_split();
            join_halves(halves, greeting, way, cancel, idle_timeout).await;
        }
        Stream::Unix(local) => {
            let halves = local.into_split();
            join_halves(halves, greeting, way, cancel, idle_timeout).await;
        }
        // Nobody speaks TLS to us here.
        Stream::Tls(_) => {}
    }
}

async fn join_halves<R, W>(
    (read, write): (R, W),
    greeting: Greeting,
    way: &Way,
    cancel: &CancellationToken,
    idle_timeout: Option<Duration>,
) where
    R: AsyncRead + Send + Unpin + 'static,
    W: AsyncWrite + Unpin + Reset,
{
    let (service, activity) = (&way.service, Activity::begin());
    let read = activity.clone().watch(read);
    let mut write = activity.clone().watch(write);
    let copied = activity.unless_idle(idle_timeout, copy(read, &mut write, greeting, way));
    match cancel.run_until_cancelled(copied).await {
        Some(Ok(Ok(()))) => return,
        // Some end like this always: it is the service's matter.
        Some(Ok(Err(error @ ClientError::CutOff))) => tracing::info!(%service, "{error}"),
        Some(Ok(Err(error))) => {
            let reason = error.reason();
            tracing::warn!(%service, %reason, %error, "a connection was cut off");
        }
        Some(Err(idle)) => tracing::warn!(%service, %idle, "a connection was cut off"),
        None => {
            let reason = Reason::Draining;
            tracing::warn!(%service, %reason, "a connection was cut off");
        }
    }
    write.into_inner().reset();
}

async fn copy<R, W>(
    read: R,
    write: &mut W,
    greeting: Greeting,
    way: &Way,
) -> Result<(), ClientError>
where
    R: AsyncRead + Send + Unpin + 'static,
    W: AsyncWrite + Unpin,
{
    let gone = ClientError::Local;
    let (request, read_to_its_end) = stream::request(read);
    let opened = match way.send(request).await {
        Ok(response) => stream::opened(response),
        Err(failure) => Err(ClientError::Refused(failure.reason())),
    };
    let body = match opened {
        Ok(body) => body,
        Err(error) => {
            let refused = greeting.refused(write, error.reason()).await;
            refused.map_err(gone)?;
            return Err(error);
        }
    };
    greeting.opened(write).await.map_err(gone)?;
    stream::receive(body, write).await?;
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
