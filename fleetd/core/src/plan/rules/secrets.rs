//! `Secret=`: the machine's podman has the secrets that the unit takes. Of a machine that does not
//! say which it has, it is hoped. An instance keeps those that it was started with, so one that is
//! there already with its present text stays.

use super::super::misfit::Unsuited;
use crate::model::Machine;
use crate::unit::xfleet::Constraints;

#[inline]
pub(in crate::plan) fn check<'w>(
    machine: &Machine,
    wants: &'w Constraints,
) -> Option<Unsuited<'w>> {
    if wants.secrets.is_empty() {
        return None;
    }
    let has = machine.secrets.as_ref()?;
    // A specifier that is left stands for what only systemd knows.
    let known = wants.secrets.iter().filter(|name| !name.contains('%'));
    known.into_iter().find(|name| !has.contains(*name)).map(|name| Unsuited::NoSecret(name))
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use crate::plan::tests::check;

    #[test]
    fn a_machine_without_a_secret_takes_no_unit_that_names_it() {
        check(
            "machine a podman:5.4.2 secrets:
             machine b podman:5.4.2 secrets:db,key-2
             machine c podman:5.4.2 secrets:db
             machine old podman:5.4.2
             unit db@.container x4 | BundleNeeds=secret:db
             unit key@.container x2 | BundleNeeds=secret:key-%i | MachineMetadata=zone=x
             unit plain.container",
            expect![[r#"
                + db@1.container on b: fewest units of the machines that fit
                + db@2.container on c: fewest units of the machines that fit
                + db@3.container on old: fewest units of the machines that fit
                + db@4.container on b: fewest units of the machines that fit
                + plain.container on a: fewest units of the machines that fit
                ! key@1.container: 4 × lacks the metadata zone=x
                ! key@2.container: 4 × lacks the metadata zone=x"#]],
        );
        check(
            "machine a podman:5.4.2 secrets:
             machine b podman:5.4.2 secrets:key-2
             unit key@.container x2 | BundleNeeds=secret:key-%i
             unit all.container | BundleNeeds=secret:key-2 | BundleNeeds=secret:z | Global=true",
            expect![[r#"
                + key@2.container on b: fewest units of the machines that fit
                ! all.container: 1 × its podman has no secret key-2; 1 × its podman has no secret z
                ! key@1.container: 2 × its podman has no secret key-1"#]],
        );
    }

    #[test]
    fn what_runs_keeps_its_secrets_and_a_new_text_that_needs_another_goes_where_it_is() {
        check(
            "machine a podman:5.4.2 secrets:
             machine b podman:5.4.2 secrets:
             on a: db.container
             unit db.container | BundleNeeds=secret:db",
            expect![[r#""#]],
        );
        check(
            "machine a podman:5.4.2 secrets:
             machine b podman:5.4.2 secrets:db
             on a: db.container/rev=1
             unit db.container rev=2 | BundleNeeds=secret:db",
            expect![[r#"
                - db.container off a: Unfit(NoSecret { secret: "db" })
                + db.container on b: machine a fits no longer"#]],
        );
    }

    #[test]
    fn a_new_text_whose_secret_nobody_made_takes_nothing_down() {
        check(
            "machine a podman:5.4.2 secrets:
             on a: db.container/rev=1
             unit db.container rev=2 | BundleNeeds=secret:db",
            expect!["! db.container: 1 × its podman has no secret db"],
        );
        // A global unit has no other machine; those that can have the text get it as usual.
        let global = "machine a podman:5.4.2 secrets:
             machine b podman:5.4.2 secrets:db
             machine c podman:5.4.2 secrets:
             on a: all.container/rev=1
             on b: all.container/rev=1
             on c: all.container/rev=1
             runs a: all.container
             runs b: all.container
             runs c: all.container
             unit all.container rev=2 | BundleNeeds=secret:db | Global=true";
        for also in ["", "\ndrain a\nevict a 5000"] {
            check(
                &format!("{global}{also}"),
                expect![[r#"
                    ~ all.container on b
                    ! all.container: 2 × its podman has no secret db"#]],
            );
        }
    }

    #[test]
    fn what_comes_with_a_unit_needs_a_podman_that_knows_it() {
        check(
            "machine a podman:4.4.1
             machine b podman:4.9.3
             machine c podman:5.4.2
             unit i.container | BundleNeeds=image
             unit b.container | BundleNeeds=build | BundleNeeds=image
             unit f.container | BundleNeeds=artifact",
            expect![[r#"
                + b.container on c: fewest units of the machines that fit
                + i.container on b: fewest units of the machines that fit
                ! f.container: 1 × its podman 4.4 knows no .artifact; 1 × its podman 4.9 knows no .artifact; 1 × its podman 5.4 knows no .artifact"#]],
        );
    }
}
