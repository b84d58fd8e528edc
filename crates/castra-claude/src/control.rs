//! Which control requests the API passes on, and the scope that each needs. A list of what is allowed, no more.

use castra_proto::api::Scope;
use castra_proto::spec::PermissionMode;
use serde_json::{Map, Value};

/// The scope a control request needs; none: it is not passed on.
///
/// `Read` changes nothing and shows no secret, `Drive` is what a message could bring about too, `Approve` lets
/// something run or be reached that would have been asked for. Not passed on: what castra itself says
/// (`initialize`, answers), logins, and what would take claude out of its hands.
pub fn control_scope(subtype: &str, fields: &Map<String, Value>) -> Option<Scope> {
    Some(match subtype {
        "get_context_usage" | "get_session_cost" | "get_usage" | "get_binary_version"
        | "file_suggestions" => Scope::Read,

        // Settings and MCP configurations may hold secrets, files their content.
        "get_settings" | "mcp_status" | "read_file" => Scope::Drive,
        "interrupt"
        | "end_session"
        | "set_model"
        | "set_max_thinking_tokens"
        | "cancel_async_message"
        | "stop_task"
        | "background_tasks"
        | "side_question"
        | "generate_session_title"
        | "rename_session"
        | "message_rated"
        | "rewind_files"
        | "rewind_conversation"
        | "seed_read_state"
        | "reload_skills"
        | "mcp_reconnect"
        | "set_mcp_permission_mode_override" => Scope::Drive,

        "mcp_call" | "mcp_set_servers" | "mcp_toggle" | "reload_plugins" | "add_directory"
        | "register_repo_root" | "set_cwd" => Scope::Approve,

        "set_permission_mode" => mode_scope(fields.get("mode")?.as_str()?)?,
        "apply_flag_settings" => settings_scope(fields.get("settings")?.as_object()?),
        _ => return None,
    })
}

/// claude takes any string for a mode; only real ones are passed on.
fn mode_scope(mode: &str) -> Option<Scope> {
    Some(match PermissionMode::parse(mode)? {
        PermissionMode::Default | PermissionMode::Plan | PermissionMode::DontAsk => Scope::Drive,
        PermissionMode::AcceptEdits | PermissionMode::Auto | PermissionMode::BypassPermissions => {
            Scope::Approve
        }
    })
}

/// Settings may hold hooks, rules and environment: commands that nobody is asked about.
fn settings_scope(settings: &Map<String, Value>) -> Scope {
    let harmless =
        |name: &String| matches!(name.as_str(), "effortLevel" | "model" | "outputStyle" | "language");
    if settings.keys().all(harmless) { Scope::Drive } else { Scope::Approve }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn scopes_by_what_a_request_can_bring_about() {
        for (subtype, fields, scope) in [
            ("get_context_usage", json!({}), Some(Scope::Read)),
            ("get_settings", json!({}), Some(Scope::Drive)),
            ("interrupt", json!({}), Some(Scope::Drive)),
            ("end_session", json!({}), Some(Scope::Drive)),
            ("mcp_call", json!({}), Some(Scope::Approve)),
            ("set_permission_mode", json!({"mode": "plan"}), Some(Scope::Drive)),
            ("set_permission_mode", json!({"mode": "acceptEdits"}), Some(Scope::Approve)),
            ("set_permission_mode", json!({"mode": "bypassPermissions"}), Some(Scope::Approve)),
            ("set_permission_mode", json!({"mode": "nonsense"}), None),
            ("set_permission_mode", json!({}), None),
            ("apply_flag_settings", json!({"settings": {"effortLevel": "low"}}), Some(Scope::Drive)),
            (
                "apply_flag_settings",
                json!({"settings": {"effortLevel": "low", "hooks": {}}}),
                Some(Scope::Approve),
            ),
            ("apply_flag_settings", json!({"settings": 1}), None),
            ("initialize", json!({}), None),
            ("can_use_tool", json!({}), None),
            ("claude_authenticate", json!({}), None),
            ("remote_control", json!({}), None),
            ("bogus_subtype", json!({}), None),
        ] {
            assert_eq!(control_scope(subtype, fields.as_object().unwrap()), scope, "{subtype} {fields}");
        }
    }
}
