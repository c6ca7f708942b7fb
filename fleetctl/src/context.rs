//! What every command works with, and small helpers that several of them share.

use fleet_core::name::UnitName;
use fleet_core::wire::{Machine, Unit};

use crate::client::Client;
use crate::error::Error;
use crate::options::Globals;
use crate::output::{Output, note};
use crate::ssh::SshArgs;

/// What a command works with.
#[derive(Debug)]
pub(crate) struct Context {
    pub(crate) client: Client,
    pub(crate) output: Output,
    /// The options of every command.
    pub(crate) globals: Globals,
    /// How to reach machines over ssh, for the commands that do.
    pub(crate) ssh: SshArgs,
}

/// The machine whose id starts so, if there is one; the error says that there are several.
pub(crate) fn machine_starting<'a>(
    machines: &'a [Machine],
    word: &str,
) -> Result<Option<&'a Machine>, String> {
    let mut fitting =
        machines.iter().filter(|machine| !word.is_empty() && machine.id.starts_with(word));
    match (fitting.next(), fitting.next()) {
        (Some(_), Some(_)) => Err(format!("several machine IDs start with {word}")),
        (one, _) => Ok(one),
    }
}

/// The names that a user may have meant: `web@.service` for `web.service`. For an error's hint
/// only, so it may fail quietly.
pub(crate) async fn did_you_mean(client: &Client, error: Error, name: &UnitName) -> Error {
    let same_prefix = |unit: &Unit| {
        UnitName::trusted(unit.name.as_str()).prefix() == name.prefix()
            && unit.name != name.as_str()
    };
    let near: Vec<String> = match client.brief_units().await {
        Ok(units) => units.into_iter().filter(same_prefix).map(|unit| unit.name).take(3).collect(),
        Err(_) => Vec::new(),
    };
    if near.is_empty() {
        error.hint("`fleetctl list-unit-files` shows what the cluster has")
    } else {
        error.hint(format!("did you mean {}?", near.join(", ")))
    }
}

/// As in fleet 1.0, no units are nothing to do: `fleetctl stop $(…)` must not fail where the list
/// is empty.
pub(crate) fn no_units(units: &[String]) -> bool {
    if units.is_empty() {
        note("No units given");
    }
    units.is_empty()
}
