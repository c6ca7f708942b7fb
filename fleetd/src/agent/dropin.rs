//! fleet's own settings for a unit on a host: the drop-in beside its file. Pure text.

use fleet_core::name::UnitName;
use fleet_core::unit::file::UnitFile;

/// How many instances share one slice. systemd's cost of a start grows with the siblings of its
/// cgroup: 4,000 in one slice start three times slower than over 64 slices (docs/performance.md).
const INSTANCES_A_SLICE: u32 = 64;

/// Over how many slices units that are no replicas are spread, for the same reason.
const SINGLE_SLICES: u32 = 64;

/// The longest part of a slice's name that comes from a unit's, in bytes: systemd takes names up to
/// 255.
const LONGEST_PREFIX: usize = 200;

/// The drop-in for `instance`, which runs as `file` (already translated, for Quadlet units).
pub(super) fn drop_in(instance: &UnitName, file: &UnitFile) -> String {
    let mut text =
        String::from("# Written by fleet; changes here are lost. Submit the unit again instead.\n");
    let section = match instance.systemd_name().suffix() {
        "service" => "Service",
        "socket" => "Socket",
        "mount" => "Mount",
        "swap" => "Swap",
        _ => return text, // timers, paths and targets have no processes, so no slice
    };
    if file.last(section, "Slice").is_none() {
        text.push_str(&format!("[{section}]\nSlice={}\n", slice(instance)));
    }
    text
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
        assert!(!drop_in(&UnitName::trusted("a.service"), &file).contains("Slice="));
        assert!(!drop_in(&UnitName::trusted("a.timer"), &file).contains("Slice="));
    }
}
