//! The last failures of a unit's instances, wherever they were.

use std::collections::BTreeMap;

use super::Cluster;
use crate::model::Failed;
use crate::name::UnitName;
use crate::unit::on_failure::Kind;
use crate::wire;

/// How many are shown.
const SHOWN: usize = 10;

/// How far the clocks of two machines may be apart, in milliseconds: what failed so shortly before
/// the unit was submitted may be this unit's.
const APART_MS: u64 = 10_000;

impl Cluster {
    /// The last failures of the unit `name`, of a template all its instances', and how many of each
    /// kind are known. What an earlier unit of that name left is none of them.
    pub fn failures(&self, name: &UnitName) -> wire::FailurePage {
        let since_ms = self.owner(name).map_or(0, |owner| owner.created_ms);
        let of_it = |failed: &&Failed| {
            let instance = &failed.instance;
            let is = instance == name
                || (name.is_template()
                    && instance.template().as_ref() == Some(name)
                    && !self.records.contains_key(instance));
            is && failed.at_ms.saturating_add(APART_MS) >= since_ms
        };
        let all = self.snapshot.reports.iter().flat_map(|(machine, report)| {
            report.failures.iter().filter(of_it).map(move |failed| (machine, failed))
        });
        let mut failures = Vec::new();
        let mut kinds: BTreeMap<String, u32> = BTreeMap::new();
        for (machine, failed) in all {
            let of_kind = kinds.entry(Kind::of(&failed.result).word().to_string()).or_default();
            *of_kind = of_kind.saturating_add(failed.count);
            failures.push(wire::UnitFailure {
                name: failed.instance.to_string(),
                machine_id: machine.to_string(),
                result: failed.result.clone(),
                code: failed.code,
                count: failed.count,
                at_ms: failed.at_ms,
                first_ms: failed.first_ms,
            });
        }
        failures.sort_by(|a, b| {
            b.at_ms
                .cmp(&a.at_ms)
                .then_with(|| (&a.name, &a.machine_id).cmp(&(&b.name, &b.machine_id)))
        });
        failures.truncate(SHOWN);
        wire::FailurePage { failures, kinds }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::name::MachineId;
    use crate::plan::script::snapshot;

    #[test]
    fn failures_are_those_of_all_machines_the_newest_first_and_counted_by_kind() {
        let seen = snapshot("machine a\nmachine b\nunit web@.service x2");
        let mut cluster = Cluster { snapshot: seen, ..Cluster::default() };
        let mut note = |machine: &str, instance: &str, result: &str, at_ms, count| {
            let report = cluster.snapshot.reports.entry(MachineId::new(machine)).or_default();
            Arc::make_mut(report).failures.push(Failed {
                instance: UnitName::trusted(instance),
                result: result.into(),
                code: Some(9),
                at_ms,
                first_ms: 1,
                count,
            });
        };
        // Moved from a to b: both know of it.
        note("a", "web@1.service", "oom-kill", 5_000, 2);
        note("a", "db.service", "exit-code", 9_000, 1);
        note("b", "web@1.service", "exit-code", 7_000, 3);
        note("b", "web@2.service", "protocol", 6_000, 1);
        let told = |name: &str| {
            let page = cluster.failures(&UnitName::trusted(name));
            let one = |failed: &wire::UnitFailure| {
                format!("{} {} {} x{}", failed.name, failed.machine_id, failed.result, failed.count)
            };
            (page.failures.iter().map(one).collect::<Vec<_>>().join(", "), page.kinds)
        };
        let (lines, kinds) = told("web@.service");
        let expected = "web@1.service b exit-code x3, web@2.service b protocol x1, \
            web@1.service a oom-kill x2";
        assert_eq!(lines, expected);
        let kinds: Vec<String> = kinds.iter().map(|(kind, n)| format!("{kind} {n}")).collect();
        assert_eq!(kinds, ["exit-code 3", "oom-kill 2", "other 1"]);
        let of_one = "web@1.service b exit-code x3, web@1.service a oom-kill x2";
        assert_eq!(told("web@1.service").0, of_one);
        assert_eq!(told("none.service"), (String::new(), BTreeMap::new()));
    }
}
