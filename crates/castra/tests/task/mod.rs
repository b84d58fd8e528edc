//! What the tests of tasks share: an agent that does what its instructions say.
#![allow(dead_code, reason = "each test program uses a part")]

use castra_proto::task::TaskEventKind;
use castra_testkit::Task;
use serde_json::{Value, json};
use std::path::PathBuf;

pub(crate) const CASTRA: &str = env!("CARGO_BIN_EXE_castra");

/// The agent reads its instructions, and runs the command behind `RUN: `.
pub(crate) const SCRIPT: &str = r#"
[[rule]]
name = "kickoff"
when.last_user.contains = "read CLAUDE.md in this folder"
reply.blocks = [{ tool_use = { name = "Read", input = { file_path = "{{cwd}}/CLAUDE.md" } } }]
[[rule]]
name = "fail"
when.tool_result = { tool = "Read", contains = "FAIL" }
reply.error = { status = 400, message = "scripted" }
[[rule]]
name = "tools"
when.tool_result = { tool = "Read", contains = "TOOLS:" }
reply.blocks = [
    { tool_use = { name = "mcp__castra__report_status", input = { message = "with a tool", percent = 30 } } },
    { tool_use = { name = "Bash", input = { command = "echo tool > deliverables/tool.txt", description = "Write" } } },
]
[[rule]]
name = "deliver"
when.tool_result = { tool = "mcp__castra__report_status", contains = "recorded" }
reply.blocks = [
    { tool_use = { name = "mcp__castra__deliver", input = { path = "deliverables/tool.txt" } } },
    { tool_use = { name = "mcp__castra__deliver", input = { path = "/etc/passwd" } } },
]
[[rule]]
name = "ask"
when.tool_result = { tool = "mcp__castra__deliver", contains = "accepted" }
reply.blocks = [{ tool_use = { name = "mcp__castra__ask_user", input = { question = "Plum or pear?" } } }]
[[rule]]
name = "finish"
when.tool_result = { tool = "mcp__castra__ask_user", regex = '(plum|pear)' }
reply.blocks = [{ tool_use = { name = "mcp__castra__done", input = { summary = "with {{capture:1}}" } } }]
[[rule]]
name = "run"
when.tool_result = { tool = "Read", regex = 'RUN: ([^\n]*)' }
reply.blocks = [{ tool_use = { name = "Bash", input = { command = "{{capture:1}}", description = "Run" } } }]
[[rule]]
name = "did"
when.tool_result = {}
reply.text = "did it"
[[rule]]
name = "log"
when.system_contains = "LOG: in the folder"
when.last_user.contains = "System["
reply.blocks = [{ tool_use = { name = "Bash", input = { command = "for l in .castra/*/optio.log; do echo 'DONE: in the folder' >> $l; done", description = "Report" } } }]
[[rule]]
name = "else"
reply.text = "I see."
"#;

/// Says that it is there, and is done once a file `go` is.
pub(crate) const WAITS: &str =
    "echo 'STATUS: here' >> optio.log; until [ -e go ]; do sleep 0.1; done; echo DONE >> optio.log";

/// A task whose agent runs this.
pub(crate) fn instructed(run: &str) -> Value {
    json!({
        "instructions": format!("RUN: {run}"),
        "protocol": "log",
        "session": {"allowed_tools": ["Bash", "Read"]},
    })
}

/// What castra has told the agent.
#[track_caller]
pub(crate) fn replies(task: &Task) -> Vec<String> {
    let events = task.events().into_iter();
    let told =
        events.filter(|event| event.kind == TaskEventKind::Reply && event.data["message_id"].is_string());
    told.map(|event| event.message).collect()
}

/// The folder that the agent works in.
#[track_caller]
pub(crate) fn work(task: &Task) -> PathBuf {
    task.session().show().cwd.expect("a folder").into()
}
