//! `[limits]`: what the tunnels to this machine's services may.

use std::num::NonZeroU32;

use portway_gateway::Limits;
use serde::Deserialize;
use toml::Spanned;

use super::optional;
use crate::args::Span;

/// `[limits]`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct LimitsFile {
    idle_timeout: Option<Spanned<String>>,
    connect_timeout: Option<Spanned<String>>,
    connections: Option<NonZeroU32>,
    #[serde(skip)]
    parsed: Limits,
}

impl LimitsFile {
    /// Understands what is text; a mistake is told with its line.
    pub(super) fn understand(&mut self, text: &str) -> Result<(), String> {
        let span = |value| optional::<Span>(text, value).map(|span| span.map(|Span(span)| span));
        let default = Limits::default();
        self.parsed = Limits {
            idle_timeout: span(self.idle_timeout.as_ref())?,
            connect_timeout: span(self.connect_timeout.as_ref())?
                .unwrap_or(default.connect_timeout),
            connections: self.connections.unwrap_or(default.connections),
        };
        Ok(())
    }

    /// What it says, and for the rest the defaults.
    pub(crate) const fn limits(&self) -> Limits {
        self.parsed
    }
}
