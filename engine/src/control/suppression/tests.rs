use super::*;
use crate::link::{self, Command};
use mailrail_queue::{
    admit::suppress::{Overlay, Reasons, suppressed},
    policy::{Account, Policy},
};
use proptest::prelude::*;

const KEY: Key = Key(3, 4);
const DAY: u64 = 86_400_000;

/// Lists with one shard, and what that shard knows.
struct Rig {
    lists: Option<Lists>,
    shard: link::ShardLink,
    overlay: Overlay,
    directory: tempfile::TempDir,
    post: Arc<Post>,
}

impl Rig {
    fn new() -> Self {
        let (control, mut shards) = link::link(1);
        let post = Arc::new(Post::new(control.commands));
        let directory = tempfile::tempdir().unwrap();
        let shard = shards.remove(0);
        let mut rig = Self { lists: None, shard, overlay: Overlay::default(), directory, post };
        rig.open(Wall(100 * DAY));
        rig
    }

    fn open(&mut self, now: Wall) {
        self.lists = None;
        let path = self.directory.path().join("suppression.db");
        self.lists = Some(Lists::open(&path, KEY, Arc::clone(&self.post), now).unwrap());
    }

    fn lists(&self) -> &Lists {
        self.lists.as_ref().unwrap()
    }

    fn put(&self, list: &str, addresses: &[&str], at: u64) {
        let put = |address: &&str| Put {
            address: Norm::of(address).unwrap(),
            reason: Reason::Bounce,
            at: Wall(at),
            message_id: None,
        };
        self.lists().put(list, &addresses.iter().map(put).collect::<Vec<_>>()).unwrap();
    }

    /// Is it suppressed for this account, as the shard sees it?
    async fn hears(&mut self) {
        // The post carries in a task of its own.
        for _ in 0..50 {
            tokio::task::yield_now().await;
            while let Ok(command) = self.shard.commands.try_recv() {
                match command {
                    Command::Lists { set, .. } => {
                        self.overlay = Overlay::default();
                        self.overlay.swap(set);
                    }
                    Command::ListsChanged(changes) => changes.iter().for_each(|change| self.overlay.change(*change)),
                    other => panic!("{other:?}"),
                }
            }
        }
    }

    fn is_suppressed(&self, account: &str, reasons: Reasons, address: &str) -> bool {
        suppressed(&self.overlay, KEY, account, reasons, None, address).unwrap().is_some()
    }
}

#[tokio::test]
async fn shards_see_what_was_put_and_taken_off_at_once_in_a_new_set_and_after_opening_again() {
    let mut rig = Rig::new();
    let both = Reasons::default();
    rig.put("acme", &["A.b+c@Example.COM", "\"q q\"@example.com", "\"\\\"x\\\"\"@example.com"], 1);
    for reopened in [false, true] {
        if reopened {
            rig.open(Wall(100 * DAY));
        }
        rig.hears().await;
        for listed in ["a.B+C@example.com", "\"Q Q\"@EXAMPLE.com", "\"\\\"x\\\"\"@example.com"] {
            assert!(rig.is_suppressed("acme", both, listed), "{listed}, reopened: {reopened}");
        }
        assert!(
            !rig.is_suppressed("acme", both, "ab@example.com") && !rig.is_suppressed("beta", both, "a.b+c@example.com")
        );
    }
    let many: Vec<_> = (0..CHANGES_MAX).map(|n| format!("u{n}@example.net")).collect();
    rig.put("acme", &many.iter().map(String::as_str).collect::<Vec<_>>(), 2);
    let off = Norm::of("a.b+c@example.com").unwrap();
    assert_eq!(
        (rig.lists().remove("acme", std::slice::from_ref(&off)).unwrap(), rig.lists().remove("acme", &[off]).unwrap()),
        (1, 0)
    );
    rig.hears().await;
    assert!(
        rig.is_suppressed("acme", both, &many[CHANGES_MAX - 1])
            && !rig.is_suppressed("acme", both, "a.b+c@example.com")
    );
    assert_eq!(rig.lists().size().0, CHANGES_MAX + 2, "a new set was made, without the one taken off");
}

#[tokio::test]
async fn the_hosts_list_forgets_by_itself_and_counts_a_bounce_told_twice_once() {
    let mut rig = Rig::new();
    let bounce = |id: &str, day: u64| HardBounce {
        account: None,
        recipient: "a@x.test".into(),
        message_id: id.into(),
        at: Wall(day * DAY),
    };
    let at_host = Reasons::NONE;
    rig.lists().bounced(&[bounce("1", 100), bounce("1", 100)]).unwrap();
    rig.hears().await;
    assert!(rig.is_suppressed("any", at_host, "a@x.test"));
    assert!(!rig.is_suppressed("any", Reasons::default(), "a@x.test"), "who keeps a list of bounces has that one");
    rig.lists().expire(Wall(101 * DAY)).unwrap();
    rig.hears().await;
    assert!(!rig.is_suppressed("any", at_host, "a@x.test"), "a day after the first bounce");
    rig.lists().bounced(&[bounce("2", 102)]).unwrap();
    rig.lists().expire(Wall(104 * DAY)).unwrap();
    rig.hears().await;
    assert!(rig.is_suppressed("any", at_host, "a@x.test"), "three days after the second");
    rig.open(Wall(105 * DAY + 1));
    rig.hears().await;
    assert!(!rig.is_suppressed("any", at_host, "a@x.test"));
}

#[tokio::test]
async fn pages_are_the_newest_first_without_gaps_or_repeats() {
    let rig = Rig::new();
    for n in 0..25_u64 {
        rig.put("acme", &[&format!("u{n}@x.test")], n / 3);
    }
    rig.put("beta", &["other@x.test"], 99);
    let (mut seen, mut search) = (Vec::new(), db::Search::default());
    loop {
        let page = rig.lists().reader().search("acme", &search, 4).unwrap();
        let Some(last) = page.last() else { break };
        search.after = Some((last.at, last.norm.clone()));
        seen.extend(page.into_iter().map(|entry| (entry.at, entry.norm)));
    }
    let mut sorted = seen.clone();
    sorted.sort_by(|one, other| other.cmp(one));
    sorted.dedup();
    assert_eq!((seen.len(), &seen), (25, &sorted));
    let search = db::Search { from: Some(Wall(2)), until: Some(Wall(3)), ..db::Search::default() };
    assert_eq!(rig.lists().reader().search("acme", &search, 100).unwrap().len(), 6);
    let search = db::Search { complaint: true, ..db::Search::default() };
    assert!(rig.lists().reader().search("acme", &search, 100).unwrap().is_empty());
}

#[test]
fn only_hard_bounces_of_the_address_itself_list_it() {
    let account = |name: &str, reasons, lists_bounces| Account {
        name: name.into(),
        reasons,
        lists_bounces,
        ..Account::built_in()
    };
    let accounts = vec![
        account("acme", Reasons::default(), true),
        account("default", Reasons::default(), false),
        account("none", Reasons::NONE, true),
    ];
    let policy = Policy { accounts, ..Policy::default() };
    let line = |account: &str, source: &str, sub: &str, status: &str| {
        format!(
            "{{\"eventType\":\"Bounce\",\"messageId\":\"m\",\"account\":\"{account}\",\"source\":\"{source}\",\
             \"recipient\":\"a@x.test\",\"bounceType\":\"Permanent\",\"bounceSubType\":\"{sub}\",\"status\":\"{status}\"}}\n"
        )
    };
    let found = |line: String| {
        find(line.as_bytes(), &policy, Wall(5)).into_iter().map(|bounce| bounce.account).collect::<Vec<_>>()
    };
    assert_eq!(found(line("acme", "s@x.test", "NoEmail", "5.1.1")), [Some("acme".to_owned())]);
    assert_eq!(found(line("none", "s@x.test", "General", "5.1.10")), [None], "the host's list");
    for other in [
        line("acme", "s@x.test", "General", "5.7.1"),
        line("acme", "s@x.test", "OnAccountSuppressionList", "5.1.1"),
        line("acme", "", "NoEmail", "5.1.1"),
        line("default", "s@x.test", "NoEmail", "5.1.1"),
        line("gone", "s@x.test", "NoEmail", "5.1.1"),
        line("acme", "s@x.test", "NoEmail", "5.1.1").replace("Permanent", "Transient"),
        line("acme", "s@x.test", "NoEmail", "5.1.1").replace("\"Bounce\"", "\"Delivery\""),
    ] {
        assert!(found(other.clone()).is_empty(), "{other}");
    }
}

#[test]
fn lines_of_an_import_are_read_with_their_reasons_and_wrong_ones_say_why() {
    let read =
        |line: &str| csv::line(line, Wall(1)).map(|put| put.map(|put| (put.address.as_str().to_owned(), put.reason)));
    for nothing in ["", "  ", "# a comment", "Address,Reason", "email", "\u{feff}address"] {
        assert_eq!(read(nothing), Ok(None), "{nothing}");
    }
    for (line, address, reason) in [
        ("A@Example.com", "a@example.com", Reason::Manual),
        ("a@example.com, complaint\r", "a@example.com", Reason::Complaint),
        ("a@bücher.example,BOUNCE,2026-01-01", "a@xn--bcher-kva.example", Reason::Bounce),
        ("\"a@example.com\",\"BOUNCE\"", "a@example.com", Reason::Bounce),
        ("\"\"\"a,b\"\"@example.com\",BOUNCE", "a,b@example.com", Reason::Bounce),
        ("\"a,b\"@example.com,BOUNCE", "a,b@example.com", Reason::Bounce),
        ("{\"emailAddress\":\"a@example.com\",\"reason\":\"COMPLAINT\"}", "a@example.com", Reason::Complaint),
    ] {
        assert_eq!(read(line), Ok(Some((address.to_owned(), reason))), "{line}");
    }
    for wrong in [
        "a",
        "@x.test",
        "a@",
        "a@x..test",
        "a b@x.test",
        "a@x.test,SPAM",
        "{\"emailAddress\":1}",
        "\"a@x.test",
        "\"a\"b\"@x.test",
    ] {
        assert!(read(wrong).is_err(), "{wrong}");
    }
}

proptest! {
    #[test]
    fn no_line_is_too_strange_and_what_is_exported_is_imported(line in "\\PC{0,40}", local in "[#{]?[a-zA-Z#{\"\\\\, .+]{1,12}") {
        let _ = csv::line(&line, Wall(1));
        let quoted = format!("\"{}\"@x.test", local.replace('\\', "\\\\").replace('"', "\\\""));
        for address in [quoted.clone(), format!("{local}@x.test")] {
            let Ok(norm) = Norm::of(&address) else { continue };
            let entry = db::Entry {
                address,
                norm: norm.as_str().to_owned(),
                reason: Reason::Bounce,
                at: Wall(7),
                message_id: None,
            };
            let mut text = String::new();
            csv::write(&entry, &mut text);
            let back = csv::line(&text, Wall(7)).unwrap().unwrap();
            prop_assert_eq!((back.address.as_str(), back.reason), (norm.as_str(), Reason::Bounce), "{}", text);
        }
    }
}
