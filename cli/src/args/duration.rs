//! Spans of time, as people write them.

use std::time::Duration;

/// A span of time in a file.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Span(pub(crate) Duration);

impl std::str::FromStr for Span {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        parse_duration(text).map(Self)
    }
}

/// A time to wait in a file: none is a time, too.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wait(pub(crate) Duration);

impl std::str::FromStr for Wait {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        parse_wait(text).map(Self)
    }
}

/// `90`, `30s`, `15m`, `2h`, `7d`.
pub(super) fn parse_duration(text: &str) -> Result<Duration, String> {
    let duration = parse_wait(text)?;
    if duration.is_zero() {
        return Err(format!("`{text}` is out of range"));
    }
    Ok(duration)
}

/// The same, or `0`: not at all.
pub(super) fn parse_wait(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let number: u64 = digits
        .parse()
        .map_err(|_| format!("`{text}` is no duration: use 30s, 15m, 2h or 7d"))?;
    let unit = match &text[digits.len()..] {
        "" | "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        other => return Err(format!("unknown unit `{other}`: use s, m, h or d")),
    };
    number
        .checked_mul(unit)
        .map(Duration::from_secs)
        .ok_or_else(|| format!("`{text}` is out of range"))
}

/// The same, or `200ms`.
pub(super) fn parse_interval(text: &str) -> Result<Duration, String> {
    match text.strip_suffix("ms").map(str::parse) {
        Some(Ok(millis @ 1..)) => Ok(Duration::from_millis(millis)),
        Some(_) => Err(format!("`{text}` is no duration: use 200ms, 30s, 15m")),
        None => parse_duration(text),
    }
}

/// A time that a test may take.
pub(super) fn parse_measure(text: &str) -> Result<Duration, String> {
    let duration = parse_duration(text)?;
    if duration.as_secs() > 60 {
        return Err(format!("`{text}` is too long: at most 60s"));
    }
    Ok(duration)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_may_be_short() {
        assert_eq!(parse_interval("200ms").unwrap().as_millis(), 200);
        assert_eq!(parse_interval("1s").unwrap().as_secs(), 1);
        for bad in ["0ms", "ms", "-1ms", "0", ""] {
            assert!(parse_interval(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn durations_have_units() {
        assert_eq!(parse_duration("15m").unwrap().as_secs(), 900);
        assert_eq!(parse_duration("7d").unwrap().as_secs(), 604_800);
        for bad in ["", "m", "0", "1y", "-1s", "99999999999999999999d"] {
            assert!(parse_duration(bad).is_err(), "{bad}");
        }
    }
}
