//! `GET /mailrail/v1/config`: the host configuration in force, in words.

use super::{state::State, types::ConfigReport};
use crate::config::{Finding, explain};
use axum::{Json, extract};
use std::sync::Arc;

pub(super) async fn get(extract::State(state): extract::State<Arc<State>>) -> Json<ConfigReport> {
    let mut report = ConfigReport { path: Some(state.config.path.clone()), ..ConfigReport::default() };
    for finding in explain(&state.config) {
        match finding {
            Finding::Note(text) => {
                report.explanation.push_str(&text);
                report.explanation.push('\n');
            }
            Finding::Warning(text) => report.warnings.push(text),
        }
    }
    Json(report)
}
