//! What of a spec is secret: split off to be stored encrypted, and shown as `***`. Pure.

use crate::{Error, Result};
use castra_proto::{ErrorCode, SessionSpec};
use serde_json::{Value, json};

pub(crate) const MASK: &str = "***";

/// The spec as it may be shown and stored in the clear, and the rest: values of `env` and `settings`,
/// headers and environments of MCP servers.
pub(crate) fn split(spec: &SessionSpec) -> (SessionSpec, Option<Value>) {
    let mut shown = spec.clone();
    let mut secret = serde_json::Map::new();
    if !spec.env.is_empty() {
        secret.insert("env".into(), json!(spec.env));
        shown.env.values_mut().for_each(|value| *value = MASK.into());
    }
    if let Some(settings) = &mut shown.settings {
        secret.insert("settings".into(), settings.clone());
        mask(settings);
    }
    if !spec.mcp_servers.is_empty() {
        secret.insert("mcp_servers".into(), json!(spec.mcp_servers));
        for server in shown.mcp_servers.values_mut() {
            for field in ["headers", "env"] {
                if let Some(values) = server.get_mut(field) {
                    mask(values);
                }
            }
        }
    }
    (shown, (!secret.is_empty()).then_some(Value::Object(secret)))
}

/// The spec as it was given.
pub(crate) fn restore(shown: &str, secrets: Option<Value>) -> Result<SessionSpec> {
    let mut spec: Value = serde_json::from_str(shown).map_err(damaged)?;
    if let (Some(spec), Some(Value::Object(secrets))) = (spec.as_object_mut(), secrets) {
        spec.extend(secrets);
    }
    serde_json::from_value(spec).map_err(damaged)
}

fn damaged(error: serde_json::Error) -> Error {
    Error::new(ErrorCode::Internal, format!("a stored spec cannot be read: {error}"))
}

fn mask(value: &mut Value) {
    match value {
        Value::Object(fields) => fields.values_mut().for_each(mask),
        Value::Array(items) => items.iter_mut().for_each(mask),
        Value::Null => {}
        leaf => *leaf = MASK.into(),
    }
}

/// The secret strings of a spec, for masking them in raw logs: those long enough to be one, as they are and as
/// JSON spells them. Of `settings` only the variables: the rest are rules and names, which are no secrets.
pub(crate) fn strings(spec: &SessionSpec) -> Vec<String> {
    fn leaves(value: &Value, out: &mut Vec<String>) {
        match value {
            Value::Object(fields) => fields.values().for_each(|value| leaves(value, out)),
            Value::Array(items) => items.iter().for_each(|value| leaves(value, out)),
            Value::String(text) if text.len() >= 8 => out.push(text.clone()),
            _ => {}
        }
    }
    let mut out: Vec<String> = spec.env.values().filter(|value| value.len() >= 8).cloned().collect();
    for server in spec.mcp_servers.values() {
        for field in ["headers", "env"] {
            server.get(field).iter().for_each(|values| leaves(values, &mut out));
        }
    }
    let settings = spec.settings.as_ref().and_then(|settings| settings.get("env"));
    settings.iter().for_each(|env| leaves(env, &mut out));
    let spelled = |text: &String| {
        let quoted = json!(text).to_string();
        quoted.get(1..quoted.len() - 1).map(str::to_owned)
    };
    let spelled: Vec<_> = out.iter().filter_map(spelled).filter(|spelled| !out.contains(spelled)).collect();
    out.extend(spelled);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_known_as_json_spells_it_too() {
        let spec = SessionSpec {
            env: [("K".to_owned(), "line 1\nline \"2\"".to_owned())].into(),
            ..SessionSpec::default()
        };
        assert_eq!(strings(&spec), ["line 1\nline \"2\"", r#"line 1\nline \"2\""#]);
    }

    #[test]
    fn nothing_secret_is_shown_and_nothing_is_lost() {
        let spec: SessionSpec = serde_json::from_value(json!({
            "name": "n",
            "env": {"TOKEN": "s3cret-1"},
            "settings": {"env": {"X": "s3cret-2"}, "list": ["s3cret-3"], "n": 4},
            "mcp_servers": {"a": {"type": "http", "url": "http://x", "headers": {"Authorization": "s3cret-5"}}},
        }))
        .unwrap();
        let (shown, secrets) = split(&spec);
        let text = serde_json::to_string(&shown).unwrap();
        assert!(!text.contains("s3cret"), "{text}");
        assert!(text.contains("http://x") && text.contains(r#""TOKEN":"***""#), "{text}");
        assert_eq!(restore(&text, secrets).unwrap(), spec);
        assert_eq!(strings(&spec), ["s3cret-1", "s3cret-5", "s3cret-2"]);
    }
}
