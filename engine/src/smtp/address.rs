//! Mailbox addresses as RFC 5321 section 4.1.2 writes them, no wider.
//!
//! Must never let through a control character, a blank outside quotes, or a domain that the DNS could not carry. Pure.

use std::{
    borrow::Cow,
    net::{Ipv4Addr, Ipv6Addr},
};

/// Octets in a local part (RFC 5321 section 4.5.3.1.1).
pub const LOCAL_MAX: usize = 64;
/// Octets in a domain (RFC 5321 section 4.5.3.1.2).
pub const DOMAIN_MAX: usize = 255;

/// What is wrong with an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// No `<` where a path must begin, or no `>` where it must end.
    #[error("a path is an address between < and >")]
    Brackets,
    /// No `@`.
    #[error("the address has no domain")]
    NoDomain,
    /// Not a dot-string and not a quoted string, or too long.
    #[error("the local part is not valid")]
    Local,
    /// Characters outside ASCII without SMTPUTF8.
    #[error("the address needs SMTPUTF8")]
    NeedsUtf8,
    /// Not a host name and not an address literal, or too long.
    #[error("the domain is not valid")]
    Domain,
}

/// A valid mailbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mailbox<'a> {
    /// Local part, quotes included, case as given.
    pub local: &'a str,
    /// Host name in A-labels, or an address literal with its brackets.
    pub domain: Cow<'a, str>,
}

/// A path of MAIL FROM or RCPT TO.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Path<'a> {
    /// `<>`.
    Null,
    /// `<Postmaster>`, the one name that needs no domain (RFC 5321 section 4.1.1.3).
    Postmaster,
    /// Any other.
    Mailbox(Mailbox<'a>),
}

/// Parses a path in angle brackets at the start of `input`; gives it and what follows. A source route is checked and
/// ignored (RFC 5321 appendix C).
///
/// # Errors
/// It is not a path; [`AddressError::NeedsUtf8`] if it would be one with SMTPUTF8.
pub fn path(input: &str, utf8: bool) -> Result<(Path<'_>, &str), AddressError> {
    let end = path_end(input).ok_or(AddressError::Brackets)?;
    let (inner, rest) = (&input[1..end], &input[end + 1..]);
    let inner = if inner.starts_with('@') { without_route(inner)? } else { inner };
    let path = match inner {
        "" if end == 1 => Path::Null,
        name if name.eq_ignore_ascii_case("postmaster") => Path::Postmaster,
        _ => Path::Mailbox(mailbox(inner, utf8)?),
    };
    Ok((path, rest))
}

/// Where the `>` of a path stands: the first that is not in quotes.
fn path_end(input: &str) -> Option<usize> {
    let bytes = input.as_bytes();
    if bytes.first() != Some(&b'<') {
        return None;
    }
    let (mut quoted, mut at) = (false, 1);
    while let Some(&byte) = bytes.get(at) {
        match byte {
            b'>' if !quoted => return Some(at),
            b'"' => quoted = !quoted,
            b'\\' if quoted => at += 1,
            _ => {}
        }
        at += 1;
    }
    None
}

fn without_route(inner: &str) -> Result<&str, AddressError> {
    let (route, mailbox) = inner.split_once(':').ok_or(AddressError::Domain)?;
    for hop in route.split(',') {
        domain(hop.strip_prefix('@').ok_or(AddressError::Domain)?)?;
    }
    Ok(mailbox)
}

/// Parses `local@domain`.
///
/// # Errors
/// It is not a mailbox; [`AddressError::NeedsUtf8`] if it would be one with SMTPUTF8.
pub fn mailbox(input: &str, utf8: bool) -> Result<Mailbox<'_>, AddressError> {
    let end = local_end(input)?;
    let (local, rest) = input.split_at(end);
    if local.len() > LOCAL_MAX {
        return Err(AddressError::Local);
    }
    let domain = domain(rest.strip_prefix('@').ok_or(AddressError::NoDomain)?)?;
    if !utf8 && !local.is_ascii() {
        return Err(AddressError::NeedsUtf8);
    }
    Ok(Mailbox { local, domain })
}

/// Length of the dot-string or quoted string at the start.
fn local_end(input: &str) -> Result<usize, AddressError> {
    let bytes = input.as_bytes();
    if bytes.first() == Some(&b'"') {
        let mut at = 1;
        loop {
            match bytes.get(at) {
                Some(b'"') => return Ok(at + 1),
                Some(b'\\') if matches!(bytes.get(at + 1), Some(32..=126)) => at += 2,
                Some(32..=33 | 35..=91 | 93..=126 | 128..) => at += 1,
                _ => return Err(AddressError::Local),
            }
        }
    }
    let end = bytes.iter().position(|&b| b == b'@').unwrap_or(bytes.len());
    let valid = bytes[..end].split(|&b| b == b'.').all(|atom| !atom.is_empty() && atom.iter().all(|&b| is_atext(b)));
    if valid { Ok(end) } else { Err(AddressError::Local) }
}

/// `atext` of RFC 5322 section 3.2.3, widened by RFC 6531 section 3.3.
fn is_atext(b: u8) -> bool {
    b.is_ascii_alphanumeric() || b >= 128 || b"!#$%&'*+-/=?^_`{|}~".contains(&b)
}

/// Checks a domain; U-labels become A-labels, all else stays as given.
///
/// # Errors
/// [`AddressError::Domain`].
pub fn domain(input: &str) -> Result<Cow<'_, str>, AddressError> {
    if let Some(literal) = input.strip_prefix('[') {
        let inner = literal.strip_suffix(']').ok_or(AddressError::Domain)?;
        let valid = match inner.get(..5) {
            Some(tag) if tag.eq_ignore_ascii_case("IPv6:") => inner[5..].parse::<Ipv6Addr>().is_ok(),
            _ => inner.parse::<Ipv4Addr>().is_ok(),
        };
        return if valid { Ok(Cow::Borrowed(input)) } else { Err(AddressError::Domain) };
    }
    let name = if input.is_ascii() {
        Cow::Borrowed(input)
    } else {
        Cow::Owned(idna::domain_to_ascii_strict(input).map_err(|_| AddressError::Domain)?)
    };
    let valid = name.len() <= DOMAIN_MAX && name.as_bytes().split(|&b| b == b'.').all(is_label);
    if valid { Ok(name) } else { Err(AddressError::Domain) }
}

fn is_label(label: &[u8]) -> bool {
    (1..=63).contains(&label.len())
        && label[0] != b'-'
        && label[label.len() - 1] != b'-'
        && label.iter().all(|&b| b.is_ascii_alphanumeric() || b == b'-')
}

#[cfg(test)]
#[path = "tests/address.rs"]
mod tests;
