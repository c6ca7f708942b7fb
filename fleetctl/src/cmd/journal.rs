//! `fleetctl journal`: a unit's log, from whichever machines run it.

use clap::Args;
use clap_complete::ArgValueCompleter;
use fleet_core::name::UnitName;
use fleet_core::wire::NOTE_MARK;

use super::remote::{self, OverSsh};
use crate::client::{ClientError, first_known, innermost};
use crate::complete;
use crate::context::{Context, did_you_mean};
use crate::error::{Error, Kind};
use crate::names::Argument;
use crate::output::{machine_legend, note};

/// Print a unit's log, from whichever machines run it
///
/// With --follow it goes on where the unit goes, and when a machine is back that did not answer.
#[derive(Debug, Args)]
pub(crate) struct JournalArgs {
    /// The unit; of a template or a global unit all instances
    #[arg(value_name = "UNIT", add = ArgValueCompleter::new(complete::units))]
    units: Vec<String>,
    /// Go on printing as lines are written
    #[arg(long, short = 'f', alias = "f")]
    follow: bool,
    /// How many of the newest lines to begin with
    #[arg(long, short = 'n', default_value_t = 10, value_name = "N")]
    lines: u32,
    /// journalctl's output format: short, short-iso, cat, json…
    #[arg(long, short = 'o', default_value = "short", value_name = "FORMAT")]
    output: String,
    #[command(flatten)]
    ssh: OverSsh,
    /// Read the journal as root, over ssh; fleetd does anyway
    #[arg(long)]
    sudo: bool,
}

pub(crate) async fn run(context: &Context, args: JournalArgs) -> Result<u8, Error> {
    let [unit] = args.units.as_slice() else {
        return Err(Error::worded(Kind::Failed, "One unit file must be provided."));
    };
    let argument = Argument::parse(unit)?;
    let lines = args.lines.to_string();
    // With --json each entry is a document, as journalctl has it.
    let format = if context.output.is_json() { "json" } else { &args.output };
    if let Some(port) = args.ssh.ssh_port {
        return over_ssh(context, &argument, port, &lines, format, &args).await;
    }
    let follow = if args.follow { "true" } else { "false" };
    let query =
        [("lines", lines.as_str()), ("follow", follow), ("output", format), ("notes", "true")];
    let (name, found) =
        first_known(&argument, async |name| context.client.journal(name.as_str(), &query).await)
            .await;
    let mut answer = match found {
        Ok(answer) => answer,
        Err(ClientError::Api { code: 404, .. }) => {
            let error = Error::worded(Kind::Failed, format!("Unit {name} does not exist."));
            return Err(did_you_mean(&context.client, error, &name).await);
        }
        Err(ClientError::Api { code: 409, message }) => {
            return Err(Error::worded(
                Kind::Failed,
                format!("Unit {name} does not appear to be running."),
            )
            .cause(message));
        }
        Err(error) => {
            return Err(Error::request(&format!("Error retrieving journal of {name}"), error));
        }
    };
    let mut rest = Vec::new();
    let mut code = 0;
    loop {
        match answer.chunk().await {
            Ok(Some(chunk)) => {
                rest.extend_from_slice(&chunk);
                if print(context, &mut rest, args.follow)? {
                    code = Kind::Failed.code();
                }
            }
            // It ends only after a note that says why.
            Ok(None) if args.follow && code == 0 => {
                return Err(broke_off(&name, "fleetd ended it"));
            }
            Ok(None) => {
                context.output.bytes(&rest)?;
                return Ok(code);
            }
            Err(problem) => return Err(broke_off(&name, &innermost(&problem))),
        }
    }
}

fn broke_off(name: &UnitName, problem: &str) -> Error {
    Error::failed(format!("the journal of {name} broke off: {problem}"))
}

/// Prints all whole lines: those of the journal on stdout, on stderr what is none but says what
/// went wrong. True if any did.
fn print(context: &Context, rest: &mut Vec<u8>, goes_on: bool) -> Result<bool, Error> {
    let Some(end) = rest.iter().rposition(|&byte| byte == b'\n') else { return Ok(false) };
    let lines = rest.drain(..=end).collect::<Vec<u8>>();
    if !lines.contains(&NOTE_MARK) {
        context.output.bytes(&lines)?;
        return Ok(false);
    }
    let mut wrong = false;
    for line in lines.split_inclusive(|&byte| byte == b'\n') {
        match line.strip_prefix(&[NOTE_MARK]) {
            Some(said) => {
                let said = String::from_utf8_lossy(said);
                match goes_on {
                    true => note(said.trim_end()),
                    false => _ = Error::failed(said.trim_end()).print(),
                }
                wrong = true;
            }
            None => context.output.bytes(line)?,
        }
    }
    Ok(wrong)
}

async fn over_ssh(
    context: &Context,
    argument: &Argument,
    port: u16,
    lines: &str,
    format: &str,
    args: &JournalArgs,
) -> Result<u8, Error> {
    let (name, places) = remote::places(context, argument, "running").await?;
    if args.follow && places.len() > 1 {
        let machines: Vec<String> = places
            .iter()
            .map(|place| machine_legend(&place.machine, &place.address, false))
            .collect();
        let message = format!(
            "{name} is in {} places, and ssh can follow one: {}",
            places.len(),
            machines.join(", ")
        );
        return Err(Error::failed(message)
            .hint("without --ssh-port fleetd follows all of them as one stream"));
    }
    let mut worst = 0;
    for place in places {
        let unit = place.instance.systemd_name();
        let mut words = vec![
            "journalctl",
            "--unit",
            unit.as_str(),
            "--no-pager",
            "-n",
            lines,
            "--output",
            format,
        ];
        if args.sudo {
            words.insert(0, "sudo");
        }
        words.extend(args.follow.then_some("-f"));
        worst = worst.max(remote::run(context, &place, port, &words)?);
    }
    Ok(worst)
}
