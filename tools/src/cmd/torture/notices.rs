//! DSNs that have arrived at the senders' own receiver: which recipients of which messages they speak of.

use super::books;
use std::collections::HashSet;

/// Keys of the recipients that a DSN says have failed (RFC 3464; the message by `X-Mailrail-Message-Id`).
pub(super) fn keys(content: &str, into: &mut HashSet<u64>) {
    let field = |line: &str, name: &str| {
        let (head, value) = line.split_at_checked(name.len())?;
        head.eq_ignore_ascii_case(name).then(|| value.trim().to_owned())
    };
    let mut message = String::new();
    let mut recipient = String::new();
    for line in content.lines() {
        if let Some(id) = field(line, "X-Mailrail-Message-Id:") {
            message = id;
        } else if let Some(value) = field(line, "Final-Recipient:") {
            recipient = value.split_once(';').map(|(_, address)| address.trim().to_owned()).unwrap_or_default();
        } else if field(line, "Action:").is_some_and(|action| action == "failed") && !message.is_empty() {
            into.insert(books::key(&message, &recipient));
        } else if line.starts_with("Content-Type: text/rfc822-headers") {
            // What follows is the original, which may say anything.
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_failed_recipient_counts_and_the_original_does_not() {
        let text = "Subject: Undelivered\r\n\r\n--b\r\n\r\nX-Mailrail-Message-Id: m1\r\n\r\n\
                    Final-Recipient: rfc822; A@x.test\r\nAction: failed\r\n\r\nFinal-Recipient: rfc822; b@x.test\r\n\
                    Action: delayed\r\n\r\n--b\r\nContent-Type: text/rfc822-headers\r\n\r\n\
                    Final-Recipient: rfc822; c@x.test\r\nAction: failed\r\n";
        let mut found = HashSet::new();
        keys(text, &mut found);
        assert_eq!(found, HashSet::from([books::key("m1", "a@x.test")]));
    }
}
