//! How long sessions were silent when something happened to them. What is red stays, and looks red.

use super::bars::{Bar, Scale, draw as draw_bars};
use super::plot::{BLUE, DrawError, INK, RED, RED_INK};
use super::{Recovery, Verdict};

/// Draws them; nothing if there are none.
pub(super) fn draw(recoveries: &[Recovery]) -> Result<Option<String>, DrawError> {
    if recoveries.is_empty() {
        return Ok(None);
    }
    let scale = Scale {
        title: "Recovery: the longest silence",
        unit: "seconds",
        mark: "the most that is allowed",
    };
    let bars: Vec<Bar> = recoveries.iter().map(bar).collect();
    draw_bars(&scale, &bars).map(Some)
}

/// The path that was there before something happened.
pub(super) fn path(recovery: &Recovery) -> String {
    let path = recovery.path.as_ref();
    path.map_or_else(|| "no path".to_owned(), ToString::to_string)
}

fn bar(recovery: &Recovery) -> Bar {
    let (colour, ink, mark) = match recovery.verdict {
        Verdict::Good => (BLUE, INK, "✓"),
        Verdict::Red => (RED, RED_INK, "✗ RED"),
    };
    let mut words = format!("{mark} {}", recovery.stall);
    if recovery.lost > 0 {
        words.push_str(&format!(", {} lost", recovery.lost));
    }
    if !recovery.intact {
        words.push_str(", not intact");
    }
    Bar {
        label: format!(
            "{} · {} · {}",
            recovery.scenario,
            recovery.client,
            path(recovery)
        ),
        value: recovery.stall.0 / 1000.0,
        mark: recovery.bar.map(|bar| bar.0 / 1000.0),
        colour,
        words: (words, ink),
        note: recovery.note.clone(),
    }
}
