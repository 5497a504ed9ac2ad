//! What a packet costs.

use std::time::Duration;

use crate::generator::{Direction, Flows, Load, Sample};
use crate::report::{Reference, Rounds, Row};
use crate::servers::{Kind, Server};

/// How much is measured.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Effort {
    /// How often, in turn.
    pub(crate) rounds: usize,
    /// How long each time.
    pub(crate) time: Duration,
}

/// Not counted: caches fill, and the window finds its size.
const WARM_UP: Duration = Duration::from_millis(50);

const BOTH: [Direction; 2] = [Direction::Up, Direction::Down];

/// Packets that come one by one, of so many allocations.
pub(crate) fn singles(
    count: usize,
    effort: Effort,
    show: &mut dyn FnMut(Row),
) -> anyhow::Result<()> {
    let mut servers = open_all(count)?;
    for direction in BOTH {
        for size in [160, 1200] {
            let load = Load {
                direction,
                size,
                burst: 1,
            };
            let what = format!("{}: {count}, {size} B", way(direction));
            let samples = in_turn(&mut servers, &load, effort)?;
            let row = cost(&what, &samples);
            show(if count < 1000 {
                row.at_most_times(1.09, Reference::Forwarder)
                    .at_most_times(0.92, Reference::Coturn)
            } else {
                row.at_most_times(0.80, Reference::Coturn)
            });
            show(rate(&what, &samples));
        }
    }
    Ok(())
}

/// Packets that a sender gives to its kernel together (GSO).
pub(crate) fn bursts(effort: Effort, show: &mut dyn FnMut(Row)) -> anyhow::Result<()> {
    let mut servers = open_all(1)?;
    for direction in BOTH {
        for (burst, limit) in [(4, 1.6), (16, 0.5)] {
            let load = Load {
                direction,
                size: 1200,
                burst,
            };
            let what = format!("{}: 1, bursts of {burst} × 1200 B", way(direction));
            let samples = in_turn(&mut servers, &load, effort)?;
            show(cost(&what, &samples).at_most(limit));
            show(rate(&what, &samples).at_least_times(3.0, Reference::Coturn));
        }
    }
    Ok(())
}

/// What a second worker takes away from the first: nothing is shared by packets. With as many cores as
/// this the generator must share one, so the rate would say nothing; the cost does.
pub(crate) fn workers(effort: Effort, show: &mut dyn FnMut(Row)) -> anyhow::Result<()> {
    const COUNT: usize = 100;
    let mut one = Flows::open(Server::start(Kind::Ours)?, COUNT)?;
    let mut two = Flows::open(Server::two_workers()?, COUNT)?;
    for direction in BOTH {
        let load = Load {
            direction,
            size: 1200,
            burst: 1,
        };
        let mut scaling = Rounds::new();
        for _ in 0..effort.rounds {
            let alone = one.measure(&load, effort.time)?;
            let beside = two.measure(&load, effort.time)?;
            scaling.push(2.0 * alone.cost / beside.cost);
        }
        let what = format!(
            "{}: {COUNT}, 1200 B, two workers against one by cost",
            way(direction)
        );
        show(Row::new(what, "2 × cost/cost", scaling).at_least(1.7));
    }
    Ok(())
}

const fn way(direction: Direction) -> &'static str {
    match direction {
        Direction::Up => "up",
        Direction::Down => "down",
    }
}

fn open_all(count: usize) -> anyhow::Result<Vec<Flows>> {
    Kind::ALL
        .iter()
        .map(|kind| Flows::open(Server::start(*kind)?, count))
        .collect()
}

/// Samples of each server, in the order of [`Kind::ALL`].
fn in_turn(servers: &mut [Flows], load: &Load, effort: Effort) -> anyhow::Result<Vec<Vec<Sample>>> {
    let mut samples = vec![Vec::new(); servers.len()];
    for server in servers.iter_mut() {
        while server.measure(load, WARM_UP)?.lost > 0 {}
    }
    for _ in 0..effort.rounds {
        for (server, samples) in servers.iter_mut().zip(&mut samples) {
            samples.push(server.measure(load, effort.time)?);
        }
    }
    Ok(samples)
}

fn cost(what: &str, samples: &[Vec<Sample>]) -> Row {
    row(what, "CPU µs", samples, |sample| sample.cost)
}

fn rate(what: &str, samples: &[Vec<Sample>]) -> Row {
    let lost: Vec<usize> = samples
        .iter()
        .map(|rounds| rounds.iter().map(|sample| sample.lost).sum())
        .collect();
    let busy: Vec<String> = samples
        .iter()
        .map(|rounds| {
            let busy: Rounds = rounds.iter().map(|sample| sample.busy).collect();
            format!("{:.0}", 100.0 * crate::report::median(&busy))
        })
        .collect();
    let note = format!("lost {lost:?}, busy {} %", busy.join("/"));
    row(what, "1000/s", samples, |sample| sample.rate / 1e3).note(note)
}

fn row(what: &str, unit: &'static str, samples: &[Vec<Sample>], of: fn(&Sample) -> f64) -> Row {
    let rounds = |kind: Kind| -> Rounds {
        let index = Kind::ALL.iter().position(|other| *other == kind);
        index.map_or_else(Rounds::new, |index| samples[index].iter().map(of).collect())
    };
    Row::new(what, unit, rounds(Kind::Ours))
        .coturn(rounds(Kind::Coturn))
        .forwarder(rounds(Kind::Forwarder))
}
