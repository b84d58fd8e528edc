//! One message of claude's as its users ask about it: texts, tools, cost, whether it truly succeeded.

use crate::decode::succeeded;
use crate::field::{flag, items, number, text};
use serde_json::Value;

/// A view of one line. Made once, asked often.
#[derive(Clone, Debug)]
pub struct Message<'a> {
    line: &'a [u8],
    value: Value,
}

/// A call of a tool.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ToolUse<'m> {
    pub id: &'m str,
    pub name: &'m str,
    pub input: &'m Value,
}

/// What a tool answered.
#[derive(Clone, Debug, PartialEq)]
pub struct ToolResultView<'m> {
    pub tool_use_id: &'m str,
    pub is_error: bool,
    /// Its text blocks, joined by newlines.
    pub text: String,
}

impl<'a> Message<'a> {
    /// None: not a JSON object.
    pub fn parse(line: &'a [u8]) -> Option<Self> {
        let value: Value = serde_json::from_slice(line).ok()?;
        value.is_object().then_some(Self { line, value })
    }

    /// The original bytes.
    pub fn line(&self) -> &'a [u8] {
        self.line
    }

    pub fn value(&self) -> &Value {
        &self.value
    }

    pub fn kind(&self) -> &str {
        text(&self.value, "type").unwrap_or_default()
    }

    pub fn subtype(&self) -> Option<&str> {
        text(&self.value, "subtype")
    }

    /// claude's session id; after `/clear` another than before.
    pub fn session_id(&self) -> Option<&str> {
        text(&self.value, "session_id")
    }

    pub fn uuid(&self) -> Option<&str> {
        text(&self.value, "uuid")
    }

    /// The start of a turn; not of the process.
    pub fn is_init(&self) -> bool {
        self.kind() == "system" && self.subtype() == Some("init")
    }

    pub fn is_assistant(&self) -> bool {
        self.kind() == "assistant"
    }

    pub fn is_result(&self) -> bool {
        self.kind() == "result"
    }

    /// claude's own word: `success`, also where the API failed. Ask [`Message::truly_succeeded`].
    pub fn is_result_ok(&self) -> bool {
        self.is_result() && self.subtype() == Some("success")
    }

    /// A result that is no success, by any of the error subtypes or by `is_error`.
    pub fn is_result_error(&self) -> bool {
        self.is_result() && !self.truly_succeeded()
    }

    /// The API refused or failed: said by `is_error` of a `success`, its status, or an assistant's `error`; never
    /// by the words of a text, which may begin with "Error:" for any reason.
    pub fn is_api_error(&self) -> bool {
        match self.kind() {
            "result" => {
                self.api_error_status().is_some() || (self.is_result_ok() && flag(&self.value, "is_error"))
            }
            "assistant" => text(&self.value, "error").is_some() || flag(&self.value, "isApiErrorMessage"),
            _ => false,
        }
    }

    pub fn truly_succeeded(&self) -> bool {
        let value = &self.value;
        self.is_result()
            && succeeded(
                self.subtype().unwrap_or_default(),
                flag(value, "is_error"),
                text(value, "terminal_reason"),
            )
    }

    /// A background task or a subagent started, went on or ended.
    pub fn is_task_event(&self) -> bool {
        self.kind() == "system" && self.subtype().is_some_and(|subtype| subtype.starts_with("task_"))
    }

    pub fn is_tool_result(&self) -> bool {
        self.kind() == "user" && self.blocks("tool_result").next().is_some()
    }

    /// The text blocks of an assistant or user message.
    pub fn texts(&self) -> Vec<&str> {
        let plain = text(&self.value["message"], "content");
        self.blocks("text").filter_map(|block| text(block, "text")).chain(plain).collect()
    }

    pub fn tool_calls(&self) -> Vec<ToolUse<'_>> {
        let call = |block| {
            let (id, name) = (text(block, "id")?, text(block, "name")?);
            Some(ToolUse { id, name, input: &block["input"] })
        };
        self.blocks("tool_use").filter_map(call).collect()
    }

    pub fn tool_results(&self) -> Vec<ToolResultView<'_>> {
        let result = |block| {
            let texts = items(block, "content").iter().filter_map(|inner| text(inner, "text"));
            let texts: Vec<&str> = text(block, "content").into_iter().chain(texts).collect();
            let tool_use_id = text(block, "tool_use_id")?;
            Some(ToolResultView { tool_use_id, is_error: flag(block, "is_error"), text: texts.join("\n") })
        };
        self.blocks("tool_result").filter_map(result).collect()
    }

    /// The text of a result; absent for the error subtypes, and where it is null.
    pub fn result_text(&self) -> Option<&str> {
        self.value.get("result").filter(|_| self.is_result())?.as_str()
    }

    /// What the error subtypes say in place of a text.
    pub fn errors(&self) -> Vec<&str> {
        items(&self.value, "errors").iter().filter_map(Value::as_str).collect()
    }

    pub fn structured_output(&self) -> Option<&Value> {
        self.value.get("structured_output").filter(|output| !output.is_null())
    }

    pub fn api_error_status(&self) -> Option<u16> {
        number(&self.value, "api_error_status")
    }

    /// US dollars since the process started.
    pub fn cost_usd(&self) -> Option<f64> {
        self.value.get("total_cost_usd")?.as_f64()
    }

    pub fn num_turns(&self) -> Option<u32> {
        number(&self.value, "num_turns")
    }

    fn blocks<'m>(&'m self, kind: &'static str) -> impl Iterator<Item = &'m Value> {
        let blocks = items(&self.value["message"], "content").iter();
        blocks.filter(move |block| text(block, "type") == Some(kind))
    }
}
