//! What claude is configured by: which of its own settings files it reads, and what castra hands it. Refuses to let
//! a file count that only the agent can have written, unless the spec names its source.
//!
//! claude takes up a changed settings file while it runs, and a rule or a hook in one decides what is asked
//! (measured on 2.1.197 and 2.1.329). A source that is not read cannot be used for that; one that is read is
//! named by [`fixed`], so that a sandbox can keep the agent from writing it.

use super::LaunchContext;
use castra_proto::SessionSpec;
use castra_proto::spec::Home;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// With this claude reads CLAUDE.md of the folders that `--add-dir` names, whatever the setting sources are.
pub(super) const MEMORY_OF_ADDED_DIRS: &str = "CLAUDE_CODE_ADDITIONAL_DIRECTORIES_CLAUDE_MD";

/// The setting sources of a session: the spec's, or those that hold something of the user's.
pub(super) fn sources(spec: &SessionSpec) -> Vec<&str> {
    if let Some(named) = &spec.setting_sources {
        return named.iter().map(String::as_str).collect();
    }
    let user = (spec.home == Home::User).then_some("user");
    let folder = spec.workdir.is_some().then_some(["project", "local"]);
    user.into_iter().chain(folder.into_iter().flatten()).collect()
}

/// Whether CLAUDE.md of a fresh workspace is read although its settings are not.
pub(super) fn memory_only(spec: &SessionSpec) -> bool {
    spec.setting_sources.is_none() && spec.workdir.is_none()
}

/// A place that configures claude. Absolute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fixed {
    /// Settings, agents, commands and skills of a project: nothing in it is for the agent to write.
    Folder(String),
    /// One file in claude's own folder, the rest of which it must be able to write.
    File { dir: String, path: String },
}

/// What a session's claude is configured by, in its folder and in its own.
pub fn fixed(spec: &SessionSpec, workdir: &str, config_dir: &str) -> Vec<Fixed> {
    let sources = sources(spec);
    let own = |name: &str| Fixed::File { dir: config_dir.into(), path: format!("{config_dir}/{name}") };
    let folder = format!("{workdir}/.claude");
    let of_folder = sources.contains(&"project") || sources.contains(&"local");
    let mut found = Vec::new();
    if sources.contains(&"user") || (of_folder && folder == config_dir) {
        found.push(own("settings.json"));
    }
    match of_folder {
        true if folder == config_dir => found.push(own("settings.local.json")),
        true => found.push(Fixed::Folder(folder)),
        false => {}
    }
    found
}

/// The settings that castra hands over: the spec's, and what was remembered in the session's earlier runs.
pub(super) fn settings(spec: &SessionSpec, context: &LaunchContext) -> Option<Value> {
    let mut settings = spec.settings.clone();
    for (list, entries) in remembered(&context.remembered) {
        let permissions = settings
            .get_or_insert_with(|| json!({}))
            .as_object_mut()
            .map(|settings| settings.entry("permissions").or_insert_with(|| json!({})))?;
        if let Some(lists) = permissions.as_object_mut()
            && let Some(known) = lists.entry(list).or_insert_with(|| json!([])).as_array_mut()
        {
            let new: Vec<_> = entries.into_iter().filter(|entry| !known.contains(entry)).collect();
            known.extend(new);
        }
    }
    settings
}

/// Permission updates, in their order, as the lists of `permissions` in settings. A mode is not kept: a run begins
/// with the spec's.
fn remembered(updates: &[Value]) -> BTreeMap<String, Vec<Value>> {
    let mut lists = BTreeMap::new();
    for update in updates {
        let list = match update["type"].as_str() {
            Some("addRules" | "replaceRules" | "removeRules") => {
                update["behavior"].as_str().unwrap_or("allow")
            }
            Some("addDirectories" | "removeDirectories") => "additionalDirectories",
            _ => continue,
        };
        let rules = update["rules"].as_array().into_iter().flatten().map(rule);
        let folders = update["directories"].as_array().into_iter().flatten().cloned();
        let entries: Vec<Value> = rules.chain(folders).collect();
        let known: &mut Vec<Value> = lists.entry(list.to_owned()).or_default();
        match update["type"].as_str() {
            Some("removeRules" | "removeDirectories") => known.retain(|entry| !entries.contains(entry)),
            Some("replaceRules") => *known = entries,
            _ => known.extend(entries.into_iter().filter(|entry| !known.contains(entry)).collect::<Vec<_>>()),
        }
    }
    lists
}

/// A rule as settings spell it: `Bash(echo \(x\))`.
fn rule(rule: &Value) -> Value {
    let tool = rule["toolName"].as_str().unwrap_or_default();
    match rule["ruleContent"].as_str() {
        Some(content) if !content.is_empty() => {
            let escaped = content.replace('\\', r"\\").replace('(', r"\(").replace(')', r"\)");
            json!(format!("{tool}({escaped})"))
        }
        _ => json!(tool),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(fields: Value) -> SessionSpec {
        serde_json::from_value(fields).unwrap()
    }

    #[test]
    fn what_is_read_is_what_the_user_has_written() {
        let none: [&str; 0] = [];
        for (fields, read, places) in [
            (json!({}), &none[..], vec![]),
            (json!({"home": "user"}), &["user"], vec!["/h/.claude/settings.json"]),
            (json!({"workdir": "/w"}), &["project", "local"], vec!["/w/.claude"]),
            (
                json!({"home": "user", "workdir": "/w"}),
                &["user", "project", "local"],
                vec!["/h/.claude/settings.json", "/w/.claude"],
            ),
            (
                json!({"home": "user", "workdir": "/h"}),
                &["user", "project", "local"],
                vec!["/h/.claude/settings.json", "/h/.claude/settings.local.json"],
            ),
            (json!({"workdir": "/w", "setting_sources": []}), &none, vec![]),
            (json!({"setting_sources": ["project"]}), &["project"], vec!["/w/.claude"]),
            (
                json!({"workdir": "/w", "setting_sources": ["user"]}),
                &["user"],
                vec!["/h/.claude/settings.json"],
            ),
        ] {
            let spec = spec(fields.clone());
            let workdir = spec.workdir.clone().unwrap_or_else(|| "/w".into());
            let found = fixed(&spec, &workdir, "/h/.claude").into_iter().map(|place| match place {
                Fixed::Folder(path) | Fixed::File { path, .. } => path,
            });
            assert_eq!(
                (sources(&spec), found.collect::<Vec<_>>()),
                (read.to_vec(), places.iter().map(|p| (*p).to_owned()).collect()),
                "{fields}"
            );
        }
    }

    #[test]
    fn what_was_remembered_stands_as_rules_of_settings() {
        let rules = |kind: &str, behavior: &str, contents: &[&str]| {
            let rules: Vec<_> =
                contents.iter().map(|content| json!({"toolName": "Bash", "ruleContent": content})).collect();
            json!({"type": kind, "behavior": behavior, "rules": rules, "destination": "session"})
        };
        let updates = [
            rules("addRules", "allow", &["ls", r"echo \(a)", "ls"]),
            rules("addRules", "deny", &["rm"]),
            json!({"type": "addRules", "behavior": "allow", "rules": [{"toolName": "Read"}]}),
            rules("removeRules", "allow", &["ls"]),
            rules("addRules", "ask", &["x"]),
            rules("replaceRules", "ask", &["y"]),
            json!({"type": "setMode", "mode": "acceptEdits"}),
            json!({"type": "addDirectories", "directories": ["/a", "/b"]}),
            json!({"type": "removeDirectories", "directories": ["/b"]}),
        ];
        assert_eq!(
            json!(remembered(&updates)),
            json!({
                "allow": [r"Bash(echo \\\(a\))", "Read"],
                "deny": ["Bash(rm)"],
                "ask": ["Bash(y)"],
                "additionalDirectories": ["/a"],
            })
        );
    }
}
