//! Every line that castra writes to claude. Refuses to build one by hand: a bad line kills claude.

use crate::permission::updates;
use castra_proto::api::Priority;
use castra_proto::permission::{Behavior, PermissionAnswer, PermissionKind, PermissionRequest};
use serde_json::{Map, Value, json};
use uuid::Uuid;

/// What a user message says.
#[derive(Clone, Debug, PartialEq)]
pub enum Content {
    Text(String),
    /// Content blocks of the Messages API.
    Blocks(Vec<Value>),
}

/// Builds the line of a user message. `context` is put before the text as `Context:\n…\n\nUser message:\n…`.
pub fn user(uuid: Uuid, content: &Content, context: Option<&str>, priority: Option<Priority>) -> Vec<u8> {
    let content = match (content, context) {
        (Content::Text(text), context) => json!(in_context(context, text)),
        (Content::Blocks(blocks), None) => json!(blocks),
        (Content::Blocks(blocks), Some(context)) => {
            let mut all = vec![json!({"type": "text", "text": in_context(Some(context), "")})];
            all.extend(blocks.iter().cloned());
            json!(all)
        }
    };
    let mut message = json!({
        "type": "user",
        "message": {"role": "user", "content": content},
        "parent_tool_use_id": null,
        "session_id": "",
        "uuid": uuid,
    });
    if let Some(priority) = priority {
        message["priority"] = json!(priority);
    }
    line(&message)
}

/// A text behind what the sender wants known with it.
pub fn in_context(context: Option<&str>, text: &str) -> String {
    match context {
        Some(context) => format!("Context:\n{context}\n\nUser message:\n{text}"),
        None => text.to_owned(),
    }
}

/// A control request with any subtype; `fields` are its further fields.
pub fn control(request_id: &str, subtype: &str, fields: &Map<String, Value>) -> Vec<u8> {
    let mut request = fields.clone();
    request.insert("subtype".into(), subtype.into());
    line(&json!({"type": "control_request", "request_id": request_id, "request": request}))
}

fn request(request_id: &str, fields: Value) -> Vec<u8> {
    line(&json!({"type": "control_request", "request_id": request_id, "request": fields}))
}

pub fn interrupt(request_id: &str) -> Vec<u8> {
    request(request_id, json!({"subtype": "interrupt"}))
}

/// None: back to the default model.
pub fn set_model(request_id: &str, model: Option<&str>) -> Vec<u8> {
    request(request_id, json!({"subtype": "set_model", "model": model}))
}

pub fn set_permission_mode(request_id: &str, mode: castra_proto::spec::PermissionMode) -> Vec<u8> {
    request(request_id, json!({"subtype": "set_permission_mode", "mode": mode.as_str()}))
}

/// None: no limit.
pub fn set_max_thinking_tokens(request_id: &str, tokens: Option<u32>) -> Vec<u8> {
    request(request_id, json!({"subtype": "set_max_thinking_tokens", "max_thinking_tokens": tokens}))
}

/// None: back to the model's own.
pub fn set_effort(request_id: &str, effort: Option<&str>) -> Vec<u8> {
    request(request_id, json!({"subtype": "apply_flag_settings", "settings": {"effortLevel": effort}}))
}

/// Withdraws a message that is queued inside claude.
pub fn cancel_async_message(request_id: &str, message: Uuid) -> Vec<u8> {
    request(request_id, json!({"subtype": "cancel_async_message", "message_uuid": message}))
}

pub fn end_session(request_id: &str, reason: Option<&str>) -> Vec<u8> {
    request(request_id, json!({"subtype": "end_session", "reason": reason}))
}

/// A short-lived login for a running claude. Beside this variable it takes one other only.
pub fn update_environment_variables(request_id: &str, oauth_token: &str) -> Vec<u8> {
    line(&json!({
        "type": "update_environment_variables",
        "variables": {"CLAUDE_CODE_OAUTH_TOKEN": oauth_token},
        "request_id": request_id,
    }))
}

/// The line that answers a permission request.
///
/// `remember` and `updated_permissions` are for tools only; what `remember` sets is
/// [`crate::permission::remembered`], so that it can be shown before.
pub fn permission(request: &PermissionRequest, answer: &PermissionAnswer) -> Vec<u8> {
    let response = match (request.kind, answer.behavior) {
        (PermissionKind::Elicitation, Behavior::Allow) => {
            json!({"action": "accept", "content": answer.updated_input.as_ref().unwrap_or(&json!({}))})
        }
        (PermissionKind::Elicitation, Behavior::Deny) => {
            json!({"action": if answer.interrupt { "cancel" } else { "decline" }})
        }
        (PermissionKind::Dialog, Behavior::Allow) => {
            json!({"behavior": "completed", "result": answer.updated_input})
        }
        (PermissionKind::Dialog, Behavior::Deny) => json!({"behavior": "cancelled"}),
        (PermissionKind::Tool | PermissionKind::Question | PermissionKind::Plan, Behavior::Allow) => {
            allow(request, answer)
        }
        (PermissionKind::Tool | PermissionKind::Question | PermissionKind::Plan, Behavior::Deny) => {
            denied(answer.message.as_deref().unwrap_or(DENIED), answer.interrupt)
        }
    };
    success(&request.request_id, response)
}

/// What claude reads where nobody said why.
const DENIED: &str = "The user does not want this to be done.";

fn allow(request: &PermissionRequest, answer: &PermissionAnswer) -> Value {
    // `updatedInput` must be there. Empty it stands for the original, whose own bytes claude still has
    // (both measured on 2.1.197 and 2.1.329): nothing is changed by being read and written here.
    let input = answer.updated_input.clone().unwrap_or_else(|| json!({}));
    let mut response = json!({"behavior": "allow", "updatedInput": input});
    let permissions = updates(request, answer);
    if !permissions.is_empty() {
        response["updatedPermissions"] = json!(permissions);
    }
    response
}

fn denied(message: &str, interrupt: bool) -> Value {
    let mut response = json!({"behavior": "deny", "message": message});
    if interrupt {
        response["interrupt"] = json!(true);
    }
    response
}

/// Denies in castra's own name, where nobody answered: `message` says why.
pub fn expire(request: &PermissionRequest, message: &str) -> Vec<u8> {
    let answer = PermissionAnswer {
        behavior: Behavior::Deny,
        updated_input: None,
        updated_permissions: None,
        message: Some(message.to_owned()),
        interrupt: false,
        remember: false,
        input_hash: None,
    };
    permission(request, &answer)
}

/// An answer to a control request of claude's.
pub fn success(request_id: &str, response: Value) -> Vec<u8> {
    line(&json!({
        "type": "control_response",
        "response": {"subtype": "success", "request_id": request_id, "response": response},
    }))
}

pub fn error(request_id: &str, error: &str) -> Vec<u8> {
    line(&json!({
        "type": "control_response",
        "response": {"subtype": "error", "request_id": request_id, "error": error},
    }))
}

/// The answer to a request of claude's that nobody here handles, so that it does not wait for ever.
pub fn decline(request_id: &str, subtype: &str) -> Vec<u8> {
    match subtype {
        "request_user_dialog" => success(request_id, json!({"behavior": "cancelled"})),
        "elicitation" => success(request_id, json!({"action": "decline"})),
        _ => error(request_id, &format!("castra does not handle {subtype:?}")),
    }
}

/// A JSON object on one line: serde writes a newline within a string as `\\n`.
fn line(message: &Value) -> Vec<u8> {
    let mut bytes = message.to_string().into_bytes();
    bytes.push(b'\n');
    bytes
}

#[cfg(test)]
mod tests;
