//! Definitions: a catalogue of tasks that are launched by name. Refuses values: what a launch gives is checked by the
//! supervisor.

use crate::{TaskSpec, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;

/// A task that is launched by name, as a file or `PUT /definitions/{name}` has it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Definition {
    /// What it is launched by, and its tasks' label `definition`. Unset: the path's, or the file's name without its ending.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// For people, with `{{param}}` in it; a launch has it as `metadata.title`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// What has to be confirmed before it is launched.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub warning: Option<String>,
    /// Not listed unless asked for; it can be launched.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub hidden: bool,
    /// Unset: yes. `false`: only an admin cancels its tasks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cancellable: Option<bool>,
    /// Its tasks that may run at once; the others wait in the queue.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_concurrency: Option<u32>,
    /// With `params`, for which a launch gives values.
    pub task: TaskSpec,
}

/// A definition and where it comes from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct KnownDefinition {
    pub name: String,
    /// The file that it is read from; none: it was put.
    pub file: Option<String>,
    /// Who put it.
    pub by: Option<String>,
    /// Secret values are `***`.
    pub definition: Definition,
}

/// A file that is no definition, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct DefinitionFault {
    pub file: String,
    pub problem: String,
}

/// All definitions.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Catalogue {
    /// By name.
    pub items: Vec<KnownDefinition>,
    pub faults: Vec<DefinitionFault>,
    /// When the files were looked at.
    pub read_at: Timestamp,
}

/// `POST /definitions/{name}/launch`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Launch {
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    #[cfg_attr(feature = "openapi", schema(value_type = Object))]
    pub values: BTreeMap<String, Value>,
    /// The definition's warning was read.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub confirmed: bool,
    /// The task's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub task_name: Option<String>,
    /// The client that what the agent wants to say to one is for; the definition's own when unset.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_id: Option<String>,
}
