//! Up to where the hooks of tasks have been told of events. Refuses to know what a hook is.

use super::columns::{Columns, Spelled, signed};
use super::{Sqlite, Writer};
use crate::error::StoreError;
use crate::task::HookPlace;
use castra_proto::{TaskId, Timestamp};
use sqlx::Row;
use sqlx::sqlite::SqliteRow;

impl Sqlite {
    pub(crate) async fn hooks_due(&self, limit: u32) -> Result<Vec<HookPlace>, StoreError> {
        let rows = sqlx::query(
            "SELECT p.hook, p.seq, p.tries, p.next_at, t.id FROM hook_places p JOIN tasks t ON t.no = p.task_no
             WHERE p.seq < t.head ORDER BY p.next_at, p.task_no, p.hook LIMIT $1",
        )
        .bind(limit)
        .fetch_all(&self.readers)
        .await?;
        rows.iter().map(place).collect()
    }

    pub(crate) async fn hooks_open(&self, task: TaskId) -> Result<bool, StoreError> {
        let open: i64 = sqlx::query_scalar(
            "SELECT EXISTS (SELECT 1 FROM hook_places p JOIN tasks t ON t.no = p.task_no
             WHERE t.id = $1 AND p.seq < t.head)",
        )
        .bind(task.spelled())
        .fetch_one(&self.readers)
        .await?;
        Ok(open != 0)
    }

    pub(crate) async fn place_hook(&self, place: HookPlace) -> Result<(), StoreError> {
        self.writer
            .job(move |writer: &mut Writer| {
                Box::pin(async move {
                    sqlx::query(
                        "UPDATE hook_places SET seq = $3, tries = $4, next_at = $5
                         WHERE task_no = (SELECT no FROM tasks WHERE id = $1) AND hook = $2",
                    )
                    .bind(place.task.spelled())
                    .bind(place.hook)
                    .bind(signed(place.seq))
                    .bind(place.tries)
                    .bind(place.next_at.0)
                    .execute(&mut writer.conn)
                    .await?;
                    Ok(())
                })
            })
            .await
    }
}

fn place(row: &SqliteRow) -> Result<HookPlace, StoreError> {
    let next_at = Timestamp(row.try_get("next_at")?);
    let row = Columns::of("hook_places", row);
    Ok(HookPlace {
        task: row.parse("id")?,
        hook: row.small("hook")?,
        seq: row.number("seq")?,
        tries: row.small("tries")?,
        next_at,
    })
}
