//! What happens in a run: actions at times, all chosen by the seed before it begins. A shorter
//! script is one with actions left out.

use std::fmt;

use fleet_core::model::{Availability, DesiredState};

use crate::needs::{NEEDED, NEEDING};
use crate::reboots::ASKS_MS;

/// A run's script.
#[derive(Debug, Clone)]
pub struct Script {
    /// How many machines there are.
    pub machines: usize,
    /// Whether the faults are such that no unit may notice: none that loses a machine, and no user
    /// acts meanwhile.
    pub calm: bool,
    /// What happens, in order of time.
    pub actions: Vec<Timed>,
}

/// An action and when it begins.
#[derive(Debug, Clone, PartialEq)]
pub struct Timed {
    /// In milliseconds since the run began.
    pub at_ms: u64,
    /// What.
    pub action: Action,
}

/// One fault or one user's wish. Times are in milliseconds.
#[allow(missing_docs)] // the fields are the sentence's words
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// A user's request, over one machine's API. Each of the two users waits for an answer before
    /// the next.
    User { user: usize, over: usize, wish: Wish },
    /// A machine is cut off from the store, for its requests, its answers or both.
    Cut { machine: usize, requests: bool, answers: bool, ms: u64 },
    /// All machines are cut off from the store, which runs on: leases end.
    CutAll { ms: u64 },
    /// The leader's machine is cut off from the store.
    CutLeader { requests: bool, answers: bool, ms: u64 },
    /// The leader's fleetd is stopped by SIGSTOP for a while.
    PauseLeader { ms: u64 },
    /// Some of a machine's answers are lost: what was asked for is done.
    LoseAnswers { machine: usize, per_mille: u64, ms: u64 },
    /// Some of a machine's requests are delivered twice, the second time up to 6 s later.
    Repeat { machine: usize, per_mille: u64, ms: u64 },
    /// Some of a machine's messages are late, and overtake each other.
    Delay { machine: usize, ms: u64 },
    /// fleetd is stopped by SIGSTOP for a while.
    Pause { machine: usize, ms: u64 },
    /// fleetd is killed and started again.
    Crash { machine: usize, down_ms: u64 },
    /// fleetd crashes at its nth call from now on to the store or to systemd, and is started again.
    CrashAtCall { machine: usize, calls: u32 },
    /// fleetd is stopped and started as in an upgrade.
    Upgrade { machine: usize },
    /// A machine leaves the cluster, and comes back.
    Leave { machine: usize, away_ms: u64 },
    /// A machine loses power, and boots again.
    PowerLoss { machine: usize, down_ms: u64 },
    /// A machine's disk is copied to another host, which runs for a while.
    CopiedDisk { machine: usize, ms: u64 },
    /// A machine is shut down in good order, and boots again.
    Reboot { machine: usize, down_ms: u64 },
    /// A machine's updater wants it rebooted, and asks for that first.
    LockedReboot { machine: usize, down_ms: u64 },
    /// A machine's keeper is stopped by SIGSTOP for a while.
    KeeperPause { machine: usize, ms: u64 },
    /// A machine's keeper is killed; systemd starts it again.
    KeeperCrash { machine: usize },
    /// A machine's keeper crashes at its nth call from now on to the store.
    KeeperCrashAtCall { machine: usize, calls: u32 },
    /// `systemctl stop fleet-keeper`, or `restart`, as in an upgrade.
    KeeperStop { machine: usize, again: bool },
    /// The guard of a machine's fenced units is stopped by SIGSTOP for a while.
    GuardPause { machine: usize, ms: u64 },
    /// It is killed; systemd starts it again.
    GuardCrash { machine: usize },
    /// A machine's disk and systemd are slow.
    SlowDisk { machine: usize, ms: u64 },
    /// A machine's D-Bus does not answer.
    NoBus { machine: usize, ms: u64 },
    /// A machine's wall clock jumps; fleetd hears of it at its next start.
    ClockStep { machine: usize, by_ms: i64 },
    /// The store has no quorum.
    NoQuorum { ms: u64 },
    /// Another member of the store leads.
    NewStoreLeader,
    /// The store forgets its history up to the present.
    Compact,
    /// A later version of fleet adds a field to each record, to each operator's settings and to
    /// each assignment.
    LaterFields,
    /// `systemctl soft-reboot` of a machine whose store is away: fleetd cannot leave, all stops,
    /// `/run` stays.
    SoftReboot { machine: usize, down_ms: u64 },
    /// `systemctl isolate` on a machine: all stops but fleetd.
    Isolate { machine: usize },
    /// Somebody stops a unit on its machine, and what is bound to it goes along.
    Stopped { unit: &'static str, machine: usize },
    /// A unit's starts on a machine end as `word` before anything runs, for a while.
    StartsEnd { unit: &'static str, machine: usize, word: &'static str, ms: u64 },
    /// Wherever it runs, a unit's process fails for a while.
    UnitFails { unit: &'static str, machine: usize, ms: u64 },
    /// What has a health check answers badly on a machine for a while, or not at all.
    FallsSick { machine: usize, hangs: bool, ms: u64 },
}

/// What a user wants.
#[allow(missing_docs)] // the fields are the sentence's words
#[derive(Debug, Clone, PartialEq)]
pub enum Wish {
    /// To submit a unit, in one of its texts.
    Submit { unit: &'static str, text: usize, desired: Option<DesiredState> },
    /// Another desired state.
    Desire { unit: &'static str, desired: DesiredState },
    /// A count.
    Scale { unit: &'static str, replicas: u32 },
    /// A restart.
    Restart { unit: &'static str },
    /// No unit.
    Destroy { unit: &'static str },
    /// A label on a machine.
    Label { machine: usize, value: u8 },
    /// The text before.
    Rollback { unit: &'static str },
    /// That a machine takes instances, takes none, or is drained.
    Availability { machine: usize, availability: Availability },
    /// Another value in the configuration, under each of its keys.
    Set { value: u8 },
    /// The values before.
    RollConfigBack,
    /// That a rollout is paused, resumed or undone.
    Steer { unit: &'static str, action: &'static str },
    /// An application in one of its versions.
    Apply { version: usize },
    /// No application.
    DestroyApp,
}

/// The units that users choose from, each with its texts' `[X-Fleet]` sections.
pub const UNITS: &[(&str, &[&str])] = &[
    ("web@.service", &["", "Conflicts=web@*.service", "MachineMetadata=zone=1", ""]),
    ("api@.service", &["", "MachineMetadata=disk=1"]),
    ("db.service", &["", "Conflicts=api@*.service"]),
    ("side.service", &["MachineOf=db.service"]),
    ("agent.service", &["Global=true", "Global=true\nMachineMetadata=zone=0"]),
    (
        "ledger.service",
        &["Fence=true", "Fence=true\nMachineMetadata=zone=1", "Fence=true\nMachineMetadata=disk=1"],
    ),
    ("shard@.service", &["Fence=true", "Fence=true\nConflicts=shard@*.service"]),
    ("twin.service", &["Fence=true\nMachineOf=ledger.service", "Fence=true\nMachineOf=db.service"]),
    ("mate.service", &["MachineOf=ledger.service"]),
];

/// Those of which at most one copy may live, in each of their texts.
pub const FENCED: &[&str] = &["ledger.service", "shard@.service", "twin.service"];

/// Those that start after another, whose stop so waits for theirs.
const ORDERED: &[(&str, &str)] =
    &[("twin.service", "ledger.service"), ("mate.service", "ledger.service")];

/// A unit that is changed a few instances at a time.
pub const ROLLING: &str = "roll@.service";

/// A unit with a health check, in each of its texts; apart from the others, as they are.
pub const CHECKED: &str = "well@.service";

/// In the environment of a program that has a check: how long it takes until it answers well, in
/// milliseconds.
pub const READY: &str = "READY_MS=";

/// How the programs of its texts answer: well after a while; the last two never.
const ANSWERS: [(&str, &str); 6] = [
    ("6000", "--ready-after=6s"),
    ("8000", "--ready-after=8s"),
    ("6000", "--ready-after=6s"),
    ("7000", "--ready-after=7s"),
    ("never", "--sick-after=0"),
    ("never", "--sick-after=0 --hangs"),
];

const CHECK: &str = "MaxUnavailable=2\nHealthCheck=http://:8080/\nHealthInterval=1\n\
    HealthTimeout=500ms\nHealthStartPeriod=12\nHealthyDeadline=25";

/// A template of which each machine runs so many at most; chosen last, too.
pub const CROWDED: &[(&str, &[&str])] = &[(
    "few@.service",
    &["MaxPerMachine=1", "MaxPerMachine=2", "MaxPerMachine=2\nMachineMetadata=zone=1", ""],
)];

/// Units with a configuration, in most of their texts; chosen last, too.
pub const CONFIGURED: &[(&str, &[&str])] = &[
    (
        "conf@.service",
        &[
            "Config=shop\nMaxUnavailable=2",
            "Config=shop\nConfigChanged=reload",
            "Config=shop",
            "Config=shop\nConfigChanged=ignore",
            "",
        ],
    ),
    ("conf.service", &["Config=shop", "Config=shop\nConfigChanged=reload"]),
];

/// A unit, and one that starts after it, on whatever machine; chosen last, too.
pub const NEEDFUL: &[(&str, &[&str])] = &[
    (NEEDED, &["", "MachineMetadata=zone=1"]),
    (NEEDING, &["Needs=base.service", "Needs=base.service\nMaxUnavailable=2"]),
];

/// What the programs of the texts after the fourth of [`ROLLING`] do: they die, at once or soon
/// after they came up, all before they count as up; systemd restarts some of them.
const DYING: [&str; 4] = [
    "ExecStart=/bin/false",
    "ExecStart=/bin/sh -c 'sleep 0.5; exit 1'",
    "ExecStart=/bin/sh -c 'sleep 1.5; exit 1'\nRestart=on-failure",
    "ExecStart=/bin/sh -c 'sleep 0.3; exit 1'\nRestart=always\nRestartSec=50ms",
];

/// The texts of [`ROLLING`]: four that work, those that die, and one with a canary.
const ROLLING_TEXTS: &[&str] = {
    let mut texts = ["MaxUnavailable=2"; 5 + DYING.len()];
    texts[WITH_CANARY] = "MaxUnavailable=2\nCanary=1";
    &{ texts }
};

/// The text of [`ROLLING`] with a canary.
const WITH_CANARY: usize = 4 + DYING.len();

/// A unit whose first texts end with a status at which its file gives up, whatever systemd would
/// do; chosen last, too.
pub const QUITTING: &[(&str, &[&str])] =
    &[(QUITTER, &["OnFailure.exit-78=give-up", "OnFailure.exit-code=give-up", ""])];
/// Its name.
pub const QUITTER: &str = "quit.service";
const QUITS: [&str; 2] = [
    "ExecStart=/bin/sh -c 'sleep 3; exit 78'\nRestart=always",
    "ExecStart=/bin/sh -c 'sleep 0.4; exit 78'\nRestart=on-failure\nRestartSec=50ms",
];

/// Whether a text is of one that gives up.
pub fn quits(text: &str) -> bool {
    text.contains("; exit 78'")
}

/// Units apart from the others: they and what is done to them are chosen last, so that a seed's
/// other actions are what they always were.
pub const CHOSEN_LAST: &[(&str, &[&str])] = &[
    (ROLLING, ROLLING_TEXTS),
    (CHECKED, &[CHECK; ANSWERS.len()]),
    (
        "pin.service",
        &["MachineID=a0000001", "MachineID=a0000002000000000000000000000002", "MachineID=a0000009"],
    ),
    (
        "slot@.service",
        &[
            "MachineMetadata=zone=%i",
            "Conflicts=slot@*.service",
            "MachineMetadata=zone=%i\nMachineMetadata=zone=0",
        ],
    ),
];

/// A unit and its sidekick, with what the other is bound to; chosen last, too.
pub const SIDEKICKS: &[(&str, &[&str])] =
    &[("main.service", &[""]), ("call.service", &["MachineOf=main.service"])];
const BOUND: &[(&str, &str)] = &[("call.service", "main.service")];

/// A template with spare instances; chosen last, too. The third text's program dies.
pub const STAND_INS: &[(&str, &[&str])] = &[(
    SPARED,
    &[
        "UpdateOrder=start-first",
        "UpdateOrder=start-first\nMaxUnavailable=2",
        "UpdateOrder=start-first",
        "UpdateOrder=start-first\nMaxUnavailable=100%",
    ],
)];

/// Its name.
pub const SPARED: &str = "spared@.service";

/// The unit of an application that brings files; chosen last, too.
pub const APP_UNIT: &str = "app@.service";

/// How many versions the application has.
pub const APP_VERSIONS: usize = 6;

/// The words of systemd's for a start that came to nothing.
const WORDS: [&str; 4] = ["dependency", "failed", "timeout", "canceled"];

/// All of them.
pub fn units() -> impl Iterator<Item = &'static (&'static str, &'static [&'static str])> {
    UNITS
        .iter()
        .chain(CHOSEN_LAST)
        .chain(CROWDED)
        .chain(CONFIGURED)
        .chain(SIDEKICKS)
        .chain(STAND_INS)
        .chain(NEEDFUL)
        .chain(QUITTING)
}

/// Its `MaxUnavailable=`, in each of its texts.
pub const BUDGET: usize = 2;

/// The most replicas that users ask for.
pub const MOST_REPLICAS: u32 = 15;

/// The text of a unit's `number`th version.
pub fn text(unit: &str, number: usize) -> String {
    let section = units()
        .find(|(name, _)| *name == unit)
        .and_then(|(_, texts)| texts.get(number))
        .unwrap_or(&"");
    let after = ORDERED
        .iter()
        .find(|(name, _)| *name == unit)
        .map_or(String::new(), |(_, other)| format!("[Unit]\nAfter={other}\n"));
    let bound = BOUND.iter().find(|(name, _)| *name == unit);
    let after =
        bound.map_or(after, |(_, other)| format!("[Unit]\nBindsTo={other}\nAfter={other}\n"));
    // So that a copy which must be killed is waited for in reasonable time.
    let stop = if after.is_empty() && !FENCED.contains(&unit) {
        String::new()
    } else {
        format!("TimeoutStopSec={}\n", 4 + 5 * number)
    };
    let runs = format!("ExecStart=/usr/bin/sleep {number}000");
    let program = if unit == ROLLING {
        number.checked_sub(4).and_then(|dying| DYING.get(dying))
    } else if (unit, number) == (SPARED, 2) {
        Some(&DYING[1])
    } else {
        None
    };
    let answers = ANSWERS.get(number).filter(|_| unit == CHECKED);
    let stop = answers.map_or(stop, |(ready, _)| format!("Environment={READY}{ready}\n"));
    let runs = answers
        .map_or(runs, |(_, arguments)| format!("ExecStart=/usr/bin/serve {number}000 {arguments}"));
    let quits = QUITS.get(number).filter(|_| unit == QUITTER);
    let program = program.or(quits);
    let configured = CONFIGURED.iter().any(|(name, _)| *name == unit);
    let stop = match configured {
        true => "ExecReload=/bin/kill -HUP $MAINPID\nRestart=always\n".to_string(),
        false => stop,
    };
    let program = program.map_or(runs, |dying| (*dying).to_string());
    format!("{after}[Service]\n{program}\n{stop}\n[X-Fleet]\n{section}\n")
}

/// When the cluster is up and has what was submitted first.
pub const FAULTS_FROM_MS: u64 = 20_000;

impl Script {
    /// The script of a seed.
    pub fn of(seed: u64) -> Script {
        let mut random = fastrand::Rng::with_seed(seed);
        let machines = random.usize(3..=5);
        let calm = random.u8(0..4) == 0;
        let mut script = Script { machines, calm, actions: Vec::new() };
        script.set_up(&mut random);
        let end_ms = FAULTS_FROM_MS + random.u64(30_000..120_000);
        if calm {
            script.trouble_nobody(&mut random, end_ms)
        } else {
            script.trouble(&mut random, end_ms)
        }
        let mut random = fastrand::Rng::with_seed(seed ^ 0x0011);
        if !calm && random.bool() {
            script.roll(ROLLING, &mut random, end_ms);
            let mut random = fastrand::Rng::with_seed(seed ^ 0x0044);
            if random.bool() {
                script.roll_to_what_dies(&mut random, end_ms);
            }
            let mut random = fastrand::Rng::with_seed(seed ^ 0x0088);
            if random.bool() {
                script.steer(&mut random, end_ms);
            }
        }
        let mut random = fastrand::Rng::with_seed(seed ^ 0x0033);
        if !calm && random.bool() {
            script.pin(&mut random, end_ms);
        }
        let mut random = fastrand::Rng::with_seed(seed ^ 0x0022);
        if random.bool() {
            script.repeat(&mut random, end_ms);
        }
        let mut random = fastrand::Rng::with_seed(seed ^ 0x0044);
        if random.u8(0..3) == 0 {
            script.copy_disks(&mut random, end_ms);
        }
        let mut random = fastrand::Rng::with_seed(seed ^ 0x0055);
        if !calm && random.bool() {
            script.stop_unasked(&mut random, end_ms);
        }
        let mut random = fastrand::Rng::with_seed(seed ^ 0x0066);
        if !calm && random.u8(0..3) == 0 {
            script.crowd(&mut random, end_ms);
        }
        let mut random = fastrand::Rng::with_seed(seed ^ 0x0077);
        if !calm && random.u8(0..3) == 0 {
            script.configure(&mut random, end_ms);
        }
        let mut random = fastrand::Rng::with_seed(seed ^ 0x5005);
        if !calm && random.u8(0..3) == 0 {
            script.roll(CHECKED, &mut random, end_ms);
            script.fall_sick(&mut random, end_ms);
        }
        let mut random = fastrand::Rng::with_seed(seed ^ 0x0098);
        if !calm && random.u8(0..3) == 0 {
            script.stand_in(&mut random, end_ms);
        }
        let mut random = fastrand::Rng::with_seed(seed ^ 0x0088);
        if !calm && random.u8(0..3) == 0 {
            script.reboot_by_leave(&mut random, end_ms);
        }
        let mut random = fastrand::Rng::with_seed(seed ^ 0x0099);
        if !calm && random.u8(0..3) == 0 {
            script.need(&mut random, end_ms);
        }
        let mut random = fastrand::Rng::with_seed(seed ^ 0x00aa);
        if !calm && random.u8(0..3) == 0 {
            script.apply(&mut random, end_ms);
        }
        let mut random = fastrand::Rng::with_seed(seed ^ 0x00bb);
        if !calm && random.u8(0..3) == 0 {
            script.submit_now_and_then(&mut random, end_ms, QUITTING.iter(), 1);
        }
        script.actions.sort_by_key(|timed| timed.at_ms);
        script
    }

    /// When the last fault begins or ends.
    pub fn faults_until_ms(&self) -> u64 {
        self.actions
            .iter()
            .map(|timed| timed.at_ms + timed.action.lasts_ms())
            .max()
            .unwrap_or(0)
            .max(FAULTS_FROM_MS)
            + 1_000
    }

    fn push(&mut self, at_ms: u64, action: Action) {
        self.actions.push(Timed { at_ms, action });
    }

    /// Users submit what the cluster runs before anything goes wrong.
    fn set_up(&mut self, random: &mut fastrand::Rng) {
        let machines = self.machines;
        let fenced_too = random.u8(0..4) > 0;
        for (unit, texts) in UNITS {
            if !fenced_too
                && (FENCED.contains(unit) || ORDERED.iter().any(|(name, _)| name == unit))
            {
                continue;
            }
            let at_ms = random.u64(1_000..8_000);
            let template = unit.contains('@');
            let (user, over, text) =
                (random.usize(0..2), random.usize(0..machines), random.usize(0..texts.len()));
            let desired = (!template).then_some(DesiredState::Launched);
            self.push(
                at_ms,
                Action::User { user, over, wish: Wish::Submit { unit, text, desired } },
            );
            if template {
                let replicas = random.u32(1..=2 * machines as u32);
                self.push(
                    at_ms + 1,
                    Action::User { user, over, wish: Wish::Scale { unit, replicas } },
                );
            }
        }
        for machine in 0..machines {
            if random.bool() {
                let wish = Wish::Label { machine, value: 1 };
                self.push(random.u64(1_000..8_000), Action::User { user: 0, over: machine, wish });
            }
        }
    }

    /// Anything at any time.
    fn trouble(&mut self, random: &mut fastrand::Rng, end_ms: u64) {
        if random.bool() {
            self.push(random.u64(8_000..FAULTS_FROM_MS), Action::LaterFields);
        }
        for _ in 0..random.usize(1..=14) {
            let at_ms = random.u64(FAULTS_FROM_MS..end_ms);
            let fault = self.fault(random);
            self.push(at_ms, fault);
        }
        for _ in 0..random.usize(0..=12) {
            let at_ms = random.u64(FAULTS_FROM_MS..end_ms);
            let (user, over) = (random.usize(0..2), random.usize(0..self.machines));
            let wish = self.wish(random);
            self.push(at_ms, Action::User { user, over, wish });
        }
        if random.bool() {
            let at_ms = random.u64(FAULTS_FROM_MS..end_ms);
            self.depose(random, at_ms);
        }
        if random.bool() {
            let at_ms = random.u64(FAULTS_FROM_MS..end_ms);
            self.isolate(random, at_ms);
        }
        // Two users at one unit at one moment.
        if random.bool() {
            let (at_ms, unit) = (random.u64(FAULTS_FROM_MS..end_ms), "web@.service");
            let (text, replicas) = (random.usize(0..4), random.u32(0..=8));
            let [a, b] = [random.usize(0..self.machines), random.usize(0..self.machines)];
            self.push(
                at_ms,
                Action::User { user: 0, over: a, wish: Wish::Submit { unit, text, desired: None } },
            );
            self.push(
                at_ms,
                Action::User { user: 1, over: b, wish: Wish::Scale { unit, replicas } },
            );
        }
    }

    /// The leader is cut off or stopped, and what it was told to do is taken back meanwhile:
    /// nothing of the first may come late.
    fn depose(&mut self, random: &mut fastrand::Rng, at_ms: u64) {
        let ms = random.u64(4_000..12_000);
        // It still hears what it should do, so that it sends a commit which arrives late.
        let cut = Action::CutLeader { requests: true, answers: random.u8(0..4) == 0, ms };
        self.push(at_ms, if random.u8(0..4) == 0 { Action::PauseLeader { ms } } else { cut });
        let (unit, before) = ("api@.service", random.u32(1..=6));
        let submit = Wish::Submit { unit, text: 0, desired: None };
        let scale = |replicas| Wish::Scale { unit, replicas };
        let back_ms = at_ms + random.u64(700..2_500);
        let wishes = [
            (at_ms - 2_000, submit),
            (at_ms - 1_000, scale(before)),
            (at_ms + random.u64(50..600), scale(before + 1)),
            (back_ms, scale(before)),
        ];
        for (at_ms, wish) in wishes {
            let (user, over) = (random.usize(0..2), random.usize(0..self.machines));
            self.push(at_ms, Action::User { user, over, wish });
        }
    }

    /// A machine is cut off for longer than any wait, and its processes sleep for a part of that:
    /// what it runs moves meanwhile.
    fn isolate(&mut self, random: &mut fastrand::Rng, at_ms: u64) {
        let (machine, ms) = (random.usize(0..self.machines), random.u64(15_000..75_000));
        let requests = random.u8(0..3) > 0;
        self.push(
            at_ms,
            Action::Cut { machine, requests, answers: !requests || random.bool(), ms },
        );
        if random.bool() {
            let from_ms = at_ms + random.u64(0..ms);
            self.push(from_ms, Action::Pause { machine, ms: random.u64(1_000..60_000) });
        }
        if random.u8(0..3) == 0 {
            let from_ms = at_ms + random.u64(0..12_000);
            self.push(from_ms, Action::KeeperPause { machine, ms: random.u64(500..12_000) });
        }
        if random.u8(0..6) == 0 {
            let from_ms = at_ms + random.u64(0..12_000);
            self.push(from_ms, Action::GuardPause { machine, ms: random.u64(500..12_000) });
        }
    }

    /// A unit that is changed a few instances at a time: by new texts, restarts, rollbacks and
    /// drains, some of them at once.
    fn roll(&mut self, unit: &'static str, random: &mut fastrand::Rng, end_ms: u64) {
        let user = |random: &mut fastrand::Rng, machines: usize, wish| {
            let (user, over) = (random.usize(0..2), random.usize(0..machines));
            Action::User { user, over, wish }
        };
        let machines = self.machines;
        let submit = |text| Wish::Submit { unit, text, desired: None };
        let first = random.u64(1_000..8_000);
        self.push(first, Action::User { user: 0, over: 0, wish: submit(0) });
        let scale = Wish::Scale { unit, replicas: random.u32(3..=8) };
        self.push(first + 1, Action::User { user: 0, over: 0, wish: scale });
        // They have run for long by then, so that the judge knows that they run.
        let from_ms = FAULTS_FROM_MS + 45_000;
        for _ in 0..random.usize(1..=8) {
            let at_ms = random.u64(from_ms..end_ms.max(from_ms) + 30_000);
            let machine = random.usize(0..machines);
            let availability =
                [Availability::Active, Availability::Cordoned, Availability::Draining]
                    [random.usize(0..3)];
            let wish = match random.u8(0..8) {
                0..=2 => submit(random.usize(0..4)),
                3 => Wish::Restart { unit },
                4 => Wish::Rollback { unit },
                5 => Wish::Scale { unit, replicas: random.u32(3..=8) },
                _ => Wish::Availability { machine, availability },
            };
            let action = user(random, machines, wish);
            self.push(at_ms, action);
            if random.bool() {
                let fault = self.fault(random);
                self.push(at_ms + random.u64(0..2_000), fault);
            }
        }
    }

    /// What has a check answers badly on a machine for a while, or with a text that does so for
    /// ever.
    fn fall_sick(&mut self, random: &mut fastrand::Rng, end_ms: u64) {
        let from_ms = FAULTS_FROM_MS + 45_000;
        for _ in 0..random.usize(1..=3) {
            let at_ms = random.u64(from_ms..end_ms.max(from_ms) + 30_000);
            let machine = random.usize(0..self.machines);
            let action = match random.bool() {
                true => {
                    let (ms, hangs) = (random.u64(500..20_000), random.bool());
                    Action::FallsSick { machine, hangs, ms }
                }
                false => {
                    let text = random.usize(ANSWERS.len() - 2..ANSWERS.len());
                    let wish = Wish::Submit { unit: CHECKED, text, desired: None };
                    Action::User { user: random.usize(0..2), over: machine, wish }
                }
            };
            self.push(at_ms, action);
        }
    }

    /// A unit with spare instances gets new texts, restarts, counts and drains, some with a fault.
    fn stand_in(&mut self, random: &mut fastrand::Rng, end_ms: u64) {
        let (unit, machines) = (SPARED, self.machines);
        let submit = |text| Wish::Submit { unit, text, desired: None };
        let scale = |random: &mut fastrand::Rng| Wish::Scale { unit, replicas: random.u32(1..=5) };
        let first = random.u64(1_000..8_000);
        self.push(first, Action::User { user: 0, over: 0, wish: submit(0) });
        let count = scale(random);
        self.push(first + 1, Action::User { user: 0, over: 0, wish: count });
        // They have run for long by then, so that the judge knows that they run.
        let from_ms = FAULTS_FROM_MS + 45_000;
        for _ in 0..random.usize(1..=6) {
            let at_ms = random.u64(from_ms..end_ms.max(from_ms) + 30_000);
            let machine = random.usize(0..machines);
            let availability = [Availability::Active, Availability::Draining][random.usize(0..2)];
            let wish = match random.u8(0..8) {
                0..=2 => submit(random.usize(0..4)),
                3 => Wish::Restart { unit },
                4 => Wish::Rollback { unit },
                5 => scale(random),
                _ => Wish::Availability { machine, availability },
            };
            let (user, over) = (random.usize(0..2), random.usize(0..machines));
            self.push(at_ms, Action::User { user, over, wish });
            if random.u8(0..3) == 0 {
                let fault = self.fault(random);
                self.push(at_ms + random.u64(0..15_000), fault);
            }
        }
    }

    /// New texts whose program dies, and sometimes the text before.
    fn roll_to_what_dies(&mut self, random: &mut fastrand::Rng, end_ms: u64) {
        let (unit, from_ms) = (ROLLING, FAULTS_FROM_MS + 45_000);
        for _ in 0..random.usize(1..=2) {
            let at_ms = random.u64(from_ms..end_ms.max(from_ms) + 30_000);
            let submit =
                Wish::Submit { unit, text: 4 + random.usize(0..DYING.len()), desired: None };
            let over = random.usize(0..self.machines);
            self.push(at_ms, Action::User { user: random.usize(0..2), over, wish: submit });
            if random.bool() {
                let back_ms = at_ms + random.u64(500..40_000);
                self.push(
                    back_ms,
                    Action::User { user: random.usize(0..2), over, wish: Wish::Rollback { unit } },
                );
            }
        }
    }

    /// New texts, some with a canary, and users who pause, resume and undo their rollouts.
    fn steer(&mut self, random: &mut fastrand::Rng, end_ms: u64) {
        let (unit, from_ms) = (ROLLING, FAULTS_FROM_MS + 45_000);
        let mut at_ms = random.u64(from_ms..end_ms.max(from_ms) + 30_000);
        for _ in 0..random.usize(1..=3) {
            let text = if random.bool() { WITH_CANARY } else { random.usize(0..4) };
            let mut wishes = vec![match random.u8(0..5) {
                0 => Wish::Restart { unit },
                _ => Wish::Submit { unit, text, desired: None },
            }];
            for _ in 0..random.usize(1..=3) {
                let action = ["pause", "resume", "undo"][random.usize(0..3)];
                wishes.push(Wish::Steer { unit, action });
            }
            for wish in wishes {
                let (user, over) = (random.usize(0..2), random.usize(0..self.machines));
                self.push(at_ms, Action::User { user, over, wish });
                if random.u8(0..4) == 0 {
                    let fault = self.fault(random);
                    self.push(at_ms + random.u64(0..2_000), fault);
                }
                at_ms += random.u64(500..12_000);
            }
        }
    }

    /// Units for one machine, and for one zone each: what fits nowhere, in some of their texts.
    fn pin(&mut self, random: &mut fastrand::Rng, end_ms: u64) {
        let pinned = CHOSEN_LAST.iter().filter(|(unit, _)| *unit != ROLLING);
        self.submit_now_and_then(random, end_ms, pinned, 4);
    }

    /// More instances than machines may run, in most of their texts.
    fn crowd(&mut self, random: &mut fastrand::Rng, end_ms: u64) {
        let most = 2 * self.machines as u32 + 1;
        self.submit_now_and_then(random, end_ms, CROWDED.iter(), most);
    }

    /// Units with a configuration, which may come after them, and its changes, some with a fault.
    fn configure(&mut self, random: &mut fastrand::Rng, end_ms: u64) {
        self.submit_now_and_then(random, end_ms, CONFIGURED.iter(), 6);
        let mut at_ms = random.u64(500..15_000);
        for _ in 0..random.usize(2..=8) {
            let (user, over) = (random.usize(0..2), random.usize(0..self.machines));
            let wish = match random.u8(0..5) {
                0 => Wish::RollConfigBack,
                _ => Wish::Set { value: random.u8(0..5) },
            };
            self.push(at_ms, Action::User { user, over, wish });
            if random.bool() {
                let fault = match random.u8(0..4) {
                    0 => Action::UnitFails {
                        unit: CONFIGURED[random.usize(0..CONFIGURED.len())].0,
                        machine: random.usize(0..self.machines),
                        ms: random.u64(200..20_000),
                    },
                    _ => self.fault(random),
                };
                self.push(at_ms + random.u64(0..2_000), fault);
            }
            at_ms = random.u64(FAULTS_FROM_MS..end_ms);
        }
        // Those that came before it wait until there is one.
        let wish = Wish::Set { value: 7 };
        self.push(end_ms, Action::User { user: 0, over: 0, wish });
    }

    /// An application is applied again and again, with faults of its machines close behind.
    fn apply(&mut self, random: &mut fastrand::Rng, end_ms: u64) {
        let mut at_ms = random.u64(500..15_000);
        for _ in 0..random.usize(3..=9) {
            let (user, over) = (random.usize(0..2), random.usize(0..self.machines));
            let wish = match random.u8(0..8) {
                0 => Wish::DestroyApp,
                _ => Wish::Apply { version: random.usize(0..APP_VERSIONS) },
            };
            self.push(at_ms, Action::User { user, over, wish });
            if random.bool() {
                let machine = random.usize(0..self.machines);
                let fault = match random.u8(0..4) {
                    0 => Action::UnitFails { unit: APP_UNIT, machine, ms: random.u64(200..20_000) },
                    1 => Action::CrashAtCall { machine, calls: random.u32(1..40) },
                    _ => self.fault(random),
                };
                self.push(at_ms + random.u64(0..3_000), fault);
            }
            at_ms = random.u64(FAULTS_FROM_MS..end_ms);
        }
        let wish = Wish::Apply { version: random.usize(0..APP_VERSIONS) };
        self.push(end_ms, Action::User { user: 0, over: 0, wish });
    }

    /// Submits each unit once before the faults and a few times during them, templates with a count
    /// of at most `most`.
    fn submit_now_and_then(
        &mut self,
        random: &mut fastrand::Rng,
        end_ms: u64,
        units: impl Iterator<Item = &'static (&'static str, &'static [&'static str])>,
        most: u32,
    ) {
        for (unit, texts) in units {
            let template = unit.contains('@');
            let mut at_ms = random.u64(1_000..8_000);
            for _ in 0..random.usize(1..=4) {
                let (user, over, text) = (
                    random.usize(0..2),
                    random.usize(0..self.machines),
                    random.usize(0..texts.len()),
                );
                let desired = (!template).then_some(DesiredState::Launched);
                self.push(
                    at_ms,
                    Action::User { user, over, wish: Wish::Submit { unit, text, desired } },
                );
                if template {
                    let wish = Wish::Scale { unit, replicas: random.u32(1..=most) };
                    self.push(at_ms + 1, Action::User { user, over, wish });
                }
                at_ms = random.u64(FAULTS_FROM_MS..end_ms);
            }
        }
    }

    /// Updaters of several machines want them rebooted, some at the same moment.
    fn reboot_by_leave(&mut self, random: &mut fastrand::Rng, end_ms: u64) {
        // Which of two hosts with one id has the place, and so drains, is another question.
        let copied = |number: &usize| {
            self.actions.iter().any(|timed| {
                matches!(&timed.action, Action::CopiedDisk { machine, .. } if machine == number)
            })
        };
        let mut machines: Vec<usize> =
            (0..self.machines).filter(|number| !copied(number)).collect();
        random.shuffle(&mut machines);
        let mut at_ms = random.u64(FAULTS_FROM_MS..end_ms);
        for machine in machines.into_iter().take(random.usize(2..=3)) {
            let down_ms = random.u64(5_000..20_000);
            self.push(at_ms, Action::LockedReboot { machine, down_ms });
            if random.u8(0..4) == 0 {
                at_ms = random.u64(FAULTS_FROM_MS..end_ms);
            }
        }
    }

    /// One unit starts after another, which fails and comes again.
    fn need(&mut self, random: &mut fastrand::Rng, end_ms: u64) {
        let launch = |text| {
            let desired = Some(DesiredState::Launched);
            let wish = Wish::Submit { unit: NEEDED, text, desired };
            Action::User { user: 0, over: 0, wish }
        };
        self.push(random.u64(1_000..15_000), launch(0));
        self.submit_now_and_then(random, end_ms, NEEDFUL[1..].iter(), 6);
        for _ in 0..random.usize(0..=3) {
            let at_ms = random.u64(FAULTS_FROM_MS..end_ms);
            let action = match random.u8(0..3) {
                0 => launch(random.usize(0..2)),
                1 => {
                    let wish = Wish::Desire { unit: NEEDED, desired: DesiredState::Inactive };
                    Action::User { user: 0, over: 0, wish }
                }
                _ => Action::UnitFails {
                    unit: NEEDED,
                    machine: random.usize(0..self.machines),
                    ms: random.u64(200..20_000),
                },
            };
            self.push(at_ms, action);
        }
        // What needs it waits until it is there.
        self.push(end_ms, launch(0));
    }

    /// systemd stops units that nobody asked fleet to stop, and starts of units come to nothing.
    fn stop_unasked(&mut self, random: &mut fastrand::Rng, end_ms: u64) {
        for (nth, (unit, _)) in SIDEKICKS.iter().enumerate() {
            let wish = Wish::Submit { unit, text: 0, desired: Some(DesiredState::Launched) };
            self.push(
                random.u64(1_000..8_000) + nth as u64,
                Action::User { user: 0, over: 0, wish },
            );
        }
        for _ in 0..random.usize(1..=5) {
            let at_ms = random.u64(FAULTS_FROM_MS..end_ms);
            let machine = random.usize(0..self.machines);
            let ms = random.u64(200..20_000);
            let single =
                ["main.service", "call.service", "db.service", "side.service", "web@.service"]
                    [random.usize(0..5)];
            let action = match random.u8(0..6) {
                0 | 1 => Action::SoftReboot { machine, down_ms: ms },
                2 => Action::Isolate { machine },
                3 | 4 => Action::Stopped { unit: single, machine },
                _ => Action::StartsEnd {
                    unit: single,
                    machine,
                    word: WORDS[random.usize(0..WORDS.len())],
                    ms,
                },
            };
            self.push(at_ms, action);
        }
    }

    /// Requests are delivered twice, from the first ones on. No other fault is needed, and nothing
    /// may come of it.
    fn repeat(&mut self, random: &mut fastrand::Rng, end_ms: u64) {
        for _ in 0..random.usize(1..=4) {
            let machine = random.usize(0..self.machines);
            let (per_mille, ms) = (random.u64(50..=1_000), random.u64(2_000..60_000));
            self.push(random.u64(0..end_ms), Action::Repeat { machine, per_mille, ms });
        }
    }

    /// Disks are copied, of machines that live and of such as are in trouble. Where nobody reaches
    /// the store for long, nobody can tell who was there first: in a quiet script that is left out.
    fn copy_disks(&mut self, random: &mut fastrand::Rng, end_ms: u64) {
        let long =
            |timed: &Timed| matches!(timed.action, Action::CutAll { .. } | Action::NoQuorum { .. });
        if self.calm && self.actions.iter().any(long) {
            return;
        }
        for _ in 0..random.usize(1..=2) {
            let machine = random.usize(0..self.machines);
            let ms = random.u64(2_000..60_000);
            self.push(
                random.u64(FAULTS_FROM_MS + 1_000..end_ms),
                Action::CopiedDisk { machine, ms },
            );
        }
    }

    fn fault(&self, random: &mut fastrand::Rng) -> Action {
        let machine = random.usize(0..self.machines);
        let longest = random.u64(1_000..45_000); // so that short ones are common
        let ms = random.u64(200..=longest);
        match random.u8(0..28) {
            0 | 1 => Action::Cut { machine, requests: true, answers: true, ms },
            2 => Action::Cut { machine, requests: true, answers: false, ms },
            3 => Action::Cut { machine, requests: false, answers: true, ms },
            4 => Action::CutAll { ms },
            5 => Action::LoseAnswers { machine, per_mille: random.u64(50..700), ms },
            6 => Action::Delay { machine, ms },
            7 | 8 => Action::Pause { machine, ms },
            9 => Action::Crash { machine, down_ms: ms },
            10 | 11 => Action::CrashAtCall { machine, calls: random.u32(1..60) },
            12 => Action::Leave { machine, away_ms: ms },
            13 | 14 => Action::PowerLoss { machine, down_ms: ms },
            15 => Action::SlowDisk { machine, ms },
            16 => Action::NoBus { machine, ms },
            17 => Action::NoQuorum { ms },
            18 => Action::UnitFails { unit: UNITS[random.usize(0..UNITS.len())].0, machine, ms },
            19 => Action::Reboot { machine, down_ms: ms },
            20 | 21 => Action::KeeperPause { machine, ms },
            22 => Action::KeeperCrash { machine },
            23 => Action::KeeperCrashAtCall { machine, calls: random.u32(1..20) },
            24 => Action::KeeperStop { machine, again: random.bool() },
            25 => Action::GuardPause { machine, ms },
            26 => Action::GuardCrash { machine },
            _ => self.small_fault(random),
        }
    }

    /// Faults that no lease notices.
    fn small_fault(&self, random: &mut fastrand::Rng) -> Action {
        let machine = random.usize(0..self.machines);
        let ms = random.u64(200..3_000);
        match random.u8(0..13) {
            0 => Action::NewStoreLeader,
            1 => Action::Compact,
            2 => Action::LaterFields,
            3 => Action::ClockStep { machine, by_ms: random.i64(-3_600_000..3_600_000) },
            4 => Action::Upgrade { machine },
            5 => Action::Cut { machine, requests: random.bool(), answers: random.bool(), ms },
            6 => Action::Pause { machine, ms },
            7 => Action::Crash { machine, down_ms: ms },
            8 => Action::CrashAtCall { machine, calls: random.u32(1..20) },
            9 => Action::SlowDisk { machine, ms },
            10 => Action::KeeperStop { machine, again: true },
            11 => Action::KeeperCrash { machine },
            _ => Action::Cut { machine, requests: true, answers: true, ms },
        }
    }

    /// One fault after the other, each with time to pass: nothing that runs may notice.
    fn trouble_nobody(&mut self, random: &mut fastrand::Rng, end_ms: u64) {
        let mut at_ms = FAULTS_FROM_MS + 2_000;
        while at_ms < end_ms {
            let action = match random.u8(0..8) {
                0 => Action::NoQuorum { ms: random.u64(1_000..60_000) },
                1 => Action::CutAll { ms: random.u64(1_000..60_000) },
                _ => self.small_fault(random),
            };
            let lasts_ms = action.lasts_ms();
            self.push(at_ms, action);
            at_ms += lasts_ms + random.u64(15_000..25_000);
        }
    }

    fn wish(&self, random: &mut fastrand::Rng) -> Wish {
        let (unit, texts) = UNITS[random.usize(0..UNITS.len())];
        let template = unit.contains('@');
        let desired = [DesiredState::Inactive, DesiredState::Loaded, DesiredState::Launched]
            [random.usize(0..3)];
        let text = random.usize(0..texts.len());
        match random.u8(0..10) {
            0..=2 if template => Wish::Scale {
                unit,
                replicas: random.u32(0..=MOST_REPLICAS.min(3 * self.machines as u32)),
            },
            0 | 1 => Wish::Desire { unit, desired },
            2 | 3 => {
                Wish::Submit { unit, text, desired: (!template).then_some(DesiredState::Launched) }
            }
            4 | 5 => Wish::Submit { unit, text, desired: None },
            6 => Wish::Restart { unit },
            7 => Wish::Destroy { unit },
            _ => Wish::Label { machine: random.usize(0..self.machines), value: random.u8(0..2) },
        }
    }
}

impl Action {
    /// How long it goes on, in milliseconds.
    pub fn lasts_ms(&self) -> u64 {
        match self {
            Action::Cut { ms, .. }
            | Action::CutAll { ms }
            | Action::CutLeader { ms, .. }
            | Action::PauseLeader { ms }
            | Action::LoseAnswers { ms, .. }
            | Action::Repeat { ms, .. }
            | Action::Delay { ms, .. }
            | Action::Pause { ms, .. }
            | Action::SlowDisk { ms, .. }
            | Action::NoBus { ms, .. }
            | Action::NoQuorum { ms }
            | Action::StartsEnd { ms, .. }
            | Action::FallsSick { ms, .. }
            | Action::UnitFails { ms, .. } => *ms,
            Action::KeeperPause { ms, .. }
            | Action::GuardPause { ms, .. }
            | Action::CopiedDisk { ms, .. } => *ms,
            Action::Crash { down_ms, .. }
            | Action::PowerLoss { down_ms, .. }
            | Action::Reboot { down_ms, .. }
            | Action::SoftReboot { down_ms, .. } => *down_ms,
            Action::LockedReboot { down_ms, .. } => ASKS_MS + *down_ms,
            Action::Leave { away_ms, .. } => *away_ms,
            Action::User { .. }
            | Action::CrashAtCall { .. }
            | Action::Upgrade { .. }
            | Action::KeeperCrash { .. }
            | Action::KeeperCrashAtCall { .. }
            | Action::GuardCrash { .. }
            | Action::KeeperStop { .. }
            | Action::ClockStep { .. }
            | Action::NewStoreLeader
            | Action::Compact
            | Action::Isolate { .. }
            | Action::Stopped { .. }
            | Action::LaterFields => 0,
        }
    }
}

impl fmt::Display for Timed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "at {:>7.3} s {:?}", self.at_ms as f64 / 1e3, self.action)
    }
}
