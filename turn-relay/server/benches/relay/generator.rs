//! The load: packets of many flows through a server, as many under way as it can hold without loss.
//!
//! The generator asks its sockets again and again and never sleeps: who wakes a sleeper pays for it,
//! and that would be the server. Its sockets take what a server sends by GSO in one piece (UDP_GRO), as
//! a network card would take it from the kernel.

use std::collections::VecDeque;
use std::io::{self, IoSliceMut};
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use quinn_udp::{RecvMeta, Transmit, UdpSocketState};

use crate::servers::{Kind, Server};
use crate::turn_client::{CHANNEL, Client, receive};

/// Packets under way at a time, less after a loss: coturn's relay sockets hold fewer of one flow.
const WINDOW: usize = 128;

/// The window of [`Pace::InLumps`], and how long the generator then leaves its core to the server.
const WIDE_WINDOW: usize = 1024;
const REST: Duration = Duration::from_micros(100);

/// What is not there after this long is lost: a server may have to wait for its core.
pub(crate) const LOST: Duration = Duration::from_millis(500);

/// Receive buffers of clients and the peer, bytes.
const RECEIVE_BUFFER: usize = 4 << 20;

/// Messages of one read.
const MESSAGES: usize = 16;

/// Which way packets go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Direction {
    /// From clients to the peer.
    Up,
    /// From the peer to clients.
    Down,
}

/// How packets follow each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pace {
    /// As soon as there is room; the generator has its core alone.
    Alone,
    /// Half a window at a time, with rests in which the core does other work.
    InLumps,
}

/// What is sent.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Load {
    pub(crate) direction: Direction,
    /// Payload of a packet, bytes.
    pub(crate) size: usize,
    /// Packets that leave a sender together, by GSO.
    pub(crate) burst: usize,
}

/// What came of it.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Sample {
    /// Server's CPU time a packet, µs.
    pub(crate) cost: f64,
    /// Packets a second.
    pub(crate) rate: f64,
    /// Packets that did not arrive.
    pub(crate) lost: usize,
    /// Share of the time that the server was on its core.
    pub(crate) busy: f64,
}

/// A socket that takes and gives packets in one piece.
pub(crate) struct Socket {
    pub(crate) io: UdpSocket,
    state: UdpSocketState,
}

struct Flow {
    client: Socket,
    relayed: SocketAddr,
    under_way: usize,
}

/// A server with open flows, and the peer of them all.
pub(crate) struct Flows {
    pub(crate) server: Server,
    flows: Vec<Flow>,
    peer: Socket,
    buffers: Vec<Vec<u8>>,
    window: usize,
    pace: Pace,
    /// Who sends next.
    turn: usize,
    /// Flows that something is to arrive of, the oldest first.
    waiting: VecDeque<usize>,
}

impl Socket {
    pub(crate) fn new(io: UdpSocket) -> anyhow::Result<Self> {
        socket2::SockRef::from(&io).set_recv_buffer_size(RECEIVE_BUFFER)?;
        let state = UdpSocketState::new((&io).into())?;
        Ok(Self { io, state })
    }

    fn send(&self, to: SocketAddr, bytes: &[u8], segment: usize) -> io::Result<()> {
        let transmit = Transmit {
            destination: to,
            ecn: None,
            contents: bytes,
            segment_size: (segment < bytes.len()).then_some(segment),
            src_ip: None,
        };
        self.state.try_send((&self.io).into(), &transmit)
    }

    /// How many packets of this size one read gives.
    pub(crate) fn receive(&self, buffers: &mut [Vec<u8>], size: usize) -> anyhow::Result<usize> {
        let mut metas = [RecvMeta::default(); MESSAGES];
        let mut slices: Vec<IoSliceMut<'_>> = buffers
            .iter_mut()
            .map(|buffer| IoSliceMut::new(buffer))
            .collect();
        let received = self.state.recv((&self.io).into(), &mut slices, &mut metas);
        let count = match received {
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(0),
            Err(error) => return Err(error.into()),
        };
        let mut packets = 0;
        for meta in &metas[..count] {
            // Others are late ones of an earlier load.
            if meta.stride == size {
                packets += meta.len / size;
            }
        }
        Ok(packets)
    }
}

/// For one read.
pub(crate) fn message_buffers() -> Vec<Vec<u8>> {
    vec![vec![0; 64 * 1024]; MESSAGES]
}

impl Flows {
    /// Opens flows through a server.
    pub(crate) fn open(server: Server, count: usize) -> anyhow::Result<Self> {
        let peer = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = peer.local_addr()?;
        let mut flows = Vec::with_capacity(count);
        for _ in 0..count {
            let (socket, relayed) = match server.kind {
                Kind::Ours | Kind::Coturn => {
                    let (client, relayed) = Client::open(server.address, address)?;
                    (client.socket, relayed)
                }
                Kind::Forwarder => {
                    let client = Client::new(Ipv4Addr::LOCALHOST, server.address)?.socket;
                    client.send(address.to_string().as_bytes())?;
                    let answer = String::from_utf8(receive(&client)?)?;
                    (client, answer.parse().context("no flow")?)
                }
            };
            flows.push(Flow {
                client: Socket::new(socket)?,
                relayed,
                under_way: 0,
            });
        }
        Ok(Self {
            server,
            flows,
            peer: Socket::new(peer)?,
            buffers: message_buffers(),
            window: WINDOW,
            pace: Pace::Alone,
            turn: 0,
            waiting: VecDeque::new(),
        })
    }

    /// Leaves a part of the generator's core to the server.
    pub(crate) const fn share_core(mut self) -> Self {
        (self.window, self.pace) = (WIDE_WINDOW, Pace::InLumps);
        self
    }

    /// Sends for a while, and waits for the last packet.
    pub(crate) fn measure(&mut self, load: &Load, time: Duration) -> anyhow::Result<Sample> {
        let payload = vec![0x55; load.size];
        let framed = match self.server.kind {
            Kind::Ours | Kind::Coturn => {
                let length = u16::try_from(load.size)?.to_be_bytes();
                [&CHANNEL.to_be_bytes()[..], &length, &payload].concat()
            }
            Kind::Forwarder => payload.clone(),
        };
        let (sent, received) = match load.direction {
            Direction::Up => (framed, payload.len()),
            Direction::Down => (payload, framed.len()),
        };
        let burst = sent.repeat(load.burst);

        let cpu = self.server.cpu()?;
        let start = Instant::now();
        let mut last = start;
        let (mut under_way, mut arrived, mut lost) = (0, 0, 0);
        loop {
            let now = Instant::now();
            let is_over = now - start > time;
            let room = self.window.max(load.burst).saturating_sub(under_way);
            let enough = match self.pace {
                Pace::Alone => load.burst,
                Pace::InLumps => self.window / 2,
            };
            if !is_over && room >= enough {
                for _burst in 0..room / load.burst {
                    if !self.send(load.direction, &burst, sent.len())? {
                        break;
                    }
                    under_way += load.burst;
                }
            }
            let count = self.receive(load.direction, received)?;
            if count > 0 {
                arrived += count;
                under_way = usize::saturating_sub(under_way, count);
                last = now;
            } else if now - last > LOST {
                lost += under_way;
                self.window = self.window * 3 / 4;
                under_way = 0;
                self.waiting.clear();
                self.flows.iter_mut().for_each(|flow| flow.under_way = 0);
                last = now;
            } else if self.pace == Pace::InLumps {
                std::thread::sleep(REST);
            }
            if is_over && under_way == 0 {
                break;
            }
        }
        let seconds = (last - start).as_secs_f64();
        let cpu = self.server.cpu()? - cpu;
        ensure!(
            arrived > 0,
            "nothing arrives: {load:?}, {:?}",
            self.server.kind
        );
        Ok(Sample {
            cost: cpu / 1e3 / arrived as f64,
            rate: arrived as f64 / seconds,
            lost,
            busy: cpu / 1e9 / seconds,
        })
    }

    /// Sends a burst of the next flow; `false`: there is no room for it yet.
    fn send(&mut self, direction: Direction, burst: &[u8], segment: usize) -> anyhow::Result<bool> {
        let flow = &mut self.flows[self.turn];
        let sent = match (direction, segment == burst.len()) {
            (Direction::Up, true) => flow.client.io.send(burst).map(drop),
            (Direction::Up, false) => flow.client.send(self.server.address, burst, segment),
            (Direction::Down, true) => self.peer.io.send_to(burst, flow.relayed).map(drop),
            (Direction::Down, false) => self.peer.send(flow.relayed, burst, segment),
        };
        match sent {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
            Err(error) => return Err(error.into()),
        }
        if direction == Direction::Down {
            if flow.under_way == 0 {
                self.waiting.push_back(self.turn);
            }
            flow.under_way += burst.len() / segment;
        }
        self.turn = (self.turn + 1) % self.flows.len();
        Ok(true)
    }

    /// One read, of the peer or of the client that has waited longest.
    fn receive(&mut self, direction: Direction, size: usize) -> anyhow::Result<usize> {
        if direction == Direction::Up {
            return self.peer.receive(&mut self.buffers, size);
        }
        let Some(place) = self.waiting.pop_front() else {
            return Ok(0);
        };
        let flow = &mut self.flows[place];
        // Most have one packet.
        let messages = if flow.under_way > 1 { MESSAGES } else { 1 };
        let count = flow.client.receive(&mut self.buffers[..messages], size)?;
        flow.under_way = flow.under_way.saturating_sub(count);
        if flow.under_way > 0 {
            self.waiting.push_back(place);
        }
        Ok(count)
    }
}
