//! What claude asks, as a person must see it: the kind, the full input, its hash, what is unusual in it.

use castra_proto::Timestamp;
use castra_proto::permission::{PermissionKind, PermissionRequest, PermissionState};
use serde_json::Value;

/// A permission request as the line says it; who follows the clock makes it a [`PermissionRequest`].
#[derive(Clone, Debug, PartialEq)]
pub struct Asked {
    pub request_id: String,
    pub kind: PermissionKind,
    /// The tool, or the MCP server of an elicitation, or the kind of a dialog.
    pub tool: String,
    pub tool_use_id: Option<String>,
    pub description: Option<String>,
    pub input: Value,
    /// SHA-256 (hex) of the input's bytes in the line.
    pub input_hash: String,
    pub unusual: Vec<String>,
    pub suggestions: Vec<Value>,
}

impl Asked {
    pub fn into_request(self, since: Timestamp, deadline: Option<Timestamp>) -> PermissionRequest {
        PermissionRequest {
            request_id: self.request_id,
            kind: self.kind,
            tool: self.tool,
            tool_use_id: self.tool_use_id,
            description: self.description,
            input: self.input,
            input_hash: self.input_hash,
            unusual: self.unusual,
            suggestions: self.suggestions,
            since,
            deadline,
            state: PermissionState::Pending,
        }
    }
}
