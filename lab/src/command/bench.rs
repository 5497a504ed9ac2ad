//! Figures of a lab: time to open, round trips, throughput.

use std::process::ExitCode;

use anyhow::bail;
use serde::Serialize;

use crate::Format;
use crate::control::{Request, ask};
use crate::keeper::{HostState, PairFigures, Status, Transfer};
use crate::output::{self, progress};
use crate::spec::{Name, Role};
use crate::state::LabDir;

/// Most pairs that are measured: each takes seconds.
const MAX_PAIRS: usize = 12;

/// What was measured.
#[derive(Serialize)]
struct Bench {
    size_mib: u32,
    pairs: Vec<PairFigures>,
    left_out: Vec<Pair>,
    /// The downloads, as `portway-lab report` reads them.
    throughput: Vec<Throughput>,
}

/// How much went through in a second, and over plain TCP where there is a direct path.
#[derive(Debug, Serialize)]
struct Throughput {
    name: String,
    mbytes_per_s: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    reference: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reference_mbytes_per_s: Option<f64>,
}

impl Throughput {
    /// None if nothing was downloaded.
    fn of(pair: &PairFigures) -> Option<Self> {
        let reference = pair.direct_tcp.map(|transfer| transfer.mbytes_per_s);
        Some(Self {
            name: format!("{} → {}, {}", pair.from, pair.to, pair.paths.join(", ")),
            mbytes_per_s: pair.download?.mbytes_per_s,
            reference: reference.map(|_| "direct TCP"),
            reference_mbytes_per_s: reference,
        })
    }
}

/// One node that reaches for another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Pair {
    from: Name,
    to: Name,
}

/// `portway-lab bench`. One pair after the other: they shall not disturb each other.
pub(super) fn run(dir: &LabDir, size_mib: u32, format: Format) -> anyhow::Result<ExitCode> {
    let status: Status = ask(dir, &Request::Status)?;
    let nodes: Vec<&Name> = status
        .hosts
        .iter()
        .filter(|host| host.role == Some(Role::Gateway) && host.state == HostState::Running)
        .map(|host| &host.host)
        .collect();
    let (chosen, left_out) = choose(all(&nodes));
    if chosen.is_empty() {
        bail!("a pair takes two nodes that run (see `portway-lab status`)");
    }
    let count = chosen.len();
    let mut pairs = Vec::with_capacity(count);
    for (index, Pair { from, to }) in chosen.into_iter().enumerate() {
        progress(&format!("{from} → {to} ({} of {count})", index + 1));
        let request = Request::Measure {
            from,
            to,
            bytes: u64::from(size_mib) * 1024 * 1024,
        };
        pairs.push(ask(dir, &request)?);
    }
    let bench = Bench {
        size_mib,
        throughput: pairs.iter().filter_map(Throughput::of).collect(),
        pairs,
        left_out,
    };
    output::print(format, &bench, human)?;
    let is_complete = bench.pairs.iter().all(|pair| pair.errors.is_empty());
    Ok(if is_complete {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn all(nodes: &[&Name]) -> Vec<Pair> {
    let pairs = nodes.iter().flat_map(|from| {
        let others = nodes.iter().filter(move |to| *to != from);
        others.map(|to| Pair {
            from: (*from).clone(),
            to: (*to).clone(),
        })
    });
    pairs.collect()
}

/// At most [`MAX_PAIRS`], spread evenly, and the others.
fn choose(pairs: Vec<Pair>) -> (Vec<Pair>, Vec<Pair>) {
    let all = pairs.len();
    let wanted = all.min(MAX_PAIRS);
    // The n-th is chosen where n · wanted / all reaches the next whole number.
    let is_chosen = |index: usize| (index + 1) * wanted / all > index * wanted / all;
    let (chosen, left_out): (Vec<_>, Vec<_>) = pairs
        .into_iter()
        .enumerate()
        .partition(|(index, _)| is_chosen(*index));
    let pairs = |numbered: Vec<(usize, Pair)>| numbered.into_iter().map(|(_, pair)| pair);
    (pairs(chosen).collect(), pairs(left_out).collect())
}

fn human(bench: &Bench) -> String {
    let head = [
        "PAIR",
        "PATH",
        "OPEN ms",
        "RTT ms",
        "REQUEST ms",
        "MB/s",
        "DIRECT TCP MB/s",
        "SHARE",
    ];
    let rows: Vec<_> = bench.pairs.iter().map(row).collect();
    let mut text = output::table(&head, &rows);
    for pair in &bench.pairs {
        for error in &pair.errors {
            text.push_str(&format!("{} → {}: {error}\n", pair.from, pair.to));
        }
    }
    if !bench.left_out.is_empty() {
        let names = bench.left_out.iter();
        let names: Vec<String> = names
            .map(|pair| format!("{} → {}", pair.from, pair.to))
            .collect();
        text.push_str(&format!(
            "{} of {} pairs are left out: {}\n",
            bench.left_out.len(),
            bench.left_out.len() + bench.pairs.len(),
            names.join(", ")
        ));
    }
    text
}

fn row(pair: &PairFigures) -> Vec<String> {
    let dash = || "–".to_owned();
    let figure = |figure: Option<f64>| figure.map_or_else(dash, |figure| format!("{figure:.1}"));
    let rate = |transfer: Option<Transfer>| transfer.map(|transfer| transfer.mbytes_per_s);
    let (through, direct) = (rate(pair.download), rate(pair.direct_tcp));
    let share = through.zip(direct);
    vec![
        format!("{} → {}", pair.from, pair.to),
        if pair.paths.is_empty() {
            dash()
        } else {
            pair.paths.join(", ")
        },
        figure(pair.open_ms),
        figure(pair.rtt_ms),
        figure(pair.request_ms),
        figure(through),
        figure(direct),
        share.map_or_else(dash, |(through, direct)| {
            format!("{:.0} %", 100.0 * through / direct)
        }),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(nodes: usize) -> Vec<Pair> {
        let names: Vec<Name> = (1..=nodes)
            .map(|n| format!("n{n}").parse().unwrap())
            .collect();
        all(&names.iter().collect::<Vec<_>>())
    }

    #[test]
    fn few_pairs_are_all_measured() {
        let (chosen, left_out) = choose(pairs(4));
        assert_eq!((chosen.len(), left_out.len()), (12, 0));
        assert_eq!(choose(pairs(1)), (vec![], vec![]));
    }

    #[test]
    fn of_many_pairs_some_of_every_node_are_measured() {
        let (chosen, left_out) = choose(pairs(8));
        assert_eq!((chosen.len(), left_out.len()), (MAX_PAIRS, 56 - MAX_PAIRS));
        for node in 1..=8 {
            let name = format!("n{node}");
            assert!(
                chosen.iter().any(|pair| pair.from.as_str() == name),
                "{name}"
            );
        }
    }
}
