//! What an operator sets for a machine, and which machines anything can be set for: shared by
//! `/machines` and `/machines/<id>/availability`.

use axum::http::StatusCode;
use fleet_core::model::{Act, FORMAT, Settings, Snapshot};
use fleet_core::name::MachineId;

use super::Api;
use super::error::ApiError;
use super::retry::until_not_overtaken;
use crate::store::Versioned;

/// A machine that is there, or of which anything is left.
pub(super) fn is_known(snapshot: &Snapshot, id: &MachineId) -> bool {
    snapshot.machines.contains_key(id)
        || snapshot.assignments.contains_key(id)
        || snapshot.availability.contains_key(id)
}

pub(super) fn no_such_machine(id: impl std::fmt::Display) -> ApiError {
    ApiError::new(StatusCode::NOT_FOUND, format!("machine {id} does not exist"))
}

/// Changes what is set for a machine, whoever else does so at the same time, and tells of it if it
/// is anything new. Answers with the revision.
pub(super) async fn rewrite(
    api: &Api,
    id: &MachineId,
    act: &Act,
    change: impl Fn(&mut Settings),
) -> Result<i64, ApiError> {
    let rewrite = || async {
        let old = api.store().settings(id).await?;
        let revision = old.as_ref().map(|old| old.revision);
        let mut settings = old.map_or_else(
            || Settings { v: FORMAT, ..Settings::default() },
            |Versioned { value, .. }| value,
        );
        let before = (settings.metadata.clone(), settings.availability);
        change(&mut settings);
        let store = match before == (settings.metadata.clone(), settings.availability) {
            true => api.store().clone(),
            false => api.store().telling(act.clone()),
        };
        Ok(store.put_settings(id, &settings, revision).await?)
    };
    until_not_overtaken(&format!("the settings of {id}"), rewrite).await
}
