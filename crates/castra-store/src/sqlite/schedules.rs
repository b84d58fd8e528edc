//! Schedules and what came of their firings. Refuses to know when anything is due.

use super::columns::{Columns, Spelled, json, scope};
use super::{Sqlite, Writer};
use crate::error::StoreError;
use crate::schedule::{Advance, ScheduleRow};
use castra_proto::task::{Firing, FiringOutcome};
use castra_proto::{ScheduleId, TaskId, Timestamp};
use serde_json::Value;
use sqlx::sqlite::{SqliteConnection, SqliteRow};
use sqlx::{Connection, Row};

const SECRETS: &str = "schedules.secrets";
/// Of one schedule; older ones go, but for those whose tasks are not over.
const FIRINGS_KEPT: i64 = 2000;

impl Sqlite {
    pub(crate) async fn create_schedule(
        &self,
        row: ScheduleRow,
        secrets: Option<Value>,
    ) -> Result<bool, StoreError> {
        self.writer
            .job(move |writer: &mut Writer| {
                Box::pin(async move {
                    let id = row.id.spelled();
                    let sealed = match &secrets {
                        Some(secrets) => {
                            Some(writer.key.seal_named(SECRETS, &id, json(secrets).as_bytes())?)
                        }
                        None => None,
                    };
                    let done = sqlx::query(
                        "INSERT INTO schedules (id, name, enabled, next_at, given_by, scope, spec, secrets, created_at,
                         updated_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) ON CONFLICT (name) DO NOTHING",
                    )
                    .bind(id)
                    .bind(&row.name)
                    .bind(row.enabled)
                    .bind(row.next_at.map(|at| at.0))
                    .bind(&row.by)
                    .bind(row.scope.as_str())
                    .bind(&row.spec)
                    .bind(sealed)
                    .bind(row.created_at.0)
                    .bind(row.updated_at.0)
                    .execute(&mut writer.conn)
                    .await?;
                    Ok(done.rows_affected() > 0)
                })
            })
            .await
    }

    pub(crate) async fn schedules(&self) -> Result<Vec<ScheduleRow>, StoreError> {
        let rows = sqlx::query("SELECT * FROM schedules ORDER BY name").fetch_all(&self.readers).await?;
        rows.iter().map(schedule).collect()
    }

    pub(crate) async fn schedule(&self, name_or_id: &str) -> Result<Option<ScheduleRow>, StoreError> {
        let row = sqlx::query("SELECT * FROM schedules WHERE name = $1 OR id = $1")
            .bind(name_or_id)
            .fetch_optional(&self.readers)
            .await?;
        row.as_ref().map(schedule).transpose()
    }

    pub(crate) async fn schedule_secrets(&self, id: ScheduleId) -> Result<Option<Value>, StoreError> {
        let sealed: Option<Option<Vec<u8>>> =
            sqlx::query_scalar("SELECT secrets FROM schedules WHERE id = $1")
                .bind(id.spelled())
                .fetch_optional(&self.readers)
                .await?;
        self.unsealed(SECRETS, &id.spelled(), sealed.flatten())
    }

    pub(super) fn unsealed(
        &self,
        place: &'static str,
        name: &str,
        sealed: Option<Vec<u8>>,
    ) -> Result<Option<Value>, StoreError> {
        let Some(sealed) = sealed else { return Ok(None) };
        let plain = self.key.open_named(place, name, &sealed)?;
        serde_json::from_slice(&plain)
            .map(Some)
            .map_err(|_| StoreError::NamedSecretsDamaged { place, name: name.to_owned() })
    }

    pub(crate) async fn due_schedules(
        &self,
        at: Timestamp,
        limit: u32,
    ) -> Result<Vec<ScheduleRow>, StoreError> {
        let rows = sqlx::query(
            "SELECT * FROM schedules WHERE enabled AND next_at IS NOT NULL AND next_at <= $1 ORDER BY next_at LIMIT $2",
        )
        .bind(at.0)
        .bind(i64::from(limit))
        .fetch_all(&self.readers)
        .await?;
        rows.iter().map(schedule).collect()
    }

    pub(crate) async fn next_firing(&self) -> Result<Option<Timestamp>, StoreError> {
        let next: Option<i64> =
            sqlx::query_scalar("SELECT min(next_at) FROM schedules WHERE enabled AND next_at IS NOT NULL")
                .fetch_one(&self.readers)
                .await?;
        Ok(next.map(Timestamp))
    }

    pub(crate) async fn advance_schedule(&self, advance: Advance) -> Result<bool, StoreError> {
        self.writer
            .job(move |writer: &mut Writer| {
                Box::pin(async move {
                    let mut tx = writer.conn.begin_with("BEGIN IMMEDIATE").await?;
                    let done = apply(&mut tx, &advance).await?;
                    tx.commit().await?;
                    Ok(done)
                })
            })
            .await
    }

    pub(crate) async fn enable_schedule(
        &self,
        id: ScheduleId,
        enabled: bool,
        next_at: Option<Timestamp>,
        at: Timestamp,
    ) -> Result<bool, StoreError> {
        self.writer
            .job(move |writer: &mut Writer| {
                Box::pin(async move {
                    let done = sqlx::query(
                        "UPDATE schedules SET enabled = $2, next_at = $3, updated_at = $4 WHERE id = $1",
                    )
                    .bind(id.spelled())
                    .bind(enabled)
                    .bind(next_at.map(|at| at.0))
                    .bind(at.0)
                    .execute(&mut writer.conn)
                    .await?;
                    Ok(done.rows_affected() > 0)
                })
            })
            .await
    }

    pub(crate) async fn delete_schedule(&self, id: ScheduleId) -> Result<bool, StoreError> {
        self.writer
            .job(move |writer: &mut Writer| {
                Box::pin(async move {
                    let mut tx = writer.conn.begin_with("BEGIN IMMEDIATE").await?;
                    let id = id.spelled();
                    sqlx::query(
                        "DELETE FROM firings WHERE schedule_no = (SELECT no FROM schedules WHERE id = $1)",
                    )
                    .bind(&id)
                    .execute(&mut *tx)
                    .await?;
                    let done = sqlx::query("DELETE FROM schedules WHERE id = $1")
                        .bind(&id)
                        .execute(&mut *tx)
                        .await?;
                    tx.commit().await?;
                    Ok(done.rows_affected() > 0)
                })
            })
            .await
    }

    pub(crate) async fn firings(&self, id: ScheduleId, limit: u32) -> Result<Vec<Firing>, StoreError> {
        let rows = sqlx::query(
            "SELECT f.* FROM firings f JOIN schedules s ON s.no = f.schedule_no WHERE s.id = $1
             ORDER BY f.n DESC LIMIT $2",
        )
        .bind(id.spelled())
        .bind(i64::from(limit))
        .fetch_all(&self.readers)
        .await?;
        rows.iter().map(firing).collect()
    }

    pub(crate) async fn open_firings(&self, id: ScheduleId) -> Result<Vec<TaskId>, StoreError> {
        let rows = sqlx::query(
            "SELECT t.id FROM firings f JOIN schedules s ON s.no = f.schedule_no JOIN tasks t ON t.id = f.task
             WHERE s.id = $1 AND t.state NOT IN ('done', 'failed', 'cancelled') ORDER BY f.n",
        )
        .bind(id.spelled())
        .fetch_all(&self.readers)
        .await?;
        rows.iter().map(|row| Columns::of("tasks", row).parse("id")).collect()
    }
}

async fn apply(conn: &mut SqliteConnection, advance: &Advance) -> Result<bool, StoreError> {
    let found = sqlx::query("SELECT no, next_at, enabled FROM schedules WHERE id = $1")
        .bind(advance.id.spelled())
        .fetch_optional(&mut *conn)
        .await?;
    let Some(row) = found else { return Ok(false) };
    let (no, next_at, enabled): (i64, Option<i64>, bool) =
        (row.try_get("no")?, row.try_get("next_at")?, row.try_get("enabled")?);
    if let Some(from) = advance.from {
        if !enabled || next_at != Some(from.0) {
            return Ok(false);
        }
        sqlx::query("UPDATE schedules SET next_at = $2 WHERE no = $1")
            .bind(no)
            .bind(advance.to.map(|at| at.0))
            .execute(&mut *conn)
            .await?;
    }
    let mut n: i64 = sqlx::query_scalar("SELECT coalesce(max(n), 0) FROM firings WHERE schedule_no = $1")
        .bind(no)
        .fetch_one(&mut *conn)
        .await?;
    for firing in &advance.firings {
        n += 1;
        sqlx::query(
            "INSERT INTO firings (schedule_no, n, at, seen_at, outcome, task, message)
             VALUES ($1, $2, $3, $4, $5, $6, $7)",
        )
        .bind(no)
        .bind(n)
        .bind(firing.at.0)
        .bind(firing.seen_at.0)
        .bind(firing.outcome.as_str())
        .bind(firing.task_id.map(|id| id.spelled()))
        .bind(&firing.message)
        .execute(&mut *conn)
        .await?;
    }
    // One whose task is not over stays: by it the next firing knows that it would overlap.
    sqlx::query(
        "DELETE FROM firings WHERE schedule_no = $1 AND n <= $2 AND NOT EXISTS (SELECT 1 FROM tasks t
         WHERE t.id = firings.task AND t.state NOT IN ('done', 'failed', 'cancelled'))",
    )
    .bind(no)
    .bind(n - FIRINGS_KEPT)
    .execute(&mut *conn)
    .await?;
    Ok(true)
}

fn schedule(row: &SqliteRow) -> Result<ScheduleRow, StoreError> {
    let row = Columns::of("schedules", row);
    let next_at: Option<i64> = row.get("next_at")?;
    Ok(ScheduleRow {
        id: row.parse("id")?,
        name: row.get("name")?,
        enabled: row.get("enabled")?,
        next_at: next_at.map(Timestamp),
        by: row.get("given_by")?,
        scope: row.named("scope", scope)?,
        spec: row.get("spec")?,
        created_at: row.at("created_at")?,
        updated_at: row.at("updated_at")?,
    })
}

fn firing(row: &SqliteRow) -> Result<Firing, StoreError> {
    let row = Columns::of("firings", row);
    Ok(Firing {
        at: row.at("at")?,
        seen_at: row.at("seen_at")?,
        outcome: row.named("outcome", FiringOutcome::parse)?,
        task_id: row.parse_opt("task")?,
        message: row.get("message")?,
    })
}
