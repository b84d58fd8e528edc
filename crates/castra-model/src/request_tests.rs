//! What is read out of request bodies, in the forms that the CLI was seen to send.

use super::*;
use serde_json::json;

fn read(body: &Value) -> Facts {
    let bytes = body.to_string();
    Facts::read(&Body::parse(bytes.as_bytes()).unwrap(), bytes.len(), None).unwrap()
}

fn with_messages(messages: Value) -> Facts {
    read(&json!({"model": "m", "max_tokens": 9, "messages": messages}))
}

#[test]
fn a_first_call_as_the_cli_sends_it() {
    let body = json!({
        "model": "claude-opus-4-8", "max_tokens": 64000, "stream": true,
        "metadata": {"user_id": "{\"device_id\":\"d\",\"account_uuid\":\"\",\"session_id\":\"s-1\"}"},
        "system": [
            {"type": "text", "text": "You are Claude Code."},
            {"type": "text", "text": "# Environment\n - Primary working directory: /w/x \n - Platform: linux"},
        ],
        "tools": [{"name": "Bash", "input_schema": {}}, {"type": "web_search_20250305", "name": "web_search"}],
        "messages": [
            {"role": "user", "content": [
                {"type": "text", "text": "<system-reminder>\nToday is Monday.\n</system-reminder>\n\n"},
                {"type": "text", "text": "hello there", "cache_control": {"type": "ephemeral"}},
            ]},
            {"role": "system", "content": "Available agent types: none"},
        ],
    });
    let system = "You are Claude Code.\n# Environment\n - Primary working directory: /w/x \n - Platform: linux\n\
                  Today is Monday.\nAvailable agent types: none";
    let want = Facts {
        model: "claude-opus-4-8".into(),
        stream: true,
        conversation: "s-1".into(),
        messages: 2,
        system: system.into(),
        last_user: Some("hello there".into()),
        fresh_user: true,
        user_texts: vec!["hello there".into()],
        tools: vec!["Bash".into(), "web_search".into()],
        cwd: Some("/w/x".into()),
        input_tokens: body.to_string().len() as u64 / 4,
        ..Facts::default()
    };
    assert_eq!(read(&body), want);
}

#[test]
fn tool_results_belong_to_the_newest_turn_and_know_their_tool() {
    let facts = with_messages(json!([
        {"role": "user", "content": "go"},
        {"role": "assistant", "content": [{"type": "tool_use", "id": "t1", "name": "Read", "input": {}}]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t1", "content": "old"}]},
        {"role": "assistant", "content": [
            {"type": "tool_use", "id": "t2", "name": "Bash", "input": {}},
            {"type": "tool_use", "id": "t3", "name": "Write", "input": {}}]},
        {"role": "user", "content": [
            {"type": "tool_result", "tool_use_id": "t2", "is_error": true, "content": [
                {"type": "text", "text": "one"}, {"type": "image"},
                {"type": "text", "text": "two<system-reminder>be kind</system-reminder>"}]},
            {"type": "tool_result", "tool_use_id": "gone"}]},
    ]));
    let result = |tool: Option<&str>, text: &str, is_error| ToolResult {
        tool: tool.map(str::to_owned),
        text: text.to_owned(),
        is_error,
    };
    assert_eq!(facts.tool_results, [result(Some("Bash"), "one\ntwo", true), result(None, "", false)]);
    assert_eq!((facts.last_user.as_deref(), facts.fresh_user), (Some("go"), false));
}

#[test]
fn what_the_user_wrote_is_told_from_what_the_cli_adds() {
    let note = "The user sent a new message while you were working:\nstop it\n\nplease\n\n";
    let old = format!("{note}IMPORTANT: After completing your current task, you MUST address …");
    let new = format!("{note}This is how Claude Code surfaces messages the user sends mid-turn — …");
    let both = format!("[SYSTEM NOTIFICATION - NOT USER INPUT]\n\n{old}\n\n{new}");
    let table = [
        (
            json!([{"role": "user", "content": "a"}, {"role": "system", "content": both}]),
            vec!["a", "stop it\n\nplease", "stop it\n\nplease"],
        ),
        (json!([{"role": "user", "content": "plain"}]), vec!["plain"]),
        (json!([{"role": "user", "content": "<system-reminder>only this</system-reminder>"}]), vec![]),
        (
            json!([{"role": "user", "content": "<system-reminder>a</system-reminder>\n\nb <system-reminder>"}]),
            vec!["b <system-reminder>"],
        ),
        (
            json!([{"role": "user", "content": [
            {"type": "text", "text": "<local-command-stdout>3 $</local-command-stdout>"},
            {"type": "text", "text": "[Request interrupted by user]"},
            {"type": "text", "text": "go on"}]}]),
            vec!["go on"],
        ),
        (
            json!([{"role": "user", "content": "a"}, {"role": "system", "content": old}]),
            vec!["a", "stop it\n\nplease"],
        ),
        (
            json!([{"role": "user", "content": "a"}, {"role": "system", "content": [{"type": "text", "text": new}]}]),
            vec!["a", "stop it\n\nplease"],
        ),
    ];
    for (messages, want) in table {
        let facts = with_messages(messages.clone());
        assert_eq!(facts.user_texts, want, "{messages}");
        assert_eq!(facts.last_user.as_deref(), want.last().copied(), "{messages}");
    }
}

#[test]
fn plan_mode_and_its_file_are_the_newest_word() {
    let on = "Plan mode is active. … You should create your plan at /c/plans/a-b.md using the Write tool.";
    let again = "Plan mode is active. … A plan file already exists at /c/plans/a-b.md. You can read it and …";
    let off = "## Exited Plan Mode\n\nYou have exited plan mode.";
    let table = [
        (vec![], (false, None)),
        (vec![on], (true, Some("/c/plans/a-b.md"))),
        (vec![again], (true, Some("/c/plans/a-b.md"))),
        (vec![on, off], (false, Some("/c/plans/a-b.md"))),
        (vec![on, off, again], (true, Some("/c/plans/a-b.md"))),
    ];
    for (texts, want) in table {
        let mut messages = vec![json!({"role": "user", "content": "x"})];
        messages.extend(texts.iter().map(|text| json!({"role": "system", "content": text})));
        let facts = with_messages(messages.into());
        assert_eq!((facts.plan_mode, facts.plan_file.as_deref()), want, "{texts:?}");
    }
}

#[test]
fn bodies_that_the_api_refuses() {
    let table = [
        (json!({"max_tokens": 1, "messages": []}), "model: Field required"),
        (json!({"model": "m", "max_tokens": 1}), "messages: Field required"),
        (json!({"model": "m", "messages": [{"role": "user", "content": ""}]}), "max_tokens: Field required"),
        (
            json!({"model": "m", "max_tokens": 1, "messages": []}),
            "messages: at least one message is required",
        ),
        (
            json!({"model": "m", "max_tokens": 1, "messages": [{"role": "tool", "content": ""}]}),
            "messages.0: unknown role `tool`",
        ),
    ];
    for (body, want) in table {
        let bytes = body.to_string();
        let error = Facts::read(&Body::parse(bytes.as_bytes()).unwrap(), 1, None).unwrap_err();
        assert_eq!(error.to_string(), want);
    }
    assert!(Body::parse(b"{").unwrap_err().to_string().starts_with("The request body is not valid JSON"));
}
