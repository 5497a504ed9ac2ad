//! The pages of a signaling service, for a browser that meets it through the adversary. They are passed on as
//! they are, but for the port in the names of origins.

use anyhow::Context as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::LOOK_AGAIN;

/// Longest head of a request.
const MAX_HEAD: usize = 16 * 1024;

const END_OF_HEAD: &str = "\r\n\r\n";

/// Whether this is a request for a page and not for a socket. Nothing is read.
pub(super) async fn are_wanted(stream: &TcpStream) -> anyhow::Result<bool> {
    let mut head = vec![0; MAX_HEAD];
    loop {
        let length = stream.peek(&mut head).await?;
        let head = String::from_utf8_lossy(&head[..length]).to_ascii_lowercase();
        if length == 0 || length == MAX_HEAD || head.contains(END_OF_HEAD) {
            return Ok(!head.contains("upgrade: websocket"));
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

/// Has one request without a body answered by the service, `HOST:PORT` on this machine.
pub(super) async fn pass(mut browser: TcpStream, signaling: &str) -> anyhow::Result<()> {
    let (_name, port) = signaling.rsplit_once(':').context("HOST:PORT")?;
    let ours = format!(":{}", browser.local_addr()?.port());
    let theirs = format!(":{port}");
    let mut request = Vec::new();
    while !request.ends_with(END_OF_HEAD.as_bytes()) {
        if browser.read_buf(&mut request).await? == 0 {
            // It was opened in advance, and is not needed.
            return Ok(());
        }
    }
    let request = String::from_utf8(request)?.replace(&ours, &theirs);
    let request = request.replacen("\r\n", "\r\nconnection: close\r\n", 1);
    let mut service = TcpStream::connect(("127.0.0.1", port.parse()?)).await?;
    service.write_all(request.as_bytes()).await?;
    let mut response = Vec::new();
    service.read_to_end(&mut response).await?;
    let end = END_OF_HEAD.as_bytes();
    let end = response.windows(end.len()).position(|it| it == end);
    let body = response.split_off(end.context("a response has a head")?);
    let head = String::from_utf8(response)?.replace(&theirs, &ours);
    browser.write_all(head.as_bytes()).await?;
    browser.write_all(&body).await?;
    browser.shutdown().await?;
    Ok(())
}
