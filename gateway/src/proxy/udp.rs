//! Datagrams both ways: a request to a `udp` service becomes a connected UDP socket, for as long as its bodies
//! go on (`docs/protocol.md` §6).
//!
//! Security: the client chooses no address; the socket is connected, so that the system drops what others send
//! to it. That nobody is there at the service's address is counted, and ends nothing: the next datagram may find it.

use std::sync::Arc;

use ::http::{HeaderMap, HeaderValue, Request, Response};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use portway_protocol::datagram::{FLOW_HEADER, FlowId, capsule};
use portway_protocol::reason::Reason;
use tokio::net::UdpSocket;

use super::http::io_reason;
use super::{ProxyBody, Visitor};
use crate::flows::{BUFFER, Outlet, Registered, capsules, is_refusal};
use crate::service::Program;

/// Whether a request is for a flow.
pub(super) fn is_wanted(headers: &HeaderMap) -> bool {
    headers.contains_key(FLOW_HEADER)
}

/// Opens a flow; the response comes when its socket is there.
///
/// # Errors
/// Why it is not.
pub async fn open(
    service: &Program,
    visitor: &Visitor,
    request: Request<Incoming>,
) -> Result<Response<ProxyBody>, Reason> {
    let named = request.headers().get(FLOW_HEADER);
    let named = named.and_then(|id| id.to_str().ok()?.parse::<FlowId>().ok());
    let id = named.ok_or(Reason::RequestInvalid)?;
    let place = service.place()?;
    let connected = service.upstream.connect_udp().await;
    let socket = Arc::new(connected.map_err(|error| io_reason(&error, true))?);
    let outlet = Outlet::Connected(socket.clone());
    let registered = visitor.flows.register(id, outlet);
    let (flow, said) = registered.ok_or(Reason::RequestInvalid)?;
    // Who has asked knows it.
    flow.flow().known();
    let ended = visitor.ended.clone();
    let idle_timeout = service.limits.flow_idle_timeout();
    drop(visitor.tasks.spawn(async move {
        tokio::select! {
            () = from_service(&socket, &flow) => {}
            () = from_client(request.into_body(), &flow) => {}
            () = flow.flow().over(idle_timeout) => {}
            () = ended.cancelled() => {}
        }
        drop(place);
    }));
    let mut response = Response::new(capsules(said).boxed_unsync());
    let value = HeaderValue::from_static(capsule::PROTOCOL_VALUE);
    response
        .headers_mut()
        .insert(capsule::PROTOCOL_HEADER, value);
    Ok(response)
}

async fn from_service(socket: &UdpSocket, flow: &Registered) {
    let mut buffer = vec![0; BUFFER];
    loop {
        let received = socket.recv(&mut buffer).await;
        if is_refusal(&received) {
            flow.refused();
            continue;
        }
        match received {
            Ok(len) => flow.send(&buffer[..len]).await,
            Err(error) => return tracing::debug!(%error, "the socket of a flow failed"),
        }
    }
}

/// What comes on the stream, until the client ends it.
async fn from_client(mut body: Incoming, flow: &Registered) {
    let mut reader = capsule::Reader::default();
    while let Some(Ok(frame)) = body.frame().await {
        if let Ok(data) = frame.into_data() {
            flow.receive(&mut reader, &data);
        }
    }
}
