//! A message as the client session is asked to send it, and the writing of its commands and content.
//!
//! Must never write a CR or LF that is not part of CRLF: not from an address, not from a parameter, not from content.

use super::{
    command,
    envelope::{Notify, Ret},
    reply::push_number,
    survey::survey,
};

/// One recipient of a letter.
#[derive(Clone, Copy, Debug)]
pub struct To<'a> {
    /// `local@domain`.
    pub address: &'a str,
    /// NOTIFY.
    pub notify: Notify,
    /// ORCPT, `type;xtext`.
    pub orcpt: Option<&'a str>,
}

/// One message for one connection.
#[derive(Clone, Copy, Debug)]
pub struct Letter<'a> {
    /// The caller's name for it.
    pub id: u32,
    /// `local@domain`, or "".
    pub sender: &'a str,
    /// At least one.
    pub recipients: &'a [To<'a>],
    /// Octets of content, exactly; dots not stuffed.
    pub size: u64,
    /// Content has octets above 127.
    pub eight_bit: bool,
    /// Addresses or header fields need SMTPUTF8.
    pub smtputf8: bool,
    /// RET.
    pub ret: Option<Ret>,
    /// ENVID, xtext.
    pub env_id: Option<&'a str>,
}

/// What a server offered after EHLO.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Capabilities {
    /// RFC 2920.
    pub pipelining: bool,
    /// RFC 3030.
    pub chunking: bool,
    /// RFC 6152.
    pub eight_bit_mime: bool,
    /// RFC 3461.
    pub dsn: bool,
    /// RFC 6531.
    pub smtputf8: bool,
    /// RFC 3207.
    pub starttls: bool,
    /// RFC 1870; the limit in octets, 0: none named.
    pub size: Option<u64>,
}

impl Capabilities {
    /// Takes one line of the EHLO reply, without its code.
    pub(super) fn line(&mut self, line: &str) {
        let (keyword, value) = line.trim_end().split_once(' ').unwrap_or((line.trim_end(), ""));
        let is = |name: &str| keyword.eq_ignore_ascii_case(name);
        self.pipelining |= is("PIPELINING");
        self.chunking |= is("CHUNKING");
        self.eight_bit_mime |= is("8BITMIME");
        self.dsn |= is("DSN");
        self.smtputf8 |= is("SMTPUTF8");
        self.starttls |= is("STARTTLS");
        if is("SIZE") {
            self.size = Some(value.split(' ').next().and_then(|limit| limit.parse().ok()).unwrap_or(0));
        }
    }
}

impl Letter<'_> {
    /// Whether each string can stand in a command line.
    pub(super) fn is_clean(&self) -> bool {
        let address = |text: &str| text.len() <= 512 && !text.contains(['<', '>', ' ']) || is_quoted(text);
        let clean = |text: &str| !text.chars().any(char::is_control);
        clean(self.sender)
            && address(self.sender)
            && !self.recipients.is_empty()
            && self.env_id.is_none_or(|id| id.len() <= 100 && command::is_xtext(id))
            && self.recipients.iter().all(|to| {
                clean(to.address)
                    && !to.address.is_empty()
                    && address(to.address)
                    && to.orcpt.is_none_or(command::is_orcpt)
            })
    }

    pub(super) fn write_mail(&self, caps: Capabilities, out: &mut Vec<u8>) {
        out.extend_from_slice(b"MAIL FROM:<");
        out.extend_from_slice(self.sender.as_bytes());
        out.push(b'>');
        if caps.size.is_some() {
            out.extend_from_slice(b" SIZE=");
            push_number(out, self.size);
        }
        if self.eight_bit && caps.eight_bit_mime {
            out.extend_from_slice(b" BODY=8BITMIME");
        }
        if self.smtputf8 && caps.smtputf8 {
            out.extend_from_slice(b" SMTPUTF8");
        }
        if caps.dsn {
            match self.ret {
                Some(Ret::Full) => out.extend_from_slice(b" RET=FULL"),
                Some(Ret::Headers) => out.extend_from_slice(b" RET=HDRS"),
                None => {}
            }
            if let Some(id) = self.env_id {
                out.extend_from_slice(b" ENVID=");
                out.extend_from_slice(id.as_bytes());
            }
        }
        out.extend_from_slice(b"\r\n");
    }

    pub(super) fn write_rcpt(&self, index: usize, caps: Capabilities, out: &mut Vec<u8>) {
        let to = &self.recipients[index];
        out.extend_from_slice(b"RCPT TO:<");
        out.extend_from_slice(to.address.as_bytes());
        out.push(b'>');
        if caps.dsn {
            if to.notify != Notify::DEFAULT {
                out.extend_from_slice(b" NOTIFY=");
                to.notify.write(out);
            }
            if let Some(orcpt) = to.orcpt {
                out.extend_from_slice(b" ORCPT=");
                out.extend_from_slice(orcpt.as_bytes());
            }
        }
        out.extend_from_slice(b"\r\n");
    }
}

/// A quoted local part may have blanks and brackets in it.
fn is_quoted(text: &str) -> bool {
    text.len() <= 512 && super::address::mailbox(text, true).is_ok()
}

/// Writes content piece by piece: dots stuffed where the text form needs it, line ends checked. It always looks at
/// all octets, so neither a wrong flag nor damaged content can end a message early.
#[derive(Debug)]
pub(super) struct ContentWriter {
    stuff: bool,
    line_start: bool,
    after_cr: bool,
}

impl ContentWriter {
    pub(super) fn new(stuff: bool) -> Self {
        Self { stuff, line_start: true, after_cr: false }
    }

    /// Appends `piece`; false if it has a lone CR or LF: then the message must not be ended.
    pub(super) fn append(&mut self, piece: &[u8], out: &mut Vec<u8>) -> bool {
        let Some(last) = piece.last() else { return true };
        let before = match (self.after_cr, self.line_start) {
            (true, _) => b'\r',
            (_, true) => b'\n',
            _ => b' ',
        };
        let found = survey(before, piece);
        if found.bare {
            return false;
        }
        out.reserve(piece.len() + 16);
        let mut copied = 0;
        if self.stuff && found.dots {
            if self.line_start && piece[0] == b'.' {
                out.push(b'.');
            }
            for lf in memchr::memmem::find_iter(piece, b"\n.") {
                out.extend_from_slice(&piece[copied..=lf]);
                out.push(b'.');
                copied = lf + 1;
            }
        }
        out.extend_from_slice(&piece[copied..]);
        (self.after_cr, self.line_start) = (*last == b'\r', *last == b'\n');
        true
    }

    /// Ends the content: by the final dot if it is in text form. False if a CR has no LF.
    pub(super) fn finish(&mut self, out: &mut Vec<u8>) -> bool {
        if self.after_cr {
            return false;
        }
        if self.stuff {
            out.extend_from_slice(if self.line_start { b".\r\n" } else { b"\r\n.\r\n" });
        }
        true
    }
}

#[cfg(test)]
#[path = "tests/letter.rs"]
mod tests;
