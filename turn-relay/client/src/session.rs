//! One client of a server: it asks, is answered, proves itself, and passes data.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use portway_relay_proto::channel::ChannelNumber;

use crate::connection::Connection;
use crate::message::{
    Answer, Ask, Credentials, Heard, Proof, channel_packet, hear, send_indication,
};

/// When a request is sent again, and when it is given up (RFC 8489 §6.2.1, shortened).
const RETRIES: &[Duration] = &[
    Duration::from_millis(500),
    Duration::from_millis(1000),
    Duration::from_millis(2000),
];

/// Packets of peers that wait while an answer is awaited.
const MAX_WAITING: usize = 4096;

/// Bytes of one, more than any of ours: the server may be anybody's.
const MAX_PAYLOAD: usize = 2048;

/// Why there is no good answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Trouble {
    /// Nobody says anything.
    #[error("no answer in {:.1} s", RETRIES.iter().sum::<Duration>().as_secs_f64())]
    Silence,
    /// No.
    #[error("refused: {code}{}", quoted(.words))]
    Refused { code: u16, words: String },
    /// The system's.
    #[error("{}", said(.0))]
    Io(#[from] io::Error),
}

/// What a server adds to its code.
fn quoted(words: &str) -> String {
    if words.is_empty() {
        String::new()
    } else {
        format!(" {words}")
    }
}

/// What the system says, in words for those who only look for an address.
#[allow(clippy::wildcard_enum_match_arm, reason = "the system's list is open")]
pub(crate) fn said(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "nobody listens there".to_owned(),
        io::ErrorKind::UnexpectedEof => "the server closed the connection".to_owned(),
        io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => {
            "no answer: a firewall may drop it".to_owned()
        }
        _ => error.to_string(),
    }
}

/// A packet of a peer, and when it came.
pub(crate) struct Received {
    pub(crate) payload: Vec<u8>,
    pub(crate) at: Instant,
}

/// A client.
pub(crate) struct Session {
    connection: Connection,
    proof: Option<Proof>,
    waiting: VecDeque<Received>,
}

impl Session {
    pub(crate) const fn new(connection: Connection) -> Self {
        Self {
            connection,
            proof: None,
            waiting: VecDeque::new(),
        }
    }

    pub(crate) const fn connection(&mut self) -> &mut Connection {
        &mut self.connection
    }

    /// Asks once, as it stands, and waits for the answer, whichever it is.
    pub(crate) fn exchange(&mut self, ask: Ask) -> Result<Answer, Trouble> {
        let (bytes, transaction) = ask.bytes(self.proof.as_ref());
        let give_up = Instant::now() + RETRIES.iter().sum::<Duration>();
        for wait in RETRIES {
            self.connection.send(&bytes)?;
            let again = if self.connection.is_lossy() {
                Instant::now() + *wait
            } else {
                give_up
            };
            while let Some(heard) = self.hear(again)? {
                if let Heard::Answer(id, answer) = heard
                    && id == transaction
                {
                    return Ok(answer);
                }
            }
            if again >= give_up {
                break;
            }
        }
        Err(Trouble::Silence)
    }

    /// Asks; a stale nonce is made good.
    pub(crate) fn ask(&mut self, ask: Ask) -> Result<Answer, Trouble> {
        const STALE_NONCE: u16 = 438;
        let mut answer = self.exchange(ask)?;
        if let (Some((STALE_NONCE, _)), Some(nonce), Some(proof)) =
            (&answer.error, &answer.nonce, &mut self.proof)
        {
            proof.nonce.clone_from(nonce);
            answer = self.exchange(ask)?;
        }
        match answer.error {
            Some((code, words)) => Err(Trouble::Refused { code, words }),
            None => Ok(answer),
        }
    }

    /// Proves itself from now on, as a challenge has asked.
    pub(crate) fn prove(&mut self, credentials: &Credentials, realm: &str, nonce: &str) {
        self.proof = Some(Proof::new(credentials, realm, nonce));
    }

    /// Fetches a challenge, and allocates with these credentials.
    pub(crate) fn allocate(
        &mut self,
        ask: Ask,
        credentials: &Credentials,
    ) -> Result<Answer, Trouble> {
        self.proof = None;
        let challenge = self.exchange(ask)?;
        match (challenge.error, challenge.realm, challenge.nonce) {
            (Some((401, _)), Some(realm), Some(nonce)) => {
                self.prove(credentials, &realm, &nonce);
                self.ask(ask)
            }
            (Some((code, words)), _, _) => Err(Trouble::Refused { code, words }),
            (None, _, _) => Err(Trouble::Refused {
                code: 0,
                words: "the server asks for no credentials".to_owned(),
            }),
        }
    }

    /// Sends to a peer by an indication.
    pub(crate) fn indicate(&mut self, peer: SocketAddr, payload: &[u8]) -> io::Result<()> {
        self.connection.send(&send_indication(peer, payload))
    }

    /// Sends to a peer on a channel.
    pub(crate) fn send(&mut self, channel: ChannelNumber, payload: &[u8]) -> io::Result<()> {
        self.connection.send(&channel_packet(channel, payload))
    }

    /// A packet of a peer, if one comes until then.
    pub(crate) fn receive(&mut self, deadline: Instant) -> io::Result<Option<Received>> {
        loop {
            if let Some(received) = self.waiting.pop_front() {
                return Ok(Some(received));
            }
            if self.hear(deadline)?.is_none() {
                return Ok(self.waiting.pop_front());
            }
        }
    }

    /// What comes until then. Data waits for [`Session::receive`].
    fn hear(&mut self, deadline: Instant) -> io::Result<Option<Heard>> {
        let Some(packet) = self.connection.receive(deadline)? else {
            return Ok(None);
        };
        let heard = hear(&packet, self.proof.as_ref());
        if let Heard::Data(payload) = &heard
            && payload.len() <= MAX_PAYLOAD
            && self.waiting.len() < MAX_WAITING
        {
            self.waiting.push_back(Received {
                payload: payload.clone(),
                at: Instant::now(),
            });
        }
        Ok(Some(heard))
    }
}
