//! fleet's own settings for a unit on a host: the drop-in beside its file. Pure text.

use fleet_core::name::UnitName;
use fleet_core::unit::file::UnitFile;
use fleet_core::unit::on_failure::OnFailure;

/// How many instances share one slice. systemd's cost of a start grows with the siblings of its
/// cgroup: 4,000 in one slice start three times slower than over 64 slices (docs/performance.md).
const INSTANCES_A_SLICE: u32 = 64;

/// Over how many slices units that are no replicas are spread, for the same reason.
const SINGLE_SLICES: u32 = 64;

/// The longest part of a slice's name that comes from a unit's, in bytes: systemd takes names up to
/// 255.
const LONGEST_PREFIX: usize = 200;

/// The drop-in for `instance`, which runs as `file` (already translated, for Quadlet units).
pub(super) fn drop_in(instance: &UnitName, file: &UnitFile, on_failure: &OnFailure) -> String {
    let mut text =
        String::from("# Written by fleet; changes here are lost. Submit the unit again instead.\n");
    let section = match instance.systemd_name().suffix() {
        "service" => "Service",
        "socket" => "Socket",
        "mount" => "Mount",
        "swap" => "Swap",
        _ => return text, // timers, paths and targets have no processes, so no slice
    };
    let mut lines = String::new();
    if file.last(section, "Slice").is_none() {
        lines.push_str(&format!("Slice={}\n", slice(instance)));
    }
    if section == "Service" {
        lines.push_str(&restarts(file, on_failure));
    }
    if !lines.is_empty() {
        text.push_str(&format!("[{section}]\n{lines}"));
    }
    text
}

/// Keeps systemd from restarting the unit where its file says something else of the failure. What
/// is restarted all the same, fleet restarts.
fn restarts(file: &UnitFile, on_failure: &OnFailure) -> String {
    // What restarts after no failure goes on as it is.
    let instead = match file.last("Service", "Restart").map(str::trim) {
        Some("always") => "on-success",
        Some("on-failure" | "on-abnormal" | "on-abort" | "on-watchdog") => "no",
        _ => return String::new(),
    };
    let mut lines = String::new();
    if on_failure.takes_over() {
        lines.push_str(&format!("Restart={instead}\n"));
    }
    let statuses: Vec<String> = on_failure.statuses().iter().map(u8::to_string).collect();
    if !statuses.is_empty() {
        lines.push_str(&format!("RestartPreventExitStatus={}\n", statuses.join(" ")));
    }
    lines
}

/// One slice a template under `fleet.slice`; large templates get one for each 64 instances.
fn slice(instance: &UnitName) -> String {
    let prefix = escape(instance.prefix());
    let units = || format!("fleet-units-{}.slice", spread(instance.as_str()));
    if prefix.len() > LONGEST_PREFIX {
        return units(); // systemd would pass over the name
    }
    match (instance.instance(), instance.replica_number()) {
        (Some(_), Some(number)) if number < INSTANCES_A_SLICE => format!("fleet-{prefix}.slice"),
        (Some(_), Some(number)) => format!("fleet-{prefix}-{}.slice", number / INSTANCES_A_SLICE),
        (Some(_), None) => format!("fleet-{prefix}-{}.slice", spread(instance.as_str())),
        (None, _) => units(),
    }
}

/// A dash would nest slices, so it is escaped as systemd does.
fn escape(prefix: &str) -> String {
    prefix.replace('-', "\\x2d")
}

/// FNV-1a: the same name goes to the same slice on every host and in every version.
fn spread(name: &str) -> u32 {
    let hash = name
        .bytes()
        .fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    hash % SINGLE_SLICES
}

#[cfg(test)]
mod tests {
    use fleet_core::unit::xfleet::Constraints;

    use super::*;

    fn slice_of(name: &str) -> String {
        slice(&UnitName::trusted(name))
    }

    #[test]
    fn a_template_has_a_slice_and_a_large_one_several() {
        assert_eq!(slice_of("web@3.service"), "fleet-web.slice");
        assert_eq!(slice_of("web@64.service"), "fleet-web-1.slice");
        assert_eq!(slice_of("my-app@3.service"), "fleet-my\\x2dapp.slice");
        assert!(slice_of("db.service").starts_with("fleet-units-"));
        // Each dash takes four bytes: such a name would be longer than systemd takes.
        assert!(slice_of(&format!("{}@3.service", "a-".repeat(60))).starts_with("fleet-units-"));
    }

    #[test]
    fn a_slice_of_the_users_own_is_kept() {
        let file = UnitFile::parse_lenient("[Service]\nExecStart=/bin/true\nSlice=mine.slice\n");
        let text = |name: &str| drop_in(&UnitName::trusted(name), &file, &OnFailure::default());
        assert!(!text("a.service").contains("Slice=") && !text("a.timer").contains("Slice="));
    }

    #[test]
    fn systemd_restarts_nothing_that_the_file_has_other_wishes_for() {
        let lines = |restart: &str, wishes: &str| {
            let text = format!("[Service]\nSlice=a.slice\n{restart}\n[X-Fleet]\n{wishes}\n");
            let file = UnitFile::parse_lenient(&text);
            let wants = Constraints::from_file(&file);
            let text = drop_in(&UnitName::trusted("a.service"), &file, &wants.on_failure);
            text.lines().skip(1).collect::<Vec<_>>().join(" ")
        };
        let give_up = "OnFailure.exit-78=give-up\nOnFailure.exit-7=move\nOnFailure.exit-1=restart";
        let statuses = "[Service] RestartPreventExitStatus=7 78";
        assert_eq!(lines("Restart=always", give_up), statuses);
        assert_eq!(lines("Restart=on-failure", give_up), statuses);
        assert_eq!(lines("", give_up), "", "systemd restarts nothing anyway");
        assert_eq!(lines("Restart=on-success", "OnFailure.signal=give-up"), "");
        // Which result it is, systemd does not ask; what ends well it restarts as before.
        assert_eq!(
            lines("Restart=always", "OnFailure.oom-kill=move"),
            "[Service] Restart=on-success"
        );
        assert_eq!(
            lines("Restart=on-abnormal", "OnFailure.watchdog=give-up"),
            "[Service] Restart=no"
        );
        assert_eq!(lines("Restart=always", "OnFailure.oom-kill=restart"), "");
    }
}
