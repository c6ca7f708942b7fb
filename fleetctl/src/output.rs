//! Everything that fleetctl says: data on stdout, all else on stderr by [`screen`](crate::screen);
//! JSON, and the results of changes.

use std::cell::RefCell;
use std::io::Write;

use fleet_core::event::Reason;
use fleet_core::model::InstanceStatus;
use fleet_core::printable;
use fleet_core::wire::MisfitCount;
use serde::Serialize;

use crate::error::Error;
use crate::screen::Span;
pub(crate) use crate::screen::{Screen, note, warn};

/// `1 unit`, `2 units`.
pub(crate) fn counted(number: usize, noun: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {noun}{plural}")
}

/// Where a command prints. It is the only writer of stdout.
#[derive(Debug)]
pub(crate) struct Output {
    json: bool,
    stdout: Screen,
    /// On a terminal, the beginning of a character whose rest is still to come.
    unfinished: RefCell<Vec<u8>>,
    /// With `--json`, the results of a change, printed as one document at the end; none once they
    /// are printed.
    results: RefCell<Option<Vec<Outcome>>>,
}

/// What became of one instance of a unit that a command changed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Outcome {
    /// The unit or instance.
    pub(crate) unit: String,
    /// `inactive`, `loaded`, `launched`, `destroyed`, `triggered`, `unchanged`; `counted` is a
    /// replica that its template counts again. Where the wait ended without success: `failed`,
    /// `nowhere` if no machine can run it, else `waiting`.
    pub(crate) state: String,
    /// Where, if it is anywhere.
    #[serde(rename = "machineID", skip_serializing_if = "String::is_empty")]
    pub(crate) machine_id: String,
    /// That machine's address.
    #[serde(rename = "primaryIP", skip_serializing_if = "String::is_empty")]
    pub(crate) primary_ip: String,
    /// Why no machine can run it, each with how many machines it holds for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) reasons: Vec<MisfitCount>,
    /// What it waits for, for people.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) waits: String,
    /// The same as data.
    #[serde(rename = "waitsFor", skip_serializing_if = "Option::is_none")]
    pub(crate) waits_for: Option<Reason>,
    /// What its machine reports of it, where the wait ended without success.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) status: Option<InstanceStatus>,
}

impl Output {
    /// With `json`, all data is JSON.
    pub(crate) fn new(json: bool) -> Output {
        let stdout = Screen::of(&std::io::stdout());
        Output { json, stdout, unfinished: RefCell::default(), results: RefCell::default() }
    }

    /// Whether data is to be JSON.
    pub(crate) fn is_json(&self) -> bool {
        self.json
    }

    /// What stdout leads to.
    pub(crate) fn stdout(&self) -> Screen {
        self.stdout
    }

    /// Writes text.
    pub(crate) fn text(&self, text: &str) -> Result<(), Error> {
        self.bytes(text.as_bytes())
    }

    /// Writes bytes at once; they may be a piece of something longer.
    pub(crate) fn bytes(&self, bytes: &[u8]) -> Result<(), Error> {
        if !self.stdout.terminal {
            return write_all(&mut std::io::stdout().lock(), bytes);
        }
        let mut whole = std::mem::take(&mut *self.unfinished.borrow_mut());
        whole.extend_from_slice(bytes);
        let rest = whole.split_off(whole.len() - printable::unfinished(&whole));
        *self.unfinished.borrow_mut() = rest;
        self.spans(&[Span::from(printable::shown(&whole))])
    }

    /// Writes text of several colours.
    pub(crate) fn spans(&self, spans: &[Span]) -> Result<(), Error> {
        write_all(&mut std::io::stdout().lock(), self.stdout.render(spans).as_bytes())
    }

    /// Writes one JSON document.
    pub(crate) fn document<T: Serialize + ?Sized>(&self, value: &T) -> Result<(), Error> {
        let mut text = serde_json::to_string_pretty(value)?;
        text.push('\n');
        self.json_text(&text)
    }

    /// Writes text that is JSON.
    pub(crate) fn json_text(&self, text: &str) -> Result<(), Error> {
        match self.stdout.terminal {
            true => self.text(&printable::shown_json(text)),
            false => self.text(text),
        }
    }

    /// One result of a change: `line` for people, `outcome` with `--json`.
    pub(crate) fn result(&self, line: &str, outcome: Outcome) -> Result<(), Error> {
        if self.json {
            let mut results = self.results.borrow_mut();
            let results = results.get_or_insert_default();
            // What was said of the unit on its way is over.
            results
                .retain(|earlier| earlier.unit != outcome.unit || !earlier.machine_id.is_empty());
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

    /// The units of the results that are not written yet, in their order.
    #[cfg(test)]
    pub(crate) fn told(&self) -> Vec<String> {
        self.results.borrow().iter().flatten().map(|outcome| outcome.unit.clone()).collect()
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

impl Drop for Output {
    /// A character that never got its end.
    fn drop(&mut self) {
        let rest = std::mem::take(&mut *self.unfinished.borrow_mut());
        if !rest.is_empty() {
            let _ = self.spans(&[Span::from(printable::shown(&rest))]);
        }
    }
}

fn write_all(to: &mut impl Write, bytes: &[u8]) -> Result<(), Error> {
    to.write_all(bytes)?;
    Ok(to.flush()?)
}

/// `4dbc7f3b.../10.0.0.1` as fleet 1.0 wrote a machine; the whole id with `full`.
pub(crate) fn machine_legend(id: &str, address: &str, full: bool) -> String {
    let id = match id.get(..8) {
        Some(short) if !full && id.len() > 8 => format!("{short}..."),
        _ => id.to_string(),
    };
    if address.is_empty() { id } else { format!("{id}/{address}") }
}
