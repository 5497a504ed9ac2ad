//! A connection to a service that speaks something else than HTTP: a request whose body is what the service
//! reads, and whose response is what it writes.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::TryStreamExt as _;
use http::{Method, Request, Response, StatusCode, Version};
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::{Frame, Incoming};
use portway_protocol::reason::Reason;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio_util::io::ReaderStream;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::ClientError;
use super::session::RequestBody;
use crate::proxy::page::REASON_HEADER;

/// Bytes read at a time.
const CHUNK: usize = 32 * 1024;

/// What the service reads, until its end.
struct Source<R> {
    reader: R,
    /// Tells that nobody reads from it any more.
    _ended: DropGuard,
}

impl<R: AsyncRead + Unpin> AsyncRead for Source<R> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.reader).poll_read(cx, buffer)
    }
}

/// Asks for a connection. The service reads what is read there; an error cuts it off. The token is cancelled
/// when nothing more is read.
pub(crate) fn request(
    reader: impl AsyncRead + Send + Unpin + 'static,
) -> (Request<RequestBody>, CancellationToken) {
    let ended = CancellationToken::new();
    let source = Source {
        reader,
        _ended: ended.clone().drop_guard(),
    };
    let chunks = ReaderStream::with_capacity(source, CHUNK);
    let frames = chunks.map_ok(Frame::data).map_err(Into::into);
    (opening(StreamBody::new(frames).boxed_unsync()), ended)
}

/// Asks for a connection. The service reads the body.
pub(crate) fn opening(body: RequestBody) -> Request<RequestBody> {
    let mut request = Request::new(body);
    *request.method_mut() = Method::POST;
    *request.version_mut() = Version::HTTP_2;
    *request.uri_mut() = http::Uri::from_static("http://service/");
    request
}

/// What the service writes, if there is a connection.
///
/// # Errors
/// [`ClientError::Refused`] with the gateway's reason.
pub(crate) fn opened(response: Response<Incoming>) -> Result<Incoming, ClientError> {
    if response.status() != StatusCode::OK {
        return Err(ClientError::Refused(reason_of(&response)));
    }
    Ok(response.into_body())
}

/// Copies what the service writes, to its end.
///
/// # Errors
/// [`ClientError::CutOff`] if the connection was cut off, [`ClientError::Http`] if all were, and
/// [`ClientError::Local`] if nobody takes what comes.
pub(crate) async fn receive(
    mut body: Incoming,
    writer: &mut (impl AsyncWrite + Unpin),
) -> Result<(), ClientError> {
    while let Some(frame) = body.frame().await {
        if let Ok(data) = frame?.into_data() {
            write(writer, &data).await.map_err(ClientError::Local)?;
        }
    }
    writer.shutdown().await.map_err(ClientError::Local)
}

/// Whoever waits for an answer shall not wait for more bytes.
async fn write(writer: &mut (impl AsyncWrite + Unpin), data: &Bytes) -> io::Result<()> {
    writer.write_all(data).await?;
    writer.flush().await
}

/// Why the gateway has answered as it did.
pub(super) fn reason_of<B>(response: &Response<B>) -> Reason {
    let code = response.headers().get(REASON_HEADER);
    let code = code.and_then(|code| code.to_str().ok());
    let known = Reason::ALL.iter().find(|it| Some(it.code()) == code);
    known.copied().unwrap_or(Reason::UpstreamInvalid)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gateway_s_reason_is_understood() {
        let mut response = Response::new(());
        assert_eq!(reason_of(&response), Reason::UpstreamInvalid);
        for (code, reason) in [
            ("UPSTREAM_REFUSED", Reason::UpstreamRefused),
            ("FROM_THE_FUTURE", Reason::UpstreamInvalid),
        ] {
            let code = code.parse().unwrap();
            response.headers_mut().insert(REASON_HEADER, code);
            assert_eq!(reason_of(&response), reason);
        }
    }
}
