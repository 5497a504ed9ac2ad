//! Horizontal bars under a scale, each with a mark that it is compared with.

use plotters::coord::ranged1d::Ranged as _;
use plotters::coord::types::RangedCoordf64;

use super::plot::{
    Anchor, Canvas, Colour, DrawError, FAINT, GRID, INK, Lettering, Point, draw as draw_plot, fit,
};

/// A bar.
pub(super) struct Bar {
    pub(super) label: String,
    pub(super) value: f64,
    /// What it is compared with.
    pub(super) mark: Option<f64>,
    pub(super) colour: Colour,
    /// Behind the bar, with its colour.
    pub(super) words: (String, Colour),
    /// Below the bar, in the colour of the words.
    pub(super) note: Option<String>,
}

/// What all bars have in common.
pub(super) struct Scale<'a> {
    pub(super) title: &'a str,
    /// Of the scale.
    pub(super) unit: &'a str,
    /// What a mark means.
    pub(super) mark: &'a str,
}

/// Whole width, pixels.
const WIDTH: i32 = 1120;

/// Where bars begin: their labels are on the left.
const LEFT: i32 = 470;

/// Where the longest bar, or the farthest mark, ends: words are on the right.
const RIGHT: i32 = 820;

/// Where the first row begins: title and scale are above.
const TOP: i32 = 72;

/// Height of a row, and what a note adds.
const ROW: i32 = 34;
const NOTE: i32 = 20;

/// Half of a bar's height.
const HALF: i32 = 9;

/// Lines of the scale.
const TICKS: usize = 6;

/// Letters that fit: of a label, of words, of a note.
const LABEL: usize = 67;
const WORDS: usize = 48;
const NOTED: usize = 100;

/// Draws bars, the first one at the top.
pub(super) fn draw(scale: &Scale<'_>, bars: &[Bar]) -> Result<String, DrawError> {
    let figures = bars.iter().flat_map(|bar| [Some(bar.value), bar.mark]);
    let longest = figures.flatten().fold(0.0, f64::max);
    let longest = if longest > 0.0 { longest } else { 1.0 };
    let x = |value: f64| LEFT + (f64::from(RIGHT - LEFT) * value / longest).round() as i32;
    let bottom = TOP + bars.iter().map(height).sum::<i32>();
    let size = (WIDTH.unsigned_abs(), (bottom + 16).unsigned_abs());
    draw_plot(scale.title, size, |canvas| {
        head(canvas, scale)?;
        let ticks = RangedCoordf64::from(0.0..longest).key_points(TICKS);
        for tick in ticks {
            canvas.line((x(tick), TOP - 6), (x(tick), bottom), GRID, 1)?;
            let figure = Lettering::of(11.5, FAINT).at(Anchor::Middle);
            canvas.text(&tick.to_string(), (x(tick), TOP - 16), figure)?;
        }
        let mut y = TOP;
        for bar in bars {
            row(canvas, bar, (x(bar.value), y + ROW / 2), bar.mark.map(x))?;
            y += height(bar);
        }
        Ok(())
    })
}

fn height(bar: &Bar) -> i32 {
    ROW + if bar.note.is_some() { NOTE } else { 0 }
}

fn head(canvas: &Canvas<'_>, scale: &Scale<'_>) -> Result<(), DrawError> {
    canvas.text(scale.title, (16, 22), Lettering::of(16.0, INK).bold())?;
    let faint = Lettering::of(12.0, FAINT);
    let unit_at = (LEFT - 14, TOP - 16);
    canvas.text(scale.unit, unit_at, faint.at(Anchor::End))?;
    let end = WIDTH - 16;
    canvas.text(scale.mark, (end, 22), faint.at(Anchor::End))?;
    let letters = i32::try_from(scale.mark.chars().count()).unwrap_or(0);
    let key = end - letters * 6 - 14;
    canvas.line((key, 12), (key, 32), INK, 3)
}

/// `end` is where the bar ends, in the middle of the row.
fn row(canvas: &Canvas<'_>, bar: &Bar, end: Point, mark: Option<i32>) -> Result<(), DrawError> {
    let (end, y) = end;
    let label = Lettering::of(13.0, INK).at(Anchor::End);
    canvas.text(&fit(&bar.label, LABEL), (LEFT - 14, y), label)?;
    // Nothing is seen of a bar without a width.
    canvas.block((LEFT, y - HALF), (end.max(LEFT + 2), y + HALF), bar.colour)?;
    if let Some(mark) = mark {
        canvas.line((mark, y - HALF - 4), (mark, y + HALF + 4), INK, 3)?;
    }
    let (words, colour) = &bar.words;
    let behind = end.max(mark.unwrap_or(end)) + 12;
    let look = Lettering::of(12.5, *colour);
    canvas.text(&fit(words, WORDS), (behind, y), look)?;
    let Some(note) = &bar.note else {
        return Ok(());
    };
    let below = (LEFT, y + ROW / 2 + NOTE / 2 - 6);
    canvas.text(&fit(note, NOTED), below, Lettering::of(12.0, *colour))
}
