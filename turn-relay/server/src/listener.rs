//! Where clients come: listening sockets.

use std::io;
use std::net::SocketAddr;

use mio::{Interest, Token};
use portway_relay_proto::five_tuple::ListenerId;
use socket2::Type;

use crate::StartError;
use crate::config::{Config, Listen, Transport};
use crate::ports::{self, Bound};
use crate::stream::StreamListener;

/// Send and receive buffers of a listener, bytes.
const LISTENER_BUFFER: usize = 4 * 1024 * 1024;

/// What connections speak that are handed over: they have listeners after those of the configuration.
pub(crate) const GIVEN: [Transport; 2] = [Transport::Tcp, Transport::Tls];

/// A listening socket.
pub(crate) enum Listener {
    Udp(UdpListener),
    Stream(StreamListener),
    /// Somebody else's, who hands connections over.
    Given(Transport),
}

impl Listener {
    pub(crate) const fn transport(&self) -> Transport {
        match self {
            Self::Udp(_) => Transport::Udp,
            Self::Stream(listener) => listener.transport(),
            Self::Given(transport) => *transport,
        }
    }
}

/// A listening socket of datagrams.
pub(crate) struct UdpListener {
    pub(crate) bound: Bound,
    /// It is bound to every address of the machine, so the one that a client used matters.
    pub(crate) is_wildcard: bool,
}

/// Whether the addresses are free. Workers share theirs, and so would a second relay, silently.
pub(crate) fn probe(config: &Config) -> Result<(), StartError> {
    for listen in config.listeners() {
        let bound = match listen.transport {
            Transport::Udp => udp_listener(listen.address, false).map(drop),
            Transport::Tcp | Transport::Tls => {
                StreamListener::bind(listen.address, ListenerId(0), None, false).map(drop)
            }
        };
        bound.map_err(|source| StartError::Listen {
            address: listen.address,
            source,
        })?;
    }
    Ok(())
}

/// A listening socket and its address, which several workers share.
pub(crate) fn listener(
    listen: Listen,
    index: usize,
    config: &Config,
    registry: &mio::Registry,
) -> io::Result<(Listener, SocketAddr)> {
    let is_shared = config.workers.get() > 1;
    let id = ListenerId(u16::try_from(index).map_err(io::Error::other)?);
    let tls = match listen.transport {
        Transport::Udp => {
            let mut listener = udp_listener(listen.address, is_shared)?;
            let socket = &mut listener.bound.socket;
            registry.register(socket, Token(index), Interest::READABLE)?;
            let bound = socket.local_addr()?;
            return Ok((Listener::Udp(listener), bound));
        }
        Transport::Tcp => None,
        Transport::Tls => config.tls.clone(),
    };
    let mut listener = StreamListener::bind(listen.address, id, tls, is_shared)?;
    let bound = listener.register(registry, Token(index))?;
    Ok((Listener::Stream(listener), bound))
}

fn udp_listener(address: SocketAddr, is_shared: bool) -> io::Result<UdpListener> {
    let socket = ports::unbound(address, Type::DGRAM)?;
    socket.set_reuse_port(is_shared)?;
    socket.set_recv_buffer_size(LISTENER_BUFFER)?;
    socket.set_send_buffer_size(LISTENER_BUFFER)?;
    socket.bind(&address.into())?;
    Ok(UdpListener {
        bound: Bound::new(socket)?,
        is_wildcard: address.ip().is_unspecified(),
    })
}
