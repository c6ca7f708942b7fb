//! The suite on the simulator's model of etcd.

use std::sync::Arc;

use fleet_sim::etcd::Etcd;

use crate::{Store, run_suite};

#[tokio::test(start_paused = true)]
async fn the_simulators_model_of_etcd_keeps_the_contract() {
    let etcd = Etcd::new();
    let compacted = etcd.clone();
    let compact = move |revision| {
        compacted.compact(revision);
        Box::pin(std::future::ready(())) as _
    };
    run_suite("the model of etcd", Store { kv: Arc::new(etcd), compact: Arc::new(compact) }).await;
}
