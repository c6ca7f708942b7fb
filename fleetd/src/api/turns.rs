//! How many requests are answered at once. One more waits for its turn, after its body has been
//! read; what is large is counted until it has been sent.

use std::sync::Arc;

use axum::body::HttpBody;
use axum::extract::{Request, State};
use axum::http::Uri;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::Api;
use super::budget::Share;
use super::error::ApiError;
use super::guests::Source;
use super::limits::Kind;

/// The room in memory that an answer has until it is sent.
#[derive(Clone)]
pub(super) struct Room {
    _share: Arc<Share>,
}

pub(super) async fn wait(
    State(api): State<Api>,
    source: Source,
    request: Request,
    next: Next,
) -> Response {
    let budgets = &api.shared.budgets;
    let turn = match kind(request.uri()) {
        Some(kind) => budgets.turn(source, kind).await.map(Some),
        None => Ok(None),
    };
    let turn = match turn {
        Ok(turn) => turn,
        Err(refusal) => return ApiError::from(refusal).into_response(),
    };
    let mut response = next.run(request).await;
    let bytes = response.body().size_hint().exact().unwrap_or(0);
    match budgets.answer(source, usize::try_from(bytes).unwrap_or(usize::MAX)) {
        Ok(Some(share)) => drop(response.extensions_mut().insert(Room { _share: Arc::new(share) })),
        Ok(None) => {}
        Err(refusal) => return ApiError::from(refusal).into_response(),
    }
    drop(turn);
    response
}

/// What answering it takes; `None` where nothing is read, and where followers, journals and
/// processes are counted by themselves.
fn kind(uri: &Uri) -> Option<Kind> {
    // As one fleetd asks another: it says what it knows itself.
    let of_machine =
        uri.query().is_some_and(|query| query.split('&').any(|part| part.starts_with("machine=")));
    match uri.path() {
        "/version" | "/openapi.json" | "/discovery" | "/follow" => None,
        "/export" | "/import" | "/store/check" | "/debug/snapshot" => Some(Kind::Whole),
        path if path.starts_with("/apps/") => Some(Kind::Usual), // whatever they are called
        path if path.ends_with("/journal") => None,
        path if path.ends_with("/status") && of_machine => None,
        path if path.ends_with("/status") => Some(Kind::Asking),
        "/volumes" | "/images/check" if of_machine => None,
        "/volumes" | "/images/check" => Some(Kind::Asking),
        path if path.contains("/volumes/") && of_machine => None,
        path if path.contains("/volumes/") => Some(Kind::Asking),
        path if path.ends_with("/fencing") && !of_machine => Some(Kind::Asking),
        _ => Some(Kind::Usual),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_request_is_counted_where_it_costs() {
        for (uri, expected) in [
            ("/version", None),
            ("/units", Some(Kind::Usual)),
            ("/units?machine=m", Some(Kind::Usual)),
            ("/units/a.service", Some(Kind::Usual)),
            ("/export", Some(Kind::Whole)),
            ("/units/a.service/status", Some(Kind::Asking)),
            ("/units/a.service/status?machine=m", None),
            ("/units/a.service/journal?follow=true", None),
            ("/volumes", Some(Kind::Asking)),
            ("/volumes?machine=m", None),
            ("/images/check?unit=a.container", Some(Kind::Asking)),
            ("/machines/m/volumes/a", Some(Kind::Asking)),
            ("/machines/m/volumes/a?machine=m", None),
            ("/fencing", Some(Kind::Asking)),
            ("/fencing?unit=a.service&machine=m", Some(Kind::Usual)),
        ] {
            assert_eq!(kind(&uri.parse().unwrap()), expected, "{uri}");
        }
    }
}
