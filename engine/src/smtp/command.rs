//! Commands of a client, parsed from one line (RFC 5321 section 4.1, RFC 1870, 3030, 3461, 6152, 6531).
//!
//! Pure and borrowing: nothing is copied. Anything outside the grammar is an error, with two kindnesses that cannot be used
//! to fool anyone: blanks after `FROM:` and `TO:`, and blanks at the end of a line. A line with a control character in it
//! (so also with a lone CR or LF) is never a command.

use super::{
    address::{self, AddressError, Path},
    envelope::{Body, Notify, Ret},
};

/// Octets in a command line with its CRLF (RFC 5321 section 4.5.3.1.4).
pub const LINE_MAX: usize = 512;
/// The same for MAIL and RCPT: 512 and what SIZE, BODY, SMTPUTF8, RET, ENVID, NOTIFY and ORCPT may add, rounded up.
pub const LINE_MAX_MAIL: usize = 2048;

/// A command.
#[derive(Debug, PartialEq, Eq)]
pub enum Command<'a> {
    /// HELO with the client's name.
    Helo(&'a str),
    /// EHLO with the client's name.
    Ehlo(&'a str),
    /// MAIL FROM.
    Mail(Path<'a>, MailParams<'a>),
    /// RCPT TO.
    Rcpt(Path<'a>, RcptParams<'a>),
    /// DATA.
    Data,
    /// BDAT: octets that follow, and whether they are the last.
    Bdat(u64, bool),
    /// RSET.
    Rset,
    /// NOOP.
    Noop,
    /// HELP.
    Help,
    /// VRFY.
    Vrfy,
    /// STARTTLS.
    StartTls,
    /// QUIT.
    Quit,
    /// AUTH: mechanism and initial response.
    Auth(&'a str, Option<&'a str>),
    /// A command of some RFC that this server does not do: EXPN, TURN, ETRN, …
    NotImplemented,
}

/// Parameters of MAIL.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct MailParams<'a> {
    /// SIZE, octets.
    pub size: Option<u64>,
    /// BODY.
    pub body: Option<Body>,
    /// SMTPUTF8.
    pub smtputf8: bool,
    /// RET.
    pub ret: Option<Ret>,
    /// ENVID, as xtext.
    pub env_id: Option<&'a str>,
    /// AUTH was given; its value is of no use.
    pub auth: bool,
}

/// Parameters of RCPT.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct RcptParams<'a> {
    /// NOTIFY.
    pub notify: Option<Notify>,
    /// ORCPT, as `type;xtext`.
    pub orcpt: Option<&'a str>,
}

/// Why a line is not a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CommandError<'a> {
    /// Longer than its command may be.
    TooLong,
    /// A control character, or not UTF-8.
    Characters,
    /// No such command.
    Unknown,
    /// Arguments are wrong; how they should be.
    Syntax(&'static str),
    /// The address of MAIL, as given.
    Sender(&'a str, AddressError),
    /// The address of RCPT, as given.
    Recipient(&'a str, AddressError),
    /// A parameter nobody knows, or one given twice.
    Parameter,
    /// A value that its parameter cannot have.
    Value(&'static str),
}

/// Parses a line, given without its CRLF. `utf8`: the listener takes SMTPUTF8.
///
/// # Errors
/// The line is not a command.
pub fn parse(line: &[u8], utf8: bool) -> Result<Command<'_>, CommandError<'_>> {
    let text = std::str::from_utf8(line).map_err(|_| CommandError::Characters)?;
    if line.iter().any(u8::is_ascii_control) {
        return Err(CommandError::Characters);
    }
    let text = text.trim_end_matches(' ');
    let (verb, args) = text.split_once(' ').unwrap_or((text, ""));
    let is = |name: &str| verb.eq_ignore_ascii_case(name);
    if is("MAIL") {
        return mail(args, utf8);
    }
    if is("RCPT") {
        return rcpt(args, utf8);
    }
    if is("AUTH") {
        // RFC 4954 section 4 has longer lines; ours end with the buffer's window, and fit any PLAIN response taken.
        return auth(args);
    }
    if line.len() + 2 > LINE_MAX {
        return Err(CommandError::TooLong);
    }
    let plain = |command, usage| if args.is_empty() { Ok(command) } else { Err(CommandError::Syntax(usage)) };
    match () {
        () if is("DATA") => plain(Command::Data, "DATA"),
        () if is("BDAT") => bdat(args),
        () if is("RSET") => plain(Command::Rset, "RSET"),
        () if is("QUIT") => plain(Command::Quit, "QUIT"),
        () if is("EHLO") => client_name(args).map(Command::Ehlo).ok_or(CommandError::Syntax("EHLO hostname")),
        () if is("HELO") => client_name(args).map(Command::Helo).ok_or(CommandError::Syntax("HELO hostname")),
        () if is("STARTTLS") => plain(Command::StartTls, "STARTTLS"),
        () if is("NOOP") => Ok(Command::Noop),
        () if is("HELP") => Ok(Command::Help),
        () if is("VRFY") => Ok(Command::Vrfy),
        () if ["EXPN", "TURN", "ETRN", "ATRN", "SEND", "SOML", "SAML", "BURL"].into_iter().any(is) => {
            Ok(Command::NotImplemented)
        }
        () => Err(CommandError::Unknown),
    }
}

/// Whether a line that is no command was meant as BDAT. Then nobody knows how many octets after it are not commands.
#[must_use]
pub fn looks_like_bdat(line: &[u8]) -> bool {
    let start = line.iter().position(|b| !b.is_ascii_whitespace() && *b != 0).unwrap_or(line.len());
    line[start..].get(..4).is_some_and(|verb| verb.eq_ignore_ascii_case(b"BDAT"))
}

/// The name after HELO or EHLO. Wider than the grammar, as clients give underscores, bare addresses and worse; what is
/// taken can stand in a Received header.
fn client_name(args: &str) -> Option<&str> {
    let fine = |b: u8| b.is_ascii_alphanumeric() || b"-._:[]".contains(&b);
    ((1..=address::DOMAIN_MAX).contains(&args.len()) && args.bytes().all(fine)).then_some(args)
}

fn auth(args: &str) -> Result<Command<'_>, CommandError<'_>> {
    let (mechanism, initial) = args.split_once(' ').map_or((args, None), |(mechanism, rest)| (mechanism, Some(rest)));
    if mechanism.is_empty() || initial.is_some_and(|initial| initial.is_empty() || initial.contains(' ')) {
        return Err(CommandError::Syntax("AUTH mechanism [initial-response]"));
    }
    Ok(Command::Auth(mechanism, initial))
}

fn bdat(args: &str) -> Result<Command<'_>, CommandError<'_>> {
    const USAGE: CommandError<'static> = CommandError::Syntax("BDAT size [LAST]");
    let (size, last) = args.split_once(' ').unwrap_or((args, ""));
    let last = match last {
        "" => false,
        word if word.eq_ignore_ascii_case("LAST") => true,
        _ => return Err(USAGE),
    };
    number(size).map(|size| Command::Bdat(size, last)).ok_or(USAGE)
}

/// Up to 20 digits, nothing else (`str::parse` would take a sign).
fn number(text: &str) -> Option<u64> {
    let valid = (1..=20).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
    if valid { text.parse().ok() } else { None }
}

/// What follows `FROM:` or `TO:`, in any case, blanks skipped.
fn after_keyword<'a>(args: &'a str, keyword: &str) -> Option<&'a str> {
    let (head, rest) = args.split_at_checked(keyword.len())?;
    head.eq_ignore_ascii_case(keyword).then(|| rest.trim_start_matches(' '))
}

/// Parameters, split at single blanks: keyword and value.
fn params(rest: &str) -> Result<impl Iterator<Item = (&str, Option<&str>)>, CommandError<'_>> {
    let list = match rest {
        "" => "",
        _ => rest.strip_prefix(' ').ok_or(CommandError::Syntax("a blank before each parameter"))?,
    };
    Ok(list.split(' ').filter(|word| !word.is_empty()).map(|word| match word.split_once('=') {
        Some((keyword, value)) => (keyword, Some(value)),
        None => (word, None),
    }))
}

fn mail(args: &str, utf8: bool) -> Result<Command<'_>, CommandError<'_>> {
    let input = after_keyword(args, "FROM:").ok_or(CommandError::Syntax("MAIL FROM:<address>"))?;
    let (path, rest) = address::path(input, utf8).map_err(|error| CommandError::Sender(input, error))?;
    if path == Path::Postmaster {
        return Err(CommandError::Sender(input, AddressError::NoDomain));
    }
    let mut found = MailParams::default();
    for (keyword, value) in params(rest)? {
        let is = |name: &str| keyword.eq_ignore_ascii_case(name);
        let fresh = if is("SIZE") {
            let size = value.and_then(number).ok_or(CommandError::Value("SIZE is a number of octets"))?;
            found.size.replace(size).is_none()
        } else if is("BODY") {
            let body = match value {
                Some(value) if value.eq_ignore_ascii_case("7BIT") => Body::SevenBit,
                Some(value) if value.eq_ignore_ascii_case("8BITMIME") => Body::EightBit,
                _ => return Err(CommandError::Value("BODY is 7BIT or 8BITMIME")),
            };
            found.body.replace(body).is_none()
        } else if is("RET") {
            let ret = match value {
                Some(value) if value.eq_ignore_ascii_case("FULL") => Ret::Full,
                Some(value) if value.eq_ignore_ascii_case("HDRS") => Ret::Headers,
                _ => return Err(CommandError::Value("RET is FULL or HDRS")),
            };
            found.ret.replace(ret).is_none()
        } else if is("ENVID") {
            let id = value.filter(|id| (1..=100).contains(&id.len()) && is_xtext(id));
            found.env_id.replace(id.ok_or(CommandError::Value("ENVID is xtext"))?).is_none()
        } else if is("AUTH") {
            // Who submitted it to the client first is taken from nobody (RFC 4954 section 5 allows that).
            let mailbox = value.filter(|value| *value == "<>" || !value.is_empty() && is_xtext(value));
            mailbox.ok_or(CommandError::Value("AUTH is xtext or <>"))?;
            !std::mem::replace(&mut found.auth, true)
        } else {
            utf8 && is("SMTPUTF8") && value.is_none() && !std::mem::replace(&mut found.smtputf8, true)
        };
        if !fresh {
            return Err(CommandError::Parameter);
        }
    }
    Ok(Command::Mail(path, found))
}

fn rcpt(args: &str, utf8: bool) -> Result<Command<'_>, CommandError<'_>> {
    let input = after_keyword(args, "TO:").ok_or(CommandError::Syntax("RCPT TO:<address>"))?;
    let (path, rest) = address::path(input, utf8).map_err(|error| CommandError::Recipient(input, error))?;
    if path == Path::Null {
        return Err(CommandError::Recipient(input, AddressError::NoDomain));
    }
    let mut found = RcptParams::default();
    for (keyword, value) in params(rest)? {
        let fresh = if keyword.eq_ignore_ascii_case("NOTIFY") {
            let notify = value.and_then(Notify::parse);
            found.notify.replace(notify.ok_or(CommandError::Value("NOTIFY is NEVER or a list"))?).is_none()
        } else if keyword.eq_ignore_ascii_case("ORCPT") {
            let orcpt = value.filter(|value| is_orcpt(value));
            found.orcpt.replace(orcpt.ok_or(CommandError::Value("ORCPT is type;xtext"))?).is_none()
        } else {
            false
        };
        if !fresh {
            return Err(CommandError::Parameter);
        }
    }
    Ok(Command::Rcpt(path, found))
}

/// `addr-type ";" xtext`, at most 500 octets (RFC 3461 section 4.2).
pub(crate) fn is_orcpt(value: &str) -> bool {
    let Some((kind, address)) = value.split_once(';') else { return false };
    let atom = |b: u8| b.is_ascii_alphanumeric() || b == b'-';
    value.len() <= 500 && !kind.is_empty() && kind.bytes().all(atom) && !address.is_empty() && is_xtext(address)
}

/// xtext of RFC 3461 section 4 that stands for printable ASCII: `+0D` would put a line end into a DSN.
pub(crate) fn is_xtext(text: &str) -> bool {
    let mut bytes = text.bytes();
    while let Some(b) = bytes.next() {
        if b == b'+' {
            let mut digit = || match bytes.next() {
                Some(b @ (b'0'..=b'9' | b'A'..=b'F')) => char::from(b).to_digit(16),
                _ => None,
            };
            match (digit(), digit()) {
                (Some(high), Some(low)) if (32..=126).contains(&(high * 16 + low)) => {}
                _ => return false,
            }
        } else if !(33..=126).contains(&b) || b == b'=' {
            return false;
        }
    }
    true
}

#[cfg(test)]
#[path = "tests/command.rs"]
mod tests;
