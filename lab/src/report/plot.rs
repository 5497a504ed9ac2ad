//! What drawings are made of: a canvas that is SVG in the end, and colours for light and dark.
//!
//! Text is drawn as text, in whatever sans-serif font the reader has: no font is needed here. Colours
//! are written as they are in light; [`style`] changes them where a reader prefers dark.

use std::fmt::Write as _;
use std::io;

use plotters::coord::Shift;
use plotters::prelude::{
    DrawingArea, DrawingAreaErrorKind, FontStyle, IntoDrawingArea as _, IntoFont as _, PathElement,
    RGBColor, Rectangle, SVGBackend, ShapeStyle,
};
use plotters::style::text_anchor::{HPos, Pos, VPos};
use thiserror::Error;

/// A drawing failed.
#[derive(Debug, Error)]
#[error("cannot draw: {0}")]
pub(crate) struct DrawError(#[from] DrawingAreaErrorKind<io::Error>);

/// A colour, `0xRRGGBB`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Colour {
    light: u32,
    dark: u32,
}

/// Behind everything.
pub(super) const PAPER: Colour = Colour::of(0xfd_fdfc, 0x16_181c);
/// Text.
pub(super) const INK: Colour = Colour::of(0x1f_2328, 0xe6_e8eb);
/// Text that matters less.
pub(super) const FAINT: Colour = Colour::of(0x62_6970, 0x9a_a2ab);
/// Lines of a scale.
pub(super) const GRID: Colour = Colour::of(0xd8_dce0, 0x3a_4048);
/// Direct, and good: blue and orange, and their brightness, differ for every eye.
pub(super) const BLUE: Colour = Colour::fixed(0x00_72b2);
/// Relayed.
pub(super) const ORANGE: Colour = Colour::fixed(0xe6_9f00);
/// Failed, and red.
pub(super) const RED: Colour = Colour::fixed(0xb0_1e28);
/// Text that says something is red.
pub(super) const RED_INK: Colour = Colour::of(0xa8_1c26, 0xff_8a80);
/// Text on blue and red.
pub(super) const WHITE: Colour = Colour::fixed(0xff_ffff);
/// Text on orange.
pub(super) const BLACK: Colour = Colour::fixed(0x00_0000);

/// Those that change, with their names in style sheets.
const CHANGING: [(&str, Colour); 5] = [
    ("paper", PAPER),
    ("ink", INK),
    ("faint", FAINT),
    ("grid", GRID),
    ("red", RED_INK),
];

impl Colour {
    const fn of(light: u32, dark: u32) -> Self {
        Self { light, dark }
    }

    /// The same in light and dark.
    const fn fixed(colour: u32) -> Self {
        Self::of(colour, colour)
    }

    fn rgb(self) -> RGBColor {
        let [_, red, green, blue] = self.light.to_be_bytes();
        RGBColor(red, green, blue)
    }
}

/// A style sheet for drawings: `var(--paper)`, `--ink`, `--faint`, `--grid`, `--red`.
pub(super) fn style() -> String {
    let mut light = String::new();
    let mut dark = String::new();
    let mut drawn = String::new();
    for (name, colour) in CHANGING {
        put(&mut light, format_args!("--{name}:#{:06x};", colour.light));
        put(&mut dark, format_args!("--{name}:#{:06x};", colour.dark));
        for attribute in ["fill", "stroke"] {
            put(
                &mut drawn,
                format_args!(
                    "[{attribute}=\"#{:06X}\"]{{{attribute}:var(--{name})}}\n",
                    colour.light
                ),
            );
        }
    }
    format!(":root{{{light}}}\n@media (prefers-color-scheme: dark){{:root{{{dark}}}}}\n{drawn}")
}

/// A drawing as a file of its own.
pub(super) fn stand_alone(svg: &str) -> String {
    match svg.split_once('>') {
        Some((start, rest)) => format!("{start}><style>\n{}</style>{rest}", style()),
        None => svg.to_owned(),
    }
}

/// `<`, `>`, `&` and quotes, as HTML and SVG want them.
pub(super) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '&' => escaped.push_str("&amp;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            other => escaped.push(other),
        }
    }
    escaped
}

/// At most so many letters of a text: what is too long ends in `…`.
pub(super) fn fit(text: &str, letters: usize) -> String {
    if text.chars().count() <= letters {
        return text.to_owned();
    }
    let start = text.chars().take(letters.saturating_sub(1));
    start.chain(['…']).collect()
}

/// Where text stands beside its point.
#[derive(Debug, Clone, Copy)]
pub(super) enum Anchor {
    /// Begins there.
    Start,
    /// Its middle is there.
    Middle,
    /// Ends there.
    End,
}

/// How text looks.
#[derive(Debug, Clone, Copy)]
pub(super) struct Lettering {
    pub(super) pixels: f64,
    pub(super) colour: Colour,
    pub(super) anchor: Anchor,
    pub(super) weight: Weight,
}

/// How heavy text is.
#[derive(Debug, Clone, Copy)]
pub(super) enum Weight {
    Normal,
    Bold,
}

impl Lettering {
    /// Text from its point on.
    pub(super) const fn of(pixels: f64, colour: Colour) -> Self {
        Self {
            pixels,
            colour,
            anchor: Anchor::Start,
            weight: Weight::Normal,
        }
    }

    pub(super) const fn at(self, anchor: Anchor) -> Self {
        Self { anchor, ..self }
    }

    pub(super) const fn bold(self) -> Self {
        Self {
            weight: Weight::Bold,
            ..self
        }
    }
}

/// A place, pixels from the upper left corner.
pub(super) type Point = (i32, i32);

/// What is drawn on.
pub(super) struct Canvas<'a>(DrawingArea<SVGBackend<'a>, Shift>);

/// Makes a drawing; `title` is for those who do not see it.
pub(super) fn draw(
    title: &str,
    size: (u32, u32),
    paint: impl FnOnce(&Canvas<'_>) -> Result<(), DrawError>,
) -> Result<String, DrawError> {
    let mut svg = String::new();
    let canvas = Canvas(SVGBackend::with_string(&mut svg, size).into_drawing_area());
    canvas.0.fill(&PAPER.rgb())?;
    paint(&canvas)?;
    canvas.0.present()?;
    drop(canvas);
    let labelled = format!("<svg role=\"img\" aria-label=\"{}\" ", escape(title));
    Ok(svg.replacen("<svg ", &labelled, 1))
}

impl Canvas<'_> {
    /// A filled rectangle.
    pub(super) fn block(&self, from: Point, to: Point, colour: Colour) -> Result<(), DrawError> {
        let filled = ShapeStyle::from(&colour.rgb()).filled();
        Ok(self.0.draw(&Rectangle::new([from, to], filled))?)
    }

    /// A line.
    pub(super) fn line(
        &self,
        from: Point,
        to: Point,
        colour: Colour,
        width: u32,
    ) -> Result<(), DrawError> {
        let stroke = ShapeStyle::from(&colour.rgb()).stroke_width(width);
        Ok(self.0.draw(&PathElement::new(vec![from, to], stroke))?)
    }

    /// A line of text, its middle at the point's height.
    pub(super) fn text(
        &self,
        text: &str,
        point: Point,
        lettering: Lettering,
    ) -> Result<(), DrawError> {
        let horizontal = match lettering.anchor {
            Anchor::Start => HPos::Left,
            Anchor::Middle => HPos::Center,
            Anchor::End => HPos::Right,
        };
        let weight = match lettering.weight {
            Weight::Normal => FontStyle::Normal,
            Weight::Bold => FontStyle::Bold,
        };
        let font = ("sans-serif", lettering.pixels * POINTS).into_font();
        let style = font
            .style(weight)
            .color(&lettering.colour.rgb())
            .pos(Pos::new(horizontal, VPos::Center));
        Ok(self.0.draw_text(text, &style, point)?)
    }
}

/// What `plotters` divides sizes of letters by.
const POINTS: f64 = 1.24;

fn put(text: &mut String, piece: std::fmt::Arguments<'_>) {
    text.write_fmt(piece).expect("writing to a String");
}
