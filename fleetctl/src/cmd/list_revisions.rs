//! `fleetctl list-revisions`: the texts that a unit has had.

use clap::Args;
use clap_complete::ArgValueCompleter;
use fleet_core::time::utc;
use fleet_core::wire::Revision;

use crate::client::first_known;
use crate::complete;
use crate::context::{Context, did_you_mean};
use crate::error::{Error, Kind};
use crate::names::Argument;
use crate::options::ListArgs;
use crate::table::{Column, pick, render};

/// List the revisions of a unit's file, newest first
///
/// With the date, who submitted each, and what is other than in the one before. At least the last
/// ten are kept, and those that run somewhere or that a rollback needs.
#[derive(Debug, Args)]
pub(crate) struct ListRevisionsArgs {
    /// The unit or template
    #[arg(value_name = "UNIT", add = ArgValueCompleter::new(complete::units))]
    unit: String,
    #[command(flatten)]
    list: ListArgs,
    /// The columns: revision, hash, current, instances, date, by, change
    #[arg(
        long,
        default_value = "revision,hash,current,instances,date,by,change",
        value_name = "NAMES"
    )]
    fields: String,
}

pub(crate) async fn run(context: &Context, args: ListRevisionsArgs) -> Result<u8, Error> {
    let columns = columns();
    let columns = pick(&columns, &args.fields)?;
    let (name, found) = first_known(&Argument::parse(&args.unit)?, async |name| {
        context.client.revisions(name.as_str()).await
    })
    .await;
    let revisions = match found {
        Ok(page) => page.revisions,
        Err(error) if error.is_not_found() => {
            let error = Error::worded(Kind::Failed, format!("Unit {name} not found"));
            return Err(did_you_mean(&context.client, error, &name).await);
        }
        Err(error) => {
            return Err(Error::request(&format!("Error listing the revisions of {name}"), error));
        }
    };
    if context.output.is_json() {
        context.output.document(&revisions)?;
        return Ok(0);
    }
    let table =
        render(&columns, &revisions, args.list.full, !args.list.no_legend, context.output.stdout());
    context.output.spans(&table)?;
    Ok(0)
}

/// How many digits of a hash lists show, as fleet 1.0 showed them.
const HASH_DIGITS: usize = 7;

fn or_dash(text: &str) -> &str {
    if text.is_empty() { "-" } else { text }
}

fn columns() -> Vec<Column<'static, Revision>> {
    vec![
        ("revision", Box::new(|revision, _| revision.revision.to_string().into())),
        (
            "hash",
            Box::new(|revision, full| {
                let shown =
                    if full { revision.hash.len() } else { HASH_DIGITS.min(revision.hash.len()) };
                revision.hash[..shown].into()
            }),
        ),
        ("current", Box::new(|revision, _| if revision.current { "yes" } else { "-" }.into())),
        ("instances", Box::new(|revision, _| revision.instances.to_string().into())),
        ("date", Box::new(|revision, _| revision.at_ms.map_or("-".to_string(), utc).into())),
        ("by", Box::new(|revision, _| or_dash(&revision.by).into())),
        ("change", Box::new(|revision, _| or_dash(&revision.change).into())),
    ]
}
