//! Where this node takes connections that a client serves: `portway connect -R`.
//!
//! The target `listen://HOST:PORT` says that it may, and where; the service's grants say who serves. Nobody listens
//! there while nobody serves.

use std::io;
use std::sync::{Arc, Weak};
use std::time::Duration;

use portway_protocol::target::HostPort;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Mutex;

/// An address of this machine, bound while anybody waits for who connects to it.
#[derive(Debug)]
pub(crate) struct Entrance {
    address: HostPort,
    /// Silence after which a connection is cut off.
    pub(crate) idle_timeout: Option<Duration>,
    listener: Mutex<Weak<TcpListener>>,
}

/// Who has connected. While they are there, others may connect, too.
pub(crate) struct Entered {
    pub(crate) stream: TcpStream,
    pub(crate) open: Arc<TcpListener>,
}

impl Entrance {
    pub(crate) fn new(address: HostPort, idle_timeout: Option<Duration>) -> Self {
        Self {
            address,
            idle_timeout,
            listener: Mutex::default(),
        }
    }

    /// Waits for the next connection. Each goes to one of those who wait.
    ///
    /// # Errors
    /// The system's, e.g. if another program has the address.
    pub(crate) async fn enter(&self) -> io::Result<Entered> {
        let open = self.open().await?;
        let (stream, _from) = open.accept().await?;
        stream.set_nodelay(true)?;
        Ok(Entered { stream, open })
    }

    async fn open(&self) -> io::Result<Arc<TcpListener>> {
        let mut listener = self.listener.lock().await;
        if let Some(open) = listener.upgrade() {
            return Ok(open);
        }
        let HostPort { host, port } = &self.address;
        let open = Arc::new(TcpListener::bind((host.as_str(), *port)).await?);
        *listener = Arc::downgrade(&open);
        Ok(open)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn it_is_open_while_somebody_waits_or_is_there() {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = free.local_addr().unwrap();
        drop(free);
        let address_of_it = HostPort {
            host: address.ip().to_string(),
            port: address.port(),
        };
        let entrance = Entrance::new(address_of_it, None);
        assert!(TcpStream::connect(address).await.is_err(), "nobody serves");
        let dial = async {
            loop {
                if let Ok(stream) = TcpStream::connect(address).await {
                    return stream;
                }
                tokio::task::yield_now().await;
            }
        };
        let (entered, _stream) = tokio::join!(entrance.enter(), dial);
        let entered = entered.unwrap();
        let _second = TcpStream::connect(address).await.unwrap();
        drop(entered);
        assert!(
            TcpStream::connect(address).await.is_err(),
            "nobody serves any more"
        );
    }
}
