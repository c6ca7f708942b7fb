//! How one rollout's document changes: by what the user asks of the unit, by a wish for the
//! rollout, and by how the instances are.

use super::course::{Course, Kind, Pause};
use super::tally::Tally;
use super::{Rollout, State, text_of};
use crate::model::{RolloutAction, Unit};
use crate::unit::update::OnUpdateFailure;

/// The unit's next document, `Some(None)` for none any more, `None` if it stays as it is.
pub(super) fn next(
    unit: &Unit,
    rollout: Option<&Rollout>,
    tally: Tally,
    now_ms: u64,
) -> Option<Option<Rollout>> {
    let Some(rollout) = rollout.filter(|rollout| rollout.continues(unit)) else {
        // Its first text: what is known of it stands there as soon as it is worth going back to.
        let first = |state| Rollout::new(unit, state, now_ms);
        return match tally.failure {
            _ if tally.all_healthy() => Some(Some(first(State::Done))),
            Some(failure) => Some(Some(Rollout { failure: Some(failure), ..first(State::Failed) })),
            None if tally.healthy > 0 => Some(Some(first(State::Rolling))),
            None => rollout.map(|_| None),
        };
    };
    let mut next = match rollout.text.hash == unit.hash {
        false => begun(rollout, unit, &tally, now_ms),
        true => continued(rollout, unit, now_ms),
    };
    let resumed_ms = |rollout: &Rollout| rollout.course().map_or(0, |course| course.resumed_ms);
    obey(&mut next, unit, now_ms);
    // What failed before a user resumed it was judged without knowing of that.
    let tally = match resumed_ms(&next) > resumed_ms(rollout) {
        true => Tally { failure: None, ..tally },
        false => tally,
    };
    judge(&mut next, unit, tally, now_ms);
    (next != *rollout).then_some(Some(next))
}

/// The document of another text than that of `before`.
fn begun(before: &Rollout, unit: &Unit, tally: &Tally, now_ms: u64) -> Rollout {
    let was_good = before.state == State::Done || before.kind() != Kind::Text;
    // A first text that had yet to show is better than none.
    let is_best = before.good.is_none() && tally.healthy_before > 0;
    let good = match was_good || is_best {
        true => Some(before.text.clone()),
        false => before.good.clone(),
    };
    let mut next = Rollout::new(unit, State::Rolling, now_ms);
    next.good = good.filter(|good| good.hash != unit.hash);
    next.unknown = before.unknown.clone();
    begin_with_canaries(&mut next, unit);
    next
}

/// The document with what else is asked of the unit since: the same text again, a restart, another
/// revision of its configuration.
fn continued(before: &Rollout, unit: &Unit, now_ms: u64) -> Rollout {
    let mut next = before.clone();
    if before.text.revision != unit.revision || before.text.config != unit.config {
        next.text = text_of(unit);
    }
    // An older leader knows of no restarts: what was asked for in its time is no news.
    let news = match before.course() {
        Some(course) if course.restart != unit.restart => Some(Kind::Restart),
        Some(_) if before.text.config != unit.config => Some(Kind::Config),
        _ => None,
    };
    course_of(&mut next, unit).restart = unit.restart;
    // A text on trial stays the matter; all else takes the place of what was restarted before.
    if let Some(kind) = news.filter(|_| before.state == State::Done || before.kind() != Kind::Text)
    {
        enter(&mut next, State::Rolling, now_ms);
        (next.good, next.failure) = (None, None);
        let course = course_of(&mut next, unit);
        course.kind = kind;
        course.go_on();
    }
    next
}

/// Carries out what a user wants, once, where it makes sense.
fn obey(next: &mut Rollout, unit: &Unit, now_ms: u64) {
    let Some(wish) = next.open_wish(unit) else { return };
    let (id, action, by) = (wish.id, wish.action, wish.by.clone());
    let reached = next.after(action);
    let was_undone = next.state == State::Undone;
    let course = course_of(next, unit);
    course.wish = id;
    let Ok(state) = reached else { return };
    course.go_on();
    course.by = by;
    match action {
        RolloutAction::Pause => course.pause = Some(Pause::User),
        RolloutAction::Resume => {
            course.resumed_ms = now_ms;
            next.failure = None;
        }
        RolloutAction::Undo | RolloutAction::Other => {}
    }
    enter(next, state, now_ms);
    if was_undone && state == State::Rolling {
        begin_with_canaries(next, unit);
    }
}

/// Judges it by how the instances are.
fn judge(next: &mut Rollout, unit: &Unit, tally: Tally, now_ms: u64) {
    let pause = next.pause();
    let is_open = match next.state {
        State::Rolling => true,
        State::Paused => pause.is_some() && next.failure.is_none(),
        State::Done | State::Undone | State::Failed => false,
    };
    let may_be_done = matches!(next.state, State::Rolling | State::Paused | State::Failed);
    if may_be_done && tally.all_healthy() {
        enter(next, State::Done, now_ms);
        (next.good, next.failure) = (None, None);
        if next.course.is_some() {
            course_of(next, unit).go_on();
        }
        return;
    }
    let wanted = tally.healthy + tally.open;
    let healthy = tally.healthy;
    if let Some(failure) = tally.failure.filter(|_| is_open) {
        let is_text = next.kind() == Kind::Text;
        let state = match unit.on_update_failure() {
            Some(OnUpdateFailure::Rollback) if is_text && next.good.is_some() => State::Undone,
            Some(OnUpdateFailure::Pause) if is_text && next.good.is_some() => State::Paused,
            // There is nothing to go back to; what is well is left alone.
            Some(OnUpdateFailure::Rollback | OnUpdateFailure::Pause) if !is_text => State::Paused,
            // A user decides, who is told of the failure.
            _ if pause.is_some() => State::Paused,
            _ => State::Failed,
        };
        let goes_on = unit.on_update_failure() == Some(OnUpdateFailure::Continue);
        if let Some(course) = next.course.as_mut().filter(|_| !(goes_on && pause.is_some())) {
            course.go_on();
        }
        // Also where it was paused already, for its canaries say: since when it is so is when it
        // failed.
        enter(next, state, now_ms);
        next.failure = Some(failure);
        return;
    }
    if let (Some(Pause::Canary), Some(most)) = (pause, &unit.constraints.canary)
        && healthy >= most.of(wanted)
        && !course_of(next, unit).ready
    {
        course_of(next, unit).ready = true;
    }
}

/// Lets few instances try the text first, if the unit says so and there is another text for the
/// rest.
fn begin_with_canaries(next: &mut Rollout, unit: &Unit) {
    if next.good.is_some() && unit.constraints.canary.is_some() {
        next.state = State::Paused;
        course_of(next, unit).pause = Some(Pause::Canary);
    }
}

fn enter(next: &mut Rollout, state: State, now_ms: u64) {
    (next.state, next.since_ms) = (state, now_ms);
}

fn course_of<'a>(next: &'a mut Rollout, unit: &Unit) -> &'a mut Course {
    if next.course().is_none() {
        next.course = None;
    }
    next.course.get_or_insert_with(|| Course::of(unit))
}
