//! `MaxPerMachine=`: a machine runs at most so many instances of one template.
//!
//! Those whose texts have the option count, also if they have a record of their own; of several
//! numbers the lowest holds. So it does not matter which instance came first.

use super::super::board::Board;
use super::super::candidate::Candidate;
use super::super::misfit::Misfit;
use crate::unit::xfleet::Constraints;

#[inline]
pub(super) fn check(board: &Board, candidate: &Candidate, machine: u32) -> Option<Misfit> {
    // Said on the board itself, since the constraints of most units lie in no cache.
    if board.units[candidate.number].limited { crowd(board, candidate, machine) } else { None }
}

fn crowd(board: &Board, candidate: &Candidate, machine: u32) -> Option<Misfit> {
    let template = candidate.instance.template()?;
    let (mut there, mut lowest) = (0, most(candidate.wants));
    for here in &board.slots[machine as usize].here {
        let unit = &board.units[here.number];
        let name = &unit.unit.name;
        let is_of_it = || match unit.template {
            true => *name == template,
            false => name.template().as_ref() == Some(&template),
        };
        if !unit.limited || !is_of_it() {
            continue;
        }
        let names = if unit.template { &*here.replicas } else { std::slice::from_ref(name) };
        let others = names.iter().filter(|name| *name != candidate.instance).count();
        if others > 0 {
            there += others;
            lowest = lowest.min(most(&unit.unit.constraints));
        }
    }
    (there >= lowest as usize).then_some(Misfit::Enough { most: lowest })
}

/// What the option says. What is no number from 1 is refused where a unit is taken in, and counts
/// as 1 where it is stored all the same.
fn most(wants: &Constraints) -> u32 {
    wants.max_per_machine.map_or(u32::MAX, |most| most.max(1))
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use crate::plan::tests::check;

    #[test]
    fn a_machine_takes_no_more_than_the_template_allows() {
        check(
            "machine a
             machine b
             unit web@.service x5 | MaxPerMachine=2
             unit other.service",
            expect![[r#"
                + other.service on a: fewest units of the machines that fit
                + web@1.service on b: fewest units of the machines that fit
                + web@2.service on a: fewest units of the machines that fit
                + web@3.service on b: fewest units of the machines that fit
                + web@4.service on a: fewest units of the machines that fit
                ! web@5.service: 2 × has as many instances of it as MaxPerMachine=2 allows"#]],
        );
    }

    #[test]
    fn a_lower_number_moves_what_is_too_much() {
        check(
            "machine a
             machine b
             unit web@.service x3 | MaxPerMachine=1
             on a: web@1.service web@2.service web@3.service",
            expect![[r#"
                - web@2.service off a: Unfit(Enough { most: 1 })
                - web@3.service off a: Unfit(Enough { most: 1 })
                + web@2.service on b: machine a fits no longer
                ! web@3.service: 2 × has as many instances of it as MaxPerMachine=1 allows"#]],
        );
    }

    #[test]
    fn with_a_budget_what_is_too_much_runs_on_until_another_machine_takes_it() {
        check(
            "machine a
             machine b
             unit web@.service x3 rev=2 | MaxPerMachine=1 | MaxUnavailable=1
             on a: web@1.service/rev=1 web@2.service/rev=1 web@3.service/rev=1
             runs a: web@1.service web@2.service web@3.service",
            expect![[r#"
                - web@2.service off a: Unfit(Enough { most: 1 })
                + web@2.service on b: machine a fits no longer
                … web@.service: 2 to go: 1 of 3 is unavailable, and MaxUnavailable lets at most 1 be so"#]],
        );
    }

    #[test]
    fn instances_with_a_record_of_their_own_count_if_they_have_the_option() {
        check(
            "machine a
             unit web@.service x1 | MaxPerMachine=2
             unit web@x.service | MaxPerMachine=3
             unit web@y.service | MaxPerMachine=3
             unit web@z.service
             unit db.service | MaxPerMachine=1",
            expect![[r#"
                + db.service on a: fewest units of the machines that fit
                + web@1.service on a: fewest units of the machines that fit
                + web@x.service on a: fewest units of the machines that fit
                + web@z.service on a: fewest units of the machines that fit
                ! web@y.service: 1 × has as many instances of it as MaxPerMachine=2 allows"#]],
        );
    }
}
