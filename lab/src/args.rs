//! The command line's grammar, nothing else.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

use crate::spec::{Impairment, Name, Rate, Share, Span};

/// Real networks and real clusters of Portway on one machine: NATs, bad links, partitions, crashes.
#[derive(Debug, Parser)]
#[command(
    name = "portway-lab",
    version,
    propagate_version = true,
    max_term_width = 100,
    after_help = "Examples:\n  portway-lab start --nodes 3 --net three-nats --relay 1    a cluster behind three NATs\n  portway-lab health                                        is all well, does each reach each?\n  portway-lab isolate n2; portway-lab heal                  a partition\n  portway-lab exec client -- curl -k https://demo.lab.sig1.test/\n  portway-lab run --net office -- ./my-test.sh              start, run, stop, whatever happens"
)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Options of every command.
#[derive(Debug, Args)]
pub(crate) struct Global {
    /// Which lab; several can run beside each other
    #[arg(
        long = "lab",
        global = true,
        env = "PORTWAY_LAB",
        default_value = "default",
        value_name = "NAME"
    )]
    pub(crate) lab: Name,
    /// Print JSON
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Say more about what is done
    #[arg(short, long, global = true)]
    pub(crate) verbose: bool,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Start a lab, and wait until all its parts are ready
    Start(Start),
    /// Start a node anew, or all, with the binary that there is now
    Restart {
        /// Which
        node: Option<Name>,
        /// The binary [default: as for `start`]
        #[arg(long, env = "PORTWAY_BIN", value_name = "FILE")]
        portway: Option<PathBuf>,
    },
    /// End a lab; its logs stay until `clean`
    Stop,
    /// Who is in the lab, and how they are; without a lab: all that there are
    Status,
    /// End a lab, even one whose keeper was killed, and remove its files
    Clean {
        /// All labs of this user
        #[arg(long)]
        all: bool,
    },
    /// Start a lab, run a command beside it, and end the lab whatever happens
    ///
    /// The command runs outside, with PORTWAY_LAB set, so that `portway-lab exec …` in it means this
    /// lab. If it fails, the lab's files are kept.
    Run {
        #[command(flatten)]
        start: Start,
        /// End the command after this time
        #[arg(long, value_parser = parse_seconds, value_name = "SECONDS")]
        timeout: Option<Duration>,
        /// Where logs and states go if the command fails [default: they stay in the lab's directory]
        #[arg(long, value_name = "DIR")]
        artifacts: Option<PathBuf>,
        /// The command
        #[arg(last = true, required = true, value_name = "CMD")]
        command: Vec<String>,
    },
    /// Show the log of a node, or of the keeper
    Logs {
        /// Which
        node: Option<Name>,
        /// Go on as it grows
        #[arg(long, short)]
        follow: bool,
    },
    /// Open a shell on a host
    Shell {
        /// Which
        host: Name,
    },
    /// Run a command on a host, and end as it does
    Exec {
        /// Which
        host: Name,
        /// The command
        #[arg(last = true, required = true, value_name = "CMD")]
        command: Vec<String>,
    },
    /// Lead a port of this machine to one of a host, e.g. for your own browser
    Forward {
        /// Which
        host: Name,
        /// PORT of its loopback interface, or ADDR:PORT as the host would reach it
        #[arg(value_name = "[ADDR:]PORT")]
        target: String,
        /// Where to listen
        #[arg(long, default_value = "127.0.0.1:0", value_name = "ADDR:PORT")]
        listen: SocketAddr,
    },
    /// Check every part, and that every node reaches every other; exit code 1 if not
    Health,
    /// The network and who is connected with whom, by which path
    Topology,
    /// Measure between the nodes: time to open, round trips, throughput
    ///
    /// Each pair opens sessions, and downloads through Portway and, where there is a direct path, over
    /// plain TCP. Figures count only for an optimised `portway`. Exit code 1 if something could not be
    /// measured.
    Bench {
        /// MiB to move for each pair
        #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=1024), value_name = "MIB")]
        size: u32,
    },
    /// Record the packets of a host, until Ctrl-C (needs tcpdump)
    Capture {
        /// Which
        host: Name,
        /// File to write
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
    /// Make two silent for each other; packets vanish without a word
    Cut {
        /// A host, or a router with all behind it
        from: Name,
        /// The other
        to: Name,
        /// Drop only what the first sends to the second
        #[arg(long)]
        one_way: bool,
    },
    /// End all partitions, those of one, or those between two
    Heal {
        /// One
        one: Option<Name>,
        /// The other
        other: Option<Name>,
    },
    /// Make a host, or a router with all behind it, silent for everybody
    Isolate {
        /// Which
        name: Name,
    },
    /// A router forgets its flows and gives other external ports, as after a restart
    Rebind {
        /// Which
        router: Name,
        /// Another external address, too
        #[arg(long)]
        ip: bool,
    },
    /// Move a host to another LAN, with another address, while what runs there goes on
    Roam {
        /// Which
        host: Name,
        /// A LAN, or `internet`: the public segment
        lan: Name,
    },
    /// End a node's process
    Kill {
        /// Which
        node: Name,
        /// At once, with SIGKILL [default: in order, with SIGTERM]
        #[arg(short = '9')]
        at_once: bool,
    },
    /// Make a node's process stand still
    Freeze {
        /// Which
        node: Name,
    },
    /// Let it go on
    Thaw {
        /// Which
        node: Name,
    },
    /// Make the link of a host or router worse, or good again (0ms, 0%)
    Slow {
        /// Whose
        name: Name,
        #[command(flatten)]
        link: Link,
    },
    /// Set a node's clock wrong by so many seconds, e.g. +300 or -30; 0 sets it right
    Clock {
        /// Which
        node: Name,
        /// Seconds
        #[arg(allow_hyphen_values = true, value_name = "±SECONDS")]
        offset: i64,
    },
    /// Write one HTML page with the figures of a run of the scenarios
    Report {
        /// JSON that the scenarios wrote
        #[arg(value_name = "RESULTS")]
        results: PathBuf,
        /// The page
        #[arg(long, short, default_value = "lab-report.html", value_name = "FILE")]
        output: PathBuf,
        /// Also write each drawing there, as an SVG file of its own
        #[arg(long, value_name = "DIR")]
        svg: Option<PathBuf>,
    },
    /// Check what labs need of this machine
    Preflight,
    /// The networks that come with the lab; or one of them, as a file to start from
    Nets {
        /// Which
        net: Option<String>,
    },
    /// Print a completion script for a shell
    Completions {
        /// Which shell
        shell: clap_complete::Shell,
    },
}

/// What a lab consists of.
#[derive(Debug, Args)]
pub(crate) struct Start {
    /// How many nodes, in a network that comes with the lab
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=60), value_name = "N")]
    pub(crate) nodes: u8,
    /// A network that comes with the lab (see `portway-lab nets`), or a file that describes one
    #[arg(long, default_value = "office", value_name = "NAME|FILE")]
    pub(crate) net: String,
    /// How many signaling services
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=3), value_name = "N")]
    pub(crate) signaling: u8,
    /// How many relays
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(0..=2), value_name = "N")]
    pub(crate) relay: u8,
    /// The `portway` to run [default: beside this program, else in PATH]
    #[arg(long, env = "PORTWAY_BIN", value_name = "FILE")]
    pub(crate) portway: Option<PathBuf>,
    /// No namespaces: everything on this machine's loopback, where no network can be simulated
    #[arg(long)]
    pub(crate) loopback: bool,
    /// How often a part is started before it counts as broken
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=5), value_name = "N")]
    pub(crate) attempts: u32,
}

/// What a link shall do to packets, in each direction. What is not given stays as it is.
#[derive(Debug, Args)]
#[group(required = true, multiple = true)]
pub(crate) struct Link {
    /// Added to every packet, e.g. 20ms
    #[arg(long, value_name = "TIME")]
    delay: Option<Span>,
    /// Around the delay, e.g. 5ms
    #[arg(long, value_name = "TIME")]
    jitter: Option<Span>,
    /// Share of packets that vanish, e.g. 1%
    #[arg(long, value_name = "SHARE")]
    loss: Option<Share>,
    /// E.g. 20mbit
    #[arg(long, value_name = "RATE")]
    rate: Option<Rate>,
    /// Share of packets that overtake the others, e.g. 0.5%
    #[arg(long, value_name = "SHARE")]
    reorder: Option<Share>,
}

impl Link {
    pub(crate) const fn change(&self) -> Impairment {
        Impairment {
            delay: self.delay,
            jitter: self.jitter,
            loss: self.loss,
            rate: self.rate,
            reorder: self.reorder,
            queue: None,
        }
    }
}

/// Whole seconds, not none.
fn parse_seconds(text: &str) -> Result<Duration, String> {
    match text.parse() {
        Ok(0) | Err(_) => Err(format!("`{text}`: expected whole seconds, at least 1")),
        Ok(seconds) => Ok(Duration::from_secs(seconds)),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_grammar_is_consistent() {
        Cli::command().debug_assert();
    }
}
