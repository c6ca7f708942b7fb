//! Two fleetds with the same `/etc/machine-id` at one etcd, as where a disk was copied.

use fleet_tests::etcd::{Etcd, binaries};

use super::fleetd::Fleetd;

#[tokio::test]
async fn a_second_fleetd_with_the_id_of_one_that_lives_is_refused_and_both_say_so() {
    let etcd = Etcd::start(&binaries().unwrap()[0]).await.unwrap();
    let config = format!("etcd_servers = [{:?}]\nagent_ttl = 3\n", etcd.url());
    let first = Fleetd::start(tempfile::tempdir().unwrap(), &config);
    first.until("it leads", |said| *said == Ok(vec![true])).await;
    let second = Fleetd::start(tempfile::tempdir().unwrap(), &config);
    let refused = |said: &Result<Vec<bool>, String>| {
        let words = [
            "fleet server unable to communicate with etcd",
            "another fleetd has this machine's id",
        ];
        said.as_ref().is_err_and(|problem| words.iter().all(|words| problem.contains(words)))
    };
    second.until("the second one is refused", refused).await;
    let told = |fleetd: &Fleetd, words: &str| {
        let log = fleetd.log();
        log.lines().any(|line| line.contains(words) && line.contains("systemd-machine-id-setup"))
    };
    second.until("it says so", |_| told(&second, "This one is refused")).await;
    first.until("the first one says so", |_| told(&first, "was refused; this one goes on")).await;
    assert_eq!(first.leads().await, Ok(vec![true]));
    drop(second);
    // The words by which operators of fleet 1.0 know that a machine was silent for too long.
    drop(etcd);
    let monitor = "Server monitor triggered: Monitor timed out before successful heartbeat";
    first.until("it says that it cannot renew its lease", |_| first.log().contains(monitor)).await;
}
