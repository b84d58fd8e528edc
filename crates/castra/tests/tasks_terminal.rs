//! Tasks whose agent works on a terminal, on the real TUI: done by its log, by its exit, or not at all; whoever looks
//! on or leaves makes no difference. Scenarios 9, 11, 12 and 20 of facts/optio.md §5.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod task;

use castra_proto::TaskState;
use castra_proto::api::Screen;
use castra_proto::task::{ReasonCode, TaskEventKind};
use castra_testkit::tmux::Terminal;
use castra_testkit::{DEADLINE, Task, World, each, fake_claude, wait_until};
use serde_json::{Value, json};
use std::fs;
use std::io::Write as _;
use task::{CASTRA, SCRIPT, instructed, replies, work};

fn on_terminal(run: &str) -> Value {
    let mut spec = instructed(run);
    spec["mode"] = json!("terminal");
    spec["protocol"] = json!("both");
    spec
}

/// Keys by name, as a person would press them.
#[track_caller]
fn type_keys(task: &Task, keys: &[&str]) {
    let reply = task.http.post(&task.session().path("/keys"), &json!({ "keys": keys }));
    assert_eq!(reply.status, 204, "{}", reply.text());
}

/// 12: nobody ever looks. 7: what a terminal does not have is not explained.
#[test]
fn scenario_12_done_by_its_log_with_a_deliverable_and_nobody_looking() {
    each(CASTRA, SCRIPT, |cli, _, daemon| {
        let run = "echo 'STATUS: 40% begun' >> optio.log; echo out > deliverables/out.txt; \
                   echo DELIVERABLE: deliverables/out.txt >> optio.log; xdg-open https://example.com/login; \
                   sleep 1; echo 'DONE: all of it' >> optio.log; sleep 300";
        let task = daemon.task(on_terminal(run));
        let shown = task.wait();
        assert_eq!(
            (shown.state, shown.result.as_deref()),
            (TaskState::Done, Some("all of it")),
            "{cli}: {:?}",
            task.log()
        );
        assert_eq!(shown.progress.percent, Some(40), "{cli}");
        let got = task.http.get(&task.path("/deliverables/out.txt"));
        assert_eq!((got.status, got.text().as_str()), (200, "out\n"), "{cli}");
        assert_eq!(task.said(TaskEventKind::Browser), ["https://example.com/login"], "{cli}");
        assert_eq!(replies(&task).len(), 1, "{cli}: {:?}", task.log());
        let told = fs::read_to_string(work(&task).join("CLAUDE.md")).unwrap();
        assert!(
            !told.contains("Reporting by tools") && told.contains("`STATUS: "),
            "{cli}: `both` is `log` here"
        );
        let exit = task.session().show().exit.expect("an exit");
        assert_eq!(exit.reaped, castra_proto::session::Reaped::Proved, "{cli}");
    });
}

/// 12: viewers come, two at once, and go.
#[test]
fn scenario_12_viewers_that_come_and_go_make_no_difference() {
    each(CASTRA, SCRIPT, |cli, world, daemon| {
        let run = "echo 'STATUS: here' >> optio.log; until [ -e go ]; do sleep 0.1; done; echo 'DONE: seen' >> optio.log";
        let task = daemon.task(on_terminal(run));
        task.wait_said(TaskEventKind::Progress);
        let script = format!("\"$CASTRA\" attach {}; echo \"exit $?\"", task.session().id);
        for (one, two) in [("one", "two"), ("three", "four")] {
            let first = Terminal::run(world, one, (30, 100), &script);
            let second = Terminal::run(world, two, (40, 120), &script);
            for viewer in [&first, &second] {
                viewer.until("until [ -e go ]");
                viewer.keys(&["C-\\"]);
                viewer.until("exit 0");
            }
            assert_eq!(task.show().state, TaskState::Running, "{cli}: {:?}", task.log());
        }
        fs::write(work(&task).join("go"), "").unwrap();
        let shown = task.wait();
        assert_eq!(
            (shown.state, shown.result.as_deref()),
            (TaskState::Done, Some("seen")),
            "{cli}: {:?}",
            task.log()
        );
    });
}

/// 11, its first half: a person ends claude, and `exit` counts on a terminal.
#[test]
fn scenario_11_a_claude_that_ends_well_is_done_unless_only_words_count() {
    each(CASTRA, SCRIPT, |cli, _, daemon| {
        for (completion, state, code) in [
            (Value::Null, TaskState::Done, None),
            (json!(["protocol"]), TaskState::Failed, Some(ReasonCode::NoDone)),
        ] {
            let mut spec = on_terminal("echo 'STATUS: worked' >> optio.log");
            if !completion.is_null() {
                spec["completion"] = completion;
            }
            let task = daemon.task(spec);
            task.wait_said(TaskEventKind::Progress);
            task.session().wait_idle();
            type_keys(&task, &["e", "x", "i", "t"]);
            let session = task.session();
            let shows = |screen: Screen| screen.rows.iter().any(|row| row.starts_with("❯\u{a0}exit"));
            let is_composed = || shows(session.http.get(&session.path("/screen")).expect(200));
            wait_until("the line in the composer", is_composed, DEADLINE);
            type_keys(&task, &["Enter"]);
            let shown = task.wait();
            let why = shown.reason.as_ref().map(|reason| reason.code);
            assert_eq!((shown.state, why, shown.result), (state, code, None), "{cli}: {:?}", task.log());
            assert_eq!(task.session().show().exit.and_then(|exit| exit.code), Some(0), "{cli}");
        }
    });
}

/// 11, its second half: the real one does not leave with 3 on demand.
#[test]
fn scenario_11_another_exit_code_fails_with_it_and_with_what_the_screen_showed() {
    let world = World::new(CASTRA, fake_claude(), SCRIPT);
    let daemon = world.daemon();
    let task = daemon.task(json!({
        "instructions": "x", "mode": "terminal", "start": "manual", "session": {"sandbox": "off"},
    }));
    task.wait_state(TaskState::Running);
    task.session().wait_idle();
    task.session().send("leave 3");
    let shown = task.wait();
    let reason = shown.reason.unwrap_or_else(|| panic!("no reason: {:?}", task.log()));
    assert_eq!((shown.state, reason.code), (TaskState::Failed, ReasonCode::Exit), "{:?}", task.log());
    assert!(reason.message.contains("exit code 3"), "{}", reason.message);
    assert_eq!(reason.tail, ["out of coffee"]);
}

/// 9: whoever has said so before it died is done; who has not is not.
#[test]
fn scenario_9_a_done_written_just_before_the_end_counts() {
    each(CASTRA, SCRIPT, |cli, _, daemon| {
        for mode in ["terminal", "stream"] {
            for (word, state) in
                [("DONE: just before", TaskState::Done), ("STATUS: not yet", TaskState::Failed)]
            {
                // The tool's parent is claude, or a shell of its own.
                let run = format!(
                    "echo '{word}' >> optio.log; p=$PPID; while [ \"$(cat /proc/$p/comm)\" != claude ]; do p=$(cut -d' ' -f4 /proc/$p/stat); done; kill -9 $p"
                );
                let mut spec = on_terminal(&run);
                spec["mode"] = json!(mode);
                let task = daemon.task(spec);
                let shown = task.wait();
                assert_eq!(shown.state, state, "{cli}, {mode}: {:?}", task.log());
                match state {
                    TaskState::Done => {
                        assert_eq!(shown.result.as_deref(), Some("just before"), "{cli}, {mode}")
                    }
                    _ => assert_eq!(
                        shown.reason.map(|reason| reason.code),
                        Some(ReasonCode::Exit),
                        "{cli}, {mode}"
                    ),
                }
            }
        }
    });
}

#[test]
fn scenario_20_a_task_on_a_terminal_goes_on_where_it_was() {
    each(CASTRA, SCRIPT, |cli, world, daemon| {
        let task = daemon.task(on_terminal("echo kept > kept.txt; echo 'DONE: once' >> optio.log"));
        assert_eq!(task.wait().result.as_deref(), Some("once"), "{cli}: {:?}", task.log());
        assert_eq!(task.act("resume").status, 200, "{cli}");
        wait_until("the notice to be heard", || world.times_heard("resumed") > 0, DEADLINE);
        task.session().wait_idle();
        let shown = task.show();
        assert_eq!((shown.state, shown.attempt), (TaskState::Running, 2), "{cli}: {:?}", task.log());
        assert_eq!(fs::read_to_string(work(&task).join("kept.txt")).unwrap(), "kept\n", "{cli}");
        assert_eq!(world.times_heard("resumed"), 1, "{cli}");
        let log = fs::OpenOptions::new().append(true).open(work(&task).join("optio.log"));
        log.unwrap().write_all(b"DONE: twice\n").unwrap();
        let shown = task.wait();
        assert_eq!(
            (shown.state, shown.result.as_deref()),
            (TaskState::Done, Some("twice")),
            "{cli}: {:?}",
            task.log()
        );
    });
}
