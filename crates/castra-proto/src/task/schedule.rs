//! Schedules: which task is made when, and what came of it. Refuses to understand a cron expression.

use crate::{ScheduleId, TaskId, TaskSpec, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;

/// `POST /schedules`: a task each time that the clock shows one of these times.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ScheduleSpec {
    /// Unique; its tasks bear it as the label `schedule`.
    pub name: String,
    /// Five fields (minute, hour, day, month, weekday), or six with seconds in front; or `@daily` and its like.
    pub cron: String,
    /// An IANA name; `UTC` when unset.
    #[serde(default = "utc")]
    #[cfg_attr(feature = "openapi", schema(default = "UTC"))]
    pub timezone: String,
    /// What is made. Either this or `definition`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task: Option<TaskSpec>,
    /// The definition that is launched, as it is then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub definition: Option<String>,
    /// Values of the definition's parameters.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[cfg_attr(feature = "openapi", schema(value_type = Object))]
    pub values: BTreeMap<String, Value>,
    #[serde(default)]
    pub missed: Missed,
    #[serde(default)]
    pub overlap: Overlap,
    #[serde(default = "yes")]
    #[cfg_attr(feature = "openapi", schema(default = true))]
    pub enabled: bool,
}

/// What happens with firings for which no daemon was there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum Missed {
    /// Nothing; unless it is less than a minute late.
    Skip,
    /// The newest one is made up for.
    #[default]
    Once,
    /// The newest `max` of them are, at most 1000.
    All { max: u32 },
}

/// What happens when it fires while a task of an earlier firing is not over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum Overlap {
    /// No task is made, and the schedule remembers why.
    #[default]
    Skip,
    /// The task waits until those before it are over.
    Queue,
    /// It runs beside them.
    Allow,
}

/// `PATCH /schedules/{name}`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SchedulePatch {
    /// Times that pass while it is off are not made up for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub enabled: Option<bool>,
}

/// A schedule as it is shown.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Schedule {
    pub id: ScheduleId,
    pub enabled: bool,
    /// Who made it: its tasks are made in their name, with the scope that they had then.
    pub by: String,
    /// The next five times; none when it is off, or over.
    pub next: Vec<Timestamp>,
    /// What came of the last ones, newest first; at most 20.
    pub last: Vec<Firing>,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
    /// Secret values are `***`.
    pub spec: ScheduleSpec,
}

/// One time that a schedule fired, or should have.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Firing {
    /// The time on its plan; of one by hand, when that was.
    pub at: Timestamp,
    /// When it was seen to.
    pub seen_at: Timestamp,
    pub outcome: FiringOutcome,
    pub task_id: Option<TaskId>,
    /// Why there is no task, or by whom it was asked for.
    pub message: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum FiringOutcome {
    /// A task was made.
    Made,
    /// The task of an earlier firing was not over.
    Overlapping,
    /// A launch block held it back.
    Blocked,
    /// It could not be made.
    Refused,
    /// Nobody was there, and it is not made up for. One entry stands for all that were missed together.
    Missed,
}

impl FiringOutcome {
    pub const ALL: [FiringOutcome; 5] =
        [Self::Made, Self::Overlapping, Self::Blocked, Self::Refused, Self::Missed];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Made => "made",
            Self::Overlapping => "overlapping",
            Self::Blocked => "blocked",
            Self::Refused => "refused",
            Self::Missed => "missed",
        }
    }

    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|outcome| outcome.as_str() == name)
    }
}

fn utc() -> String {
    "UTC".into()
}

fn yes() -> bool {
    true
}
