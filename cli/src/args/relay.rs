//! What a TURN relay takes.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use clap::{Args, Subcommand};
use portway_relay::config::{Listen, Transport};
use portway_relay_proto::peer_policy::Network;

use super::duration::{parse_duration, parse_measure, parse_wait};

/// `portway relay`. What is not given here may stand in the configuration file, under `[relay]`.
#[derive(Debug, Default, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Relay {
    #[command(subcommand)]
    pub(crate) command: Option<RelayCommand>,
    /// Where clients come: udp://, tcp:// or tls:// and ADDRESS:PORT; may be repeated
    /// [default: udp://0.0.0.0:3478 and tcp://0.0.0.0:3478]
    #[arg(long, value_name = "URL")]
    pub(crate) listen: Vec<ListenUrl>,
    /// Certificate chain (PEM) for tls:// addresses
    #[arg(long, value_name = "FILE")]
    pub(crate) tls_cert: Option<PathBuf>,
    /// Private key (PEM) of the certificate
    #[arg(long, value_name = "FILE")]
    pub(crate) tls_key: Option<PathBuf>,
    /// Address of this machine that relayed packets leave from, one of each family
    /// [default: the one that packets leave from anyway]
    #[arg(long, value_name = "IP")]
    pub(crate) relay_ip: Vec<IpAddr>,
    /// Second address and port for clients that find out what NAT they are behind (RFC 5780)
    #[arg(long, value_name = "ADDR:PORT")]
    pub(crate) alternate: Option<SocketAddr>,
    /// Address that peers see, if a NAT stands before this machine
    #[arg(long, value_name = "IP")]
    pub(crate) external_ip: Vec<IpAddr>,
    /// Ports of relayed addresses [default: 49152-65535]
    #[arg(long, value_name = "FIRST-LAST")]
    pub(crate) relay_ports: Option<PortRange>,
    /// Realm of passwords [default: portway]
    #[arg(long, value_name = "NAME")]
    pub(crate) realm: Option<String>,
    /// File with the secret of ephemeral credentials (coturn: static-auth-secret), one on a line; the
    /// last two count
    #[arg(long, env = "PORTWAY_RELAY_SECRET_FILE", value_name = "FILE")]
    pub(crate) secret_file: Option<PathBuf>,
    /// Peers that are reachable although their range is private, e.g. 192.168.0.0/16; may be repeated
    #[arg(long, value_name = "NETWORK")]
    pub(crate) allow_peer: Vec<Network>,
    /// Peers that are not; may be repeated
    #[arg(long, value_name = "NETWORK")]
    pub(crate) deny_peer: Vec<Network>,
    /// Serve metrics for Prometheus here, at /metrics, e.g. 127.0.0.1:9641
    #[arg(long, value_name = "ADDR:PORT")]
    pub(crate) metrics: Option<SocketAddr>,
    /// After SIGTERM, how long those who are there may go on; nobody new is let in [default: 30s]
    #[arg(long, value_parser = parse_wait, value_name = "DURATION")]
    pub(crate) drain: Option<std::time::Duration>,
}

/// `portway relay …`.
#[derive(Debug, Subcommand)]
pub(crate) enum RelayCommand {
    /// Make credentials that end by themselves, from a shared secret
    Credentials {
        /// File with the secret, as the relay has it
        #[arg(long, env = "PORTWAY_RELAY_SECRET_FILE", value_name = "FILE")]
        secret_file: PathBuf,
        /// Who they are for: quotas and revocation know this name
        #[arg(long, default_value = "guest", value_name = "NAME")]
        user: String,
        /// How long they are valid: 30s, 15m, 2h, 7d
        #[arg(long = "for", default_value = "10m", value_parser = parse_duration, value_name = "DURATION")]
        lifetime: std::time::Duration,
    },
    /// Tell whether a STUN/TURN server is good, ours or anybody's
    ///
    /// Does what a client does, step by step, and says what it finds: address, TLS, credentials,
    /// relayed addresses, data, round trips, loss, throughput, IPv6, and whether peers are refused that
    /// should be. Gentle: at most 2000 packets of data. Give credentials for all of it; they are never
    /// taken from the command line.
    Test(Box<RelayTest>),
    /// Show a running relay: who is there, by which addresses, and how much has passed
    Status,
    /// End what a user relays, or one session, at once
    ///
    /// A session of ephemeral credentials (EXPIRY:NAME) belongs to NAME. Revoking NAME also refuses the
    /// credentials that were handed out for it until now. A user with a password in the configuration
    /// may come back until it is removed there.
    Revoke {
        /// Name of a user, or id of a session as `portway relay status` shows it
        #[arg(value_name = "USER|SESSION")]
        target: String,
        /// Lifetime of the ephemeral credentials that you hand out: those of the user that end within
        /// it from now are refused. Too short lets older ones in again; too long refuses newer ones, too
        #[arg(long, default_value = "24h", value_parser = parse_duration, value_name = "DURATION")]
        lifetime: std::time::Duration,
    },
}

/// `portway relay test`.
#[derive(Debug, Args)]
pub(crate) struct RelayTest {
    /// As browsers have it, e.g. turn:turn.example.org:3478?transport=tcp; also turns:, stun:, stuns:
    #[arg(value_name = "URL")]
    pub(crate) url: portway_relay_client::url::Url,
    /// User name
    #[arg(long, env = "PORTWAY_TURN_USERNAME", value_name = "NAME")]
    pub(crate) username: Option<String>,
    /// File with the user's password; `-` reads it from standard input
    #[arg(long, env = "PORTWAY_TURN_PASSWORD_FILE", value_name = "FILE")]
    pub(crate) credential_file: Option<PathBuf>,
    /// File with the server's secret instead: makes credentials for this test
    #[arg(long, value_name = "FILE")]
    pub(crate) secret_file: Option<PathBuf>,
    /// Something that sends UDP packets back, as a peer [default: the server relays to itself]
    #[arg(long, value_name = "ADDR:PORT")]
    pub(crate) peer: Option<SocketAddr>,
    /// How long to measure, 1s to 60s
    #[arg(long, default_value = "5s", value_parser = parse_measure, value_name = "DURATION")]
    pub(crate) duration: std::time::Duration,
    /// Authority (PEM) of the server's certificate [default: the system's]
    #[arg(long, value_name = "FILE", conflicts_with = "insecure")]
    pub(crate) ca: Option<PathBuf>,
    /// Take any certificate
    #[arg(long)]
    pub(crate) insecure: bool,
}

impl Relay {
    /// A relay that listens here; everything else is as the file or the defaults say.
    pub(crate) fn at(addresses: Vec<SocketAddr>) -> Self {
        let url = |address| {
            ListenUrl(Listen {
                transport: Transport::Udp,
                address,
            })
        };
        Self {
            listen: addresses.into_iter().map(url).collect(),
            ..Self::default()
        }
    }
}

/// `udp://ADDRESS:PORT`, `tcp://…`, `tls://…`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ListenUrl(pub(crate) Listen);

impl std::str::FromStr for ListenUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!(
                "`{text}`: expected udp://, tcp:// or tls:// and ADDRESS:PORT, e.g. udp://0.0.0.0:3478"
            )
        };
        let (scheme, address) = text.split_once("://").ok_or_else(wrong)?;
        let transport = match scheme {
            "udp" => Transport::Udp,
            "tcp" => Transport::Tcp,
            "tls" => Transport::Tls,
            _ => return Err(wrong()),
        };
        let address = address.parse().map_err(|_| wrong())?;
        Ok(Self(Listen { transport, address }))
    }
}

/// `FIRST-LAST`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PortRange(pub(crate) u16, pub(crate) u16);

impl std::str::FromStr for PortRange {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}`: expected FIRST-LAST, e.g. 49152-65535");
        let (first, last) = text.split_once('-').ok_or_else(wrong)?;
        match (first.parse(), last.parse()) {
            (Ok(first), Ok(last)) if 0 < first && first <= last => Ok(Self(first, last)),
            _ => Err(wrong()),
        }
    }
}

/// Bytes in a second, written as `800kbit/s`, `10Mbit/s`, `1Gbit/s`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rate(pub(crate) std::num::NonZeroU64);

impl std::str::FromStr for Rate {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}`: expected a rate, e.g. 800kbit/s, 10Mbit/s, 1Gbit/s");
        let bits = text.strip_suffix("bit/s").ok_or_else(wrong)?;
        let (number, unit) = match bits.char_indices().next_back().ok_or_else(wrong)? {
            (at, 'k') => (&bits[..at], 1_000),
            (at, 'M') => (&bits[..at], 1_000_000),
            (at, 'G') => (&bits[..at], 1_000_000_000),
            _ => (bits, 1),
        };
        let number: u64 = number.parse().map_err(|_| wrong())?;
        let bytes = number.checked_mul(unit).map(|bits| bits / 8);
        bytes
            .and_then(std::num::NonZeroU64::new)
            .map(Self)
            .ok_or_else(wrong)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_in_bits() {
        let rate = |text: &str| text.parse::<Rate>().map(|rate| rate.0.get()).ok();
        assert_eq!(rate("10Mbit/s"), Some(1_250_000));
        assert_eq!(rate("800kbit/s"), Some(100_000));
        assert_eq!(rate("16bit/s"), Some(2));
        for wrong in [
            "",
            "10",
            "10M",
            "bit/s",
            "7bit/s",
            "1.5Mbit/s",
            "-8bit/s",
            "99999999999Gbit/s",
        ] {
            assert_eq!(rate(wrong), None, "{wrong}");
        }
    }
}
