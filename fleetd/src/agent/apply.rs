//! Carrying out steps. No decisions live here: what can be decided is decided in `converge`, where
//! it is tested without a host.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use fleet_core::app::runs_the_same;
use fleet_core::converge::{FencedBy, Marker, Step};
use fleet_core::name::UnitName;
use fleet_core::unit::file::{ShortHash, UnitFile};
use fleet_core::unit::health;
use futures_util::stream::{self, StreamExt};
use tokio::time::{Instant, timeout};
use tracing::{debug, warn};

use super::Agent;
use super::enable::Written;
use super::report::UNHEALTHY;
use super::rest::AtRest;
use crate::systemd::{Job, JobOutcome, MAX_CALLS, MAX_JOBS, MAX_STARTS, SystemdError, TakenOver};

/// How long a pass goes on with steps. One step may take seconds where podman's generator or
/// systemd hangs. The rest is for the next pass, which sees what has happened meanwhile.
const LONGEST_APPLY: Duration = Duration::from_secs(10);

/// How many job slots stay free for the keeper, however many units hang.
const KEPT_SLOTS: usize = 2;

/// systemd's words for `RefuseManualStart=` and `RefuseManualStop=`.
const REFUSES_ALL: &str = "configured to refuse manual start/stop";

/// How many texts are kept, so that a thousand replicas fetch their text once.
const KEPT_TEXTS: usize = 256;

/// Reloads for the sake of enabled units take at most a tenth of the time: one of 5,000 loaded
/// units takes systemd 15 s.
const RELOADING_SHARE: u64 = 10;

/// How long a machine that leaves waits for systemd to read its files again.
const LAST_RELOAD: Duration = Duration::from_secs(5);

/// Texts by unit, revision and hash: a unit that was destroyed and submitted again counts its
/// revisions anew.
#[derive(Default)]
pub(super) struct Texts(pub(super) BTreeMap<TextKey, Arc<str>>);

impl Texts {
    pub(super) fn get(&self, key: &TextKey) -> Option<Arc<str>> {
        self.0.get(key).cloned()
    }
}

/// A unit, the number of its text and that text's hash.
pub(super) type TextKey = (UnitName, u64, ShortHash);

impl Agent {
    /// Carries out `steps`, as far as there are job slots and time; true if some were left for the
    /// next tick. A step that fails gives its instance a pause and holds up nobody else.
    pub(super) async fn apply(&mut self, steps: Vec<Step>, now_ms: u64) -> bool {
        let begin = Instant::now();
        let wants_text = |step: &Step| match step {
            Step::Write { unit, revision, hash, .. } => {
                Some((unit.clone(), *revision, hash.clone()))
            }
            _ => None,
        };
        let wanted: BTreeSet<TextKey> = steps.iter().filter_map(wants_text).collect();
        let changes = self.changes(&steps);
        let old = changes.iter().map(|(_, old, _)| old.clone());
        self.fetch_texts(wanted.iter().cloned().chain(old).collect()).await;
        self.alike = changes
            .into_iter()
            .filter(|(_, old, new)| self.are_alike(old, new))
            .map(|(instance, ..)| instance)
            .collect();
        let texts: Vec<Arc<str>> =
            wanted.iter().filter_map(|key| self.texts.0.get(key).cloned()).collect();
        self.fetch_bundles(texts.iter().map(|text| &**text)).await;
        self.fetch_configurations(&steps).await;
        if self.instances.notes.reload_is_due() && !self.reload().await {
            return true; // a unit started now might run its old text
        }
        // An earlier fleetd may have ended between the last sharer's removal and this.
        for template in self.instances.unshared() {
            if let Err(problem) = self.drop_unshared(&template).await {
                debug!("the file of {template} stays for now: {problem}");
            }
        }
        let written = steps.iter().filter_map(|step| {
            if let Step::Write { instance, .. } = step { Some(instance) } else { None }
        });
        self.rewriting = written.cloned().collect();
        let mut failed = BTreeSet::new();
        let mut jobs: Vec<(UnitName, Job, Step)> = Vec::new();
        let mut to_enable: Vec<Written> = Vec::new();
        let mut left_over = false;
        let mut written: Option<ShortHash> = None;
        for step in steps {
            if begin.elapsed() >= LONGEST_APPLY {
                left_over = true;
                break;
            }
            let text = if let Step::Write { hash, .. } = &step { Some(hash.clone()) } else { None };
            if text.is_none() || text != written {
                // Before its first start, as fleet 1.0 did it; and before another text of its
                // template, which must know whose file it is.
                self.enable(std::mem::take(&mut to_enable), &mut failed, now_ms).await;
            }
            written = text;
            if let Step::Configure { instance, reload: false } = &step {
                let instance = instance.clone();
                match self.configure(&instance) {
                    Ok(()) => self.note(&instance, step, now_ms),
                    Err(problem) => self.wait_for_values(&instance, problem, now_ms),
                }
                continue;
            }
            let job = match &step {
                Step::Stop(name) => Some((name.clone(), Job::Stop)),
                Step::Start { instance, .. } => Some((instance.clone(), Job::Start)),
                Step::Restart { instance, .. } | Step::Revive { instance, .. } => {
                    Some((instance.clone(), Job::Restart))
                }
                Step::Configure { instance, .. } => Some((instance.clone(), Job::Reload)),
                Step::Remove(_) | Step::Write { .. } | Step::Reload | Step::Pull(_) => None,
            };
            match job {
                // A reload that failed is tried first in the next tick; until then nothing starts.
                Some((_, job)) if job != Job::Stop && self.instances.notes.reload_is_due() => {
                    left_over = true
                }
                Some((name, _)) if failed.contains(&name) => {}
                Some((name, Job::Start | Job::Restart)) if self.alike.contains(&name) => {}
                Some((_, job)) if !self.has_slot(job, jobs.len()) => left_over = true,
                Some((name, job)) => match self.yield_to_host(&name, job).await {
                    Ok(()) if job == Job::Stop => jobs.push((name, job, step)),
                    Ok(()) => match self.configure(&name) {
                        Ok(()) => jobs.push((name, job, step)),
                        Err(problem) => self.wait_for_values(&name, problem, now_ms),
                    },
                    Err(problem) => {
                        self.fail(&name, problem, now_ms);
                        failed.insert(name);
                    }
                },
                None if let Step::Pull(instance) = &step => self.pull(instance, now_ms).await,
                None => {
                    // What stands before a reload or a write must have been asked for before it.
                    self.queue(std::mem::take(&mut jobs), now_ms).await;
                    match self.prepare(step).await {
                        Ok(unlinked) => to_enable.extend(unlinked),
                        Err((name, problem)) => {
                            self.fail(&name, problem, now_ms);
                            failed.insert(name);
                        }
                    }
                }
            }
        }
        self.forget_bundles();
        self.enable(to_enable, &mut failed, now_ms).await;
        self.queue(jobs, now_ms).await;
        left_over
    }

    /// The instances that were started and get another text, each with the keys of both.
    fn changes(&self, steps: &[Step]) -> Vec<(UnitName, TextKey, TextKey)> {
        let change = |step: &Step| {
            let Step::Write { instance, unit, revision, hash, fence } = step else { return None };
            let known = self.instances.get(instance)?;
            let old = known.marker()?;
            let whole = !old.writing || old.alike;
            let runs = old.launched && whole && !old.outdated && !old.earlier;
            let same = old.unit == *unit && old.fence == *fence;
            let text = known.runs.as_ref().unwrap_or(&old.hash);
            let old = (old.unit.clone(), old.revision, text.clone());
            let new = (unit.clone(), *revision, hash.clone());
            (runs && same && old.2 != *hash).then(|| (instance.clone(), old, new))
        };
        steps.iter().filter_map(change).collect()
    }

    fn are_alike(&self, old: &TextKey, new: &TextKey) -> bool {
        match (self.texts.0.get(old), self.texts.0.get(new)) {
            (Some(old), Some(new)) => runs_the_same(old, new),
            _ => false,
        }
    }

    /// Whether a job may be queued beside `others`: a call that waits for a slot would hold up the
    /// pass for as long as units hang. Stops have slots of their own.
    pub(super) fn has_slot(&self, job: Job, others: usize) -> bool {
        let most = if job == Job::Stop { MAX_JOBS } else { MAX_STARTS };
        self.systemd.jobs_in_flight() + others + KEPT_SLOTS < most
    }

    /// The steps that are no jobs. Answers with what was written and is still to be enabled.
    async fn prepare(&mut self, step: Step) -> Result<Option<Written>, (UnitName, String)> {
        match step {
            Step::Reload => {
                // Not for a write that was refused: a reload may hand a name over to the host.
                if self.instances.notes.reload_is_due() {
                    self.reload().await;
                }
                Ok(None)
            }
            Step::Remove(name) => {
                self.remove(&name).await.map(|()| None).map_err(|problem| (name, problem))
            }
            Step::Write { instance, unit, revision, hash, fence } => {
                let written = self.write(&instance, &unit, (revision, hash), fence).await;
                self.rewriting.remove(&instance); // from now on the file that it shares is its own text
                written.map_err(|problem| (instance, problem))
            }
            Step::Stop(_)
            | Step::Start { .. }
            | Step::Restart { .. }
            | Step::Revive { .. }
            | Step::Configure { .. }
            | Step::Pull(_) => Ok(None),
        }
    }

    /// Has targets learn of enabled units, once the host is quiet: a reload is dear, and nothing
    /// that fleet starts waits for it.
    pub(super) async fn tell_targets(&mut self, now_ms: u64) {
        if self.instances.notes.links_are_due()
            && now_ms >= self.no_links_before_ms
            && self.systemd.jobs_in_flight() == 0
        {
            let begin = Instant::now();
            self.reload().await;
            self.no_links_before_ms = now_ms + begin.elapsed().as_millis() as u64 * RELOADING_SHARE;
        }
    }

    /// Ends what was enabled for a systemd that goes on without fleet. The machine may be shutting
    /// down, so it gets little time.
    pub(super) async fn forget_links(&mut self) {
        if self.instances.notes.links_are_due() {
            match timeout(LAST_RELOAD, self.systemd.reload()).await {
                Ok(Ok(())) => self.instances.notes.note_reloaded(),
                Ok(Err(error)) => debug!("{error}"),
                Err(_) => debug!("systemd is still reloading"),
            }
        }
    }

    async fn reload(&mut self) -> bool {
        let done = self.systemd.reload().await;
        match &done {
            Ok(()) => self.instances.notes.note_reloaded(),
            Err(error) => warn!("{error}; units with a new text wait"),
        }
        done.is_ok()
    }

    /// Whose the unit is shows only now: the host may have brought one of its own of that name
    /// since fleet wrote its. What systemd goes by as the host's is not touched, and fleet's own
    /// files for it go. The error says so.
    async fn yield_to_host(&mut self, name: &UnitName, job: Job) -> Result<(), String> {
        let Some(by) = self.taken_over(name).await?.filter(|by| by.in_force) else { return Ok(()) };
        let problem = is_the_hosts(&name.systemd_name(), &by.path);
        // Its drop-in binds a fenced one to the guard. What runs may still be fleet's, so that
        // stays until it has ended.
        let fenced = self.instances.marker(name).is_some_and(|marker| marker.fence.is_some());
        if !fenced || job == Job::Start {
            self.remove(name).await?;
        }
        Err(problem)
    }

    async fn taken_over(&self, name: &UnitName) -> Result<Option<TakenOver>, String> {
        self.systemd.host_takes_over(&name.systemd_name()).await.map_err(|e| e.to_string())
    }

    pub(super) async fn remove(&mut self, name: &UnitName) -> Result<(), String> {
        let systemd_name = name.systemd_name();
        let taken_over = self.taken_over(name).await?.is_some_and(|by| by.in_force);
        if !taken_over {
            self.systemd.reset_failed(&systemd_name).await.map_err(|e| e.to_string())?;
        }
        let enabled = self.instances.marker(name).is_some_and(|marker| marker.enabled);
        if enabled || taken_over {
            // Until a reload systemd says of every unit that it changed on disk; and the host's own
            // still has fleet's drop-in.
            self.instances.notes.note_links_due();
        }
        if enabled {
            self.systemd.disable(&systemd_name).await.map_err(|e| e.to_string())?;
        }
        self.systemd.remove(&systemd_name).await.map_err(|e| e.to_string())?;
        self.files.remove(&systemd_name)?;
        self.forget_configuration(name)?;
        self.instances.remove_marker(name).map_err(|e| e.to_string())?;
        match systemd_name.template() {
            Some(template) => self.drop_unshared(&template).await,
            None => Ok(()),
        }
    }

    async fn write(
        &mut self,
        instance: &UnitName,
        unit: &UnitName,
        (revision, hash): (u64, ShortHash),
        fence: Option<FencedBy>,
    ) -> Result<Option<Written>, String> {
        // The name becomes one of files: the last place where a bad one is found.
        UnitName::parse(instance.as_str()).map_err(|problem| problem.to_string())?;
        if let Some(problem) =
            instance.refusal().filter(|_| self.instances.marker(instance).is_none())
        {
            return Err(format!(
                "{problem}. It was taken by an earlier version; destroy it, and submit it by another \
                 name"
            ));
        }
        let key = (unit.clone(), revision, hash.clone());
        let Some(text) = self.texts.get(&key) else {
            return Err(format!(
                "the text of {unit}, revision {revision}, cannot be had from the store yet"
            ));
        };
        let systemd_name = instance.systemd_name();
        let old = self.instances.marker(instance).cloned();
        if old.as_ref().is_none_or(|old| old.writing)
            && let Some(path) =
                self.systemd.host_defines(&systemd_name).await.map_err(|e| e.to_string())?
        {
            return Err(is_the_hosts(&systemd_name, &path));
        }
        if old.is_some()
            && let Some(by) = self.taken_over(instance).await?
        {
            self.yield_to_host(instance, Job::Restart).await?;
            return Err(is_the_hosts(&systemd_name, &by.path)); // a reload would hand over what runs
        }
        let check = health::check_of(instance, &UnitFile::parse_lenient(&text));
        // A text that an older version took, to which the option meant nothing, runs as it did.
        let check = check.unwrap_or_else(|problem| {
            warn!(unit = %instance, "{instance} is not asked for its health: {problem}");
            None
        });
        let check = check.map(Box::new);
        let rendered = self.render(instance, &key, &text).await?;
        let changed = old.as_ref().is_some_and(|old| old.hash != hash || old.fence != fence);
        if changed || old.as_ref().is_some_and(|old| old.writing) {
            self.instances.notes.note_reload_due();
        }
        let mut marker = Marker {
            unit: unit.clone(),
            revision,
            hash,
            launched: false,
            // A text of another unit, or a new one, starts a new account of restarts.
            restart: old.as_ref().map_or(0, |old| old.restart),
            oneshot: rendered.oneshot,
            remains: rendered.remains,
            fence,
            enabled: rendered.installs,
            shared: false,
            outdated: old.as_ref().is_some_and(|old| old.outdated || (old.asked_for() && changed)),
            stopping: false,
            starting: false,
            writing: false,
            alike: false,
            earlier: false,
            ended: false,
            bound: rendered.bound,
            beside: rendered.beside.keys().cloned().collect(),
            beside_old: Vec::new(),
            config: Agent::configured(old.as_ref(), &text),
            settles_ms: rendered.settles_ms,
            check,
            healthy: false,
            on_failure: rendered.on_failure.clone(),
        };
        let before = old.iter().flat_map(|old| old.beside.iter().chain(&old.beside_old));
        let gone: BTreeSet<&UnitName> =
            before.filter(|service| !rendered.beside.contains_key(*service)).collect();
        marker.beside_old = gone.into_iter().cloned().collect();
        // Noted before it is done, so that no file is left that nobody knows, and none is taken for
        // another.
        let alike = self.alike.contains(instance);
        let mut intent =
            Marker { writing: true, alike, ..old.clone().unwrap_or_else(|| marker.clone()) };
        if let Some(runs) = self.instances.get(instance).and_then(|known| known.runs.clone()) {
            intent.hash = runs;
        }
        // What it needed and what it will need stays meanwhile.
        let new = marker.beside.iter().filter(|service| !intent.beside.contains(service));
        intent.beside.extend(new.cloned().collect::<Vec<UnitName>>());
        self.instances.set_marker(instance, intent).map_err(|e| e.to_string())?;
        if old.as_ref().is_some_and(|old| old.enabled) {
            self.systemd.disable(&systemd_name).await.map_err(|e| e.to_string())?; // the old text's links
        }
        if rendered.installs {
            self.spares_the_host(instance, rendered.file()).await?;
        }
        marker.shared = self.put_files(instance, &key, &rendered, fence).await?;
        if let Some(old) = old.as_ref().filter(|_| self.alike.contains(instance)) {
            // What runs is what this text says: nothing is to be restarted.
            let Marker { stopping, starting, ended, .. } = *old;
            marker =
                Marker { launched: true, outdated: false, stopping, starting, ended, ..marker };
            let instance = self.instances.of(instance);
            instance.start = instance.start_before.take();
        }
        if marker.config.is_none() {
            self.forget_configuration(instance)?;
        }
        let written = Written { instance: instance.clone(), marker, is_new: old.is_none() };
        if written.marker.enabled {
            return Ok(Some(written));
        }
        self.note_written(written).await.map(|()| None)
    }

    /// Queues jobs, many calls at once, and notes what was asked for.
    async fn queue(&mut self, jobs: Vec<(UnitName, Job, Step)>, now_ms: u64) {
        let ends = |(_, job, step): &&(UnitName, Job, Step)| {
            *job == Job::Stop || matches!(step, Step::Start { again: true, .. })
        };
        for (name, ..) in jobs.iter().filter(ends) {
            if let Some(marker) = self.instances.marker(name).cloned() {
                self.keep(name, Marker { stopping: true, ..marker });
            }
        }
        for (name, ..) in jobs.iter().filter(|(_, job, _)| *job == Job::Start) {
            if let Some(marker) =
                self.instances.marker(name).filter(|marker| !marker.asked_for()).cloned()
            {
                // What it is started with, if it is: the note of that may not come to be written.
                let marker = self.with_values_if_down(name, marker);
                self.keep(name, Marker { starting: true, ..marker });
            }
        }
        let (systemd, away) = (&self.systemd, &Mutex::new(None::<String>));
        let with_beside = |(name, job, step): (UnitName, Job, Step)| {
            let failed = |service: &&UnitName| {
                self.beside.get(*service).is_some_and(|unit| unit.active == "failed")
            };
            let marker = self.instances.marker(&name);
            let beside = marker.iter().flat_map(|marker| &marker.beside).filter(failed);
            let beside: Vec<UnitName> = beside.cloned().collect();
            (name, job, step, beside)
        };
        let jobs: Vec<_> = jobs.into_iter().map(with_beside).collect();
        let calls = jobs.into_iter().map(|(name, job, step, beside)| async move {
            let systemd_name = name.systemd_name();
            // Where one call had no answer, no other waits for its own.
            let problem = away.lock().expect("no panic while it is held").clone();
            if let Some(problem) = problem {
                return (name, step, Err(SystemdError::Unavailable(problem)));
            }
            if let Step::Start { again: true, .. } | Step::Revive { .. } = step {
                // Clears systemd's own start limit too: our pauses take over from it.
                for name in std::iter::once(&systemd_name).chain(&beside) {
                    if let Err(error) = systemd.reset_failed(name).await {
                        debug!("{error}");
                    }
                }
            }
            let answer = systemd.queue(&systemd_name, job).await;
            if let Err(SystemdError::Unavailable(problem)) = &answer {
                *away.lock().expect("no panic while it is held") = Some(problem.clone());
            }
            (name, step, answer)
        });
        let answers: Vec<_> = stream::iter(calls).buffer_unordered(MAX_CALLS).collect().await;
        for (name, step, answer) in answers {
            self.instances.of(&name).stop_refused = match (&step, &answer) {
                (Step::Stop(_), Err(SystemdError::Refused { .. })) => true,
                // It would run on here beside the one on another machine.
                (
                    Step::Restart { .. } | Step::Revive { .. },
                    Err(SystemdError::Refused { problem, .. }),
                ) => problem.contains(REFUSES_ALL),
                _ => false,
            };
            match answer {
                Ok(()) => self.note(&name, step, now_ms),
                Err(error) => {
                    if let Some(marker) = self
                        .instances
                        .marker(&name)
                        .filter(|marker| marker.starting || marker.stopping)
                        .cloned()
                    {
                        // What was not refused may have been taken all the same.
                        let stopping =
                            marker.stopping && !matches!(error, SystemdError::Refused { .. });
                        self.keep(&name, Marker { starting: false, stopping, ..marker });
                    }
                    self.fail(&name, error.to_string(), now_ms);
                }
            }
        }
    }

    fn note(&mut self, name: &UnitName, step: Step, now_ms: u64) {
        let Some(mut marker) = self.instances.marker(name).cloned() else { return };
        marker = match step {
            Step::Start { .. } => self.with_values_if_down(name, marker),
            _ => self.with_values(name, marker),
        };
        let instance = self.instances.of(name);
        instance.values = None;
        if let Step::Configure { .. } = step {
            instance.trouble.step_went_well();
            instance.reload_failed = None;
            return self.keep(name, marker);
        }
        (marker.outdated, marker.stopping, marker.starting) = (false, false, false);
        (marker.earlier, marker.ended, marker.healthy) = (false, false, false);
        let unhealthy = self.checks.why(name);
        if let Step::Revive { .. } = step {
            let outcome = JobOutcome { result: UNHEALTHY.to_string(), ..JobOutcome::default() };
            self.take_failure(name, &outcome, now_ms, true);
        }
        if let Step::Start { .. } | Step::Restart { .. } | Step::Revive { .. } = step {
            self.note_start(name, !matches!(step, Step::Start { .. }), now_ms);
        }
        let instance = self.instances.of(name);
        instance.rest = AtRest::default();
        instance.unhealthy = None;
        match step {
            Step::Start { restart, again, .. } => {
                marker.launched = true;
                marker.restart = restart;
                instance.trouble.step_went_well();
                instance.reload_failed = None;
                if again {
                    instance.trouble.again(now_ms, None);
                }
                instance.is_tried_again();
            }
            Step::Restart { restart, .. } => {
                marker.launched = true;
                marker.restart = restart;
                instance.trouble.step_went_well();
                instance.reload_failed = None;
                instance.is_tried_again();
            }
            Step::Revive { restart, .. } => {
                (marker.launched, marker.restart) = (true, restart);
                instance.trouble.step_went_well();
                instance.reload_failed = None;
                instance.trouble.again(now_ms, None);
                (instance.outcome, instance.unhealthy) = (None, unhealthy);
            }
            Step::Stop(_) => marker.launched = false,
            Step::Remove(_)
            | Step::Write { .. }
            | Step::Reload
            | Step::Configure { .. }
            | Step::Pull(_) => {}
        }
        self.keep(name, marker);
    }

    pub(super) fn keep(&mut self, name: &UnitName, marker: Marker) {
        if let Err(error) = self.instances.set_marker(name, marker) {
            warn!(unit = %name, "cannot note the state of {name}: {error}");
        }
    }

    pub(super) fn fail(&mut self, name: &UnitName, problem: String, now_ms: u64) {
        let trouble = &mut self.instances.of(name).trouble;
        if trouble.message.as_deref() != Some(&problem) {
            warn!(unit = %name, "{name}: {problem}");
        }
        trouble.again(now_ms, Some(problem));
    }

    pub(super) async fn fetch_texts(&mut self, wanted: BTreeSet<TextKey>) {
        let missing: Vec<TextKey> =
            wanted.iter().filter(|key| !self.texts.0.contains_key(key)).cloned().collect();
        if missing.is_empty() {
            return;
        }
        if self.texts.0.len() + missing.len() > KEPT_TEXTS {
            self.texts.0.retain(|key, _| wanted.contains(key));
        }
        let keys: Vec<(UnitName, u64)> =
            missing.iter().map(|(unit, revision, _)| (unit.clone(), *revision)).collect();
        let texts = match self.store.texts(&keys).await {
            Ok(texts) => texts.into_iter().map(|text| text.map(Arc::from)).collect(),
            Err(error) => {
                debug!("unit files from the disk: {error}");
                let from_disk = |(_, _, hash): &TextKey| self.remembered.as_ref()?.text(hash);
                missing.iter().map(from_disk).collect::<Vec<Option<Arc<str>>>>()
            }
        };
        for (key, text) in missing.into_iter().zip(texts) {
            if let Some(text) =
                text.filter(|text| UnitFile::parse_lenient(text).short_hash() == *key.2)
            {
                if let Some(remembered) = &self.remembered {
                    remembered.keep_text(&key.2, &text);
                }
                self.texts.0.insert(key, text);
            }
        }
    }
}

/// What is said of a name that the host uses itself.
pub(super) fn is_the_hosts(name: &UnitName, path: &str) -> String {
    format!("this machine has a {name} of its own ({path}); fleet does not overwrite it")
}
