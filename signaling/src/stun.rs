//! Answers STUN Binding requests, so that both ends learn their public addresses.

use std::io;
use std::time::Duration;

use portway_protocol::stun::{MAX_MESSAGE, answer};
use tokio::net::UdpSocket;

/// Pause after the socket failed, e.g. for want of memory.
const PAUSE: Duration = Duration::from_millis(100);

/// Answers until dropped.
pub(crate) async fn serve(socket: &UdpSocket) {
    loop {
        if let Err(error) = answer_one(socket).await {
            tracing::debug!(%error, "a STUN request could not be answered");
            tokio::time::sleep(PAUSE).await;
        }
    }
}

async fn answer_one(socket: &UdpSocket) -> io::Result<()> {
    // One byte more than is looked at: a longer datagram is cut to it and not answered.
    let mut packet = [0; MAX_MESSAGE + 1];
    let (length, source) = socket.recv_from(&mut packet).await?;
    if let Some(response) = answer(&packet[..length], source) {
        socket.send_to(&response, source).await?;
    }
    Ok(())
}
