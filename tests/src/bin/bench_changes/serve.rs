//! The service under load: answers after some milliseconds of work, and on SIGTERM finishes what it
//! has accepted.

use std::time::Duration;

use anyhow::Result;
use axum::Router;
use axum::http::StatusCode;
use axum::routing::get;
use tokio::signal::unix::{SignalKind, signal};

/// How long an answer takes.
const WORK: Duration = Duration::from_millis(5);

#[tokio::main(flavor = "current_thread")]
pub(crate) async fn run(port: u16, status: u16) -> Result<()> {
    let status = StatusCode::from_u16(status)?;
    let answer = move || async move {
        tokio::time::sleep(WORK).await;
        (status, "done\n")
    };
    let mut end = signal(SignalKind::terminate())?;
    let listener = tokio::net::TcpListener::bind(("0.0.0.0", port)).await?;
    axum::serve(listener, Router::new().route("/", get(answer)))
        .with_graceful_shutdown(async move {
            end.recv().await;
        })
        .await?;
    Ok(())
}
