use super::*;
use proptest::prelude::*;
use std::collections::BTreeMap;

const KEY: Key = Key(0x0123_4567_89ab_cdef, 0xfedc_ba98_7654_3210);
const DAY: u64 = 86_400_000;

fn digest(list: List, address: &str) -> Digest {
    Digest::of(KEY, list, address).unwrap()
}

fn set_of(entries: &[(List, &str, Reason)]) -> Set {
    let change = |(list, address, reason): &(List, &str, Reason)| Change {
        digest: digest(*list, address),
        reason: Some(*reason),
    };
    Set::default().with(&mut entries.iter().map(change).collect())
}

#[test]
fn addresses_that_compare_equal_have_one_digest() {
    let of = |address| digest(List::Account("acme1"), address);
    let plain = of("user.name+tag@example.com");
    for same in ["User.Name+TAG@EXAMPLE.com", "\"user.name+tag\"@example.com", "\"User.\\Name+tag\"@example.com"] {
        assert_eq!(of(same), plain, "{same}");
    }
    for other in
        ["username+tag@example.com", "user.name@example.com", "user.name+tag@example.org", "user.name+tag@xample.com"]
    {
        assert_ne!(of(other), plain, "{other}");
    }
    assert_eq!(of("ÄÖÜ@example.com"), of("äöü@example.com"));
    assert_eq!(of("\"a@b\"@example.com"), of("\"A@b\"@example.com"));
    let long = "x".repeat(64);
    assert_eq!(of(&format!("{long}@example.com")), of(&format!("{}@example.com", long.to_uppercase())));
    assert_ne!(plain, digest(List::Account("acme2"), "user.name+tag@example.com"));
    assert_ne!(plain, digest(List::Host, "user.name+tag@example.com"));
    let other_key = Digest::of(Key(1, 2), List::Account("acme1"), "user.name+tag@example.com").unwrap();
    assert_ne!(plain, other_key);
}

#[test]
fn what_is_no_address_is_refused() {
    for bad in ["", "@", "a@", "@b", "nobody"] {
        assert_eq!(Digest::of(KEY, List::Host, bad), Err(BadAddress::NoAddress(bad.to_owned())));
    }
    assert!(matches!(Digest::of(KEY, List::Host, "a@bücher.example"), Err(BadAddress::NotALabel(_))));
}

#[test]
fn the_three_layers_are_asked_as_the_table_says() {
    let both = Reasons::default();
    let (only_bounce, only_complaint) = (Reasons { complaint: false, ..both }, Reasons { bounce: false, ..both });
    let none = Reasons::NONE;
    let account = List::Account("acme1");
    let set = set_of(&[
        (account, "bounced@x.example", Reason::Bounce),
        (account, "manual@x.example", Reason::Manual),
        (account, "complained@x.example", Reason::Complaint),
        (List::Host, "host@x.example", Reason::Bounce),
        (List::Host, "bounced@x.example", Reason::Bounce),
    ]);
    let mut lists = Overlay::default();
    lists.swap(Arc::new(set));
    let ask = |of_account, of_set, local: &str| {
        suppressed(&lists, KEY, "acme1", of_account, of_set, &format!("{local}@x.example")).unwrap()
    };
    let (list, complaint, host) =
        (Some(Suppressed::OnAccountList), Some(Suppressed::OnAccountListForComplaint), Some(Suppressed::OnHostList));
    for (of_account, of_set, bounced, manual, complained, on_host) in [
        (both, None, list, list, complaint, None),
        (only_bounce, None, list, list, None, None),
        (only_complaint, None, host, None, complaint, host),
        // The account's list is off: the host's serves.
        (none, None, host, None, None, host),
        // The set decides alone; `[]` there is no suppression at all.
        (both, Some(none), None, None, None, None),
        (none, Some(both), list, list, complaint, None),
        (both, Some(only_complaint), host, None, complaint, host),
    ] {
        let asked = ["bounced", "manual", "complained", "host", "free"].map(|local| ask(of_account, of_set, local));
        assert_eq!(asked, [bounced, manual, complained, on_host, None], "{of_account:?} {of_set:?}");
    }
    assert_eq!(suppressed(&lists, KEY, "acme2", both, None, "bounced@x.example"), Ok(None), "another account");
}

#[test]
fn changes_are_seen_at_once_and_a_new_set_has_them() {
    let set = Arc::new(set_of(&[(List::Host, "a@x.example", Reason::Bounce)]));
    let mut lists = Overlay::default();
    lists.swap(Arc::clone(&set));
    let [a, b] = ["a@x.example", "b@x.example"].map(|address| digest(List::Host, address));
    let changes = [Change { digest: a, reason: None }, Change { digest: b, reason: Some(Reason::Manual) }];
    changes.into_iter().for_each(|change| lists.change(change));
    assert_eq!((lists.get(a), lists.get(b), lists.changes()), (None, Some(Reason::Manual), 2));
    lists.swap(Arc::new(set.with(&mut changes.to_vec())));
    assert_eq!((lists.get(a), lists.get(b), lists.changes()), (None, Some(Reason::Manual), 0));
}

#[test]
fn ten_million_addresses_would_take_about_a_hundred_megabytes() {
    let mut set = Set::default();
    for piece in 0..2 {
        let entry = |n: u32| Change {
            digest: digest(List::Account(&format!("acme{}", n % 100)), &format!("user{n}@d{}.example", n % 1000)),
            reason: Some(Reason::Bounce),
        };
        set = set.with(&mut (piece * 50_000..(piece + 1) * 50_000).map(entry).collect());
    }
    assert_eq!(set.len(), 100_000);
    let fixed = 4 * ((1 << BUCKET_BITS) + 1);
    assert_eq!(set.bytes(), fixed + 9 * set.len());
    // Both sets while one is made of the other, and a piece of a million changes.
    let ten_million = fixed + 9 * 10_000_000;
    assert!(2 * ten_million + 1_000_000 * size_of::<Change>() < 300_000_000);
    for n in 0..100_000_u32 {
        let address = format!("user{n}@d{}.example", n % 1000);
        assert_eq!(set.get(digest(List::Account(&format!("acme{}", n % 100)), &address)), Some(Reason::Bounce));
        assert_eq!(set.get(digest(List::Account(&format!("acme{}", n % 100 + 1)), &address)), None);
    }
}

#[test]
fn the_time_on_the_hosts_list_grows_and_begins_anew_after_90_quiet_days() {
    let mut entry = HostEntry::bounced(None, Wall(0));
    let mut days = Vec::new();
    for n in 1..7 {
        days.push((entry.until().0 - (n - 1) * 20 * DAY) / DAY);
        entry = HostEntry::bounced(Some(entry), Wall(n * 20 * DAY));
    }
    assert_eq!(days, [1, 3, 7, 14, 14, 14]);
    assert!(!entry.is_over(Wall(209 * DAY)) && entry.is_over(Wall(210 * DAY)));
    assert_eq!(HostEntry::bounced(Some(entry), Wall(210 * DAY)).until(), Wall(211 * DAY));
}

proptest! {
    // A set is made for millions: each takes a while.
    #![proptest_config(ProptestConfig::with_cases(12))]
    #[test]
    fn a_set_is_a_map(batches in prop::collection::vec(prop::collection::vec((0_u32..200, 0_u8..4), 0..60), 1..6)) {
        let mut set = Set::default();
        let mut model = BTreeMap::new();
        for batch in batches {
            let mut changes = Vec::new();
            for (n, what) in batch {
                let reason = [None, Some(Reason::Bounce), Some(Reason::Complaint), Some(Reason::Manual)][usize::from(what)];
                // Few buckets, so that they have many entries.
                let digest = Digest { bucket: n % 3, print: u64::from(n / 3) };
                changes.push(Change { digest, reason });
                match reason {
                    Some(reason) => drop(model.insert(digest, reason)),
                    None => drop(model.remove(&digest)),
                }
            }
            set = set.with(&mut changes);
            prop_assert_eq!(set.len(), model.len());
            for n in 0..200 {
                let digest = Digest { bucket: n % 3, print: u64::from(n / 3) };
                prop_assert_eq!(set.get(digest), model.get(&digest).copied());
            }
        }
    }
}
