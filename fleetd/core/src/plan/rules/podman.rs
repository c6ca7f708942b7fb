//! Quadlet units: the machine has a podman that knows their type. Of a machine that does not say,
//! an older fleetd's, it is hoped.

use super::super::misfit::Unsuited;
use crate::model::Machine;
use crate::unit::podman::major_minor;
use crate::unit::xfleet::Constraints;

#[inline]
pub(in crate::plan) fn check(machine: &Machine, wants: &Constraints) -> Option<Unsuited<'static>> {
    let kind = wants.podman?;
    match machine.podman.as_deref()? {
        "" => Some(Unsuited::NoPodman),
        version if kind.is_known_to(version) => None,
        version => Some(Unsuited::OldPodman(major_minor(version)?, kind.as_str())),
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use crate::plan::tests::check;

    #[test]
    fn a_machine_without_podman_or_with_an_old_one_takes_no_pod() {
        check(
            "machine a podman:
             machine b podman:4.9.3
             machine c podman:5.4.2
             machine old
             unit app@.pod x3
             unit web@.container x4
             unit plain.service",
            expect![[r#"
                + app@1.pod on c: fewest units of the machines that fit
                + app@2.pod on old: fewest units of the machines that fit
                + app@3.pod on c: fewest units of the machines that fit
                + plain.service on a: fewest units of the machines that fit
                + web@1.container on b: fewest units of the machines that fit
                + web@2.container on old: fewest units of the machines that fit
                + web@3.container on c: fewest units of the machines that fit
                + web@4.container on b: fewest units of the machines that fit"#]],
        );
        check(
            "machine a podman:
             machine b podman:4.9.3
             unit app.pod
             unit web.container | MachineMetadata=disk=ssd",
            expect![[r#"
                ! app.pod: 1 × has no podman; 1 × its podman 4.9 knows no .pod
                ! web.container: 1 × lacks the metadata disk=ssd; 1 × has no podman"#]],
        );
    }

    #[test]
    fn what_runs_stays_where_podman_was_taken_away_and_a_new_text_goes_elsewhere() {
        check(
            "machine a podman:
             machine b podman:5.4.2
             on a: app.pod web.container/rev=1
             unit app.pod
             unit web.container rev=2",
            expect![[r#"
                - web.container off a: Unfit(NoPodman)
                + web.container on b: machine a fits no longer"#]],
        );
    }
}
