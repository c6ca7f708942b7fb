//! Failures of an instance: pauses, and when to give up.

use crate::unit::file::ShortHash;
use crate::unit::on_failure::{Action, Kind, OOM_KILLS};

/// How often the agent restarts a failing instance before it says that it gave up. It goes on
/// trying after that.
pub const RESTART_LIMIT: u32 = 5;

/// The pause after the first restart of a failing instance, in milliseconds; doubles with each. The
/// first restart is at once.
pub const FIRST_PAUSE_MS: u64 = 1_000;

/// The longest such pause, in milliseconds.
pub const LONGEST_PAUSE_MS: u64 = 60_000;

/// The pause before a configuration that could not be had is read again, in milliseconds.
const VALUES_PAUSE_MS: u64 = 2_000;

/// How long an instance must run for its failures to be forgotten, in milliseconds.
pub const RAN_WELL_MS: u64 = 60_000;

/// An instance's recent failures on this host. Lost with the agent: a new one is patient anew.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Trouble {
    /// Restarts, and steps that failed, since it last ran well.
    pub failures: u32,
    /// Of these, those that do not count towards [`RESTART_LIMIT`]: the unit's file says that it is
    /// restarted, however often that is.
    pub spared: u32,
    /// How often it was killed because memory was short.
    pub oom_kills: u32,
    /// Whether the last failure alone is cause enough for another machine.
    pub moves: bool,
    /// Not to be touched before, in milliseconds since 1970.
    pub not_before_ms: u64,
    /// What went wrong with a step, in systemd's or the file system's words.
    pub message: Option<String>,
    /// Whether that is that its configuration cannot be had: this host is not to blame.
    pub awaits_values: bool,
    /// The short hash of the text that all of this is about.
    pub text: ShortHash,
    /// … and the revision of its configuration that it was asked to have.
    pub config: u64,
}

impl Trouble {
    /// Counts one more restart or failed step.
    pub fn again(&mut self, now_ms: u64, message: Option<String>) {
        let pause = FIRST_PAUSE_MS.saturating_mul(1 << self.failures.min(20)).min(LONGEST_PAUSE_MS);
        self.failures += 1;
        self.not_before_ms = now_ms + pause;
        self.message = message;
        self.awaits_values = false;
    }

    /// Notes that its configuration cannot be had, and counts nothing: on no machine would it
    /// start.
    pub fn awaits_values(&mut self, now_ms: u64, message: String) {
        self.not_before_ms = now_ms + VALUES_PAUSE_MS;
        self.message = Some(message);
        self.awaits_values = true;
    }

    /// Forgets what went wrong with the last step.
    pub fn step_went_well(&mut self) {
        self.message = None;
        self.awaits_values = false;
    }

    /// Counts a restart by systemd itself (`Restart=`) as one by the agent: at most one a pause,
    /// however many there were.
    pub fn restarted_by_systemd(&mut self, now_ms: u64) {
        if now_ms >= self.not_before_ms {
            self.again(now_ms, self.message.clone());
        }
    }

    /// Forgets the failures of another text or other values, which say nothing of these; true if
    /// the text was another.
    pub fn keep_only_of(&mut self, text: &ShortHash, config: u64) -> bool {
        let other = self.text != *text;
        if other || self.config != config {
            *self = Trouble { text: text.clone(), config, ..Trouble::default() };
        }
        other
    }

    /// Takes in how it failed, which is counted as a restart later. `said` is what its file says of
    /// that.
    pub fn failed(&mut self, kind: Kind, said: Option<Action>) {
        match said {
            Some(Action::Move) => self.moves = true,
            Some(Action::Restart) => self.spared += 1,
            Some(Action::GiveUp) => {}
            None if kind == Kind::OomKill => {
                self.oom_kills += 1;
                self.moves |= self.oom_kills >= OOM_KILLS;
            }
            None => {}
        }
    }

    /// Whether the leader should try another machine.
    pub fn gave_up(&self) -> bool {
        self.moves || self.failures.saturating_sub(self.spared) >= RESTART_LIMIT
    }

    /// Forgets failures of an instance that has been running well since `since_ms`.
    pub fn forget_if_well(&mut self, active: bool, since_ms: u64, now_ms: u64) {
        if active
            && (self.failures > 0 || self.oom_kills > 0 || self.moves)
            && now_ms.saturating_sub(since_ms) >= RAN_WELL_MS
            && now_ms >= self.not_before_ms
        {
            let text = std::mem::take(&mut self.text);
            *self = Trouble { text, config: self.config, ..Trouble::default() };
        }
    }
}
