//! The SQLite backend: opening the file, one writing connection, a few reading ones. Refuses policy.

mod apply;
mod cache;
mod catalogue;
mod check;
mod columns;
mod events;
mod hooks;
mod records;
mod schedules;
mod script;
mod sessions;
mod task_commit;
mod task_contents;
mod tasks;
mod teams;
mod upkeep;

use self::apply::Current;
use self::cache::Cache;
use crate::blob::Blobs;
use crate::commit::{Commit, Committed};
use crate::error::{CommitError, StoreError};
use crate::key::{self, Key};
use crate::store::Options;
use crate::writer::Queue;
use castra_proto::SessionId;
use sqlx::migrate::Migrator;
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqlitePool, SqlitePoolOptions,
    SqliteSynchronous,
};
use sqlx::{ConnectOptions, Connection};
use std::collections::HashMap;
use std::fs::OpenOptions;
use std::io::ErrorKind;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use uuid::Uuid;

/// Earlier ones can corrupt a database in WAL mode (<https://www.sqlite.org/wal.html>, "WAL-reset bug").
const SQLITE_NEEDED: &str = "3.51.3";
static MIGRATIONS: Migrator = sqlx::migrate!("migrations/sqlite");
/// How long another process may hold the database, e.g. a backup tool or a person with `sqlite3`.
const BUSY: Duration = Duration::from_secs(30);
/// Reads are short: pages bounded by bytes, or single rows.
const READERS: u32 = 4;
/// Pages of 4 KiB after which a commit also moves the log into the database: 16 MiB, since each time costs
/// two syncs. The file is cut back to four times that after a large transaction.
const CHECKPOINT_PAGES: u32 = 4096;
const WAL_BYTES: u32 = 64 << 20;
/// Of each connection: all statements of this crate, so that none is prepared twice.
const STATEMENTS: usize = 128;

#[derive(Debug)]
pub(crate) struct Sqlite {
    writer: Queue<Writer>,
    readers: SqlitePool,
    cache: Arc<Cache>,
    key: Arc<Key>,
    blobs: Arc<Blobs>,
    stream_id: Uuid,
    /// Set in a database that was a backup: what its stream shares with the one it was copied from.
    shared: Option<HashMap<String, u64>>,
}

/// The one connection that writes.
#[derive(Debug)]
pub(crate) struct Writer {
    conn: SqliteConnection,
    key: Arc<Key>,
    /// As the last commit has left them: nobody else writes.
    sessions: HashMap<SessionId, Current>,
    cache: Arc<Cache>,
}

impl Sqlite {
    pub(crate) async fn open(home: &Path, options: Options) -> Result<Self, StoreError> {
        let path = home.join("castra.db");
        create(&path)?;
        let connect = SqliteConnectOptions::new()
            .filename(&path)
            .foreign_keys(true)
            .busy_timeout(BUSY)
            .statement_cache_capacity(STATEMENTS)
            .disable_statement_logging();
        let mut conn = connect
            .clone()
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .pragma("temp_store", "memory")
            .pragma("wal_autocheckpoint", CHECKPOINT_PAGES.to_string())
            .pragma("journal_size_limit", WAL_BYTES.to_string())
            .connect()
            .await?;
        check_version(&mut conn).await?;
        migrate(&mut conn, &path).await?;
        sqlx::query(script::MUST).execute(&mut conn).await?;
        let (key, stream_id) = identity(&mut conn, &home.join("key")).await?;
        let shared = shared(&mut conn).await?;
        let key = Arc::new(key);
        let readers = SqlitePoolOptions::new()
            .max_connections(READERS)
            // A reader that waits for its turn is not an error.
            .acquire_timeout(Duration::from_secs(600))
            .test_before_acquire(false)
            .connect_lazy_with(connect.read_only(true));
        let cache = Arc::new(Cache::default());
        let writer =
            Writer { conn, key: Arc::clone(&key), sessions: HashMap::new(), cache: Arc::clone(&cache) };
        let writer = Queue::spawn(writer, options.on_commit);
        let blobs = Arc::new(Blobs::new(home));
        Ok(Self { writer, readers, cache, key, blobs, stream_id, shared })
    }

    pub(crate) async fn close(&self) {
        // Readers first: the last connection to close removes the write-ahead log, and must be able to write.
        self.readers.close().await;
        self.cache.clear();
        self.writer.close().await;
    }

    pub(crate) fn stream_id(&self) -> Uuid {
        self.stream_id
    }

    pub(crate) fn mark(&self) -> Option<String> {
        self.shared.as_ref()?;
        Some(self.stream_id.simple().to_string()[..8].to_owned())
    }

    pub(crate) fn shared_until(&self, session: Option<SessionId>) -> u64 {
        let name = session.map(|id| id.0.to_string()).unwrap_or_default();
        self.shared.as_ref().and_then(|shared| shared.get(&name)).copied().unwrap_or(0)
    }

    pub(crate) async fn commit(&self, commit: Commit) -> Result<Committed, CommitError> {
        self.writer.commit(commit).await
    }
}

/// An empty file, closed to others from its first moment; SQLite gives its companions the same mode.
fn create(path: &Path) -> Result<(), StoreError> {
    match OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
        Ok(_) => key::sync_folder_of(path),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
        Err(source) => Err(StoreError::Io { path: path.to_owned(), source }),
    }
}

async fn check_version(conn: &mut SqliteConnection) -> Result<(), StoreError> {
    let found: String = sqlx::query_scalar("SELECT sqlite_version()").fetch_one(conn).await?;
    if triple(&found) < triple(SQLITE_NEEDED) {
        return Err(StoreError::SqliteTooOld { found, needed: SQLITE_NEEDED });
    }
    Ok(())
}

/// A version as numbers; a part that is none counts as 0.
fn triple(version: &str) -> [u32; 3] {
    let mut parts = version.split('.').map(|part| part.parse().unwrap_or(0));
    std::array::from_fn(|_| parts.next().unwrap_or(0))
}

/// Brings the schema up to date. A newer one is refused before anything is written.
async fn migrate(conn: &mut SqliteConnection, path: &Path) -> Result<(), StoreError> {
    let known = MIGRATIONS.iter().map(|migration| migration.version).max().unwrap_or(0);
    let managed: bool = sqlx::query_scalar(
        "SELECT EXISTS (SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = '_sqlx_migrations')",
    )
    .fetch_one(&mut *conn)
    .await?;
    if managed {
        let found: Option<i64> =
            sqlx::query_scalar("SELECT max(version) FROM _sqlx_migrations").fetch_one(&mut *conn).await?;
        if let Some(found) = found.filter(|found| *found > known) {
            return Err(StoreError::NewerSchema { path: path.to_owned(), found, known });
        }
    }
    MIGRATIONS.run(conn).await.map_err(|source| StoreError::Migration { path: path.to_owned(), source })
}

/// The database's key and its stream id, which are made when it is new.
async fn identity(conn: &mut SqliteConnection, key_path: &Path) -> Result<(Key, Uuid), StoreError> {
    let meta = "SELECT value FROM meta WHERE name = $1";
    let check: Option<Vec<u8>> =
        sqlx::query_scalar(meta).bind("key_check").fetch_optional(&mut *conn).await?;
    let key = Key::open(key_path, check.as_deref())?;
    if check.is_none() {
        // Together: a database with a check has a stream id.
        let mut tx = conn.begin_with("BEGIN IMMEDIATE").await?;
        let add = "INSERT INTO meta (name, value) VALUES ($1, $2)";
        sqlx::query(add).bind("key_check").bind(key.check()?).execute(&mut *tx).await?;
        sqlx::query(add).bind("stream_id").bind(&Uuid::new_v4().as_bytes()[..]).execute(&mut *tx).await?;
        tx.commit().await?;
    }
    let stream: Vec<u8> = sqlx::query_scalar(meta).bind("stream_id").fetch_one(conn).await?;
    let stream_id = Uuid::from_slice(&stream).map_err(|_| columns::damaged("meta", "stream_id", &stream))?;
    Ok((key, stream_id))
}

/// What a backup says of the stream that it was copied from.
async fn shared(conn: &mut SqliteConnection) -> Result<Option<HashMap<String, u64>>, StoreError> {
    let json: Option<Vec<u8>> =
        sqlx::query_scalar("SELECT value FROM meta WHERE name = 'shared'").fetch_optional(conn).await?;
    json.map(|json| serde_json::from_slice(&json).map_err(|_| columns::damaged("meta", "shared", &json)))
        .transpose()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_compare_by_number() {
        for (version, fits) in [
            ("3.51.3", true),
            ("3.51.10", true),
            ("3.52.0", true),
            ("4.0", true),
            ("3.51.2", false),
            ("3.9.9", false),
            ("3.51", false),
        ] {
            assert_eq!(triple(version) >= triple(SQLITE_NEEDED), fits, "{version}");
        }
    }
}
