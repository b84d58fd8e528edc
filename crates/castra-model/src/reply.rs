//! What a rule answers: checked replies, and how one becomes a message for a request. Pure; refuses replies
//! that contradict themselves, naming the field.

use crate::format::{BlockTable, ErrorTable, PaceTable, ReplyTable, StallTable, UsageTable};
use crate::message::{Block, Ids, Length, MAX_TEXT, Message, Text, Usage};
use crate::script::Problem;
use crate::template::{JsonTemplate, Scene, Template};
use serde_json::Value;
use std::time::Duration;

#[derive(Debug)]
pub(crate) struct Reply {
    blocks: Vec<ReplyBlock>,
    stop_reason: Option<String>,
    usage: UsageTable,
    pub(crate) start_delay: Duration,
    pub(crate) pace: Option<Pace>,
    pub(crate) incidents: Vec<Incident>,
    pub(crate) error: Option<ApiError>,
}

#[derive(Debug)]
enum ReplyBlock {
    Text { text: Template, length: Length },
    Thinking { text: Template, length: Length, signature: Option<String> },
    ToolUse { name: String, input: JsonTemplate },
}

/// Deltas of `chars` characters, `delay` before each.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pace {
    pub(crate) chars: usize,
    pub(crate) delay: Duration,
}

/// Something that happens to a response once `after` characters of its content are sent, at the latest
/// when all of them are.
#[derive(Debug, Clone)]
pub(crate) struct Incident {
    pub(crate) after: u64,
    pub(crate) what: Mishap,
}

#[derive(Debug, Clone)]
pub(crate) enum Mishap {
    Stall(Option<Duration>),
    Cut,
    Error(ApiError),
}

/// An error in Anthropic's shape.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ApiError {
    pub(crate) status: u16,
    pub(crate) kind: String,
    pub(crate) message: String,
    /// Seconds, for the header `retry-after`.
    pub(crate) retry_after: Option<u64>,
}

/// The error type that the real API sends with a status.
/// Source: Anthropic's API reference, "Errors".
pub(crate) fn kind_of(status: u16) -> &'static str {
    match status {
        401 => "authentication_error",
        402 => "billing_error",
        403 => "permission_error",
        404 => "not_found_error",
        413 => "request_too_large",
        429 => "rate_limit_error",
        504 => "timeout_error",
        529 => "overloaded_error",
        500..=599 => "api_error",
        _ => "invalid_request_error",
    }
}

type Checked<T> = Result<T, (String, Problem)>;

fn at<E: Into<Problem>>(field: impl Into<String>) -> impl FnOnce(E) -> (String, Problem) {
    let field = field.into();
    |error| (field, error.into())
}

impl Reply {
    pub(crate) fn check(table: ReplyTable) -> Checked<Self> {
        let ReplyTable {
            text,
            blocks,
            stop_reason,
            usage,
            start_delay_ms,
            pace,
            stall,
            cut_after_chars,
            error,
        } = table;
        let mut incidents = Vec::new();
        if let Some(table) = stall {
            incidents.push(check_stall(&table)?);
        }
        if let Some(after) = cut_after_chars {
            incidents.push(Incident { after, what: Mishap::Cut });
        }
        let mut refused = None;
        if let Some(table) = error {
            let after = table.after_chars;
            let error = check_error(table)?;
            match after {
                Some(after) => incidents.push(Incident { after, what: Mishap::Error(error) }),
                None => refused = Some(error),
            }
        }
        incidents.sort_by_key(|incident| incident.after);
        let blocks = match (text, blocks) {
            (Some(_), Some(_)) => return Err(("text".to_owned(), Problem::Excludes("blocks"))),
            (Some(text), None) => {
                vec![ReplyBlock::Text {
                    text: Template::parse(&text).map_err(at("text"))?,
                    length: Length::Times(1),
                }]
            }
            (None, Some(blocks)) => {
                let blocks = blocks.into_iter().enumerate();
                blocks.map(|(n, block)| check_block(block, n)).collect::<Checked<_>>()?
            }
            (None, None) if refused.is_some() => Vec::new(),
            (None, None) => return Err((String::new(), Problem::OneOf("text, blocks, error"))),
        };
        if refused.is_some() && !(blocks.is_empty() && incidents.is_empty() && pace.is_none()) {
            return Err((
                "error".to_owned(),
                Problem::Excludes("without `after_chars`, content and its timing"),
            ));
        }
        let pace = pace.map(check_pace).transpose()?;
        let start_delay = Duration::from_millis(start_delay_ms.unwrap_or(0));
        Ok(Self { blocks, stop_reason, usage, start_delay, pace, incidents, error: refused })
    }

    pub(crate) fn highest_capture(&self) -> Option<usize> {
        let captures = self.blocks.iter().filter_map(|block| match block {
            ReplyBlock::Text { text, .. } | ReplyBlock::Thinking { text, .. } => text.highest_capture(),
            ReplyBlock::ToolUse { input, .. } => input.highest_capture(),
        });
        captures.max()
    }

    pub(crate) fn render(&self, scene: &Scene<'_>, ids: &Ids) -> Message {
        let blocks = self.blocks.iter().enumerate().map(|(n, block)| match block {
            ReplyBlock::Text { text, length } => Block::Text(Text::new(text.render(scene), *length)),
            ReplyBlock::Thinking { text, length, signature } => Block::Thinking {
                text: Text::new(text.render(scene), *length),
                signature: signature.clone().unwrap_or_else(|| ids.signature(n)),
            },
            ReplyBlock::ToolUse { name, input } => {
                Block::ToolUse { id: ids.tool(n), name: name.clone(), input: input.render(scene) }
            }
        });
        let mut message =
            Message::new(ids, scene.facts.model.clone(), blocks.collect(), scene.facts.input_tokens);
        message.usage = overridden(message.usage, &self.usage);
        if let Some(stop_reason) = &self.stop_reason {
            message.stop_reason.clone_from(stop_reason);
        }
        message
    }
}

fn check_stall(table: &StallTable) -> Checked<Incident> {
    let length = match (table.for_ms, table.forever) {
        (Some(ms), false) => Some(Duration::from_millis(ms)),
        (None, true) => None,
        _ => return Err(("stall".to_owned(), Problem::OneOf("for_ms, forever = true"))),
    };
    Ok(Incident { after: table.after_chars, what: Mishap::Stall(length) })
}

fn check_error(table: ErrorTable) -> Checked<ApiError> {
    let ErrorTable { status, r#type, message, retry_after, after_chars: _ } = table;
    if !(400..=599).contains(&status) {
        return Err(("error.status".to_owned(), Problem::Range("between 400 and 599")));
    }
    let kind = r#type.unwrap_or_else(|| kind_of(status).to_owned());
    let message = message.unwrap_or_else(|| format!("Scripted {status}"));
    Ok(ApiError { status, kind, message, retry_after })
}

fn check_pace(table: PaceTable) -> Checked<Pace> {
    match usize::try_from(table.chunk_chars) {
        Ok(chars) if chars > 0 => Ok(Pace { chars, delay: Duration::from_millis(table.delay_ms) }),
        _ => Err(("pace.chunk_chars".to_owned(), Problem::Range("at least 1"))),
    }
}

fn check_block(table: BlockTable, n: usize) -> Checked<ReplyBlock> {
    let field = |name: &str| format!("blocks[{n}].{name}");
    let BlockTable { text, thinking, signature, tool_use, repeat, size } = table;
    if signature.is_some() && thinking.is_none() {
        return Err((field("signature"), Problem::Excludes("a block other than `thinking`")));
    }
    let length = match (repeat, size) {
        (Some(_), Some(_)) => return Err((field("size"), Problem::Excludes("`repeat`"))),
        (Some(times), None) => Length::Times(times),
        (None, Some(size)) => match bytes(&size) {
            Some(bytes) if bytes <= MAX_TEXT => Length::Bytes(bytes),
            Some(_) => return Err((field("size"), Problem::Range("at most 256MiB"))),
            None => return Err((field("size"), Problem::Size(size))),
        },
        (None, None) => Length::Times(1),
    };
    match (text, thinking, tool_use) {
        (Some(text), None, None) => {
            Ok(ReplyBlock::Text { text: Template::parse(&text).map_err(at(field("text")))?, length })
        }
        (None, Some(text), None) => {
            let text = Template::parse(&text).map_err(at(field("thinking")))?;
            Ok(ReplyBlock::Thinking { text, length, signature })
        }
        (None, None, Some(_)) if repeat.is_some() => Err((field("repeat"), Problem::Excludes("`tool_use`"))),
        (None, None, Some(_)) if matches!(length, Length::Bytes(_)) => {
            Err((field("size"), Problem::Excludes("`tool_use`")))
        }
        (None, None, Some(tool)) => {
            let input = Value::Object(tool.input.into_iter().collect());
            let input = JsonTemplate::parse(&input).map_err(at(field("tool_use.input")))?;
            Ok(ReplyBlock::ToolUse { name: tool.name, input })
        }
        _ => Err((format!("blocks[{n}]"), Problem::OneOf("text, thinking, tool_use"))),
    }
}

/// `10MB`, `64 KiB`, `4096`: a number of bytes.
fn bytes(text: &str) -> Option<u64> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let factor = match text[digits..].trim() {
        "" | "B" => 1,
        "kB" | "KB" => 1000,
        "MB" => 1_000_000,
        "KiB" => 1024,
        "MiB" => 1024 * 1024,
        _ => return None,
    };
    text[..digits].parse::<u64>().ok()?.checked_mul(factor)
}

fn overridden(usage: Usage, table: &UsageTable) -> Usage {
    Usage {
        input_tokens: table.input_tokens.unwrap_or(usage.input_tokens),
        cache_creation_input_tokens: table
            .cache_creation_input_tokens
            .unwrap_or(usage.cache_creation_input_tokens),
        cache_read_input_tokens: table.cache_read_input_tokens.unwrap_or(usage.cache_read_input_tokens),
        output_tokens: table.output_tokens.unwrap_or(usage.output_tokens),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        let table = [
            ("10MB", Some(10_000_000)),
            ("64KiB", Some(65_536)),
            (" 5 kB ", Some(5_000)),
            ("4096", Some(4096)),
            ("12B", Some(12)),
            ("", None),
            ("MB", None),
            ("1GB", None),
            ("-1", None),
            ("99999999999999999999", None),
        ];
        assert_eq!(table.map(|(text, _)| bytes(text)), table.map(|(_, want)| want));
    }
}
