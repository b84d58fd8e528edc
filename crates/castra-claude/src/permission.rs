//! What claude asks, as a person must see it: the kind, the full input, its hash, what is unusual in it.

use castra_proto::Timestamp;
use castra_proto::permission::{
    Behavior, PermissionAnswer, PermissionKind, PermissionRequest, PermissionState,
};
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::collections::BTreeSet;
use std::fmt::Write as _;

/// A permission request as the line says it; who follows the clock makes it a [`PermissionRequest`].
#[derive(Clone, Debug, PartialEq)]
pub struct Asked {
    pub request_id: String,
    pub kind: PermissionKind,
    /// The tool, or the MCP server of an elicitation, or the kind of a dialog.
    pub tool: String,
    pub tool_use_id: Option<String>,
    pub description: Option<String>,
    /// For an elicitation the whole request, for a dialog its payload.
    pub input: Value,
    /// SHA-256 (hex) of the input's bytes in the line.
    pub input_hash: String,
    pub unusual: Vec<String>,
    pub suggestions: Vec<Value>,
}

impl Asked {
    pub fn into_request(self, since: Timestamp, deadline: Option<Timestamp>) -> PermissionRequest {
        PermissionRequest {
            request_id: self.request_id,
            kind: self.kind,
            tool: self.tool,
            tool_use_id: self.tool_use_id,
            description: self.description,
            input: self.input,
            input_hash: self.input_hash,
            unusual: self.unusual,
            suggestions: self.suggestions,
            since,
            deadline,
            state: PermissionState::Pending,
        }
    }
}

/// What `remember` sets: of claude's suggestions the narrowest kind. Rules for this very call if there are any,
/// else folders; only without either a change of the mode, which would allow much more than what was shown.
pub fn remembered(suggestions: &[Value]) -> Vec<Value> {
    let of_kind = |kind: &str| -> Vec<Value> {
        suggestions.iter().filter(|suggestion| suggestion["type"] == kind).cloned().collect()
    };
    let kinds = ["addRules", "addDirectories"].map(of_kind);
    for_session(kinds.into_iter().find(|found| !found.is_empty()).unwrap_or_else(|| suggestions.to_vec()))
}

/// All that an answer sets, in order: what it says itself, then what `remember` means. For the session, never for
/// a settings file, which the agent could write as well: castra keeps it and hands it to later runs.
pub fn updates(request: &PermissionRequest, answer: &PermissionAnswer) -> Vec<Value> {
    let remembered = if answer.remember { remembered(&request.suggestions) } else { Vec::new() };
    for_session(answer.updated_permissions.iter().flatten().cloned().chain(remembered).collect())
}

/// What of an answer later runs are to be given: nothing of a denial, and nothing of what is no tool.
pub fn granted(request: &PermissionRequest, answer: &PermissionAnswer) -> Vec<Value> {
    let sets = matches!(request.kind, PermissionKind::Tool | PermissionKind::Question | PermissionKind::Plan);
    if sets && answer.behavior == Behavior::Allow { updates(request, answer) } else { Vec::new() }
}

fn for_session(mut updates: Vec<Value>) -> Vec<Value> {
    for update in updates.iter_mut().filter_map(Value::as_object_mut) {
        update.insert("destination".into(), "session".into());
    }
    updates
}

/// SHA-256 (hex) of an input's bytes.
pub fn input_hash(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().fold(String::with_capacity(64), |mut hex, byte| {
        // Writing into a String cannot fail.
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}

/// Characters of a line above which it does not fit a screen's attention.
const LONG_LINE: usize = 1_000;
/// Blanks or empty lines in a row that push the rest out of sight.
const PADDING: usize = 40;
/// Commands in one call above which nobody reads to the end.
const SUBCOMMANDS: usize = 50;

/// What a person should notice before they allow this input: whatever makes it look like something else.
pub fn unusual(input: &Value) -> Vec<String> {
    let mut found = BTreeSet::new();
    walk(input, &mut found);
    if let Some(command) = input.get("command").and_then(Value::as_str) {
        let parts = command.split([';', '\n', '|', '&']).filter(|part| !part.trim().is_empty()).count();
        if parts > SUBCOMMANDS {
            found.insert(format!("runs {parts} commands at once"));
        }
    }
    found.into_iter().collect()
}

fn walk(value: &Value, found: &mut BTreeSet<String>) {
    match value {
        Value::String(text) => look(text, found),
        Value::Array(items) => items.iter().for_each(|item| walk(item, found)),
        Value::Object(fields) => {
            for (name, value) in fields {
                look(name, found);
                walk(value, found);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

fn look(text: &str, found: &mut BTreeSet<String>) {
    let mut before = ' ';
    let (mut line, mut blanks) = (0, 0);
    for c in text.chars() {
        match c {
            '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{200e}' | '\u{200f}' | '\u{61c}' => {
                found.insert("holds marks that change the direction of text".into());
            }
            '\u{1b}' | '\u{9b}' => {
                found.insert("holds terminal escape sequences".into());
            }
            '\n' | '\t' | '\r' => {}
            _ if c.is_control() => {
                found.insert("holds control characters".into());
            }
            // Between two emoji a joiner is how they are written.
            '\u{200d}' if before > '\u{2000}' => {}
            '\u{200b}'..='\u{200d}' | '\u{2060}'..='\u{2064}' | '\u{feff}' | '\u{ad}' | '\u{180e}' => {
                found.insert("holds characters that cannot be seen".into());
            }
            '\u{e0000}'..='\u{e007f}' => {
                found.insert("holds characters that cannot be seen".into());
            }
            _ => {}
        }
        if c.is_whitespace() {
            blanks += 1;
        } else {
            if blanks >= PADDING {
                found.insert("holds a long gap that may hide what follows".into());
            }
            blanks = 0;
        }
        line = if c == '\n' { 0 } else { line + 1 };
        if line == LONG_LINE {
            found.insert(format!("holds a line of {LONG_LINE} characters or more"));
        }
        before = c;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_may_mislead_a_reader_is_named() {
        for (input, words) in [
            (json!({"command": "ls -l\n\techo ok"}), vec![]),
            (
                json!({"command": "echo \u{202e}txt.exe"}),
                vec!["holds marks that change the direction of text"],
            ),
            (json!({"command": "echo \u{1b}[2Kok"}), vec!["holds terminal escape sequences"]),
            (json!({"a": ["\u{7}"]}), vec!["holds control characters"]),
            (json!({"na\u{200b}me": 1}), vec!["holds characters that cannot be seen"]),
            (json!({"text": "👩\u{200d}👧 grüße"}), vec![]),
            (json!({"text": "a\u{200d}b"}), vec!["holds characters that cannot be seen"]),
            (json!({"content": "x".repeat(1000)}), vec!["holds a line of 1000 characters or more"]),
            (json!({"content": "x".repeat(999)}), vec![]),
            (
                json!({"command": format!("ls{}; rm x", " ".repeat(40))}),
                vec!["holds a long gap that may hide what follows"],
            ),
            (json!({"command": format!("ls{}", "\n".repeat(80))}), vec![]),
            (json!({"command": "a;".repeat(50)}), vec![]),
            (json!({"command": "a && ".repeat(51)}), vec!["runs 51 commands at once"]),
        ] {
            assert_eq!(unusual(&input), words, "{input}");
        }
    }

    #[test]
    fn remembering_sets_the_rule_and_not_the_mode() {
        let rule =
            json!({"type": "addRules", "rules": [], "behavior": "allow", "destination": "localSettings"});
        let mode = json!({"type": "setMode", "mode": "acceptEdits", "destination": "session"});
        let folder = json!({"type": "addDirectories", "directories": ["/w"], "destination": "session"});
        let kept = json!({"type": "addRules", "rules": [], "behavior": "allow", "destination": "session"});
        assert_eq!(remembered(&[rule, folder.clone(), mode.clone()]), [kept]);
        assert_eq!(remembered(&[mode.clone(), folder.clone()]), [folder]);
        assert_eq!(remembered(std::slice::from_ref(&mode)), [mode]);
        assert_eq!(remembered(&[]), Vec::<Value>::new());
    }

    #[test]
    fn the_hash_is_of_the_bytes() {
        assert_eq!(input_hash(b"{}"), "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a");
        assert_ne!(input_hash(b"{\"a\":1}"), input_hash(b"{ \"a\":1}"));
    }
}
