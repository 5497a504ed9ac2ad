//! What an allocation costs and holds, and what a stranger gets.

use std::net::{Ipv4Addr, UdpSocket};
use std::time::Instant;

use crate::data::Effort;
use crate::report::{Reference, Rounds, Row};
use crate::servers::{Kind, Server};
use crate::turn_client::{Client, stranger};

/// Allocations of a round, and those before them that are not counted: a process of several threads
/// waits for all processors when its table of open files grows to 2,048, then to 4,096.
const ALLOCATIONS: usize = 1900;
const FIRST_ALLOCATIONS: usize = 2100;

/// Requests under way.
const WINDOW: usize = 32;

/// Allocations whose memory is measured.
const HELD: usize = 4000;

/// Sources that prove nothing, and those before them that fill what is filled once.
const STRANGERS: u32 = 20_000;
const FIRST_STRANGERS: u32 = 1000;

const KIBIBYTE: f64 = 1024.0;

/// One authenticated request and its answer, each from a socket of its own.
pub(crate) fn allocations(effort: Effort, show: &mut dyn FnMut(Row)) -> anyhow::Result<()> {
    let mut ours = (Rounds::new(), Rounds::new());
    let mut coturn = (Rounds::new(), Rounds::new());
    for _ in 0..effort.rounds {
        for (kind, (costs, rates)) in [(Kind::Ours, &mut ours), (Kind::Coturn, &mut coturn)] {
            let (cost, rate) = allocate(&Server::start(kind)?)?;
            costs.push(cost);
            rates.push(rate);
        }
    }
    show(
        Row::new("Allocate", "CPU µs", ours.0)
            .coturn(coturn.0)
            .at_most(45.0),
    );
    show(
        Row::new("Allocate", "1/s", ours.1)
            .coturn(coturn.1)
            .at_least_times(2.0, Reference::Coturn),
    );
    Ok(())
}

/// Server's CPU time of an allocation, µs, and allocations a second.
fn allocate(server: &Server) -> anyhow::Result<(f64, f64)> {
    let first = challenged(server, FIRST_ALLOCATIONS)?;
    allocate_all(&first)?;
    let clients = challenged(server, ALLOCATIONS)?;
    let cpu = server.cpu()?;
    let seconds = allocate_all(&clients)?;
    let cpu = server.cpu()? - cpu;
    let count = ALLOCATIONS as f64;
    Ok((cpu / 1e3 / count, count / seconds))
}

/// Clients that have a nonce, each with its request.
fn challenged(server: &Server, count: usize) -> anyhow::Result<Vec<(Client, Vec<u8>)>> {
    let mut clients = Vec::with_capacity(count);
    for _ in 0..count {
        let mut client = Client::new(Ipv4Addr::LOCALHOST, server.address)?;
        client.challenge()?;
        let request = client.allocate_request()?;
        clients.push((client, request));
    }
    Ok(clients)
}

/// All their allocations; how many seconds that took.
fn allocate_all(clients: &[(Client, Vec<u8>)]) -> anyhow::Result<f64> {
    let start = Instant::now();
    for (index, (client, request)) in clients.iter().enumerate() {
        client.socket.send(request)?;
        if let Some(earlier) = index.checked_sub(WINDOW) {
            clients[earlier].0.allocated()?;
        }
    }
    for (client, _) in &clients[clients.len() - WINDOW..] {
        client.allocated()?;
    }
    Ok(start.elapsed().as_secs_f64())
}

/// Resident memory, idle and by allocation with a channel.
pub(crate) fn memory(show: &mut dyn FnMut(Row)) -> anyhow::Result<()> {
    let (mut idle, mut each) = (Vec::new(), Vec::new());
    for kind in [Kind::Ours, Kind::Coturn] {
        let server = Server::start(kind)?;
        let peer = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
        idle.push(server.memory()? / KIBIBYTE / KIBIBYTE);
        let _first = Client::open(server.address, peer)?;
        let before = server.memory()?;
        let clients = (0..HELD)
            .map(|_| Client::open(server.address, peer))
            .collect::<Result<Vec<_>, _>>()?;
        each.push((server.memory()? - before) / KIBIBYTE / clients.len() as f64);
    }
    show(
        Row::new("memory, idle", "MiB", vec![idle[0]])
            .coturn(vec![idle[1]])
            .at_most(10.0),
    );
    show(
        Row::new(
            "memory of an allocation with a channel",
            "KiB",
            vec![each[0]],
        )
        .coturn(vec![each[1]])
        .at_most(4.0),
    );
    Ok(())
}

/// What those get who prove nothing, and what they leave behind.
pub(crate) fn strangers(show: &mut dyn FnMut(Row)) -> anyhow::Result<()> {
    let (mut challenge, mut binding, mut growth) = (Vec::new(), Vec::new(), Vec::new());
    for kind in [Kind::Ours, Kind::Coturn] {
        let server = Server::start(kind)?;
        let mut client = Client::new(Ipv4Addr::LOCALHOST, server.address)?;
        challenge.push(client.challenge()? as f64);
        binding.push(client.binding()? as f64);
        let mut before = 0.0;
        for number in 0..FIRST_STRANGERS + STRANGERS {
            if number == FIRST_STRANGERS {
                before = server.memory()?;
            }
            Client::new(stranger(number), server.address)?.challenge()?;
        }
        growth.push((server.memory()? - before) / f64::from(STRANGERS));
    }
    for (what, figures, limit) in [
        ("401 to a stranger", challenge, 64.0),
        ("answer to a Binding request", binding, 32.0),
        ("memory that a stranger leaves behind", growth, 1.0),
    ] {
        show(
            Row::new(what, "B", vec![figures[0]])
                .coturn(vec![figures[1]])
                .at_most(limit),
        );
    }
    Ok(())
}
