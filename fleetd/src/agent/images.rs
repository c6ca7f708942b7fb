//! Images before instances: what a Quadlet unit is to run is pulled before anything of it is
//! started or restarted, so that a registry that is slow or away takes down nothing.
//!
//! systemd pulls, in a service of its own for each image and login, and whatever instances wait for
//! it share that. The service is there only while it pulls.

use std::collections::{BTreeMap, BTreeSet};

use fleet_core::converge::{self, ImageState, Seen, Trouble};
use fleet_core::name::UnitName;
use fleet_core::unit::file::ShortHash;
use fleet_core::unit::image::{self, Image, Policy};
use tokio::time::{Duration, Instant};
use tracing::{debug, info, warn};

use super::Agent;
use super::apply::TextKey;
use super::rest::CANCELED;
use crate::systemd::{Job, Listed, SystemdError, images};

/// How many images are pulled at once: each has several layers at once already, and all share the
/// machine's line.
const MOST_PULLS: usize = 4;

/// How long a pass asks after images; the rest is for the next one.
const LONGEST_LOOK: Duration = Duration::from_secs(1);

/// How long an image that was found is taken to be there, in milliseconds: somebody may remove it.
const FOUND_MS: u64 = 60_000;

/// How often podman's words are read while it pulls, in milliseconds.
const WORDS_PERIOD_MS: u64 = 2_000;

/// How many texts' images are kept.
const KEPT_TEXTS: usize = 256;

/// journald may be a moment behind podman: its last words are looked for so often.
const LOOKS: u32 = 3;
const PAUSE: Duration = Duration::from_millis(60);

/// The most that is passed on of podman's words, in bytes.
const LONGEST_PROBLEM: usize = 300;

/// What is said of a pull that somebody ended.
const CALLED_OFF: &str = "its service was stopped";

/// What an image is pulled for: a text, and the restarts asked for. With `Pull=always` each is
/// worth a pull.
pub(super) type Wish = (ShortHash, u64);

/// The images that this host's instances wait for.
#[derive(Debug, Default)]
pub(super) struct Images {
    /// What texts name; `None` where nothing is pulled beforehand.
    of_texts: BTreeMap<TextKey, Option<Image>>,
    /// By the service that pulls it.
    pulls: BTreeMap<UnitName, Pull>,
    /// The services that an earlier fleetd left and that nothing has come of yet.
    left: BTreeSet<UnitName>,
}

/// One image, and what is known of it.
#[derive(Debug)]
struct Pull {
    image: Image,
    /// What it was found or pulled for, and until when that holds.
    ready: BTreeMap<Wish, u64>,
    /// Which wish it is being pulled for.
    under_way: Option<UnderWay>,
    /// Its failures.
    trouble: Trouble,
}

#[derive(Debug)]
struct UnderWay {
    wish: Wish,
    /// What podman said of how far it is.
    said: String,
    next_look_ms: u64,
}

impl Pull {
    fn of(image: Image) -> Pull {
        Pull { image, ready: BTreeMap::new(), under_way: None, trouble: Trouble::default() }
    }

    fn is_ready(&self, wish: &Wish, now_ms: u64) -> bool {
        self.ready.get(wish).is_some_and(|until_ms| now_ms < *until_ms)
    }

    fn note_ready(&mut self, wish: Wish, now_ms: u64) {
        self.ready.retain(|_, until_ms| now_ms < *until_ms);
        self.ready.insert(wish, now_ms + FOUND_MS);
        self.trouble = Trouble::default();
    }
}

impl Images {
    /// With the services that an earlier fleetd left.
    pub(super) fn with_left(left: BTreeSet<UnitName>) -> Images {
        Images { left, ..Images::default() }
    }

    /// The services that pull now.
    pub(super) fn services(&self) -> impl Iterator<Item = &UnitName> {
        self.pulls.iter().filter(|(_, pull)| pull.under_way.is_some()).map(|(name, _)| name)
    }

    /// What of it is at hand of a text; `None` if it was not read yet.
    fn of_text(&self, key: &TextKey) -> Option<Option<&Image>> {
        self.of_texts.get(key).map(Option::as_ref)
    }
}

impl Agent {
    /// Takes what became of pulls, as systemd was just listed.
    pub(super) async fn note_pulls(
        &mut self,
        listed: &BTreeMap<UnitName, Listed>,
        open: &BTreeSet<UnitName>,
        now_ms: u64,
    ) {
        let ended = &self.resting.failed;
        let canceled = ended.iter().filter(|(_, word)| *word == CANCELED);
        let canceled: BTreeSet<UnitName> = canceled.map(|(name, _)| name.clone()).collect();
        let services: Vec<UnitName> = self.images.services().cloned().collect();
        for service in services {
            let state = listed.get(&service);
            let failed = state.is_some_and(|state| state.active == "failed" && !state.job);
            if !failed && (state.is_some() || open.contains(&service)) {
                self.read_words(&service, now_ms).await;
                continue;
            }
            let problem = match failed {
                true => Some(self.why_pull_failed(&service).await),
                false => canceled.contains(&service).then(|| CALLED_OFF.to_string()),
            };
            self.end_pull(&service, problem, now_ms).await;
        }
    }

    /// Says of each instance that is about to be started or restarted whether its image is there.
    /// Answers whether there is more to ask soon.
    pub(super) async fn look_for_images(
        &mut self,
        host: &mut BTreeMap<UnitName, Seen>,
        now_ms: u64,
    ) -> bool {
        let (wanted, mut waited_for) = self.wanting_images(host, now_ms);
        self.fetch_texts(wanted.iter().map(|(_, key, _)| key.clone()).collect()).await;
        let unread = wanted.iter().map(|(_, key, _)| key);
        let unread = unread.filter(|key| self.images.of_text(key).is_none());
        let unread: BTreeSet<&TextKey> = unread.collect();
        let texts: Vec<_> = unread.into_iter().filter_map(|key| self.texts.get(key)).collect();
        self.fetch_bundles(texts.iter().map(|text| &**text)).await;
        let begin = Instant::now();
        let mut more = false;
        for (instance, key, restart) in wanted {
            let wish = (key.2.clone(), restart);
            let state = if begin.elapsed() >= LONGEST_LOOK {
                more = true;
                ImageState::Unknown
            } else {
                match self.image_of(&instance, &key).await {
                    None => ImageState::Ready,
                    Some(image) => {
                        let service = image.service();
                        self.instances.of(&instance).pull = Some((service.clone(), wish.clone()));
                        waited_for.insert(service.clone());
                        self.image_state(service, image, wish, now_ms)
                    }
                }
            };
            if let Some(seen) = host.get_mut(&instance) {
                seen.image = state;
            }
        }
        if !more {
            self.end_left_pulls(&waited_for, now_ms).await;
            self.call_off_pulls(&waited_for, now_ms).await;
        }
        more
    }

    /// Has systemd pull the image that an instance waits for, unless it does already.
    pub(super) async fn pull(&mut self, instance: &UnitName, now_ms: u64) {
        let Some((service, wish)) = self.instances.of(instance).pull.clone() else { return };
        let running = self.images.services().count();
        let Some(pull) = self.images.pulls.get_mut(&service) else { return };
        if pull.under_way.is_some() || running >= MOST_PULLS {
            return;
        }
        info!(unit = %instance, "pulling the image {} for {instance}", pull.image.name);
        let text = pull.image.unit();
        pull.under_way =
            Some(UnderWay { wish, said: String::new(), next_look_ms: now_ms + WORDS_PERIOD_MS });
        if let Err(error) = self.instances.notes.note_pull(&service) {
            warn!("cannot note {service}: {error}"); // it is left if fleetd is killed now
        }
        let started = async {
            self.systemd.write(&service, &text, "").await?;
            self.systemd.queue(&service, Job::Start).await
        };
        if let Err(error) = started.await {
            self.end_pull(&service, Some(error.to_string()), now_ms).await;
        }
    }

    /// The instances that are not to be touched before their image is there, with their texts and
    /// the restarts asked for; and the pulls for those that are in a pause after a failed step.
    /// Those are touched no earlier, and a text that podman refuses would cost a run of its
    /// generator in each pass.
    fn wanting_images(
        &self,
        host: &BTreeMap<UnitName, Seen>,
        now_ms: u64,
    ) -> (Vec<(UnitName, TextKey, u64)>, BTreeSet<UnitName>) {
        let Some(assignment) = &self.assignment else { return Default::default() };
        let nobody = Seen::default();
        let wanting = assignment.instances.iter().filter(|(instance, placement)| {
            instance.suffix() == "container"
                && converge::wants_image(placement, host.get(*instance).unwrap_or(&nobody))
        });
        let (pausing, wanting): (Vec<_>, Vec<_>) = wanting.partition(|(instance, _)| {
            host.get(*instance).is_some_and(|seen| seen.is_held_back(now_ms))
        });
        let pulls = pausing.into_iter().filter_map(|(instance, _)| {
            let (service, _) = self.instances.get(instance)?.pull.as_ref()?;
            Some(service.clone())
        });
        let wanting = wanting.into_iter().map(|(instance, placement)| {
            let (unit, hash) = (placement.unit.clone(), placement.hash.clone());
            (instance.clone(), (unit, placement.revision, hash), placement.restart)
        });
        (wanting.collect(), pulls.collect())
    }

    /// The image of an instance. `None` also if its text cannot be had or translated: its write
    /// says why.
    async fn image_of(&mut self, instance: &UnitName, key: &TextKey) -> Option<Image> {
        if self.images.of_text(key).is_none() {
            let text = self.texts.get(key)?;
            let rendered = self.render(instance, key, &text).await.ok()?;
            // What pulls or builds it is a service beside it.
            let image = Image::of(rendered.file())
                .filter(|_| !rendered.requires_beside(&["image", "build"]));
            if self.images.of_texts.len() >= KEPT_TEXTS {
                self.images.of_texts.clear();
            }
            self.images.of_texts.insert(key.clone(), image);
        }
        self.images.of_text(key)??.of_instance(instance)
    }

    fn image_state(
        &mut self,
        service: UnitName,
        image: Image,
        wish: Wish,
        now_ms: u64,
    ) -> ImageState {
        let running = self.images.services().count();
        let pull = self.images.pulls.entry(service).or_insert_with(|| Pull::of(image));
        if pull.is_ready(&wish, now_ms) {
            return ImageState::Ready;
        }
        let name = &pull.image.name;
        if let Some(UnderWay { said, .. }) = &pull.under_way {
            return ImageState::Pulling(match said.is_empty() {
                true => name.clone(),
                false => format!("{name}, {said}"),
            });
        }
        // Somebody may have brought it by hand since a pull failed.
        let look_again =
            pull.image.policy == Policy::Missing && now_ms >= pull.trouble.not_before_ms;
        if look_again && pull.image.full_name().is_some_and(|name| images::is_there(&name)) {
            pull.note_ready(wish, now_ms);
            return ImageState::Ready;
        }
        match pull.trouble.message {
            None if running >= MOST_PULLS => {
                ImageState::Pulling(format!("{name}, after {running} others"))
            }
            None => ImageState::Missing,
            Some(_) if running >= MOST_PULLS && now_ms >= pull.trouble.not_before_ms => {
                ImageState::Pulling(format!("{name}, after {running} others"))
            }
            Some(_) => ImageState::Failed(pull.trouble.clone()),
        }
    }

    async fn read_words(&mut self, service: &UnitName, now_ms: u64) {
        let pull = self.images.pulls.get_mut(service);
        let Some(under_way) = pull.and_then(|pull| pull.under_way.as_mut()) else { return };
        if now_ms >= under_way.next_look_ms {
            under_way.next_look_ms = now_ms + WORDS_PERIOD_MS;
            under_way.said = image::progress(&self.systemd.output(service).await);
        }
    }

    async fn why_pull_failed(&self, service: &UnitName) -> String {
        let result = match self.systemd.outcome(service).await {
            Ok(outcome) => outcome.result,
            Err(error) => {
                debug!("{error}");
                String::new()
            }
        };
        if result == "timeout" {
            let limit = self.images.pulls.get(service).map(|pull| pull.image.limit());
            return format!("it was not done within {}", limit.unwrap_or_default());
        }
        for look in 0..LOOKS {
            if look > 0 {
                tokio::time::sleep(PAUSE).await;
            }
            let lines = self.systemd.output(service).await;
            if let Some(problem) = image::problem(&lines) {
                return problem[..problem.floor_char_boundary(LONGEST_PROBLEM)].to_string();
            }
        }
        format!("{result}; `journalctl -u {service}` on the machine says more")
    }

    /// A pull is over; its service goes.
    async fn end_pull(&mut self, service: &UnitName, problem: Option<String>, now_ms: u64) {
        let Some(pull) = self.images.pulls.get_mut(service) else { return };
        let Some(UnderWay { wish, .. }) = pull.under_way.take() else { return };
        let name = &pull.image.name;
        match problem {
            None => {
                info!("the image {name} is here");
                pull.note_ready(wish, now_ms);
            }
            Some(problem) => {
                let problem = format!("cannot pull the image {name}: {problem}");
                if pull.trouble.message.as_deref() != Some(&problem) {
                    warn!("{problem}; what runs is left as it is");
                }
                pull.trouble.again(now_ms, Some(problem));
            }
        }
        self.remove_service(service).await;
    }

    async fn remove_service(&self, service: &UnitName) {
        let removed = async {
            self.systemd.reset_failed(service).await?;
            self.systemd.remove(service).await
        };
        let removed: Result<(), SystemdError> = removed.await;
        let forgotten = match removed {
            Ok(()) => self.instances.notes.forget_pull(service).map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        };
        if let Err(problem) = forgotten {
            debug!("{service} stays for now: {problem}");
        }
    }

    /// Ends what an earlier fleetd left, unless an instance still waits for it: then it is gone on
    /// with. Without an assignment nobody knows.
    async fn end_left_pulls(&mut self, waited_for: &BTreeSet<UnitName>, now_ms: u64) {
        if self.assignment.is_none() {
            return;
        }
        for service in std::mem::take(&mut self.images.left) {
            let pull = self.images.pulls.get(&service);
            if pull.is_some_and(|pull| pull.under_way.is_some()) {
                continue; // it ends as each does
            }
            let ready = pull.is_some_and(|pull| pull.ready.values().any(|until| now_ms < *until));
            if waited_for.contains(&service) && !ready {
                self.images.left.insert(service);
                continue;
            }
            info!("{service}, which an earlier fleetd left, is stopped");
            if let Err(error) = self.systemd.queue(&service, Job::Stop).await {
                debug!("{error}");
                self.images.left.insert(service); // tried again in the next pass
                continue;
            }
            self.remove_service(&service).await;
        }
    }

    /// Ends the pulls that no instance waits for any more, and forgets what is known of images that
    /// none did lately.
    async fn call_off_pulls(&mut self, waited_for: &BTreeSet<UnitName>, now_ms: u64) {
        let vain: Vec<UnitName> =
            self.images.services().filter(|name| !waited_for.contains(*name)).cloned().collect();
        for service in vain {
            info!("{service} is stopped: nothing waits for its image any more");
            if let Err(error) = self.systemd.queue(&service, Job::Stop).await {
                debug!("{error}");
                continue; // tried again in the next pass
            }
            self.images.pulls.remove(&service);
            self.remove_service(&service).await;
        }
        self.images.pulls.retain(|service, pull| {
            waited_for.contains(service) || pull.ready.values().any(|until_ms| now_ms < *until_ms)
        });
    }
}
