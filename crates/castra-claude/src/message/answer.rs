//! The answers: claude's to its host by the subtype that was asked, and a host's to claude.

use super::control::PermissionUpdate;
use serde_json::{Map, Value};

family! {
    /// `response.response` of a success, by the subtype of the request. Those without a payload are not here.
    FromClaude {
        "initialize" => Initialized(Initialized),
        "interrupt" => Interrupted(Interrupted),
        "set_permission_mode" => PermissionMode(Mode),
        "set_model" => Model(Model),
        "get_settings" => Settings(Settings),
        "mcp_status" => McpStatus(McpStatus),
        "mcp_set_servers" => McpServers(McpServers),
        "get_context_usage" => ContextUsage(ContextUsage),
        "get_session_cost" => SessionCost(Text),
        "get_usage" => Usage(Usage),
        "get_binary_version" => BinaryVersion(BinaryVersion),
        "rewind_files" => RewoundFiles(RewoundFiles),
        "rewind_conversation" => RewoundConversation(Rewound),
        "cancel_async_message" => Cancelled(Cancelled),
        "side_question" => SideAnswer(SideAnswer),
        "generate_session_title" => Title(Title),
        "reload_plugins" => Plugins(Plugins),
        "reload_skills" => Skills(Skills),
        "file_suggestions" => FileSuggestions(Suggestions),
        "claude_authenticate" => Authenticate(Authenticate),
    }
}

family! {
    /// What a host answers, by the subtype that claude asked.
    FromHost {
        "can_use_tool" => Permission(Permission),
        "hook_callback" => Hook(Hook),
        "mcp_message" => Mcp(Mcp),
        "elicitation" => Elicitation(ElicitationAnswer),
        "request_user_dialog" => Dialog(DialogAnswer),
        "oauth_token_refresh" => OauthToken(OauthToken),
    }
}

message! {
    /// The sign of readiness.
    Initialized {
        commands: Vec<Value>,
        agents: Vec<Value>,
        models: Vec<Value>,
        account: Map<String, Value>,
        output_style: String,
        available_output_styles: Vec<String>,
        pid: u32,
        claude_code_version: String,
        session_state: String,
        capabilities: Vec<Value>,
        current_permission_mode: String,
        hook_on_failure_supported: bool,
    }
    /// 2.1.329 says what is queued still.
    Interrupted { still_queued: Vec<Value> }
    Mode { mode: String }
    Model { model: String }
    Settings { effective: Map<String, Value>, sources: Vec<Value>, applied: Map<String, Value> }
    McpStatus { #[serde(rename = "mcpServers")] mcp_servers: Vec<McpServer> }
    /// `pending`, `connected`, `failed`, `needs-auth` or `disabled`. `config` may hold secrets.
    McpServer {
        name: String,
        status: String,
        #[serde(rename = "serverInfo")] server_info: Value,
        config: Value,
        scope: String,
        tools: Vec<Value>,
        error: String,
    }
    McpServers { added: Vec<String>, removed: Vec<String>, errors: Map<String, Value> }
    ContextUsage {
        categories: Vec<Value>,
        #[serde(rename = "totalTokens")] total_tokens: u64,
        #[serde(rename = "maxTokens")] max_tokens: u64,
        #[serde(rename = "rawMaxTokens")] raw_max_tokens: u64,
        percentage: f64,
        model: String,
        #[serde(rename = "memoryFiles")] memory_files: Vec<Value>,
        #[serde(rename = "mcpTools")] mcp_tools: Vec<Value>,
        agents: Vec<Value>,
        #[serde(rename = "slashCommands")] slash_commands: Value,
        skills: Value,
        #[serde(rename = "isAutoCompactEnabled")] is_auto_compact_enabled: bool,
        #[serde(rename = "messageBreakdown")] message_breakdown: Value,
        #[serde(rename = "apiUsage")] api_usage: Value,
    }
    Text { text: String }
    Usage { session: Map<String, Value>, subscription_type: String, rate_limits_available: bool, rate_limits: Value }
    BinaryVersion { version: String, #[serde(rename = "buildTime")] build_time: String }
    RewoundFiles { #[serde(rename = "canRewind")] can_rewind: bool, #[serde(rename = "filesChanged")] files_changed: Vec<String>, insertions: u64, deletions: u64, error: String }
    Rewound { rewound: bool, error: String }
    Cancelled { cancelled: bool }
    SideAnswer { response: String, synthetic: bool }
    Title { title: String }
    Plugins { commands: Vec<Value>, agents: Vec<Value>, plugins: Vec<Value>, #[serde(rename = "mcpServers")] mcp_servers: Vec<Value>, error_count: u64 }
    Skills { skills: Vec<Value> }
    Suggestions { suggestions: Vec<Value>, cwd: String }
    Authenticate { #[serde(rename = "manualUrl")] manual_url: String, #[serde(rename = "automaticUrl")] automatic_url: String }

    Permission {
        /// `allow` or `deny`.
        behavior: String,
        /// Mandatory with `allow`; empty stands for the original.
        #[serde(rename = "updatedInput")] updated_input: Map<String, Value>,
        #[serde(rename = "updatedPermissions")] updated_permissions: Vec<PermissionUpdate>,
        message: String,
        interrupt: bool,
    }
    Hook { #[serde(rename = "hookSpecificOutput")] hook_specific_output: Value, decision: String, reason: String, #[serde(rename = "systemMessage")] system_message: String }
    Mcp { mcp_response: Value }
    /// `accept`, `decline` or `cancel`.
    ElicitationAnswer { action: String, content: Value }
    /// `completed` or `cancelled`.
    DialogAnswer { behavior: String, result: Value }
    OauthToken { #[serde(rename = "accessToken")] access_token: String }
}
