//! Reads the units of a running fleet 1.0 over its API.

use std::collections::BTreeMap;

use fleet_core::transfer::{Export, ExportedUnit, FORMAT};
use fleet_core::unit::file::UnitFile;
use fleet_core::wire::Unit;

use crate::client::Client;
use crate::context::Context;
use crate::error::Error;

/// All units with their desired states. fleet 1.0 does not tell which labels of machines were set
/// over its API, so none are taken.
pub(crate) async fn read(context: &Context, url: &str) -> Result<Export, Error> {
    let client = Client::connect(&context.globals.at(url), &context.ssh.without_tunnel()).await?;
    let units =
        client.units().await.map_err(|error| Error::request("Error reading fleet 1.0", error))?;
    let units: BTreeMap<String, ExportedUnit> =
        units.into_iter().map(unit).collect::<Result<_, Error>>()?;
    Ok(Export { format: FORMAT, units, ..Export::default() })
}

fn unit(unit: Unit) -> Result<(String, ExportedUnit), Error> {
    // fleet 1.0 kept options, not texts.
    let text = UnitFile::text_of(unit.options).map_err(|problem| {
        let hint = "`fleetctl cat` of fleet 1.0 shows it; mend it there, or leave it out by \
            destroying it there";
        Error::failed(format!("{}: {problem}", unit.name)).hint(hint)
    })?;
    Ok((
        unit.name,
        ExportedUnit { text, desired_state: unit.desired_state, ..ExportedUnit::default() },
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fleet_1_0_leaves_out_for_it_is_empty_is_read_as_empty() {
        let answer = r#"{"name":"a.service","desiredState":"launched","options":[
            {"section":"Service","name":"ExecStart"},
            {"section":"Service","name":"ExecStart","value":"/bin/true"}]}"#;
        let (name, exported) =
            unit(serde_json::from_str(answer).unwrap()).unwrap_or_else(|_| panic!("{answer}"));
        let expected = "[Service]\nExecStart=\nExecStart=/bin/true\n";
        assert_eq!((name.as_str(), exported.text.as_str()), ("a.service", expected));
    }
}
