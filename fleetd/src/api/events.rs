//! `/events`: what the leaders decided and why, those kept and, if asked, each new one as it comes.

use std::time::Duration;

use axum::Json;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use fleet_core::event::Event;
use fleet_core::name::UnitName;
use fleet_core::wire;
use fleet_core::wire::EventPage;
use serde_json::json;
use tokio::sync::mpsc;
use tokio::time::sleep;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;

use super::Api;
use super::describe::{Operation, Resource};
use super::error::ApiError;
use super::guests::Source;
use super::query::Asked;
use crate::process::panics;
use crate::store::kv::WatchEvent;
use crate::store::{StoreError, StoredEvent};

/// How long to wait before a watch that broke is opened again.
const RETRY: Duration = Duration::from_millis(300);

/// Which events a request is about.
struct Wanted {
    unit: Option<UnitName>,
    machine: Option<String>,
}

/// What of the API is answered here.
pub(super) fn routes() -> Vec<Resource> {
    vec![
        Resource::at("/events").get(
            list,
            Operation::new("listEvents", "What the leaders decided and why, oldest first.")
                .query("unit", "Only what concerns this unit: of a template all replicas.")
                .query("machine", "Only what concerns this machine, by its whole or short id.")
                .query_of(
                    "lines",
                    "Only so many of the newest.",
                    json!({"type": "integer", "minimum": 0}),
                )
                .query_of(
                    "follow",
                    "Whether to answer with a JSON document a line, of the type Event, and to go \
                        on with each new one, for ever.",
                    json!({"type": "boolean", "default": false}),
                )
                .gives::<wire::EventPage>("The events.")
                .errors([400, 429]),
        ),
    ]
}

pub(super) async fn list(
    State(api): State<Api>,
    source: Source,
    asked: Asked,
) -> Result<Response, ApiError> {
    let unit = asked
        .value("unit")
        .map(UnitName::parse)
        .transpose()
        .map_err(|error| ApiError::invalid(error.to_string()))?;
    let wanted = Wanted { unit, machine: asked.value("machine").map(str::to_string) };
    let lines = asked.number("lines")?.unwrap_or(usize::MAX);
    let follow = asked.flag("follow");
    let (stored, revision) = api.store().events().await?;
    let last = stored.last().map(|stored| stored.id.clone()).unwrap_or_default();
    let mut events: Vec<Event> =
        stored.into_iter().filter_map(|stored| wanted.pick(stored)).collect();
    events.drain(..events.len().saturating_sub(lines));
    if !follow {
        return Ok(Json(EventPage { events }).into_response());
    }
    let place = api.shared.budgets.follower(source)?;
    let (lines, body) = mpsc::channel(4);
    panics::spawn_contained(async move {
        let _place = place;
        for event in &events {
            if lines.send(line(event)).await.is_err() {
                return;
            }
        }
        go_on(&api, &wanted, last, revision, &lines).await;
    });
    let body =
        Body::from_stream(ReceiverStream::new(body).map(Ok::<Bytes, std::convert::Infallible>));
    Ok(([(header::CONTENT_TYPE, "application/x-ndjson")], body).into_response())
}

impl Wanted {
    fn pick(&self, stored: StoredEvent) -> Option<Event> {
        stored.event?.about(self.unit.as_ref(), self.machine.as_deref())
    }
}

/// Sends each event after the one called `last` until the client goes. Names sort by time, so a
/// watch that broke leaves no gap.
async fn go_on(
    api: &Api,
    wanted: &Wanted,
    mut last: String,
    mut revision: i64,
    lines: &mpsc::Sender<Bytes>,
) {
    while !lines.is_closed() {
        let _ = watch(api, wanted, &mut last, revision, lines).await;
        sleep(RETRY).await;
        let Ok((stored, listed_at)) = api.store().events().await else { continue };
        for stored in stored.into_iter().filter(|stored| stored.id > last).collect::<Vec<_>>() {
            send(wanted, &mut last, stored, lines).await;
        }
        revision = listed_at;
    }
}

async fn watch(
    api: &Api,
    wanted: &Wanted,
    last: &mut String,
    revision: i64,
    lines: &mpsc::Sender<Bytes>,
) -> Result<(), StoreError> {
    let mut changes = api.store().watch_events(revision).await?;
    loop {
        let batch = tokio::select! {
            () = lines.closed() => return Ok(()),
            batch = changes.recv() => batch,
        };
        let Some(batch) = batch else { return Ok(()) };
        for event in batch?.events {
            if let WatchEvent::Put(kv) = event {
                send(wanted, last, api.store().stored_event(&kv), lines).await;
            }
        }
    }
}

async fn send(
    wanted: &Wanted,
    last: &mut String,
    stored: StoredEvent,
    lines: &mpsc::Sender<Bytes>,
) {
    last.clone_from(&stored.id);
    if let Some(event) = wanted.pick(stored) {
        // A client that has gone is noticed by the caller.
        let _ = lines.send(line(&event)).await;
    }
}

fn line(event: &Event) -> Bytes {
    let mut line = serde_json::to_vec(event).unwrap_or_default();
    line.push(b'\n');
    line.into()
}
