//! The header section of an accepted message: checked, stripped of what is meant for us, completed. One pass, no copy of
//! what stays.
//!
//! It refuses what receivers would refuse or could be fooled by (RFC 5322 section 3.6: From missing, fields that may stand
//! once standing twice, lines that are no field), and never changes a field that it keeps: signatures of others hold.

use super::{date, id::MessageId, trace};
use crate::smtp::reply::{Enhanced, Reply};
use mailrail_queue::time::Wall;
use std::ops::Range;

/// Longest line that may be sent on, octets without CRLF (RFC 5322 section 2.1.1).
const LINE: usize = 998;
/// Fields that are read and removed, or removed unread. A name that ends in `-` stands for all that begin so.
const REMOVED: [&[u8]; 5] = [b"x-ses-", b"x-mailrail-", b"bcc", b"resent-bcc", b"return-path"];
/// Fields that may stand once (RFC 5322 section 3.6, RFC 2045).
const ONCE: [&[u8]; 16] = [
    b"from",
    b"sender",
    b"reply-to",
    b"to",
    b"cc",
    b"subject",
    b"date",
    b"message-id",
    b"in-reply-to",
    b"references",
    b"mime-version",
    b"content-type",
    b"content-transfer-encoding",
    b"content-disposition",
    b"content-id",
    b"content-description",
];
const FROM: u32 = 1 << 0;
const DATE: u32 = 1 << 6;
const MESSAGE_ID: u32 = 1 << 7;

/// What is known besides the content.
pub(crate) struct AcceptContext<'a> {
    pub(crate) hostname: &'a str,
    pub(crate) protocol: &'a str,
    pub(crate) tls: Option<(&'a str, &'a str)>,
    pub(crate) id: MessageId,
    pub(crate) accepted: Wall,
    pub(crate) only_recipient: Option<&'a str>,
    /// Received fields a message may have.
    pub(crate) max_hops: u32,
}

/// The result. *One per client connection; reused.*
#[derive(Debug, Default)]
pub(crate) struct Prepared {
    prefix: Vec<u8>,
    /// Parts of the header section that stay; the last one goes on to the end of the content.
    keep: Vec<Range<usize>>,
    from_domain: String,
    pool: Option<String>,
    header_size: usize,
}

impl Prepared {
    /// What is to be stored, in order; `content` is what was prepared, or begins with it.
    pub(crate) fn parts<'a>(&'a self, content: &'a [u8], parts: &mut Vec<&'a [u8]>) {
        parts.push(&self.prefix);
        let (last, before) = match self.keep.split_last() {
            Some(found) => found,
            None => return,
        };
        parts.extend(before.iter().map(|range| &content[range.clone()]));
        parts.push(&content[last.start..]);
    }

    /// Domain of the From address, lower case.
    pub(crate) fn author_domain(&self) -> &str {
        &self.from_domain
    }

    /// What X-Mailrail-Pool said.
    pub(crate) fn pool(&self) -> Option<&str> {
        self.pool.as_deref()
    }

    /// Octets of the stored header section, without the empty line.
    pub(crate) fn header_size(&self) -> u32 {
        self.header_size as u32
    }
}

/// Checks and prepares; `content` has at least the whole header section.
///
/// # Errors
/// The reply that refuses the message.
pub(crate) fn prepare(content: &[u8], context: &AcceptContext<'_>, out: &mut Prepared) -> Result<(), Reply> {
    out.prefix.clear();
    out.keep.clear();
    out.from_domain.clear();
    out.pool = None;
    let (mut seen, mut hops, mut kept_from, mut kept) = (0_u32, 0, 0, 0);
    let mut fields = Fields { content, at: 0 };
    while let Some(field) = fields.next()? {
        let name = &content[field.name.clone()];
        if let Some(position) = ONCE.iter().position(|once| name.eq_ignore_ascii_case(once)) {
            if seen & 1 << position != 0 {
                return Err(failed(format!("Duplicate header '{}'.", String::from_utf8_lossy(name))));
            }
            seen |= 1 << position;
            if position == 0 {
                let domain = from_domain(&content[field.value.clone()]);
                let domain = domain.ok_or_else(|| failed("The From header has no valid address.".to_owned()))?;
                out.from_domain.push_str(domain);
                out.from_domain.make_ascii_lowercase();
            }
        } else if name.eq_ignore_ascii_case(b"received") {
            hops += 1;
        } else if is_removed(name) {
            if name.eq_ignore_ascii_case(b"x-mailrail-pool") && out.pool.is_none() {
                out.pool = Some(String::from_utf8_lossy(content[field.value.clone()].trim_ascii()).into_owned());
            }
            if kept_from < field.whole.start {
                out.keep.push(kept_from..field.whole.start);
            }
            kept_from = field.whole.end;
            continue;
        }
        kept += field.whole.len();
    }
    out.keep.push(kept_from..fields.at);
    if seen & FROM == 0 {
        return Err(failed("Missing header 'From'.".to_owned()));
    }
    if hops > context.max_hops {
        let text = format!("Too many hops: {hops} Received headers, a mail loop is likely");
        return Err(Reply::new(554, Enhanced(5, 4, 6), text));
    }
    write_prefix(context, seen, &mut out.prefix);
    out.header_size = out.prefix.len() + kept;
    Ok(())
}

fn write_prefix(context: &AcceptContext<'_>, seen: u32, prefix: &mut Vec<u8>) {
    let received = trace::Received {
        hostname: context.hostname,
        protocol: context.protocol,
        tls: context.tls,
        id: context.id,
        only_recipient: context.only_recipient,
        at: context.accepted,
    };
    received.write(prefix);
    if seen & DATE == 0 {
        prefix.extend_from_slice(b"Date: ");
        date::rfc5322(context.accepted, prefix);
        prefix.extend_from_slice(b"\r\n");
    }
    if seen & MESSAGE_ID == 0 {
        prefix.extend_from_slice(b"Message-ID: <");
        prefix.extend_from_slice(&context.id.to_text());
        prefix.push(b'@');
        prefix.extend_from_slice(context.hostname.as_bytes());
        prefix.extend_from_slice(b">\r\n");
    }
}

fn failed(what: String) -> Reply {
    Reply::new(554, Enhanced(5, 6, 0), format!("Transaction failed: {what}"))
}

fn is_removed(name: &[u8]) -> bool {
    REMOVED.iter().any(|removed| {
        name.get(..removed.len()).is_some_and(|start| start.eq_ignore_ascii_case(removed))
            && (removed.ends_with(b"-") || name.len() == removed.len())
    })
}

struct Field {
    name: Range<usize>,
    value: Range<usize>,
    whole: Range<usize>,
}

/// The fields of a header section, up to the empty line or the end.
struct Fields<'a> {
    content: &'a [u8],
    at: usize,
}

impl Fields<'_> {
    fn next(&mut self) -> Result<Option<Field>, Reply> {
        let start = self.at;
        let rest = &self.content[start..];
        if rest.is_empty() || rest.starts_with(b"\r\n") {
            return Ok(None);
        }
        let mut end = start + line_end(rest)?;
        while matches!(self.content.get(end), Some(b' ' | b'\t')) {
            end += line_end(&self.content[end..])?;
        }
        let line = &self.content[start..end];
        let colon = memchr::memchr(b':', line).filter(|at| *at > 0);
        // RFC 5322 section 4.5: blanks between name and colon are obsolete, and differ between readers.
        let name_is_good = |name: &[u8]| name.iter().all(|b| (33..=126).contains(b));
        let Some(colon) = colon.filter(|at| name_is_good(&line[..*at])) else {
            let shown: String = String::from_utf8_lossy(line).chars().take(40).filter(|c| !c.is_control()).collect();
            return Err(failed(format!("Malformed header line '{shown}'.")));
        };
        self.at = end;
        Ok(Some(Field { name: start..start + colon, value: start + colon + 1..end, whole: start..end }))
    }
}

/// Octets of the first line, with its CRLF.
fn line_end(rest: &[u8]) -> Result<usize, Reply> {
    // By its LF: a search for both octets is set up anew for each line, which costs more than the search.
    let is_end = |lf: &usize| *lf > 0 && rest[lf - 1] == b'\r';
    let length = memchr::memchr_iter(b'\n', rest).find(is_end).map_or(rest.len(), |lf| lf - 1);
    if length > LINE {
        return Err(failed(format!("A header line is longer than {LINE} characters.")));
    }
    Ok((length + 2).min(rest.len()))
}

/// Domain of the first address of a From value: what stands in angle brackets, or the bare address. Quoted strings and
/// comments are passed over.
fn from_domain(value: &[u8]) -> Option<&str> {
    let (mut quoted, mut depth, mut angle, mut skip) = (false, 0_u32, None, false);
    let mut bare_end = value.len();
    for (at, byte) in value.iter().enumerate() {
        if std::mem::take(&mut skip) {
            continue;
        }
        match byte {
            b'\\' if quoted || depth > 0 => skip = true,
            b'"' if depth == 0 => quoted = !quoted,
            b'(' if !quoted => {
                if depth == 0 && bare_end == value.len() {
                    bare_end = at;
                }
                depth += 1;
            }
            b')' if !quoted => depth = depth.saturating_sub(1),
            b'<' if !quoted && depth == 0 => angle = Some(at + 1),
            b'>' if !quoted && depth == 0 => return domain_of(&value[angle?..at]),
            b',' if !quoted && depth == 0 && angle.is_none() => {
                bare_end = bare_end.min(at);
                break;
            }
            _ => {}
        }
    }
    if angle.is_some() || quoted { None } else { domain_of(&value[..bare_end]) }
}

fn domain_of(address: &[u8]) -> Option<&str> {
    let address = address.trim_ascii();
    let at = memchr::memrchr(b'@', address).filter(|at| *at > 0)?;
    let domain = std::str::from_utf8(&address[at + 1..]).ok()?;
    let good = |c: char| c.is_alphanumeric() || matches!(c, '.' | '-' | '_' | '[' | ']' | ':');
    (!domain.is_empty() && domain.len() <= 255 && domain.chars().all(good)).then_some(domain)
}

#[cfg(test)]
#[path = "headers_tests.rs"]
mod tests;
