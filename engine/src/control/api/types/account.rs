//! Accounts over the control socket: the operations of SES with their names, and the host's own.

use serde::{Deserialize, Serialize};

/// Query of the operations that SES has for "the" account: which one is meant.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct OfAccount {
    /// Its name; left out: `default`.
    pub account: Option<String>,
}

/// `GET /v2/email/account` (GetAccount).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct GetAccountResponse {
    /// New dedicated IPs warm up.
    pub dedicated_ip_auto_warmup_enabled: bool,
    /// `HEALTHY`.
    pub enforcement_status: String,
    /// It is not in the sandbox.
    pub production_access_enabled: bool,
    /// What it may send, and has sent.
    pub send_quota: SendQuota,
    /// New mail is taken from it.
    pub sending_enabled: bool,
    /// Its suppression list.
    pub suppression_attributes: SuppressionAttributes,
}

/// What an account may send, and has sent.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct SendQuota {
    /// Recipients in any 24 hours; -1: no limit.
    #[serde(rename = "Max24HourSend")]
    pub max_24_hour_send: f64,
    /// Recipients a second; -1: no limit.
    pub max_send_rate: f64,
    /// Recipients accepted in the last 24 hours; counted for accounts with a limit only.
    #[serde(rename = "SentLast24Hours")]
    pub sent_last_24_hours: f64,
}

/// For which reasons addresses are put on the list, and kept from mail.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct SuppressionAttributes {
    /// `BOUNCE`, `COMPLAINT`; none: the list is off.
    pub suppressed_reasons: Vec<String>,
}

/// `PUT /v2/email/account/sending` (PutAccountSendingAttributes).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct PutAccountSendingAttributesRequest {
    /// Take new mail from it.
    pub sending_enabled: bool,
}

/// `PUT /v2/email/account/suppression` (PutAccountSuppressionAttributes).
pub type PutAccountSuppressionAttributesRequest = SuppressionAttributes;

/// The answer to a change that has nothing to say: `{}`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Done {}

/// `PUT /mailrail/v1/accounts/{name}/limits`; what is left out stays.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LimitsRequest {
    /// Recipients in any 24 hours; -1: no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_24_hour_send: Option<i64>,
    /// Recipients a second; -1: no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_send_rate: Option<i64>,
    /// Into the sandbox, or out of it; left out: an increase of either limit leaves it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sandbox: Option<bool>,
}

/// `GET /mailrail/v1/accounts`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct AccountsReport {
    /// All of them, in order of name.
    pub accounts: Vec<AccountReport>,
}

/// `GET /mailrail/v1/accounts/{name}`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct AccountReport {
    /// Its name.
    pub name: String,
    /// Its pool; none: the host's default.
    pub pool: Option<String>,
    /// IPs that it leases warm up by themselves.
    pub auto_warmup: bool,
    /// Recipients in any 24 hours; -1: no limit.
    pub max_24_hour_send: i64,
    /// Recipients a second; -1: no limit.
    pub max_send_rate: i64,
    /// Recipients accepted in the last 24 hours; counted for accounts with a limit only.
    pub sent_last_24_hours: u64,
    /// It may send to verified addresses only.
    pub sandbox: bool,
    /// New mail is taken from it.
    pub sending_enabled: bool,
    /// For which reasons its suppression list is kept and asked.
    pub suppressed_reasons: Vec<String>,
    /// Ids of its access keys.
    pub keys: Vec<String>,
    /// Addresses and domains that it may send to in the sandbox.
    pub verified: Vec<String>,
}
