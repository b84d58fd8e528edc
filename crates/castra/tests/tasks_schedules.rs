//! Tasks by the clock and by name: schedules that fire once whatever dies, and the catalogue of definitions.
#![cfg(feature = "failpoints")]
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod task;

#[path = "tasks_schedules/secrets.rs"]
mod secrets;

use castra_proto::api::Page;
use castra_proto::task::{Catalogue, FiringOutcome, Schedule, TaskEventKind};
use castra_proto::{ErrorCode, Task as Shown, TaskState, Timestamp};
use castra_testkit::tmux::Terminal;
use castra_testkit::{DEADLINE, Daemon, Task, World, clis, each, wait_for};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use task::{CASTRA, SCRIPT, WAITS, instructed, work};

fn body(world: &World, run: &str) -> Value {
    let mut task = instructed(run);
    task["session"] = world.spec(task["session"].take());
    task
}

fn show(daemon: &Daemon<'_>, name: &str) -> Schedule {
    daemon.http().get(&format!("/api/v1/schedules/{name}")).expect(200)
}

fn switch_off(daemon: &Daemon<'_>, name: &str) -> Schedule {
    daemon.http().patch(&format!("/api/v1/schedules/{name}"), &json!({"enabled": false})).expect(200)
}

/// How often something came of it so far, of the last 20.
fn outcomes(daemon: &Daemon<'_>, name: &str, outcome: FiringOutcome) -> usize {
    show(daemon, name).last.iter().filter(|firing| firing.outcome == outcome).count()
}

/// Restarts the daemon with a clock that shows, but for some seconds, this time.
fn at_night(daemon: &mut Daemon<'_>, time: &str) {
    let time: Timestamp = serde_json::from_value(time.into()).unwrap();
    let since = std::time::UNIX_EPOCH.elapsed().unwrap().as_secs() as i64;
    let ahead = time.0 / 1_000_000 - 20 - since;
    daemon.kill9();
    daemon.start_again_as(CASTRA.as_ref(), &[("CASTRA_CLOCK_AHEAD_S", &ahead.to_string())]);
}

/// When tasks were made, and that the newest is done.
#[track_caller]
fn done_at(daemon: &Daemon<'_>, name: &str, times: usize) -> Vec<String> {
    let made = || -> Vec<_> {
        let last = show(daemon, name).last.into_iter();
        last.filter(|firing| firing.outcome == FiringOutcome::Made).collect()
    };
    let made = wait_for(name, || Some(made()).filter(|made| made.len() >= times), DEADLINE);
    for firing in &made {
        let task = Task::of(&daemon.http(), firing.task_id.expect("a task"));
        assert_eq!(task.wait().state, TaskState::Done, "{name}: {:?}", task.log());
    }
    let mut times: Vec<String> = made.iter().map(|firing| firing.at.to_string()).collect();
    times.sort();
    times
}

/// In spring there is no 02:30, in autumn there are two.
#[test]
fn a_nightly_task_runs_once_in_the_nights_in_which_clocks_change() {
    let world = World::new(CASTRA, &clis()[0].path, SCRIPT);
    let mut daemon = world.daemon();
    let add = |daemon: &Daemon<'_>, name: &str, cron: &str, timezone: &str| {
        let task = body(&world, "echo DONE >> optio.log");
        let spec = json!({
            "name": name, "cron": cron, "timezone": timezone, "missed": "skip", "overlap": "allow", "task": task,
        });
        assert_eq!(daemon.http().post("/api/v1/schedules", &spec).status, 201);
    };
    at_night(&mut daemon, "2027-03-28T01:00:00Z");
    add(&daemon, "nightly", "30 2 * * *", "Europe/Berlin");
    add(&daemon, "second", "30 1 31 10 *", "UTC");
    let spring = "2027-03-28T01:00:00.000000Z";
    assert_eq!(done_at(&daemon, "nightly", 1), [spring]);
    at_night(&mut daemon, "2027-10-31T00:30:00Z");
    let autumn = "2027-10-31T00:30:00.000000Z";
    assert_eq!(done_at(&daemon, "nightly", 2), [spring, autumn]);
    at_night(&mut daemon, "2027-10-31T01:30:00Z");
    assert_eq!(done_at(&daemon, "second", 1), ["2027-10-31T01:30:00.000000Z"]);
    assert_eq!(done_at(&daemon, "nightly", 2), [spring, autumn], "02:30 came again");
}

/// Every second, over a kill between the task and its entry in the plan, and one at any time: each second has one task.
#[test]
fn each_firing_has_one_task_whatever_is_killed() {
    each(CASTRA, SCRIPT, |cli, world, daemon| {
        // Dies when the third firing's task is made, and nothing says yet that it was.
        daemon.kill9();
        daemon.start_doomed("schedule.fired:3");
        let spec = json!({
            "name": "each", "cron": "* * * * * *", "timezone": "Europe/Berlin", "missed": {"all": {"max": 100}},
            "overlap": "queue", "task": body(world, "echo \"DONE: $(date +%s)\" >> optio.log"),
        });
        let made: Schedule = daemon.http().post("/api/v1/schedules", &spec).expect(201);
        assert_eq!(daemon.wait_over(), -9, "{cli}");
        daemon.start_again();
        let seen = |daemon: &Daemon<'_>| outcomes(daemon, "each", FiringOutcome::Made);
        wait_for("the firing that was cut off, and one more", || (seen(daemon) >= 4).then_some(()), DEADLINE);
        daemon.kill9();
        daemon.start_again();
        let newest = |daemon: &Daemon<'_>| show(daemon, "each").last[0].at;
        let before = newest(daemon);
        wait_for("another firing", || (newest(daemon) > before).then_some(()), DEADLINE);
        let off = switch_off(daemon, "each");
        assert_eq!((off.enabled, off.next.len()), (false, 0), "{cli}");

        // The 20 newest are shown; on a slow machine there were more.
        let last = show(daemon, "each").last;
        let mut at: Vec<Timestamp> = last.iter().map(|firing| firing.at).collect();
        at.reverse();
        assert!(last.len() == 20 || at[0] == made.next[0], "{cli}: {at:?}, and first {:?}", made.next);
        assert!(at.windows(2).all(|pair| pair[1].0 - pair[0].0 == 1_000_000), "{cli}: {at:?}");
        let of_plan: Vec<_> = last.iter().map(|firing| firing.task_id.expect("a task")).collect();
        let page: Page<Shown> =
            daemon.http().get("/api/v1/tasks?all&label=schedule%3Deach&limit=500").expect(200);
        let tasks: Vec<_> = page.items.iter().map(|task| task.id).collect();
        assert_eq!(tasks[..of_plan.len()], of_plan, "{cli}");
        let seconds = (at[at.len() - 1].0 - made.next[0].0) / 1_000_000 + 1;
        assert_eq!(i64::try_from(tasks.len()), Ok(seconds), "{cli}: each second has one");
        // One after the other, the oldest first, and each of them to its end.
        for task in page.items.into_iter().rev() {
            let task = Task::of(&daemon.http(), task.id);
            let shown = task.wait();
            assert_eq!((shown.state, shown.attempt), (TaskState::Done, 1), "{cli}: {:?}", task.log());
        }
    });
}

#[test]
fn a_task_that_runs_is_not_started_twice_unless_that_is_asked_for() {
    each(CASTRA, SCRIPT, |cli, world, daemon| {
        let http = daemon.http();
        let spec = |name: &str, overlap: &str| json!({"name": name, "cron": "0 0 1 1 *", "overlap": overlap, "task": body(world, WAITS)});
        for (name, overlap) in [("skip", "skip"), ("queue", "queue")] {
            http.post("/api/v1/schedules", &spec(name, overlap)).expect::<Schedule>(201);
        }
        let run = |name: &str| http.post(&format!("/api/v1/schedules/{name}/run"), &Value::Null);
        let begun = |name: &str| {
            let shown: Shown = run(name).expect(201);
            Task::of(&http, shown.id)
        };
        let first = begun("skip");
        assert_eq!(run("skip").problem().code, ErrorCode::Conflict, "{cli}");
        let (second, third) = (begun("queue"), begun("queue"));
        for task in [&first, &second] {
            task.wait_said(TaskEventKind::Progress);
        }
        assert_eq!(third.show().state, TaskState::Queued, "{cli}: it waits for the one before");
        for task in [&first, &second, &third] {
            task.wait_said(TaskEventKind::Progress);
            std::fs::write(work(task).join("go"), "").unwrap();
            assert_eq!(task.wait().state, TaskState::Done, "{cli}: {:?}", task.log());
        }
        let last = show(daemon, "skip").last;
        assert_eq!(
            last[0].message.as_deref().map(|said| said.starts_with("asked for by token:")),
            Some(true)
        );
        assert_eq!(http.delete("/api/v1/schedules/skip").status, 204, "{cli}");
        assert_eq!(http.get("/api/v1/schedules/skip").problem().code, ErrorCode::NotFound, "{cli}");
        let taken = http.post("/api/v1/schedules", &spec("queue", "allow")).problem();
        assert_eq!(taken.code, ErrorCode::Conflict, "{cli}");
        for (field, value, part) in [
            ("cron", json!("61 * * * *"), "`cron`"),
            ("timezone", json!("Mars/Base"), "`timezone`"),
            ("name", json!("a b"), "name"),
            ("definition", json!("none"), "either"),
        ] {
            let mut wrong = spec("wrong", "skip");
            wrong[field] = value;
            let refused = http.post("/api/v1/schedules", &wrong).problem();
            assert!(refused.status == 400 && refused.detail.contains(part), "{cli}: {refused:?}");
        }
    });
}

const REPORT: &str = r#"
title: A report about {{what}}
description: Writes a report
warning: This costs money
max_concurrency: 1
cancellable: false
task:
  instructions: "RUN: echo 'STATUS: about {{what}}' >> optio.log; until [ -e go ]; do sleep 0.1; done; echo DONE >> optio.log"
  protocol: log
  params:
    what: {kind: text, required: true, max_length: 10}
    times: {kind: range, min: 1, max: 3, default: 1}
  session: {allowed_tools: [Bash, Read], env: ENV}
"#;

fn report(world: &World) -> String {
    let env: BTreeMap<_, _> = world.model_env().into_iter().collect();
    REPORT.replace("ENV", &json!(env).to_string())
}

#[test]
fn a_definition_on_disk_is_launched_by_name_and_followed_when_it_changes() {
    each(CASTRA, SCRIPT, |cli, world, daemon| {
        let http = daemon.http();
        let folder = world.home().join("tasks");
        let all = || -> Catalogue { http.get("/api/v1/definitions").expect(200) };
        assert_eq!((all().items.len(), all().faults.len()), (0, 0), "{cli}");
        std::fs::create_dir(&folder).unwrap();
        std::fs::write(folder.join("report.yaml"), report(world)).unwrap();
        std::fs::write(folder.join("broken.toml"), "titel = 'x'").unwrap();
        let there = all();
        assert_eq!((there.items.len(), there.items[0].name.as_str()), (1, "report"), "{cli}");
        let env = &there.items[0].definition.task.session.env;
        assert!(env.values().all(|value| value == "***"), "{cli}: {env:?}");
        assert!(there.faults[0].problem.contains("unknown field `titel`"), "{cli}: {:?}", there.faults);

        let launch = |body: &Value| http.post("/api/v1/definitions/report/launch", body);
        for (body, status, part) in [
            (json!({"values": {"what": "doors"}}), 409, "This costs money"),
            (json!({"confirmed": true}), 400, "what: a value is needed"),
            (
                json!({"confirmed": true, "values": {"what": "bridges and doors", "times": 7, "x": 1}}),
                400,
                "times: it is more than 3; what: it has 17 characters; 10 are allowed; x: there is no such parameter",
            ),
        ] {
            let refused = launch(&body).problem();
            assert!(refused.status == status && refused.detail.contains(part), "{cli}: {refused:?}");
        }
        let none: Page<Shown> = http.get("/api/v1/tasks?all").expect(200);
        assert_eq!(none.items.len(), 0, "{cli}: nothing was made");

        let begun = |what: &str| {
            let shown: Shown = launch(&json!({"confirmed": true, "values": {"what": what}})).expect(201);
            assert_eq!(shown.labels["definition"], "report", "{cli}");
            assert_eq!(shown.metadata, Some(json!({"title": format!("A report about {what}")})), "{cli}");
            Task::of(&http, shown.id)
        };
        let (first, second) = (begun("doors"), begun("bridges"));
        assert_eq!(first.wait_said(TaskEventKind::Progress), "about doors", "{cli}");
        // One at once: the second waits however much room there is.
        let beside = daemon.task(instructed("echo DONE >> optio.log"));
        assert_eq!(beside.wait().state, TaskState::Done, "{cli}");
        assert_eq!(second.show().state, TaskState::Queued, "{cli}");
        let drive = world.cli(["token", "create", "--scope", "drive"]).ok().trim().to_owned();
        let driver = daemon.http_as(&drive);
        let refused = driver.post(&first.path("/cancel"), &Value::Null).problem();
        assert!(
            refused.code == ErrorCode::Forbidden && refused.detail.contains("not to be cancelled"),
            "{cli}"
        );
        let group = json!({"filter": {"labels.definition": "report"}});
        let skipped: Value = driver.post("/api/v1/tasks/cancel", &group).expect(200);
        assert_eq!(skipped, json!({"asked": [], "open": [], "refused": [first.id, second.id]}), "{cli}");
        // What a launch may do is up to who launches.
        let bold = driver
            .post("/api/v1/definitions/report/launch", &json!({"confirmed": true, "values": {"what": "x"}}));
        assert_eq!(bold.problem().code, ErrorCode::Forbidden, "{cli}");

        // Changed while the daemon runs: the next launch, and the queue, know.
        let changed = report(world)
            .replace("warning: This costs money\n", "")
            .replace("max_concurrency: 1", "max_concurrency: 2");
        std::fs::write(folder.join("report.yaml"), changed).unwrap();
        std::fs::remove_file(folder.join("broken.toml")).unwrap();
        let synced = world.cli(["task", "sync"]);
        assert_eq!((synced.code, synced.stdout.as_str()), (0, "1 definitions\n"), "{cli}: {synced:#?}");
        assert_eq!(second.wait_said(TaskEventKind::Progress), "about bridges", "{cli}: two at once");
        for task in [&first, &second] {
            std::fs::write(work(task).join("go"), "").unwrap();
            assert_eq!(task.wait().state, TaskState::Done, "{cli}: {:?}", task.log());
        }
        let run = world.cli(["task", "launch", "report", "what=gates", "--name", "gates", "-d"]);
        assert_eq!(run.code, 0, "{cli}: {run:#?}");
        let gates = Task::of(&http, "gates");
        gates.wait_said(TaskEventKind::Progress);
        gates.cancel();
        assert_eq!(gates.wait().state, TaskState::Cancelled, "{cli}: an admin may");
        std::fs::remove_file(folder.join("report.yaml")).unwrap();
        assert_eq!(launch(&json!({})).problem().code, ErrorCode::NotFound, "{cli}");
    });
}

#[test]
fn definitions_that_are_put_stay_and_the_command_line_has_them_all() {
    let cli = clis().remove(0);
    let world = World::new(CASTRA, &cli.path, SCRIPT).with_env("CASTRA_TASKS_RUNNING", "0");
    let mut daemon = world.daemon();
    let http = daemon.http();
    let file = world.folder().join("hello.toml");
    std::fs::write(
        &file,
        "description = 'Says hello'\nwarning = 'Be kind'\n[task]\ninstructions = 'Greet {{who}}'\n\
         [task.params.who]\nkind = 'text'\ndefault = 'Ada'\n[task.session.env]\nTOKEN = 's3cret'\n",
    )
    .unwrap();
    assert_eq!(world.castra(["task", "define"]).arg(&file).run().ok(), "hello\n");
    let hidden = json!({"hidden": true, "task": {"instructions": "x"}});
    assert_eq!(
        http.call(
            "PUT".parse().unwrap(),
            "/api/v1/definitions/quiet",
            &[("content-type", "application/json")],
            hidden.to_string().into()
        )
        .status,
        200
    );
    daemon.kill9();
    daemon.start_again();
    let listed = world.cli(["task", "definitions"]).ok();
    assert!(
        listed.contains("hello") && listed.contains("Says hello") && !listed.contains("quiet"),
        "{listed}"
    );
    assert!(world.cli(["task", "definitions", "--all"]).ok().contains("quiet"));
    let shown = world.cli(["task", "definitions", "hello"]).ok();
    assert!(shown.contains("who: text, \"Ada\" when unset") && !shown.contains("s3cret"), "{shown}");

    let asked = world.cli(["task", "launch", "hello", "-d"]);
    assert!(
        asked.code == 2 && asked.stderr.contains("Be kind") && asked.stderr.contains("--yes"),
        "{asked:#?}"
    );
    // Whoever sits at a terminal is asked.
    let ask = |name, answer, said: &str| {
        let script = "\"$CASTRA\" task launch hello -d; echo \"exit $?\"";
        let window = Terminal::run(&world, name, (24, 100), script);
        window.until("launch it? [y/N]");
        window.keys(&[answer, "Enter"]);
        window.until(said);
        let page: Page<Shown> = http.get("/api/v1/tasks?label=definition%3Dhello").expect(200);
        page.items.len()
    };
    assert_eq!(ask("no", "n", "exit 1"), 0);
    assert_eq!(ask("yes", "y", "exit 0"), 1);
    let task = world.cli(["task", "launch", "hello", "who=Bob", "-d", "--yes", "--json"]).json();
    assert_eq!(
        (&task["spec"]["instructions"], &task["labels"]["definition"]),
        (&json!("Greet Bob"), &json!("hello"))
    );
    let wrong = world.cli(["task", "launch", "hello", "whom=Bob", "-d", "--yes"]);
    assert!(wrong.code == 2 && wrong.stderr.contains("whom: there is no such parameter"), "{wrong:#?}");

    // A schedule of it, and one of a file.
    let args = [
        "schedule",
        "add",
        "daily",
        "30 2 * * *",
        "--definition",
        "hello",
        "--set",
        "who=Eve",
        "--timezone",
        "Europe/Berlin",
    ];
    let added = world.cli(args);
    assert!(added.code == 0 && added.stderr.contains("02:30:00 +0"), "{added:#?}");
    std::fs::write(world.folder().join("t.yaml"), "instructions: x\n").unwrap();
    world.cli(["schedule", "add", "off", "@daily", "t.yaml", "--disabled"]).ok();
    let listed = world.cli(["schedule", "list"]).ok();
    assert!(listed.contains("Europe/Berlin") && listed.contains("off"), "{listed}");
    let id = world.cli(["schedule", "run", "daily"]).ok().trim().to_owned();
    let made: Shown = http.get(&format!("/api/v1/tasks/{id}")).expect(200);
    assert_eq!(
        (made.spec.instructions.as_deref(), made.labels["schedule"].as_str()),
        (Some("Greet Eve"), "daily")
    );
    let again = world.cli(["schedule", "run", "daily"]);
    assert!(again.code == 1 && again.stderr.contains("is not over"), "{again:#?}");
    assert!(world.cli(["schedule", "show", "daily"]).ok().contains("asked for by cli"));
    assert!(world.cli(["schedule", "enable", "off"]).ok().starts_with("off 20"));
    assert_eq!(world.cli(["schedule", "disable", "off"]).ok(), "off off\n");
    world.cli(["schedule", "rm", "off", "daily"]).ok();
    assert_eq!(world.cli(["schedule", "rm", "off"]).code, 1);
    world.cli(["task", "undefine", "hello"]).ok();
    assert_eq!(world.cli(["task", "definitions", "hello"]).code, 1);
}
