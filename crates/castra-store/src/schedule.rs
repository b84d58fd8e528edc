//! Schedules, launch blocks and definitions as the store has them. Refuses SQL and policy.

use castra_proto::api::Scope;
use castra_proto::task::Firing;
use castra_proto::{ScheduleId, Timestamp};

/// A schedule to be, or as it is.
#[derive(Clone, Debug, PartialEq)]
pub struct ScheduleRow {
    pub id: ScheduleId,
    /// Unique.
    pub name: String,
    pub enabled: bool,
    /// The next firing that nobody has seen to; None: never again, or off.
    pub next_at: Option<Timestamp>,
    pub by: String,
    /// Of whoever made it, then.
    pub scope: Scope,
    /// JSON, redacted; `Store::schedule_secrets` has the rest.
    pub spec: String,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
}

/// A definition that was put.
#[derive(Clone, Debug, PartialEq)]
pub struct DefinitionRow {
    pub name: String,
    /// JSON, redacted; `Store::definition_secrets` has the rest.
    pub definition: String,
    pub by: String,
    pub updated_at: Timestamp,
}

/// How a schedule's plan goes on: one transaction.
#[derive(Clone, Debug, PartialEq)]
pub struct Advance {
    pub id: ScheduleId,
    pub at: Timestamp,
    /// What `next_at` was when this was decided; refused when it is another one. None: not compared, not changed.
    pub from: Option<Timestamp>,
    pub to: Option<Timestamp>,
    pub firings: Vec<Firing>,
}
