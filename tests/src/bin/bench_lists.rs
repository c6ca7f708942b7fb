//! How long the lists, and the plan of an application, take as whole processes: 10,000 units on 100
//! simulated machines, fleetd's API over the embedded store.
//!
//! `tests/bench.sh lists`. The API runs in this process with as many threads as fleetd has;
//! fleetctl is the built one beside this program.
#![allow(clippy::print_stdout)]

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use fleet_core::model::{FORMAT, InstanceStatus, Leader, Machine, Report};
use fleet_core::name::MachineId;
use fleet_core::plan::plan;
use fleet_core::transfer::{Export, ExportedUnit};
use fleet_core::unit::file::ShortHash;
use fleetd::api::{Api, router};
use fleetd::store::embedded::EmbeddedKv;
use fleetd::store::{Documents, Store};

/// The cluster.
const UNITS: usize = 10_000;
const MACHINES: usize = 100;

/// The units of the application that is planned.
const SHOP: usize = 50;

/// How often each list is run; the median counts.
const RUNS: usize = 21;

/// What the issue asks for.
const BAR: Duration = Duration::from_millis(150);

/// Longer than the run: nobody renews the leases.
const TTL: Duration = Duration::from_secs(3600);

fn main() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let socket = folder.path().join("fleet.sock");
    // fleetd's own number of threads, see its main.
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let store = runtime.block_on(fill(&folder.path().join("store.redb")))?;
    let listener = runtime.block_on(async { tokio::net::UnixListener::bind(&socket) })?;
    let api = Api::new(store, MachineId::new(id(0)), String::new);
    runtime.spawn(async move { axum::serve(listener, router(api)).await });
    println!(
        "{UNITS} units on {MACHINES} machines, the embedded store; {RUNS} runs each, whole \
            processes\n"
    );
    println!(
        "| command | median | fastest | slowest | CPU of fleetctl, of the API | bar \
            |\n|---|---|---|---|---|---|"
    );
    let shop = folder.path().join("shop");
    write_shop(&shop)?;
    let plan = format!("plan {}", shop.display());
    for (list, lines) in [
        ("list-units", Some(UNITS + 1)),
        ("list-unit-files", Some(UNITS + 1)),
        ("list-machines", Some(MACHINES + 1)),
        (plan.as_str(), None),
    ] {
        let mut times = Vec::new();
        let (own, children) = cpu()?;
        for _ in 0..RUNS {
            times.push(run(&socket, list, lines)?);
        }
        let list = list.split(' ').next().unwrap_or(list);
        times.sort();
        let ms = |time: &Duration| format!("{:.0} ms", time.as_secs_f64() * 1000.0);
        let median = times[times.len() / 2];
        let bar = if median <= BAR {
            format!("{} met", ms(&BAR))
        } else {
            format!("{} **missed**", ms(&BAR))
        };
        let (fastest, slowest) = (ms(&times[0]), ms(&times[times.len() - 1]));
        let (own, children) =
            cpu().map(|(o, c)| ((o - own) / RUNS as u32, (c - children) / RUNS as u32))?;
        println!(
            "| `fleetctl {list}` | {} | {fastest} | {slowest} | {}, {} | {bar} |",
            ms(&median),
            ms(&children),
            ms(&own)
        );
    }
    Ok(())
}

/// A new application of 50 units, each with a file of its own.
fn write_shop(folder: &Path) -> Result<()> {
    std::fs::create_dir(folder)?;
    for number in 0..SHOP {
        let unit = format!(
            "[Service]\nExecStart=/usr/bin/app /run/fleet/files/%N/{number}.conf\n\
             [X-Fleet]\nMachineMetadata=zone={}\nReplicas=2\n",
            number % 10
        );
        std::fs::write(folder.join(format!("shop-{number}@.service")), unit)?;
        std::fs::write(folder.join(format!("{number}.conf")), format!("port = {number}\n"))?;
    }
    Ok(())
}

/// The CPU time of this process and of its children so far: on a busy machine it says more than the
/// clock.
fn cpu() -> Result<(Duration, Duration)> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    // After the name in brackets; proc(5) counts from 1: utime is 14, then stime, cutime, cstime,
    // in ticks of 10 ms.
    let fields: Vec<&str> =
        stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = |proc5: usize| -> Result<u64> {
        Ok(fields.get(proc5 - 3).context("a short /proc/self/stat")?.parse()?)
    };
    Ok((
        Duration::from_millis(10 * (ticks(14)? + ticks(15)?)),
        Duration::from_millis(10 * (ticks(16)? + ticks(17)?)),
    ))
}

/// One whole process, from its start to its end.
fn run(socket: &Path, list: &str, lines: Option<usize>) -> Result<Duration> {
    let fleetctl = std::env::current_exe()?.with_file_name("fleetctl");
    let begin = Instant::now();
    let output = Command::new(&fleetctl)
        .args(["--endpoint", &format!("unix://{}", socket.display())])
        .args(list.split(' '))
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot run {}", fleetctl.display()))?;
    let took = begin.elapsed();
    let printed = output.stdout.iter().filter(|byte| **byte == b'\n').count();
    // A plan that changes something ends with 1.
    let ended = output.status.code() == Some(i32::from(lines.is_none()));
    ensure!(
        ended && lines.is_none_or(|lines| printed == lines),
        "{list} printed {printed} lines: {output:?}"
    );
    Ok(took)
}

/// Submits, plans and reports everything as running.
async fn fill(path: &Path) -> Result<Store> {
    let store = Store::new(Arc::new(EmbeddedKv::open(path).await?), "/fleet/");
    let lease = store.grant(TTL).await?;
    let mut registrations = BTreeMap::new();
    for number in 0..MACHINES {
        let machine = machine(number);
        registrations.insert(machine.id.clone(), store.register(&machine, lease).await?);
    }
    let leader = Leader { v: FORMAT, machine: MachineId::new(id(0)), since_ms: 1 };
    let term = store.campaign(&leader, lease).await?.context("nobody else leads")?;
    let units = (0..UNITS).map(|number| {
        let text = format!(
            "[Unit]\nDescription=Service number \
                {number}\nAfter=network-online.target\n\n[Service]\nEnvironment=PORT={number}\n\
             ExecStart=/usr/bin/app --port $PORT --name \
             app-{number}\nRestart=always\nRestartSec=2\n\n[X-Fleet]\nMachineMetadata=zone={}\n",
            number % 10
        );
        let unit =
            ExportedUnit { text, desired_state: "launched".to_string(), ..ExportedUnit::default() };
        (format!("app-{number:05}.service"), unit)
    });
    let export = Export {
        format: fleet_core::transfer::FORMAT,
        units: units.collect(),
        ..Export::default()
    };
    let lock = store.lock_units().await?;
    let mirror = store.read_all().await?;
    let (cluster, none) = (mirror.cluster(), Default::default());
    let import =
        fleet_core::transfer::import(cluster, &none, &Default::default(), &export, false, 1)
            .map_err(anyhow::Error::msg)?;
    store
        .import(
            lock,
            &Documents {
                records: &import.records,
                settings: &import.settings,
                ..Documents::default()
            },
        )
        .await?;
    let mirror = store.read_all().await?;
    store.commit(term, &mirror, &plan(&mirror.cluster().snapshot)).await?;
    let mirror = store.read_all().await?;
    for (id, assignment) in &mirror.cluster().snapshot.assignments {
        let status = |hash: &ShortHash| InstanceStatus {
            load: "loaded".to_string(),
            active: "active".to_string(),
            sub: "running".to_string(),
            since_ms: 1_700_000_000_000,
            hash: hash.clone(),
            launched: true,
            ..InstanceStatus::default()
        };
        let instances = assignment
            .instances
            .iter()
            .map(|(name, placement)| (name.clone(), status(&placement.hash)))
            .collect();
        let report =
            Report { v: FORMAT, generation: assignment.generation, instances, ..Report::default() };
        store.put_report(id, &report, registrations[id], 0).await?;
    }
    Ok(store)
}

fn id(number: usize) -> String {
    format!("{number:032x}")
}

fn machine(number: usize) -> Machine {
    Machine {
        metadata: BTreeMap::from([("zone".to_string(), (number % 10).to_string())]),
        version: env!("CARGO_PKG_VERSION").to_string(),
        ..Machine::new(
            MachineId::new(id(number)),
            format!("10.0.{}.{}", number / 200, number % 200 + 1),
        )
    }
}
