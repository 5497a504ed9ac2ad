//! Who reaches whom: a row for each network of a client, a column for each network of a node.
//!
//! A cell says it three times, so that no eye depends on its colour: by colour, by letter, in words
//! below.

use super::plot::{
    Anchor, BLACK, BLUE, Canvas, Colour, DrawError, FAINT, GRID, INK, Lettering, ORANGE, Point,
    RED, WHITE, draw as draw_plot, fit,
};
use super::summary::ClientSummary;
use super::{Attempt, Client, Millis, Outcome, Way};

/// A cell, pixels.
const CELL: (i32, i32) = (84, 44);

/// Between cells.
const GAP: i32 = 3;

/// Where the first cell is: names of rows on its left, title and names of columns above.
const ORIGIN: Point = (136, 92);

/// Below the cells: the legend.
const LEGEND: i32 = 52;

/// Letters of a network's name that fit.
const NAME: usize = 12;

/// Smallest width, so that title and legend fit.
const MIN_WIDTH: i32 = 560;

/// Draws the matrix of a client.
pub(super) fn draw(client: Client, attempts: &[&Attempt]) -> Result<String, DrawError> {
    let (rows, columns) = names(attempts);
    let width = (ORIGIN.0 + CELL.0 * count(&columns) + 16).max(MIN_WIDTH);
    let bottom = ORIGIN.1 + CELL.1 * count(&rows);
    let summary = ClientSummary::of(client, attempts);
    let title = format!(
        "{client}: {} of {} pairs connected",
        summary.connected(),
        summary.attempts
    );
    let size = (width.unsigned_abs(), (bottom + LEGEND).unsigned_abs());
    draw_plot(&title, size, |canvas| {
        canvas.text(&title, (16, 22), Lettering::of(16.0, INK).bold())?;
        let axis = Lettering::of(12.0, FAINT);
        canvas.text("node’s network →", (ORIGIN.0, 48), axis)?;
        let corner = (ORIGIN.0 - 10, ORIGIN.1 - 16);
        canvas.text("client’s network ↓", corner, axis.at(Anchor::End))?;
        let name = Lettering::of(13.0, INK);
        for (column, x) in columns.iter().zip((ORIGIN.0..).step_by(STEP.0)) {
            let point = (x + CELL.0 / 2, ORIGIN.1 - 16);
            canvas.text(&fit(column, NAME), point, name.at(Anchor::Middle))?;
        }
        for (row, y) in rows.iter().zip((ORIGIN.1..).step_by(STEP.1)) {
            let point = (ORIGIN.0 - 10, y + CELL.1 / 2);
            canvas.text(&fit(row, NAME), point, name.at(Anchor::End))?;
            for (column, x) in columns.iter().zip((ORIGIN.0..).step_by(STEP.0)) {
                let found = attempts
                    .iter()
                    .find(|attempt| attempt.from == *row && attempt.to == *column);
                cell(canvas, (x, y), found.map(|attempt| &attempt.outcome))?;
            }
        }
        legend(canvas, bottom + LEGEND / 2)
    })
}

/// Cells, for iterators.
const STEP: (usize, usize) = (CELL.0 as usize, CELL.1 as usize);

/// Names of rows and columns, both in the order in which any of them comes first.
fn names<'a>(attempts: &[&'a Attempt]) -> (Vec<&'a str>, Vec<&'a str>) {
    let mut all: Vec<&str> = Vec::new();
    for attempt in attempts {
        for name in [attempt.from.as_str(), attempt.to.as_str()] {
            if !all.contains(&name) {
                all.push(name);
            }
        }
    }
    let is_row = |name: &&&str| attempts.iter().any(|attempt| attempt.from == **name);
    let is_column = |name: &&&str| attempts.iter().any(|attempt| attempt.to == **name);
    let rows = all.iter().filter(is_row).copied().collect();
    let columns = all.iter().filter(is_column).copied().collect();
    (rows, columns)
}

fn count(names: &[&str]) -> i32 {
    i32::try_from(names.len()).unwrap_or(i32::MAX)
}

/// Letter, colour, and the colour of what is written on it.
const DIRECT: (&str, Colour, Colour) = ("D", BLUE, WHITE);
const RELAYED: (&str, Colour, Colour) = ("R", ORANGE, BLACK);
const FAILED: (&str, Colour, Colour) = ("F", RED, WHITE);

fn cell(canvas: &Canvas<'_>, at: Point, outcome: Option<&Outcome>) -> Result<(), DrawError> {
    let (look, words) = match outcome {
        None => {
            let middle = (at.0 + CELL.0 / 2, at.1 + CELL.1 / 2);
            return canvas.text("·", middle, Lettering::of(14.0, FAINT).at(Anchor::Middle));
        }
        Some(Outcome::Connected { way, open }) => {
            let look = match way {
                Way::Direct => DIRECT,
                Way::Relayed => RELAYED,
            };
            (look, Millis::to_string(open))
        }
        Some(Outcome::Failed { .. }) => (FAILED, "failed".to_owned()),
    };
    let (letter, colour, ink) = look;
    let end = (at.0 + CELL.0 - GAP, at.1 + CELL.1 - GAP);
    canvas.block(at, end, colour)?;
    let middle = at.1 + (CELL.1 - GAP) / 2;
    canvas.text(letter, (at.0 + 9, middle), Lettering::of(15.0, ink).bold())?;
    let words_at = (at.0 + CELL.0 - GAP - 8, middle);
    canvas.text(&words, words_at, Lettering::of(12.5, ink).at(Anchor::End))
}

fn legend(canvas: &Canvas<'_>, y: i32) -> Result<(), DrawError> {
    let mut x = 16;
    for ((letter, colour, ink), words, width) in [
        (DIRECT, "direct", 92),
        (RELAYED, "relayed", 102),
        (FAILED, "failed", 92),
    ] {
        canvas.block((x, y - 11), (x + 22, y + 11), colour)?;
        let look = Lettering::of(13.0, ink).bold().at(Anchor::Middle);
        canvas.text(letter, (x + 11, y), look)?;
        canvas.text(words, (x + 30, y), Lettering::of(13.0, INK))?;
        x += width;
    }
    canvas.line((x, y - 11), (x, y + 11), GRID, 1)?;
    let faint = Lettering::of(12.5, FAINT);
    canvas.text("· not measured", (x + 14, y), faint)?;
    canvas.text("ms: until the session is open", (x + 120, y), faint)
}
