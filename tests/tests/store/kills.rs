//! The embedded store is killed a thousand times, at any point of opening and writing, and has
//! every acknowledged write each time.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use fleetd::store::embedded::EmbeddedKv;
use fleetd::store::kv::Kv;

use crate::put;

/// Tells the child where to write.
const CHILD_FILE: &str = "FLEET_TEST_STORE_FILE";

/// How often the store is killed, over all files.
const KILLS: u32 = 1000;

/// Files that are written and killed side by side: each waits for its disk most of the time.
const FILES: u32 = 4;

/// Keys that are written side by side.
const WRITERS: u32 = 4;

#[test]
fn every_acknowledged_write_survives_a_thousand_kills() {
    let folder = tempfile::tempdir().unwrap();
    let threads: Vec<_> = (0..FILES)
        .map(|file| {
            let path = folder.path().join(format!("store-{file}"));
            std::thread::spawn(move || kill_again_and_again(&path, file))
        })
        .collect();
    let mut written = 0;
    for thread in threads {
        written += thread.join().expect("see above");
    }
    assert!(written > u64::from(KILLS), "only {written} writes were acknowledged at all");
}

/// Answers with how many writes were acknowledged.
fn kill_again_and_again(path: &Path, file: u32) -> u64 {
    let mut acknowledged: BTreeMap<String, u64> = BTreeMap::new();
    // Any sequence will do, and the same one each time.
    let mut random = 0x9e37_79b9 ^ file;
    for round in 0..KILLS / FILES {
        random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        // Now and then while it opens, mostly after some writes.
        let lines_until_kill = (random >> 16) % 24;
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "kills::child_that_writes_until_it_is_killed",
                "--ignored",
                "--nocapture",
            ])
            .env(CHILD_FILE, path)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
        let mut seen = 0;
        let mut killed = false;
        for line in lines {
            let words: Vec<&str> = line.split(' ').collect();
            match words[..] {
                ["opening"] => {}
                ["found", key, value] => {
                    let (value, known) = (
                        value.parse::<u64>().unwrap(),
                        acknowledged.get(key).copied().unwrap_or(0),
                    );
                    // One more may have been under way, and on the disk before it was acknowledged.
                    assert!(
                        value == known || value == known + 1,
                        "round {round}: {key} is {value}, acknowledged was {known}"
                    );
                    acknowledged.insert(key.to_string(), value);
                }
                ["wrote", key, value] => {
                    acknowledged.insert(key.to_string(), value.parse().unwrap());
                    seen += 1;
                }
                _ => continue,
            }
            if seen >= lines_until_kill && !killed {
                child.kill().unwrap();
                killed = true;
            }
        }
        child.wait().unwrap();
        if !killed {
            let mut said = String::new();
            std::io::Read::read_to_string(&mut child.stderr.take().unwrap(), &mut said).unwrap();
            panic!("round {round}: the child ended by itself: {said}");
        }
    }
    acknowledged.values().sum()
}

#[test]
#[ignore = "the child of every_acknowledged_write_survives_a_thousand_kills"]
fn child_that_writes_until_it_is_killed() {
    let path = std::env::var_os(CHILD_FILE).expect("run by the test, not by hand");
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
        say("opening".to_string());
        let kv = Arc::new(EmbeddedKv::open(Path::new(&path)).await.unwrap());
        let mut writers = tokio::task::JoinSet::new();
        for writer in 0..WRITERS {
            let key = format!("writer-{writer}");
            let last = kv.get(&key).await.unwrap().0.map_or(0, |kv| number(&kv.value));
            say(format!("found {key} {last}"));
            let kv = kv.clone();
            writers.spawn(async move {
                for value in last + 1..u64::MAX {
                    // Of all sizes, so that values move from page to page.
                    let padding = "x".repeat(((value * 7919) % 20_000) as usize);
                    kv.txn(&[], &[put(&key, &format!("{value} {padding}"))]).await.unwrap();
                    say(format!("wrote {key} {value}"));
                }
            });
        }
        writers.join_all().await;
    });
}

/// The number that a value begins with; the rest must be as long as it says.
fn number(value: &[u8]) -> u64 {
    let text = std::str::from_utf8(value).unwrap();
    let (number, padding) = text.split_once(' ').unwrap();
    let number: u64 = number.parse().unwrap();
    assert_eq!(padding.len() as u64, (number * 7919) % 20_000, "a value is cut short");
    number
}

/// One write a line, so that lines do not mix.
fn say(line: String) {
    std::io::stdout().write_all(format!("\n{line}\n").as_bytes()).unwrap();
}
