//! `fleetctl version`: prints fleetctl's version, with `--json` also fleetd's.

use clap::Args;

use crate::context::Context;
use crate::error::Error;
use crate::output::Output;

/// Print the version; with --json also fleetd's
#[derive(Debug, Args)]
pub(crate) struct VersionArgs {}

/// Prints fleetctl's version, which needs no fleetd.
pub(crate) fn own(output: &Output) -> Result<u8, Error> {
    output.text(concat!("fleetctl version v", env!("CARGO_PKG_VERSION"), "\n"))?;
    Ok(0)
}

pub(crate) async fn run(context: &Context, _args: VersionArgs) -> Result<u8, Error> {
    if !context.output.is_json() {
        return own(&context.output);
    }
    // fleetctl's version is known also where no fleetd answers; then the other is null.
    let fleetd = context.client.version().await.ok().map(|version| version.version);
    context.output.document(
        &serde_json::json!({ "fleetctl": env!("CARGO_PKG_VERSION"), "fleetd": fleetd }),
    )?;
    Ok(0)
}
