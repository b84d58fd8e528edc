//! Tasks on the real CLI: the acceptance scenarios of facts/optio.md §5, by their numbers.
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "tasks/protocol.rs"]
mod protocol;
mod task;

use castra_proto::TaskState;
use castra_proto::api::{Page, ServerEvent};
use castra_proto::task::{ReasonCode, TaskEventKind};
use castra_testkit::{DEADLINE, each, wait_until};
use serde_json::json;
use task::{CASTRA, SCRIPT, WAITS, instructed, replies, work};

#[test]
fn scenario_1_progress_in_order_and_done_though_claude_still_runs() {
    each(CASTRA, SCRIPT, |cli, _, daemon| {
        let run = "echo 'STATUS: 10% begun' >> optio.log; sleep 1; echo 'STATUS: 50% half' >> optio.log; sleep 1; \
                   echo 'DONE: all of it' >> optio.log; sleep 300";
        let task = daemon.task(instructed(run));
        let shown = task.wait();
        assert_eq!((shown.state, shown.result.as_deref()), (TaskState::Done, Some("all of it")), "{cli}");
        assert_eq!(shown.progress.percent, Some(50), "{cli}");
        assert_eq!(task.said(TaskEventKind::Progress), ["begun", "half"], "{cli}");
        assert_eq!(
            task.said(TaskEventKind::State),
            ["queued", "starting", "running", "done"],
            "{cli}: {:?}",
            task.log()
        );
        let session = task.session().show();
        assert_eq!(
            session.exit.map(|exit| exit.reaped),
            Some(castra_proto::session::Reaped::Proved),
            "{cli}"
        );
    });
}

#[test]
fn scenario_2_error_fails_with_its_message_and_what_was_seen_last() {
    each(CASTRA, SCRIPT, |cli, _, daemon| {
        let task = daemon.task(instructed("echo 'ERROR: no coffee' >> optio.log"));
        let shown = task.wait();
        assert_eq!(shown.state, TaskState::Failed, "{cli}");
        let reason = shown.reason.expect("a reason");
        assert_eq!((reason.code, reason.message.as_str()), (ReasonCode::Error, "no coffee"), "{cli}");
        assert!(reason.tail.iter().any(|line| line.contains("no coffee")), "{cli}: {:?}", reason.tail);
    });
}

/// 3, 4 and 6: one reply to each, and only what is a deliverable is kept.
#[test]
fn scenario_3_4_6_deliverables_are_taken_or_refused_with_one_reply_each() {
    each(CASTRA, SCRIPT, |cli, world, daemon| {
        let run = r"mkdir -p deliverables/sub; printf '# Report\n' > deliverables/report.md; printf 'a\0b\377' > deliverables/sub/data.bin; ln -s /etc/passwd deliverables/link; echo secret > outside.txt; for f in deliverables/report.md deliverables/sub/data.bin ../x /etc/passwd deliverables/link deliverables outside.txt deliverables/none.md; do echo DELIVERABLE: $f >> optio.log; done";
        let task = daemon.task(instructed(run));
        wait_until("eight replies", || replies(&task).len() == 8, DEADLINE);
        let told = replies(&task);
        for (path, word) in [
            ("deliverables/report.md", "accepted"),
            ("deliverables/sub/data.bin", "accepted"),
            ("../x", "not below"),
            ("/etc/passwd", "not below"),
            ("deliverables/link", "no path of a file"),
            ("deliverables", "not below"),
            ("outside.txt", "not below"),
            ("deliverables/none.md", "no such file"),
        ] {
            let replies: Vec<_> =
                told.iter().filter(|text| text.contains(&format!("deliverable {path}: "))).collect();
            assert!(replies.len() == 1 && replies[0].contains(word), "{cli}: {path}: {told:?}");
        }
        let shown = task.show();
        let paths: Vec<_> =
            shown.deliverables.iter().map(|one| (one.path.as_str(), one.version, one.size)).collect();
        assert_eq!(paths, [("report.md", 1, 9), ("sub/data.bin", 1, 4)], "{cli}");
        assert_eq!(shown.deliverables[0].media_type, "text/markdown", "{cli}");
        // As `sha256sum` says it.
        let sums: Vec<_> = shown.deliverables.iter().map(|one| one.sha256.as_str()).collect();
        let expected = [
            "497b7725a00101d6cf82489ef502fb0918962b10aaa7279962ab5ec3edc62533",
            "a37cc3026aae4d519e0b19c298fa913b4dccfdf0658cbccbb7deaa0226d5acdb",
        ];
        assert_eq!(sums, expected, "{cli}");
        // Each was heard, and once.
        wait_until(
            "the last reply to be heard",
            || told.iter().all(|text| world.times_heard(text) > 0),
            DEADLINE,
        );
        let got = task.http.get(&task.path("/deliverables/sub/data.bin"));
        assert_eq!((got.status, got.body.as_ref()), (200, &b"a\0b\xff"[..]), "{cli}");

        // What is still there is collected at the end; the workspace may go then.
        std::fs::write(work(&task).join("deliverables/late.txt"), "late").unwrap();
        task.cancel();
        let shown = task.wait();
        assert_eq!(shown.state, TaskState::Cancelled, "{cli}");
        let paths: Vec<_> = shown.deliverables.iter().map(|one| one.path.as_str()).collect();
        assert_eq!(paths, ["late.txt", "report.md", "sub/data.bin"], "{cli}");
        assert_eq!(task.http.delete(&task.session().path("")).status, 204, "{cli}");
        assert_eq!(replies(&task), told, "{cli}: none came after it");
        for text in &told {
            assert_eq!(world.times_heard(text), 1, "{cli}: {text}");
        }
        let got = task.http.get(&task.path("/deliverables/report.md"));
        assert_eq!((got.status, got.body.as_ref()), (200, &b"# Report\n"[..]), "{cli}");
        assert_eq!(
            got.headers["content-disposition"],
            "attachment; filename=\"report.md\"; filename*=UTF-8''report.md",
            "{cli}"
        );
    });
}

/// 5, as far as there are no callbacks yet: a file that is handed over again is another version.
#[test]
fn a_deliverable_that_changed_is_another_version() {
    each(CASTRA, SCRIPT, |cli, _, daemon| {
        let run = "echo one > deliverables/a.txt; echo DELIVERABLE: deliverables/a.txt >> optio.log; \
                   until [ -e go1 ]; do sleep 0.1; done; echo DELIVERABLE: deliverables/a.txt >> optio.log; \
                   until [ -e go2 ]; do sleep 0.1; done; echo two > deliverables/a.txt; \
                   echo DELIVERABLE: deliverables/a.txt >> optio.log; until [ -e go3 ]; do sleep 0.1; done; \
                   echo DONE >> optio.log";
        let task = daemon.task(instructed(run));
        for n in 1..=3 {
            wait_until("a reply", || replies(&task).len() == n, DEADLINE);
            std::fs::write(work(&task).join(format!("go{n}")), "").unwrap();
        }
        let shown = task.wait();
        assert_eq!((shown.state, shown.deliverables.len()), (TaskState::Done, 1), "{cli}: {:?}", task.log());
        assert_eq!(shown.deliverables[0].version, 2, "{cli}");
        for (version, text) in [("1", "one\n"), ("2", "two\n")] {
            let got = task.http.get(&task.path(&format!("/deliverables/a.txt?version={version}")));
            assert_eq!(got.text(), text, "{cli}");
        }
    });
}

/// 8, and the accident that it leaves open: a line of a text that says DONE.
#[test]
fn scenario_8_lines_of_a_status_are_lines_and_a_done_among_them_ends_nothing() {
    each(CASTRA, SCRIPT, |cli, _, daemon| {
        let run = r"printf 'STATUS: three steps\nfirst\nDONE\nlast\n' >> optio.log; until [ -e go ]; do sleep 0.1; done; sleep 1; echo 'DONE: really' >> optio.log";
        let task = daemon.task(instructed(run));
        wait_until("its lines", || task.said(TaskEventKind::Log).len() == 3, DEADLINE);
        std::fs::write(work(&task).join("go"), "").unwrap();
        let shown = task.wait();
        assert_eq!((shown.state, shown.result.as_deref()), (TaskState::Done, Some("really")), "{cli}");
        assert_eq!(task.said(TaskEventKind::Log), ["first", "DONE", "last"], "{cli}");
    });
}

#[test]
fn scenario_10_a_session_that_was_lost_is_never_done() {
    each(CASTRA, SCRIPT, |cli, _, daemon| {
        let task = daemon.task(instructed("echo 'STATUS: here' >> optio.log; sleep 300"));
        assert_eq!(task.wait_said(TaskEventKind::Progress), "here", "{cli}");
        let shim = task.session().show().shim_pid.expect("a shim");
        assert!(castra_testkit::proc::process(shim).expect("the shim").kill9(), "{cli}");
        let shown = task.wait();
        let code = shown.reason.map(|reason| reason.code);
        assert_eq!((shown.state, code), (TaskState::Failed, Some(ReasonCode::Lost)), "{cli}");
    });
}

/// 14, 13: homes of their own, and nothing of the person's.
#[test]
fn scenario_14_two_tasks_at_once_have_separate_homes() {
    each(CASTRA, SCRIPT, |cli, world, daemon| {
        let own = world.user_home();
        std::fs::create_dir_all(own.join(".claude/projects/x")).unwrap();
        let settings = r#"{"env": {"PLANTED": "by-settings"}, "permissions": {"allow": ["Bash"]}}"#;
        for (file, text) in [
            (".claude.json", r#"{"hasCompletedOnboarding": true, "planted": "kept"}"#),
            (".claude/settings.json", settings),
            (".claude/CLAUDE.md", "planted-memory"),
            (".claude/.credentials.json", r#"{"claudeAiOauth": {"accessToken": "planted-token"}}"#),
            (".claude/projects/x/old.jsonl", "{}"),
            (".bashrc", "export PLANTED=by-bashrc"),
        ] {
            std::fs::write(own.join(file), text).unwrap();
        }
        let before = all_below(&own);
        let run = "echo \"[$PLANTED]\" > deliverables/planted; echo $HOME > deliverables/home; pwd > deliverables/work; echo DONE >> optio.log";
        let tasks = [daemon.task(instructed(run)), daemon.task(instructed(run))];
        let homes = tasks.map(|task| {
            assert_eq!(task.wait().state, TaskState::Done, "{cli}: {:?}", task.log());
            let got =
                |name: &str| task.http.get(&task.path(&format!("/deliverables/{name}"))).text().to_owned();
            assert_eq!(got("planted"), "[]\n", "{cli}: the person's settings are not read");
            (got("home"), got("work"))
        });
        assert!(homes[0].0 != homes[1].0 && homes[0].1 != homes[1].1, "{cli}: {homes:?}");
        assert_eq!(all_below(&own), before, "{cli}: nothing of the person's is written");
        let sent = world.calls().iter().any(|call| {
            let body = call.body.as_ref().map(|body| body.get()).unwrap_or_default();
            body.contains("planted-memory") || call.headers.values().any(|value| value.contains("planted"))
        });
        assert!(!sent, "{cli}: nor told to the model");
    });
}

#[test]
fn scenario_18_19_a_cancelled_task_is_cancelled_whatever_its_agent_does() {
    each(CASTRA, SCRIPT, |cli, _, daemon| {
        let deaf = "trap '' TERM INT; echo 'STATUS: deaf' >> optio.log; while true; do sleep 1; done";
        let sibling = daemon.task(instructed("sleep 8; echo DONE >> optio.log"));
        let task = daemon.task(instructed(deaf));
        assert_eq!(task.wait_said(TaskEventKind::Progress), "deaf", "{cli}");
        task.cancel();
        let shown = task.wait();
        let code = shown.reason.map(|reason| reason.code);
        assert_eq!((shown.state, code), (TaskState::Cancelled, Some(ReasonCode::Cancelled)), "{cli}");
        let exit = task.session().show().exit.expect("an exit");
        assert_eq!(exit.reaped, castra_proto::session::Reaped::Proved, "{cli}");
        assert_eq!(sibling.wait().state, TaskState::Done, "{cli}: {:?}", sibling.log());
        // What is over stays as it is.
        assert_eq!(task.cancel().state, TaskState::Cancelled, "{cli}");
        assert_eq!(sibling.cancel().state, TaskState::Done, "{cli}");
    });
}

/// 20, 21: the same folder, the same conversation; the old DONE is not said again.
#[test]
fn scenario_20_a_resumed_task_goes_on_where_it_was() {
    each(CASTRA, SCRIPT, |cli, world, daemon| {
        let task = daemon.task(instructed("echo kept > kept.txt; echo 'DONE: once' >> optio.log"));
        assert_eq!(task.wait().result.as_deref(), Some("once"), "{cli}");
        // In the queue, or on its way out of it.
        let shown: castra_proto::Task = task.act("resume").expect(200);
        assert!(matches!(shown.state, TaskState::Queued | TaskState::Starting), "{cli}: {shown:?}");
        task.wait_state(TaskState::Running);
        wait_until("the notice to be heard", || world.times_heard("resumed") > 0, DEADLINE);
        task.session().wait_idle();
        let shown = task.show();
        assert_eq!((shown.state, shown.attempt), (TaskState::Running, 2), "{cli}: {:?}", task.log());
        assert_eq!(shown.attempts[0].session_id, shown.attempts[1].session_id, "{cli}");
        let work = work(&task);
        assert_eq!(std::fs::read_to_string(work.join("kept.txt")).unwrap(), "kept\n", "{cli}");
        assert_eq!(std::fs::read_to_string(work.join("optio.log")).unwrap(), "", "{cli}");
        assert_eq!(std::fs::read_to_string(work.join("optio.log.old")).unwrap(), "DONE: once\n", "{cli}");
        let resumes = std::fs::read_to_string(work.join("resume.log")).unwrap();
        assert!(resumes.lines().count() == 1 && !resumes.contains("REFRESHED"), "{cli}: {resumes}");
        assert_eq!(
            (world.times_heard("resumed"), world.times_heard("CLAUDE.md has changed")),
            (1, 0),
            "{cli}"
        );
        std::fs::OpenOptions::new()
            .append(true)
            .open(work.join("optio.log"))
            .and_then(|mut log| std::io::Write::write_all(&mut log, b"DONE: twice\n"))
            .unwrap();
        let shown = task.wait();
        assert_eq!((shown.state, shown.result.as_deref()), (TaskState::Done, Some("twice")), "{cli}");
    });
}

#[test]
fn a_task_that_fails_is_tried_again_in_a_fresh_session() {
    each(CASTRA, SCRIPT, |cli, _, daemon| {
        let mut spec = instructed("echo 'ERROR: again' >> optio.log");
        spec["retries"] = json!(1);
        let task = daemon.task(spec);
        let shown = task.wait();
        assert_eq!((shown.state, shown.attempt), (TaskState::Failed, 2), "{cli}: {:?}", task.log());
        let states: Vec<_> = shown.attempts.iter().map(|attempt| attempt.state).collect();
        assert_eq!(states, [Some(TaskState::Failed); 2], "{cli}");
        assert_ne!(shown.attempts[0].session_id, shown.attempts[1].session_id, "{cli}");
    });
}

#[test]
fn without_a_protocol_the_turns_result_counts() {
    each(CASTRA, SCRIPT, |cli, _, daemon| {
        let spec = |text: &str| json!({"instructions": text, "protocol": "none", "session": {"allowed_tools": ["Bash", "Read"]}});
        let good = daemon.task(spec("RUN: echo well"));
        let shown = good.wait();
        assert_eq!((shown.state, shown.result.as_deref()), (TaskState::Done, Some("did it")), "{cli}");
        let bad = daemon.task(spec("FAIL"));
        let shown = bad.wait();
        let code = shown.reason.map(|reason| reason.code);
        assert_eq!((shown.state, code), (TaskState::Failed, Some(ReasonCode::Result)), "{cli}");
    });
}

#[test]
fn the_agents_tools_report_deliver_ask_and_finish() {
    each(CASTRA, SCRIPT, |cli, _, daemon| {
        let spec = |text: &str| json!({"instructions": text, "session": {"allowed_tools": ["Read", "Bash"]}});
        let task = daemon.task(spec("TOOLS: please"));
        let asked = task.session().wait_permission();
        assert_eq!(
            (asked.tool.as_str(), asked.input["question"].as_str()),
            ("ask_user", Some("Plum or pear?"))
        );
        task.wait_state(TaskState::NeedsInput);
        let answer = json!({"behavior": "allow", "updated_input": {"answer": "plum"}});
        assert_eq!(task.session().answer(&asked, &answer).status, 200, "{cli}");
        let shown = task.wait();
        assert_eq!(
            (shown.state, shown.result.as_deref()),
            (TaskState::Done, Some("with plum")),
            "{cli}: {:?}",
            task.log()
        );
        assert_eq!(task.said(TaskEventKind::Progress), ["with a tool"], "{cli}");
        let paths: Vec<_> = shown.deliverables.iter().map(|one| one.path.as_str()).collect();
        assert_eq!(paths, ["tool.txt"], "{cli}");
        assert_eq!(task.said(TaskEventKind::Rejected).len(), 1, "{cli}: {:?}", task.log());
        assert!(replies(&task).is_empty(), "{cli}: a call has its result, not a message");
    });
}

#[test]
fn a_folder_of_the_users_own_is_left_as_it_was() {
    each(CASTRA, SCRIPT, |cli, world, daemon| {
        let folder = world.folder().join("repo");
        std::fs::create_dir(&folder).unwrap();
        let git = |args: &[&str]| {
            let output =
                std::process::Command::new("git").args(args).current_dir(&folder).output().expect("git");
            assert!(output.status.success(), "{output:?}");
            String::from_utf8(output.stdout).unwrap()
        };
        git(&["init", "--quiet"]);
        std::fs::write(folder.join("CLAUDE.md"), "mine").unwrap();
        git(&["add", "."]);
        let before = git(&["status", "--porcelain"]);
        let link = world.folder().join("link");
        std::os::unix::fs::symlink(&folder, &link).unwrap();
        let task = daemon.task(json!({
            "instructions": "LOG: in the folder",
            "session": {"workdir": link, "allowed_tools": ["Bash", "Read"]},
        }));
        let shown = task.wait();
        assert_eq!(
            (shown.state, shown.result.as_deref()),
            (TaskState::Done, Some("in the folder")),
            "{cli}: {:?}",
            task.log()
        );
        assert_eq!(git(&["status", "--porcelain"]), before, "{cli}");
        assert_eq!(std::fs::read_to_string(folder.join("CLAUDE.md")).unwrap(), "mine", "{cli}");
    });
}

/// Whoever made it was allowed the folder that was there then.
#[test]
fn a_folder_that_was_replaced_while_the_task_waited_is_not_entered() {
    each(CASTRA, SCRIPT, |cli, world, daemon| {
        let (folder, other) = (world.folder().join("allowed"), world.folder().join("other"));
        std::fs::create_dir(&folder).unwrap();
        std::fs::create_dir(&other).unwrap();
        let first = daemon.task(instructed(WAITS));
        let second = daemon.task(json!({
            "instructions": "LOG: in the folder",
            "depends_on": [first.id],
            "session": {"workdir": folder, "allowed_tools": ["Bash", "Read"]},
        }));
        first.wait_said(TaskEventKind::Progress);
        std::fs::remove_dir(&folder).unwrap();
        std::os::unix::fs::symlink(&other, &folder).unwrap();
        std::fs::write(work(&first).join("go"), "").unwrap();
        let shown = second.wait();
        let code = shown.reason.map(|reason| reason.code);
        assert_eq!(
            (shown.state, code),
            (TaskState::Failed, Some(ReasonCode::Start)),
            "{cli}: {:?}",
            second.log()
        );
        assert_eq!(tree(&other), Vec::<std::path::PathBuf>::new(), "{cli}");
        assert_eq!(first.wait().state, TaskState::Done, "{cli}");
    });
}

/// Every file below a folder, with its content.
fn all_below(folder: &std::path::Path) -> std::collections::BTreeMap<std::path::PathBuf, Vec<u8>> {
    let mut found = std::collections::BTreeMap::new();
    for path in tree(folder) {
        match path.is_dir() {
            true => found.extend(all_below(&path)),
            false => drop(found.insert(path.clone(), std::fs::read(&path).unwrap())),
        }
    }
    found
}

fn tree(folder: &std::path::Path) -> Vec<std::path::PathBuf> {
    let mut found: Vec<_> = std::fs::read_dir(folder).unwrap().flatten().map(|entry| entry.path()).collect();
    found.sort();
    found
}

/// Whoever shows tasks hears of them, and of what their agents want; the client that a task names is named.
#[test]
fn the_server_wide_events_tell_of_tasks() {
    each(CASTRA, SCRIPT, |cli, _, daemon| {
        let mut body = instructed(
            "echo 'ATTENTION: look here' >> optio.log; echo 'CLIENT_MESSAGE: open {\"tab\": 2}' >> optio.log; \
             sleep 2; echo DONE >> optio.log",
        );
        body["client_id"] = "browser-1".into();
        let task = daemon.task(body);
        task.wait();
        let removed = task.http.delete(&task.path(""));
        assert_eq!(removed.status, 204, "{cli}");
        let page: Page<ServerEvent> = task.http.get("/api/v1/events?limit=500").expect(200);
        let of_task: Vec<(String, serde_json::Value)> = page
            .items
            .into_iter()
            .filter(|event| event.task_id.is_some_and(|id| id.to_string() == task.id))
            .map(|event| (event.kind, event.data))
            .collect();
        let kinds: Vec<&str> = of_task.iter().map(|(kind, _)| kind.as_str()).collect();
        assert_eq!(
            kinds,
            [
                "task_created",
                "task_state",
                "task_state",
                "task_attention",
                "task_client_message",
                "task_state",
                "task_removed"
            ],
            "{cli}"
        );
        assert_eq!(of_task[3].1, json!({"reason": "look here", "client_id": "browser-1"}), "{cli}");
        let message = json!({"name": "open", "data": {"tab": 2}, "client_id": "browser-1"});
        assert_eq!((&of_task[4].1, &of_task[5].1["to"]), (&message, &json!("done")), "{cli}");
    });
}
