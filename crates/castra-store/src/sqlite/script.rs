//! Several statements as one trip to SQLite's thread. Refuses their meaning.
//!
//! sqlx keeps a thread for each connection, and a trip there and back costs two task switches: more than what
//! SQLite itself needs for a commit (BENCHMARKS.md, "turn"). A script is sent, prepared and kept as one text.

use crate::error::StoreError;
use futures::TryStreamExt;
use sqlx::sqlite::{SqliteArguments, SqliteConnection, SqliteRow};
use sqlx::{Arguments, AssertSqlSafe, Either, Encode, Executor, Sqlite, Type};

/// A table without rows in which a row cannot be: what fails to insert one ends the script.
pub(super) const MUST: &str = "CREATE TEMP TABLE must (holds INTEGER NOT NULL)";

/// Statements in order, and the values of their `?` in order.
#[derive(Default)]
pub(super) struct Script<C> {
    sql: String,
    values: SqliteArguments,
    statements: usize,
    /// Statements that may fail for a reason that has a name, by their index.
    checks: Vec<(usize, C)>,
    failed: Option<StoreError>,
}

/// Why a script ended early. What ran before the statement that failed is still in the transaction.
#[derive(Debug)]
pub(super) enum Stopped<C> {
    /// This statement broke a constraint.
    Check(C, StoreError),
    Store(StoreError),
}

impl<C> Stopped<C> {
    pub(super) fn into_store(self) -> StoreError {
        match self {
            Self::Check(_, error) | Self::Store(error) => error,
        }
    }
}

impl<C> Script<C> {
    pub(super) fn new() -> Self {
        Self {
            sql: String::with_capacity(1024),
            values: SqliteArguments::default(),
            statements: 0,
            checks: Vec::new(),
            failed: None,
        }
    }

    /// Adds a statement, without `;`. Its values are bound next, one for each `?`.
    pub(super) fn say(&mut self, sql: &str) -> &mut Self {
        self.sql.push_str(sql);
        self.sql.push_str(";\n");
        self.statements += 1;
        self
    }

    pub(super) fn bind<'q, T: Encode<'q, Sqlite> + Type<Sqlite>>(&mut self, value: T) -> &mut Self {
        if let Err(error) = self.values.add(value) {
            self.failed.get_or_insert(StoreError::Database(sqlx::Error::Encode(error)));
        }
        self
    }

    /// A broken constraint in the statement just added means this.
    pub(super) fn or(&mut self, check: C) {
        self.checks.push((self.statements - 1, check));
    }

    /// The statement just added must have changed a row.
    pub(super) fn changes_or(&mut self, check: C) {
        self.say("INSERT INTO must SELECT NULL WHERE changes() = 0").or(check);
    }

    /// Runs all of it, or up to the first statement that fails. All rows that were returned, in order.
    pub(super) async fn run(self, conn: &mut SqliteConnection) -> Result<Vec<SqliteRow>, Stopped<C>> {
        if let Some(error) = self.failed {
            return Err(Stopped::Store(error));
        }
        let mut rows = Vec::new();
        let mut done = 0;
        // Read to its end: SQLite's thread stops where nobody listens.
        let mut results = conn.fetch_many(sqlx::query_with(AssertSqlSafe(self.sql), self.values));
        loop {
            match results.try_next().await {
                Ok(Some(Either::Left(_))) => done += 1,
                Ok(Some(Either::Right(row))) => rows.push(row),
                Ok(None) => return Ok(rows),
                Err(error) => {
                    let broken =
                        matches!(&error, sqlx::Error::Database(inner) if is_constraint(inner.as_ref()));
                    let check = self.checks.into_iter().find(|(at, _)| broken && *at == done);
                    return Err(match check {
                        Some((_, check)) => Stopped::Check(check, error.into()),
                        None => Stopped::Store(error.into()),
                    });
                }
            }
        }
    }
}

fn is_constraint(error: &dyn sqlx::error::DatabaseError) -> bool {
    !matches!(error.kind(), sqlx::error::ErrorKind::Other)
}
