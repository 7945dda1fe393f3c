//! What the load generator sends: message number n of a run is the same whenever it is made, from seed and number.
//!
//! So a retry needs no copy of the message, and any message can be made again to look at it. Pure: no I/O, no clock.

use std::io::Write as _;

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use serde::{Deserialize, Serialize};

use super::header::{self, Header};

/// Text that bodies are cut from, in bytes.
const POOL: usize = 512 << 10;
/// Addresses written into the To field at most; the envelope has them all.
const TO_MAX: usize = 5;
/// Smallest content made, whatever the distribution says: the header section alone needs as much.
const SMALLEST: usize = 256;

/// How large messages are, in bytes of content, header section included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Sizes {
    /// All the same.
    Fixed(usize),
    /// Every size from `min` to `max` as likely as any other.
    Uniform {
        /// Smallest.
        min: usize,
        /// Largest.
        max: usize,
    },
    /// Every order of magnitude from `min` to `max` as likely as any other: many small ones, few large ones.
    LogUniform {
        /// Smallest.
        min: usize,
        /// Largest.
        max: usize,
    },
}

impl Sizes {
    fn draw(self, rng: &mut SmallRng) -> usize {
        let (min, max) = match self {
            Self::Fixed(size) => (size, size),
            Self::Uniform { min, max } | Self::LogUniform { min, max } => (min.max(1), max.max(min).max(1)),
        };
        let size = match self {
            Self::Fixed(size) => size,
            Self::Uniform { .. } => rng.random_range(min..=max),
            Self::LogUniform { .. } => {
                let (low, high) = ((min as f64).ln(), (max as f64).ln());
                ((low + (high - low) * rng.random::<f64>()).exp() as usize).clamp(min, max)
            }
        };
        size.max(SMALLEST)
    }
}

/// A recipient domain and its share of the recipients.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RecipientDomain {
    /// The domain.
    pub domain: String,
    /// Its share, relative to the others'.
    #[serde(default = "one")]
    pub weight: f64,
    /// Users it has: `user0` and up.
    #[serde(default = "many")]
    pub users: u32,
    /// Share of recipients that are `unknown0` and up instead.
    #[serde(default)]
    pub unknown: f64,
}

fn one() -> f64 {
    1.0
}

fn many() -> u32 {
    1_000_000
}

impl RecipientDomain {
    /// A domain with weight 1, a million users and no unknown ones.
    #[must_use]
    pub fn new(domain: &str) -> Self {
        Self { domain: domain.into(), weight: one(), users: many(), unknown: 0.0 }
    }
}

/// What every message of a run is made from; one per run, shared by its threads.
#[derive(Debug)]
pub(super) struct Recipe {
    pub(super) of: Ingredients,
    /// Running sums of the domains' weights.
    weights: Vec<f64>,
    pool: Vec<u8>,
    /// Where lines of the pool begin.
    lines: Vec<usize>,
}

/// Message number n, as far as the envelope goes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Envelope {
    pub(super) sender: usize,
    pub(super) recipients: Vec<String>,
    pub(super) size: usize,
    start: usize,
}

/// The moment a message is made for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Stamp<'a> {
    /// Microseconds since 1970.
    pub(super) wall_us: u64,
    /// The same as an RFC 5322 date.
    pub(super) date: &'a str,
}

/// The parts of a recipe that a caller decides.
#[derive(Debug)]
pub(super) struct Ingredients {
    pub(super) run: String,
    pub(super) seed: u64,
    pub(super) hostname: String,
    pub(super) sizes: Sizes,
    pub(super) senders: Vec<String>,
    pub(super) domains: Vec<RecipientDomain>,
    pub(super) per_message: (usize, usize),
    pub(super) headers: Vec<Header>,
    pub(super) dot_lines: bool,
}

impl Recipe {
    pub(super) fn new(of: Ingredients) -> Self {
        let mut sum = 0.0;
        let weights = of.domains.iter().map(|domain| {
            sum += domain.weight.max(0.0);
            sum
        });
        let weights = weights.collect();
        let (pool, lines) = pool(of.seed, of.dot_lines);
        Self { of, weights, pool, lines }
    }

    /// Makes the envelope of message `number`, in place.
    pub(super) fn envelope(&self, number: u64, into: &mut Envelope) {
        let mut rng = SmallRng::seed_from_u64(self.of.seed ^ number.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        into.sender = if self.of.senders.len() == 1 { 0 } else { rng.random_range(0..self.of.senders.len()) };
        into.size = self.of.sizes.draw(&mut rng);
        into.start = rng.random_range(0..self.lines.len());
        let (min, max) = self.of.per_message;
        let count = if min >= max { min.max(1) } else { rng.random_range(min.max(1)..=max) };
        into.recipients.resize_with(count, String::new);
        for at in 0..count {
            let (before, rest) = into.recipients.split_at_mut(at);
            self.recipient(&mut rng, before, &mut rest[0]);
        }
    }

    /// A recipient that is not among those `before`.
    fn recipient(&self, rng: &mut SmallRng, before: &[String], into: &mut String) {
        use std::fmt::Write as _;
        for attempt in 0_u32.. {
            let total = self.weights.last().copied().unwrap_or(0.0);
            let at = if self.of.domains.len() == 1 { 0.0 } else { rng.random::<f64>() * total };
            let index = self.weights.partition_point(|sum| *sum <= at).min(self.of.domains.len() - 1);
            let domain = &self.of.domains[index];
            let is_unknown = domain.unknown > 0.0 && rng.random_bool(domain.unknown.min(1.0));
            let user = rng.random_range(0..domain.users.max(1));
            into.clear();
            let name = if is_unknown { "unknown" } else { "user" };
            // A domain with too few users gets addresses with a detail, rather than a duplicate in one envelope.
            let _ = match attempt {
                0..4 => write!(into, "{name}{user}@{}", domain.domain),
                _ => write!(into, "{name}{user}+{attempt}@{}", domain.domain),
            };
            if !before.contains(into) {
                return;
            }
        }
    }

    /// Writes the identity of message `number`, its `X-Load-Id`.
    pub(super) fn id(&self, number: u64, into: &mut Vec<u8>) {
        let _ = write!(into, "{}-{number}", self.of.run);
    }

    /// Appends the content of message `number`, dots stuffed, with the terminator.
    pub(super) fn content(&self, number: u64, envelope: &Envelope, stamp: Stamp<'_>, out: &mut Vec<u8>) {
        let begin = out.len();
        let sender = &self.of.senders[envelope.sender];
        out.extend_from_slice(b"X-Load-Id: ");
        self.id(number, out);
        // Writing to a Vec cannot fail.
        let _ = write!(out, "\r\nX-Load-Time: {}\r\nFrom: <{sender}>\r\nTo: ", stamp.wall_us);
        for (at, recipient) in envelope.recipients.iter().take(TO_MAX).enumerate() {
            out.extend_from_slice(if at == 0 { b"<" } else { b",\r\n <" });
            out.extend_from_slice(recipient.as_bytes());
            out.push(b'>');
        }
        let _ = write!(
            out,
            "\r\nSubject: Load message {number} of run {}\r\nDate: {}\r\nMessage-ID: <{}.{number}@{}>\r\n",
            self.of.run, stamp.date, self.of.run, self.of.hostname
        );
        for header in header::of_message(&self.of.headers, self.of.seed, number) {
            let _ = write!(out, "{}: {}\r\n", header.name, header.value);
        }
        out.extend_from_slice(
            b"MIME-Version: 1.0\r\nContent-Type: text/plain; charset=us-ascii\r\nContent-Transfer-Encoding: 7bit\r\n\r\n",
        );
        self.body(envelope, begin, out);
        out.extend_from_slice(b".\r\n");
    }

    /// Appends lines of the pool until the content that began at `begin` has its size.
    fn body(&self, envelope: &Envelope, begin: usize, out: &mut Vec<u8>) {
        let mut at = self.lines[envelope.start];
        loop {
            let have = out.len() - begin;
            // A last line needs room for a byte and its CRLF.
            let Some(room) = envelope.size.checked_sub(have).filter(|room| *room >= 3) else { return };
            let rest = &self.pool[at..];
            if rest.len() <= room {
                out.extend_from_slice(rest);
                at = 0;
                continue;
            }
            let piece = &rest[..room - 2];
            let line = memchr::memrchr(b'\n', piece).map_or(0, |feed| feed + 1);
            let cut = &piece[line..];
            out.extend_from_slice(&piece[..line]);
            // A line is cut anywhere but in its CRLF or behind its stuffed dot, where it would end the message.
            let cut = cut.strip_suffix(b"\r").unwrap_or(cut);
            if !cut.is_empty() && cut != b"." {
                out.extend_from_slice(cut);
                out.extend_from_slice(b"\r\n");
            }
            return;
        }
    }
}

/// Text of varied line lengths, dots stuffed, and where its lines begin.
fn pool(seed: u64, dot_lines: bool) -> (Vec<u8>, Vec<usize>) {
    let mut rng = SmallRng::seed_from_u64(seed);
    let (mut pool, mut lines) = (Vec::with_capacity(POOL + 1024), Vec::new());
    while pool.len() < POOL {
        lines.push(pool.len());
        if dot_lines && rng.random_bool(0.02) {
            pool.extend_from_slice(b"..");
        }
        let len = match rng.random_range(0..100) {
            0 => rng.random_range(200..900),
            1..6 => 0,
            6..30 => rng.random_range(1..40),
            _ => rng.random_range(40..76),
        };
        for at in 0..len {
            let is_gap = at > 0 && at + 1 < len && rng.random_bool(0.16);
            pool.push(if is_gap { b' ' } else { rng.random_range(b'a'..=b'z') });
        }
        pool.extend_from_slice(b"\r\n");
    }
    (pool, lines)
}

/// An RFC 5322 date (section 3.3) in UTC, for seconds since 1970.
pub(super) fn rfc5322_date(unix_seconds: u64) -> String {
    const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
    const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let (days, seconds) = (unix_seconds / 86_400, unix_seconds % 86_400);
    // Civil date from a day count, in years that begin in March (H. Hinnant, "chrono-compatible date algorithms").
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * march_month + 2) / 5 + 1;
    let month = (march_month + 2) % 12;
    let year = era * 400 + year_of_era + u64::from(month < 2);
    let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    let (weekday, month) = (DAYS[(days % 7) as usize], MONTHS[month as usize]);
    format!("{weekday}, {day:02} {month} {year} {hour:02}:{minute:02}:{second:02} +0000")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recipe(sizes: Sizes, per_message: (usize, usize)) -> Recipe {
        Recipe::new(Ingredients {
            run: "r".into(),
            seed: 7,
            hostname: "load.test".into(),
            sizes,
            senders: vec!["a@load.test".into(), "b@load.test".into()],
            domains: vec![
                RecipientDomain { weight: 3.0, ..RecipientDomain::new("three.test") },
                RecipientDomain { users: 2, ..RecipientDomain::new("one.test") },
            ],
            per_message,
            headers: vec![Header { name: "X-Extra".into(), value: "yes".into(), share: None }],
            dot_lines: true,
        })
    }

    const STAMP: Stamp<'static> = Stamp { wall_us: 5, date: "Thu, 01 Jan 1970 00:00:00 +0000" };

    #[test]
    fn a_message_is_the_same_each_time_and_well_formed() {
        let recipe = recipe(Sizes::LogUniform { min: 1024, max: 256 << 10 }, (1, 12));
        let (mut envelope, mut again) = (Envelope::default(), Envelope::default());
        for number in 0..500 {
            recipe.envelope(number, &mut envelope);
            recipe.envelope(number, &mut again);
            assert_eq!(envelope, again);
            let mut unique = envelope.recipients.clone();
            unique.sort();
            unique.dedup();
            assert_eq!(unique.len(), envelope.recipients.len());
            let mut out = Vec::new();
            recipe.content(number, &envelope, STAMP, &mut out);
            let content = out.strip_suffix(b".\r\n").unwrap();
            assert!(content.ends_with(b"\r\n"));
            assert!(content.len() + 4 >= envelope.size && content.len() <= envelope.size, "{}", content.len());
            assert!(memchr::memmem::find(&out, b"\r\n.\r\n").unwrap() + 5 == out.len());
            for line in content.split_inclusive(|byte| *byte == b'\n') {
                assert!(
                    line.ends_with(b"\r\n")
                        && line.len() <= 1000
                        && memchr::memchr(b'\r', line).unwrap() == line.len() - 2
                );
            }
        }
    }

    #[test]
    fn weights_hold() {
        let recipe = recipe(Sizes::Fixed(1024), (1, 1));
        let mut envelope = Envelope::default();
        let three = (0..10_000).filter(|number| {
            recipe.envelope(*number, &mut envelope);
            envelope.recipients[0].ends_with("@three.test")
        });
        let three = three.count();
        assert!((7_200..7_800).contains(&three), "{three}");
    }

    #[test]
    fn dates() {
        for (seconds, date) in [
            (0, "Thu, 01 Jan 1970 00:00:00 +0000"),
            (951_782_400, "Tue, 29 Feb 2000 00:00:00 +0000"),
            (1_767_225_599, "Wed, 31 Dec 2025 23:59:59 +0000"),
            (4_102_444_800, "Fri, 01 Jan 2100 00:00:00 +0000"),
        ] {
            assert_eq!(rfc5322_date(seconds), date);
        }
    }
}
