//! `UpdateOrder=start-first` on real hosts: a client that asks all the time finds as many instances
//! as are wanted, whatever is changed on purpose.

use std::io::{Read, Write as _};
use std::process::{Child, Stdio};

use anyhow::{Context, Result, ensure};
use fleet_tests::cluster::{Cluster, PATIENCE, replicas, scenario};
use fleet_tests::lab::wait_for;

use crate::lab;

/// How many instances are wanted.
const INSTANCES: u32 = 3;

/// An HTTP server of a few lines.
const SERVER: &str = r#"#!/usr/bin/perl
use IO::Socket::INET;
my $server = IO::Socket::INET->new(LocalPort => $ARGV[0], Listen => 64, ReuseAddr => 1)
    or die "cannot listen on $ARGV[0]: $!\n";
while (my $client = $server->accept) {
    while (<$client>) { last if /^\r?$/ }
    print $client "HTTP/1.0 200 OK\r\n\r\nhello\n";
    close $client;
}
"#;

/// Asks every address given, again and again until its input ends, and then says how many answered
/// at least, and how often all were asked.
const CLIENT: &str = r#"
import socket, sys, threading
addresses = [pair.rsplit(":", 1) for pair in sys.argv[1:]]
ended = threading.Event()
threading.Thread(target=lambda: (sys.stdin.read(), ended.set()), daemon=True).start()
def answers(host, port):
    try:
        with socket.create_connection((host, int(port)), timeout=1) as link:
            link.sendall(b"GET / HTTP/1.0\r\n\r\n")
            return b" 200 " in link.recv(100)
    except OSError:
        return False
least, rounds = len(addresses), 0
while not ended.is_set():
    least = min(least, sum(answers(*address) for address in addresses))
    rounds += 1
print(least, rounds)
"#;

/// What people write: nothing says when it is ready, and systemd restarts it.
fn text(number: u32) -> String {
    format!(
        "[Unit]\nDescription=Front {number}\n[Service]\nType=simple\nRestart=always\n\
         ExecStart=/usr/local/bin/front 808%i\nTimeoutStopSec=10\n\
         [X-Fleet]\nUpdateOrder=start-first\n"
    )
}

#[test]
fn a_client_always_finds_as_many_as_are_wanted_through_an_update_a_restart_and_a_drain()
-> Result<()> {
    scenario(&lab("start-first", 3), |cluster| {
        for host in cluster.hosts() {
            cluster.write(&host, "/usr/local/bin/front", SERVER)?;
            cluster.lab.sh(&host, "chmod +x /usr/local/bin/front")?;
        }
        cluster.submit("front@.service", &text(1))?;
        cluster.ctl(&["scale", &format!("front={INSTANCES}")])?;
        let names = replicas("front", INSTANCES);
        let all = || cluster.wait_for_exactly(&["front@*.service"], &names, PATIENCE);
        // The rollout of the first text is over: then there is one to go back to.
        cluster.ctl(&["start", "front@.service"])?;
        let before = all()?;

        let mut client = Client::begin(cluster)?;
        cluster.write_unit("front@.service", &text(2))?;
        cluster.ctl(&["start", "--replace", "--no-block", "/root/units/front@.service"])?;
        wait_for("a spare instance to be listed as one", PATIENCE, || {
            let states = cluster.states()?;
            let spare = states.iter().find(|state| state.spare).context("no spare instance")?;
            ensure!(spare.name == "front@4.service", "{spare:?}");
            let listed = cluster.ctl(&["list-units"])?;
            ensure!(listed.contains("(spare)"), "{listed}");
            Ok(())
        })?;
        let files = cluster.ctl(&["list-unit-files"])?;
        ensure!(files.contains("3/3"), "{files}");
        // It waits until the spare is gone.
        cluster.ctl(&["start", "--replace", "/root/units/front@.service"])?;
        let updated = cluster.running(&["front@*.service"])?;
        ensure!(
            updated.len() == names.len()
                && updated.iter().all(|(place, pid)| before.get(place) != Some(pid)),
            "{updated:?} after {before:?}"
        );
        client.check("the update")?;

        let mut client = Client::begin(cluster)?;
        let (_, host) = updated.keys().next().context("an instance")?.clone();
        cluster.ctl(&["drain", &cluster.lab.machine_id(&host)?[..8]])?;
        all()?;
        cluster.ctl(&["uncordon", &cluster.lab.machine_id(&host)?[..8]])?;
        client.check("the drain")
    })
}

/// A client that asks all the time.
struct Client(Child);

impl Client {
    /// Begins once all instances answer.
    fn begin(cluster: &Cluster) -> Result<Client> {
        let mut addresses = Vec::new();
        for host in cluster.hosts() {
            let address = cluster.lab.address(&host)?;
            addresses.extend((1..=2 * INSTANCES).map(|number| format!("{address}:808{number}")));
        }
        wait_for("all instances to answer", PATIENCE, || {
            let answers =
                |address: &&String| cluster.lab.http_get(&format!("http://{address}/")).is_ok();
            let answering = addresses.iter().filter(answers).count();
            ensure!(answering == INSTANCES as usize, "{answering} answer");
            Ok(())
        })?;
        let mut client = cluster.lab.outside("python3");
        client.args(["-c", CLIENT]).args(&addresses);
        client.stdin(Stdio::piped()).stdout(Stdio::piped());
        Ok(Client(client.spawn().context("python3")?))
    }

    /// Ends, and makes sure that enough answered all the while.
    fn check(&mut self, what: &str) -> Result<()> {
        if let Some(mut input) = self.0.stdin.take() {
            input.flush()?;
        }
        let mut said = String::new();
        self.0.stdout.take().context("its output")?.read_to_string(&mut said)?;
        self.0.wait()?;
        let said: Vec<u32> = said.split_whitespace().filter_map(|word| word.parse().ok()).collect();
        let [least, rounds] = said[..] else { anyhow::bail!("the client said {said:?}") };
        ensure!(rounds > 20, "all were asked {rounds} times only during {what}");
        ensure!(least >= INSTANCES, "{least} answered at a time during {what}, {rounds} times");
        Ok(())
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let _ = self.0.kill(); // it has ended, or nobody asks for what it would say
        let _ = self.0.wait();
    }
}
