//! `/follow`: how far units are, one JSON line at once and one at each change of the live copy.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use fleet_core::name::UnitName;
use fleet_core::wire::Progress;
use serde_json::json;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;

use super::Api;
use super::budget::Share;
use super::describe::{self, Operation, Resource};
use super::error::ApiError;
use super::guests::Source;
use super::query::Asked;
use crate::copy::Reader;
use crate::process::panics;
use crate::store::Mirror;

/// Lines come no faster than this in the long run: a deploy of thousands changes something every
/// millisecond.
const PACE: Duration = Duration::from_millis(50);

/// So many lines may come at once after a quiet time.
const BURST: u32 = 10;

/// How many units one follow may name.
pub(super) const MAX_UNITS: usize = 1000;

/// What of the API is answered here.
pub(super) fn routes() -> Vec<Resource> {
    vec![
        Resource::at("/follow").get(
            follow,
            Operation::new("followUnits", "How far units are: one line at once, one at each \
                change, for ever.")
                .query_of(
                    "unit",
                    "A unit to follow.",
                    json!({"type": "array", "items": {"type": "string"}, "minItems": 1, "maxItems": MAX_UNITS}),
                )
                .required()
                .answers(StatusCode::OK, "A JSON document a line, of the type \
                    Progress.", describe::Body::Other("application/x-ndjson"))
                .errors([400, 429]),
        ),
    ]
}

pub(super) async fn follow(
    State(api): State<Api>,
    source: Source,
    asked: Asked,
) -> Result<Response, ApiError> {
    let names = asked.all("unit").map(UnitName::parse).collect::<Result<Vec<_>, _>>();
    let names = names.map_err(|error| ApiError::invalid(error.to_string()))?;
    if names.is_empty() || names.len() > MAX_UNITS {
        return Err(ApiError::invalid(format!(
            "name 1 to {MAX_UNITS} units, as /follow?unit=a.service&unit=b.service"
        )));
    }
    let place = api.shared.budgets.follower(source)?;
    let turn = api.shared.budgets.beginner(source).await?;
    // The first line is not older than the request. A store that is away is an error of the
    // request; later outages are waited out.
    let (mut reader, mirror) = api.newest(&names).await?;
    let (lines, body) = mpsc::channel(4);
    panics::spawn_contained(async move {
        let _place = place;
        stream(mirror, Some(turn), &names, &lines, &mut reader).await;
    });
    let body =
        Body::from_stream(ReceiverStream::new(body).map(Ok::<Bytes, std::convert::Infallible>));
    Ok(([(header::CONTENT_TYPE, "application/x-ndjson")], body).into_response())
}

/// Sends lines until the client goes.
async fn stream(
    mut mirror: Arc<Mirror>,
    mut turn: Option<Share>,
    names: &[UnitName],
    lines: &mpsc::Sender<Bytes>,
    reader: &mut Reader,
) {
    let mut last: Option<Progress> = None;
    let mut paid_until = Instant::now() - PACE * BURST;
    loop {
        let progress = mirror.cluster().progress(names);
        let known = last
            .as_ref()
            .is_some_and(|last| last.units == progress.units && last.leader == progress.leader);
        drop((mirror, turn.take())); // while it waits it keeps nothing
        if !known {
            let mut line = serde_json::to_vec(&progress).unwrap_or_default();
            line.push(b'\n');
            if lines.send(line.into()).await.is_err() {
                return;
            }
            last = Some(progress);
            paid_until = paid_until.max(Instant::now() - PACE * BURST) + PACE;
            tokio::select! {
                () = lines.closed() => return,
                () = sleep_until(paid_until) => {}
            }
        }
        mirror = tokio::select! {
            () = lines.closed() => return,
            next = reader.next() => match next {
                Some(mirror) => mirror,
                None => return, // the client follows again
            },
        };
    }
}
