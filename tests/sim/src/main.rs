//! `make sim SEEDS=N BASE=B`: runs seeds B to B+N-1 on all processors; a failing one is made short
//! and printed with its replay.
#![allow(clippy::print_stdout)] // a tool for tests: what it prints is its result

use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use clap::Parser;
use fleet_sim::planted::Planted;
use fleet_sim::run::{Options, Outcome, run};
use fleet_sim::script::Script;
use fleet_sim::shrink::shrink;

/// Simulates whole clusters, one for each seed.
#[derive(Parser)]
struct Args {
    /// How many seeds to run.
    #[arg(long, default_value_t = 300)]
    seeds: u64,
    /// The first seed.
    #[arg(long, default_value_t = 1)]
    base: u64,
    /// Of each seed's actions, keep only these.
    #[arg(long, value_delimiter = ',')]
    keep: Option<Vec<usize>>,
    /// Plant this bug, to see it found.
    #[arg(long, value_parser = Planted::parse)]
    planted: Option<Planted>,
    /// Print the whole history of each seed.
    #[arg(long)]
    history: bool,
    /// How many to run at once [default: one a processor].
    #[arg(long)]
    jobs: Option<usize>,
    /// Do not stop at the first seed that fails.
    #[arg(long)]
    all: bool,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let keep = args.keep.clone().map(|keep| keep.into_iter().collect());
    let options = Options { planted: args.planted, keep };
    let jobs =
        args.jobs.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from));
    let (next, begin) = (AtomicU64::new(0), Instant::now());
    let failed = Mutex::new(Vec::new());
    let slowest = Mutex::new((0.0, 0));
    let found = || !args.all && !failed.lock().expect("no panic").is_empty();
    std::thread::scope(|scope| {
        for _ in 0..jobs {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= args.seeds || found() {
                        return;
                    }
                    let seed = args.base + number;
                    let outcome = run(seed, &options);
                    if args.history {
                        print!("{}", history(seed, &outcome));
                    }
                    let mut slow = slowest.lock().expect("no panic");
                    if outcome.healed_s > slow.0 {
                        *slow = (outcome.healed_s, seed);
                    }
                    drop(slow);
                    if let Some(verdict) = &outcome.verdict {
                        println!("seed {seed}: {verdict}");
                        failed.lock().expect("no panic").push((seed, outcome));
                    }
                }
            });
        }
    });
    let ran = next.load(Ordering::Relaxed).min(args.seeds);
    let mut failed = failed.into_inner().expect("no panic");
    failed.sort_by_key(|(seed, _)| *seed);
    let (healed_s, seed) = *slowest.lock().expect("no panic");
    println!(
        "{ran} seeds from {}, {} failed; healing took at most {healed_s:.0} s (seed {seed}); \
            {:.1} s",
        args.base,
        failed.len(),
        begin.elapsed().as_secs_f64()
    );
    let Some((seed, outcome)) = failed.into_iter().next() else { return ExitCode::SUCCESS };
    explain(seed, &options, outcome);
    ExitCode::FAILURE
}

/// The shortest history that fails like this, and how to see it again.
fn explain(seed: u64, options: &Options, outcome: Outcome) {
    let (kept, outcome) = shrink(seed, options, outcome);
    println!("\n{}", history(seed, &outcome));
    println!("the shortest script found for seed {seed}:");
    for (number, timed) in
        Script::of(seed).actions.iter().enumerate().filter(|(number, _)| kept.contains(number))
    {
        println!("  {number:>3} {timed}");
    }
    let keep = kept.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
    let planted = options.planted.map_or(String::new(), |bug| format!(" PLANTED={bug}"));
    println!(
        "\n{}\nreplay: make sim SEEDS=1 BASE={seed} KEEP={keep}{planted}",
        outcome.verdict.map_or(String::new(), |verdict| verdict.to_string())
    );
}

fn history(seed: u64, outcome: &Outcome) -> String {
    format!("seed {seed}, hash {:016x}\n{}\n", outcome.hash, outcome.history.join("\n"))
}
