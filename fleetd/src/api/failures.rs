//! `/units/<name>/failures`: the last failures of a unit's instances, by what the machines report.

use axum::Json;
use axum::extract::{Path, State};
use fleet_core::wire;

use super::Api;
use super::describe::{Operation, Resource};
use super::error::ApiError;
use super::units::parse;

/// What of the API is answered here.
pub(super) fn routes() -> Vec<Resource> {
    vec![
        Resource::at("/units/{unitName}/failures").get(
            show,
            Operation::new(
                "getUnitFailures",
                "The last failures of the unit's instances, also on machines that they have left.",
            )
            .gives::<wire::FailurePage>("The last ten, the newest first.")
            .errors([400, 404]),
        ),
    ]
}

async fn show(
    State(api): State<Api>,
    Path(name): Path<String>,
) -> Result<Json<wire::FailurePage>, ApiError> {
    let name = parse(&name)?;
    let (_, mirror) = api.newest(std::slice::from_ref(&name)).await?;
    if mirror.cluster().owner(&name).is_none() {
        return Err(ApiError::no_such_unit());
    }
    Ok(Json(mirror.cluster().failures(&name)))
}
