//! A fleetd without a cluster: units in memory, acted on at once. A unit's ExecStart says how it
//! behaves: `/bin/bad…` fails, `/bin/slow…` never gets ready, `/bin/later…` is ready at the second
//! line of a follow. `/bin/dies…` is reported up, and failed by its status; `/bin/ends…` has ended
//! well by that, and `/bin/flaky…` is being restarted at the first look.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};

use axum::Json;
use axum::body::{Body, Bytes};
use axum::extract::{Path as Named, Query, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post, put};
use fleet_core::app::{AppName, Checksum};
use fleet_core::check::StoreCheck;
use fleet_core::configuration::{Changes, ConfigChanged, Uses};
use fleet_core::event::Event;
use fleet_core::model::InstanceStatus;
use fleet_core::name::{MachineId, UnitName};
use fleet_core::plan::Misfit;
use fleet_core::replay::Saved;
use fleet_core::unit::file::UnitFile;
use fleet_core::unit::lint::lint;
use fleet_core::unit::xfleet::Constraints;
use fleet_core::wire::*;

/// The cluster's state; tests look into it and change it.
#[derive(Default)]
pub(crate) struct Cluster {
    /// The units submitted.
    pub(crate) units: BTreeMap<String, Unit>,
    /// Counts the writes.
    pub(crate) revision: i64,
    /// The restarts asked for, in order.
    pub(crate) restarts: Vec<String>,
    /// Whose status was asked for.
    pub(crate) looked_at: BTreeSet<String>,
    /// Whether its machines have too much to do to ask systemd; what dies has been reported failed
    /// at the next follow.
    pub(crate) busy: bool,
    /// What was killed and is down until it is restarted.
    pub(crate) killed: BTreeSet<String>,
    /// What its machine refuses to take, with these words.
    pub(crate) refused: Option<String>,
    /// What systemd says instead of stopping what is destroyed.
    pub(crate) unstoppable: Option<String>,
    /// What was destroyed and is still being stopped, on the first machine.
    pub(crate) stopping: BTreeSet<String>,
    /// What each `Scale` may not exceed.
    pub(crate) most_replicas: i64,
    /// How many follows end without a line.
    pub(crate) follows_to_break: usize,
    /// Whether the store is away.
    pub(crate) store_is_away: bool,
    /// The queries of journals, in order.
    pub(crate) journals: Vec<String>,
    /// What a machine that does not answer is said to be.
    pub(crate) problem: Option<String>,
    /// What else systemd and the journal say of each unit.
    pub(crate) says: Option<String>,
    /// Since when machines are there and units in their state, in milliseconds since 1970.
    pub(crate) since_ms: Option<u64>,
    /// Told of each follow.
    pub(crate) on_follow: Option<std::sync::mpsc::Sender<()>>,
    /// What the leaders told.
    pub(crate) events: Vec<Event>,
    /// What checking the store finds.
    pub(crate) check: StoreCheck,
    /// What the leader planned last.
    pub(crate) saved: Option<Saved>,
    /// How fenced units stand.
    pub(crate) fencing: Vec<Fencing>,
    /// How units failed lately.
    pub(crate) failures: FailurePage,
    /// Who is missing.
    pub(crate) missing: Option<Missing>,
    /// Who was lost lately.
    pub(crate) lost: Vec<LostMachine>,
    /// Where a unit was asked to move to, and what it waits for, look by look.
    pub(crate) moving: Option<String>,
    /// See `moving`.
    pub(crate) move_waits: VecDeque<String>,
    /// How a rollout is, look by look; the last one stays.
    pub(crate) rollouts: VecDeque<RolloutStatus>,
    /// What was wanted of it, in order.
    pub(crate) wanted: Vec<String>,
    /// Why it is not granted.
    pub(crate) rollout_refused: Option<String>,
    /// How far each unit's rollout is, for those who wait.
    pub(crate) rollout: Option<Rollout>,
    /// What is on a machine, look by look; `None` is a look that the store does not answer.
    pub(crate) remaining: VecDeque<Option<Vec<Remaining>>>,
    /// The rules and locks of reboots.
    pub(crate) reboots: RebootsState,
    /// Why a machine may not reboot, look by look.
    pub(crate) reboot_noes: VecDeque<String>,
    /// The texts that a unit has had.
    pub(crate) revisions: Vec<Revision>,
    /// The applications.
    pub(crate) apps: BTreeMap<String, App>,
    /// The revisions of each configuration, the present one last.
    pub(crate) configs: BTreeMap<String, Vec<Config>>,
    /// The contents of applications' files.
    pub(crate) blobs: BTreeMap<String, Vec<u8>>,
    /// The state of all units, as plans say it; an older fleetd says nothing.
    pub(crate) basis: String,
    /// What an apply is refused with from now on, dry runs included.
    pub(crate) apply_refused: Option<(u16, String)>,
    /// Who applies in between, after the dry run.
    pub(crate) overtaken: bool,
    /// Told of each apply for good, which then never ends.
    pub(crate) on_apply: Option<std::sync::mpsc::Sender<()>>,
    /// What is asked of machines.
    pub(crate) volumes: VolumePage,
    /// The same of images.
    pub(crate) images: ImageCheckPage,
    machines: Vec<Machine>,
}

/// A running fake.
#[derive(Clone)]
pub(crate) struct Fake(Arc<Mutex<Cluster>>);

impl Fake {
    /// Serves on the socket until the test ends.
    pub(crate) fn start(socket: &Path, machines: &[(&str, &str, &str)]) -> Fake {
        let machines = machines.iter().map(|(id, ip, metadata)| Machine {
            id: id.to_string(),
            primary_ip: ip.to_string(),
            metadata: metadata
                .split_once('=')
                .map(|(k, v)| (k.to_string(), v.to_string()))
                .into_iter()
                .collect(),
            ..Machine::default()
        });
        let cluster =
            Cluster { machines: machines.collect(), most_replicas: 1000, ..Cluster::default() };
        let fake = Fake(Arc::new(Mutex::new(cluster)));
        let listener = std::os::unix::net::UnixListener::bind(socket).expect("a socket");
        listener.set_nonblocking(true).expect("a socket that does not block");
        let app = axum::Router::new()
            .route("/fleet/v1/machines", get(machines_list))
            .route("/fleet/v1/machines/{id}/availability", get(availability).put(set_availability))
            .route("/fleet/v1/reboots", get(reboots).patch(set_reboots))
            .route("/fleet/v1/reboots/{id}", post(ask_for_reboot).delete(release_reboot))
            .route("/fleet/v1/units/{name}/revisions", get(revisions))
            .route("/fleet/v1/units/{name}/revisions/{revision}", get(revision))
            .route(
                "/fleet/v1/volumes",
                get(async |State(fake): Cl| Json(fake.cluster().volumes.clone())),
            )
            .route("/fleet/v1/machines/{id}/volumes/{name}", delete(volume_delete))
            .route(
                "/fleet/v1/images/check",
                get(async |State(fake): Cl| Json(fake.cluster().images.clone())),
            )
            .route("/fleet/v1/apps", get(app_list))
            .route("/fleet/v1/apps/{app}", get(app_get).post(app_apply).delete(app_delete))
            .route("/fleet/v1/apps/{app}/blobs/{sum}", put(app_blob))
            .route("/fleet/v1/apps/{app}/files/{*path}", get(app_file))
            .route("/fleet/v1/config", get(config_list))
            .route(
                "/fleet/v1/config/{name}",
                get(config_get).patch(config_patch).delete(config_delete),
            )
            .route("/fleet/v1/config/{name}/history", get(config_history))
            .route("/fleet/v1/config/{name}/rollback", post(config_rollback))
            .route("/fleet/v1/rollouts", get(rollout_list))
            .route("/fleet/v1/rollouts/{name}", get(rollout_get).post(rollout_want))
            .route("/fleet/v1/units/{name}/rollback", post(rollback))
            .route("/fleet/v1/state", get(state_list))
            .route("/fleet/v1/units", get(unit_list))
            .route("/fleet/v1/units/{name}", get(unit_get).put(unit_put).delete(unit_delete))
            .route("/fleet/v1/units/{name}/replicas", put(scale))
            .route("/fleet/v1/units/{name}/restart", post(restart))
            .route("/fleet/v1/units/{name}/move", get(move_state).post(move_unit))
            .route("/fleet/v1/units/{name}/status", get(status))
            .route("/fleet/v1/units/{name}/journal", get(journal))
            .route("/fleet/v1/units/{name}/fencing", get(fencing))
            .route("/fleet/v1/units/{name}/failures", get(failures))
            .route("/fleet/v1/follow", get(follow))
            .route("/fleet/v1/events", get(events))
            .route(
                "/fleet/v1/store/check",
                get(async |State(fake): Cl| Json(fake.cluster().check.clone())),
            )
            .route("/fleet/v1/debug/snapshot", get(snapshot))
            .route(
                "/fleet/v1/version",
                get(async || Json(Version { version: "2.0.0".to_string() })),
            )
            .with_state(fake.clone());
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("a runtime");
            runtime.block_on(async move {
                let listener = tokio::net::UnixListener::from_std(listener).expect("a listener");
                axum::serve(listener, app).await.expect("served");
            });
        });
        fake
    }

    /// The state, locked.
    pub(crate) fn cluster(&self) -> MutexGuard<'_, Cluster> {
        self.0.lock().expect("no test panicked in here")
    }
}

fn refusal(code: StatusCode, message: &str) -> Response {
    (code, Json(ErrorBody { error: ErrorDetail::new(code.as_u16(), message) })).into_response()
}

fn file_of(unit: &Unit) -> UnitFile {
    UnitFile::from_options(unit.options.clone())
}

fn runs(unit: &Unit, program: &str) -> bool {
    file_of(unit).last("Service", "ExecStart").is_some_and(|exec| exec.starts_with(program))
}

impl Cluster {
    fn written(&mut self, code: StatusCode, warnings: &[String]) -> (StatusCode, HeaderMap) {
        self.revision += 1;
        let mut headers = HeaderMap::new();
        headers.insert(REVISION_HEADER, HeaderValue::from(self.revision));
        for warning in warnings {
            headers
                .append(WARNING_HEADER, HeaderValue::from_str(warning).expect("a header's text"));
        }
        (code, headers)
    }

    /// Every instance of `unit` with its machine, if any fits.
    fn instances(&self, unit: &Unit) -> Vec<(String, Option<&Machine>)> {
        let constraints = Constraints::from_file(&file_of(unit));
        let fits = |m: &&Machine| {
            constraints
                .metadata
                .iter()
                .all(|(k, vs)| m.metadata.get(k).is_some_and(|v| vs.contains(v)))
        };
        let fit: Vec<&Machine> = self.machines.iter().filter(fits).collect();
        let name = UnitName::trusted(unit.name.as_str());
        if unit.desired_state == "inactive" || name.is_shared() {
            return Vec::new();
        }
        if constraints.global {
            let nowhere = fit.is_empty().then(|| (unit.name.clone(), None));
            return fit.iter().map(|m| (unit.name.clone(), Some(*m))).chain(nowhere).collect();
        }
        match unit.replicas {
            Some(count) => (0..count as usize)
                .map(|i| {
                    (name.replica(i as u32 + 1).to_string(), fit.get(i % fit.len().max(1)).copied())
                })
                .filter(|(instance, _)| !self.units.contains_key(instance))
                .collect(),
            None => vec![(unit.name.clone(), fit.first().copied())],
        }
    }

    fn status_of(unit: &Unit, later: bool) -> InstanceStatus {
        let file = file_of(unit);
        let exec = file.last("Service", "ExecStart").unwrap_or_default();
        let (active, sub) = match unit.desired_state.as_str() {
            "loaded" => ("inactive", "dead"),
            _ if exec.starts_with("/bin/bad") => ("failed", "failed"),
            _ if exec.starts_with("/bin/slow") || (later && exec.starts_with("/bin/later")) => {
                ("activating", "start")
            }
            _ => ("active", "running"),
        };
        let failed = active == "failed";
        InstanceStatus {
            load: "loaded".to_string(),
            active: active.to_string(),
            sub: sub.to_string(),
            result: if failed { "exit-code".to_string() } else { String::new() },
            code: failed.then_some(203),
            launched: unit.desired_state == "launched",
            ..InstanceStatus::default()
        }
    }

    /// The same of one instance, which may have been killed or refused.
    fn status_of_instance(&self, unit: &Unit, name: &str, later: bool) -> InstanceStatus {
        let status = Cluster::status_of(unit, later);
        let down = |active: &str| InstanceStatus {
            active: active.to_string(),
            sub: "dead".to_string(),
            ..status.clone()
        };
        if self.refused.is_some() {
            return InstanceStatus {
                launched: false,
                message: self.refused.clone(),
                ..down("failed")
            };
        }
        if self.busy && self.looked_at.contains(name) && runs(unit, "/bin/dies") {
            let (result, code) = ("exit-code".to_string(), Some(7));
            return InstanceStatus { result, code, ..down("failed") };
        }
        if self.killed.contains(name) { down("inactive") } else { status }
    }

    fn progress(&self, name: &str, later: bool) -> UnitProgress {
        let Some(unit) = self.units.get(name) else {
            let instances: Vec<InstanceProgress> =
                self.unstoppable.iter().map(|words| self.stuck(name, words)).collect();
            return UnitProgress {
                name: name.to_string(),
                done: instances.is_empty(),
                instances,
                ..UnitProgress::default()
            };
        };
        let wanted_active = unit.desired_state == "launched";
        let instances = self.instances(unit).into_iter().map(|(name, machine)| {
            let status = machine.map(|_| self.status_of_instance(unit, &name, later));
            let misfit = Misfit::Lacks { key: "region".into(), values: ["eu".into()].into() };
            let misfit = MisfitCount::new(&misfit, self.machines.len());
            InstanceProgress {
                name,
                wanted: true,
                machine: machine.map(|m| MachineId::new(m.id.as_str())),
                address: machine.map(|m| m.primary_ip.clone()).unwrap_or_default(),
                acknowledged: machine.is_some(),
                done: status.as_ref().is_some_and(|s| is_as_wanted(s, wanted_active)),
                status,
                misfits: if machine.is_none() { vec![misfit] } else { Vec::new() },
                ..InstanceProgress::default()
            }
        });
        let instances: Vec<InstanceProgress> = instances.collect();
        let done = instances.iter().all(|instance| instance.done);
        UnitProgress {
            name: name.to_string(),
            exists: true,
            desired_state: unit.desired_state.clone(),
            instances,
            done: done && self.rollout.as_ref().is_none_or(|rollout| !rollout.waits),
            rollout: self.rollout.clone(),
            ..UnitProgress::default()
        }
    }

    /// An instance that should go and does not.
    fn stuck(&self, name: &str, words: &str) -> InstanceProgress {
        let status = InstanceStatus {
            active: "active".to_string(),
            message: Some(words.to_string()),
            stop_refused: true,
            ..InstanceStatus::default()
        };
        let machine = self.machines.first().map(|machine| MachineId::new(machine.id.as_str()));
        InstanceProgress {
            name: name.to_string(),
            machine,
            status: Some(status),
            ..InstanceProgress::default()
        }
    }

    /// What is shown of a replica without a record of its own.
    fn replica(&self, name: &str) -> Option<Unit> {
        let name = UnitName::trusted(name);
        let template = self.units.get(name.template()?.as_str())?;
        let counted = (1..=template.replicas?).contains(&name.replica_number()?);
        let replica = Unit {
            name: name.to_string(),
            template: template.name.clone(),
            replicas: None,
            ..template.clone()
        };
        counted.then_some(replica)
    }

    fn shown(&self, unit: &Unit) -> Unit {
        let mut unit = unit.clone();
        let instances = self.instances(&unit);
        if !Constraints::from_file(&file_of(&unit)).global && unit.replicas.is_none() {
            unit.machine_id = instances
                .first()
                .and_then(|(_, machine)| machine.map(|m| m.id.clone()))
                .unwrap_or_default();
        }
        unit.current_state = if instances.iter().any(|(_, machine)| machine.is_some()) {
            unit.desired_state.clone()
        } else {
            "inactive".to_string()
        };
        unit.hash = file_of(&unit).hash();
        let up = instances.iter().filter(|(_, machine)| machine.is_some()).count() as u32;
        (unit.running, unit.wanted) = unit.replicas.map(|replicas| (up, replicas)).unzip();
        unit
    }
}

/// What ended by itself is as wanted, what is refused is not.
fn is_as_wanted(status: &InstanceStatus, wanted_active: bool) -> bool {
    let ended = status.launched && status.active == "inactive";
    status.message.is_none() && (ended || status.is_active() == wanted_active)
}

type Cl = State<Fake>;

async fn machines_list(State(fake): Cl) -> Response {
    let cluster = fake.cluster();
    let (mut machines, missing) = (cluster.machines.clone(), cluster.missing.clone());
    machines.iter_mut().for_each(|machine| machine.since_ms = cluster.since_ms);
    let lost = cluster.lost.clone();
    Json(MachinePage { machines, missing, lost, ..MachinePage::default() }).into_response()
}

async fn availability(State(fake): Cl, Named(id): Named<String>) -> Response {
    let mut cluster = fake.cluster();
    let Some(machine) = cluster.machines.iter().find(|machine| machine.id == id) else {
        return refusal(StatusCode::NOT_FOUND, &format!("machine {id} does not exist"));
    };
    let (availability, note) = (machine.availability, machine.note.clone());
    // The last look stands.
    let look = if cluster.remaining.len() > 1 {
        cluster.remaining.pop_front()
    } else {
        cluster.remaining.front().cloned()
    };
    match look.unwrap_or_default() {
        None => {
            refusal(StatusCode::SERVICE_UNAVAILABLE, "fleet server unable to communicate with etcd")
        }
        Some(instances) => {
            Json(MachineAvailability { availability, note, instances }).into_response()
        }
    }
}

async fn move_unit(
    State(fake): Cl,
    Named(name): Named<String>,
    Json(wish): Json<MoveWish>,
) -> Response {
    let mut cluster = fake.cluster();
    if !cluster.units.contains_key(&name) {
        return refusal(StatusCode::NOT_FOUND, "unit does not exist");
    }
    if let Some(why) = cluster.refused.clone() {
        return refusal(StatusCode::CONFLICT, &why);
    }
    cluster.moving = Some(wish.machine_id.clone());
    let state = MoveState { name, to_machine_id: wish.machine_id, ..MoveState::default() };
    Json(MoveState { waits: cluster.move_waits.front().cloned().unwrap_or_default(), ..state })
        .into_response()
}

async fn rollout_list(State(fake): Cl) -> Json<RolloutPage> {
    let rollouts = fake.cluster().rollouts.clone().into();
    Json(RolloutPage { rollouts, ..RolloutPage::default() })
}

/// Each look sees the next.
async fn rollout_get(State(fake): Cl, Named(name): Named<String>) -> Response {
    let mut cluster = fake.cluster();
    if !cluster.units.contains_key(&name) {
        return refusal(StatusCode::NOT_FOUND, "unit does not exist");
    }
    if cluster.rollouts.len() > 1 {
        return Json(cluster.rollouts.pop_front()).into_response();
    }
    match cluster.rollouts.front() {
        Some(rollout) => Json(rollout).into_response(),
        None => refusal(StatusCode::CONFLICT, "nobody looks after it"),
    }
}

async fn rollout_want(
    State(fake): Cl,
    Named(name): Named<String>,
    Json(wanted): Json<RolloutWanted>,
) -> Response {
    fake.cluster().wanted.push(format!("{} {name}", wanted.action.as_str()));
    if let Some(refused) = fake.cluster().rollout_refused.clone() {
        return refusal(StatusCode::CONFLICT, &refused);
    }
    rollout_get(State(fake), Named(name)).await
}

/// Each look sees one wait less, and then that it is there.
async fn move_state(State(fake): Cl, Named(name): Named<String>) -> Response {
    let mut cluster = fake.cluster();
    cluster.move_waits.pop_front();
    let to = cluster.moving.clone().unwrap_or_default();
    let state = match cluster.move_waits.front() {
        Some(waits) => {
            MoveState { to_machine_id: to, waits: waits.clone(), ..MoveState::default() }
        }
        None => MoveState { machine_id: to, active: true, ..MoveState::default() },
    };
    Json(MoveState { name, ..state }).into_response()
}

async fn set_availability(
    State(fake): Cl,
    Named(id): Named<String>,
    Json(wish): Json<AvailabilityWish>,
) -> Response {
    let mut cluster = fake.cluster();
    let Some(machine) = cluster.machines.iter_mut().find(|machine| machine.id == id) else {
        return refusal(StatusCode::NOT_FOUND, &format!("machine {id} does not exist"));
    };
    machine.availability = wish.availability;
    let AvailabilityWish { reason, within_ms, force, .. } = wish;
    let by = "root@h1".to_string();
    let now_ms = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let at_ms = now_ms.unwrap().as_millis() as u64;
    let deadline_ms = within_ms.map(|ms| at_ms + ms);
    let at_ms = at_ms + 3_600_000; // a time to come is shown as 0s, however long the test takes
    let note = AvailabilityNote { by, at_ms, reason, deadline_ms, force };
    machine.note = (!wish.availability.is_active()).then_some(note);
    cluster.written(StatusCode::NO_CONTENT, &[]).into_response()
}

async fn reboots(State(fake): Cl) -> Json<RebootsState> {
    Json(fake.cluster().reboots.clone())
}

async fn set_reboots(State(fake): Cl, Json(patch): Json<RebootsPatch>) -> Response {
    let mut cluster = fake.cluster();
    if patch.window.as_deref() == Some("whenever") {
        return refusal(StatusCode::BAD_REQUEST, "invalid window \"whenever\"");
    }
    for (group, slots) in patch.slots {
        cluster.reboots.slots.insert(group, slots.unwrap_or(1));
    }
    if let Some(window) = patch.window {
        cluster.reboots.window = window;
    }
    cluster.written(StatusCode::NO_CONTENT, &[]).into_response()
}

async fn ask_for_reboot(
    State(fake): Cl,
    Named(id): Named<String>,
    Json(wish): Json<RebootWish>,
) -> Response {
    let mut cluster = fake.cluster();
    if let Some(why) = cluster.reboot_noes.pop_front() {
        return refusal(StatusCode::CONFLICT, &why);
    }
    let (group, by) = (wish.group, "root@h1".to_string());
    let (since_ms, state) = (u64::MAX, RebootState::Granted); // shown as 0s
    let lock = RebootLockState { machine_id: id, group, since_ms, state, by, ..Default::default() };
    cluster.reboots.locks.push(lock);
    StatusCode::NO_CONTENT.into_response()
}

async fn release_reboot(State(fake): Cl, Named(id): Named<String>) -> Response {
    let mut cluster = fake.cluster();
    if let Some(why) = cluster.reboot_noes.pop_front() {
        return refusal(StatusCode::CONFLICT, &why);
    }
    cluster.reboots.locks.retain(|lock| lock.machine_id != id);
    StatusCode::NO_CONTENT.into_response()
}

async fn revisions(State(fake): Cl, Named(name): Named<String>) -> Response {
    let cluster = fake.cluster();
    match cluster.units.contains_key(&name) {
        true => Json(RevisionPage { revisions: cluster.revisions.clone() }).into_response(),
        false => refusal(StatusCode::NOT_FOUND, "unit does not exist"),
    }
}

async fn revision(State(fake): Cl, Named((name, number)): Named<(String, u64)>) -> Response {
    let cluster = fake.cluster();
    let found = cluster.revisions.iter().find(|revision| revision.revision == number);
    match found.filter(|_| cluster.units.contains_key(&name)) {
        Some(revision) => Json(revision.clone()).into_response(),
        None => refusal(StatusCode::NOT_FOUND, &format!("{name} has no revision {number}")),
    }
}

impl Cluster {
    /// Makes these the values of a configuration.
    fn configure(&mut self, name: &str, values: BTreeMap<String, String>) -> Response {
        let old = self.configs.get(name).and_then(|all| all.last()).cloned().unwrap_or_default();
        let changes = Changes::between(&old.values, &values);
        let revision = old.revision + u64::from(!changes.is_empty());
        let changed_ms = 1_000 * revision;
        let mut change = ConfigChange { name: name.to_string(), revision, ..Default::default() };
        if !changes.is_empty() {
            let config = Config { name: name.to_string(), revision, changed_ms, values };
            self.configs.entry(name.to_string()).or_default().push(config);
            for unit in self.units.values() {
                let wants = Constraints::from_file(&file_of(unit));
                let Some(uses) = Uses::of(&wants).filter(|uses| uses.name.as_str() == name) else {
                    continue;
                };
                match uses.changed {
                    ConfigChanged::Reload => change.reloads.push(unit.name.clone()),
                    _ => change.restarts.push(unit.name.clone()),
                }
            }
        }
        change.changes = changes;
        let (code, headers) = self.written(StatusCode::OK, &[]);
        (code, headers, Json(change)).into_response()
    }
}

fn no_config(name: &str) -> Response {
    refusal(StatusCode::NOT_FOUND, &format!("there is no configuration {name}"))
}

async fn config_list(State(fake): Cl) -> Json<ConfigPage> {
    let cluster = fake.cluster();
    let present = cluster.configs.values().filter_map(|all| all.last());
    let summary = |config: &Config| ConfigSummary {
        name: config.name.clone(),
        revision: config.revision,
        keys: config.values.len(),
        changed_ms: config.changed_ms,
    };
    Json(ConfigPage { configs: present.map(summary).collect(), ..ConfigPage::default() })
}

async fn config_get(State(fake): Cl, Named(name): Named<String>) -> Response {
    match fake.cluster().configs.get(&name).and_then(|all| all.last()) {
        Some(config) => Json(config).into_response(),
        None => no_config(&name),
    }
}

async fn config_patch(
    State(fake): Cl,
    Named(name): Named<String>,
    Json(patch): Json<ConfigPatch>,
) -> Response {
    let mut cluster = fake.cluster();
    let old = cluster.configs.get(&name).and_then(|all| all.last()).cloned().unwrap_or_default();
    let mut values = old.values;
    values.retain(|key, _| !patch.remove.contains(key));
    values.extend(patch.set);
    cluster.configure(&name, values)
}

async fn config_delete(State(fake): Cl, Named(name): Named<String>) -> Response {
    let mut cluster = fake.cluster();
    match cluster.configs.remove(&name) {
        Some(_) => cluster.written(StatusCode::NO_CONTENT, &[]).into_response(),
        None => no_config(&name),
    }
}

async fn config_history(State(fake): Cl, Named(name): Named<String>) -> Response {
    let cluster = fake.cluster();
    let Some(all) = cluster.configs.get(&name) else { return no_config(&name) };
    let first = Config::default();
    let before = std::iter::once(&first).chain(all);
    let revision = |(old, new): (&Config, &Config)| ConfigRevision {
        revision: new.revision,
        changed_ms: new.changed_ms,
        current: new.revision == all.len() as u64,
        changes: Changes::between(&old.values, &new.values),
    };
    let mut revisions: Vec<ConfigRevision> = before.zip(all).map(revision).collect();
    revisions.reverse();
    Json(ConfigHistory { revisions }).into_response()
}

async fn config_rollback(
    State(fake): Cl,
    Named(name): Named<String>,
    Json(wish): Json<ConfigRollback>,
) -> Response {
    let mut cluster = fake.cluster();
    let Some(all) = cluster.configs.get(&name) else { return no_config(&name) };
    let present = all.last().map(|config| config.revision).unwrap_or_default();
    let to = wish.revision.unwrap_or(present - 1);
    match all.iter().find(|config| config.revision == to).map(|config| config.values.clone()) {
        Some(values) => cluster.configure(&name, values),
        None => refusal(StatusCode::CONFLICT, &format!("revision {to} of {name} is not kept")),
    }
}

async fn app_list(State(fake): Cl) -> Json<AppPage> {
    let cluster = fake.cluster();
    Json(AppPage { apps: cluster.apps.values().map(|app| cluster.counted(app)).collect() })
}

async fn app_get(State(fake): Cl, Named(name): Named<String>) -> Response {
    let cluster = fake.cluster();
    match cluster.apps.get(&name) {
        Some(app) => Json(cluster.counted(app)).into_response(),
        None => refusal(StatusCode::NOT_FOUND, &format!("there is no application {name}")),
    }
}

async fn app_blob(
    State(fake): Cl,
    Named((_, sum)): Named<(String, String)>,
    body: Bytes,
) -> Response {
    assert_eq!(Checksum::of(&body).as_str(), sum, "the content of that name");
    let mut cluster = fake.cluster();
    cluster.blobs.insert(sum, body.to_vec());
    cluster.written(StatusCode::NO_CONTENT, &[]).into_response()
}

async fn app_file(State(fake): Cl, Named((name, path)): Named<(String, String)>) -> Response {
    let cluster = fake.cluster();
    let entry = cluster.apps.get(&name).and_then(|app| app.files.get(&path));
    match entry.and_then(|entry| cluster.blobs.get(entry.sum.as_str())) {
        Some(content) => content.clone().into_response(),
        None => refusal(StatusCode::NOT_FOUND, &format!("{name} has no file {path}")),
    }
}

async fn volume_delete(State(fake): Cl, Named((id, name)): Named<(String, String)>) -> Response {
    let mut cluster = fake.cluster();
    let before = cluster.volumes.volumes.len();
    cluster.volumes.volumes.retain(|volume| (&volume.machine_id, &volume.name) != (&id, &name));
    match cluster.volumes.volumes.len() < before {
        true => StatusCode::NO_CONTENT.into_response(),
        false => refusal(StatusCode::NOT_FOUND, &format!("fleet made no volume {name}")),
    }
}

async fn app_delete(State(fake): Cl, Named(name): Named<String>) -> Response {
    let mut cluster = fake.cluster();
    let Some(app) = cluster.apps.remove(&name) else {
        return refusal(StatusCode::NOT_FOUND, &format!("there is no application {name}"));
    };
    app.units.iter().for_each(|unit| drop(cluster.units.remove(unit.as_str())));
    let volumes = app.units.iter().filter(|unit| unit.suffix() == "volume").cloned().collect();
    let (code, headers) = cluster.written(StatusCode::OK, &[]);
    (code, headers, Json(AppRemoved { units: app.units, volumes })).into_response()
}

async fn app_apply(
    State(fake): Cl,
    Named(name): Named<String>,
    Query(query): Query<BTreeMap<String, String>>,
    Json(files): Json<AppFiles>,
) -> Response {
    let is = |name: &str| query.get(name).is_some_and(|value| value == "true");
    let listener = fake.cluster().on_apply.clone().filter(|_| !is("dryRun"));
    if let Some(listener) = listener {
        let _ = listener.send(());
        return std::future::pending().await;
    }
    let mut cluster = fake.cluster();
    if let Some((code, message)) = &cluster.apply_refused {
        return refusal(StatusCode::from_u16(*code).expect("a status"), message);
    }
    let present = cluster.apps.get(&name).map_or(0, |app| app.revision);
    let present = present + u64::from(cluster.overtaken && !is("dryRun"));
    let wanted = query.get("ifRevision").map_or(present, |n| n.parse().expect("a number"));
    if wanted != present {
        let message =
            format!("somebody applied revision {present} of {name} since: web@.container");
        return refusal(StatusCode::CONFLICT, &message);
    }
    if query.get("ifUnits").is_some_and(|basis| *basis != cluster.basis) {
        let message =
            format!("{name} changed since this was planned: somebody changed db.container");
        return refusal(StatusCode::CONFLICT, &message);
    }
    let mut plan = cluster.app_plan(&name, &files, is("prune"));
    plan.revision = present;
    plan.basis.clone_from(&cluster.basis);
    if !is("dryRun") && plan.changes {
        assert!(plan.missing.is_empty(), "all contents are sent before");
        plan.applied = true;
        plan.revision = present + 1;
        cluster.apply(&name, files, &plan);
    }
    Json(plan).into_response()
}

impl Cluster {
    /// The application with its counts.
    fn counted(&self, app: &App) -> App {
        let units = app.units.iter().filter_map(|unit| self.units.get(unit.as_str()));
        let instances: Vec<(&Unit, Option<&Machine>)> = units
            .flat_map(|unit| self.instances(unit).into_iter().map(move |(_, at)| (unit, at)))
            .collect();
        let runs = |(unit, machine): &&(&Unit, Option<&Machine>)| {
            machine.is_some() && Cluster::status_of(unit, false).is_active()
        };
        let running = instances.iter().filter(runs).count();
        App { wanted: instances.len(), running, ..app.clone() }
    }

    /// The unit as an apply makes it, with `Replicas=` as its count.
    fn applied(name: &str, text: &str) -> Unit {
        let options = UnitFile::parse_lenient(text).options;
        let count = UnitFile::from_options(options.clone());
        let replicas = count.last("X-Fleet", "Replicas").map(|n| n.parse().expect("a number"));
        Unit {
            name: name.to_string(),
            desired_state: "launched".to_string(),
            options,
            text: Some(text.to_string()),
            replicas,
            ..Unit::default()
        }
    }

    fn app_plan(&self, name: &str, files: &AppFiles, prune: bool) -> AppPlan {
        let app = self.apps.get(name);
        let of_app = app.map(|app| app.units.iter().map(ToString::to_string));
        let names: BTreeSet<String> =
            files.units.keys().cloned().chain(of_app.into_iter().flatten()).collect();
        let unit = |name: String| {
            let (old, new) = (self.units.get(&name), files.units.get(&name));
            let old_text = old.and_then(|unit| unit.text.clone());
            let kind = match (&old_text, new) {
                (None, _) => "create",
                (Some(old), Some(new)) if old == new => "keep",
                (Some(_), Some(_)) => "change",
                (Some(_), None) if prune => "remove",
                (Some(_), None) => "stray",
            };
            let on = |unit: &Unit| -> Vec<InstanceOn> {
                let all = self.instances(unit).into_iter();
                all.filter_map(|(instance, machine)| {
                    let instance = UnitName::trusted(instance);
                    Some(InstanceOn { instance, machine: MachineId::new(machine?.id.as_str()) })
                })
                .collect()
            };
            let before = old.map(on).unwrap_or_default();
            let after = match (kind, new) {
                ("create" | "change", Some(text)) => on(&Cluster::applied(&name, text)),
                ("remove", _) => Vec::new(),
                _ => before.clone(),
            };
            let only = |some: &[InstanceOn], other: &[InstanceOn]| -> Vec<InstanceOn> {
                some.iter().filter(|on| !other.contains(on)).cloned().collect()
            };
            let changes = kind == "change";
            let restarts = if changes { before.len().min(after.len()) } else { 0 };
            UnitPlan {
                starts: only(&after, &before),
                stops: only(&before, &after),
                kind: kind.to_string(),
                old_text: old_text.filter(|_| changes),
                new_text: new.filter(|_| changes).cloned(),
                restarts,
                down_at_most: restarts.min(1),
                name,
                ..UnitPlan::default()
            }
        };
        let units: Vec<UnitPlan> = names.into_iter().map(unit).collect();
        let old_files = app.map(|app| app.files.clone()).unwrap_or_default();
        let paths: BTreeSet<&String> = old_files.keys().chain(files.files.keys()).collect();
        let file = |path: &String| {
            let kind = match (old_files.get(path), files.files.get(path)) {
                (None, _) => "create",
                (Some(old), Some(new)) if old == new => return None,
                (Some(_), Some(_)) => "change",
                (Some(_), None) => "remove",
            };
            let named = |(_, text): &(&String, &String)| text.contains(path.as_str());
            let units = files.units.iter().filter(named).map(|(name, _)| name.clone()).collect();
            Some(FilePlan { path: path.clone(), kind: kind.to_string(), units })
        };
        let changed: Vec<FilePlan> = paths.into_iter().filter_map(file).collect();
        let sums = files.files.values().map(|entry| &entry.sum);
        let is_change = |unit: &UnitPlan| unit.kind != "keep" && unit.kind != "stray";
        AppPlan {
            changes: units.iter().any(is_change) || !changed.is_empty(),
            missing: sums.filter(|sum| !self.blobs.contains_key(sum.as_str())).cloned().collect(),
            units,
            files: changed,
            ..AppPlan::default()
        }
    }

    fn apply(&mut self, name: &str, files: AppFiles, plan: &AppPlan) {
        for unit in &plan.units {
            match (unit.kind.as_str(), files.units.get(&unit.name)) {
                ("remove", _) => drop(self.units.remove(&unit.name)),
                ("create" | "change", Some(text)) => {
                    self.units.insert(unit.name.clone(), Cluster::applied(&unit.name, text));
                }
                _ => {}
            }
        }
        let gone = |unit: &&UnitPlan| unit.kind != "remove";
        let units = plan.units.iter().filter(gone).map(|unit| UnitName::trusted(&*unit.name));
        let app = App {
            name: AppName::parse(name).expect("fleetctl checked it"),
            revision: plan.revision,
            applied_ms: 1_764_500_000_000,
            wanted: 0,
            running: 0,
            units: units.collect(),
            replicas: Vec::new(),
            files: files.files,
        };
        self.apps.insert(name.to_string(), app);
    }
}

async fn rollback(
    State(fake): Cl,
    Named(name): Named<String>,
    Json(wish): Json<Rollback>,
) -> Response {
    let mut cluster = fake.cluster();
    if !cluster.units.contains_key(&name) {
        return refusal(StatusCode::NOT_FOUND, "unit does not exist");
    }
    let from = cluster.revisions.first().map_or(1, |revision| revision.revision);
    let to = wish.revision.unwrap_or(from - 1);
    if to >= from {
        return refusal(
            StatusCode::CONFLICT,
            &format!("{name} has no revision {to}; its present one is {from}"),
        );
    }
    let (code, headers) = cluster.written(StatusCode::OK, &[]);
    (code, headers, Json(RolledBack { name, from, to, revision: from + 1 })).into_response()
}

/// Pages of two units, so that every list has several.
async fn unit_list(State(fake): Cl, Query(query): Query<BTreeMap<String, String>>) -> Response {
    let cluster = fake.cluster();
    if cluster.store_is_away {
        return refusal(
            StatusCode::SERVICE_UNAVAILABLE,
            "fleet server unable to communicate with etcd",
        );
    }
    let start: usize =
        query.get("nextPageToken").map_or(0, |token| token.parse().expect("our own token"));
    let units: Vec<Unit> = cluster
        .units
        .values()
        .skip(start)
        .take(2)
        .map(|unit| Unit { text: None, ..cluster.shown(unit) })
        .collect();
    let next_page_token =
        if start + 2 < cluster.units.len() { (start + 2).to_string() } else { String::new() };
    Json(UnitPage { next_page_token, units }).into_response()
}

async fn state_list(State(fake): Cl, Query(query): Query<BTreeMap<String, String>>) -> Response {
    let cluster = fake.cluster();
    let mut states = Vec::new();
    for unit in cluster
        .units
        .values()
        .filter(|unit| query.get("unitName").is_none_or(|name| *name == unit.name))
    {
        for (name, machine) in cluster.instances(unit) {
            let Some(machine) = machine else { continue };
            let status = Cluster::status_of(unit, false);
            states.push(UnitState {
                hash: file_of(unit).hash(),
                machine_id: machine.id.clone(),
                name,
                systemd_active_state: status.active,
                systemd_load_state: status.load,
                systemd_sub_state: status.sub,
                result: status.result,
                code: status.code,
                since_ms: cluster.since_ms,
                ..UnitState::default()
            });
        }
    }
    let asked = |name: &&String| query.get("unitName").is_none_or(|asked| asked == *name);
    states.extend(cluster.stopping.iter().filter(asked).map(|name| UnitState {
        machine_id: cluster.machines[0].id.clone(),
        name: name.clone(),
        systemd_active_state: "deactivating".to_string(),
        ..UnitState::default()
    }));
    Json(UnitStatePage { states, ..UnitStatePage::default() }).into_response()
}

async fn unit_get(State(fake): Cl, Named(name): Named<String>) -> Response {
    let cluster = fake.cluster();
    match cluster.units.get(&name) {
        Some(unit) => Json(cluster.shown(unit)).into_response(),
        None if let Some(replica) = cluster.replica(&name) => Json(replica).into_response(),
        None => refusal(StatusCode::NOT_FOUND, "unit does not exist"),
    }
}

async fn unit_put(State(fake): Cl, Named(name): Named<String>, Json(body): Json<Unit>) -> Response {
    let mut cluster = fake.cluster();
    let template = UnitName::trusted(name.as_str()).is_template();
    let scaled = cluster.units.get(&name).is_some_and(|unit| unit.replicas.is_some());
    if template && !scaled && !matches!(body.desired_state.as_str(), "" | "inactive") {
        return refusal(StatusCode::BAD_REQUEST, &format!("cannot activate template \"{name}\""));
    }
    let file = body.text.as_deref().map(|text| UnitFile::parse(text).expect("fleetctl checked it"));
    let warnings: Vec<String> = file.iter().flat_map(lint).map(|note| note.to_string()).collect();
    let replica = cluster.replica(&name);
    match cluster.units.get_mut(&name) {
        Some(unit) => {
            if !body.options.is_empty() {
                unit.options = body.options;
                unit.text = body.text;
            }
            unit.desired_state = body.desired_state;
            cluster.written(StatusCode::NO_CONTENT, &warnings).into_response()
        }
        // A replica gets a record of its own by being given a state of its own.
        None if let Some(replica) = replica => {
            let own =
                Unit { template: String::new(), desired_state: body.desired_state, ..replica };
            cluster.units.insert(name, own);
            cluster.written(StatusCode::CREATED, &warnings).into_response()
        }
        None if body.options.is_empty() => {
            refusal(StatusCode::CONFLICT, "unit does not exist and options field empty")
        }
        None => {
            let desired_state = if body.desired_state.is_empty() {
                "inactive".to_string()
            } else {
                body.desired_state.clone()
            };
            cluster.units.insert(name.clone(), Unit { name, desired_state, ..body });
            cluster.written(StatusCode::CREATED, &warnings).into_response()
        }
    }
}

async fn unit_delete(State(fake): Cl, Named(name): Named<String>) -> Response {
    let mut cluster = fake.cluster();
    match cluster.units.remove(&name) {
        Some(_) => cluster.written(StatusCode::NO_CONTENT, &[]).into_response(),
        None => refusal(StatusCode::NOT_FOUND, "unit does not exist"),
    }
}

async fn scale(State(fake): Cl, Named(name): Named<String>, Json(wish): Json<Scale>) -> Response {
    let mut cluster = fake.cluster();
    let most = cluster.most_replicas;
    let Some(unit) = cluster.units.get_mut(&name) else {
        return refusal(StatusCode::NOT_FOUND, "unit does not exist");
    };
    let before = unit.replicas.unwrap_or(0);
    let wanted = if wish.relative { i64::from(before) + wish.replicas } else { wish.replicas };
    if !(0..=most).contains(&wanted) {
        return refusal(
            StatusCode::BAD_REQUEST,
            &format!("{name}: {wanted} replicas; a count is from 0 to {most}"),
        );
    }
    unit.replicas = Some(wanted as u32);
    unit.desired_state = "launched".to_string();
    let scaled = Scaled { name: UnitName::trusted(name), before, replicas: wanted as u32 };
    let (code, headers) = cluster.written(StatusCode::OK, &[]);
    (code, headers, Json(scaled)).into_response()
}

async fn restart(State(fake): Cl, Named(name): Named<String>) -> Response {
    let mut cluster = fake.cluster();
    let name = UnitName::trusted(name);
    cluster.killed.retain(|killed| {
        *killed != name.as_str()
            && UnitName::trusted(killed.as_str()).template().as_ref() != Some(&name)
    });
    cluster.restarts.push(name.to_string());
    cluster.written(StatusCode::ACCEPTED, &[]).into_response()
}

async fn status(State(fake): Cl, Named(name): Named<String>) -> Response {
    let mut cluster = fake.cluster();
    let replica = cluster.replica(&name);
    let Some(unit) = cluster.units.get(&name).or(replica.as_ref()).cloned() else {
        return refusal(StatusCode::NOT_FOUND, "unit does not exist");
    };
    if cluster.instances(&unit).is_empty() {
        return refusal(StatusCode::CONFLICT, "it is inactive: on no machine");
    }
    let exec = file_of(&unit).last("Service", "ExecStart").unwrap_or_default().to_string();
    let first = cluster.looked_at.insert(name.clone());
    if cluster.busy {
        return refusal(StatusCode::TOO_MANY_REQUESTS, "all places for systemctl are taken");
    }
    let failed =
        "failed (Result: exit-code) since Wed; 1s ago\n   Main PID: 9 (code=exited, status=7)";
    let (active, code) = match exec.get(..9) {
        Some("/bin/dies") => (failed.to_string(), "3"),
        Some("/bin/flak") if first => {
            ("activating (auto-restart) (Result: exit-code)".to_string(), "3")
        }
        Some("/bin/ends") => ("inactive (dead)".to_string(), "3"),
        _ => match Cluster::status_of(&unit, false).active {
            active if active == "active" => (active, "0"),
            active => (active, "3"),
        },
    };
    let mut headers = HeaderMap::new();
    headers.insert(EXIT_STATUS_HEADER, HeaderValue::from_static(code));
    if let Some(problem) = &cluster.problem {
        headers.insert(PROBLEM_HEADER, HeaderValue::from_str(problem).expect("a header's text"));
    }
    let says = cluster.says.as_deref().unwrap_or_default();
    (headers, format!("● {name}\n     Active: {active}\n{says}")).into_response()
}

async fn fencing(State(fake): Cl, Named(name): Named<String>) -> Json<FencingPage> {
    let fencing =
        fake.cluster().fencing.iter().filter(|fenced| fenced.name == name).cloned().collect();
    Json(FencingPage { fencing })
}

async fn failures(State(fake): Cl, Named(name): Named<String>) -> Json<FailurePage> {
    let mut page = fake.cluster().failures.clone();
    page.failures.retain(|failure| failure.name == name);
    Json(page)
}

async fn journal(
    State(fake): Cl,
    Named(name): Named<String>,
    query: axum::extract::RawQuery,
) -> Response {
    let mut cluster = fake.cluster();
    cluster.journals.push(query.0.unwrap_or_default());
    let replica = cluster.replica(&name);
    match cluster.units.get(&name).or(replica.as_ref()) {
        None => refusal(StatusCode::NOT_FOUND, "unit does not exist"),
        Some(unit) if cluster.instances(unit).is_empty() => {
            refusal(StatusCode::CONFLICT, "it is inactive: on no machine")
        }
        Some(_) => {
            let note =
                cluster.problem.as_ref().map_or(String::new(), |problem| format!("\0{problem}\n"));
            let says = cluster.says.as_deref().unwrap_or_default();
            format!("Nov 22 21:33:16 host {name}: hello\n{says}{note}").into_response()
        }
    }
}

async fn follow(State(fake): Cl, query: axum::extract::RawQuery) -> Response {
    let query = query.0.unwrap_or_default();
    let units: Vec<String> = query
        .split('&')
        .filter_map(|pair| pair.strip_prefix("unit="))
        .map(|name| name.replace("%40", "@"))
        .collect();
    let mut cluster = fake.cluster();
    if let Some(listener) = &cluster.on_follow {
        let _ = listener.send(());
    }
    if cluster.follows_to_break > 0 {
        cluster.follows_to_break -= 1;
        return Body::empty().into_response();
    }
    let line = |later: bool| {
        let leader = cluster.machines.first().map(|m| MachineId::new(m.id.as_str()));
        let units = units.iter().map(|name| cluster.progress(name, later)).collect();
        let mut line = serde_json::to_vec(&Progress { revision: cluster.revision, leader, units })
            .expect("JSON");
        line.push(b'\n');
        Ok::<Bytes, std::convert::Infallible>(Bytes::from(line))
    };
    let lines = [line(true), line(false)];
    let forever = futures_util::stream::pending();
    Body::from_stream(futures_util::StreamExt::chain(futures_util::stream::iter(lines), forever))
        .into_response()
}

async fn events(State(fake): Cl, Query(query): Query<BTreeMap<String, String>>) -> Response {
    let unit = query.get("unit").map(|unit| UnitName::trusted(unit.as_str()));
    let events = fake.cluster().events.clone().into_iter();
    let mut events: Vec<Event> = events
        .filter_map(|event| event.about(unit.as_ref(), query.get("machine").map(String::as_str)))
        .collect();
    let lines = query.get("lines").map_or(usize::MAX, |lines| lines.parse().expect("a number"));
    events.drain(..events.len().saturating_sub(lines));
    match query.contains_key("follow") {
        false => Json(EventPage { events }).into_response(),
        true => {
            let lines: Vec<String> = events
                .iter()
                .map(|event| format!("{}\n", serde_json::to_string(event).expect("JSON")))
                .collect();
            let lines = lines.concat();
            let lines = Ok::<Bytes, std::convert::Infallible>(Bytes::from(lines));
            let forever = futures_util::stream::pending();
            let first = futures_util::stream::iter([lines]);
            Body::from_stream(futures_util::StreamExt::chain(first, forever)).into_response()
        }
    }
}

async fn snapshot(State(fake): Cl, Query(query): Query<BTreeMap<String, String>>) -> Response {
    let saved = fake
        .cluster()
        .saved
        .clone()
        .filter(|saved| query.get("plan").is_none_or(|digest| *digest == saved.plan));
    match saved {
        Some(saved) => Json(saved).into_response(),
        None => refusal(
            StatusCode::NOT_FOUND,
            "the leader no longer has the snapshot of this plan; it keeps the last few",
        ),
    }
}
