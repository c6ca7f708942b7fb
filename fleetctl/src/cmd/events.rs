//! `fleetctl events`: what the leaders decided and saw, and why.

use clap::Args;
use clap_complete::ArgValueCompleter;
use fleet_core::event::Event;
use fleet_core::time::utc;

use crate::client::innermost;
use crate::complete;
use crate::context::Context;
use crate::error::Error;
use crate::names::Argument;

/// How many events `--follow` begins with, as `journal` does.
const FOLLOWED_LINES: u32 = 10;

/// Show what the leaders decided and saw, and why, oldest first
///
/// Instances of one machine and reason come together: web@{1-5,9}.service; 3-99/3 is 3, 6, 9 and so
/// on up to 99.
#[derive(Debug, Args)]
pub(crate) struct EventsArgs {
    /// Only what concerns this unit: of a template all its replicas
    #[arg(long, value_name = "UNIT", add = ArgValueCompleter::new(complete::units))]
    unit: Option<String>,
    /// Only what concerns this machine: its whole id or the first 8 digits
    #[arg(long, value_name = "ID", add = ArgValueCompleter::new(complete::machines))]
    machine: Option<String>,
    /// Go on with each new event
    #[arg(long, short = 'f', alias = "f")]
    follow: bool,
    /// How many of the newest events to show [default: all; 10 with --follow]
    #[arg(long, short = 'n', value_name = "N")]
    lines: Option<u32>,
}

pub(crate) async fn run(context: &Context, args: EventsArgs) -> Result<u8, Error> {
    let failed = |error| Error::request("Error retrieving events", error);
    let unit = match &args.unit {
        Some(unit) => {
            let argument = Argument::parse(unit)?;
            let found = context.client.unit_of(&argument).await.map_err(failed)?;
            // One that was destroyed has events, too.
            Some(found.map_or_else(|| argument.name.to_string(), |unit| unit.name))
        }
        None => None,
    };
    let lines = args.lines.or(args.follow.then_some(FOLLOWED_LINES)).map(|lines| lines.to_string());
    let mut query = Vec::new();
    query.extend(unit.as_ref().map(|unit| ("unit", unit.as_str())));
    query.extend(
        args.machine.as_deref().map(|machine| ("machine", machine.trim_end_matches("..."))),
    );
    query.extend(lines.as_deref().map(|lines| ("lines", lines)));
    if args.follow {
        return follow(context, context.client.follow_events(&query).await.map_err(failed)?).await;
    }
    let page = context.client.events(&query).await.map_err(failed)?;
    if context.output.is_json() {
        context.output.document(&page.events)?;
        return Ok(0);
    }
    let text: String = page.events.iter().map(lines_of).collect();
    context.output.text(&text)?;
    Ok(0)
}

/// Prints each event as it comes; with --json one document a line.
async fn follow(context: &Context, mut answer: reqwest::Response) -> Result<u8, Error> {
    let mut rest = Vec::new();
    loop {
        match answer.chunk().await {
            Ok(Some(chunk)) => rest.extend_from_slice(&chunk),
            Ok(None) => {
                return Err(Error::failed("the events broke off: fleetd closed the connection"));
            }
            Err(problem) => {
                return Err(Error::failed(format!(
                    "the events broke off: {}",
                    innermost(&problem)
                )));
            }
        }
        while let Some(end) = rest.iter().position(|&byte| byte == b'\n') {
            let line: Vec<u8> = rest.drain(..=end).collect();
            match serde_json::from_slice::<Event>(&line) {
                Ok(event) if !context.output.is_json() => context.output.text(&lines_of(&event))?,
                _ => context.output.bytes(&line)?,
            }
        }
    }
}

/// A line for each item, with the time.
fn lines_of(event: &Event) -> String {
    let at = utc(event.at_ms);
    let mut text: String = event.items.iter().map(|item| format!("{at} {item}\n")).collect();
    if event.left_out > 0 {
        text.push_str(&format!(
            "{at} … and {} lines more, which did not fit into one event\n",
            event.left_out
        ));
    }
    text
}
