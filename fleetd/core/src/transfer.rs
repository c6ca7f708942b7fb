//! A whole cluster as one document, for backups, moves between stores and move-ins; and what
//! importing one changes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::app::{AppName, Application, BundleRef, FileEntry, path_refusal};
use crate::configuration::{self, Changes, Configuration};
use crate::model::{self, DesiredState, MAX_REPLICAS, Settings, UnitRecord, Unknown};
use crate::name::{MachineId, UnitName};
use crate::unit::family::is_counted;
use crate::unit::file::UnitFile;
use crate::unit::intake;
use crate::unit::xfleet::is_global;
use crate::view::Cluster;

/// The format of an [`Export`].
pub const FORMAT: u32 = 1;

/// The largest import, in bytes: some 20,000 units with files of 2 KiB.
pub const MAX_IMPORT_BYTES: usize = 64 * 1024 * 1024;

/// How many problems one refusal lists.
const PROBLEMS_SHOWN: usize = 20;

/// `GET /export`, and the body of `POST /import`: units with what is wanted of them, and what an
/// operator set for machines. What runs where is not in it: the cluster that takes it decides anew.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Export {
    /// [`FORMAT`].
    pub format: u32,
    /// The units, by name.
    #[serde(default)]
    pub units: BTreeMap<String, ExportedUnit>,
    /// The settings of machines, by id.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub machines: BTreeMap<String, Settings>,
    /// The values of configurations, by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub configurations: BTreeMap<String, BTreeMap<String, String>>,
    /// The applications, by name. The contents of their files are not in it: whoever imports it
    /// applies their folders, which sends them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub apps: BTreeMap<String, ExportedApp>,
}

/// One application of an [`Export`].
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct ExportedApp {
    /// Its units.
    pub units: BTreeSet<UnitName>,
    /// What `Replicas=` says in the files of its templates.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub replicas: BTreeMap<UnitName, u32>,
    /// Its files, by path.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub files: BTreeMap<String, FileEntry>,
}

/// One unit of an [`Export`].
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct ExportedUnit {
    /// The unit file; in a folder it is a file of its own.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub text: String,
    /// `inactive`, `loaded` or `launched`; empty is inactive.
    #[serde(default)]
    pub desired_state: String,
    /// The wanted count of a scaled template.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replicas: Option<u32>,
    /// When it was first submitted, in milliseconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created_ms: Option<u64>,
    /// What a later version wrote.
    #[serde(flatten)]
    pub unknown: Unknown,
}

/// The answer to `POST /import`: what it changes, or with `dryRun=true` would change.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", default)]
pub struct Imported {
    /// Whether it was done. All of it was then, else nothing.
    pub applied: bool,
    /// What changes, units by name, then machines, configurations and applications.
    pub changes: Vec<ImportChange>,
    /// How many of all these are there already, as they should be.
    pub unchanged: usize,
}

/// One line of [`Imported`].
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", default)]
pub struct ImportChange {
    /// A unit's name, a machine's id, `configuration shop` or `application shop`.
    pub name: String,
    /// `create`, `replace`; `conflict` for what is there, differs, and was not to be replaced;
    /// `machine`.
    pub kind: String,
    /// What differs: `text`, `inactive → launched`, `3 → 5 replicas`, `region=eu`.
    pub details: Vec<String>,
    /// What the user should know of the unit file.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

/// What an import writes.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Import {
    /// Records to write, each with whether its text is new.
    pub records: Vec<(UnitRecord, bool)>,
    /// Settings to write.
    pub settings: Vec<(MachineId, Settings)>,
    /// Configurations to write.
    pub configurations: Vec<Configuration>,
    /// Applications to write.
    pub apps: Vec<Application>,
    /// The same for the user.
    pub answer: Imported,
}

/// The configurations of a cluster.
pub type Configurations = BTreeMap<AppName, Arc<Configuration>>;

/// Everything that makes up the cluster but for what runs where.
pub fn export(
    cluster: &Cluster,
    settings: &BTreeMap<MachineId, Settings>,
    configurations: &Configurations,
) -> Export {
    let unit = |record: &UnitRecord| ExportedUnit {
        text: record.text.clone(),
        desired_state: record.desired.to_string(),
        replicas: record.replicas,
        created_ms: Some(record.created_ms),
        unknown: record.unknown.clone(),
    };
    Export {
        format: FORMAT,
        units: cluster
            .records
            .values()
            .map(|record| (record.name.to_string(), unit(record)))
            .collect(),
        machines: settings
            .iter()
            .map(|(id, settings)| (id.to_string(), settings.clone()))
            .collect(),
        configurations: configurations
            .iter()
            .map(|(name, config)| (name.to_string(), config.values.clone()))
            .collect(),
        apps: cluster.apps.iter().map(|(name, app)| (name.to_string(), exported(app))).collect(),
    }
}

fn exported(app: &Application) -> ExportedApp {
    ExportedApp {
        units: app.units.clone(),
        replicas: app.replicas.clone(),
        files: app.files.clone(),
    }
}

/// What importing `export` into `cluster` changes. The error is every problem that it has, one a
/// line: one bad unit refuses all. With `replace`, what is there and differs is replaced; what is
/// there and not in `export` always stays.
pub fn import(
    cluster: &Cluster,
    settings: &BTreeMap<MachineId, Settings>,
    configurations: &Configurations,
    export: &Export,
    replace: bool,
    now_ms: u64,
) -> Result<Import, String> {
    if export.format != FORMAT {
        return Err(format!(
            "format {} is not known here; this fleetd reads format {FORMAT}",
            export.format
        ));
    }
    let mut problems = twins(cluster, export);
    let mut import = Import::default();
    for (name, unit) in &export.units {
        match check(name, unit, cluster) {
            Err(problem) => problems.push(format!("{name}: {problem}")),
            Ok(checked) => add_unit(&mut import, cluster, checked, unit, replace, now_ms),
        }
    }
    for (id, new) in &export.machines {
        match check_machine(id, new) {
            Err(problem) => problems.push(format!("machine {id:?}: {problem}")),
            Ok(id) => add_machine(&mut import, settings.get(&id), id, new),
        }
    }
    for (name, values) in &export.configurations {
        let checked = AppName::parse(name).and_then(|name| match configuration::refusal(values) {
            Some(problem) => Err(problem),
            None => Ok(name),
        });
        match checked {
            Err(problem) => problems.push(format!("configuration {name:?}: {problem}")),
            Ok(name) => {
                let old = configurations.get(&name).map(Arc::as_ref);
                add_configuration(&mut import, cluster, old, name, values, replace, now_ms);
            }
        }
    }
    for (name, app) in &export.apps {
        match check_app(cluster, name, app) {
            Err(problem) => problems.push(format!("application {name:?}: {problem}")),
            Ok(name) => {
                // Quadlet files that it names come with a unit as files do.
                let text = |unit: &UnitName| Some(export.units.get(unit.as_str())?.text.as_str());
                let named = |text| BundleRef::of(&UnitFile::parse_lenient(text)).is_some();
                let sends = !app.files.is_empty() || app.units.iter().filter_map(text).any(named);
                add_app(&mut import, cluster, name, app, sends, replace, now_ms);
            }
        }
    }
    if problems.is_empty() {
        return Ok(import);
    }
    let more = problems.len().saturating_sub(PROBLEMS_SHOWN);
    problems.truncate(PROBLEMS_SHOWN);
    problems.extend((more > 0).then(|| format!("… and {more} problems more")));
    Err(problems.join("\n"))
}

struct Checked {
    name: UnitName,
    desired: DesiredState,
    warnings: Vec<String>,
}

/// The same checks as for one submitted unit. A text that `cluster` holds for it stays taken.
fn check(name: &str, unit: &ExportedUnit, cluster: &Cluster) -> Result<Checked, String> {
    let name = UnitName::parse(name).map_err(|problem| problem.to_string())?;
    let is_stored = cluster.records.get(&name).is_some_and(|old| old.text == unit.text);
    let taken = match is_stored {
        true => intake::take_stored(&name, &unit.text),
        false => intake::take(&name, &unit.text).map_err(|refusal| refusal.to_string())?,
    };
    let desired = match unit.desired_state.as_str() {
        "" => DesiredState::Inactive,
        word => DesiredState::parse(word).ok_or_else(|| {
            format!("invalid desired state {word:?}: expect inactive, loaded, or launched")
        })?,
    };
    match unit.replicas {
        Some(_) if !name.is_template() => {
            return Err("only a template can have a count".to_string());
        }
        Some(_) if is_global(&taken.file.options) => {
            return Err("it is Global, and has a count".to_string());
        }
        Some(count) if count > MAX_REPLICAS => {
            return Err(format!("{count} replicas; expect 0 to {MAX_REPLICAS}"));
        }
        None if name.is_template() && desired != DesiredState::Inactive => {
            return Err(format!("cannot activate template {:?}", name.as_str()));
        }
        _ => {}
    }
    Ok(Checked { name, desired, warnings: taken.warnings })
}

/// Units that would run under one name in systemd: `web.container` and `web.service`. Those that
/// the cluster has both already are its own matter.
fn twins(cluster: &Cluster, export: &Export) -> Vec<String> {
    let mut by_name: BTreeMap<UnitName, UnitName> =
        cluster.records.keys().map(|name| (name.systemd_name(), name.clone())).collect();
    let mut problems = Vec::new();
    for name in export.units.keys().filter_map(|name| UnitName::parse(name).ok()) {
        let known = by_name.insert(name.systemd_name(), name.clone());
        let is_new = !cluster.records.contains_key(&name);
        if let Some(twin) = known.filter(|known| is_new && *known != name) {
            problems
                .push(format!("{name}: it and {twin} would both run as {}", name.systemd_name()));
        }
    }
    problems
}

fn add_unit(
    import: &mut Import,
    cluster: &Cluster,
    checked: Checked,
    unit: &ExportedUnit,
    replace: bool,
    now_ms: u64,
) {
    let Checked { name, desired, warnings } = checked;
    let new = UnitRecord {
        desired,
        replicas: unit.replicas,
        created_ms: unit.created_ms.unwrap_or(now_ms),
        unknown: unit.unknown.clone(),
        ..UnitRecord::new(name.clone(), unit.text.clone())
    };
    let count =
        |replicas: Option<u32>| replicas.map_or("no".to_string(), |count| count.to_string());
    let mut details = Vec::new();
    let Some(old) = cluster.records.get(&name) else {
        details.push(desired.to_string());
        details.extend(unit.replicas.map(|count| format!("{count} replicas")));
        import.answer.changes.push(ImportChange {
            name: name.to_string(),
            kind: "create".to_string(),
            details,
            warnings,
        });
        import.records.push((new, true));
        return;
    };
    let new_text = old.text != new.text;
    details.extend(new_text.then(|| "text".to_string()));
    details.extend((old.desired != desired).then(|| format!("{} → {desired}", old.desired)));
    details.extend(
        (old.replicas != new.replicas)
            .then(|| format!("{} → {} replicas", count(old.replicas), count(new.replicas))),
    );
    if details.is_empty() {
        import.answer.unchanged += 1;
        return;
    }
    let kind = if replace { "replace" } else { "conflict" };
    import.answer.changes.push(ImportChange {
        name: name.to_string(),
        kind: kind.to_string(),
        details,
        warnings,
    });
    let mut record = UnitRecord { created_ms: old.created_ms, restart: old.restart, ..new };
    record.revision = old.revision + u64::from(new_text);
    record.config.clone_from(&old.config);
    record.restart_of.clone_from(&old.restart_of);
    record.restart_of.retain(|instance, _| is_counted(instance, record.replicas));
    import.records.push((record, new_text));
}

fn check_machine(id: &str, settings: &Settings) -> Result<MachineId, String> {
    let good = |part: &str| {
        !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b))
    };
    let id = MachineId::parse(id).ok_or("that is no machine's id")?;
    match settings.metadata.keys().find(|key| !good(key)) {
        Some(key) => Err(format!("{key:?} is no name for a label")),
        None => Ok(id),
    }
}

/// What is set here and not there stays: an import adds, and the newer value wins.
fn add_machine(import: &mut Import, old: Option<&Settings>, id: MachineId, new: &Settings) {
    let mut merged = old.cloned().unwrap_or_default();
    merged.v = model::FORMAT;
    merged.metadata.extend(new.metadata.clone());
    if !new.availability.is_active() {
        merged.availability = new.availability;
    }
    merged.unknown.extend(new.unknown.clone());
    if old == Some(&merged) {
        import.answer.unchanged += 1;
        return;
    }
    let mut details: Vec<String> =
        new.metadata.iter().map(|(key, value)| format!("{key}={value}")).collect();
    details.extend((!new.availability.is_active()).then(|| new.availability.as_str().to_string()));
    import.answer.changes.push(ImportChange {
        name: id.to_string(),
        kind: "machine".to_string(),
        details,
        warnings: Vec::new(),
    });
    import.settings.push((id, merged));
}

/// A configuration is taken as a whole. Its users are asked to take it, those that the import
/// brings among them.
fn add_configuration(
    import: &mut Import,
    cluster: &Cluster,
    old: Option<&Configuration>,
    name: AppName,
    values: &BTreeMap<String, String>,
    replace: bool,
    now_ms: u64,
) {
    let none = BTreeMap::new();
    let changes = Changes::between(old.map_or(&none, |old| &old.values), values);
    if old.is_some() && changes.is_empty() {
        import.answer.unchanged += 1;
        return;
    }
    let kind = match (old, replace) {
        (None, _) => "create",
        (Some(_), true) => "replace",
        (Some(_), false) => "conflict",
    };
    let removed = changes.removed.iter().map(|key| format!("without {key}"));
    import.answer.changes.push(ImportChange {
        name: format!("configuration {name}"),
        kind: kind.to_string(),
        details: changes.set.keys().cloned().chain(removed).collect(),
        warnings: Vec::new(),
    });
    let records = cluster.records.values().map(Arc::as_ref);
    let mut config = configuration::next(old, name, values.clone(), records);
    config.changed_ms = now_ms;
    for (record, _) in &mut import.records {
        configuration::ask(record, &config.name, config.revision);
    }
    let brought: Vec<UnitName> =
        import.records.iter().map(|(record, _)| record.name.clone()).collect();
    for record in cluster.records.values().filter(|record| !brought.contains(&record.name)) {
        let mut record = UnitRecord::clone(record);
        if configuration::ask(&mut record, &config.name, config.revision).is_some() {
            import.records.push((record, false));
        }
    }
    import.configurations.push(config);
}

/// No unit belongs to two applications, and paths become files.
fn check_app(cluster: &Cluster, name: &str, app: &ExportedApp) -> Result<AppName, String> {
    let name = AppName::parse(name)?;
    if let Some(problem) = app.files.keys().find_map(|path| path_refusal(path)) {
        return Err(problem);
    }
    let others = cluster.apps.values().filter(|other| other.name != name);
    let both = |other: &Application| other.units.intersection(&app.units).next().cloned();
    match others.filter_map(|other| Some((both(other)?, &other.name))).next() {
        Some((unit, other)) => Err(format!("{unit} belongs to the application {other}")),
        None => Ok(name),
    }
}

/// `sends` if units of it have files that an export lacks.
fn add_app(
    import: &mut Import,
    cluster: &Cluster,
    name: AppName,
    app: &ExportedApp,
    sends: bool,
    replace: bool,
    now_ms: u64,
) {
    let old = cluster.apps.get(&name);
    if old.is_some_and(|old| exported(old) == *app) {
        import.answer.unchanged += 1;
        return;
    }
    let kind = match (old, replace) {
        (None, _) => "create",
        (Some(_), true) => "replace",
        (Some(_), false) => "conflict",
    };
    let unsent = "its files' contents are not in an export; apply its folder, which sends them";
    let files = app.files.len();
    import.answer.changes.push(ImportChange {
        name: format!("application {name}"),
        kind: kind.to_string(),
        details: vec![format!("{} units, {files} files", app.units.len())],
        warnings: sends.then(|| unsent.to_string()).into_iter().collect(),
    });
    import.apps.push(Application {
        v: model::FORMAT,
        name,
        revision: old.map_or(0, |old| old.revision) + 1,
        units: app.units.clone(),
        replicas: app.replicas.clone(),
        files: app.files.clone(),
        applied_ms: now_ms,
        unknown: old.map(|old| old.unknown.clone()).unwrap_or_default(),
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "# why\n[Service]\nExecStart=/bin/true\n";

    fn unit(text: &str, desired: &str, replicas: Option<u32>) -> ExportedUnit {
        ExportedUnit {
            text: text.to_string(),
            desired_state: desired.to_string(),
            replicas,
            ..ExportedUnit::default()
        }
    }

    fn exported(units: &[(&str, ExportedUnit)]) -> Export {
        let units = units.iter().map(|(name, unit)| (name.to_string(), unit.clone())).collect();
        Export { format: FORMAT, units, ..Export::default() }
    }

    fn take(cluster: &Cluster, export: &Export, replace: bool) -> Result<Import, String> {
        import(cluster, &BTreeMap::new(), &BTreeMap::new(), export, replace, 7)
    }

    /// The cluster after an import, as the store would have it.
    fn after(import: Import) -> Cluster {
        let mut cluster = Cluster::default();
        for (record, _) in import.records {
            cluster.records.insert(record.name.clone(), record.into());
        }
        cluster
    }

    fn lines(import: &Import) -> Vec<String> {
        import
            .answer
            .changes
            .iter()
            .map(|c| format!("{} {}: {}", c.kind, c.name, c.details.join(", ")))
            .collect()
    }

    #[test]
    fn what_was_exported_is_imported_as_it_was() {
        let first = exported(&[
            ("a.service", unit(TEXT, "launched", None)),
            ("w@.service", unit(TEXT, "launched", Some(3))),
        ]);
        let cluster = after(take(&Cluster::default(), &first, false).unwrap());
        let settings = BTreeMap::from([(
            MachineId::new("m1"),
            Settings {
                v: 1,
                metadata: BTreeMap::from([("region".to_string(), "eu".to_string())]),
                ..Settings::default()
            },
        )]);
        let shop = Configuration::new(
            AppName::parse("shop").unwrap(),
            BTreeMap::from([("log".to_string(), "debug".to_string())]),
            0,
        );
        let configs = BTreeMap::from([(shop.name.clone(), Arc::new(shop))]);
        let out = export(&cluster, &settings, &configs);
        let empty = Cluster::default();
        let import = import(&empty, &BTreeMap::new(), &BTreeMap::new(), &out, false, 99).unwrap();
        assert_eq!(
            lines(&import),
            [
                "create a.service: launched",
                "create w@.service: launched, 3 replicas",
                "machine m1: region=eu",
                "create configuration shop: log"
            ]
        );
        let taken = import.configurations.iter().map(|it| (it.name.clone(), Arc::new(it.clone())));
        let (taken, set) = (taken.collect(), import.settings.clone().into_iter().collect());
        assert_eq!(export(&after(import), &set, &taken), out);
        // And a second time nothing is left to do.
        let again = super::import(&cluster, &settings, &configs, &out, false, 99).unwrap();
        assert_eq!((again.answer.changes.len(), again.answer.unchanged), (0, 4));
    }

    #[test]
    fn a_text_that_the_cluster_has_already_is_taken_and_a_new_one_with_the_same_fault_is_not() {
        let old = "[Unit]\nRefuseManualStop=yes\n[Service]\nExecStart=/bin/true\n";
        let mut cluster = Cluster::default();
        for name in ["a.service", "app-.service"].map(UnitName::trusted) {
            cluster.records.insert(name.clone(), UnitRecord::new(name, old).into());
        }
        let same = exported(&[
            ("a.service", unit(old, "inactive", None)),
            ("app-.service", unit(old, "launched", None)),
        ]);
        let import = take(&cluster, &same, true).unwrap();
        assert_eq!(import.answer.unchanged, 1);
        assert_eq!(lines(&import), ["replace app-.service: inactive → launched"]);
        assert!(
            import.answer.changes[0].warnings[0].starts_with("taken because it is stored already")
        );
        let longer = format!("{old}Restart=always\n");
        let new = exported(&[("a.service", unit(&longer, "inactive", None))]);
        let refused = take(&cluster, &new, true).unwrap_err();
        assert!(refused.starts_with("a.service: line 2: RefuseManualStop=yes"), "{refused}");
    }

    #[test]
    fn what_is_there_and_differs_is_a_conflict_unless_it_may_be_replaced() {
        let cluster = after(
            take(
                &Cluster::default(),
                &exported(&[("a.service", unit(TEXT, "inactive", None))]),
                false,
            )
            .unwrap(),
        );
        let new =
            exported(&[("a.service", unit("[Service]\nExecStart=/bin/false\n", "launched", None))]);
        assert_eq!(
            lines(&take(&cluster, &new, false).unwrap()),
            ["conflict a.service: text, inactive → launched"]
        );
        let replaced = take(&cluster, &new, true).unwrap();
        assert_eq!(lines(&replaced), ["replace a.service: text, inactive → launched"]);
        assert_eq!((replaced.records[0].0.revision, replaced.records[0].1), (2, true));
    }

    #[test]
    fn a_configuration_is_taken_as_a_whole_and_its_users_are_asked_to_take_it() {
        let shop = AppName::parse("shop").unwrap();
        let text = format!("{TEXT}[X-Fleet]\nConfig=shop\n");
        let mut cluster = Cluster::default();
        let web = UnitRecord::new(UnitName::trusted("web.service"), text.clone());
        cluster.records.insert(web.name.clone(), web.into());
        let values = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
            pairs.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect()
        };
        let old = Configuration::new(shop.clone(), values(&[("a", "1"), ("b", "2")]), 4);
        let there = BTreeMap::from([(shop, Arc::new(old))]);
        let mut new = exported(&[("new.service", unit(&text, "launched", None))]);
        new.configurations.insert("shop".to_string(), values(&[("a", "3")]));
        let take =
            |replace| super::import(&cluster, &BTreeMap::new(), &there, &new, replace, 7).unwrap();
        assert_eq!(lines(&take(false))[1], "conflict configuration shop: a, without b");
        let import = take(true);
        assert_eq!(lines(&import)[1], "replace configuration shop: a, without b");
        assert_eq!(import.configurations[0].revision, 6);
        let asked = import.records.iter().map(|(record, new_text)| {
            (record.name.to_string(), record.config.as_ref().map(|it| it.revision), *new_text)
        });
        assert_eq!(
            asked.collect::<Vec<_>>(),
            [
                ("new.service".to_string(), Some(6), true),
                ("web.service".to_string(), Some(6), false)
            ]
        );
        new.configurations.insert("Shop".to_string(), values(&[("2", "")]));
        let refused = super::import(&cluster, &BTreeMap::new(), &there, &new, true, 7);
        assert!(refused.unwrap_err().starts_with("configuration \"Shop\": "));
    }

    #[test]
    fn one_bad_unit_refuses_all_and_every_problem_is_named() {
        let bad = exported(&[
            ("a b.service", unit(TEXT, "", None)),
            ("empty.service", unit("", "", None)),
            ("good.service", unit(TEXT, "launched", None)),
            ("q.container", unit("[Container]\nImage=x\n", "", None)),
            ("q.service", unit(TEXT, "", None)),
            ("state.service", unit(TEXT, "running", None)),
            ("t@.service", unit(TEXT, "launched", None)),
            ("one.service", unit(TEXT, "launched", Some(2))),
        ]);
        let problems = take(&Cluster::default(), &bad, false).unwrap_err();
        let problems: Vec<&str> = problems.lines().collect();
        assert_eq!(
            problems,
            [
                "q.service: it and q.container would both run as q.service",
                "a b.service: invalid character ' ' in unit name",
                "empty.service: the unit file has no options; it needs at least a section and one \
                    Name=Value line",
                "one.service: only a template can have a count",
                "state.service: invalid desired state \"running\": expect inactive, loaded, or \
                    launched",
                "t@.service: cannot activate template \"t@.service\"",
            ]
        );
    }

    #[test]
    fn every_field_of_a_record_is_exported_or_left_out_on_purpose() {
        let import = take(
            &Cluster::default(),
            &exported(&[("w@.service", unit(TEXT, "launched", Some(3)))]),
            false,
        )
        .unwrap();
        let mut record = import.records[0].0.clone();
        record.restart = 1;
        record.config =
            Some(configuration::Asked { name: AppName::parse("shop").unwrap(), revision: 1 });
        record.restart_of.insert(UnitName::trusted("w@1.service"), 1);
        record.unknown.insert("later".to_string(), 1.into());
        let serde_json::Value::Object(record_fields) = serde_json::to_value(&record).unwrap()
        else {
            panic!("an object")
        };
        let cluster = after(Import { records: vec![(record, true)], ..Import::default() });
        let out =
            serde_json::to_value(export(&cluster, &BTreeMap::new(), &BTreeMap::new())).unwrap();
        let exported = out["units"]["w@.service"].as_object().unwrap();
        // Counters of this cluster's history, and what is said elsewhere.
        let left_out = ["v", "name", "revision", "restart", "restart_of", "config"];
        let renamed = |field: &str| match field {
            "desired" => "desiredState".to_string(),
            "created_ms" => "createdMs".to_string(),
            other => other.to_string(),
        };
        for field in record_fields.keys().filter(|field| !left_out.contains(&field.as_str())) {
            assert!(exported.contains_key(&renamed(field)), "{field} is not exported");
        }
    }

    #[test]
    fn an_application_moves_with_its_units_and_says_that_its_files_must_be_sent() {
        let name = |name: &str| UnitName::trusted(name);
        let sum = crate::app::Checksum::of(b"x");
        let file = FileEntry { sum, size: 1, executable: false };
        let shop = ExportedApp {
            units: [name("a.service")].into(),
            replicas: BTreeMap::new(),
            files: [("x".to_string(), file)].into(),
        };
        let one = |app: &ExportedApp| Export {
            apps: [("shop".to_string(), app.clone())].into(),
            ..exported(&[("a.service", unit(TEXT, "launched", None))])
        };
        let nothing = BTreeMap::new();
        let take = |cluster: &Cluster, export: &Export| {
            import(cluster, &BTreeMap::new(), &nothing, export, false, 7)
        };
        let mut there = Cluster::default();
        let taken = take(&there, &one(&shop)).unwrap();
        let change = taken.answer.changes.last().unwrap();
        assert_eq!((&*change.name, &*change.kind), ("application shop", "create"));
        assert!(change.warnings[0].contains("apply its folder"), "{change:?}");
        assert_eq!((taken.apps[0].revision, taken.apps[0].applied_ms), (1, 7));
        there.apps.insert(taken.apps[0].name.clone(), Arc::new(taken.apps[0].clone()));
        assert_eq!(export(&there, &BTreeMap::new(), &nothing).apps["shop"], shop);
        let again = take(&there, &one(&shop)).unwrap();
        assert_eq!((again.apps, again.answer.unchanged), (Vec::new(), 1));
        let other = ExportedApp { files: BTreeMap::new(), ..shop.clone() };
        assert_eq!(take(&there, &one(&other)).unwrap().answer.changes[1].kind, "conflict");
        // Of a unit that only names a network, that one's text is not there either.
        let warned = |text: &str| {
            let export = Export {
                units: one(&other).units.into_keys().map(|n| (n, unit(text, "", None))).collect(),
                ..one(&other)
            };
            let taken = take(&Cluster::default(), &export).unwrap();
            !taken.answer.changes.last().unwrap().warnings.is_empty()
        };
        assert!(!warned(TEXT));
        let sum = "0".repeat(64);
        assert!(warned(&format!("{TEXT}[X-Fleet]\nBundle=shop/{sum}\n")));
        let twice = Export { apps: [("two".to_string(), other.clone())].into(), ..one(&shop) };
        assert_eq!(
            take(&there, &twice).unwrap_err(),
            "application \"two\": a.service belongs to the application shop"
        );
        let bad = ExportedApp {
            files: shop.files.into_values().map(|file| ("../x".to_string(), file)).collect(),
            ..ExportedApp::default()
        };
        assert!(take(&there, &one(&bad)).unwrap_err().contains("a path inside the folder"));
    }
}
