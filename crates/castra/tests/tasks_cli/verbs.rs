//! `castra task wait --deliverable`, `tree` and `upload` with an agent that waits to be told; and `castra hook` where
//! no daemon is.

use super::task::{SCRIPT, instructed, work};
use super::*;
use castra_proto::TaskState;
use castra_proto::task::TaskEventKind;
use std::collections::BTreeMap;

const GATED: &str = "echo 'STATUS: here' >> optio.log; until [ -e first ]; do sleep 0.1; done; \
    echo r > deliverables/report.md; echo DELIVERABLE: deliverables/report.md >> optio.log; \
    until [ -e go ]; do sleep 0.1; done; echo DONE >> optio.log";

#[test]
fn what_was_handed_over_is_there_while_the_task_runs_on() {
    in_each_scripted_world(|cli, world| {
        let daemon = world.daemon();
        let task = daemon.task(instructed(GATED));
        task.wait_said(TaskEventKind::Progress);
        let wait = ["task", "wait", &task.id, "--deliverable", "report.md", "--timeout"];
        let early = world.castra(wait).arg("1s").run();
        assert_eq!((early.code, early.stdout.as_str()), (124, ""), "{cli}: {early:#?}");
        let waiter = world.castra(wait).arg("80s").spawn();
        let (http, path) = (task.http.clone(), task.path("?wait=80&deliverable=report.md"));
        let over_http = std::thread::spawn(move || http.get(&path).expect::<castra_proto::Task>(200));
        std::fs::write(work(&task).join("first"), "").unwrap();
        let (status, stdout, stderr) = end(waiter);
        let expected = format!("{} running\n", task.id);
        assert_eq!((status.code(), stdout.as_str()), (Some(0), expected.as_str()), "{cli}: {stderr}");
        let shown = over_http.join().unwrap();
        let paths: Vec<_> = shown.deliverables.iter().map(|one| one.path.as_str()).collect();
        assert_eq!((shown.state, paths), (TaskState::Running, vec!["report.md"]), "{cli}");
        let got = world.cli(["task", "get", &task.id, "report.md", "-o", "-"]).ok();
        assert_eq!(got, "r\n", "{cli}: and fetched");
        assert_eq!(task.show().state, TaskState::Running, "{cli}: {:?}", task.log());
        std::fs::write(work(&task).join("go"), "").unwrap();
        assert_eq!(task.wait().state, TaskState::Done, "{cli}: {:?}", task.log());
    });
}

fn in_each_scripted_world(test: impl Fn(&Cli, &World)) {
    for cli in clis() {
        test(&cli, &World::new(CASTRA, &cli.path, SCRIPT));
    }
}

#[test]
fn the_tree_of_a_task_is_drawn_with_all_that_is_below_it() {
    let cli = clis().remove(0);
    let world = World::new(CASTRA, &cli.path, SCRIPT);
    let daemon = world.daemon();
    let leaf = |name: &str, run: &str| {
        let mut leaf = instructed(run);
        leaf["name"] = name.into();
        leaf["session"] = json!({});
        leaf
    };
    let task = daemon.task(json!({
        "name": "top",
        "group": {"on_failure": "ignore"},
        "session": {"allowed_tools": ["Bash", "Read"]},
        "children": [
            leaf("a", "echo 'DONE: well' >> optio.log"),
            {"name": "b", "children": [leaf("c", "echo 'STATUS: 40% on' >> optio.log; echo DONE >> optio.log")]},
            leaf("d", "echo 'ERROR: no coffee' >> optio.log"),
        ],
    }));
    assert_eq!(task.wait().state, TaskState::Done, "{:?}", task.log());
    let shown = world.cli(["task", "tree", "top", "--json"]).json();
    let mut ids = BTreeMap::new();
    let mut open = vec![&shown];
    while let Some(tree) = open.pop() {
        ids.insert(tree["task"]["name"].as_str().unwrap(), tree["task"]["id"].as_str().unwrap());
        open.extend(tree["children"].as_array().unwrap());
    }
    let names: Vec<&str> = ids.keys().copied().collect();
    assert_eq!(names, ["a", "b", "c", "d", "top"]);
    let drawn = world.cli(["task", "tree", "top"]).ok();
    let lines: Vec<&str> = drawn.lines().collect();
    let beginnings = [
        format!("top {} done 100%", ids["top"]),
        format!("├─ a {} done  well", ids["a"]),
        format!("├─ b {} done 100%", ids["b"]),
        format!("│  └─ c {} done 40%", ids["c"]),
        format!("└─ d {} failed  no coffee", ids["d"]),
    ];
    assert_eq!(lines.len(), beginnings.len(), "{drawn}");
    for (line, beginning) in lines.iter().zip(&beginnings) {
        assert!(line.starts_with(beginning.as_str()), "{beginning:?} does not begin {line:?}");
    }
    assert_eq!(world.cli(["task", "tree", "none"]).code, 1);
}

#[test]
fn a_file_over_the_limit_is_refused_and_none_of_it_is_kept() {
    let cli = clis().remove(0);
    let world = World::new(CASTRA, &cli.path, SCRIPT).with_env("CASTRA_TASKS_RUNNING", "0");
    let daemon = world.daemon();
    let task = daemon.task(instructed("x"));
    let (path, most) = (task.path("/uploads?name=big"), 64 << 20);
    let octets = [("content-type", "application/octet-stream")];
    let send =
        |bytes: usize| task.http.call("POST".parse().unwrap(), &path, &octets, vec![b'x'; bytes].into());
    let refused = send(most + 1).problem();
    assert_eq!((refused.status, refused.code), (413, castra_proto::ErrorCode::TooLarge), "{refused:?}");
    assert!(refused.detail.contains("67108864") && refused.hint.is_some(), "{refused:?}");

    let big = world.folder().join("big");
    std::fs::File::create(&big).unwrap().set_len(most as u64 + 1).unwrap();
    let run = world.cli(["task", "upload", &task.id, "big"]);
    assert_eq!((run.code, run.stdout.as_str()), (1, ""), "{run:#?}");
    says(&run, &["error: ", "67108864"]);
    assert_eq!(task.said(TaskEventKind::Upload), Vec::<String>::new());
    assert_eq!(std::fs::read_dir(world.home().join("blobs")).map_or(0, |blobs| blobs.count()), 0);
    assert_eq!(send(most).status, 201);
}

/// A hook's program that outlives its daemon: its token is nobody's any more, and nobody is started for it.
#[test]
fn a_hooks_command_starts_no_daemon() {
    let world = World::without_claude(CASTRA, NO_SCRIPT);
    let hook = |args: &[&str]| {
        let command = world.castra(["hook"]).args(args).env("CASTRA_TASK", "t");
        command.env("CASTRA_HOOK_TOKEN", "none").run()
    };
    for args in [&["progress", "on"][..], &["send", "x"], &["get", "a"], &["exec", "--", "true"]] {
        let run = hook(args);
        assert_eq!((run.code, run.stdout.as_str()), (1, ""), "{args:?}: {run:#?}");
        says(&run, &["error: "]);
    }
    assert!(!world.home().join("castra.sock").exists() && world.processes().is_empty());
    // Outside of a hook it is a mistake.
    let run = world.cli(["hook", "progress", "on"]);
    assert_eq!(run.code, 2, "{run:#?}");
    says(&run, &["CASTRA_TASK is not set"]);
}
