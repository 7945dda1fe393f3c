//! Suppression lists over the control socket: the operations of SES with their names, and the host's own.

use serde::{Deserialize, Serialize};

/// Query of every operation: which list is meant.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct OfList {
    /// That of this account; left out: of `default`.
    pub account: Option<String>,
    /// `host`: the host's own.
    pub list: Option<String>,
}

/// `PUT /v2/email/suppression/addresses` (PutSuppressedDestination).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct PutSuppressedDestinationRequest {
    /// The address.
    pub email_address: String,
    /// `BOUNCE` or `COMPLAINT`.
    pub reason: String,
}

/// `GET /v2/email/suppression/addresses/{EmailAddress}` (GetSuppressedDestination).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct GetSuppressedDestinationResponse {
    /// The entry.
    pub suppressed_destination: SuppressedDestination,
}

/// An entry.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct SuppressedDestination {
    /// As it was given.
    pub email_address: String,
    /// `BOUNCE` or `COMPLAINT`.
    pub reason: String,
    /// Seconds since the epoch.
    pub last_update_time: f64,
    /// What is known of its cause.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attributes: Option<SuppressedDestinationAttributes>,
}

/// What is known of the cause of an entry.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct SuppressedDestinationAttributes {
    /// The message that bounced.
    pub message_id: String,
}

/// `GET /v2/email/suppression/addresses` (ListSuppressedDestinations); query: `Reason` (more than once), `StartDate`,
/// `EndDate` (ISO 8601), `PageSize` (1 to 1000), `NextToken`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ListSuppressedDestinationsResponse {
    /// The newest first.
    pub suppressed_destination_summaries: Vec<SuppressedDestinationSummary>,
    /// There are more: give it back for them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_token: Option<String>,
}

/// An entry in a list.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct SuppressedDestinationSummary {
    /// As it was given.
    pub email_address: String,
    /// `BOUNCE` or `COMPLAINT`.
    pub reason: String,
    /// Seconds since the epoch.
    pub last_update_time: f64,
}

/// `PUT /mailrail/v1/suppression/import`: a piece of a file; any number of them make a whole.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct ImportRequest {
    /// Whole lines: `address,REASON`, or JSON `{"emailAddress", "reason"}`. Without a reason: `MANUAL`.
    pub lines: String,
    /// Number of the first of them in the file, from 1.
    pub first_line: u64,
    /// Take them off the list instead.
    pub remove: bool,
    /// Only say what is wrong with them.
    pub dry_run: bool,
}

/// What came of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ImportReport {
    /// Entries put, or taken off.
    pub entries: u64,
    /// Lines that were left out.
    pub wrong: u64,
    /// The first of these, at most a hundred.
    pub errors: Vec<LineError>,
}

/// A line that is no entry.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct LineError {
    /// Its number, from 1.
    pub line: u64,
    /// What is wrong with it.
    pub message: String,
}

/// `GET /mailrail/v1/suppression`: a page in order of address, as CSV; query: `after`, `limit`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ExportPage {
    /// Lines `address,REASON,time`, with `MANUAL` as a reason of its own.
    pub csv: String,
    /// Entries in it.
    pub entries: u64,
    /// Give it as `after` for the next page; none: this was the last.
    pub next: Option<String>,
}

/// `GET /mailrail/v1/suppression/size`: of all lists together.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ListsSize {
    /// Entries in the shared set.
    pub entries: u64,
    /// Bytes of memory that all shards together use for it.
    pub bytes: u64,
}
