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
    McpStatus { mcpServers: Vec<McpServer> }
    /// `pending`, `connected`, `failed`, `needs-auth` or `disabled`. `config` may hold secrets.
    McpServer {
        name: String,
        status: String,
        serverInfo: Value,
        config: Value,
        scope: String,
        tools: Vec<Value>,
        error: String,
    }
    McpServers { added: Vec<String>, removed: Vec<String>, errors: Map<String, Value> }
    ContextUsage {
        categories: Vec<Value>,
        totalTokens: u64,
        maxTokens: u64,
        rawMaxTokens: u64,
        percentage: f64,
        model: String,
        memoryFiles: Vec<Value>,
        mcpTools: Vec<Value>,
        agents: Vec<Value>,
        slashCommands: Value,
        skills: Value,
        isAutoCompactEnabled: bool,
        messageBreakdown: Value,
        apiUsage: Value,
    }
    Text { text: String }
    Usage { session: Map<String, Value>, subscription_type: String, rate_limits_available: bool, rate_limits: Value }
    BinaryVersion { version: String, buildTime: String }
    RewoundFiles { canRewind: bool, filesChanged: Vec<String>, insertions: u64, deletions: u64, error: String }
    Rewound { rewound: bool, error: String }
    Cancelled { cancelled: bool }
    SideAnswer { response: String, synthetic: bool }
    Title { title: String }
    Plugins { commands: Vec<Value>, agents: Vec<Value>, plugins: Vec<Value>, mcpServers: Vec<Value>, error_count: u64 }
    Skills { skills: Vec<Value> }
    Suggestions { suggestions: Vec<Value>, cwd: String }
    Authenticate { manualUrl: String, automaticUrl: String }

    Permission {
        /// `allow` or `deny`.
        behavior: String,
        /// Mandatory with `allow`; empty stands for the original.
        updatedInput: Map<String, Value>,
        updatedPermissions: Vec<PermissionUpdate>,
        message: String,
        interrupt: bool,
    }
    Hook { hookSpecificOutput: Value, decision: String, reason: String, systemMessage: String }
    Mcp { mcp_response: Value }
    /// `accept`, `decline` or `cancel`.
    ElicitationAnswer { action: String, content: Value }
    /// `completed` or `cancelled`.
    DialogAnswer { behavior: String, result: Value }
    OauthToken { accessToken: String }
}
