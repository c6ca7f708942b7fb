//! How fast the planner is: medians on made-up clusters, or one case for `valgrind
//! --tool=callgrind`. Each plan's digest stands beside: what makes the planner faster must not
//! change it.
//!
//! ```text
//! cargo run --release -p fleet-tests --bin bench_plan            # all cases, medians in milliseconds
//! cargo run --release -p fleet-tests --bin bench_plan -- big     # the very large ones, once each
//! cargo run --release -p fleet-tests --bin bench_plan -- patterns   # as many Conflicts= as may be
//! valgrind --tool=callgrind --toggle-collect='fleet_core::plan::plan' target/release/bench_plan once mixed 1000 10000
//! ```
#![allow(clippy::print_stdout, reason = "a benchmark's figures are its output")]

use std::collections::BTreeMap;
use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use fleet_core::model::{DesiredState, Machine, Snapshot, Unit, UnitRecord};
use fleet_core::name::{MachineId, UnitName};
use fleet_core::plan::{Plan, plan};
use fleet_core::unit::xfleet::MAX_PATTERNS;

/// How often each case is planned; the median stands.
const ROUNDS: usize = 31;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words.as_slice() {
        [] => all(),
        ["big"] => big(),
        ["patterns"] => patterns(),
        ["once", case, machines, units] => {
            once(case, machines.parse().expect("machines"), units.parse().expect("units"))
        }
        _ => println!(
            "usage: bench_plan [big | patterns | once steady|mixed|templates MACHINES UNITS]"
        ),
    }
}

fn all() {
    println!(
        "{:<52} {:>10} {:>10} {:>12}  {:<12}",
        "case", "median ms", "lowest ms", "placements", "digest"
    );
    report("steady, 100 machines, 1,000 instances, 5 global", &steady(100, 1_000), ROUNDS);
    report("1,000 machines, 10,000 units, mixed labels", &mixed(1_000, 10_000), ROUNDS);
    report("1,000 machines, 10 templates of 1,000", &templates(1_000, 10, 1_000), ROUNDS);
    report("1,000 machines, 10,000 units that fit nowhere", &nowhere(1_000, 10_000), ROUNDS);
    report("steady, 1,000 machines, 10,000 units", &planned(mixed(1_000, 10_000)), ROUNDS);
    report(
        "one of 1,000 machines lost, 10,000 units",
        &one_lost(planned(mixed(1_000, 10_000))),
        ROUNDS,
    );
}

fn big() {
    println!(
        "{:<52} {:>10} {:>10} {:>12}  {:<12}",
        "case", "median ms", "lowest ms", "placements", "digest"
    );
    report("10,000 machines, 100,000 replicas of one template", &templates(10_000, 1, 100_000), 3);
    report("10,000 machines, 100,000 units, mixed labels", &mixed(10_000, 100_000), 3);
    report("100 machines, 1,000,000 replicas (too many)", &templates(100, 1, 1_000_000), 3);
    report("no machine, 1,000,000 replicas", &templates(0, 1, 1_000_000), 3);
    report(
        "steady, 10,000 machines, 1,000,000 replicas",
        &planned(templates(10_000, 1, 1_000_000)),
        3,
    );
}

/// The dearest that may be submitted: each unit with as many patterns as it may have, none of which
/// is done by its first letters.
fn patterns() {
    println!(
        "{:<52} {:>10} {:>10} {:>12}  {:<12}",
        "case", "median ms", "lowest ms", "placements", "digest"
    );
    for (machines, units) in [(3, 72), (10, 100), (10, 300), (100, 1_000)] {
        let case = format!("{machines} machines, {units} units of {MAX_PATTERNS} patterns");
        let snapshot = full_of_patterns(machines, units);
        report(&format!("{case}, unscheduled"), &snapshot, 3);
        report(&format!("{case}, steady"), &planned(snapshot), 3);
    }
}

fn full_of_patterns(machines: usize, units: usize) -> Snapshot {
    let mut snapshot = cluster(machines);
    for number in 0..units {
        let patterns: Vec<String> = (0..MAX_PATTERNS)
            .map(|pattern| format!("*-of-{pattern}-and-{number}-*a*b*.service"))
            .collect();
        let name = format!("{number}-{}.service", "a-".repeat(60));
        add_unit(&mut snapshot, &name, None, &format!("Conflicts={}", patterns.join(" ")));
    }
    snapshot
}

fn once(case: &str, machines: usize, units: usize) {
    let snapshot = match case {
        "steady" => steady(machines, units),
        "templates" => templates(machines, 10, units as u32 / 10),
        _ => mixed(machines, units),
    };
    println!("{} placements", placements(&plan(black_box(&snapshot))));
}

fn report(case: &str, snapshot: &Snapshot, rounds: usize) {
    let mut times = Vec::new();
    let planned = plan(snapshot);
    let (placed, digest) = (placements(&planned), planned.digest());
    drop(planned);
    for _ in 0..rounds {
        let start = Instant::now();
        let planned = black_box(plan(black_box(snapshot)));
        times.push(start.elapsed());
        drop(planned);
    }
    times.sort();
    let ms = |index: usize| times[index].as_secs_f64() * 1_000.0;
    println!("{case:<52} {:>10.3} {:>10.3} {placed:>12}  {digest}", ms(rounds / 2), ms(0));
}

fn placements(planned: &Plan) -> usize {
    planned.changes.len()
}

/// Everything placed, as it is most of the time; five units run on each machine.
fn steady(machines: usize, units: usize) -> Snapshot {
    let mut snapshot = mixed(machines, units);
    for number in 0..5 {
        add_unit(&mut snapshot, &format!("agent-{number}.service"), None, "Global=true");
    }
    planned(snapshot)
}

/// Half of the units go anywhere; the rest asks for a zone, a zone and a disk, a class, or to be
/// alone of its kind.
fn mixed(machines: usize, units: usize) -> Snapshot {
    let mut snapshot = cluster(machines);
    for number in 0..units {
        let zone = number / 20 % 10;
        let options = match number % 20 {
            0..10 => String::new(),
            10..15 => format!("MachineMetadata=zone=z{zone}"),
            15..18 => format!("MachineMetadata=zone=z{zone}\nMachineMetadata=disk=ssd"),
            18 => format!("MachineMetadata=class=c{}", number / 20 % 4),
            _ => format!("Conflicts=alone-{}-*.service", number / 20 % 50),
        };
        let name = match number % 20 {
            19 => format!("alone-{}-{number}.service", number / 20 % 50),
            _ => format!("unit-{number}.service"),
        };
        add_unit(&mut snapshot, &name, None, &options);
    }
    snapshot
}

fn templates(machines: usize, templates: usize, replicas: u32) -> Snapshot {
    let mut snapshot = cluster(machines);
    for number in 0..templates {
        add_unit(&mut snapshot, &format!("web-{number}@.service"), Some(replicas), "");
    }
    snapshot
}

fn nowhere(machines: usize, units: usize) -> Snapshot {
    let mut snapshot = cluster(machines);
    for number in 0..units {
        add_unit(
            &mut snapshot,
            &format!("unit-{number}.service"),
            None,
            "MachineMetadata=zone=none",
        );
    }
    snapshot
}

fn cluster(machines: usize) -> Snapshot {
    let mut snapshot = Snapshot { now_ms: 1_700_000_000_000, ..Snapshot::default() };
    for number in 0..machines {
        let id = MachineId::new(format!(
            "{:032x}",
            (number as u128 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835)
        ));
        let mut metadata = BTreeMap::from([
            ("zone".to_string(), format!("z{}", number % 10)),
            ("class".to_string(), format!("c{}", number / 10 % 4)),
        ]);
        if number % 3 == 0 {
            metadata.insert("disk".to_string(), "ssd".to_string());
        }
        let machine = Machine { metadata, ..Machine::new(id.clone(), "") };
        snapshot.machines.insert(id, Arc::new(machine));
    }
    snapshot
}

fn add_unit(snapshot: &mut Snapshot, name: &str, replicas: Option<u32>, options: &str) {
    let record = UnitRecord {
        desired: DesiredState::Launched,
        replicas,
        ..UnitRecord::new(
            UnitName::parse(name).expect("a good name"),
            format!("[Service]\nExecStart=/bin/sleep inf\n[X-Fleet]\n{options}\n"),
        )
    };
    snapshot.units.insert(record.name.clone(), Arc::new(Unit::from_record(&record)));
}

/// The snapshot after its plan was committed.
fn planned(mut snapshot: Snapshot) -> Snapshot {
    let documents = plan(&snapshot).documents;
    snapshot
        .assignments
        .extend(documents.into_iter().map(|(id, document)| (id, Arc::new(document))));
    snapshot
}

fn one_lost(mut snapshot: Snapshot) -> Snapshot {
    snapshot.machines.pop_first();
    snapshot
}
