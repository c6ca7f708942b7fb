//! The man pages and completions that packages take: one page a command, and a script for each shell.

use std::process::Command;

#[test]
fn every_command_has_a_page_and_every_shell_its_script() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let status = Command::new(env!("CARGO_BIN_EXE_man")).arg(folder.path()).status()?;
    anyhow::ensure!(status.success(), "{status}");
    let page = |name: &str| std::fs::read_to_string(folder.path().join("man").join(name));
    for command in fleetctl::command().get_subcommands().filter(|command| !command.is_hide_set()) {
        let text = page(&format!("fleetctl-{}.1", command.get_name()))?;
        anyhow::ensure!(text.contains(&format!(".TH fleetctl-{} 1", command.get_name())), "{text}");
        let about =
            command.get_about().map(|about| about.to_string().replace('-', "\\-").replace('\'', "\\*(Aq")).unwrap_or_default();
        anyhow::ensure!(!about.is_empty() && text.contains(&about), "{text}");
    }
    anyhow::ensure!(page("fleetctl.1")?.contains("fleetctl\\-start(1)") && page("fleetd.8")?.contains("\\-\\-check\\-config"));
    let script = |name: &str| std::fs::read_to_string(folder.path().join("completions").join(name));
    for (name, says) in [
        ("fleetctl", "complete -o nosort -F _fleetctl fleetctl"),
        ("_fleetctl", "#compdef fleetctl"),
        ("fleetctl.fish", "complete --keep-order --exclusive --command fleetctl"),
    ] {
        let text = script(name)?;
        anyhow::ensure!(text.contains(says) && text.contains("COMPLETE"), "{name}: {text}");
    }
    Ok(())
}
