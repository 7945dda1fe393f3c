//! Lines of an import and an export: `address,REASON`, or JSON `{"emailAddress": …, "reason": …}`.

use super::{
    Put,
    db::{Entry, Norm},
};
use mailrail_queue::{admit::suppress::Reason, time::Wall};
use serde::Deserialize;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct JsonLine {
    email_address: String,
    reason: Option<String>,
}

/// A reason by its word; `MANUAL` only where the host's own wire is spoken.
pub(crate) fn reason_of(word: &str) -> Result<Reason, String> {
    match word {
        "BOUNCE" => Ok(Reason::Bounce),
        "COMPLAINT" => Ok(Reason::Complaint),
        "MANUAL" => Ok(Reason::Manual),
        _ => Err(format!("\"{word}\" is no reason: BOUNCE, COMPLAINT or MANUAL")),
    }
}

/// The word of a reason.
pub(crate) fn word_of(reason: Reason) -> &'static str {
    match reason {
        Reason::Bounce => "BOUNCE",
        Reason::Complaint => "COMPLAINT",
        Reason::Manual => "MANUAL",
    }
}

/// One line; none for one that is empty, a comment or the head of the table. Without a reason it was by hand.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn line(line: &str, at: Wall) -> Result<Option<Put>, String> {
    let text = line.trim_matches(|c: char| c.is_ascii_whitespace() || c == '\u{feff}');
    if text.is_empty() || text.starts_with('#') || is_head(text) {
        return Ok(None);
    }
    let (address, reason) = if text.starts_with('{') {
        let parsed: JsonLine = serde_json::from_str(text).map_err(|error| error.to_string())?;
        (parsed.email_address, parsed.reason)
    } else {
        split(text)?
    };
    let reason = reason.filter(|word| !word.is_empty()).map_or(Ok(Reason::Manual), |word| reason_of(&word))?;
    Ok(Some(Put { address: Norm::of(&address)?, reason, at, message_id: None }))
}

fn is_head(text: &str) -> bool {
    let first = text.split(',').next().unwrap_or_default();
    ["address", "email", "emailaddress"].iter().any(|head| first.eq_ignore_ascii_case(head))
}

/// Address and reason; further columns are left alone. A field with a comma or a quote in it is quoted (RFC 4180), or, as
/// a quoted local part is, not.
fn split(text: &str) -> Result<(String, Option<String>), String> {
    let second = |rest: &str| rest.split(',').nth(1).map(|word| word.trim().trim_matches('"').to_ascii_uppercase());
    if let Some(rest) = text.strip_prefix('"') {
        let mut field = String::new();
        let mut letters = rest.char_indices().peekable();
        while let Some((at, letter)) = letters.next() {
            match letter {
                '"' if letters.next_if(|(_, next)| *next == '"').is_some() => field.push('"'),
                '"' if rest[at + 1..].starts_with('@') => break,
                '"' => return Ok((field, second(&rest[at + 1..]))),
                _ => field.push(letter),
            }
        }
        // A quoted local part: it ends before the @ of its domain.
        let Some(at) = rest.find("\"@") else { return Err("a quote is never closed".into()) };
        let end = rest[at..].find(',').map_or(rest.len(), |comma| at + comma);
        return Ok((format!("\"{}", &rest[..end]), second(&rest[end..])));
    }
    let address = text.split(',').next().unwrap_or_default().trim();
    Ok((address.to_owned(), second(text)))
}

/// Would [`line()`] take it for something else as it is? A local part may begin as a comment or as JSON does.
fn needs_quotes(address: &str) -> bool {
    address.contains(['"', ',']) || address.starts_with(['#', '{', '\u{feff}']) || address.trim() != address
}

/// One line of an export: address, reason, time; what [`line()`] takes.
pub(crate) fn write(entry: &Entry, out: &mut String) {
    if needs_quotes(&entry.address) {
        out.push('"');
        out.push_str(&entry.address.replace('"', "\"\""));
        out.push('"');
    } else {
        out.push_str(&entry.address);
    }
    let mut time = Vec::with_capacity(24);
    crate::message::date::iso8601(entry.at, &mut time);
    out.push(',');
    out.push_str(word_of(entry.reason));
    out.push(',');
    out.push_str(&String::from_utf8_lossy(&time));
    out.push('\n');
}
