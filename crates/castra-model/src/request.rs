//! What a Messages request says, as far as a script can ask. Pure; refuses bodies that the real API would
//! refuse, with the real API's kind of sentence.

use crate::side::Side;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// One `tool_result` block after the last assistant message.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ToolResult {
    /// The tool's name, where the request still holds the call.
    pub tool: Option<String>,
    /// Its text blocks joined by newlines, without the CLI's `<system-reminder>` blocks.
    pub text: String,
    pub is_error: bool,
}

/// The facts of one request.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Facts {
    pub(crate) model: String,
    pub(crate) stream: bool,
    /// claude's session id, or empty for a caller that sends none.
    pub(crate) conversation: String,
    pub(crate) messages: usize,
    /// System prompt, `system` messages and `<system-reminder>` blocks, in this order.
    pub(crate) system: String,
    /// The last text that a user wrote, reminders left out.
    pub(crate) last_user: Option<String>,
    /// Whether `last_user` came after the last assistant message.
    pub(crate) fresh_user: bool,
    /// All that users wrote, oldest first, `last_user` included.
    pub(crate) user_texts: Vec<String>,
    /// The results after the last assistant message, oldest first.
    pub(crate) tool_results: Vec<ToolResult>,
    /// Names of the tools that the request offers.
    pub(crate) tools: Vec<String>,
    /// The folder that claude's system prompt names.
    pub(crate) cwd: Option<String>,
    pub(crate) plan_mode: bool,
    pub(crate) plan_file: Option<String>,
    pub(crate) side: Option<Side>,
    /// A quarter of the body's bytes; the real tokenizer is not public.
    pub(crate) input_tokens: u64,
}

/// Why a body is no Messages request.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RequestError {
    #[error("The request body is not valid JSON: {0}")]
    Json(serde_json::Error),
    #[error("{0}: Field required")]
    Missing(&'static str),
    #[error("messages: at least one message is required")]
    NoMessages,
    #[error("messages.{0}: unknown role `{1}`")]
    Role(usize, String),
}

/// The parts of a request body that are read. Unknown fields are the CLI's business.
#[derive(Debug, Deserialize)]
pub(crate) struct Body {
    model: Option<String>,
    messages: Option<Vec<Message>>,
    system: Option<Content>,
    #[serde(default)]
    tools: Vec<ToolDefinition>,
    pub(crate) tool_choice: Option<ToolChoice>,
    pub(crate) max_tokens: Option<u64>,
    #[serde(default)]
    stream: bool,
    metadata: Option<Metadata>,
    pub(crate) output_config: Option<OutputConfig>,
}

#[derive(Debug, Deserialize)]
struct Message {
    role: String,
    content: Content,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Content {
    Text(String),
    Blocks(Vec<Block>),
}

#[derive(Debug, Deserialize)]
struct Block {
    r#type: String,
    text: Option<String>,
    id: Option<String>,
    name: Option<String>,
    tool_use_id: Option<String>,
    content: Option<Content>,
    is_error: Option<bool>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct ToolDefinition {
    pub(crate) name: Option<String>,
    pub(crate) input_schema: Option<Value>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct ToolChoice {
    pub(crate) r#type: String,
    pub(crate) name: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Metadata {
    user_id: Option<String>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct OutputConfig {
    pub(crate) format: Option<OutputFormat>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct OutputFormat {
    pub(crate) schema: Option<Value>,
}

impl Body {
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, RequestError> {
        serde_json::from_slice(bytes).map_err(RequestError::Json)
    }

    pub(crate) fn tool(&self, name: &str) -> Option<&ToolDefinition> {
        self.tools.iter().find(|tool| tool.name.as_deref() == Some(name))
    }
}

impl Content {
    /// The text blocks' texts.
    fn texts(&self) -> impl Iterator<Item = &str> {
        let (one, many) = match self {
            Self::Text(text) => (Some(text.as_str()), &[][..]),
            Self::Blocks(blocks) => (None, blocks.as_slice()),
        };
        let many =
            many.iter().filter(|block| block.r#type == "text").filter_map(|block| block.text.as_deref());
        one.into_iter().chain(many)
    }

    fn blocks(&self) -> &[Block] {
        match self {
            Self::Text(_) => &[],
            Self::Blocks(blocks) => blocks,
        }
    }
}

impl Facts {
    /// `session` is the value of `X-Claude-Code-Session-Id`; `metadata.user_id` stands in for it.
    ///
    /// # Errors
    /// A missing `model` or `max_tokens`, no messages, or a role that the API does not know.
    pub(crate) fn read(body: &Body, bytes: usize, session: Option<&str>) -> Result<Self, RequestError> {
        let model = body.model.clone().ok_or(RequestError::Missing("model"))?;
        let messages = body.messages.as_deref().ok_or(RequestError::Missing("messages"))?;
        if body.max_tokens.is_none() {
            return Err(RequestError::Missing("max_tokens"));
        }
        if messages.is_empty() {
            return Err(RequestError::NoMessages);
        }
        let known = |role: &str| matches!(role, "user" | "assistant" | "system");
        if let Some((n, message)) = messages.iter().enumerate().find(|(_, message)| !known(&message.role)) {
            return Err(RequestError::Role(n, message.role.clone()));
        }
        let mut facts = Self {
            model,
            stream: body.stream,
            conversation: session.map(str::to_owned).or_else(|| session_id(body)).unwrap_or_default(),
            messages: messages.len(),
            tools: body.tools.iter().filter_map(|tool| tool.name.clone()).collect(),
            input_tokens: u64::try_from(bytes / 4).unwrap_or(u64::MAX).max(1),
            ..Self::default()
        };
        for text in body.system.iter().flat_map(Content::texts) {
            push_line(&mut facts.system, text);
        }
        for message in messages {
            facts.add(message, messages);
        }
        facts.cwd = cwd(&facts.system);
        facts.plan_mode = plan_mode(&facts.system);
        facts.plan_file = plan_file(&facts.system);
        facts.side = Side::of(body, &facts, last_raw(messages));
        Ok(facts)
    }

    fn add(&mut self, message: &Message, all: &[Message]) {
        match message.role.as_str() {
            "assistant" => {
                self.fresh_user = false;
                self.tool_results.clear();
            }
            "system" => {
                message.content.texts().for_each(|text| self.add_system_text(text));
            }
            _ => {
                for block in message.content.blocks().iter().filter(|block| block.r#type == "tool_result") {
                    self.tool_results.push(tool_result(block, all));
                }
                for text in message.content.texts() {
                    let (own, reminders) = without_reminders(text);
                    reminders.into_iter().for_each(|reminder| self.add_system_text(reminder));
                    if !own.is_empty() && !is_cli_echo(&own) {
                        self.add_user_text(&own);
                    }
                }
            }
        }
    }

    fn add_system_text(&mut self, text: &str) {
        let (rest, notes) = notes_from_user(text);
        push_line(&mut self.system, rest);
        notes.for_each(|note| self.add_user_text(note));
    }

    fn add_user_text(&mut self, text: &str) {
        self.last_user = Some(text.to_owned());
        self.user_texts.push(text.to_owned());
        self.fresh_user = true;
    }
}

fn push_line(text: &mut String, line: &str) {
    if !text.is_empty() && !line.is_empty() {
        text.push('\n');
    }
    text.push_str(line);
}

fn tool_result(block: &Block, all: &[Message]) -> ToolResult {
    let text = block.content.iter().flat_map(Content::texts).map(|text| without_reminders(text).0);
    let call = all
        .iter()
        .flat_map(|message| message.content.blocks())
        .find(|call| call.r#type == "tool_use" && call.id.is_some() && call.id == block.tool_use_id);
    ToolResult {
        tool: call.and_then(|call| call.name.clone()),
        text: text.collect::<Vec<_>>().join("\n"),
        is_error: block.is_error.unwrap_or(false),
    }
}

/// The text outside of `<system-reminder>` blocks, trimmed, and what is inside of each.
fn without_reminders(text: &str) -> (String, Vec<&str>) {
    const OPEN: &str = "<system-reminder>";
    const CLOSE: &str = "</system-reminder>";
    let mut own = String::new();
    let mut inside = Vec::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once(OPEN) {
        let Some((reminder, tail)) = after.split_once(CLOSE) else { break };
        own.push_str(before);
        inside.push(reminder.trim());
        rest = tail;
    }
    own.push_str(rest);
    (own.trim().to_owned(), inside)
}

/// The CLI's own records of local commands and interrupts, which it sends as user text.
fn is_cli_echo(text: &str) -> bool {
    const MARKS: [&str; 4] = ["<local-command-", "<command-name>", "<bash-", "[Request interrupted by user"];
    MARKS.iter().any(|mark| text.starts_with(mark))
}

/// Messages sent while a tool ran, and the rest of the text that they came in. They join the turn in a
/// `system` message, alone or after other notes. Seen on 2.1.197 (the first end) and 2.1.329 (the second).
fn notes_from_user(text: &str) -> (&str, impl Iterator<Item = &str>) {
    const START: &str = "The user sent a new message while you were working:\n";
    const ENDS: [&str; 2] = [
        "\n\nIMPORTANT: After completing your current task",
        "\n\nThis is how Claude Code surfaces messages the user sends",
    ];
    let mut pieces = text.split(START);
    let rest = pieces.next().unwrap_or_default().trim_end();
    let notes = pieces.map(|note| {
        let end = ENDS.iter().filter_map(|end| note.find(end)).min().unwrap_or(note.len());
        note[..end].trim()
    });
    (rest, notes)
}

/// Whether the newest word on it says that plan mode is on.
fn plan_mode(system: &str) -> bool {
    system.rfind("Plan mode is active") > system.rfind("Exited Plan Mode")
}

/// Where the CLI wants the plan written.
fn plan_file(system: &str) -> Option<String> {
    let path = |before: &str, after: &str| {
        let (_, rest) = system.rsplit_once(before)?;
        rest.split_once(after).map(|(path, _)| path.to_owned())
    };
    path("create your plan at ", " using the Write tool")
        .or_else(|| path("A plan file already exists at ", ". You can read it"))
}

fn cwd(system: &str) -> Option<String> {
    let (_, after) = system.split_once("Primary working directory: ")?;
    after.lines().next().map(|line| line.trim().to_owned())
}

fn session_id(body: &Body) -> Option<String> {
    let user: Value = serde_json::from_str(body.metadata.as_ref()?.user_id.as_ref()?).ok()?;
    user.get("session_id")?.as_str().map(str::to_owned)
}

/// The newest user text as it stands, reminders included: what tells the CLI's side calls.
fn last_raw(messages: &[Message]) -> &str {
    let texts = messages.iter().rev().find(|message| message.role == "user").map(|message| &message.content);
    match texts {
        Some(Content::Text(text)) => text,
        Some(Content::Blocks(blocks)) => {
            let texts = || blocks.iter().filter_map(|block| block.text.as_deref());
            texts().find(|text| Side::marks(text)).or_else(|| texts().next_back()).unwrap_or_default()
        }
        None => "",
    }
}

#[cfg(test)]
#[path = "request_tests.rs"]
mod tests;
