//! `fleetctl version`: prints fleetctl's version, with `--json` also fleetd's.

use clap::Args;

use super::Context;
use crate::error::Error;

/// Print the version; with --json also that of fleetd
#[derive(Debug, Args)]
pub(crate) struct VersionArgs {}

pub(crate) async fn run(context: &Context, _args: VersionArgs) -> Result<u8, Error> {
    let own = env!("CARGO_PKG_VERSION");
    if !context.output.is_json() {
        context.output.text(&format!("fleetctl version v{own}\n"))?;
        return Ok(0);
    }
    // fleetctl's version is known also where no fleetd answers; then the other is null.
    let fleetd = context.client.version().await.ok().map(|version| version.version);
    context.output.document(&serde_json::json!({ "fleetctl": own, "fleetd": fleetd }))?;
    Ok(0)
}
