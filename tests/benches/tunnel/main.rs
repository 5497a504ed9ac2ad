//! Connections to a TCP service through Portway, in the same run beside plain TCP, `ssh -L`, rathole and
//! dumbpipe: throughput and what it costs, latency, connections, memory, many connections at once, slow
//! readers. Figures go to standard output and `docs/bench/tunnel.json`; ratios are what to compare between
//! machines.
//!
//! `cargo xtask bench tunnel [--quick] [memory | speed | slow | load]… [TOOL]…`

#![allow(
    clippy::print_stdout,
    clippy::cast_precision_loss,
    reason = "a bench prints figures"
)]

mod measure;
#[path = "../browser/record.rs"]
mod record;
mod table;
mod tool;

use std::time::Duration;

use futures_util::future::try_join_all;
use serde_json::{Value, json};

use measure::Extent;
use table::Table;
use tool::{Tool, Tunnel};

/// All of it.
const WHOLE: Extent = Extent {
    rounds: 3,
    transfer: 512 << 20,
    echoes: 2000,
    connections: 1000,
    open: 256,
    load: 10_000,
    at_once: 1000,
    slow_readers: 8,
    slow: Duration::from_secs(60),
};

/// To see whether something has become better.
const QUICK: Extent = Extent {
    transfer: 128 << 20,
    slow: Duration::from_secs(5),
    ..WHOLE
};

/// A part of the bench.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Memory,
    Speed,
    Slow,
    Load,
}

impl Part {
    const ALL: [(Self, &str); 4] = [
        (Self::Memory, "memory"),
        (Self::Speed, "speed"),
        (Self::Slow, "slow"),
        (Self::Load, "load"),
    ];

    async fn run(self, tools: &[Tool], extent: Extent, table: &mut Table) -> anyhow::Result<()> {
        match self {
            Self::Memory => {
                for tool in tools {
                    eprintln!("    memory: {}", tool.name());
                    measure::memory(&Tunnel::start(*tool).await?, extent, table).await?;
                }
            }
            Self::Speed => {
                let tunnels = start(tools).await?;
                for round in 1..=extent.rounds {
                    eprintln!("    speed: round {round} of {}", extent.rounds);
                    for tunnel in &tunnels {
                        measure::throughput(tunnel, extent, table).await?;
                        measure::echo(tunnel, extent, table).await?;
                        measure::connections(tunnel, extent, table).await?;
                    }
                }
            }
            Self::Slow => {
                let tunnels = start(tools).await?;
                eprintln!("    slow: for {} s", extent.slow.as_secs());
                let slow = tunnels.iter().map(|tunnel| measure::slow(tunnel, extent));
                let all = try_join_all(slow).await?;
                for (tunnel, figures) in tunnels.iter().zip(all) {
                    for (what, figure) in figures {
                        table.note(what, tunnel, figure);
                    }
                }
            }
            Self::Load => {
                for tool in tools {
                    eprintln!("    load: {}", tool.name());
                    measure::load(&Tunnel::start(*tool).await?, extent, table).await?;
                }
            }
        }
        Ok(())
    }
}

/// All tunnels, at once.
async fn start(tools: &[Tool]) -> anyhow::Result<Vec<Tunnel>> {
    try_join_all(tools.iter().map(|tool| Tunnel::start(*tool))).await
}

/// The versions, as the first row.
async fn versions(tools: &[Tool]) -> anyhow::Result<Value> {
    let mut row = json!({ "what": "version" });
    for tool in tools {
        let version = tool.version().await?;
        println!("{}: {version}", tool.name());
        row[tool.name()] = json!(version);
    }
    Ok(row)
}

async fn bench(parts: &[Part], tools: &[Tool], extent: Extent) -> anyhow::Result<Vec<Value>> {
    let (tools, missing): (Vec<Tool>, Vec<Tool>) = tools.iter().partition(|it| it.is_there());
    for tool in missing {
        println!("{} is not here, and left out", tool.name());
    }
    let mut rows = vec![versions(&tools).await?];
    let mut table = Table::default();
    for part in parts {
        part.run(&tools, extent, &mut table).await?;
    }
    table.print(&tools);
    rows.extend(table.rows(&tools));
    Ok(rows)
}

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().collect();
    let is_given = |word: &str| arguments.iter().any(|argument| argument == word);
    let parts = Part::ALL.iter().map(|(_, name)| *name);
    let names = parts.chain(Tool::ALL.iter().map(|tool| tool.name()));
    // Cargo itself adds the last one.
    let known: Vec<&str> = names.chain(["--quick", "--bench"]).collect();
    for word in arguments.iter().skip(1) {
        anyhow::ensure!(
            known.contains(&word.as_str()),
            "`{word}` is none of {known:?}"
        );
    }
    let is_quick = is_given("--quick");
    let mut parts = Part::ALL.to_vec();
    parts.retain(|(_, name)| is_given(name));
    let mut tools = Tool::ALL.to_vec();
    tools.retain(|tool| is_given(tool.name()));
    let is_whole = parts.is_empty() && tools.is_empty() && !is_quick;
    if parts.is_empty() {
        parts = Part::ALL.to_vec();
    }
    if tools.is_empty() {
        tools = Tool::ALL.to_vec();
    }
    let parts: Vec<Part> = parts.into_iter().map(|(part, _)| part).collect();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let extent = if is_quick { QUICK } else { WHOLE };
    let rows = runtime.block_on(bench(&parts, &tools, extent))?;
    if is_whole {
        record::record("tunnel.json", rows)?;
    }
    Ok(())
}
