//! Values as columns and back: numbers, ids, names of enums, JSON. Refuses to guess at what it does not know.

use crate::error::StoreError;
use castra_proto::api::{IfBusy, Priority, Scope};
use castra_proto::spec::Mode;
use castra_proto::{
    BlockId, CommandId, MessageId, RunId, RunState, ScheduleId, SessionId, TaskId, TeamId, Timestamp, TokenId,
};
use serde::Serialize;
use serde_json::Value;
use sqlx::sqlite::SqliteRow;
use sqlx::{Decode, Row, Sqlite, Type};
use std::fmt::Debug;
use std::str::FromStr;

pub(super) fn damaged(table: &'static str, column: &'static str, value: impl Debug) -> StoreError {
    StoreError::Damaged { table, column, value: format!("{value:?}") }
}

/// SQLite has signed numbers only. Ours count from 0 and never come near the sign.
pub(super) fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

pub(super) fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

pub(super) fn narrow(number: i64) -> u32 {
    u32::try_from(number).unwrap_or(0)
}

/// A row with the name of its table, for errors that say where.
pub(super) struct Columns<'r> {
    row: &'r SqliteRow,
    table: &'static str,
}

impl<'r> Columns<'r> {
    pub(super) fn of(table: &'static str, row: &'r SqliteRow) -> Self {
        Self { row, table }
    }

    pub(super) fn get<T>(&self, column: &'static str) -> Result<T, StoreError>
    where
        T: Decode<'r, Sqlite> + Type<Sqlite>,
    {
        Ok(self.row.try_get(column)?)
    }

    pub(super) fn number(&self, column: &'static str) -> Result<u64, StoreError> {
        self.get(column).map(unsigned)
    }

    pub(super) fn small(&self, column: &'static str) -> Result<u32, StoreError> {
        self.get(column).map(narrow)
    }

    pub(super) fn at(&self, column: &'static str) -> Result<Timestamp, StoreError> {
        self.get(column).map(Timestamp)
    }

    pub(super) fn parse<T: FromStr>(&self, column: &'static str) -> Result<T, StoreError> {
        let text: &str = self.get(column)?;
        text.parse().map_err(|_| damaged(self.table, column, text))
    }

    pub(super) fn parse_opt<T: FromStr>(&self, column: &'static str) -> Result<Option<T>, StoreError> {
        let text: Option<&str> = self.get(column)?;
        text.map(|text| text.parse().map_err(|_| damaged(self.table, column, text))).transpose()
    }

    pub(super) fn named<T>(
        &self,
        column: &'static str,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Result<T, StoreError> {
        let text: &str = self.get(column)?;
        parse(text).ok_or_else(|| damaged(self.table, column, text))
    }

    pub(super) fn named_opt<T>(
        &self,
        column: &'static str,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Result<Option<T>, StoreError> {
        let text: Option<&str> = self.get(column)?;
        text.map(|text| parse(text).ok_or_else(|| damaged(self.table, column, text))).transpose()
    }

    pub(super) fn json<T: serde::de::DeserializeOwned>(&self, column: &'static str) -> Result<T, StoreError> {
        let text: &str = self.get(column)?;
        serde_json::from_str(text).map_err(|_| damaged(self.table, column, text))
    }

    pub(super) fn json_opt(&self, column: &'static str) -> Result<Option<Value>, StoreError> {
        let text: Option<&str> = self.get(column)?;
        text.map(|text| serde_json::from_str(text).map_err(|_| damaged(self.table, column, text))).transpose()
    }

    pub(super) fn hash(&self, column: &'static str) -> Result<[u8; 32], StoreError> {
        let bytes: &[u8] = self.get(column)?;
        bytes.try_into().map_err(|_| damaged(self.table, column, bytes))
    }
}

/// Ids are stored in their usual spelling.
pub(super) trait Spelled {
    fn spelled(&self) -> String;
}

macro_rules! spelled {
    ($($id:ty),*) => { $(impl Spelled for $id { fn spelled(&self) -> String { self.0.to_string() } })* };
}
spelled!(SessionId, RunId, MessageId, CommandId, TokenId, TaskId, TeamId, ScheduleId, BlockId);

/// JSON text of what cannot fail to be JSON: values, and maps with text as keys.
pub(super) fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).unwrap_or_else(|_| "null".to_owned())
}

pub(super) fn mode_name(mode: Mode) -> &'static str {
    match mode {
        Mode::Stream => "stream",
        Mode::Terminal => "terminal",
    }
}

pub(super) fn mode(name: &str) -> Option<Mode> {
    [Mode::Stream, Mode::Terminal].into_iter().find(|mode| mode_name(*mode) == name)
}

pub(super) fn if_busy_name(if_busy: IfBusy) -> &'static str {
    match if_busy {
        IfBusy::Queue => "queue",
        IfBusy::Reject => "reject",
        IfBusy::Steer => "steer",
        IfBusy::Interrupt => "interrupt",
    }
}

pub(super) fn if_busy(name: &str) -> Option<IfBusy> {
    [IfBusy::Queue, IfBusy::Reject, IfBusy::Steer, IfBusy::Interrupt]
        .into_iter()
        .find(|if_busy| if_busy_name(*if_busy) == name)
}

pub(super) fn priority_name(priority: Priority) -> &'static str {
    match priority {
        Priority::Now => "now",
        Priority::Next => "next",
        Priority::Later => "later",
    }
}

pub(super) fn priority(name: &str) -> Option<Priority> {
    [Priority::Now, Priority::Next, Priority::Later].into_iter().find(|p| priority_name(*p) == name)
}

pub(super) fn run_state(name: &str) -> Option<RunState> {
    RunState::parse(name)
}

pub(super) fn scope(name: &str) -> Option<Scope> {
    Scope::parse(name)
}

/// Ids that are listed where a beginning could be any of several.
pub(super) const AMBIGUOUS_SHOWN: i64 = 10;

/// What can be the beginning of an id. Names are looked up first, so that one that looks like it can be reached.
pub(super) fn as_prefix(wanted: &str) -> Option<String> {
    let prefix = wanted.to_ascii_lowercase();
    (prefix.len() >= 4 && prefix.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-')).then_some(prefix)
}
