//! A download over HTTP/1.1, and the plainest server of one: the same request and the same reading,
//! whatever carries them.

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsFd as _;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// A transfer that is longer is broken off: what came until then is enough for a figure.
const LONGEST: Duration = Duration::from_secs(30);

/// Time for the next byte, or for room for it.
const SILENCE: Duration = Duration::from_secs(10);

/// What is read and written at a time.
const BUFFER: usize = 64 * 1024;

/// Longest head of a request or an answer.
const MAX_HEAD: usize = 8 * 1024;

/// What separates a head from a body.
const END_OF_HEAD: &[u8] = b"\r\n\r\n";

/// What came, and in which time.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Transfer {
    /// Of the body; fewer than asked for if it took too long.
    pub(crate) bytes: u64,
    /// From the request to the last byte.
    pub(crate) ms: f64,
    /// 10⁶ bytes per second.
    pub(crate) mbytes_per_s: f64,
}

/// No transfer.
#[derive(Debug, Error)]
pub(super) enum TransferError {
    /// The connection failed, or was silent for too long.
    #[error("the download: {0}")]
    Io(#[from] io::Error),
    /// It ended early.
    #[error("the download ended after {received} of {expected} bytes")]
    Truncated {
        /// Bytes of the body that came.
        received: u64,
        /// Bytes that were asked for.
        expected: u64,
    },
    /// The service sends something else.
    #[error("the service answered `{line}` where {expected} bytes were expected")]
    Otherwise {
        /// The first line.
        line: String,
        /// Bytes that were asked for.
        expected: u64,
    },
    /// A head without an end.
    #[error("the head of a message has more than {MAX_HEAD} bytes, or no end")]
    Head,
}

impl Transfer {
    fn of(bytes: u64, took: Duration) -> Self {
        let seconds = took.as_secs_f64().max(f64::EPSILON);
        Self {
            bytes,
            ms: seconds * 1000.0,
            mbytes_per_s: bytes as f64 / 1e6 / seconds,
        }
    }
}

/// Asks for so many bytes, and reads them.
pub(super) fn download(mut stream: TcpStream, expected: u64) -> Result<Transfer, TransferError> {
    stream.set_read_timeout(Some(SILENCE))?;
    stream.set_write_timeout(Some(SILENCE))?;
    let host = stream.peer_addr()?;
    let begun = Instant::now();
    let request =
        format!("GET /bytes/{expected} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    let (head, body) = head(&mut stream)?;
    let line = head.lines().next().unwrap_or_default();
    if line.split(' ').nth(1) != Some("200") || length(&head) != Some(expected) {
        return Err(TransferError::Otherwise {
            line: line.to_owned(),
            expected,
        });
    }
    let mut received = body as u64;
    let mut buffer = vec![0; BUFFER];
    while received < expected && begun.elapsed() < LONGEST {
        match stream.read(&mut buffer)? {
            0 => return Err(TransferError::Truncated { received, expected }),
            more => received += more as u64,
        }
    }
    Ok(Transfer::of(received, begun.elapsed()))
}

/// Accepts one connection within `patience`, and answers its request with so many bytes.
pub(super) fn serve(
    listener: &TcpListener,
    patience: Duration,
    bytes: u64,
) -> Result<(), TransferError> {
    let mut waiting = [PollFd::new(listener.as_fd(), PollFlags::POLLIN)];
    let timeout = PollTimeout::try_from(patience).unwrap_or(PollTimeout::MAX);
    if poll(&mut waiting, timeout).map_err(io::Error::from)? == 0 {
        return Err(io::Error::from(io::ErrorKind::TimedOut).into());
    }
    let (mut stream, _) = listener.accept()?;
    stream.set_read_timeout(Some(SILENCE))?;
    stream.set_write_timeout(Some(SILENCE))?;
    head(&mut stream)?;
    let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {bytes}\r\n\r\n");
    stream.write_all(answer.as_bytes())?;
    let mut body = io::repeat(0x5a).take(bytes);
    let mut buffer = vec![0; BUFFER];
    loop {
        match body.read(&mut buffer)? {
            0 => return Ok(()),
            count => stream.write_all(&buffer[..count])?,
        }
    }
}

/// Reads until the end of a head; how many bytes of the body came with it.
fn head(stream: &mut impl Read) -> Result<(String, usize), TransferError> {
    let mut bytes = vec![0; MAX_HEAD];
    let mut filled = 0;
    while filled < MAX_HEAD {
        match stream.read(&mut bytes[filled..])? {
            0 => return Err(TransferError::Head),
            more => filled += more,
        }
        let ends = bytes[..filled]
            .windows(END_OF_HEAD.len())
            .position(|window| window == END_OF_HEAD);
        if let Some(end) = ends {
            let text = String::from_utf8_lossy(&bytes[..end]).into_owned();
            return Ok((text, filled - end - END_OF_HEAD.len()));
        }
    }
    Err(TransferError::Head)
}

/// What a head says of its body.
fn length(head: &str) -> Option<u64> {
    let fields = head.lines().filter_map(|line| line.split_once(':'));
    let mut lengths = fields.filter(|(name, _)| name.eq_ignore_ascii_case("content-length"));
    lengths.next()?.1.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use std::net::Shutdown;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(10);

    fn listener() -> TcpListener {
        TcpListener::bind(("127.0.0.1", 0)).unwrap()
    }

    fn client(listener: &TcpListener) -> TcpStream {
        TcpStream::connect(listener.local_addr().unwrap()).unwrap()
    }

    /// Downloads 100 bytes from a server that says this, and then nothing more.
    fn download_from(answer: &'static str) -> TransferError {
        let listener = listener();
        let client = client(&listener);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let (mut stream, _) = listener.accept().unwrap();
                head(&mut stream).unwrap();
                stream.write_all(answer.as_bytes()).unwrap();
                stream.shutdown(Shutdown::Write).unwrap();
            });
            download(client, 100).unwrap_err()
        })
    }

    #[test]
    fn what_is_served_is_downloaded() {
        let (listener, bytes) = (listener(), 3_000_000);
        let client = client(&listener);
        let transfer = std::thread::scope(|scope| {
            let server = scope.spawn(|| serve(&listener, PATIENCE, bytes));
            let transfer = download(client, bytes).unwrap();
            server.join().unwrap().unwrap();
            transfer
        });
        assert_eq!(transfer.bytes, bytes);
        let expected = bytes as f64 / 1e3 / transfer.ms;
        assert!((transfer.mbytes_per_s - expected).abs() < 1e-6 * expected);
    }

    #[test]
    fn another_answer_is_quoted() {
        let error = download_from("HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n");
        assert_eq!(
            error.to_string(),
            "the service answered `HTTP/1.1 404 Not Found` where 100 bytes were expected"
        );
    }

    #[test]
    fn an_early_end_is_no_figure() {
        let error = download_from("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nfour");
        assert_eq!(error.to_string(), "the download ended after 4 of 100 bytes");
        let error = download_from("HTTP/1.1 200 OK\r\n");
        assert!(matches!(error, TransferError::Head), "{error}");
    }
}
