//! Live lines on a terminal: one for each instance that is not as wanted yet, redrawn in place on
//! stderr.

use std::io::{IsTerminal, Write};

use fleet_core::health::Health;
use fleet_core::model::InstanceStatus;
use fleet_core::printable;
use fleet_core::wire::{InstanceProgress, Progress};

use crate::clock::{now_ms, until};
use crate::output::machine_legend;

/// Rows and columns assumed of a terminal that does not tell.
const USUAL_SIZE: (usize, usize) = (24, 80);

/// The lines on the screen now.
#[derive(Debug)]
pub(crate) struct Live {
    enabled: bool,
    drawn: usize,
}

impl Live {
    /// Draws only if stderr is a terminal that can move its cursor.
    pub(crate) fn new() -> Live {
        let dumb = std::env::var_os("TERM").is_none_or(|term| term.is_empty() || term == "dumb");
        Live { enabled: std::io::stderr().is_terminal() && !dumb, drawn: 0 }
    }

    /// Whether it draws at all.
    pub(crate) fn draws(&self) -> bool {
        self.enabled
    }

    /// Replaces the lines.
    pub(crate) fn draw(&mut self, lines: &[String]) {
        if !self.enabled {
            return;
        }
        let (rows, columns) = size();
        // One row for the cursor, one for "and N more": a block taller than the screen could not be
        // taken back.
        let room = rows.saturating_sub(2).max(1);
        let mut text = self.erase();
        for line in lines.iter().take(room) {
            // A line of what comes from elsewhere must stay one, and must not move the cursor.
            let line = printable::shown(line.as_bytes()).replace('\n', " ");
            text.extend(line.chars().take(columns.saturating_sub(1)));
            text.push('\n');
        }
        if lines.len() > room {
            text.push_str(&format!("and {} more\n", lines.len() - room));
        }
        self.drawn = lines.len().min(room + 1);
        write(&text);
    }

    /// Takes the lines back, so that something else can be printed.
    pub(crate) fn clear(&mut self) {
        if self.enabled && self.drawn > 0 {
            write(&self.erase());
            self.drawn = 0;
        }
    }

    fn erase(&self) -> String {
        if self.drawn == 0 { String::new() } else { format!("\x1b[{}A\r\x1b[J", self.drawn) }
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        self.clear();
    }
}

/// One line for each instance that is not as wanted: `web@3.service  4dbc7f3b.../10.0.0.3
/// activating (start)`.
pub(crate) fn lines(progress: &Progress) -> Vec<String> {
    let mut rows: Vec<[String; 3]> = Vec::new();
    for unit in progress.units.iter().filter(|unit| !unit.done) {
        let waiting = || unit.instances.iter().filter(|instance| !instance.done);
        rows.extend(waiting().map(|instance| {
            let machine = instance.machine.as_ref().map_or_else(
                || "-".to_string(),
                |id| machine_legend(id.as_str(), &instance.address, false),
            );
            [instance.name.clone(), machine, describe(instance, progress.leader.is_some())]
        }));
        if waiting().next().is_none() {
            let what = if progress.leader.is_none() {
                "waiting for a leader"
            } else {
                "waiting for the leader's decision"
            };
            rows.push([unit.name.clone(), "-".to_string(), what.to_string()]);
        }
    }
    let width =
        |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let (first, second) = (width(0), width(1));
    rows.iter()
        .map(|[name, machine, what]| format!("{name:first$}  {machine:second$}  {what}"))
        .collect()
}

/// What an instance is doing, in systemd's words where systemd knows it.
pub(crate) fn describe(instance: &InstanceProgress, led: bool) -> String {
    if instance.machine.is_none() && instance.wanted {
        return match instance.misfits.first() {
            Some(misfit) => format!("no machine fits: {}", misfit.reason),
            None if !instance.waits.is_empty() => instance.waits.clone(),
            None if led => "waiting for a machine".to_string(),
            None => "waiting for a leader".to_string(),
        };
    }
    match &instance.status {
        Some(status) => {
            let restarts = if status.restarts > 0 {
                format!(", restarted {} times", status.restarts)
            } else {
                String::new()
            };
            let leaving = match instance.wanted {
                true if instance.spare => ", spare",
                true => "",
                false => ", to be stopped",
            };
            let next = status.next_try_ms.and_then(until).filter(|_| instance.wanted);
            let why = status.message.as_ref().filter(|_| next.is_some());
            let why = why.map_or_else(String::new, |message| format!(": {message}"));
            let next = next.map_or_else(String::new, |wait| format!(", next try in {wait}"));
            let waits = if instance.waits.is_empty() { "" } else { ": " };
            let unwell = status.health.as_ref().filter(|health| **health != Health::Healthy);
            let words = |health: &Health| format!(", {}", health.words(now_ms()));
            let health = unwell.map_or_else(String::new, words);
            let pulls = status.pulls.as_ref().map_or_else(String::new, |what| format!(" {what}"));
            format!(
                "{} ({}{health}{pulls}{restarts}{next}{leaving}){why}{waits}{}",
                status.active, status.sub, instance.waits
            )
        }
        None if !instance.waits.is_empty() => instance.waits.clone(),
        None if instance.wanted => "placed; the machine has not reported it yet".to_string(),
        None => "waiting for the machine to stop it".to_string(),
    }
}

/// `: exit-code, status 203`; without what systemd said where it did not fail, and empty where
/// nobody gave a reason.
pub(crate) fn reasons(status: &InstanceStatus, failed: bool) -> String {
    let mut reasons: Vec<String> = Vec::new();
    if failed && !status.result.is_empty() {
        reasons.push(status.result.clone());
    }
    reasons.extend(status.code.filter(|_| failed).map(|code| format!("status {code}")));
    reasons.extend(status.message.clone());
    reasons.extend(status.reason.clone().filter(|_| failed));
    if reasons.is_empty() { String::new() } else { format!(": {}", reasons.join(", ")) }
}

fn size() -> (usize, usize) {
    match rustix::termios::tcgetwinsize(std::io::stderr()) {
        Ok(size) if size.ws_row > 0 && size.ws_col > 0 => (size.ws_row.into(), size.ws_col.into()),
        _ => USUAL_SIZE,
    }
}

fn write(text: &str) {
    // Nobody is left to see it if stderr is closed.
    let _ = std::io::stderr().lock().write_all(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use fleet_core::name::MachineId;
    use fleet_core::plan::Misfit;
    use fleet_core::wire::{MisfitCount, UnitProgress};

    use super::*;

    fn instance(name: &str, machine: Option<&str>) -> InstanceProgress {
        InstanceProgress {
            name: name.to_string(),
            wanted: true,
            machine: machine.map(MachineId::new),
            address: "10.0.0.3".to_string(),
            ..InstanceProgress::default()
        }
    }

    fn shown(instances: Vec<InstanceProgress>, leader: bool) -> String {
        let unit =
            UnitProgress { name: "web@.service".to_string(), instances, ..UnitProgress::default() };
        lines(&Progress {
            revision: 1,
            leader: leader.then(|| MachineId::new("m1")),
            units: vec![unit],
        })
        .join("\n")
    }

    #[test]
    fn each_instance_that_is_not_as_wanted_has_a_line_in_systemds_words() {
        let mut starting = instance("web@3.service", Some("4dbc7f3b00000000"));
        starting.status = Some(InstanceStatus {
            active: "activating".into(),
            sub: "start".into(),
            ..InstanceStatus::default()
        });
        let mut leaving = instance("web@10.service", Some("4dbc7f3b00000000"));
        leaving.wanted = false;
        let mut done = instance("web@1.service", Some("4dbc7f3b00000000"));
        done.done = true;
        assert_eq!(
            shown(vec![done, starting, leaving], true),
            "web@3.service   4dbc7f3b.../10.0.0.3  activating (start)\nweb@10.service  \
                4dbc7f3b.../10.0.0.3  waiting for the machine to stop it"
        );
    }

    #[test]
    fn what_is_placed_nowhere_says_what_it_waits_for() {
        assert_eq!(
            shown(vec![instance("web@1.service", None)], true),
            "web@1.service  -  waiting for a machine"
        );
        assert_eq!(
            shown(vec![instance("web@1.service", None)], false),
            "web@1.service  -  waiting for a leader"
        );
        assert_eq!(shown(vec![], true), "web@.service  -  waiting for the leader's decision");
        let mut waits = instance("web@1.service", None);
        waits.waits = "waiting for machine b".to_string();
        assert_eq!(shown(vec![waits], true), "web@1.service  -  waiting for machine b");
        let mut misfit = instance("web@1.service", None);
        misfit.misfits = vec![MisfitCount::new(&Misfit::Cordoned, 2)];
        assert_eq!(
            shown(vec![misfit], true),
            "web@1.service  -  no machine fits: is cordoned or drained"
        );
    }

    #[test]
    fn what_waits_to_be_started_again_says_for_how_long() {
        let mut failing = instance("web@1.service", Some("4dbc7f3b00000000"));
        let next_try_ms = Some(u64::MAX);
        failing.status = Some(InstanceStatus {
            active: "failed".into(),
            sub: "failed".into(),
            restarts: 3,
            next_try_ms,
            ..InstanceStatus::default()
        });
        let said = shown(vec![failing.clone()], true);
        assert!(
            said.contains("failed (failed, restarted 3 times, next try in ")
                && said.ends_with(" s)"),
            "{said}"
        );
        failing.status.as_mut().unwrap().next_try_ms = Some(1);
        assert!(shown(vec![failing], true).ends_with("failed (failed, restarted 3 times)"));
    }

    #[test]
    fn what_waits_for_its_image_says_which_and_how_far_that_is() {
        let mut pulling = instance("web@1.container", Some("4dbc7f3b00000000"));
        pulling.status = Some(InstanceStatus {
            active: "active".into(),
            sub: "pulling".into(),
            pulls: Some("h1:5000/web:2, 2 layers begun".into()),
            ..InstanceStatus::default()
        });
        let said = shown(vec![pulling], true);
        assert!(said.ends_with("active (pulling h1:5000/web:2, 2 layers begun)"), "{said}");
    }

    #[test]
    fn redrawing_goes_up_as_many_lines_as_were_drawn() {
        let mut three = Live { enabled: false, drawn: 3 };
        assert_eq!(three.erase(), "\x1b[3A\r\x1b[J");
        three.clear();
        assert_eq!(Live { enabled: true, drawn: 0 }.erase(), "");
        let mut off = Live { enabled: false, drawn: 0 };
        off.draw(&["x".to_string()]);
        assert_eq!(off.drawn, 0);
    }
}
