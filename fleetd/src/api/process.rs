//! `/version` and `/metrics`: what this fleetd says of itself.

use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use fleet_core::wire;

use super::Api;
use super::describe::{Body, Operation, Resource};

/// What of the API is answered here.
pub(super) fn routes() -> Vec<Resource> {
    vec![
        Resource::at("/version").get(
            version,
            Operation::new("getVersion", "fleetd's version.")
                .without_store()
                .gives::<wire::Version>("The version."),
        ),
    ]
}

/// What is answered beside the prefixes.
pub(super) fn at_root() -> Vec<Resource> {
    vec![
        Resource::at("/metrics").get(
            metrics,
            Operation::new("getMetrics", "Counters, in Prometheus' text form.")
                .without_store()
                .answers(StatusCode::OK, "The counters.", Body::Other("text/plain; version=0.0.4")),
        ),
    ]
}

async fn version() -> impl IntoResponse {
    Json(wire::Version { version: env!("CARGO_PKG_VERSION").to_string() })
}

async fn metrics(State(api): State<Api>) -> impl IntoResponse {
    let shared = &api.shared;
    let text = (shared.metrics)() + &shared.guests.metrics() + &shared.budgets.metrics();
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text)
}
