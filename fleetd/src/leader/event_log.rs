//! The leader's log: commits a plan with the events that tell of it, tells what else happened, and
//! keeps the events within bounds.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use fleet_core::event::{Event, Item, News, Reason, What, decisions};
use fleet_core::model::{Machine, Snapshot};
use fleet_core::name::{MachineId, UnitName};
use fleet_core::outlook::{Lost, Outlook, Refused};
use fleet_core::plan::Plan;
use fleet_core::replay::Saved;
use fleet_core::rollout::{Rollout, Rollouts};
use tracing::{info, warn};

use crate::store::{ACTS_A_COMMIT, ACTS_AT_ONCE, Mirror, Store, StoreError, StoredEvent, Term};

/// The most events kept: weeks of a quiet cluster, hours of a busy one.
pub const MAX_EVENTS: usize = 1000;

/// The most bytes kept, keys and values: one read of all of them stays quick.
pub const MAX_BYTES: usize = 4 << 20;

/// How many events are dropped at once, so that one transaction in a hundred trims.
const TRIMMED: usize = 100;

/// How many items of one event are logged; the rest is counted.
const LOGGED_ITEMS: usize = 20;

/// The largest outlook that is written together with other documents, in bytes.
const SMALL_OUTLOOK: usize = 32 << 10;

/// The number of the event that ends a term; sorts behind all others of the term.
const LAST: u64 = 999_999_999;

/// One term's log. Made anew whenever the store is read anew: what was told lies in the store.
pub struct EventLog {
    store: Store,
    term: Term,
    leader: MachineId,
    /// Name and bytes of each event in the store, oldest first.
    kept: VecDeque<(String, usize)>,
    bytes: usize,
    /// The number of this term's next event.
    next: u64,
    /// That this machine leads, until it is told.
    opening: Option<Item>,
    news: News,
    /// What this term's leader has told those who wait; none if it told nothing yet.
    outlook: Option<Outlook>,
    /// The machines that were lost lately, as last written.
    lost: Vec<Lost>,
    /// The wishes for moves that were refused lately, as last written.
    refused: Vec<Refused>,
    /// What users did and this log has told, until the copy shows it gone.
    acts_told: BTreeSet<String>,
    /// The machines that were there at the last look: one that is lost was known by an address.
    seen: BTreeMap<MachineId, Arc<Machine>>,
}

impl EventLog {
    /// Reads what was told before.
    pub async fn open(
        store: &Store,
        term: Term,
        leader: &MachineId,
        mirror: &Mirror,
    ) -> Result<EventLog, StoreError> {
        let (stored, _) = store.events().await?;
        let events: Vec<&Event> =
            stored.iter().filter_map(|stored| stored.event.as_ref()).collect();
        let news = News::told(events.iter().copied(), mirror.machines_created());
        let own = events.iter().filter(|event| event.term == term.create_revision);
        let next = own.filter_map(|event| number(&event.id)).max().map_or(1, |last| last + 1);
        let opening = (next == 1)
            .then(|| Item::of_machine(What::Leads, leader.clone(), after(events.last().copied())));
        let kept: VecDeque<_> =
            stored.iter().map(|StoredEvent { id, bytes, .. }| (id.clone(), *bytes)).collect();
        let bytes = kept.iter().map(|(_, bytes)| bytes).sum();
        let written = mirror.cluster().outlook.clone();
        let lost = written.as_ref().map(|outlook| outlook.lost.clone()).unwrap_or_default();
        let refused = written.as_ref().map(|outlook| outlook.refused.clone()).unwrap_or_default();
        let outlook = written.filter(|outlook| outlook.term == term.create_revision);
        Ok(EventLog {
            store: store.clone(),
            term,
            leader: leader.clone(),
            kept,
            bytes,
            next,
            opening,
            news,
            outlook,
            lost,
            refused,
            acts_told: BTreeSet::new(),
            seen: mirror.cluster().snapshot.machines.clone(),
        })
    }

    /// The term that this log is of, by the revision that began it.
    pub fn term(&self) -> i64 {
        self.term.create_revision
    }

    /// Writes the documents of a plan, in as few transactions as the limits allow, each with its
    /// event; what else is new goes with the first, or alone if nothing changes. What the plan says
    /// to those who wait goes with the last, if it is another than before, or they have asked for
    /// something since. Answers with the revision of the last document; a conflict means to look
    /// again.
    ///
    /// While absent machines get time to return (`settling`), nothing is said of what newly fits
    /// nowhere.
    pub async fn commit(
        &mut self,
        mirror: &Mirror,
        saved: &Saved,
        plan: &Plan,
        settling: bool,
    ) -> Result<Option<i64>, StoreError> {
        let snapshot = &saved.snapshot;
        let (news, told) =
            self.news.look(snapshot, plan, mirror.machines_created(), &snapshot.left, !settling);
        let mut told = Some(told);
        let (acts, did) = self.acts(mirror, snapshot).await?;
        let mut acts = Some(acts);
        let opening = self.opening.iter().cloned();
        let mut items: Vec<Item> = did.into_iter().chain(opening).chain(news).collect();
        let digest = if plan.documents.is_empty() { "" } else { &saved.plan };
        let mut decided = decisions(plan, snapshot);
        let store = self.store.clone();
        let mut commit = store.begin_commit(self.term, mirror, plan);
        let lost: Vec<MachineId> = items
            .iter()
            .filter(|item| item.what == What::Lost)
            .filter_map(|item| item.machine.clone())
            .collect();
        let mut outlook = self.next_outlook(mirror, plan, snapshot, settling, lost);
        self.seen.clone_from(&snapshot.machines);
        let mut last = None;
        while let Some(batch) = commit.next_batch()? {
            items.extend(
                batch.machines.iter().filter_map(|machine| decided.remove(*machine)).flatten(),
            );
            let event = self.event(snapshot, digest, std::mem::take(&mut items));
            self.make_room(&event).await?;
            let with = outlook.take_if(|outlook| commit.is_last() && is_small(outlook));
            let acts = acts.take().unwrap_or_default();
            last = Some(commit.write(batch, Some(&event), with.as_ref(), &acts).await?);
            self.written(&event, told.take());
            self.acts_told.extend(acts);
            self.told(with);
        }
        if !items.is_empty() {
            let event = self.event(snapshot, digest, items);
            self.make_room(&event).await?;
            let with = outlook.take_if(|outlook| is_small(outlook));
            let acts = acts.take().unwrap_or_default();
            self.store.tell(self.term, Some(&event), with.as_ref(), &acts).await?;
            self.written(&event, told.take());
            self.acts_told.extend(acts);
            self.told(with);
        } else if let Some(told) = told {
            self.news = told; // nothing was worth a word, but what is known may have changed
        }
        if outlook.is_some() {
            self.store.tell(self.term, None, outlook.as_ref(), &[]).await?;
            self.told(outlook);
        }
        // Last: whoever waits for the answer can read it by now, and a leader that dies before it
        // deletes a wish leaves one that the next leader answers alike.
        if !plan.answered.is_empty() {
            self.store.delete_moves(self.term, &plan.answered).await?;
        }
        Ok(last)
    }

    /// What users did and is to be told with the next event, by id, and as items. What is more than
    /// that takes is told at once: it piled up while nobody led.
    async fn acts(
        &mut self,
        mirror: &Mirror,
        snapshot: &Snapshot,
    ) -> Result<(Vec<String>, Vec<Item>), StoreError> {
        self.acts_told.retain(|id| mirror.acts().contains_key(id));
        let fresh = mirror.acts().iter().filter(|(id, _)| !self.acts_told.contains(*id));
        let mut fresh: Vec<(String, Item)> =
            fresh.map(|(id, act)| (id.clone(), Item::from(&**act))).collect();
        while fresh.len() > ACTS_A_COMMIT {
            let rest = fresh.split_off(fresh.len().min(ACTS_AT_ONCE));
            let (acts, items): (Vec<String>, Vec<Item>) = fresh.into_iter().unzip();
            // It has seen nothing else, and must not count as if it had.
            let event = Event { revision: 0, ..self.event(snapshot, "", items) };
            self.make_room(&event).await?;
            self.store.tell(self.term, Some(&event), None, &acts).await?;
            self.written(&event, None);
            self.acts_told.extend(acts);
            fresh = rest;
        }
        Ok(fresh.into_iter().unzip())
    }

    /// Keeps what was written for those who wait.
    fn told(&mut self, outlook: Option<Outlook>) {
        if let Some(outlook) = outlook {
            self.lost.clone_from(&outlook.lost);
            self.refused.clone_from(&outlook.refused);
            self.outlook = Some(outlook);
        }
    }

    /// Writes how rollouts change, and tells of those that failed. Answers with the revision of the
    /// last write.
    pub async fn advance(
        &mut self,
        snapshot: &Snapshot,
        rollouts: &BTreeMap<UnitName, Option<Rollout>>,
        before: &Rollouts,
    ) -> Result<Option<i64>, StoreError> {
        let mut rest: Vec<(&UnitName, &Option<Rollout>)> = rollouts.iter().collect();
        let told = |unit: &UnitName, rollout: &Option<Rollout>| {
            rollout.as_ref()?.told(unit, before.get(unit).map(|before| &**before))
        };
        let failed = rest.iter().filter_map(|(unit, rollout)| told(unit, rollout));
        let items: Vec<Item> = failed.collect();
        let mut event = (!items.is_empty()).then(|| self.event(snapshot, "", items));
        if let Some(event) = &event {
            self.make_room(event).await?;
        }
        let mut last = None;
        while !rest.is_empty() {
            let (written, revision) =
                self.store.put_rollouts(self.term, &rest, event.as_ref()).await?;
            if let Some(event) = event.take() {
                self.written(&event, None);
            }
            last = Some(revision);
            rest.drain(..written);
        }
        Ok(last)
    }

    /// What the plan says to those who wait, if it must be written.
    fn next_outlook(
        &self,
        mirror: &Mirror,
        plan: &Plan,
        snapshot: &Snapshot,
        settling: bool,
        lost: Vec<MachineId>,
    ) -> Option<Outlook> {
        let term = self.term.create_revision;
        let mut now = Outlook::of(plan, term, snapshot.revision, settling, self.outlook.as_ref());
        let address = |id: &MachineId| self.seen.get(id).map(|machine| machine.address.clone());
        let lost = lost.into_iter().map(|id| (id.clone(), address(&id).unwrap_or_default()));
        now.remember(&self.lost, lost, plan, snapshot);
        now.refuse(&self.refused, plan, snapshot.now_ms);
        let told = self.outlook.as_ref();
        let is_told =
            told.is_some_and(|told| told.says_the_same(&now) && told.planned >= mirror.asked());
        (!is_told).then_some(now)
    }

    fn event(&self, snapshot: &Snapshot, digest: &str, items: Vec<Item>) -> Event {
        Event {
            id: id(self.term, self.next),
            at_ms: snapshot.now_ms,
            leader: self.leader.clone(),
            term: self.term.create_revision,
            revision: snapshot.revision,
            plan: digest.to_string(),
            ..Event::new(items)
        }
    }

    /// Drops the oldest events, so that with the next one there are neither too many nor too large
    /// ones.
    async fn make_room(&mut self, next: &Event) -> Result<(), StoreError> {
        let next = size(next);
        if self.kept.len() < MAX_EVENTS && self.bytes + next <= MAX_BYTES {
            return Ok(());
        }
        let (mut dropped, mut freed) = (0, 0);
        for (_, bytes) in &self.kept {
            if dropped >= TRIMMED && self.bytes + next <= MAX_BYTES + freed {
                break;
            }
            dropped += 1;
            freed += bytes;
        }
        let ids: Vec<String> = self.kept.iter().take(dropped).map(|(id, _)| id.clone()).collect();
        self.store.delete_events(self.term, &ids).await?;
        self.kept.drain(..dropped);
        self.bytes -= freed;
        Ok(())
    }

    fn written(&mut self, event: &Event, told: Option<News>) {
        log(event);
        self.kept.push_back((event.id.clone(), size(event)));
        self.bytes += size(event);
        self.next += 1;
        if let Some(told) = told {
            self.news = told;
            self.opening = None;
        }
    }
}

/// The event's items, as `fleetctl events` shows them, for this machine's journal.
fn log(event: &Event) {
    for item in event.items.iter().take(LOGGED_ITEMS) {
        let machine = item.machine.as_ref().map_or("", |machine| machine.as_str());
        match item.what {
            What::Lost
            | What::GaveUp
            | What::Nowhere
            | What::Slowed
            | What::Undone
            | What::Paused
            | What::TextFailed
            | What::Restarted => warn!(machine, "{item}"),
            _ => info!(machine, "{item}"),
        }
    }
    if event.items.len() > LOGGED_ITEMS {
        info!("… and {} more, in `fleetctl events`", event.items.len() - LOGGED_ITEMS);
    }
}

/// Whether it goes with documents and an event into one transaction.
fn is_small(outlook: &Outlook) -> bool {
    serde_json::to_vec(outlook).is_ok_and(|text| text.len() <= SMALL_OUTLOOK)
}

/// Tells that a term ends by itself.
pub async fn resign(
    store: &Store,
    term: Term,
    leader: &MachineId,
    now_ms: u64,
) -> Result<(), StoreError> {
    let item = Item::of_machine(What::Resigned, leader.clone(), Reason::Stops);
    let event = Event {
        id: id(term, LAST),
        at_ms: now_ms,
        leader: leader.clone(),
        term: term.create_revision,
        revision: term.create_revision, // it looked at nothing
        ..Event::new(vec![item])
    };
    store.tell(term, Some(&event), None, &[]).await.map(drop)
}

/// Names sort by time: terms by the revision that began them, then by number.
fn id(term: Term, number: u64) -> String {
    format!("{:016}-{number:09}", term.create_revision)
}

fn number(id: &str) -> Option<u64> {
    id.rsplit_once('-')?.1.parse().ok()
}

/// How the last term ended, as far as the last event says.
fn after(last: Option<&Event>) -> Reason {
    let Some(event) = last else { return Reason::First };
    let resigned = event.items.iter().any(|item| item.what == What::Resigned);
    Reason::After { machine: event.leader.clone(), silent: !resigned }
}

/// At most what it takes in the store: the key's prefix is the operator's choice, but short.
fn size(event: &Event) -> usize {
    const KEY_BYTES: usize = 128;
    serde_json::to_vec(event).map_or(0, |text| text.len()) + KEY_BYTES
}
