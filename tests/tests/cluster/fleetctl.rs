//! fleetctl against real machines: fleet 1.0's session, then what it could not do.

use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use fleet_tests::cluster::{Cluster, PATIENCE, Said, scenario};
use fleet_tests::lab::wait_for;
use serde_json::Value;

use crate::{SLEEPER, lab};

/// What the golden session runs, with another shell.
const HELLO: &str = "[Unit]\nDescription=Hello World\n\n[Service]\nExecStart=/bin/sh -c \"while \
    true; do echo Hello, World!; sleep 1; done\"\n";

#[test]
fn a_session_of_fleet_1_0_reads_as_it_did_and_new_commands_work() -> Result<()> {
    scenario(&lab("fleetctl", 2), |cluster| {
        the_golden_session(cluster)?;
        status_and_journal_come_from_whichever_machine_runs_it(cluster)?;
        a_followed_journal_streams_and_ends_on_ctrl_c(cluster)?;
        restart_changes_the_pid_everywhere(cluster)?;
        everything_that_prints_data_has_json(cluster)?;
        waiting_can_be_left_out_and_ends_in_time(cluster)
    })
}

/// Commands of /golden/fleetctl.txt with what they print; HERE stands for the machine.
const SESSION: &[(&str, &str, &str, i32)] = &[
    ("list-units", "UNIT\tMACHINE\tACTIVE\tSUB\n", "", 0),
    ("list-unit-files", "UNIT\tHASH\tDSTATE\tSTATE\tTARGET\n", "", 0),
    ("stop nosuch", "", "Units not found in registry\n", 0),
    ("cat nosuch", "", "Unit nosuch.service not found\n", 1),
    ("journal nosuch", "", "Unit nosuch.service does not exist.\n", 1),
    ("submit hello.service", "Unit hello.service inactive\n", "", 0),
    ("submit hello.service", "", "", 0),
    ("cat hello", HELLO, "", 0),
    ("stop hello", "", "Unable to stop unit hello.service in state inactive\n", 1),
    ("load hello.service", "Unit hello.service loaded on HERE\n", "", 0),
    (
        "list-units",
        "UNIT\t\tMACHINE\t\t\tACTIVE\t\tSUB\nhello.service\tHERE\tinactive\tdead\n",
        "",
        0,
    ),
    ("start hello.service", "Unit hello.service launched on HERE\n", "", 0),
    ("start hello.service", "", "", 0),
    (
        "list-units --no-legend --fields=unit,load,active,sub",
        "hello.service\tloaded\tactive\trunning\n",
        "",
        0,
    ),
    (
        "stop hello",
        "Unit hello.service loaded on HERE\n",
        "Successfully stopped units [hello.service].\n",
        0,
    ),
    ("stop hello", "", "Successfully stopped units [].\n", 0),
    (
        "unload hello",
        "Unit hello.service inactive\n",
        "Successfully unloaded units [hello.service].\n",
        0,
    ),
    ("unload hello", "", "Successfully unloaded units [].\n", 0),
    ("destroy hello", "Destroyed hello.service\n", "", 0),
    ("destroy hello", "", "Units not found in registry\n", 0),
];

fn the_golden_session(cluster: &Cluster) -> Result<()> {
    cluster.write_unit("hello.service", HELLO)?;
    let mut differ = Vec::new();
    for (command, out, err, code) in SESSION {
        let script = format!("cd /root/units && exec fleetctl {command}");
        let said = Said::from(cluster.lab.exec("h1", &["sh", "-c", &script])?);
        // With nothing else to run, the machine with the lowest id has it.
        let mut text = said.out.clone();
        for host in ["h1", "h2"] {
            let legend = format!(
                "{}.../{}",
                &cluster.lab.machine_id(host)?[..8],
                cluster.lab.address(host)?
            );
            text = text.replace(&legend, "HERE");
        }
        // Machine names differ in length from run to run, and tabs with them.
        let squeeze = |text: &str| {
            let lines = text.lines().map(|line| {
                line.split('\t').filter(|cell| !cell.is_empty()).collect::<Vec<_>>().join("\t")
            });
            lines.collect::<Vec<_>>().join("\n")
        };
        // Hints are ours, on stderr, after fleet 1.0's words.
        let err_lines = said.err.lines().filter(|line| !line.starts_with("Hint:"));
        if squeeze(&text) != squeeze(out) || !err_lines.eq(err.lines()) || said.code != *code {
            differ.push(format!("`fleetctl {command}`: {said:?}"));
        }
    }
    ensure!(differ.is_empty(), "{}", differ.join("\n"));
    Ok(())
}

fn status_and_journal_come_from_whichever_machine_runs_it(cluster: &Cluster) -> Result<()> {
    for host in ["h1", "h2"] {
        let text = format!("{HELLO}\n[X-Fleet]\nMachineMetadata=host={host}\n");
        cluster.start(&format!("on-{host}.service"), &text)?;
    }
    for asked in ["h1", "h2"] {
        for unit in ["on-h1", "on-h2"] {
            let status = cluster.fleetctl(asked, &["status", unit])?;
            ensure!(
                status.code == 0 && status.out.contains("Active: active (running)"),
                "{unit} from {asked}: {status:?}"
            );
            wait_for("the unit's words in its journal", PATIENCE, || {
                let journal = cluster.fleetctl(asked, &["journal", "--lines=5", unit])?;
                ensure!(
                    journal.code == 0 && journal.out.contains("Hello, World!"),
                    "{unit} from {asked}: {journal:?}"
                );
                ensure!(journal.out.lines().count() <= 5, "{journal:?}");
                Ok(())
            })?;
        }
    }
    cluster.ctl(&["stop", "on-h2"])?;
    let status = cluster.fleetctl("h1", &["status", "on-h2"])?;
    ensure!(status.code == 3 && status.out.contains("Active: inactive (dead)"), "{status:?}");
    Ok(())
}

fn a_followed_journal_streams_and_ends_on_ctrl_c(cluster: &Cluster) -> Result<()> {
    cluster.ctl(&["start", "on-h2"])?;
    // From the other machine, so that it goes through both APIs.
    let mut command = cluster
        .lab
        .command("h1", &["fleetctl", "journal", "-f", "-n", "1", "-o", "cat", "on-h2"])?;
    let mut child = command.stdout(Stdio::piped()).spawn()?;
    let mut lines = BufReader::new(child.stdout.take().context("its output")?).lines();
    // The unit writes a line a second: three lines are more than there were at first.
    for _ in 0..3 {
        let line = lines.next().context("the stream ended")??;
        ensure!(line.contains("Hello, World!") || line.contains("Started"), "{line}");
    }
    let find = "pgrep -f 'journalctl .*--follow'";
    ensure!(cluster.lab.exec("h2", &["sh", "-c", find])?.status.success(), "nobody follows in h2");
    cluster.lab.sh("h1", "pkill -INT -x fleetctl")?;
    let status = child.wait()?;
    ensure!(!status.success(), "Ctrl-C ended it with {status}");
    wait_for("nobody to follow any more", PATIENCE, || {
        let left = cluster.lab.exec("h2", &["pgrep", "-x", "journalctl"])?;
        ensure!(!left.status.success(), "{left:?}");
        Ok(())
    })
}

fn restart_changes_the_pid_everywhere(cluster: &Cluster) -> Result<()> {
    cluster.start("everywhere.service", &format!("{SLEEPER}\n[X-Fleet]\nGlobal=true\n"))?;
    // fleet 1.0 said nothing of a global unit.
    let (status, everywhere) =
        (cluster.ctl(&["status", "everywhere"])?, cluster.running(&["everywhere.service"])?);
    ensure!(
        everywhere.len() == 2
            && everywhere.values().all(|pid| status.contains(&format!("Main PID: {pid} "))),
        "{everywhere:?}: {status}"
    );
    cluster.submit("web@.service", SLEEPER)?;
    cluster.ctl(&["scale", "web=3"])?;
    for (named, patterns) in [
        ("everywhere", "everywhere.service"),
        ("web@.service", "web@*.service"),
        ("web@2", "web@2.service"),
        ("on-h1", "on-h1.service"),
    ] {
        let all = &["everywhere.service", "web@*.service", "on-*.service"];
        let (before, rest) = (cluster.running(&[patterns])?, cluster.running(all)?);
        cluster.ctl(&["restart", named])?;
        let (after, now) = (cluster.running(&[patterns])?, cluster.running(all)?);
        ensure!(
            before.keys().eq(after.keys()) && before.iter().all(|(key, pid)| after[key] != *pid),
            "{named}: {before:?}, {after:?}"
        );
        ensure!(
            rest.iter().all(|(key, pid)| before.contains_key(key) || now.get(key) == Some(pid)),
            "{named}: {rest:?}, {now:?}"
        );
    }
    Ok(())
}

fn everything_that_prints_data_has_json(cluster: &Cluster) -> Result<()> {
    let json = |args: &[&str]| -> Result<Value> {
        let text = cluster.ctl(&[&["--json"], args].concat())?;
        serde_json::from_str(&text)
            .with_context(|| format!("`fleetctl --json {}` printed {text}", args.join(" ")))
    };
    let count = |value: &Value| value.as_array().map_or(0, Vec::len);
    let machines = json(&["list-machines"])?;
    ensure!(count(&machines) == 2 && machines[0]["primaryIP"].is_string(), "{machines}");
    let units = json(&["list-units"])?;
    ensure!(count(&units) == 2 + 2 + 3 && units[0]["systemdActiveState"] == "active", "{units}");
    let files = json(&["list-unit-files"])?;
    ensure!(
        files.as_array().is_some_and(|all| all
            .iter()
            .any(|file| file["name"] == "web@.service" && file["replicas"] == 3)),
        "{files}"
    );
    let scaled = json(&["scale", "web=4"])?;
    ensure!(scaled[0]["before"] == 3 && scaled[0]["replicas"] == 4, "{scaled}");
    for command in [
        &["version"][..],
        &["cat", "on-h1"],
        &["status", "on-h1"],
        &["stop", "on-h1"],
        &["start", "on-h1"],
        &["restart", "on-h1"],
    ] {
        json(command)?;
    }
    // A journal is many documents, one a line.
    for line in cluster.ctl(&["--json", "journal", "on-h1"])?.lines() {
        serde_json::from_str::<Value>(line).with_context(|| line.to_owned())?;
    }
    Ok(())
}

fn waiting_can_be_left_out_and_ends_in_time(cluster: &Cluster) -> Result<()> {
    let slow = "[Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart=/bin/sleep \
        20\nTimeoutStopSec=1\n";
    let path = cluster.write_unit("slow.service", slow)?;
    let start = Instant::now();
    let said = cluster.fleetctl("h1", &["start", "--no-block", &path])?;
    ensure!(said.code == 0 && said.out.contains("Triggered unit slow.service start"), "{said:?}");
    let said = cluster.fleetctl("h1", &["start", "--timeout=2", "slow.service"])?;
    ensure!(
        said.code == 3
            && said
                .err
                .contains("timed out waiting for unit slow.service to report state launched"),
        "{said:?}"
    );
    ensure!(start.elapsed() < Duration::from_secs(15), "it took {:?}", start.elapsed());
    let usage = cluster.fleetctl("h1", &["start", "--no-such-option"])?;
    ensure!(usage.code == 2, "{usage:?}");
    let away = cluster.fleetctl("h1", &["--endpoint=http://127.0.0.1:9", "list-units"])?;
    ensure!(away.code == 1 && away.err.contains("127.0.0.1:9"), "{away:?}");
    cluster.clean()
}
