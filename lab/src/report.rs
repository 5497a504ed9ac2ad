//! One page with the figures of a run of the scenarios, from the file that they write.
//!
//! Here: what such a file may say, all of it checked while it is read. [`plot`], [`matrix`], [`bars`],
//! [`recovery`], [`throughput`]: drawings. [`summary`]: what is computed. [`page`]: HTML around it all.
//!
//! ```json
//! {"v":1,"date":"2026-11-24","commit":"0f3c…","machine":"2 cores, Linux 6.18",
//!  "matrix":[{"client":"chromium","from":"port","to":"sym","connected":true,
//!             "path":"relayed","open_ms":163.2}],
//!  "recovery":[{"scenario":"rebind","client":"gateway","path":"direct","stall_ms":5800,
//!               "bar_ms":5800,"lost":0,"intact":true,"verdict":"good"}],
//!  "throughput":[{"name":"download","mbytes_per_s":41.5,
//!                 "reference":"direct TCP","reference_mbytes_per_s":110}]}
//! ```
//! `error` says why a pair did not connect, `note` what a recovery's figure needs to be understood;
//! `bar_ms` is what its silence may last at most. `lost` counts bytes or requests, by scenario.

mod bars;
mod matrix;
mod page;
mod plot;
mod recovery;
mod summary;
mod throughput;

use std::collections::BTreeSet;
use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use serde::Deserialize;
use thiserror::Error;

use plot::DrawError;

/// Largest file that is read, bytes: some ten thousand results.
const MAX_FILE: u64 = 4 * 1024 * 1024;

/// Version of the file.
const VERSION: u32 = 1;

/// Why there is no page.
#[derive(Debug, Error)]
pub(crate) enum ReportError {
    /// The results cannot be read.
    #[error("cannot read {}: {error}", path.display())]
    Read {
        /// Their file.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// Nobody's results are that large.
    #[error("{} has more than {MAX_FILE} bytes: are these results?", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
    /// The file is of another time.
    #[error("{} holds results of version {version}, expected {VERSION}: made by another `portway-lab`?", path.display())]
    Version {
        /// The file.
        path: PathBuf,
        /// That it says it has.
        version: u32,
    },
    /// The file says something else than results may say.
    #[error("{} holds no results: {error}", path.display())]
    Wrong {
        /// The file.
        path: PathBuf,
        /// What, and where.
        error: serde_json::Error,
    },
    /// The file says two things of the same.
    #[error("{} has two results of {client} from {from} to {to}", path.display())]
    Twice {
        /// The file.
        path: PathBuf,
        /// Who.
        client: Client,
        /// From which network.
        from: String,
        /// To which one.
        to: String,
    },
    /// A drawing failed.
    #[error(transparent)]
    Draw(#[from] DrawError),
    /// The page, or a drawing, cannot be written.
    #[error("cannot write {}: {error}", path.display())]
    Write {
        /// Its file.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
}

/// What the scenarios found.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Results {
    /// Looked at before all the rest is.
    #[serde(rename = "v")]
    _version: u32,
    date: String,
    commit: String,
    machine: String,
    #[serde(default)]
    matrix: Vec<Attempt>,
    #[serde(default)]
    recovery: Vec<Recovery>,
    #[serde(default)]
    throughput: Vec<Throughput>,
}

/// What results of every version have.
#[derive(Deserialize)]
struct Header {
    v: u32,
}

/// Who opened the service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Client {
    /// Chromium.
    Chromium,
    /// Firefox.
    Firefox,
    /// `portway` itself.
    Gateway,
}

/// How the two ends reached each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Way {
    Direct,
    Relayed,
}

/// A client behind one kind of network opened a node behind another one.
#[derive(Debug, Clone, Deserialize)]
#[serde(try_from = "AttemptRecord")]
struct Attempt {
    client: Client,
    from: String,
    to: String,
    outcome: Outcome,
}

/// How that went.
#[derive(Debug, Clone)]
enum Outcome {
    Connected { way: Way, open: Millis },
    Failed { error: Option<String> },
}

/// An attempt as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AttemptRecord {
    client: Client,
    from: String,
    to: String,
    connected: bool,
    path: Option<Way>,
    open_ms: Option<Millis>,
    error: Option<String>,
}

/// What something that went wrong, or was done to the network, did to a session.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Recovery {
    scenario: String,
    client: Client,
    /// None: it never opened.
    path: Option<Way>,
    /// The longest silence.
    #[serde(rename = "stall_ms")]
    stall: Millis,
    /// The longest that is allowed.
    #[serde(rename = "bar_ms")]
    bar: Option<Millis>,
    /// Bytes or requests.
    lost: u64,
    /// Whether what came is what was sent.
    intact: bool,
    verdict: Verdict,
    note: Option<String>,
}

/// Whether a recovery was as it must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Verdict {
    Good,
    Red,
}

/// How much went through in a second.
#[derive(Debug, Clone, Deserialize)]
#[serde(try_from = "ThroughputRecord")]
struct Throughput {
    name: String,
    rate: Rate,
    reference: Option<Reference>,
}

/// What it is compared with, in the same run.
#[derive(Debug, Clone)]
struct Reference {
    name: String,
    rate: Rate,
}

/// A throughput as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ThroughputRecord {
    name: String,
    mbytes_per_s: Rate,
    reference: Option<String>,
    reference_mbytes_per_s: Option<Rate>,
}

/// A time, milliseconds; not negative.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd, Deserialize)]
#[serde(try_from = "f64")]
struct Millis(f64);

/// MB per second (10⁶ bytes); not negative.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd, Deserialize)]
#[serde(try_from = "f64")]
struct Rate(f64);

/// Writes the page, and each drawing as a file of its own if a folder is named.
pub(crate) fn write(
    results: &Path,
    output: &Path,
    drawings: Option<&Path>,
) -> Result<(), ReportError> {
    let results = read(results)?;
    let plots = Plots::draw(&results)?;
    put(output, &page::html(&results, &plots))?;
    let Some(folder) = drawings else {
        return Ok(());
    };
    fs::create_dir_all(folder).map_err(|error| ReportError::Write {
        path: folder.to_owned(),
        error,
    })?;
    for (name, svg) in plots.named() {
        put(&folder.join(name), &plot::stand_alone(svg))?;
    }
    Ok(())
}

fn read(path: &Path) -> Result<Results, ReportError> {
    let failed = |error| ReportError::Read {
        path: path.to_owned(),
        error,
    };
    let mut text = String::new();
    let file = File::open(path).map_err(failed)?;
    let mut file = file.take(MAX_FILE + 1);
    file.read_to_string(&mut text).map_err(failed)?;
    if file.limit() == 0 {
        return Err(ReportError::TooLarge {
            path: path.to_owned(),
        });
    }
    let wrong = |error| ReportError::Wrong {
        path: path.to_owned(),
        error,
    };
    let header: Header = serde_json::from_str(&text).map_err(wrong)?;
    if header.v != VERSION {
        return Err(ReportError::Version {
            path: path.to_owned(),
            version: header.v,
        });
    }
    let results: Results = serde_json::from_str(&text).map_err(wrong)?;
    let mut seen = BTreeSet::new();
    for attempt in &results.matrix {
        if !seen.insert((attempt.client, &attempt.from, &attempt.to)) {
            return Err(ReportError::Twice {
                path: path.to_owned(),
                client: attempt.client,
                from: attempt.from.clone(),
                to: attempt.to.clone(),
            });
        }
    }
    Ok(results)
}

fn put(path: &Path, text: &str) -> Result<(), ReportError> {
    fs::write(path, text).map_err(|error| ReportError::Write {
        path: path.to_owned(),
        error,
    })
}

/// All drawings of a page, each SVG; none of what was not measured.
struct Plots {
    matrices: Vec<(Client, String)>,
    recovery: Option<String>,
    throughput: Option<String>,
}

impl Plots {
    fn draw(results: &Results) -> Result<Self, DrawError> {
        let clients = results.clients().into_iter();
        let matrices: Result<_, DrawError> = clients
            .map(|client| Ok((client, matrix::draw(client, &results.attempts(client))?)))
            .collect();
        Ok(Self {
            matrices: matrices?,
            recovery: recovery::draw(&results.recovery)?,
            throughput: throughput::draw(&results.throughput)?,
        })
    }

    /// With the names of their files.
    fn named(&self) -> impl Iterator<Item = (String, &str)> {
        let matrices = self.matrices.iter();
        let matrices = matrices.map(|(client, svg)| (format!("matrix-{client}.svg"), svg.as_str()));
        let bars = [
            ("recovery.svg", &self.recovery),
            ("throughput.svg", &self.throughput),
        ];
        let bars = bars
            .into_iter()
            .filter_map(|(name, svg)| Some((name.to_owned(), svg.as_deref()?)));
        matrices.chain(bars)
    }
}

impl Results {
    /// Those that have a matrix.
    fn clients(&self) -> BTreeSet<Client> {
        self.matrix.iter().map(|attempt| attempt.client).collect()
    }

    fn attempts(&self, client: Client) -> Vec<&Attempt> {
        let attempts = self.matrix.iter();
        attempts
            .filter(|attempt| attempt.client == client)
            .collect()
    }
}

impl TryFrom<AttemptRecord> for Attempt {
    type Error = String;

    fn try_from(record: AttemptRecord) -> Result<Self, String> {
        let pair = format!("{} from {} to {}", record.client, record.from, record.to);
        let outcome = match (record.connected, record.path, record.open_ms) {
            (true, Some(way), Some(open)) => Outcome::Connected { way, open },
            (true, _, _) => return Err(format!("{pair}: connected, so `path` and `open_ms`")),
            (false, None, None) => Outcome::Failed {
                error: record.error,
            },
            (false, _, _) => return Err(format!("{pair}: not connected, so no `path`, `open_ms`")),
        };
        Ok(Self {
            client: record.client,
            from: record.from,
            to: record.to,
            outcome,
        })
    }
}

impl TryFrom<ThroughputRecord> for Throughput {
    type Error = String;

    fn try_from(record: ThroughputRecord) -> Result<Self, String> {
        let reference = match (record.reference, record.reference_mbytes_per_s) {
            (Some(name), Some(rate)) => Some(Reference { name, rate }),
            (None, None) => None,
            (Some(_), None) | (None, Some(_)) => {
                return Err(format!(
                    "{}: `reference` and `reference_mbytes_per_s` belong together",
                    record.name
                ));
            }
        };
        Ok(Self {
            name: record.name,
            rate: record.mbytes_per_s,
            reference,
        })
    }
}

impl TryFrom<f64> for Millis {
    type Error = String;

    fn try_from(figure: f64) -> Result<Self, String> {
        not_negative(figure).map(Self)
    }
}

impl TryFrom<f64> for Rate {
    type Error = String;

    fn try_from(figure: f64) -> Result<Self, String> {
        not_negative(figure).map(Self)
    }
}

fn not_negative(figure: f64) -> Result<f64, String> {
    if figure.is_finite() && figure >= 0.0 {
        return Ok(figure);
    }
    Err(format!("{figure}: expected a figure that is not negative"))
}

impl fmt::Display for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Chromium => "chromium",
            Self::Firefox => "firefox",
            Self::Gateway => "gateway",
        })
    }
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Direct => "direct",
            Self::Relayed => "relayed",
        })
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Good => "good",
            Self::Red => "red",
        })
    }
}

impl fmt::Display for Millis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 < 1000.0 {
            return write!(f, "{:.0} ms", self.0);
        }
        write!(f, "{:.1} s", self.0 / 1000.0)
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.1} MB/s", self.0)
    }
}

#[cfg(test)]
mod tests;
