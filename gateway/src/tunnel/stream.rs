//! One local connection to a service that speaks something else than HTTP.

use portway_protocol::reason::Reason;
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

use super::way::Way;
use crate::client::stream;

/// Joins a local connection with one to the service, to the end of both directions, or until cancelled. What is
/// cut off on one side is reset on the other: never a clean end.
pub(super) async fn join(local: TcpStream, way: &Way, cancel: &CancellationToken) {
    let (read, mut write) = local.into_split();
    let (request, read_to_its_end) = stream::request(read);
    let joined = async {
        let response = way.send(request).await;
        let response = response.map_err(|failure| failure.reason())?;
        let received = stream::receive(response, &mut write).await;
        received.map_err(|error| error.reason())?;
        // The local program may still have something to say.
        read_to_its_end.cancelled().await;
        Ok(())
    };
    let joined = cancel.run_until_cancelled(joined).await;
    match joined.unwrap_or(Err(Reason::Draining)) {
        Ok(()) => {}
        Err(reason) => {
            tracing::warn!(service = %way.service, %reason, "a connection was cut off");
            if let Err(error) = write.as_ref().set_zero_linger() {
                tracing::debug!(%error, "a connection cannot be reset");
            }
            write.forget();
        }
    }
}
