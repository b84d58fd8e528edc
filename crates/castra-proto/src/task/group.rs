//! A task's children: how they run, and what becomes of the parent by what becomes of them.

use super::{Progress, Reason, Task, TaskState};
use crate::TaskId;
use serde::{Deserialize, Serialize};

/// How the children that a task declares run. They run before the task's own work; a task without `instructions` is
/// nothing but its children.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Group {
    pub order: Order,
    /// Children at once, when they run in parallel; 10 when unset.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
    /// When a child has failed.
    pub on_failure: ChildRule,
    /// When somebody has cancelled a child.
    pub on_cancel: ChildRule,
}

impl Group {
    pub(crate) fn is_default(&self) -> bool {
        *self == Self::default()
    }

    /// Children that may run at the same time.
    pub fn at_once(&self) -> u32 {
        match self.order {
            Order::Sequential => 1,
            Order::Parallel => self.limit.unwrap_or(10),
        }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum Order {
    #[default]
    Parallel,
    /// Each when the one before it is over.
    Sequential,
}

/// What a child that was not done means for its parent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum ChildRule {
    /// The same becomes of the parent, and the other children are cancelled.
    #[default]
    Stop,
    /// The same becomes of the parent when the other children are over.
    Wait,
    /// Nothing.
    Ignore,
}

/// Where a task's progress comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum ProgressRule {
    /// What its own agent reports.
    Own,
    /// Children in their order, each an equal part: those that are over, and the first that is not.
    Sequential,
    /// The mean of its children's.
    Average,
    /// The sum of its children's, each as much as its `share` says.
    Mapped,
    /// How much of its agent's own list of things to do is done.
    Todos,
}

/// A child, as its parent shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Child {
    pub id: TaskId,
    /// Among its siblings.
    pub name: Option<String>,
    pub state: TaskState,
    pub progress: Progress,
    pub result: Option<String>,
    pub reason: Option<Reason>,
}

/// A task and all that is below it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct TaskTree {
    pub task: Task,
    /// Those of its newest attempt in their order, then those that were made for it.
    #[cfg_attr(feature = "openapi", schema(no_recursion))]
    pub children: Vec<TaskTree>,
}
