//! Everything that fleetctl says: data on stdout, all else on stderr; tables, JSON, and results of changes.

use std::cell::RefCell;
use std::io::{IsTerminal, Write};

use serde::Serialize;

use crate::error::{Error, colour_on_stderr};

/// Where a command prints. It is the only writer of stdout.
#[derive(Debug)]
pub(crate) struct Output {
    json: bool,
    colour: bool,
    /// With `--json`, the results of a change, printed as one document at the end; none once they are printed.
    results: RefCell<Option<Vec<Outcome>>>,
}

/// What became of one instance of a unit that a command changed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Outcome {
    /// The unit or instance.
    pub(crate) unit: String,
    /// `inactive`, `loaded`, `launched`, `destroyed`, `triggered`, `unchanged`; `counted` is a replica that its template counts again.
    pub(crate) state: String,
    /// Where, if it is anywhere.
    #[serde(rename = "machineID", skip_serializing_if = "String::is_empty")]
    pub(crate) machine_id: String,
    /// That machine's address.
    #[serde(rename = "primaryIP", skip_serializing_if = "String::is_empty")]
    pub(crate) primary_ip: String,
}

impl Output {
    /// With `json`, all data is JSON.
    pub(crate) fn new(json: bool) -> Output {
        let colour = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        Output { json, colour, results: RefCell::default() }
    }

    /// Whether data is to be JSON.
    pub(crate) fn is_json(&self) -> bool {
        self.json
    }

    /// Whether stdout takes colours.
    pub(crate) fn colour(&self) -> bool {
        self.colour
    }

    /// Writes text as it is.
    pub(crate) fn text(&self, text: &str) -> Result<(), Error> {
        self.bytes(text.as_bytes())
    }

    /// Writes bytes as they are, at once.
    pub(crate) fn bytes(&self, bytes: &[u8]) -> Result<(), Error> {
        let mut stdout = std::io::stdout().lock();
        stdout.write_all(bytes)?;
        Ok(stdout.flush()?)
    }

    /// Writes one JSON document.
    pub(crate) fn document<T: Serialize + ?Sized>(&self, value: &T) -> Result<(), Error> {
        let mut text = serde_json::to_string_pretty(value)?;
        text.push('\n');
        self.text(&text)
    }

    /// One result of a change: `line` for people, `outcome` with `--json`.
    pub(crate) fn result(&self, line: &str, outcome: Outcome) -> Result<(), Error> {
        if self.json {
            let mut results = self.results.borrow_mut();
            let results = results.get_or_insert_default();
            // What was said of the unit on its way is over.
            results.retain(|earlier| earlier.unit != outcome.unit || !earlier.machine_id.is_empty());
            results.push(outcome);
            return Ok(());
        }
        self.text(&format!("{line}\n"))
    }

    /// With `--json`, writes the results of a change as one document, also if there are none.
    pub(crate) fn all_results(&self) -> Result<(), Error> {
        self.results.borrow_mut().get_or_insert_default();
        self.finish_results()
    }

    /// With `--json`, writes those results that are not written yet.
    pub(crate) fn finish_results(&self) -> Result<(), Error> {
        match self.results.take() {
            Some(results) if self.json => self.document(&results),
            _ => Ok(()),
        }
    }
}

impl Outcome {
    /// A result that belongs to no machine.
    pub(crate) fn nowhere(unit: impl ToString, state: &str) -> Outcome {
        Outcome { unit: unit.to_string(), state: state.to_string(), ..Outcome::default() }
    }
}

/// Says something that is no data.
pub(crate) fn note(text: &str) {
    // Nobody is left to hear that stderr is closed.
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}

/// Says what the user should know, though it does not stop us.
pub(crate) fn warn(text: &str) {
    if colour_on_stderr() { note(&format!("\x1b[33mWARNING:\x1b[0m {text}")) } else { note(&format!("WARNING: {text}")) }
}

/// `4dbc7f3b.../10.0.0.1` as fleet 1.0 wrote a machine; the whole id with `full`.
pub(crate) fn machine_legend(id: &str, address: &str, full: bool) -> String {
    let id = match id.get(..8) {
        Some(short) if !full && id.len() > 8 => format!("{short}..."),
        _ => id.to_string(),
    };
    if address.is_empty() { id } else { format!("{id}/{address}") }
}
