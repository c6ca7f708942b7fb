//! Units that wait for others (`Needs=`): who waits in a circle is refused, and a unit that is not
//! there yet is warned of.

use fleet_core::name::UnitName;
use fleet_core::unit::file::UnitFile;
use fleet_core::unit::needs::{circle, says, unknown};
use fleet_core::unit::xfleet::Constraints;

use super::Api;
use super::error::ApiError;
use crate::store::Part;

/// Looks at what a new text of a unit needs, and answers with what its user should know.
pub(super) async fn check(api: &Api, name: &UnitName, text: &str) -> Result<Vec<String>, ApiError> {
    let wants = Constraints::from_file(&UnitFile::parse_lenient(text));
    if wants.needs.is_empty() {
        return Ok(Vec::new());
    }
    let mirror = api.store().read(&[Part::Units]).await?;
    let units = &mirror.cluster().snapshot.units;
    // What the store holds already is taken again.
    let is_stored = mirror.cluster().records.get(name).is_some_and(|record| record.text == text);
    let mut warnings: Vec<String> = Vec::new();
    let new = [(name.clone(), wants.clone())].into();
    if let Some(circle) = circle(units, &new, name) {
        if !is_stored {
            return Err(ApiError::invalid(says(&circle)));
        }
        warnings.push(says(&circle));
    }
    let missing = unknown(units, name, &wants);
    warnings.extend(missing.iter().map(|need| {
        format!("Needs={need}: there is no such unit yet, and {name} starts once it is healthy")
    }));
    mirror.drop_later();
    Ok(warnings)
}
