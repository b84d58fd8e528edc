//! What an agent says by both ways at once, by tools alone, or gives up by; how it is interrupted; what it is told anew;
//! what is kept of what it said; and whose settings count.

use super::*;
use castra_testkit::{Task, World};
use serde_json::Value;
use std::collections::BTreeSet;

/// An agent that uses its tools and the log side by side.
const TOOLS: &str = r#"
[[rule]]
name = "both"
when.tool_result = { tool = "Read", contains = "BOTH:" }
reply.blocks = [
    { tool_use = { name = "Bash", input = { description = "Report", command = "echo x > deliverables/x; echo 'STATUS: 20% by log' >> optio.log; echo DELIVERABLE: deliverables/x >> optio.log" } } },
    { tool_use = { name = "mcp__castra__report_status", input = { message = "by tool", percent = 40 } } },
]
[[rule]]
name = "the same again"
when.tool_result = { tool = "mcp__castra__report_status" }
reply.blocks = [{ tool_use = { name = "mcp__castra__deliver", input = { path = "deliverables/x" } } }]
"#;

/// These rules, before the common ones.
fn scripted(more: &str) -> String {
    format!("{more}\n{SCRIPT}")
}

fn asked(text: &str) -> Value {
    json!({"instructions": text, "session": {"allowed_tools": ["Bash", "Read"]}})
}

fn transcript(world: &World, task: &Task) -> String {
    let projects = world.home().join("sessions").join(&task.session().id).join("home/.claude/projects");
    let files = all_below(&projects).into_values();
    files.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).collect()
}

/// The code that stands before what castra says.
fn code(text: &str) -> Option<&str> {
    Some(text.split_once("System[")?.1.split_once(']')?.0)
}

#[test]
fn each_task_has_a_code_of_its_own_which_its_instructions_name() {
    each(CASTRA, SCRIPT, |cli, world, daemon| {
        let spec = || instructed("echo 'STATUS: here' >> optio.log; sleep 300");
        let tasks = [daemon.task(spec()), daemon.task(spec())];
        let named = tasks.each_ref().map(|task| {
            task.wait_said(TaskEventKind::Progress);
            let told = std::fs::read_to_string(work(task).join("CLAUDE.md")).unwrap();
            code(&told).unwrap_or_else(|| panic!("{cli}: {told}")).to_owned()
        });
        assert!(named[0] != named[1] && named.iter().all(|code| code.len() >= 4), "{cli}: {named:?}");
        let calls = world.calls();
        let said = calls.iter().filter_map(|call| call.last_user.as_deref());
        let heard: BTreeSet<_> = said.filter(|said| said.starts_with("System[")).filter_map(code).collect();
        assert_eq!(heard, named.iter().map(String::as_str).collect(), "{cli}");
        for task in &tasks {
            task.cancel();
            task.wait();
        }
    });
}

#[test]
fn by_log_and_by_tool_each_thing_is_recorded_once() {
    let done = r#"
[[rule]]
name = "ends by both"
when.tool_result = { tool = "mcp__castra__deliver" }
reply.blocks = [
    { tool_use = { name = "Bash", input = { description = "Report", command = "echo 'DONE: by log' >> optio.log" } } },
    { tool_use = { name = "mcp__castra__done", input = { summary = "by tool" } } },
]
"#;
    each(CASTRA, &scripted(&[TOOLS, done].concat()), |cli, _, daemon| {
        let task = daemon.task(asked("BOTH: please"));
        let shown = task.wait();
        assert_eq!(shown.state, TaskState::Done, "{cli}: {:?}", task.log());
        let result = shown.result.as_deref();
        assert!(matches!(result, Some("by log" | "by tool")), "{cli}: {result:?}");
        assert_eq!(task.said(TaskEventKind::Outcome).len(), 1, "{cli}: {:?}", task.log());
        let states = task.said(TaskEventKind::State);
        assert_eq!(states, ["queued", "starting", "running", "done"], "{cli}");
        let mut progress = task.said(TaskEventKind::Progress);
        progress.sort();
        assert_eq!(progress, ["by log", "by tool"], "{cli}: {:?}", task.log());
        // Handed over twice with one content it is one version; each of the two heard that it was taken.
        let files: Vec<_> = shown.deliverables.iter().map(|one| (one.path.as_str(), one.version)).collect();
        assert_eq!(files, [("x", 1)], "{cli}");
        assert_eq!(task.said(TaskEventKind::Deliverable).len(), 1, "{cli}: {:?}", task.log());
        assert!(replies(&task).len() <= 1, "{cli}: only the log's has a message: {:?}", replies(&task));
    });
}

#[test]
fn by_tools_alone_the_log_is_a_file_like_any_other() {
    let rules = r#"
[[rule]]
name = "tries the log"
when.tool_result = { tool = "Read", contains = "ALONE:" }
reply.blocks = [
    { tool_use = { name = "Bash", input = { description = "Write", command = "echo 'STATUS: by log' >> optio.log; echo 'DONE: by log' >> optio.log" } } },
    { tool_use = { name = "mcp__castra__report_status", input = { message = "by tool" } } },
]
[[rule]]
name = "ends"
when.tool_result = { tool = "mcp__castra__report_status" }
reply.blocks = [{ tool_use = { name = "Bash", input = { description = "Wait", command = "until [ -e go ]; do sleep 0.1; done" } } }]
[[rule]]
name = "by its tool"
when.tool_result = { tool = "Bash" }
reply.blocks = [{ tool_use = { name = "mcp__castra__done", input = { summary = "by tool" } } }]
"#;
    each(CASTRA, &scripted(rules), |cli, _, daemon| {
        let mut spec = asked("ALONE: please");
        spec["protocol"] = json!("mcp");
        let task = daemon.task(spec);
        assert_eq!(task.wait_said(TaskEventKind::Progress), "by tool", "{cli}");
        let told = std::fs::read_to_string(work(&task).join("CLAUDE.md")).unwrap();
        assert!(told.contains("Reporting by tools") && !told.contains("optio.log"), "{cli}: {told}");
        assert_eq!(task.show().state, TaskState::Running, "{cli}: {:?}", task.log());
        std::fs::write(work(&task).join("go"), "").unwrap();
        let shown = task.wait();
        assert_eq!((shown.state, shown.result.as_deref()), (TaskState::Done, Some("by tool")), "{cli}");
        assert_eq!(task.said(TaskEventKind::Progress), ["by tool"], "{cli}: {:?}", task.log());
    });
}

#[test]
fn an_agent_gives_up_by_its_tool() {
    let rules = r#"
[[rule]]
name = "gives up"
when.tool_result = { tool = "Read", contains = "GIVE UP:" }
reply.blocks = [{ tool_use = { name = "mcp__castra__fail", input = { reason = "no coffee" } } }]
"#;
    each(CASTRA, &scripted(rules), |cli, _, daemon| {
        let task = daemon.task(asked("GIVE UP: please"));
        let shown = task.wait();
        let reason = shown.reason.expect("a reason");
        assert_eq!(
            (shown.state, reason.code, reason.message.as_str()),
            (TaskState::Failed, ReasonCode::Error, "no coffee"),
            "{cli}: {:?}",
            task.log()
        );
    });
}

/// It was interrupted, and came to rest, long before anybody would have stopped it.
#[test]
fn a_cancel_interrupts_the_turn_before_anything_is_stopped() {
    each(CASTRA, SCRIPT, |cli, world, daemon| {
        let task = daemon.task(instructed("echo 'STATUS: here' >> optio.log; sleep 300"));
        task.wait_said(TaskEventKind::Progress);
        let asked: castra_proto::Task =
            task.http.post(&task.path("/cancel"), &json!({"grace_s": 3600})).expect(200);
        assert!(!asked.state.is_final(), "{cli}");
        assert_eq!(task.wait().state, TaskState::Cancelled, "{cli}: {:?}", task.log());
        let said = transcript(world, &task);
        assert!(said.contains("[Request interrupted by user"), "{cli}: {said}");
        let session = task.session();
        let exit = session.show().exit.expect("an exit");
        assert_eq!(
            (exit.cause, exit.signal, exit.reaped),
            (castra_proto::session::ExitCause::Stopped, None, castra_proto::session::Reaped::Proved),
            "{cli}: it left by itself"
        );
        let kinds: Vec<String> =
            session.events().iter().map(|event| event.kind.as_str().to_owned()).collect();
        let at =
            |kind: &str| kinds.iter().rposition(|one| one == kind).unwrap_or_else(|| panic!("{kinds:?}"));
        assert!(at("result") < at("exit"), "{cli}: {kinds:?}");
    });
}

/// What its agent has written over, or what has changed since, is written anew, and it is told.
#[test]
fn instructions_that_changed_are_refreshed_when_it_is_resumed() {
    each(CASTRA, SCRIPT, |cli, world, daemon| {
        let task = daemon.task(instructed("echo scribbled >> CLAUDE.md; echo 'DONE: once' >> optio.log"));
        assert_eq!(task.wait().result.as_deref(), Some("once"), "{cli}: {:?}", task.log());
        let instructions = work(&task).join("CLAUDE.md");
        let before = std::fs::read_to_string(&instructions).unwrap();
        let text = before.strip_suffix("scribbled\n").unwrap_or_else(|| panic!("{cli}: {before}"));
        assert_eq!(task.act("resume").status, 200, "{cli}");
        wait_until("the notice to be heard", || world.times_heard("you have been resumed") > 0, DEADLINE);
        assert_eq!(world.times_heard("CLAUDE.md has changed: read it again first."), 1, "{cli}");
        assert_eq!(std::fs::read_to_string(&instructions).unwrap(), text, "{cli}");
        let resumes = std::fs::read_to_string(work(&task).join("resume.log")).unwrap();
        assert!(
            resumes.lines().count() == 1 && resumes.ends_with(" REFRESHED:CLAUDE.md\n"),
            "{cli}: {resumes}"
        );
        task.cancel();
        task.wait();
    });
}

/// Of 400 lines and what it failed with the last 150, and none of them cut short or twice.
#[test]
fn a_failed_task_keeps_the_last_150_lines() {
    let line = |n: u32| format!("line {n} of what was said");
    let text: String = (1..=400).map(|n| line(n) + "\\n").collect();
    let rules = format!(
        r#"
[[rule]]
name = "says much"
when.tool_result = {{ tool = "Read", contains = "SAY:" }}
reply.blocks = [
    {{ text = "{text}" }},
    {{ tool_use = {{ name = "Bash", input = {{ description = "Fail", command = "echo 'ERROR: enough' >> optio.log; sleep 300" }} }} }},
]
"#
    );
    each(CASTRA, &scripted(&rules), |cli, _, daemon| {
        let task = daemon.task(asked("SAY: please"));
        let shown = task.wait();
        assert_eq!(shown.state, TaskState::Failed, "{cli}: {:?}", task.log());
        let expected: Vec<String> = (252..=400).map(line).chain(["enough".to_owned()]).collect();
        assert_eq!(shown.reason.expect("a reason").tail, expected, "{cli}");
    });
}

/// 16: of settings that are given by two, the task's own key counts, and the other's other keys are kept. Where seeds will
/// bring settings, a project's bring them now.
#[test]
fn scenario_16_the_callers_key_wins_and_the_other_keys_are_kept() {
    let rules = r#"
[[rule]]
name = "reports"
when.system_contains = "SETTINGS: please"
when.last_user.contains = "System["
reply.blocks = [{ tool_use = { name = "Bash", input = { description = "Report", command = "for l in .castra/*/optio.log; do echo \"DONE: $ONE $TWO $THREE\" >> $l; done" } } }]
"#;
    each(CASTRA, &scripted(rules), |cli, world, daemon| {
        let folder = world.folder().join("mine");
        std::fs::create_dir_all(folder.join(".claude")).unwrap();
        let theirs = json!({
            "env": {"ONE": "project", "TWO": "project"},
            "permissions": {"allow": ["Bash"]},
        });
        let file = folder.join(".claude/settings.json");
        std::fs::write(&file, theirs.to_string()).unwrap();
        let task = daemon.task(json!({
            "instructions": "SETTINGS: please",
            "session": {"workdir": folder, "settings": {"env": {"TWO": "caller", "THREE": "caller"}}},
        }));
        let shown = task.wait();
        assert_eq!(
            (shown.state, shown.result.as_deref()),
            (TaskState::Done, Some("project caller caller")),
            "{cli}: {:?}",
            task.log()
        );
        assert_eq!(
            std::fs::read_to_string(&file).unwrap(),
            theirs.to_string(),
            "{cli}: nothing of theirs is written"
        );
        let kept = serde_json::to_value(&shown.spec.session.settings).unwrap();
        assert_eq!(kept, json!({"env": {"TWO": "***", "THREE": "***"}}), "{cli}: values are shown to nobody");
    });
}
