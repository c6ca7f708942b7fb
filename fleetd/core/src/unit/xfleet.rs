//! The `[X-Fleet]` section: the table of its options, and what a unit's section demands of its
//! machine.
//!
//! [`OPTIONS`] is the one list. What reads a section, warns of it, refuses it, expands specifiers
//! in it and documents it goes by that table, so a new option is a row, a field of [`Constraints`],
//! and whatever acts on the field.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::health::{self, HealthOptions};
use super::labels::Labels;
use super::max_unavailable::MaxUnavailable;
use super::needs;
use super::on_failure::OnFailure;
use super::podman::{self, Kind};
use super::update::{self, OnUpdateFailure, UpdateOrder};
use crate::app::{AppName, BundleRef};
use crate::configuration::ConfigChanged;
use crate::model::MAX_REPLICAS;
use crate::name::{NameError, UnitName};
use crate::unit::file::{UnitFile, UnitOption, boolean};

/// The section that fleet reads; systemd passes over sections that start with `X-`.
pub const SECTION: &str = "X-Fleet";

/// The most values of `Conflicts=`, of `Replaces=` and of `MachineOf=`. Planning compares each with
/// every unit on a machine.
pub const MAX_PATTERNS: usize = 100;

/// The most values of `MachineMetadata=`. Planning compares each with every machine.
pub const MAX_LABELS: usize = 256;

/// The longest value of such a list, in bytes: twice the longest name.
pub const MAX_VALUE_BYTES: usize = 512;

/// The most specifiers of one value: each may stand for a whole name.
pub const MAX_SPECIFIERS: usize = 8;

/// What a unit demands of its machine: what [`OPTIONS`] read.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
pub struct Constraints {
    /// The machine that it must run on, whole or short id.
    pub machine_id: Option<String>,
    /// Units that must run on the same machine.
    pub machine_of: Vec<String>,
    /// Labels: keys are all needed, of a key's values any one.
    pub metadata: Labels,
    /// Patterns of units that may not run on the same machine.
    pub conflicts: Vec<String>,
    /// Whether it runs on every machine that fits.
    pub global: bool,
    /// Patterns of units that it pushes off its machine.
    pub replaces: Vec<String>,
    /// Whether at most one copy of it may be alive.
    pub fence: bool,
    /// How many of its instances may be down at once because somebody decided so; none: what
    /// [`Unit::max_unavailable`](crate::model::Unit::max_unavailable) says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_unavailable: Option<MaxUnavailable>,
    /// How long an instance must have been up before it counts as healthy, in milliseconds; none:
    /// the default. `u64::MAX` for what is no such time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_healthy_ms: Option<u64>,
    /// How long an instance may take to become healthy with a new text, in milliseconds; none: the
    /// default. `u64::MAX` for what is no such time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub healthy_deadline_ms: Option<u64>,
    /// What happens to a new text that fails; none: what
    /// [`Unit::on_update_failure`](crate::model::Unit::on_update_failure) says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_update_failure: Option<OnUpdateFailure>,
    /// In which order its instances get what takes them down; none: what
    /// [`Unit::starts_first`](crate::model::Unit::starts_first) says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub update_order: Option<UpdateOrder>,
    /// What its instances are asked for their health.
    #[serde(default, skip_serializing_if = "HealthOptions::is_unset")]
    pub health: HealthOptions,
    /// How many instances get a new text before a user lets the others have it, too; none: nobody
    /// is asked. It is counted as the budget is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub canary: Option<MaxUnavailable>,
    /// How many instances of its template one machine may run; none: as many as there are. 0 for
    /// what is no such number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_per_machine: Option<u32>,
    /// How many instances of this template `fleetctl apply` makes run; `u32::MAX` for what is no
    /// such number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replicas: Option<u32>,
    /// What comes with it, see [`BundleRef`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bundle: Option<String>,
    /// What the Quadlet units among that need of podman: their types, and `secret:NAME`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub bundle_needs: Vec<String>,
    /// podman's secrets that the machine must have: those that its own text takes, and those of
    /// `bundle_needs`.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub secrets: BTreeSet<String>,
    /// Units that must be healthy, on whatever machine, before it starts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub needs: Vec<String>,
    /// The configuration that its instances get.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config: Option<String>,
    /// What a change of that does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config_changed: Option<ConfigChanged>,
    /// What is done about an instance that failed, by how it failed.
    #[serde(default, skip_serializing_if = "OnFailure::is_empty")]
    pub on_failure: OnFailure,
    /// The type of Quadlet unit that takes the newest podman, of the unit's own and of those that
    /// come with it: follows from its name and `bundle_needs`, and is set with the gist.
    #[serde(skip)]
    pub(crate) podman: Option<Kind>,
}

/// One option of the section: a row of [`OPTIONS`].
pub struct FleetOption {
    /// Its name.
    pub name: &'static str,
    /// fleet 1.0's older names for it, the one that goes before the others first.
    pub legacy: &'static [&'static str],
    /// What the names of a whole family begin with: each says in the rest of its name what it is
    /// about, and is read as `REST=value`. `None` for an option with one name.
    pub family: Option<&'static str>,
    /// What it means, in one line for the man page.
    pub about: &'static str,
    /// Which of several values count.
    pub counts: Counts,
    /// How long its list may be; `None` for what is no list.
    pub list: Option<List>,
    /// The options that it cannot be used with. A pair is named once, in fleet 1.0's order.
    pub excludes: &'static [&'static str],
    /// fleet 1.0's word for it in a refusal, where that is not its name.
    pub(super) word: Option<&'static str>,
    /// Notes the values that count, at least one, in [`Constraints`]. What fleet 1.0 ignored is
    /// ignored.
    read: fn(&mut Constraints, &[String]),
    /// Calls with each text of [`Constraints`] that specifiers are put into; `None` where they
    /// stand for themselves.
    texts: Option<Texts>,
    /// Why one value, which is not empty, does not do what its writer may expect.
    pub(super) note: fn(&str) -> Option<String>,
    /// Why a new unit of this name that demands this is not taken. Asked where the option is given.
    pub(super) refuse: fn(&UnitName, &Constraints) -> Option<String>,
}

/// Which of several values of an option count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Counts {
    /// The first, by the name that goes before the others.
    First,
    /// The last.
    Last,
    /// All of them.
    All,
}

/// The limit of a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct List {
    /// The most values.
    pub most: usize,
    /// What its values are: `patterns`.
    pub of: &'static str,
}

type Texts = fn(&mut Constraints, &mut dyn FnMut(&mut String));

/// Every option that the section may hold, in the order of the documentation.
pub const OPTIONS: &[FleetOption] = &[
    FleetOption {
        name: "MachineID",
        legacy: &["X-ConditionMachineID", "X-ConditionMachineBootID"],
        about: "Run only on this machine, given by its whole id or the first 8 characters.",
        counts: Counts::First,
        excludes: &["MachineOf", "Conflicts", "Global", "Replaces"],
        read: |wants, values| wants.machine_id = one(values),
        texts: Some(|wants, each| wants.machine_id.iter_mut().for_each(each)),
        ..FleetOption::PLAIN
    },
    FleetOption {
        name: "MachineOf",
        legacy: &["X-ConditionMachineOf"],
        about: "Run only on the machine where this unit runs, and follow it when it moves.",
        list: Some(List { most: MAX_PATTERNS, of: "units" }),
        word: Some("Peers"),
        read: |wants, values| wants.machine_of = filled(values),
        texts: Some(|wants, each| wants.machine_of.iter_mut().for_each(each)),
        note: no_unit,
        ..FleetOption::PLAIN
    },
    FleetOption {
        name: "MachineMetadata",
        legacy: &["X-ConditionMachineMetadata"],
        about: "Run only on machines with this label, key=value. All keys must be there; of several \
            values of one key, any.",
        list: Some(List { most: MAX_LABELS, of: "labels" }),
        read: |wants, values| wants.metadata = labels(values),
        texts: Some(each_label),
        note: |pair| {
            let problem = "is ignored: it is not of the form key=value";
            metadata_pair(pair).is_none().then(|| format!("MachineMetadata \"{pair}\" {problem}"))
        },
        ..FleetOption::PLAIN
    },
    FleetOption {
        name: "Global",
        about: "Run one instance on every machine that fits.",
        counts: Counts::Last,
        excludes: &["MachineOf", "Replaces"],
        read: |wants, values| wants.global = values.iter().any(|word| is_true(word)),
        note: |word| {
            let hint = "counts as no, as it did in fleet 1.0; write Global=true or Global=false";
            let unclear = !is_true(word) && boolean(word) != Some(false);
            unclear.then(|| format!("Global={word} {hint}"))
        },
        ..FleetOption::PLAIN
    },
    FleetOption {
        name: "Conflicts",
        legacy: &["X-Conflicts"],
        about: "Do not run on a machine with a unit whose name matches this pattern (*, ?, [a-z]).",
        list: Some(List { most: MAX_PATTERNS, of: "patterns" }),
        excludes: &["Replaces"],
        read: |wants, values| {
            let words = values.iter().flat_map(|value| value.split_whitespace());
            wants.conflicts = words.map(str::to_string).collect();
        },
        texts: Some(|wants, each| wants.conflicts.iter_mut().for_each(each)),
        ..FleetOption::PLAIN
    },
    FleetOption {
        name: "Replaces",
        about: "Push units whose names match this pattern to other machines that fit them.",
        list: Some(List { most: MAX_PATTERNS, of: "patterns" }),
        read: |wants, values| wants.replaces = filled(values),
        texts: Some(|wants, each| wants.replaces.iter_mut().for_each(each)),
        note: |pattern| {
            let hint = "is one pattern, spaces and all; put each into quotes, or on a line";
            let spaced = pattern.contains(char::is_whitespace);
            spaced.then(|| format!("Replaces \"{pattern}\" {hint}"))
        },
        ..FleetOption::PLAIN
    },
    FleetOption {
        name: "Fence",
        about: "Keep at most one copy alive, also when machines lose each other.",
        counts: Counts::Last,
        read: |wants, values| wants.fence = values.iter().any(|word| boolean(word) == Some(true)),
        ..FleetOption::PLAIN
    },
    FleetOption {
        name: "MaxUnavailable",
        about: "How many instances a new text, a restart or a drain may take down at once: a number \
            from 1, or a share of the wanted instances from 1% to 100%. 25% by default for scaled \
            templates and global units; a unit by its own name has none.",
        counts: Counts::Last,
        read: |wants, values| {
            wants.max_unavailable = one(values).map(|text| MaxUnavailable::parse(&text));
        },
        refuse: |_, wants| match &wants.max_unavailable {
            Some(MaxUnavailable::Unreadable(text)) => Some(format!(
                "invalid MaxUnavailable {text:?}: expect a number from 1, or a percentage from 1% \
                    to 100%"
            )),
            _ => None,
        },
        ..FleetOption::PLAIN
    },
    FleetOption {
        name: "MinHealthy",
        about: "How long an instance must have been up, without a restart, before it counts as \
            healthy and the next one is changed: a time from 0 to 1h. 5s by default for scaled \
            templates and global units, 2s for others.",
        counts: Counts::Last,
        read: |wants, values| {
            wants.min_healthy_ms =
                one(values).map(|text| update::min_healthy_ms(&text).unwrap_or(u64::MAX));
        },
        refuse: |_, wants| {
            let is_bad = wants.min_healthy_ms == Some(u64::MAX);
            is_bad.then(|| "invalid MinHealthy: expect a time from 0 to 1h, as in 5s".to_string())
        },
        ..FleetOption::PLAIN
    },
    FleetOption {
        name: "HealthyDeadline",
        about: "How long an instance may take to become healthy with a new text before the text \
            counts as failed: a time from 1s to 24h, by default 2min and as much longer as \
            HealthStartPeriod and MinHealthy say.",
        counts: Counts::Last,
        read: |wants, values| {
            wants.healthy_deadline_ms =
                one(values).map(|text| update::healthy_deadline_ms(&text).unwrap_or(u64::MAX));
        },
        refuse: |_, wants| {
            let is_bad = wants.healthy_deadline_ms == Some(u64::MAX);
            let problem = "invalid HealthyDeadline: expect a time from 1s to 24h, as in 2min";
            is_bad.then(|| problem.to_string())
        },
        ..FleetOption::PLAIN
    },
    FleetOption {
        name: "OnUpdateFailure",
        about: "What happens when a new text fails: rollback (all instances get the last good text \
            again; the default for scaled templates and global units), pause (nobody else gets \
            it), or continue.",
        counts: Counts::Last,
        read: |wants, values| {
            wants.on_update_failure = one(values).map(|text| OnUpdateFailure::parse(&text));
        },
        refuse: |_, wants| {
            let is_bad = wants.on_update_failure == Some(OnUpdateFailure::Unreadable);
            let problem = "invalid OnUpdateFailure: expect rollback, pause or continue";
            is_bad.then(|| problem.to_string())
        },
        ..FleetOption::PLAIN
    },
    FleetOption {
        name: "UpdateOrder",
        about: "What comes first when a new text, a restart, a drain or a move takes an instance \
            of a scaled template down: stop-first (it is stopped, then started; the default), or \
            start-first (a spare instance is healthy before it is stopped).",
        counts: Counts::Last,
        read: |wants, values| {
            wants.update_order = one(values).map(|text| UpdateOrder::parse(&text));
        },
        refuse: |name, wants| match wants.update_order {
            Some(UpdateOrder::Unreadable) => {
                Some("invalid UpdateOrder: expect stop-first or start-first".to_string())
            }
            Some(UpdateOrder::StartFirst) => update::no_spares(name, wants),
            _ => None,
        },
        ..FleetOption::PLAIN
    },
    FleetOption {
        name: "HealthCheck",
        about: "What each instance is asked on its machine: http://:PORT/PATH, tcp://:PORT, or \
            exec:/PROGRAM ARGUMENTS inside the unit. One whose answers are bad counts as \
            unhealthy, is restarted, and then moved. Specifiers are put in.",
        counts: Counts::Last,
        read: |wants, values| wants.health.check = one(values),
        refuse: health::refuse_check,
        ..FleetOption::PLAIN
    },
    FleetOption {
        name: "HealthInterval",
        about: "How often it is asked: a time from 1s to 1h, 10s by default.",
        counts: Counts::Last,
        read: |wants, values| {
            wants.health.interval_ms =
                one(values).map(|text| health::interval_ms(&text).unwrap_or(u64::MAX));
        },
        refuse: |_, wants| match wants.health.interval_ms {
            Some(u64::MAX) => {
                Some("invalid HealthInterval: expect a time from 1s to 1h, as in 10s".to_string())
            }
            _ => health::refuse_alone("HealthInterval", wants),
        },
        ..FleetOption::PLAIN
    },
    FleetOption {
        name: "HealthTimeout",
        about: "How long an answer may take: a time from 100ms to 1min, 3s by default.",
        counts: Counts::Last,
        read: |wants, values| {
            wants.health.timeout_ms =
                one(values).map(|text| health::timeout_ms(&text).unwrap_or(u64::MAX));
        },
        refuse: |_, wants| match wants.health.timeout_ms {
            Some(u64::MAX) => Some(
                "invalid HealthTimeout: expect a time from 100ms to 1min, as in 3s".to_string(),
            ),
            _ => health::refuse_alone("HealthTimeout", wants),
        },
        ..FleetOption::PLAIN
    },
    FleetOption {
        name: "HealthRetries",
        about: "How many bad answers in a row make an instance unhealthy: a number from 1 to 100, 3 \
            by default.",
        counts: Counts::Last,
        read: |wants, values| {
            wants.health.retries = one(values).map(|text| health::retries(&text).unwrap_or(0));
        },
        refuse: |_, wants| match wants.health.retries {
            Some(0) => Some("invalid HealthRetries: expect a number from 1 to 100".to_string()),
            _ => health::refuse_alone("HealthRetries", wants),
        },
        ..FleetOption::PLAIN
    },
    FleetOption {
        name: "HealthStartPeriod",
        about: "How long after a start bad answers do not count: a time from 0 to 1d, 30s by \
            default.",
        counts: Counts::Last,
        read: |wants, values| {
            wants.health.start_period_ms =
                one(values).map(|text| health::start_period_ms(&text).unwrap_or(u64::MAX));
        },
        refuse: |_, wants| match wants.health.start_period_ms {
            Some(u64::MAX) => {
                let problem = "invalid HealthStartPeriod: expect a time from 0 to 1d, as in 30s";
                Some(problem.to_string())
            }
            _ => health::refuse_alone("HealthStartPeriod", wants),
        },
        ..FleetOption::PLAIN
    },
    FleetOption {
        name: "Canary",
        about: "How many instances get a new text before fleetctl rollout resume gives it to the \
            others: a number from 1, or a share of the wanted instances from 1% to 100%.",
        counts: Counts::Last,
        read: |wants, values| wants.canary = one(values).map(|text| MaxUnavailable::parse(&text)),
        refuse: |name, wants| match &wants.canary {
            Some(MaxUnavailable::Unreadable(text)) => Some(format!(
                "invalid Canary {text:?}: expect a number from 1, or a percentage from 1% to 100%"
            )),
            Some(_) if !name.is_template() && !wants.global => Some(format!(
                "Canary counts the instances of a template or a global unit, and {name} is \
                    neither; leave it out"
            )),
            _ => None,
        },
        ..FleetOption::PLAIN
    },
    FleetOption {
        name: "OnFailure.RESULT",
        family: Some("OnFailure."),
        about: "What fleet does about an instance that failed with this result of systemd's \
            (exit-code, signal, core-dump, oom-kill, timeout, watchdog, start-limit-hit), with \
            this exit status (exit-1 to exit-255) or its health check (unhealthy): restart it \
            where it is, move it, or give-up. Without it an instance is restarted 5 times, and \
            moved then; after a second oom-kill at once.",
        read: |wants, values| wants.on_failure = OnFailure::read(values),
        refuse: |_, wants| wants.on_failure.problem(),
        ..FleetOption::PLAIN
    },
    FleetOption {
        name: "MaxPerMachine",
        about: "Run at most so many instances of this template on one machine: a number from 1.",
        counts: Counts::Last,
        excludes: &["Global"],
        read: |wants, values| {
            wants.max_per_machine = one(values).map(|text| whole_number(&text).unwrap_or(0));
        },
        refuse: |name, wants| match wants.max_per_machine {
            Some(0) => Some("invalid MaxPerMachine: expect a number from 1".to_string()),
            Some(_) if !name.is_template() && name.template().is_none() => Some(format!(
                "MaxPerMachine counts the instances of a template, and {name} is none; leave it out"
            )),
            _ => None,
        },
        ..FleetOption::PLAIN
    },
    FleetOption {
        name: "Replicas",
        about: "How many instances of this template fleetctl apply makes run.",
        counts: Counts::Last,
        excludes: &["Global"],
        read: |wants, values| {
            wants.replicas = one(values).map(|text| whole_number(&text).unwrap_or(u32::MAX));
        },
        refuse: |name, wants| match wants.replicas {
            Some(count) if count > MAX_REPLICAS => {
                Some(format!("invalid Replicas: expect a number from 0 to {MAX_REPLICAS}"))
            }
            Some(_) if !name.is_template() => Some(format!(
                "Replicas counts the instances of a template, and {name} is none; leave it out"
            )),
            _ => None,
        },
        ..FleetOption::PLAIN
    },
    FleetOption {
        name: "Bundle",
        about: "The files and Quadlet units that come with it. Written by fleetctl apply.",
        counts: Counts::Last,
        read: |wants, values| wants.bundle = one(values),
        refuse: |_, wants| {
            let bundle = wants.bundle.as_deref().filter(|text| BundleRef::parse(text).is_none())?;
            Some(format!(
                "Bundle={bundle}: fleetctl apply writes this line; leave it out and apply the folder"
            ))
        },
        ..FleetOption::PLAIN
    },
    FleetOption {
        name: "BundleNeeds",
        about: "What the Quadlet units that come with it need of podman: types that not every \
            podman knows, and secret:NAME. Written by fleetctl apply.",
        list: Some(List { most: MAX_PATTERNS, of: "needs" }),
        read: |wants, values| {
            wants.bundle_needs = filled(values);
            wants.secrets.extend(podman::secrets_among(&wants.bundle_needs));
        },
        texts: Some(each_secret),
        refuse: |_, wants| {
            let bad = wants.bundle_needs.iter().find(|word| !podman::is_need(word))?;
            Some(format!(
                "BundleNeeds={bad}: fleetctl apply writes this line; leave it out and apply the \
                    folder"
            ))
        },
        ..FleetOption::PLAIN
    },
    FleetOption {
        name: "Needs",
        about: "Start only once this unit is healthy on any machine. What runs already is never \
            stopped for that.",
        list: Some(List { most: MAX_PATTERNS, of: "units" }),
        read: |wants, values| wants.needs = filled(values),
        texts: Some(|wants, each| wants.needs.iter_mut().for_each(each)),
        refuse: |name, wants| {
            let instance = if name.is_template() { name.replica(1) } else { name.clone() };
            wants.expanded(&instance).needs.iter().find_map(|need| match UnitName::parse(need) {
                Err(problem) => Some(format!("invalid Needs {need:?}: {problem}")),
                Ok(need) if need == instance || need == *name => Some(needs::says_itself(name)),
                Ok(_) => None,
            })
        },
        ..FleetOption::PLAIN
    },
    FleetOption {
        name: "Config",
        about: "Give each instance the values of this configuration (fleetctl config), as \
            environment and as files.",
        counts: Counts::Last,
        read: |wants, values| wants.config = one(values),
        refuse: |name, wants| {
            let config = wants.config.as_deref()?;
            let runs = name.systemd_name().suffix() == "service" && !name.is_shared();
            let sees = runs && !["pod", "kube"].contains(&name.suffix());
            match AppName::parse(config) {
                Err(problem) => Some(format!("invalid Config: {problem}")),
                Ok(_) if !sees => Some(format!(
                    "Config={config}: nothing that runs in {name} would see the values; only \
                        services and containers do"
                )),
                Ok(_) => None,
            }
        },
        ..FleetOption::PLAIN
    },
    FleetOption {
        name: "ConfigChanged",
        about: "What a change of that configuration does to instances: restart (unless said \
            otherwise), reload or ignore.",
        counts: Counts::Last,
        read: |wants, values| {
            wants.config_changed = one(values).map(|word| ConfigChanged::parse(&word));
        },
        refuse: |_, wants| match wants.config_changed {
            Some(ConfigChanged::Unreadable) => {
                Some("invalid ConfigChanged: expect restart, reload or ignore".to_string())
            }
            Some(_) if wants.config.is_none() => {
                Some("ConfigChanged without Config does nothing; name a configuration".to_string())
            }
            _ => None,
        },
        ..FleetOption::PLAIN
    },
];

impl FleetOption {
    /// What a row need not say.
    const PLAIN: FleetOption = FleetOption {
        name: "",
        legacy: &[],
        family: None,
        about: "",
        counts: Counts::All,
        list: None,
        excludes: &[],
        word: None,
        read: |_, _| {},
        texts: None,
        note: |_| None,
        refuse: |_, _| None,
    };

    /// The option that this is a name of, or an older one.
    pub fn named(name: &str) -> Option<&'static FleetOption> {
        OPTIONS.iter().find(|row| row.is_called(name))
    }

    /// Whether this is a name of it.
    pub(super) fn is_called(&self, name: &str) -> bool {
        match self.family {
            Some(family) => name.starts_with(family),
            None => self.names().any(|known| known == name),
        }
    }

    /// All its names, the one that goes before the others first.
    pub fn names(&self) -> impl Iterator<Item = &'static str> {
        std::iter::once(self.name).chain(self.legacy.iter().copied())
    }

    /// Whether `%i` and the like are put into its values.
    pub fn has_specifiers(&self) -> bool {
        self.texts.is_some()
    }

    /// The values of it that count, of the options of the section.
    fn values<'a>(&self, section: impl Iterator<Item = &'a UnitOption> + Clone) -> Vec<String> {
        if let Some(family) = self.family {
            let one = |option: &UnitOption| {
                let about = option.name.strip_prefix(family)?;
                let value = unquote(&option.value).pop().unwrap_or_default();
                Some(format!("{about}={value}"))
            };
            return section.filter_map(one).collect();
        }
        let under = |name: &'static str| {
            let given = section.clone().filter(move |option| option.name == name);
            given.flat_map(|option| unquote(&option.value))
        };
        let given = section.clone().filter(|option| self.names().any(|name| option.name == name));
        let all = given.flat_map(|option| unquote(&option.value));
        match self.counts {
            Counts::First => self.names().find_map(|name| under(name).next()).into_iter().collect(),
            Counts::Last => all.last().into_iter().collect(),
            Counts::All => all.collect(),
        }
    }

    /// Notes in `wants` what `section` says of this option.
    fn apply<'a>(
        &self,
        section: impl Iterator<Item = &'a UnitOption> + Clone,
        wants: &mut Constraints,
    ) {
        let values = self.values(section);
        if !values.is_empty() {
            (self.read)(wants, &values);
        }
    }

    /// Why a new unit of this name is not taken for one option that is called so.
    pub(super) fn refuses_one(&self, name: &UnitName, option: &UnitOption) -> Option<String> {
        let mut wants = Constraints::default();
        self.apply(std::iter::once(option), &mut wants);
        (self.refuse)(name, &wants)
    }

    /// Whether `file` demands anything by this option.
    pub(super) fn is_set(&self, file: &UnitFile) -> bool {
        let mut wants = Constraints::default();
        self.apply(section(&file.options), &mut wants);
        wants != Constraints::default()
    }
}

impl Constraints {
    /// Reads the section of a parsed file. What fleet 1.0 ignored (malformed metadata, bad
    /// patterns) is ignored here; [`lint`](super::lint::lint) says so.
    pub fn from_file(file: &UnitFile) -> Constraints {
        let mut wants = Constraints::default();
        if section(&file.options).next().is_some() {
            OPTIONS.iter().for_each(|row| row.apply(section(&file.options), &mut wants));
        }
        wants
    }

    /// The same constraints for one instance, with `%n`, `%N`, `%p` and `%i` put in.
    pub fn expanded(&self, instance: &UnitName) -> Constraints {
        let mut expanded = self.clone();
        expanded.each_text(&mut |text| {
            if text.contains('%') {
                *text = expand(text, instance);
            }
        });
        expanded
    }

    /// Whether any value holds a specifier, so that instances differ.
    pub fn has_specifiers(&self) -> bool {
        let mut found = false;
        self.clone().each_text(&mut |text| found |= text.contains('%'));
        found
    }

    /// Calls with each text that specifiers are put into.
    fn each_text(&mut self, each: &mut dyn FnMut(&mut String)) {
        OPTIONS.iter().filter_map(|row| row.texts).for_each(|texts| texts(self, each));
    }
}

/// The options of the section.
fn section(options: &[UnitOption]) -> impl Iterator<Item = &UnitOption> + Clone {
    options.iter().filter(|option| option.section == SECTION)
}

/// Whether these options make a unit run on every machine that fits; the last word counts.
pub fn is_global(options: &[UnitOption]) -> bool {
    let given =
        options.iter().rev().filter(|option| option.section == SECTION && option.name == "Global");
    given
        .filter_map(|option| unquote(&option.value).pop())
        .next()
        .is_some_and(|value| is_true(&value))
}

/// A number without a sign: `parse` would take a plus.
fn whole_number(text: &str) -> Option<u32> {
    Some(text).filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()))?.parse().ok()
}

/// The one value that counts, if it says anything.
fn one(values: &[String]) -> Option<String> {
    values.first().filter(|value| !value.is_empty()).cloned()
}

/// The values that say anything.
fn filled(values: &[String]) -> Vec<String> {
    values.iter().filter(|value| !value.is_empty()).cloned().collect()
}

fn labels(pairs: &[String]) -> Labels {
    let mut wanted: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (key, value) in pairs.iter().filter_map(|pair| metadata_pair(pair)) {
        wanted.entry(key.to_string()).or_default().insert(value.to_string());
    }
    wanted.into()
}

/// Calls with each key and value. Labels without specifiers stay as they are: making them anew
/// takes a checksum.
fn each_label(wants: &mut Constraints, each: &mut dyn FnMut(&mut String)) {
    if !wants.metadata.have_specifiers() {
        return;
    }
    let mut with = |text: &String| {
        let mut text = text.clone();
        each(&mut text);
        text
    };
    let wanted: BTreeMap<String, BTreeSet<String>> = wants
        .metadata
        .iter()
        .map(|(key, values)| (with(key), values.iter().map(&mut with).collect()))
        .collect();
    wants.metadata = wanted.into();
}

/// Calls with the name of each secret.
fn each_secret(wants: &mut Constraints, each: &mut dyn FnMut(&mut String)) {
    if wants.secrets.iter().any(|name| name.contains('%')) {
        let names = std::mem::take(&mut wants.secrets).into_iter();
        wants.secrets = names
            .map(|mut name| {
                each(&mut name);
                name
            })
            .collect();
    }
}

/// Why no unit can be called what `MachineOf=` says.
fn no_unit(peer: &str) -> Option<String> {
    let problem = UnitName::parse(&expand(peer, &UnitName::trusted("a@1.service"))).err()?;
    let hint = match &problem {
        _ if peer.contains(char::is_whitespace) => {
            "; put each name into quotes, or on a line of its own".to_string()
        }
        NameError::NoSuffix => format!("; did you mean \"{peer}.service\"?"),
        _ => String::new(),
    };
    Some(format!("MachineOf \"{peer}\" is no unit: {problem}{hint}"))
}

/// `key=value` with exactly one `=` and neither side empty.
fn metadata_pair(pair: &str) -> Option<(&str, &str)> {
    let (key, value) = pair.split_once('=')?;
    (!key.is_empty() && !value.is_empty() && !value.contains('=')).then_some((key, value))
}

/// A value that starts and ends with a quote holds several: `"a=b" "c=d"`. What stands between
/// quotes keeps its spaces.
pub(crate) fn unquote(value: &str) -> Vec<String> {
    if !value.starts_with('"') || !value.ends_with('"') {
        return vec![value.to_string()];
    }
    let mut values = vec![String::new()];
    let mut inside = false;
    for c in value.chars() {
        match c {
            '"' => inside = !inside,
            space if space.is_whitespace() && !inside => values.push(String::new()),
            other => values.last_mut().expect("never empty").push(other),
        }
    }
    if values.len() > 1 {
        values.retain(|value| !value.is_empty()); // two spaces between values
    }
    values
}

/// fleet 1.0's words for yes; every other one is no, also systemd's `y`.
fn is_true(value: &str) -> bool {
    ["true", "yes", "1", "on", "t"].contains(&value.to_lowercase().as_str())
}

/// Puts `%n`, `%N`, `%p` and `%i` of `instance` into `text`.
pub fn expand(text: &str, instance: &UnitName) -> String {
    if !text.contains('%') {
        return text.to_string();
    }
    let i = instance.instance().unwrap_or("");
    text.replace("%n", instance.as_str())
        .replace("%N", instance.stem())
        .replace("%p", instance.prefix())
        .replace("%i", i)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(section: &str) -> UnitFile {
        UnitFile::parse(&format!("[X-Fleet]\n{section}\n")).unwrap()
    }

    fn constraints(section: &str) -> Constraints {
        Constraints::from_file(&file(section))
    }

    #[test]
    fn each_option_and_its_legacy_names_mean_what_they_meant() {
        for (section, expected) in [
            // The first value wins, the present name before the legacy ones.
            ("MachineID=a\nMachineID=b", "id=a"),
            ("X-ConditionMachineBootID=c\nX-ConditionMachineID=b\nMachineID=a", "id=a"),
            ("X-ConditionMachineBootID=c\nX-ConditionMachineID=b", "id=b"),
            ("X-ConditionMachineBootID=c", "id=c"),
            ("MachineID=", ""),
            // Exact names: neither split at spaces nor patterns.
            ("MachineOf=a.service\nMachineOf=b.service", "of=[a.service] of=[b.service]"),
            ("MachineOf=a.service b.service", "of=[a.service b.service]"),
            (
                "X-ConditionMachineOf=a.service\nMachineOf=\"b.service\" \"c.service\"",
                "of=[a.service] of=[b.service] of=[c.service]",
            ),
            // Keys are all needed, of one key's values any; what is malformed is ignored.
            (
                "MachineMetadata=region=eu\nMachineMetadata=region=us\nMachineMetadata=disk=ssd",
                "disk={\"ssd\"} region={\"eu\", \"us\"}",
            ),
            (
                "MachineMetadata=\"region=eu\" \"disk=ssd\"\nX-ConditionMachineMetadata=region=us",
                "disk={\"ssd\"} region={\"eu\", \"us\"}",
            ),
            ("MachineMetadata=\"a=b\"  \"c=d\"\t\"e=f g\"", "a={\"b\"} c={\"d\"} e={\"f g\"}"),
            (
                "MachineMetadata=bad\nMachineMetadata=a=b=c\nMachineMetadata==c\nMachineMetadata=a=",
                "",
            ),
            // Split at spaces, repeatable, both names together.
            (
                "Conflicts=a.* b.*\nX-Conflicts=c.*\nConflicts=\"d.* e.*\" \"f.*\"",
                "not=a.* not=b.* not=c.* not=d.* not=e.* not=f.*",
            ),
            // The last value wins.
            ("Global=true\nGlobal=no", ""),
            ("Global=no\nGlobal=YES", "global"),
            ("Global=1", "global"),
            ("Global=On", "global"),
            ("Global=t", "global"),
            ("Global=y", ""),
            // Patterns, not split at spaces.
            (
                "Replaces=a.* b.*\nReplaces=\"c.*\" \"d.*\"",
                "replaces=[a.* b.*] replaces=[c.*] replaces=[d.*]",
            ),
            ("X-Replaces=a.*", ""),
        ] {
            assert_eq!(said(&constraints(section)), expected, "{section}");
        }
    }

    /// Constraints as one line.
    fn said(c: &Constraints) -> String {
        let mut words: Vec<String> = c.machine_id.iter().map(|id| format!("id={id}")).collect();
        words.extend(c.machine_of.iter().map(|peer| format!("of=[{peer}]")));
        words.extend(c.metadata.iter().map(|(key, values)| format!("{key}={values:?}")));
        words.extend(c.conflicts.iter().map(|pattern| format!("not={pattern}")));
        words.extend(c.global.then(|| "global".to_string()));
        words.extend(c.replaces.iter().map(|pattern| format!("replaces=[{pattern}]")));
        words.join(" ")
    }

    #[test]
    fn the_documentation_names_each_option_once_and_no_other() {
        let page = include_str!("../../../../docs/unit-files.md");
        let section = page.split("## [X-Fleet]\n").nth(1).unwrap().split("\n## ").next().unwrap();
        let table =
            section.split("| option | means |").nth(1).unwrap().split("\n\n").next().unwrap();
        let rows = table.lines().filter_map(|line| line.strip_prefix("| `")?.split_once('='));
        let documented: Vec<&str> = rows.map(|(name, _)| name).collect();
        let known: Vec<&str> = OPTIONS.iter().map(|row| row.name).collect();
        assert_eq!(documented, known, "the table of docs/unit-files.md and that of xfleet.rs");
        for row in OPTIONS {
            for older in row.legacy {
                assert!(section.contains(&format!("`{older}`")), "{older} of {}", row.name);
            }
            let excluded: Vec<String> =
                row.excludes.iter().map(|other| format!("`{other}=`")).collect();
            if let Some((last, others)) = excluded.split_last() {
                let or = if others.is_empty() { "" } else { " or " };
                let rule = format!("| `{}=` | {}{or}{last} |", row.name, others.join(", "));
                assert!(section.contains(&rule), "{rule}");
            }
        }
    }

    #[test]
    fn each_option_has_names_of_its_own_a_line_of_its_own_and_excludes_what_there_is() {
        let names: Vec<&str> = OPTIONS.iter().flat_map(FleetOption::names).collect();
        assert_eq!(names.iter().collect::<BTreeSet<_>>().len(), names.len(), "{names:?}");
        for row in OPTIONS {
            assert!(row.about.ends_with('.') && row.about.starts_with(char::is_uppercase));
            let known = |name: &&str| FleetOption::named(name).is_some_and(|it| it.name == *name);
            assert!(row.excludes.iter().all(known), "{:?}", row.excludes);
        }
    }

    #[test]
    fn specifiers_are_put_in_for_each_instance() {
        let text = "MachineID=%i\nMachineOf=%n %N %p %i %H \
            %%\nMachineMetadata=%p=%i\nConflicts=%p@*.service\nReplaces=%N.*";
        let wants = constraints(text);
        assert!(wants.has_specifiers());
        for (instance, expected) in [
            (
                "web@3.service",
                "id=3 of=[web@3.service web@3 web 3 %H %%] web={\"3\"} not=web@*.service \
                    replaces=[web@3.*]",
            ),
            (
                "db.service",
                "id= of=[db.service db db  %H %%] db={\"\"} not=db@*.service replaces=[db.*]",
            ),
        ] {
            assert_eq!(said(&wants.expanded(&UnitName::trusted(instance))), expected);
        }
    }
}
