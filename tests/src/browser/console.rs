//! What pages wrote to the console: the last lines, for the report of a failure.

use std::collections::VecDeque;

use serde_json::{Value, json};

use super::{Browser, Kind};

/// Lines that are kept.
const MAX_LINES: usize = 40;

/// The last lines of the console.
#[derive(Debug, Default)]
pub(super) struct Console(VecDeque<String>);

impl Console {
    /// Takes an event of either protocol; others are passed over.
    pub(super) fn take(&mut self, event: &Value) {
        let params = &event["params"];
        let line = match event["method"].as_str() {
            Some("Runtime.consoleAPICalled") => {
                let arguments = params["args"].as_array().map_or(&[][..], Vec::as_slice);
                let texts: Vec<String> = arguments
                    .iter()
                    .map(|argument| match argument["value"].as_str() {
                        Some(text) => text.to_owned(),
                        None => argument["description"].to_string(),
                    })
                    .collect();
                format!("{}: {}", params["type"], texts.join(" "))
            }
            Some("Runtime.exceptionThrown") => {
                params["exceptionDetails"]["exception"]["description"].to_string()
            }
            Some("log.entryAdded") => format!("{}: {}", params["level"], params["text"]),
            Some(_) | None => return,
        };
        if self.0.len() == MAX_LINES {
            self.0.pop_front();
        }
        self.0.push_back(line);
    }

    /// The lines, oldest first.
    pub(super) fn text(&self) -> String {
        self.0.iter().cloned().collect::<Vec<_>>().join("\n")
    }
}

impl Browser {
    /// Asks for the console's lines.
    pub(super) async fn watch_console(&mut self) -> anyhow::Result<()> {
        match self.kind {
            Kind::Chromium => self.call("Runtime.enable", json!({})).await?,
            Kind::Firefox => {
                let params = json!({"events": ["log.entryAdded"]});
                self.call("session.subscribe", params).await?
            }
        };
        Ok(())
    }
}
