//! What is kept of one try with the outcome record in the spool: one version byte, then postcard.

use crate::smtp::reply::Reply;
use mailrail_queue::{
    classify::{BounceSubType, BounceType, DelayType},
    time::Wall,
};
use serde::{Deserialize, Serialize};
use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

const VERSION: u8 = 1;

/// How a try was understood.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Outcome {
    #[default]
    Delivered,
    Deferred(DelayType),
    Bounced(BounceType, BounceSubType),
    /// Not sent, because the recipient has complained before.
    Complained,
    /// Taken out by an operator.
    Cancelled,
}

impl Outcome {
    /// Refused for good.
    pub(crate) fn is_bounced(self) -> bool {
        matches!(self, Self::Bounced(..))
    }
}

/// One try of recipients with one fate at one host; or, without a host, an end that needed no try.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Attempt<'a> {
    pub(crate) time: Wall,
    pub(crate) lease: Option<IpAddr>,
    pub(crate) mx_host: Option<&'a str>,
    pub(crate) remote: Option<SocketAddr>,
    /// Version and cipher suite.
    pub(crate) tls: Option<(&'a str, &'a str)>,
    pub(crate) reply: Reply,
    /// From 1; 0: no try.
    pub(crate) attempt: u16,
    pub(crate) outcome: Outcome,
    /// The connection ended before the answer to the final dot.
    pub(crate) in_doubt: bool,
    /// From acceptance to MAIL FROM.
    pub(crate) queue: Duration,
    pub(crate) connect: Duration,
    /// From MAIL FROM to the outcome.
    pub(crate) transfer: Duration,
    /// 0: none.
    pub(crate) next_try: Wall,
    /// A DeliveryDelay is due (first deferral, then at 1 h, 4 h and each 12 h).
    pub(crate) tell_delay: bool,
}

#[derive(Serialize, Deserialize)]
struct Stored<'a> {
    time: u64,
    lease: Option<IpAddr>,
    #[serde(borrow)]
    mx_host: Option<&'a str>,
    remote: Option<SocketAddr>,
    tls: Option<(&'a str, &'a str)>,
    code: u16,
    enhanced: Option<crate::smtp::reply::Enhanced>,
    text: &'a str,
    attempt: u16,
    outcome: Outcome,
    flags: u8,
    queue_ms: u64,
    connect_ms: u64,
    transfer_ms: u64,
    next_try: u64,
}

fn ms(period: Duration) -> u64 {
    u64::try_from(period.as_millis()).unwrap_or(u64::MAX)
}

impl<'a> Attempt<'a> {
    /// Writes it in place of what `out` held.
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        let stored = Stored {
            time: self.time.0,
            lease: self.lease,
            mx_host: self.mx_host,
            remote: self.remote,
            tls: self.tls,
            code: self.reply.code,
            enhanced: self.reply.enhanced,
            text: &self.reply.text,
            attempt: self.attempt,
            outcome: self.outcome,
            flags: u8::from(self.in_doubt) | u8::from(self.reply.local) << 1 | u8::from(self.tell_delay) << 2,
            queue_ms: ms(self.queue),
            connect_ms: ms(self.connect),
            transfer_ms: ms(self.transfer),
            next_try: self.next_try.0,
        };
        out.clear();
        out.push(VERSION);
        let buffer = std::mem::take(out);
        // Serialising plain data into memory has no way to fail.
        *out = postcard::to_extend(&stored, buffer).unwrap_or_default();
    }

    /// None if it is not one of ours.
    pub(crate) fn decode(bytes: &'a [u8]) -> Option<Self> {
        let (version, rest) = bytes.split_first()?;
        if *version != VERSION {
            return None;
        }
        let stored: Stored<'a> = postcard::from_bytes(rest).ok()?;
        let bit = |n: u8| stored.flags & 1 << n != 0;
        let reply = Reply { code: stored.code, enhanced: stored.enhanced, text: stored.text.to_owned(), local: bit(1) };
        Some(Self {
            time: Wall(stored.time),
            lease: stored.lease,
            mx_host: stored.mx_host,
            remote: stored.remote,
            tls: stored.tls,
            reply,
            attempt: stored.attempt,
            outcome: stored.outcome,
            in_doubt: bit(0),
            queue: Duration::from_millis(stored.queue_ms),
            connect: Duration::from_millis(stored.connect_ms),
            transfer: Duration::from_millis(stored.transfer_ms),
            next_try: Wall(stored.next_try),
            tell_delay: bit(2),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::smtp::reply::Enhanced;

    #[test]
    fn what_was_kept_comes_back() {
        let attempt = Attempt {
            time: Wall(5),
            lease: Some("192.0.2.1".parse().unwrap()),
            mx_host: Some("mx.example"),
            remote: Some("198.51.100.1:25".parse().unwrap()),
            tls: Some(("TLSv1.3", "TLS_AES_128_GCM_SHA256")),
            reply: Reply::new(451, Enhanced(4, 7, 1), "later"),
            attempt: 3,
            outcome: Outcome::Deferred(DelayType::General),
            in_doubt: true,
            queue: Duration::from_millis(7),
            connect: Duration::from_millis(8),
            transfer: Duration::from_millis(9),
            next_try: Wall(99),
            tell_delay: true,
        };
        let mut bytes = Vec::new();
        attempt.encode(&mut bytes);
        assert_eq!(Attempt::decode(&bytes), Some(attempt));
        assert_eq!(Attempt::decode(&bytes[..bytes.len() - 1]), None);
        assert_eq!(Attempt::decode(&[]), None);
    }
}
