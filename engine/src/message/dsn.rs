//! Delivery status notifications (RFC 3461, 3462, 3464; RFC 6533 for addresses beyond ASCII).
//!
//! Text of a remote server and addresses of a stranger go into header-like fields here: nothing that comes from outside is
//! written without having its control characters taken out and its length bounded.

use super::{date, id::MessageId, trace::write_display};
use crate::smtp::{
    envelope::{Notify, Ret},
    reply::Reply,
};
use mailrail_queue::time::Wall;

/// Octets of an original message that are given back at most when the whole was asked for.
const RETURNED: usize = 256 << 10;
/// Octets of one line of text from outside.
const TEXT: usize = 900;

/// What happened to a recipient.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// Refused for good.
    Failed,
    /// Given up for its age.
    Expired,
}

/// One recipient of a notification.
pub(crate) struct Failed<'a> {
    pub(crate) address: &'a str,
    /// `type;xtext` as given.
    pub(crate) orcpt: Option<&'a str>,
    pub(crate) action: Action,
    /// The last reply, of a host or (then `local`) our own words.
    pub(crate) reply: &'a Reply,
    /// Host that said it.
    pub(crate) remote: Option<&'a str>,
    pub(crate) last_attempt: Option<Wall>,
}

/// A notification to write.
pub(crate) struct Dsn<'a> {
    pub(crate) id: MessageId,
    pub(crate) hostname: &'a str,
    /// To whom.
    pub(crate) sender: &'a str,
    /// ENVID as given, xtext.
    pub(crate) env_id: Option<&'a str>,
    pub(crate) arrival: Wall,
    pub(crate) now: Wall,
    pub(crate) ret: Option<Ret>,
    pub(crate) smtputf8: bool,
    /// Octets of the original's header section.
    pub(crate) header_size: usize,
    pub(crate) original: &'a [&'a [u8]],
    pub(crate) original_id: Option<MessageId>,
    pub(crate) recipients: &'a [Failed<'a>],
}

/// Does the sender want to hear of this, for a recipient with such a NOTIFY (RFC 3461 section 4.1)?
pub(crate) fn wants(notify: Notify, event: Notify) -> bool {
    if notify == Notify::DEFAULT { event == Notify::FAILURE } else { notify.contains(event) }
}

/// Octets of a message's header section, without the empty line.
pub(crate) fn header_size(content: &[u8]) -> u32 {
    memchr::memmem::find(content, b"\r\n\r\n").map_or(content.len(), |at| at + 2) as u32
}

impl Dsn<'_> {
    /// Appends the whole message.
    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        let mut boundary = Vec::with_capacity(64);
        write_display(&mut boundary, &self.id);
        boundary.extend_from_slice(b"/report");
        self.header(&boundary, out);
        self.part(&boundary, "text/plain; charset=utf-8", out);
        self.human(out);
        let status = if self.smtputf8 { "message/global-delivery-status" } else { "message/delivery-status" };
        self.part(&boundary, status, out);
        self.status(out);
        self.original(&boundary, out);
        out.extend_from_slice(b"\r\n--");
        out.extend_from_slice(&boundary);
        out.extend_from_slice(b"--\r\n");
    }

    fn header(&self, boundary: &[u8], out: &mut Vec<u8>) {
        out.extend_from_slice(b"Date: ");
        date::rfc5322(self.now, out);
        out.extend_from_slice(b"\r\nFrom: Mail Delivery System <mailer-daemon@");
        out.extend_from_slice(self.hostname.as_bytes());
        out.extend_from_slice(b">\r\nTo: <");
        clean(self.sender, out);
        out.extend_from_slice(b">\r\nSubject: Undelivered mail returned to sender\r\nMessage-ID: <");
        write_display(out, &self.id);
        out.push(b'@');
        out.extend_from_slice(self.hostname.as_bytes());
        out.extend_from_slice(
            b">\r\nAuto-Submitted: auto-replied\r\nMIME-Version: 1.0\r\nContent-Type: multipart/report;\r\n\treport-type=",
        );
        let kind: &[u8] = if self.smtputf8 { b"global-delivery-status" } else { b"delivery-status" };
        out.extend_from_slice(kind);
        out.extend_from_slice(b";\r\n\tboundary=\"");
        out.extend_from_slice(boundary);
        out.extend_from_slice(b"\"\r\nContent-Transfer-Encoding: 8bit\r\n\r\nThis is a MIME-encapsulated message.\r\n");
    }

    fn part(&self, boundary: &[u8], kind: &str, out: &mut Vec<u8>) {
        out.extend_from_slice(b"\r\n--");
        out.extend_from_slice(boundary);
        out.extend_from_slice(b"\r\nContent-Type: ");
        out.extend_from_slice(kind.as_bytes());
        out.extend_from_slice(b"\r\n\r\n");
    }

    fn human(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"This is the mail system at ");
        out.extend_from_slice(self.hostname.as_bytes());
        out.extend_from_slice(b".\r\n\r\nYour message could not be delivered to:\r\n\r\n");
        for recipient in self.recipients {
            out.extend_from_slice(b"  <");
            clean(recipient.address, out);
            // Lines of their own: address, host and reply together can be longer than a line may be.
            out.extend_from_slice(b">:\r\n    ");
            if let Some(remote) = recipient.remote.filter(|_| !recipient.reply.local) {
                out.extend_from_slice(b"host ");
                clean(remote, out);
                out.extend_from_slice(b" said:\r\n    ");
            }
            clean(&recipient.reply.to_string(), out);
            if recipient.action == Action::Expired {
                out.extend_from_slice(b" (given up: the message has reached its age limit)");
            }
            out.extend_from_slice(b"\r\n");
        }
        out.extend_from_slice(b"\r\nDetails for your mail system are attached.\r\n");
    }

    fn status(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"Reporting-MTA: dns; ");
        out.extend_from_slice(self.hostname.as_bytes());
        if let Some(env_id) = self.env_id {
            out.extend_from_slice(b"\r\nOriginal-Envelope-Id: ");
            clean(&decode_xtext(env_id), out);
        }
        if let Some(id) = self.original_id {
            out.extend_from_slice(b"\r\nX-Mailrail-Message-Id: ");
            write_display(out, &id);
        }
        out.extend_from_slice(b"\r\nArrival-Date: ");
        date::rfc5322(self.arrival, out);
        out.extend_from_slice(b"\r\n");
        for recipient in self.recipients {
            out.extend_from_slice(b"\r\n");
            self.recipient(recipient, out);
        }
    }

    fn recipient(&self, recipient: &Failed<'_>, out: &mut Vec<u8>) {
        if let Some((kind, address)) = recipient.orcpt.and_then(|orcpt| orcpt.split_once(';')) {
            out.extend_from_slice(b"Original-Recipient: ");
            // An atom (RFC 3461 section 4.2), short enough to leave room for the address.
            out.extend(kind.bytes().filter(u8::is_ascii_graphic).take(60));
            out.extend_from_slice(b"; ");
            clean(&decode_xtext(address), out);
            out.extend_from_slice(b"\r\n");
        }
        let kind: &[u8] = if recipient.address.is_ascii() { b"rfc822" } else { b"utf-8" };
        out.extend_from_slice(b"Final-Recipient: ");
        out.extend_from_slice(kind);
        out.extend_from_slice(b"; ");
        clean(recipient.address, out);
        out.extend_from_slice(b"\r\nAction: failed\r\nStatus: ");
        match recipient.reply.enhanced.filter(|code| code.0 == 5) {
            Some(code) => write_display(out, &code),
            // A notification of failure has a permanent status, whatever the last temporary reply was.
            None if recipient.action == Action::Expired => out.extend_from_slice(b"5.4.7"),
            None => out.extend_from_slice(b"5.0.0"),
        }
        out.extend_from_slice(b"\r\n");
        if let Some(remote) = recipient.remote {
            out.extend_from_slice(b"Remote-MTA: dns; ");
            clean(remote, out);
            out.extend_from_slice(b"\r\n");
        }
        let kind: &[u8] = if recipient.reply.local { b"x-mailrail" } else { b"smtp" };
        out.extend_from_slice(b"Diagnostic-Code: ");
        out.extend_from_slice(kind);
        out.extend_from_slice(b"; ");
        clean(&recipient.reply.to_string(), out);
        out.extend_from_slice(b"\r\n");
        if let Some(at) = recipient.last_attempt {
            out.extend_from_slice(b"Last-Attempt-Date: ");
            date::rfc5322(at, out);
            out.extend_from_slice(b"\r\n");
        }
    }

    /// The original, whole or its header section (RFC 3461 section 6.2: headers unless FULL was asked for).
    fn original(&self, boundary: &[u8], out: &mut Vec<u8>) {
        let size: usize = self.original.iter().map(|piece| piece.len()).sum();
        let whole = self.ret == Some(Ret::Full) && size <= RETURNED;
        let kind = match (whole, self.smtputf8) {
            (true, false) => "message/rfc822",
            (true, true) => "message/global",
            (false, false) => "text/rfc822-headers",
            (false, true) => "message/global-headers",
        };
        self.part(boundary, kind, out);
        let mut left = if whole { size } else { self.header_size.min(RETURNED) };
        for piece in self.original {
            let taken = &piece[..piece.len().min(left)];
            out.extend_from_slice(taken);
            left -= taken.len();
        }
    }
}

/// Writes text from outside: no control characters, bounded.
fn clean(text: &str, out: &mut Vec<u8>) {
    let mut left = TEXT;
    for c in text.chars() {
        let c = if c.is_control() { ' ' } else { c };
        if c.len_utf8() > left {
            return;
        }
        left -= c.len_utf8();
        out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
    }
}

/// RFC 3461 section 4: `+` and two hex digits stand for an octet. What is not well-formed stays.
fn decode_xtext(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        // Digits only: the parser of numbers would take a sign.
        let hex = bytes.get(at + 1..at + 3).filter(|hex| hex.iter().all(u8::is_ascii_hexdigit));
        let hex = hex.and_then(|hex| u8::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok());
        match (bytes[at], hex) {
            (b'+', Some(octet)) => {
                decoded.push(octet);
                at += 3;
            }
            (other, _) => {
                decoded.push(other);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&decoded).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::smtp::reply::Enhanced;

    fn written(change: impl FnOnce(&mut Dsn<'_>), text: &str, address: &str) -> String {
        let reply = Reply::new(550, Enhanced(5, 1, 1), text);
        let failed = [Failed {
            address,
            orcpt: Some("rfc822;b+2Bc@example.net"),
            action: Action::Failed,
            reply: &reply,
            remote: Some("mx.example.net"),
            last_attempt: Some(Wall(0)),
        }];
        let original: [&[u8]; 2] = [b"From: a@example.com\r\nSubject: s\r\n\r\n", b"secret body\r\n"];
        let mut dsn = Dsn {
            id: MessageId::new(1, 2, 3, 4),
            hostname: "mta.example.com",
            sender: "a@example.com",
            env_id: Some("QQ+3D1"),
            arrival: Wall(0),
            now: Wall(1000),
            ret: None,
            smtputf8: false,
            header_size: 33,
            original: &original,
            original_id: None,
            recipients: &failed,
        };
        change(&mut dsn);
        let mut out = Vec::new();
        dsn.write(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn it_has_the_three_parts_and_the_fields_of_rfc_3464() {
        let text = written(|_| {}, "user unknown", "b@example.net");
        for wanted in [
            "Content-Type: multipart/report;\r\n\treport-type=delivery-status;",
            "Content-Type: message/delivery-status\r\n\r\nReporting-MTA: dns; mta.example.com\r\nOriginal-Envelope-Id: QQ=1\r\n",
            "\r\n\r\nOriginal-Recipient: rfc822; b+c@example.net\r\nFinal-Recipient: rfc822; b@example.net\r\nAction: failed\r\nStatus: 5.1.1\r\nRemote-MTA: dns; mx.example.net\r\nDiagnostic-Code: smtp; 550 5.1.1 user unknown\r\n",
            "Content-Type: text/rfc822-headers\r\n\r\nFrom: a@example.com\r\nSubject: s\r\n",
            "Auto-Submitted: auto-replied",
        ] {
            assert!(text.contains(wanted), "missing {wanted:?} in\n{text}");
        }
        assert!(!text.contains("secret body"));
        assert_eq!(text.matches("0100000000000001-00020000-0000-0003-0000-000000000004-000000/report").count(), 5);
    }

    #[test]
    fn the_whole_message_comes_back_only_when_asked_for() {
        let text = written(|dsn| dsn.ret = Some(Ret::Full), "user unknown", "b@example.net");
        assert!(
            text.contains(
                "Content-Type: message/rfc822\r\n\r\nFrom: a@example.com\r\nSubject: s\r\n\r\nsecret body\r\n"
            )
        );
    }

    #[test]
    fn nothing_from_outside_makes_a_line_of_its_own() {
        let evil = "no\r\nBcc: x@y\r\n\r\n--boundary\r\n\u{0}";
        let text = written(|_| {}, evil, "b\r\nX-Evil: 1@example.net");
        assert!(!text.contains("\r\nBcc:") && !text.contains("\r\nX-Evil") && !text.contains("\r\n--boundary"));
        assert!(text.split("\r\n").all(|line| line.len() <= 998 && !line.contains(['\r', '\n', '\0'])));
    }

    #[test]
    fn no_line_is_too_long_whatever_is_long() {
        let address = format!("{}@{}.test", "a".repeat(64), "b".repeat(240));
        let text = written(|_| {}, &"r".repeat(1000), &address);
        assert!(text.split("\r\n").all(|line| line.len() <= 998), "{text}");
    }

    #[test]
    fn only_digits_are_xtext() {
        assert_eq!(decode_xtext("a+2Bb++5+zz+"), "a+b++5+zz+");
    }

    #[test]
    fn notify_decides_who_is_told() {
        assert!(wants(Notify::DEFAULT, Notify::FAILURE) && wants(Notify::FAILURE, Notify::FAILURE));
        assert!(!wants(Notify::NEVER, Notify::FAILURE) && !wants(Notify::SUCCESS, Notify::FAILURE));
    }
}
