//! The figures: as a table, and as rows for `docs/bench/tunnel.json`.

use portway_tests::figures::median;
use serde_json::{Map, Value, json};

use crate::tool::{Tool, Tunnel};

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum What {
    Download,
    Upload,
    DownloadCost,
    UploadCost,
    EchoHalf,
    EchoMost,
    LoadedEchoHalf,
    LoadedEchoMost,
    InTurn,
    SomeAtOnce,
    IdleNear,
    IdleFar,
    Threads,
    StreamNear,
    StreamFar,
    Lost,
    LoadRate,
    LoadFiles,
    LoadNear,
    LoadFar,
    SlowGiven,
    SlowNear,
    SlowFar,
    SlowEcho,
}

impl What {
    const ALL: [Self; 24] = [
        Self::Download,
        Self::Upload,
        Self::DownloadCost,
        Self::UploadCost,
        Self::EchoHalf,
        Self::EchoMost,
        Self::LoadedEchoHalf,
        Self::LoadedEchoMost,
        Self::InTurn,
        Self::SomeAtOnce,
        Self::IdleNear,
        Self::IdleFar,
        Self::Threads,
        Self::StreamNear,
        Self::StreamFar,
        Self::Lost,
        Self::LoadRate,
        Self::LoadFiles,
        Self::LoadNear,
        Self::LoadFar,
        Self::SlowGiven,
        Self::SlowNear,
        Self::SlowFar,
        Self::SlowEcho,
    ];

    /// As in the table. `near` is the end where local programs are, `far` that where the service is.
    const fn name(self) -> &'static str {
        match self {
            Self::Download => "one download, MB/s",
            Self::Upload => "one upload, MB/s",
            Self::DownloadCost => "both ends, CPU s/GB down",
            Self::UploadCost => "both ends, CPU s/GB up",
            Self::EchoHalf => "echo of 64 B, p50, ms",
            Self::EchoMost => "echo of 64 B, p99, ms",
            Self::LoadedEchoHalf => "echo beside a download, p50, ms",
            Self::LoadedEchoMost => "echo beside a download, p99, ms",
            Self::InTurn => "connections/s, one after another",
            Self::SomeAtOnce => "connections/s, 32 at a time",
            Self::IdleNear => "idle, near, MiB",
            Self::IdleFar => "idle, far, MiB",
            Self::Threads => "threads of both ends",
            Self::StreamNear => "an open stream, near, KiB",
            Self::StreamFar => "an open stream, far, KiB",
            Self::Lost => "load: connections lost",
            Self::LoadRate => "load: connections/s",
            Self::LoadFiles => "load: files left open",
            Self::LoadNear => "load: memory kept, near, MiB",
            Self::LoadFar => "load: memory kept, far, MiB",
            Self::SlowGiven => "slow reader: taken of its source, MiB",
            Self::SlowNear => "slow reader: memory, near, MiB",
            Self::SlowFar => "slow reader: memory, far, MiB",
            Self::SlowEcho => "slow readers: echo beside them, ms",
        }
    }

    /// Whether it is about a tool, so that there is nothing to say of plain TCP.
    const fn is_of_a_tool(self) -> bool {
        match self {
            Self::Download
            | Self::Upload
            | Self::EchoHalf
            | Self::EchoMost
            | Self::LoadedEchoHalf
            | Self::LoadedEchoMost
            | Self::InTurn
            | Self::SomeAtOnce
            | Self::Lost
            | Self::LoadRate
            | Self::SlowGiven
            | Self::SlowEcho => false,
            Self::DownloadCost
            | Self::UploadCost
            | Self::IdleNear
            | Self::IdleFar
            | Self::Threads
            | Self::StreamNear
            | Self::StreamFar
            | Self::LoadFiles
            | Self::LoadNear
            | Self::LoadFar
            | Self::SlowNear
            | Self::SlowFar => true,
        }
    }
}

/// All figures.
#[derive(Debug, Default)]
pub(crate) struct Table(Vec<(What, Tool, f64)>);

/// What is aimed at: a figure of ours beside that of another tool.
struct Bar {
    what: What,
    beside: Tool,
    limit: Limit,
}

enum Limit {
    AtLeast(f64),
    AtMost(f64),
}

const BARS: &[Bar] = &[
    Bar {
        what: What::Download,
        beside: Tool::Rathole,
        limit: Limit::AtLeast(0.6),
    },
    Bar {
        what: What::Upload,
        beside: Tool::Rathole,
        limit: Limit::AtLeast(0.6),
    },
    Bar {
        what: What::EchoHalf,
        beside: Tool::Ssh,
        limit: Limit::AtMost(1.5),
    },
];

impl Table {
    pub(crate) fn note(&mut self, what: What, tunnel: &Tunnel, figure: f64) {
        if tunnel.tool != Tool::Tcp || !what.is_of_a_tool() {
            self.0.push((what, tunnel.tool, figure));
        }
    }

    fn figures(&self, what: What, tool: Tool) -> Vec<f64> {
        let wanted = self.0.iter().filter(|row| (row.0, row.1) == (what, tool));
        wanted.map(|row| row.2).collect()
    }

    /// The figure in the middle; `None` if there is none.
    fn median(&self, what: What, tool: Tool) -> Option<f64> {
        let figures = self.figures(what, tool);
        (!figures.is_empty()).then(|| median(&figures))
    }

    /// The bars that have been measured: in words, whether they are met, and the ratio.
    fn bars(&self) -> impl Iterator<Item = (What, String, bool, f64)> {
        BARS.iter().filter_map(|bar| {
            let ours = self.median(bar.what, Tool::Portway)?;
            let ratio = ours / self.median(bar.what, bar.beside)?;
            let (sign, limit, met) = match bar.limit {
                Limit::AtLeast(limit) => ('≥', limit, ratio >= limit),
                Limit::AtMost(limit) => ('≤', limit, ratio <= limit),
            };
            let words = format!("{sign} {limit} × {}", bar.beside.name());
            Some((bar.what, words, met, ratio))
        })
    }

    pub(crate) fn print(&self, tools: &[Tool]) {
        let names = tools.iter().map(|tool| format!("{:>10}", tool.name()));
        println!("\n{:<40}{}", "", names.collect::<String>());
        for what in What::ALL {
            let cells: Vec<_> = tools.iter().map(|tool| self.median(what, *tool)).collect();
            if cells.iter().all(Option::is_none) {
                continue;
            }
            let cells = cells.into_iter().map(|figure| match figure {
                None => format!("{:>10}", "–"),
                Some(figure) if figure.is_nan() => format!("{:>10}", "blocked"),
                Some(figure) if figure.abs() < 10.0 => format!("{figure:>10.3}"),
                Some(figure) => format!("{figure:>10.1}"),
            });
            println!("{:<40}{}", what.name(), cells.collect::<String>());
        }
        for (what, words, met, ratio) in self.bars() {
            let verdict = if met { "met" } else { "missed" };
            println!("{}: {words}: {ratio:.2}, {verdict}", what.name());
        }
    }

    /// For `docs/bench/tunnel.json`: medians, and from where to where they go.
    pub(crate) fn rows(&self, tools: &[Tool]) -> Vec<Value> {
        let row = |what: What| {
            let mut row = Map::new();
            row.insert("what".to_owned(), json!(what.name()));
            for tool in tools {
                let mut figures = self.figures(what, *tool);
                figures.sort_by(f64::total_cmp);
                if let [least, .., most] | [least @ most] = figures[..] {
                    let cell = json!({ "median": median(&figures), "least": least, "most": most });
                    row.insert(tool.name().to_owned(), cell);
                }
            }
            let bars: Vec<_> = self
                .bars()
                .filter(|bar| bar.0 == what)
                .map(|(_, bar, met, value)| json!({ "bar": bar, "met": met, "value": value }))
                .collect();
            if !bars.is_empty() {
                row.insert("bars".to_owned(), json!(bars));
            }
            (row.len() > 1).then_some(Value::Object(row))
        };
        What::ALL.into_iter().filter_map(row).collect()
    }
}
