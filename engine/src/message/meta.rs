//! The envelope as the spool keeps it: one version byte, then postcard. Read without copying.

use super::id::MessageId;
use crate::smtp::envelope::{Notify, Ret};
use mailrail_queue::{admit::suppress::Suppressed, policy::DEFAULT_ACCOUNT};
use serde::{Deserialize, Serialize};
use std::net::IpAddr;

const VERSION: u8 = 2;
/// The same without account and suppressed recipients.
const VERSION_1: u8 = 1;
/// Bit of [`MetaFlags::moved`].
const MOVED: u8 = 8;

/// What the content says of itself, as far as sending it needs to know.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct MetaFlags {
    /// Octets above 127.
    pub(crate) eight_bit: bool,
    /// Needs SMTPUTF8.
    pub(crate) smtputf8: bool,
    /// A notification of this host.
    pub(crate) dsn: bool,
    /// Came from the spool of another shard, which has told of its acceptance.
    pub(crate) moved: bool,
}

/// One recipient.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RecipientMeta<'a> {
    pub(crate) address: &'a str,
    pub(crate) notify: Notify,
    pub(crate) orcpt: Option<&'a str>,
}

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Meta<'a> {
    pub(crate) id: MessageId,
    /// "" for the null sender.
    pub(crate) sender: &'a str,
    pub(crate) env_id: Option<&'a str>,
    pub(crate) ret: Option<Ret>,
    pub(crate) flags: MetaFlags,
    /// Leased IP chosen at acceptance.
    pub(crate) lease: Option<IpAddr>,
    pub(crate) pool: &'a str,
    /// Submitter; none for what this host made.
    pub(crate) source_ip: Option<IpAddr>,
    /// TLS version of the submission.
    pub(crate) source_tls: Option<&'a str>,
    /// Domain of the From header: whose DKIM keys sign it.
    pub(crate) from_domain: &'a str,
    /// Octets of content up to and without the empty line.
    pub(crate) header_size: u32,
    pub(crate) recipients: Vec<RecipientMeta<'a>>,
    /// Who sends it.
    pub(crate) account: &'a str,
    /// Numbers of recipients that are never to be tried, and why.
    pub(crate) suppressed: Vec<(u16, Suppressed)>,
}

/// On disk: the same, flat; what came with version 2 stands behind it.
#[derive(Serialize, Deserialize)]
struct Stored<'a> {
    id: [u8; 24],
    sender: &'a str,
    env_id: Option<&'a str>,
    ret: Option<Ret>,
    flags: u8,
    lease: Option<IpAddr>,
    pool: &'a str,
    source_ip: Option<IpAddr>,
    source_tls: Option<&'a str>,
    from_domain: &'a str,
    header_size: u32,
    #[serde(borrow)]
    recipients: Vec<RecipientMeta<'a>>,
}

impl<'a> Meta<'a> {
    /// Writes it in place of what `out` held.
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        let MetaFlags { eight_bit, smtputf8, dsn, moved } = self.flags;
        let stored = Stored {
            id: self.id.to_bytes(),
            sender: self.sender,
            env_id: self.env_id,
            ret: self.ret,
            flags: u8::from(eight_bit) | u8::from(smtputf8) << 1 | u8::from(dsn) << 2 | (u8::from(moved) * MOVED),
            lease: self.lease,
            pool: self.pool,
            source_ip: self.source_ip,
            source_tls: self.source_tls,
            from_domain: self.from_domain,
            header_size: self.header_size,
            recipients: self.recipients.clone(),
        };
        out.clear();
        out.push(VERSION);
        let buffer = std::mem::take(out);
        // Serialising plain data into memory has no way to fail.
        *out = postcard::to_extend(&(stored, self.account, &self.suppressed), buffer).unwrap_or_default();
    }

    /// None if it is not one of ours: another version, or damage that a checksum missed.
    pub(crate) fn decode(bytes: &'a [u8]) -> Option<Self> {
        let (version, rest) = bytes.split_first()?;
        type Tail<'a> = (&'a str, Vec<(u16, Suppressed)>);
        let (stored, rest): (Stored<'a>, _) = postcard::take_from_bytes(rest).ok()?;
        let (account, suppressed) = match *version {
            VERSION => postcard::from_bytes::<Tail<'a>>(rest).ok()?,
            VERSION_1 => (DEFAULT_ACCOUNT, Vec::new()),
            _ => return None,
        };
        let bit = |n: u8| stored.flags & 1 << n != 0;
        let moved = stored.flags & MOVED != 0;
        Some(Self {
            id: MessageId::from_bytes(&stored.id)?,
            sender: stored.sender,
            env_id: stored.env_id,
            ret: stored.ret,
            flags: MetaFlags { eight_bit: bit(0), smtputf8: bit(1), dsn: bit(2), moved },
            lease: stored.lease,
            pool: stored.pool,
            source_ip: stored.source_ip,
            source_tls: stored.source_tls,
            from_domain: stored.from_domain,
            header_size: stored.header_size,
            recipients: stored.recipients,
            account,
            suppressed,
        })
    }

    /// [`MetaFlags::moved`] of what [`Self::encode`] wrote, without reading the rest: each message is asked at a start.
    pub(crate) fn is_moved(bytes: &[u8]) -> bool {
        type Begin<'a> = ([u8; 24], &'a [u8], Option<&'a [u8]>, Option<Ret>, u8);
        let known = matches!(bytes.first(), Some(&(VERSION | VERSION_1)));
        let begin = known.then(|| postcard::take_from_bytes::<Begin<'_>>(&bytes[1..]).ok()).flatten();
        begin.is_some_and(|((.., flags), _)| flags & MOVED != 0)
    }

    /// For the spool of another shard: only these recipients, and the message is not told as accepted again.
    pub(crate) fn moved(mut self, numbers: &[u16]) -> Self {
        self.flags.moved = true;
        let place = |number: u16| numbers.iter().filter(|other| **other < number).count() as u16;
        self.suppressed.retain(|(number, _)| numbers.contains(number));
        self.suppressed.iter_mut().for_each(|(number, _)| *number = place(*number));
        let mut number = 0;
        self.recipients.retain(|_| {
            number += 1;
            numbers.contains(&(number - 1))
        });
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Meta<'static> {
        Meta {
            id: MessageId::new(1, 2, 3, 4),
            sender: "a@example.com",
            env_id: Some("x"),
            ret: Some(Ret::Headers),
            flags: MetaFlags { eight_bit: true, smtputf8: false, dsn: true, moved: false },
            lease: Some("192.0.2.1".parse().unwrap()),
            pool: "main",
            source_ip: None,
            source_tls: Some("TLSv1.3"),
            from_domain: "example.com",
            header_size: 99,
            recipients: vec![
                RecipientMeta { address: "b@example.net", notify: Notify::FAILURE, orcpt: None },
                RecipientMeta { address: "c@example.net", notify: Notify::NEVER, orcpt: Some("rfc822;c@x") },
            ],
            account: "acme",
            suppressed: vec![(1, Suppressed::OnAccountList)],
        }
    }

    #[test]
    fn what_was_kept_comes_back() {
        let mut bytes = b"rubbish of the last message".to_vec();
        sample().encode(&mut bytes);
        assert_eq!(Meta::decode(&bytes), Some(sample()));
    }

    #[test]
    fn that_it_was_moved_is_told_without_reading_the_rest() {
        let mut bytes = Vec::new();
        for moved in [false, true] {
            for meta in [sample(), Meta { sender: "", env_id: None, ret: None, ..sample() }] {
                Meta { flags: MetaFlags { moved, ..meta.flags }, ..meta }.encode(&mut bytes);
                assert_eq!(Meta::is_moved(&bytes), moved);
            }
        }
        bytes[0] = 9;
        assert!(!Meta::is_moved(&bytes) && !Meta::is_moved(&[]));
    }

    #[test]
    fn damage_and_other_versions_are_none() {
        let mut bytes = Vec::new();
        sample().encode(&mut bytes);
        for cut in 0..bytes.len() {
            assert!(Meta::decode(&bytes[..cut]).is_none(), "cut at {cut}");
        }
        bytes[0] = 9;
        assert_eq!(Meta::decode(&bytes), None);
    }

    #[test]
    fn what_the_version_before_kept_is_of_the_default_account() {
        let mut bytes = Vec::new();
        let old = Meta { account: DEFAULT_ACCOUNT, suppressed: Vec::new(), ..sample() };
        old.encode(&mut bytes);
        // The tail is a length with the name, and a length of zero.
        bytes.truncate(bytes.len() - DEFAULT_ACCOUNT.len() - 2);
        bytes[0] = VERSION_1;
        assert_eq!(Meta::decode(&bytes), Some(old));
    }

    #[test]
    fn a_move_keeps_the_numbers_asked_for() {
        let moved = sample().moved(&[1]);
        assert_eq!(
            (moved.recipients[0].address, &*moved.suppressed),
            ("c@example.net", &[(0, Suppressed::OnAccountList)][..])
        );
        assert!(sample().moved(&[0]).suppressed.is_empty());
    }
}
