//! Every message that claude's stdin takes. For reading what was sent; writing is the part of `input`.

use super::control::ToClaude;
use super::stdout::{ApiMessage, Response};
use crate::field;
use serde_json::Value;
use std::collections::BTreeMap;

/// A message to claude.
#[derive(Clone, Debug, PartialEq)]
pub enum Stdin {
    ControlRequest { request_id: String, request: ToClaude },
    Plain(PlainIn),
}

impl Stdin {
    /// None: no JSON object with a `type`.
    pub fn parse(line: &[u8]) -> Option<Self> {
        let mut value: Value = serde_json::from_slice(line).ok()?;
        let kind = field::string(&value, "type")?;
        if kind != "control_request" {
            return Some(Self::Plain(PlainIn::read(&kind, value)));
        }
        let request_id = field::string(&value, "request_id")?;
        let request = value["request"].take();
        let subtype = field::string(&request, "subtype").unwrap_or_default();
        Some(Self::ControlRequest { request_id, request: ToClaude::read(&subtype, request) })
    }

    pub fn is_unknown(&self) -> bool {
        matches!(
            self,
            Self::Plain(PlainIn::Unknown(_)) | Self::ControlRequest { request: ToClaude::Unknown(_), .. }
        )
    }
}

family! {
    /// Messages known by their `type` alone.
    PlainIn {
        "user" => User(UserIn),
        "control_response" => ControlResponse(Answer),
        "keep_alive" => KeepAlive(Empty),
        "update_environment_variables" => Environment(Environment),
        "assistant" => Assistant(History),
        "system" => System(History),
        "bash_command" => BashCommand(BashCommand),
    }
}

message! {
    UserIn {
        message: ApiMessage,
        parent_tool_use_id: String,
        session_id: String,
        uuid: String,
        /// `now`, `next` or `later`.
        priority: String,
        /// False: append without a turn.
        #[serde(rename = "shouldQuery")] should_query: bool,
        /// 2.1.248 and later: no `@path` expansion, no slash commands.
        client_composed: bool,
    }
    Answer { response: Response }
    Empty {}
    Environment { variables: BTreeMap<String, String>, request_id: String }
    /// Injected into the conversation.
    History { message: Value, subtype: String, content: Value }
    BashCommand { command: String }
}
