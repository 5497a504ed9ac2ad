//! The runtime that a peer connection runs on: tokio, with five differences.
//!
//! - UDP sockets get [`SOCKET_BUFFER`] bytes of buffer: the stack sends a whole congestion window
//!   without pacing, and with default buffers loses most of it.
//! - They have ways beside the kernel: to the relay of the same process, to relays by TCP and TLS.
//! - Its tasks belong to the peer and are aborted when it is dropped.
//! - Between ICE and the open channel, its sleeps are short: see [`EAGER_SLEEP`].
//! - While data goes by a relay, most sleeps are none: see [`Turn`].

use std::future::Future;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, Once, PoisonError};
use std::task::{Context, Poll};
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

/// Longest sleep while a channel opens. The stack's loop sends, then reads, then sleeps: what reading
/// makes it want to send (the first packet of DTLS after ICE, SCTP's INIT after DTLS, the channel's OPEN
/// after SCTP) waits for the next packet or timer. That was 20 ms once and 200 ms twice: measured from
/// offer to open channel on one machine 428 ms, 14 ms with this.
const EAGER_SLEEP: Duration = Duration::from_millis(1);

/// Rounds of the stack's loop from a packet of a relay to the answer: one unwraps it, one wraps the answer.
const TURNS: u8 = 2;

/// Runs one peer connection.
#[derive(Debug)]
pub(super) struct PeerRuntime {
    is_eager: AtomicBool,
    /// Whether data comes by a relay of this end, or may soon.
    is_relayed: Arc<AtomicBool>,
    /// How often the stack's loop has gone round once more: see [`Turn`].
    turns: Arc<AtomicU8>,
    tasks: Tasks,
    shortcut: Option<Arc<dyn Shortcut>>,
    relays: Arc<PeerRelays>,
}

impl PeerRuntime {
    pub(super) fn new(shortcut: Option<Arc<dyn Shortcut>>, relays: PeerRelays) -> Self {
        Self {
            is_eager: AtomicBool::new(false),
            is_relayed: Arc::default(),
            turns: Arc::default(),
            tasks: Tasks::default(),
            shortcut,
            relays: Arc::new(relays),
        }
    }

    /// There is a path: from now on the connection looks often at what there is to send.
    pub(super) fn hurry(&self) {
        self.is_eager.store(true, Ordering::Relaxed);
    }

    /// The channel is open, or will not be.
    pub(super) fn relax(&self) {
        self.is_eager.store(false, Ordering::Relaxed);
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
            is_relayed: self.is_relayed.clone(),
            attached: shortcut.map(|shortcut| shortcut.attach(local, inbox.clone())),
            lines: (!self.relays.is_empty())
                .then(|| Lines::new(self.relays.clone(), inbox.clone(), self.tasks.clone())),
            inbox,
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
        if self.is_relayed.load(Ordering::Relaxed) {
            if self.turns.load(Ordering::Relaxed) < TURNS {
                return Box::pin(Turn(self.turns.clone()));
            }
            self.turns.store(0, Ordering::Relaxed);
        }
        let longest = if self.is_eager.load(Ordering::Relaxed) {
            EAGER_SLEEP
        } else {
            Duration::MAX
        };
        TokioRuntime.sleep(duration.min(longest))
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

/// What the stack's loop gets for a sleep, [`TURNS`] times before a real one, while data goes by a relay of
/// ours: it sends what is wrapped for the relay before it wraps what there is to send, and unwraps what has
/// come after both. Each waited for the next packet or timer: a relayed round trip took 190 ms, 2 ms with
/// this. Without a relay there is none: a gateway that answers a browser's checks over the browser's relay
/// sooner than the direct ones makes it choose the relay more often (5 of 35 pairs against 1 of 25).
struct Turn(Arc<AtomicU8>);

impl Future for Turn {
    type Output = ();

    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<()> {
        self.0.fetch_add(1, Ordering::Relaxed);
        Poll::Ready(())
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
