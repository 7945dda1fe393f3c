//! Mistakes in campaigns: one line, with its place.

use super::*;

const GOOD: &str = r#"[campaign]
days = 3
[[pool]]
name = "own"
kind = "dedicated"
[[ips]]
first = "192.0.2.1"
count = 2
pool = "own"
[[stream]]
name = "a"
pool = "own"
volume = [10, 20]
to = "gmail"
"#;

fn says(change: (&str, &str)) -> String {
    assert!(GOOD.contains(change.0), "{}", change.0);
    parse(&GOOD.replace(change.0, change.1), Path::new("c.toml")).map(drop).unwrap_err()
}

#[test]
fn a_small_campaign_is_read() {
    let campaign = parse(GOOD, Path::new("c.toml")).unwrap();
    assert_eq!((campaign.days, campaign.policy.leases.len(), campaign.leased), (3, 2, vec![1, 1]));
    assert_eq!([1, 2, 3].map(|day| campaign.streams[0].volume(day)), [10, 20, 20]);
}

#[test]
fn mistakes_name_their_line() {
    for (change, wanted) in [
        (("days = 3", "dais = 3"), "c.toml:2: unknown key \"dais\"; did you mean \"days\"?"),
        (("days = 3", "days = 400"), "c.toml:2: days = 400: 1 to 365"),
        (("kind = \"dedicated\"", "kind = \"dedicated\"\ncolour = 1"), "c.toml:6: unknown key \"colour\""),
        (("[[stream]]", "[[steam]]"), "c.toml:10: unknown key \"steam\"; did you mean \"stream\"?"),
        (("count = 2", "count = 0"), "c.toml:8: [[ips]] 192.0.2.1: count = 0: 1 to 4096"),
        (
            ("count = 2\npool = \"own\"", "count = 2\npool = \"owl\""),
            "c.toml:9: [[ips]] 192.0.2.1: pool \"owl\" is no [[pool]]",
        ),
        (
            ("name = \"a\"\npool = \"own\"", "name = \"a\"\npool = \"x\""),
            "c.toml:12: [[stream]] \"a\": pool <x> does not exist",
        ),
        (("[10, 20]", "\"many\""), "c.toml:13: [[stream]] \"a\": volume is a number a day"),
        (("[10, 20]", "[10, -1]"), "c.toml:13: [[stream]] \"a\": volume is a number a day"),
        (("to = \"gmail\"", "to = \"gmial\""), "c.toml:14: [[stream]] \"a\": to: \"gmial\" is no [[receiver]]"),
        (("to = \"gmail\"", "to = \"gmail\"\nhours = [1, 2]"), "c.toml:15: [[stream]] \"a\": hours is"),
        (
            ("pool = \"own\"\n[[stream]]", "pool = \"own\"\nplan = [5, 3]\n[[stream]]"),
            "c.toml:10: [[ips]] 192.0.2.1: plan: the warm-up plan falls",
        ),
        (
            ("[[stream]]", "[[receiver]]\nname = \"new\"\nslow = [\"hello\"]\n[[stream]]"),
            "c.toml:10: [[receiver]] \"new\": slow: \"hello\" is no refusal",
        ),
        (
            ("[[stream]]", "[[receiver]]\nname = \"new\"\nprovider = \"nope\"\n[[stream]]"),
            "c.toml:10: [[receiver]] \"new\": provider \"nope\" is no [[provider]]",
        ),
        (
            ("[[ips]]", "[[ip]]\naddress = \"192.0.2.2\"\nhelo = \"a.b\"\npool = \"own\"\n[[ips]]"),
            "c.toml:11: [[ips]] 192.0.2.1: overlaps",
        ),
        (("days = 3", "days = 3\nfleet = \"none.toml\""), "c.toml:4: pool: the fleet is in another file"),
    ] {
        let said = says(change);
        assert!(said.starts_with(wanted), "{said}\nnot\n{wanted}");
    }
}
