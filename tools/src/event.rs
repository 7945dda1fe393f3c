//! One line of the event log, as the client reads it. Fields that a kind of event has not are absent.

use serde::{Deserialize, Serialize};

/// An event about one recipient of one message (`Send` may stand for the message as a whole).
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Event {
    /// `Send`, `Attempt`, `DeliveryDelay`, `Delivery`, `Bounce`, `Expired`.
    pub(crate) event_type: String,
    /// UTC, ISO 8601 with milliseconds.
    pub(crate) timestamp: String,
    /// The message's id.
    pub(crate) message_id: String,
    /// MAIL FROM; empty for a bounce message.
    pub(crate) source: Option<String>,
    /// The recipient it is about.
    pub(crate) recipient: Option<String>,
    /// Who submitted it.
    pub(crate) source_ip: Option<String>,
    /// Bytes of content.
    pub(crate) size: Option<u64>,
    /// The leased IP.
    pub(crate) outgoing_ip: Option<String>,
    /// Name of the mail host.
    pub(crate) mx_host: Option<String>,
    /// Its address.
    pub(crate) remote_mta_ip: Option<String>,
    /// Its port.
    pub(crate) remote_port: Option<u16>,
    /// Such as `TLSv1.3`; absent in plain text.
    pub(crate) tls_version: Option<String>,
    /// The cipher suite.
    pub(crate) tls_cipher: Option<String>,
    /// The receiver's reply.
    pub(crate) smtp_response: Option<String>,
    /// RFC 3463 code.
    pub(crate) status: Option<String>,
    /// Which try it was, from 1.
    pub(crate) attempt: Option<u32>,
    /// `Permanent`, `Transient`, `Undetermined`.
    pub(crate) bounce_type: Option<String>,
    /// Such as `NoEmail`.
    pub(crate) bounce_sub_type: Option<String>,
    /// `smtp; ` and the reply, or what went wrong on our side.
    pub(crate) diagnostic_code: Option<String>,
    /// Such as `MailboxFull`.
    pub(crate) delay_type: Option<String>,
    /// When it is tried again.
    pub(crate) next_try: Option<String>,
    /// The receiver may have it, though it did not say so.
    pub(crate) in_doubt: Option<bool>,
    /// Acceptance to the receiver's 250, milliseconds.
    pub(crate) processing_time_millis: Option<u64>,
}
