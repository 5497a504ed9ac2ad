//! Text for other programs, line by line: batches, rulesets, configurations.

use std::fmt::{Arguments, Write as _};

/// Appends a line.
pub(crate) fn put(text: &mut String, line: Arguments<'_>) {
    writeln!(text, "{line}").expect("writing to a String");
}
