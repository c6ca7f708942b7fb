//! `/follow`: how far units are, one JSON line at once and one at each change, from a watch that lives as long as the request.

use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{Query, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use fleet_core::name::UnitName;
use fleet_core::wire::Progress;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;

use super::Api;
use super::error::ApiError;
use crate::panics;
use crate::store::{Mirror, StoreError};

/// Lines come no faster than this in the long run: a deploy of thousands changes something every millisecond.
const PACE: Duration = Duration::from_millis(50);

/// So many lines may come at once after a quiet time.
const BURST: u32 = 10;

/// How many units one follow may name.
pub(super) const MAX_UNITS: usize = 1000;

pub(super) async fn follow(State(api): State<Api>, Query(query): Query<Vec<(String, String)>>) -> Result<Response, ApiError> {
    let names =
        query.iter().filter(|(key, _)| key == "unit").map(|(_, name)| UnitName::parse(name)).collect::<Result<Vec<_>, _>>();
    let names = names.map_err(|error| ApiError::invalid(error.to_string()))?;
    if names.is_empty() || names.len() > MAX_UNITS {
        return Err(ApiError::invalid(format!("name 1 to {MAX_UNITS} units, as /follow?unit=a.service&unit=b.service")));
    }
    let place = api.shared.budgets.follower().ok_or_else(ApiError::too_many_followers)?;
    // The first read is answered as an error if it fails; a later break is mended silently.
    let mirror = api.store().read_all().await?;
    let (lines, body) = mpsc::channel(4);
    panics::spawn_contained(async move {
        let _place = place;
        let mut mirror = Some(mirror);
        let mut last = None;
        while !lines.is_closed() {
            let read = match mirror.take() {
                Some(mirror) => Ok(mirror),
                None => api.store().read_all().await,
            };
            if let Ok(mirror) = read {
                let _ = stream(&api, mirror, &names, &lines, &mut last).await;
            }
            sleep(Duration::from_millis(300)).await;
        }
    });
    let body = Body::from_stream(ReceiverStream::new(body).map(Ok::<Bytes, std::convert::Infallible>));
    Ok(([(header::CONTENT_TYPE, "application/x-ndjson")], body).into_response())
}

/// Sends lines until the client goes or the watch breaks.
async fn stream(
    api: &Api,
    mut mirror: Mirror,
    names: &[UnitName],
    lines: &mpsc::Sender<Bytes>,
    last: &mut Option<Progress>,
) -> Result<(), StoreError> {
    let mut changes = api.store().watch_all(mirror.cluster().snapshot.revision).await?;
    let mut paid_until = Instant::now() - PACE * BURST;
    loop {
        let plan = api.shared.plans.of(mirror.cluster()).await;
        let progress = mirror.cluster().progress(&plan, names);
        let known = mirror.importing()
            || last.as_ref().is_some_and(|last| last.units == progress.units && last.leader == progress.leader);
        if !known {
            let mut line = serde_json::to_vec(&progress).unwrap_or_default();
            line.push(b'\n');
            if lines.send(line.into()).await.is_err() {
                return Ok(());
            }
            *last = Some(progress);
        }
        let ended = || StoreError::Unavailable("the watch ended".to_string());
        tokio::select! {
            () = lines.closed() => return Ok(()),
            batch = changes.recv() => mirror.apply(batch.ok_or_else(ended)??),
        }
        if !known {
            paid_until = paid_until.max(Instant::now() - PACE * BURST) + PACE;
            sleep_until(paid_until).await;
        }
        while let Ok(batch) = changes.try_recv() {
            mirror.apply(batch?);
        }
    }
}
