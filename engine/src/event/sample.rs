//! A message that was accepted and delivered, as the outbox tells of it: what the bench of event encoding measures.

use super::{detail::Attempt, encode};
use crate::{
    message::{
        id::MessageId,
        meta::{Meta, MetaFlags, RecipientMeta},
    },
    smtp::{
        envelope::Notify,
        reply::{Enhanced, Reply},
    },
};
use mailrail_queue::time::Wall;
use mailrail_spool::{OutboxKind, OutboxRecord, SettleKind};
use std::{net::IpAddr, time::Duration};

const ACCEPTED: u64 = 1_767_225_600_000;
const LEASE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 10));

/// See the module.
#[derive(Debug)]
pub struct Sample {
    id: [u8; 24],
    meta: Vec<u8>,
    detail: Vec<u8>,
}

impl Default for Sample {
    fn default() -> Self {
        Self::new()
    }
}

impl Sample {
    /// With one recipient.
    #[must_use]
    pub fn new() -> Self {
        let id = MessageId::new(ACCEPTED, 1, 2, 3);
        let envelope = Meta {
            id,
            sender: "bounce+0123456789@news.example.com",
            env_id: None,
            ret: None,
            flags: MetaFlags::default(),
            lease: Some(LEASE),
            pool: "marketing",
            source_ip: Some(LEASE),
            source_tls: Some("TLSv1.3"),
            from_domain: "example.com",
            header_size: 900,
            recipients: vec![RecipientMeta { address: "somebody@example.net", notify: Notify::DEFAULT, orcpt: None }],
            account: "default",
            suppressed: Vec::new(),
        };
        let attempt = Attempt {
            time: Wall(ACCEPTED + 900),
            lease: Some(LEASE),
            mx_host: Some("mx1.mail.example.net"),
            remote: Some((LEASE, 25).into()),
            tls: Some(("TLSv1.3", "TLS13_AES_256_GCM_SHA384")),
            reply: Reply::new(250, Enhanced(2, 0, 0), "Ok: queued as 4ZxV3k1hJ9z2xK"),
            attempt: 1,
            queue: Duration::from_millis(3),
            transfer: Duration::from_millis(80),
            ..Attempt::default()
        };
        let (mut meta, mut detail) = (Vec::new(), Vec::new());
        envelope.encode(&mut meta);
        attempt.encode(&mut detail);
        Self { id: id.to_bytes(), meta, detail }
    }

    /// Appends its two event lines, Send and Delivery, as the shard makes them of the records in its spool.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let kinds = [OutboxKind::Accepted, OutboxKind::Settled(SettleKind::Delivered)];
        for (kind, detail) in kinds.into_iter().zip([&[][..], &self.detail]) {
            let record = OutboxRecord::of_first_recipient(kind, &self.id, ACCEPTED, &self.meta, 4096, detail);
            encode::record(&record, out);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_makes_a_send_and_a_delivery() {
        let mut lines = Vec::new();
        Sample::new().encode(&mut lines);
        let kinds: Vec<String> = lines
            .split(|byte| *byte == b'\n')
            .filter(|line| !line.is_empty())
            .map(|line| serde_json::from_slice::<serde_json::Value>(line).unwrap()["eventType"].to_string())
            .collect();
        assert_eq!(kinds, ["\"Send\"", "\"Delivery\""]);
    }
}
