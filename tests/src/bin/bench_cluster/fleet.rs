//! A client of one host's fleetd, over its unix socket.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use fleet_core::wire::{Progress, Scale, Unit, UnitProgress};
use fleet_tests::lab::Lab;

pub(crate) struct Fleet {
    http: reqwest::Client,
}

impl Fleet {
    pub(crate) fn connect(lab: &Lab, host: &str) -> Result<Fleet> {
        let socket = lab.path_in(host, "/run/fleet.sock")?;
        Ok(Fleet {
            http: fleet_tests::http()
                .unix_socket(socket)
                .timeout(Duration::from_secs(300))
                .build()?,
        })
    }

    pub(crate) async fn put(&self, name: &str, text: &str, desired: &str) -> Result<()> {
        let body = Unit {
            text: Some(text.to_string()),
            desired_state: desired.to_string(),
            ..Unit::default()
        };
        self.send(self.http.put(url(&format!("units/{name}"))).json(&body)).await
    }

    pub(crate) async fn destroy(&self, name: &str) -> Result<()> {
        self.send(self.http.delete(url(&format!("units/{name}")))).await
    }

    pub(crate) async fn scale(&self, template: &str, replicas: usize) -> Result<()> {
        let body = Scale { replicas: replicas as i64, relative: false };
        self.send(self.http.put(url(&format!("units/{template}/replicas"))).json(&body)).await
    }

    pub(crate) async fn metrics(&self) -> Result<String> {
        Ok(self.http.get("http://fleet/metrics").send().await?.text().await?)
    }

    /// Follows units until `enough` of the first says so. Calls `ready` once the first line is
    /// there.
    pub(crate) async fn follow(
        &self,
        name: &str,
        ready: impl AsyncFnOnce() -> Result<()>,
        enough: impl Fn(&UnitProgress) -> bool,
    ) -> Result<Instant> {
        let mut answer = self.http.get(url(&format!("follow?unit={name}"))).send().await?;
        ensure!(answer.status().is_success(), "follow: {}", answer.status());
        let mut ready = Some(ready);
        let mut buffer = Vec::new();
        while let Some(chunk) = answer.chunk().await? {
            buffer.extend_from_slice(&chunk);
            while let Some(end) = buffer.iter().position(|&b| b == b'\n') {
                let line: Vec<u8> = buffer.drain(..=end).collect();
                let progress: Progress = serde_json::from_slice(&line)?;
                if let Some(ready) = ready.take() {
                    ready().await?;
                } else if enough(progress.units.first().context("no unit in a line")?) {
                    return Ok(Instant::now());
                }
            }
        }
        bail!("the follow of {name} ended")
    }

    async fn send(&self, request: reqwest::RequestBuilder) -> Result<()> {
        let answer = request.send().await?;
        let status = answer.status();
        ensure!(status.is_success(), "{status}: {}", answer.text().await?);
        Ok(())
    }
}

fn url(path: &str) -> String {
    format!("http://fleet/fleet/v1/{path}")
}
