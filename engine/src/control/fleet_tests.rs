use super::*;
use mailrail_queue::time::Wall;

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
fn leases_begin_once_and_an_export_keeps_their_plans() {
    let text = "[[pool]]\nname = \"a\"\nkind = \"dedicated\"\naccount = \"acme\"\noverflow = \"defer\"\n\
                overflow_after = \"10m\"\nplan = { start = 5, factor = 1.5, target = 50 }\nspread = \"1h\"\n\
                [[ip]]\naddress = \"127.0.10.1\"\nhelo = \"a.example\"\npool = \"a\"\nplan = [7, 9]\n\
                [[ip]]\naddress = \"127.0.10.2\"\nhelo = \"b.example\"\npool = \"ses-default-dedicated-pool\"\n\
                account = \"acme\"\nwarm = true\nreason = \"old\"\n[[account]]\nname = \"acme\"\n";
    let mut fleet = parse(text, &Fleet::default()).unwrap();
    fleet.follow(&Fleet::default(), 3, Wall(5)).unwrap();
    let mut again = parse(&fleet.to_toml(), &fleet).unwrap();
    again.follow(&fleet, 4, Wall(9)).unwrap();
    assert_eq!(fleet.changes(&again), []);
    let policy = fleet.policy(3, 2);
    let warmups: Vec<_> = policy.leases.iter().map(|lease| lease.warmup.as_deref().unwrap()).collect();
    assert_eq!(
        warmups.iter().map(|w| (w.leasing, w.leased, w.warm)).collect::<Vec<_>>(),
        [(3, Wall(5), false), (3, Wall(5), true)]
    );
    assert_eq!((warmups[0].plan.caps(), warmups[0].spread), (&[7, 9][..], Duration::from_secs(3600)));
    let pools: Vec<_> = policy.pools.iter().map(|pool| (&*pool.name, pool.account.as_deref())).collect();
    assert_eq!(pools, [("a", Some("acme")), ("ses-default-dedicated-pool", Some("acme"))]);
    // Taken out and leased again, it is another leasing.
    let mut without = parse(&text.replace("127.0.10.1", "127.0.10.9"), &again).unwrap();
    without.follow(&again, 5, Wall(10)).unwrap();
    let mut back = parse(text, &without).unwrap();
    back.follow(&without, 6, Wall(11)).unwrap();
    assert_eq!((back.lease("127.0.10.1").unwrap().leasing, back.lease("127.0.10.2").unwrap().leasing), (6, 3));
}

#[test]
fn the_narrowest_plan_holds_and_days_begin_as_account_or_host_say() {
    let text = "day_starts = \"06:00+02:00\"\nstrict_rdns = true\n\
                [[account]]\nname = \"acme\"\nplan = [3, 4]\nday_starts = \"00:00-05:00\"\n\
                [[pool]]\nname = \"a\"\nkind = \"dedicated\"\naccount = \"acme\"\n\
                [[pool]]\nname = \"b\"\nkind = \"dedicated\"\naccount = \"acme\"\nplan = [5, 6]\n\
                [[pool]]\nname = \"c\"\nkind = \"dedicated\"\n\
                [[ip]]\naddress = \"127.0.10.1\"\nhelo = \"a.example\"\npool = \"a\"\n\
                [[ip]]\naddress = \"127.0.10.2\"\nhelo = \"a.example\"\npool = \"b\"\n\
                [[ip]]\naddress = \"127.0.10.3\"\nhelo = \"a.example\"\npool = \"b\"\nplan = [7, 8]\n\
                [[ip]]\naddress = \"127.0.10.4\"\nhelo = \"a.example\"\npool = \"c\"\n";
    let mut fleet = parse(text, &Fleet::default()).unwrap();
    fleet.follow(&Fleet::default(), 1, Wall(5)).unwrap();
    let policy = fleet.policy(1, 2);
    let plans: Vec<_> = policy.leases.iter().map(|lease| lease.warmup.as_ref().unwrap()).collect();
    let caps: Vec<_> = plans.iter().map(|warmup| warmup.plan.cap(1)).collect();
    assert_eq!(caps, [Some(3), Some(5), Some(7), Some(50)]);
    let starts: Vec<_> = plans.iter().map(|warmup| warmup.starts).collect();
    let [host, own] = ["04:00+00:00", "05:00+00:00"].map(|text| text.parse().unwrap());
    assert_eq!(starts, [own, own, own, host]);
    assert!(fleet.strict_rdns());
    assert_eq!(fleet.changes(&parse(&fleet.to_toml(), &fleet).unwrap()).len(), 4, "an export lacks the leases only");
    // An IP changes its account by a release only; a managed pool stays one.
    let mut other = parse(&text.replace("pool = \"a\"", "pool = \"c\""), &fleet).unwrap();
    let error = other.follow(&fleet, 2, Wall(6)).unwrap_err();
    assert!(error.starts_with("127.0.10.1 is leased to account acme: release it first"), "{error}");
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
        ("[[pool]]\nname = \"a\"\nkind = \"other\"", "fleet.toml:3:"),
        (
            "[[pool]]\nname = \"a\"\noverflow = \"auto\"",
            "fleet.toml:3: [[pool]] \"a\": overflow is not for a shared pool",
        ),
        ("[[pool]]\nname = \"a\"\nkind = \"dedicated\"\noverflow = \"b\"", "fleet.toml:4:"),
        (
            "[[pool]]\nname = \"a\"\nkind = \"dedicated\"\nplan = [5, 4]",
            "fleet.toml:4: [[pool]] \"a\": plan: the warm-up plan falls on day 2, from 5 to 4",
        ),
        (
            "[[pool]]\nname = \"a\"\nkind = \"dedicated\"\nplan = []",
            "fleet.toml:4: [[pool]] \"a\": plan: a warm-up plan needs",
        ),
        (
            "[[pool]]\nname = \"a\"\nkind = \"dedicated\"\nplan = [-1]",
            "fleet.toml:4: [[pool]] \"a\": plan: -1 is no number",
        ),
        (
            "[[pool]]\nname = \"a\"\nkind = \"dedicated\"\nplan = { start = 5, factor = 0.9, target = 9 }",
            "fleet.toml:4: [[pool]] \"a\": plan: the factor",
        ),
        (
            "[[pool]]\nname = \"a\"\nkind = \"dedicated\"\nplan = { start = 5, target = 9 }",
            "fleet.toml:4: [[pool]] \"a\": plan: a warm-up plan is a list",
        ),
        ("[[pool]]\nname = \"a\"\nkind = \"dedicated\"\nspread = \"soon\"", "fleet.toml:4: [[pool]] \"a\": spread: "),
        ("[[pool]]\nname = \"a\"\nkind = \"dedicated\"\nspread = \"2d\"", "fleet.toml:4: [[pool]] \"a\": spread: "),
        (
            "[[pool]]\nname = \"ses-default-dedicated-pool\"",
            "fleet.toml:2: [[pool]] \"ses-default-dedicated-pool\" is made",
        ),
        (
            "[[pool]]\nname = \"ses-shared-pool\"\nkind = \"dedicated\"",
            "fleet.toml:2: [[pool]] \"ses-shared-pool\" is the shared pool",
        ),
        (
            "[[pool]]\nname = \"x\"\nkind = \"dedicated\"\n[[ip]]\naddress = \"127.0.0.9\"\nhelo = \"a.example\"\npool = \"x\"\nwarm = true",
            "fleet.toml:8: [[ip]] 127.0.0.9: warm = true needs a reason",
        ),
        (
            "[[pool]]\nname = \"x\"\n[[ip]]\naddress = \"127.0.0.9\"\nhelo = \"a.example\"\npool = \"x\"\nplan = [5]",
            "fleet.toml:7: [[ip]] 127.0.0.9: plan is not for an IP of a shared pool",
        ),
        (
            "[[pool]]\nname = \"x\"\n[[ip]]\naddress = \"127.0.0.9\"\nhelo = \"a.example\"\npool = \"x\"\naccount = \"b\"",
            "fleet.toml:7: [[ip]] 127.0.0.9: account is for IPs in ses-default-dedicated-pool",
        ),
        ("[[domain]]\nname = \"a.example\"\nconnections = 0", "fleet.toml:2: [[domain]] a.example: limits must be 1"),
    ];
    for (text, expected) in cases {
        let error = parse(text, &Fleet::default()).unwrap_err();
        assert!(error.starts_with(expected) && !error.contains('\n'), "{text}\n  gave {error}\n  not  {expected}");
    }
}

const ACCOUNTS: &str = r#"
[[account]]
name = "acme"
pool = "bulk"
max_24_hour_send = 500000
max_send_rate = -1
[[account.key]]
id = "AKIDEXAMPLE"
secret = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"
[[account]]
name = "beta"
verified = ["A@One.test", "two.test"]
suppressed_reasons = ["COMPLAINT"]
"#;

#[test]
fn accounts_begin_in_the_sandbox_and_leave_it_with_more_than_its_limits() {
    let policy = parse(&format!("{SMALL}{ACCOUNTS}"), &Fleet::default()).unwrap().policy(1, 2);
    let names: Vec<_> = policy.accounts.iter().map(|account| &*account.name).collect();
    assert_eq!(names, ["acme", "beta", "default"]);
    let acme = policy.account("acme").unwrap();
    assert_eq!(acme.pool.map(|at| &*policy.pools[at as usize].name), Some("bulk"));
    assert_eq!((acme.limits.max_24_hour_send, acme.limits.max_send_rate, acme.sandbox), (Some(500_000), None, false));
    let beta = policy.account("beta").unwrap();
    assert_eq!((beta.limits.max_24_hour_send, beta.limits.max_send_rate, beta.sandbox), (Some(200), Some(1), true));
    assert!(beta.may_send_to("a@one.test") && beta.may_send_to("b@two.test") && !beta.may_send_to("b@one.test"));
    assert!(!beta.reasons.bounce && beta.reasons.complaint && beta.lists_bounces);
    let default = policy.account("default").unwrap();
    assert!(default.limits.is_unlimited() && !default.sandbox && !default.lists_bounces);
}

#[test]
fn no_secret_is_shown_and_an_export_of_accounts_changes_nothing() {
    let fleet = parse(&format!("{SMALL}{ACCOUNTS}"), &Fleet::default()).unwrap();
    let export = fleet.to_toml();
    let shown = format!("{export}{:?}{:?}", fleet.0, Fleet::default().changes(&fleet));
    assert!(!shown.contains("wJalr"), "{shown}");
    let again = parse(&export, &fleet).unwrap();
    assert_eq!(fleet.changes(&again), []);
    let password = crate::credentials::smtp_password("wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY", "local");
    let account = again.credentials(&["local".into()]).check("AKIDEXAMPLE", &password);
    assert_eq!(account.as_deref(), Some("acme"));
}

#[test]
fn what_was_decided_while_it_ran_outlives_a_file_that_does_not_say() {
    let mut fleet = parse(&format!("{SMALL}{ACCOUNTS}"), &Fleet::default()).unwrap();
    for name in ["acme", "default"] {
        let account = fleet.account(name).cloned().unwrap_or_else(AccountItem::built_in);
        fleet.set_account(name, AccountItem { sending_enabled: false, ..account });
    }
    let again = parse(&format!("{SMALL}{ACCOUNTS}"), &fleet).unwrap();
    assert_eq!(fleet.changes(&again), []);
    let said = ACCOUNTS.replace("max_send_rate = -1", "sending_enabled = true");
    let policy = parse(&format!("{SMALL}{said}"), &fleet).unwrap().policy(1, 2);
    assert!(policy.account("acme").unwrap().sending_enabled && !policy.account("default").unwrap().sending_enabled);
}

#[test]
fn wrong_accounts_name_their_line_and_never_their_secret() {
    let key = "[[account.key]]\nid = \"AKID\"\nsecret = \"0123456789abcdef\"\n";
    let account = format!("[[account]]\nname = \"a\"\n{key}");
    let cases = [
        ("[[account]]\nname = \"a b\"\n".to_owned(), "letters, digits"),
        ("[[account]]\nname = \"a\"\npool = \"none\"\n".to_owned(), "is no [[pool]]"),
        ("[[pool]]\nname = \"theirs\"\nkind = \"dedicated\"\naccount = \"b\"\n[[account]]\nname = \"a\"\npool = \"theirs\"\n".to_owned(), "is no [[pool]] that it may use"),
        ("[[account]]\nname = \"a\"\nmax_send_rate = -2\n".to_owned(), "-2 is no limit"),
        ("[[account]]\nname = \"a\"\nplan = [5, 4]\n".to_owned(), "[[account]] a: plan: the warm-up plan falls on day 2"),
        ("[[account]]\nname = \"a\"\nday_starts = \"noon\"\n".to_owned(), "[[account]] a: day_starts = \"noon\": write"),
        ("[[pool]]\nname = \"x\"\nkind = \"dedicated\"\naccount = \"b\"\n".to_owned(), "account \"b\" is no [[account]]"),
        ("[[account]]\nname = \"a\"\nsuppressed_reasons = [\"SPAM\"]\n".to_owned(), "BOUNCE or COMPLAINT"),
        ("[[account]]\nname = \"a\"\nverified = [\"@one.test\"]\n".to_owned(), "neither an address nor a domain"),
        ("[[account]]\nname = \"a\"\n[[account]]\nname = \"a\"\n".to_owned(), "listed twice"),
        (account.replace("0123456789abcdef", "short"), "16 to 256"),
        (account.replace("secret = \"0123456789abcdef\"\n", ""), "it is new"),
        (account.replace("secret =", "secret_file = \"x\"\nsecret ="), "one of them"),
        (format!("{account}[[account]]\nname = \"b\"\n{key}"), "another account's"),
        (account.replace("secret =", "secret_file ="), "No such file"),
    ];
    for (text, expected) in cases {
        let error = parse(&format!("{SMALL}{text}"), &Fleet::default()).unwrap_err();
        assert!(error.contains(expected) && error.starts_with("fleet.toml:"), "{text}: {error}");
    }
}
