//! `{{name}}` and `{{name:argument}}` in a script's strings. Owns the list of names and refuses unknown
//! ones when the script is read, so that a typing error is not an answer.

use crate::request::Facts;
use serde_json::Value;

/// How many earlier user texts `{{user_texts}}` lists at most, newest kept.
const USER_TEXTS_SHOWN: usize = 20;

/// Where `{{count_to:N}}` stops, whatever it is asked.
const COUNTED: u32 = 1000;
const GROUP: &str = "the number of a regex group";

/// Why a string is not a template.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    #[error("`{{{{` without `}}}}`")]
    Unclosed,
    #[error("`{{{{{0}}}}}` is not a template; there are {names}", names = Var::NAMES)]
    Unknown(String),
    #[error("`{{{{{name}}}}}` needs {needs} after a colon")]
    Argument { name: &'static str, needs: &'static str },
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Var {
    LastUser,
    UserTexts,
    ToolResult { chars: Option<usize> },
    ToolName,
    Call,
    Model,
    Cwd,
    PlanFile,
    EchoAfter(String),
    Capture(usize),
    Count(usize),
    Open,
}

impl Var {
    const NAMES: &str = "last_user, user_texts, tool_result, tool_result:CHARS, tool_name, call, model, cwd, plan_file, \
                         echo_after:PREFIX, capture:N, count_to:N, open";

    fn parse(source: &str) -> Result<Self, TemplateError> {
        let source = source.trim();
        let (name, argument) = match source.split_once(':') {
            Some((name, argument)) => (name.trim(), Some(argument)),
            None => (source, None),
        };
        let number = |argument: Option<&str>| argument.and_then(|text| text.trim().parse::<usize>().ok());
        Ok(match (name, argument) {
            ("last_user", None) => Self::LastUser,
            ("user_texts", None) => Self::UserTexts,
            ("tool_result", None) => Self::ToolResult { chars: None },
            ("tool_result", argument) => Self::ToolResult {
                chars: Some(number(argument).ok_or(TemplateError::Argument {
                    name: "tool_result",
                    needs: "a number of characters",
                })?),
            },
            ("tool_name", None) => Self::ToolName,
            ("call", None) => Self::Call,
            ("model", None) => Self::Model,
            ("cwd", None) => Self::Cwd,
            ("plan_file", None) => Self::PlanFile,
            ("open", None) => Self::Open,
            ("echo_after", argument) => match argument.map(str::trim).filter(|prefix| !prefix.is_empty()) {
                Some(prefix) => Self::EchoAfter(prefix.to_owned()),
                None => return Err(TemplateError::Argument { name: "echo_after", needs: "a prefix" }),
            },
            ("capture", argument) => Self::Capture(
                number(argument).ok_or(TemplateError::Argument { name: "capture", needs: GROUP })?,
            ),
            ("count_to", argument) => Self::Count(
                number(argument).ok_or(TemplateError::Argument { name: "count_to", needs: GROUP })?,
            ),
            _ => return Err(TemplateError::Unknown(source.to_owned())),
        })
    }
}

/// What a reply is rendered from: the request, and what the chosen rule found in it.
pub(crate) struct Scene<'a> {
    pub(crate) facts: &'a Facts,
    /// The tool result that the rule matched, else the newest.
    pub(crate) tool_result: Option<usize>,
    /// The groups of the rule's regex; group 0 is the whole match.
    pub(crate) captures: &'a [String],
    /// 1-based number of this call in its conversation.
    pub(crate) call: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Literal(String),
    Var(Var),
}

/// A string with its variables found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Template(Vec<Piece>);

impl Template {
    pub(crate) fn parse(source: &str) -> Result<Self, TemplateError> {
        let mut pieces = Vec::new();
        let mut rest = source;
        while let Some((before, after)) = rest.split_once("{{") {
            let (inside, tail) = after.split_once("}}").ok_or(TemplateError::Unclosed)?;
            if !before.is_empty() {
                pieces.push(Piece::Literal(before.to_owned()));
            }
            pieces.push(Piece::Var(Var::parse(inside)?));
            rest = tail;
        }
        if !rest.is_empty() {
            pieces.push(Piece::Literal(rest.to_owned()));
        }
        Ok(Self(pieces))
    }

    pub(crate) fn render(&self, scene: &Scene<'_>) -> String {
        let mut out = String::new();
        for piece in &self.0 {
            match piece {
                Piece::Literal(text) => out.push_str(text),
                Piece::Var(var) => push_var(&mut out, var, scene),
            }
        }
        out
    }

    /// The highest regex group that the template names.
    pub(crate) fn highest_capture(&self) -> Option<usize> {
        let captures = self.0.iter().filter_map(|piece| match piece {
            Piece::Var(Var::Capture(n) | Var::Count(n)) => Some(*n),
            _ => None,
        });
        captures.max()
    }
}

fn push_var(out: &mut String, var: &Var, scene: &Scene<'_>) {
    let facts = scene.facts;
    let result = scene.tool_result.and_then(|index| facts.tool_results.get(index));
    match var {
        Var::LastUser => out.push_str(facts.last_user.as_deref().unwrap_or_default()),
        Var::UserTexts => push_user_texts(out, facts),
        Var::ToolResult { chars } => {
            let text = result.map(|result| result.text.as_str()).unwrap_or_default();
            match chars.and_then(|limit| text.char_indices().nth(limit)) {
                Some((end, _)) => {
                    out.push_str(&text[..end]);
                    out.push('…');
                }
                None => out.push_str(text),
            }
        }
        Var::ToolName => {
            out.push_str(result.and_then(|result| result.tool.as_deref()).unwrap_or("a tool"));
        }
        Var::Call => out.push_str(&scene.call.to_string()),
        Var::Model => out.push_str(&facts.model),
        Var::Cwd => out.push_str(facts.cwd.as_deref().unwrap_or(".")),
        Var::PlanFile => out.push_str(facts.plan_file.as_deref().unwrap_or("plan.md")),
        Var::EchoAfter(prefix) => {
            out.push_str(echo_after(facts.last_user.as_deref().unwrap_or_default(), prefix));
        }
        Var::Capture(n) => out.push_str(scene.captures.get(*n).map(String::as_str).unwrap_or_default()),
        Var::Count(n) => {
            let last = scene.captures.get(*n).and_then(|text| text.parse().ok()).unwrap_or(COUNTED);
            let numbers: Vec<_> = (1..=last.min(COUNTED)).map(|n| n.to_string()).collect();
            out.push_str(&numbers.join(" "));
        }
        Var::Open => out.push_str("{{"),
    }
}

fn push_user_texts(out: &mut String, facts: &Facts) {
    let earlier = facts.user_texts.len().saturating_sub(usize::from(facts.fresh_user));
    let texts = &facts.user_texts[earlier.saturating_sub(USER_TEXTS_SHOWN)..earlier];
    if texts.is_empty() {
        out.push_str("(nothing yet)");
    }
    for (n, text) in texts.iter().enumerate() {
        let separator = if n == 0 { "- " } else { "\n- " };
        out.push_str(separator);
        out.push_str(text);
    }
}

/// What follows the first `prefix` in `text`, letters' case ignored; all of it where there is none.
fn echo_after<'a>(text: &'a str, prefix: &str) -> &'a str {
    let found = text.char_indices().find_map(|(start, _)| {
        let mut rest = text[start..].chars();
        let same = prefix.chars().all(|want| {
            rest.next().is_some_and(|have| want == have || want.to_lowercase().eq(have.to_lowercase()))
        });
        same.then_some(rest.as_str())
    });
    found.unwrap_or(text).trim()
}

/// A JSON value whose strings are templates: the input of a tool.
#[derive(Debug, Clone)]
pub(crate) enum JsonTemplate {
    Text(Template),
    Plain(Value),
    List(Vec<JsonTemplate>),
    Object(Vec<(String, JsonTemplate)>),
}

impl JsonTemplate {
    pub(crate) fn parse(value: &Value) -> Result<Self, TemplateError> {
        Ok(match value {
            Value::String(text) => Self::Text(Template::parse(text)?),
            Value::Array(items) => Self::List(items.iter().map(Self::parse).collect::<Result<_, _>>()?),
            Value::Object(fields) => Self::Object(
                fields.iter().map(|(name, value)| Ok((name.clone(), Self::parse(value)?))).collect::<Result<
                    _,
                    TemplateError,
                >>(
                )?,
            ),
            Value::Null | Value::Bool(_) | Value::Number(_) => Self::Plain(value.clone()),
        })
    }

    pub(crate) fn render(&self, scene: &Scene<'_>) -> Value {
        match self {
            Self::Text(template) => Value::String(template.render(scene)),
            Self::Plain(value) => value.clone(),
            Self::List(items) => items.iter().map(|item| item.render(scene)).collect(),
            Self::Object(fields) => {
                fields.iter().map(|(name, value)| (name.clone(), value.render(scene))).collect()
            }
        }
    }

    pub(crate) fn highest_capture(&self) -> Option<usize> {
        match self {
            Self::Text(template) => template.highest_capture(),
            Self::Plain(_) => None,
            Self::List(items) => items.iter().filter_map(Self::highest_capture).max(),
            Self::Object(fields) => fields.iter().filter_map(|(_, value)| value.highest_capture()).max(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::ToolResult;

    fn facts() -> Facts {
        Facts {
            model: "claude-opus-4-8".into(),
            last_user: Some("Run: ls -l".into()),
            fresh_user: true,
            user_texts: vec!["remember ten".into(), "hello".into(), "Run: ls -l".into()],
            tool_results: vec![ToolResult {
                tool: Some("Bash".into()),
                text: "größe".into(),
                is_error: false,
            }],
            cwd: Some("/w".into()),
            ..Facts::default()
        }
    }

    #[test]
    fn every_variable_renders() {
        let facts = facts();
        let captures = ["Run: ls", "ls", "3"].map(str::to_owned);
        let scene = Scene { facts: &facts, tool_result: Some(0), captures: &captures, call: 3 };
        let table = [
            ("plain", "plain"),
            ("{{last_user}}!", "Run: ls -l!"),
            ("{{ user_texts }}", "- remember ten\n- hello"),
            ("{{tool_name}}: {{tool_result}}", "Bash: größe"),
            ("{{tool_result:3}}", "grö…"),
            ("{{tool_result:5}}", "größe"),
            ("{{call}} {{model}} {{cwd}} {{plan_file}}", "3 claude-opus-4-8 /w plan.md"),
            ("{{echo_after:run:}}", "ls -l"),
            ("{{echo_after:no such}}", "Run: ls -l"),
            ("[{{capture:1}}|{{capture:7}}]", "[ls|]"),
            ("{{count_to:2}}", "1 2 3"),
            ("{{open}}x}}", "{{x}}"),
        ];
        let rendered =
            table.map(|(source, _)| Template::parse(source).map(|template| template.render(&scene)));
        assert_eq!(rendered, table.map(|(_, want)| Ok(want.to_owned())));
    }

    #[test]
    fn variables_without_a_value_render_empty_or_neutral() {
        let facts = Facts::default();
        let scene = Scene { facts: &facts, tool_result: None, captures: &[], call: 1 };
        let source = "<{{last_user}}><{{user_texts}}><{{tool_result}}><{{tool_name}}><{{cwd}}>";
        let text = Template::parse(source).map(|template| template.render(&scene));
        assert_eq!(text, Ok("<><(nothing yet)><><a tool><.>".to_owned()));
    }

    #[test]
    fn what_is_no_template_is_refused() {
        let table = [
            ("{{last_user", TemplateError::Unclosed),
            ("{{lastuser}}", TemplateError::Unknown("lastuser".into())),
            ("{{call:1}}", TemplateError::Unknown("call:1".into())),
            ("{{capture:x}}", TemplateError::Argument { name: "capture", needs: GROUP }),
            ("{{echo_after}}", TemplateError::Argument { name: "echo_after", needs: "a prefix" }),
            (
                "{{tool_result:many}}",
                TemplateError::Argument { name: "tool_result", needs: "a number of characters" },
            ),
        ];
        for (source, error) in table {
            assert_eq!(Template::parse(source), Err(error), "{source}");
        }
    }

    #[test]
    fn tool_inputs_are_rendered_leaf_by_leaf() {
        let facts = Facts { last_user: Some("say \"hi\"\n".into()), ..Facts::default() };
        let scene = Scene { facts: &facts, tool_result: None, captures: &[], call: 1 };
        let source = serde_json::json!({"a": ["{{last_user}}", 1, true, null], "b": {"c": "x"}});
        let rendered = JsonTemplate::parse(&source).map(|template| template.render(&scene));
        assert_eq!(rendered, Ok(serde_json::json!({"a": ["say \"hi\"\n", 1, true, null], "b": {"c": "x"}})));
    }
}
