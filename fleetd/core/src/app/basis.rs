//! What a plan of an application was made on, so that an apply can tell whether that still holds.

use std::collections::BTreeSet;
use std::fmt;

use super::{AppName, Checksum};
use crate::model::UnitRecord;
use crate::name::UnitName;
use crate::view::Cluster;
use crate::wire::AppFiles;

/// How many hex digits stand for the units: nobody makes two states of a cluster alike on purpose.
const DIGITS: usize = 16;

/// How many changed units one refusal names.
const NAMED: usize = 5;

/// The state of all units that an apply of some files may write: `4812.9f0c12ab34cd56ef`. The
/// store's revision says which of them changed since, the digest whether any did, also one that was
/// destroyed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Basis {
    revision: i64,
    digest: String,
}

impl Basis {
    /// That of the cluster as it is.
    pub fn of(cluster: &Cluster, app: &AppName, files: &AppFiles) -> Basis {
        let line = |name: &UnitName| {
            format!("{name} {}\n", cluster.units_written.get(name).copied().unwrap_or(0))
        };
        let all: String = concerned(cluster, app, files).iter().map(line).collect();
        let digest = Checksum::of(all.as_bytes()).as_str()[..DIGITS].to_string();
        Basis { revision: cluster.snapshot.revision, digest }
    }

    /// Reads one as it is written.
    pub fn parse(text: &str) -> Option<Basis> {
        let (revision, digest) = text.split_once('.')?;
        let good = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
        let fits = digest.len() == DIGITS && digest.bytes().all(good);
        let revision = revision.parse().ok().filter(|revision| *revision >= 0 && fits)?;
        Some(Basis { revision, digest: digest.to_string() })
    }

    /// What changed since; `None` if nothing did that an apply would write.
    pub fn overtaken(&self, cluster: &Cluster, app: &AppName, files: &AppFiles) -> Option<String> {
        if Basis::of(cluster, app, files).digest == self.digest {
            return None;
        }
        let concerned = concerned(cluster, app, files);
        let changed: Vec<&UnitRecord> = concerned
            .iter()
            .filter(|name| cluster.units_written.get(*name).is_some_and(|at| *at > self.revision))
            .filter_map(|name| cluster.records.get(name).map(AsRef::as_ref))
            .collect();
        if changed.is_empty() {
            return Some("a unit of it was destroyed".to_string());
        }
        let more = changed.len().saturating_sub(NAMED);
        let mut said: Vec<String> = changed.into_iter().take(NAMED).map(is_now).collect();
        said.extend((more > 0).then(|| format!("{more} units more")));
        Some(format!("somebody changed {}", said.join(", ")))
    }
}

impl fmt::Display for Basis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.revision, self.digest)
    }
}

/// The units that an apply may write or remove.
fn concerned(cluster: &Cluster, app: &AppName, files: &AppFiles) -> BTreeSet<UnitName> {
    let asked = files.units.keys().filter_map(|name| UnitName::parse(name).ok());
    let mut all: BTreeSet<UnitName> = asked.collect();
    if let Some(app) = cluster.apps.get(app) {
        let replicas = app.replicas_of_their_own(cluster);
        let goes = |name: &UnitName| name.template().is_some_and(|name| !all.contains(&name));
        let replicas: Vec<UnitName> = replicas.into_iter().filter(goes).collect();
        all.extend(replicas);
        all.extend(app.units.iter().cloned());
    }
    all
}

/// `web@.service (now revision 5, 3 replicas, launched)`.
fn is_now(record: &UnitRecord) -> String {
    let replicas = record.replicas.map(|count| format!(", {}", super::changes::replicas(count)));
    let (name, replicas) = (&record.name, replicas.unwrap_or_default());
    format!("{name} (now revision {}{replicas}, {})", record.revision, record.desired)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn wrote(cluster: &mut Cluster, name: &str, at: i64, count: Option<u32>) {
        let name = UnitName::trusted(name);
        let record =
            UnitRecord { replicas: count, ..UnitRecord::new(name.clone(), "[Service]\nA=b\n") };
        cluster.records.insert(name.clone(), Arc::new(record));
        cluster.units_written.insert(name, at);
        cluster.snapshot.revision = at;
    }

    #[test]
    fn any_write_to_a_unit_that_is_about_to_be_written_is_noticed_and_no_other() {
        let app = AppName::parse("shop").unwrap();
        let mut files = AppFiles::default();
        for name in ["web@.service", "db.service", "new.service"] {
            files.units.insert(name.to_string(), String::new());
        }
        let mut cluster = Cluster::default();
        wrote(&mut cluster, "web@.service", 3, Some(2));
        wrote(&mut cluster, "db.service", 4, None);
        let basis = Basis::of(&cluster, &app, &files);
        assert_eq!(Basis::parse(&basis.to_string()), Some(basis.clone()));
        let said = |cluster: &Cluster| basis.overtaken(cluster, &app, &files);
        wrote(&mut cluster, "other.service", 5, None);
        assert_eq!(said(&cluster), None);
        let mut scaled = cluster.clone();
        wrote(&mut scaled, "web@.service", 6, Some(5));
        let changed = "somebody changed web@.service (now revision 1, 5 replicas, inactive)";
        assert_eq!(said(&scaled).as_deref(), Some(changed));
        let mut destroyed = cluster.clone();
        destroyed.records.remove("db.service");
        destroyed.units_written.remove("db.service");
        assert_eq!(said(&destroyed).as_deref(), Some("a unit of it was destroyed"));
        wrote(&mut cluster, "new.service", 7, None);
        let created = "somebody changed new.service (now revision 1, inactive)";
        assert_eq!(said(&cluster).as_deref(), Some(created));
        for bad in
            ["", "1", "1.", "x.0123456789abcdef", "-1.0123456789abcdef", "1.0123456789abcdeF"]
        {
            assert_eq!(Basis::parse(bad), None, "{bad:?}");
        }
    }
}
