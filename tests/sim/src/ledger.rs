//! What a store may hold after what users were answered: a check that every accepted write counts, in some order, and no other does.
//!
//! An operation whose answer was lost may have been carried out, at once or late. So the ledger keeps every state that some order of the
//! operations explains, and an answer strikes out those that it contradicts.

use std::collections::{BTreeMap, BTreeSet};

use fleet_core::model::DesiredState;

/// The part of a record that users write; `None`: no such unit.
pub type Record = Option<Fields>;

/// What users say of a unit.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Fields {
    /// Its text.
    pub text: String,
    /// Its desired state.
    pub desired: DesiredState,
    /// Its count.
    pub replicas: Option<u32>,
}

/// What a user asked of one unit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Operation {
    /// A text, and maybe a desired state.
    Submit(String, Option<DesiredState>),
    /// A desired state.
    Desire(DesiredState),
    /// A count.
    Scale(u32),
    /// No unit.
    Destroy,
}

/// How an operation was answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// It was carried out.
    Accepted,
    /// It was not, and will not be.
    Refused,
    /// Nobody knows.
    Unknown,
}

/// All states that one unit's record may be in, each with the unanswered operations that it contains.
#[derive(Debug)]
pub struct Ledger {
    states: BTreeSet<(Record, BTreeSet<u64>)>,
    open: BTreeMap<u64, Operation>,
}

impl Default for Ledger {
    /// No unit, nothing asked.
    fn default() -> Ledger {
        Ledger { states: [(None, BTreeSet::new())].into(), open: BTreeMap::new() }
    }
}

impl Ledger {
    /// An operation was sent: from now on it may be carried out at any time.
    pub fn sent(&mut self, id: u64, operation: Operation) {
        self.open.insert(id, operation);
        self.close();
    }

    /// An operation was answered. One that nobody knows of stays open. False if nothing explains this answer.
    pub fn answered(&mut self, id: u64, answer: Answer) -> bool {
        if answer == Answer::Unknown {
            return true;
        }
        self.open.remove(&id);
        let states = std::mem::take(&mut self.states);
        let agrees = |contains: bool| contains == (answer == Answer::Accepted);
        self.states = states
            .into_iter()
            .filter(|(_, done)| agrees(done.contains(&id)))
            .map(|(record, mut done)| {
                done.remove(&id);
                (record, done)
            })
            .collect();
        !self.states.is_empty()
    }

    /// Whether the record may be like this.
    pub fn explains(&self, record: &Record) -> bool {
        self.states.iter().any(|(state, _)| state == record)
    }

    fn close(&mut self) {
        loop {
            let mut more = BTreeSet::new();
            for (record, done) in &self.states {
                for (id, operation) in self.open.iter().filter(|(id, _)| !done.contains(id)) {
                    let mut done = done.clone();
                    done.insert(*id);
                    more.insert((operation.on(record), done));
                }
            }
            let before = self.states.len();
            self.states.extend(more);
            if self.states.len() == before {
                return;
            }
        }
    }
}

impl Operation {
    /// What it makes of a record, by the API's rules.
    fn on(&self, record: &Record) -> Record {
        let Some(old) = record else {
            return match self {
                Operation::Submit(text, desired) => {
                    Some(Fields { text: text.clone(), desired: desired.unwrap_or_default(), replicas: None })
                }
                _ => None,
            };
        };
        let mut new = old.clone();
        match self {
            Operation::Submit(text, desired) => {
                let replaced = old.text != *text;
                new.text.clone_from(text);
                match desired {
                    Some(desired) => new.desired = *desired,
                    None if replaced && old.replicas.is_none() => new.desired = DesiredState::Inactive,
                    None => {}
                }
            }
            Operation::Desire(desired) => new.desired = *desired,
            Operation::Scale(replicas) => {
                new.replicas = Some(*replicas);
                if new.desired == DesiredState::Inactive {
                    new.desired = DesiredState::Launched;
                }
            }
            Operation::Destroy => return None,
        }
        Some(new)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn submit(text: &str) -> Operation {
        Operation::Submit(text.to_string(), Some(DesiredState::Launched))
    }

    fn record(text: &str, replicas: Option<u32>) -> Record {
        Some(Fields { text: text.to_string(), desired: DesiredState::Launched, replicas })
    }

    #[test]
    fn an_accepted_write_must_be_there() {
        let mut ledger = Ledger::default();
        ledger.sent(1, submit("a"));
        assert!(ledger.explains(&None) && ledger.explains(&record("a", None)));
        assert!(ledger.answered(1, Answer::Accepted));
        assert!(!ledger.explains(&None) && ledger.explains(&record("a", None)));
    }

    #[test]
    fn a_lost_answer_leaves_both() {
        let mut ledger = Ledger::default();
        ledger.sent(1, submit("a"));
        ledger.answered(1, Answer::Unknown);
        ledger.sent(2, Operation::Destroy);
        assert!(ledger.answered(2, Answer::Accepted));
        assert!(ledger.explains(&None) && ledger.explains(&record("a", None)), "the submit may arrive after the destroy");
    }

    #[test]
    fn two_at_once_may_come_in_either_order_but_both_count() {
        let mut ledger = Ledger::default();
        ledger.sent(1, submit("a"));
        ledger.answered(1, Answer::Accepted);
        ledger.sent(2, submit("b"));
        ledger.sent(3, Operation::Scale(5));
        assert!(ledger.answered(2, Answer::Accepted) && ledger.answered(3, Answer::Accepted));
        assert!(ledger.explains(&record("b", Some(5))));
        assert!(!ledger.explains(&record("b", None)), "the count was lost");
        assert!(!ledger.explains(&record("a", Some(5))), "the text was lost");
    }
}
