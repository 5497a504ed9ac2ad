//! What goes to standard output: data, for people or as JSON of version 1. Progress goes to standard
//! error.

use std::io::{self, IsTerminal as _, Write as _};

use serde::Serialize;

use crate::state::VERSION;

/// Shape of what is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    /// For people.
    Human,
    /// For programs.
    Json,
}

#[derive(Serialize)]
struct Versioned<'a, T> {
    v: u32,
    #[serde(flatten)]
    value: &'a T,
}

/// Prints one object: as a JSON line, or as text made by `human`.
pub(crate) fn print<T: Serialize>(
    format: Format,
    value: &T,
    human: impl FnOnce(&T) -> String,
) -> anyhow::Result<()> {
    let text = match format {
        Format::Json => serde_json::to_string(&Versioned { v: VERSION, value })?,
        Format::Human => human(value).trim_end().to_owned(),
    };
    raw(&format!("{text}\n"))?;
    Ok(())
}

/// Prints text as it is.
pub(crate) fn raw(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

/// Says what is being done.
pub(crate) fn progress(text: &str) {
    eprintln!("portway-lab: {text}");
}

/// Rows under a head, columns aligned.
pub(crate) fn table(head: &[&str], rows: &[Vec<String>]) -> String {
    let mut widths: Vec<usize> = head.iter().map(|cell| cell.chars().count()).collect();
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let line = |cells: &mut dyn Iterator<Item = &str>| {
        let text: String = cells
            .zip(&widths)
            .map(|(cell, width)| format!("{cell:<width$}  "))
            .collect();
        format!("{}\n", text.trim_end())
    };
    let mut text = line(&mut head.iter().copied());
    for row in rows {
        text.push_str(&line(&mut row.iter().map(String::as_str)));
    }
    text
}

/// A mark for good and bad, coloured where that is welcome.
pub(crate) fn mark(is_good: bool) -> &'static str {
    let is_fancy = io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    match (is_good, is_fancy) {
        (true, true) => "\u{1b}[32m✔\u{1b}[0m",
        (true, false) => "ok",
        (false, true) => "\u{1b}[31m✘\u{1b}[0m",
        (false, false) => "BAD",
    }
}
