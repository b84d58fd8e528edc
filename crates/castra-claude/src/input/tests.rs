//! Every line is one JSON object and says what the fact sheet says that claude takes.

use super::*;
use castra_proto::Timestamp;
use castra_proto::permission::PermissionState;
use castra_proto::spec::PermissionMode;

const ID: Uuid = Uuid::from_u128(9);

/// The object in a line; a bad line would kill claude.
fn object(line: Vec<u8>) -> Value {
    let text = String::from_utf8(line).unwrap();
    assert_eq!(text.find('\n'), Some(text.len() - 1), "{text:?}");
    let value: Value = serde_json::from_str(&text).unwrap();
    assert!(value.is_object());
    value
}

fn asked(kind: PermissionKind) -> PermissionRequest {
    PermissionRequest {
        request_id: "r".into(),
        kind,
        tool: "Bash".into(),
        tool_use_id: None,
        description: None,
        input: json!({"command": "ls"}),
        input_hash: String::new(),
        unusual: vec![],
        suggestions: vec![
            json!({"type": "addRules", "behavior": "allow"}),
            json!({"type": "setMode", "mode": "acceptEdits"}),
        ],
        since: Timestamp(0),
        deadline: None,
        state: PermissionState::Pending,
    }
}

fn answer(fields: Value) -> PermissionAnswer {
    serde_json::from_value(fields).unwrap()
}

#[test]
fn user_messages() {
    let text = || Content::Text("a\nb\u{2028}\"\\".into());
    let blocks = || Content::Blocks(vec![json!({"type": "text", "text": "hi"})]);
    for (content, context, priority, expected) in [
        (text(), None, None, json!("a\nb\u{2028}\"\\")),
        (text(), Some("ctx"), None, json!("Context:\nctx\n\nUser message:\na\nb\u{2028}\"\\")),
        (blocks(), None, Some(Priority::Next), json!([{"type": "text", "text": "hi"}])),
        (
            blocks(),
            Some("ctx"),
            None,
            json!([
                {"type": "text", "text": "Context:\nctx\n\nUser message:\n"},
                {"type": "text", "text": "hi"},
            ]),
        ),
    ] {
        let mut whole = json!({
            "type": "user",
            "message": {"role": "user", "content": expected},
            "parent_tool_use_id": null,
            "session_id": "",
            "uuid": ID,
        });
        if priority.is_some() {
            whole["priority"] = json!("next");
        }
        assert_eq!(object(user(ID, &content, context, priority)), whole);
    }
}

#[test]
fn control_requests() {
    let fields = json!({"question": "why?\n", "subtype": "overridden"});
    for (line, request) in [
        (interrupt("r"), json!({"subtype": "interrupt"})),
        (set_model("r", Some("sonnet")), json!({"subtype": "set_model", "model": "sonnet"})),
        (set_model("r", None), json!({"subtype": "set_model", "model": null})),
        (
            set_permission_mode("r", PermissionMode::AcceptEdits),
            json!({"subtype": "set_permission_mode", "mode": "acceptEdits"}),
        ),
        (
            set_max_thinking_tokens("r", Some(5)),
            json!({"subtype": "set_max_thinking_tokens", "max_thinking_tokens": 5}),
        ),
        (
            set_effort("r", Some("low")),
            json!({"subtype": "apply_flag_settings", "settings": {"effortLevel": "low"}}),
        ),
        (cancel_async_message("r", ID), json!({"subtype": "cancel_async_message", "message_uuid": ID})),
        (end_session("r", Some("stop")), json!({"subtype": "end_session", "reason": "stop"})),
        (
            control("r", "side_question", fields.as_object().unwrap()),
            json!({"subtype": "side_question", "question": "why?\n"}),
        ),
    ] {
        assert_eq!(object(line), json!({"type": "control_request", "request_id": "r", "request": request}));
    }
    assert_eq!(
        object(update_environment_variables("u", "tok")),
        json!({
            "type": "update_environment_variables",
            "variables": {"CLAUDE_CODE_OAUTH_TOKEN": "tok"},
            "request_id": "u",
        })
    );
}

#[test]
fn answers_to_permission_requests() {
    let kept = json!({"type": "addRules", "behavior": "allow", "destination": "session"});
    for (kind, answer, expected) in [
        (
            PermissionKind::Tool,
            json!({"behavior": "allow"}),
            json!({"behavior": "allow", "updatedInput": {}}),
        ),
        (
            PermissionKind::Tool,
            json!({"behavior": "allow", "updated_input": {"command": "ls -l"}}),
            json!({"behavior": "allow", "updatedInput": {"command": "ls -l"}}),
        ),
        (
            PermissionKind::Tool,
            json!({"behavior": "allow", "remember": true}),
            json!({"behavior": "allow", "updatedInput": {}, "updatedPermissions": [kept]}),
        ),
        (
            PermissionKind::Tool,
            json!({"behavior": "allow", "updated_permissions": [{"type": "setMode", "mode": "plan"}]}),
            json!({"behavior": "allow", "updatedInput": {}, "updatedPermissions": [{"type": "setMode", "mode": "plan", "destination": "session"}]}),
        ),
        (
            PermissionKind::Tool,
            json!({"behavior": "deny", "message": "no", "remember": true}),
            json!({"behavior": "deny", "message": "no"}),
        ),
        (
            PermissionKind::Plan,
            json!({"behavior": "deny", "interrupt": true}),
            json!({"behavior": "deny", "message": DENIED, "interrupt": true}),
        ),
        (
            PermissionKind::Question,
            json!({"behavior": "allow", "updated_input": {"questions": [], "answers": {"Which?": "B"}}}),
            json!({"behavior": "allow", "updatedInput": {"questions": [], "answers": {"Which?": "B"}}}),
        ),
        (
            PermissionKind::Elicitation,
            json!({"behavior": "allow", "updated_input": {"name": "Ada"}}),
            json!({"action": "accept", "content": {"name": "Ada"}}),
        ),
        (PermissionKind::Elicitation, json!({"behavior": "deny"}), json!({"action": "decline"})),
        (
            PermissionKind::Elicitation,
            json!({"behavior": "deny", "interrupt": true}),
            json!({"action": "cancel"}),
        ),
        (
            PermissionKind::Dialog,
            json!({"behavior": "allow", "updated_input": {"choice": 1}}),
            json!({"behavior": "completed", "result": {"choice": 1}}),
        ),
        (PermissionKind::Dialog, json!({"behavior": "deny"}), json!({"behavior": "cancelled"})),
    ] {
        let line = permission(&asked(kind), &self::answer(answer));
        assert_eq!(
            object(line),
            json!({
                "type": "control_response",
                "response": {"subtype": "success", "request_id": "r", "response": expected},
            })
        );
    }
}

#[test]
fn what_nobody_handles_is_answered_all_the_same() {
    for (subtype, response) in [
        (
            "request_user_dialog",
            json!({"subtype": "success", "request_id": "r", "response": {"behavior": "cancelled"}}),
        ),
        ("elicitation", json!({"subtype": "success", "request_id": "r", "response": {"action": "decline"}})),
        (
            "brand_new",
            json!({"subtype": "error", "request_id": "r", "error": "castra does not handle \"brand_new\""}),
        ),
    ] {
        assert_eq!(object(decline("r", subtype)), json!({"type": "control_response", "response": response}));
    }
    let expired = object(expire(&asked(PermissionKind::Tool), "nobody answered in 5 s"));
    assert_eq!(
        expired["response"]["response"],
        json!({"behavior": "deny", "message": "nobody answered in 5 s"})
    );
}
