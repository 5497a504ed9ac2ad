//! What goes to standard output: data, for people or as JSON lines of version 1.

use std::io::{self, IsTerminal as _, Write as _};

use serde::Serialize;

use crate::args::Format;

/// Version of everything printed with `--json`.
pub(crate) const JSON_VERSION: u32 = 1;

/// An object with its version.
#[derive(Serialize)]
struct Versioned<'a, T> {
    v: u32,
    #[serde(flatten)]
    value: &'a T,
}

/// Where a command prints what it has to tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stream {
    /// Standard output.
    Output,
    /// Standard error, where something else goes to standard output.
    Error,
}

/// Prints one object: as a JSON line, or as text made by `human`.
pub(crate) fn print<T: Serialize>(
    format: Format,
    value: &T,
    human: impl FnOnce(&T) -> String,
) -> io::Result<()> {
    print_to(Stream::Output, format, value, human)
}

/// The same, to where it shall go.
pub(crate) fn print_to<T: Serialize>(
    stream: Stream,
    format: Format,
    value: &T,
    human: impl FnOnce(&T) -> String,
) -> io::Result<()> {
    let mut out: Box<dyn io::Write> = match stream {
        Stream::Output => Box::new(io::stdout().lock()),
        Stream::Error => Box::new(io::stderr().lock()),
    };
    match format {
        Format::Json => {
            serde_json::to_writer(
                &mut out,
                &Versioned {
                    v: JSON_VERSION,
                    value,
                },
            )?;
            writeln!(out)?;
        }
        Format::Human => writeln!(out, "{}", human(value).trim_end())?,
    }
    out.flush()
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

/// Whether colours and drawings are welcome.
pub(crate) fn is_fancy() -> bool {
    io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none()
}

/// A QR code in half blocks, dark on light whatever the terminal's colours.
pub(crate) fn qr(text: &str) -> Option<String> {
    use qrcode::render::unicode::Dense1x2;
    let code = qrcode::QrCode::with_error_correction_level(text, qrcode::EcLevel::L).ok()?;
    let drawn = code
        .render::<Dense1x2>()
        .dark_color(Dense1x2::Light)
        .light_color(Dense1x2::Dark)
        .build();
    Some(drawn)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned() {
        let text = table(
            &["NAME", "X"],
            &[
                vec!["a".into(), "1".into()],
                vec!["longer".into(), "2".into()],
            ],
        );
        assert_eq!(text, "NAME    X\na       1\nlonger  2\n");
    }

    #[test]
    fn a_link_fits_a_qr_code() {
        let link = format!(
            "http://lab.home.localhost:8080/#v1.home.{}.{}.{}",
            "k".repeat(43),
            "i".repeat(12),
            "s".repeat(43)
        );
        assert!(qr(&link).unwrap().lines().count() < 40);
    }
}
