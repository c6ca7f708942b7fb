//! What a damaged file or a full disk does to the embedded store: it opens with every acknowledged
//! write, or says what is wrong and what to do; it never opens with less.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use fleetd::store::embedded::EmbeddedKv;
use fleetd::store::kv::Kv;

use crate::put;

/// Tells the child of the disk that gets full where that disk is.
const CHILD_FOLDER: &str = "FLEET_TEST_SMALL_DISK";

/// What redb and disks write at once, in bytes.
const BLOCK: usize = 4096;

/// A file of several hundred kilobytes with known keys, cleanly closed or as a power failure leaves
/// it; and how it was some commits before.
struct Sample {
    folder: tempfile::TempDir,
    sound: Vec<u8>,
    earlier: Vec<u8>,
    acknowledged: BTreeMap<String, Vec<u8>>,
}

impl Sample {
    async fn new(closed: bool) -> Sample {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("store");
        let kv = EmbeddedKv::open(&path).await.unwrap();
        let mut acknowledged = BTreeMap::new();
        let mut earlier = Vec::new();
        for i in 0..150 {
            let (key, value) =
                (format!("key-{:02}", i % 60), format!("{i} {}", "x".repeat(i * 97 % 9000)));
            kv.txn(&[], &[put(&key, &value)]).await.unwrap();
            acknowledged.insert(key, value.into_bytes());
            if i == 140 {
                earlier = std::fs::read(&path).unwrap();
            }
        }
        let mut sound = std::fs::read(&path).unwrap();
        kv.close().await;
        if closed {
            sound = std::fs::read(&path).unwrap();
        }
        Sample { folder, sound, earlier, acknowledged }
    }

    /// Whether the damaged file was opened; panics if anything that was acknowledged is not there,
    /// or the refusal does not help.
    async fn opens(&self, damaged: &[u8], how: &str) -> bool {
        let path = self.folder.path().join("damaged");
        std::fs::write(&path, damaged).unwrap();
        let kv = match EmbeddedKv::open(&path).await {
            Ok(kv) => kv,
            Err(error) => {
                let text = error.to_string();
                for part in [
                    path.display().to_string().as_str(),
                    "damaged",
                    "restore a copy",
                    "move it away to start empty",
                ] {
                    assert!(text.contains(part), "{how}: {text}");
                }
                return false;
            }
        };
        let range = kv.range("").await.unwrap();
        let stored: BTreeMap<String, Vec<u8>> =
            range.kvs.into_iter().map(|kv| (kv.key, kv.value)).collect();
        let wrong: Vec<&String> = self
            .acknowledged
            .iter()
            .filter(|(key, value)| stored.get(*key) != Some(value))
            .map(|(key, _)| key)
            .collect();
        assert!(
            wrong.is_empty() && stored.len() == self.acknowledged.len(),
            "{how}: it was opened, and these are not as acknowledged: {wrong:?}"
        );
        kv.txn(&[], &[put("later", "1")]).await.unwrap();
        kv.close().await;
        true
    }
}

#[tokio::test]
async fn an_undamaged_file_is_opened_closed_or_not() {
    for closed in [true, false] {
        let sample = Sample::new(closed).await;
        assert!(sample.opens(&sample.sound, "sound").await);
    }
}

#[tokio::test]
async fn a_file_cut_short_anywhere_is_refused_or_whole() {
    for closed in [true, false] {
        let sample = Sample::new(closed).await;
        let mut refused = 0;
        let step = sample.sound.len() / 60 + 1;
        for length in (0..sample.sound.len()).step_by(step) {
            let opened = sample
                .opens(
                    &sample.sound[..length],
                    &format!("cut at {length} of {}", sample.sound.len()),
                )
                .await;
            refused += usize::from(!opened);
        }
        assert!(refused > 30, "{refused}");
    }
}

#[tokio::test]
async fn a_block_that_is_zero_or_noise_anywhere_is_refused_or_does_no_harm() {
    for closed in [true, false] {
        let sample = Sample::new(closed).await;
        let mut refused = 0;
        for start in (0..sample.sound.len()).step_by(BLOCK) {
            for (kind, fill) in [("zero", 0u8), ("noise", 0xa5)] {
                let mut damaged = sample.sound.clone();
                let end = (start + BLOCK).min(damaged.len());
                damaged[start..end].fill(fill);
                refused +=
                    usize::from(!sample.opens(&damaged, &format!("{kind} from {start}")).await);
            }
        }
        assert!(refused > 30, "{refused}");
    }
}

#[tokio::test]
async fn a_block_that_was_torn_between_old_and_new_is_refused_or_does_no_harm() {
    for closed in [true, false] {
        let sample = Sample::new(closed).await;
        let common = sample.sound.len().min(sample.earlier.len());
        let mut refused = 0;
        // The first block holds which commit is the last: a disk that loses a write of it after an
        // fsync takes back whole commits, and nobody can see it from the file. Torn, it is seen.
        for start in (0..common)
            .step_by(BLOCK)
            .filter(|start| sample.sound[*start..] != sample.earlier[*start..])
        {
            let end = (start + BLOCK).min(common);
            for cut in [start + 512, start + BLOCK / 2] {
                if cut >= end || start == 0 {
                    continue;
                }
                let mut damaged = sample.sound.clone();
                damaged[cut..end].copy_from_slice(&sample.earlier[cut..end]);
                refused += usize::from(!sample.opens(&damaged, &format!("torn at {cut}")).await);
                let mut damaged = sample.sound.clone();
                damaged[start..cut].copy_from_slice(&sample.earlier[start..cut]);
                refused +=
                    usize::from(!sample.opens(&damaged, &format!("torn before {cut}")).await);
            }
        }
        assert!(refused > 0);
    }
}

#[tokio::test]
async fn a_header_whose_last_commit_is_damaged_is_refused_and_not_taken_back() {
    let sample = Sample::new(false).await;
    let mut refused = 0;
    // Both commit slots (redb's header: 64 bytes, then twice 128), byte by byte.
    for at in 64..64 + 2 * 128 {
        let mut damaged = sample.sound.clone();
        damaged[at] ^= 0x40;
        refused += usize::from(!sample.opens(&damaged, &format!("byte {at}")).await);
    }
    assert!(refused > 50, "{refused}");
}

#[test]
fn a_full_disk_refuses_by_name_and_the_file_opens_with_every_acknowledged_write() {
    let folder = tempfile::tempdir().unwrap();
    // A disk of its own, in a mount namespace that ends with the child.
    let script = format!(
        "mount -t tmpfs -o size=3m tmpfs '{}' && exec \"$0\" \"$@\"",
        folder.path().display()
    );
    let output = Command::new("unshare")
        .args(["--mount", "sh", "-c", &script])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "damage::child_on_a_disk_that_gets_full", "--ignored", "--nocapture"])
        .env(CHILD_FOLDER, folder.path())
        .output()
        .expect("unshare, of util-linux; the tests run as root");
    let said = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(output.status.success() && said.contains("1 passed"), "{said}");
}

#[tokio::test]
#[ignore = "the child of \
    a_full_disk_refuses_by_name_and_the_file_opens_with_every_acknowledged_write"]
async fn child_on_a_disk_that_gets_full() {
    let folder =
        PathBuf::from(std::env::var_os(CHILD_FOLDER).expect("run by the test, not by hand"));
    let path = folder.join("store");
    for round in 0..3 {
        let mut acknowledged = BTreeMap::new();
        let kv = EmbeddedKv::open(&path).await.unwrap();
        let refused = loop {
            let (key, value) = (format!("{round}-{}", acknowledged.len()), "x".repeat(50_000));
            match kv.txn(&[], &[put(&key, &value)]).await {
                Ok(_) => acknowledged.insert(key, value.into_bytes()),
                Err(error) => break error.to_string(),
            };
            assert!(acknowledged.len() < 1000, "the disk never gets full");
        };
        for part in [
            path.display().to_string().as_str(),
            "No space left on device",
            "look at the disk, then restart fleetd",
        ] {
            assert!(refused.contains(part), "{refused}");
        }
        // Nothing is taken for done, and nothing for lost: reads go on, leases count as unknown.
        assert!(kv.range("").await.unwrap().kvs.len() >= acknowledged.len());
        kv.close().await;
        // A person makes room; there was a whole file beside it.
        let kv =
            EmbeddedKv::open(&path).await.unwrap_or_else(|error| panic!("round {round}: {error}"));
        let stored: BTreeMap<String, Vec<u8>> =
            kv.range("").await.unwrap().kvs.into_iter().map(|kv| (kv.key, kv.value)).collect();
        assert!(
            acknowledged.iter().all(|(key, value)| stored.get(key) == Some(value)),
            "round {round}: an acknowledged write is gone"
        );
        empty(&kv, stored).await;
        kv.close().await;
        make_room(&path, round);
    }
}

/// Deletes everything, as a person who makes room in the store would.
async fn empty(kv: &EmbeddedKv, stored: BTreeMap<String, Vec<u8>>) {
    let deletes: Vec<_> =
        stored.into_keys().map(|key| fleetd::store::kv::Change::Delete { key }).collect();
    kv.txn(&[], &deletes).await.unwrap();
}

/// The file keeps its size: what it gives back inside is used again. The next round starts with a
/// new one, once.
fn make_room(path: &Path, round: u32) {
    if round == 0 {
        std::fs::remove_file(path).unwrap();
    }
}
