//! What an operator sets for a machine, and which machines anything can be set for: shared by
//! `/machines` and `/machines/<id>/availability`.

use axum::http::StatusCode;
use fleet_core::model::{FORMAT, Settings, Snapshot};
use fleet_core::name::MachineId;

use super::Api;
use super::error::ApiError;
use crate::store::{StoreError, Versioned};

/// How often a write that somebody else overtook is tried again.
const RETRIES: usize = 5;

/// A machine that is there, or of which anything is left.
pub(super) fn is_known(snapshot: &Snapshot, id: &MachineId) -> bool {
    snapshot.machines.contains_key(id)
        || snapshot.assignments.contains_key(id)
        || snapshot.availability.contains_key(id)
}

pub(super) fn no_such_machine(id: impl std::fmt::Display) -> ApiError {
    ApiError::new(StatusCode::NOT_FOUND, format!("machine {id} does not exist"))
}

/// Changes what is set for a machine, whoever else does so at the same time. Answers with the
/// revision.
pub(super) async fn rewrite(
    api: &Api,
    id: &MachineId,
    change: impl Fn(&mut Settings),
) -> Result<i64, ApiError> {
    for _ in 0..RETRIES {
        let old = api.store().settings(id).await?;
        let revision = old.as_ref().map(|old| old.revision);
        let mut settings = old.map_or_else(
            || Settings { v: FORMAT, ..Settings::default() },
            |Versioned { value, .. }| value,
        );
        change(&mut settings);
        match api.store().put_settings(id, &settings, revision).await {
            Err(StoreError::Conflict(_)) => {}
            other => return Ok(other?),
        }
    }
    Err(StoreError::Conflict(format!("the settings of {id}")).into())
}
