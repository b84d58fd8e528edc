//! Permission requests: everything that claude waits for, and the answers to it.

use crate::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// claude waits for an answer to this.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PermissionRequest {
    /// claude's own id of the request.
    pub request_id: String,
    pub kind: PermissionKind,
    /// The tool's name; for an elicitation the MCP server's.
    pub tool: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tool_use_id: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// The full input, as claude sent it.
    pub input: Value,
    /// SHA-256 (hex) of the input's original bytes: an answer may name it, and is refused for another.
    pub input_hash: String,
    /// What a person should notice: control characters, bidi marks, very long lines, …
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unusual: Vec<String>,
    /// claude's own `permission_suggestions`: what `remember` would set.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub suggestions: Vec<Value>,
    pub since: Timestamp,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline: Option<Timestamp>,
    /// `pending`, or `decided` and on its way to claude.
    #[serde(default)]
    pub state: PermissionState,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum PermissionKind {
    Tool,
    Question,
    Plan,
    Elicitation,
    Dialog,
}

/// `pending → decided → applied | superseded`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum PermissionState {
    #[default]
    Pending,
    Decided,
    Applied,
    Superseded,
}

/// An answer to a permission request.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PermissionAnswer {
    pub behavior: Behavior,
    /// Run this instead of the original input. For a question: the input with `answers`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub updated_input: Option<Value>,
    /// claude's permission updates (`addRules`, `setMode`, …). Whatever their destination, they are kept for this
    /// session.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub updated_permissions: Option<Vec<Value>>,
    /// Why not, for claude to read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// With a denial: end the turn.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub interrupt: bool,
    /// Apply claude's own suggestions, so that it does not ask for this again: in this session, its later runs and
    /// its forks.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub remember: bool,
    /// `input_hash` of what was shown to whoever answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input_hash: Option<String>,
}

impl PermissionAnswer {
    /// Once, as it was asked.
    pub fn allow() -> Self {
        Self {
            behavior: Behavior::Allow,
            updated_input: None,
            updated_permissions: None,
            message: None,
            interrupt: false,
            remember: false,
            input_hash: None,
        }
    }

    /// With the reason, for claude to read.
    pub fn deny(message: impl Into<String>) -> Self {
        Self { behavior: Behavior::Deny, message: Some(message.into()), ..Self::allow() }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum Behavior {
    Allow,
    Deny,
}
