//! Figures, the bars that they must pass, and how both are shown.

use serde_json::{Value, json};

/// One figure of each round.
pub(crate) type Rounds = Vec<f64>;

/// One line of the table.
pub(crate) struct Row {
    what: String,
    unit: &'static str,
    ours: Rounds,
    coturn: Rounds,
    forwarder: Rounds,
    bars: Vec<Bar>,
    note: String,
}

/// What was promised, and what is.
struct Bar {
    promise: String,
    value: f64,
    is_met: bool,
}

/// What our figure is compared with.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Reference {
    Coturn,
    Forwarder,
}

/// The figure in the middle: a shared machine is slow now and then.
pub(crate) fn median(rounds: &[f64]) -> f64 {
    let mut sorted = rounds.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
}

impl Row {
    pub(crate) fn new(what: impl Into<String>, unit: &'static str, ours: Rounds) -> Self {
        Self {
            what: what.into(),
            unit,
            ours,
            coturn: Vec::new(),
            forwarder: Vec::new(),
            bars: Vec::new(),
            note: String::new(),
        }
    }

    pub(crate) fn coturn(mut self, rounds: Rounds) -> Self {
        self.coturn = rounds;
        self
    }

    pub(crate) fn forwarder(mut self, rounds: Rounds) -> Self {
        self.forwarder = rounds;
        self
    }

    pub(crate) fn note(mut self, note: String) -> Self {
        self.note = note;
        self
    }

    pub(crate) fn at_most(self, limit: f64) -> Self {
        let value = median(&self.ours);
        self.bar(format!("≤ {limit}"), value, value <= limit)
    }

    pub(crate) fn at_least(self, limit: f64) -> Self {
        let value = median(&self.ours);
        self.bar(format!("≥ {limit}"), value, value >= limit)
    }

    pub(crate) fn at_most_times(self, limit: f64, reference: Reference) -> Self {
        let value = self.ratio(reference);
        let promise = format!("≤ {limit} × {reference:?}").to_lowercase();
        self.bar(promise, value, value <= limit)
    }

    pub(crate) fn at_least_times(self, limit: f64, reference: Reference) -> Self {
        let value = self.ratio(reference);
        let promise = format!("≥ {limit} × {reference:?}").to_lowercase();
        self.bar(promise, value, value >= limit)
    }

    fn bar(mut self, promise: String, value: f64, is_met: bool) -> Self {
        self.bars.push(Bar {
            promise,
            value,
            is_met,
        });
        self
    }

    /// Each round against its neighbour: what slows the machine down slows both.
    fn ratio(&self, reference: Reference) -> f64 {
        let theirs = match reference {
            Reference::Coturn => &self.coturn,
            Reference::Forwarder => &self.forwarder,
        };
        let ratios: Rounds = self.ours.iter().zip(theirs).map(|(a, b)| a / b).collect();
        median(&ratios)
    }

    pub(crate) fn print(&self) {
        let bars: Vec<String> = self
            .bars
            .iter()
            .map(|bar| {
                let verdict = if bar.is_met { "ok" } else { "MISS" };
                format!("{}: {:.2} {verdict}", bar.promise, bar.value)
            })
            .chain((!self.note.is_empty()).then(|| self.note.clone()))
            .collect();
        println!(
            "| {:<52} | {:>20} | {:>20} | {:>20} | {} |",
            format!("{}, {}", self.what, self.unit),
            shown(&self.ours),
            shown(&self.coturn),
            shown(&self.forwarder),
            bars.join("; ")
        );
    }

    pub(crate) fn json(&self) -> Value {
        let bars: Vec<Value> = self
            .bars
            .iter()
            .map(
                |bar| json!({ "bar": bar.promise, "value": rounded(bar.value), "met": bar.is_met }),
            )
            .collect();
        json!({
            "what": self.what, "unit": self.unit, "ours": figures(&self.ours),
            "coturn": figures(&self.coturn), "forwarder": figures(&self.forwarder), "bars": bars,
            "note": self.note,
        })
    }
}

pub(crate) fn print_header() {
    println!(
        "| {:<52} | {:>20} | {:>20} | {:>20} | bars |",
        "median (least–most)", "ours", "coturn", "forwarder"
    );
    println!("|{0:-<54}|{0:-<22}|{0:-<22}|{0:-<22}|---|", "");
}

fn range(rounds: &[f64]) -> (f64, f64) {
    rounds.iter().fold(
        (f64::INFINITY, f64::NEG_INFINITY),
        |(least, most), figure| (least.min(*figure), most.max(*figure)),
    )
}

fn shown(rounds: &[f64]) -> String {
    let (least, most) = range(rounds);
    match rounds {
        [] => String::new(),
        [only] => number(*only),
        _ => format!(
            "{} ({}–{})",
            number(median(rounds)),
            number(least),
            number(most)
        ),
    }
}

fn number(figure: f64) -> String {
    if figure < 100.0 {
        format!("{figure:.2}")
    } else {
        format!("{figure:.0}")
    }
}

fn figures(rounds: &[f64]) -> Value {
    if rounds.is_empty() {
        return Value::Null;
    }
    let (least, most) = range(rounds);
    json!({ "median": rounded(median(rounds)), "least": rounded(least), "most": rounded(most) })
}

/// Three places: more would be noise.
fn rounded(figure: f64) -> f64 {
    (figure * 1000.0).round() / 1000.0
}
