//! Whether the database is sound, and copies of it. Refuses to repair.

use super::Sqlite;
use crate::error::StoreError;
use crate::key;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection, SqliteJournalMode};
use sqlx::{ConnectOptions, Connection};
use std::fs::{self, File, OpenOptions};
use std::io::ErrorKind;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use uuid::Uuid;

/// What must hold beside SQLite's own rules: a query for rows that break it, and what to say of each.
const INVARIANTS: [(&str, &str); 8] = [
    (
        "events are numbered from 1 to the session's head, without gaps",
        "SELECT s.id FROM sessions s LEFT JOIN events e ON e.session_no = s.no WHERE s.removed_at IS NULL
         GROUP BY s.no HAVING count(e.seq) <> s.head OR min(e.seq) <> 1 OR max(e.seq) <> s.head",
    ),
    (
        "an event has its data in one place",
        "SELECT s.id || ' event ' || e.seq FROM events e JOIN sessions s ON s.no = e.session_no
         LEFT JOIN bodies b ON b.session_no = e.session_no AND b.seq = e.seq
         WHERE (e.data IS NULL) <> (b.seq IS NOT NULL) OR (e.size IS NULL) <> (b.seq IS NULL)",
    ),
    (
        "a body belongs to an event",
        "SELECT s.id || ' body ' || b.seq FROM bodies b JOIN sessions s ON s.no = b.session_no
         LEFT JOIN events e ON e.session_no = b.session_no AND e.seq = b.seq WHERE e.seq IS NULL",
    ),
    (
        "runs are numbered from 1 to the newest, and the session shows that one's state",
        "SELECT s.id FROM sessions s LEFT JOIN runs r ON r.session_no = s.no WHERE s.removed_at IS NULL
         GROUP BY s.no HAVING count(r.n) <> s.newest_run OR max(r.n) <> s.newest_run
         OR max(CASE WHEN r.n = s.newest_run THEN r.state END) <> s.state",
    ),
    (
        "a message names events of its session",
        "SELECT s.id || ' message ' || m.id FROM messages m JOIN sessions s ON s.no = m.session_no
         WHERE max(m.seq, coalesce(m.delivered_seq, 0), coalesce(m.result_seq, 0)) > s.head",
    ),
    (
        "a session has a spec and a view",
        "SELECT s.id FROM sessions s LEFT JOIN specs p ON p.session_no = s.no
         LEFT JOIN views v ON v.session_no = s.no WHERE p.session_no IS NULL OR v.session_no IS NULL",
    ),
    (
        "a task's events are numbered from 1 to its head, without gaps",
        "SELECT t.id FROM tasks t LEFT JOIN task_events e ON e.task_no = t.no
         GROUP BY t.no HAVING count(e.seq) <> t.head OR min(e.seq) <> 1 OR max(e.seq) <> t.head",
    ),
    (
        "a deliverable's versions are numbered from 1, without gaps",
        "SELECT t.id || ' ' || d.path FROM deliverables d JOIN tasks t ON t.no = d.task_no
         GROUP BY d.task_no, d.path HAVING count(*) <> max(d.version)",
    ),
];

impl Sqlite {
    pub(crate) async fn check(&self) -> Result<Vec<String>, StoreError> {
        // One snapshot for all of it: writing goes on meanwhile.
        let mut tx = self.readers.begin().await?;
        let mut wrong: Vec<String> = sqlx::query_scalar("PRAGMA integrity_check").fetch_all(&mut *tx).await?;
        wrong.retain(|line| line != "ok");
        let orphans: Vec<(String, Option<i64>, String)> =
            sqlx::query_as("SELECT \"table\", rowid, parent FROM pragma_foreign_key_check")
                .fetch_all(&mut *tx)
                .await?;
        wrong.extend(orphans.into_iter().map(|(table, row, parent)| {
            format!("row {} of {table} belongs to nothing in {parent}", row.unwrap_or_default())
        }));
        for (rule, query) in INVARIANTS {
            let breaks: Vec<String> = sqlx::query_scalar(query).fetch_all(&mut *tx).await?;
            wrong.extend(breaks.into_iter().map(|what| format!("{what}: {rule}, but not here")));
        }
        tx.rollback().await?;
        Ok(wrong)
    }

    pub(crate) async fn backup(&self, path: &Path) -> Result<(), StoreError> {
        let io = |source| StoreError::Io { path: path.to_owned(), source };
        // Made here, empty, since SQLite would let others read it.
        match OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                return Err(StoreError::BackupExists { path: path.to_owned() });
            }
            Err(error) => return Err(io(error)),
        }
        let copied = self.copy(path).await;
        if copied.is_err() {
            // Half a copy must not be taken for one; the first error is the one to report.
            let _ = fs::remove_file(path);
        }
        copied?;
        File::open(path).and_then(|file| file.sync_all()).map_err(io)?;
        key::sync_folder_of(path)
    }

    async fn copy(&self, path: &Path) -> Result<(), StoreError> {
        let mut conn = self.readers.acquire().await?;
        let name = path.to_str().ok_or_else(|| StoreError::Io {
            path: path.to_owned(),
            source: std::io::Error::new(ErrorKind::InvalidInput, "the name is not UTF-8"),
        })?;
        sqlx::query("VACUUM INTO $1").bind(name).execute(&mut *conn).await?;
        let mut copy = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(false)
            // No companions beside a backup.
            .journal_mode(SqliteJournalMode::Delete)
            .disable_statement_logging()
            .connect()
            .await?;
        rename_stream(&mut copy).await?;
        Ok(copy.close().await?)
    }
}

/// What is written into the copy is another stream, and shares with this one what there is now: each session's head,
/// and the server's under the empty name.
async fn rename_stream(copy: &mut SqliteConnection) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT OR REPLACE INTO meta (name, value) SELECT 'shared', CAST(json_group_object(id, head) AS BLOB) FROM (
         SELECT id, head FROM sessions WHERE removed_at IS NULL
         UNION ALL SELECT '', coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'server_events'), 0))",
    )
    .execute(&mut *copy)
    .await?;
    sqlx::query("UPDATE meta SET value = $1 WHERE name = 'stream_id'")
        .bind(&Uuid::new_v4().as_bytes()[..])
        .execute(copy)
        .await?;
    Ok(())
}
