//! What units say of each other: followers, conflicts, global units.

use expect_test::expect;

use super::check;

#[test]
fn a_follower_goes_where_its_unit_is() {
    check(
        "machine a
         machine b
         unit db.service
         unit a-side.service | MachineOf=db.service
         unit side@.service x2 | MachineOf=web@%i.service
         unit web@.service x2
         on b: db.service",
        expect![[r#"
            + web@1.service on a: fewest units of the machines that fit
            + web@2.service on b: fewest units of the machines that fit
            + a-side.service on b: MachineOf: db.service is here
            + side@1.service on a: MachineOf: web@1.service is here
            + side@2.service on b: MachineOf: web@2.service is here"#]],
    );
}

#[test]
fn a_follower_moves_after_its_unit() {
    check(
        "machine b
         unit db.service
         unit a-side.service | MachineOf=db.service
         unit b-side.service | MachineOf=a-side.service
         on a: db.service a-side.service b-side.service",
        expect![[r#"
            - a-side.service off a: Lost
            - b-side.service off a: Lost
            - db.service off a: Lost
            + db.service on b: machine a was lost
            + a-side.service on b: MachineOf: db.service is here
            + b-side.service on b: MachineOf: a-side.service is here"#]],
    );
}

#[test]
fn a_follower_that_strayed_comes_back_to_its_unit() {
    check(
        "machine a\nmachine b\nunit db.service\nunit s.service | MachineOf=db.service\non a: \
            db.service\non b: s.service",
        expect![[r#"
            - s.service off b: Unfit(NotBeside { unit: "db.service" })
            + s.service on a: MachineOf: db.service is here"#]],
    );
}

#[test]
fn a_follower_of_nothing_waits() {
    check(
        "machine a\nunit s.service | MachineOf=db.service\nunit t.service | \
            MachineOf=web@x.service\nunit web@.service x1",
        expect![[r#"
            + web@1.service on a: fewest units of the machines that fit
            ! s.service: 1 × MachineOf=db.service, which is not there
            ! t.service: 1 × MachineOf=web@x.service, which is not there"#]],
    );
}

#[test]
fn a_follower_of_a_global_unit_takes_its_least_loaded_machine() {
    check(
        "machine a\nmachine b\nmachine c\nunit agent.service | Global=true | \
            MachineMetadata=x=y\nunit s.service | MachineOf=agent.service\nunit z.service\non a: \
            z.service\nmachine b x=y\nmachine a x=y",
        expect![[r#"
            + agent.service on a: global unit
            + agent.service on b: global unit
            + s.service on b: MachineOf: agent.service is here"#]],
    );
}

#[test]
fn units_that_wait_for_each_other_run_nowhere() {
    check(
        "machine a
         unit a.service | MachineOf=b.service
         unit b.service | MachineOf=a.service
         unit c.service | MachineOf=c.service
         on a: a.service b.service",
        expect![[r#"
            - a.service off a: Unfit(Circle)
            - b.service off a: Unfit(Circle)
            ! a.service: 1 × MachineOf goes round in a circle
            ! b.service: 1 × MachineOf goes round in a circle
            ! c.service: 1 × MachineOf goes round in a circle"#]],
    );
}

#[test]
fn a_follower_that_fits_keeps_its_place_against_a_new_unit() {
    check(
        "machine a
         unit a-new.service | Conflicts=side.service
         unit db.service
         unit side.service | MachineOf=db.service
         on a: db.service side.service",
        expect!["! a-new.service: 1 × conflicts with side.service, which is there"],
    );
}

#[test]
fn a_follower_found_twice_stays_once() {
    check(
        "machine a
         machine b
         unit agent.service | Global=true
         unit s.service | MachineOf=agent.service
         on a: agent.service s.service
         on b: agent.service s.service",
        expect!["- s.service off b: Twice"],
    );
}

#[test]
fn conflicts_hold_whoever_declares_them_and_with_globs() {
    check(
        "machine a
         machine b
         unit batch@.service x2
         unit db.service | Conflicts=batch@*.service web.*
         unit web.service
         on a: db.service",
        expect![[r#"
            + batch@1.service on b: fewest units of the machines that fit
            + batch@2.service on b: fewest units of the machines that fit
            + web.service on b: fewest units of the machines that fit"#]],
    );
}

#[test]
fn a_unit_that_conflicts_with_itself_runs_once_a_machine() {
    check(
        "machine a\nmachine b\nunit web@.service x3 | Conflicts=web@*.service",
        expect![[r#"
            + web@1.service on a: fewest units of the machines that fit
            + web@2.service on b: fewest units of the machines that fit
            ! web@3.service: 2 × conflicts with web@.service, which is there"#]],
    );
}

#[test]
fn a_conflict_with_one_replica_leaves_room_for_the_others() {
    check(
        "machine a\nunit db.service | Conflicts=web@1.service\nunit web@.service x3\non a: \
            db.service",
        expect![[r#"
        + web@2.service on a: fewest units of the machines that fit
        + web@3.service on a: fewest units of the machines that fit
        ! web@1.service: 1 × conflicts with db.service, which is there"#]],
    );
}

#[test]
fn of_two_that_have_come_to_conflict_the_first_by_name_stays() {
    check(
        "machine a\nmachine b\nunit x.service\nunit y.service | Conflicts=x.*\non a: x.service \
            y.service",
        expect![[r#"
            - y.service off a: Unfit(Conflict { unit: x.service })
            + y.service on b: machine a fits no longer"#]],
    );
}

#[test]
fn a_global_unit_runs_on_every_machine_that_fits() {
    check(
        "machine a
         machine b os=old
         machine c
         machine d
         unit agent.service | Global=true | Conflicts=db.service
         unit db.service
         unit os.service | Global=true | MachineMetadata=os=old
         unit self.service | Global=true | Conflicts=%n
         on a: agent.service os.service
         on d: db.service",
        expect![[r#"
            - os.service off a: Unfit(Lacks { key: "os", values: {"old"} })
            + agent.service on b: global unit
            + agent.service on c: global unit
            + os.service on b: global unit
            + self.service on a: global unit
            + self.service on b: global unit
            + self.service on c: global unit
            + self.service on d: global unit"#]],
    );
}

#[test]
fn a_global_unit_survives_the_loss_of_a_machine_in_place() {
    check(
        "machine a\nunit agent.service | Global=true\non a: agent.service\non b: agent.service",
        expect!["- agent.service off b: Lost"],
    );
}

#[test]
fn a_template_is_never_global() {
    check(
        "machine a\nmachine b\nunit web@.service x1 | Global=true\nunit log@.service | Global=true",
        expect!["+ web@1.service on a: fewest units of the machines that fit"],
    );
}

#[test]
fn a_unit_pushes_what_it_replaces_to_where_its_own_constraints_let_it_run() {
    check(
        "machine a
         machine b
         machine c disk=ssd
         unit old.service | MachineMetadata=disk=ssd
         unit other.service
         unit old@.service x2
         unit new.service | Replaces=old*.service | MachineID=a
         on a: old@1.service
         on b: other.service
         on c: old.service old@2.service",
        expect![[r#"
            + new.service on a: MachineID names this machine
            - old@1.service off a: Replaced(new.service)
            + old@1.service on b: a unit on machine a replaces it"#]],
    );
}

#[test]
fn what_is_replaced_stays_where_nothing_else_takes_it_and_moves_when_something_does() {
    let cluster = "machine a disk=ssd\nmachine b\nunit old.service | \
        MachineMetadata=disk=ssd\nunit new.service | Replaces=old.service";
    check(&format!("{cluster}\non a: old.service new.service"), expect![]);
    check(
        &format!("{cluster}\nmachine c disk=ssd\non a: old.service new.service"),
        expect![[r#"
            - old.service off a: Replaced(new.service)
            + old.service on c: a unit on machine a replaces it"#]],
    );
}

#[test]
fn two_that_replace_each_other_leave_each_other_alone() {
    check(
        "machine a\nmachine b\nunit x.service | Replaces=y.*\nunit y.service | Replaces=x.*\non \
            a: x.service y.service",
        expect![],
    );
    // Nor does a round of three on two machines go on for ever.
    check(
        "machine a
         machine b
         unit x.service | Replaces=y.*
         unit y.service | Replaces=z.*
         unit z.service | Replaces=x.*
         on a: x.service y.service
         on b: z.service",
        expect![],
    );
}

#[test]
fn what_is_new_goes_at_once_where_nobody_replaces_it() {
    check(
        "machine a
         machine b
         unit busy.service
         unit busy2.service
         unit new.service | Replaces=old.service
         unit old.service
         on a: new.service
         on b: busy.service busy2.service",
        expect!["+ old.service on b: fewest units of the machines that fit"],
    );
}

#[test]
fn what_is_replaced_takes_its_followers_along_and_leaves_global_units() {
    check(
        "machine a
         machine b
         unit agent.service | Global=true
         unit new.service | Replaces=old.service | Replaces=agent.service | Replaces=new.service
         unit old.service
         unit side.service | MachineOf=old.service
         on a: agent.service new.service old.service side.service
         on b: agent.service",
        expect![[r#"
            - old.service off a: Replaced(new.service)
            + old.service on b: a unit on machine a replaces it
            - side.service off a: Unfit(NotBeside { unit: "old.service" })
            + side.service on b: MachineOf: old.service is here"#]],
    );
}

#[test]
fn a_follower_pushes_too() {
    check(
        "machine a
         machine b
         unit db.service
         unit old.service
         unit side.service | MachineOf=db.service | Replaces=old.service
         on a: db.service old.service side.service",
        expect![[r#"
            - old.service off a: Replaced(side.service)
            + old.service on b: a unit on machine a replaces it"#]],
    );
}
