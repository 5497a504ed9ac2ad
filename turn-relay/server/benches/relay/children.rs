//! The servers that this executable becomes when it is started again by name. Each prints its address
//! and serves until its standard input ends.

use std::collections::HashMap;
use std::io::{self, IoSliceMut, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};

use anyhow::Context as _;
use mio::{Events, Interest, Poll, Token};
use portway_relay::Relay;
use portway_relay::config::{Config, Listen, RELAY_PORTS, Transport};
use portway_relay_proto::peer_policy::PeerPolicy;
use portway_relay_proto::quota::Quota;
use quinn_udp::{RecvMeta, Transmit, UdpSocketState};

use crate::local;
use crate::turn_client::{PASSWORD, REALM, USER};

/// Messages of one read of the forwarder, each as large as what UDP_GRO makes.
const MESSAGES: usize = 16;
const MESSAGE: usize = 64 * 1024;

/// As a relay has them, bytes.
const SOCKET_BUFFER: usize = 4 << 20;

/// Becomes a server, if the arguments name one.
pub(crate) fn run(args: &[String]) -> Option<anyhow::Result<()>> {
    match args.first()?.as_str() {
        "relay" => Some(relay(args.get(1).map_or("1", String::as_str), |_| ())),
        "relay-and-peer" => Some(relay("1", local::attach)),
        "forwarder" => Some(forwarder()),
        _ => None,
    }
}

fn relay(workers: &str, attach: fn(&Relay)) -> anyhow::Result<()> {
    let relay = Relay::start(&Config {
        listen: vec![Listen {
            transport: Transport::Udp,
            address: (Ipv4Addr::LOCALHOST, 0).into(),
        }],
        tls: None,
        relay_ips: vec![Ipv4Addr::LOCALHOST.into()],
        external_ips: Vec::new(),
        relay_ports: RELAY_PORTS,
        realm: REALM.to_owned(),
        users: vec![(USER.to_owned(), PASSWORD.to_owned())],
        secrets: Vec::new(),
        alternate: None,
        tcp_allocations: false,
        session_separator: None,
        prolong: std::time::Duration::ZERO,
        peers: PeerPolicy {
            allow: vec!["127.0.0.0/8".parse()?],
            ..PeerPolicy::default()
        },
        quota: Quota {
            allocations_per_user: usize::MAX,
            allocations_per_source: usize::MAX,
            strangers_per_second: u32::MAX,
            ..Quota::default()
        },
        announce_sha256: false,
        workers: workers.parse()?,
    })?;
    attach(&relay);
    say(relay.listening()[0].address)?;
    wait_for_end()
}

fn say(address: SocketAddr) -> anyhow::Result<()> {
    let mut output = io::stdout();
    writeln!(output, "{address}")?;
    output.flush()?;
    Ok(())
}

fn wait_for_end() -> anyhow::Result<()> {
    io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}

/// What a relay cannot do without: a socket for clients and one for each flow, a table of clients, and
/// a packet that is read and sent. The first packet of a client names its peer; the answer is the
/// address of its flow.
struct Forwarder {
    poll: Poll,
    listener: Socket,
    /// The token of a flow is its place.
    flows: Vec<Flow>,
    by_client: HashMap<SocketAddr, usize>,
}

struct Socket {
    io: mio::net::UdpSocket,
    state: UdpSocketState,
}

struct Flow {
    socket: Socket,
    client: SocketAddr,
    peer: SocketAddr,
}

const LISTENER: Token = Token(usize::MAX);

impl Socket {
    fn bind() -> anyhow::Result<Self> {
        let io = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
        let reference = socket2::SockRef::from(&io);
        reference.set_recv_buffer_size(SOCKET_BUFFER)?;
        reference.set_send_buffer_size(SOCKET_BUFFER)?;
        let state = UdpSocketState::new((&io).into())?;
        Ok(Self {
            io: mio::net::UdpSocket::from_std(io),
            state,
        })
    }

    fn send(&self, to: SocketAddr, bytes: &[u8], stride: usize) {
        let transmit = Transmit {
            destination: to,
            ecn: None,
            contents: bytes,
            segment_size: (stride < bytes.len()).then_some(stride),
            src_ip: None,
        };
        if let Err(error) = self.state.try_send((&self.io).into(), &transmit) {
            eprintln!("the forwarder lost a packet: {error}");
        }
    }
}

fn forwarder() -> anyhow::Result<()> {
    let poll = Poll::new()?;
    let mut listener = Socket::bind()?;
    poll.registry()
        .register(&mut listener.io, LISTENER, Interest::READABLE)?;
    say(listener.io.local_addr()?)?;
    let mut forwarder = Forwarder {
        poll,
        listener,
        flows: Vec::new(),
        by_client: HashMap::new(),
    };
    std::thread::spawn(move || {
        if let Err(error) = forwarder.serve() {
            eprintln!("the forwarder has ended: {error:#}");
        }
    });
    wait_for_end()
}

impl Forwarder {
    fn serve(&mut self) -> anyhow::Result<()> {
        let mut events = Events::with_capacity(256);
        let mut buffers = vec![vec![0; MESSAGE]; MESSAGES];
        loop {
            self.poll.poll(&mut events, None)?;
            for event in &events {
                while self.pass(event.token(), &mut buffers)? {}
            }
        }
    }

    /// Passes on what one read gives; whether there may be more.
    fn pass(&mut self, token: Token, buffers: &mut [Vec<u8>]) -> anyhow::Result<bool> {
        let mut metas = [RecvMeta::default(); MESSAGES];
        let socket = self
            .flows
            .get(token.0)
            .map_or(&self.listener, |flow| &flow.socket);
        let mut slices: Vec<IoSliceMut<'_>> = buffers
            .iter_mut()
            .map(|buffer| IoSliceMut::new(buffer))
            .collect();
        let received = socket
            .state
            .recv((&socket.io).into(), &mut slices, &mut metas);
        let count = match received {
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
            Err(error) => return Err(error.into()),
        };
        for (meta, buffer) in metas[..count].iter().zip(buffers.iter()) {
            let bytes = &buffer[..meta.len];
            if let Some(flow) = self.flows.get(token.0) {
                self.listener.send(flow.client, bytes, meta.stride);
            } else if let Some(place) = self.by_client.get(&meta.addr) {
                let flow = &self.flows[*place];
                flow.socket.send(flow.peer, bytes, meta.stride);
            } else {
                self.open(meta.addr, bytes)?;
            }
        }
        // A short read has emptied the queue.
        Ok(count == MESSAGES)
    }

    fn open(&mut self, client: SocketAddr, peer: &[u8]) -> anyhow::Result<()> {
        let peer = std::str::from_utf8(peer)?.parse().context("no peer")?;
        let mut socket = Socket::bind()?;
        let place = self.flows.len();
        self.poll
            .registry()
            .register(&mut socket.io, Token(place), Interest::READABLE)?;
        let address = socket.io.local_addr()?.to_string();
        self.listener
            .send(client, address.as_bytes(), address.len());
        self.by_client.insert(client, place);
        self.flows.push(Flow {
            socket,
            client,
            peer,
        });
        Ok(())
    }
}
