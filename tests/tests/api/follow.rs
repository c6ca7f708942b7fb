//! `/follow`: how far units are, and whose word it is that no machine fits.

use fleet_core::wire::{InstanceProgress, Progress};

use crate::server::Server;

/// The lines of a follow.
struct Lines {
    answer: reqwest::Response,
    buffer: Vec<u8>,
}

impl Lines {
    async fn next(&mut self) -> Progress {
        loop {
            if let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.buffer.drain(..=end).collect();
                return serde_json::from_slice(&line).expect("a line of progress");
            }
            self.buffer
                .extend(self.answer.chunk().await.expect("a connection").expect("another line"));
        }
    }

    /// The next state in which the only unit's only instance is so.
    async fn until(&mut self, so: impl Fn(&InstanceProgress) -> bool) {
        while !self.next().await.units[0].instances.iter().any(&so) {}
    }
}

#[tokio::test]
async fn that_no_machine_fits_is_told_once_the_leader_has_planned_it() {
    let server = Server::start().await;
    let body = r#"{"desiredState":"launched","options":[{"section":"X-Fleet","name":"MachineMetadata","value":"disk=ssd"}]}"#;
    let url = format!("{}/fleet/v1/units/db.service", server.origin);
    let client = fleet_tests::http().build().unwrap();
    let request = client.put(url).header("content-type", "application/json").body(body);
    request.send().await.expect("an answer").error_for_status().expect("a unit");
    let answer = client
        .get(format!("{}/fleet/v1/follow?unit=db.service", server.origin))
        .send()
        .await
        .expect("an answer");
    let mut lines = Lines { answer, buffer: Vec::new() };
    lines
        .until(|instance| {
            instance.wanted && instance.machine.is_none() && instance.misfits.is_empty()
        })
        .await;
    server.plan().await;
    lines
        .until(|instance| {
            instance.misfits.iter().any(|misfit| misfit.reason == "lacks the metadata disk=ssd")
        })
        .await;
}
