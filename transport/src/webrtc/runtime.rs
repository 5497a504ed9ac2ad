//! The runtime that a peer connection runs on: tokio, with four differences.
//!
//! - UDP sockets get [`SOCKET_BUFFER`] bytes of buffer: the stack sends a whole congestion window
//!   without pacing, and with default buffers loses most of it.
//! - They have ways beside the kernel: to the relay of the same process, to relays by TCP and TLS.
//! - Its tasks belong to the peer and are aborted when it is dropped.
//! - A sleep that follows work is short: see [`Naps`].

use std::future::Future;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, Once, PoisonError};
use std::time::Duration;

use tokio::task::{AbortHandle, JoinSet};
use webrtc::runtime::{
    AsyncInterval, AsyncTcpListener, AsyncTcpStream, AsyncUdpSocket, JoinHandle, Runtime,
    TokioRuntime,
};

use super::shortcut::{Inbox, Shortcut};
use super::socket::Socket;
use super::stream_relays::{Lines, PeerRelays};

/// Send and receive buffer of each socket, bytes: measured 0.4–5 MB/s with the default 208 KiB,
/// over 100 with this.
pub(super) const SOCKET_BUFFER: usize = 4 * 1024 * 1024;

/// Runs one peer connection.
#[derive(Debug)]
pub(super) struct PeerRuntime {
    naps: Arc<Naps>,
    tasks: Tasks,
    shortcut: Option<Arc<dyn Shortcut>>,
    relays: Arc<PeerRelays>,
}

impl PeerRuntime {
    pub(super) fn new(shortcut: Option<Arc<dyn Shortcut>>, relays: PeerRelays) -> Self {
        Self {
            naps: Arc::default(),
            tasks: Tasks::default(),
            shortcut,
            relays: Arc::new(relays),
        }
    }

    /// Ends everything that the connection still runs.
    pub(super) fn abort(&self) {
        self.tasks.lock().abort_all();
    }

    /// There is a path, or none any more.
    pub(super) fn has_path(&self, has_path: bool) {
        self.relays.has_path(has_path);
    }
}

/// What a peer runs.
#[derive(Debug, Clone, Default)]
pub(super) struct Tasks(Arc<Mutex<JoinSet<()>>>);

impl Tasks {
    pub(super) fn spawn(&self, future: impl Future<Output = ()> + Send + 'static) -> AbortHandle {
        let mut tasks = self.lock();
        while tasks.try_join_next().is_some() {}
        tasks.spawn(future)
    }

    fn lock(&self) -> MutexGuard<'_, JoinSet<()>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Runtime for PeerRuntime {
    fn spawn(&self, future: Pin<Box<dyn Future<Output = ()> + Send>>) -> Box<dyn JoinHandle> {
        Box::new(Task(self.tasks.spawn(future)))
    }

    fn wrap_udp_socket(&self, socket: UdpSocket) -> io::Result<Arc<dyn AsyncUdpSocket>> {
        enlarge_buffers(&socket);
        let kernel = TokioRuntime.wrap_udp_socket(socket)?;
        let inbox = Arc::new(Inbox::default());
        let local = kernel.local_addr()?;
        let shortcut = self.shortcut.as_ref();
        Ok(Arc::new(Socket {
            kernel,
            attached: shortcut.map(|shortcut| shortcut.attach(local, inbox.clone())),
            lines: (!self.relays.is_empty())
                .then(|| Lines::new(self.relays.clone(), inbox.clone(), self.tasks.clone())),
            inbox,
            nominations: Mutex::default(),
        }))
    }

    fn wrap_tcp_listener(
        &self,
        listener: std::net::TcpListener,
    ) -> io::Result<Arc<dyn AsyncTcpListener>> {
        TokioRuntime.wrap_tcp_listener(listener)
    }

    fn connect_tcp<'a>(
        &'a self,
        remote_addr: SocketAddr,
    ) -> Pin<Box<dyn Future<Output = io::Result<Arc<dyn AsyncTcpStream>>> + Send + 'a>> {
        TokioRuntime.connect_tcp(remote_addr)
    }

    fn resolve_host<'a>(
        &'a self,
        host: &'a str,
    ) -> Pin<Box<dyn Future<Output = io::Result<Vec<SocketAddr>>> + Send + 'a>> {
        match PeerRelays::resolve(host) {
            Some(addresses) => Box::pin(std::future::ready(Ok(addresses))),
            None => TokioRuntime.resolve_host(host),
        }
    }

    fn sleep(&self, duration: Duration) -> Pin<Box<dyn Future<Output = ()> + Send + 'static>> {
        let naps = self.naps.clone();
        let sleep = TokioRuntime.sleep(naps.begin(duration));
        Box::pin(async move {
            sleep.await;
            naps.end();
        })
    }

    fn interval(&self, period: Duration) -> Box<dyn AsyncInterval> {
        TokioRuntime.interval(period)
    }

    fn block_on(&self, future: Pin<Box<dyn Future<Output = ()> + '_>>) {
        TokioRuntime.block_on(future);
    }

    fn name(&self) -> &'static str {
        "tokio"
    }
}

/// How long the stack's loop sleeps.
///
/// The loop sends, then reads, then sleeps until a packet, a call or a timer. What reading makes it want
/// to send (the first packet of DTLS after ICE, SCTP's INIT after DTLS, an acknowledgement), and what
/// it hands to its TURN client, stays until it wakes for something else. Therefore a loop that was
/// woken before its time takes [`NAPS`] short sleeps before the next long one. Measured on one machine:
/// from offer to open channel 14 ms instead of 428, a round trip through a relay 3 ms instead of 190.
#[derive(Debug, Default)]
struct Naps {
    /// The last sleep has come to its end; if not, something has woken the loop.
    was_whole: AtomicBool,
    /// Short sleeps still to come.
    left: AtomicU32,
}

/// Short sleeps after work. The longest chain seen: SCTP is established, the channel wants to open, its
/// OPEN is sent, the TURN client sends it on; and one to spare.
const NAPS: u32 = 4;

/// Length of a short sleep.
const NAP: Duration = Duration::from_millis(1);

impl Naps {
    /// A sleep of this length begins; returns how long it shall be. One loop calls this.
    fn begin(&self, wanted: Duration) -> Duration {
        let left = if self.was_whole.swap(false, Ordering::Relaxed) {
            self.left.load(Ordering::Relaxed)
        } else {
            NAPS
        };
        self.left.store(left.saturating_sub(1), Ordering::Relaxed);
        if left > 0 { wanted.min(NAP) } else { wanted }
    }

    /// It was slept to its end.
    fn end(&self) {
        self.was_whole.store(true, Ordering::Relaxed);
    }
}

/// Handle of a task in the set. Dropping it does not end the task, the peer does.
struct Task(AbortHandle);

impl JoinHandle for Task {
    fn detach(&self) {}

    fn abort(&self) {
        self.0.abort();
    }

    fn is_finished(&self) -> bool {
        self.0.is_finished()
    }
}

/// A smaller buffer than asked for works, slowly, so it is worth one warning.
fn enlarge_buffers(socket: &UdpSocket) {
    static WARNED: Once = Once::new();
    let socket = socket2::SockRef::from(socket);
    let set = socket
        .set_recv_buffer_size(SOCKET_BUFFER)
        .and_then(|()| socket.set_send_buffer_size(SOCKET_BUFFER));
    // Linux reports twice what it granted.
    let granted = socket.recv_buffer_size().unwrap_or_default() / 2;
    if set.is_err() || granted < SOCKET_BUFFER {
        WARNED.call_once(|| {
            tracing::warn!(
                wanted = SOCKET_BUFFER,
                granted,
                "small UDP socket buffers slow transfers down: raise net.core.rmem_max and wmem_max"
            );
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(1);

    #[test]
    fn work_is_followed_by_naps_and_then_by_a_long_sleep() {
        let naps = Naps::default();
        for _after_each_of_two_wakes in 0..2 {
            for _nap in 0..NAPS {
                assert_eq!(naps.begin(LONG), NAP);
                naps.end();
            }
            assert_eq!(naps.begin(LONG), LONG);
            naps.end();
            assert_eq!(naps.begin(LONG), LONG, "this one is cut short");
        }
        assert_eq!(naps.begin(Duration::ZERO), Duration::ZERO);
    }
}
