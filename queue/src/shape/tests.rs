use super::super::{
    entry::{Entry, rate_text},
    reply::Then,
    table::{Provider, Table},
};
use super::*;
use crate::policy::TlsMode;
use proptest::prelude::*;

fn entry(text: &str) -> Entry {
    toml::from_str(text).unwrap()
}

fn provider(text: &str) -> Arc<Provider> {
    let text = format!("name = \"big\"\nmx = [\"big.test\"]\n{text}");
    Arc::new(entry(&text).apply(None).unwrap())
}

fn at(seconds: u64) -> Mono {
    Mono(seconds * 1_000_000_000)
}

fn then(then: Then, seconds: u64) -> Answer {
    let text = match then {
        Then::Suspend => format!("code = [\"4xx\"]\nthen = \"suspend\"\nfor = \"{seconds}s\""),
        Then::Slower => "code = [\"4xx\"]\nthen = \"slower\"".into(),
        Then::Fewer => "code = [\"4xx\"]\nthen = \"fewer\"".into(),
        Then::Nothing => "code = [\"4xx\"]".into(),
    };
    toml::from_str::<super::super::entry::Reply>(&text).unwrap().answer().unwrap()
}

const WALL: Wall = Wall(0);

#[test]
fn the_shipped_table_is_right_and_finds_the_large_receivers() {
    let table = Table::with(&[]).unwrap();
    for (host, name) in [
        ("gmail-smtp-in.l.google.com", "gmail"),
        ("aspmx.l.google.com", "gmail"),
        ("hotmail-com.olc.protection.outlook.com", "outlook"),
        ("example-com.mail.protection.outlook.com", "microsoft365"),
        ("mta5.am0.yahoodns.net", "yahoo"),
        ("mx01.mail.icloud.com", "icloud"),
        ("mx-ha.web.de", "gmx"),
        ("mx00.t-online.de", "t-online"),
        ("163mx01.mxmail.netease.com", "netease"),
        ("in1-smtp.messagingengine.com", "fastmail"),
    ] {
        assert_eq!(&*table.of_host(host).unwrap().name, name, "{host}");
    }
    assert!(table.of_host("notgoogle.com").is_none() && table.of_host("example.org").is_none());
    assert!(table.iter().count() >= 20);
    for (name, code, enhanced, text, what) in [
        ("gmail", 421, Some((4, 7, 28)), "Gmail has detected an unusual rate of mail", Then::Slower),
        ("gmail", 550, Some((5, 7, 26)), "unauthenticated sender, rate limited", Then::Nothing),
        ("outlook", 550, Some((5, 7, 1)), "messages from [192.0.2.1] weren't sent. (S3150)", Then::Suspend),
        ("microsoft365", 451, Some((4, 7, 500)), "Server busy", Then::Slower),
        ("yahoo", 421, Some((4, 7, 0)), "[TSS04] Messages temporarily deferred", Then::Slower),
        ("orange", 421, None, "Too many connections, slow down. OFR004_104", Then::Fewer),
        ("naver", 421, None, "Too many connections from your host", Then::Fewer),
        ("naver", 554, Some((5, 7, 1)), "Client host blocked using zen.spamhaus.org", Then::Suspend),
        ("naver", 452, Some((4, 2, 2)), "mailbox full, rate limit", Then::Nothing),
    ] {
        let told = table.get(name).unwrap().answer(code, enhanced, text).map(|answer| answer.then);
        assert_eq!(told, Some(what), "{name}: {text}");
    }
    let gmail = table.get("gmail").unwrap();
    assert!(gmail.answer(550, Some((5, 1, 1)), "no such user").is_none());
    assert!(
        gmail.answer(250, None, "rate limit, spamhaus, too many connections").is_none(),
        "a 2xx complains of nothing"
    );
}

#[test]
fn own_entries_change_what_they_name_and_no_more() {
    let own = [
        entry("name = \"gmail\"\nconnections = 3\n[[reply]]\nenhanced = [\"4.7.28\"]\nthen = \"suspend\""),
        entry("name = \"mine\"\nmx = [\"*.MX.example.\"]\nrate = \"90/min\"\ntls = \"required\""),
    ];
    let table = Table::with(&own).unwrap();
    let gmail = table.get("gmail").unwrap();
    assert_eq!((gmail.connections, gmail.messages), (Some(3), Some(100)));
    assert_eq!(gmail.answer(421, Some((4, 7, 28)), "").unwrap().then, Then::Suspend);
    let mine = table.of_host("a.mx.example").unwrap();
    assert_eq!((&*mine.name, mine.rate.unwrap().tokens, mine.tls), ("mine", 90, Some(TlsMode::Required)));
    assert_eq!(mine.answer(451, None, "Too Many Messages").unwrap().then, Then::Slower, "the common rules hold");
    for (text, part) in [
        ("name = \"x\"", "names no mail hosts"),
        ("name = \"X\"\nmx = [\"a\"]", "lower-case"),
        ("name = \"x\"\nmx = [\"a..b\"]", "no suffix"),
        ("name = \"x\"\nmx = [\"google.com\"]", "one provider"),
        ("name = \"x\"\nmx = [\"a\"]\nrate = \"10\"", "messages in a time"),
        ("name = \"x\"\nmx = [\"a\"]\nrate = \"0/s\"", "messages in a time"),
        ("name = \"x\"\nmx = [\"a\"]\nconnections = 0", "least is 1"),
        ("name = \"x\"\nmx = [\"a\"]\nrecover = \"soon\"", "write a time"),
        ("name = \"x\"\nmx = [\"a\"]\nretry = { first = \"2h\", max = \"1h\" }", "shorter"),
        ("name = \"x\"\nmx = [\"a\"]\n[[reply]]\nthen = \"slower\"", "every reply"),
        ("name = \"x\"\nmx = [\"a\"]\n[[reply]]\ncode = [\"250\"]", "from 4 or 5"),
        ("name = \"x\"\nmx = [\"a\"]\n[[reply]]\ncode = [\"4xx\"]\nthen = \"slower\"\nfor = \"1h\"", "suspend"),
        ("name = \"x\"\nmx = [\"a\"]\n[ladder]\nfactor = 1.0", "1.01"),
        ("name = \"x\"\nmx = [\"a\"]\n[ladder]\nwarm = 10", "below"),
    ] {
        let error = Table::with(&[entry("name = \"ok\"\nmx = [\"ok\"]"), entry(text)]).unwrap_err();
        assert!(error.why.contains(part), "{text}: {error}");
        assert_eq!(error.index, 1);
    }
}

#[test]
fn complaints_that_come_together_are_one_step() {
    let mut shape = Shape::new(provider("rate = \"10/s\"\nconnections = 8"), at(0));
    let slower = then(Then::Slower, 0);
    assert_eq!(shape.complain(at(100), WALL, &slower, "421 slow down"), Then::Slower);
    assert_eq!(shape.complain(at(101), WALL, &slower, "421 slow down"), Then::Nothing);
    assert_eq!(shape.standing(at(101)).slower, 1);
    assert_eq!(shape.complain(at(140), WALL, &slower, "421 slow down"), Then::Slower);
    let standing = shape.standing(at(140));
    assert_eq!((standing.rate.unwrap().per.as_secs(), standing.recovers), (4, Some(at(740))));
    assert_eq!(shape.complain(at(200), WALL, &then(Then::Fewer, 0), "421"), Then::Fewer);
    assert_eq!(shape.connections(), Some(4));
    shape.lift(at(201));
    let standing = shape.standing(at(201));
    assert_eq!((standing.slower, standing.fewer, standing.rate), (0, 0, Some(Rate::per_second(10))));
}

#[test]
fn without_a_rate_the_first_step_is_half_of_what_went() {
    let mut shape = Shape::new(provider(""), at(0));
    for n in 0..600 {
        assert_eq!(shape.take(Mono(n * 100_000_000), 1), Ok(()));
    }
    shape.complain(at(60), WALL, &then(Then::Slower, 0), "421");
    assert_eq!(shape.standing(at(60)).rate.unwrap(), Rate { tokens: 600, per: Duration::from_secs(120) });
    assert_eq!(shape.standing(at(660)).rate, None, "recovered, there is none again");
}

#[test]
fn a_suspension_ends_comes_back_longer_and_is_followed_by_care() {
    let mut shape = Shape::new(provider("rate = \"10/s\"\nconnections = 8\nrecover = \"10m\""), at(0));
    let suspend = then(Then::Suspend, 60);
    assert_eq!(shape.complain(at(0), WALL, &suspend, "554 blocked"), Then::Suspend);
    assert_eq!((shape.take(at(59), 1), shape.connections()), (Err(at(60)), Some(0)));
    assert!(shape.opens(at(60)) <= at(61));
    assert_eq!(shape.connections(), Some(2));
    shape.complain(at(70), WALL, &suspend, "554 blocked");
    assert_eq!(shape.standing(at(70)).suspended, Some(at(190)), "twice as long");
    // 190 + 2 steps of 600.
    let standing = shape.standing(at(1390));
    assert_eq!((standing.slower, standing.fewer, standing.recovers), (0, 0, None));
    shape.complain(at(2000), WALL, &suspend, "554 blocked");
    assert_eq!(shape.standing(at(2000)).suspended, Some(at(2060)), "all was well between");
    shape.lift(at(2001));
    assert_eq!(shape.opens(at(2001)), at(2001));
    shape.suspend(at(2002), WALL, at(3000), "operator");
    assert!(shape.standing(at(2999)).by_operator && shape.standing(at(3000)).suspended.is_none());
}

proptest! {
    /// Whatever is complained of and when: no window of time sees more than the rate brings, and a burst.
    #[test]
    fn never_above_the_rate_in_any_window(
        rate in 1_u32..50, burst in 1_u32..20,
        steps in prop::collection::vec((0_u64..3_000, 0_u8..12), 1..120),
    ) {
        let mut shape = Shape::new(provider(&format!("rate = \"{rate}/s\"\nburst = {burst}")), at(0));
        let (mut now, mut taken) = (0_u64, Vec::new());
        for (wait, what) in steps {
            now += wait * 1_000_000;
            match what {
                0 => drop(shape.complain(Mono(now), WALL, &then(Then::Slower, 0), "r")),
                1 => drop(shape.complain(Mono(now), WALL, &then(Then::Suspend, 7), "r")),
                2 => shape.lift(Mono(now)),
                _ => while shape.take(Mono(now), 1).is_ok() { taken.push(now); },
            }
        }
        for (first, from) in taken.iter().enumerate() {
            for (last, to) in taken.iter().enumerate().skip(first) {
                let most = u128::from(burst) * 1_000_000_000 + u128::from(to - from) * u128::from(rate);
                prop_assert!((last - first + 1) as u128 * 1_000_000_000 <= most + 1_000_000_000);
            }
        }
    }

    /// However often it was complained of: with time all is as it was.
    #[test]
    fn it_recovers_and_every_suspension_ends(steps in prop::collection::vec((0_u64..100_000, 0_u8..3), 1..200)) {
        let mut shape = Shape::new(provider("connections = 9"), at(0));
        let mut now = 0;
        for (wait, what) in steps {
            now += wait;
            let what = [Then::Slower, Then::Fewer, Then::Suspend][usize::from(what)];
            shape.complain(at(now), WALL, &then(what, 600), "r");
            if let Some(until) = shape.standing(at(now)).suspended {
                prop_assert!(until > at(now) && until <= at(now + 86_400));
            }
        }
        let later = at(now + 86_400 + 600 * 11);
        let standing = shape.standing(later);
        prop_assert_eq!((standing.slower, standing.fewer, standing.rate), (0, 0, None));
        prop_assert_eq!((standing.suspended, standing.connections, shape.next()), (None, Some(9), None));
        prop_assert_eq!(shape.take(later, 1), Ok(()));
    }

    /// It may be asked as often as one likes, or only at the end: the same comes of it.
    #[test]
    fn asking_changes_nothing(looks in prop::collection::vec(0_u64..2000, 0..40)) {
        let (mut one, mut other) = (Shape::new(provider("rate = \"1/s\""), at(0)), Shape::new(provider("rate = \"1/s\""), at(0)));
        for shape in [&mut one, &mut other] {
            shape.complain(at(1), WALL, &then(Then::Suspend, 100), "r");
        }
        let mut now = 1;
        for wait in looks {
            now += wait;
            one.advance(at(now));
        }
        now += 1;
        prop_assert_eq!(one.standing(at(now)), other.standing(at(now)));
        prop_assert_eq!(one.opens(at(now)), other.opens(at(now)));
    }
}

#[test]
fn a_rate_reads_as_it_is_written_and_half_of_it_exactly() {
    let rate = |tokens, per_ms| Rate { tokens, per: Duration::from_millis(per_ms) };
    for (rate, text) in [
        (rate(50, 1000), "50/s"),
        (rate(120, 60_000), "120/min"),
        (rate(50, 2000), "25/s"),
        (rate(50, 4000), "750/min"),
        (rate(1, 8000), "450/h"),
        (rate(1, 7000), "12342/d"),
    ] {
        assert_eq!(rate_text(rate), text);
    }
}
