//! The audit over the control socket: who changed what.

use serde::{Deserialize, Serialize};

/// `GET /mailrail/v1/audit`: the newest first; query: `limit` (1 to 1000, 100 unless told), `before` (an id), `kind`, `name`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct AuditPage {
    /// The newest first.
    pub entries: Vec<AuditRow>,
    /// There are older ones: give it as `before`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next: Option<u64>,
}

/// One change.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct AuditRow {
    /// Rises with every change.
    pub id: u64,
    /// When.
    pub time: u64,
    /// Who asked for it, as the kernel says: `uid 0, pid 42`.
    pub who: String,
    /// `add`, `change` or `remove`.
    pub action: String,
    /// What kind of thing it was done to.
    pub kind: String,
    /// Which one.
    pub name: String,
    /// How it was; none: it was not there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub before: Option<String>,
    /// How it is since; none: it is gone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
}
