//! claude's configuration files, as values: what keeps its first-run screens away. Keeps what it does not know.
//!
//! The screens, their keys and their defaults: facts/claude-cli.md §5, facts/seed-packages.md §3. In stream mode
//! claude shows none of them; the terminal does, and so does a user who starts claude in a session's home.

use serde_json::{Map, Value, json};

/// What is to be settled before claude asks.
#[derive(Clone, Copy, Debug, Default)]
pub struct FirstRun<'a> {
    /// Real paths of folders to trust; what lies beneath one is trusted too.
    pub trusted: &'a [&'a str],
    /// API keys whose use is confirmed.
    pub api_keys: &'a [&'a str],
    /// The warning before bypassPermissions, whose default answer is to leave, was accepted.
    pub bypass_accepted: bool,
}

/// The same, owned: what a launch asks its caller to settle.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Settled {
    pub trusted: Vec<String>,
    pub api_keys: Vec<String>,
    pub bypass_accepted: bool,
}

impl Settled {
    /// `.claude.json` with it; see [`claude_json`].
    pub fn claude_json(&self, existing: Option<Value>) -> Value {
        let trusted: Vec<&str> = self.trusted.iter().map(String::as_str).collect();
        let api_keys: Vec<&str> = self.api_keys.iter().map(String::as_str).collect();
        let bypass_accepted = self.bypass_accepted;
        claude_json(existing, &FirstRun { trusted: &trusted, api_keys: &api_keys, bypass_accepted })
    }
}

impl std::fmt::Debug for Settled {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { trusted, api_keys, bypass_accepted } = self;
        write!(f, "Settled({trusted:?}, {} keys, bypass_accepted: {bypass_accepted})", api_keys.len())
    }
}

/// `.claude.json` with what `first_run` asks for; `existing` is what is there, if anything.
///
/// What is no object is replaced: claude itself starts anew over a broken file.
pub fn claude_json(existing: Option<Value>, first_run: &FirstRun<'_>) -> Value {
    let mut root = map(existing);
    // Without it the welcome screen probes api.anthropic.com, whatever the base URL, and leaves when offline.
    root.insert("hasCompletedOnboarding".into(), json!(true));
    if first_run.bypass_accepted {
        root.insert("bypassPermissionsModeAccepted".into(), json!(true));
    }
    if !first_run.trusted.is_empty() {
        let mut projects = map(root.remove("projects"));
        for folder in first_run.trusted {
            let mut project = map(projects.remove(*folder));
            project.insert("hasTrustDialogAccepted".into(), json!(true));
            projects.insert((*folder).into(), project.into());
        }
        root.insert("projects".into(), projects.into());
    }
    if !first_run.api_keys.is_empty() {
        let mut responses = map(root.remove("customApiKeyResponses"));
        first_run.api_keys.iter().for_each(|key| approve_key(&mut responses, key));
        root.insert("customApiKeyResponses".into(), responses.into());
    }
    root.into()
}

/// claude knows a confirmed key by its last 20 characters.
fn approve_key(responses: &mut Map<String, Value>, key: &str) {
    let start = key.char_indices().rev().nth(19).map_or(0, |(at, _)| at);
    let tail = json!(&key[start..]);
    // A key that was once refused stays so while it is in both lists.
    if let Some(Value::Array(rejected)) = responses.get_mut("rejected") {
        rejected.retain(|one| *one != tail);
    }
    match responses.get_mut("approved") {
        Some(Value::Array(approved)) if approved.contains(&tail) => {}
        Some(Value::Array(approved)) => approved.push(tail),
        _ => drop(responses.insert("approved".into(), json!([tail]))),
    }
}

/// `settings.json` that also silences the warning before bypassPermissions, and keeps all else.
pub fn settings_json(existing: Option<Value>, bypass_accepted: bool) -> Value {
    let mut root = map(existing);
    if bypass_accepted {
        root.insert("skipDangerousModePermissionPrompt".into(), json!(true));
    }
    root.into()
}

fn map(value: Option<Value>) -> Map<String, Value> {
    match value {
        Some(Value::Object(fields)) => fields,
        _ => Map::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_needed_is_added_and_what_is_there_is_kept() {
        let first_run = FirstRun {
            trusted: &["/w"],
            api_keys: &["sk-ant-0123456789abcdefghij", "short"],
            bypass_accepted: true,
        };
        let wanted = json!({
            "hasCompletedOnboarding": true,
            "bypassPermissionsModeAccepted": true,
            "projects": {"/w": {"hasTrustDialogAccepted": true}},
            "customApiKeyResponses": {"approved": ["0123456789abcdefghij", "short"]},
        });
        for nothing in [None, Some(json!(null)), Some(json!([1])), Some(json!({}))] {
            assert_eq!(claude_json(nothing, &first_run), wanted);
        }
        let existing = json!({
            "userID": "u",
            "projects": {"/w": {"history": [1]}, "/other": {"hasTrustDialogAccepted": false}},
            "customApiKeyResponses": {"approved": ["short"], "rejected": ["0123456789abcdefghij", "x"]},
        });
        let merged = claude_json(Some(existing), &first_run);
        assert_eq!(
            merged,
            json!({
                "userID": "u",
                "hasCompletedOnboarding": true,
                "bypassPermissionsModeAccepted": true,
                "projects": {
                    "/w": {"history": [1], "hasTrustDialogAccepted": true},
                    "/other": {"hasTrustDialogAccepted": false},
                },
                "customApiKeyResponses": {"approved": ["short", "0123456789abcdefghij"], "rejected": ["x"]},
            })
        );
        assert_eq!(claude_json(Some(merged.clone()), &first_run), merged, "twice is once");
    }

    #[test]
    fn oddly_typed_parts_are_replaced() {
        let first_run = FirstRun { trusted: &["/w"], api_keys: &["k"], bypass_accepted: false };
        let odd = json!({"projects": 1, "customApiKeyResponses": {"approved": "k"}});
        assert_eq!(
            claude_json(Some(odd), &first_run),
            json!({
                "hasCompletedOnboarding": true,
                "projects": {"/w": {"hasTrustDialogAccepted": true}},
                "customApiKeyResponses": {"approved": ["k"]},
            })
        );
    }

    #[test]
    fn settings_keep_what_they_have() {
        let silenced = settings_json(Some(json!({"model": "x"})), true);
        assert_eq!(silenced, json!({"model": "x", "skipDangerousModePermissionPrompt": true}));
        assert_eq!(settings_json(None, false), json!({}));
    }
}
