//! The leg that ends at a gateway in the relay's process: a packet between a client and a peer there
//! crosses the kernel once. Packets are single: each has a call of its own.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::time::{Duration, Instant};

use anyhow::ensure;
use portway_relay::{LocalPeer, Relay};

use crate::data::Effort;
use crate::generator::{Direction, LOST, Socket, message_buffers};
use crate::report::{Rounds, Row};
use crate::servers::Server;
use crate::turn_client::{CHANNEL, Client, binding_request};

/// Where the peer is; nobody is asked for this port.
const PEER: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 9);

/// Packets between two signs of the other end, and such lumps under way.
const LUMP: u32 = 64;
const LUMPS: u32 = 2;

/// Largest packet of the peer.
const LARGEST: usize = 1200;

/// An order to the peer: a size and a number of packets to send; without a size: how many have arrived.
const ORDER: usize = 8;

/// A peer that counts, and sends what clients order.
#[derive(Debug)]
struct Counter {
    arrived: AtomicU64,
    orders: SyncSender<(SocketAddr, [u8; ORDER])>,
}

impl LocalPeer for Counter {
    fn receive(&self, from: SocketAddr, packets: &[u8], segment: usize) {
        if segment != ORDER {
            let count = packets.len().div_ceil(segment.max(1)) as u64;
            self.arrived.fetch_add(count, Ordering::Relaxed);
            return;
        }
        for order in packets.as_chunks().0 {
            if self.orders.try_send((from, *order)).is_err() {
                eprintln!("the peer has more orders than a client gives");
            }
        }
    }
}

/// Attaches the peer and starts the thread that sends.
pub(crate) fn attach(relay: &Relay) {
    let (orders, ordered) = sync_channel(64);
    let arrived = AtomicU64::new(0);
    let peer = Arc::new(Counter { arrived, orders });
    let attachment = relay.attach(PEER, peer.clone());
    std::thread::spawn(move || {
        let payload = [0x55; LARGEST];
        while let Ok((client, [a, b, c, d, count @ ..])) = ordered.recv() {
            let size = u32::from_be_bytes([a, b, c, d]) as usize;
            let mut is_sent = true;
            if size == 0 {
                let arrived = peer.arrived.load(Ordering::Relaxed).to_be_bytes();
                is_sent = attachment.send(client, &arrived, arrived.len());
            }
            for _packet in 0..u32::from_be_bytes(count) {
                is_sent &= attachment.send(client, &payload[..size], size);
            }
            if !is_sent {
                eprintln!("the peer does not know the relayed address {client}");
            }
        }
    });
}

/// What a packet costs, each way.
pub(crate) fn local(effort: Effort, show: &mut dyn FnMut(Row)) -> anyhow::Result<()> {
    let mut flow = Flow::open()?;
    for direction in [Direction::Up, Direction::Down] {
        for size in [160, 1200] {
            flow.measure(direction, size, effort.time)?;
            let (mut costs, mut rates) = (Rounds::new(), Rounds::new());
            for _ in 0..effort.rounds {
                let (cost, rate) = flow.measure(direction, size, effort.time)?;
                costs.push(cost);
                rates.push(rate / 1e3);
            }
            let (way, note) = match direction {
                Direction::Up => ("up", "one Binding answer in 64 packets included"),
                Direction::Down => (
                    "down",
                    "the thread that sends included, on the same core; 64 are sent in a row and leave by GSO",
                ),
            };
            let what = format!("{way}: 1, {size} B, peer in the same process");
            show(
                Row::new(&*what, "CPU µs", costs)
                    .at_most(2.5)
                    .note(note.into()),
            );
            show(Row::new(what, "1000/s", rates));
        }
    }
    Ok(())
}

/// A client whose channel leads to the peer.
struct Flow {
    server: Server,
    client: Socket,
    buffers: Vec<Vec<u8>>,
}

impl Flow {
    fn open() -> anyhow::Result<Self> {
        let server = Server::with_local_peer()?;
        let (client, _) = Client::open(server.address, PEER)?;
        Ok(Self {
            server,
            client: Socket::new(client.socket)?,
            buffers: message_buffers(),
        })
    }

    /// Server's CPU time a packet, µs, and packets a second. None may be lost.
    fn measure(
        &mut self,
        direction: Direction,
        size: usize,
        time: Duration,
    ) -> anyhow::Result<(f64, f64)> {
        let packet = framed(&vec![0x55; size])?;
        let order = framed(&[u32::try_from(size)?.to_be_bytes(), LUMP.to_be_bytes()].concat())?;
        let question = binding_request();
        // What is sent of a lump, and what shows that it is through.
        let (sent, sign, signs) = match direction {
            Direction::Up => (&packet, BINDING_ANSWER, 1),
            Direction::Down => (&order, packet.len(), LUMP as usize),
        };
        let before = self.arrived()?;
        let cpu = self.server.cpu()?;
        let start = Instant::now();
        let (mut lumps, mut under_way, mut heard, mut last) = (0_u32, 0, 0, start);
        loop {
            let now = Instant::now();
            let is_over = now - start > time;
            if !is_over && under_way < LUMPS {
                match direction {
                    Direction::Up => {
                        for _packet in 0..LUMP {
                            self.send(sent)?;
                        }
                        self.send(&question)?;
                    }
                    Direction::Down => self.send(sent)?,
                }
                (lumps, under_way) = (lumps + 1, under_way + 1);
            }
            let count = self.client.receive(&mut self.buffers, sign)?;
            if count > 0 {
                last = now;
            }
            heard += count;
            while heard >= signs {
                heard -= signs;
                under_way -= 1;
            }
            ensure!(
                now - last < LOST,
                "packets are lost: {direction:?}, {size} B"
            );
            if is_over && under_way == 0 {
                break;
            }
        }
        let seconds = start.elapsed().as_secs_f64();
        let cpu = self.server.cpu()? - cpu;
        let count = f64::from(lumps * LUMP);
        if direction == Direction::Up {
            let arrived = self.arrived()? - before;
            ensure!(
                arrived == u64::from(lumps * LUMP),
                "packets are lost: {arrived}"
            );
        }
        Ok((cpu / 1e3 / count, count / seconds))
    }

    /// How many packets the peer has had.
    fn arrived(&self) -> anyhow::Result<u64> {
        self.send(&framed(&[0; ORDER])?)?;
        let answer = crate::turn_client::receive(&self.client.io)?;
        let count = answer.get(4..).and_then(|count| count.try_into().ok());
        Ok(u64::from_be_bytes(
            count.ok_or_else(|| anyhow::anyhow!("no count: {answer:?}"))?,
        ))
    }

    fn send(&self, packet: &[u8]) -> anyhow::Result<()> {
        loop {
            match self.client.io.send(packet) {
                Ok(_) => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// An answer to a Binding request without SOFTWARE: header and XOR-MAPPED-ADDRESS of IPv4.
const BINDING_ANSWER: usize = 32;

fn framed(payload: &[u8]) -> anyhow::Result<Vec<u8>> {
    let length = u16::try_from(payload.len())?.to_be_bytes();
    Ok([&CHANNEL.to_be_bytes()[..], &length, payload].concat())
}
