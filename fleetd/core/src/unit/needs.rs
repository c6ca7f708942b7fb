//! `Needs=`: circles of units that wait for each other, which are refused where they are submitted.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use super::family;
use super::xfleet::Constraints;
use crate::model::Unit;
use crate::name::UnitName;

/// The names of a circle that a unit would close, itself first and last: `a.service` needs
/// `b.service` needs `a.service`. `new` holds the units that come together with it, which take the
/// place of those of these names in `units`.
pub fn circle(
    units: &BTreeMap<UnitName, Arc<Unit>>,
    new: &BTreeMap<UnitName, Constraints>,
    name: &UnitName,
) -> Option<Vec<UnitName>> {
    let mut before: BTreeMap<UnitName, UnitName> = BTreeMap::new();
    let mut open = VecDeque::from([name.clone()]);
    while let Some(unit) = open.pop_front() {
        for needed in needed(units, new, &unit) {
            // A replica waits as its template does.
            if needed == *name || needed.template().is_some_and(|template| template == *name) {
                return Some(path(&before, name, unit, needed));
            }
            if !before.contains_key(&needed) {
                before.insert(needed.clone(), unit.clone());
                open.push_back(needed);
            }
        }
    }
    None
}

/// The way from `first` to `last` and one further.
fn path(
    before: &BTreeMap<UnitName, UnitName>,
    first: &UnitName,
    mut last: UnitName,
    end: UnitName,
) -> Vec<UnitName> {
    let mut path = vec![end];
    while last != *first {
        let Some(next) = before.get(&last).cloned() else { break };
        path.push(std::mem::replace(&mut last, next));
    }
    path.push(first.clone());
    path.reverse();
    path
}

/// What the user reads of a circle: `a.service needs b.service needs a.service`.
pub fn says(circle: &[UnitName]) -> String {
    if let [first, last] = circle
        && first == last
    {
        return says_itself(first);
    }
    let names: Vec<&str> = circle.iter().map(UnitName::as_str).collect();
    format!("Needs= goes in a circle, so none of these could start: {}", names.join(" needs "))
}

/// The same of a unit that needs itself.
pub(super) fn says_itself(name: &UnitName) -> String {
    format!("{name} needs itself, so it could never start")
}

/// What a unit needs, with specifiers put in.
fn needed(
    units: &BTreeMap<UnitName, Arc<Unit>>,
    new: &BTreeMap<UnitName, Constraints>,
    name: &UnitName,
) -> Vec<UnitName> {
    let template = || name.template();
    let of_new = new.get(name).or_else(|| new.get(&template()?));
    let of_old = || family::owner(units, name, |unit| unit.replicas).map(|(_, unit)| unit);
    let Some(wants) = of_new.or_else(|| of_old().map(|unit| &unit.constraints)) else {
        return Vec::new();
    };
    // Of a template any instance stands for all.
    let instance = if name.is_template() { name.replica(1) } else { name.clone() };
    let names = wants.expanded(&instance).needs;
    names.iter().filter_map(|name| UnitName::parse(name).ok()).collect()
}

/// Those of its needs that are no unit of the cluster.
pub fn unknown(
    units: &BTreeMap<UnitName, Arc<Unit>>,
    name: &UnitName,
    wants: &Constraints,
) -> Vec<String> {
    let instance = if name.is_template() { name.replica(1) } else { name.clone() };
    let is_known = |name: &String| {
        let owner = |name| family::owner(units, &name, |unit: &Arc<Unit>| unit.replicas).is_some();
        UnitName::parse(name).is_ok_and(owner)
    };
    let mut needs = wants.expanded(&instance).needs;
    needs.retain(|name| !is_known(name));
    needs
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::script::snapshot;

    fn found(text: &str, name: &str) -> Option<String> {
        let seen = snapshot(text);
        let path = circle(&seen.units, &BTreeMap::new(), &UnitName::trusted(name))?;
        Some(path.iter().map(UnitName::as_str).collect::<Vec<_>>().join(" "))
    }

    #[test]
    fn a_circle_is_found_with_its_names_over_any_number_of_units_and_over_templates() {
        let three = "unit a.service | Needs=b.service\nunit b.service | Needs=x.service | \
            Needs=c.service\nunit c.service | Needs=a.service\nunit x.service";
        let circle = Some("a.service b.service c.service a.service".to_string());
        assert_eq!(found(three, "a.service"), circle);
        assert_eq!(found(three, "x.service"), None);
        let outside = "unit a.service | Needs=b.service\nunit b.service | Needs=c.service\n\
            unit c.service | Needs=b.service";
        assert_eq!(found(outside, "a.service"), None, "it only leads to one");
        let alone = found("unit a.service | Needs=a.service", "a.service");
        assert_eq!(alone.as_deref(), Some("a.service a.service"));
        let template = "unit web@.service x2 | Needs=db@%i.service\n\
            unit db@.service x2 | Needs=web@1.service";
        let circle = Some("web@.service db@1.service web@1.service".to_string());
        assert_eq!(found(template, "web@.service"), circle);
        assert_eq!(found("unit web@.service x2 | Needs=db.service", "web@.service"), None);
    }

    #[test]
    fn a_circle_of_one_is_said_as_what_it_is() {
        let names = |names: &[&str]| -> Vec<UnitName> {
            names.iter().map(|name| UnitName::trusted(*name)).collect()
        };
        let alone = says(&names(&["a.service", "a.service"]));
        assert_eq!(alone, "a.service needs itself, so it could never start");
        let template = says(&names(&["web@.service", "web@1.service"]));
        assert!(template.ends_with(": web@.service needs web@1.service"), "{template}");
    }

    #[test]
    fn what_comes_together_is_looked_at_together() {
        let seen = snapshot("unit a.service | Needs=b.service\nunit b.service");
        let wants = |needs: &[&str]| Constraints {
            needs: needs.iter().map(ToString::to_string).collect(),
            ..Constraints::default()
        };
        let (a, b) = (UnitName::trusted("a.service"), UnitName::trusted("b.service"));
        let new = BTreeMap::from([(b.clone(), wants(&["a.service"]))]);
        assert!(circle(&seen.units, &new, &b).is_some());
        let turned = BTreeMap::from([(b.clone(), wants(&["a.service"])), (a, wants(&[]))]);
        assert_eq!(circle(&seen.units, &turned, &b), None);
        let names = unknown(&seen.units, &b, &wants(&["a.service", "nosuch.service"]));
        assert_eq!(names, ["nosuch.service"]);
    }
}
