//! What ends everything at once: reboots, soft-reboots, isolated targets.

use super::process::Child;
use super::unit::Manager;
use super::*;

impl Manager {
    /// `systemctl soft-reboot`: all that runs is stopped, and systemd begins anew. `/run` stays,
    /// with the files and links in it.
    pub(super) fn soft_reboot(&mut self) {
        let up: Vec<UnitName> =
            self.units.keys().filter(|name| self.is_up(name)).cloned().collect();
        for name in up {
            self.clean_up(&name);
            self.observer.iter().for_each(|observer| observer(&name, "inactive", &[]));
            self.rests.insert(name, Rest::Stopped);
        }
        self.children.clear();
        self.waiting.clear();
        self.units.clear();
        self.timers.clear();
        self.user_space += 1;
        self.has_run.clear();
    }

    /// `systemctl isolate`: all that runs is stopped but for `kept`.
    pub(super) fn isolate(&mut self, kept: &[UnitName]) {
        let up: Vec<UnitName> = self
            .units
            .keys()
            .filter(|name| self.is_up(name) && !kept.contains(name))
            .cloned()
            .collect();
        for name in up {
            let _ = self.install(&name, Job::Stop); // it is loaded: nothing refuses
        }
        self.settle();
    }

    pub(super) fn reboot(&mut self) {
        self.user_space += 1;
        self.has_run.clear();
        self.rests.clear();
        for name in self.units.keys() {
            self.observer.iter().for_each(|observer| observer(name, "inactive", &[]));
        }
        self.children.values().for_each(Child::kill);
        self.children.clear();
        self.waiting.clear();
        self.units.clear();
        self.links.clear();
        self.files.clear();
        self.drop_ins.clear();
        self.timers.clear();
    }
}
