//! Suppression lists: SES's Put-, Get-, Delete- and ListSuppressedDestination(s), and under `/mailrail/v1/suppression` import
//! and export in pieces of any number.

use super::{
    account, audit,
    error::ApiError,
    state::State,
    types::{
        Action, Change, Kind,
        account::Done,
        suppression::{
            ExportPage, GetSuppressedDestinationResponse, ImportReport, ImportRequest, LineError,
            ListSuppressedDestinationsResponse, ListsSize, OfList, PutSuppressedDestinationRequest,
            SuppressedDestination, SuppressedDestinationAttributes, SuppressedDestinationSummary,
        },
    },
};
use crate::{
    clock,
    control::{
        socket::Peer,
        store::StoreError,
        suppression::{
            HOST, Lists, Put,
            csv::{self, word_of},
            db::{Entry, Norm, Search},
        },
    },
};
use axum::{
    Json,
    extract::{
        self, ConnectInfo, Path, Query, RawQuery,
        rejection::{JsonRejection, PathRejection, QueryRejection},
    },
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use mailrail_queue::{admit::suppress::Reason, time::Wall};
use serde::Deserialize;
use std::sync::Arc;

/// Entries of a page, at most and unless said otherwise (SES).
const PAGE_MAX: usize = 1000;
const PAGE: usize = 100;
/// Entries of a page of an export.
const EXPORT_MAX: usize = 20_000;
/// Entries written at once: others get their turn between two of them.
const WRITE: usize = 20_000;
/// Wrong lines that are told of.
const ERRORS_MAX: usize = 100;

type Of = Result<Query<OfList>, QueryRejection>;

/// Name of the list in the database, and whether it may be changed by its owner.
fn list_of(state: &State, of: &OfList) -> Result<(String, bool), ApiError> {
    match of.list.as_deref() {
        Some("host") => Ok((HOST.into(), true)),
        Some(other) => Err(ApiError::bad(format!("list={other} is unknown: host, or account= and a name"))),
        None => {
            let account = account::named(state, of.account.as_deref())?;
            Ok((account.name.to_string(), !account.sandbox))
        }
    }
}

/// Does what blocks where that is allowed.
async fn blocking<T: Send + 'static>(
    state: &State,
    work: impl FnOnce(&Lists) -> Result<T, StoreError> + Send + 'static,
) -> Result<T, ApiError> {
    let lists = Arc::clone(&state.lists);
    match tokio::task::spawn_blocking(move || work(&lists)).await {
        Ok(done) => done.map_err(|error| ApiError::internal(error.to_string())),
        Err(error) => Err(ApiError::internal(error.to_string())),
    }
}

pub(super) async fn put(
    extract::State(state): extract::State<Arc<State>>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    of: Of,
    request: Result<Json<PutSuppressedDestinationRequest>, JsonRejection>,
) -> Result<Json<Done>, ApiError> {
    let (list, free) = list_of(&state, &of?.0)?;
    if !free {
        return Err(ApiError::bad("PutSuppressedDestination is not available in the sandbox."));
    }
    let Json(PutSuppressedDestinationRequest { email_address, reason }) = request?;
    let reason = match reason.as_str() {
        "BOUNCE" => Reason::Bounce,
        "COMPLAINT" => Reason::Complaint,
        _ => return Err(ApiError::bad(format!("Reason must be BOUNCE or COMPLAINT, not {reason}."))),
    };
    let address = Norm::of(&email_address).map_err(ApiError::bad)?;
    let put = Put { address, reason, at: clock::wall(), message_id: None };
    change(state, list, vec![put], false, 1, peer.who()).await?;
    Ok(Json(Done {}))
}

/// Puts entries, or takes them off, once that is written down. Goes on to its end when the client hangs up.
async fn change(
    state: Arc<State>,
    list: String,
    entries: Vec<Put>,
    remove: bool,
    first_line: u64,
    who: String,
) -> Result<(), ApiError> {
    let task = tokio::spawn(async move {
        let change = words_of_change(&state, &list, &entries, remove, first_line).await?;
        let work = move |lists: &Lists| {
            entries.chunks(WRITE).try_for_each(|piece| {
                if !remove {
                    return lists.put(&list, piece);
                }
                let addresses: Vec<Norm> = piece.iter().map(|put| put.address.clone()).collect();
                lists.remove(&list, &addresses).map(drop)
            })
        };
        audit::audited(&state, &who, change, blocking(&state, work)).await
    });
    task.await.map_err(|error| ApiError::internal(error.to_string()))?
}

/// For the audit: one entry with what it was before, or how many they are.
async fn words_of_change(
    state: &State,
    list: &str,
    entries: &[Put],
    remove: bool,
    first_line: u64,
) -> Result<Change, ApiError> {
    let (owner, kind) = (if list == HOST { "host list" } else { list }, Kind::Suppression);
    let [only] = entries else {
        let action = if remove { Action::Remove } else { Action::Add };
        let name = format!("{owner}: lines from {first_line}");
        let words = Some(format!("{} addresses", entries.len()));
        let (before, after) = if remove { (words, None) } else { (None, words) };
        return Ok(Change { action, kind, name, before, after });
    };
    let (of, address) = (list.to_owned(), only.address.clone());
    let before = blocking(state, move |lists| lists.get(&of, &address)).await?;
    let action = match (&before, remove) {
        (_, true) => Action::Remove,
        (Some(_), _) => Action::Change,
        (None, _) => Action::Add,
    };
    let before = before.map(|entry| word_of(entry.reason).to_owned());
    let after = (!remove).then(|| word_of(only.reason).to_owned());
    Ok(Change { action, kind, name: format!("{owner}: {}", only.address.as_str()), before, after })
}

pub(super) async fn get(
    extract::State(state): extract::State<Arc<State>>,
    address: Result<Path<String>, PathRejection>,
    of: Of,
) -> Result<Json<GetSuppressedDestinationResponse>, ApiError> {
    let (list, _) = list_of(&state, &of?.0)?;
    let given = address?.0;
    let address = Norm::of(&given).map_err(ApiError::bad)?;
    let found = blocking(&state, move |lists| lists.get(&list, &address)).await?;
    let entry = found.ok_or_else(|| not_listed(&given))?;
    let attributes = entry.message_id.clone().map(|message_id| SuppressedDestinationAttributes { message_id });
    let SuppressedDestinationSummary { email_address, reason, last_update_time } = summary(entry);
    let suppressed_destination = SuppressedDestination { email_address, reason, last_update_time, attributes };
    Ok(Json(GetSuppressedDestinationResponse { suppressed_destination }))
}

pub(super) async fn delete(
    extract::State(state): extract::State<Arc<State>>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    address: Result<Path<String>, PathRejection>,
    of: Of,
) -> Result<Json<Done>, ApiError> {
    let (list, _) = list_of(&state, &of?.0)?;
    let given = address?.0;
    let address = Norm::of(&given).map_err(ApiError::bad)?;
    let (of, known) = (list.clone(), address.clone());
    if blocking(&state, move |lists| lists.get(&of, &known)).await?.is_none() {
        return Err(not_listed(&given));
    }
    let put = Put { address, reason: Reason::Manual, at: clock::wall(), message_id: None };
    change(state, list, vec![put], true, 1, peer.who()).await?;
    Ok(Json(Done {}))
}

fn not_listed(address: &str) -> ApiError {
    ApiError::not_found(format!("Email address {address} does not exist on your suppression list."))
}

/// As SES shows it: by hand reads as a bounce.
fn summary(entry: Entry) -> SuppressedDestinationSummary {
    let reason = if entry.reason == Reason::Complaint { "COMPLAINT" } else { "BOUNCE" };
    SuppressedDestinationSummary {
        email_address: entry.address,
        reason: reason.into(),
        last_update_time: entry.at.0 as f64 / 1000.0,
    }
}

pub(super) async fn list(
    extract::State(state): extract::State<Arc<State>>,
    RawQuery(query): RawQuery,
) -> Result<Json<ListSuppressedDestinationsResponse>, ApiError> {
    let (mut of, mut search, mut size) = (OfList::default(), Search::default(), PAGE);
    for (name, value) in pairs(query.as_deref().unwrap_or_default()) {
        match name.as_str() {
            "account" => of.account = Some(value),
            "list" => of.list = Some(value),
            "Reason" if value == "BOUNCE" => search.bounce = true,
            "Reason" if value == "COMPLAINT" => search.complaint = true,
            "StartDate" => search.from = Some(date(&value)?),
            "EndDate" => search.until = Some(date(&value)?),
            "PageSize" => {
                let number = value.parse().ok().filter(|size| (1..=PAGE_MAX).contains(size));
                size = number.ok_or_else(|| ApiError::bad(format!("PageSize must be 1 to {PAGE_MAX}.")))?;
            }
            "NextToken" => search.after = Some(token_from(&value).ok_or_else(ApiError::bad_token)?),
            "Reason" => return Err(ApiError::bad(format!("Reason must be BOUNCE or COMPLAINT, not {value}."))),
            // SES ignores what it does not know.
            _ => {}
        }
    }
    let (list, _) = list_of(&state, &of)?;
    let mut entries = blocking(&state, move |lists| lists.reader().search(&list, &search, size + 1)).await?;
    let more = entries.len() > size;
    entries.truncate(size);
    let next_token = entries.last().filter(|_| more).map(token);
    let suppressed_destination_summaries = entries.into_iter().map(summary).collect();
    Ok(Json(ListSuppressedDestinationsResponse { suppressed_destination_summaries, next_token }))
}

fn token(last: &Entry) -> String {
    URL_SAFE_NO_PAD.encode(format!("{} {}", last.at.0, last.norm))
}

fn token_from(token: &str) -> Option<(Wall, String)> {
    let text = String::from_utf8(URL_SAFE_NO_PAD.decode(token).ok()?).ok()?;
    let (at, norm) = text.split_once(' ')?;
    Some((Wall(at.parse().ok()?), norm.to_owned()))
}

/// ISO 8601, or seconds since the epoch.
fn date(text: &str) -> Result<Wall, ApiError> {
    let ms = match (text.parse::<jiff::Timestamp>(), text.parse::<f64>()) {
        (Ok(time), _) => time.as_millisecond(),
        (_, Ok(seconds)) if seconds.is_finite() => (seconds * 1000.0) as i64,
        _ => return Err(ApiError::bad(format!("{text} is no date; write it as 2024-05-01T08:00:00Z."))),
    };
    Ok(Wall(u64::try_from(ms).unwrap_or(0)))
}

/// Names and values of a query, names more than once among them.
fn pairs(query: &str) -> impl Iterator<Item = (String, String)> {
    let pairs = query.split('&').filter(|pair| !pair.is_empty());
    pairs.map(|pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        (decoded(name), decoded(value))
    })
}

fn decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        let hex = |ahead: &mut std::str::Bytes<'_>| char::from(ahead.next()?).to_digit(16).map(|digit| digit as u8);
        let mut ahead = rest.clone();
        match (byte, hex(&mut ahead), hex(&mut ahead)) {
            (b'%', Some(high), Some(low)) => {
                bytes.push(high << 4 | low);
                rest = ahead;
            }
            (b'+', ..) => bytes.push(b' '),
            _ => bytes.push(byte),
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

pub(super) async fn import(
    extract::State(state): extract::State<Arc<State>>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    of: Of,
    request: Result<Json<ImportRequest>, JsonRejection>,
) -> Result<Json<ImportReport>, ApiError> {
    let (list, free) = list_of(&state, &of?.0)?;
    if !free {
        return Err(ApiError::bad("An import is not available in the sandbox."));
    }
    let Json(request) = request?;
    let (remove, dry_run, first_line) = (request.remove, request.dry_run, request.first_line.max(1));
    let read = tokio::task::spawn_blocking(move || read(&request)).await;
    let (entries, report) = read.map_err(|error| ApiError::internal(error.to_string()))?;
    if !dry_run && !entries.is_empty() {
        change(state, list, entries, remove, first_line, peer.who()).await?;
    }
    Ok(Json(report))
}

/// The entries of these lines, and what is wrong with the others.
fn read(request: &ImportRequest) -> (Vec<Put>, ImportReport) {
    let (mut entries, mut report, at) = (Vec::new(), ImportReport::default(), clock::wall());
    for (line, number) in request.lines.lines().zip(request.first_line.max(1)..) {
        match csv::line(line, at) {
            Ok(entry) => entries.extend(entry),
            Err(message) => {
                report.wrong += 1;
                if report.errors.len() < ERRORS_MAX {
                    report.errors.push(LineError { line: number, message });
                }
            }
        }
    }
    report.entries = entries.len() as u64;
    (entries, report)
}

#[derive(Deserialize)]
pub(super) struct Page {
    #[serde(default)]
    after: String,
    limit: Option<usize>,
}

pub(super) async fn export(
    extract::State(state): extract::State<Arc<State>>,
    of: Of,
    page: Result<Query<Page>, QueryRejection>,
) -> Result<Json<ExportPage>, ApiError> {
    let (list, _) = list_of(&state, &of?.0)?;
    let Query(Page { after, limit }) = page?;
    let limit = limit.unwrap_or(EXPORT_MAX).clamp(1, EXPORT_MAX);
    let entries = blocking(&state, move |lists| lists.reader().page(&list, &after, limit)).await?;
    let mut csv = String::with_capacity(entries.len() * 64);
    entries.iter().for_each(|entry| csv::write(entry, &mut csv));
    let next = entries.last().filter(|_| entries.len() == limit).map(|last| last.norm.clone());
    Ok(Json(ExportPage { csv, entries: entries.len() as u64, next }))
}

/// One entry as a line of an export.
pub(super) async fn show(
    extract::State(state): extract::State<Arc<State>>,
    address: Result<Path<String>, PathRejection>,
    of: Of,
) -> Result<Json<ExportPage>, ApiError> {
    let (list, _) = list_of(&state, &of?.0)?;
    let given = address?.0;
    let address = Norm::of(&given).map_err(ApiError::bad)?;
    let found = blocking(&state, move |lists| lists.get(&list, &address)).await?;
    let entry = found.ok_or_else(|| not_listed(&given))?;
    let mut csv = String::new();
    csv::write(&entry, &mut csv);
    Ok(Json(ExportPage { csv, entries: 1, next: None }))
}

pub(super) async fn size(extract::State(state): extract::State<Arc<State>>) -> Result<Json<ListsSize>, ApiError> {
    let (entries, bytes) = blocking(&state, |lists| Ok(lists.size())).await?;
    Ok(Json(ListsSize { entries: entries as u64, bytes: bytes as u64 }))
}
