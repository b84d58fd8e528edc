//! What differs when claude runs in a terminal: fields that have no way in, and those that go in by a file. Refuses
//! what the interactive CLI would silently ignore.

use super::{LaunchContext, Made, Refusal, keep, prompts as texts};
use castra_proto::SessionSpec;
use castra_proto::spec::PermissionMode;
use serde_json::{Value, json};
use std::collections::BTreeMap;

const PRINT: &str = "the CLI takes it with --print only; use mode: stream, or leave it out";
const INITIALIZE: &str = "it goes in by stream-json only; use mode: stream, or leave it out";

/// The fields that the interactive CLI does not know (its own --help, both versions).
pub(super) fn check(spec: &SessionSpec) -> Result<(), Refusal> {
    let limits = &spec.limits;
    let none = [
        ("output_schema", spec.output_schema.is_some(), INITIALIZE),
        ("skills", spec.skills.is_some(), INITIALIZE),
        ("forward_subagent_text", spec.forward_subagent_text, INITIALIZE),
        ("include_hook_events", spec.include_hook_events, PRINT),
        ("limits.max_turns", limits.max_turns.is_some(), PRINT),
        ("limits.max_budget_usd", limits.max_budget_usd.is_some(), PRINT),
        ("file_checkpointing", spec.file_checkpointing, "a terminal has its own: Esc twice, or /rewind"),
    ];
    match none.into_iter().find(|(_, asked, _)| *asked) {
        Some((field, _, reason)) => Err(Refusal::NotInTerminal { field, reason }),
        None => Ok(()),
    }
}

/// The settings of the run, with what the terminal's look and its first start need.
pub(super) fn settings(spec: &SessionSpec, given: Option<Value>) -> Option<Value> {
    let mut own = Vec::new();
    let tui = spec.tui.clone().unwrap_or_default();
    if tui.fullscreen {
        own.push(("tui", json!("fullscreen")));
    }
    if tui.focus {
        own.push(("viewMode", json!("focus")));
    }
    if spec.permission_mode == PermissionMode::BypassPermissions {
        own.push(("skipDangerousModePermissionPrompt", json!(true)));
    }
    if own.is_empty() {
        return given;
    }
    let mut settings = given.unwrap_or_else(|| json!({}));
    for (name, value) in own {
        settings[name] = value;
    }
    Some(settings)
}

/// Prompts go into files: they may be long, and argv is everybody's to read.
pub(super) fn prompts(spec: &SessionSpec, context: &LaunchContext, made: &mut Made) -> Result<(), Refusal> {
    let (system, append) = texts(spec, context)?;
    made.system_prompt = system.map(|text| keep(&mut made.files, context, "system-prompt.txt", text));
    made.append_system_prompt =
        append.map(|text| keep(&mut made.files, context, "append-system-prompt.txt", text));
    Ok(())
}

/// The keys that claude would ask about; the default answer is no.
pub(super) fn api_keys(spec: &SessionSpec, env: &BTreeMap<String, String>) -> Vec<String> {
    let in_settings =
        spec.settings.as_ref().and_then(|settings| settings.get("env")?.get("ANTHROPIC_API_KEY"));
    let keys = [env.get("ANTHROPIC_API_KEY").map(String::as_str), in_settings.and_then(Value::as_str)];
    keys.into_iter().flatten().filter(|key| !key.is_empty()).map(str::to_owned).collect()
}
