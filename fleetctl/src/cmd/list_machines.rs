//! `fleetctl list-machines`: the machines of the cluster.

use clap::Args;
use fleet_core::wire::Machine;

use super::{Context, ListArgs};
use crate::error::Error;
use crate::output::machine_legend;
use crate::table::{Cell, Column, pick, render};

/// List the machines of the cluster
#[derive(Debug, Args)]
pub(crate) struct ListMachinesArgs {
    #[command(flatten)]
    list: ListArgs,
    /// The columns, of: machine, ip, metadata, leader, version, instances
    #[arg(long, default_value = "machine,ip,metadata", value_name = "NAMES")]
    fields: String,
}

pub(crate) async fn run(context: &Context, args: ListMachinesArgs) -> Result<u8, Error> {
    let columns = columns();
    let columns = pick(&columns, &args.fields)?;
    let machines = context
        .client
        .machines()
        .await
        .map_err(|error| Error::request_in_brackets("Error retrieving list of active machines from fleet API", error))?;
    if context.output.is_json() {
        context.output.document(&machines)?;
        return Ok(0);
    }
    context.output.text(&render(&columns, &machines, args.list.full, !args.list.no_legend, context.output.colour()))?;
    Ok(0)
}

fn columns() -> Vec<Column<'static, Machine>> {
    vec![
        ("machine", Box::new(|machine, full| machine_legend(&machine.id, "", full).into())),
        ("ip", Box::new(|machine, _| machine.primary_ip.as_str().into())),
        ("metadata", Box::new(|machine, _| metadata(machine))),
        ("leader", Box::new(|machine, _| machine.leader.to_string().into())),
        ("version", Box::new(|machine, _| machine.version.as_str().into())),
        ("instances", Box::new(|machine, _| machine.instances.map_or_else(String::new, |count| count.to_string()).into())),
    ]
}

fn metadata(machine: &Machine) -> Cell {
    machine.metadata.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(",").into()
}
