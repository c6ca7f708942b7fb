//! After a write of texts: those that are too many go, and what came with them. Nobody waits for
//! it, and what stays goes with the next write.

use std::collections::BTreeSet;

use fleet_core::app::AppName;
use fleet_core::model::UnitRecord;
use fleet_core::name::UnitName;
use fleet_core::unit::kept::KEPT_TEXTS;

use super::Api;
use super::error::ApiError;
use crate::process::panics;

/// These units got texts of these numbers at that revision of the store.
pub(super) fn tidy<'a>(api: &Api, written: impl IntoIterator<Item = (&'a UnitName, u64)>, at: i64) {
    if let Some(tidying) = Tidying::of(api, written, at) {
        drop(panics::spawn_contained(tidying.run()));
    }
}

/// The numbers of the texts that are new.
pub(super) fn new_texts(records: &[(UnitRecord, bool)]) -> impl Iterator<Item = (&UnitName, u64)> {
    let new = records.iter().filter(|(_, new_text)| *new_text);
    new.map(|(record, _)| (&record.name, record.revision))
}

/// The same of an application: what came with it before the revision `before`, and that nothing
/// names any more, goes, too.
pub(super) fn tidy_app<'a>(
    api: &Api,
    (app, before): (AppName, i64),
    written: impl IntoIterator<Item = (&'a UnitName, u64)>,
    at: i64,
) {
    let (tidying, store) = (Tidying::of(api, written, at), api.store().clone());
    drop(panics::spawn_contained(async move {
        if let Some(tidying) = tidying {
            tidying.run().await;
        }
        if let Err(error) = store.sweep_blobs(&app, before).await {
            tracing::info!("old files of the application {app} are still in the store: {error}");
        }
    }));
}

/// Units that may have too many texts.
struct Tidying {
    api: Api,
    units: BTreeSet<UnitName>,
    at: i64,
}

impl Tidying {
    fn of<'a>(
        api: &Api,
        written: impl IntoIterator<Item = (&'a UnitName, u64)>,
        at: i64,
    ) -> Option<Tidying> {
        // Texts count from 1, so that most units need no look.
        let many = written.into_iter().filter(|(_, number)| *number > KEPT_TEXTS as u64);
        let units: BTreeSet<UnitName> = many.map(|(unit, _)| unit.clone()).collect();
        (!units.is_empty()).then(|| Tidying { api: api.clone(), units, at })
    }

    async fn run(self) {
        // One after the other: nobody is in a hurry.
        let _turn = self.api.shared.tidying.lock().await;
        let tidied: Result<usize, ApiError> = async {
            let mut reader = self.api.shared.copies.reader();
            let at = self.at;
            let mirror = reader.when(|mirror| mirror.cluster().snapshot.revision >= at).await?;
            Ok(self.api.store().prune_texts(&self.units, &mirror).await?)
        }
        .await;
        match tidied {
            Ok(0) => {}
            Ok(gone) => tracing::debug!("{gone} old texts of units went"),
            Err(error) => {
                tracing::info!("old texts of units are still in the store: {}", error.message());
            }
        }
    }
}
