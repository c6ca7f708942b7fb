//! `Needs=`: the order of starts, over machines.

use expect_test::expect;

use super::check;
use crate::event::Reason;
use crate::name::UnitName;
use crate::outlook::Outlook;
use crate::plan::plan;
use crate::plan::script::snapshot;

#[test]
fn an_instance_starts_once_what_it_needs_is_healthy_on_any_machine() {
    check(
        "machine a
        machine b
        unit db.service
        unit web@.service x2 | Needs=db.service",
        expect![[r#"
            + db.service on a: fewest units of the machines that fit
            … web@1.service web@2.service: needs db.service"#]],
    );
    let up = "machine a
        machine b
        unit db.service
        unit web@.service x2 | Needs=db.service
        on a: db.service";
    check(
        &format!("{up}\nruns a: db.service/activating"),
        expect!["… web@1.service web@2.service: needs db.service"],
    );
    check(
        &format!("{up}\nruns a: db.service/failed"),
        expect!["… web@1.service web@2.service: needs db.service"],
    );
    check(
        &format!("{up}\nruns a: db.service"),
        expect![[r#"
        + web@1.service on b: fewest units of the machines that fit
        + web@2.service on a: fewest units of the machines that fit"#]],
    );
}

#[test]
fn what_runs_or_only_moves_is_left_alone_and_what_was_lost_waits() {
    // Of what is down: nothing is stopped for it.
    check(
        "machine a
        machine b
        unit db.service
        unit web.service | Needs=db.service
        on a: db.service
        on b: web.service
        runs a: db.service/failed
        runs b: web.service",
        expect![[""]],
    );
    check(
        "machine a
        machine b
        drain b
        unit db.service
        unit web.service | Needs=db.service
        on a: db.service
        on b: web.service
        runs a: db.service/failed
        runs b: web.service",
        expect![[r#"
            - web.service off b: Drained
            + web.service on a: machine b is drained"#]],
    );
    check(
        "machine a
        machine b region=eu
        unit db.service
        unit web.service | Needs=db.service | MachineMetadata=region=eu
        on a: db.service web.service
        runs a: db.service/failed web.service",
        expect![[r#"
            - web.service off a: Unfit(Lacks { key: "region", values: {"eu"} })
            + web.service on b: machine a fits no longer"#]],
    );
    check(
        "machine a
        unit db.service
        unit web.service | Needs=db.service
        on b: db.service web.service",
        expect![[r#"
            - db.service off b: Lost
            - web.service off b: Lost
            + db.service on a: machine b was lost
            … web.service: needs db.service"#]],
    );
}

#[test]
fn global_units_followers_and_specifiers_wait_each_for_their_own() {
    check(
        "machine a
        machine b
        unit db@.service x2
        unit all.service | Global=true | Needs=db@.service
        unit side.service | MachineOf=db@1.service | Needs=db@2.service
        unit web@.service x2 | Needs=db@%i.service
        on a: db@1.service
        on b: db@2.service
        runs a: db@1.service/activating
        runs b: db@2.service",
        expect![[r#"
            + all.service on a: global unit
            + all.service on b: global unit
            + web@2.service on a: fewest units of the machines that fit
            + side.service on a: MachineOf: db@1.service is here
            … web@1.service: needs db@1.service"#]],
    );
    check(
        "machine a
        machine b
        unit all.service | Global=true | Needs=db.service
        unit web.service | Needs=all.service",
        expect![[r#"
            … all.service: needs db.service
            … web.service: needs all.service"#]],
    );
}

#[test]
fn what_is_only_loaded_is_not_started_so_it_does_not_wait() {
    check(
        "machine a
        unit db.service
        unit web.service loaded | Needs=db.service",
        expect![[r#"
            + db.service on a: fewest units of the machines that fit
            + web.service on a: fewest units of the machines that fit"#]],
    );
}

/// Two were submitted at the same moment, or came by an import.
#[test]
fn a_circle_holds_nobody_for_ever() {
    check(
        "machine a
        unit a.service | Needs=b.service
        unit b.service | Needs=c.service
        unit c.service | Needs=b.service | Needs=d.service
        unit d.service",
        expect![[r#"
            + b.service on a: fewest units of the machines that fit
            + d.service on a: fewest units of the machines that fit
            … a.service: needs b.service
            … c.service: needs d.service"#]],
    );
}

#[test]
fn who_goes_where_the_one_goes_that_needs_it_holds_nobody() {
    check(
        "machine a
        unit web.service | Needs=side.service
        unit side.service | MachineOf=web.service",
        expect![[r#"
            + web.service on a: fewest units of the machines that fit
            + side.service on a: MachineOf: web.service is here"#]],
    );
}

#[test]
fn what_has_no_instances_of_its_own_holds_nobody() {
    check(
        "machine a podman:5.4.2
        unit app.network
        unit web.container | Needs=app.network",
        expect!["+ web.container on a: fewest units of the machines that fit"],
    );
}

#[test]
fn who_waits_for_a_start_holds_up_no_change_of_the_others() {
    check(
        "machine a
        unit db.service
        unit web@.service x4 rev=2 | Needs=db.service
        on a: db.service web@1.service/rev=1
        runs a: db.service/failed web@1.service",
        expect![[r#"
            ~ web@1.service on a
            … web@2.service web@3.service web@4.service: needs db.service"#]],
    );
}

#[test]
fn who_waits_says_for_what() {
    let seen = snapshot(
        "machine a\nunit db.service\nunit web@.service x3 | Needs=db.service\n\
         unit web@2.service | Needs=nosuch.service",
    );
    let outlook = Outlook::of(&plan(&seen), 7, 1, false, None);
    let waits = |name: &str| outlook.waits(&UnitName::trusted(name));
    let needs = |unit: &str| Some(Reason::Needs { unit: UnitName::trusted(unit) });
    assert_eq!(waits("web@1.service"), needs("db.service"));
    assert_eq!(waits("web@3.service"), needs("db.service"));
    assert_eq!(waits("web@2.service"), needs("nosuch.service"));
    assert_eq!(waits("db.service"), None);
    let said = waits("web@1.service").unwrap().to_string();
    assert_eq!(said, "waiting until db.service is healthy on any machine (Needs=)");
    let read: Outlook = serde_json::from_value(serde_json::to_value(&outlook).unwrap()).unwrap();
    assert_eq!(read, outlook);
}
