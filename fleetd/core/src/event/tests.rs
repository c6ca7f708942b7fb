//! Events as text: what a plan says of itself, what is told once, and what stays within bounds.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use expect_test::{Expect, expect};
use proptest::prelude::*;

use super::{Event, Item, MAX_EVENT_BYTES, News, Numbers, What, decisions};
use crate::model::{InstanceStatus, Report, Snapshot};
use crate::name::{MachineId, UnitName};
use crate::plan::script::{applied, snapshot};
use crate::plan::{Plan, plan};

fn lines(items: &[Item]) -> String {
    items.iter().map(Item::to_string).collect::<Vec<_>>().join("\n")
}

fn decided(text: &str, expected: Expect) {
    let snapshot = snapshot(text);
    let items: Vec<Item> = decisions(&plan(&snapshot), &snapshot).into_values().flatten().collect();
    expected.assert_eq(&lines(&items));
}

#[test]
fn a_deploy_is_one_line_a_machine() {
    decided(
        "machine a
         machine b
         machine c
         unit web@.service x100
         unit db.service",
        expect![[r#"
            placed db.service, web@{3-99/3}.service on a: fewest units of the machines that fit
            placed web@{1-100/3}.service on b: fewest units of the machines that fit
            placed web@{2-98/3}.service on c: fewest units of the machines that fit"#]],
    );
}

#[test]
fn a_lost_machine_a_new_text_and_a_restart_say_why() {
    decided(
        "machine b
         machine c
         unit web@.service x3 rev=2 | MaxUnavailable=100%
         unit db.service restart=1
         unit off.service inactive
         unit loaded.service loaded
         on a: web@1.service
         on b: web@2.service/rev=1 db.service off.service
         on c: web@3.service loaded.service",
        expect![[r#"
            took web@1.service off a: the machine was lost
            took off.service off b: no longer wanted there
            placed web@1.service on b: machine a was lost
            updated db.service on b: restart asked for
            updated web@2.service on b: text 1 to 2"#]],
    );
}

/// A leader that looks at one snapshot after another, and plans each.
struct Leader {
    news: News,
    created: BTreeMap<MachineId, i64>,
    left: BTreeSet<MachineId>,
    events: Vec<Event>,
}

impl Leader {
    fn new() -> Leader {
        Leader {
            news: News::default(),
            created: BTreeMap::new(),
            left: BTreeSet::new(),
            events: Vec::new(),
        }
    }

    /// What is told of the cluster in `text`, where each machine's key was created at the revision
    /// of `created`, by default 1.
    fn looks(&mut self, text: &str) -> String {
        let mut snapshot = snapshot(text);
        snapshot.revision = self.events.len() as i64 + 1;
        self.created.retain(|id, _| snapshot.machines.contains_key(id));
        for id in snapshot.machines.keys() {
            self.created.entry(id.clone()).or_insert(snapshot.revision);
        }
        let plan = plan(&snapshot);
        let (items, news) = self.news.look(&snapshot, &plan, &self.created, &self.left, true);
        self.news = news;
        self.events.push(Event { revision: snapshot.revision, ..Event::new(items.clone()) });
        assert_eq!(self.again(&snapshot, &plan), "", "it was told twice");
        lines(&items)
    }

    fn again(&self, snapshot: &Snapshot, plan: &Plan) -> String {
        lines(&self.news.look(snapshot, plan, &self.created, &self.left, true).0)
    }

    /// Another machine leads from here on; it knows what is in the store.
    fn is_replaced(&mut self) {
        self.news = News::told(&self.events, &self.created);
    }
}

#[test]
fn machines_that_come_and_go_are_told_once_whoever_leads() {
    let mut leader = Leader::new();
    assert_eq!(leader.looks("machine a\nmachine b"), "machine a registered\nmachine b registered");
    assert_eq!(leader.looks("machine a\nmachine b\nunit web@.service x2"), "");
    leader.is_replaced();
    let on_both = "unit web@.service x2\non a: web@1.service\non b: web@2.service";
    assert_eq!(leader.looks(&format!("machine a\nmachine b\n{on_both}")), "");
    assert_eq!(
        leader.looks(&format!("machine a\nsettling b\n{on_both}")),
        "machine b is absent and gets time to return: it ran 1 unit"
    );
    leader.is_replaced();
    assert_eq!(leader.looks(&format!("machine a\nsettling b\n{on_both}")), "");
    assert_eq!(
        leader.looks(&format!("machine a\nmachine b\n{on_both}")),
        "machine b registered: it is back"
    );
    assert_eq!(leader.looks(&format!("machine a\n{on_both}")), "machine b was lost: it ran 1 unit");
    assert_eq!(
        leader.looks("machine a\nunit web@.service x2\non a: web@1.service web@2.service"),
        ""
    );
    leader.is_replaced();
    assert_eq!(leader.looks("machine a"), "");
    assert_eq!(leader.looks("machine a\nmachine b"), "machine b registered");
    leader.left.insert(MachineId::new("b"));
    assert_eq!(leader.looks("machine a"), "machine b left: it ran nothing");
}

#[test]
fn a_machine_lost_while_nobody_led_is_told_by_the_next_leader() {
    let mut leader = Leader::new();
    leader.looks("machine a\nmachine b");
    leader.is_replaced();
    assert_eq!(
        leader.looks("machine b\nunit db.service\non a: db.service"),
        "machine a was lost: it ran 1 unit"
    );
}

#[test]
fn a_machine_that_registered_anew_between_two_looks_is_told() {
    let mut leader = Leader::new();
    leader.looks("machine a");
    leader.created.insert(MachineId::new("a"), 77);
    assert_eq!(leader.looks("machine a"), "machine a registered");
}

#[test]
fn a_unit_that_gave_up_says_why_in_the_words_that_its_machine_has_for_it() {
    let mut leader = Leader::new();
    let cluster = "machine a
        unit web.container
        on a: web.container";
    leader.looks(cluster);
    let mut gave_up = snapshot(&format!("{cluster}\ngave-up a: web.container"));
    for (result, code, message, reason, expected) in [
        ("", None, Some("unsupported key 'Foo'"), None, "unsupported key 'Foo'; tried 5 times"),
        (
            "exit-code",
            Some(203),
            None,
            Some("no such file"),
            "exit-code (203) after 5 restarts: no such file",
        ),
        ("timeout", None, None, None, "timeout after 5 restarts"),
    ] {
        let report = gave_up.reports.values_mut().next().map(Arc::make_mut).unwrap();
        for status in report.instances.values_mut() {
            (status.result, status.code, status.restarts) = (result.to_string(), code, 5);
            (status.message, status.reason) =
                (message.map(str::to_string), reason.map(str::to_string));
        }
        let (items, _) =
            News::default().look(&gave_up, &plan(&gave_up), &leader.created, &leader.left, true);
        let said = lines(&items);
        assert!(said.contains(&format!("web.container gave up on a: {expected}")), "{said}");
    }
}

#[test]
fn units_that_gave_up_or_fit_nowhere_are_told_once_and_again_when_it_changes() {
    let mut leader = Leader::new();
    leader.looks("machine a");
    let cluster = "machine a
        unit web@.service x2
        unit db.service | MachineMetadata=disk=ssd
        on a: web@1.service web@2.service";
    let gave_up = format!("{cluster}\ngave-up a: web@1.service web@2.service");
    assert_eq!(leader.looks(cluster), "no machine can run db.service: lacks the metadata disk=ssd");
    assert_eq!(
        leader.looks(&gave_up),
        "web@{1-2}.service gave up on a: it failed again after 0 restarts"
    );
    leader.is_replaced();
    assert_eq!(leader.looks(&gave_up), "");
    assert_eq!(leader.looks(cluster), "");
    assert_eq!(
        leader.looks(&gave_up),
        "web@{1-2}.service gave up on a: it failed again after 0 restarts"
    );
    assert_eq!(
        leader.looks(&gave_up.replace("disk=ssd", "disk=hdd")),
        "no machine can run db.service: lacks the metadata disk=hdd"
    );
}

#[test]
fn what_fits_nowhere_is_not_told_while_machines_may_be_about_to_return() {
    let mut leader = Leader::new();
    leader.looks("machine a");
    let snapshot = snapshot("machine a\nunit db.service | MachineMetadata=disk=ssd");
    let plan = plan(&snapshot);
    let (items, news) = leader.news.look(&snapshot, &plan, &leader.created, &leader.left, false);
    assert_eq!(lines(&items), "");
    let (items, _) = news.look(&snapshot, &plan, &leader.created, &leader.left, true);
    assert_eq!(lines(&items), "no machine can run db.service: lacks the metadata disk=ssd");
}

#[test]
fn a_fenced_unit_that_waits_is_told_once() {
    let mut leader = Leader::new();
    let cluster = "machine a
        unit db.service | Fence=yes
        on b: db.service
        keeper b life=9 silent=1000";
    let told = leader.looks(cluster);
    assert!(
        told.contains(
            "db.service waits for its copy on b: fenced: waits until its copy on the lost machine \
            b has surely ended"
        ),
        "{told}"
    );
    leader.is_replaced();
    assert_eq!(leader.looks(cluster), "");
}

#[test]
fn slowed_moves_are_told_once_and_a_machine_is_called_lost_when_it_is_given_up() {
    let mut leader = Leader::new();
    let on_all = "unit web@.service x4\non a: web@1.service\non b: web@2.service\non c: \
        web@3.service\non d: web@4.service";
    leader.looks(&format!("machine a\nmachine b\nmachine c\nmachine d\n{on_all}"));
    let slowed = leader.looks(&format!("machine a\n{on_all}"));
    expect![[r#"
        moves are slowed: 3 machines are missing and 1 is there: their units are moved slowly, one machine each 30 s, in case it is the network
        machine b was lost: it ran 1 unit
        machine c is absent and gets time to return: it ran 1 unit
        machine d is absent and gets time to return: it ran 1 unit"#]]
    .assert_eq(&slowed);
    leader.is_replaced();
    assert_eq!(leader.looks(&format!("machine a\n{on_all}")), "");
    expect![[r#"
        moves go at the usual speed again
        machine c registered: it is back
        machine d was lost: it ran 1 unit"#]]
    .assert_eq(&leader.looks(&format!("machine a\nmachine c\n{on_all}")));
}

#[test]
fn a_machine_that_left_is_not_called_lost() {
    let mut left =
        snapshot("machine b\nunit web@.service x2\non a: web@1.service\non b: web@2.service");
    left.left.insert(MachineId::new("a"));
    let items: Vec<Item> = decisions(&plan(&left), &left).into_values().flatten().collect();
    assert_eq!(
        lines(&items),
        "took web@1.service off a: the machine left\nplaced web@1.service on b: machine a left"
    );
}

#[test]
fn an_event_stays_within_its_bytes_and_counts_what_it_leaves_out() {
    let machines: Vec<String> = (0..3000).map(|i| format!("machine {i:032}")).collect();
    let snapshot = snapshot(&format!("{}\nunit web@.service x9000", machines.join("\n")));
    let items: Vec<Item> = decisions(&plan(&snapshot), &snapshot).into_values().flatten().collect();
    let wanted = items.len();
    let event =
        Event { leader: MachineId::new("x".repeat(32)), id: "9".repeat(40), ..Event::new(items) };
    assert!(serde_json::to_vec(&event).unwrap().len() <= MAX_EVENT_BYTES);
    assert_eq!(event.items.len() + event.left_out as usize, wanted);
    assert!(event.items.len() > 100, "{}", event.items.len());
}

#[test]
fn a_hundred_thousand_instances_on_a_thousand_machines_fit_into_the_events_of_their_transactions() {
    let machines: Vec<String> = (0..1000).map(|i| format!("machine {i:032x}")).collect();
    let before = snapshot(&format!("{}\nunit web@.service x100000", machines.join("\n")));
    let items: Vec<Item> = decisions(&plan(&before), &before).into_values().flatten().collect();
    for part in items.chunks(120) {
        assert_eq!(Event::new(part.to_vec()).left_out, 0);
    }
    assert_eq!(items.iter().map(Item::instances).sum::<usize>(), 100_000);
}

#[test]
fn an_event_is_picked_by_unit_and_by_machine() {
    let before = snapshot("machine aaaaaaaa1\nmachine b\nunit web@.service x4\nunit db.service");
    let event = Event::new(decisions(&plan(&before), &before).into_values().flatten().collect());
    let picked = |unit: Option<&str>, machine: Option<&str>| {
        let unit = unit.map(UnitName::trusted);
        event
            .clone()
            .about(unit.as_ref(), machine)
            .map_or("none".to_string(), |event| lines(&event.items))
    };
    let on_a =
        "placed db.service, web@{2,4}.service on aaaaaaaa: fewest units of the machines that fit";
    let on_b = "placed web@{1,3}.service on b: fewest units of the machines that fit";
    assert_eq!(picked(Some("web@1.service"), None), on_b);
    assert_eq!(picked(Some("web@.service"), None), format!("{on_a}\n{on_b}"));
    assert_eq!(picked(Some("db.service"), Some("b")), "none");
    assert_eq!(picked(None, Some("aaaaaaaa")), on_a);
    assert_eq!(picked(Some("web@5.service"), None), "none");
}

#[test]
fn what_a_later_version_writes_is_read_and_kept() {
    let text = r#"{"v":1,"id":"7-1","at_ms":1,"leader":"a","term":7,"revision":9,"items":[{"what":"conquered","machine":"b","by":"c"}],"mood":"good"}"#;
    let event: Event = serde_json::from_str(text).unwrap();
    assert_eq!(event.items[0].what, What::Other);
    assert_eq!(serde_json::to_value(&event).unwrap()["mood"], "good");
}

#[test]
fn a_reason_is_data_and_that_of_an_older_or_later_version_is_read() {
    let item = |reason: &str| -> Item {
        let text = format!(r#"{{"what":"took-off","machine":"b",{reason}}}"#);
        serde_json::from_str(&text).unwrap()
    };
    let said = |reason: &str| item(reason).to_string();
    assert_eq!(said(r#""why":"the machine was lost""#), "took  off b: the machine was lost");
    assert_eq!(said(r#""why":"""#), "took  off b");
    let lacks = r#""reason":{"kind":"removed","why":{"unfit":{"kind":"lacks","key":"disk","values":["ssd"]}}}"#;
    assert_eq!(said(lacks), "took  off b: the machine lacks the metadata disk=ssd");
    let later = "took  off b: for a reason that this version does not know";
    assert_eq!(said(r#""reason":{"kind":"removed","why":{"too-dear":5}}"#), later);
    assert_eq!(said(r#""reason":{"kind":"stars"}"#), later);
    let written = serde_json::to_value(item(lacks)).unwrap();
    assert_eq!(written["reason"]["why"]["unfit"]["key"], "disk");
    assert!(written.get("why").is_none());
}

#[test]
fn every_reason_is_written_and_read_back_and_says_the_same() {
    let mut leader = Leader::new();
    let on = "on a: web@1.service web@2.service db.service";
    let units = "unit web@.service x3 rev=2\nunit db.service restart=1\nunit eu.service | \
        MachineMetadata=disk=ssd";
    for text in [
        "machine a\nmachine b".to_string(),
        format!("machine a\nsettling b\n{units}\n{on}\ngave-up a: web@1.service"),
        format!("machine a\nmachine b\n{units}\n{on}"),
        format!("machine b\n{units}\n{on}"),
    ] {
        leader.looks(&text);
        let snapshot = snapshot(&text);
        let decided = decisions(&plan(&snapshot), &snapshot);
        leader.events.push(Event::new(decided.into_values().flatten().collect()));
    }
    let mut kinds = BTreeSet::new();
    for item in leader.events.iter().flat_map(|event| &event.items) {
        let value = serde_json::to_value(item).unwrap();
        kinds.extend(value["reason"]["kind"].as_str().map(str::to_string));
        let read: Item = serde_json::from_value(value).unwrap();
        assert_eq!((&read, read.to_string()), (item, item.to_string()));
    }
    let expected = ["address", "back", "changed", "failed", "misfits", "placed", "ran", "removed"];
    assert_eq!(kinds.into_iter().collect::<Vec<_>>(), expected);
}

#[test]
fn what_fits_nowhere_is_not_told_again_after_an_update_from_a_version_that_told_words() {
    let mut leader = Leader::new();
    let text = "machine a\nunit db.service | MachineMetadata=disk=ssd";
    let told = leader.looks(text);
    assert!(told.contains("no machine can run db.service: lacks the metadata disk=ssd"), "{told}");
    for item in leader.events.iter_mut().flat_map(|event| &mut event.items) {
        item.reason = item.reason.as_ref().map(|reason| reason.to_string().into());
    }
    leader.is_replaced();
    assert_eq!(leader.looks(text), "");
}

#[test]
fn a_snapshot_read_again_gives_the_same_plan() {
    let before = snapshot(
        "machine a r=1\nmachine b\nunit web@.service x3 | MachineMetadata=r=1\nunit db.service | \
            MachineOf=web@1.service",
    );
    let text = serde_json::to_string(&before).unwrap();
    let read: Snapshot = serde_json::from_str(&text).unwrap();
    assert_eq!(read, before);
    assert_eq!(plan(&read).digest(), plan(&before).digest());
    let after = applied(&before, &plan(&before));
    assert_ne!(plan(&after).digest(), plan(&before).digest());
}

proptest! {
    #[test]
    fn numbers_are_written_and_read_back(numbers in proptest::collection::btree_set(0..200u32, 0..60), probe in 0..220u32) {
        let packed: Numbers = numbers.iter().copied().collect();
        prop_assert_eq!(packed.iter().collect::<BTreeSet<_>>(), numbers.clone());
        prop_assert_eq!(packed.len(), numbers.len());
        prop_assert_eq!(packed.contains(probe), numbers.contains(&probe));
        prop_assert_eq!(packed.to_string().parse::<Numbers>().unwrap(), packed);
    }
}

#[test]
fn a_unit_that_is_started_again_and_again_is_told_ever_more_seldom() {
    let mut leader = Leader::new();
    let text = "machine a\nunit web@.service x2\non a: web@1.service web@2.service";
    leader.looks(text);
    let status = |restarts| InstanceStatus {
        active: "active".into(),
        result: if restarts > 0 { "exit-code".into() } else { String::new() },
        code: (restarts > 0).then_some(7),
        restarts,
        ..InstanceStatus::default()
    };
    // What is told when both instances were restarted so often.
    let looks = |leader: &mut Leader, restarts: [u32; 2]| {
        let mut snapshot = snapshot(text);
        let names = [1, 2].map(|n| UnitName::trusted("web@.service").replica(n));
        let instances = names.into_iter().zip(restarts.map(status)).collect();
        let report = Report { generation: 1, instances, ..Report::default() };
        snapshot.reports.insert(MachineId::new("a"), Arc::new(report));
        snapshot.revision = leader.events.len() as i64 + 1;
        let plan = plan(&snapshot);
        let (items, news) = leader.news.look(&snapshot, &plan, &leader.created, &leader.left, true);
        leader.news = news;
        leader.events.push(Event { revision: snapshot.revision, ..Event::new(items.clone()) });
        assert_eq!(leader.again(&snapshot, &plan), "", "it was told twice");
        lines(&items)
    };
    let failed = "failed on a and was started again: exit-code (7)";
    assert_eq!(looks(&mut leader, [0, 0]), "");
    assert_eq!(looks(&mut leader, [1, 1]), format!("web@{{1-2}}.service {failed}"));
    let often = |n: u32| format!("web@1.service {failed}, {n} times since it last ran well");
    assert_eq!(looks(&mut leader, [2, 1]), often(2));
    assert_eq!(looks(&mut leader, [3, 1]), "");
    // The next leader neither repeats nor forgets.
    leader.is_replaced();
    assert_eq!(looks(&mut leader, [3, 1]), "");
    assert_eq!(looks(&mut leader, [5, 1]), often(5));
    // It ran well for a while, and fails anew.
    assert_eq!(looks(&mut leader, [0, 1]), "");
    assert_eq!(looks(&mut leader, [1, 1]), format!("web@1.service {failed}"));
}
