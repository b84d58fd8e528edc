//! The script file as it is written: serde types for the TOML, one struct a table. Owns field names and
//! refuses unknown ones; what the values mean is checked in `script`.
//!
//! The fields are documented for users in `docs/model.md`, which a test holds against this module.

use serde::Deserialize;
use std::collections::BTreeMap;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ScriptFile {
    pub(crate) models: Option<Vec<String>>,
    pub(crate) keys: Option<Vec<String>>,
    #[serde(default)]
    pub(crate) rule: Vec<RuleTable>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RuleTable {
    pub(crate) name: Option<String>,
    #[serde(default)]
    pub(crate) when: WhenTable,
    pub(crate) reply: ReplyTable,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct WhenTable {
    pub(crate) last_user: Option<TextTable>,
    pub(crate) tool_result: Option<ToolResultTable>,
    pub(crate) call: Option<u64>,
    pub(crate) nth: Option<u64>,
    pub(crate) times: Option<u64>,
    pub(crate) first_attempts: Option<u64>,
    pub(crate) system_contains: Option<String>,
    pub(crate) model: Option<String>,
    pub(crate) offers_tool: Option<String>,
    pub(crate) plan_mode: Option<bool>,
    pub(crate) side: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct TextTable {
    pub(crate) contains: Option<String>,
    pub(crate) regex: Option<String>,
    #[serde(default)]
    pub(crate) ignore_case: bool,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ToolResultTable {
    pub(crate) contains: Option<String>,
    pub(crate) regex: Option<String>,
    #[serde(default)]
    pub(crate) ignore_case: bool,
    pub(crate) tool: Option<String>,
    pub(crate) is_error: Option<bool>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ReplyTable {
    pub(crate) text: Option<String>,
    pub(crate) blocks: Option<Vec<BlockTable>>,
    pub(crate) stop_reason: Option<String>,
    #[serde(default)]
    pub(crate) usage: UsageTable,
    pub(crate) start_delay_ms: Option<u64>,
    pub(crate) pace: Option<PaceTable>,
    pub(crate) stall: Option<StallTable>,
    pub(crate) cut_after_chars: Option<u64>,
    pub(crate) error: Option<ErrorTable>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct BlockTable {
    pub(crate) text: Option<String>,
    pub(crate) thinking: Option<String>,
    pub(crate) signature: Option<String>,
    pub(crate) tool_use: Option<ToolUseTable>,
    pub(crate) repeat: Option<u64>,
    pub(crate) size: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ToolUseTable {
    pub(crate) name: String,
    #[serde(default)]
    pub(crate) input: BTreeMap<String, serde_json::Value>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct UsageTable {
    pub(crate) input_tokens: Option<u64>,
    pub(crate) output_tokens: Option<u64>,
    pub(crate) cache_creation_input_tokens: Option<u64>,
    pub(crate) cache_read_input_tokens: Option<u64>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct PaceTable {
    pub(crate) chunk_chars: u64,
    #[serde(default)]
    pub(crate) delay_ms: u64,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct StallTable {
    #[serde(default)]
    pub(crate) after_chars: u64,
    pub(crate) for_ms: Option<u64>,
    #[serde(default)]
    pub(crate) forever: bool,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ErrorTable {
    pub(crate) status: u16,
    pub(crate) r#type: Option<String>,
    pub(crate) message: Option<String>,
    pub(crate) retry_after: Option<u64>,
    pub(crate) after_chars: Option<u64>,
}
