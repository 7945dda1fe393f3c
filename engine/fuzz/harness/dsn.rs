//! Notifications about any addresses, replies and originals: they parse, and nothing from outside makes a line of its own.

use crate::{
    message::{
        dsn::{Action, Dsn, Failed},
        id::MessageId,
    },
    smtp::{
        envelope::Ret,
        reply::{Enhanced, Reply},
    },
};
use mailrail_queue::time::Wall;

/// Fields of the notification and of its status part (RFC 3464).
const FIELDS: [&str; 19] = [
    "Date",
    "From",
    "To",
    "Subject",
    "Message-ID",
    "Auto-Submitted",
    "MIME-Version",
    "Content-Type",
    "Content-Transfer-Encoding",
    "Reporting-MTA",
    "Original-Envelope-Id",
    "X-Mailrail-Message-Id",
    "Arrival-Date",
    "Original-Recipient",
    "Final-Recipient",
    "Action",
    "Status",
    "Remote-MTA",
    "Diagnostic-Code",
];

/// The first octet: bits that choose; the rest: texts, an octet 255 between them, the last one the original.
pub fn run(data: &[u8]) {
    let Some((&bits, rest)) = data.split_first() else { return };
    let texts: Vec<String> = rest.splitn(7, |b| *b == 255).map(|text| String::from_utf8_lossy(text).into()).collect();
    let text = |n: usize| texts.get(n).map_or("", String::as_str);
    let mut reply = Reply::new(u16::from(bits) + 400, Enhanced(5, 1, u16::from(bits)), text(0));
    reply.text = reply.text.chars().take(1000).collect();
    reply.local = bits & 1 != 0;
    let failed = |address| Failed {
        address,
        orcpt: (bits & 2 != 0).then(|| text(4)),
        action: if bits & 4 != 0 { Action::Expired } else { Action::Failed },
        reply: &reply,
        remote: (bits & 8 != 0).then(|| text(5)),
        last_attempt: (bits & 16 != 0).then_some(Wall(0)),
    };
    let original = text(6).replace(['\r', '\n'], "\r\n");
    let pieces = [original.as_bytes()];
    let dsn = Dsn {
        id: MessageId::new(1, 2, 3, 4),
        hostname: "mta.test",
        sender: text(1),
        env_id: (bits & 32 != 0).then(|| text(3)),
        arrival: Wall(0),
        now: Wall(1000),
        ret: (bits & 64 != 0).then_some(Ret::Full),
        smtputf8: bits & 128 != 0,
        // The header section ends at a line end.
        header_size: original.find("\r\n\r\n").map_or(original.len(), |at| at + 2),
        original: &pieces,
        original_id: Some(MessageId::new(5, 6, 7, 8)),
        recipients: &[failed(text(2)), failed(text(1))],
    };
    let mut out = Vec::new();
    dsn.write(&mut out);
    check(&out, &original);
}

fn check(out: &[u8], original: &str) {
    let boundary = format!("{}/report", MessageId::new(1, 2, 3, 4));
    if original.contains(&boundary) {
        // Its sender cannot know the id of a notification that is yet to be made.
        return;
    }
    let text = std::str::from_utf8(out).unwrap_or_default();
    let parts: Vec<&str> = text.split(&format!("\r\n--{boundary}")).collect();
    assert_eq!(parts.len(), 5, "header, three parts, nothing behind the last boundary");
    assert_eq!(parts[4], "--\r\n");
    for line in parts[..3].join("\r\n").split("\r\n") {
        assert!(line.len() <= 998, "{} octets: {line}", line.len());
        assert!(!line.contains(|c: char| c.is_control() && c != '\t'), "{line:?}");
    }
    let (header, _) = parts[0].split_once("\r\n\r\n").unwrap_or_default();
    fields(header);
    assert_eq!(header.matches("\r\nTo: <").count(), 1);
    let (_, status) = parts[2].split_once("\r\n\r\n").unwrap_or_default();
    let groups: Vec<&str> = status.split("\r\n\r\n").collect();
    assert_eq!(groups.len(), 3, "the message and two recipients: {status}");
    for (n, group) in groups.iter().enumerate() {
        fields(group);
        // A field, not words in the value of another one.
        let finals = group.split("\r\n").filter(|line| line.starts_with("Final-Recipient: ")).count();
        assert_eq!(finals, usize::from(n > 0));
    }
}

fn fields(section: &str) {
    for line in section.trim_end_matches("\r\n").split("\r\n").filter(|line| !line.starts_with('\t')) {
        let name = line.split(':').next().unwrap_or_default();
        assert!(FIELDS.contains(&name) || name == "Last-Attempt-Date", "{line:?} was not ours to write");
    }
}
