//! The envelope of a spooled message, for people and tools that look into a spool without a server.

use super::{id::MessageId, meta::Meta};
use serde::Serialize;

/// See the module. Field names are those of the JSON that `mailrail spool export` writes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct KeptEnvelope {
    /// The message's id.
    pub message_id: String,
    /// "" for the null sender.
    pub sender: String,
    /// As the client gave it (ENVID).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub env_id: Option<String>,
    /// The pool asked for; "" for the default one.
    pub pool: String,
    /// The leased IP chosen at acceptance.
    pub ip: Option<String>,
    /// Who submitted it; none for a notification of this host.
    pub source_ip: Option<String>,
    /// It is a notification of this host.
    pub dsn: bool,
    /// Addresses, in the order of the spool's recipient numbers.
    pub recipients: Vec<String>,
}

impl KeptEnvelope {
    /// None if `meta` is not an envelope of this version.
    #[must_use]
    pub fn decode(meta: &[u8]) -> Option<Self> {
        let meta = Meta::decode(meta)?;
        Some(Self {
            message_id: meta.id.to_string(),
            sender: meta.sender.into(),
            env_id: meta.env_id.map(Into::into),
            pool: meta.pool.into(),
            ip: meta.lease.map(|address| address.to_string()),
            source_ip: meta.source_ip.map(|address| address.to_string()),
            dsn: meta.flags.dsn,
            recipients: meta.recipients.iter().map(|recipient| recipient.address.to_owned()).collect(),
        })
    }
}

/// The id that the spool keeps as a message's name, as people know it.
#[must_use]
pub fn id_of(name: &[u8]) -> Option<String> {
    MessageId::from_bytes(name).map(|id| id.to_string())
}
