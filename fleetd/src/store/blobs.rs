//! Blobs: what comes with the units of an application, each kept once under its checksum. Beside
//! the root: nobody who reads or watches the cluster has a use for them.

use fleet_core::app::{AppName, Checksum};

use super::kv::Change;
use super::{Store, StoreError};

/// How many blobs one request asks for: each has up to 1 MiB, and an answer may have 4.
const BLOBS_A_REQUEST: usize = 3;

impl Store {
    /// Keeps `content` for an application. Answers with its checksum.
    pub async fn put_blob(&self, app: &AppName, content: Vec<u8>) -> Result<Checksum, StoreError> {
        let sum = Checksum::of(&content);
        let key = self.keys.blob(app, &sum);
        self.apply(&[], &[Change::Put { key: key.clone(), value: content, lease: None }], &key)
            .await?;
        Ok(sum)
    }

    /// The blobs of an application, in the order asked. One that is absent, or is not what its
    /// checksum says, is `None`.
    pub async fn blobs(
        &self,
        app: &AppName,
        wanted: &[Checksum],
    ) -> Result<Vec<Option<Vec<u8>>>, StoreError> {
        let mut blobs = Vec::with_capacity(wanted.len());
        for chunk in wanted.chunks(BLOBS_A_REQUEST) {
            let keys: Vec<String> = chunk.iter().map(|sum| self.keys.blob(app, sum)).collect();
            let (found, _) = self.kv.get_many(&keys).await?;
            let checked = found.into_iter().zip(chunk).map(|(kv, sum)| {
                kv.map(|kv| kv.value).filter(|content| Checksum::of(content) == *sum)
            });
            blobs.extend(checked);
        }
        Ok(blobs)
    }
}
