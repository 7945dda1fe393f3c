use super::*;

fn parse(text: &str, old: &Fleet) -> Result<Fleet, String> {
    Fleet::parse(text, Path::new("fleet.toml"), Path::new("/nonexistent"), 2, old).map_err(|error| error.0)
}

const SMALL: &str = r#"
[[pool]]
name = "main"
[[pool]]
name = "bulk"
[[ip]]
address = "127.0.10.1"
helo = "Out1.example.net"
pool = "main"
[[ip]]
address = "127.0.10.2"
helo = "out2.example.net"
pool = "bulk"
[[ip]]
address = "127.0.10.3"
helo = "out3.example.net"
pool = "main"
shard = 1
[[domain]]
name = "*.example.org"
tls = "required"
connections = 3
"#;

#[test]
fn ips_are_spread_evenly_and_stay_where_they_are() {
    let fleet = parse(SMALL, &Fleet::default()).unwrap();
    let policy = fleet.policy(7, 2);
    let shards: Vec<_> = policy.leases.iter().map(|lease| lease.shard).collect();
    // The third has asked for shard 1; the others fill up.
    assert_eq!(shards, [0, 0, 1]);
    let fewer = SMALL.replace("[[ip]]\naddress = \"127.0.10.1\"\nhelo = \"Out1.example.net\"\npool = \"main\"\n", "");
    let again = parse(&fewer, &fleet).unwrap();
    assert_eq!(again.policy(8, 2).leases.iter().map(|lease| lease.shard).collect::<Vec<_>>(), [0, 1]);
}

#[test]
fn the_first_pool_is_the_default_unless_named() {
    let fleet = parse(SMALL, &Fleet::default()).unwrap();
    let policy = fleet.policy(1, 2);
    assert_eq!(policy.default_pool.map(|at| policy.pools[at as usize].name.to_string()).as_deref(), Some("main"));
    let other = parse(&format!("default_pool = \"bulk\"\n{SMALL}"), &fleet).unwrap();
    let changes = fleet.changes(&other);
    assert_eq!(changes.len(), 1);
    assert_eq!(
        (changes[0].action, changes[0].kind, changes[0].name.as_str()),
        (Action::Change, Kind::Setting, "default_pool")
    );
}

#[test]
fn an_export_applied_again_changes_nothing() {
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap().serialize_pem();
    let text = format!("{SMALL}\n[[dkim]]\ndomain = \"example.com\"\nselector = \"s1\"\nkey_pem = '''\n{key}'''\n");
    let fleet = parse(&text, &Fleet::default()).unwrap();
    let back = parse(&fleet.to_toml(), &fleet).unwrap();
    assert_eq!(fleet.changes(&back), []);
    assert_eq!(fleet, back);
    assert_eq!(fleet.dns_records().len(), 1);
}

#[test]
fn each_mistake_is_one_line_with_its_place() {
    let cases = [
        ("[[pool]]\nname = \"a b\"", "fleet.toml:2: [[pool]] name \"a b\""),
        ("[[pool]]\nname = \"a\"\n[[pool]]\nname = \"a\"", "fleet.toml:4: [[pool]] \"a\" is listed twice"),
        ("[[pool]]\nnam = \"a\"", "fleet.toml:2:"),
        ("default_pool = \"x\"", "fleet.toml:1: default_pool \"x\" is no [[pool]]"),
        (
            "[[ip]]\naddress = \"127.0.0.9\"\nhelo = \"a.example\"\npool = \"x\"",
            "fleet.toml:4: [[ip]] 127.0.0.9: pool \"x\" is no [[pool]]",
        ),
        (
            "[[pool]]\nname = \"x\"\n[[ip]]\naddress = \"192.0.2.77\"\nhelo = \"a.example\"\npool = \"x\"",
            "fleet.toml:4: [[ip]] 192.0.2.77: this host does not have the address",
        ),
        (
            "[[pool]]\nname = \"x\"\n[[ip]]\naddress = \"127.0.0.9\"\nhelo = \"a.example\"\npool = \"x\"\nshard = 2",
            "fleet.toml:7: [[ip]] 127.0.0.9: shard 2 is none; there are 0 to 1",
        ),
        (
            "[[dkim]]\ndomain = \"a.example\"\nselector = \"s\"\nkey_file = \"none.pem\"",
            "fleet.toml:4: [[dkim]] a.example/s: key_file /nonexistent/none.pem:",
        ),
        (
            "[[dkim]]\ndomain = \"a.example\"\nselector = \"s\"\nkey_file = \"/dev/zero\"",
            "fleet.toml:4: [[dkim]] a.example/s: key_file /dev/zero: not a regular file",
        ),
        (
            "[[dkim]]\ndomain = \"a.example\"\nselector = \"s\"\nkey_pem = \"x\"",
            "fleet.toml:4: [[dkim]] a.example/s: no private key",
        ),
        ("[[domain]]\nname = \"a.example\"\ntls = \"maybe\"", "fleet.toml:3:"),
        ("[[domain]]\nname = \"a.example\"\nconnections = 0", "fleet.toml:2: [[domain]] a.example: limits must be 1"),
    ];
    for (text, expected) in cases {
        let error = parse(text, &Fleet::default()).unwrap_err();
        assert!(error.starts_with(expected) && !error.contains('\n'), "{text}\n  gave {error}\n  not  {expected}");
    }
}
