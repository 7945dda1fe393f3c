//! Headers that a load adds to its messages: to each, or to a share of them.
//!
//! Must stay a function of seed and message number: the same run has the same messages.

use rand::{Rng, SeedableRng, rngs::SmallRng};

/// One header on top of the usual ones.
#[derive(Debug, Clone, PartialEq)]
pub struct Header {
    /// Its name.
    pub name: String,
    /// Its value, without line ends.
    pub value: String,
    /// Percent of the messages that have it, 0 to 100. Of several with one name and shares a message has one at most;
    /// without a share each message has it.
    pub share: Option<f64>,
}

/// Those that message `number` has, in their order.
pub(super) fn of_message(headers: &[Header], seed: u64, number: u64) -> impl Iterator<Item = &Header> {
    headers.iter().enumerate().filter_map(move |(at, header)| {
        let Some(share) = header.share else { return Some(header) };
        let same = |other: &&Header| other.name.eq_ignore_ascii_case(&header.name);
        let before: f64 = headers[..at].iter().filter(same).filter_map(|other| other.share).sum();
        // One draw for each name: the first of that name says where its stream of numbers begins.
        let first = headers.iter().position(|other| same(&other)).unwrap_or(at) as u64;
        let stream = seed ^ number.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ (first + 1).rotate_right(16);
        let drawn = SmallRng::seed_from_u64(stream).random::<f64>() * 100.0;
        (before..before + share).contains(&drawn).then_some(header)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(name: &str, value: &str, share: Option<f64>) -> Header {
        Header { name: name.into(), value: value.into(), share }
    }

    #[test]
    fn shares_hold_and_exclude_each_other() {
        let headers = [
            header("X-Pool", "news", Some(70.0)),
            header("List-Id", "<l>", None),
            header("x-pool", "bulk", Some(20.0)),
            header("X-Other", "o", Some(50.0)),
        ];
        let (mut news, mut bulk, mut other, mut both) = (0, 0, 0, 0);
        for number in 0..10_000 {
            let has: Vec<_> = of_message(&headers, 7, number).map(|header| header.value.as_str()).collect();
            assert_eq!(has, of_message(&headers, 7, number).map(|h| h.value.as_str()).collect::<Vec<_>>());
            assert!(has.contains(&"<l>"));
            let (is_news, is_bulk, is_other) = (has.contains(&"news"), has.contains(&"bulk"), has.contains(&"o"));
            assert!(!(is_news && is_bulk));
            news += u32::from(is_news);
            bulk += u32::from(is_bulk);
            other += u32::from(is_other);
            both += u32::from(is_news && is_other);
        }
        let near = |have: u32, want: u32| have.abs_diff(want) < 200;
        assert!(
            near(news, 7000) && near(bulk, 2000) && near(other, 5000) && near(both, 3500),
            "{news} {bulk} {other} {both}"
        );
    }
}
