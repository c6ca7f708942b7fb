//! What a store may hold after what users were answered: a check that every accepted write counts,
//! in some order, and no other does.
//!
//! An operation whose answer was lost may have been carried out, at once or late. So the ledger
//! keeps every state that some order of the operations explains, and an answer strikes out those
//! that it contradicts.

use std::collections::{BTreeMap, BTreeSet};

use fleet_core::model::{Availability, DesiredState};

/// What a user may ask of something that is kept in the store.
pub trait Operation {
    /// What users may say of it; the default is what holds before anybody said anything.
    type State: Clone + Default + Ord;

    /// What it makes of a state, by the API's rules. What would be refused changes nothing.
    fn on(&self, state: &Self::State) -> Self::State;
}

/// The part of a record that users write; `None`: no such unit.
pub type Record = Option<Fields>;

/// What users say of a unit.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Fields {
    /// The texts that it has had, its present one last.
    pub texts: Vec<String>,
    /// Its desired state.
    pub desired: DesiredState,
    /// Its count.
    pub replicas: Option<u32>,
    /// How often it was asked to restart.
    pub restarts: u64,
}

impl Fields {
    /// Whether it is what `seen` shows, in which an old text may be empty: it is kept no more.
    pub fn shows_as(&self, seen: &Fields) -> bool {
        let same = |(text, seen): (&String, &String)| seen.is_empty() || text == seen;
        let texts = Vec::new();
        let without = |fields: &Fields| Fields { texts: texts.clone(), ..fields.clone() };
        self.texts.len() == seen.texts.len()
            && self.texts.iter().zip(&seen.texts).all(same)
            && without(self) == without(seen)
    }
}

/// What a user asked of one unit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UnitOperation {
    /// A text, and maybe a desired state.
    Submit(String, Option<DesiredState>),
    /// A desired state.
    Desire(DesiredState),
    /// A count.
    Scale(u32),
    /// A restart.
    Restart,
    /// The last text that differs from the present one.
    Rollback,
    /// No unit.
    Destroy,
    /// Something of its rollout: that changes nothing here.
    Steer,
}

/// What an operator says of a machine.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Said {
    /// The value of its label.
    pub label: String,
    /// Whether it takes instances, in the API's word.
    pub availability: &'static str,
}

impl Default for Said {
    fn default() -> Said {
        Said { label: String::new(), availability: Availability::Active.as_str() }
    }
}

/// What an operator asked of one machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MachineOperation {
    /// A value of the label.
    Label(String),
    /// That it takes instances, or none.
    Availability(Availability),
}

/// What an operator asked of the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ConfigOperation {
    /// This value.
    Set(String),
    /// The last values that differ from the present ones.
    Rollback,
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

/// All states that one document may be in, each with the unanswered operations that it contains.
#[derive(Debug)]
pub struct Ledger<O: Operation> {
    states: BTreeSet<(O::State, BTreeSet<u64>)>,
    open: BTreeMap<u64, O>,
}

impl<O: Operation> Default for Ledger<O> {
    /// Nothing asked.
    fn default() -> Ledger<O> {
        Ledger { states: [(O::State::default(), BTreeSet::new())].into(), open: BTreeMap::new() }
    }
}

impl<O: Operation> Ledger<O> {
    /// An operation was sent: from now on it may be carried out at any time.
    pub fn sent(&mut self, id: u64, operation: O) {
        self.open.insert(id, operation);
        self.close();
    }

    /// An operation was answered. One that nobody knows of stays open. False if nothing explains
    /// this answer.
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
            .map(|(state, mut done)| {
                done.remove(&id);
                (state, done)
            })
            .collect();
        !self.states.is_empty()
    }

    /// Whether the document may be like this.
    pub fn explains(&self, state: &O::State) -> bool {
        self.allows(|may| may == state)
    }

    /// Whether it may be so.
    pub fn allows(&self, is_so: impl Fn(&O::State) -> bool) -> bool {
        self.states.iter().any(|(may, _)| is_so(may))
    }

    fn close(&mut self) {
        loop {
            let mut more = BTreeSet::new();
            for (state, done) in &self.states {
                for (id, operation) in self.open.iter().filter(|(id, _)| !done.contains(id)) {
                    let mut done = done.clone();
                    done.insert(*id);
                    more.insert((operation.on(state), done));
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

impl Operation for UnitOperation {
    type State = Record;

    fn on(&self, record: &Record) -> Record {
        let Some(old) = record else {
            return match self {
                UnitOperation::Submit(text, desired) => Some(Fields {
                    texts: vec![text.clone()],
                    desired: desired.unwrap_or_default(),
                    replicas: None,
                    restarts: 0,
                }),
                _ => None,
            };
        };
        let mut new = old.clone();
        match self {
            UnitOperation::Submit(text, desired) => {
                let replaced = old.texts.last() != Some(text);
                new.texts.extend(replaced.then(|| text.clone()));
                match desired {
                    Some(desired) => new.desired = *desired,
                    None if replaced && old.replicas.is_none() => {
                        new.desired = DesiredState::Inactive
                    }
                    None => {}
                }
            }
            UnitOperation::Desire(desired) => new.desired = *desired,
            UnitOperation::Scale(replicas) => {
                new.replicas = Some(*replicas);
                if new.desired == DesiredState::Inactive {
                    new.desired = DesiredState::Launched;
                }
            }
            UnitOperation::Restart => {
                new.restarts += u64::from(old.desired == DesiredState::Launched)
            }
            UnitOperation::Rollback => {
                let before = old.texts.iter().rev().find(|text| Some(*text) != old.texts.last());
                new.texts.extend(before.cloned());
            }
            UnitOperation::Destroy => return None,
            UnitOperation::Steer => {}
        }
        Some(new)
    }
}

impl Operation for MachineOperation {
    type State = Said;

    fn on(&self, said: &Said) -> Said {
        match self {
            MachineOperation::Label(value) => Said { label: value.clone(), ..said.clone() },
            MachineOperation::Availability(availability) => {
                Said { availability: availability.as_str(), ..said.clone() }
            }
        }
    }
}

impl Operation for ConfigOperation {
    /// The value of each revision, the present one last.
    type State = Vec<String>;

    fn on(&self, values: &Vec<String>) -> Vec<String> {
        let present = values.last();
        let next = match self {
            ConfigOperation::Set(value) => Some(value).filter(|value| Some(*value) != present),
            ConfigOperation::Rollback => values.iter().rev().find(|value| Some(*value) != present),
        };
        values.iter().chain(next).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn submit(text: &str) -> UnitOperation {
        UnitOperation::Submit(text.to_string(), Some(DesiredState::Launched))
    }

    fn record(texts: &[&str], replicas: Option<u32>) -> Record {
        let texts = texts.iter().map(ToString::to_string).collect();
        Some(Fields { texts, desired: DesiredState::Launched, replicas, restarts: 0 })
    }

    #[test]
    fn an_accepted_write_must_be_there() {
        let mut ledger = Ledger::default();
        ledger.sent(1, submit("a"));
        assert!(ledger.explains(&None) && ledger.explains(&record(&["a"], None)));
        assert!(ledger.answered(1, Answer::Accepted));
        assert!(!ledger.explains(&None) && ledger.explains(&record(&["a"], None)));
    }

    #[test]
    fn a_lost_answer_leaves_both() {
        let mut ledger = Ledger::default();
        ledger.sent(1, submit("a"));
        ledger.answered(1, Answer::Unknown);
        ledger.sent(2, UnitOperation::Destroy);
        assert!(ledger.answered(2, Answer::Accepted));
        assert!(
            ledger.explains(&None) && ledger.explains(&record(&["a"], None)),
            "the submit may arrive after the destroy"
        );
    }

    #[test]
    fn two_at_once_may_come_in_either_order_but_both_count() {
        let mut ledger = Ledger::default();
        ledger.sent(1, submit("a"));
        ledger.answered(1, Answer::Accepted);
        ledger.sent(2, submit("b"));
        ledger.sent(3, UnitOperation::Scale(5));
        assert!(ledger.answered(2, Answer::Accepted) && ledger.answered(3, Answer::Accepted));
        assert!(ledger.explains(&record(&["a", "b"], Some(5))));
        assert!(!ledger.explains(&record(&["a", "b"], None)), "the count was lost");
        assert!(!ledger.explains(&record(&["a"], Some(5))), "the text was lost");
    }

    #[test]
    fn a_rollback_brings_the_last_other_text_as_a_new_one_and_a_restart_counts_once() {
        let mut ledger = Ledger::default();
        for (id, operation) in
            [submit("a"), submit("b"), UnitOperation::Rollback, UnitOperation::Restart]
                .into_iter()
                .enumerate()
        {
            ledger.sent(id as u64, operation);
            assert!(ledger.answered(id as u64, Answer::Accepted));
        }
        let restarted =
            record(&["a", "b", "a"], None).map(|fields| Fields { restarts: 1, ..fields });
        assert!(ledger.explains(&restarted) && !ledger.explains(&record(&["a", "b", "a"], None)));
    }
}
