//! `[signaling]`: whom a signaling service on its own believes, and whose relays it hands out.

use std::path::{Path, PathBuf};
use std::time::Duration;

use portway_protocol::key::PublicKey;
use serde::Deserialize;
use toml::Spanned;

use super::{credentials_lifetime, optional, parse_all};
use crate::args::Span;
use crate::exit::Failure;

/// `[signaling]`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct SignalingFile {
    cluster_keys: Vec<Spanned<String>>,
    relays: Vec<RelayPart>,
    #[serde(skip)]
    parsed: Parsed,
}

/// `[[signaling.relays]]`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RelayPart {
    urls: Vec<Spanned<String>>,
    secret_file: PathBuf,
    #[serde(default)]
    credentials: Option<Spanned<String>>,
}

/// What is text in a file, understood.
#[derive(Debug, Default)]
struct Parsed {
    cluster_keys: Vec<PublicKey>,
    relays: Vec<RelayElsewhere>,
}

/// A relay of which credentials are handed out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RelayElsewhere {
    /// As browsers have them.
    pub(crate) urls: Vec<String>,
    /// File with the secret that the relay has too.
    pub(crate) secret_file: PathBuf,
    /// How long credentials are good for.
    pub(crate) credentials: Duration,
}

/// `turn:HOST:PORT` and what may follow.
struct TurnUrl(String);

impl std::str::FromStr for TurnUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        text.parse::<portway_relay_client::url::Url>()
            .map_err(|error| error.to_string())?;
        if !text.starts_with("turn") {
            return Err(format!("`{text}`: a relay starts with turn: or turns:"));
        }
        Ok(Self(text.to_owned()))
    }
}

impl SignalingFile {
    /// Understands what is text; a mistake is told with its line. Paths are relative to `folder`.
    pub(super) fn understand(&mut self, text: &str, folder: &Path) -> Result<(), String> {
        let relay = |part: &RelayPart| {
            let urls: Vec<TurnUrl> = parse_all(text, &part.urls)?;
            let credentials: Option<Span> = optional(text, part.credentials.as_ref())?;
            if urls.is_empty() {
                return Err("a relay in [[signaling.relays]] needs `urls`".to_owned());
            }
            Ok(RelayElsewhere {
                urls: urls.into_iter().map(|TurnUrl(url)| url).collect(),
                secret_file: folder.join(&part.secret_file),
                credentials: credentials_lifetime(credentials),
            })
        };
        self.parsed = Parsed {
            cluster_keys: parse_all(text, &self.cluster_keys)?,
            relays: self.relays.iter().map(relay).collect::<Result<_, _>>()?,
        };
        Ok(())
    }

    /// Keys whose machine tokens are believed.
    pub(crate) fn cluster_keys(&self) -> Result<Vec<PublicKey>, Failure> {
        if self.parsed.cluster_keys.is_empty() {
            return Err(Failure::configuration(
                "[signaling] needs `cluster_keys = [\"KEY\"]`: whose nodes it believes. `portway init` \
                 printed the key; `portway key show` does it again",
            ));
        }
        Ok(self.parsed.cluster_keys.clone())
    }

    /// Relays that clients may use.
    pub(crate) fn relays(&self) -> &[RelayElsewhere] {
        &self.parsed.relays
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn relays_are_understood_and_credentials_are_short() {
        let text = "[[relays]]\nurls = [\"turn:r.example.org:3478?transport=udp\", \"turns:r.example.org:5349?transport=tcp\"]\n\
                    secret_file = \"relay.secret\"\ncredentials = \"1h\"\n";
        let mut file: SignalingFile = toml::from_str(text).unwrap();
        file.understand(text, Path::new("/etc/portway")).unwrap();
        let [relay] = file.relays() else {
            panic!("one relay")
        };
        assert_eq!(relay.urls.len(), 2);
        assert_eq!(relay.secret_file, Path::new("/etc/portway/relay.secret"));
        assert_eq!(relay.credentials.as_secs(), 600, "ten minutes at most");
        assert!(file.cluster_keys().is_err(), "keys are needed");
    }
}
