//! `portway publish` and `portway subscribe`.

use std::str::FromStr;

use clap::Args;
use portway_protocol::id::ServiceName;
use portway_protocol::message::{Filter, MessageId, Topic};

use super::Credentials;

/// `portway publish`.
#[derive(Debug, Args)]
pub(crate) struct Publish {
    #[command(flatten)]
    pub(crate) credentials: Credentials,
    /// What it says [default: standard input, for what other users of this machine shall not read]
    #[arg(long, short, value_name = "TEXT")]
    pub(crate) message: Option<String>,
    /// Media type of what it says [default: text/plain if it is text]
    #[arg(long, value_name = "TYPE")]
    pub(crate) content_type: Option<String>,
    /// The bus, and what the message is about, e.g. bus/alarms/cellar
    #[arg(value_name = "SERVICE/TOPIC")]
    pub(crate) topic: At<Topic>,
}

/// `portway subscribe`.
#[derive(Debug, Args)]
pub(crate) struct Subscribe {
    #[command(flatten)]
    pub(crate) credentials: Credentials,
    /// Begin after this message, as far as later ones are kept [default: with those that come from now on]
    #[arg(long, value_name = "ID")]
    pub(crate) since: Option<MessageId>,
    /// The bus, and what to hear: a topic, all below one (bus/alarms/*), or everything (bus/*); may be repeated
    #[arg(value_name = "SERVICE/TOPIC", required = true)]
    pub(crate) topics: Vec<At<Filter>>,
}

/// A topic, or several, of the bus of that name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct At<T> {
    pub(crate) service: ServiceName,
    pub(crate) topic: T,
}

impl<T: FromStr<Err: std::fmt::Display>> FromStr for At<T> {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (service, topic) = text
            .split_once('/')
            .ok_or_else(|| format!("`{text}`: expected SERVICE/TOPIC, e.g. bus/alarms/cellar"))?;
        Ok(Self {
            service: service.parse().map_err(|error| format!("{error}"))?,
            topic: topic.parse().map_err(|error| format!("{error}"))?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_service_comes_first() {
        let at: At<Topic> = "bus/alarms/cellar".parse().unwrap();
        assert_eq!(
            (at.service.as_str(), at.topic.as_str()),
            ("bus", "alarms/cellar")
        );
        for text in ["bus", "bus/", "/alarms", "bus/*", "bus/a//b"] {
            assert!(text.parse::<At<Topic>>().is_err(), "{text}");
        }
        assert_eq!("bus/*".parse::<At<Filter>>().unwrap().topic, Filter::All);
    }
}
