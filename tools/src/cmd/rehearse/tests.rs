//! Every example that ships runs, and says what it is there to say.

use super::*;

fn example(name: &str, days: Option<u32>) -> (Campaign, Report) {
    let (_, _, text) = EXAMPLES.iter().find(|(known, ..)| *known == name).unwrap();
    let mut campaign = file::parse(text, Path::new(name)).unwrap();
    if let Some(days) = days {
        // As finely as the whole of it.
        (campaign.crowd, campaign.days) = (Some(campaign.grain().crowd), days);
    }
    let report = rehearse(&campaign, true).unwrap();
    (campaign, report)
}

#[test]
fn a_first_time_account_overflows_to_the_shared_pool_less_each_week() {
    let (campaign, report) = example("first-time", Some(12));
    assert!(report.total.expired * 10_000 < report.total.wanted, "{:?}", report.total);
    let share = |day: usize| report.days[day].sums.overflowed as f64 / report.days[day].sums.wanted as f64;
    assert!(share(0) > 0.9, "{}", share(0));
    assert!(share(11) < share(0), "{} {}", share(11), share(0));
    assert!(report.pools.iter().any(|pool| pool.pool == "ses-shared-pool" && pool.sums.sent > 0));
    assert!(advice::of(&campaign, &report).iter().any(|line| line.contains("no receiver blocked an IP")));
}

#[test]
fn twenty_million_a_day_move_without_a_loss() {
    let (_, report) = example("moving", Some(2));
    assert!(report.grain.crowd > 1);
    let old = report.pools.iter().find(|pool| pool.pool == "old").unwrap();
    assert!(old.sums.sent > 30_000_000, "{old:?}");
    assert_eq!((report.total.expired, report.days[0].blocks), (0, 0));
}

#[test]
fn a_plan_that_is_too_steep_is_blocked_and_the_advice_says_by_whom_and_what_fits() {
    let (campaign, report) = example("too-fast", Some(10));
    let blocks = |name: &str| report.pools.iter().find(|pool| pool.pool == name).unwrap().blocks;
    assert!(blocks("steep") > 0);
    assert_eq!(["standard", "managed", "fitting"].map(blocks), [0, 0, 0]);
    let advice = advice::of(&campaign, &report).join("\n");
    assert!(advice.contains("blocks IPs of pool steep from day"), "{advice}");
    assert!(advice.contains("for pool steep a plan that these receivers take: plan = { start ="), "{advice}");
}

#[test]
fn charts_are_whole() {
    let (_, report) = example("first-time", Some(3));
    let svg = chart::draw("a <b>", &report).unwrap();
    assert!(svg.starts_with("<svg") && svg.trim_end().ends_with("</svg>"));
    for text in ["a &lt;b&gt;", "overflowed", "reputation", "warm"] {
        assert!(svg.contains(text), "{text}");
    }
}
