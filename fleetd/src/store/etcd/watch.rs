//! One watch on etcd: responses in, one batch per revision out.

use etcd_client::{EventType, WatchOptions, WatchResponse};
use fleet_tls::Files;
use tokio::sync::mpsc;

use super::endpoints::{Connection, Endpoints, Repeat};
use super::errors::store_error;
use super::key_value;
use crate::store::kv::{StoreError, WatchBatch, WatchEvent, WatchStream};

/// Batches waiting for the reader. Beyond them HTTP/2's flow control holds etcd back, which then
/// drops no event but gathers them.
const QUEUE: usize = 64;

/// Opens the watch: etcd has confirmed it, or refused it, when this returns.
pub(super) async fn open(
    endpoints: &Endpoints,
    prefix: &str,
    from: i64,
) -> Result<WatchStream, StoreError> {
    // Without fragments etcd sends a revision's changes in one response; with them the crate does
    // not tell which is the last one.
    let options = WatchOptions::new().with_prefix().with_start_revision(from.max(1));
    let (mut stream, first) = endpoints
        .call(Repeat::Always, |to: Connection| {
            let options = options.clone();
            async move {
                let mut watches = to.client.watch_client().max_decoding_message_size(usize::MAX);
                let mut stream = watches.watch(prefix, Some(options)).await?;
                let first = stream.message().await?;
                Ok((stream, first))
            }
        })
        .await?;
    let (sender, receiver) = mpsc::channel(QUEUE);
    tokio::spawn(async move {
        let mut response = Ok(first);
        loop {
            let (batches, end) = read(response);
            for batch in batches {
                if sender.send(Ok(batch)).await.is_err() {
                    return;
                }
            }
            if let Some(error) = end {
                // The reader may be gone, which is just as well.
                let _ = sender.send(Err(error)).await;
                return;
            }
            response = tokio::select! {
                message = stream.message() => message,
                () = sender.closed() => return,
            };
        }
    });
    Ok(receiver)
}

/// The batches of one response, and whether the stream ends with it.
fn read(
    response: Result<Option<WatchResponse>, etcd_client::Error>,
) -> (Vec<WatchBatch>, Option<StoreError>) {
    let response = match response {
        Ok(Some(response)) => response,
        Ok(None) => return (vec![], Some(StoreError::Unavailable("etcd closed the watch".into()))),
        Err(error) => return (vec![], Some(store_error("the watch", &error, &Files::default()))),
    };
    let end = match (response.canceled(), response.compact_revision()) {
        (false, _) => None,
        (true, 0) => Some(StoreError::Unavailable(format!(
            "etcd ended the watch: {}",
            response.cancel_reason()
        ))),
        (true, compacted) => Some(StoreError::Compacted(compacted)),
    };
    (batches(&response), end)
}

/// A response holds whole revisions, in order.
fn batches(response: &WatchResponse) -> Vec<WatchBatch> {
    let mut batches: Vec<WatchBatch> = Vec::new();
    for event in response.events() {
        let Some(kv) = event.kv() else { continue };
        let revision = kv.mod_revision();
        let kv = key_value(kv.clone());
        let event = match event.event_type() {
            EventType::Put => WatchEvent::Put(kv),
            EventType::Delete => WatchEvent::Delete(kv.key),
        };
        match batches.last_mut() {
            Some(last) if last.revision == revision => last.events.push(event),
            _ => batches.push(WatchBatch { revision, events: vec![event] }),
        }
    }
    batches
}
