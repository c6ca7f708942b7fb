//! `/state`: what systemd says of each unit on each machine.

use axum::Json;
use axum::extract::{Path, Query, State};
use fleet_core::wire;

use super::Api;
use super::error::ApiError;
use super::page::Page;

pub(super) async fn list(
    State(api): State<Api>,
    Query(query): Query<Vec<(String, String)>>,
) -> Result<Json<wire::UnitStatePage>, ApiError> {
    let page = Page::of(&query)?;
    let wanted = |key: &str| query.iter().find(|(k, v)| k == key && !v.is_empty()).map(|(_, value)| value.as_str());
    let (machine, unit) = (wanted("machineID"), wanted("unitName"));
    let mut states = api.store().read_all().await?.cluster().states();
    states.retain(|state| machine.is_none_or(|id| state.machine_id == id) && unit.is_none_or(|name| state.name == name));
    let (states, next_page_token) = page.cut(states);
    Ok(Json(wire::UnitStatePage { next_page_token, states }))
}

/// The first state found. A unit without one answers with an empty state, not 404: fleet 1.0's own client crashes on a 404 here.
pub(super) async fn show(State(api): State<Api>, Path(name): Path<String>) -> Result<Json<wire::UnitState>, ApiError> {
    let states = api.store().read_all().await?.cluster().states();
    let found = states.into_iter().find(|state| state.name == name);
    Ok(Json(found.unwrap_or_else(|| wire::UnitState { name, ..wire::UnitState::default() })))
}
