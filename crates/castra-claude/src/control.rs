//! Which control requests the API passes on, and the scope that each needs. A list of what is allowed, no more.

use castra_proto::api::Scope;
use serde_json::{Map, Value};

/// The scope a control request needs; none: it is not passed on.
pub fn control_scope(subtype: &str, fields: &Map<String, Value>) -> Option<Scope> {
    let _ = fields;
    match subtype {
        "get_context_usage" | "get_settings" | "mcp_status" => Some(Scope::Read),
        "interrupt" | "set_model" | "end_session" => Some(Scope::Drive),
        "set_permission_mode" => Some(Scope::Approve),
        _ => None,
    }
}
