//! A panic in any task of a run is a check that failed, with its message: also in those that fleetd
//! starts by itself, and whose end nobody waits for.

use std::cell::RefCell;
use std::panic::{self, PanicHookInfo};
use std::sync::Once;

use crate::judge::SharedJudge;
use crate::verdict::Check;

thread_local! {
    /// The judge of the run on this thread. All tasks of a run are on its thread, but those that
    /// free memory.
    static JUDGE: RefCell<Option<SharedJudge>> = const { RefCell::new(None) };
    /// A panic of which the judge could not be told, since it was in the midst of judging.
    static UNTOLD: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

/// While this lives, panics on this thread go to a judge.
pub(crate) struct Heard(());

/// Lets `judge` hear of each panic on this thread.
pub(crate) fn heard_by(judge: &SharedJudge) -> Heard {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if !tell(info) {
                before(info);
            }
        }));
    });
    JUDGE.set(Some(judge.clone()));
    Heard(())
}

impl Drop for Heard {
    fn drop(&mut self) {
        let judge = JUDGE.take();
        for what in UNTOLD.take() {
            judge.iter().for_each(|judge| judge.lock().fail(Check::Panicked, what.clone()));
        }
    }
}

/// False if no run is on this thread.
fn tell(info: &PanicHookInfo) -> bool {
    JUDGE.with_borrow(|judge| {
        let Some(judge) = judge else { return false };
        let place =
            info.location().map_or(String::new(), |at| format!(" at {}:{}", at.file(), at.line()));
        let what = format!(
            "a task panicked{place}: {}",
            info.payload_as_str().unwrap_or("without a word")
        );
        match judge.try_lock() {
            Some(mut judge) => judge.fail(Check::Panicked, what),
            None => UNTOLD.with_borrow_mut(|untold| untold.push(what)),
        }
        true
    })
}
