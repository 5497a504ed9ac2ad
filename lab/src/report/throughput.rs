//! How much went through in a second, beside a reference of the same run.

use super::Throughput;
use super::bars::{Bar, Scale, draw as draw_bars};
use super::plot::{BLUE, DrawError, INK};

/// Draws them; nothing if there are none.
pub(super) fn draw(throughputs: &[Throughput]) -> Result<Option<String>, DrawError> {
    if throughputs.is_empty() {
        return Ok(None);
    }
    let scale = Scale {
        title: "Throughput",
        unit: "MB/s",
        mark: "the reference, in the same run",
    };
    let bars: Vec<Bar> = throughputs.iter().map(bar).collect();
    draw_bars(&scale, &bars).map(Some)
}

fn bar(throughput: &Throughput) -> Bar {
    let mut words = throughput.rate.to_string();
    if let Some(reference) = &throughput.reference {
        let beside = format!("{} {}", reference.name, reference.rate);
        words = if reference.rate.0 > 0.0 {
            let percent = 100.0 * throughput.rate.0 / reference.rate.0;
            format!("{words}, {percent:.0} % of {beside}")
        } else {
            format!("{words}, {beside}")
        };
    }
    Bar {
        label: throughput.name.clone(),
        value: throughput.rate.0,
        mark: throughput
            .reference
            .as_ref()
            .map(|reference| reference.rate.0),
        colour: BLUE,
        words: (words, INK),
        note: None,
    }
}
