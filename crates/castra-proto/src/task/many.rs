//! What concerns many tasks at once: ending all that a filter means, and launch blocks. Refuses to understand a filter:
//! here it is JSON.

use crate::{BlockId, TaskId, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// `POST /tasks/cancel`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct CancelTasks {
    /// Which of those that are not over; it must compare something.
    #[cfg_attr(feature = "openapi", schema(value_type = Object))]
    pub filter: Value,
    /// For whoever looks later.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Seconds that each agent has to end its turn by itself; 5 when unset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grace_s: Option<u64>,
    /// Seconds that the answer may wait for their ends, up to 3600.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wait_s: Option<u64>,
}

/// What became of `POST /tasks/cancel`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct CancelledTasks {
    /// All that were asked to end, oldest first.
    pub asked: Vec<TaskId>,
    /// Those of them that were not over yet when this was answered.
    pub open: Vec<TaskId>,
    /// Those that the filter means too, and the caller may not cancel.
    pub refused: Vec<TaskId>,
}

/// `POST /launch-blocks`: from now on no task that it means begins.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct CreateBlock {
    /// Which tasks; every one when unset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<Object>))]
    pub filter: Option<Value>,
    /// What those are told who want to launch one.
    pub reason: String,
    /// When it ends by itself; unset: when it is lifted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
}

/// A launch block that holds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct LaunchBlock {
    pub id: BlockId,
    #[cfg_attr(feature = "openapi", schema(value_type = Option<Object>))]
    pub filter: Option<Value>,
    pub reason: String,
    pub until: Option<Timestamp>,
    /// Who made it.
    pub by: String,
    pub created_at: Timestamp,
}
