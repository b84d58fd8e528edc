//! Launch blocks and definitions: few rows, each written whole. Refuses to know what they mean.

use super::columns::{Columns, Spelled, json};
use super::{Sqlite, Writer};
use crate::error::StoreError;
use crate::schedule::DefinitionRow;
use castra_proto::task::LaunchBlock;
use castra_proto::{BlockId, Timestamp};
use serde_json::Value;
use sqlx::sqlite::SqliteRow;

const SECRETS: &str = "definitions.secrets";

impl Sqlite {
    pub(crate) async fn put_block(&self, block: LaunchBlock) -> Result<(), StoreError> {
        self.writer
            .job(move |writer: &mut Writer| {
                Box::pin(async move {
                    sqlx::query(
                        "INSERT INTO launch_blocks (id, filter, reason, until, given_by, created_at)
                         VALUES ($1, $2, $3, $4, $5, $6)",
                    )
                    .bind(block.id.spelled())
                    .bind(block.filter.as_ref().map(json))
                    .bind(&block.reason)
                    .bind(block.until.map(|at| at.0))
                    .bind(&block.by)
                    .bind(block.created_at.0)
                    .execute(&mut writer.conn)
                    .await?;
                    Ok(())
                })
            })
            .await
    }

    pub(crate) async fn blocks(&self) -> Result<Vec<LaunchBlock>, StoreError> {
        let rows = sqlx::query("SELECT * FROM launch_blocks ORDER BY created_at, id")
            .fetch_all(&self.readers)
            .await?;
        rows.iter().map(block).collect()
    }

    pub(crate) async fn delete_block(&self, id: BlockId) -> Result<bool, StoreError> {
        self.delete_one("DELETE FROM launch_blocks WHERE id = $1", id.spelled()).await
    }

    async fn delete_one(&self, sql: &'static str, key: String) -> Result<bool, StoreError> {
        self.writer
            .job(move |writer: &mut Writer| {
                Box::pin(async move {
                    let done = sqlx::query(sql).bind(key).execute(&mut writer.conn).await?;
                    Ok(done.rows_affected() > 0)
                })
            })
            .await
    }

    pub(crate) async fn put_definition(
        &self,
        row: DefinitionRow,
        secrets: Option<Value>,
    ) -> Result<(), StoreError> {
        self.writer
            .job(move |writer: &mut Writer| {
                Box::pin(async move {
                    let sealed = match &secrets {
                        Some(secrets) => {
                            Some(writer.key.seal_named(SECRETS, &row.name, json(secrets).as_bytes())?)
                        }
                        None => None,
                    };
                    sqlx::query(
                        "INSERT INTO definitions (name, definition, secrets, given_by, updated_at)
                         VALUES ($1, $2, $3, $4, $5) ON CONFLICT (name) DO UPDATE SET definition = excluded.definition,
                         secrets = excluded.secrets, given_by = excluded.given_by, updated_at = excluded.updated_at",
                    )
                    .bind(&row.name)
                    .bind(&row.definition)
                    .bind(sealed)
                    .bind(&row.by)
                    .bind(row.updated_at.0)
                    .execute(&mut writer.conn)
                    .await?;
                    Ok(())
                })
            })
            .await
    }

    pub(crate) async fn definitions(&self) -> Result<Vec<DefinitionRow>, StoreError> {
        let rows = sqlx::query("SELECT * FROM definitions ORDER BY name").fetch_all(&self.readers).await?;
        rows.iter().map(definition).collect()
    }

    pub(crate) async fn definition_secrets(&self, name: &str) -> Result<Option<Value>, StoreError> {
        let sealed: Option<Option<Vec<u8>>> =
            sqlx::query_scalar("SELECT secrets FROM definitions WHERE name = $1")
                .bind(name)
                .fetch_optional(&self.readers)
                .await?;
        self.unsealed(SECRETS, name, sealed.flatten())
    }

    pub(crate) async fn delete_definition(&self, name: &str) -> Result<bool, StoreError> {
        self.delete_one("DELETE FROM definitions WHERE name = $1", name.to_owned()).await
    }
}

fn block(row: &SqliteRow) -> Result<LaunchBlock, StoreError> {
    let row = Columns::of("launch_blocks", row);
    let until: Option<i64> = row.get("until")?;
    Ok(LaunchBlock {
        id: row.parse("id")?,
        filter: row.json_opt("filter")?,
        reason: row.get("reason")?,
        until: until.map(Timestamp),
        by: row.get("given_by")?,
        created_at: row.at("created_at")?,
    })
}

fn definition(row: &SqliteRow) -> Result<DefinitionRow, StoreError> {
    let row = Columns::of("definitions", row);
    Ok(DefinitionRow {
        name: row.get("name")?,
        definition: row.get("definition")?,
        by: row.get("given_by")?,
        updated_at: row.at("updated_at")?,
    })
}
