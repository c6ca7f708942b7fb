//! `/state`: what systemd says of each unit on each machine.

use super::Api;
use super::describe::{Operation, Resource};
use super::error::ApiError;
use super::page::Page;
use super::page::paged;
use super::query::Asked;
use crate::store::Part;
use axum::Json;
use axum::extract::{Path, State};
use fleet_core::name::{MachineId, UnitName};
use fleet_core::view::Reported;
use fleet_core::wire;
use serde_json::json;

/// Assignments and units say which text it is that runs.
const PARTS: &[Part] = &[Part::Units, Part::Assignments, Part::Reports];

/// What of the API is answered here.
pub(super) fn routes() -> Vec<Resource> {
    vec![
        Resource::at("/state").get(
            list,
            paged(Operation::new(
                "listUnitStates",
                "What systemd says of each unit on each machine.",
            ))
            .query("machineID", "Only of this machine.")
            .query("unitName", "Only of this unit.")
            .query_of(
                "brief",
                "Whether the first digits of hashes will do.",
                json!({"type": "boolean", "default": false}),
            )
            .gives::<wire::UnitStatePage>("A page of states, by unit, then machine.")
            .discovered_as("UnitState", "List"),
        ),
        Resource::at("/state/{unitName}").get(
            show,
            Operation::new(
                "getUnitState",
                "What systemd says of one unit, on the first machine that reports it.",
            )
            .gives::<wire::UnitState>(
                "The state; one with a name alone where no machine reports any.",
            )
            .errors([400])
            .discovered_as("UnitState", "Get"),
        ),
    ]
}

pub(super) async fn list(
    State(api): State<Api>,
    asked: Asked,
) -> Result<Json<wire::UnitStatePage>, ApiError> {
    let page = Page::of(&asked)?;
    let (machine, unit) = (asked.value("machineID"), asked.value("unitName"));
    // Reports carry the first digits of hashes; the whole ones take reading every unit.
    let brief = asked.flag("brief");
    let mut mirror = api.store().read(if brief { &[Part::Reports] } else { PARTS }).await?;
    let wanted = |name: &UnitName, id: &MachineId| {
        machine.is_none_or(|machine| id.as_str() == machine)
            && unit.is_none_or(|unit| name.as_str() == unit)
    };
    // Which of two machines an instance has left the assignments say before the reports do.
    if brief && is_twice(&mirror.cluster().states(wanted)) {
        mirror.drop_later();
        mirror = api.store().read(&[Part::Assignments, Part::Reports]).await?;
    }
    let all = mirror.cluster().states(wanted);
    let (states, next_page_token) = page.cut(&all);
    let states = states.iter().map(|reported| mirror.cluster().state(reported)).collect();
    mirror.drop_later();
    Ok(Json(wire::UnitStatePage { next_page_token, states }))
}

/// Whether any unit is listed on two machines: it moves, or it is global.
fn is_twice(states: &[Reported]) -> bool {
    states.windows(2).any(|two| two[0].instance == two[1].instance)
}

/// The first state found. A unit without one answers with an empty state, not 404: fleet 1.0's own
/// client crashes on a 404 here.
pub(super) async fn show(
    State(api): State<Api>,
    Path(name): Path<String>,
) -> Result<Json<wire::UnitState>, ApiError> {
    let mirror = api.store().read(PARTS).await?;
    let found = mirror.cluster().states(|instance, _| instance.as_str() == name);
    let state = found.first().map(|reported| mirror.cluster().state(reported));
    Ok(Json(state.unwrap_or_else(|| wire::UnitState { name, ..wire::UnitState::default() })))
}
