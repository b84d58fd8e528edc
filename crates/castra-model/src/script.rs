//! A checked script: rules with their matchers and replies. Owns what a script file may say beyond its
//! field names (`format`); refuses contradictions when it is read, naming the rule and the field.

use crate::format::{ReplyTable, RuleTable, ScriptFile, TextTable, ToolResultTable, WhenTable};
use crate::reply::Reply;
use crate::side::Side;
use crate::template::TemplateError;
use regex::Regex;
use std::sync::Arc;
use uuid::Uuid;

/// Ids that `GET /v1/models` lists unless the script has its own.
const MODELS: [&str; 6] = [
    "claude-opus-5-5",
    "claude-sonnet-5-5",
    "claude-haiku-5-5",
    "claude-opus-4-8",
    "claude-sonnet-4-6",
    "claude-haiku-4-5-20251001",
];

/// Why a script cannot be used. Rules are named by their `name`, or by their place: `#3`.
#[derive(Debug, thiserror::Error)]
pub enum ScriptError {
    #[error("the script is no TOML: {0}")]
    Syntax(Box<toml::de::Error>),
    #[error("{place}, field `{field}`: {source}", place = place(rule.as_deref()))]
    Field { rule: Option<String>, field: String, source: Box<toml::de::Error> },
    #[error("rule `{rule}`, field `{field}`: {problem}")]
    Value { rule: String, field: String, problem: Problem },
}

/// What is wrong with a value.
#[derive(Debug, thiserror::Error)]
pub enum Problem {
    #[error("{0}")]
    Template(#[from] TemplateError),
    #[error("{0}")]
    Regex(#[from] regex::Error),
    #[error("needs exactly one of {0}")]
    OneOf(&'static str),
    #[error("{0} cannot be used with it")]
    Excludes(&'static str),
    #[error("must be {0}")]
    Range(&'static str),
    #[error("`{value}` is not one of {names}")]
    Name { value: String, names: String },
    #[error("`{0}` is no size; write \"10MB\", \"64KiB\" or a number of bytes")]
    Size(String),
    #[error("the name is taken by an earlier rule")]
    Duplicate,
    #[error("`{{{{capture:{0}}}}}` has no such group in the rule's regex")]
    Capture(usize),
}

fn place(rule: Option<&str>) -> String {
    rule.map_or_else(|| "script".to_owned(), |rule| format!("rule `{rule}`"))
}

/// A script, ready to answer. Cloning is cheap.
#[derive(Debug, Clone)]
pub struct Script {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    digest: Uuid,
    models: Vec<String>,
    keys: Option<Vec<String>>,
    rules: Vec<Rule>,
}

#[derive(Debug)]
pub(crate) struct Rule {
    pub(crate) name: String,
    pub(crate) when: When,
    pub(crate) reply: Reply,
}

#[derive(Debug)]
pub(crate) struct When {
    pub(crate) last_user: Option<TextMatch>,
    pub(crate) tool_result: Option<ToolResultMatch>,
    pub(crate) call: Option<u64>,
    pub(crate) nth: Option<u64>,
    pub(crate) times: Option<u64>,
    pub(crate) first_attempts: Option<u64>,
    pub(crate) system_contains: Option<String>,
    pub(crate) model: Option<String>,
    pub(crate) offers_tool: Option<String>,
    pub(crate) plan_mode: Option<bool>,
    pub(crate) side: Option<Side>,
}

#[derive(Debug)]
pub(crate) enum TextMatch {
    Contains { needle: String, ignore_case: bool },
    Regex(Regex),
}

#[derive(Debug)]
pub(crate) struct ToolResultMatch {
    pub(crate) text: Option<TextMatch>,
    pub(crate) tool: Option<String>,
    pub(crate) is_error: Option<bool>,
}

impl Script {
    /// Reads a script from TOML. The format is described in `docs/model.md`.
    ///
    /// # Errors
    /// [`ScriptError`], with the rule and the field.
    pub fn parse(source: &str) -> Result<Self, ScriptError> {
        let file = read(source)?;
        let mut rules: Vec<Rule> = Vec::with_capacity(file.rule.len());
        for (n, table) in file.rule.into_iter().enumerate() {
            let name = table.name.clone().unwrap_or_else(|| format!("#{}", n + 1));
            let problem = |(field, problem): (String, Problem)| ScriptError::Value {
                rule: name.clone(),
                field,
                problem,
            };
            if rules.iter().any(|rule| rule.name == name) {
                return Err(problem(("name".to_owned(), Problem::Duplicate)));
            }
            let (when, reply) = check(table).map_err(problem)?;
            rules.push(Rule { name, when, reply });
        }
        Ok(Self {
            inner: Arc::new(Inner {
                digest: Uuid::new_v5(&Uuid::NAMESPACE_OID, source.as_bytes()),
                models: file.models.unwrap_or_else(|| MODELS.map(str::to_owned).to_vec()),
                keys: file.keys,
                rules,
            }),
        })
    }

    /// The script of `--demo`: pleasant to explore by hand.
    ///
    /// # Errors
    /// None in a release: a test reads the embedded file.
    pub fn default_demo() -> Result<Self, ScriptError> {
        Self::parse(Self::DEMO)
    }

    /// The text of the default script, as a start for one's own.
    pub const DEMO: &str = include_str!("../scripts/demo.toml");

    /// The names of the rules, in order.
    pub fn rule_names(&self) -> impl Iterator<Item = &str> {
        self.inner.rules.iter().map(|rule| rule.name.as_str())
    }

    pub(crate) fn rules(&self) -> &[Rule] {
        &self.inner.rules
    }

    pub(crate) fn models(&self) -> &[String] {
        &self.inner.models
    }

    /// The only keys accepted, where the script names any.
    pub(crate) fn keys(&self) -> Option<&[String]> {
        self.inner.keys.as_deref()
    }

    pub(crate) fn digest(&self) -> Uuid {
        self.inner.digest
    }
}

impl std::str::FromStr for Script {
    type Err = ScriptError;

    fn from_str(source: &str) -> Result<Self, ScriptError> {
        Self::parse(source)
    }
}

fn read(source: &str) -> Result<ScriptFile, ScriptError> {
    let syntax = |error| ScriptError::Syntax(Box::new(error));
    let table: toml::Table = source.parse().map_err(syntax)?;
    let input = toml::Deserializer::parse(source).map_err(syntax)?;
    serde_path_to_error::deserialize(input).map_err(|error| {
        let path = error.path().to_string();
        let (rule, field) = match path.strip_prefix("rule[").and_then(|rest| rest.split_once(']')) {
            Some((index, rest)) => (index.parse::<usize>().ok(), rest.trim_start_matches('.')),
            None => (None, path.as_str()),
        };
        let name = |index: usize| {
            let name = table.get("rule")?.get(index)?.get("name")?.as_str();
            name.map(str::to_owned)
        };
        ScriptError::Field {
            rule: rule.map(|index| name(index).unwrap_or_else(|| format!("#{}", index + 1))),
            field: if field.is_empty() { ".".to_owned() } else { field.to_owned() },
            source: Box::new(error.into_inner()),
        }
    })
}

type Checked<T> = Result<T, (String, Problem)>;

fn check(table: RuleTable) -> Checked<(When, Reply)> {
    let RuleTable { name: _, when, reply } = table;
    let when = check_when(when)?;
    let reply = check_reply(reply)?;
    let groups = when.groups();
    match reply.highest_capture() {
        Some(n) if n >= groups => Err(("reply".to_owned(), Problem::Capture(n))),
        _ => Ok((when, reply)),
    }
}

fn check_reply(table: ReplyTable) -> Checked<Reply> {
    Reply::check(table).map_err(|(field, problem)| {
        let field = if field.is_empty() { "reply".to_owned() } else { format!("reply.{field}") };
        (field, problem)
    })
}

fn check_when(table: WhenTable) -> Checked<When> {
    let WhenTable {
        last_user,
        tool_result,
        call,
        nth,
        times,
        first_attempts,
        system_contains,
        model,
        offers_tool,
        plan_mode,
        side,
    } = table;
    for (field, number) in
        [("call", call), ("nth", nth), ("times", times), ("first_attempts", first_attempts)]
    {
        if number == Some(0) {
            return Err((format!("when.{field}"), Problem::Range("at least 1")));
        }
    }
    let side = side.map(|value| {
        Side::named(&value).ok_or_else(|| {
            let names = Side::ALL.map(Side::name).join(", ");
            ("when.side".to_owned(), Problem::Name { value, names })
        })
    });
    Ok(When {
        last_user: last_user.map(|table| check_text(table, "when.last_user")).transpose()?,
        tool_result: tool_result.map(check_tool_result).transpose()?,
        call,
        nth,
        times,
        first_attempts,
        system_contains,
        model,
        offers_tool,
        plan_mode,
        side: side.transpose()?,
    })
}

fn check_text(table: TextTable, field: &str) -> Checked<TextMatch> {
    text_match(table.contains, table.regex, table.ignore_case, field)?
        .ok_or_else(|| (field.to_owned(), Problem::OneOf("contains, regex")))
}

fn check_tool_result(table: ToolResultTable) -> Checked<ToolResultMatch> {
    let text = text_match(table.contains, table.regex, table.ignore_case, "when.tool_result")?;
    Ok(ToolResultMatch { text, tool: table.tool, is_error: table.is_error })
}

fn text_match(
    contains: Option<String>,
    regex: Option<String>,
    ignore_case: bool,
    field: &str,
) -> Checked<Option<TextMatch>> {
    match (contains, regex) {
        (Some(_), Some(_)) => Err((field.to_owned(), Problem::OneOf("contains, regex"))),
        (Some(needle), None) => {
            let needle = if ignore_case { needle.to_lowercase() } else { needle };
            Ok(Some(TextMatch::Contains { needle, ignore_case }))
        }
        (None, Some(pattern)) => regex::RegexBuilder::new(&pattern)
            .case_insensitive(ignore_case)
            .build()
            .map(|regex| Some(TextMatch::Regex(regex)))
            .map_err(|error| (format!("{field}.regex"), error.into())),
        (None, None) => Ok(None),
    }
}

impl When {
    /// How many groups `{{capture:N}}` may name, group 0 included.
    fn groups(&self) -> usize {
        let texts =
            [self.last_user.as_ref(), self.tool_result.as_ref().and_then(|result| result.text.as_ref())];
        let groups = texts.into_iter().flatten().map(|text| match text {
            TextMatch::Contains { .. } => 0,
            TextMatch::Regex(regex) => regex.captures_len(),
        });
        groups.max().unwrap_or(0)
    }
}

#[cfg(test)]
#[path = "script_tests.rs"]
mod tests;
