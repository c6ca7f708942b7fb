//! `/openapi.json` and `/discovery`: what this API is, for programs. Made once, of the routes.

use std::sync::LazyLock;

use axum::extract::OriginalUri;
use axum::http::StatusCode;
use axum::http::uri::Scheme;
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use serde_json::Value;

use super::describe::{Operation, Resource};
use super::{discovery as discovery_format, openapi as openapi_format, routes};

/// The OpenAPI document, as text.
static OPENAPI: LazyLock<(Value, String)> = LazyLock::new(|| {
    let document = openapi_format::document(&routes::under_prefix(), &routes::at_root());
    let text = serde_json::to_string(&document).unwrap_or_default();
    (document, text)
});

/// The discovery document, without the address that it was asked for at.
static DISCOVERY: LazyLock<Value> =
    LazyLock::new(|| discovery_format::document(&routes::under_prefix(), &OPENAPI.0));

/// What of the API is answered here.
pub(super) fn routes() -> Vec<Resource> {
    vec![
        Resource::at("/discovery")
            .get(
                discovery,
                Operation::new(
                    "getDiscovery",
                    "fleet 1.0's part of this API, in Google's discovery format.",
                )
                .without_store()
                .gives::<Value>("The discovery document."),
            )
            .refusing(StatusCode::BAD_REQUEST, "only HTTP GET supported against this resource"),
        Resource::at("/openapi.json").get(
            openapi,
            Operation::new("getOpenapi", "This document.")
                .without_store()
                .gives::<Value>("The OpenAPI 3.1 document."),
        ),
    ]
}

pub(super) async fn openapi() -> Response {
    ([(header::CONTENT_TYPE, "application/json")], OPENAPI.1.as_str()).into_response()
}

/// The addresses in it are the ones that the request came to, so that a client generated from it
/// reaches this API. A listener with TLS says so by the extension [`Scheme`].
pub(super) async fn discovery(
    OriginalUri(uri): OriginalUri,
    scheme: Option<Extension<Scheme>>,
    headers: HeaderMap,
) -> Json<Value> {
    let host = headers
        .get(header::HOST)
        .and_then(|host| host.to_str().ok())
        .filter(|host| !host.is_empty());
    let scheme = scheme.map_or(Scheme::HTTP, |Extension(scheme)| scheme);
    let origin = format!("{scheme}://{}", host.unwrap_or("localhost"));
    let prefix = uri.path().trim_end_matches("/discovery");
    Json(discovery_format::seen_from(&DISCOVERY, &origin, prefix))
}
