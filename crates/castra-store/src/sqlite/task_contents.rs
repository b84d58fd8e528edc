//! The contents of tasks, and how tasks go with all that they have. Refuses to know what a content is.

use super::columns::{Spelled, json, unsigned};
use super::{Sqlite, Writer, task_commit, tasks::live};
use crate::commit::NewServerEvent;
use crate::error::{StoreError, TaskError};
use bytes::Bytes;
use castra_proto::{TaskId, Timestamp};
use serde_json::Value;
use sqlx::sqlite::SqliteConnection;
use sqlx::{Connection, Row};
use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;

impl Sqlite {
    pub(crate) async fn put_blob(&self, task: TaskId, bytes: Bytes) -> Result<String, StoreError> {
        let (key, blobs) = (Arc::clone(&self.key), Arc::clone(&self.blobs));
        blocking(move || blobs.put(&key, task, &bytes)).await
    }

    pub(crate) async fn blob(&self, task: TaskId, sha256: String) -> Result<Option<Bytes>, StoreError> {
        let (key, blobs) = (Arc::clone(&self.key), Arc::clone(&self.blobs));
        blocking(move || blobs.get(&key, task, &sha256)).await
    }

    pub(crate) async fn sweep_blobs(&self) -> Result<(), StoreError> {
        let known = match self.shared {
            // Restored from a backup: whoever it does not know may be newer, and somebody may want them yet.
            Some(_) => None,
            None => {
                let ids: Vec<String> =
                    sqlx::query_scalar("SELECT id FROM tasks").fetch_all(&self.readers).await?;
                Some(ids.iter().filter_map(|id| id.parse().ok()).collect::<HashSet<TaskId>>())
            }
        };
        let blobs = Arc::clone(&self.blobs);
        blocking(move || blobs.sweep(known.as_ref())).await
    }

    pub(crate) async fn remove_tasks(
        &self,
        tasks: Vec<(TaskId, u64)>,
        at: Timestamp,
    ) -> Result<Option<u64>, TaskError> {
        let blobs = Arc::clone(&self.blobs);
        let removed = self.writer.job(move |writer: &mut Writer| {
            Box::pin(async move {
                let mut tx = writer.conn.begin_with("BEGIN IMMEDIATE").await?;
                let server_head = match remove(&mut tx, &tasks, at).await? {
                    Ok(server_head) => server_head,
                    Err(refused) => {
                        tx.rollback().await?;
                        return Ok(Err(refused));
                    }
                };
                tx.commit().await?;
                // Rows first, and no other commit in between: one of the same id may be made next. What cannot be moved
                // now, nor removed below, is swept when the store is opened again.
                let gone = tasks.iter().filter_map(|(task, _)| blobs.set_aside(*task).ok().flatten());
                Ok(Ok((server_head, gone.collect::<Vec<PathBuf>>())))
            })
        });
        let (server_head, gone) = removed.await??;
        let clear = move || {
            for folder in gone {
                let _ = std::fs::remove_dir_all(folder);
            }
            Ok(())
        };
        blocking(clear).await?;
        Ok(server_head)
    }
}

/// The inner error: refused, and the transaction is to be rolled back.
async fn remove(
    conn: &mut SqliteConnection,
    tasks: &[(TaskId, u64)],
    at: Timestamp,
) -> Result<Result<Option<u64>, TaskError>, StoreError> {
    let mut numbers = Vec::with_capacity(tasks.len());
    for (id, head) in tasks {
        let sql = concat!("SELECT no, head, ", live!(), " FROM tasks WHERE id = $1");
        let row = sqlx::query(sql).bind(id.spelled()).fetch_optional(&mut *conn).await?;
        let Some(row) = row else { return Ok(Err(TaskError::NoTask(*id))) };
        let (found, is_live): (u64, bool) = (unsigned(row.try_get(1)?), row.try_get(2)?);
        if found != *head || is_live {
            return Ok(Err(TaskError::Moved(found)));
        }
        numbers.push(row.try_get::<i64, _>(0)?);
    }
    let ids: Vec<String> = tasks.iter().map(|(id, _)| id.spelled()).collect();
    // One that was made for one of them meanwhile would have nobody above it.
    let sql = "SELECT EXISTS (SELECT 1 FROM tasks WHERE parent IN (SELECT value FROM json_each($1))
               AND id NOT IN (SELECT value FROM json_each($1)))";
    if sqlx::query_scalar(sql).bind(json(&ids)).fetch_one(&mut *conn).await? {
        return Ok(Err(TaskError::Moved(tasks.first().map_or(0, |(_, head)| *head))));
    }
    for sql in [
        "DELETE FROM hook_places WHERE task_no IN (SELECT value FROM json_each($1))",
        "DELETE FROM deliverables WHERE task_no IN (SELECT value FROM json_each($1))",
        "DELETE FROM task_events WHERE task_no IN (SELECT value FROM json_each($1))",
        "DELETE FROM tasks WHERE no IN (SELECT value FROM json_each($1))",
    ] {
        sqlx::query(sql).bind(json(&numbers)).execute(&mut *conn).await?;
    }
    let mut server_head = None;
    // Those below first, as they were made last.
    for (id, _) in tasks.iter().rev() {
        let removed = [NewServerEvent { kind: "task_removed".into(), data: Value::Null }];
        server_head = task_commit::announce(&mut *conn, *id, at, &removed).await?;
    }
    Ok(Ok(server_head))
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    tokio::task::spawn_blocking(work).await.map_err(|_| StoreError::Closed)?
}
