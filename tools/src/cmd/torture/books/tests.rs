//! Tests of the books: each wrong shows in its own figure.

use super::*;
use serde_json::json;

/// Message `run-1`, which is `m1`, with the recipients `a@x.test`, `b@x.test` and so on.
#[derive(Default)]
struct Case {
    receivers: Ledger,
    events: Events,
    queued: HashSet<u64>,
    notices: HashSet<u64>,
    kills: Vec<Kill>,
}

impl Case {
    fn copies(&mut self, recipient: &str, at_ms: &[u64]) {
        at_ms.iter().for_each(|at| self.receivers.add(b"run-1", recipient.as_bytes(), at * 1000));
    }

    fn say(&mut self, kind: &str, recipient: &str, more: serde_json::Value) {
        let mut event = json!({"eventType": kind, "messageId": "m1", "recipient": recipient});
        if let (Some(event), serde_json::Value::Object(more)) = (event.as_object_mut(), more) {
            event.extend(more);
        }
        self.events.take(&serde_json::to_vec(&event).unwrap());
    }

    /// Delivered as it should be.
    fn well(&mut self, recipient: &str) {
        self.copies(recipient, &[1_000]);
        self.say("Send", recipient, json!({}));
        self.say("Delivery", recipient, json!({}));
    }

    fn balance(&self, recipients: &str) -> Balance {
        let Self { receivers, events, queued, notices, kills } = self;
        let line = format!("run-1 m1 {recipients}\n");
        let mut balance = balance(line.as_bytes(), &Books { receivers, events, queued, notices, kills }).unwrap();
        balance.examples.clear();
        balance
    }
}

fn one() -> Balance {
    Balance { accepted: 1, ..Balance::default() }
}

#[test]
fn delivered_as_it_should_be() {
    let mut case = Case::default();
    case.well("A@x.test");
    // As after a crash: the same line again.
    case.say("Delivery", "A@x.test", json!({}));
    let balance = case.balance("A@x.test");
    assert_eq!(balance, Balance { delivered: 1, ..one() });
    assert!(balance.wrong().is_empty());
    assert!(!Balance::default().wrong().is_empty(), "nothing accepted proves nothing");
}

#[test]
fn queued_is_not_lost() {
    let mut case = Case::default();
    case.say("Send", "a@x.test", json!({}));
    case.say("Send", "b@x.test", json!({}));
    case.queued.insert(key("m1", "a@x.test"));
    let balance = case.balance("a@x.test b@x.test");
    assert_eq!(balance, Balance { accepted: 2, queued: 1, lost: 1, ..Balance::default() });
    assert_eq!(balance.wrong(), ["1 lost"]);
}

#[test]
fn a_bounce_needs_its_dsn_unless_the_recipient_was_suppressed() {
    let mut case = Case::default();
    for recipient in ["a@x.test", "b@x.test", "c@x.test"] {
        case.say("Send", recipient, json!({}));
        let sub = if recipient.starts_with('c') { "OnAccountSuppressionList" } else { "General" };
        case.say("Bounce", recipient, json!({"bounceSubType": sub}));
    }
    case.notices.insert(key("m1", "A@x.test"));
    let balance = case.balance("a@x.test b@x.test c@x.test");
    assert_eq!(balance, Balance { accepted: 3, bounced: 2, suppressed: 1, without_dsn: 1, ..Balance::default() });
}

#[test]
fn what_an_order_ended_is_accounted_for_by_its_event() {
    let mut case = Case::default();
    for recipient in ["a@x.test", "b@x.test", "c@x.test"] {
        case.say("Send", recipient, json!({}));
    }
    case.say("Cancel", "a@x.test", json!({"diagnosticCode": "550 5.7.1 cancelled by the operator of this host"}));
    // Bounced by an order: its sender has to be told as of any other.
    let ended = json!({"diagnosticCode": "550 5.7.1 ended by the operator of this host: torture"});
    case.say("Bounce", "b@x.test", ended.clone());
    case.say("Bounce", "c@x.test", ended);
    case.notices.insert(key("m1", "b@x.test"));
    let balance = case.balance("a@x.test b@x.test c@x.test");
    assert_eq!(balance, Balance { accepted: 3, cancelled: 1, bounced: 2, without_dsn: 1, ..Balance::default() });
}

#[test]
fn an_order_may_end_what_a_kill_or_a_receiver_left_in_doubt_and_nothing_else() {
    let ended = json!({"diagnosticCode": "550 5.7.1 cancelled by the operator of this host"});
    let mut case = Case { kills: vec![Kill { at_us: 3_500_000, back_us: 3_900_000 }], ..Case::default() };
    // Shortly before the kill; long before it; after an attempt in doubt; delivered, and known to be.
    let all = [("a@x.test", 3_000), ("b@x.test", 100), ("c@x.test", 100), ("d@x.test", 3_000)];
    for (recipient, at) in all {
        case.copies(recipient, &[at]);
        case.say("Send", recipient, json!({}));
    }
    case.say("Attempt", "c@x.test", json!({"inDoubt": true}));
    case.say("Delivery", "d@x.test", json!({}));
    all.iter().for_each(|(recipient, _)| case.say("Cancel", recipient, ended.clone()));
    let balance = case.balance("a@x.test b@x.test c@x.test d@x.test");
    let expected =
        Balance { accepted: 4, delivered: 4, ended_in_doubt: 2, disagree: 1, contradict: 2, ..Balance::default() };
    assert_eq!(balance, expected);
}

#[test]
fn copies_are_explained_by_doubts_and_by_kills_close_enough() {
    let mut case = Case { kills: vec![Kill { at_us: 3_500_000, back_us: 3_900_000 }], ..Case::default() };
    // Said to be in doubt; 500 ms before the kill; while it was dead; too long before; after the last kill.
    let copies: [(&str, &[u64]); 5] = [
        ("a@x.test", &[100, 5_000]),
        ("b@x.test", &[3_000, 4_000]),
        ("c@x.test", &[3_600, 4_000]),
        ("d@x.test", &[1_400, 4_000]),
        ("e@x.test", &[5_000, 6_000]),
    ];
    for (recipient, at) in copies {
        case.copies(recipient, at);
        case.say("Send", recipient, json!({}));
        case.say("Delivery", recipient, json!({}));
    }
    case.say("Attempt", "a@x.test", json!({"inDoubt": true}));
    let balance = case.balance("a@x.test b@x.test c@x.test d@x.test e@x.test");
    let expected = Balance {
        accepted: 5,
        delivered: 5,
        copies_in_doubt: 1,
        copies_of_kills: 2,
        oldest_doubt_ms: 2_100,
        unexplained: 2,
        ..Balance::default()
    };
    assert_eq!(balance, expected);
}

#[test]
fn without_a_kill_there_is_no_second_copy() {
    let mut case = Case::default();
    case.well("a@x.test");
    case.copies("a@x.test", &[1_001]);
    assert_eq!(case.balance("a@x.test"), Balance { delivered: 1, unexplained: 1, ..one() });
}

#[test]
fn two_delivery_events_that_differ_are_two_deliveries() {
    let mut case = Case::default();
    case.well("a@x.test");
    case.say("Delivery", "a@x.test", json!({"timestamp": "later"}));
    assert_eq!(case.balance("a@x.test"), Balance { delivered: 1, delivered_twice: 1, ..one() });
}

#[test]
fn receivers_and_events_must_agree() {
    let mut case = Case::default();
    case.copies("a@x.test", &[1]);
    case.say("Send", "a@x.test", json!({}));
    assert_eq!(case.balance("a@x.test"), Balance { delivered: 1, disagree: 1, ..one() });
    case.queued.insert(key("m1", "a@x.test"));
    assert_eq!(case.balance("a@x.test"), Balance { delivered: 1, ..one() }, "it will be tried again");
    let mut case = Case::default();
    case.well("a@x.test");
    case.say("Bounce", "a@x.test", json!({}));
    assert_eq!(case.balance("a@x.test"), Balance { delivered: 1, contradict: 1, ..one() });
    let mut case = Case::default();
    case.copies("a@x.test", &[1]);
    case.say("Delivery", "a@x.test", json!({}));
    assert_eq!(case.balance("a@x.test"), Balance { delivered: 1, without_send: 1, ..one() });
}

#[test]
fn promises_come_back_from_their_file_and_rotated_logs_count_once() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("promises");
    let mut promises = Promises::create(&path).unwrap();
    promises.add("run-1", "2.0.0 Ok m1", &["a@x.test", "b@x.test"]).unwrap();
    promises.finish().unwrap();
    assert_eq!(promises.accepted, 2);
    let line = |kind| format!("{{\"eventType\":\"{kind}\",\"messageId\":\"m1\",\"recipient\":\"a@x.test\"}}\n");
    fs::write(directory.path().join("events-00000001.jsonl"), line("Send")).unwrap();
    fs::write(directory.path().join("events.jsonl"), line("Bounce") + "{\"eventType\":\"Del").unwrap();
    let mut events = Events::default();
    events.read(directory.path(), false).unwrap();
    assert!(!events.facts[&key("m1", "a@x.test")].ended);
    fs::remove_file(directory.path().join("events-00000001.jsonl")).unwrap();
    events.read(directory.path(), true).unwrap();
    let facts = events.facts[&key("m1", "a@x.test")];
    assert!(facts.sent && facts.ended);
    let (receivers, none) = (Ledger::new(), HashSet::new());
    let books = Books { receivers: &receivers, events: &events, queued: &none, notices: &none, kills: &[] };
    let file = BufReader::new(File::open(path).unwrap());
    let balance = balance(file, &books).unwrap();
    assert_eq!((balance.accepted, balance.bounced, balance.lost), (2, 1, 1));
    assert_eq!(balance.examples.len(), 2);
}
