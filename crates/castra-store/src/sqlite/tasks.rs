//! Tasks: what is read of them. Refuses to know what a state means.

use super::columns::{AMBIGUOUS_SHOWN, Columns, Spelled, as_prefix, json, signed};
use super::{Sqlite, Writer, task_commit};
use crate::error::{StoreError, TaskError};
use crate::rows::{Cursor, Listing};
use crate::task::{FoundTask, StoredTaskEvent, TaskCommit, TaskCommitted, TaskFilter, TaskRow};
use castra_proto::task::{Deliverable, Level, TaskEventKind, TaskState};
use castra_proto::{TaskId, Timestamp};
use serde_json::Value;
use sqlx::Connection;
use sqlx::sqlite::SqliteRow;

/// As the index `tasks_live` says it.
macro_rules! live {
    () => {
        "state NOT IN ('done', 'failed', 'cancelled')"
    };
}
pub(super) use live;

impl Sqlite {
    pub(crate) async fn commit_task(&self, commit: TaskCommit) -> Result<TaskCommitted, TaskError> {
        self.writer
            .job(move |writer: &mut Writer| {
                Box::pin(async move {
                    let sealed = match commit.create.as_ref().and_then(|new| new.secrets.as_ref()) {
                        Some(secrets) => Some(writer.key.seal_task(commit.task, json(secrets).as_bytes())?),
                        None => None,
                    };
                    let mut tx = writer.conn.begin_with("BEGIN IMMEDIATE").await?;
                    let outcome = task_commit::apply(&mut tx, &commit, sealed).await?;
                    match &outcome {
                        Ok(done) if !done.existed => tx.commit().await?,
                        _ => tx.rollback().await?,
                    }
                    Ok(outcome)
                })
            })
            .await?
    }

    pub(crate) async fn task(&self, id: TaskId) -> Result<Option<TaskRow>, StoreError> {
        let row = sqlx::query("SELECT * FROM tasks WHERE id = $1")
            .bind(id.spelled())
            .fetch_optional(&self.readers)
            .await?;
        row.as_ref().map(task).transpose()
    }

    pub(crate) async fn task_secrets(&self, id: TaskId) -> Result<Option<Value>, StoreError> {
        let sealed: Option<Option<Vec<u8>>> = sqlx::query_scalar("SELECT secrets FROM tasks WHERE id = $1")
            .bind(id.spelled())
            .fetch_optional(&self.readers)
            .await?;
        let Some(sealed) = sealed.flatten() else { return Ok(None) };
        let plain = self.key.open_task(id, &sealed)?;
        serde_json::from_slice(&plain).map(Some).map_err(|_| StoreError::TaskSecretsDamaged { task: id })
    }

    pub(crate) async fn find_task(&self, wanted: &str) -> Result<FoundTask, StoreError> {
        let one = |row: Option<TaskRow>| row.map_or(FoundTask::None, |row| FoundTask::One(Box::new(row)));
        if let Ok(id) = wanted.parse::<TaskId>() {
            return Ok(one(self.task(id).await?));
        }
        let named = sqlx::query(concat!(
            "SELECT * FROM tasks WHERE name = $1 ORDER BY ",
            live!(),
            " DESC, no DESC LIMIT 1"
        ))
        .bind(wanted)
        .fetch_optional(&self.readers)
        .await?;
        if let Some(row) = named {
            return Ok(one(Some(task(&row)?)));
        }
        let Some(prefix) = as_prefix(wanted) else { return Ok(FoundTask::None) };
        // 'g' comes after every character of an id.
        let ids: Vec<String> = sqlx::query_scalar(
            "SELECT id FROM tasks WHERE id >= $1 AND id < $1 || 'g' ORDER BY no DESC LIMIT $2",
        )
        .bind(&prefix)
        .bind(AMBIGUOUS_SHOWN)
        .fetch_all(&self.readers)
        .await?;
        let ids: Vec<TaskId> = ids.iter().filter_map(|id| id.parse().ok()).collect();
        match ids[..] {
            [] => Ok(FoundTask::None),
            [id] => Ok(one(self.task(id).await?)),
            _ => Ok(FoundTask::Ambiguous(ids)),
        }
    }

    pub(crate) async fn tasks(
        &self,
        filter: &TaskFilter,
        after: Option<Cursor>,
        limit: u32,
    ) -> Result<Listing<TaskRow>, StoreError> {
        // One more than asked for tells whether there is more.
        let mut rows = self.task_rows(filter, after, limit.saturating_add(1)).await?;
        let more = rows.len() > limit as usize;
        rows.truncate(limit as usize);
        let next = rows.last().filter(|_| more).map(|(cursor, _)| *cursor);
        Ok(Listing { items: rows.into_iter().map(|(_, row)| row).collect(), next })
    }

    pub(crate) async fn task_rows(
        &self,
        filter: &TaskFilter,
        after: Option<Cursor>,
        limit: u32,
    ) -> Result<Vec<(Cursor, TaskRow)>, StoreError> {
        let states: Vec<&str> = filter.states.iter().map(|state| state.as_str()).collect();
        let (label, value) = filter.label.as_ref().map(|(k, v)| (k.as_str(), v.as_str())).unzip();
        let rows = sqlx::query(concat!(
            "SELECT * FROM tasks WHERE CASE WHEN $1 <> '[]' THEN state IN (SELECT value FROM json_each($1))
             ELSE $2 OR ",
            live!(),
            " END
             AND ($3 IS NULL OR EXISTS (SELECT 1 FROM json_each(labels) l WHERE l.key = $3 AND l.value = $4))
             AND ($5 IS NULL OR parent = $5) AND ($6 IS NULL OR no < $6) ORDER BY no DESC LIMIT $7"
        ))
        .bind(json(&states))
        .bind(filter.all)
        .bind(label)
        .bind(value)
        .bind(filter.parent.map(|id| id.spelled()))
        .bind(after.map(|cursor| cursor.0))
        .bind(i64::from(limit))
        .fetch_all(&self.readers)
        .await?;
        rows.iter().map(|row| Ok((Cursor(Columns::of("tasks", row).get("no")?), task(row)?))).collect()
    }

    pub(crate) async fn live_tasks(&self) -> Result<Vec<TaskRow>, StoreError> {
        let rows = sqlx::query(concat!("SELECT * FROM tasks WHERE ", live!(), " ORDER BY priority DESC, no"))
            .fetch_all(&self.readers)
            .await?;
        rows.iter().map(task).collect()
    }

    pub(crate) async fn queue(&self, plain: u32) -> Result<Vec<TaskRow>, StoreError> {
        let rows = sqlx::query(concat!(
            "SELECT * FROM tasks WHERE ",
            live!(),
            " AND (state <> 'queued' OR parent IS NOT NULL OR waits = 1)
             UNION ALL SELECT * FROM (SELECT * FROM tasks WHERE state = 'queued' AND parent IS NULL AND waits = 0
             ORDER BY priority DESC, no LIMIT $1) ORDER BY priority DESC, no"
        ))
        .bind(i64::from(plain))
        .fetch_all(&self.readers)
        .await?;
        rows.iter().map(task).collect()
    }

    pub(crate) async fn is_waited_for(&self, id: TaskId) -> Result<bool, StoreError> {
        let sql = concat!(
            "SELECT EXISTS (SELECT 1 FROM tasks, json_each(view, '$.depends_on') d WHERE ",
            live!(),
            " AND state = 'queued' AND waits = 1 AND d.value = $1)"
        );
        Ok(sqlx::query_scalar(sql).bind(id.spelled()).fetch_one(&self.readers).await?)
    }

    pub(crate) async fn outlived_tasks(&self, at: Timestamp, limit: u32) -> Result<Vec<TaskId>, StoreError> {
        let ids: Vec<String> = sqlx::query_scalar(concat!(
            "SELECT id FROM tasks WHERE NOT (",
            live!(),
            ") AND (spec ->> '$.ephemeral' OR updated_at + (spec ->> '$.ttl_s') * 1000000 <= $1) ORDER BY no LIMIT $2"
        ))
        .bind(at.0)
        .bind(i64::from(limit))
        .fetch_all(&self.readers)
        .await?;
        Ok(ids.iter().filter_map(|id| id.parse().ok()).collect())
    }

    pub(crate) async fn child_tasks(&self, parent: TaskId) -> Result<Vec<TaskRow>, StoreError> {
        let rows = sqlx::query("SELECT * FROM tasks WHERE parent = $1 ORDER BY no")
            .bind(parent.spelled())
            .fetch_all(&self.readers)
            .await?;
        rows.iter().map(task).collect()
    }

    pub(crate) async fn task_events(
        &self,
        id: TaskId,
        after: u64,
        limit: u32,
    ) -> Result<Vec<StoredTaskEvent>, StoreError> {
        let rows = sqlx::query(
            "SELECT e.* FROM task_events e JOIN tasks t ON t.no = e.task_no WHERE t.id = $1 AND e.seq > $2
             ORDER BY e.seq LIMIT $3",
        )
        .bind(id.spelled())
        .bind(signed(after))
        .bind(i64::from(limit))
        .fetch_all(&self.readers)
        .await?;
        rows.iter().map(event).collect()
    }

    pub(crate) async fn deliverables(&self, id: TaskId) -> Result<Vec<Deliverable>, StoreError> {
        let rows = sqlx::query(
            "SELECT d.* FROM deliverables d JOIN tasks t ON t.no = d.task_no WHERE t.id = $1 ORDER BY d.path, d.version",
        )
        .bind(id.spelled())
        .fetch_all(&self.readers)
        .await?;
        rows.iter().map(deliverable).collect()
    }
}

fn task(row: &SqliteRow) -> Result<TaskRow, StoreError> {
    let row = Columns::of("tasks", row);
    Ok(TaskRow {
        id: row.parse("id")?,
        name: row.get("name")?,
        state: row.named("state", TaskState::parse)?,
        priority: row.get("priority")?,
        parent: row.parse_opt("parent")?,
        session: row.parse_opt("session")?,
        head: row.number("head")?,
        labels: row.json("labels")?,
        metadata: row.json("metadata")?,
        spec: row.get("spec")?,
        view: row.get("view")?,
        created_at: row.at("created_at")?,
        updated_at: row.at("updated_at")?,
    })
}

fn event(row: &SqliteRow) -> Result<StoredTaskEvent, StoreError> {
    let row = Columns::of("task_events", row);
    Ok(StoredTaskEvent {
        seq: row.number("seq")?,
        at: row.at("at")?,
        attempt: row.small("attempt")?,
        kind: row.named("kind", TaskEventKind::parse)?,
        level: row.named("level", Level::parse)?,
        message: row.get("message")?,
        data: row.json("data")?,
    })
}

fn deliverable(row: &SqliteRow) -> Result<Deliverable, StoreError> {
    let row = Columns::of("deliverables", row);
    Ok(Deliverable {
        path: row.get("path")?,
        version: row.small("version")?,
        size: row.number("size")?,
        sha256: row.get("sha256")?,
        media_type: row.get("media_type")?,
        at: row.get("at").map(Timestamp)?,
        attempt: row.small("attempt")?,
    })
}
