//! Our relay beside coturn and a bare forwarder of packets, in one run, by one generator of load.
//!
//! `cargo xtask bench relay [--quick]`
//!
//! Each server is a process of its own on one core, the generator has another; all is on loopback, so
//! a server's cost includes the receiving half of the kernel for what it sends. Cost is CPU time of
//! all threads of a server, by the packets that arrived. Rounds of the servers alternate; a bar that
//! compares takes the median of the rounds' ratios. Figures go to standard output and, from a full
//! run, to `docs/bench/relay.json`.
//!
//! [`servers`]: processes, their cores, what they have used. [`children`]: our relay and the forwarder
//! in such a process. [`turn_client`], [`generator`]: who uses them. [`data`], [`local`], [`control`]:
//! what is measured, with its bars. [`report`]: how it is shown.

#![allow(
    clippy::print_stdout,
    clippy::cast_precision_loss,
    reason = "a bench prints figures"
)]

mod children;
mod control;
mod data;
mod generator;
mod local;
#[path = "../../../../tests/benches/browser/record.rs"]
mod record;
mod report;
mod servers;
mod turn_client;

use std::time::Duration;

use data::Effort;
use report::Row;
use servers::{First, GENERATOR_CORE, pin};

const FULL: Effort = Effort {
    rounds: 7,
    time: Duration::from_millis(350),
};

const QUICK: Effort = Effort {
    rounds: 3,
    time: Duration::from_millis(150),
};

fn main() -> anyhow::Result<()> {
    // cargo passes `--bench`.
    let args: Vec<String> = std::env::args()
        .skip(1)
        .filter(|argument| argument != "--bench")
        .collect();
    if let Some(ended) = children::run(&args) {
        return ended;
    }
    let is_quick = args.iter().any(|argument| argument == "--quick");
    let effort = if is_quick { QUICK } else { FULL };
    let only = args.iter().find(|argument| !argument.starts_with("--"));
    let is_wanted = |part: &str| only.is_none_or(|only| only == part);
    let _first = First::go();
    pin(GENERATOR_CORE)?;
    report::print_header();
    let mut rows = Vec::new();
    let mut show = |row: Row| {
        row.print();
        rows.push(row.json());
    };
    for count in [1, 10, 100, 1000] {
        if is_wanted("singles") || is_wanted(&count.to_string()) {
            data::singles(count, effort, &mut show)?;
        }
    }
    if is_wanted("bursts") {
        data::bursts(effort, &mut show)?;
    }
    if is_wanted("local") {
        local::local(effort, &mut show)?;
    }
    if is_wanted("workers") {
        data::workers(effort, &mut show)?;
    }
    if is_wanted("allocations") {
        control::allocations(effort, &mut show)?;
    }
    if is_wanted("memory") {
        control::memory(&mut show)?;
    }
    if is_wanted("strangers") {
        control::strangers(&mut show)?;
    }
    if is_quick || only.is_some() {
        return Ok(());
    }
    record::record("relay.json", rows)
}
