//! Permission requests in front of a person: how one is shown, and what their line means. Pure.

use super::escape::{one_line, visible};
use super::out::Style;
use super::progress::tool_name;
use castra_proto::permission::{Behavior, PermissionAnswer, PermissionKind, PermissionRequest};
use serde_json::{Value, json};

/// The request in full, as lines.
pub(super) fn show(request: &PermissionRequest) -> Vec<(Style, String)> {
    let name = tool_name(&request.tool);
    let title = match request.kind {
        PermissionKind::Tool => format!("? {name} wants to run"),
        PermissionKind::Question => "? a question for you".into(),
        PermissionKind::Plan => "? a plan to approve".into(),
        PermissionKind::Elicitation => format!("? {name} asks"),
        PermissionKind::Dialog => format!("? claude asks ({name})"),
    };
    let mut lines = vec![(Style::Bold, title)];
    let body = match request.kind {
        PermissionKind::Question => questions(&request.input),
        PermissionKind::Plan => {
            request.input["plan"].as_str().map_or_else(|| fields(&request.input), visible_lines)
        }
        _ => fields(&request.input),
    };
    lines.extend(body.into_iter().map(|line| (Style::Plain, format!("  {line}"))));
    lines.extend(request.unusual.iter().map(|what| (Style::Red, format!("  unusual: {}", visible(what)))));
    lines.extend(rules(&request.suggestions).map(|rule| (Style::Dim, format!("  always = {rule}"))));
    lines
}

/// The line that asks.
pub(super) fn prompt(request: &PermissionRequest) -> String {
    match request.kind {
        PermissionKind::Question => "answer (a number or your own words; several: 1,3), or n: ".into(),
        _ if request.suggestions.is_empty() => "allow? [y]es [n]o [e]dit, or say what to do instead: ".into(),
        _ => "allow? [y]es [n]o [a]lways [e]dit, or say what to do instead: ".into(),
    }
}

fn visible_lines(text: &str) -> Vec<String> {
    visible(text).lines().map(String::from).collect()
}

/// Every field in full; texts with their own line breaks, everything else as JSON.
fn fields(input: &Value) -> Vec<String> {
    let Value::Object(map) = input else { return visible_lines(&input.to_string()) };
    let mut lines = Vec::new();
    for (name, value) in map {
        let name = visible(name).replace('\n', "\\n");
        match value {
            Value::String(text) => {
                let mut text = visible_lines(text).into_iter();
                lines.push(format!("{name}: {}", text.next().unwrap_or_default()));
                lines.extend(text.map(|line| format!("  {line}")));
            }
            value => lines.push(format!("{name}: {}", visible(&value.to_string()))),
        }
    }
    lines
}

fn questions(input: &Value) -> Vec<String> {
    let mut lines = Vec::new();
    for question in input["questions"].as_array().into_iter().flatten() {
        lines.extend(visible_lines(question["question"].as_str().unwrap_or_default()));
        for (n, option) in question["options"].as_array().into_iter().flatten().enumerate() {
            let label = one_line(option["label"].as_str().unwrap_or_default(), 200);
            let description = one_line(option["description"].as_str().unwrap_or_default(), 200);
            let dash = if description.is_empty() { "" } else { " - " };
            lines.push(format!("  {}. {label}{dash}{description}", n + 1));
        }
    }
    lines
}

/// What `remember` would set in this session, in words.
pub(super) fn rules(suggestions: &[Value]) -> impl Iterator<Item = String> + '_ {
    suggestions.iter().map(|update| {
        let what = match update["type"].as_str() {
            Some("setMode") => format!("set the permission mode to {}", plain(&update["mode"])),
            Some("addDirectories") => format!("add the folders {}", update["directories"]),
            Some(kind @ ("addRules" | "replaceRules")) => {
                let rules: Vec<String> = update["rules"]
                    .as_array()
                    .into_iter()
                    .flatten()
                    .map(|rule| match rule["ruleContent"].as_str() {
                        Some(content) => format!("{}({content})", plain(&rule["toolName"])),
                        None => plain(&rule["toolName"]),
                    })
                    .collect();
                let verb = if kind == "addRules" { "" } else { " (replacing the others)" };
                format!("{} {}{verb}", plain(&update["behavior"]), rules.join(", "))
            }
            _ => update.to_string(),
        };
        visible(&what).into_owned()
    })
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), String::from)
}

/// What a person's line means.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Reply {
    Answer(Box<PermissionAnswer>),
    /// They want to change the input first: ask for it with `edit_prompt`, read it with `edited`.
    Edit,
    /// Not understood; say this and ask again.
    Again(&'static str),
}

fn answer(request: &PermissionRequest, behavior: Behavior) -> PermissionAnswer {
    PermissionAnswer {
        behavior,
        updated_input: None,
        updated_permissions: None,
        message: None,
        interrupt: false,
        remember: false,
        // An answer is to what was shown, and to nothing else.
        input_hash: Some(request.input_hash.clone()),
    }
}

pub(super) fn deny(request: &PermissionRequest, message: &str) -> PermissionAnswer {
    PermissionAnswer { message: Some(message.into()), ..answer(request, Behavior::Deny) }
}

pub(super) fn allow(request: &PermissionRequest) -> PermissionAnswer {
    answer(request, Behavior::Allow)
}

/// What is said to claude after a bare `n`.
pub(super) const REFUSED: &str = "The user does not allow this.";

pub(super) fn reply(request: &PermissionRequest, line: &str) -> Reply {
    let line = line.trim();
    let done = |answer| Reply::Answer(Box::new(answer));
    let no = matches!(line.to_lowercase().as_str(), "n" | "no");
    if request.kind == PermissionKind::Question && !no {
        if line.is_empty() {
            return Reply::Again("a number, your own words, or n");
        }
        // One question takes the whole line; several take one part each, separated by `;`.
        let asked = request.input["questions"].as_array().map_or(0, Vec::len);
        let parts: Vec<&str> = if asked > 1 { line.split(';').map(str::trim).collect() } else { vec![line] };
        if parts.len() != asked.max(1) {
            return Reply::Again("there are several questions: separate the answers by ;");
        }
        let updated = answers(&request.input, |n| parts.get(n).map(|part| (*part).to_owned()));
        return done(PermissionAnswer { updated_input: Some(updated), ..allow(request) });
    }
    match line.to_lowercase().as_str() {
        "y" | "yes" => done(allow(request)),
        "n" | "no" => done(deny(request, REFUSED)),
        "a" | "always" if request.suggestions.is_empty() => Reply::Again("there is no rule to remember here"),
        "a" | "always" => done(PermissionAnswer { remember: true, ..allow(request) }),
        "e" | "edit" => Reply::Edit,
        // A stray key is no reason to run something, nor to refuse it.
        other if other.chars().count() < 3 => Reply::Again("y, n, a, e, or a sentence"),
        _ => done(deny(request, line)),
    }
}

/// The question's input with `answers`: claude's own form, by the question's text.
pub(super) fn answers(input: &Value, given: impl Fn(usize) -> Option<String>) -> Value {
    let mut answers = serde_json::Map::new();
    for (n, question) in input["questions"].as_array().into_iter().flatten().enumerate() {
        if let (Some(text), Some(given)) = (question["question"].as_str(), given(n)) {
            answers.insert(text.into(), json!(chosen(question, &given)));
        }
    }
    let mut input = input.clone();
    input["answers"] = Value::Object(answers);
    input
}

/// Numbers become labels; anything else is the person's own words.
fn chosen(question: &Value, given: &str) -> String {
    let label = |number: &str| {
        let n: usize = number.trim().parse().ok()?;
        question["options"][n.checked_sub(1)?]["label"].as_str().map(String::from)
    };
    let labels: Option<Vec<String>> = given.split(',').map(label).collect();
    labels.map_or_else(|| given.to_owned(), |labels| labels.join(", "))
}

/// A command is edited as it stands, any other input as JSON.
pub(super) fn edit_prompt(request: &PermissionRequest) -> &'static str {
    if request.input["command"].is_string() {
        "the command to run instead: "
    } else {
        "the input to use, as JSON: "
    }
}

pub(super) fn edited(request: &PermissionRequest, line: &str) -> Option<PermissionAnswer> {
    let updated = match &request.input {
        Value::Object(fields) if fields.get("command").is_some_and(Value::is_string) => {
            let mut fields = fields.clone();
            fields.insert("command".into(), json!(line.trim_end_matches('\n')));
            Value::Object(fields)
        }
        _ => serde_json::from_str::<Value>(line).ok().filter(Value::is_object)?,
    };
    Some(PermissionAnswer { updated_input: Some(updated), ..allow(request) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(kind: PermissionKind, input: Value, suggestions: Vec<Value>) -> PermissionRequest {
        PermissionRequest {
            request_id: "r".into(),
            kind,
            tool: "Bash".into(),
            tool_use_id: None,
            description: None,
            input,
            input_hash: "h".into(),
            unusual: vec![],
            suggestions,
            since: castra_proto::Timestamp(0),
            deadline: None,
            state: Default::default(),
        }
    }

    fn suggestions() -> Vec<Value> {
        vec![
            json!({"type":"addRules","rules":[{"toolName":"Bash","ruleContent":"touch a.txt"},{"toolName":"Read"}],"behavior":"allow","destination":"localSettings"}),
            json!({"type":"setMode","mode":"acceptEdits","destination":"session"}),
        ]
    }

    #[test]
    fn a_line_and_what_it_means() {
        let plain = request(PermissionKind::Tool, json!({"command":"ls"}), vec![]);
        let with_rule = request(PermissionKind::Tool, json!({"command":"ls"}), suggestions());
        let yes = Reply::Answer(Box::new(allow(&plain)));
        let no = |message: &str| Reply::Answer(Box::new(deny(&plain, message)));
        let always = Reply::Answer(Box::new(PermissionAnswer { remember: true, ..allow(&plain) }));
        let table: &[(&PermissionRequest, &str, Reply)] = &[
            (&plain, "y\n", yes.clone()),
            (&plain, " YES ", yes),
            (&plain, "n", no(REFUSED)),
            (&plain, "a", Reply::Again("there is no rule to remember here")),
            (&with_rule, "always", always),
            (&plain, "e", Reply::Edit),
            (&plain, "", Reply::Again("y, n, a, e, or a sentence")),
            (&plain, "q", Reply::Again("y, n, a, e, or a sentence")),
            (&plain, "use ls -la instead", no("use ls -la instead")),
        ];
        for (request, line, expected) in table {
            assert_eq!(&reply(request, line), expected, "{line:?}");
        }
    }

    #[test]
    fn questions_are_answered_by_number_or_words() {
        let input = json!({"questions":[{"question":"Which?","options":[{"label":"A"},{"label":"B","description":"the second"}]}]});
        let request = request(PermissionKind::Question, input.clone(), vec![]);
        let table: &[(&str, &str)] = &[
            ("2", "B"),
            ("1,2", "A, B"),
            ("3", "3"),
            ("neither, thanks", "neither, thanks"),
            ("yes", "yes"),
        ];
        for (line, expected) in table {
            let mut updated = input.clone();
            updated["answers"] = json!({"Which?": expected});
            let answer = PermissionAnswer { updated_input: Some(updated), ..allow(&request) };
            assert_eq!(reply(&request, line), Reply::Answer(Box::new(answer)), "{line}");
        }
        assert_eq!(reply(&request, "no"), Reply::Answer(Box::new(deny(&request, REFUSED))));
        let shown: Vec<String> = show(&request).into_iter().map(|(_, line)| line).collect();
        assert_eq!(shown, ["? a question for you", "  Which?", "    1. A", "    2. B - the second"]);
    }

    #[test]
    fn the_whole_input_is_shown_and_none_of_it_is_obeyed() {
        let mut request = request(
            PermissionKind::Tool,
            json!({"command":"ls\nrm -rf x\u{1b}[8m","timeout":5}),
            suggestions(),
        );
        request.unusual = vec!["control characters".into()];
        let shown: Vec<String> = show(&request).into_iter().map(|(_, line)| line).collect();
        assert_eq!(
            shown,
            [
                "? Bash wants to run",
                "  command: ls",
                "    rm -rf x\\x1b[8m",
                "  timeout: 5",
                "  unusual: control characters",
                "  always = allow Bash(touch a.txt), Read",
                "  always = set the permission mode to acceptEdits",
            ]
        );
    }

    #[test]
    fn an_edited_command_keeps_the_other_fields() {
        let bash = request(PermissionKind::Tool, json!({"command":"ls","timeout":5}), vec![]);
        assert_eq!(
            edited(&bash, "ls -l\n").unwrap().updated_input,
            Some(json!({"command":"ls -l","timeout":5}))
        );
        let other = request(PermissionKind::Tool, json!({"file_path":"a"}), vec![]);
        assert_eq!(
            edited(&other, r#"{"file_path":"b"}"#).unwrap().updated_input,
            Some(json!({"file_path":"b"}))
        );
        assert_eq!(edited(&other, "b"), None);
    }
}
