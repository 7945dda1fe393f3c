//! The few colours of the interface, each named after what it says.

use anstyle::{AnsiColor, Style};

/// It went as it should.
pub(crate) const GOOD: Style = AnsiColor::Green.on_default();
/// It failed for good.
pub(crate) const BAD: Style = AnsiColor::Red.on_default().bold();
/// It waits, or deserves a look.
pub(crate) const WARN: Style = AnsiColor::Yellow.on_default();
/// Of less weight than its neighbours.
pub(crate) const DIM: Style = Style::new().dimmed();
/// A heading.
pub(crate) const HEAD: Style = Style::new().bold();

/// `text` in `style`.
pub(crate) fn paint(style: Style, text: impl std::fmt::Display) -> String {
    format!("{style}{text}{style:#}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn painted_text_is_closed_and_can_be_stripped() {
        let painted = paint(BAD, "lost");
        assert!(painted.ends_with("\u{1b}[0m"));
        assert_eq!(anstream::adapter::strip_str(&painted).to_string(), "lost");
    }
}
