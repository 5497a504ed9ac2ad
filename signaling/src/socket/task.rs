//! The shell of one socket: reads, writes, times, closes.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::ws::{CloseFrame, Message, WebSocket, close_code};
use futures_util::stream::SplitSink;
use futures_util::{SinkExt as _, StreamExt as _};
use portway_protocol::id::Nonce;
use portway_protocol::limits::MAX_SIGNAL_MESSAGE;
use portway_protocol::reason::Reason;

use super::session::Session;
use crate::bus::{Mailbox, Outgoing};
use crate::registry::{Outbox, unix_now};
use crate::state::{AppState, count};

/// Time for a message to go out: who does not read for so long is gone.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);

/// Runs one socket to its end. `address`: where it comes from, if that is known.
pub(crate) async fn run(socket: WebSocket, address: Option<IpAddr>, state: AppState) {
    count(&state.0.counters.sockets);
    let mut mailbox = Mailbox::open(&state.0.bus);
    let outbox = Outbox {
        id: mailbox.id,
        bus: Arc::clone(&state.0.bus),
    };
    let mut session = Session::new(
        (outbox, address),
        fresh_nonce(),
        &state.0.config.version,
        Instant::now(),
    );
    let (mut sink, mut stream) = socket.split();
    let closing = loop {
        if mailbox.receiver.capacity() == 0 {
            break Some(Reason::RateLimited);
        }
        tokio::select! {
            biased;
            () = state.0.shutdown.cancelled() => break Some(Reason::Draining),
            Some(next) = mailbox.receiver.recv() => match next {
                Outgoing::Text(text) => {
                    if write(&mut sink, Message::Text(text.into())).await.is_err() {
                        break None;
                    }
                }
                Outgoing::Close(reason) => break Some(reason),
            },
            () = tokio::time::sleep_until(session.deadline().into()) => {
                break Some(session.on_deadline());
            }
            message = stream.next() => match message {
                Some(Ok(Message::Text(text))) if text.len() > MAX_SIGNAL_MESSAGE => {
                    break Some(Reason::RequestInvalid);
                }
                Some(Ok(Message::Text(text))) => {
                    let outcome =
                        session.on_text(&text, &state.0, Instant::now(), unix_now());
                    if let Err(reason) = outcome {
                        break Some(reason);
                    }
                }
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                Some(Ok(Message::Binary(_))) => break Some(Reason::ProtocolViolation),
                Some(Ok(Message::Close(_)) | Err(_)) | None => break None,
            },
        }
    };
    session.on_closed(&state.0);
    if let Some(reason) = closing {
        // What was queued before, an error reply above all, still goes out.
        while let Ok(Outgoing::Text(text)) = mailbox.receiver.try_recv() {
            if write(&mut sink, Message::Text(text.into())).await.is_err() {
                return;
            }
        }
        let frame = CloseFrame {
            code: code(reason),
            reason: reason.code().into(),
        };
        if write(&mut sink, Message::Close(Some(frame))).await.is_err() {
            tracing::debug!("a socket was gone before it could be closed");
        }
    }
}

/// The other end is gone or does not read.
struct Gone;

async fn write(sink: &mut SplitSink<WebSocket, Message>, message: Message) -> Result<(), Gone> {
    match tokio::time::timeout(WRITE_TIMEOUT, sink.send(message)).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_)) | Err(_) => Err(Gone),
    }
}

fn code(reason: Reason) -> u16 {
    if reason == Reason::Draining {
        close_code::AWAY
    } else if reason == Reason::ProtocolViolation {
        close_code::PROTOCOL
    } else if reason == Reason::RequestInvalid {
        close_code::SIZE
    } else {
        close_code::POLICY
    }
}

fn fresh_nonce() -> Nonce {
    let mut bytes = [0; Nonce::LEN];
    getrandom::fill(&mut bytes).expect("the operating system provides randomness");
    Nonce::from_bytes(bytes)
}
