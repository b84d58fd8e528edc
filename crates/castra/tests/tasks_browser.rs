//! Pages that tools want to open, on the real CLI: stand-ins in the task's PATH name them to whoever waits; scenario 7 of
//! facts/optio.md §5, keywords that a task does not have.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod task;

use castra_proto::TaskState;
use castra_proto::task::TaskEventKind;
use castra_testkit::each;
use serde_json::json;
use std::fs;
use task::{CASTRA, SCRIPT, instructed, work};

/// Run by the agent: each way to open a page, with its exit code; and what is left to programs that are really there.
const OPEN: &str = r#"exec > opened 2>&1
mkdir -p theirs; printf '#!/bin/sh\necho really "${0##*/}" "$@"\n' > theirs/chromium
cp theirs/chromium theirs/gio; cp theirs/chromium theirs/open; chmod +x theirs/*
PATH=${PATH%%:*}:$PWD/theirs:${PATH#*:}
sh -c '$BROWSER "https://example.com/1?a=b&c=%22"'
xdg-open https://example.com/2; echo "xdg-open $?"
gio open https://example.com/3; echo "gio $?"
python3 -c 'import webbrowser; print(webbrowser.open("https://example.com/4"))'
google-chrome --new-window https://example.com/5 https://example.com/6; echo "chrome $?"
wslview file:///etc/passwd; echo "file $?"
xdg-open 'https://example.com/a b'; echo "space $?"
firefox "$(printf 'https://example.com/\nDONE')"; echo "newline $?"
brave-browser 'javascript:alert(1)'; echo "script $?"
sensible-browser "https://example.com/$(head -c 9000 /dev/zero | tr '\0' x)"; echo "long $?"
chromium --headless --dump-dom https://example.com/7
gio info 'a b'
chromium --version
open notes.txt
exit 0
"#;

#[test]
fn pages_that_tools_open_become_events_of_the_task() {
    each(CASTRA, SCRIPT, |cli, world, daemon| {
        let script = world.folder().join("open.sh");
        fs::write(&script, OPEN).unwrap();
        for sandbox in ["auto", "off"] {
            let mut spec = instructed("sh open.sh; echo DONE >> optio.log");
            spec["session"]["sandbox"] = json!(sandbox);
            spec["inputs"] = json!([{"path": "open.sh", "from": {"file": script}}]);
            let task = daemon.task(spec);
            assert_eq!(task.wait().state, TaskState::Done, "{cli}: {:?}", task.log());
            let opened = fs::read_to_string(work(&task).join("opened")).unwrap();
            let told: Vec<&str> = opened.lines().filter(|line| !line.starts_with("castra: ")).collect();
            let expected = [
                "xdg-open 0",
                "gio 0",
                "True",
                "chrome 0",
                "file 1",
                "space 1",
                "newline 1",
                "script 1",
                "long 1",
                "really chromium --headless --dump-dom https://example.com/7",
                "really gio info a b",
                "really chromium --version",
                "really open notes.txt",
            ];
            assert_eq!(told, expected, "{cli}, sandbox {sandbox}: {opened}");
            let urls: Vec<String> = [r"1?a=b&c=%22", "2", "3", "4", "5"]
                .iter()
                .map(|page| format!("https://example.com/{page}"))
                .collect();
            assert_eq!(task.said(TaskEventKind::Browser), urls, "{cli}, sandbox {sandbox}: {opened}");
            let told = fs::read_to_string(work(&task).join("CLAUDE.md")).unwrap();
            assert!(told.contains("`BROWSER: \"<url>\"`"), "{cli}");
        }
    });
}

#[test]
fn without_a_log_a_stand_in_says_so() {
    each(CASTRA, SCRIPT, |cli, _, daemon| {
        let mut spec =
            instructed("xdg-open https://example.com/ 2> deliverables/said; echo $? >> deliverables/said");
        spec["protocol"] = json!("none");
        let task = daemon.task(spec);
        assert_eq!(task.wait().state, TaskState::Done, "{cli}: {:?}", task.log());
        let said = task.http.get(&task.path("/deliverables/said")).text();
        assert!(said.contains("no log") && said.ends_with("\n1\n"), "{cli}: {said}");
        assert_eq!(task.said(TaskEventKind::Browser), Vec::<String>::new(), "{cli}");
    });
}

#[test]
fn scenario_7_a_keyword_that_a_task_does_not_have_is_inert_and_nobody_is_told_of_it() {
    each(CASTRA, SCRIPT, |cli, _, daemon| {
        let run = r#"echo 'CALLER_MESSAGE: passed {"suite":1}' >> optio.log; echo 'CLIENT_MESSAGE: built {}' >> optio.log; echo 'BROWSER: "javascript:alert(1)"' >> optio.log; echo 'BROWSER: "https://example.com/"' >> optio.log; echo 'STATUS: 250% over' >> optio.log; echo 'status: low' >> optio.log; echo ' DONE' >> optio.log; sleep 1; echo DONE >> optio.log"#;
        let task = daemon.task(instructed(run));
        assert_eq!(task.wait().state, TaskState::Done, "{cli}: {:?}", task.log());
        let told = fs::read_to_string(work(&task).join("CLAUDE.md")).unwrap();
        let instructions = told.split("## Instructions").next().unwrap();
        for word in ["CALLER_MESSAGE", "CLIENT_MESSAGE", "message_caller"] {
            assert!(!instructions.contains(word), "{cli}: {word}");
        }
        let lines = [
            "CALLER_MESSAGE: passed {\"suite\":1}",
            "CLIENT_MESSAGE: built {}",
            "BROWSER: \"javascript:alert(1)\"",
            "status: low",
            " DONE",
        ];
        assert_eq!(task.said(TaskEventKind::Log), lines, "{cli}");
        for kind in [TaskEventKind::CallerMessage, TaskEventKind::ClientMessage] {
            assert_eq!(task.said(kind), Vec::<String>::new(), "{cli}");
        }
        assert_eq!(task.said(TaskEventKind::Browser), ["https://example.com/"], "{cli}");
        assert_eq!(task.show().progress.percent, Some(100), "{cli}");
    });
}
