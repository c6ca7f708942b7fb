//! What stop, unload, destroy and restart share: find the units that the cluster has.

use fleet_core::wire::Unit;

use super::Context;
use crate::error::Error;
use crate::names::Argument;
use crate::output::note;

/// The units named, in the order named. As in fleet 1.0, those that the cluster does not have are passed over with a word.
pub(super) async fn find(context: &Context, units: &[String]) -> Result<Vec<Unit>, Error> {
    let mut found = Vec::new();
    let mut missing = Vec::new();
    for argument in Argument::parse_all(units)? {
        match context.client.unit(argument.name.as_str()).await {
            Ok(Some(unit)) => found.push(unit),
            Ok(None) => missing.push(argument.name),
            Err(error) => return Err(Error::request("Error retrieving list of units from repository", error)),
        }
    }
    if found.is_empty() {
        note("Units not found in registry");
    } else {
        missing.iter().for_each(|name| note(&format!("Unit {name} not found in registry")));
    }
    Ok(found)
}

/// Whether a unit is on no machine and is not meant to be.
pub(super) fn is_inactive(unit: &Unit) -> bool {
    let inactive = |state: &str| state.is_empty() || state == "inactive";
    inactive(&unit.desired_state) && inactive(&unit.current_state)
}

/// Go's way to print a list.
pub(super) fn bracketed(names: &[String]) -> String {
    format!("[{}]", names.join(" "))
}
