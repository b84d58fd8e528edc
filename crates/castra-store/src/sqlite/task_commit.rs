//! The one transaction that changes a task. Refuses to know what a state means, but for who may be below whom.

use super::columns::{Columns, Spelled, damaged, json, signed, unsigned};
use super::tasks::live;
use crate::commit::NewServerEvent;
use crate::error::{StoreError, TaskError};
use crate::task::{NewTask, TaskCommit, TaskCommitted};
use castra_proto::task::TaskState;
use castra_proto::{TaskId, Timestamp};
use sqlx::Row;
use sqlx::sqlite::SqliteConnection;

/// The inner error: refused, and the transaction is to be rolled back.
pub(super) async fn apply(
    conn: &mut SqliteConnection,
    commit: &TaskCommit,
    sealed: Option<Vec<u8>>,
) -> Result<Result<TaskCommitted, TaskError>, StoreError> {
    let found = sqlx::query("SELECT no, head, request_hash, state, name, parent FROM tasks WHERE id = $1")
        .bind(commit.task.spelled())
        .fetch_optional(&mut *conn)
        .await?;
    let (no, head) = match (&commit.create, found) {
        (Some(new), Some(row)) => {
            let known = Columns::of("tasks", &row).hash("request_hash")?;
            let head = unsigned(row.try_get("head")?);
            return Ok(match known == new.request_hash {
                true => Ok(TaskCommitted { head, existed: true, server_head: None }),
                false => Err(TaskError::Mismatch),
            });
        }
        (Some(new), None) => {
            if let Some(refused) = may_begin(conn, new.name.as_deref(), new.parent).await? {
                return Ok(Err(refused));
            }
            (insert(conn, commit, new, sealed).await?, 0)
        }
        (None, None) => return Ok(Err(TaskError::NoTask(commit.task))),
        (None, Some(row)) => {
            let head = unsigned(row.try_get("head")?);
            // A child that came in between is to be seen before its parent is over, or begins anew.
            let leaves = commit.state.is_final() || commit.state == TaskState::Queued;
            if commit.head != Some(head) || leaves && has_live(conn, commit.task).await? {
                return Ok(Err(TaskError::Moved(head)));
            }
            let columns = Columns::of("tasks", &row);
            let was_over = columns.named("state", TaskState::parse)?.is_final();
            if was_over && commit.state == TaskState::Queued {
                let name: Option<String> = columns.get("name")?;
                if let Some(refused) = may_begin(conn, name.as_deref(), columns.parse_opt("parent")?).await? {
                    return Ok(Err(refused));
                }
            }
            (row.try_get("no")?, head)
        }
    };
    let mut seq = head;
    for event in &commit.events {
        seq += 1;
        sqlx::query(
            "INSERT INTO task_events (task_no, seq, at, attempt, kind, level, message, data)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
        )
        .bind(no)
        .bind(signed(seq))
        .bind(event.at.0)
        .bind(event.attempt)
        .bind(event.kind.as_str())
        .bind(event.level.as_str())
        .bind(&event.message)
        .bind(json(&event.data))
        .execute(&mut *conn)
        .await?;
    }
    for one in &commit.deliverables {
        sqlx::query(
            "INSERT INTO deliverables (task_no, path, version, size, sha256, media_type, at, attempt)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
        )
        .bind(no)
        .bind(&one.path)
        .bind(one.version)
        .bind(signed(one.size))
        .bind(&one.sha256)
        .bind(&one.media_type)
        .bind(one.at.0)
        .bind(one.attempt)
        .execute(&mut *conn)
        .await?;
    }
    sqlx::query(
        "UPDATE tasks SET state = $2, session = $3, view = $4, head = $5, updated_at = $6 WHERE no = $1",
    )
    .bind(no)
    .bind(commit.state.as_str())
    .bind(commit.session.map(|id| id.spelled()))
    .bind(&commit.view)
    .bind(signed(seq))
    .bind(commit.at.0)
    .execute(&mut *conn)
    .await?;
    let server_head = announce(conn, commit.task, commit.at, &commit.server_events).await?;
    Ok(Ok(TaskCommitted { head: seq, existed: false, server_head }))
}

/// Into the server-wide sequence; the newest entry's number.
pub(super) async fn announce(
    conn: &mut SqliteConnection,
    task: TaskId,
    at: Timestamp,
    events: &[NewServerEvent],
) -> Result<Option<u64>, StoreError> {
    let mut newest = None;
    for event in events {
        let seq: i64 = sqlx::query_scalar(
            "INSERT INTO server_events (at, task, kind, data) VALUES ($1, $2, $3, $4) RETURNING seq",
        )
        .bind(at.0)
        .bind(task.spelled())
        .bind(&event.kind)
        .bind(json(&event.data))
        .fetch_one(&mut *conn)
        .await?;
        newest = Some(unsigned(seq));
    }
    Ok(newest)
}

async fn is_at_work(conn: &mut SqliteConnection, task: TaskId) -> Result<bool, StoreError> {
    let sql =
        concat!("SELECT EXISTS (SELECT 1 FROM tasks WHERE id = $1 AND state <> 'queued' AND ", live!(), ")");
    Ok(sqlx::query_scalar(sql).bind(task.spelled()).fetch_one(conn).await?)
}

async fn has_live(conn: &mut SqliteConnection, parent: TaskId) -> Result<bool, StoreError> {
    let sql = concat!("SELECT EXISTS (SELECT 1 FROM tasks WHERE parent = $1 AND ", live!(), ")");
    Ok(sqlx::query_scalar(sql).bind(parent.spelled()).fetch_one(conn).await?)
}

/// Why a task that is new, or was over, cannot be live now: its name is another's, or nobody is there to wait for it.
async fn may_begin(
    conn: &mut SqliteConnection,
    name: Option<&str>,
    parent: Option<TaskId>,
) -> Result<Option<TaskError>, StoreError> {
    if let Some(name) = name
        && let Some(by) = taken(conn, name).await?
    {
        return Ok(Some(TaskError::NameTaken { name: name.to_owned(), by }));
    }
    match parent {
        Some(parent) if !is_at_work(conn, parent).await? => Ok(Some(TaskError::ParentIdle(parent))),
        _ => Ok(None),
    }
}

/// Who bears the name already.
async fn taken(conn: &mut SqliteConnection, name: &str) -> Result<Option<TaskId>, StoreError> {
    let by: Option<String> =
        sqlx::query_scalar(concat!("SELECT id FROM tasks WHERE name = $1 AND ", live!(), " LIMIT 1"))
            .bind(name)
            .fetch_optional(conn)
            .await?;
    by.map(|id| id.parse().map_err(|_| damaged("tasks", "id", &id))).transpose()
}

async fn insert(
    conn: &mut SqliteConnection,
    commit: &TaskCommit,
    new: &NewTask,
    sealed: Option<Vec<u8>>,
) -> Result<i64, StoreError> {
    let no: i64 = sqlx::query_scalar(
        "INSERT INTO tasks (id, name, request_hash, state, priority, parent, labels, metadata, spec, secrets, view,
         created_at, updated_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $12) RETURNING no",
    )
    .bind(commit.task.spelled())
    .bind(&new.name)
    .bind(&new.request_hash[..])
    .bind(commit.state.as_str())
    .bind(new.priority)
    .bind(new.parent.map(|id| id.spelled()))
    .bind(json(&new.labels))
    .bind(json(&new.metadata))
    .bind(&new.spec)
    .bind(sealed)
    .bind(&commit.view)
    .bind(commit.at.0)
    .fetch_one(&mut *conn)
    .await?;
    for hook in &new.told {
        sqlx::query("INSERT INTO hook_places (task_no, hook) VALUES ($1, $2)")
            .bind(no)
            .bind(hook)
            .execute(&mut *conn)
            .await?;
    }
    Ok(no)
}
