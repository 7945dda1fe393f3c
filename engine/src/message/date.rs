//! Times as mail writes them.

use mailrail_queue::time::Wall;

const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/// Year, month (1 to 12), day of a day number since 1970-01-01 (Howard Hinnant's `civil_from_days`).
fn civil(days: u64) -> (u64, u64, u64) {
    let z = days + 719_468;
    let era = z / 146_097;
    let day_of_era = z % 146_097;
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    (year_of_era + era * 400 + u64::from(month <= 2), month, day)
}

fn two(out: &mut Vec<u8>, n: u64) {
    out.extend_from_slice(&[b'0' + (n / 10 % 10) as u8, b'0' + (n % 10) as u8]);
}

fn four(out: &mut Vec<u8>, n: u64) {
    two(out, n / 100);
    two(out, n % 100);
}

/// RFC 5322 section 3.3, in UTC: `Fri, 02 Jan 2026 03:04:05 +0000`.
pub(crate) fn rfc5322(at: Wall, out: &mut Vec<u8>) {
    let seconds = at.0 / 1000;
    let (days, of_day) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = civil(days);
    out.extend_from_slice(DAYS[(days % 7) as usize].as_bytes());
    out.extend_from_slice(b", ");
    two(out, day);
    out.push(b' ');
    out.extend_from_slice(MONTHS[(month - 1) as usize].as_bytes());
    out.push(b' ');
    four(out, year);
    out.push(b' ');
    clock(out, of_day);
    out.extend_from_slice(b" +0000");
}

/// `2026-01-02T03:04:05.000Z`, as event records have it.
pub(crate) fn iso8601(at: Wall, out: &mut Vec<u8>) {
    let (days, of_day) = (at.0 / 86_400_000, at.0 / 1000 % 86_400);
    let (year, month, day) = civil(days);
    four(out, year);
    out.push(b'-');
    two(out, month);
    out.push(b'-');
    two(out, day);
    out.push(b'T');
    clock(out, of_day);
    out.push(b'.');
    let ms = at.0 % 1000;
    out.push(b'0' + (ms / 100) as u8);
    two(out, ms % 100);
    out.push(b'Z');
}

fn clock(out: &mut Vec<u8>, of_day: u64) {
    two(out, of_day / 3600);
    out.push(b':');
    two(out, of_day / 60 % 60);
    out.push(b':');
    two(out, of_day % 60);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn text(f: fn(Wall, &mut Vec<u8>), at: u64) -> String {
        let mut out = Vec::new();
        f(Wall(at), &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn known_times() {
        assert_eq!(text(rfc5322, 0), "Thu, 01 Jan 1970 00:00:00 +0000");
        assert_eq!(text(rfc5322, 1_767_323_045_000), "Fri, 02 Jan 2026 03:04:05 +0000");
        assert_eq!(text(iso8601, 1_767_323_045_007), "2026-01-02T03:04:05.007Z");
    }

    proptest! {
        #[test]
        fn the_same_as_a_library_says(at in 0_u64..253_402_300_799_000) {
            let there = jiff::Timestamp::from_millisecond(at as i64).unwrap().to_zoned(jiff::tz::TimeZone::UTC);
            prop_assert_eq!(text(rfc5322, at), there.strftime("%a, %d %b %Y %H:%M:%S +0000").to_string());
            prop_assert_eq!(text(iso8601, at), there.strftime("%Y-%m-%dT%H:%M:%S.%3fZ").to_string());
        }
    }
}
