//! `castra task` with the real CLI and the demo's script: what is printed, where, and how it exits.
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "tasks_cli/http.rs"]
mod http;
mod task;
#[path = "tasks_cli/verbs.rs"]
mod verbs;

use castra_testkit::{Cli, DEADLINE, Output, World, clis, wait_for};
use serde_json::{Value, json};
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::PathBuf;
use std::process::{Command, ExitStatus};

const CASTRA: &str = env!("CARGO_BIN_EXE_castra");
/// These worlds use the demo's model.
const NO_SCRIPT: &str = "[[rule]]\nreply.text = 'not used'";

fn example(name: &str) -> String {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../examples/tasks").join(name);
    path.canonicalize().unwrap().to_str().unwrap().to_owned()
}

fn in_each_world(test: impl Fn(&Cli, &World)) {
    for cli in clis() {
        test(&cli, &World::new(CASTRA, &cli.path, NO_SCRIPT));
    }
}

fn show(world: &World, task: &str) -> Value {
    world.cli(["task", "show", task, "--json"]).json()
}

/// A process that was started, to its end.
fn end(mut child: std::process::Child) -> (ExitStatus, String, String) {
    let mut said = [String::new(), String::new()];
    child.stdout.take().unwrap().read_to_string(&mut said[0]).unwrap();
    if let Some(mut stderr) = child.stderr.take() {
        stderr.read_to_string(&mut said[1]).unwrap();
    }
    let [stdout, stderr] = said;
    (child.wait().unwrap(), stdout, stderr)
}

#[track_caller]
fn says(output: &Output, lines: &[&str]) {
    for line in lines {
        assert!(output.stderr.contains(line), "{line:?} is not in {output:#?}");
    }
}

#[test]
fn a_task_runs_to_its_result_and_its_deliverable_is_fetched() {
    in_each_world(|cli, world| {
        let run = world.castra(["task", "run", "--demo"]).arg(example("report.yaml")).run();
        assert_eq!(
            (run.code, run.stdout.as_str()),
            (0, "the report about doors is written\n"),
            "{cli}: {run:#?}"
        );
        says(
            &run,
            &[" 30%  writing about doors", "deliverable report.md, version 1", "hint: castra task get "],
        );

        let task = show(world, "report");
        assert_eq!(
            (&task["state"], &task["attempt"], &task["labels"]["kind"], &task["progress"]["percent"]),
            (&json!("done"), &json!(1), &json!("report"), &json!(30)),
            "{cli}: {task:#}"
        );
        // Into its own name, once; what is there stays unless it is said otherwise.
        let get = |more: &[&str]| world.castra(["task", "get", "report", "report.md"]).args(more).run();
        let file = world.folder().join("report.md");
        assert!(get(&[]).ok().starts_with("wrote report.md ("), "{cli}");
        let report = std::fs::read_to_string(&file).unwrap();
        assert!(report.starts_with("# About doors\n"), "{cli}: {report}");
        assert_eq!(get(&["-o", "-"]).ok(), report);
        std::fs::write(&file, "mine").unwrap();
        let again = get(&[]);
        assert_eq!(again.code, 1, "{again:#?}");
        says(&again, &["report.md is there already", "--force"]);
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "mine");
        get(&["--force"]).ok();
        assert_eq!(std::fs::read_to_string(&file).unwrap(), report);
        let missing = world.cli(["task", "get", "report", "other.md"]);
        assert_eq!((missing.code, world.folder().join("other.md").exists()), (1, false), "{missing:#?}");
        assert_eq!(get(&["--version", "2", "-o", "-"]).code, 1);

        world.cli(["task", "rm", "report"]).ok();
        let run = world
            .castra(["task", "run", "--demo", "--set", "what=bridges"])
            .arg(example("report.yaml"))
            .run();
        assert_eq!(run.clone().ok(), "the report about bridges is written\n", "{cli}: {run:#?}");
        world.cli(["task", "rm", "report"]).ok();
        assert_eq!(world.cli(["task", "list", "-a", "-q"]).ok(), "", "{cli}");
    });
}

#[test]
fn progress_comes_as_it_is_made_and_the_log_keeps_it() {
    in_each_world(|cli, world| {
        let run = world.castra(["task", "run", "--demo"]).arg(example("progress.toml")).run();
        assert_eq!((run.code, run.stdout.as_str()), (0, "counted to 5\n"), "{cli}: {run:#?}");
        let steps = ["20%  1 of 5", "40%  2 of 5", "60%  3 of 5", "80%  4 of 5", "100%  5 of 5"];
        says(&run, &steps);
        let places: Vec<_> = steps.iter().map(|step| run.stderr.find(step).unwrap()).collect();
        assert!(places.is_sorted(), "{cli}: {run:#?}");

        let logged: Vec<Value> =
            (world.cli(["task", "logs", "progress", "--json", "--level", "debug"]).ok().lines())
                .map(|line| serde_json::from_str(line).unwrap())
                .collect();
        let seqs: Vec<u64> = logged.iter().map(|line| line["seq"].as_u64().unwrap()).collect();
        assert_eq!(seqs, Vec::from_iter(1..=logged.len() as u64), "{cli}: every event is a line");
        let followed = world.cli(["task", "logs", "progress", "-f", "--json", "--level", "debug"]).ok();
        let followed: Vec<Value> = followed.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let told = |lines: &[Value]| -> Vec<_> {
            lines
                .iter()
                .map(|line| (line["seq"].clone(), line["level"].clone(), line["message"].clone()))
                .collect()
        };
        assert_eq!(told(&followed), told(&logged), "{cli}: -f of a task that is over ends with it");
        let facts = world.cli(["task", "logs", "progress", "--level", "event"]).ok();
        assert!(facts.contains("running") && !facts.contains("1 of 5"), "{cli}: {facts}");
    });
}

#[test]
fn a_task_that_gives_up_is_exit_1_with_its_reason() {
    in_each_world(|cli, world| {
        let run = world.castra(["task", "run", "--demo"]).arg(example("failing.yaml")).run();
        assert_eq!((run.code, run.stdout.as_str()), (1, ""), "{cli}: {run:#?}");
        says(
            &run,
            &[
                "error: the task failed: there is nothing to summarise: the file is not there\n",
                "castra task retry",
            ],
        );
        let task = show(world, "failing");
        assert_eq!(
            (&task["state"], &task["reason"]["code"]),
            (&json!("failed"), &json!("error")),
            "{cli}: {task:#}"
        );

        let waited = world.cli(["task", "wait", "failing"]);
        assert_eq!(waited.code, 1, "{cli}: {waited:#?}");
        let again = world.cli(["task", "retry", "failing", "--json"]).json();
        assert!(again["state"] == "queued" || again["state"] == "starting", "{cli}: {again:#}");
        assert_eq!(world.cli(["task", "wait", "failing"]).code, 1, "{cli}");
        assert_eq!(show(world, "failing")["attempt"], 2, "{cli}");
        let resumed = world.cli(["task", "resume", "failing"]);
        assert_eq!(resumed.code, 0, "{cli}: {resumed:#?}");
        // The script has nothing left to give up.
        assert_eq!(world.cli(["task", "wait", "failing"]).code, 0, "{cli}");
        let task = show(world, "failing");
        assert_eq!(
            (&task["attempts"][2]["resumed"], &task["attempts"][2]["n"]),
            (&json!(true), &json!(3)),
            "{cli}"
        );
    });
}

#[test]
fn the_answer_of_the_turn_is_the_result_without_a_protocol() {
    in_each_world(|cli, world| {
        let run = world.castra(["task", "run", "--demo", "--json"]).arg(example("answer.json")).run();
        let task = run.clone().json();
        assert_eq!(
            (&task["state"], &task["result"], &task["spec"]["completion"]),
            (
                &json!("done"),
                &json!("A session outlives its process, the daemon that started it, and the link to both."),
                &json!(["result"])
            ),
            "{cli}: {run:#?}"
        );
    });
}

#[test]
fn one_begins_when_the_other_is_done() {
    in_each_world(|cli, world| {
        let first = world.castra(["task", "new", "--demo"]).arg(example("first.yaml")).run().ok();
        let run = world.castra(["task", "run", "--demo"]).arg(example("second.toml")).run();
        assert_eq!(
            (run.code, run.stdout.as_str()),
            (0, "the report about widths is written\n"),
            "{cli}: {run:#?}"
        );
        let (first, second) = (show(world, first.trim()), show(world, "second"));
        let ended = first["attempts"][0]["ended_at"].as_str().unwrap();
        let began = second["attempts"][0]["started_at"].as_str().unwrap();
        assert_eq!((&first["state"], ended <= began), (&json!("done"), true), "{cli}: {first:#} {second:#}");
        assert_eq!(first["deliverables"][0]["path"], "lengths.md", "{cli}");
    });
}

#[test]
fn a_detached_task_is_waited_for_by_deliverable_and_by_end() {
    let cli = clis().remove(0);
    let world = World::new(CASTRA, &cli.path, NO_SCRIPT);
    let id = world
        .castra(["task", "run", "-d", "--demo", "--name", "away"])
        .arg(example("report.yaml"))
        .run()
        .ok();
    let waited = world.cli(["task", "wait", "away", "--deliverable", "report.md"]);
    assert_eq!(waited.code, 0, "{waited:#?}");
    assert!(waited.stdout.starts_with(id.trim()), "{waited:#?}");
    assert_eq!(world.cli(["task", "wait", id.trim()]).ok(), format!("{} done\n", id.trim()));
    let none = world.cli(["task", "wait", "away", "--deliverable", "none.md"]);
    assert_eq!(none.code, 1, "{none:#?}");
    says(&none, &["has not handed over \"none.md\""]);

    let listed = |args: &[&str]| world.castra(["task", "list"]).args(args).run();
    assert_eq!(listed(&[]).ok(), "");
    says(&listed(&[]), &["no tasks; `castra task list -a`"]);
    for args in [&["-a", "-q"][..], &["--state", "done", "-q"], &["-a", "-q", "--label", "kind=report"]] {
        assert_eq!(listed(args).ok(), id, "{args:?}");
    }
    for args in [&["--state", "failed,queued", "-q"][..], &["-a", "-q", "--label", "kind=other"]] {
        assert_eq!(listed(args).ok(), "", "{args:?}");
    }
    let table = listed(&["-a"]).ok();
    assert!(
        table.contains("away") && table.contains("30%") && table.contains("the report about doors"),
        "{table}"
    );
}

const SLOW: &str =
    "instructions: Count to 500, and report each step.\nprotocol: log\nsession: {allowed_tools: [Bash]}\n";

#[test]
fn ctrl_c_cancels_what_run_started() {
    in_each_world(|cli, world| {
        std::fs::write(world.folder().join("slow.yaml"), SLOW).unwrap();
        let mut run = world.castra(["task", "run", "--demo", "--name", "slow", "slow.yaml"]).spawn();
        let mut stderr = BufReader::new(run.stderr.take().unwrap());
        let mut said = String::new();
        while !said.contains("1 of 500") {
            assert_ne!(stderr.read_line(&mut said).unwrap(), 0, "{cli}: it ended: {said}");
        }
        let interrupt = |pid: u32| {
            assert!(Command::new("kill").args(["-INT", &pid.to_string()]).status().unwrap().success());
        };
        interrupt(run.id());
        let (status, stdout, _) = end(run);
        stderr.read_to_string(&mut said).unwrap();
        assert_eq!((status.code(), stdout.as_str()), (Some(130), ""), "{cli}: {said}");
        assert!(
            said.contains("cancelling the task") && said.contains("the task was cancelled"),
            "{cli}: {said}"
        );
        let task = show(world, "slow");
        assert_eq!(
            (&task["state"], &task["reason"]["code"]),
            (&json!("cancelled"), &json!("cancelled")),
            "{cli}: {task:#}"
        );
        let session = world.cli(["show", task["session_id"].as_str().unwrap(), "--json"]).json();
        assert_eq!(session["state"], "ended", "{cli}: {session:#}");
    });
}

#[test]
fn cancelled_by_another_and_late_are_different_ends() {
    let cli = clis().remove(0);
    let world = World::new(CASTRA, &cli.path, NO_SCRIPT);
    std::fs::write(world.folder().join("slow.yaml"), SLOW).unwrap();
    let id = world.cli(["task", "run", "-d", "--demo", "--name", "slow", "slow.yaml"]).ok();
    let late = world.cli(["task", "wait", "slow", "--timeout", "1s"]);
    assert_eq!((late.code, late.stdout.as_str()), (124, ""), "{late:#?}");
    wait_for(
        "its first step",
        || show(&world, "slow")["progress"]["percent"].is_number().then_some(()),
        DEADLINE,
    );
    let conflict = world.cli(["task", "rm", "slow"]);
    assert_eq!(conflict.code, 1, "{conflict:#?}");
    let follower = world.castra(["task", "logs", "slow", "-f"]).spawn();
    world.cli(["task", "cancel", "slow", "--reason", "enough", "--grace", "0"]).ok();
    assert_eq!(world.cli(["task", "wait", "slow"]).code, 1);
    let (status, log, _) = end(follower);
    assert!(status.success() && log.contains("enough"), "{status}: {log}");
    let task = show(&world, id.trim());
    assert_eq!(task["state"], "cancelled", "{task:#}");
    assert!(task["reason"]["message"].as_str().unwrap().ends_with(": enough"), "{task:#}");

    let limited = format!("{SLOW}timeout_s: 4\n");
    let run = world.castra(["task", "run", "--demo", "-"]).stdin(limited).run();
    assert_eq!(run.code, 124, "{run:#?}");
    says(&run, &["error: the task failed: its time was over"]);
}

#[test]
fn wrong_files_are_refused_before_anything_is_made() {
    let cli = clis().remove(0);
    let world = World::new(CASTRA, &cli.path, NO_SCRIPT);
    let table = [
        (
            "a.yaml",
            "instructions: x\nsession:\n  alowed_tools: []\n",
            "a.yaml:3: unknown field `session.alowed_tools`",
            "`allowed_tools`",
        ),
        ("a.toml", "instructions = 'x'\nretries = 'two'\n", "a.toml:2: `retries`: ", ""),
        ("a.json", "{\"instuctions\": 1}", "a.json:1: unknown field `instuctions`", "`instructions`"),
        // What the daemon refuses.
        (
            "b.yaml",
            "instructions: x\nprotocol: none\ncompletion: [protocol]\n",
            "`completion` names `protocol`",
            "hint: ",
        ),
        ("c.yaml", "instructions: ' '\n", "`instructions` are empty", "hint: "),
    ];
    for (name, text, message, hint) in table {
        std::fs::write(world.folder().join(name), text).unwrap();
        let run = world.cli(["task", "run", "--demo", name]);
        assert_eq!(run.code, 2, "{name}: {run:#?}");
        says(&run, &[message, hint]);
    }
    let run = world.castra(["task", "new", "-"]).stdin("nmae: x").run();
    assert_eq!(run.code, 2);
    says(&run, &["stdin:1: unknown field `nmae`", "is `name` meant?"]);
    assert_eq!(world.cli(["task", "show", "none"]).code, 1);
    assert_eq!(world.cli(["task", "list", "-a", "-q"]).ok(), "");
}

#[test]
fn pages_need_no_daemon() {
    let world = World::without_claude(CASTRA, NO_SCRIPT);
    let schema = world.cli(["task", "schema"]).json();
    assert_eq!(schema["properties"]["session"]["$ref"], "#/$defs/SessionSpec");
    let protocol = world.cli(["task", "protocol"]).ok();
    assert!(
        protocol.contains("DELIVERABLE: <path>") && protocol.contains("BROWSER: \"<url>\""),
        "{protocol}"
    );
    assert!(!world.home().join("castra.sock").exists());
}
