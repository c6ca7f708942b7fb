//! An engine whose planning panics stands aside for some seconds, then leads and plans again;
//! nothing needs a restart by hand.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use fleet_tests::interposed::{Fate, Interposed, Request};
use fleetd::store::Store;
use tokio_util::sync::CancellationToken;

use crate::cluster::Cluster;

#[tokio::test]
async fn an_engine_that_panicked_leads_again() {
    let mut cluster = Cluster::start().await;
    cluster.join(["a".to_string()]).await;
    cluster.submit("web.service", None, "[Service]\nExecStart=/bin/sleep 1d\n").await;
    let armed = AtomicBool::new(true);
    let fate = Box::new(move |request| {
        // A stand-in for a document that planning cannot bear: the leader's first list of
        // everything.
        assert!(request != Request::Range || !armed.swap(false, Relaxed), "a document too strange");
        Fate::Done
    });
    let store = Store::new(Arc::new(Interposed { inner: cluster.kv.clone(), fate }), "/fleet/");
    let engine = cluster.engine("a", store);
    let (metrics, stop) = (engine.metrics.clone(), CancellationToken::new());
    let running = tokio::spawn(engine.run(stop.clone()));
    let begin = Instant::now();
    while cluster.mirror().await.cluster().snapshot.assignments.is_empty() {
        assert!(
            begin.elapsed() < Duration::from_secs(60),
            "nothing was placed; panics: {metrics:?}"
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(metrics.engine_panics.load(Relaxed), 1, "it was placed after the panic");
    stop.cancel();
    running.await.unwrap();
}
