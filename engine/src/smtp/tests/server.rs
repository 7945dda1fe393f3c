use super::*;
use crate::smtp::reply::Enhanced;
use proptest::prelude::*;

/// What a dialogue came to.
#[derive(Debug, Default, PartialEq, Eq)]
struct Seen {
    replies: String,
    messages: Vec<(String, Vec<String>, Vec<u8>)>,
    discarded: usize,
    close: Option<Close>,
    tls: bool,
}

fn policy() -> ServerPolicy {
    ServerPolicy { hostname: "mx.test".into(), max_size: 100_000, ..ServerPolicy::default() }
}

/// Runs `chunks` through a session that accepts every message.
fn run(policy: ServerPolicy, chunks: &[&[u8]]) -> Seen {
    let mut server = Server::new(Arc::new(policy), false);
    let (mut seen, mut pieces) = (Seen::default(), Vec::new());
    server.greet();
    let mut input = chunks.iter().flat_map(|chunk| {
        let mut rest: &[u8] = chunk;
        std::iter::from_fn(move || {
            let (now, later) = rest.split_at(rest.len().min(4096));
            rest = later;
            (!now.is_empty()).then_some(now)
        })
    });
    loop {
        let step = server.step();
        if matches!(step, Step::Read | Step::Flush | Step::StartTls | Step::Close(_)) {
            seen.replies.push_str(std::str::from_utf8(server.out()).unwrap());
            server.out().clear();
        }
        match step {
            Step::Flush => {}
            Step::Read => {
                let Some(chunk) = input.next() else { return seen };
                assert!(server.space().len() >= chunk.len());
                server.space()[..chunk.len()].copy_from_slice(chunk);
                server.filled(chunk.len());
            }
            Step::ContentFull => {
                assert!(!pieces.is_empty() || server.content().len() >= 56 * 1024);
                pieces.extend_from_slice(server.content());
                server.content_taken();
            }
            Step::Discard => {
                pieces.clear();
                seen.discarded += 1;
            }
            Step::Message => {
                pieces.extend_from_slice(server.content());
                assert_eq!(server.facts().bytes, pieces.len() as u64);
                let envelope = server.envelope();
                let to = envelope.recipients.iter().map(|to| to.address.clone()).collect();
                seen.messages.push((envelope.sender.clone(), to, std::mem::take(&mut pieces)));
                server.finish(FinalReply::Accepted { id: "id-1" });
            }
            Step::Authenticate => {
                let right = server.credentials() == Some(("user".into(), "secret".into()));
                server.authenticated(right);
            }
            Step::StartTls => {
                seen.tls = true;
                server.tls_started();
            }
            Step::Close(why) => {
                seen.close = Some(why);
                return seen;
            }
        }
    }
}

const HELLO: &str = "EHLO c.test\r\n";
const OPEN: &str = "EHLO c.test\r\nMAIL FROM:<a@b.test>\r\nRCPT TO:<c@d.test>\r\n";

/// Replies to `input` after those to `before`.
fn replies(policy: ServerPolicy, before: &str, input: &str) -> String {
    let known = run(policy.clone(), &[before.as_bytes()]).replies;
    run(policy, &[before.as_bytes(), input.as_bytes()]).replies[known.len()..].to_owned()
}

fn message(content: &[u8]) -> Seen {
    let mut input = format!("{OPEN}DATA\r\n").into_bytes();
    input.extend_from_slice(content);
    run(policy(), &[&input])
}

#[test]
fn every_command_gets_its_reply() {
    let long = format!("NOOP {}\r\n", "x".repeat(600));
    let endless = format!("{}\r\nNOOP\r\n", "x".repeat(5000));
    let big = format!("{OPEN}BDAT 2\r\nx\n");
    for (before, input, expected) in [
        ("", "NOOP\r\n", "250 2.0.0 Ok\r\n"),
        ("", "noop x\r\n", "250 2.0.0 Ok\r\n"),
        ("", "QUIT\r\n", "221 2.0.0 Bye\r\n"),
        ("", "HELO c.test\r\n", "250 mx.test\r\n"),
        ("", "EHLO\r\n", "501 5.5.4 Syntax: EHLO hostname\r\n"),
        ("", "EHLO a<b\r\n", "501 5.5.4 Syntax: EHLO hostname\r\n"),
        ("", "MAIL FROM:<a@b.test>\r\n", "503 5.5.1 Send EHLO first\r\n"),
        ("", "WHAT\r\n", "500 5.5.1 Command not recognized\r\n"),
        ("", "\r\n", "500 5.5.1 Command not recognized\r\n"),
        ("", "NOOP\nQUIT\r\n", "500 5.5.2 Invalid character in command\r\n"),
        ("", "NOOP\rQUIT\r\n", "500 5.5.2 Invalid character in command\r\n"),
        ("", "NOOP \0\r\n", "500 5.5.2 Invalid character in command\r\n"),
        ("", &long, "500 5.5.2 Line too long\r\n"),
        ("", &endless, "500 5.5.2 Line too long\r\n250 2.0.0 Ok\r\n"),
        (HELLO, "HELP\r\n", "214 2.0.0 See RFC 5321\r\n"),
        (HELLO, "VRFY a\r\n", "252 2.1.5 Cannot verify, but will take mail for it\r\n"),
        (HELLO, "EXPN a\r\n", "502 5.5.1 Command not implemented\r\n"),
        (HELLO, "AUTH PLAIN\r\n", "502 5.5.1 Command not implemented\r\n"),
        (HELLO, "STARTTLS\r\n", "502 5.5.1 STARTTLS not available\r\n"),
        (HELLO, "MAIL FROM:<>\r\n", "250 2.1.0 Ok\r\n"),
        (HELLO, "MAIL FROM:a@b.test\r\n", "553 5.1.7 a@b.test Invalid email address\r\n"),
        (HELLO, "MAIL FROM:<a b@c.test> SIZE=1\r\n", "553 5.1.7 <a b@c.test> Invalid email address\r\n"),
        (HELLO, "MAIL FROM:<é@b.test>\r\n", "553 5.6.7 Address needs SMTPUTF8\r\n"),
        (HELLO, "MAIL FROM:<a@b.test> SIZE=100001\r\n", "552 5.3.4 Message is too long.\r\n"),
        (HELLO, "MAIL FROM:<a@b.test> SIZE=+1\r\n", "501 5.5.4 SIZE is a number of octets\r\n"),
        (HELLO, "MAIL FROM:<a@b.test> BODY=BINARYMIME\r\n", "501 5.5.4 BODY is 7BIT or 8BITMIME\r\n"),
        (HELLO, "MAIL FROM:<a@b.test> SMTPUTF8\r\n", "555 5.5.4 Parameter not recognized or given twice\r\n"),
        (HELLO, "MAIL FROM:<a@b.test> RET=FULL RET=FULL\r\n", "555 5.5.4 Parameter not recognized or given twice\r\n"),
        (HELLO, "MAIL FROM:<a@b.test> ENVID=a+0D+0A\r\n", "501 5.5.4 ENVID is xtext\r\n"),
        (HELLO, "RCPT TO:<a@b.test>\r\n", "503 5.5.1 Send MAIL first\r\n"),
        (HELLO, "DATA\r\n", "503 5.5.1 Send MAIL first\r\n"),
        (HELLO, "BDAT 5 LAST\r\nQUIT\n", "503 5.5.1 Send MAIL first\r\n"),
        (HELLO, "BDAT five\r\nNOOP\r\n", "501 5.5.4 Syntax: BDAT size [LAST]\r\n"),
        (HELLO, "BDAT 99999999999 LAST\r\n", "552 5.3.4 Message is too long.\r\n"),
        (OPEN, "MAIL FROM:<a@b.test>\r\n", "503 5.5.1 Sender already given\r\n"),
        (OPEN, "RCPT TO:<>\r\n", "553 5.1.3 <> address unknown\r\n"),
        (OPEN, "RCPT TO:<x@-y>\r\n", "553 5.1.3 <x@-y> address unknown\r\n"),
        (OPEN, "RCPT TO:<x@y> NOTIFY=NEVER,DELAY\r\n", "501 5.5.4 NOTIFY is NEVER or a list\r\n"),
        (OPEN, "RCPT TO:<x@y> ORCPT=nonsense\r\n", "501 5.5.4 ORCPT is type;xtext\r\n"),
        (OPEN, "RCPT TO:<PostMaster>\r\n", "250 2.1.5 Ok\r\n"),
        (OPEN, "RSET\r\nDATA\r\n", "250 2.0.0 Ok\r\n503 5.5.1 Send MAIL first\r\n"),
        (
            OPEN,
            "BDAT 2\r\n\r\nDATA\r\n",
            "250 2.0.0 2 octets received\r\n503 5.5.1 BDAT has begun: send its last chunk or RSET\r\n",
        ),
        (&big, "BDAT 0 LAST\r\n", "503 5.5.1 Send MAIL first\r\n"),
    ] {
        assert_eq!(replies(policy(), before, input), expected, "{before:?} {input:?}");
    }
}

#[test]
fn ehlo_offers_one_extension_a_line() {
    let policy = ServerPolicy { starttls: true, smtputf8: true, ..policy() };
    assert_eq!(
        replies(policy, "", HELLO),
        "250-mx.test\r\n250-PIPELINING\r\n250-SIZE 100000\r\n250-8BITMIME\r\n250-CHUNKING\r\n\
         250-ENHANCEDSTATUSCODES\r\n250-STARTTLS\r\n250-SMTPUTF8\r\n250 DSN\r\n"
    );
}

#[test]
fn a_pipelined_batch_is_one_message_with_its_envelope() {
    let seen = run(
        policy(),
        &[format!("{OPEN}RCPT TO:<\"q \\\" >\"@[IPv6:::1]> NOTIFY=FAILURE,DELAY ORCPT=rfc822;x+2By\r\nDATA\r\n..a\r\n.\r\nQUIT\r\n")
            .as_bytes()],
    );
    assert_eq!(
        seen.messages,
        [("a@b.test".into(), vec!["c@d.test".into(), "\"q \\\" >\"@[IPv6:::1]".into()], b".a\r\n".to_vec())]
    );
    assert!(seen.replies.ends_with("354 End data with <CR><LF>.<CR><LF>\r\n250 Ok id-1\r\n221 2.0.0 Bye\r\n"));
    assert_eq!(seen.close, Some(Close::Quit));
}

#[test]
fn nothing_but_crlf_dot_crlf_ends_a_message() {
    let refused = "550 5.6.11 Bare CR or LF in message\r\n";
    for end in [
        "\n.\n",
        "\r\n.\n",
        "\r.\r\n",
        "\n.\r\n",
        "\r.\r",
        "\r\n.\r",
        "\n\n.\r\n",
        "\r\r\n.\n",
        "\r\n.\r\r\n",
        "\0\n.\r\n",
    ] {
        let evil =
            format!("H: v\r\n\r\ntext{end}MAIL FROM:<evil@x.test>\r\nRCPT TO:<v@y.test>\r\nDATA\r\nevil\r\n.\r\n");
        let seen = message(evil.as_bytes());
        assert_eq!(seen.messages, [], "{end:?}");
        assert!(seen.replies.ends_with(refused), "{end:?} {}", seen.replies);
        let mut chunk = format!("{OPEN}BDAT {} LAST\r\n", evil.len()).into_bytes();
        chunk.extend_from_slice(evil.as_bytes());
        let seen = run(policy(), &[&chunk]);
        assert_eq!(seen.messages, []);
        assert!(seen.replies.ends_with(refused), "{end:?} {}", seen.replies);
    }
}

#[test]
fn content_that_is_not_fit_is_refused_at_its_end() {
    let long_line = format!("a: b\r\n\r\n{}\r\n.\r\n", "x".repeat(999));
    let fits = format!("a: b\r\n\r\n{}\r\n.\r\n", "x".repeat(998));
    let header = format!("{}\r\nbody\r\n.\r\n", "a: b\r\n".repeat(10_000));
    let endless_header = format!("{}\r\n.\r\n", "x".repeat(99_000));
    let too_long = format!("a: b\r\n\r\n{}.\r\n", "x\r\n".repeat(40_000));
    for (content, reply) in [
        (long_line.as_str(), "554 5.6.0 Transaction failed: Line too long\r\n"),
        (&fits, "250 Ok id-1\r\n"),
        (&header, "554 5.6.0 Transaction failed: Header section too large\r\n"),
        (&endless_header, "554 5.6.0 Transaction failed: Header section too large\r\n"),
        (&too_long, "552 5.3.4 Message is too long.\r\n"),
        ("a\0b\r\n.\r\n", "554 5.6.0 Transaction failed: NUL in message\r\n"),
        (".\r\n", "250 Ok id-1\r\n"),
    ] {
        let seen = message(content.as_bytes());
        assert!(seen.replies.ends_with(reply), "{reply}: {}", seen.replies);
        assert_eq!(seen.messages.is_empty(), !reply.starts_with("250"));
        assert_eq!(seen.close, None);
    }
}

#[test]
fn large_messages_come_in_pieces_and_late_refusals_discard_them() {
    let large = format!("a: b\r\n\r\n{}", "0123456789.\r\n.".repeat(5000));
    let seen = message(format!("{}\r\n.\r\n", large.replace("\r\n.", "\r\n..")).as_bytes());
    assert_eq!(seen.messages[0].2, format!("{large}\r\n").into_bytes());
    assert_eq!(seen.discarded, 0);
    let seen = message(format!("{large}\n\r\n.\r\n").as_bytes());
    assert_eq!((seen.messages.len(), seen.discarded), (0, 1));
    assert!(seen.replies.ends_with("550 5.6.11 Bare CR or LF in message\r\n"));
    let mut chunk = format!("{OPEN}BDAT 70000\r\n").into_bytes();
    chunk.extend(
        b"a: b\r\n\r\n".iter().copied().chain(std::iter::repeat_n(b"x\r\n", 30_000).flatten().copied()).take(70_000),
    );
    chunk.extend_from_slice(b"RSET\r\n");
    assert_eq!(run(policy(), &[&chunk]).discarded, 1);
}

#[test]
fn content_without_end_ends_the_session() {
    let seen = message(&b"x\r\n".repeat(500_000));
    assert_eq!(seen.close, Some(Close::TooMuch));
    assert!(seen.replies.ends_with("552 5.3.4 Message is too long.\r\n"));
}

#[test]
fn chunks_make_one_message_whatever_lies_between() {
    let seen = run(
        policy(),
        &[format!("{OPEN}BDAT 7\r\nA: b\r\n\rNOOP\r\nBDAT 4\r\n\n.\r\nBDAT 0\r\nBDAT 3 LAST\r\n\r\nxNOOP\r\n")
            .as_bytes()],
    );
    assert_eq!(seen.messages[0].2, b"A: b\r\n\r\n.\r\n\r\nx");
    assert!(
        seen.replies.ends_with("250 2.0.0 0 octets received\r\n250 Ok id-1\r\n250 2.0.0 Ok\r\n"),
        "{}",
        seen.replies
    );
}

#[test]
fn recipients_beyond_the_limit_wait_for_a_further_transaction() {
    let rcpt = "RCPT TO:<c@d.test>\r\n".repeat(50);
    let seen = run(policy(), &[format!("{OPEN}{rcpt}DATA\r\n.\r\n").as_bytes()]);
    assert_eq!(seen.messages[0].1.len(), 50);
    assert!(seen.replies.contains("452 4.5.3 Too many recipients\r\n354 "));
}

#[test]
fn sessions_of_nonsense_end() {
    let seen = run(policy(), &[&b"X\r\n".repeat(30)]);
    assert_eq!(seen.close, Some(Close::TooManyErrors));
    assert!(seen.replies.ends_with("421 4.7.0 Too many errors\r\n"));
    assert_eq!(seen.replies.matches("500 ").count(), 20);
    let seen = run(policy(), &[&b"EHLO x\r\n".repeat(300)]);
    assert_eq!(seen.close, Some(Close::TooManyErrors));
}

#[test]
fn tls_starts_the_session_again_and_takes_no_plaintext() {
    let policy = ServerPolicy { starttls: true, tls_required: true, ..policy() };
    let seen = run(
        policy.clone(),
        &[b"EHLO a\r\nMAIL FROM:<a@b.test>\r\nSTARTTLS\r\n", b"MAIL FROM:<a@b.test>\r\nEHLO a\r\n"],
    );
    assert!(seen.tls);
    let (before, after) = seen.replies.split_once("220 2.0.0 Ready to start TLS\r\n").unwrap();
    assert!(before.ends_with("530 5.7.0 Must issue a STARTTLS command first\r\n"));
    assert!(after.starts_with("503 5.5.1 Send EHLO first\r\n") && !after.contains("STARTTLS"));
    let seen = run(policy, &[b"EHLO a\r\nSTARTTLS\r\nEHLO b\r\n"]);
    assert!(!seen.tls);
    assert_eq!(seen.close, Some(Close::Injection));
}

#[test]
fn what_the_caller_says_is_told_to_the_client() {
    for (tell, why, line) in [
        (Server::timed_out as fn(&mut Server), Close::TimedOut, "451 4.4.2 Timeout waiting for data from client.\r\n"),
        (Server::shutting_down, Close::Shutdown, "421 4.3.2 Service shutting down\r\n"),
        (Server::too_many_connections, Close::Busy, "421 4.7.0 Too many concurrent SMTP connections\r\n"),
    ] {
        let mut server = Server::new(Arc::new(policy()), false);
        tell(&mut server);
        assert_eq!(server.step(), Step::Close(why));
        assert_eq!(server.out(), line.as_bytes());
    }
}

#[test]
fn a_refusal_is_one_reply_whatever_its_text() {
    let mut server = Server::new(Arc::new(policy()), true);
    let input = format!("{OPEN}DATA\r\na\r\n.\r\n");
    server.space()[..input.len()].copy_from_slice(input.as_bytes());
    server.filled(input.len());
    assert_eq!(server.step(), Step::Message);
    assert_eq!(server.protocol(), "ESMTPS");
    server.out().clear();
    let text = format!("a\r\n250 Ok {} é", "word ".repeat(150));
    server.finish(FinalReply::Refused(&Reply::new(554, Enhanced(5, 7, 1), text)));
    assert_eq!(server.step(), Step::Read);
    let out = String::from_utf8(std::mem::take(server.out())).unwrap();
    let lines: Vec<_> = out.strip_suffix("\r\n").unwrap().split("\r\n").collect();
    assert!(lines.iter().all(|line| line.starts_with("554") && line[4..].starts_with("5.7.1 ") && line.len() < 510));
    assert_eq!(lines.iter().filter(|line| line.starts_with("554 ")).count(), 1);
}

/// The plainest possible reading of RFC 5321 section 4.5.2: splits at CRLF, ends at a line that is a dot.
fn reference(text: &[u8]) -> Option<(Vec<u8>, usize)> {
    let (mut content, mut at) = (Vec::new(), 0);
    loop {
        let length = text[at..].windows(2).position(|pair| pair == b"\r\n")?;
        let line = &text[at..at + length];
        at += length + 2;
        if line == b"." {
            return Some((content, at));
        }
        content.extend_from_slice(line.strip_prefix(b".").unwrap_or(line));
        content.extend_from_slice(b"\r\n");
    }
}

fn has_bare(content: &[u8]) -> bool {
    let text: Vec<u8> = String::from_utf8_lossy(content).replace("\r\n", "").into_bytes();
    text.iter().any(|b| matches!(b, b'\r' | b'\n'))
}

proptest! {
    #[test]
    fn messages_end_where_the_reference_ends_them(
        parts in proptest::collection::vec(proptest::sample::select(vec!["\r\n", ".", "\r", "\n", "a", "..", "\r\n.\r\n", "\r\n."]), 0..40)
    ) {
        let text = parts.concat() + "\r\n.\r\n";
        let (content, end) = reference(text.as_bytes()).unwrap();
        let mut input = format!("{OPEN}DATA\r\n{}", &text[..end]).into_bytes();
        input.extend_from_slice(b"QUIT\r\n");
        let seen = run(policy(), &[&input]);
        let bare = has_bare(&text.as_bytes()[..end]);
        let reply = if bare { "550 5.6.11 Bare CR or LF in message" } else { "250 Ok id-1" };
        // One reply to the whole text and one to QUIT: nothing in between was taken for a command.
        let expected = format!("354 End data with <CR><LF>.<CR><LF>\r\n{reply}\r\n221 2.0.0 Bye\r\n");
        prop_assert!(seen.replies.ends_with(&expected), "{}", seen.replies);
        prop_assert_eq!(seen.messages.first().map(|message| &message.2), (!bare).then_some(&content));
    }

    #[test]
    fn any_split_of_the_input_gives_the_same(
        parts in proptest::collection::vec(proptest::sample::select(vec![
            "EHLO a\r\n", "MAIL FROM:<a@b.test>\r\n", "RCPT TO:<c@d.test>\r\n", "DATA\r\n", "x\r\n", ".\r\n", "..\r\n", "\r",
            "\n", "BDAT 4\r\n", "BDAT 3 LAST\r\n", "RSET\r\n", "NOOP\r\n", "QUIT\r\n", "\0",
        ]), 0..30),
        cuts in proptest::collection::vec(0usize..400, 0..12),
    ) {
        let input = format!("{OPEN}{}", parts.concat()).into_bytes();
        let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(input.len())).chain([0, input.len()]).collect();
        cuts.sort_unstable();
        let chunks: Vec<&[u8]> = cuts.windows(2).map(|pair| &input[pair[0]..pair[1]]).collect();
        prop_assert_eq!(run(policy(), &chunks), run(policy(), &[&input]));
    }

    #[test]
    fn any_bytes_are_survived(input in proptest::collection::vec(any::<u8>(), 0..3000)) {
        run(policy(), &[&input]);
        run(policy(), &[OPEN.as_bytes(), b"DATA\r\n", &input]);
    }
}

fn authenticating() -> ServerPolicy {
    ServerPolicy { auth: true, auth_in_clear: true, auth_required: true, ..policy() }
}

/// `\0user\0secret` and `\0user\0wrong`.
const RIGHT: &str = "AUTH PLAIN AHVzZXIAc2VjcmV0\r\n";
const WRONG: &str = "AUTH PLAIN AHVzZXIAd3Jvbmc=\r\n";

#[test]
fn nobody_sends_mail_before_the_credentials_that_are_required() {
    let mail = "MAIL FROM:<a@b.test>\r\n";
    assert_eq!(replies(authenticating(), HELLO, mail), "530 5.7.0 Authentication required\r\n");
    assert_eq!(replies(authenticating(), HELLO, RIGHT), "235 2.7.0 Authentication successful.\r\n");
    assert_eq!(replies(authenticating(), &format!("{HELLO}{RIGHT}"), mail), "250 2.1.0 Ok\r\n");
    let wrong = replies(authenticating(), HELLO, &format!("{WRONG}{mail}"));
    assert_eq!(wrong, "535 5.7.8 Authentication Credentials Invalid\r\n530 5.7.0 Authentication required\r\n");
    let again = replies(authenticating(), &format!("{HELLO}{RIGHT}"), RIGHT);
    assert!(again.starts_with("503 5.5.1"), "{again}");
    let early = replies(authenticating(), "", RIGHT);
    assert!(early.starts_with("503 5.5.1 Send EHLO"), "{early}");
}

#[test]
fn credentials_are_asked_for_only_where_nobody_else_reads_them() {
    let policy = ServerPolicy { auth_in_clear: false, ..authenticating() };
    assert!(!run(policy.clone(), &[HELLO.as_bytes()]).replies.contains("AUTH"));
    let refused = replies(policy.clone(), HELLO, "AUTH PLAIN\r\n");
    assert_eq!(refused, "538 5.7.11 Encryption required for requested authentication mechanism\r\n");
    let mut inside = Server::new(Arc::new(policy), true);
    inside.space()[..HELLO.len()].copy_from_slice(HELLO.as_bytes());
    inside.filled(HELLO.len());
    assert_eq!(inside.step(), Step::Read);
    assert!(String::from_utf8_lossy(inside.out()).contains("250-AUTH PLAIN LOGIN\r\n"));
}

#[test]
fn an_exchange_takes_no_command_for_a_response_after_its_end() {
    let after = |lines: &str| replies(authenticating(), HELLO, lines);
    assert_eq!(
        after("AUTH LOGIN\r\n*\r\nNOOP\r\n"),
        "334 VXNlcm5hbWU6\r\n501 5.7.0 Authentication cancelled\r\n250 2.0.0 Ok\r\n"
    );
    assert!(after("AUTH LOGIN\r\nNOOP \r\nNOOP\r\n").ends_with("501 5.5.2 Cannot decode response\r\n250 2.0.0 Ok\r\n"));
    let long = "A".repeat(3000);
    assert!(
        after(&format!("AUTH LOGIN\r\n{long}\r\nNOOP\r\n")).ends_with("500 5.5.2 Line too long\r\n250 2.0.0 Ok\r\n")
    );
}

#[test]
fn who_guesses_is_sent_away() {
    let seen = run(authenticating(), &[format!("{HELLO}{WRONG}{WRONG}{WRONG}{RIGHT}").as_bytes()]);
    assert_eq!(seen.close, Some(Close::TooManyErrors));
    assert!(seen.replies.ends_with("421 4.7.0 Too many failed authentications\r\n"), "{}", seen.replies);
}
