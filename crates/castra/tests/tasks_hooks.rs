//! Hooks of tasks on the real CLI: programs and webhooks at each point, and what their answers do.
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "task/endpoint.rs"]
mod endpoint;
mod task;
#[path = "tasks_hooks/told.rs"]
mod told;
#[path = "tasks_hooks/webhooks.rs"]
mod webhooks;

use castra_proto::api::Scope;
use castra_proto::task::{HookPoint, Level, ReasonCode, TaskEventKind};
use castra_proto::{Problem, TaskState};
use castra_testkit::{DEADLINE, Http, Task, World, each, wait_until};
use endpoint::Endpoint;
use serde_json::{Value, json};
use std::path::PathBuf;
use task::{CASTRA, SCRIPT, instructed, replies, work};

/// Before the common rules: the agent asks by its tool, and finishes with what it was told.
const CALLER: &str = r#"
[[rule]]
name = "ask the caller"
when.tool_result = { tool = "Read", contains = "CALL:" }
reply.blocks = [{ tool_use = { name = "mcp__castra__message_caller", input = { name = "colour", data = { of = "door" } } } }]
[[rule]]
name = "was told"
when.tool_result = { tool = "mcp__castra__message_caller", regex = '(\w+)' }
reply.blocks = [{ tool_use = { name = "mcp__castra__done", input = { summary = "told: {{capture:1}}" } } }]
"#;

/// A task whose agent runs this, with these hooks.
fn hooked(run: &str, hooks: Value) -> Value {
    let mut spec = instructed(run);
    spec["hooks"] = hooks;
    spec
}

/// A hook that is a shell script; what it is told stands in `$told`.
fn script(on: &str, text: &str) -> Value {
    json!({"on": on, "command": ["sh", "-c", format!("told=$(cat)\n{text}")]})
}

fn with(mut hook: Value, field: &str, value: Value) -> Value {
    hook[field] = value;
    hook
}

/// What hooks have written: a line for each call.
fn notes(world: &World) -> PathBuf {
    world.root().join("notes")
}

fn lines(world: &World) -> Vec<String> {
    let text = std::fs::read_to_string(notes(world)).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

/// What it was told, one JSON a line.
fn calls(world: &World) -> Vec<Value> {
    lines(world).iter().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn write_down(world: &World, on: &str) -> Value {
    script(on, &format!("printf '%s\\n' \"$told\" >> {}", notes(world).display()))
}

fn hook_lines(task: &Task) -> Vec<(Level, String)> {
    let events = task.events().into_iter();
    events
        .filter(|event| event.kind == TaskEventKind::Hook)
        .map(|event| (event.level, event.message))
        .collect()
}

#[test]
fn scenario_2_the_after_hook_runs_whatever_the_end() {
    each(CASTRA, SCRIPT, |cli, world, daemon| {
        let hooks = json!([write_down(world, "after")]);
        let failed = daemon.task(hooked("echo 'ERROR: no coffee' >> optio.log", hooks.clone()));
        assert_eq!(failed.wait().state, TaskState::Failed, "{cli}");
        let done =
            daemon.task(hooked("echo one > deliverables/a; echo 'DONE: well' >> optio.log", hooks.clone()));
        assert_eq!(done.wait().state, TaskState::Done, "{cli}: {:?}", done.log());
        let cancelled = daemon.task(hooked("echo 'STATUS: on' >> optio.log; sleep 300", hooks));
        cancelled.wait_said(TaskEventKind::Progress);
        cancelled.cancel();
        assert_eq!(cancelled.wait().state, TaskState::Cancelled, "{cli}");
        let told: Vec<_> = calls(world)
            .iter()
            .map(|call| {
                (
                    call["task"]["id"].clone(),
                    call["outcome"]["state"].clone(),
                    call["outcome"]["reason"]["code"].clone(),
                )
            })
            .collect();
        let expected = [
            (json!(failed.id), json!("failed"), json!("error")),
            (json!(done.id), json!("done"), Value::Null),
            (json!(cancelled.id), json!("cancelled"), json!("cancelled")),
        ];
        assert_eq!(told, expected, "{cli}");
        // It sees what the agent has left.
        assert_eq!(calls(world)[1]["task"]["deliverables"][0]["path"], "a", "{cli}");
    });
}

#[test]
fn an_after_hook_that_fails_fails_only_what_was_done_and_only_where_it_says_so() {
    each(CASTRA, SCRIPT, |cli, _, daemon| {
        let broken = || script("after", "echo 'no space' >&2; exit 3");
        let fail = || with(broken(), "on_error", json!("fail"));
        let done = "echo DONE >> optio.log";
        for (run, hook, state, code, level) in [
            (done, broken(), TaskState::Done, None, Level::Warning),
            (done, fail(), TaskState::Failed, Some(ReasonCode::Hook), Level::Error),
            ("echo ERROR >> optio.log", fail(), TaskState::Failed, Some(ReasonCode::Error), Level::Error),
            (done, with(broken(), "on_error", json!("ignore")), TaskState::Done, None, Level::Debug),
        ] {
            let task = daemon.task(hooked(run, json!([hook])));
            let shown = task.wait();
            let reason = shown.reason.map(|reason| reason.code);
            assert_eq!((shown.state, reason), (state, code), "{cli}: {:?}", task.log());
            let said = [(level, "after failed: exit code 3: no space".to_owned())];
            assert_eq!(hook_lines(&task), said, "{cli}");
        }
    });
}

#[test]
fn a_before_hook_prepares_the_workspace_or_nothing_begins() {
    each(CASTRA, SCRIPT, |cli, world, daemon| {
        let prepare = script(
            "before",
            "pwd; echo \"$CASTRA_HOOK\" > prepared.txt; env | cut -d= -f1 | sort | tr '\\n' ' ' >> prepared.txt; echo ok",
        );
        let quiet = script("before", "env | cut -d= -f1 | sort | tr '\\n' ' ' > prepared.txt");
        let task = daemon
            .task(hooked("cp prepared.txt deliverables/; echo DONE >> optio.log", json!([quiet, prepare])));
        assert_eq!(task.wait().state, TaskState::Done, "{cli}: {:?}", task.log());
        let got = task.http.get(&task.path("/deliverables/prepared.txt")).text();
        let names = "CASTRA_HOME CASTRA_HOOK CASTRA_HOOK_TOKEN CASTRA_RUN CASTRA_SESSION CASTRA_TASK CASTRA_WORKSPACE HOME \
                     LANG PATH PWD";
        let (hook, found) = got.split_once('\n').expect("two lines");
        assert_eq!(hook, "before", "{cli}");
        let found: Vec<_> =
            found.split_whitespace().filter(|name| !["_", "OLDPWD", "SHLVL"].contains(name)).collect();
        assert_eq!(found, names.split_whitespace().collect::<Vec<_>>(), "{cli}");

        let task = daemon.task(hooked(
            "echo DONE >> optio.log",
            json!([script("before", "exit 1"), write_down(world, "after")]),
        ));
        let shown = task.wait();
        let code = shown.reason.map(|reason| reason.code);
        assert_eq!(
            (shown.state, code),
            (TaskState::Failed, Some(ReasonCode::Hook)),
            "{cli}: {:?}",
            task.log()
        );
        assert_eq!(shown.session_id, None, "{cli}: claude was not started");
        assert_eq!(calls(world).len(), 1, "{cli}: what was prepared is cleared away");
    });
}

/// 3 and 4: told of each file once, with its content; of what is none not at all.
#[test]
fn scenario_3_4_a_deliverable_is_told_and_what_is_none_is_not() {
    each(CASTRA, SCRIPT, |cli, world, daemon| {
        let run = r"mkdir -p deliverables/sub; printf '# Report\n' > deliverables/report.md; printf 'a\0b\377' > deliverables/sub/data.bin; ln -s /etc/passwd deliverables/link; for f in deliverables/report.md deliverables/sub/data.bin ../x /etc/passwd deliverables/link deliverables outside.txt deliverables/none.md; do echo DELIVERABLE: $f >> optio.log; done";
        let task = daemon.task(hooked(run, json!([write_down(world, "deliverable")])));
        wait_until("eight replies", || replies(&task).len() == 8, DEADLINE);
        let told: Vec<_> = calls(world).iter().map(|call| call["deliverable"].clone()).collect();
        let file = |path: &str, size: u64, sha256: &str, media: &str, text: Value| json!({"path": path, "size": size, "sha256": sha256, "media_type": media, "text": text});
        // As `sha256sum` says it.
        let sha = [
            "497b7725a00101d6cf82489ef502fb0918962b10aaa7279962ab5ec3edc62533",
            "a37cc3026aae4d519e0b19c298fa913b4dccfdf0658cbccbb7deaa0226d5acdb",
        ];
        let expected = [
            file("report.md", 9, sha[0], "text/markdown", json!("# Report\n")),
            file("sub/data.bin", 4, sha[1], "application/octet-stream", Value::Null),
        ];
        assert_eq!(told, expected, "{cli}: {:?}", task.log());
        let answered = replies(&task);
        let accepted = answered.iter().filter(|text| text.ends_with("accepted.")).count();
        assert_eq!(accepted, 2, "{cli}: {answered:?}");
        task.cancel();
        task.wait();
        assert_eq!(replies(&task), answered, "{cli}: none came after it");
        assert_eq!(calls(world).len(), 2, "{cli}: and nobody was told again");
    });
}

/// 5: what it answers is sent once, as a revision; what fails is a trouble of castra's, and the session lives.
#[test]
fn scenario_5_a_revision_is_asked_for_once_and_a_hook_that_fails_is_a_trouble_note() {
    each(CASTRA, SCRIPT, |cli, _, daemon| {
        let judge = script(
            "deliverable",
            "case \"$told\" in *'\"text\":\"long'*) echo make it shorter;; *'\"path\":\"bad.txt'*) echo boom >&2; exit 1;; esac",
        );
        let run = "echo long > deliverables/a.txt; echo DELIVERABLE: deliverables/a.txt >> optio.log; \
                   echo x > deliverables/bad.txt; echo DELIVERABLE: deliverables/bad.txt >> optio.log; until [ -e go ]; do sleep 0.1; done; \
                   echo short > deliverables/a.txt; echo DELIVERABLE: deliverables/a.txt >> optio.log";
        let task = daemon.task(hooked(run, json!([judge])));
        wait_until("two replies", || replies(&task).len() == 2, DEADLINE);
        std::fs::write(work(&task).join("go"), "").unwrap();
        wait_until("three replies", || replies(&task).len() == 3, DEADLINE);
        let told: Vec<String> =
            replies(&task).iter().map(|text| text.split_once("]: ").unwrap().1.to_owned()).collect();
        let expected = [
            "deliverable deliverables/a.txt: please revise it and hand it over again: make it shorter",
            "deliverable deliverables/bad.txt: trouble on castra's side, not yours. It was not taken yet: go on, and hand \
             it over again later, after you were resumed say.",
            "deliverable deliverables/a.txt: accepted.",
        ];
        assert_eq!(told, expected, "{cli}");
        let shown = task.show();
        assert_eq!(shown.state, TaskState::Running, "{cli}: {:?}", task.log());
        let kept: Vec<_> =
            shown.deliverables.iter().map(|one| (one.path.as_str(), one.version, one.size)).collect();
        assert_eq!(kept, [("a.txt", 1, 6)], "{cli}: only what was accepted");
        let said: Vec<_> = hook_lines(&task);
        let expected = [
            (Level::Debug, "deliverable: make it shorter".to_owned()),
            (Level::Warning, "deliverable failed: exit code 1: boom".to_owned()),
            (Level::Debug, "deliverable: ok".to_owned()),
        ];
        assert_eq!(said, expected, "{cli}");
        task.cancel();
        task.wait();
        assert_eq!(replies(&task).len(), 3, "{cli}: none came after it: {:?}", replies(&task));
    });
}

#[test]
fn a_hook_that_fails_the_task_says_so_in_its_reason() {
    each(CASTRA, SCRIPT, |cli, _, daemon| {
        let hook =
            with(with(script("deliverable", "sleep 60"), "timeout_s", json!(1)), "on_error", json!("fail"));
        let run = "echo x > deliverables/a; echo DELIVERABLE: deliverables/a >> optio.log; sleep 300";
        let task = daemon.task(hooked(run, json!([hook])));
        let shown = task.wait();
        let reason = shown.reason.expect("a reason");
        assert_eq!(
            (shown.state, reason.code),
            (TaskState::Failed, ReasonCode::Hook),
            "{cli}: {:?}",
            task.log()
        );
        assert_eq!(reason.message, "a hook failed: its time was over", "{cli}");
    });
}

/// Whoever waits for a hook hears when it is to stop, and what the hook has started goes with it.
#[test]
fn a_task_is_cancelled_while_its_hook_runs() {
    each(CASTRA, SCRIPT, |cli, world, daemon| {
        let notes = notes(world);
        let hook =
            script("deliverable", &format!("echo $$ > {}; sleep 300; echo late >> {0}", notes.display()));
        let hook = with(hook, "timeout_s", json!(600));
        let run = "echo x > deliverables/a; echo DELIVERABLE: deliverables/a >> optio.log; sleep 300";
        let task = daemon.task(hooked(run, json!([hook])));
        wait_until("the hook to run", || lines(world).len() == 1, DEADLINE);
        let pid: i32 = lines(world)[0].parse().unwrap();
        task.cancel();
        let shown = task.wait();
        assert_eq!(shown.state, TaskState::Cancelled, "{cli}: {:?}", task.log());
        assert!(castra_testkit::proc::process(pid).is_none(), "{cli}: the hook is over");
        assert_eq!(shown.deliverables.len(), 1, "{cli}: what was left is kept");
    });
}

#[test]
fn what_a_caller_answers_goes_back_to_the_agent_once() {
    let script_of_model = format!("{CALLER}{SCRIPT}");
    each(CASTRA, &script_of_model, |cli, world, daemon| {
        let answer = || {
            let text = format!("printf '%s\\n' \"$told\" >> {}; echo blue", notes(world).display());
            script("caller_message", &text)
        };
        // By the log.
        let run = "echo 'CALLER_MESSAGE: colour {\"of\":\"wall\"}' >> optio.log";
        let task = daemon.task(hooked(run, json!([answer()])));
        wait_until("an answer", || replies(&task).len() == 1, DEADLINE);
        assert!(replies(&task)[0].ends_with("]: answer to colour: blue"), "{cli}: {:?}", replies(&task));
        task.cancel();
        task.wait();
        // By the tool: its result.
        let asked = |hooks: Value| json!({"instructions": "CALL: please", "session": {"allowed_tools": ["Read", "Bash"]}, "hooks": hooks});
        let task = daemon.task(asked(json!([answer()])));
        let shown = task.wait();
        assert_eq!(shown.result.as_deref(), Some("told: blue"), "{cli}: {:?}", task.log());
        let told: Vec<_> = calls(world)
            .iter()
            .map(|call| (call["message"]["name"].clone(), call["message"]["data"].clone()))
            .collect();
        let expected = [(json!("colour"), json!({"of": "wall"})), (json!("colour"), json!({"of": "door"}))];
        assert_eq!(told, expected, "{cli}");
        // Without anybody who hears it there is no such word, and it is a line of text.
        let task = daemon.task(instructed(run));
        assert_eq!(task.wait_said(TaskEventKind::Log), "CALLER_MESSAGE: colour {\"of\":\"wall\"}", "{cli}");
        let text = std::fs::read_to_string(work(&task).join("CLAUDE.md")).unwrap();
        assert!(!text.contains("CALLER_MESSAGE: <name>"), "{cli}");
        task.cancel();
        task.wait();
    });
}

fn webhook(on: &str, endpoint: &Endpoint) -> Value {
    json!({"on": on, "webhook": {
        "url": endpoint.url(), "secret": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "allow_private": true,
        "headers": {"X-Team": "blue"},
    }})
}

#[test]
fn who_may_name_a_hook_and_where_a_webhook_may_go() {
    each(CASTRA, SCRIPT, |cli, _, daemon| {
        let http = daemon.http();
        let token = |scope: Scope| -> Http { daemon.http_as(&daemon.token(&json!({"scope": scope})).token) };
        let refused = |http: &Http, hook: Value| -> Problem {
            let reply = http.post("/api/v1/tasks", &json!({"instructions": "x", "hooks": [hook]}));
            assert!(reply.status >= 400, "{cli}: {}", reply.text());
            reply.problem()
        };
        let private = |url: &str| json!({"on": "after", "webhook": {"url": url}});
        for url in [
            "http://127.0.0.1:1/",
            "http://[::1]/",
            "http://169.254.169.254/latest/meta-data",
            "http://[::ffff:10.0.0.1]/",
            "http://localhost/",
        ] {
            let problem = refused(&http, private(url));
            assert!(problem.detail.contains("not a public address"), "{cli}: {problem:?}");
        }
        let approve = token(Scope::Approve);
        let problem = refused(&approve, json!({"on": "after", "command": ["true"]}));
        assert!(
            problem.detail.contains("needs the scope `admin`") && problem.hint.is_some(),
            "{cli}: {problem:?}"
        );
        let problem = refused(
            &approve,
            json!({"on": "after", "webhook": {"url": "http://127.0.0.1/", "allow_private": true}}),
        );
        assert!(problem.detail.contains("needs the scope `admin`"), "{cli}: {problem:?}");
        let problem = refused(&token(Scope::Drive), private("https://8.8.8.8/"));
        assert!(problem.detail.contains("needs the scope `approve`"), "{cli}: {problem:?}");
    });
}

/// What a command may do by `castra hook`, with a token that is good for nothing else and dies with it.
#[test]
fn a_command_acts_for_its_task_by_its_own_token() {
    each(CASTRA, SCRIPT, |cli, world, daemon| {
        let text = format!(
            r#"set -e; echo "$CASTRA_HOOK_TOKEN" >> {notes}
               echo hello | {CASTRA} hook put - given/a.txt
               {CASTRA} hook get given/a.txt >> {notes}
               {CASTRA} hook get >> {notes}
               {CASTRA} hook exec -- sh -c 'cat given/a.txt; exit 7' >> {notes} || echo "exit $?" >> {notes}
               {CASTRA} hook progress --percent 40 checked
               {CASTRA} hook send 'well done'
               CASTRA_TOKEN=$CASTRA_HOOK_TOKEN {CASTRA} --no-daemon-start ps 2>> {notes} || true
               {CASTRA} hook get ../../../castra.toml 2>> {notes} || true"#,
            notes = notes(world).display()
        );
        let run = "echo offered > deliverables/a; echo DELIVERABLE: deliverables/a >> optio.log";
        let task = daemon.task(hooked(run, json!([script("deliverable", &text)])));
        wait_until("the reply", || !replies(&task).is_empty(), DEADLINE);
        assert!(replies(&task)[0].ends_with("accepted."), "{cli}: {:?} {:?}", task.log(), lines(world));
        let mut said = lines(world);
        let token = said.remove(0);
        assert_eq!(said[..4], ["hello", "offered", "hello", "exit 7"], "{cli}");
        assert!(said[4].contains("a hook's token is for its own task only"), "{cli}: {said:?}");
        assert!(!std::fs::read_to_string(notes(world)).unwrap().contains("[claude]"), "{cli}");
        assert_eq!(task.show().progress.percent, Some(40), "{cli}");
        assert_eq!(std::fs::read_to_string(work(&task).join("given/a.txt")).unwrap(), "hello\n", "{cli}");
        wait_until("the agent to hear it", || world.times_heard("]: well done") > 0, DEADLINE);
        let late = daemon.http_as(&token).post(&task.path("/hook/progress"), &json!({"percent": 50}));
        assert_eq!(late.status, 401, "{cli}: {}", late.text());
        // Nobody else gets in, whatever they may do otherwise.
        let other = daemon.http().post(&task.path("/hook/progress"), &json!({"percent": 50}));
        assert_eq!(other.status, 403, "{cli}: {}", other.text());
        task.cancel();
        task.wait();
    });
}
