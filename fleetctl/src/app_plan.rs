//! What an apply would change, as people read it: `+` is new, `~` changes, `-` goes, `=` stays, and
//! `!` stays though the files no longer have it.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use fleet_core::app::{AppName, Basis, without_bundle};
use fleet_core::event::Numbers;
use fleet_core::name::UnitName;
use fleet_core::wire::{AppPlan, FilePlan, InstanceOn, Machine, UnitPlan};

use crate::diff::{ADDED, REMOVED, unified};
use crate::output::{counted, machine_legend};
use crate::screen::Span;

/// The colour of what changes, and of what the user should look at.
const CHANGED: &str = "33";

/// What stands before each line that says more of a unit.
const INDENT: &str = "    ";

/// What a plan was made on, as `--if-revision` takes it: `3`, or `3.4812.9f0c12ab34cd56ef`, where
/// what follows the application's revision stands for the state of its units.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PlannedOn {
    pub(crate) revision: u64,
    /// An older fleetd says nothing of units.
    pub(crate) units: Option<String>,
}

impl PlannedOn {
    pub(crate) fn of(plan: &AppPlan) -> PlannedOn {
        let units = Some(plan.basis.clone()).filter(|basis| !basis.is_empty());
        PlannedOn { revision: plan.revision, units }
    }
}

impl FromStr for PlannedOn {
    type Err = String;

    fn from_str(text: &str) -> Result<PlannedOn, String> {
        let (revision, units) = match text.split_once('.') {
            Some((revision, units)) => (revision, Some(units)),
            None => (text, None),
        };
        let wrong = || format!("expect a revision, as `fleetctl plan` says it: {text:?}");
        let revision = revision.parse().map_err(|_| wrong())?;
        match units.is_some_and(|units| Basis::parse(units).is_none()) {
            true => Err(wrong()),
            false => Ok(PlannedOn { revision, units: units.map(str::to_string) }),
        }
    }
}

impl fmt::Display for PlannedOn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.units {
            Some(units) => write!(f, "{}.{units}", self.revision),
            None => write!(f, "{}", self.revision),
        }
    }
}

/// The whole plan, with a line of counts at its end.
pub(crate) fn spans(plan: &AppPlan, machines: &[Machine]) -> Vec<Span> {
    let legend = |id: &str| {
        let machine = machines.iter().find(|machine| machine.id == id);
        machine_legend(id, machine.map_or("", |machine| &machine.primary_ip), false)
    };
    let mut spans = Vec::new();
    for unit in &plan.units {
        spans.extend(unit_spans(unit, &legend));
    }
    plan.files.iter().for_each(|file| spans.extend(file_spans(file)));
    spans
}

/// `2 units and 1 file to create, 1 unit to change, 1 unit stays as it is`.
pub(crate) fn counts(plan: &AppPlan) -> String {
    let units = |kind: &str| plan.units.iter().filter(|unit| unit.kind == kind).count();
    let files = |kind: &str| plan.files.iter().filter(|file| file.kind == kind).count();
    let mut counts = Vec::new();
    for kind in ["create", "change", "remove"] {
        let all = [(units(kind), "unit"), (files(kind), "file")];
        let some = all.iter().filter(|(count, _)| *count > 0);
        let some: Vec<String> = some.map(|(count, noun)| counted(*count, noun)).collect();
        if !some.is_empty() {
            counts.push(format!("{} to {kind}", some.join(" and ")));
        }
    }
    match units("keep") {
        0 => {}
        1 => counts.push("1 unit stays as it is".to_string()),
        several => counts.push(format!("{several} units stay as they are")),
    }
    counts.join(", ")
}

/// `shop is at revision 3`, or that it is new.
pub(crate) fn revision(name: &AppName, plan: &AppPlan) -> String {
    match plan.revision {
        0 => format!("{name} is new"),
        revision => format!("{name} is at revision {revision}"),
    }
}

fn mark(kind: &str) -> (&'static str, Option<&'static str>) {
    match kind {
        "create" => ("+", Some(ADDED)),
        "change" => ("~", Some(CHANGED)),
        "remove" => ("-", Some(REMOVED)),
        "stray" => ("!", Some(CHANGED)),
        _ => ("=", None),
    }
}

fn unit_spans(unit: &UnitPlan, legend: &impl Fn(&str) -> String) -> Vec<Span> {
    let (mark, colour) = mark(&unit.kind);
    let mut head = format!("{mark} {}", unit.name);
    let stays = unit.kind == "keep" || unit.kind == "stray";
    if stays && !unit.details.is_empty() {
        head.push_str(&format!(": {}", unit.details.join("; ")));
    } else if unit.kind == "stray" {
        head.push_str(": no longer in the files; --prune removes it");
    }
    let mut spans = vec![Span { text: head, colour }, Span::from("\n")];
    if let (Some(old), Some(new)) = (&unit.old_text, &unit.new_text) {
        spans.extend(unified(&comparable(old), &comparable(new), INDENT));
    }
    let mut lines: Vec<String> = Vec::new();
    if !stays && !unit.details.is_empty() {
        lines.push(unit.details.join("; "));
    }
    lines.extend(placements(unit, legend));
    lines.extend(unit.unplaced.iter().map(|unplaced| {
        let reasons = match unplaced.reasons.is_empty() {
            true => String::new(),
            false => format!(": {}", unplaced.reasons.join(", ")),
        };
        format!("no machine for {}{reasons}", names(unplaced.instances.iter()))
    }));
    lines.extend(disturbance(unit));
    spans.extend(lines.into_iter().map(|line| Span::from(format!("{INDENT}{line}\n"))));
    spans
}

/// A line for each machine that instances go to or leave, and for each pair of machines between
/// which they move.
fn placements(unit: &UnitPlan, legend: &impl Fn(&str) -> String) -> Vec<String> {
    let from = |instance: &UnitName| {
        unit.stops.iter().find(|stop| stop.instance == *instance).map(|stop| &stop.machine)
    };
    let moves = |at: &&InstanceOn| from(&at.instance).is_some();
    let goes = |stop: &&InstanceOn| !unit.starts.iter().any(|at| at.instance == stop.instance);
    let mut moved: BTreeMap<String, Vec<&UnitName>> = BTreeMap::new();
    for at in unit.starts.iter().filter(moves) {
        let left = from(&at.instance).map_or("", |machine| machine.as_str());
        let way = format!("{} → {}", legend(left), legend(at.machine.as_str()));
        moved.entry(way).or_default().push(&at.instance);
    }
    let by_machine = |word: &str, all: Vec<&InstanceOn>| {
        let mut machines: BTreeMap<&str, Vec<&UnitName>> = BTreeMap::new();
        for on in all {
            machines.entry(on.machine.as_str()).or_default().push(&on.instance);
        }
        let line = |(id, instances): (&str, Vec<&UnitName>)| {
            format!("{word} {}: {}", legend(id), names(instances.into_iter()))
        };
        machines.into_iter().map(line).collect::<Vec<_>>()
    };
    let mut lines = by_machine("starts on", unit.starts.iter().filter(|at| !moves(at)).collect());
    let way = |(way, instances): (String, Vec<&UnitName>)| {
        format!("moves {way}: {}", names(instances.into_iter()))
    };
    lines.extend(moved.into_iter().map(way));
    lines.extend(by_machine("leaves", unit.stops.iter().filter(goes).collect()));
    lines
}

/// What restarts, and how many are down at once.
fn disturbance(unit: &UnitPlan) -> Option<String> {
    let down = match unit.down_at_most {
        0 => String::new(),
        down => format!(", at most {down} down at any time"),
    };
    match (unit.kind.as_str(), unit.restarts) {
        ("change", 0) if unit.down_at_most == 0 => Some("restarts nothing".to_string()),
        (_, 0) if unit.down_at_most == 0 => None,
        (_, 0) => Some(format!("at most {} down at any time", unit.down_at_most)),
        (_, restarts) => Some(format!("restarts {}{down}", counted(restarts, "instance"))),
    }
}

fn file_spans(file: &FilePlan) -> Vec<Span> {
    let (mark, colour) = mark(&file.kind);
    let used = match file.units.is_empty() {
        true => "no unit names it".to_string(),
        false => format!("for {}", file.units.join(", ")),
    };
    let used = if file.kind == "remove" { "goes".to_string() } else { used };
    vec![
        Span { text: format!("{mark} {}", file.path), colour },
        Span::from(format!(" (file; {used})\n")),
    ]
}

/// `web@{1-5,9}.service, db.service`.
fn names<'a>(instances: impl Iterator<Item = &'a UnitName>) -> String {
    let mut all: BTreeMap<UnitName, Vec<u32>> = BTreeMap::new();
    for instance in instances {
        match (instance.template(), instance.replica_number()) {
            (Some(template), Some(number)) => all.entry(template).or_default().push(number),
            _ => all.entry(instance.clone()).or_default().clear(),
        }
    }
    let name = |(unit, numbers): (UnitName, Vec<u32>)| match numbers.as_slice() {
        [] => unit.to_string(),
        [one] => unit.replica(*one).to_string(),
        _ => {
            let numbers: Numbers = numbers.into_iter().collect();
            format!("{}@{{{numbers}}}.{}", unit.prefix(), unit.suffix())
        }
    };
    all.into_iter().map(name).collect::<Vec<_>>().join(", ")
}

/// A unit's text as people compare it: without the line that names its bundle, since what is in
/// the bundle is listed as files, and with one newline at its end.
pub(crate) fn comparable(text: &str) -> String {
    format!("{}\n", without_bundle(text).trim_end_matches('\n'))
}

#[cfg(test)]
mod tests {
    use fleet_core::name::MachineId;
    use fleet_core::wire::Unplaced;

    use super::*;
    use crate::screen::Screen;

    fn on(instance: &str, machine: &str) -> InstanceOn {
        InstanceOn { instance: UnitName::trusted(instance), machine: MachineId::new(machine) }
    }

    fn said(unit: UnitPlan) -> String {
        let plan = AppPlan { units: vec![unit], ..AppPlan::default() };
        Screen::default().render(&spans(&plan, &[]))
    }

    #[test]
    fn instances_are_told_by_machine_and_moves_by_pair() {
        let unit = UnitPlan {
            name: "web@.service".to_string(),
            kind: "change".to_string(),
            starts: vec![
                on("web@1.service", "a"),
                on("web@2.service", "a"),
                on("web@3.service", "b"),
            ],
            stops: vec![on("web@3.service", "c"), on("web@9.service", "c")],
            unplaced: vec![Unplaced {
                instances: vec![UnitName::trusted("web@4.service")],
                reasons: vec!["3 × lacks disk=ssd".to_string()],
            }],
            restarts: 1,
            down_at_most: 2,
            ..UnitPlan::default()
        };
        assert_eq!(
            said(unit),
            "~ web@.service\n    starts on a: web@{1-2}.service\n    moves c → b: web@3.service\n    \
                leaves c: web@9.service\n    no machine for web@4.service: 3 × lacks disk=ssd\n    \
                restarts 1 instance, at most 2 down at any time\n"
        );
    }

    #[test]
    fn a_change_that_restarts_nothing_says_so() {
        let old_text = Some("# a\n[Service]\nExecStart=/a\n".to_string());
        let new_text = Some("# b\n[Service]\nExecStart=/a\n".to_string());
        let (name, kind) = ("a.service".to_string(), "change".to_string());
        assert_eq!(
            said(UnitPlan { name, kind, old_text, new_text, ..UnitPlan::default() }),
            "~ a.service\n    @@ -1,3 +1,3 @@\n    -# a\n    +# b\n     [Service]\n     \
                ExecStart=/a\n    restarts nothing\n"
        );
    }

    #[test]
    fn the_line_of_a_bundle_and_newlines_at_the_end_are_no_difference() {
        let own = "[Container]\nImage=x";
        let sum = "0".repeat(64);
        assert_eq!(
            comparable(&format!("{own}\n\n[X-Fleet]\nBundle=shop/{sum}\n")),
            comparable(own)
        );
        assert_ne!(comparable("[Container]\nImage=y"), comparable(own));
    }
}
