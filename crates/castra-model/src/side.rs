//! The calls that the Claude Code CLI makes beside the conversation: titles, summaries, probes. Owns how
//! they are told apart and their harmless answers; refuses to let them use up a script's rules.
//!
//! Seen on 2.1.197 and 2.1.329, or, for those that need an hour's wait or an account, read in their strings.

use crate::request::{Body, Facts};
use serde_json::{Map, Value};

/// A call beside the conversation. A rule answers one only if it says `side = "<name>"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    /// One token: is the account in order, does the model exist.
    Probe,
    /// Name this session; the answer is a JSON object with a `title`.
    Title,
    /// Any other call whose answer is bound by a JSON schema, or that is made to use one tool.
    Structured,
    /// `/compact`, and automatic compaction.
    Compact,
    /// `/btw` and the control request `side_question`.
    Question,
    /// What the user might type next, shown as ghost text.
    Suggestion,
    /// Away summaries, agents' progress, labels of tool batches, memory extraction, hooks.
    Summary,
}

/// Beginnings of the newest user text, or of a system block.
const USER_MARKS: [(&str, Side); 9] = [
    ("CRITICAL: Respond with TEXT ONLY. Do NOT call any tools.", Side::Compact),
    ("<system-reminder>This is a side question from the user.", Side::Question),
    ("[SUGGESTION MODE:", Side::Suggestion),
    ("The user stepped away and is coming back.", Side::Summary),
    ("Describe your most recent action in 3-5 words", Side::Summary),
    ("Web page content:", Side::Summary),
    ("You are now acting as the memory extraction subagent.", Side::Summary),
    ("Generate a short kebab-case name", Side::Summary),
    ("Write a short summary label", Side::Summary),
];
const SYSTEM_MARKS: [(&str, Side); 5] = [
    ("You are a helpful AI assistant tasked with summarizing conversations", Side::Compact),
    ("Write a short summary label describing what these tool calls", Side::Summary),
    ("Generate a short kebab-case name", Side::Summary),
    ("You are evaluating a stop-condition hook in Claude Code", Side::Summary),
    ("You are evaluating a hook", Side::Summary),
];

impl Side {
    pub(crate) const ALL: [Self; 7] = [
        Self::Probe,
        Self::Title,
        Self::Structured,
        Self::Compact,
        Self::Question,
        Self::Suggestion,
        Self::Summary,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Probe => "probe",
            Self::Title => "title",
            Self::Structured => "structured",
            Self::Compact => "compact",
            Self::Question => "side_question",
            Self::Suggestion => "suggestion",
            Self::Summary => "summary",
        }
    }

    pub(crate) fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|side| side.name() == name)
    }

    /// Whether this user text starts a side call.
    pub(crate) fn marks(text: &str) -> bool {
        Self::of_user(text).is_some()
    }

    fn of_user(text: &str) -> Option<Self> {
        USER_MARKS.iter().find(|(mark, _)| text.trim_start().starts_with(mark)).map(|(_, side)| *side)
    }

    pub(crate) fn of(body: &Body, facts: &Facts, last_user: &str) -> Option<Self> {
        if body.max_tokens.is_some_and(|limit| limit <= 1) {
            return Some(Self::Probe);
        }
        if let Some(side) = Self::of_user(last_user) {
            return Some(side);
        }
        let head = facts.system.lines();
        let by_system = |line: &str| SYSTEM_MARKS.iter().find(|(mark, _)| line.starts_with(mark));
        if let Some((_, side)) = head.take(8).find_map(by_system) {
            return Some(*side);
        }
        if let Some(schema) = schema(body) {
            let titled = schema.pointer("/properties/title").is_some() && last_user.contains("<session>");
            return Some(if titled { Self::Title } else { Self::Structured });
        }
        forced_tool(body).map(|_| Self::Structured)
    }
}

/// The answer to a side call that no rule claims.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum SideAnswer {
    Text(String),
    ToolUse { name: String, input: Value },
}

pub(crate) fn answer(side: Side, body: &Body, facts: &Facts) -> SideAnswer {
    let last = facts.last_user.as_deref().unwrap_or_default();
    SideAnswer::Text(match side {
        Side::Probe => "ok".to_owned(),
        Side::Title => serde_json::json!({ "title": title(last) }).to_string(),
        Side::Structured => {
            if let Some(name) = forced_tool(body) {
                let schema = body.tool(name).and_then(|tool| tool.input_schema.as_ref());
                let input = schema.map_or_else(|| Value::Object(Map::new()), smallest);
                return SideAnswer::ToolUse { name: name.to_owned(), input };
            }
            schema(body).map_or_else(|| "{}".to_owned(), |schema| smallest(schema).to_string())
        }
        Side::Compact => {
            let asked: Vec<_> = facts.user_texts.iter().rev().skip(1).take(20).rev().collect();
            let asked = asked.into_iter().map(|text| format!("- {text}\n")).collect::<String>();
            let count = facts.messages;
            format!(
                "<analysis>Scripted.</analysis>\n<summary>{count} messages. The user asked:\n{asked}</summary>"
            )
        }
        Side::Question => format!("A scripted answer beside the conversation, to: {last}"),
        Side::Suggestion => "what can you do?".to_owned(),
        Side::Summary => "Working with the scripted model".to_owned(),
    })
}

fn schema(body: &Body) -> Option<&Value> {
    body.output_config.as_ref()?.format.as_ref()?.schema.as_ref()
}

fn forced_tool(body: &Body) -> Option<&str> {
    let choice = body.tool_choice.as_ref().filter(|choice| choice.r#type == "tool")?;
    choice.name.as_deref()
}

/// A title out of `<session>…</session>`: its first six words.
fn title(text: &str) -> String {
    let inside = text.split_once("<session>").map_or(text, |(_, after)| after);
    let inside = inside.split_once("</session>").map_or(inside, |(before, _)| before);
    let words: Vec<_> = inside.split_whitespace().take(6).collect();
    if words.is_empty() { "Scripted session".to_owned() } else { words.join(" ") }
}

/// The smallest value that fits the usual JSON schemas: `false`, `0`, empty, the first of an `enum`.
fn smallest(schema: &Value) -> Value {
    let first = |name: &str| schema.get(name).and_then(Value::as_array).and_then(|list| list.first());
    if let Some(value) = schema.get("const").or_else(|| first("enum")) {
        return value.clone();
    }
    if let Some(inner) = first("anyOf").or_else(|| first("oneOf")) {
        return smallest(inner);
    }
    match schema.get("type").and_then(Value::as_str) {
        Some("string") => Value::String(String::new()),
        Some("boolean") => Value::Bool(false),
        Some("number" | "integer") => schema.get("minimum").cloned().unwrap_or_else(|| 0.into()),
        Some("array") => Value::Array(Vec::new()),
        Some("null") => Value::Null,
        _ => {
            let required = schema.get("required").and_then(Value::as_array);
            let names = required.into_iter().flatten().filter_map(Value::as_str);
            let field = |name: &str| {
                let inner = schema.get("properties").and_then(|properties| properties.get(name));
                (name.to_owned(), inner.map_or(Value::Null, smallest))
            };
            Value::Object(names.map(field).collect())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn side(value: Value) -> (Option<Side>, Option<SideAnswer>) {
        let bytes = value.to_string();
        let body = Body::parse(bytes.as_bytes()).unwrap();
        let facts = Facts::read(&body, bytes.len(), None).unwrap();
        (facts.side, facts.side.map(|side| answer(side, &body, &facts)))
    }

    fn request(last: &str) -> Value {
        json!({"model": "m", "max_tokens": 100, "messages": [
            {"role": "user", "content": "first"},
            {"role": "assistant", "content": "yes"},
            {"role": "user", "content": last},
        ]})
    }

    #[test]
    fn ordinary_calls_are_not_side_calls() {
        for text in ["quota", "hello", "Tell me about CRITICAL: Respond with TEXT ONLY."] {
            assert_eq!(side(request(text)), (None, None), "{text}");
        }
        let mut schema_less = request("x");
        schema_less["output_config"] = json!({"effort": "high"});
        schema_less["tool_choice"] = json!({"type": "auto"});
        assert_eq!(side(schema_less), (None, None));
    }

    #[test]
    fn the_cli_calls_are_told_apart_and_answered() {
        let text = |text: &str| SideAnswer::Text(text.to_owned());
        let mut probe = request("quota");
        probe["max_tokens"] = json!(1);
        let mut titled = request("<session>\nwrite a haiku\n</session>\n\nWrite the title in the language …");
        titled["output_config"] = json!({"format": {"type": "json_schema", "schema": {"type": "object", "properties": {"title": {}}}}});
        let mut structured = request("is this safe?");
        structured["output_config"] = json!({"format": {"schema": {
            "type": "object", "required": ["ok", "why", "level"],
            "properties": {"ok": {"type": "boolean"}, "why": {"type": "string"}, "level": {"enum": ["low", "high"]}},
        }}});
        let mut forced = request("classify");
        forced["tool_choice"] = json!({"type": "tool", "name": "verdict"});
        forced["tools"] = json!([{"name": "verdict", "input_schema": {
            "type": "object", "required": ["n"], "properties": {"n": {"type": "integer", "minimum": 2}}}}]);
        let compact =
            request("CRITICAL: Respond with TEXT ONLY. Do NOT call any tools.\n\n- Do NOT use Read");
        let question =
            request("<system-reminder>This is a side question from the user. …</system-reminder>\n\nwhy?");
        let table = [
            (probe, Side::Probe, text("ok")),
            (titled, Side::Title, text(r#"{"title":"write a haiku"}"#)),
            (structured, Side::Structured, text(r#"{"level":"low","ok":false,"why":""}"#)),
            (
                forced,
                Side::Structured,
                SideAnswer::ToolUse { name: "verdict".into(), input: json!({"n": 2}) },
            ),
            (
                compact,
                Side::Compact,
                text(
                    "<analysis>Scripted.</analysis>\n<summary>3 messages. The user asked:\n- first\n</summary>",
                ),
            ),
            (question, Side::Question, text("A scripted answer beside the conversation, to: why?")),
            (
                request("[SUGGESTION MODE: Suggest what the user might …]"),
                Side::Suggestion,
                text("what can you do?"),
            ),
        ];
        for (request, want, reply) in table {
            assert_eq!(side(request), (Some(want), Some(reply)));
        }
    }

    #[test]
    fn a_side_question_in_blocks_is_found_by_its_reminder() {
        let mut request = request("x");
        request["messages"][2]["content"] = json!([
            {"type": "text", "text": "<system-reminder>This is a side question from the user. …</system-reminder>\n\n"},
            {"type": "text", "text": "what is up?"},
        ]);
        let want = SideAnswer::Text("A scripted answer beside the conversation, to: what is up?".into());
        assert_eq!(side(request), (Some(Side::Question), Some(want)));
    }

    #[test]
    fn every_name_leads_back() {
        for side in Side::ALL {
            assert_eq!(Side::named(side.name()), Some(side));
        }
    }
}
