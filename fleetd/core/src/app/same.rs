//! Which changes of a text need no restart.

use crate::unit::file::{UnitFile, UnitOption};
use crate::unit::xfleet::SECTION;

/// The options of `[X-Fleet]` that change what runs: its files, its configuration, and what a
/// fenced unit is bound to.
const FELT: &[&str] = &["Bundle", "Config", "Fence"];

/// Whether systemd and podman read the same in both texts, so that an instance of the old one runs
/// on under the new one: they differ in comments, in blank lines, or in what fleet alone reads to
/// place and count instances.
pub fn runs_the_same(old: &str, new: &str) -> bool {
    let read = |text: &str| -> Vec<UnitOption> {
        let file = UnitFile::parse_lenient(text);
        let mut options: Vec<UnitOption> = file.options.into_iter().filter(is_felt).collect();
        for option in &mut options {
            option.value = unbroken(&option.value);
        }
        // Where a section stands, and in how many parts, says nothing.
        options.sort_by(|a, b| a.section.cmp(&b.section));
        options
    };
    read(old) == read(new)
}

/// Neither systemd nor podman heeds a section whose name begins like this.
fn is_felt(option: &UnitOption) -> bool {
    match option.section.as_str() {
        SECTION => FELT.contains(&option.name.as_str()),
        section => !section.starts_with("X-"),
    }
}

/// A value over several lines as the one line that it stands for, without the comments between.
fn unbroken(value: &str) -> String {
    let mut lines = value.split('\n');
    let mut whole = lines.next().unwrap_or_default().to_string();
    for line in lines.filter(|line| !line.trim_start().starts_with(['#', ';'])) {
        if whole.ends_with('\\') {
            whole.pop();
            whole.push(' ');
        }
        whole.push_str(line);
    }
    whole.trim().to_string()
}

#[cfg(test)]
mod tests {
    use super::runs_the_same;

    const TEXT: &str = "[Unit]\nDescription=a\n[Service]\nExecStart=/bin/a b\nRestart=always\n";

    #[test]
    fn comments_and_placement_restart_nothing() {
        for new in [
            TEXT.replace("[Service]", "# why\n\n[Service]\n; more"),
            TEXT.replace("/bin/a b", "/bin/a\\\n# why not\\\nb"),
            format!("{TEXT}[X-Fleet]\nMachineMetadata=disk=ssd\nReplicas=3\nMaxUnavailable=1\n"),
            format!("{TEXT}[X-Notes]\nOwner=me\n"),
            "[Service]\nExecStart=/bin/a b\n[Unit]\nDescription=a\n[Service]\nRestart=always\n"
                .to_string(),
        ] {
            assert!(runs_the_same(TEXT, &new) && runs_the_same(&new, TEXT), "{new}");
        }
    }

    #[test]
    fn what_systemd_podman_or_the_program_would_feel_restarts() {
        for new in [
            TEXT.replace("/bin/a", "/bin/c"),
            TEXT.replace("a b", "a  b"),
            TEXT.replace("Restart=always\n", ""),
            format!("{TEXT}[X-Fleet]\nBundle=shop/{}\n", "0".repeat(64)),
            format!("{TEXT}[X-Fleet]\nConfig=shop\n"),
            format!("{TEXT}[X-Fleet]\nFence=yes\n"),
            format!("{TEXT}Environment=X=1\n"),
            format!("{TEXT}ExecStart=\nExecStart=/bin/a b\n"),
        ] {
            assert!(!runs_the_same(TEXT, &new) && !runs_the_same(&new, TEXT), "{new}");
        }
        let (one, other) = (
            "[Service]\nExecStartPre=/a\nExecStartPre=/b\n",
            "[Service]\nExecStartPre=/b\nExecStartPre=/a\n",
        );
        assert!(!runs_the_same(one, other));
    }
}
