//! Every subtype of `system` messages.

use serde_json::Value;
use std::collections::BTreeMap;
use uuid::Uuid;

family! {
    /// Messages of type `system`, by their subtype.
    System {
        "init" => Init(Init),
        "status" => Status(Status),
        "api_retry" => ApiRetry(ApiRetry),
        "session_state_changed" => StateChanged(StateChanged),
        "task_started" => TaskStarted(Task),
        "task_updated" => TaskUpdated(Task),
        "task_notification" => TaskNotification(Task),
        "task_progress" => TaskProgress(Task),
        "background_tasks_changed" => BackgroundTasks(BackgroundTasks),
        "permission_denied" => PermissionDenied(PermissionDenied),
        "compact_boundary" => CompactBoundary(CompactBoundary),
        "commands_changed" => CommandsChanged(CommandsChanged),
        "hook_started" => HookStarted(Hook),
        "hook_progress" => HookProgress(Hook),
        "hook_response" => HookResponse(Hook),
        "model_fallback" => ModelFallback(ModelFallback),
        "model_refusal_fallback" => RefusalFallback(ModelFallback),
        "model_refusal_no_fallback" => RefusalNoFallback(ModelFallback),
        "thinking_tokens" => ThinkingTokens(ThinkingTokens),
        "informational" => Informational(Notice),
        "notification" => Notification(Notice),
        "local_command_output" => LocalCommandOutput(Notice),
        "files_persisted" => FilesPersisted(Files),
        "plugin_install" => PluginInstall(Notice),
        "memory_recall" => MemoryRecall(Notice),
        "elicitation_complete" => ElicitationComplete(Elicitation),
        "mirror_error" => MirrorError(Notice),
        "worker_shutting_down" => WorkerShuttingDown(Notice),
        "bridge_state" => BridgeState(Notice),
        "post_turn_summary" => PostTurnSummary(Notice),
        "task_summary" => TaskSummary(Notice),
        "turn_duration" => TurnDuration(Notice),
        "session_title_changed" => TitleChanged(TitleChanged),
        "control_request_progress" => ControlProgress(ControlProgress),
    }
}

message! {
    /// At the start of every turn.
    Init {
        cwd: String,
        session_id: Uuid,
        tools: Vec<String>,
        mcp_servers: Vec<Value>,
        model: String,
        #[serde(rename = "permissionMode")] permission_mode: String,
        slash_commands: Vec<String>,
        agents: Vec<String>,
        skills: Vec<String>,
        plugins: Vec<Value>,
        #[serde(rename = "apiKeySource")] api_key_source: String,
        claude_code_version: String,
        output_style: String,
        memory_paths: BTreeMap<String, Value>,
        uuid: Uuid,
    }
    Status {
        /// `requesting`, `compacting` or none.
        status: String,
        #[serde(rename = "permissionMode")] permission_mode: String,
        compact_result: String,
        compact_error: String,
        session_id: Uuid,
        uuid: Uuid,
    }
    ApiRetry {
        attempt: u32,
        max_retries: u32,
        retry_delay_ms: f64,
        error_status: u16,
        error: String,
        session_id: Uuid,
        uuid: Uuid,
    }
    /// `idle`, `running` or `requires_action`: the authoritative word on whether a turn is over.
    StateChanged { state: String, session_id: Uuid, uuid: Uuid }
    /// A background shell or a subagent.
    Task {
        task_id: String,
        tool_use_id: String,
        /// `local_bash`, `local_agent`, …
        task_type: String,
        description: String,
        patch: Value,
        status: String,
        output_file: String,
        summary: String,
        last_tool_name: String,
        usage: Value,
        session_id: Uuid,
        uuid: Uuid,
    }
    BackgroundTasks { tasks: Vec<Value>, session_id: Uuid, uuid: Uuid }
    /// Denied without asking anybody.
    PermissionDenied {
        tool_name: String,
        tool_use_id: String,
        decision_reason_type: String,
        message: String,
        session_id: Uuid,
        uuid: Uuid,
    }
    CompactBoundary { compact_metadata: CompactMetadata, session_id: Uuid, uuid: Uuid }
    CompactMetadata { trigger: String, pre_tokens: u64, post_tokens: u64, preserved_segment: Value }
    /// Replaces the list of slash commands.
    CommandsChanged { commands: Vec<Value>, session_id: Uuid, uuid: Uuid }
    Hook {
        hook_id: String,
        hook_name: String,
        hook_event: String,
        output: String,
        stdout: String,
        stderr: String,
        exit_code: i64,
        outcome: String,
        session_id: Uuid,
        uuid: Uuid,
    }
    ModelFallback {
        /// Messages that are to be forgotten.
        retracted_message_uuids: Vec<Uuid>,
        session_id: Uuid,
        uuid: Uuid,
    }
    ThinkingTokens { estimated_tokens: u64, estimated_tokens_delta: u64, session_id: Uuid, uuid: Uuid }
    /// What claude tells; `content`, `message` or `text` by subtype.
    Notice { content: Value, message: Value, text: Value, level: String, session_id: Uuid, uuid: Uuid }
    Files { files: Vec<Value>, failed: Vec<Value>, session_id: Uuid, uuid: Uuid }
    Elicitation { mcp_server_name: String, elicitation_id: String, session_id: Uuid, uuid: Uuid }
    TitleChanged { title: String, session_id: Uuid, uuid: Uuid }
    /// 2.1.329: a control request of the host's takes its time.
    ControlProgress { request_id: String, session_id: Uuid, uuid: Uuid }
}
