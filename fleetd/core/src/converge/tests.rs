//! Text in, text out: `name wanted-state[rN] | marker | systemd`, one unit a line; the steps below.

use super::*;
use crate::app::AppName;
use crate::configuration::Uses;
use crate::health::Health;
use crate::unit::on_failure::OnFailure;
use expect_test::{Expect, expect};

/// A line is `unit: wanted; on-host`. Wanted: `-`, `loaded h1`, `launched h1 [restart=N]
/// [config=N] [token=N]`. On host: `-` or `h1[ launched][ fence=TOKEN/LIFE][ oneshot][ writing][
/// restart=N][ config=CHANGED/N][ STATE][ sub=SUB][ job][ failures=N][ pause=MS][ refused] [
/// stopped][ needs=UNIT][ rival=UNIT][ unhealthy][ given-up][
/// image=STATE]`, where STATE is systemd's active state, and that of an image is `missing`,
/// `unknown`, `pulling` or `FAILURES/PAUSE`.
fn check(text: &str, expected: Expect) {
    check_with_keeper(None, text, expected);
}

fn check_with_keeper(keeper: Option<i64>, text: &str, expected: Expect) {
    let mut assignment = Assignment { generation: 1, ..Assignment::default() };
    let mut host = BTreeMap::new();
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let (name, rest) = line.split_once(": ").unwrap();
        let (wanted, on_host) = rest.split_once(';').unwrap();
        let name = UnitName::parse(name).unwrap();
        let mut words = wanted.split_whitespace();
        if let Some(state) = words.next().and_then(DesiredState::parse) {
            let hash = words.next().unwrap();
            let number =
                |what: &str| words.clone().find_map(|w| w.strip_prefix(what)?.parse().ok());
            let (restart, token) = (number("restart=").unwrap_or(0), number("token="));
            let unit = name.template().unwrap_or(name.clone());
            let placement = Placement {
                unit,
                revision: 1,
                hash: hash.into(),
                state,
                why: crate::model::Why::Fewest,
                since_ms: 0,
                changed_ms: 0,
                moves: 0,
                restart,
                config: number("config=").unwrap_or(0),
                fence: token.map(|token| {
                    Box::new(crate::model::Fenced { token, stop_ms: 0, after: Vec::new() })
                }),
            };
            assignment.instances.insert(name.clone(), placement);
        }
        if let Some(seen) = parse_seen(&name, on_host) {
            host.insert(name, seen);
        }
    }
    let converged = converge(Some(&assignment), &host, keeper, 10_000);
    let mut lines: Vec<String> = converged.steps.iter().map(|step| format!("{step:?}")).collect();
    lines.extend(converged.wake_at_ms.map(|at| format!("wake at {at}")));
    expected.assert_eq(&lines.join("\n"));
}

fn parse_seen(name: &UnitName, text: &str) -> Option<Seen> {
    let mut seen = Seen::default();
    let mut words = text.split_whitespace();
    let hash = words.next().filter(|hash| *hash != "-" || text.contains("image="))?;
    let mut marker = Marker {
        on_failure: OnFailure::default(),
        unit: name.template().unwrap_or(name.clone()),
        revision: 1,
        hash: hash.into(),
        launched: false,
        restart: 0,
        oneshot: false,
        remains: false,
        fence: None,
        enabled: false,
        shared: false,
        outdated: false,
        stopping: false,
        starting: false,
        writing: false,
        alike: false,
        earlier: false,
        ended: false,
        bound: false,
        beside: Vec::new(),
        beside_old: Vec::new(),
        config: None,
        settles_ms: None,
        check: None,
        healthy: false,
    };
    for word in words {
        match word.split_once('=').unwrap_or((word, "")) {
            ("launched", _) => marker.launched = true,
            ("oneshot", _) => marker.oneshot = true,
            ("outdated", _) => marker.outdated = true,
            ("stopping", _) => marker.stopping = true,
            ("starting", _) => marker.starting = true,
            ("writing", _) => marker.writing = true,
            ("restart", n) => marker.restart = n.parse().unwrap(),
            ("config", both) => {
                let (changed, revision) = both.split_once('/').unwrap();
                marker.config = Some(Configured {
                    uses: Uses {
                        name: AppName::parse("shop").unwrap(),
                        changed: ConfigChanged::parse(changed),
                    },
                    revision: revision.parse().unwrap(),
                });
            }
            ("sub", word) => seen.systemd.as_mut().unwrap().sub = word.to_string(),
            ("fence", both) => {
                let (token, life) = both.split_once('/').unwrap();
                marker.fence =
                    Some(FencedBy { token: token.parse().unwrap(), life: life.parse().unwrap() });
            }
            ("failures", n) => seen.trouble.failures = n.parse().unwrap(),
            ("pause", n) => seen.trouble.not_before_ms = n.parse().unwrap(),
            ("refused", _) => seen.trouble.message = Some("refused".into()),
            ("stopped", _) => drop(seen.stopped.get_or_insert_default()),
            ("needs", name) => {
                seen.stopped.get_or_insert_default().needs.push(UnitName::trusted(name))
            }
            ("given-up", _) => seen.given_up = Some("OnFailure.exit-78=give-up".into()),
            ("unhealthy", _) => {
                seen.health = Some(Health::Unhealthy { why: "503".into(), since_ms: 0 });
            }
            ("part", name) => seen.failed_part = Some(UnitName::trusted(name)),
            ("rival", name) => {
                seen.stopped.get_or_insert_default().rivals.push(UnitName::trusted(name))
            }
            ("image", "missing") => seen.image = ImageState::Missing,
            ("image", "unknown") => seen.image = ImageState::Unknown,
            ("image", "pulling") => seen.image = ImageState::Pulling("x:2".into()),
            ("image", at) => {
                let (failures, not_before_ms) = at.split_once('/').unwrap();
                seen.image = ImageState::Failed(Trouble {
                    failures: failures.parse().unwrap(),
                    not_before_ms: not_before_ms.parse().unwrap(),
                    message: Some("cannot pull x:2: gone".into()),
                    ..Trouble::default()
                });
            }
            ("job", _) => seen.systemd.as_mut().unwrap().job = true,
            (state, _) => {
                seen.systemd = Some(SystemdState {
                    load: "loaded".into(),
                    active: state.into(),
                    sub: "x".into(),
                    job: false,
                });
            }
        }
    }
    seen.marker = (!["foreign", "-"].contains(&hash)).then_some(marker);
    Some(seen)
}

#[test]
fn a_new_unit_is_written_and_started_without_a_reload() {
    check(
        "a.service: launched h1; -",
        expect![[r#"
            Write { instance: a.service, unit: a.service, revision: 1, hash: "h1", fence: None }
            Start { instance: a.service, restart: 0, again: false }"#]],
    );
}

#[test]
fn a_loaded_unit_is_written_and_not_started() {
    check(
        "a.service: loaded h1; -",
        expect![[
            r#"Write { instance: a.service, unit: a.service, revision: 1, hash: "h1", fence: None }"#
        ]],
    );
}

#[test]
fn what_runs_as_wanted_is_left_alone() {
    check("a.service: launched h1; h1 launched active", expect![""]);
}

#[test]
fn changed_texts_share_one_reload() {
    check(
        "a.service: launched h2; h1 launched active
         b.service: launched h2; h1 launched active",
        expect![[r#"
            Write { instance: a.service, unit: a.service, revision: 1, hash: "h2", fence: None }
            Write { instance: b.service, unit: b.service, revision: 1, hash: "h2", fence: None }
            Reload
            Restart { instance: a.service, restart: 0 }
            Restart { instance: b.service, restart: 0 }"#]],
    );
}

#[test]
fn what_is_wanted_no_longer_is_stopped_then_removed() {
    check(
        "a.service: -; h1 launched active
         b.service: -; h1 launched inactive
         c.service: -; h1 launched failed
         d.service: -; h1 launched deactivating
         e.service: -; h1 launched",
        expect![[r#"
            Stop(a.service)
            Remove(b.service)
            Remove(c.service)
            Remove(e.service)"#]],
    );
}

#[test]
fn a_pod_with_a_failed_container_is_started_again_after_its_pause_and_stopped_when_it_goes() {
    check(
        "a.pod: launched h1; h1 launched active part=web.service
         b.pod: launched h1; h1 launched active part=web.service failures=1 pause=11000
         c.pod: -; h1 launched active part=web.service
         d.pod: launched h2; h1 launched active part=web.service",
        expect![[r#"
            Stop(c.pod)
            Write { instance: d.pod, unit: d.pod, revision: 1, hash: "h2", fence: None }
            Reload
            Start { instance: a.pod, restart: 0, again: true }
            Restart { instance: d.pod, restart: 0 }
            wake at 11000"#]],
    );
    let name = UnitName::trusted("a.pod");
    let seen = parse_seen(&name, "h1 launched active part=web.service failures=1").unwrap();
    let said = status(&seen, 0);
    assert_eq!((said.active.as_str(), said.next_try_ms), ("failed", Some(0)));
    assert_eq!(said.message.unwrap(), "web.service, a container of the pod, failed");
}

#[test]
fn units_that_fleet_did_not_write_are_never_touched() {
    check("ssh.service: -; foreign active", expect![""]);
}

#[test]
fn a_stop_keeps_the_file() {
    check("a.service: loaded h1; h1 launched active", expect!["Stop(a.service)"]);
}

#[test]
fn a_stop_of_what_has_ended_is_noted_so_that_a_later_start_starts_it() {
    check("a.service: loaded h1; h1 launched failed", expect!["Stop(a.service)"]);
    check("a.service: loaded h1; h1 launched inactive", expect!["Stop(a.service)"]);
}

#[test]
fn a_loaded_unit_that_its_timer_or_socket_started_is_left_alone() {
    check("backup.service: loaded h1; h1 active", expect![""]);
    check("backup.service: loaded h1; h1 oneshot activating", expect![""]);
}

#[test]
fn a_new_text_for_a_unit_that_is_only_to_be_loaded_stops_the_old_one() {
    check("a.service: loaded h2; h1 launched active", expect!["Stop(a.service)"]);
}

#[test]
fn failed_units_are_started_again_unless_they_pause() {
    check(
        "a.service: launched h1; h1 launched failed
         b.service: launched h1; h1 launched failed failures=2 pause=12000",
        expect![[r#"
            Start { instance: a.service, restart: 0, again: true }
            wake at 12000"#]],
    );
}

#[test]
fn what_is_unhealthy_is_restarted_after_its_pause_unless_something_else_is_wanted() {
    check(
        "a.service: launched h1; h1 launched active unhealthy
         b.service: launched h1; h1 launched active unhealthy failures=2 pause=12000
         c.service: loaded h1; h1 launched active unhealthy
         d.service: launched h1 restart=2; h1 launched active unhealthy
         e.service: launched h2; h1 launched active unhealthy
         f.service: -; h1 launched active unhealthy
         g.service: launched h1; h1 launched active job unhealthy",
        expect![[r#"
            Stop(f.service)
            Stop(c.service)
            Write { instance: e.service, unit: e.service, revision: 1, hash: "h2", fence: None }
            Reload
            Revive { instance: a.service, restart: 0 }
            Restart { instance: d.service, restart: 2 }
            Restart { instance: e.service, restart: 0 }
            wake at 12000"#]],
    );
}

#[test]
fn what_gave_up_as_its_file_says_is_touched_by_nothing_but_a_decision() {
    check(
        "a.service: launched h1; h1 launched failed given-up
         b.service: launched h1 restart=2; h1 launched failed given-up
         c.service: launched h2; h1 launched failed given-up
         d.service: loaded h1; h1 launched failed given-up
         e.service: -; h1 launched failed given-up
         f.service: launched h1; h1 launched active unhealthy given-up
         g.container: launched h2; h1 launched failed given-up image=pulling",
        expect![[r#"
            Stop(d.service)
            Remove(e.service)
            Write { instance: c.service, unit: c.service, revision: 1, hash: "h2", fence: None }
            Reload
            Restart { instance: b.service, restart: 2 }
            Start { instance: c.service, restart: 0, again: false }"#]],
    );
}

#[test]
fn what_is_unhealthy_is_restarted_while_the_image_of_its_next_text_is_pulled() {
    check(
        "a.container: launched h2; h1 launched active unhealthy image=pulling",
        expect!["Revive { instance: a.container, restart: 0 }"],
    );
}

#[test]
fn a_replica_that_exits_is_started_again_and_a_unit_by_name_is_done() {
    check(
        "web@1.service: launched h1; h1 launched inactive
         web@2.service: launched h1; h1 launched oneshot inactive
         a.service: launched h1; h1 launched inactive",
        expect!["Start { instance: web@1.service, restart: 0, again: true }"],
    );
}

#[test]
fn a_replica_that_is_no_service_is_done_when_it_is_down() {
    check(
        "tick@1.timer: launched h1; h1 launched inactive
         inbox@1.path: launched h1; h1 launched inactive
         all@1.target: launched h1; h1 launched inactive
         app@1.container: launched h1; h1 launched inactive
         tick@2.timer: launched h1; h1 launched failed",
        expect![[r#"
            Start { instance: app@1.container, restart: 0, again: true }
            Start { instance: tick@2.timer, restart: 0, again: true }"#]],
    );
}

#[test]
fn a_report_says_of_what_is_down_whether_its_work_is_done() {
    let ended = |name: &str, seen: &str| {
        let seen = parse_seen(&UnitName::trusted(name), seen).unwrap();
        status(&seen, 0).ended
    };
    for (name, seen, expected) in [
        ("job@1.service", "h1 launched oneshot inactive", true),
        ("job@1.service", "h1 launched oneshot activating", false),
        ("job@1.service", "h1 launched oneshot inactive job", false),
        ("job@1.service", "h1 launched oneshot failed", false),
        ("job@1.service", "h1 oneshot inactive", false),
        ("web@1.service", "h1 launched inactive", false),
        ("web.service", "h1 launched inactive", true),
        ("web.service", "h1 launched fence=7/40 inactive", false),
        ("tick@1.timer", "h1 launched inactive", true),
    ] {
        assert_eq!(ended(name, seen), expected, "{name} {seen}");
    }
}

#[test]
fn a_fenced_unit_by_name_that_is_down_is_started_again_unless_it_ends_by_itself() {
    check_with_keeper(
        Some(40),
        "a.service: launched h1 token=7; h1 launched fence=7/40 inactive
         b.service: launched h1 token=7; h1 launched fence=7/40 oneshot inactive",
        expect!["Start { instance: a.service, restart: 0, again: true }"],
    );
}

#[test]
fn what_systemd_stopped_though_nobody_had_asked_is_started_again_and_what_ended_is_done() {
    check(
        "a.service: launched h1; h1 launched stopped
         b.service: launched h1; h1 launched
         c.service: launched h1; h1 launched oneshot stopped
         d.service: launched h1; h1 launched stopped failures=2 pause=12000
         e.service: loaded h1; h1 launched stopped",
        expect![[r#"
            Stop(e.service)
            Start { instance: a.service, restart: 0, again: true }
            Start { instance: c.service, restart: 0, again: true }
            wake at 12000"#]],
    );
}

#[test]
fn a_sidekick_comes_back_when_what_it_is_bound_to_is_up_and_never_brings_that_back_itself() {
    // Somebody stopped the main unit: the agent's start of the other would start it.
    check(
        "web@1.service: loaded h1; h1
         say@1.service: launched h1; h1 launched needs=web@1.service",
        expect![""],
    );
    check(
        "web@1.service: launched h1; h1 launched active
         say@1.service: launched h1; h1 launched stopped",
        expect!["Start { instance: say@1.service, restart: 0, again: true }"],
    );
    // A main unit that ended by itself is done, and what is bound to it waits.
    check(
        "web.service: launched h1; h1 launched
         say.service: launched h1; h1 launched needs=web.service",
        expect![""],
    );
}

#[test]
fn a_sidekick_that_failed_as_it_was_stopped_waits_for_what_it_is_bound_to_as_well() {
    check(
        "web@1.service: loaded h1; h1
         say@1.service: launched h1; h1 launched failed needs=web@1.service",
        expect![""],
    );
    check(
        "web@1.service: launched h1; h1 launched active
         say@1.service: launched h1; h1 launched failed stopped",
        expect!["Start { instance: say@1.service, restart: 0, again: true }"],
    );
}

#[test]
fn units_that_need_each_other_come_back_together_unless_one_has_to_wait() {
    check(
        "a.service: launched h1; h1 launched needs=b.service
         b.service: launched h1; h1 launched needs=a.service",
        expect![[r#"
            Start { instance: a.service, restart: 0, again: true }
            Start { instance: b.service, restart: 0, again: true }"#]],
    );
    check(
        "a.service: launched h1; h1 launched needs=b.service
         b.service: launched h1; h1 launched needs=a.service needs=host.mount",
        expect![""],
    );
}

#[test]
fn a_unit_that_was_stopped_for_one_that_conflicts_with_it_waits_until_that_is_down() {
    check("a.service: launched h1; h1 launched rival=b.service", expect![""]);
    let name = UnitName::trusted("a.service");
    let seen = parse_seen(&name, "h1 launched rival=b.service").unwrap();
    expect!["systemd stopped it; it is started again when b.service, which conflicts, is down"]
        .assert_eq(&status(&seen, 0).message.unwrap());
}

#[test]
fn a_replica_that_was_stopped_with_what_it_is_bound_to_does_not_start_that_again() {
    check("say@1.service: launched h1; h1 launched needs=web@1.service", expect![""]);
    check(
        "say@1.service: launched h1; h1 launched",
        expect!["Start { instance: say@1.service, restart: 0, again: true }"],
    );
}

#[test]
fn what_a_crash_kept_from_being_written_whole_is_written_again_or_taken_away() {
    check(
        "a.service: launched h1; h1 writing
         b.service: -; h1 writing
         c.service: launched h1; h1 writing launched active",
        expect![[r#"
            Remove(b.service)
            Write { instance: a.service, unit: a.service, revision: 1, hash: "h1", fence: None }
            Write { instance: c.service, unit: c.service, revision: 1, hash: "h1", fence: None }
            Reload
            Start { instance: a.service, restart: 0, again: false }
            Restart { instance: c.service, restart: 0 }"#]],
    );
}

#[test]
fn a_unit_with_a_job_under_way_is_waited_for() {
    check("a.service: launched h1; h1 activating job", expect![""]);
    check("a.service: launched h1; h1 launched activating", expect![""]);
}

#[test]
fn a_restart_asked_for_is_carried_out_once() {
    check(
        "a.service: launched h1 restart=2; h1 launched restart=1 active
         b.service: launched h1 restart=2; h1 launched restart=2 active",
        expect!["Restart { instance: a.service, restart: 2 }"],
    );
}

#[test]
fn without_an_assignment_nothing_is_touched() {
    let host = BTreeMap::from([(
        UnitName::trusted("a.service"),
        parse_seen(&UnitName::trusted("a.service"), "h1 launched active").unwrap(),
    )]);
    assert_eq!(converge(None, &host, None, 0), Converged::default());
}

#[test]
fn pauses_grow_and_end_in_giving_up() {
    let mut trouble = Trouble::default();
    let pauses: Vec<u64> = (0..8)
        .map(|_| {
            trouble.again(0, None);
            trouble.not_before_ms
        })
        .collect();
    assert_eq!(pauses, [1_000, 2_000, 4_000, 8_000, 16_000, 32_000, 60_000, 60_000]);
    assert!(trouble.gave_up());
    trouble.forget_if_well(true, 0, RAN_WELL_MS);
    assert_eq!(trouble, Trouble::default());
}

#[test]
fn systemds_own_restarts_count_as_the_agents_do_but_one_a_pause() {
    let mut trouble = Trouble::default();
    let mut counted_at = Vec::new();
    for now_ms in (0..30_000).step_by(500) {
        let before = trouble.failures;
        trouble.restarted_by_systemd(now_ms);
        if trouble.failures > before {
            counted_at.push(now_ms);
        }
    }
    assert_eq!(counted_at, [0, 1_000, 3_000, 7_000, 15_000]);
    assert!(trouble.gave_up());
}

#[test]
fn the_failures_of_another_text_or_other_values_are_forgotten() {
    let mut trouble = Trouble::default();
    assert!(trouble.keep_only_of(&"one".into(), 1));
    trouble.again(0, Some("no such image".to_string()));
    assert!(!trouble.keep_only_of(&"one".into(), 1) && trouble.failures == 1);
    assert!(trouble.keep_only_of(&"two".into(), 1));
    assert_eq!((trouble.failures, trouble.not_before_ms, &trouble.message), (0, 0, &None));
    trouble.awaits_values(0, "there is no configuration shop".to_string());
    assert!(!trouble.keep_only_of(&"two".into(), 2), "the text is the same");
    let left = (trouble.awaits_values, trouble.not_before_ms, &trouble.message);
    assert_eq!(left, (false, 0, &None));
}

#[test]
fn what_failed_and_was_started_again_is_on_its_way_up_until_it_has_stayed_up() {
    let name = UnitName::trusted("a.service");
    let said = |text: &str, settling: bool| {
        let mut seen = parse_seen(&name, text).unwrap();
        seen.settling = settling;
        let status = status(&seen, 0);
        format!("{} {} {} {:?}", status.active, status.sub, status.settling, status.next_try_ms)
    };
    assert_eq!(said("h1 launched active", true), "active x true None");
    assert_eq!(said("h1 launched active failures=1", true), "activating settling true None");
    assert_eq!(said("h1 launched active failures=1", false), "active x false None");
    assert_eq!(
        said("h1 launched failed failures=2 pause=4000", false),
        "failed x false Some(4000)"
    );
    assert_eq!(
        said("h1 launched failed job failures=2 pause=4000", false),
        "activating queued false None"
    );
}

#[test]
fn what_a_socket_started_is_not_stopped_while_only_loaded() {
    check("a.service: loaded h1; h1 active", expect![]);
}

#[test]
fn a_start_that_a_crash_kept_from_being_noted_is_noted_and_restarts_nothing() {
    // Found by the simulator, seed 316. systemd takes the start of what runs already for done.
    check(
        "a.service: launched h1; h1 active",
        expect!["Start { instance: a.service, restart: 0, again: false }"],
    );
}

#[test]
fn what_a_stop_ended_that_a_crash_kept_from_being_noted_starts_again_when_it_is_wanted() {
    // Found by the simulator, seed 1112: it was taken for a unit that had done its work.
    check(
        "a.service: launched h1; h1 launched stopping inactive",
        expect!["Start { instance: a.service, restart: 0, again: false }"],
    );
    check("a.service: launched h1; h1 launched stopping active", expect![""]);
    check("a.service: loaded h1; h1 launched stopping active", expect!["Stop(a.service)"]);
}

#[test]
fn what_a_crash_kept_from_being_noted_as_started_is_stopped_where_it_should_only_be_loaded() {
    // Found by the simulator, seed 3166: it was taken for a socket's or a timer's.
    check("a.service: loaded h1; h1 starting active", expect!["Stop(a.service)"]);
    check("a.service: loaded h1; h1 active", expect![""]);
    check(
        "a.service: launched h1; h1 starting active",
        expect!["Start { instance: a.service, restart: 0, again: false }"],
    );
    check(
        "a.service: launched h1; h1 starting inactive",
        expect!["Start { instance: a.service, restart: 0, again: false }"],
    );
    check("a.service: loaded h1; h1 starting inactive", expect![""]);
}

#[test]
fn a_restart_that_was_not_taken_yet_is_taken_later() {
    check(
        "a.service: launched h2; h2 active outdated",
        expect!["Restart { instance: a.service, restart: 0 }"],
    );
}

#[test]
fn a_failing_unit_is_removed_and_rewritten_without_waiting_for_its_pause() {
    check(
        "a.service: -; h1 launched failed failures=6 pause=50000
         b.service: launched h2; h1 launched failed failures=6 pause=50000",
        expect![[r#"
            Remove(a.service)
            Write { instance: b.service, unit: b.service, revision: 1, hash: "h2", fence: None }
            Reload
            Start { instance: b.service, restart: 0, again: false }"#]],
    );
}

#[test]
fn a_step_that_fails_for_ever_is_tried_only_after_its_pause() {
    check(
        "a.service: -; h1 launched active failures=9 pause=50000 refused
         b.service: launched h1; - 
         c.service: launched h2; h1 launched active failures=9 pause=50000 refused
         d.service: launched h1 restart=2; h1 launched active failures=9 pause=50000 refused
         e.service: loaded h1; h1 launched active failures=9 pause=50000 refused",
        expect![[r#"
            Write { instance: b.service, unit: b.service, revision: 1, hash: "h1", fence: None }
            Start { instance: b.service, restart: 0, again: false }
            wake at 50000"#]],
    );
}

#[test]
fn a_unit_that_systemd_lost_is_written_again() {
    check(
        "a.service: launched h1; h1 launched failures=1 refused",
        expect![[r#"
        Write { instance: a.service, unit: a.service, revision: 1, hash: "h1", fence: None }
        Start { instance: a.service, restart: 0, again: false }"#]],
    );
}

#[test]
fn a_start_that_hangs_is_stopped_once_when_nobody_wants_it() {
    check(
        "a.service: -; h1 launched activating job
         b.service: -; h1 activating job
         c.service: loaded h1; h1 launched activating job
         d.service: -; h1 launched deactivating job",
        expect![[r#"
            Stop(a.service)
            Stop(c.service)"#]],
    );
}

#[test]
fn a_unit_that_is_assigned_again_while_it_stops_starts_when_it_is_down() {
    check("a.service: launched h1; h1 deactivating job", expect![]);
    check(
        "a.service: launched h1; h1 inactive",
        expect!["Start { instance: a.service, restart: 0, again: false }"],
    );
}

#[test]
fn a_restart_asked_for_while_down_starts_it_without_a_pause() {
    check(
        "a.service: launched h1 restart=1; h1 launched failed failures=3 pause=50000",
        expect!["Restart { instance: a.service, restart: 1 }"],
    );
}

#[test]
fn a_restart_counted_anew_is_carried_out_and_an_old_count_alone_is_not() {
    check(
        "a.service: launched h1 restart=1; h1 launched restart=5 active\nb.service: launched h1; \
            h1 launched restart=5 active",
        expect!["Restart { instance: a.service, restart: 1 }"],
    );
}

#[test]
fn a_new_text_for_a_unit_that_should_be_down_waits_until_it_is() {
    check("a.service: loaded h2; h1 launched active", expect!["Stop(a.service)"]);
}

#[test]
fn a_new_text_does_not_wait_for_a_start_under_way() {
    check(
        "a.service: launched h2; h1 launched activating job",
        expect![[r#"
        Write { instance: a.service, unit: a.service, revision: 1, hash: "h2", fence: None }
        Reload
        Restart { instance: a.service, restart: 0 }"#]],
    );
}

#[test]
fn a_fenced_unit_starts_only_under_a_keeper_that_the_assignment_is_no_older_than() {
    let new = "a.service: launched h1 token=7; -";
    check_with_keeper(None, new, expect![]);
    check_with_keeper(
        Some(40),
        new,
        expect![[r#"
            Write { instance: a.service, unit: a.service, revision: 1, hash: "h1", fence: Some(FencedBy { token: 7, life: 40 }) }
            Start { instance: a.service, restart: 0, again: false }"#]],
    );
}

#[test]
fn a_fenced_unit_that_runs_is_left_alone_while_nothing_is_known_of_the_keeper() {
    check_with_keeper(
        None,
        "a.service: launched h1 token=7; h1 launched fence=7/40 active",
        expect![],
    );
    check_with_keeper(
        Some(40),
        "a.service: launched h1 token=7; h1 launched fence=7/40 active",
        expect![],
    );
    // What is to stop is stopped all the same.
    check_with_keeper(
        None,
        "a.service: -; h1 launched fence=7/40 active",
        expect!["Stop(a.service)"],
    );
    check_with_keeper(
        None,
        "a.service: loaded h1 token=7; h1 launched fence=7/40 active",
        expect!["Stop(a.service)"],
    );
}

#[test]
fn what_the_last_keeper_took_along_starts_again_under_the_next_one() {
    // systemd stopped it in good order, so nothing but the keeper's life tells that it is to run.
    check_with_keeper(
        Some(50),
        "a.service: launched h1 token=7; h1 launched fence=7/40 inactive",
        expect![[r#"
            Write { instance: a.service, unit: a.service, revision: 1, hash: "h1", fence: Some(FencedBy { token: 7, life: 50 }) }
            Reload
            Start { instance: a.service, restart: 0, again: false }"#]],
    );
}

#[test]
fn a_fenced_unit_that_was_elsewhere_in_between_starts_with_its_new_token() {
    check_with_keeper(
        Some(40),
        "a.service: launched h1 token=9; h1 launched fence=7/40 active",
        expect![[r#"
            Write { instance: a.service, unit: a.service, revision: 1, hash: "h1", fence: Some(FencedBy { token: 9, life: 40 }) }
            Reload
            Restart { instance: a.service, restart: 0 }"#]],
    );
}

#[test]
fn an_image_is_pulled_before_anything_is_written_started_or_restarted() {
    check(
        "a.container: launched h1; - image=missing
         b.container: launched h2; h1 launched active image=missing
         c.container: launched h1; h1 inactive image=missing
         d.container: launched h1 restart=2; h1 launched restart=1 active image=missing",
        expect![[r#"
            Pull(a.container)
            Pull(b.container)
            Pull(c.container)
            Pull(d.container)"#]],
    );
    for image in ["unknown", "pulling"] {
        let text = format!("a.container: launched h2; h1 launched active image={image}");
        check(&text, expect![""]);
    }
}

#[test]
fn a_pull_that_failed_is_tried_again_after_its_pause_and_changes_nothing_that_runs() {
    check(
        "a.container: launched h2; h1 launched active image=1/9000
         b.container: launched h2; h1 launched active image=2/12000",
        expect![[r#"
            Pull(a.container)
            wake at 12000"#]],
    );
}

#[test]
fn what_fails_while_the_image_of_its_next_text_is_pulled_is_started_again_as_it_was() {
    check(
        "a.container: launched h2 restart=1; h1 launched failed image=pulling
         b.container: launched h2; h1 launched failed failures=2 pause=12000 image=pulling
         c.container: launched h1 restart=2; h1 launched restart=1 failed image=2/13000
         d.container: launched h2; h1 failed image=pulling
         e@1.container: launched h2; h1 launched inactive image=pulling
         f@1.container: launched h2; h1 launched stopping inactive image=pulling",
        expect![[r#"
            Start { instance: a.container, restart: 0, again: true }
            Start { instance: c.container, restart: 1, again: true }
            Start { instance: e@1.container, restart: 0, again: true }
            wake at 12000"#]],
    );
}

#[test]
fn an_image_delays_no_stop_no_load_and_no_start_after_a_failure() {
    check(
        "a.container: loaded h2; h1 launched active image=missing
         b.container: loaded h1; - image=missing
         c.container: launched h1; h1 launched failed image=missing
         d.container: -; h1 launched active image=missing",
        expect![[r#"
            Stop(d.container)
            Stop(a.container)
            Write { instance: b.container, unit: b.container, revision: 1, hash: "h1", fence: None }
            Start { instance: c.container, restart: 0, again: true }"#]],
    );
}

#[test]
fn the_image_is_asked_for_where_a_decision_starts_the_instance() {
    let wants = |state, hash: &str, restart, seen: &str| {
        let name = UnitName::trusted("a.container");
        let placement = Placement {
            unit: name.clone(),
            revision: 1,
            hash: hash.into(),
            state,
            why: crate::model::Why::Fewest,
            since_ms: 0,
            changed_ms: 0,
            moves: 0,
            restart,
            config: 0,
            fence: None,
        };
        wants_image(&placement, &parse_seen(&name, seen).unwrap_or_default())
    };
    let launched = DesiredState::Launched;
    assert!(wants(launched, "h1", 0, "-"));
    assert!(wants(launched, "h2", 0, "h1 launched active"));
    assert!(wants(launched, "h1", 0, "h1 inactive"));
    assert!(wants(launched, "h1", 2, "h1 launched restart=1 active"));
    assert!(!wants(launched, "h1", 1, "h1 launched restart=1 active"));
    assert!(!wants(launched, "h1", 0, "h1 launched failed"));
    assert!(!wants(DesiredState::Loaded, "h2", 0, "h1 launched active"));
}

#[test]
fn a_report_says_what_is_pulled_and_why_that_failed_and_what_runs_is_as_well_as_ever() {
    let said = |text: &str| {
        let seen = parse_seen(&UnitName::trusted("a.container"), text).unwrap();
        let said = status(&seen, 0);
        format!(
            "{} {} {} {} {:?} {:?}",
            said.active,
            said.sub,
            said.restarts,
            said.gave_up,
            said.pulls.or(said.message),
            said.next_try_ms
        )
    };
    expect![[r#"activating pulling 0 false Some("x:2") None"#]].assert_eq(&said("- image=pulling"));
    expect![[r#"active pulling 0 false Some("x:2") None"#]]
        .assert_eq(&said("h1 launched active image=pulling"));
    expect![[r#"failed failed 5 true Some("cannot pull x:2: gone") Some(12000)"#]]
        .assert_eq(&said("- image=5/12000"));
    expect![[r#"active x 0 false Some("cannot pull x:2: gone") Some(12000)"#]]
        .assert_eq(&said("h1 launched active image=5/12000"));
}

#[test]
fn a_changed_configuration_restarts_what_runs_and_what_failed_and_not_what_is_done() {
    check(
        "done.service: launched h1 config=2; h1 launched oneshot config=restart/1
         failed@1.service: launched h1 config=2; h1 launched config=restart/1 failed
         has.service: launched h1 config=2; h1 launched config=restart/2 active
         held.service: launched h1 config=2; h1 launched config=restart/1 active refused pause=11000
         ignores.service: launched h1 config=2; h1 launched config=ignore/1 active
         loaded.service: loaded h1 config=2; h1 config=restart/1 active
         up.service: launched h1 config=2; h1 launched config=restart/1 active
         waits.service: launched h1 config=2; h1 launched config=restart/1 stopped needs=x.service",
        expect![[r#"
            Configure { instance: done.service, reload: false }
            Restart { instance: failed@1.service, restart: 0 }
            Configure { instance: loaded.service, reload: false }
            Restart { instance: up.service, restart: 0 }
            wake at 11000"#]],
    );
}

#[test]
fn a_changed_configuration_is_reloaded_by_what_runs_and_is_there_for_the_next_start() {
    check(
        "again.service: launched h1 config=2; h1 launched config=reload/1 activating sub=auto-restart
         down@1.service: launched h1 config=2; h1 launched config=reload/1 failed
         loaded.service: loaded h1 config=2; h1 config=reload/1 active
         moving.service: launched h1 config=2; h1 launched config=reload/1 active job
         starting.service: launched h1 config=2; h1 launched config=reload/1 activating
         up.service: launched h1 config=2; h1 launched config=reload/1 active",
        expect![[r#"
            Configure { instance: again.service, reload: false }
            Start { instance: down@1.service, restart: 0, again: true }
            Configure { instance: loaded.service, reload: false }
            Configure { instance: up.service, reload: true }"#]],
    );
}

#[test]
fn values_count_as_taken_when_the_reload_has_ended() {
    let revision = |state: &str| {
        let text = format!("h1 launched config=reload/2 {state}");
        status(&parse_seen(&UnitName::trusted("a.service"), &text).unwrap(), 0).config
    };
    assert_eq!((revision("reloading job"), revision("active")), (1, 2));
    assert_eq!(revision("reloading"), 2, "somebody else reloads it");
}
