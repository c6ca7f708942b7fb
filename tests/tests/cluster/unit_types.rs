//! Every type of unit that fleet takes really runs, and what a host defines itself is left alone.

use anyhow::{Context, Result, ensure};
use fleet_tests::cluster::{Cluster, PATIENCE, scenario};
use fleet_tests::lab::wait_for;

use crate::{SLEEPER, lab};

#[test]
fn services_sockets_timers_paths_targets_and_mounts_run_and_a_hosts_own_units_are_left_alone()
-> Result<()> {
    scenario(&lab("types", 2), |cluster| {
        a_oneshot_runs_once_and_is_not_repeated(cluster)?;
        a_scaled_oneshot_has_arrived_when_it_has_ended(cluster)?;
        a_socket_starts_its_service_when_somebody_connects(cluster)?;
        a_timer_starts_its_service(cluster)?;
        a_scaled_timer_that_does_not_remain_fires_once(cluster)?;
        a_path_starts_its_service(cluster)?;
        a_target_brings_nothing_else(cluster)?;
        an_installed_unit_is_enabled_while_it_is_loaded(cluster)?;
        a_mount_is_mounted_and_unmounted(cluster)?;
        an_instance_can_be_started_by_name(cluster)?;
        a_path_and_its_service_start_in_one_command(cluster)?;
        a_start_that_a_dependency_keeps_from_happening_fails_and_is_tried_again(cluster)?;
        a_sidekick_comes_back_with_its_main_unit(cluster)?;
        what_isolate_stops_comes_back(cluster)?;
        cluster.clean()?;
        a_unit_of_the_hosts_own_is_refused_and_never_overwritten(cluster)?;
        a_name_that_the_host_takes_over_later_is_left_to_it(cluster)?;
        what_systemd_cannot_run_is_told_in_its_own_words(cluster)?;
        what_fleet_keeps_is_roots_alone_and_unit_files_are_for_all_whatever_the_umask(cluster)?;
        a_unit_that_systemd_does_not_stop_is_told_and_holds_up_no_leave(cluster)
    })
}

/// Pins a unit to h2, so that units which belong together meet there.
fn on_h2(text: &str) -> String {
    format!("{text}\n[X-Fleet]\nMachineMetadata=host=h2\n")
}

fn a_oneshot_runs_once_and_is_not_repeated(cluster: &Cluster) -> Result<()> {
    let text = on_h2("[Service]\nType=oneshot\nExecStart=/bin/sh -c 'echo ran >> /tmp/oneshot'\n");
    cluster.start("oneshot.service", &text)?;
    // Other units start meanwhile: as good a time to see that it is not started again as any.
    cluster.start("other.service", &on_h2(SLEEPER))?;
    cluster.ctl(&["destroy", "other.service"])?;
    wait_for("the report to show it ended", PATIENCE, || {
        let state = state_of(cluster, "oneshot.service")?;
        ensure!(state == "inactive dead", "{state}");
        Ok(())
    })?;
    ensure!(cluster.lab.sh("h2", "cat /tmp/oneshot")? == "ran");
    Ok(())
}

fn a_scaled_oneshot_has_arrived_when_it_has_ended(cluster: &Cluster) -> Result<()> {
    cluster.submit(
        "job@.service",
        &on_h2("[Service]\nType=oneshot\nExecStart=/bin/sh -c 'echo %i >> /tmp/jobs'\n"),
    )?;
    // Each of these waits for the end, and had waited for ever.
    cluster.ctl(&["scale", "job=2"])?;
    cluster.ctl(&["restart", "job@.service"])?;
    let mut jobs: Vec<String> =
        cluster.lab.sh("h2", "cat /tmp/jobs")?.lines().map(str::to_string).collect();
    jobs.sort();
    ensure!(jobs == ["1", "1", "2", "2"], "{jobs:?}");
    cluster.ctl(&["destroy", "job@.service"]).map(drop)
}

fn a_socket_starts_its_service_when_somebody_connects(cluster: &Cluster) -> Result<()> {
    // systemd's own proxy takes the socket over; where it leads does not matter here.
    let main = on_h2(
        "[Service]\nExecStart=/usr/lib/systemd/systemd-socket-proxyd --exit-idle-time=60 \
        127.0.0.1:9\n",
    );
    let path = cluster.write_unit("door.service", &main)?;
    cluster.ctl(&["load", &path])?;
    cluster.start("door.socket", &on_h2("[Socket]\nListenStream=7000\n"))?;
    ensure!(
        state_of(cluster, "door.socket")? == "active listening",
        "{}",
        state_of(cluster, "door.socket")?
    );
    ensure!(
        !cluster.running_on("h2", &["door.service"])?.contains_key("door.service"),
        "it runs before anybody connected"
    );
    let address = cluster.lab.address("h2")?.to_owned();
    // Nobody answers behind the proxy; that it was started is what counts.
    let _ = cluster.lab.http_get(&format!("http://{address}:7000/"));
    wait_for("the service behind the socket", PATIENCE, || {
        let running = cluster.running_on("h2", &["door.service"])?;
        ensure!(running.get("door.service").is_some_and(|pid| *pid != 0), "{running:?}");
        Ok(())
    })
}

fn a_timer_starts_its_service(cluster: &Cluster) -> Result<()> {
    let service =
        on_h2("[Service]\nType=oneshot\nExecStart=/bin/sh -c 'echo tick >> /tmp/ticks'\n");
    let path = cluster.write_unit("tick.service", &service)?;
    cluster.ctl(&["load", &path])?;
    cluster.start(
        "tick.timer",
        &on_h2("[Timer]\nOnActiveSec=100ms\nOnUnitActiveSec=500ms\nAccuracySec=10ms\n"),
    )?;
    wait_for("three ticks", PATIENCE, || {
        let ticks = cluster.lab.sh("h2", "cat /tmp/ticks")?;
        ensure!(ticks.lines().count() >= 3, "{ticks}");
        Ok(())
    })?;
    cluster.ctl(&["destroy", "tick.timer", "tick.service"]).map(drop)
}

fn a_scaled_timer_that_does_not_remain_fires_once(cluster: &Cluster) -> Result<()> {
    let path = cluster.write_unit(
        "once.service",
        &on_h2("[Service]\nType=oneshot\nExecStart=/bin/sh -c 'echo once >> /tmp/once'\n"),
    )?;
    cluster.ctl(&["load", &path])?;
    let timer =
        "[Timer]\nOnActiveSec=100ms\nAccuracySec=10ms\nRemainAfterElapse=no\nUnit=once.service\n";
    cluster.submit("once@.timer", &on_h2(timer))?;
    cluster.ctl(&["scale", "once@.timer=1"])?;
    wait_for("the timer to be gone", PATIENCE, || {
        let state = state_of(cluster, "once@1.timer")?;
        ensure!(state == "inactive dead", "{state}");
        Ok(())
    })?;
    // It had been started again at once; two more passes of the agent are time enough for that.
    cluster.start("other.service", &on_h2(SLEEPER))?;
    cluster.ctl(&["destroy", "other.service"])?;
    ensure!(
        cluster.lab.sh("h2", "cat /tmp/once")? == "once",
        "{}",
        cluster.lab.sh("h2", "cat /tmp/once")?
    );
    cluster.ctl(&["destroy", "once@.timer", "once.service"]).map(drop)
}

fn a_path_starts_its_service(cluster: &Cluster) -> Result<()> {
    let service = on_h2(
        "[Service]\nType=oneshot\nExecStart=/bin/sh -c 'rm /tmp/inbox && echo came >> /tmp/came'\n",
    );
    let path = cluster.write_unit("inbox.service", &service)?;
    cluster.ctl(&["load", &path])?;
    cluster.start("inbox.path", &on_h2("[Path]\nPathExists=/tmp/inbox\n"))?;
    ensure!(
        state_of(cluster, "inbox.path")? == "active waiting",
        "{}",
        state_of(cluster, "inbox.path")?
    );
    cluster.lab.sh("h2", "touch /tmp/inbox")?;
    wait_for("the service behind the path", PATIENCE, || {
        let came = cluster.lab.sh("h2", "cat /tmp/came")?;
        ensure!(came == "came", "{came}");
        Ok(())
    })
}

fn a_target_brings_nothing_else(cluster: &Cluster) -> Result<()> {
    cluster.start("stage.target", &on_h2("[Unit]\nDescription=A stage\n"))?;
    ensure!(
        state_of(cluster, "stage.target")? == "active active",
        "{}",
        state_of(cluster, "stage.target")?
    );
    cluster.ctl(&["stop", "stage.target"])?;
    ensure!(
        state_of(cluster, "stage.target")? == "inactive dead",
        "{}",
        state_of(cluster, "stage.target")?
    );
    Ok(())
}

fn an_installed_unit_is_enabled_while_it_is_loaded(cluster: &Cluster) -> Result<()> {
    let path = cluster.write_unit(
        "night.service",
        &on_h2(&format!("{SLEEPER}\n[Install]\nWantedBy=night.target\n")),
    )?;
    cluster.ctl(&["load", &path])?;
    ensure!(cluster.lab.sh("h2", "systemctl is-enabled night.service")? == "enabled-runtime");
    ensure!(state_of(cluster, "night.service")? == "inactive dead");
    cluster.start("night.target", &on_h2("[Unit]\nDescription=the night shift\n"))?;
    wait_for("the target to start its service", PATIENCE, || {
        let state = state_of(cluster, "night.service")?;
        ensure!(state == "active running", "{state}");
        Ok(())
    })?;
    cluster.ctl(&["destroy", "night.target", "night.service"])?;
    for line in ["Alias=dbus.service", "Also=debug-shell.service"] {
        let path = cluster
            .write_unit("greedy.service", &on_h2(&format!("{SLEEPER}\n[Install]\n{line}\n")))?;
        let said = cluster.fleetctl("h1", &["start", &path])?;
        ensure!(
            said.code == 1 && said.err.contains(&format!("{line}: this machine has a")),
            "{said:?}"
        );
        cluster.ctl(&["destroy", "greedy.service"])?;
    }
    let host = "test ! -e /run/systemd/system/dbus.service && systemctl is-enabled \
        debug-shell.service || true";
    ensure!(cluster.lab.sh("h2", host)? == "disabled");
    wait_for("the link to go", PATIENCE, || {
        let left = cluster.lab.sh(
            "h2",
            "ls -d /run/systemd/system/night* /run/systemd/system/*/night* 2>/dev/null || true",
        )?;
        ensure!(left.is_empty(), "{left}");
        Ok(())
    })?;
    wait_for("systemd to have read its files since", PATIENCE, || {
        let changed = cluster.lab.sh("h2", "systemctl show -P NeedDaemonReload dbus.service")?;
        ensure!(changed == "no", "systemd says of every unit that it changed on disk");
        Ok(())
    })
}

fn a_mount_is_mounted_and_unmounted(cluster: &Cluster) -> Result<()> {
    cluster.start(
        "srv-scratch.mount",
        &on_h2("[Mount]\nWhat=tmpfs\nWhere=/srv/scratch\nType=tmpfs\nOptions=size=1M\n"),
    )?;
    ensure!(cluster.lab.sh("h2", "findmnt --noheadings --output=FSTYPE /srv/scratch")? == "tmpfs");
    cluster.ctl(&["destroy", "srv-scratch.mount"])?;
    let left = cluster.lab.exec("h2", &["findmnt", "/srv/scratch"])?;
    ensure!(!left.status.success(), "it is still mounted");
    // What the host mounted itself is not fleet's to take over, and then to unmount.
    cluster.lab.sh("h2", "mkdir -p /srv/own && mount -t tmpfs none /srv/own")?;
    let own = cluster
        .write_unit("srv-own.mount", &on_h2("[Mount]\nWhat=tmpfs\nWhere=/srv/own\nType=tmpfs\n"))?;
    let said = cluster.fleetctl("h1", &["start", &own])?;
    ensure!(said.code == 1 && said.err.contains("of its own (/proc/self/mountinfo)"), "{said:?}");
    cluster.ctl(&["destroy", "srv-own.mount"])?;
    cluster.lab.sh("h2", "mountpoint /srv/own && umount /srv/own").map(drop)
}

fn an_instance_can_be_started_by_name(cluster: &Cluster) -> Result<()> {
    let text = on_h2("[Service]\nExecStart=/bin/sh -c 'echo I am %i; exec sleep infinity'\n");
    let template = cluster.write_unit("named@.service", &text)?;
    cluster.ctl(&["submit", &template])?;
    let said = cluster.ctl(&["start", "named@blue.service", "named@green"])?;
    ensure!(
        said.contains("Unit named@blue.service launched on")
            && said.contains("Unit named@green.service launched on"),
        "{said}"
    );
    ensure!(cluster.ctl(&["journal", "--output=cat", "named@blue"])?.contains("I am blue"));
    cluster.ctl(&["stop", "named@blue"])?;
    let running = cluster.running_on("h2", &["named@*.service"])?;
    ensure!(running.keys().eq(["named@green.service"]), "{running:?}");
    Ok(())
}

fn a_path_and_its_service_start_in_one_command(cluster: &Cluster) -> Result<()> {
    let path = cluster.write_unit("post.path", &on_h2("[Path]\nPathExists=/tmp/post\n"))?;
    let service = "[Service]\nType=oneshot\nExecStart=/bin/rm -f \
        /tmp/post\n[X-Fleet]\nMachineOf=post.path\n";
    let service = cluster.write_unit("post.service", service)?;
    cluster.ctl(&["start", &path, &service])?;
    ensure!(
        state_of(cluster, "post.path")? == "active waiting",
        "{}",
        state_of(cluster, "post.path")?
    );
    cluster.ctl(&["destroy", "post.path", "post.service"]).map(drop)
}

fn a_start_that_a_dependency_keeps_from_happening_fails_and_is_tried_again(
    cluster: &Cluster,
) -> Result<()> {
    let setup = "[Service]\nType=oneshot\nExecStart=/usr/bin/test -e /tmp/mended\n";
    let setup = cluster.write_unit("setup.service", &on_h2(setup))?;
    cluster.ctl(&["load", &setup])?;
    let app = format!("[Unit]\nRequires=setup.service\nAfter=setup.service\n{SLEEPER}");
    let app = cluster.write_unit("app.service", &on_h2(&app))?;
    let said = cluster.fleetctl("h1", &["start", &app])?;
    ensure!(
        said.code == 1 && said.err.contains("a dependency job failed (dependency)"),
        "{said:?}"
    );
    cluster.lab.sh("h2", "touch /tmp/mended")?;
    wait_for("the next try", PATIENCE, || {
        let state = state_of(cluster, "app.service")?;
        ensure!(state == "active running", "{state}");
        Ok(())
    })?;
    cluster.ctl(&["destroy", "app.service", "setup.service"]).map(drop)
}

fn a_sidekick_comes_back_with_its_main_unit(cluster: &Cluster) -> Result<()> {
    let both = &["main.service", "call.service"];
    let call = format!(
        "[Unit]\nBindsTo=main.service\nAfter=main.service\n{SLEEPER}\n[X-Fleet]\nMachineOf=main.service\n"
    );
    cluster.start("main.service", &on_h2(&format!("{SLEEPER}Restart=always\n")))?;
    cluster.start("call.service", &call)?;
    for how in ["kill --signal=KILL --kill-whom=main", "stop"] {
        let before = cluster.running_on("h2", both)?;
        cluster.lab.sh("h2", &format!("systemctl {how} main.service"))?;
        wait_for("both to be back", PATIENCE, || {
            let now = cluster.running_on("h2", both)?;
            let again = |unit: &&str| {
                now.get(*unit).is_some_and(|pid| *pid != 0 && before.get(*unit) != Some(pid))
            };
            ensure!(both.iter().all(again), "after {how}: {before:?} became {now:?}");
            Ok(())
        })?;
    }
    // fleet's own stop is the user's wish.
    cluster.ctl(&["stop", "main.service"])?;
    wait_for("the sidekick to wait", PATIENCE, || {
        let state = cluster
            .states()?
            .into_iter()
            .find(|state| state.name == "call.service")
            .context("its state")?;
        let waits = state
            .message
            .as_deref()
            .is_some_and(|message| message.contains("again when main.service is up"));
        ensure!(state.systemd_active_state == "inactive" && waits, "{state:?}");
        Ok(())
    })?;
    ensure!(
        state_of(cluster, "main.service")? == "inactive dead",
        "{}",
        state_of(cluster, "main.service")?
    );
    cluster.ctl(&["start", "main.service"])?;
    wait_for("the sidekick", PATIENCE, || {
        let state = state_of(cluster, "call.service")?;
        ensure!(state == "active running", "{state}");
        Ok(())
    })
}

/// Of what the last case left, too.
fn what_isolate_stops_comes_back(cluster: &Cluster) -> Result<()> {
    let (up, ended) = (&["main.service", "call.service"], &["ended.service"]);
    cluster.start(
        "ended.service",
        &on_h2("[Service]\nExecStart=/bin/sh -c 'echo ran >> /tmp/ended'\n"),
    )?;
    let before = cluster.running_on("h2", up)?;
    cluster.lab.sh("h2", "systemctl isolate multi-user.target")?;
    wait_for("both to be back", PATIENCE, || {
        let now = cluster.running_on("h2", up)?;
        let again = |unit: &&str| {
            now.get(*unit).is_some_and(|pid| *pid != 0 && before.get(*unit) != Some(pid))
        };
        ensure!(up.iter().all(again), "{before:?} became {now:?}");
        Ok(())
    })?;
    ensure!(cluster.running_on("h2", ended)?.values().all(|pid| *pid == 0));
    ensure!(cluster.lab.sh("h2", "cat /tmp/ended")? == "ran", "what ended by itself stays ended");
    Ok(())
}

fn a_unit_of_the_hosts_own_is_refused_and_never_overwritten(cluster: &Cluster) -> Result<()> {
    let own = "[Service]\nExecStart=/bin/sleep 12345\n";
    cluster.write("h2", "/etc/systemd/system/mine.service", own)?;
    cluster.lab.sh("h2", "systemctl daemon-reload; systemctl start mine.service")?;
    let before = cluster.running_on("h2", &["mine.service", "dbus.service"])?;
    for (name, place) in [
        ("mine.service", "/etc/systemd/system/mine.service"),
        ("dbus.service", "/usr/lib/systemd/system/dbus.service"),
    ] {
        let path = cluster.write_unit(name, &on_h2(SLEEPER))?;
        let said = cluster.fleetctl("h1", &["start", &path])?;
        ensure!(
            said.code == 1 && said.err.contains("of its own") && said.err.contains(place),
            "{said:?}"
        );
        let state =
            cluster.states()?.into_iter().find(|state| state.name == name).context("its state")?;
        ensure!(
            state.message.as_deref().is_some_and(|message| message.contains("of its own")),
            "{state:?}"
        );
        // Taking it away again must not take away the host's.
        cluster.ctl(&["destroy", name])?;
        ensure!(
            cluster
                .lab
                .exec("h2", &["test", "-e", &format!("/run/systemd/system/{name}")])?
                .status
                .code()
                == Some(1)
        );
    }
    ensure!(cluster.lab.sh("h2", "cat /etc/systemd/system/mine.service")? == own.trim_end());
    ensure!(cluster.running_on("h2", &["mine.service", "dbus.service"])? == before);
    Ok(())
}

fn a_name_that_the_host_takes_over_later_is_left_to_it(cluster: &Cluster) -> Result<()> {
    cluster.start("later.service", &on_h2(SLEEPER))?;
    cluster.write(
        "h2",
        "/etc/systemd/system/later.service",
        "[Service]\nExecStart=/bin/sleep 54321\n",
    )?;
    cluster.lab.sh("h2", "systemctl daemon-reload; systemctl restart later.service")?;
    let before = cluster.running_on("h2", &["later.service"])?;
    let path =
        cluster.write_unit("later.service", &on_h2("[Service]\nExecStart=/bin/sleep 1d\n"))?;
    let said = cluster.fleetctl("h1", &["start", "--replace", &path])?;
    ensure!(
        said.code == 1 && said.err.contains("of its own (/etc/systemd/system/later.service)"),
        "{said:?}"
    );
    cluster.ctl(&["destroy", "later.service"])?;
    ensure!(cluster.running_on("h2", &["later.service"])? == before, "it was not fleet's to touch");
    let left = cluster.lab.sh("h2", "ls -d /run/systemd/system/later* || true")?;
    ensure!(left.is_empty(), "{left}");
    cluster
        .lab
        .sh(
            "h2",
            "systemctl stop later.service; rm /etc/systemd/system/later.service; \
        systemctl daemon-reload",
        )
        .map(drop)
}

fn what_systemd_cannot_run_is_told_in_its_own_words(cluster: &Cluster) -> Result<()> {
    for (lines, words) in [
        ("ExecStart=/no/such", "/no/such: No such file or directory"),
        (
            "EnvironmentFile=/no/such\nExecStart=/bin/true",
            "Failed to load environment files: No such file or directory",
        ),
    ] {
        for kind in ["simple", "exec"] {
            let path = cluster.write_unit(
                "words.service",
                &on_h2(&format!("[Service]\nType={kind}\n{lines}\n")),
            )?;
            let said = cluster.fleetctl("h1", &["start", &path])?;
            ensure!(said.code == 1 && said.err.contains(words), "{kind}: {said:?}");
            wait_for("the list to say so, too", PATIENCE, || {
                let state = cluster
                    .states()?
                    .into_iter()
                    .find(|state| state.name == "words.service")
                    .context("its state")?;
                ensure!(
                    state.message.as_deref().is_some_and(|message| message.contains(words)),
                    "{state:?}"
                );
                Ok(())
            })?;
            cluster.ctl(&["destroy", "words.service"])?;
        }
    }
    Ok(())
}

fn what_fleet_keeps_is_roots_alone_and_unit_files_are_for_all_whatever_the_umask(
    cluster: &Cluster,
) -> Result<()> {
    let umask = "mkdir -p /etc/systemd/system/fleetd.service.d; printf \
        '[Service]\\nUMask=0077\\n' > /etc/systemd/system/fleetd.service.d/umask.conf";
    // As an older fleetd left it.
    let old = "chmod -R u=rwX,go=rX /var/lib/fleet; chmod 755 /var/lib/fleet";
    cluster
        .lab
        .sh("h2", &format!("{umask}; {old}; systemctl daemon-reload; systemctl restart fleetd"))?;
    cluster.wait_until_ready()?;
    cluster.start("seen.service", &on_h2(SLEEPER))?;
    let open = cluster.lab.sh("h2", "find /var/lib/fleet -perm /077")?;
    ensure!(open.is_empty(), "others may read {open}");
    let modes = cluster.lab.sh(
        "h2",
        "cd /run/systemd/system && stat -c %a seen.service seen.service.d seen.service.d/*",
    )?;
    ensure!(modes == "644\n755\n644", "{modes}");
    cluster.ctl(&["destroy", "seen.service"])?;
    cluster.lab.sh(
        "h2",
        "rm -r /etc/systemd/system/fleetd.service.d; systemctl daemon-reload; \
        systemctl restart fleetd",
    )?;
    cluster.wait_until_ready()
}

/// What its own text cannot ask for, a host's drop-in can.
fn a_unit_that_systemd_does_not_stop_is_told_and_holds_up_no_leave(
    cluster: &Cluster,
) -> Result<()> {
    cluster.write(
        "h2",
        "/etc/systemd/system/stays.service.d/stays.conf",
        "[Unit]\nRefuseManualStop=yes\n",
    )?;
    cluster.start("stays.service", &on_h2(SLEEPER))?;
    let said = cluster.fleetctl("h1", &["destroy", "stays.service"])?;
    ensure!(
        said.code == 1
            && said.err.contains("Operation refused")
            && said.err.contains("systemctl kill"),
        "{said:?}"
    );
    ensure!(
        cluster.ctl(&["list-units"])?.contains("stays.service"),
        "it is in the list until it has stopped"
    );
    let since = std::time::Instant::now();
    cluster.lab.sh("h2", "systemctl stop fleetd.socket fleetd")?;
    ensure!(since.elapsed() < PATIENCE, "a leave took {:?}", since.elapsed());
    let log = cluster.lab.sh("h2", "journalctl -u fleetd -o cat")?;
    ensure!(log.contains("1 unit runs on here"), "{log}");
    cluster.lab.sh(
        "h2",
        "rm -r /etc/systemd/system/stays.service.d; systemctl daemon-reload; systemctl start \
        fleetd.socket fleetd",
    )?;
    cluster.wait_until_ready()?;
    cluster.start("next.service", &on_h2(SLEEPER))?;
    wait_for("it to stop once systemd lets it", PATIENCE, || {
        let running = cluster.running_on("h2", &["stays.service"])?;
        ensure!(running.is_empty(), "{running:?}");
        Ok(())
    })
}

fn state_of(cluster: &Cluster, name: &str) -> Result<String> {
    let state = cluster
        .states()?
        .into_iter()
        .find(|state| state.name == name)
        .with_context(|| format!("no state of {name}"))?;
    Ok(format!("{} {}", state.systemd_active_state, state.systemd_sub_state))
}
