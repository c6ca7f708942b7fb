//! The file: its tables, opening it, and reading from it.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use redb::{
    Database, DatabaseError, ReadTransaction, ReadableDatabase, ReadableTable, TableDefinition,
    TableHandle,
};

use crate::store::kv::{KeyValue, LeaseId, Range, StoreError};

/// A key's create revision, mod revision, lease (0: none) and value.
pub(super) type Row<'a> = (i64, i64, i64, &'a [u8]);

pub(super) const KEYS: TableDefinition<&str, Row<'_>> = TableDefinition::new("keys");
/// Lease to seconds.
pub(super) const LEASES: TableDefinition<i64, u64> = TableDefinition::new("leases");
pub(super) const META: TableDefinition<&str, i64> = TableDefinition::new("meta");
pub(super) const REVISION: &str = "revision";
const FORMAT: &str = "format";

/// This file format. A later fleet that changes the tables raises it and converts on opening.
const CURRENT_FORMAT: i64 = 1;

/// redb's page cache. A cluster's whole state is a few dozen MB; redb's default of 1 GiB is for
/// databases.
const CACHE_BYTES: usize = 64 << 20;

/// The open file.
pub(super) struct File {
    pub(super) path: PathBuf,
    pub(super) database: Database,
}

/// What the store in memory starts from.
pub(super) struct Stored {
    pub(super) revision: i64,
    pub(super) leases: Vec<StoredLease>,
}

pub(super) struct StoredLease {
    pub(super) id: LeaseId,
    pub(super) ttl: Duration,
    pub(super) keys: Vec<String>,
}

impl File {
    pub(super) fn open(path: &Path) -> Result<(File, Stored), StoreError> {
        let unopened = |error: std::io::Error| {
            StoreError::Refused(format!("{} cannot be opened: {error}", path.display()))
        };
        if !path.try_exists().map_err(unopened)? {
            // Under another name until it is a store: an empty file of the real name is one that
            // has lost everything.
            let unborn = path.with_extension("new");
            OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(false)
                .mode(0o600)
                .open(&unborn)
                .map_err(unopened)?;
            drop(File::open_as_it_is(&unborn)?);
            std::fs::rename(&unborn, path).and_then(|()| sync_folder(path)).map_err(unopened)?;
        } else if path.metadata().map_err(unopened)?.len() == 0 {
            return Err(damaged(path, "it is empty"));
        }
        File::open_as_it_is(path)
    }

    fn open_as_it_is(path: &Path) -> Result<(File, Stored), StoreError> {
        let opened = Database::builder()
            .set_cache_size(CACHE_BYTES)
            .set_check_integrity_on_open(true)
            .create(path);
        let database = opened.map_err(|error| match error {
            DatabaseError::DatabaseAlreadyOpen | DatabaseError::LockProtocolMismatch => {
                StoreError::Refused(format!(
                    "{} is in use by another fleetd; stop that one, or give this one another file",
                    path.display()
                ))
            }
            error => damaged(path, &error.to_string()),
        })?;
        let file = File { path: path.to_path_buf(), database };
        let format = file.initialise().map_err(|error| damaged(path, &error.to_string()))?;
        if format != Some(CURRENT_FORMAT) {
            return Err(StoreError::Refused(match format {
                None => format!(
                    "{} is a redb database, but not fleet's; give fleetd another file",
                    path.display()
                ),
                Some(format) => {
                    let path = path.display();
                    format!(
                        "{path} has format {format}, this fleetd knows {CURRENT_FORMAT}; was it \
                            written by a newer fleetd?"
                    )
                }
            }));
        }
        let stored = file.stored().map_err(|error| damaged(path, &error.to_string()))?;
        Ok((file, stored))
    }

    /// Creates the tables in an empty database. The format, or `None` if there are tables, but not
    /// ours.
    fn initialise(&self) -> Result<Option<i64>, redb::Error> {
        let write = self.database.begin_write()?;
        let tables: Vec<String> =
            write.list_tables()?.map(|table| table.name().to_string()).collect();
        let format = if tables.is_empty() {
            let mut meta = write.open_table(META)?;
            meta.insert(FORMAT, CURRENT_FORMAT)?;
            meta.insert(REVISION, 1)?; // where an empty etcd stands, too
            write.open_table(KEYS)?;
            write.open_table(LEASES)?;
            Some(CURRENT_FORMAT)
        } else if tables.iter().any(|table| table == META.name()) {
            write.open_table(META)?.get(FORMAT)?.map(|format| format.value())
        } else {
            None
        };
        write.commit()?;
        Ok(format)
    }

    fn stored(&self) -> Result<Stored, redb::Error> {
        let read = self.database.begin_read()?;
        let mut leases = BTreeMap::new();
        for entry in read.open_table(LEASES)?.iter()? {
            let (id, seconds) = entry?;
            let ttl = Duration::from_secs(seconds.value());
            leases.insert(id.value(), StoredLease { id: LeaseId(id.value()), ttl, keys: vec![] });
        }
        for entry in read.open_table(KEYS)?.iter()? {
            let (key, row) = entry?;
            if let Some(lease) = leases.get_mut(&row.value().2) {
                lease.keys.push(key.value().to_string());
            }
        }
        Ok(Stored { revision: revision(&read)?, leases: leases.into_values().collect() })
    }

    pub(super) fn ranges(&self, prefixes: &[String]) -> Result<Range, redb::Error> {
        let read = self.database.begin_read()?;
        let table = read.open_table(KEYS)?;
        let mut kvs = Vec::new();
        for prefix in prefixes {
            for entry in table.range(prefix.as_str()..)? {
                let (key, row) = entry?;
                if !key.value().starts_with(prefix) {
                    break;
                }
                kvs.push(key_value(key.value(), row.value()));
            }
        }
        Ok(Range { kvs, revision: revision(&read)? })
    }

    pub(super) fn get_many(
        &self,
        keys: &[String],
    ) -> Result<(Vec<Option<KeyValue>>, i64), redb::Error> {
        let read = self.database.begin_read()?;
        let table = read.open_table(KEYS)?;
        let mut found = Vec::with_capacity(keys.len());
        for key in keys {
            found.push(table.get(key.as_str())?.map(|row| key_value(key, row.value())));
        }
        Ok((found, revision(&read)?))
    }

    /// The error for a disk that failed while the store was in use.
    pub(super) fn broken(&self, error: redb::Error) -> StoreError {
        StoreError::Refused(format!(
            "{}: {error}; look at the disk, then restart fleetd",
            self.path.display()
        ))
    }
}

/// The error for a file that is not a sound store.
pub(super) fn damaged(path: &Path, problem: &str) -> StoreError {
    let path = path.display();
    StoreError::Refused(format!(
        "{path} is not a fleet store, or is damaged ({problem}); restore a copy, or move it away \
            to start empty"
    ))
}

pub(super) fn key_value(
    key: &str,
    (create_revision, mod_revision, lease, value): Row<'_>,
) -> KeyValue {
    let lease = (lease != 0).then_some(LeaseId(lease));
    KeyValue { key: key.to_string(), value: value.to_vec(), create_revision, mod_revision, lease }
}

fn revision(read: &ReadTransaction) -> Result<i64, redb::Error> {
    let stored = read.open_table(META)?.get(REVISION)?.map(|revision| revision.value());
    stored.ok_or_else(|| redb::Error::Corrupted("it has no revision".into()))
}

/// Makes sure that the file will still be there after a power failure; redb only syncs what is in
/// it.
fn sync_folder(path: &Path) -> std::io::Result<()> {
    let folder =
        path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    std::fs::File::open(folder)?.sync_all()
}
