//! `fleetctl events`: what users did, what the leaders decided and saw, and why.

use clap::Args;
use clap_complete::ArgValueCompleter;
use fleet_core::event::Event;
use fleet_core::time::utc;

use crate::client::{ClientError, innermost};
use crate::complete;
use crate::context::Context;
use crate::error::Error;
use crate::lines::{Lines, Piece};
use crate::names::Argument;
use crate::retry::Retry;

/// How many events `--follow` begins with, as `journal` does.
const FOLLOWED_LINES: u32 = 10;

/// The longest line of an event, in bytes; fleetd's own bound is 64 KiB.
const MAX_LINE: usize = 1024 * 1024;

/// Show what users did and what the leaders decided, and why
///
/// Oldest first. Instances with the same machine and reason share a line: web@{1-5,9}.service;
/// 3-99/3 means 3, 6, 9 and so on up to 99.
#[derive(Debug, Args)]
pub(crate) struct EventsArgs {
    /// Show only events of this unit; of a template, of all its replicas
    #[arg(long, value_name = "UNIT", add = ArgValueCompleter::new(complete::units))]
    unit: Option<String>,
    /// Show only events of this machine: its whole ID, or the first 8 digits
    #[arg(long, value_name = "ID", add = ArgValueCompleter::new(complete::machines))]
    machine: Option<String>,
    /// Keep printing new events
    #[arg(long, short = 'f', alias = "f")]
    follow: bool,
    /// How many of the newest events to show [default: all; 10 with --follow]
    #[arg(long, short = 'n', value_name = "N")]
    lines: Option<u32>,
}

pub(crate) async fn run(context: &Context, args: EventsArgs) -> Result<u8, Error> {
    let unit = match &args.unit {
        Some(unit) => {
            let argument = Argument::parse(unit)?;
            let found = context.client.unit_of(&argument).await.map_err(failed)?;
            // One that was destroyed has events, too.
            Some(found.map_or_else(|| argument.name.to_string(), |unit| unit.name))
        }
        None => None,
    };
    let mut query = Vec::new();
    query.extend(unit.as_ref().map(|unit| ("unit", unit.as_str())));
    query.extend(
        args.machine.as_deref().map(|machine| ("machine", machine.trim_end_matches("..."))),
    );
    if args.follow {
        let lines = args.lines.unwrap_or(FOLLOWED_LINES);
        return follow(context, &query, lines).await;
    }
    let lines = args.lines.map(|lines| lines.to_string());
    query.extend(lines.as_deref().map(|lines| ("lines", lines)));
    let page = context.client.events(&query).await.map_err(failed)?;
    if context.output.is_json() {
        context.output.document(&page.events)?;
        return Ok(0);
    }
    let text: String = page.events.iter().map(lines_of).collect();
    context.output.text(&text)?;
    Ok(0)
}

fn failed(error: ClientError) -> Error {
    Error::request("Error retrieving events", error)
}

/// Prints the newest events and each new one as it comes; with --json one document a line. When
/// the connection breaks it goes on after the last event that it printed.
async fn follow(context: &Context, query: &[(&str, &str)], lines: u32) -> Result<u8, Error> {
    let mut printer = Printer { context, last: String::new() };
    if lines == 0 {
        // What is there already is not printed, after a break either.
        let newest = [query, &[("lines", "1")]].concat();
        let page = context.client.events(&newest).await.map_err(failed)?;
        printer.last = page.events.into_iter().next_back().map_or_else(String::new, |e| e.id);
    }
    let lines = lines.to_string();
    let mut first = vec![("lines", lines.as_str())];
    first.retain(|(_, lines)| *lines != "0");
    let mut answer = context.client.follow_events(&[query, &first].concat()).await;
    let mut is_first = true;
    let mut retry = Retry::new();
    loop {
        let broken = match answer {
            Ok(answer) => printer.print(answer, &mut retry).await?,
            Err(error) if error.is_passing() && (error.is_busy() || !is_first) => error.to_string(),
            Err(error) => return Err(failed(error)),
        };
        is_first = false;
        retry.pause(&broken).await;
        // All that are kept: more than a few may have come meanwhile.
        answer = context.client.follow_events(query).await;
    }
}

/// Prints events that were not printed yet.
struct Printer<'a> {
    context: &'a Context,
    /// The last one that was printed. Names of events sort by time.
    last: String,
}

impl Printer<'_> {
    /// Prints what comes until the connection breaks; says why it broke.
    async fn print(
        &mut self,
        mut answer: reqwest::Response,
        retry: &mut Retry,
    ) -> Result<String, Error> {
        let mut lines = Lines::new(MAX_LINE);
        loop {
            match answer.chunk().await {
                Ok(Some(chunk)) => lines.push(&chunk),
                Ok(None) => return Ok("fleetd closed the connection".to_string()),
                Err(problem) => return Ok(innermost(&problem)),
            }
            while let Some(piece) = lines.next() {
                let line = match piece {
                    Piece::Line(line) => line,
                    Piece::Part(part) => {
                        return Err(Error::failed(format!(
                            "fleetd sent an event without an end: {} bytes so far",
                            part.len()
                        )));
                    }
                };
                if self.print_line(&line)? {
                    retry.works();
                }
            }
        }
    }

    /// Prints the event of a line; false if it was printed before the connection broke.
    fn print_line(&mut self, line: &[u8]) -> Result<bool, Error> {
        let output = &self.context.output;
        let event: Event = serde_json::from_slice(line).map_err(|problem| {
            Error::failed(format!("fleetd sent an event that cannot be read: {problem}"))
                .hint("`fleetctl version --json` shows both versions")
        })?;
        if event.id <= self.last {
            return Ok(false);
        }
        match output.is_json() {
            true => output.bytes(line)?,
            false => output.text(&lines_of(&event))?,
        }
        self.last = event.id;
        Ok(true)
    }
}

/// A line for each item, with the time.
fn lines_of(event: &Event) -> String {
    let at = utc(event.at_ms);
    let mut text: String = event.items.iter().map(|item| format!("{at} {item}\n")).collect();
    if event.left_out > 0 {
        text.push_str(&format!(
            "{at} … and {} more lines, which did not fit into one event\n",
            event.left_out
        ));
    }
    text
}
