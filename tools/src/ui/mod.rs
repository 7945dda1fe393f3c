//! What a person at a terminal sees: colours, tables, units, a progress line. No knowledge of mail.
//!
//! Every command builds its whole text as a string and hands it to [`print()`]; styles are written always and taken out
//! there when nobody would see them, so no other place asks whether there is a terminal.

pub(crate) mod colour;
pub(crate) mod progress;
pub(crate) mod table;
pub(crate) mod units;

use std::io::{self, ErrorKind, Write};

/// Writes `text` to standard output, without its styles unless that is a terminal (NO_COLOR and `--color` honoured).
///
/// A reader that went away (`| head`) is not an error.
///
/// # Errors
/// Any other failure to write.
pub(crate) fn print(text: &str) -> io::Result<()> {
    quiet_pipe(anstream::AutoStream::auto(io::stdout().lock()).write_all(text.as_bytes()))
}

/// Writes one JSON document and a newline to standard output.
///
/// # Errors
/// A failure to write, other than a reader that went away.
pub(crate) fn print_json<T: serde::Serialize>(value: &T) -> io::Result<()> {
    let mut text = serde_json::to_string_pretty(value)?;
    text.push('\n');
    quiet_pipe(io::stdout().lock().write_all(text.as_bytes()))
}

/// Writes a line for the operator to standard error, with styles only on a terminal.
pub(crate) fn note(text: &str) {
    // Nothing is left to do when standard error is closed.
    let _ = writeln!(anstream::AutoStream::auto(io::stderr().lock()), "{text}");
}

fn quiet_pipe(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_that_went_away_is_no_error() {
        assert!(quiet_pipe(Err(ErrorKind::BrokenPipe.into())).is_ok());
        assert!(quiet_pipe(Err(ErrorKind::StorageFull.into())).is_err());
    }
}
