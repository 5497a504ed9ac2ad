//! Texts of others, to be shown.

/// What somebody else has written, without what a terminal would obey.
#[must_use]
pub fn printable(text: &str) -> String {
    let mut printable = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() {
            printable.extend(c.escape_default());
        } else {
            printable.push(c);
        }
    }
    printable
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_wrote_does_not_drive_the_terminal() {
        assert_eq!(printable("änn\u{1b}[2J\n"), "änn\\u{1b}[2J\\n");
    }
}
