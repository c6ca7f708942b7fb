//! A unit to wait for, what it shall become, and what of it to tell the user.

use std::collections::BTreeSet;

/// What a unit shall become.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Goal {
    /// On no machine.
    Inactive,
    /// On a machine, not running.
    Loaded,
    /// Running.
    Launched,
    /// Forgotten.
    Destroyed,
}

impl Goal {
    /// The state's name, as fleet 1.0 has it.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Goal::Inactive => "inactive",
            Goal::Loaded => "loaded",
            Goal::Launched => "launched",
            Goal::Destroyed => "destroyed",
        }
    }
}

/// One unit to wait for, and what of it to tell the user.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    /// The unit or template.
    pub(crate) unit: String,
    /// What it shall become.
    pub(crate) goal: Goal,
    /// The instances whose arrival is news.
    pub(crate) arriving: BTreeSet<String>,
    /// The instances whose leaving is news.
    pub(crate) leaving: BTreeSet<String>,
    /// Whether it has to have stayed up for a while, by its machines' word: a new text took the
    /// place of one that ran.
    pub(crate) stays_up: bool,
    /// Whether an instance without a machine, or one that its machine refuses, is as asked: to stop
    /// what runs nowhere.
    pub(crate) nowhere_will_do: bool,
}

impl Target {
    /// Waits without a word.
    pub(crate) fn quiet(unit: impl Into<String>, goal: Goal) -> Target {
        let (arriving, leaving) = (BTreeSet::new(), BTreeSet::new());
        Target {
            unit: unit.into(),
            goal,
            arriving,
            leaving,
            stays_up: false,
            nowhere_will_do: false,
        }
    }

    /// Waits, and tells of `instances`.
    pub(crate) fn telling(
        unit: impl Into<String>,
        goal: Goal,
        instances: impl IntoIterator<Item = String>,
    ) -> Target {
        let mut target = Target::quiet(unit, goal);
        let told = if goal == Goal::Inactive { &mut target.leaving } else { &mut target.arriving };
        told.extend(instances);
        target
    }
}
