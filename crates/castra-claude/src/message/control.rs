//! Every control request, in both directions (facts/claude-cli.md §3).

use serde_json::{Map, Value};
use std::collections::BTreeMap;

family! {
    /// What claude asks its host.
    ToHost {
        "can_use_tool" => CanUseTool(CanUseTool),
        "hook_callback" => HookCallback(HookCallback),
        "mcp_message" => McpMessage(McpMessage),
        "elicitation" => Elicitation(Elicitation),
        "request_user_dialog" => UserDialog(UserDialog),
        "oauth_token_refresh" => OauthTokenRefresh(Nothing),
        "host_auth_token_refresh" => HostAuthTokenRefresh(Nothing),
    }
}

family! {
    /// What a host asks claude.
    ToClaude {
        "initialize" => Initialize(Initialize),
        "interrupt" => Interrupt(Nothing),
        "set_permission_mode" => SetPermissionMode(Mode),
        "set_model" => SetModel(Model),
        "set_max_thinking_tokens" => SetMaxThinkingTokens(Thinking),
        "apply_flag_settings" => ApplyFlagSettings(Settings),
        "get_settings" => GetSettings(Nothing),
        "mcp_status" => McpStatus(Nothing),
        "mcp_set_servers" => McpSetServers(Servers),
        "mcp_reconnect" => McpReconnect(Server),
        "mcp_toggle" => McpToggle(Server),
        "mcp_call" => McpCall(McpCall),
        "mcp_message" => McpMessage(McpMessage),
        "get_context_usage" => GetContextUsage(Nothing),
        "get_session_cost" => GetSessionCost(Nothing),
        "get_usage" => GetUsage(Nothing),
        "get_binary_version" => GetBinaryVersion(Nothing),
        "rewind_files" => RewindFiles(RewindFiles),
        "rewind_conversation" => RewindConversation(RewindConversation),
        "cancel_async_message" => CancelAsyncMessage(CancelAsyncMessage),
        "stop_task" => StopTask(TaskRef),
        "background_tasks" => BackgroundTasks(TaskRef),
        "side_question" => SideQuestion(Question),
        "generate_session_title" => GenerateSessionTitle(Title),
        "rename_session" => RenameSession(Title),
        "reload_plugins" => ReloadPlugins(Nothing),
        "reload_skills" => ReloadSkills(Nothing),
        "file_suggestions" => FileSuggestions(Query),
        "read_file" => ReadFile(Path),
        "seed_read_state" => SeedReadState(Path),
        "message_rated" => MessageRated(Rating),
        "set_mcp_permission_mode_override" => SetMcpPermissionModeOverride(Mode),
        "submit_feedback" => SubmitFeedback(Nothing),
        "end_session" => EndSession(Reason),
        "mcp_authenticate" => McpAuthenticate(Server),
        "mcp_oauth_callback_url" => McpOauthCallbackUrl(Server),
        "mcp_clear_auth" => McpClearAuth(Server),
        "claude_authenticate" => ClaudeAuthenticate(Nothing),
        "claude_oauth_callback" => ClaudeOauthCallback(Nothing),
        "claude_oauth_wait_for_completion" => ClaudeOauthWait(Nothing),
        "register_repo_root" => RegisterRepoRoot(Directory),
        "remote_control" => RemoteControl(Nothing),
        "channel_enable" => ChannelEnable(Nothing),
        "stage_file" => StageFile(Nothing),
        "add_directory" => AddDirectory(Directory),
        "ultrareview_launch" => UltrareviewLaunch(Nothing),
        "set_color" => SetColor(Color),
        "set_cwd" => SetCwd(Path),
    }
}

message! {
    CanUseTool {
        tool_name: String,
        display_name: String,
        title: String,
        input: Value,
        description: String,
        tool_use_id: String,
        blocked_path: String,
        permission_suggestions: Vec<PermissionUpdate>,
        agent_id: String,
        decision_reason: Value,
        decision_reason_type: String,
        classifier_approvable: bool,
    }
    /// A change of permissions: `addRules`, `replaceRules`, `removeRules`, `setMode`, `addDirectories`,
    /// `removeDirectories`. Any destination but `session` is a settings file.
    PermissionUpdate {
        r#type: String,
        rules: Vec<Rule>,
        behavior: String,
        mode: String,
        directories: Vec<String>,
        destination: String,
    }
    Rule { #[serde(rename = "toolName")] tool_name: String, #[serde(rename = "ruleContent")] rule_content: String }
    HookCallback { callback_id: String, tool_use_id: String, input: Value }
    McpMessage { server_name: String, message: Value }
    Elicitation { mcp_server_name: String, message: String, mode: String, requested_schema: Value, url: String }
    UserDialog { dialog_kind: String, payload: Value, tool_use_id: String }
    Nothing {}

    Initialize {
        hooks: BTreeMap<String, Vec<HookMatcher>>,
        #[serde(rename = "sdkMcpServers")] sdk_mcp_servers: Vec<String>,
        #[serde(rename = "jsonSchema")] json_schema: Value,
        #[serde(rename = "systemPrompt")] system_prompt: Vec<String>,
        #[serde(rename = "appendSystemPrompt")] append_system_prompt: String,
        agents: Map<String, Value>,
        skills: Vec<String>,
        title: String,
        #[serde(rename = "toolAliases")] tool_aliases: BTreeMap<String, String>,
        #[serde(rename = "excludeDynamicSections")] exclude_dynamic_sections: bool,
        #[serde(rename = "promptSuggestions")] prompt_suggestions: bool,
        #[serde(rename = "agentProgressSummaries")] agent_progress_summaries: bool,
        #[serde(rename = "forwardSubagentText")] forward_subagent_text: bool,
        #[serde(rename = "supportedDialogKinds")] supported_dialog_kinds: Vec<String>,
        #[serde(rename = "planModeInstructions")] plan_mode_instructions: String,
    }
    HookMatcher { matcher: String, #[serde(rename = "hookCallbackIds")] hook_callback_ids: Vec<String>, timeout: f64 }
    Mode { mode: String }
    Model { model: String }
    Thinking { max_thinking_tokens: u64, thinking_display: String }
    Settings { settings: Map<String, Value> }
    Servers { servers: Map<String, Value> }
    Server { #[serde(rename = "serverName")] server_name: String, enabled: bool }
    McpCall { tool: String, arguments: Value }
    RewindFiles { user_message_id: String, dry_run: bool }
    RewindConversation { target_message_uuid: String, interrupt_if_running: bool }
    CancelAsyncMessage { message_uuid: String }
    TaskRef { task_id: String, tool_use_id: String }
    Question { question: String }
    Title { title: String, description: String, persist: bool }
    Query { query: String }
    Path { path: String }
    Rating { message_uuid: String, sentiment: String }
    Reason { reason: String }
    Directory { directory: String, reload_claude_md: bool }
    Color { color: String }
}
