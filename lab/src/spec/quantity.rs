//! Figures of a lab that are written as text: times, shares, rates.

use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Makes a type that is written as text.
macro_rules! quantity {
    ($(#[$doc:meta])* $name:ident($inner:ty), $parse:expr, $show:expr) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub(crate) struct $name(pub(crate) $inner);

        impl FromStr for $name {
            type Err = String;

            fn from_str(text: &str) -> Result<Self, String> {
                let parse: fn(&str) -> Result<$inner, String> = $parse;
                parse(text).map(Self)
            }
        }

        impl TryFrom<String> for $name {
            type Error = String;

            fn try_from(text: String) -> Result<Self, String> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(value: $name) -> Self {
                let show: fn($inner) -> String = $show;
                show(value.0)
            }
        }
    };
}

quantity!(
    /// A time: `20ms`, `1.5s`, `2m`.
    Span(Duration),
    |text| {
        let (number, unit) = split(text);
        let scale = match unit {
            "us" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            _ => return Err(format!("`{text}` is no time: use 20ms, 1.5s or 2m")),
        };
        let seconds = positive(text, number)? * scale;
        Duration::try_from_secs_f64(seconds).map_err(|_| format!("`{text}` is out of range"))
    },
    |span| format!("{}us", span.as_micros())
);

quantity!(
    /// A part of all: `1%`, `0.5%`.
    Share(f64),
    |text| {
        let (number, unit) = split(text);
        let share = positive(text, number)? / 100.0;
        if unit == "%" && share <= 1.0 {
            Ok(share)
        } else {
            Err(format!("`{text}` is no share: use 0% to 100%"))
        }
    },
    |share| format!("{}%", share * 100.0)
);

quantity!(
    /// Bits in a second: `800kbit`, `20mbit`, `1gbit`.
    Rate(f64),
    |text| {
        let (number, unit) = split(text);
        let scale = match unit {
            "kbit" => 1e3,
            "mbit" => 1e6,
            "gbit" => 1e9,
            _ => return Err(format!("`{text}` is no rate: use 800kbit, 20mbit or 1gbit")),
        };
        let rate = positive(text, number)? * scale;
        if rate < 1e3 {
            return Err(format!("`{text}` is too slow: at least 1kbit"));
        }
        Ok(rate)
    },
    |rate| format!("{}kbit", rate / 1e3)
);

fn split(text: &str) -> (&str, &str) {
    let at = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    text.split_at(at)
}

fn positive(text: &str, number: &str) -> Result<f64, String> {
    number
        .parse()
        .map_err(|_| format!("`{text}` does not begin with a number"))
}
