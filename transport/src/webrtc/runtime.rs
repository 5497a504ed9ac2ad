//! The runtime that a peer connection runs on: tokio, with four differences.
//!
//! - UDP sockets get [`SOCKET_BUFFER`] bytes of buffer: the stack sends a whole congestion window
//!   without pacing, and with default buffers loses most of it.
//! - They have a shortcut to the relay of the same process, if there is one.
//! - Its tasks belong to the peer and are aborted when it is dropped.
//! - Between ICE and the open channel, its sleeps are short: see [`EAGER_SLEEP`].

use std::future::Future;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, Once, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::task::JoinSet;
use webrtc::runtime::{
    AsyncInterval, AsyncTcpListener, AsyncTcpStream, AsyncUdpSocket, JoinHandle, Runtime,
    TokioRuntime,
};

use super::shortcut::{Inbox, Shortcut};
use super::socket::Socket;

/// Send and receive buffer of each socket, bytes: measured 0.4–5 MB/s with the default 208 KiB,
/// over 100 with this.
pub(super) const SOCKET_BUFFER: usize = 4 * 1024 * 1024;

/// Longest sleep while a channel opens. The stack's loop sends, then reads, then sleeps: what reading
/// makes it want to send (the first packet of DTLS after ICE, SCTP's INIT after DTLS, the channel's OPEN
/// after SCTP) waits for the next packet or timer. That was 20 ms once and 200 ms twice: measured from
/// offer to open channel on one machine 428 ms, 14 ms with this.
const EAGER_SLEEP: Duration = Duration::from_millis(1);

/// Runs one peer connection.
#[derive(Debug)]
pub(super) struct PeerRuntime {
    is_eager: AtomicBool,
    /// Whether data comes by a relay of this end; taken for so until some comes.
    is_relayed: Arc<AtomicBool>,
    /// The stack's loop has gone round once more: see [`Turn`].
    has_turned: Arc<AtomicBool>,
    tasks: Arc<Mutex<JoinSet<()>>>,
    shortcut: Option<Arc<dyn Shortcut>>,
}

impl PeerRuntime {
    pub(super) fn new(shortcut: Option<Arc<dyn Shortcut>>) -> Self {
        Self {
            is_eager: AtomicBool::new(false),
            is_relayed: Arc::new(AtomicBool::new(true)),
            has_turned: Arc::default(),
            tasks: Arc::default(),
            shortcut,
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
        self.tasks
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .abort_all();
    }
}

impl Runtime for PeerRuntime {
    fn spawn(&self, future: Pin<Box<dyn Future<Output = ()> + Send>>) -> Box<dyn JoinHandle> {
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        while tasks.try_join_next().is_some() {}
        Box::new(Task(tasks.spawn(future)))
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
        TokioRuntime.resolve_host(host)
    }

    fn sleep(&self, duration: Duration) -> Pin<Box<dyn Future<Output = ()> + Send + 'static>> {
        if self.is_relayed.load(Ordering::Relaxed)
            && !self.has_turned.swap(false, Ordering::Relaxed)
        {
            return Box::pin(Turn(self.has_turned.clone()));
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

/// What the stack's loop gets for a sleep, every other time, while data goes by a relay of ours: it sends
/// what is wrapped for the relay before it wraps what there is to send, and unwraps what has come after
/// both. Either waited for the next packet or timer: a relayed round trip took 190 ms, 2 ms with this, for
/// one more round of the loop with each packet or batch.
struct Turn(Arc<AtomicBool>);

impl Future for Turn {
    type Output = ();

    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<()> {
        self.0.store(true, Ordering::Relaxed);
        Poll::Ready(())
    }
}

/// Handle of a task in the set. Dropping it does not end the task, the peer does.
struct Task(tokio::task::AbortHandle);

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
