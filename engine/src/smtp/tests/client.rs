use super::*;
use crate::smtp::{envelope::Notify, letter::To};
use proptest::prelude::*;

const FULL: &str =
    "250-r.test\r\n250-PIPELINING\r\n250-SIZE 1000\r\n250-8BITMIME\r\n250-DSN\r\n250 ENHANCEDSTATUSCODES\r\n";
const CHUNKS: &str = "250-r.test\r\n250-PIPELINING\r\n250 CHUNKING\r\n";
const PLAIN: &str = "250 r.test\r\n";

fn client(tls: Tls) -> Client {
    Client::new(ClientPolicy::new("out.test".into(), tls))
}

fn give(client: &mut Client, text: &str) {
    client.space()[..text.len()].copy_from_slice(text.as_bytes());
    client.filled(text.len());
}

/// What is written until the machine wants anything else.
fn written(client: &mut Client) -> String {
    let mut all = Vec::new();
    while client.step() == Act::Write {
        let mut out = Vec::new();
        client.take_out(&mut out);
        all.append(&mut out);
    }
    String::from_utf8(all).unwrap()
}

fn ready(ehlo: &str) -> Client {
    let mut client = client(Tls::Never);
    give(&mut client, "220 r.test\r\n");
    assert_eq!(written(&mut client), "EHLO out.test\r\n");
    give(&mut client, ehlo);
    assert_eq!(client.step(), Act::Ready);
    client
}

fn offer_to(client: &mut Client, id: u32, size: u64, to: &[&str]) {
    let recipients: Vec<_> = to.iter().map(|address| To { address, notify: Notify::DEFAULT, orcpt: None }).collect();
    client.offer(&Letter {
        id,
        sender: "a@b.test",
        recipients: &recipients,
        size,
        eight_bit: false,
        smtputf8: false,
        ret: None,
        env_id: None,
    });
}

fn content(client: &mut Client, id: u32, text: &str) {
    assert_eq!(client.step(), Act::Content { letter: id });
    client.content_append(text.as_bytes());
    client.content_done();
}

fn outcome(client: &mut Client) -> LetterOutcome {
    assert_eq!(client.step(), Act::Outcome);
    client.outcome().clone()
}

#[test]
fn the_next_letter_rides_on_the_final_dot() {
    let mut c = ready(FULL);
    offer_to(&mut c, 1, 6, &["c@d.test"]);
    assert!(!c.has_room());
    assert_eq!(written(&mut c), "MAIL FROM:<a@b.test> SIZE=6\r\nRCPT TO:<c@d.test>\r\nDATA\r\n");
    give(&mut c, "250 ok\r\n250 ok\r\n354 go\r\n");
    content(&mut c, 1, ".x\r\n\r\n");
    assert!(c.has_room());
    offer_to(&mut c, 2, 3, &["e@f.test"]);
    assert_eq!(written(&mut c), "..x\r\n\r\n.\r\nMAIL FROM:<a@b.test> SIZE=3\r\nRCPT TO:<e@f.test>\r\nDATA\r\n");
    give(&mut c, "250 2.0.0 queued\r\n250 ok\r\n250 ok\r\n354 go\r\n");
    let first = outcome(&mut c);
    assert_eq!((first.letter, first.verdict, first.seen), (1, Verdict::Delivered, true));
    assert_eq!(first.reply.to_string(), "250 2.0.0 queued");
    content(&mut c, 2, "y\r\n");
    assert_eq!(written(&mut c), "y\r\n.\r\n");
    give(&mut c, "451 4.3.0 later\r\n");
    assert_eq!(outcome(&mut c).verdict, Verdict::Refused);
    assert_eq!(c.step(), Act::Ready);
    c.quit();
    assert_eq!(written(&mut c), "QUIT\r\n");
    give(&mut c, "221 bye\r\n");
    assert_eq!(c.step(), Act::Closed(Why::Quit));
}

#[test]
fn small_letters_go_out_whole_by_chunks() {
    let mut c = ready(CHUNKS);
    for id in 1..=2 {
        offer_to(&mut c, id, 4, &["c@d.test"]);
        content(&mut c, id, ".x\r\n");
    }
    assert_eq!(
        written(&mut c),
        "MAIL FROM:<a@b.test>\r\nRCPT TO:<c@d.test>\r\nBDAT 4 LAST\r\n.x\r\n\
         RSET\r\nMAIL FROM:<a@b.test>\r\nRCPT TO:<c@d.test>\r\nBDAT 4 LAST\r\n.x\r\n"
    );
    give(&mut c, "250 ok\r\n550 5.1.1 no\r\n503 no\r\n250 ok\r\n250 ok\r\n250 ok\r\n250 Ok\r\n");
    let first = outcome(&mut c);
    assert_eq!((first.verdict, first.stage, first.reply.code), (Verdict::Refused, Stage::Rcpt, 550));
    assert_eq!(outcome(&mut c).verdict, Verdict::Delivered);
    assert_eq!(c.step(), Act::Ready);
}

#[test]
fn a_chunk_refused_early_is_still_sent_to_its_end() {
    let mut c = ready(CHUNKS);
    offer_to(&mut c, 1, 4, &["c@d.test"]);
    assert_eq!(c.step(), Act::Content { letter: 1 });
    c.content_append(b"x\r");
    give(&mut c, "550 5.7.1 no\r\n503 no\r\n503 no\r\n");
    assert_eq!(c.step(), Act::Content { letter: 1 });
    c.content_append(b"\ny");
    c.content_done();
    let done = outcome(&mut c);
    assert_eq!((done.verdict, done.stage, done.reply.code), (Verdict::Refused, Stage::Mail, 550));
    assert!(written(&mut c).ends_with("BDAT 4 LAST\r\nx\r\ny"));
}

#[test]
fn without_pipelining_each_command_waits() {
    let mut c = ready(PLAIN);
    offer_to(&mut c, 1, 3, &["c@d.test", "e@f.test"]);
    assert_eq!(written(&mut c), "MAIL FROM:<a@b.test>\r\n");
    for (reply, next) in [
        ("250 ok\r\n", "RCPT TO:<c@d.test>\r\n"),
        ("550 5.1.1 no\r\n", "RCPT TO:<e@f.test>\r\n"),
        ("250 ok\r\n", "DATA\r\n"),
    ] {
        give(&mut c, reply);
        assert_eq!(written(&mut c), next);
    }
    give(&mut c, "354 go\r\n");
    content(&mut c, 1, "x\r\n");
    assert!(!c.has_room());
    assert_eq!(written(&mut c), "x\r\n.\r\n");
    give(&mut c, "250 ok\r\n");
    let done = outcome(&mut c);
    assert_eq!(done.recipient(0).0, Verdict::Refused);
    assert_eq!(done.recipient(0).1.enhanced, Some(Enhanced(5, 1, 1)));
    assert_eq!(done.recipient(1).0, Verdict::Delivered);
}

/// Replies to one pipelined letter with two recipients, in one go, and what they come to.
#[test]
fn every_refusal_has_its_stage() {
    for (replies, verdict, stage, code, then) in [
        ("550 a\r\n503 b\r\n503 c\r\n503 d\r\n", Verdict::Refused, Stage::Mail, 550, ""),
        ("503 nested\r\n503 b\r\n503 c\r\n503 d\r\n", Verdict::Refused, Stage::Mail, 503, "RSET\r\n"),
        ("250 a\r\n550 b\r\n450 c\r\n503 d\r\n", Verdict::Refused, Stage::Rcpt, 450, "RSET\r\n"),
        ("250 a\r\n250 b\r\n250 c\r\n451 d\r\n", Verdict::Refused, Stage::Data, 451, "RSET\r\n"),
    ] {
        let mut c = ready(FULL);
        offer_to(&mut c, 1, 3, &["c@d.test", "e@f.test"]);
        written(&mut c);
        give(&mut c, replies);
        let done = outcome(&mut c);
        assert_eq!((done.verdict, done.stage, done.reply.code), (verdict, stage, code), "{replies:?}");
        assert_eq!(c.step(), Act::Ready);
        offer_to(&mut c, 2, 3, &["c@d.test"]);
        assert!(written(&mut c).starts_with(&format!("{then}MAIL")), "{replies:?}");
    }
}

#[test]
fn a_354_for_nobody_gets_a_lone_dot() {
    let mut c = ready(FULL);
    offer_to(&mut c, 1, 3, &["c@d.test"]);
    written(&mut c);
    give(&mut c, "250 a\r\n550 b\r\n354 go\r\n");
    assert_eq!(written(&mut c), ".\r\n");
    assert!(!c.has_room());
    give(&mut c, "554 no\r\n");
    let done = outcome(&mut c);
    assert_eq!((done.stage, done.reply.code), (Stage::Rcpt, 550));
    assert_eq!(c.step(), Act::Ready);
}

#[test]
fn a_lost_connection_says_exactly_what_the_server_may_have() {
    // Bytes handed out, replies had, verdict.
    for (send, replies, end, verdict, stage) in [
        (false, "", false, Verdict::NeverSeen, Stage::Mail),
        (true, "", false, Verdict::Broken, Stage::Mail),
        (true, "250 a\r\n", false, Verdict::Broken, Stage::Rcpt),
        (true, "250 a\r\n250 b\r\n", false, Verdict::Broken, Stage::Data),
        (true, "250 a\r\n250 b\r\n354 go\r\n", false, Verdict::Broken, Stage::Content),
        (true, "250 a\r\n250 b\r\n354 go\r\n", true, Verdict::InDoubt, Stage::Final),
    ] {
        let mut c = ready(FULL);
        offer_to(&mut c, 7, 3, &["c@d.test"]);
        if send {
            written(&mut c);
        }
        give(&mut c, replies);
        if c.step() == (Act::Content { letter: 7 }) {
            c.content_append(b"x\r\n");
            c.content_done();
        }
        if end {
            assert_eq!(written(&mut c), "x\r\n.\r\n");
        }
        c.lost("reset");
        let done = outcome(&mut c);
        assert_eq!((done.verdict, done.stage, done.seen), (verdict, stage, send), "{replies:?}");
        assert!(done.reply.local);
        assert_eq!(c.step(), Act::Closed(Why::Lost("reset".into())));
    }
}

#[test]
fn each_letter_of_a_window_has_its_own_fate() {
    let mut c = ready(CHUNKS);
    for id in 1..=2 {
        offer_to(&mut c, id, 3, &["c@d.test"]);
        content(&mut c, id, "x\r\n");
    }
    written(&mut c);
    offer_to(&mut c, 3, 3, &["c@d.test"]);
    give(&mut c, "250 a\r\n250 b\r\n250 c\r\n");
    assert_eq!(outcome(&mut c).verdict, Verdict::Delivered);
    c.timed_out();
    assert_eq!(outcome(&mut c).verdict, Verdict::InDoubt);
    let third = outcome(&mut c);
    assert_eq!((third.verdict, third.seen), (Verdict::NeverSeen, false));
    assert_eq!(c.step(), Act::Closed(Why::TimedOut));
}

#[test]
fn a_421_ends_the_session_wherever_it_comes() {
    for (replies, verdict, stage) in [
        ("421 4.3.2 bye\r\n", Verdict::Refused, Stage::Mail),
        ("250 a\r\n421 4.3.2 bye\r\n", Verdict::Refused, Stage::Rcpt),
        ("250 a\r\n250 b\r\n421 4.3.2 bye\r\n", Verdict::Refused, Stage::Data),
        ("250 a\r\n250 b\r\n354 go\r\n421 4.3.2 bye\r\n", Verdict::Refused, Stage::Content),
    ] {
        let mut c = ready(FULL);
        offer_to(&mut c, 1, 3, &["c@d.test"]);
        written(&mut c);
        give(&mut c, replies);
        let done = outcome(&mut c);
        assert_eq!((done.verdict, done.stage, done.reply.code), (verdict, stage, 421), "{replies:?}");
        assert!(matches!(c.step(), Act::Closed(Why::Shutdown(reply)) if reply.code == 421));
    }
    let mut c = ready(FULL);
    give(&mut c, "421 idle\r\n");
    assert!(matches!(c.step(), Act::Closed(Why::Shutdown(_))));
}

#[test]
fn what_a_server_cannot_take_is_refused_here() {
    let mut c = ready(FULL);
    let to = [To { address: "c@d.test", notify: Notify::DEFAULT, orcpt: None }];
    let letter = Letter {
        id: 1,
        sender: "a@b.test",
        recipients: &to,
        size: 10,
        eight_bit: false,
        smtputf8: false,
        ret: None,
        env_id: None,
    };
    let evil = [To { address: "c@d.test>\r\nRCPT TO:<x@y.test", ..to[0] }];
    let param = [To { orcpt: Some("rfc822;a b"), ..to[0] }];
    for (letter, enhanced) in [
        (Letter { size: 1001, ..letter }, Enhanced(5, 3, 4)),
        (Letter { smtputf8: true, ..letter }, Enhanced(5, 6, 7)),
        (Letter { sender: "é@b.test", ..letter }, Enhanced(5, 6, 7)),
        (Letter { recipients: &evil, ..letter }, Enhanced(5, 1, 3)),
        (Letter { recipients: &param, ..letter }, Enhanced(5, 1, 3)),
        (Letter { recipients: &[], ..letter }, Enhanced(5, 1, 3)),
        (Letter { sender: "a> X=<b", ..letter }, Enhanced(5, 1, 3)),
    ] {
        c.offer(&letter);
        let done = outcome(&mut c);
        assert_eq!((done.verdict, done.seen, done.reply.local), (Verdict::Refused, false, true));
        assert_eq!(done.reply.enhanced, Some(enhanced), "{letter:?}");
    }
    assert_eq!(c.step(), Act::Ready);
    let mut c = ready(PLAIN);
    c.offer(&Letter { eight_bit: true, ..letter });
    assert_eq!(outcome(&mut c).reply.enhanced, Some(Enhanced(5, 6, 3)));
}

#[test]
fn parameters_are_written_where_offered() {
    let to = [To {
        address: "\"q >\"@d.test",
        notify: Notify::SUCCESS.with(Notify::DELAY),
        orcpt: Some("rfc822;q+20@d.test"),
    }];
    let letter = Letter {
        id: 1,
        sender: "",
        recipients: &to,
        size: 1,
        eight_bit: true,
        smtputf8: false,
        ret: Some(crate::smtp::envelope::Ret::Headers),
        env_id: Some("e1"),
    };
    let mut c = ready(FULL);
    c.offer(&letter);
    assert_eq!(
        written(&mut c),
        "MAIL FROM:<> SIZE=1 BODY=8BITMIME RET=HDRS ENVID=e1\r\n\
         RCPT TO:<\"q >\"@d.test> NOTIFY=SUCCESS,DELAY ORCPT=rfc822;q+20@d.test\r\nDATA\r\n"
    );
}

#[test]
fn content_that_could_fool_a_server_is_never_ended() {
    for (ehlo, bad) in [
        (FULL, "a\n.\r\nb"),
        (FULL, "a\r.\r\nb"),
        (FULL, "abcde\r"),
        (CHUNKS, "a\r\rbcd"),
        (CHUNKS, "abc"),
        (FULL, "abcdefg"),
    ] {
        let mut c = ready(ehlo);
        offer_to(&mut c, 1, 6, &["c@d.test"]);
        if ehlo == FULL {
            written(&mut c);
            give(&mut c, "250 a\r\n250 b\r\n354 go\r\n");
        }
        content(&mut c, 1, bad);
        let done = outcome(&mut c);
        assert_eq!((done.verdict, done.reply.code), (Verdict::Refused, 554), "{bad:?}");
        assert!(matches!(c.step(), Act::Closed(Why::BadContent(_))));
        assert!(c.out().is_empty());
    }
}

#[test]
fn hello_falls_back_and_tls_forgets() {
    let mut c = client(Tls::Opportunistic);
    give(&mut c, "220 r\r\n");
    written(&mut c);
    give(&mut c, "502 what\r\n");
    assert_eq!(written(&mut c), "HELO out.test\r\n");
    give(&mut c, "250 r\r\n");
    assert_eq!(c.step(), Act::Ready);

    let mut c = client(Tls::Required);
    give(&mut c, "220 r\r\n");
    written(&mut c);
    give(&mut c, "250-r\r\n250-CHUNKING\r\n250 STARTTLS\r\n");
    assert_eq!(written(&mut c), "STARTTLS\r\n");
    give(&mut c, "220 go\r\n");
    assert_eq!(c.step(), Act::StartTls);
    c.tls_started();
    assert_eq!(c.capabilities(), Capabilities::default());
    assert_eq!(written(&mut c), "EHLO out.test\r\n");
    give(&mut c, "250-r\r\n250-STARTTLS\r\n250 PIPELINING\r\n");
    assert_eq!(c.step(), Act::Ready);
    assert!(c.capabilities().pipelining && !c.capabilities().chunking && c.tls());
}

#[test]
fn starttls_refused_or_abused() {
    for (tls, reply, act) in [
        (Tls::Opportunistic, "454 no\r\n", Act::Ready),
        (Tls::Required, "454 no\r\n221 bye\r\n", Act::Closed(Why::TlsRequired)),
        (Tls::Opportunistic, "220 go\r\n250 injected\r\n", Act::Closed(Why::Injected)),
    ] {
        let mut c = client(tls);
        give(&mut c, "220 r\r\n");
        written(&mut c);
        give(&mut c, "250-r\r\n250 STARTTLS\r\n");
        written(&mut c);
        let (first, rest) = reply.split_once("\r\n").unwrap();
        let both = !first.starts_with("454");
        give(&mut c, if both { reply.to_owned() } else { format!("{first}\r\n") }.as_str());
        written(&mut c);
        if !both && !rest.is_empty() {
            give(&mut c, rest);
        }
        assert_eq!(c.step(), act);
    }
    let mut c = client(Tls::Required);
    give(&mut c, "220 r\r\n");
    written(&mut c);
    give(&mut c, PLAIN);
    assert_eq!(written(&mut c), "QUIT\r\n");
    c.lost("eof");
    assert_eq!(c.step(), Act::Closed(Why::TlsRequired));
}

#[test]
fn servers_that_do_not_speak_smtp_are_left() {
    let endless = "220-x\r\n".repeat(200);
    let long = "2".repeat(3000);
    for text in [
        "hello\r\n",
        "2200\r\n",
        "220-a\r\n250 b\r\n",
        "220 a\r\n250 before its command\r\n",
        &endless,
        &long,
        "120 a\r\n",
    ] {
        let mut c = client(Tls::Never);
        let mut rest = text;
        while !rest.is_empty() && c.step() == Act::Read {
            let now = rest.len().min(c.space().len());
            give(&mut c, &rest[..now]);
            rest = &rest[now..];
        }
        assert!(matches!(c.step(), Act::Closed(Why::Misbehaved(_))), "{text:.20?}");
    }
    let mut c = client(Tls::Never);
    give(&mut c, "554 go away\r\n");
    assert!(matches!(c.step(), Act::Closed(Why::Refused(_))));
    let mut c = ready(FULL);
    give(&mut c, "250 for nothing\r\n");
    assert!(matches!(c.step(), Act::Closed(Why::Misbehaved(_))));
    let mut c = ready(FULL);
    offer_to(&mut c, 1, 3, &["c@d.test"]);
    written(&mut c);
    give(&mut c, "250 a\r\n250 b\r\n354 go\r\n250 too early\r\n");
    assert_eq!(outcome(&mut c).verdict, Verdict::Broken);
    assert!(matches!(c.step(), Act::Closed(Why::Misbehaved(_))));
}

#[test]
fn every_state_has_its_timeout() {
    let mut c = client(Tls::Never);
    assert_eq!(c.timeout().as_secs(), 300);
    c = ready(FULL);
    offer_to(&mut c, 1, 3, &["c@d.test"]);
    written(&mut c);
    give(&mut c, "250 a\r\n250 b\r\n");
    assert_eq!(c.step(), Act::Read);
    assert_eq!(c.timeout().as_secs(), 120);
    give(&mut c, "354 go\r\n");
    assert_eq!(c.step(), Act::Content { letter: 1 });
    assert_eq!(c.timeout().as_secs(), 180);
    c.content_append(b"x\r\n");
    c.content_done();
    assert_eq!(c.timeout().as_secs(), 600);
}

/// Plays a server's replies in given pieces against two letters; what the machine says and concludes.
fn play(ehlo: &str, replies: &str, cuts: &[usize]) -> (String, Vec<LetterOutcome>, Option<Why>) {
    let mut c = ready(ehlo);
    let (mut said, mut done, mut offered, mut last) = (String::new(), Vec::new(), 0, 0);
    let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut % (replies.len() + 1)).chain([replies.len()]).collect();
    cuts.sort_unstable();
    let mut cuts = cuts.into_iter();
    loop {
        if offered < 2 && c.in_flight() == 0 && c.has_room() {
            offered += 1;
            offer_to(&mut c, offered, 3, &["c@d.test", "e@f.test"]);
        }
        match c.step() {
            Act::Write => said.push_str(&written(&mut c)),
            Act::Content { .. } => {
                c.content_append(b"x\r\n");
                c.content_done();
            }
            Act::Outcome => done.push(c.outcome().clone()),
            Act::Closed(why) => return (said, done, Some(why)),
            _ => match cuts.next() {
                Some(cut) => {
                    give(&mut c, &replies[last..cut]);
                    last = cut;
                }
                None => return (said, done, None),
            },
        }
    }
}

proptest! {
    #[test]
    fn letters_offered_end_in_one_outcome_each(
        chunks in any::<bool>(),
        parts in proptest::collection::vec(proptest::sample::select(vec![
            "250 ok\r\n", "250-a\r\n250 b\r\n", "550 5.1.1 no\r\n", "354 go\r\n", "421 bye\r\n", "451 4.1.1 x\r\n", "x\r\n", "503 seq\r\n",
        ]), 0..20),
        cuts in proptest::collection::vec(any::<usize>(), 0..8),
    ) {
        let replies = parts.concat();
        let (said, done, _) = play(if chunks { CHUNKS } else { FULL }, &replies, &cuts);
        prop_assert!(!said.replace("\r\n", "").contains(['\r', '\n']));
        let mut ids: Vec<u32> = done.iter().map(|outcome| outcome.letter).collect();
        ids.dedup();
        prop_assert_eq!(ids.len(), done.len());
        for outcome in done.iter().filter(|outcome| outcome.verdict == Verdict::Delivered) {
            prop_assert!(outcome.reply.is_positive() && outcome.seen);
        }
    }

    #[test]
    fn any_split_of_the_replies_gives_the_same(cuts in proptest::collection::vec(any::<usize>(), 0..12)) {
        let replies = "250 ok\r\n550-5.1.1 no\r\n550 5.1.1 such\r\n250 ok\r\n";
        prop_assert_eq!(play(FULL, replies, &cuts), play(FULL, replies, &[]));
    }

    #[test]
    fn any_bytes_are_survived(text in "\\PC*|([2-5][0-9]{2}[ -][a-z]{0,5}\r\n)*") {
        let mut c = ready(FULL);
        offer_to(&mut c, 1, 3, &["c@d.test"]);
        written(&mut c);
        if text.len() < 4000 {
            give(&mut c, &text);
        }
        c.step();
        c.lost("eof");
        while c.step() == Act::Outcome {}
        prop_assert!(matches!(c.step(), Act::Closed(_)));
    }
}

/// A server that has had enough says 421 to a MAIL; what was pipelined behind it is surely not taken, though all of it left.
#[test]
fn letters_behind_a_421_are_broken_off_and_not_in_doubt() {
    let mut c = ready(CHUNKS);
    for id in 1..=2 {
        offer_to(&mut c, id, 4, &["c@d.test"]);
        content(&mut c, id, ".x\r\n");
    }
    written(&mut c);
    give(&mut c, "421 4.7.0 enough for one connection\r\n");
    let first = outcome(&mut c);
    assert_eq!((first.verdict, first.reply.code), (Verdict::Refused, 421));
    let second = outcome(&mut c);
    assert_eq!((second.verdict, second.stage), (Verdict::Broken, Stage::Mail));
}
