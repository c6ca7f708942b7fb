//! The man pages and completions that packages take: one page a command, and a script for each
//! shell.

use std::process::Command;

#[test]
fn every_command_has_a_page_and_every_shell_its_script() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let status = Command::new(env!("CARGO_BIN_EXE_man")).arg(folder.path()).status()?;
    anyhow::ensure!(status.success(), "{status}");
    let man = folder.path().join("man");
    let page = |name: &str| std::fs::read_to_string(man.join(name));
    for command in fleetctl::command().get_subcommands().filter(|command| !command.is_hide_set()) {
        let text = page(&format!("fleetctl-{}.1", command.get_name()))?;
        anyhow::ensure!(text.contains(&format!(".TH fleetctl-{} 1", command.get_name())), "{text}");
        let about = command
            .get_about()
            .map(|about| about.to_string().replace('-', "\\-").replace('\'', "\\*(Aq"))
            .unwrap_or_default();
        anyhow::ensure!(!about.is_empty() && text.contains(&about), "{text}");
    }
    anyhow::ensure!(
        page("fleetctl.1")?.contains("fleetctl\\-start(1)")
            && page("fleetd.8")?.contains("fleet\\-keeper(8)")
    );
    anyhow::ensure!(
        page("fleetctl.1")?.contains("FLEETCTL_ENDPOINT")
            && page("fleetctl-stop.1")?.contains("FLEETCTL_TUNNEL")
    );
    anyhow::ensure!(page("fleet-keeper.8")?.contains("\\- Holds this machine"));
    for option in fleet_core::unit::xfleet::OPTIONS {
        let entry = format!(".TP\n\\fB{}=\\fR\n", option.name);
        anyhow::ensure!(page("fleet-unit.5")?.contains(&entry), "no {}=", option.name);
    }
    for entry in std::fs::read_dir(&man)? {
        let name = entry?.file_name().into_string().map_err(|name| anyhow::anyhow!("{name:?}"))?;
        check(&name, &page(&name)?, |name| man.join(name).exists())?;
    }
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

/// Each page that a page names is there, and each thing that it lists has a text.
fn check(name: &str, text: &str, exists: impl Fn(&str) -> bool) -> anyhow::Result<()> {
    let text = text.replace("\\-", "-");
    for word in text.split(|c: char| !(c.is_alphanumeric() || "-()".contains(c))) {
        if let Some((page, section)) = word.strip_suffix(')').and_then(|word| word.split_once('('))
            && page.starts_with("fleet")
        {
            anyhow::ensure!(exists(&format!("{page}.{section}")), "{name} names {word}");
        }
    }
    for entry in text.split("\n.TP\n").skip(1) {
        let (head, about) = entry.split_once('\n').unwrap_or((entry, ""));
        anyhow::ensure!(
            about.starts_with(|c: char| c.is_alphabetic()),
            "{name} says nothing of {head}: {about}"
        );
    }
    anyhow::ensure!(
        text.contains(".SH \"SEE ALSO\"\nfleet") && !text.contains("vversion"),
        "{name}: {text}"
    );
    Ok(())
}
