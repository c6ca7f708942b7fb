//! `fleetctl verify`: fleet 1.0's words that there is nothing to verify, since signed units are
//! gone.

use clap::Args;

use crate::error::{Error, Kind};
use crate::output::{note, warn};

/// Gone: fleet has no signed units
#[derive(Debug, Args)]
pub(crate) struct VerifyArgs {
    /// Taken from fleet before 1.0
    #[arg(value_name = "UNIT")]
    _units: Vec<String>,
}

pub(crate) fn run(_args: VerifyArgs) -> Result<u8, Error> {
    note("Command \"verify\" is deprecated, DEPRECATED - No longer works");
    warn("The signed/verified units feature is DEPRECATED and cannot be used.");
    Ok(Kind::Usage.code())
}
