//! Teams: the one transaction that changes them, and reads. Refuses to know what an agent is.

use super::columns::{AMBIGUOUS_SHOWN, Columns, Spelled, as_prefix, damaged, json, signed, unsigned};
use super::{Sqlite, Writer};
use crate::error::{StoreError, TeamError};
use crate::rows::{Cursor, Listing};
use crate::team::{FoundTeam, NewTeam, TeamCommit, TeamCommitted, TeamRow};
use castra_proto::{SessionId, TeamId};
use serde_json::Value;
use sqlx::sqlite::{SqliteConnection, SqliteRow};
use sqlx::{Connection, Row};

impl Sqlite {
    pub(crate) async fn commit_team(&self, commit: TeamCommit) -> Result<TeamCommitted, TeamError> {
        self.writer
            .job(move |writer: &mut Writer| {
                Box::pin(async move {
                    let sealed = match commit.create.as_ref().and_then(|new| new.secrets.as_ref()) {
                        Some(secrets) => Some(writer.key.seal_team(commit.team, json(secrets).as_bytes())?),
                        None => None,
                    };
                    let mut tx = writer.conn.begin_with("BEGIN IMMEDIATE").await?;
                    let outcome = apply(&mut tx, &commit, sealed).await?;
                    match &outcome {
                        Ok(done) if !done.existed => tx.commit().await?,
                        _ => tx.rollback().await?,
                    }
                    Ok(outcome)
                })
            })
            .await?
    }

    pub(crate) async fn team(&self, id: TeamId) -> Result<Option<TeamRow>, StoreError> {
        let row = sqlx::query("SELECT * FROM teams WHERE id = $1")
            .bind(id.spelled())
            .fetch_optional(&self.readers)
            .await?;
        row.as_ref().map(team).transpose()
    }

    pub(crate) async fn team_secrets(&self, id: TeamId) -> Result<Option<Value>, StoreError> {
        let sealed: Option<Option<Vec<u8>>> = sqlx::query_scalar("SELECT secrets FROM teams WHERE id = $1")
            .bind(id.spelled())
            .fetch_optional(&self.readers)
            .await?;
        let Some(sealed) = sealed.flatten() else { return Ok(None) };
        let plain = self.key.open_team(id, &sealed)?;
        serde_json::from_slice(&plain).map(Some).map_err(|_| StoreError::TeamSecretsDamaged { team: id })
    }

    pub(crate) async fn find_team(&self, wanted: &str) -> Result<FoundTeam, StoreError> {
        let one = |row: Option<TeamRow>| row.map_or(FoundTeam::None, |row| FoundTeam::One(Box::new(row)));
        if let Ok(id) = wanted.parse::<TeamId>() {
            return Ok(one(self.team(id).await?));
        }
        let named = sqlx::query("SELECT * FROM teams WHERE name = $1")
            .bind(wanted)
            .fetch_optional(&self.readers)
            .await?;
        if let Some(row) = named {
            return Ok(one(Some(team(&row)?)));
        }
        let Some(prefix) = as_prefix(wanted) else { return Ok(FoundTeam::None) };
        // 'g' comes after every character of an id.
        let ids: Vec<String> = sqlx::query_scalar(
            "SELECT id FROM teams WHERE id >= $1 AND id < $1 || 'g' ORDER BY no DESC LIMIT $2",
        )
        .bind(&prefix)
        .bind(AMBIGUOUS_SHOWN)
        .fetch_all(&self.readers)
        .await?;
        let ids: Vec<TeamId> = ids.iter().filter_map(|id| id.parse().ok()).collect();
        match ids[..] {
            [] => Ok(FoundTeam::None),
            [id] => Ok(one(self.team(id).await?)),
            _ => Ok(FoundTeam::Ambiguous(ids)),
        }
    }

    pub(crate) async fn teams(
        &self,
        after: Option<Cursor>,
        limit: u32,
    ) -> Result<Listing<TeamRow>, StoreError> {
        // One more than asked for tells whether there is more.
        let mut rows =
            sqlx::query("SELECT * FROM teams WHERE $1 IS NULL OR no < $1 ORDER BY no DESC LIMIT $2")
                .bind(after.map(|cursor| cursor.0))
                .bind(i64::from(limit) + 1)
                .fetch_all(&self.readers)
                .await?;
        let more = rows.len() > limit as usize;
        rows.truncate(limit as usize);
        let next = match rows.last() {
            Some(last) if more => Some(Cursor(Columns::of("teams", last).get("no")?)),
            _ => None,
        };
        Ok(Listing { items: rows.iter().map(team).collect::<Result<_, _>>()?, next })
    }

    /// Whether there was one.
    pub(crate) async fn remove_team(&self, id: TeamId) -> Result<bool, StoreError> {
        self.writer
            .job(move |writer: &mut Writer| {
                Box::pin(async move {
                    let done = sqlx::query("DELETE FROM teams WHERE id = $1")
                        .bind(id.spelled())
                        .execute(&mut writer.conn)
                        .await?;
                    Ok(done.rows_affected() > 0)
                })
            })
            .await
    }

    /// The result that came last.
    pub(crate) async fn newest_result(&self, session: SessionId) -> Result<Option<Value>, StoreError> {
        let row = sqlx::query(
            "SELECT m.result FROM sessions s JOIN messages m ON m.session_no = s.no
             WHERE s.id = $1 AND s.removed_at IS NULL AND m.result IS NOT NULL
             ORDER BY m.result_seq DESC, m.seq DESC LIMIT 1",
        )
        .bind(session.spelled())
        .fetch_optional(&self.readers)
        .await?;
        row.as_ref().map(|row| Columns::of("messages", row).json("result")).transpose()
    }
}

/// The inner error: refused, and the transaction is to be rolled back.
async fn apply(
    conn: &mut SqliteConnection,
    commit: &TeamCommit,
    sealed: Option<Vec<u8>>,
) -> Result<Result<TeamCommitted, TeamError>, StoreError> {
    let found = sqlx::query("SELECT head, request_hash FROM teams WHERE id = $1")
        .bind(commit.team.spelled())
        .fetch_optional(&mut *conn)
        .await?;
    match (&commit.create, found) {
        (Some(new), Some(row)) => {
            let known = Columns::of("teams", &row).hash("request_hash")?;
            let head = unsigned(row.try_get("head")?);
            Ok(match known == new.request_hash {
                true => Ok(TeamCommitted { head, existed: true }),
                false => Err(TeamError::Mismatch),
            })
        }
        (Some(new), None) => match taken(conn, new).await? {
            Some(by) => Ok(Err(TeamError::NameTaken { name: new.name.clone().unwrap_or_default(), by })),
            None => {
                insert(conn, commit, new, sealed).await?;
                Ok(Ok(TeamCommitted { head: 1, existed: false }))
            }
        },
        (None, None) => Ok(Err(TeamError::NoTeam(commit.team))),
        (None, Some(row)) => {
            let head = unsigned(row.try_get("head")?);
            if commit.head != Some(head) {
                return Ok(Err(TeamError::Moved(head)));
            }
            sqlx::query("UPDATE teams SET view = $2, head = $3, updated_at = $4 WHERE id = $1")
                .bind(commit.team.spelled())
                .bind(&commit.view)
                .bind(signed(head + 1))
                .bind(commit.at.0)
                .execute(&mut *conn)
                .await?;
            Ok(Ok(TeamCommitted { head: head + 1, existed: false }))
        }
    }
}

/// Who bears the name already.
async fn taken(conn: &mut SqliteConnection, new: &NewTeam) -> Result<Option<TeamId>, StoreError> {
    let Some(name) = &new.name else { return Ok(None) };
    let by: Option<String> =
        sqlx::query_scalar("SELECT id FROM teams WHERE name = $1").bind(name).fetch_optional(conn).await?;
    by.map(|id| id.parse().map_err(|_| damaged("teams", "id", &id))).transpose()
}

async fn insert(
    conn: &mut SqliteConnection,
    commit: &TeamCommit,
    new: &NewTeam,
    sealed: Option<Vec<u8>>,
) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO teams (id, name, request_hash, head, spec, secrets, view, created_at, updated_at)
         VALUES ($1, $2, $3, 1, $4, $5, $6, $7, $7)",
    )
    .bind(commit.team.spelled())
    .bind(&new.name)
    .bind(&new.request_hash[..])
    .bind(&new.spec)
    .bind(sealed)
    .bind(&commit.view)
    .bind(commit.at.0)
    .execute(conn)
    .await?;
    Ok(())
}

fn team(row: &SqliteRow) -> Result<TeamRow, StoreError> {
    let row = Columns::of("teams", row);
    Ok(TeamRow {
        id: row.parse("id")?,
        name: row.get("name")?,
        head: row.number("head")?,
        spec: row.get("spec")?,
        view: row.get("view")?,
        created_at: row.at("created_at")?,
        updated_at: row.at("updated_at")?,
    })
}
