//! Control requests of claude's: what it asks, with the input's own bytes. Refuses to drop one; claude waits.

use crate::fact::Fact;
use crate::permission::{Asked, input_hash, unusual};
use castra_proto::permission::PermissionKind;
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

#[derive(Deserialize)]
struct Request<'a> {
    request_id: String,
    #[serde(borrow)]
    request: &'a RawValue,
}

#[derive(Deserialize)]
struct Ask<'a> {
    #[serde(default)]
    subtype: Option<Value>,
    #[serde(default)]
    tool_name: Option<Value>,
    #[serde(default)]
    mcp_server_name: Option<Value>,
    #[serde(default)]
    dialog_kind: Option<Value>,
    #[serde(default)]
    tool_use_id: Option<Value>,
    #[serde(default)]
    description: Option<Value>,
    #[serde(default)]
    message: Option<Value>,
    #[serde(default, borrow)]
    input: Option<&'a RawValue>,
    #[serde(default, borrow)]
    payload: Option<&'a RawValue>,
    #[serde(default)]
    permission_suggestions: Option<Value>,
}

pub(super) fn request(line: &str) -> Fact {
    let Ok(Request { request_id, request }) = serde_json::from_str(line) else { return Fact::Other };
    match serde_json::from_str::<Ask<'_>>(request.get()) {
        Ok(ask) => asked(&request_id, request, ask).unwrap_or_else(|| host_request(request_id, request)),
        Err(_) => host_request(request_id, request),
    }
}

fn host_request(request_id: String, request: &RawValue) -> Fact {
    // Nested deeper than a tree is built for: its subtype is all that an answer needs.
    let request: Value = serde_json::from_str(request.get()).unwrap_or_default();
    let subtype = crate::field::string(&request, "subtype").unwrap_or_default();
    Fact::HostRequest { request_id, subtype, request }
}

fn asked(request_id: &str, request: &RawValue, ask: Ask<'_>) -> Option<Fact> {
    let string = |value: Option<Value>| match value {
        Some(Value::String(text)) => Some(text),
        _ => None,
    };
    let subtype = string(ask.subtype)?;
    let tool_name = string(ask.tool_name);
    let (kind, tool, input) = match subtype.as_str() {
        "can_use_tool" => {
            let tool = tool_name?;
            let kind = match tool.as_str() {
                "AskUserQuestion" => PermissionKind::Question,
                "ExitPlanMode" => PermissionKind::Plan,
                _ => PermissionKind::Tool,
            };
            (kind, tool, ask.input)
        }
        "elicitation" => (PermissionKind::Elicitation, string(ask.mcp_server_name)?, Some(request)),
        "request_user_dialog" => (PermissionKind::Dialog, string(ask.dialog_kind)?, ask.payload),
        _ => return None,
    };
    let raw = input.map_or("null", RawValue::get);
    let parsed = serde_json::from_str::<Value>(raw);
    let mut odd = unusual(parsed.as_ref().unwrap_or(&Value::Null));
    if parsed.is_err() {
        odd.push("it is nested too deeply to be shown".to_owned());
    }
    let suggestions = match ask.permission_suggestions {
        Some(Value::Array(suggestions)) => suggestions,
        _ => Vec::new(),
    };
    Some(Fact::PermissionAsked(Box::new(Asked {
        request_id: request_id.to_owned(),
        kind,
        tool,
        tool_use_id: string(ask.tool_use_id),
        description: string(ask.description).or_else(|| string(ask.message)),
        input: parsed.unwrap_or_default(),
        input_hash: input_hash(raw.as_bytes()),
        unusual: odd,
        suggestions,
    })))
}
