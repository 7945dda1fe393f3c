//! What the control socket serves, a file an endpoint, and the types that travel over it.

mod config;
mod error;
mod fleet;
mod health;
mod queue;
pub(super) mod state;
pub(super) mod status;
mod trace;
pub mod types;

use axum::{
    Router,
    extract::DefaultBodyLimit,
    http::{HeaderValue, header::HeaderName},
    middleware,
    response::Response,
    routing::get,
};
use state::State;
use std::sync::Arc;

/// Largest request, octets: a fleet of a hundred thousand IPs fits.
const REQUEST_MAX: usize = 64 << 20;

/// All that the control socket serves.
pub(super) fn router(state: Arc<State>) -> Router {
    Router::new()
        .route("/mailrail/v1/status", get(status::get))
        .route("/mailrail/v1/queue", get(queue::get))
        .route("/mailrail/v1/fleet", get(fleet::get).put(fleet::put))
        .route("/mailrail/v1/trace/{id}", get(trace::get))
        .route("/mailrail/v1/health", get(health::get))
        .route("/mailrail/v1/config", get(config::get))
        .route("/metrics", get(super::metrics::get))
        .fallback(error::no_such_path)
        .method_not_allowed_fallback(error::no_such_method)
        .layer(DefaultBodyLimit::max(REQUEST_MAX))
        .layer(middleware::map_response(state_version))
        .with_state(state)
}

/// Every reply states the server's version: client and server are one program, and may be of two ages.
async fn state_version(mut response: Response) -> Response {
    let name = HeaderName::from_static(types::VERSION_HEADER);
    response.headers_mut().insert(name, HeaderValue::from_static(env!("CARGO_PKG_VERSION")));
    response
}
