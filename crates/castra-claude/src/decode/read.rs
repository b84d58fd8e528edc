//! The facts in claude's messages. Refuses to fail: a field of an unexpected type is a field that is missing.

use super::summary::{last_sentence, preview};
use crate::fact::{
    Assistant, Fact, Init, Lifecycle, ResultFact, SessionState, TaskPhase, ToolCall, ToolResult, User,
};
use crate::field::{flag, items, number, string, strings, text, uuid};
use crate::open::BlockKind;
use serde_json::Value;

/// The fact in a line of `kind`; control requests are read elsewhere, by their bytes.
pub(crate) fn fact(kind: &str, mut value: Value) -> Fact {
    match kind {
        "assistant" => Fact::Assistant(assistant(&value)),
        "user" if flag(&value, "isReplay") => Fact::UserReplay { uuid: uuid(&value, "uuid") },
        "user" => Fact::User(user(&value)),
        "result" => Fact::Result(Box::new(result(&mut value))),
        "system" => system(&value),
        "control_response" => answered(&mut value).unwrap_or(Fact::Other),
        "control_cancel_request" => string(&value, "request_id")
            .map_or(Fact::Other, |request_id| Fact::PermissionWithdrawn { request_id }),
        "command_lifecycle" => {
            Fact::Lifecycle { uuid: uuid(&value, "command_uuid"), state: lifecycle(text(&value, "state")) }
        }
        _ => Fact::Other,
    }
}

fn assistant(value: &Value) -> Assistant {
    let message = &value["message"];
    let blocks = items(message, "content");
    let of_kind = |kind| move |block: &&Value| text(block, "type") == Some(kind);
    let spoken = blocks.iter().rev().find(of_kind("text")).and_then(|block| text(block, "text"));
    let tool =
        blocks.iter().rev().find(|block| text(block, "type").is_some_and(|kind| kind.ends_with("tool_use")));
    Assistant {
        model: string(message, "model"),
        uuid: uuid(value, "uuid"),
        message_id: string(message, "id"),
        parent_tool_use_id: string(value, "parent_tool_use_id"),
        text_tail: spoken.and_then(last_sentence),
        tool: tool.map(|block| ToolCall {
            id: string(block, "id").unwrap_or_default(),
            name: string(block, "name").unwrap_or_default(),
            preview: preview(&block["input"]),
        }),
        blocks: blocks.iter().filter_map(|block| BlockKind::of(text(block, "type")?)).collect(),
        error: string(value, "error"),
    }
}

fn user(value: &Value) -> User {
    let message = &value["message"];
    let blocks = items(message, "content");
    let results = blocks.iter().filter(|block| text(block, "type") == Some("tool_result"));
    let tool_results = results.map(|block| ToolResult {
        tool_use_id: string(block, "tool_use_id").unwrap_or_default(),
        is_error: flag(block, "is_error"),
    });
    let spoken = blocks.iter().filter_map(|block| text(block, "text")).chain(text(message, "content"));
    User {
        uuid: uuid(value, "uuid"),
        parent_tool_use_id: string(value, "parent_tool_use_id"),
        tool_results: tool_results.collect(),
        interrupted: spoken.into_iter().any(is_interrupt),
    }
}

/// claude's own words for an interrupt, in a stream and in a tool.
pub(crate) fn is_interrupt(text: &str) -> bool {
    matches!(text, "[Request interrupted by user]" | "[Request interrupted by user for tool use]")
}

/// claude's own words in the model's name: API errors, "No response requested.".
pub(crate) fn is_synthetic(value: &Value) -> bool {
    text(&value["message"], "model") == Some("<synthetic>")
}

fn result(value: &mut Value) -> ResultFact {
    let subtype = string(value, "subtype").unwrap_or_default();
    let is_error = flag(value, "is_error");
    let terminal_reason = string(value, "terminal_reason");
    ResultFact {
        session_id: uuid(value, "session_id"),
        ok: succeeded(&subtype, is_error, terminal_reason.as_deref()),
        subtype,
        is_error,
        api_error_status: number(value, "api_error_status"),
        cost_usd: value.get("total_cost_usd").and_then(Value::as_f64).unwrap_or_default(),
        estimated_cost_usd: value.get("estimated_cost_usd").and_then(Value::as_f64),
        num_turns: number(value, "num_turns").unwrap_or_default(),
        duration_ms: number(value, "duration_ms").unwrap_or_default(),
        usage: value["usage"].take(),
        structured_output: value
            .get_mut("structured_output")
            .map(Value::take)
            .filter(|output| !output.is_null()),
        terminal_reason,
        errors: strings(value, "errors"),
        origin: value.get_mut("origin").map(Value::take).filter(|origin| !origin.is_null()),
        text: match value.get_mut("result").map(Value::take) {
            Some(Value::String(text)) => Some(text),
            _ => None,
        },
    }
}

/// Whether a turn truly succeeded: API errors come as `success` with `is_error`, and a turn that a message of
/// priority `now` cut off as `success` with `aborted_tools` (facts/claude-cli.md §0.7, §4).
pub(crate) fn succeeded(subtype: &str, is_error: bool, terminal_reason: Option<&str>) -> bool {
    subtype == "success"
        && !is_error
        && matches!(
            terminal_reason,
            None | Some("completed" | "stop_hook_prevented" | "hook_stopped" | "background_requested")
        )
}

fn system(value: &Value) -> Fact {
    match text(value, "subtype").unwrap_or_default() {
        "init" => Fact::Init(Box::new(Init {
            session_id: uuid(value, "session_id"),
            model: string(value, "model"),
            permission_mode: string(value, "permissionMode"),
            cwd: string(value, "cwd"),
            version: string(value, "claude_code_version"),
            tools: strings(value, "tools"),
            slash_commands: strings(value, "slash_commands"),
            skills: strings(value, "skills"),
            agents: strings(value, "agents"),
            mcp_servers: items(value, "mcp_servers").to_vec(),
        })),
        "session_state_changed" => match text(value, "state") {
            Some("idle") => Fact::SessionState(SessionState::Idle),
            Some("running") => Fact::SessionState(SessionState::Running),
            Some("requires_action") => Fact::SessionState(SessionState::RequiresAction),
            _ => Fact::Other,
        },
        "status" => {
            Fact::Status { status: string(value, "status"), permission_mode: string(value, "permissionMode") }
        }
        "compact_boundary" => {
            let metadata = &value["compact_metadata"];
            Fact::Compacted {
                trigger: string(metadata, "trigger"),
                pre_tokens: number(metadata, "pre_tokens"),
                post_tokens: number(metadata, "post_tokens"),
            }
        }
        "api_retry" => Fact::ApiRetry {
            attempt: number(value, "attempt").unwrap_or_default(),
            max_retries: number(value, "max_retries"),
            delay_ms: number(value, "retry_delay_ms"),
            error_status: number(value, "error_status"),
            error: string(value, "error"),
        },
        "task_started" => task(value, TaskPhase::Started),
        "task_progress" => task(value, TaskPhase::Progress),
        "task_updated" => task(value, TaskPhase::Updated),
        "task_notification" => task(value, TaskPhase::Notification),
        "permission_denied" => Fact::PermissionDenied {
            tool: string(value, "tool_name").unwrap_or_default(),
            message: string(value, "message"),
        },
        _ => Fact::Other,
    }
}

fn task(value: &Value, phase: TaskPhase) -> Fact {
    Fact::Task {
        task_id: string(value, "task_id").unwrap_or_default(),
        phase,
        task_type: string(value, "task_type"),
        status: string(value, "status").or_else(|| string(&value["patch"], "status")),
        summary: string(value, "summary").or_else(|| string(value, "description")),
    }
}

fn lifecycle(state: Option<&str>) -> Lifecycle {
    match state {
        Some("queued") => Lifecycle::Queued,
        Some("started") => Lifecycle::Started,
        Some("completed") => Lifecycle::Completed,
        _ => Lifecycle::Unknown,
    }
}

fn answered(value: &mut Value) -> Option<Fact> {
    let response = value.get_mut("response")?;
    let request_id = string(response, "request_id")?;
    let result = match text(response, "subtype") {
        Some("success") => Ok(response["response"].take()),
        _ => Err(string(response, "error").unwrap_or_else(|| "claude gave no reason".to_owned())),
    };
    Some(Fact::ControlAnswered { request_id, result })
}
