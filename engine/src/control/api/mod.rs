//! What the control socket serves, a file an endpoint, and the types that travel over it.

mod account;
mod audit;
mod change;
mod config;
mod dedicated;
mod dedicated_types;
pub(super) mod error;
mod explain;
mod fleet;
mod health;
mod leases;
mod openapi;
mod orders;
mod plans;
mod providers;
mod queue;
pub(super) mod state;
pub(super) mod status;
mod suppression;
mod trace;
pub mod types;

use axum::{
    Router,
    extract::DefaultBodyLimit,
    http::{HeaderValue, header::HeaderName},
    middleware,
    response::Response,
    routing::{delete, get, post, put},
};
use state::State;
use std::sync::Arc;

/// Largest request, octets: a fleet of a hundred thousand IPs fits.
const REQUEST_MAX: usize = 64 << 20;

/// All that the control socket serves.
pub(super) fn router(state: Arc<State>) -> Router {
    Router::new()
        .route("/mailrail/v1/status", get(status::get))
        .route("/mailrail/v1/fleet", get(fleet::get).put(fleet::put))
        .route("/mailrail/v1/trace/{id}", get(trace::get))
        .route("/mailrail/v1/audit", get(audit::get))
        .route("/mailrail/v1/health", get(health::get))
        .route("/mailrail/v1/config", get(config::get))
        .route("/mailrail/v1/leases", get(leases::list).post(leases::lease))
        .route("/mailrail/v1/leases/{ip}", delete(leases::release))
        .route("/mailrail/v1/leases/{ip}/drain", post(leases::drain))
        .route("/mailrail/v1/providers", get(providers::list))
        .route("/mailrail/v1/providers/{name}", get(providers::show))
        .route("/mailrail/v1/providers/{name}/suspend", post(providers::suspend))
        .route("/mailrail/v1/providers/{name}/lift", post(providers::lift))
        .route("/mailrail/v1/leases/{ip}/plan", put(plans::put_ip))
        .route("/mailrail/v1/pools/{name}", put(plans::put_pool))
        .route("/v2/email/dedicated-ip-pools", get(dedicated::list_pools).post(dedicated::create_pool))
        .route("/v2/email/dedicated-ip-pools/{name}", get(dedicated::get_pool).delete(dedicated::delete_pool))
        .route("/v2/email/dedicated-ip-pools/{name}/scaling", put(dedicated::put_scaling))
        .route("/v2/email/dedicated-ips", get(dedicated::list_ips))
        .route("/v2/email/dedicated-ips/{ip}", get(dedicated::get_ip))
        .route("/v2/email/dedicated-ips/{ip}/pool", put(dedicated::put_ip_in_pool))
        .route("/v2/email/dedicated-ips/{ip}/warmup", put(dedicated::put_warmup))
        .route("/v2/email/account/dedicated-ips/warmup", put(dedicated::put_auto_warmup))
        .merge(accounts())
        .merge(mail())
        .route("/metrics", get(super::metrics::get))
        .fallback(error::no_such_path)
        .method_not_allowed_fallback(error::no_such_method)
        .layer(DefaultBodyLimit::max(REQUEST_MAX))
        .layer(middleware::map_response(state_version))
        .with_state(state)
}

/// Who sends, how much, and to whom not.
fn accounts() -> Router<Arc<State>> {
    Router::new()
        .route("/v2/email/account", get(account::get))
        .route("/v2/email/account/sending", put(account::put_sending))
        .route("/v2/email/account/suppression", put(account::put_suppression))
        .route("/mailrail/v1/accounts", get(account::list))
        .route("/mailrail/v1/accounts/{name}", get(account::show))
        .route("/mailrail/v1/accounts/{name}/limits", put(account::put_limits))
        .route("/mailrail/v1/accounts/{name}/warmup", put(plans::put_account))
        .route("/v2/email/suppression/addresses", get(suppression::list).put(suppression::put))
        .route("/v2/email/suppression/addresses/{address}", get(suppression::get).delete(suppression::delete))
        .route("/mailrail/v1/suppression", get(suppression::export))
        .route("/mailrail/v1/suppression/import", put(suppression::import))
        .route("/mailrail/v1/suppression/size", get(suppression::size))
        .route("/mailrail/v1/suppression/addresses/{address}", get(suppression::show))
}

/// What is done to queued mail.
fn mail() -> Router<Arc<State>> {
    Router::new()
        .route("/mailrail/v1/queue", get(queue::get))
        .route("/mailrail/v1/queue/selected", get(queue::selected))
        .route("/mailrail/v1/queue/suspensions", get(orders::suspensions).post(orders::suspend))
        .route("/mailrail/v1/queue/suspensions/{id}", delete(orders::resume))
        .route("/mailrail/v1/queue/orders", get(orders::list).post(orders::give))
        .route("/mailrail/v1/queue/orders/{id}", get(orders::show))
        .route("/mailrail/v1/explain/{subject}", get(explain::get))
        .route("/mailrail/v1/openapi.json", get(openapi::get))
}

/// Every reply states the server's version: client and server are one program, and may be of two ages.
async fn state_version(mut response: Response) -> Response {
    let name = HeaderName::from_static(types::VERSION_HEADER);
    response.headers_mut().insert(name, HeaderValue::from_static(env!("CARGO_PKG_VERSION")));
    response
}
