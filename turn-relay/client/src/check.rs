//! The steps: each needs what those before it found.
//!
//! ```text
//! resolve ─ connect ─ tls ─ binding ─ challenge ─ wrong-password ─ allocate ─ lifetime ─ peers
//!        ─ permission ─ indication ─ channel ─ round-trip ─ throughput ─ ipv6 ─ release
//! ```

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs as _};
use std::sync::Arc;
use std::time::{Duration, Instant};

use portway_relay_proto::channel::ChannelNumber;
use portway_relay_proto::peer_policy::PeerPolicy;
use rustls::{CertificateError, ClientConfig};

use crate::connection::Connection;
use crate::measure::{self, Measured, Plan};
pub use crate::message::Credentials;
use crate::message::{Ask, Ipv6};
use crate::session::{Session, Trouble, said};
use crate::url::{Service, Transport, Url};

/// What to check with.
#[derive(Debug, Clone)]
pub struct Options {
    /// Who to be; without, only what needs no proof is checked.
    pub credentials: Option<Credentials>,
    /// Something that sends UDP packets back, as a peer; without, the server relays to itself.
    pub peer: Option<SocketAddr>,
    /// How long to measure.
    pub duration: Duration,
    /// Whose certificates are believed.
    pub tls: Arc<ClientConfig>,
}

/// How a step ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// As it should be.
    Good,
    /// It works, but somebody should look.
    Warning,
    /// It does not work.
    Bad,
    /// It was not tried, or is not offered.
    Skipped,
}

/// A step, done.
#[derive(Debug, Clone)]
pub struct Step {
    /// Its name, which stays.
    pub name: &'static str,
    /// How it ended.
    pub outcome: Outcome,
    /// What was found, in words, some of them the server's.
    pub detail: String,
    /// How long it took.
    pub took: Duration,
}

/// What is wrong, by what can be done about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// Nothing.
    Good,
    /// Something on the server.
    Bad,
    /// The credentials.
    Denied,
    /// Nobody is there.
    Unreachable,
}

/// What was found.
#[derive(Debug, Clone)]
pub struct Report {
    /// All steps.
    pub steps: Vec<Step>,
    /// What is wrong.
    pub verdict: Verdict,
    /// Figures.
    pub figures: Figures,
}

/// What was measured, as far as it was.
#[derive(Debug, Clone, Copy, Default)]
pub struct Figures {
    /// The server.
    pub server: Option<SocketAddr>,
    /// This client as the server sees it.
    pub reflexive: Option<SocketAddr>,
    /// Bytes of the answer to who proves nothing.
    pub challenge_bytes: Option<usize>,
    /// The relayed address.
    pub relayed: Option<SocketAddr>,
    /// The relayed IPv6 address.
    pub relayed_ipv6: Option<SocketAddr>,
    /// Lifetime of an allocation, seconds.
    pub lifetime_s: Option<u32>,
    /// Half of all round trips are not longer.
    pub rtt_p50: Option<Duration>,
    /// 99 in 100 are not longer.
    pub rtt_p99: Option<Duration>,
    /// Share of packets lost.
    pub loss: Option<f64>,
    /// Payload that came, of what was offered, bits a second.
    pub bits_per_s: Option<f64>,
}

/// Peers that no server should name for a stranger: itself, the metadata service of clouds, a network
/// behind it.
const FORBIDDEN: [Ipv4Addr; 3] = [
    Ipv4Addr::LOCALHOST,
    Ipv4Addr::new(169, 254, 169, 254),
    Ipv4Addr::new(10, 0, 0, 1),
];

/// An hour, which RFC 8656 §7.2 recommends to grant at most.
const LONG_LIFETIME: u32 = 3600;

/// More than this share of packets lost is worth a look.
const MUCH_LOSS: f64 = 0.01;

/// Whom it was, if a step found somebody.
type Found<T> = Result<(Outcome, String, T), (Outcome, String)>;

/// Checks a server. Each step is told when it is done.
pub fn run(url: &Url, options: &Options, tell: &mut dyn FnMut(&Step)) -> Report {
    let mut check = Check {
        url,
        options,
        tell,
        report: Report {
            steps: Vec::new(),
            verdict: Verdict::Good,
            figures: Figures::default(),
        },
    };
    // What ends the check early is told in its step.
    let _ended: Option<()> = check.all();
    check.report
}

struct Check<'a> {
    url: &'a Url,
    options: &'a Options,
    tell: &'a mut dyn FnMut(&Step),
    report: Report,
}

/// A client with a relayed address.
struct Relayed {
    session: Session,
    address: SocketAddr,
}

impl Check<'_> {
    fn all(&mut self) -> Option<()> {
        let server = self.resolve()?;
        let mut session = self.connect(server)?;
        self.binding(&mut session)?;
        if self.url.service == Service::Stun {
            return Some(());
        }
        let is_open = self.challenge(&mut session)?;
        let Some(credentials) = self.options.credentials.clone() else {
            self.skip(
                "allocate",
                "give --username and --credential-file, or --secret-file, for the rest",
            );
            return Some(());
        };
        if !is_open {
            self.wrong_password(server, &credentials);
        }
        let mut own = self.allocate(session, &credentials)?;
        self.lifetime(&mut own.session);
        let peers = FORBIDDEN.map(|ip| SocketAddr::new(ip.into(), 9));
        self.peers("peers", &mut own.session, &peers);
        self.exchange(server, &credentials, &mut own);
        self.ipv6(server, &credentials);
        self.release(&mut own.session);
        Some(())
    }

    /// Does a step; `None`: what follows cannot be done.
    fn step<T>(
        &mut self,
        name: &'static str,
        verdict: Verdict,
        work: impl FnOnce(&mut Self) -> Found<T>,
    ) -> Option<T> {
        let begun = Instant::now();
        let (outcome, detail, found) = match work(self) {
            Ok((outcome, detail, found)) => (outcome, detail, Some(found)),
            Err((outcome, detail)) => (outcome, detail, None),
        };
        if outcome == Outcome::Bad {
            self.report.verdict = self.report.verdict.max(verdict);
        }
        let step = Step {
            name,
            outcome,
            detail,
            took: begun.elapsed(),
        };
        (self.tell)(&step);
        self.report.steps.push(step);
        found
    }

    fn skip(&mut self, name: &'static str, why: &str) {
        let skipped: Option<()> = self.step(name, Verdict::Good, |_| {
            Err((Outcome::Skipped, why.to_owned()))
        });
        debug_assert!(skipped.is_none(), "nothing was found");
    }

    fn resolve(&mut self) -> Option<SocketAddr> {
        self.step("resolve", Verdict::Unreachable, |check| {
            let url = check.url;
            let addresses: Vec<SocketAddr> = (url.host.as_str(), url.port)
                .to_socket_addrs()
                .map_err(|error| bad(format!("{}: {error}", url.host)))?
                .collect();
            let first = *addresses
                .first()
                .ok_or_else(|| bad(format!("{} has no address", url.host)))?;
            check.report.figures.server = Some(first);
            let others = match addresses.len() {
                1 => String::new(),
                many => format!(" (the first of {many} addresses)"),
            };
            Ok((Outcome::Good, format!("{first}{others}"), first))
        })
    }

    fn connect(&mut self, server: SocketAddr) -> Option<Session> {
        if self.url.transport == Transport::Udp {
            return self.step("connect", Verdict::Unreachable, |check| {
                let session = check.open(server).map_err(|error| bad(error.to_string()))?;
                Ok((Outcome::Good, "UDP: nothing to do".to_owned(), session))
            });
        }
        let connection = self.step("connect", Verdict::Unreachable, |check| {
            let connection = check
                .connection(server)
                .map_err(|error| bad(format!("{server} over TCP: {}", said(&error))))?;
            Ok((Outcome::Good, "TCP".to_owned(), connection))
        })?;
        if self.url.transport == Transport::Tcp {
            return Some(Session::new(connection));
        }
        let host = self.url.host.clone();
        self.step("tls", Verdict::Bad, |_| {
            let mut connection = connection;
            match connection.handshake() {
                Ok(version) => Ok((
                    Outcome::Good,
                    version.unwrap_or_default(),
                    Session::new(connection),
                )),
                Err(error) => Err(bad(tls_problem(&error, &host))),
            }
        })
    }

    fn connection(&self, server: SocketAddr) -> io::Result<Connection> {
        match self.url.transport {
            Transport::Udp => Connection::udp(server),
            Transport::Tcp => Connection::tcp(server),
            Transport::Tls => Connection::tls(server, &self.url.host, &self.options.tls),
        }
    }

    /// One more client.
    fn open(&self, server: SocketAddr) -> io::Result<Session> {
        let mut session = Session::new(self.connection(server)?);
        session.connection().handshake()?;
        Ok(session)
    }

    fn binding(&mut self, session: &mut Session) -> Option<()> {
        self.step("binding", Verdict::Unreachable, |check| {
            let answer = session.ask(Ask::Binding).map_err(|trouble| {
                let hint = match (&trouble, check.url.transport) {
                    (Trouble::Silence, Transport::Udp) => {
                        ": nothing serves STUN there, or a firewall drops UDP; try ?transport=tcp"
                    }
                    (Trouble::Silence | Trouble::Refused { .. } | Trouble::Io(_), _) => "",
                };
                bad(format!("{trouble}{hint}"))
            })?;
            let mapped = answer
                .mapped
                .ok_or_else(|| bad("the answer tells no address".to_owned()))?;
            check.report.figures.reflexive = Some(mapped);
            let software = answer
                .software
                .map_or_else(String::new, |name| format!(", it is {name}"));
            Ok((Outcome::Good, format!("you are {mapped}{software}"), ()))
        })
    }

    /// Whether the server asks who is there; `true`: it does not.
    fn challenge(&mut self, session: &mut Session) -> Option<bool> {
        self.step("challenge", Verdict::Bad, |check| {
            let ask = Ask::Allocate { ipv6: Ipv6::No };
            let request = ask.bytes(None).0.len();
            let answer = session
                .exchange(ask)
                .map_err(|trouble| bad(trouble.to_string()))?;
            let Some((code, words)) = answer.error else {
                drop(session.ask(Ask::Refresh { lifetime: 0 }));
                let detail = "an open relay: it relays for anybody, without credentials".to_owned();
                return Ok((Outcome::Bad, detail, true));
            };
            if code != 401 {
                let refused = Trouble::Refused { code, words };
                return Err(bad(format!(
                    "{refused}, where 401 is expected: it does not relay"
                )));
            }
            let realm = answer.realm.unwrap_or_default();
            check.report.figures.challenge_bytes = Some(answer.length);
            #[allow(clippy::cast_precision_loss, reason = "some hundred bytes")]
            let factor = answer.length as f64 / request as f64;
            let detail = format!(
                "401 in {} bytes ({factor:.1} × the request), realm {}",
                answer.length, realm
            );
            Ok((Outcome::Good, detail, false))
        })
    }

    /// Whether somebody with a wrong password stays outside.
    fn wrong_password(&mut self, server: SocketAddr, credentials: &Credentials) {
        let wrong = Credentials {
            username: credentials.username.clone(),
            password: format!("{}?", credentials.password),
        };
        self.step("wrong-password", Verdict::Bad, |check| {
            let mut session = check.open(server).map_err(|error| bad(error.to_string()))?;
            match session.allocate(Ask::Allocate { ipv6: Ipv6::No }, &wrong) {
                Ok(_) => {
                    drop(session.ask(Ask::Refresh { lifetime: 0 }));
                    Err(bad("it lets in who has a wrong password".to_owned()))
                }
                Err(Trouble::Refused { code, .. }) => {
                    Ok((Outcome::Good, format!("refused: {code}"), ()))
                }
                // Some say nothing then, which is as good.
                Err(Trouble::Silence) => Ok((Outcome::Good, "no answer".to_owned(), ())),
                Err(Trouble::Io(error)) => Err(bad(error.to_string())),
            }
        });
    }

    fn allocate(&mut self, session: Session, credentials: &Credentials) -> Option<Relayed> {
        self.step("allocate", Verdict::Bad, |check| {
            let mut session = session;
            let answer = session
                .allocate(Ask::Allocate { ipv6: Ipv6::No }, credentials)
                .map_err(|trouble| {
                    if let Trouble::Refused { code: 401, .. } = trouble {
                        check.report.verdict = Verdict::Denied;
                    }
                    bad(allocate_problem(&trouble, credentials))
                })?;
            let address = answer
                .relayed
                .ok_or_else(|| bad("the answer has no relayed address".to_owned()))?;
            check.report.figures.relayed = Some(address);
            check.report.figures.lifetime_s = answer.lifetime;
            let server = check.report.figures.server;
            let is_public = |ip: IpAddr| PeerPolicy::default().permits_ip(ip);
            let is_hidden =
                !is_public(address.ip()) && server.is_some_and(|server| is_public(server.ip()));
            let own = Relayed { session, address };
            Ok(if is_hidden {
                let detail = format!(
                    "relayed address {address}, which nobody outside reaches: tell the server its \
                     external address"
                );
                (Outcome::Warning, detail, own)
            } else {
                (Outcome::Good, format!("relayed address {address}"), own)
            })
        })
    }

    fn lifetime(&mut self, session: &mut Session) {
        let first = self.report.figures.lifetime_s;
        self.step("lifetime", Verdict::Bad, |_| {
            let ask = Ask::Refresh {
                lifetime: LONG_LIFETIME,
            };
            let answer = session
                .ask(ask)
                .map_err(|trouble| bad(trouble.to_string()))?;
            let seconds = |lifetime: Option<u32>| {
                lifetime.map_or_else(|| "untold".to_owned(), |seconds| format!("{seconds} s"))
            };
            let detail = format!(
                "{} at first, {} when asked for an hour",
                seconds(first),
                seconds(answer.lifetime)
            );
            Ok((Outcome::Good, detail, ()))
        });
    }

    /// Whether the server refuses peers that it should. Nothing is sent to them.
    fn peers(&mut self, name: &'static str, session: &mut Session, peers: &[SocketAddr]) {
        self.step(name, Verdict::Bad, |_| {
            let (mut refused, mut accepted) = (Vec::new(), Vec::new());
            for peer in peers {
                match session.ask(Ask::Permission { peer: *peer }) {
                    Ok(_) => accepted.push(peer.ip().to_string()),
                    Err(Trouble::Refused { code, .. }) => {
                        refused.push(format!("{} ({code})", peer.ip()));
                    }
                    Err(trouble) => return Err(bad(trouble.to_string())),
                }
            }
            Ok(if accepted.is_empty() {
                (Outcome::Good, format!("refuses {}", refused.join(", ")), ())
            } else {
                let detail = format!(
                    "accepts {}: whoever has credentials reaches what listens there; deny such peers",
                    accepted.join(", ")
                );
                (Outcome::Warning, detail, ())
            })
        });
    }

    /// Data: to a peer that sends it back, or to a second client of the same server.
    fn exchange(
        &mut self,
        server: SocketAddr,
        credentials: &Credentials,
        own: &mut Relayed,
    ) -> Option<()> {
        let mut other = match self.options.peer {
            Some(_) => None,
            None => Some(self.second(server, credentials)?),
        };
        let peer = match (&other, self.options.peer) {
            (Some(other), _) => other.address,
            (None, Some(peer)) => peer,
            (None, None) => return None,
        };
        let outcome = self.talk(own, other.as_mut(), peer);
        if let Some(other) = &mut other {
            drop(other.session.ask(Ask::Refresh { lifetime: 0 }));
        }
        outcome
    }

    fn talk(
        &mut self,
        own: &mut Relayed,
        mut other: Option<&mut Relayed>,
        peer: SocketAddr,
    ) -> Option<()> {
        let channel = ChannelNumber::new(*ChannelNumber::RANGE.start())?;
        let own_address = own.address;
        self.step("permission", Verdict::Bad, |_| {
            let permit = |session: &mut Session, peer| {
                session
                    .ask(Ask::Permission { peer })
                    .map_err(|trouble| permission_problem(&trouble, peer))
            };
            permit(&mut own.session, peer)?;
            if let Some(other) = &mut other {
                permit(&mut other.session, own_address)?;
            }
            Ok((Outcome::Good, format!("for {peer}"), ()))
        })?;
        self.step("indication", Verdict::Bad, |_| {
            let payload = b"portway relay test";
            // Packets may be lost: three tries.
            for _attempt in 0..3 {
                own.session
                    .indicate(peer, payload)
                    .map_err(|error| bad(error.to_string()))?;
                let until = Instant::now() + Duration::from_millis(700);
                let at = match &mut other {
                    Some(other) => &mut other.session,
                    None => &mut own.session,
                };
                while let Some(received) =
                    at.receive(until).map_err(|error| bad(error.to_string()))?
                {
                    if received.payload == payload {
                        return Ok((Outcome::Good, "a packet arrived".to_owned(), ()));
                    }
                }
            }
            let why = if other.is_some() {
                "no packet arrives: the server, or a NAT before it, does not carry packets from it \
                 to itself; give --peer, an address that sends UDP packets back"
            } else {
                "no packet comes back from the peer"
            };
            Err(bad(why.to_owned()))
        })?;
        self.step("channel", Verdict::Bad, |_| {
            let bind = |session: &mut Session, peer| {
                session
                    .ask(Ask::Channel {
                        number: channel,
                        peer,
                    })
                    .map_err(|trouble| permission_problem(&trouble, peer))
            };
            bind(&mut own.session, peer)?;
            if let Some(other) = &mut other {
                bind(&mut other.session, own_address)?;
            }
            Ok((Outcome::Good, format!("0x{:04x}", channel.get()), ()))
        })?;
        let half = self.options.duration / 2;
        let pings = self.measure(
            "round-trip",
            own,
            other.as_deref_mut(),
            channel,
            Plan::pings(half),
        )?;
        self.report.figures.rtt_p50 = pings.percentile(50);
        self.report.figures.rtt_p99 = pings.percentile(99);
        let bulk = self.measure("throughput", own, other, channel, Plan::bulk(half))?;
        self.report.figures.loss = Some(bulk.loss());
        self.report.figures.bits_per_s = Some(bulk.rate());
        Some(())
    }

    fn measure(
        &mut self,
        name: &'static str,
        own: &mut Relayed,
        other: Option<&mut Relayed>,
        channel: ChannelNumber,
        plan: Plan,
    ) -> Option<Measured> {
        self.step(name, Verdict::Bad, |_| {
            let to = other.map(|other| &mut other.session);
            let measured = measure::run(&mut own.session, to, channel, plan)
                .map_err(|error| bad(error.to_string()))?;
            let Some((median, most)) = measured.percentile(50).zip(measured.percentile(99)) else {
                return Err(bad("no packet arrives on the channel".to_owned()));
            };
            let (came, sent) = (measured.trips.len(), measured.sent);
            let loss = measured.loss() * 100.0;
            let times = format!(
                "p50 {:.2} ms, p99 {:.2} ms",
                median.as_secs_f64() * 1e3,
                most.as_secs_f64() * 1e3
            );
            let detail = if plan.is_bulk() {
                let (came_at, offered) = (measured.rate() / 1e6, plan.rate() / 1e6);
                format!("{came_at:.1} of {offered:.1} Mbit/s, {loss:.1} % of {sent} packets lost, {times}")
            } else {
                format!("{times}, {came} of {sent} packets")
            };
            let outcome = if measured.loss() > MUCH_LOSS {
                Outcome::Warning
            } else {
                Outcome::Good
            };
            Ok((outcome, detail, measured))
        })
    }

    /// The second client, whose relayed address is the peer of the first.
    fn second(&mut self, server: SocketAddr, credentials: &Credentials) -> Option<Relayed> {
        self.step("second-allocation", Verdict::Bad, |check| {
            let mut session = check.open(server).map_err(|error| bad(error.to_string()))?;
            let answer = session
                .allocate(Ask::Allocate { ipv6: Ipv6::No }, credentials)
                .map_err(|trouble| bad(allocate_problem(&trouble, credentials)))?;
            let address = answer
                .relayed
                .ok_or_else(|| bad("the answer has no relayed address".to_owned()))?;
            let second = Relayed { session, address };
            Ok((Outcome::Good, format!("relayed address {address}"), second))
        })
    }

    fn ipv6(&mut self, server: SocketAddr, credentials: &Credentials) {
        let session = self.step("ipv6", Verdict::Bad, |check| {
            let mut session = check.open(server).map_err(|error| bad(error.to_string()))?;
            match session.allocate(Ask::Allocate { ipv6: Ipv6::Yes }, credentials) {
                Ok(answer) => {
                    check.report.figures.relayed_ipv6 = answer.relayed;
                    let address = answer
                        .relayed
                        .ok_or_else(|| bad("the answer has no relayed address".to_owned()))?;
                    Ok((Outcome::Good, format!("relayed address {address}"), session))
                }
                Err(Trouble::Refused { code: 440, .. }) => {
                    Err((Outcome::Skipped, "not offered (440)".to_owned()))
                }
                Err(trouble) => Err((Outcome::Warning, trouble.to_string())),
            }
        });
        let Some(mut session) = session else { return };
        let mapped = FORBIDDEN.map(|ip| IpAddr::from(ip.to_ipv6_mapped()));
        let peers: Vec<SocketAddr> = [IpAddr::from(Ipv6Addr::LOCALHOST)]
            .into_iter()
            .chain(mapped)
            .map(|ip| SocketAddr::new(ip, 9))
            .collect();
        self.peers("peers-ipv6", &mut session, &peers);
        drop(session.ask(Ask::Refresh { lifetime: 0 }));
    }

    fn release(&mut self, session: &mut Session) {
        self.step("release", Verdict::Bad, |_| {
            match session.ask(Ask::Refresh { lifetime: 0 }) {
                Ok(_) => Ok((
                    Outcome::Good,
                    "the relayed address is given back".to_owned(),
                    (),
                )),
                Err(trouble) => Err((Outcome::Warning, trouble.to_string())),
            }
        });
    }
}

const fn bad(detail: String) -> (Outcome, String) {
    (Outcome::Bad, detail)
}

/// Why a relayed address is not to be had, and what to do.
fn allocate_problem(trouble: &Trouble, credentials: &Credentials) -> String {
    let hint = match trouble {
        Trouble::Refused { code: 401, .. } => {
            let is_ephemeral = credentials
                .username
                .split_once(':')
                .is_some_and(|(expires, _)| expires.parse::<u64>().is_ok());
            if is_ephemeral {
                ": another secret, a clock that is wrong, or credentials that have expired"
            } else {
                ": the user name or the password is not what the server has"
            }
        }
        Trouble::Refused { code: 486, .. } => ": the user has as many allocations as it may",
        Trouble::Refused { code: 508, .. } => ": the server is full, or about to end",
        Trouble::Refused { .. } | Trouble::Silence | Trouble::Io(_) => "",
    };
    format!("{trouble}{hint}")
}

/// Why a peer is not permitted, and what to do.
fn permission_problem(trouble: &Trouble, peer: SocketAddr) -> (Outcome, String) {
    let is_public = PeerPolicy::default().permits_ip(peer.ip());
    match trouble {
        Trouble::Refused { code: 403, .. } if !is_public => (
            Outcome::Skipped,
            format!(
                "{peer} is refused (403), as peers in private ranges should be: data cannot be tried \
                 from here; give --peer, or permit that address for the test"
            ),
        ),
        Trouble::Refused { code: 403, .. } => (
            Outcome::Skipped,
            format!("{peer} is refused (403): it does not relay to itself; give --peer"),
        ),
        Trouble::Refused { .. } | Trouble::Silence | Trouble::Io(_) => {
            bad(format!("{peer}: {trouble}"))
        }
    }
}

/// What is wrong with TLS, for those who do not read RFCs.
#[allow(clippy::wildcard_enum_match_arm, reason = "the list is open")]
fn tls_problem(error: &io::Error, host: &str) -> String {
    let inner = error
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<rustls::Error>());
    let Some(rustls::Error::InvalidCertificate(problem)) = inner else {
        return match inner {
            Some(other) => format!("{other}"),
            None if error.kind() == io::ErrorKind::WouldBlock => {
                "no TLS there: it says nothing; without TLS it is turn:…?transport=tcp".to_owned()
            }
            None => format!("no TLS there: {}", said(error)),
        };
    };
    let why = match problem {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            "the certificate has expired".to_owned()
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "the certificate is not valid yet, or this clock is wrong".to_owned()
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            format!("the certificate is not for {host}")
        }
        CertificateError::UnknownIssuer => {
            "nobody known here has signed the certificate: it is self-signed, or the chain is not \
             complete"
                .to_owned()
        }
        CertificateError::Other(other) if other.to_string().contains("CaUsedAsEndEntity") => {
            "the certificate is an authority's own, not a server's: as `openssl req -x509` makes it \
             unless told CA:FALSE"
                .to_owned()
        }
        other => other.to_string(),
    };
    format!("{why} (--insecure goes on all the same)")
}
