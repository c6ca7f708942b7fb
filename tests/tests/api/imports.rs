//! An import whose client does not wait for the answer.

use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::extract::Request;
use axum::http::StatusCode;
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use fleet_core::name::UnitName;
use serde_json::json;

use crate::server::Server;

/// Drops the request after its first step, as hyper does when the connection goes.
pub(crate) async fn dropped(request: Request, next: Next) -> Response {
    let (parts, body) = request.into_parts();
    let body = to_bytes(body, usize::MAX).await.expect("a body");
    let answer = next.run(Request::from_parts(parts, Body::from(body)));
    tokio::time::timeout(Duration::ZERO, answer)
        .await
        .unwrap_or_else(|_| StatusCode::GATEWAY_TIMEOUT.into_response())
}

#[tokio::test]
async fn an_import_goes_on_when_its_client_has_gone() {
    let server = Server::start_with(|router| router.layer(from_fn(dropped))).await;
    let text = "[Service]\nExecStart=/bin/sleep 1d\n";
    let export =
        json!({"format": 1, "units": {"a.service": {"text": text, "desiredState": "loaded"}}});
    let request = fleet_tests::http()
        .build()
        .unwrap()
        .post(format!("{}/fleet/v1/import", server.origin))
        .json(&export);
    assert_eq!(request.send().await.unwrap().status(), 504);
    let name = UnitName::trusted("a.service");
    let written = async {
        while server.store.unit(&name).await.unwrap().0.is_none() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), written).await.expect("the unit is imported");
    // The lock is gone, too.
    let lock = server.store.lock_units().await.unwrap();
    server.store.unlock_units(lock).await.unwrap();
}
