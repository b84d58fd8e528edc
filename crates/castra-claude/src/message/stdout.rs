//! Every message of claude's stdout (facts/claude-cli.md §2, and what 2.1.329 adds).

use super::control::ToHost;
use super::system::System;
use crate::field;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;
use uuid::Uuid;

/// A message that claude wrote.
#[derive(Clone, Debug, PartialEq)]
pub enum Stdout {
    System(System),
    /// claude asks.
    ControlRequest {
        request_id: String,
        request: ToHost,
    },
    Plain(Plain),
}

impl Stdout {
    /// None: no JSON object with a `type`.
    pub fn parse(line: &[u8]) -> Option<Self> {
        let mut value: Value = serde_json::from_slice(line).ok()?;
        let kind = field::string(&value, "type")?;
        Some(match kind.as_str() {
            "system" => {
                Self::System(System::read(&field::string(&value, "subtype").unwrap_or_default(), value))
            }
            "control_request" => {
                let request_id = field::string(&value, "request_id")?;
                let request = value["request"].take();
                let subtype = field::string(&request, "subtype").unwrap_or_default();
                Self::ControlRequest { request_id, request: ToHost::read(&subtype, request) }
            }
            kind => Self::Plain(Plain::read(kind, value)),
        })
    }

    /// Whether neither the type nor, where there is one, the subtype is known.
    pub fn is_unknown(&self) -> bool {
        matches!(
            self,
            Self::System(System::Unknown(_))
                | Self::Plain(Plain::Unknown(_))
                | Self::ControlRequest { request: ToHost::Unknown(_), .. }
        )
    }
}

family! {
    /// Messages known by their `type` alone.
    Plain {
        "assistant" => Assistant(Assistant),
        "user" => User(User),
        "stream_event" => StreamEvent(StreamEvent),
        "result" => Result(TurnEnd),
        "rate_limit_event" => RateLimit(RateLimit),
        "tool_progress" => ToolProgress(ToolProgress),
        "tool_use_summary" => ToolUseSummary(ToolUseSummary),
        "auth_status" => AuthStatus(AuthStatus),
        "prompt_suggestion" => PromptSuggestion(PromptSuggestion),
        "conversation_reset" => ConversationReset(ConversationReset),
        "tombstone" => Tombstone(Tombstone),
        "keep_alive" => KeepAlive(KeepAlive),
        "control_response" => ControlResponse(ControlResponse),
        "control_cancel_request" => ControlCancel(ControlCancel),
        "transcript_mirror" => TranscriptMirror(TranscriptMirror),
        "command_lifecycle" => CommandLifecycle(CommandLifecycle),
    }
}

message! {
    /// One content block of a message of the model's.
    Assistant {
        message: ApiMessage,
        /// Set: a subagent speaks.
        parent_tool_use_id: String,
        request_id: String,
        /// `authentication_failed`, `rate_limit`, `overloaded`, …
        error: String,
        subagent_type: String,
        /// Messages to be forgotten in favour of this one.
        supersedes: Vec<Uuid>,
        session_id: Uuid,
        uuid: Uuid,
    }

    /// A message of the Messages API.
    ApiMessage {
        id: String,
        role: String,
        /// `<synthetic>` where claude itself speaks.
        model: String,
        content: Content,
        stop_reason: String,
        usage: Value,
    }

    /// Tool results, replays of what claude was sent, notes of its own.
    User {
        message: ApiMessage,
        parent_tool_use_id: String,
        #[serde(rename = "isReplay")] is_replay: bool,
        #[serde(rename = "isSynthetic")] is_synthetic: bool,
        tool_use_result: Value,
        timestamp: String,
        session_id: Uuid,
        uuid: Uuid,
    }

    /// A raw event of the API's stream.
    StreamEvent {
        event: Value,
        parent_tool_use_id: String,
        ttft_ms: u64,
        session_id: Uuid,
        uuid: Uuid,
    }

    /// The end of a turn.
    TurnEnd {
        /// `success`, `error_during_execution`, `error_max_turns`, `error_max_budget_usd`,
        /// `error_max_structured_output_retries`.
        subtype: String,
        is_error: bool,
        api_error_status: u16,
        result: String,
        errors: Vec<String>,
        num_turns: u32,
        duration_ms: u64,
        duration_api_ms: u64,
        ttft_ms: u64,
        time_to_request_ms: u64,
        stop_reason: String,
        /// Of the process, not of the turn.
        total_cost_usd: f64,
        /// Of the turn.
        usage: Value,
        /// Of the process, by model.
        #[serde(rename = "modelUsage")] model_usage: BTreeMap<String, Value>,
        permission_denials: Vec<Value>,
        structured_output: Value,
        terminal_reason: String,
        origin: Value,
        /// 2.1.329: the messages that this turn answers.
        user_message_uuids: Vec<Uuid>,
        session_id: Uuid,
        uuid: Uuid,
    }

    /// Only with an OAuth login.
    RateLimit { rate_limit_info: Value, session_id: Uuid, uuid: Uuid }
    ToolProgress { tool_use_id: String, tool_name: String, elapsed_time_seconds: f64, session_id: Uuid, uuid: Uuid }
    ToolUseSummary { summary: String, preceding_tool_use_ids: Vec<String>, session_id: Uuid, uuid: Uuid }
    AuthStatus { #[serde(rename = "isAuthenticating")] is_authenticating: bool, output: Vec<String>, error: String, session_id: Uuid, uuid: Uuid }
    PromptSuggestion { suggestion: String, session_id: Uuid, uuid: Uuid }
    /// The conversation has a new id, e.g. after `/clear`.
    ConversationReset { new_conversation_id: Uuid, trigger: String, user_message_uuid: Uuid, session_id: Uuid, uuid: Uuid }
    Tombstone { message: Value, session_id: Uuid, uuid: Uuid }
    KeepAlive {}
    /// claude's answer; or its echo of an answer to itself.
    ControlResponse { response: Response }
    /// The envelope of an answer; `request_id` is in here, unlike in requests.
    Response {
        /// `success` or `error`.
        subtype: String,
        request_id: String,
        response: Value,
        error: String,
        /// 2.1.329, e.g. `unsupported_request`.
        error_code: String,
        /// Beside the response of a second `initialize`.
        pending_permission_requests: Vec<Value>,
        pending_user_dialog_requests: Vec<Value>,
    }
    ControlCancel { request_id: String }
    TranscriptMirror { #[serde(rename = "filePath")] file_path: String, entries: Vec<Value> }
    /// 2.1.329: `queued`, `started` or `completed`, of the message `command_uuid`.
    CommandLifecycle { command_uuid: Uuid, state: String, session_id: Uuid, uuid: Uuid }
}

/// Text, or content blocks as they are.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Content {
    Text(String),
    Blocks(Vec<Value>),
}
