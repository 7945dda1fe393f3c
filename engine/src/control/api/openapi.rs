//! `GET /mailrail/v1/openapi.json`: what the control socket serves, for programs. Made of `openapi.txt`, which a test holds
//! against the router.

use axum::Json;
use serde_json::{Map, Value, json};
use std::sync::LazyLock;

const TEXT: &str = include_str!("openapi.txt");
static DESCRIPTION: LazyLock<Value> = LazyLock::new(|| description(TEXT));

pub(super) async fn get() -> Json<&'static Value> {
    Json(&DESCRIPTION)
}

/// The OpenAPI 3.1 document of a description.
fn description(text: &str) -> Value {
    let (mut schemas, mut paths) = (Map::new(), Map::new());
    let mut lines = text.lines().filter(|line| !line.starts_with('#') && !line.trim().is_empty()).peekable();
    while let Some(head) = lines.next() {
        let mut members = Vec::new();
        while let Some(line) = lines.next_if(|line| line.starts_with(' ')) {
            members.push(line.trim());
        }
        if let Some(name) = head.strip_prefix("type ") {
            schemas.insert(name.to_owned(), of_members(&members));
        } else if let [method, path, id, answer] = head.split(' ').collect::<Vec<_>>()[..] {
            let entry = paths.entry(path).or_insert_with(|| json!({}));
            entry[method.to_ascii_lowercase()] = operation(path, id, answer, &members);
        }
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Mailrail control socket",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "HTTP on a Unix socket. Times are milliseconds since the epoch; those of /v2 are as in SES.",
        },
        "paths": paths,
        "components": { "schemas": schemas },
    })
}

fn operation(path: &str, id: &str, answer: &str, members: &[&str]) -> Value {
    let (mut summary, mut body) = ("", Value::Null);
    let mut parameters: Vec<Value> = path
        .split('/')
        .filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'))
        .map(|name| json!({ "name": name, "in": "path", "required": true, "schema": { "type": "string" } }))
        .collect();
    let query = |name: &str, kind: &str| json!({ "name": name, "in": "query", "schema": { "type": kind } });
    for member in members {
        match member.split(' ').collect::<Vec<_>>()[..] {
            ["query", name, kind] => parameters.push(query(name, kind)),
            ["filter"] => {
                let names = ["message", "recipient", "domain", "site", "provider", "account", "pool", "ip"];
                parameters.extend(names.map(|name| query(name, "string")));
            }
            ["body", kind] => body = json!({ "required": true, "content": content(kind) }),
            _ => summary = member,
        }
    }
    let good = match answer {
        "-" => json!({ "description": "Text.", "content": { "text/plain": { "schema": { "type": "string" } } } }),
        kind => json!({ "description": "Done.", "content": content(kind) }),
    };
    let wrong = json!({
        "description": "Refused, and nothing was changed; the header x-amzn-errortype has the kind.",
        "content": content("Error"),
    });
    let mut operation = json!({
        "operationId": id,
        "summary": summary,
        "parameters": parameters,
        "responses": { "200": good, "default": wrong },
    });
    if !body.is_null() {
        operation["requestBody"] = body;
    }
    operation
}

fn content(kind: &str) -> Value {
    json!({ "application/json": { "schema": schema(kind) } })
}

fn schema(kind: &str) -> Value {
    match kind {
        "string" | "integer" | "number" | "boolean" | "object" => json!({ "type": kind }),
        "any" => json!({}),
        list if list.starts_with('[') => {
            json!({ "type": "array", "items": schema(list.trim_start_matches('[').trim_end_matches(']')) })
        }
        name => json!({ "$ref": format!("#/components/schemas/{name}") }),
    }
}

fn of_members(members: &[&str]) -> Value {
    let (mut properties, mut required) = (Map::new(), Vec::new());
    for member in members {
        let mut words = member.split(' ');
        let (name, kind) = (words.next().unwrap_or(""), words.next().unwrap_or("any"));
        let mut described = schema(kind.trim_end_matches('?'));
        if let Some(values) = words.next() {
            described["enum"] = values.split('|').collect();
        }
        properties.insert(name.to_owned(), described);
        if !kind.ends_with('?') {
            required.push(name);
        }
    }
    json!({ "type": "object", "properties": properties, "required": required })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        control::api::types::{
            self,
            account::{AccountReport, GetAccountResponse},
            audit::{AuditPage, AuditRow},
            suppression::{ExportPage, ImportReport, ListsSize},
        },
        link::{QueueRow, orders::Filter},
    };
    use std::collections::BTreeSet;

    /// Methods and paths of the router, read from its source: axum does not tell them.
    fn routes() -> BTreeSet<(String, String)> {
        let source = include_str!("mod.rs");
        let mut routes = BTreeSet::new();
        for part in source.split(".route(").skip(1) {
            let mut quoted = part.splitn(3, '"');
            let (path, rest) = (quoted.nth(1).unwrap(), quoted.next().unwrap());
            let handlers = rest.split(".route(").next().unwrap().lines().next().unwrap();
            for method in ["get", "put", "post", "delete"] {
                let called = handlers
                    .match_indices(&format!("{method}("))
                    .any(|(at, _)| handlers[..at].chars().next_back().is_none_or(|before| matches!(before, ' ' | '.')));
                if called {
                    routes.insert((method.to_owned(), path.to_owned()));
                }
            }
        }
        routes
    }

    #[test]
    fn every_route_is_described_and_nothing_else() {
        let mut described = BTreeSet::new();
        for (path, operations) in DESCRIPTION["paths"].as_object().unwrap() {
            for (method, operation) in operations.as_object().unwrap() {
                assert!(operation["summary"].as_str().is_some_and(|text| text.ends_with('.')), "{method} {path}");
                described.insert((method.clone(), path.clone()));
            }
        }
        assert!(described.len() > 40);
        assert_eq!(described, routes());
    }

    #[test]
    fn every_type_that_is_named_is_there_and_no_name_is_given_twice() {
        let text = DESCRIPTION.to_string();
        for part in text.split("#/components/schemas/").skip(1) {
            let name = part.split('"').next().unwrap();
            assert!(DESCRIPTION["components"]["schemas"].get(name).is_some(), "{name}");
        }
        let names = TEXT.lines().filter(|line| line.starts_with("type ")).collect::<Vec<_>>();
        assert_eq!(names.len(), names.iter().collect::<BTreeSet<_>>().len());
    }

    #[test]
    fn the_members_are_those_that_are_written() {
        let check = |name: &str, value: Value| {
            let schema = &DESCRIPTION["components"]["schemas"][name];
            let written: BTreeSet<_> = value.as_object().unwrap().keys().cloned().collect();
            let described: BTreeSet<_> = schema["properties"].as_object().unwrap().keys().cloned().collect();
            let required = schema["required"].as_array().unwrap().iter().map(|name| name.as_str().unwrap().to_owned());
            assert!(written.is_subset(&described), "{name}: {written:?}, but described {described:?}");
            let required: BTreeSet<_> = required.collect();
            assert!(required.is_subset(&written), "{name}: {required:?} must be there, but {written:?} is written");
        };
        check("Status", json!(types::StatusReport::default()));
        check("QueueReport", json!(types::QueueReport::default()));
        check("QueueRow", json!(QueueRow::default()));
        check("Providers", json!(types::provider::Providers::default()));
        check("ProviderRow", json!(types::provider::ProviderRow::default()));
        check("LadderStanding", json!(crate::link::LadderStanding::default()));
        check("ProviderDone", json!(types::provider::ProviderDone::default()));
        check("Filter", json!(Filter::default()));
        check("Suspensions", json!(types::orders::Suspensions::default()));
        check("Orders", json!(types::orders::Orders::default()));
        check("Selected", json!(types::orders::SelectedReport::default()));
        check("SuspendRequest", json!(types::orders::SuspendRequest::default()));
        check("FleetExport", json!(types::FleetExport::default()));
        check("ApplyReport", json!(types::ApplyReport::default()));
        check("TraceReport", json!(types::TraceReport::default()));
        check("HealthReport", json!(types::HealthReport::default()));
        check("ConfigReport", json!(types::ConfigReport::default()));
        check("Account", json!(AccountReport::default()));
        check("GetAccountResponse", json!(GetAccountResponse::default()));
        check("AuditPage", json!(AuditPage::default()));
        check("AuditRow", json!(AuditRow::default()));
        check("ExportPage", json!(ExportPage::default()));
        check("ImportReport", json!(ImportReport::default()));
        check("ListsSize", json!(ListsSize::default()));
        check("DedicatedIp", json!(types::DedicatedIp::default()));
        check("GetDedicatedIpsResponse", json!(types::DedicatedIps::default()));
    }
}
